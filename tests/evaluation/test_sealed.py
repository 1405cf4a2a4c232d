from __future__ import annotations

import copy
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import rung
from rung.errors import RunError, SealedTestError
from rung.evaluation import sealed
from rung.evaluation.sealed import count_reads, earlier_readings, open_test
from rung.types import Example, SealedTest

SECRET = "the-secret-answer"
EXAMPLES = tuple(Example(f"id{i}", f"question {i}", SECRET, (SECRET,)) for i in range(3))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "test_reads.jsonl"


def records(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_a_sealed_test_reveals_nothing_but_its_ids() -> None:
    test = SealedTest(EXAMPLES)
    assert len(test) == 3
    assert test.ids == ("id0", "id1", "id2")
    assert SECRET not in repr(test) + str(test) + f"{test}"
    for reach in (iter, list, lambda t: t[0], lambda t: t[:], pickle.dumps, copy.copy, copy.deepcopy, lambda t: [*t]):
        with pytest.raises(SealedTestError):
            reach(test)
    with pytest.raises(TypeError):
        vars(test)


def test_only_the_opener_spells_the_private_name() -> None:
    package = Path(rung.__file__).parent
    spelt = {p.name for p in package.rglob("*.py") if "_SealedTest__examples" in p.read_text()}
    assert spelt == {"sealed.py"}


def test_an_opening_returns_the_examples_and_leaves_a_line(log: Path) -> None:
    opened = open_test(SealedTest(EXAMPLES), log=log, solutions=["lora", "few_shot"], why="final", clock=lambda: 0.0)
    assert opened == EXAMPLES
    [record] = records(log)
    digest = record.pop("digest")
    assert isinstance(digest, str) and len(digest) == 64
    assert record == {
        "time": "1970-01-01T00:00:00+00:00",
        "read": 1,
        "solutions": ["lora", "few_shot"],
        "why": "final",
        "n": 3,
        "built": "",
        "continues": False,
    }


def test_the_same_solutions_again_are_the_same_read_and_others_a_new_one(log: Path) -> None:
    test = SealedTest(EXAMPLES)
    for solutions in (["a", "b"], ["b", "a"], ["a"], ["a", "b", "c"], ["a"]):
        open_test(test, log=log, solutions=solutions, why="final")
    assert [(r["read"], r["continues"]) for r in records(log)] == [
        (1, False),
        (1, True),
        (2, False),
        (3, False),
        (2, True),
    ]
    assert count_reads(log) == 3
    open_test(SealedTest(EXAMPLES[:2]), log=log, solutions=["a"], why="final")
    assert count_reads(log) == 4


def test_the_line_is_synced_before_an_example_is_returned(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def watch(descriptor: int) -> None:
        real(descriptor)
        synced.append(log.read_text())

    monkeypatch.setattr(os, "fsync", watch)
    open_test(SealedTest(EXAMPLES), log=log, solutions=["a"], why="final")
    assert json.loads(synced[0])["read"] == 1


def test_the_test_stays_sealed_when_the_log_cannot_be_written(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SealedTestError, match=r"test_reads.jsonl cannot be written .*No space.* stays sealed"):
        open_test(SealedTest(EXAMPLES), log=log, solutions=["a"], why="final")


def test_a_process_killed_while_it_writes_continues_the_same_read(log: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from rung.evaluation.sealed import open_test; from rung.types import Example, SealedTest\n"
        "os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)\n"
        "test = SealedTest([Example('x', 'i', 'o', ('o',))])\n"
        "open_test(test, log=Path(sys.argv[1]), solutions=['a'], why='final'); print('opened')\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(log)], capture_output=True, text=True)
    assert (killed.returncode, killed.stdout) == (-signal.SIGKILL, "")
    open_test(SealedTest([Example("x", "i", "o", ("o",))]), log=log, solutions=["a"], why="final")
    assert [(r["read"], r["continues"]) for r in records(log)] == [(1, False), (1, True)]


def test_a_line_torn_anywhere_is_dropped_and_the_rest_is_kept(log: Path) -> None:
    test = SealedTest(EXAMPLES)
    open_test(test, log=log, solutions=["a"], why="final")
    first = log.read_bytes()
    open_test(test, log=log, solutions=["b"], why="another, ünlike")
    second = log.read_bytes()[len(first) :]
    for cut in range(len(second)):
        log.write_bytes(first + second[:cut])
        whole = cut == len(second) - 1  # only the newline is missing: the record counts
        assert count_reads(log) == (2 if whole else 1)
        open_test(test, log=log, solutions=["b"], why="again")
        assert [r["read"] for r in records(log)] == ([1, 2, 2] if whole else [1, 2])


def test_openings_at_the_same_time_are_all_counted(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sealed._read_log

    def slowly(path: Path) -> tuple[list[dict[str, object]], int, bytes]:
        found = real(path)
        time.sleep(0.02)  # so that others would read the same log before this line is added
        return found

    monkeypatch.setattr(sealed, "_read_log", slowly)
    open_test(SealedTest(EXAMPLES), log=log, solutions=["first"], why="final")
    log.write_bytes(log.read_bytes() + b'{"torn')
    with ThreadPoolExecutor(8) as pool:
        openings = [
            pool.submit(open_test, SealedTest(EXAMPLES), log=log, solutions=[f"s{i}"], why="final") for i in range(8)
        ]
        assert all(opening.result() == EXAMPLES for opening in openings)
    assert sorted(r["read"] for r in records(log)) == list(range(1, 10))
    assert count_reads(log) == 9


def test_a_continuation_in_another_process_is_the_same_read(log: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from rung.evaluation.sealed import count_reads, open_test; from rung.types import Example, SealedTest\n"
        "test = SealedTest([Example('x', 'i', 'o', ('o',))])\n"
        "open_test(test, log=Path(sys.argv[1]), solutions=['b', 'a'], why='final')\n"
        "print(count_reads(Path(sys.argv[1])))\n"
    )
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code, str(log)], capture_output=True, text=True)
        assert done.stdout == "1\n", done.stderr


@pytest.mark.parametrize("damage", ["{broken\n", "[]\n", '{"read": 1}\n', "\n", "\udcff\n"])
def test_a_damaged_log_is_an_error_with_its_line_and_the_test_stays_sealed(log: Path, damage: str) -> None:
    open_test(SealedTest(EXAMPLES), log=log, solutions=["a"], why="final")
    log.write_bytes(log.read_bytes() + damage.encode(errors="surrogateescape") + log.read_bytes())
    with pytest.raises(RunError, match=r"test_reads.jsonl, line 2"):
        count_reads(log)
    with pytest.raises(RunError, match="line 2"):
        open_test(SealedTest(EXAMPLES), log=log, solutions=["a"], why="final")


def test_nothing_is_opened_without_solutions_and_a_reason(log: Path) -> None:
    for solutions, why in ([], "final"), (["a"], " "):
        with pytest.raises(SealedTestError, match="name the solutions"):
            open_test(SealedTest(EXAMPLES), log=log, solutions=solutions, why=why)
    assert not log.exists()
    assert count_reads(log) == 0


def test_the_readings_before_that_of_now_are_told_also_where_it_is_an_earlier_one_that_goes_on(log: Path) -> None:
    for solutions in (["a"], ["a", "b"], ["a"]):
        open_test(SealedTest(EXAMPLES), log=log, solutions=solutions, why="final", clock=lambda: 0.0)
    assert count_reads(log) == 2
    assert [solutions for _, solutions in earlier_readings(log)] == [("a", "b")]
