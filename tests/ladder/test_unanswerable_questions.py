"""Abstention: what finalists make up where nothing can be answered, asked on dev before the test is opened."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import rung
from conftest import Killed, decision, events, killed_in_search
from rung.errors import BudgetSpent
from rung.ladder import RunOptions, run
from rung.strategies import STRATEGIES
from rung.testing import FakeTrainable, Silent
from rung.types import Request

UNKNOWN = "I do not know."
ONLY = ("zero_shot", "rag", "rag_lora")


def code_of(i: int) -> str:
    return str(1000 + 7 * i)


def asked(request: Request) -> tuple[str, str | None]:
    """The name that is asked for, and its code where a passage of the prompt says it."""
    text = request.messages[-1].content
    name = re.findall(r"code of (\w+)\?", text)[-1]
    said = re.findall(rf"code of {name} is (\d+)\.", text)
    return name, said[-1] if said else None


def careful(request: Request) -> str:
    """Says what a passage says, of every second code; of any other that it does not know."""
    code = asked(request)[1]
    return code if code is not None and int(code) % 2 == 0 else UNKNOWN


def bold(request: Request) -> str:
    """What training on answered questions teaches: to answer every one."""
    name, code = asked(request)
    return code or f"9{len(name)}9"


@pytest.fixture
def models() -> Iterator[None]:
    from rung.models import OPENERS

    before = OPENERS.copy()
    rung.register_model("careful:", lambda s, say: FakeTrainable(careful, taught=bold, name=s, version=s))
    rung.register_model("bold:", lambda s, say: FakeTrainable(bold, taught=bold, name=s, version=s))
    yield
    OPENERS[:] = before


def name_of(i: int) -> str:
    return "".join("abcdefghij"[int(d)] for d in f"{i:03}") + "or"


def write_codes(
    folder: Path, model: str, *, rows: int = 160, unknown: int = 0, marked: bool = True, **keys: Any
) -> Path:
    """Questions whose answers stand in one passage each; those of the last `unknown` names stand nowhere."""
    folder.mkdir(parents=True, exist_ok=True)
    known = rows - unknown
    examples = [
        {
            "id": f"{i}",
            "input": f"What is the code of {name_of(i)}?",
            "output": code_of(i) if i < known else UNKNOWN,
            **({"gold_ids": [f"p{i}"]} if marked and i < known else {}),
        }
        for i in range(rows)
    ]
    passages = [{"id": f"p{i}", "text": f"The code of {name_of(i)} is {code_of(i)}."} for i in range(known)]
    for name, lines in (("examples", examples), ("corpus", passages)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = {"instruction": "Answer.", "examples": "examples.jsonl", "corpus": "corpus.jsonl", "model": model, **keys}
    (folder / "task.yaml").write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in said.items()))
    return folder / "task.yaml"


def record_of(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "solutions" / name / "abstention.json").read_text())
    return found


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("marked", [True, False], ids=["marked passages", "passages that hold the answer"])
def test_a_fine_tuned_winner_that_makes_up_more_than_its_base_is_told_first_with_numbers(
    marked: bool, tmp_path: Path
) -> None:
    task = write_codes(tmp_path, "careful:one", marked=marked)
    folder = run(task, RunOptions(out=tmp_path / "run", only=ONLY), Silent())
    found = json.loads((folder / "finalists.json").read_text())["invention"]
    before, after = (next(f for f in found if f["candidate"] == name) for name in ("rag", "rag_lora"))
    rows = json.loads((folder / "plan.json").read_text())["sizes"]["dev"]
    assert before["share"]["n"] == after["share"]["n"] == min(50, rows) >= 20
    assert before["share"]["mean"] == 0 and before["base"] == "" and not before["given"]
    assert after["base"] == "rag" and after["difference"] == after["share"]["mean"] > 0.9 and after["p"] < 0.05
    assert set(record_of(folder, "rag")["made"]["rows"].values()) == {"nothing"}
    verdict = decision(folder)
    assert verdict["solution"] == "rag_lora"
    assert verdict["warnings"][0].startswith("rag_lora makes up more than rag, which is not fine-tuned: an answer to")


@pytest.mark.usefixtures("models")
def test_the_passages_that_hold_the_answer_are_left_out_and_the_plan_says_what_that_takes(tmp_path: Path) -> None:
    folder = run(write_codes(tmp_path, "careful:one"), RunOptions(out=tmp_path / "run", only=ONLY), Silent())
    plan = json.loads((folder / "plan.json").read_text())
    (step,) = [s for s in plan["experiments"] if s["kind"] == "abstention"]
    spent = [e for e in events(folder) if e["event"] == "checked" and e.get("stage", "").endswith("/abstention")]
    asked = min(50, plan["sizes"]["dev"])
    assert sum(e["calls"] for e in spent) == 2 * asked
    assert step["calls"] == 3 * asked, "the prompt of rag_lora may have been shortened"
    for name in ("rag", "rag_lora"):
        lines = (folder / "solutions" / name / "abstention" / "predictions.jsonl").read_text().splitlines()
        assert all(f"p{p['id']}" not in p["passages"] for p in map(json.loads, lines))
        assert any(p["passages"] for p in map(json.loads, lines))
    order = [e["event"] for e in events(folder)]
    assert max(i for i, e in enumerate(order) if e == "checked") < order.index("finalists")


@pytest.mark.usefixtures("models")
def test_rows_that_the_task_calls_unanswerable_cost_nothing_and_refusals_are_counted_on_both_sides(
    tmp_path: Path,
) -> None:
    task = write_codes(tmp_path, "careful:one", rows=200, unknown=80, abstain=UNKNOWN)
    folder = run(task, RunOptions(out=tmp_path / "run", only=("zero_shot", "lora")), Silent())
    (step,) = [s for s in json.loads((folder / "plan.json").read_text())["experiments"] if s["kind"] == "abstention"]
    assert not step["applies"] and not (folder / "solutions" / "zero_shot" / "abstention").exists()
    found = json.loads((folder / "finalists.json").read_text())["invention"]
    plain = next(f for f in found if f["candidate"] == "zero_shot")
    assert plain["given"] and plain["share"]["mean"] == 0 and plain["share"]["n"] >= 10
    assert plain["refused"]["mean"] == 1, "without passages it knows no code"
    tuned = next((f for f in found if f["candidate"] == "lora"), None)
    assert tuned is None or (tuned["base"] == "zero_shot" and tuned["base_refused"]["mean"] == 1)


@pytest.mark.usefixtures("models")
def test_an_unfinished_verdict_tells_what_dev_says_of_given_rows_and_asks_nothing_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spent(workshop: Any) -> Any:
        raise BudgetSpent("the budget was spent while training")

    monkeypatch.setitem(STRATEGIES, "rag_lora", replace(STRATEGIES["rag_lora"], build=spent))
    task = write_codes(tmp_path, "bold:one", rows=200, unknown=80, abstain=UNKNOWN, budget={"minutes": 9})
    folder = run(task, RunOptions(out=tmp_path / "run", only=ONLY), Silent())
    found = decision(folder)
    assert found["choice"] == "unfinished" and not list(folder.rglob("abstention*"))
    told = {one["candidate"]: one for one in found["refusing"]}
    assert {"zero_shot", "rag"} == set(told) and all(one["given"] for one in told.values())
    assert told["rag"]["made_up"]["mean"] == 1 and told["rag"]["refused"]["mean"] == 0
    assert any(w.startswith("rag makes up an answer to 100 %") for w in found["warnings"])
    assert f'always answers "{UNKNOWN}"' in " ".join(found["reasons"])


@pytest.mark.usefixtures("models")
def test_an_answer_that_did_not_come_is_no_refusal(tmp_path: Path) -> None:
    def broken(request: Request) -> Any:
        name, code = asked(request)
        return ValueError("it broke") if name.startswith("a") and name[2] in "abc" else code or UNKNOWN

    rung.register_model("broken:", lambda s, say: FakeTrainable(broken, name=s, version=s))
    task = write_codes(tmp_path, "broken:one", rows=200, unknown=80, abstain=UNKNOWN)
    folder = run(task, RunOptions(out=tmp_path / "run", only=("rag",)), Silent())
    lines = (folder / "solutions" / "rag" / "predictions.dev.jsonl").read_text().splitlines()
    failed = {p["id"] for p in map(json.loads, lines) if p["error"]}
    given = record_of(folder, "rag")["given"]
    assert failed and not failed & {*given["rows"], *given["answerable"]} and given["rows"]


@pytest.mark.usefixtures("models")
def test_where_everything_is_made_up_the_advice_is_to_name_an_answer_for_that_once(tmp_path: Path) -> None:
    folder = run(write_codes(tmp_path / "a", "bold:one"), RunOptions(out=tmp_path / "a/run", only=ONLY), Silent())
    assert sum("Name `abstain`" in step for step in decision(folder)["next"]) == 1
    task = write_codes(tmp_path / "b", "bold:one", abstain=UNKNOWN)
    folder = run(task, RunOptions(out=tmp_path / "b/run", only=ONLY), Silent())
    assert not any("Name `abstain`" in step for step in decision(folder)["next"])


@pytest.mark.usefixtures("models")
def test_labels_and_too_few_known_passages_are_never_asked(tmp_path: Path) -> None:
    labelled = write_codes(tmp_path / "a", "careful:one")
    rows = [json.loads(line) for line in (tmp_path / "a" / "examples.jsonl").read_text().splitlines()]
    text = "".join(json.dumps({**r, "output": "odd" if int(r["id"]) % 2 else "even"}) + "\n" for r in rows)
    (tmp_path / "a" / "examples.jsonl").write_text(text)
    labelled.write_text(labelled.read_text() + "labels: [odd, even]\n")
    few = write_codes(tmp_path / "b", "careful:one", rows=60)
    for task, out in ((labelled, tmp_path / "a/run"), (few, tmp_path / "b/run")):
        folder = run(task, RunOptions(out=out, only=("zero_shot", "rag")), Silent())
        assert json.loads((folder / "finalists.json").read_text())["invention"] == []
        assert not list(folder.rglob("abstention.json"))


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("at", [0, 1])
def test_killed_while_it_asks_it_goes_on_and_asks_nothing_twice(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rung.retrieval.gold import WithoutGold

    searches = killed_in_search(monkeypatch, WithoutGold, at)
    task, out = write_codes(tmp_path, "careful:one"), tmp_path / "run"
    with pytest.raises(Killed):
        run(task, RunOptions(out=out, only=ONLY), Silent())
    assert not (out / "finalists.json").exists()
    run(task, RunOptions(out=out, only=ONLY), Silent())
    assert searches[0] == 3, "one block of each of two solutions, and the one that was killed"
    assert len(json.loads((out / "finalists.json").read_text())["invention"]) >= 2


@pytest.mark.usefixtures("models")
def test_what_the_budget_kept_from_being_asked_stands_in_the_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rung.ladder.abstention._without_passages", lambda *_: "no time is left")
    folder = run(write_codes(tmp_path, "careful:one"), RunOptions(out=tmp_path / "run", only=ONLY), Silent())
    said = "What rag says where no passage holds the answer was not measured: no time is left."
    assert said in decision(folder)["reasons"]
