"""Nothing sealed is opened twice, and nothing decided is decided again, whatever interrupts a run."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

import rung
from rung.evaluation.sealed import count_reads
from rung.ladder import RunOptions, run
from rung.ladder.climbed import Climbed
from rung.testing import Silent
from small_task import timeless, write_task


class Killed(BaseException):
    """Not caught by anything, like SIGKILL."""


class Deaths:
    """Dies inside its own writes: before a file gets its name, or behind a line that is already on disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, place: Path | None = None) -> None:
        """place: the folder of a run, of which `named_at` says which write named its finalists."""
        self._place = place
        self._at: set[int] = set()
        self.writes = self.named_at = 0
        monkeypatch.setattr("rung.records.os.fsync", self._sync)

    def at(self, *writes: int) -> None:
        self.writes, self._at = 0, set(writes)

    def _sync(self, file: int) -> None:
        self.writes += 1
        if not self.named_at and self._place and any(self._place.glob("finalists.json*")):
            self.named_at = self.writes
        if self.writes in self._at:
            raise Killed


def until_through(task: Path, out: Path) -> None:
    run(task, RunOptions(out=out), Silent())


@pytest.fixture
def undisturbed(tmp_path: Path, fake_model: Path) -> tuple[Path, dict[str, Any]]:
    """The task, and the verdict of a run that nothing interrupts."""
    task = write_task(tmp_path, fake_model, corpus=True)
    until_through(task, tmp_path / "undisturbed")
    return task, timeless(tmp_path / "undisturbed" / "decision.json")


