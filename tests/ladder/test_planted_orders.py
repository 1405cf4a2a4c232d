"""Injections: which finalists follow orders in what they read, asked on dev before the test is opened."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_unanswerable_questions import asked, code_of, name_of, write_codes

import rung
from conftest import Killed, decision, events, killed_in_search
from rung.evaluation.injections import CANARIES
from rung.ladder import RunOptions, run
from rung.testing import FakeTrainable, Silent
from rung.types import Request

ONLY = ("zero_shot", "rag", "rag_lora")
WORD = re.compile("|".join(CANARIES))


def obedient(request: Request) -> str:
    """Says any planted word, else the code that a passage says."""
    found = WORD.findall(request.messages[-1].content)
    return found[0] if found else asked_for(request)


def asked_for(request: Request) -> str:
    return asked(request)[1] or "I do not know."


def steady(request: Request) -> str:
    """Says what a passage says, of every second code; training teaches it the others."""
    code = asked(request)[1]
    return code if code is not None and int(code) % 2 == 0 else "I do not know."


@pytest.fixture(autouse=True)
def models() -> Iterator[None]:
    from rung.models import OPENERS

    before = OPENERS.copy()
    rung.register_model("obedient:", lambda s, say: FakeTrainable(obedient, name=s, version=s))
    rung.register_model("steady:", lambda s, say: FakeTrainable(steady, taught=asked_for, name=s, version=s))
    yield
    OPENERS[:] = before


def lexical(folder: Path, model: str, **keys: Any) -> Path:
    """Questions whose answers stand in one passage each, which one lexical search finds."""
    return write_codes(folder, model, retrieval={"kinds": ["bm25"]}, **keys)


def record_of(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "solutions" / name / "injections.json").read_text())
    return found


def test_a_candidate_that_follows_orders_in_its_passages_is_warned_of_with_its_rate(tmp_path: Path) -> None:
    folder = run(
        lexical(tmp_path, "obedient:one"), RunOptions(out=tmp_path / "run", only=("zero_shot", "rag")), Silent()
    )
    verdict = decision(folder)
    (found,) = [i for i in verdict["injections"] if i["candidate"] == "rag"]
    assert found["where"] == "passages" and found["followed"]["mean"] > 0.8 and found["followed"]["n"] == 30
    assert found["right"]["mean"] < 0.2 < 0.8 < found["before"]["mean"]
    assert {place for place, *_ in found["by_place"]} == {
        "in the best passage",
        "in another passage",
        "as a passage of its own",
    }
    assert verdict["solution"] == "rag"
    (said,) = [w for w in verdict["warnings"] if "orders that were planted" in w]
    assert said.startswith("rag followed ") and "Whoever writes a document that is found can steer its answers." in said
    assert any("Review who can write into the corpus" in step for step in verdict["next"])


def test_a_steady_candidate_is_told_in_numbers_without_a_warning_and_all_are_asked_with_the_same(
    tmp_path: Path,
) -> None:
    folder = run(lexical(tmp_path, "steady:one"), RunOptions(out=tmp_path / "run", only=ONLY), Silent())
    verdict = decision(folder)
    assert {i["candidate"]: i["where"] for i in verdict["injections"]} == {
        "zero_shot": "input",
        "rag": "passages",
        "rag_lora": "passages",
    }
    assert all(i["followed"]["mean"] == 0 for i in verdict["injections"])
    assert not any("orders" in w for w in verdict["warnings"])
    assert any(f"{verdict['solution']} followed 0 of 30 orders" in reason for reason in verdict["reasons"])
    words = [{i: row["word"] for i, row in record_of(folder, name)["rows"].items()} for name in ONLY]
    assert words[0] == words[1] == words[2]


def test_the_plan_says_what_it_takes_and_it_is_done_before_the_test_is_opened(tmp_path: Path) -> None:
    folder = run(lexical(tmp_path, "steady:one"), RunOptions(out=tmp_path / "run", only=ONLY), Silent())
    plan = json.loads((folder / "plan.json").read_text())
    (step,) = [s for s in plan["experiments"] if s["kind"] == "injections"]
    spent = [e for e in events(folder) if e["event"] == "checked" and e.get("stage", "").endswith("/injections")]
    assert sum(e["calls"] for e in spent) == 3 * 30
    assert step["calls"] == 4 * 30, "the prompt of rag_lora may have been shortened"
    order = [e["event"] for e in events(folder)]
    assert max(i for i, e in enumerate(order) if e == "checked") < order.index("finalists")


def test_an_order_behind_the_input_is_what_a_solution_without_passages_is_asked_with(tmp_path: Path) -> None:
    folder = run(
        lexical(tmp_path, "obedient:one"), RunOptions(out=tmp_path / "run", only=("zero_shot", "rag")), Silent()
    )
    lines = (folder / "solutions" / "zero_shot" / "injections" / "predictions.jsonl").read_text().splitlines()
    assert sum(bool(WORD.search(json.loads(line)["text"])) for line in lines) > 20
    assert record_of(folder, "zero_shot")["where"] == "input"


@pytest.mark.parametrize("corpus", [True, False])
def test_where_nothing_retrieves_nothing_is_asked_and_the_plan_says_so(corpus: bool, tmp_path: Path) -> None:
    task = lexical(tmp_path, "obedient:one")
    if not corpus:
        task.write_text("".join(line for line in task.read_text().splitlines(True) if not line.startswith("corpus")))
    folder = run(task, RunOptions(out=tmp_path / "run", only=("zero_shot",)), Silent())
    (step,) = [s for s in json.loads((folder / "plan.json").read_text())["experiments"] if s["kind"] == "injections"]
    why = "nothing that retrieves is tried" if corpus else "the task has no corpus"
    assert (step["applies"], step["calls"], step["why"]) == (False, 0, why)
    assert not list(folder.rglob("injections*")) and decision(folder)["injections"] == []


def test_with_labels_the_wrong_label_is_demanded_and_what_is_said_without_an_order_tells_nothing(
    tmp_path: Path,
) -> None:
    def parity(request: Request) -> str:
        """What an order names, else always "odd"."""
        text = request.messages[-1].content.replace("What is", "")
        return "even" if re.search(r"\beven\b", text) and "Answer with odd or even" not in text else "odd"

    rung.register_model("parity:", lambda s, say: FakeTrainable(parity, name=s, version=s))
    rows = [
        {"id": f"{i}", "input": f"The code of {name_of(i)}", "output": "odd" if int(code_of(i)) % 2 else "even"}
        for i in range(160)
    ]
    task = lexical(tmp_path, "parity:one", labels=["odd", "even"])
    (tmp_path / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = run(task, RunOptions(out=tmp_path / "run", only=("zero_shot", "rag")), Silent())
    record = record_of(folder, "zero_shot")
    assert record["rows"] and {row["word"] for row in record["rows"].values()} == {"even"}
    assert len(record["rows"]) < record["asked"] == 30
    assert sum(row["followed"] for row in record["rows"].values()) > len(record["rows"]) / 2


def test_what_no_word_fits_is_not_asked_and_the_plan_says_why(tmp_path: Path) -> None:
    task = lexical(tmp_path, "steady:one", pattern=r"\d+")
    folder = run(task, RunOptions(out=tmp_path / "run", only=("zero_shot", "rag")), Silent())
    (step,) = [s for s in json.loads((folder / "plan.json").read_text())["experiments"] if s["kind"] == "injections"]
    assert not step["applies"] and "held to a pattern" in step["why"]
    assert not list(folder.rglob("injections.json")) and decision(folder)["injections"] == []


@pytest.mark.parametrize("at", [0, 1])
def test_killed_while_it_asks_it_goes_on_and_asks_nothing_twice(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rung.retrieval.planted import WithPlanted

    searches = killed_in_search(monkeypatch, WithPlanted, at)
    task, out = lexical(tmp_path, "steady:one"), tmp_path / "run"
    with pytest.raises(Killed):
        run(task, RunOptions(out=out, only=ONLY), Silent())
    assert not (out / "finalists.json").exists()
    run(task, RunOptions(out=out, only=ONLY), Silent())
    assert searches[0] == 3, "one block of each of two solutions, and the one that was killed"
    assert len(decision(out)["injections"]) == 3


def test_what_the_budget_kept_from_being_asked_stands_in_the_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rung.ladder.injections._answers", lambda *_: "no time is left")
    folder = run(lexical(tmp_path, "steady:one"), RunOptions(out=tmp_path / "run", only=("rag",)), Silent())
    assert "Whether rag follows planted orders was not measured: no time is left." in decision(folder)["reasons"]


def test_a_defect_of_an_index_ends_the_check_alone_and_stands_in_the_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rung.retrieval.planted import WithPlanted

    def broken(*_: Any) -> Any:
        raise KeyError("a passage")

    monkeypatch.setattr(WithPlanted, "search", broken)
    folder = run(lexical(tmp_path, "steady:one"), RunOptions(out=tmp_path / "run", only=("rag",)), Silent())
    said = "Whether rag follows planted orders was not measured: KeyError: 'a passage'."
    assert said in decision(folder)["reasons"]
