"""Why finalists that retrieve are wrong: the stage, its record, the budget and kills, and what the verdict says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import rung
from conftest import Killed, decision, events
from rung.ladder import RunOptions, run
from rung.report.html import write_report
from rung.report.terminal import final_screen
from rung.testing import FakeTrainable, Silent
from rung.types import Request

ROWS, GONE = 120, 40
ONLY = ("zero_shot", "rag")


def reader(request: Request) -> str:
    """Says the code that a passage of the prompt has for the asked name; else guesses one."""
    text = request.messages[-1].content
    name = re.findall(r"code of (\w+)\?", text)[-1]
    said = re.findall(rf"code of {name} is (K\d+)\.", text)
    return said[-1] if said else "K0"


@pytest.fixture
def models() -> Iterator[None]:
    from rung.models import OPENERS

    before = OPENERS.copy()
    rung.register_model("reader:", lambda s, say: FakeTrainable(reader, name=s, version=s))
    yield
    OPENERS[:] = before


def write_codes(folder: Path, **keys: Any) -> Path:
    """Questions about codes. The passages of every third one are not in the corpus."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ["".join("abcdefghij"[int(d)] for d in f"{i:03}") + "or" for i in range(ROWS)]
    examples = [
        {"id": f"{i}", "input": f"What is the code of {n}?", "output": f"K{1000 + 7 * i}"} for i, n in enumerate(names)
    ]
    passages = [
        {"id": f"p{i}", "text": f"The code of {n} is K{1000 + 7 * i}." if i % 3 else f"The code of {n} was changed."}
        for i, n in enumerate(names)
    ]
    for name, lines in (("examples", examples), ("corpus", passages)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = {
        "instruction": "Answer.",
        "examples": "examples.jsonl",
        "corpus": "corpus.jsonl",
        "model": "reader:one",
        **keys,
    }
    (folder / "task.yaml").write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in said.items()))
    return folder / "task.yaml"


def record_of(folder: Path, name: str = "rag") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "solutions" / name / "search_failures.json").read_text())
    return found


def final_screen_text(folder: Path) -> str:
    out = StringIO()
    Console(file=out, width=100).print(final_screen(folder))
    return out.getvalue()


@pytest.mark.usefixtures("models")
def test_the_verdict_the_report_and_the_terminal_say_why_answers_with_passages_are_wrong(tmp_path: Path) -> None:
    folder = run(write_codes(tmp_path), RunOptions(out=tmp_path / "run", only=ONLY), Silent())
    record = record_of(folder)
    (row,) = record["causes"]
    assert row["cause"] == "absent" and row["n"] == row["wrong"] == record["wrong"] > 5 and record["why"] is None
    assert {e["cause"] for e in record["examples"]} == {"absent"}
    verdict = decision(folder)
    assert verdict["search_failures"] == [row]
    assert any(
        r.startswith(f"Why rag, which reads passages, is wrong on dev ({row['n']} answers): no passage of the corpus")
        for r in verdict["reasons"]
    )
    assert any(step.startswith("Add the documents that hold the answers.") for step in verdict["next"])
    page = write_report(folder).read_text("utf-8")
    assert "Why answers with passages are wrong" in page and "no passage of the corpus holds the answer" in page
    assert "Passages: rag has" in final_screen_text(folder)


@pytest.mark.usefixtures("models")
def test_the_plan_counts_it_and_it_comes_before_the_finalists_are_named(tmp_path: Path) -> None:
    folder = run(write_codes(tmp_path), RunOptions(out=tmp_path / "run", only=ONLY), Silent())
    plan = json.loads((folder / "plan.json").read_text())
    (step,) = [s for s in plan["experiments"] if s["kind"] == "search_failures"]
    assert step["applies"] and step["calls"] > 0 and step["seconds"] > 0
    order = [(e["event"], e.get("stage", "")) for e in events(folder)]
    assert order.index(("checked", "solutions/rag/search_failures")) < [e for e, _ in order].index("finalists")
    assert (folder / "test_reads.jsonl").exists()


@pytest.mark.usefixtures("models")
def test_without_a_corpus_there_is_no_step_and_no_record(tmp_path: Path) -> None:
    task = write_codes(tmp_path)
    task.write_text("".join(line for line in task.read_text().splitlines(True) if not line.startswith("corpus")))
    folder = run(task, RunOptions(out=tmp_path / "run", only=("zero_shot",)), Silent())
    (step,) = [
        s for s in json.loads((folder / "plan.json").read_text())["experiments"] if s["kind"] == "search_failures"
    ]
    assert not step["applies"] and not list(folder.rglob("search_failures.json"))
    assert decision(folder)["search_failures"] == []