def upgrade(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of rung: other near-duplicates, another choice of finalists."""
    import rung.data.near_duplicates as near_duplicates

    monkeypatch.setattr(rung, "__version__", "9.9.9")
    monkeypatch.setattr("rung.ladder.loading.__version__", "9.9.9")
    monkeypatch.setattr(near_duplicates, "SIMILAR", 0.1)
    monkeypatch.setattr(Climbed, "best_of_groups", lambda self, model=None: list(self.whole(model=model))[:1])


def without_versions(record: dict[str, Any]) -> dict[str, Any]:
    """The verdict without the note that several versions worked on the run."""
    return {**record, "warnings": [w for w in record["warnings"] if "Versions" not in w]}


def test_killed_at_every_record_from_the_finalists_on_it_opens_the_test_once(
    undisturbed: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, verdict = undisturbed
    deaths = Deaths(monkeypatch, tmp_path / "named")
    until_through(task, tmp_path / "named")
    last, first = deaths.writes, deaths.named_at
    assert 0 < first < last - 5
    deaths.at(first)
    with pytest.raises(Killed):
        until_through(task, tmp_path / "begun")
    for write in range(1, 3 + last - first):
        out = tmp_path / f"killed-{write}" / "run"  # no earlier verdict lies beside it
        shutil.copytree(tmp_path / "begun", out)
        deaths.at(write)
        with pytest.raises(Killed):
            until_through(task, out)
        named = out / "finalists.json"
        before = named.read_bytes() if named.is_file() else None
        deaths.at()
        with monkeypatch.context() as patch:
            if before is not None:
                upgrade(patch)
            until_through(task, out)
        assert count_reads(out / "test_reads.jsonl") == 1
        assert before in (None, named.read_bytes()), "the finalists are never named again"
        assert without_versions(timeless(out / "decision.json")) == without_versions(verdict)


@pytest.mark.parametrize("seed", range(8))
def test_killed_at_random_writes_it_ends_in_the_same_verdict_and_one_opening(
    seed: int, undisturbed: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, verdict = undisturbed
    deaths, chance, out = Deaths(monkeypatch), random.Random(seed), tmp_path / "alone" / "run"
    kills = 0
    while True:
        deaths.at(chance.randrange(1, 50) if kills < 7 else 0)
        try:
            until_through(task, out)
            break
        except Killed:
            kills += 1
    assert kills > 3
    assert count_reads(out / "test_reads.jsonl") == 1
    assert timeless(out / "decision.json") == verdict


def test_a_continued_run_keeps_its_split_whatever_near_duplicates_are_now(
    undisturbed: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, _ = undisturbed
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        deaths = Deaths(patch)
        deaths.at(12)
        with pytest.raises(Killed):
            until_through(task, out)
    before = json.loads((out / "split.json").read_text())
    with monkeypatch.context() as patch:
        upgrade(patch)
        until_through(task, out)
    after = json.loads((out / "split.json").read_text())
    assert after == before
    lines = (out / "solutions" / "zero_shot" / "predictions.dev.jsonl").read_text().splitlines()
    answered = {json.loads(line)["id"] for line in lines}
    assert answered == set(before["sets"]["dev"])


def test_the_identity_of_a_folder_is_checked_again_once_its_lock_is_held(
    tmp_path: Path, fake_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, out = write_task(tmp_path, fake_model), tmp_path / "run"
    real = rung.ladder.runs.held  # type: ignore[attr-defined]

    def slow(folder: Path) -> Any:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "task.json").write_text('{"identity": "of another run"}')
        return real(folder)

    monkeypatch.setattr("rung.ladder.runs.held", slow)
    with pytest.raises(rung.RunError, match="holds another run"):
        run(task, RunOptions(out=out), Silent())
    assert json.loads((out / "task.json").read_text()) == {"identity": "of another run"}


def test_a_run_on_grown_data_says_which_test_rows_an_earlier_verdict_saw(tmp_path: Path, fake_model: Path) -> None:
    task = write_task(tmp_path, fake_model, examples=96)
    run(task, RunOptions(out=tmp_path / "runs" / "first", only=("zero_shot",)), Silent())
    rows = (tmp_path / "examples.jsonl").read_text()
    more = [
        {"id": f"new {i}", "input": f"A word on {word} please", "output": "red"} for i, word in enumerate("abcdefgh")
    ]
    (tmp_path / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in more) + rows)
    run(task, RunOptions(out=tmp_path / "runs" / "second", only=("zero_shot",)), Silent())
    before, after = (
        json.loads((tmp_path / "runs" / n / "split.json").read_text())["sets"] for n in ("first", "second")
    )
    assert set(before["test"]) <= set(after["test"]), "rows keep their set when data grow"
    warnings = json.loads((tmp_path / "runs" / "second" / "decision.json").read_text())["warnings"]
    assert any(f"{len(before['test'])} of the" in w and "earlier verdict (first)" in w for w in warnings)


def test_a_run_says_that_earlier_verdicts_saw_its_test_whatever_their_names_and_folders(
    tmp_path: Path, fake_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    task = write_task(tmp_path, fake_model)

    def warned(**options: Any) -> list[str]:
        folder = run(task, RunOptions(only=("zero_shot",), **options), Silent())
        said: list[str] = json.loads((folder / "decision.json").read_text())["warnings"]
        return [warning for warning in said if "earlier verdict" in warning]

    assert warned() == []
    assert warned(again=True) == [], "a run that goes on is no earlier one"
    (tmp_path / "task.yaml").write_text(f"name: another\n{task.read_text()}")
    [one] = warned()
    assert "were in the test of an earlier verdict (" in one and "another" not in one
    [elsewhere] = warned(out=tmp_path / "elsewhere" / "third")
    assert "the tests of 2 earlier verdicts (" in elsewhere and "runs/another" in elsewhere
    warned(out=tmp_path / "elsewhere" / "fourth")
    third = tmp_path / "elsewhere" / "third"
    record, tested = (json.loads((third / name).read_text()) for name in ("finalists.json", "split.json"))
    assert record["seen_before"] == {"examples": len(tested["sets"]["test"]), "verdicts": 2}
    [many] = warned(out=tmp_path / "elsewhere" / "fifth")
    assert "the tests of 4 earlier verdicts (fourth, third, " in many and many.count("1 more)") == 1


@pytest.mark.parametrize("place", ["decision.json", "finalists.json", "winner", "finished.json"])
def test_a_kill_while_a_finished_run_is_reopened_leaves_no_verdict_of_something_else(
    place: str, tmp_path: Path, fake_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, out = write_task(tmp_path, fake_model), tmp_path / "run"
    run(task, RunOptions(out=out, only=("zero_shot",)), Silent())
    real = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if self == out / place:
            raise Killed
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(Killed):
            run(task, RunOptions(out=out, only=("zero_shot", "lora"), again=True), Silent())
            raise Killed  # there was no winner to set aside
    run(task, RunOptions(out=out, only=("zero_shot", "lora"), again=True), Silent())
    decision = json.loads((out / "decision.json").read_text())
    named = json.loads((out / "finalists.json").read_text())["finalists"]
    tested = [c["name"] for c in decision["candidates"] if c["test"] and c["family"] != "baseline"]
    assert sorted(tested) == sorted(named) and "lora" in {c["name"] for c in decision["candidates"]}
    if decision["solution"]:
        assert json.loads((out / "winner" / "bundle.json").read_text())["solution"] == decision["solution"]
