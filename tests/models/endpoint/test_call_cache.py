"""The call cache: what was put is there, after a kill too, whoever else uses the file."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from rung.errors import ModelError
from rung.models.endpoint import call_cache
from rung.models.endpoint.call_cache import CallCache
from rung.models.endpoint.journal import CacheJournal

ANSWER = {
    "text": "grüße 🙂\n",
    "tokens_in": 312,
    "tokens_out": 3,
    "usd": 0.000123,
    "served": "m-2026",
    "first_token_s": None,
}

PUTS = """
import sys
from pathlib import Path
from rung.models.endpoint.call_cache import CallCache
cache = CallCache(Path(sys.argv[1]))
for number in range(int(sys.argv[3])):
    key = f"{sys.argv[2]}-{number}"
    cache.put(key, {"text": "x" * 300, "number": number})
    sys.stdout.write(key + "\\n")
    sys.stdout.flush()
if sys.argv[4:] == ["close"]:
    cache.close()
"""


def key_of(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "calls.sqlite"


def started(path: Path, name: str, count: int, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PUTS, str(path), name, str(count), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def opened(path: Path, **how: Any) -> contextlib.closing[CallCache]:
    return contextlib.closing(CallCache(path, **how))


def test_what_was_put_is_found_before_and_after_it_is_committed_and_when_opened_again(path: Path) -> None:
    with opened(path) as cache:
        cache.put(key_of(1), ANSWER)
        assert cache.get([key_of(1), key_of(2)]) == {key_of(1): ANSWER}
        cache.flush()
        assert cache.get([key_of(1)]) == {key_of(1): ANSWER} and cache.get([]) == {}
        cache.put(key_of(1), {"text": "newer"})
        assert cache.get([key_of(1)]) == {key_of(1): {"text": "newer"}}
    with opened(path) as cache:
        assert cache.get([key_of(1)]) == {key_of(1): {"text": "newer"}}


def test_thousands_of_keys_are_asked_for_at_once(path: Path) -> None:
    keys = [key_of(i) for i in range(5000)]
    with opened(path) as cache:
        for number, key in enumerate(keys[:4000]):
            cache.put(key, {"number": number})
        cache.flush()
        started = time.process_time()
        found = cache.get(keys)
        assert time.process_time() - started < 1.0
        assert [found[key]["number"] for key in keys[:4000]] == list(range(4000)) and len(found) == 4000


def test_a_put_is_cheap(path: Path) -> None:
    keys = [key_of(i) for i in range(5000)]
    with opened(path) as cache:
        started = time.process_time()
        for key in keys:
            cache.put(key, ANSWER)
        cache.flush()
        assert time.process_time() - started < 0.5, "it takes about 0.07 s"


def test_the_thread_commits_without_being_told(path: Path) -> None:
    with opened(path) as cache:
        for number in range(3):
            cache.put(key_of(number), ANSWER)
            deadline = time.monotonic() + 5
            while cache._pending or cache._moving:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        with contextlib.closing(sqlite3.connect(path)) as database:
            assert database.execute("SELECT count(*) FROM calls").fetchone() == (3,)


def test_no_answer_that_was_put_is_lost_over_ten_kills(path: Path) -> None:
    put: list[str] = []
    for kill in range(10):
        process = started(path, f"run{kill}", 10**6)
        assert process.stdout is not None
        put.append(process.stdout.readline().strip())
        time.sleep(random.Random(kill).uniform(0.0, 0.12))
        os.kill(process.pid, signal.SIGKILL)
        put += [line.strip() for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        process.stdout.close()
        process.wait()
    with opened(path) as cache:
        found = cache.get(put)
        assert len(put) > 100 and set(put) == set(found)
    assert {p.name for p in path.parent.iterdir()} <= {path.name, f"{path.name}.lock"}


def test_two_processes_use_one_file_at_once(path: Path) -> None:
    """The second ends without closing: its journal is read at the next opening."""
    processes = [started(path, "a", 1500, "close"), started(path, "b", 1500)]
    with opened(path) as cache:
        for number in range(300):
            cache.put(f"c-{number}", ANSWER)
        for process in processes:
            assert process.communicate(timeout=60)[0].count("\n") == 1500 and process.returncode == 0
    keys = [*(f"{name}-{i}" for name in "ab" for i in range(1500)), *(f"c-{i}" for i in range(300))]
    with opened(path) as cache:
        assert set(cache.get(keys)) == set(keys)


def test_the_journal_of_a_cache_that_is_open_is_left_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_cache, "_EVERY_S", 60.0)
    with opened(path) as first:
        first.put(key_of(1), ANSWER)
        with opened(path) as second:
            assert second.get([key_of(1)]) == {}, "it is not committed yet"
        assert any(p.stat().st_size for p in path.parent.glob("*.[ab]"))
        first.flush()
        assert first.get([key_of(1)]) == {key_of(1): ANSWER}
        with opened(path) as second:
            assert second.get([key_of(1)]) == {key_of(1): ANSWER}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_leaves_the_journal_of_its_parent_alone(path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from rung.models.endpoint import call_cache
call_cache._EVERY_S = 3600.0
cache = call_cache.CallCache(Path(sys.argv[1]))
cache.put("first", {"text": "1"})
read, write = os.pipe()
child = os.fork()
if child == 0:
    os.read(read, 1)
    cache.close()
    os._exit(0)
cache.put("second", {"text": "2"})
os.write(write, b"x")
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
os._exit(code)  # as a kill: nothing is flushed
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(path)], timeout=60)
    with opened(path) as cache:
        assert set(cache.get(["first", "second"])) == {"first", "second"} and done.returncode == 0


def test_a_torn_line_of_a_journal_costs_no_other_line(path: Path) -> None:
    path.parent.mkdir()
    half = path.with_name(f"{path.name}.abc.a")
    lines = [f"{key_of(i)} {json.dumps(ANSWER)}" for i in range(3)]
    half.write_text("\n".join([lines[0], lines[1][:-9], lines[2], lines[0][:70]]))
    with opened(path) as cache:
        assert set(cache.get([key_of(i) for i in range(3)])) == {key_of(0), key_of(2)}
    assert not half.exists()


def test_files_are_for_their_owner_alone(path: Path) -> None:
    old = os.umask(0)
    try:
        with opened(path) as cache:
            cache.put(key_of(1), ANSWER)
            cache.flush()
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            files = list(path.parent.iterdir())
            assert len(files) >= 6 and {stat.S_IMODE(p.stat().st_mode) for p in files} == {0o600}
    finally:
        os.umask(old)


@pytest.mark.parametrize("content", [b"no database at all " * 500, b"SQLite format 3\0" + bytes(4080)])
def test_a_damaged_file_is_renamed_and_said(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    said: list[str] = []
    with opened(path, say=said.append) as cache:
        cache.put(key_of(1), ANSWER)
        assert cache.get([key_of(1)]) == {key_of(1): ANSWER}
    (aside,) = path.parent.glob("*.damaged-*")
    assert aside.read_bytes() == content and aside.name in said[0] and len(said) == 1


@pytest.mark.parametrize("statement", ["CREATE TABLE calls (a)", "PRAGMA user_version = 99"])
def test_a_file_of_another_program_or_version_is_renamed_and_kept_as_it_is(path: Path, statement: str) -> None:
    with opened(path) as cache:
        cache.set_fact("a", {})
    if statement.startswith("CREATE"):
        path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(statement)
    before, said = path.read_bytes(), []
    with opened(path, say=said.append) as cache:
        assert cache.get([key_of(1)]) == {}
    (aside,) = path.parent.glob("*.damaged-*")
    assert aside.read_bytes() == before and "another program or version" in said[0]


def test_damage_that_shows_later_costs_no_answer_that_is_new(path: Path) -> None:
    with opened(path) as cache:
        for number in range(2000):
            cache.put(key_of(number), ANSWER)
    content = bytearray(path.read_bytes())
    content[6 * 4096 :] = b"\xff" * (len(content) - 6 * 4096)  # pages behind those that are read at the opening
    path.write_bytes(content)
    said: list[str] = []
    with opened(path, say=said.append) as cache:
        cache.get([key_of(number) for number in range(2000)])
        cache.put(key_of(7), {"text": "asked again"})
        cache.flush()
        assert cache.get([key_of(7)]) == {key_of(7): {"text": "asked again"}}
        assert len(said) == 1 and "was renamed" in said[0]
    assert len(list(path.parent.glob("*.damaged-????????"))) == 1


def test_answers_wait_in_the_journal_while_the_file_cannot_be_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_cache, "_BUSY_S", 0.01)
    monkeypatch.setattr(call_cache, "_FAILED_S", 0.05)
    said: list[str] = []
    cache = CallCache(path, say=said.append)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        cache.put(key_of(1), ANSWER)
        with pytest.raises(ModelError, match="database is locked"):
            cache.flush()
        cache.put(key_of(2), ANSWER)
        assert set(cache.get([key_of(1), key_of(2)])) == {key_of(1), key_of(2)}
        cache.close()
        assert said and "answers wait in calls.sqlite." in said[-1]
    with opened(path) as again:
        assert set(again.get([key_of(1), key_of(2)])) == {key_of(1), key_of(2)}


@pytest.mark.parametrize("short", [True, False])
def test_a_full_disk_is_an_error_and_spoils_no_other_answer(
    path: Path, monkeypatch: pytest.MonkeyPatch, short: bool
) -> None:
    with opened(path) as cache:
        cache.put(key_of(1), ANSWER)
        write = os.write

        def full(file: int, line: bytes) -> int:
            if short:
                return write(file, line[:40])
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patched, pytest.raises(ModelError, match=r"calls\.sqlite.*No space.*Make room"):
            patched.setattr(os, "write", full)
            cache.put(key_of(2), ANSWER)
        cache.put(key_of(3), ANSWER)
        lines = [line for half in path.parent.glob("*.[ab]") for line in half.read_bytes().splitlines()]
        assert all(line.endswith(b"}") for line in lines)
    with opened(path) as cache:
        assert set(cache.get([key_of(i) for i in range(4)])) == {key_of(1), key_of(3)}


def test_a_folder_that_cannot_be_made_is_an_error_with_a_next_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match=r"answers cannot be kept or read there.*RUNG_CACHE"):
        CallCache(tmp_path / "file" / "calls.sqlite")


def test_facts_and_jobs_are_kept_until_they_are_replaced_or_dropped(path: Path) -> None:
    with opened(path) as cache:
        assert cache.facts("limits") == {} and cache.jobs() == {}
        cache.set_fact("limits", {"in_flight": 8})
        cache.set_fact("limits", {"in_flight": 64})
        cache.add_job("batch_2", {"keys": [key_of(1)], "state": "sent"})
        cache.add_job("batch_1", {"keys": [key_of(2)], "state": "sent"})
        cache.add_job("batch_2", {"keys": [key_of(1)], "state": "done"})
    with opened(path) as cache:
        assert cache.facts("limits") == {"in_flight": 64}
        assert list(cache.jobs().items()) == [
            ("batch_2", {"keys": [key_of(1)], "state": "done"}),
            ("batch_1", {"keys": [key_of(2)], "state": "sent"}),
        ]
        cache.drop_job("batch_2")
        cache.drop_job("none")
        assert list(cache.jobs()) == ["batch_1"]


def test_threads_share_a_cache(path: Path) -> None:
    with opened(path) as cache:

        def work(name: int) -> None:
            for number in range(300):
                cache.put(f"{name}-{number}", {"n": number})
                assert cache.get([f"{name}-{number}"])
                if number % 100 == 0:
                    cache.flush()

        threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(cache.get([f"{name}-{number}" for name in range(4) for number in range(300)])) == 1200


def test_a_closed_cache_takes_no_answers_and_leaves_no_journal(path: Path) -> None:
    cache = CallCache(path)
    cache.put(key_of(1), ANSWER)
    cache.close()
    cache.close()
    with pytest.raises(RuntimeError, match="closed"):
        cache.put(key_of(2), ANSWER)
    assert list(CacheJournal.left_behind(path)) == [] and {p.name for p in path.parent.iterdir()} <= {
        path.name,
        f"{path.name}.lock",
    }
