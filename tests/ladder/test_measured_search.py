"""How passages are found is measured once a run: the plan, search.json, kills, budgets, several models, the verdict."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import rung
from conftest import Killed, decision, events
from hashed_embedder import Hashed
from rung.errors import BudgetSpent, TaskError
from rung.ladder import RunOptions, plan_search, run
from rung.ladder.plan_search import search_plan
from rung.ladder.search import in_words
from rung.retrieval import proposals
from rung.retrieval.embedders import EMBEDDERS
from rung.retrieval.library import Library
from rung.testing import FakeModel, Silent
from rung.trials import search_choice
from rung.types import Budget, Document, Request, SearchKeys
from workshops import workshop_of

ROWS = 120
NAMES = ["".join("abcdefghij"[int(d)] for d in f"{i:03}") + "or" for i in range(ROWS)]
RETRIEVAL = {"embedders": ["hashed"], "stem": ""}


def reader(request: Request) -> str:
    """Says the code that a passage of the prompt has for the asked name; else guesses one."""
    text = request.messages[-1].content
    asked = re.findall(r"code of (\w+)\?", text)[-1:]
    said = [code for name in asked for code in re.findall(rf"code of {name} is (K\d+)\.", text)]
    return said[-1] if said else "K0"


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Hashed]]:
    """Models that read, and an embedder without weights. Yields the embedders that were opened."""
    from rung.models import OPENERS

    before, opened = OPENERS.copy(), []
    for name in ("reader:", "other:"):
        rung.register_model(name, lambda spec, say: FakeModel(reader, name=spec, version=spec))

    def open_hashed(name: str, folder: Path | None) -> Hashed:
        opened.append(Hashed())
        return opened[-1]

    monkeypatch.setitem(EMBEDDERS, "hashed", open_hashed)
    monkeypatch.setattr("rung.retrieval.embedders._opened", {})
    yield opened
    OPENERS[:] = before


def write_codes(folder: Path, **keys: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    examples = [
        {"id": f"{i}", "input": f"What is the code of {n}?", "output": f"K{1000 + 7 * i}", "gold_ids": [f"p{i}"]}
        for i, n in enumerate(NAMES)
    ]
    passages = [{"id": f"p{i}", "text": f"The code of {n} is K{1000 + 7 * i}."} for i, n in enumerate(NAMES)]
    for name, lines in (("examples", examples), ("corpus", passages)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = {"instruction": "Answer.", "examples": "examples.jsonl", "corpus": "corpus.jsonl", "retrieval": RETRIEVAL}
    said |= {} if "models" in keys else {"model": "reader:one"}
    (folder / "task.yaml").write_text("".join(f"{k}: {json.dumps(v)}\n" for k, v in (said | keys).items()))
    return folder / "task.yaml"


def searched(folder: Path) -> dict[str, Any]:
    """search.json without times."""
    found: dict[str, Any] = json.loads((folder / "search.json").read_text())
    for row in (*found["tried"], *found["sizes"]):
        del row["build_s"], row["query_ms"]
    return found


def go(task: Path, only: tuple[str, ...] = ("zero_shot", "rag"), **options: Any) -> Path:
    return run(task, RunOptions(out=task.parent / "run", only=only, **options), Silent())


# ---- a run ----------------------------------------------------------------------------------


def test_the_ways_are_measured_before_anything_reads_passages_and_the_best_is_used(tmp_path: Path) -> None:
    folder = go(write_codes(tmp_path))
    record = searched(folder)
    assert [row["way"] for row in record["tried"]] == ["bm25", "dense-hashed", "fused-hashed"]
    assert record["questions"] > 20 and record["gold"]["counts"]["marked"] == record["questions"]
    log = [(e["event"], e.get("solution", "")) for e in events(folder)]
    assert log.index(("searched", "")) < log.index(("building", "rag"))
    found = decision(folder)
    (chosen,) = [way for way in found["searches"] if way["chosen"]]
    solution = json.loads((folder / "solutions" / "rag" / "solution.json").read_text())
    assert chosen["way"] == "bm25" and solution["retriever"]["kind"] == "bm25", "of equal ways, the cheapest"
    assert any(said.startswith("Passages are found by bm25: ") for said in found["reasons"])
    assert not (folder / "search" / "spent.json").exists()
    (step,) = [s for s in json.loads((folder / "plan.json").read_text())["experiments"] if s["kind"] == "search"]
    assert step["applies"] and step["calls"] == 0, "every row is marked"


def test_nothing_is_measured_where_nothing_reads_passages_and_it_is_once_something_does(tmp_path: Path) -> None:
    task = write_codes(tmp_path)
    folder = go(task, ("zero_shot",))
    assert not (folder / "search.json").exists() and decision(folder)["searches"] == []
    go(task, again=True)
    assert searched(folder)["questions"] > 20


def test_a_command_that_goes_on_measures_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = write_codes(tmp_path)
    before = searched(go(task))
    monkeypatch.setattr(search_choice, "measured_search", None)
    assert searched(go(task, ("zero_shot", "rag", "few_shot"), again=True)) == before


def test_killed_while_it_measures_it_goes_on_and_ends_in_the_same_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: list[Hashed]
) -> None:
    whole = searched(go(write_codes(tmp_path / "a")))
    monkeypatch.setenv("RUNG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("rung.retrieval.embedders._opened", {})
    here.clear()
    real = search_choice._Measuring.sizes

    def killed(*_: Any) -> Any:
        raise Killed

    monkeypatch.setattr(search_choice._Measuring, "sizes", killed)
    task = write_codes(tmp_path / "b")
    with pytest.raises(Killed):
        go(task)
    assert not (task.parent / "run" / "search.json").exists()
    monkeypatch.setattr(search_choice._Measuring, "sizes", real)
    assert searched(go(task)) == whole
    passages = [text for embedder in here for text in embedder.texts if text.startswith("The code of")]
    assert passages.count(f"The code of {NAMES[0]} is K1000.") <= 2, "once to be timed, at most, and once"


def test_a_fault_ends_nothing_and_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ValueError("7")

    monkeypatch.setattr(search_choice, "measured_search", broken)
    folder = go(write_codes(tmp_path))
    assert searched(folder)["fault"] == "ValueError: 7" and [s["kind"] for s in searched(folder)["best"]] == ["bm25"]
    found = decision(folder)
    said = "The ways to find passages were not measured: ValueError: 7."
    assert (*found["reasons"], *found["warnings"]).count(said) == 1
    assert any(c["name"] == "rag" for c in found["candidates"])


def test_where_the_budget_ends_it_there_is_no_record_and_the_verdict_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spent(*_: Any, **__: Any) -> Any:
        raise BudgetSpent("over")

    monkeypatch.setattr(search_choice, "measured_search", spent)
    folder = go(write_codes(tmp_path))
    assert not (folder / "search.json").exists()
    found = decision(folder)
    assert any("were not measured: the budget left no time" in said for said in (*found["reasons"], *found["warnings"]))


def test_a_budget_of_calls_without_room_asks_the_model_nothing_about_passages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rung.trials import sufficiency

    monkeypatch.setattr(sufficiency, "calls_of", lambda task, rows: 10**6)
    task = write_codes(tmp_path, budget={"calls": 9000})
    rows = (tmp_path / "examples.jsonl").read_text().splitlines()
    unmarked = [{k: v for k, v in json.loads(row).items() if k != "gold_ids"} for row in rows]
    (tmp_path / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in unmarked))
    record = searched(go(task))
    assert record["gold"]["counts"]["contained"] == record["questions"] > 20
    assert "no room for asking the model" in record["gold"]["why"]


def test_how_passages_are_known_and_how_many_questions_are_left_out_is_told() -> None:
    score = {"mean": 1.0}
    row = {"way": "bm25", "recall": {"5": score}}
    counts = {"marked": 2, "contained": 28, "model": 0}
    record = {"tried": [row], "not_tried": [], "questions": 30, "gold": {"n": 40, "counts": counts}}
    said = (
        "these passages are marked by you for 2, found by containing the answer for 28; 10 of 40 questions are left out"
    )
    assert any(line.startswith(said) for line in in_words(record))
    record["gold"] = {"counts": counts}
    assert not any("these passages" in line for line in in_words(record)), "an older version did not count them"


def test_of_several_models_the_ways_are_measured_once(tmp_path: Path) -> None:
    models = [{"name": "reader:one", "label": "one"}, {"name": "other:two", "label": "two"}]
    folder = go(write_codes(tmp_path, models=models), exhaustive=True)
    assert [e["event"] for e in events(folder)].count("searched") == 1
    steps = [s for s in json.loads((folder / "plan.json").read_text())["experiments"] if s["kind"] == "search"]
    assert [s["applies"] for s in steps if s["applies"]] == [True]
    built = {e["solution"] for e in events(folder) if e["event"] == "built"}
    assert sum(name.startswith("rag") for name in built) == 2


# ---- the plan -------------------------------------------------------------------------------


def inputs_of(folder: Path, documents: tuple[Document, ...], keys: SearchKeys, minutes: float | None = None) -> Any:
    made = workshop_of(FakeModel(lambda request: ""), folder, retrieval=keys).inputs
    task = replace(made.task, budget=Budget(minutes=minutes))
    return replace(made, task=task, library=Library(documents, count_tokens=lambda text: len(text.split())))


SHORT = tuple(Document(f"d{i}", f"Thing {i} is here.") for i in range(10))
LONG = tuple(Document(f"d{i}", "It is said of this thing that it is here. " * 60) for i in range(10))


def test_an_embedder_that_takes_too_long_is_left_out_with_its_minutes_unless_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proposals, "embedders_here", lambda: ("hashed",))
    slow = {"hashed": 121.0}
    left_out = search_plan(inputs_of(tmp_path, SHORT, SearchKeys(stem=""), minutes=10), slow)
    assert [s.kind for s in left_out.specs] == ["bm25"]
    assert left_out.not_tried[0][0] == "dense search with hashed" and "takes about 2 min" in left_out.not_tried[0][1]
    for keys in (SearchKeys(embedders=("hashed",)), SearchKeys(kinds=("dense",)), SearchKeys(kinds=("fused",))):
        named = search_plan(inputs_of(tmp_path, SHORT, keys, minutes=10), slow)
        assert any(s.embedder for s in named.specs) and named.not_tried == ()
    assert any(s.embedder for s in search_plan(inputs_of(tmp_path, SHORT, SearchKeys()), slow).specs), "of five minutes"


def test_sizes_that_take_too_long_are_left_out_and_said_unless_they_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proposals, "embedders_here", lambda: ())
    assert search_plan(inputs_of(tmp_path, LONG, SearchKeys()), {}).sizes
    monkeypatch.setattr(plan_search, "_SIZES_S", 10_000.0)
    found = search_plan(inputs_of(tmp_path, LONG, SearchKeys()), {})
    assert not found.sizes and found.cutting_s == 0
    assert found.not_tried[-1][0] == "another size of passages" and "tokens: [256]" in found.not_tried[-1][1]
    assert search_plan(inputs_of(tmp_path, SHORT, SearchKeys()), {}).sizes, "no document is cut"
    assert search_plan(inputs_of(tmp_path, LONG, SearchKeys(tokens=(64,))), {}).sizes


def test_where_no_way_that_the_task_names_works_the_error_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proposals, "embedders_here", lambda: ())
    for kind in ("dense", "fused"):
        with pytest.raises(
            TaskError, match=r"no way to find passages that it names works here. dense search: no embedder"
        ):
            search_plan(inputs_of(tmp_path, SHORT, SearchKeys(kinds=(kind,))), {})


def test_an_embedder_that_fails_is_left_out_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def torn(name: str, folder: Path | None) -> Any:
        raise OSError("torn")

    monkeypatch.setitem(EMBEDDERS, "hashed", torn)
    found = search_plan(inputs_of(tmp_path, SHORT, SearchKeys(embedders=("hashed",), stem="")), {})
    assert [s.kind for s in found.specs] == ["bm25"]
    assert found.not_tried == (("dense search with hashed", "OSError: torn"),)


def test_the_model_that_a_run_began_with_counts_the_tokens_of_passages_whatever_is_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []
    real = Library.__init__

    def noted(self: Library, documents: Any = (), **more: Any) -> None:
        if "count_tokens" in more:
            counted.append(more["count_tokens"].__self__.name)
        real(self, documents, **more)

    monkeypatch.setattr(Library, "__init__", noted)
    one, two = {"name": "reader:one", "label": "one"}, {"name": "other:two", "label": "two"}
    task = write_codes(tmp_path, models=[one])
    go(task, ("zero_shot",))
    write_codes(tmp_path, models=[two, one])
    go(task, ("zero_shot",), again=True)
    assert counted == ["reader:one", "reader:one"]