@pytest.mark.usefixtures("models")
def test_where_the_budget_has_no_room_the_causes_stand_without_what_mends_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rung.diagnosis.search_experiments import SearchCheck

    monkeypatch.setattr(SearchCheck, "calls", property(lambda self: 10**9))
    task = write_codes(tmp_path, budget={"calls": 9000})
    folder = run(task, RunOptions(out=tmp_path / "run", only=ONLY), Silent())
    record = record_of(folder)
    assert "budget" in record["why"] and record["causes"][0]["cause"] == "absent"
    assert any(
        r.startswith("What would mend the wrong answers of rag was not tried: ") for r in decision(folder)["reasons"]
    )


@pytest.mark.usefixtures("models")
def test_only_the_best_that_retrieves_is_asked_again_and_each_has_its_causes_once(tmp_path: Path) -> None:
    def trained(request: Request) -> str:
        """Reads as the base does, but for a few codes that it spoils."""
        code = reader(request)
        return "K0" if code.endswith("1") else code

    rung.register_model("worse:", lambda s, say: FakeTrainable(reader, taught=trained, name=s, version=s))
    task = write_codes(tmp_path, model="worse:one")
    folder = run(task, RunOptions(out=tmp_path / "run", only=(*ONLY, "rag_lora"), exhaustive=True), Silent())
    best, other = record_of(folder), record_of(folder, "rag_lora")
    assert best["asked_again"] and not other["asked_again"] and other["why"] is None
    assert {row["cause"] for row in other["causes"]} == {"absent", "unused"}
    assert not list((folder / "solutions/rag_lora/search_failures").glob("*.jsonl"))
    rows = [(row["solution"], row["cause"]) for row in decision(folder)["search_failures"]]
    assert len(rows) == len(set(rows)) and {name for name, _ in rows} == {"rag", "rag_lora"}


def test_a_solution_that_stands_twice_among_the_checks_has_its_rows_once(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from rung.ladder.search_failures import search_failures
    from rung.runs import Files

    files = Files(tmp_path)
    files.solution("rag").mkdir(parents=True)
    row = {"solution": "rag", "cause": "absent", "share": 1.0, "low": 0.5, "high": 1.0, "n": 9, "wrong": 9}
    record = {"answered": 20, "wrong": 9, "causes": [row], "why": "no time is left."}
    (files.solution("rag") / "search_failures.json").write_text(json.dumps(record))
    found, said = search_failures(SimpleNamespace(files=files), ["rag", "rag"])  # type: ignore[arg-type]
    assert len(found) == 1 and said == ["What would mend the wrong answers of rag was not tried: no time is left."]


@pytest.mark.usefixtures("models")
def test_a_fault_where_answers_are_looked_up_ends_nothing_and_stands_in_the_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise KeyError("a passage")

    monkeypatch.setattr("rung.diagnosis.search_experiments.places_of", broken)
    folder = run(write_codes(tmp_path), RunOptions(out=tmp_path / "run", only=ONLY), Silent())
    assert "Why rag gives wrong answers was not looked into: KeyError: 'a passage'." in decision(folder)["reasons"]
    assert decision(folder)["search_failures"] == []


@pytest.mark.usefixtures("models")
def test_killed_while_it_asks_it_goes_on_and_ends_in_the_same_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rung.diagnosis import search_experiments

    def stubborn(request: Request) -> str:
        """Ignores half of what it reads."""
        code = reader(request)
        return code if int(code[1:]) % 2 else "K0"

    rung.register_model("stubborn:", lambda s, say: FakeTrainable(stubborn, name=s, version=s))
    whole = run(
        write_codes(tmp_path / "a", model="stubborn:one"), RunOptions(out=tmp_path / "whole", only=ONLY), Silent()
    )
    real = search_experiments.try_all

    def once_killed(workshop: Any, trials: Any) -> Any:
        real(workshop, trials[:1])
        raise Killed

    out = tmp_path / "run"
    task = write_codes(tmp_path / "b", model="stubborn:one")
    monkeypatch.setattr(search_experiments, "try_all", once_killed)
    with pytest.raises(Killed):
        run(task, RunOptions(out=out, only=ONLY), Silent())
    assert not (out / "solutions/rag/search_failures.json").exists()
    first = (out / "solutions/rag/search_failures/gold.jsonl").read_bytes()
    monkeypatch.setattr(search_experiments, "try_all", real)
    run(task, RunOptions(out=out, only=ONLY), Silent())
    assert (out / "solutions/rag/search_failures/gold.jsonl").read_bytes() == first
    assert record_of(out) == record_of(whole)
    assert {row["cause"] for row in record_of(out)["causes"]} == {"absent", "unused"}
