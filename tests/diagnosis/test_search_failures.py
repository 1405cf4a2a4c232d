"""Why answers with passages are wrong: the chain of causes, where answers stand, and the experiments."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rung.diagnosis.answer_places import Place, brought, places_of
from rung.diagnosis.search_experiments import MOST, search_record, set_up_check
from rung.diagnosis.search_failures import CAUSES, Facts, Remedy, cause_of, shares
from rung.retrieval.library import Library
from rung.testing import FakeModel
from rung.trials.trial import attempt
from rung.trials.workshop import Workshop
from rung.types import Document, Example, Prediction, RetrieverSpec, Solution
from workshops import workshop_of

# ---- the chain --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "cause"),
    [
        (Facts(), "unused"),
        (Facts(holds=True), "form"),
        (Facts(shown=False), "cut"),
        (Facts(shown=False, found=False), "missed"),
        (Facts(shown=False, found=False, held=False), "absent"),
        (Facts(located=False), "unknown"),
        (Facts(refuses=True), "refused"),
        (Facts(refuses=True, shown=False), "cut"),
        (Facts(answerable=False, located=False, held=False), "invented"),
        (Facts(answerable=False, refuses=True), "form"),
    ],
)
def test_the_first_link_that_broke_is_the_cause(facts: Facts, cause: str) -> None:
    assert cause_of(facts) == cause


def test_whatever_the_facts_there_is_one_cause_that_is_known() -> None:
    for flags in itertools.product((True, False), repeat=7):
        assert cause_of(Facts(*flags)) in CAUSES


def rows(count: int, prefix: str = "e") -> list[Example]:
    return [Example(f"{prefix}{i}", f"q{i}", "a", ("a",)) for i in range(count)]


def test_shares_add_up_and_the_rescue_rate_is_net_of_the_placebo() -> None:
    wrong, right = rows(20), rows(6, "r")
    causes = {e.id: "missed" if i < 12 else "absent" for i, e in enumerate(wrong)}
    outcome = {e.id: i < 8 for i, e in enumerate(wrong[:10])} | {e.id: e.id != "r0" for e in right}
    placebo = {e.id: i < 2 for i, e in enumerate(wrong[:10])} | {e.id: True for e in right}
    missed, absent = shares("rag", causes, {"missed": Remedy("gold", outcome, placebo)}, wrong, right, {}, 0)
    assert (missed.cause, missed.n, missed.wrong, missed.share) == ("missed", 12, 20, 0.6)
    assert missed.low < 0.6 < missed.high and missed.share + absent.share == pytest.approx(1)
    assert (missed.tried, missed.rescued, missed.by_chance, missed.net) == (10, 8, 2, pytest.approx(0.6))
    assert missed.net_low > 0 and (missed.right, missed.broken, missed.broken_by_chance) == (6, 1, 0)
    assert absent.experiment == "" and absent.tried == 0


# ---- where answers stand ------------------------------------------------------------------------


def shop(tmp_path: Path, documents: Sequence[Document], **task: Any) -> Workshop:
    plain = workshop_of(FakeModel(lambda request: "nothing known"), tmp_path, **task)
    return replace(plain, inputs=replace(plain.inputs, library=Library(documents), train=tuple(TRAIN)))


TRAIN = [Example(f"t{i}", f"code of unit{i}", f"KX{i}7", (f"KX{i}7",)) for i in range(10)]
BACKGROUND = [Document(f"t{i}", f"The code of unit{i} is KX{i}7.") for i in range(10)]


def place(
    tmp_path: Path, documents: Sequence[Document], example: Example, shown: Sequence[str], room: int = 100, **task: Any
) -> Place:
    workshop = shop(tmp_path, [*documents, *BACKGROUND], **task)
    solution = Solution("rag", "Say.", workshop.decoding, retriever=RetrieverSpec("bm25", 2, room))
    answer = Prediction(example.id, "?", 1, 1, 0.0, passages=tuple(shown))
    return places_of(workshop, solution, [example], {example.id: answer})[example.id]


def asked(answer: str = "Quito", *gold: str) -> Example:
    return Example("e", "what is the seat of north", answer, (answer,), gold_ids=gold)


@pytest.mark.parametrize("marks", [(), ("d",)], ids=["by what it contains", "by its mark"])
def test_a_passage_that_is_shown_found_or_not_even_found(marks: tuple[str, ...], tmp_path: Path) -> None:
    example = asked("Quito", *marks)
    known = Document("d", "The seat of north is Quito.")
    shown = place(tmp_path, [known], example, ["d"])
    assert shown.shown and shown.rank == 1 and shown.gold == (known,) and not shown.unknown
    found = place(tmp_path, [known], example, ["t1"])
    assert not found.shown and found.rank == 1
    missed = place(tmp_path, [Document("d", "Quito governs")], example, ["t1"])
    assert missed.rank is None and [p.id for p in missed.gold] == ["d"] and not missed.unknown
    absent = place(tmp_path, [], example, ["t1"])
    assert replace(absent, visible=()) == Place()


def test_the_part_that_holds_the_answer_may_be_cut_off_in_the_prompt(tmp_path: Path) -> None:
    long = Document("d", "The seat of north " + "is very old and " * 10 + "named Quito.")
    assert not place(tmp_path, [long], asked(), ["d"], room=20).shown
    assert place(tmp_path, [long], asked(), ["d"], room=100).shown


def test_a_document_that_was_cut_just_where_the_answer_stands_is_no_missing_document(tmp_path: Path) -> None:
    words = [f"w{i}" for i in range(180)]
    words[178:180] = ["San", "Marino."]
    text = " ".join(words[:179]) + " " + "Marino. " + "x " * 30  # no sentence ends before the 180th word
    example = asked("San Marino w9")
    cut = Document("d", text.replace("San Marino.", "San Marino w9") + " ".join(f"v{i}" for i in range(100)))
    workshop = shop(tmp_path, [cut, *BACKGROUND])
    passages = workshop.inputs.library.passages()
    found = place(tmp_path, [cut], example, [])
    assert len([p for p in passages if p.id.startswith("d#")]) > 1
    whole = [p for p in passages if "San Marino w9" in p.text]
    assert found.cut_apart == (not whole) and not found.shown and found.gold


@pytest.mark.parametrize(
    ("answer", "task", "why"),
    [
        ("yes", {}, "yes and no"),
        ('{"a": 1}', {}, "JSON"),
        ("Quito", {"labels": ("Quito", "Lima")}, "labels"),
        ("a very long answer of ever so many words that nobody repeats", {}, "long"),
    ],
)
def test_of_answers_that_need_not_stand_in_a_passage_nothing_is_claimed(
    answer: str, task: dict[str, Any], why: str, tmp_path: Path
) -> None:
    assert why in place(tmp_path, [], asked(answer), [], **task).unknown


def test_an_answer_that_stands_nowhere_is_missing_only_where_answers_usually_stand_there(tmp_path: Path) -> None:
    assert not place(tmp_path, [], asked(), []).unknown
    workshop = shop(tmp_path, [Document("d", "Nothing of it.")])
    solution = Solution("rag", "Say.", workshop.decoding, retriever=RetrieverSpec("bm25", 2, 100))
    found = places_of(workshop, solution, [asked()], {"e": Prediction("e", "?", 1, 1, 0.0)})["e"]
    assert "seldom" in found.unknown


def test_an_answer_that_many_passages_contain_locates_nothing(tmp_path: Path) -> None:
    many = [Document(f"m{i}", f"the seat of place{i} is Quito north") for i in range(9)]
    assert "by chance" in place(tmp_path, many, asked(), ["m1"]).unknown


def test_a_mark_that_names_nothing_is_a_missing_passage_and_a_marked_document_without_the_words_leaves_it_open(
    tmp_path: Path,
) -> None:
    assert replace(place(tmp_path, [], asked("Quito", "gone"), ["t1"]), visible=()) == Place()
    long = Document("d", "The seat of north. " + "It is old. " * 50 + "It is high up. " * 40)
    parts = [p.id for p in shop(tmp_path, [long]).inputs.library.passages() if p.id.startswith("d#")]
    example = asked("the highest one", "d")
    some, every = (place(tmp_path, [long], example, ids, room=1000) for ids in (parts[:1], parts))
    assert len(parts) > 1 and "which part" in some.unknown
    assert every.shown and not every.unknown


def test_passages_that_were_cut_otherwise_are_compared_by_what_they_hold(tmp_path: Path) -> None:
    """A mark of a passage as documents are usually cut, and a search over the whole document."""

    class Whole(Library):
        def passages(self, spec: RetrieverSpec | None = None) -> tuple[Document, ...]:
            return self.documents if spec is not None else super().passages()

    text = "Opening words. " + "Some more of them here. " * 60 + "The seat of north is Quito."
    library = Whole([Document("d", text), *BACKGROUND])
    mark = next(p.id for p in Library.passages(library) if "Quito" in p.text)
    assert mark.startswith("d#")
    solution = Solution(
        "rag", "Say.", workshop_of(FakeModel({}), tmp_path).decoding, retriever=RetrieverSpec("b", 2, 9)
    )
    answers = [Prediction("e", "?", 1, 1, 0.0, passages=("d",)), Prediction("o", "?", 1, 1, 0.0, passages=("t1",))]
    other = replace(asked("Quito", mark), id="o")
    assert brought(library, solution, [asked("Quito", mark), other], answers) == {"e"}


# ---- planted faults -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    path = Path(__file__).parent.parent.parent / "bench" / "search_failures.py"
    spec = importlib.util.spec_from_file_location("bench_search_failures", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", ["marked", "unmarked"])
def test_nine_of_ten_planted_faults_are_named_right(bench: ModuleType, kind: str) -> None:
    found = bench.planted(6, 1, kind)
    assert found["of"] == 54 and found["right"] >= 0.9 * found["of"]


def test_where_passages_hold_answers_by_chance_no_cause_is_named_wrongly(bench: ModuleType) -> None:
    found = bench.planted(8, 2, bench.REPEATED)
    assert found["right"] + found["unknown"] >= 0.9 * found["of"] and found["unknown"] > 0


def test_each_experiment_mends_its_own_cause_and_a_second_command_asks_nothing_again(
    bench: ModuleType, tmp_path: Path
) -> None:
    record, _ = bench.diagnosed(tmp_path, 6, 0, "marked")
    by_cause = {row["cause"]: row for row in record["causes"]}
    for cause in ("missed", "cut", "form", "invented"):
        row = by_cause[cause]
        assert row["tried"] == row["rescued"] > 0 and row["net_low"] > 0 and row["broken"] == 0, cause
    assert 0 < by_cause["unused"]["rescued"] < by_cause["unused"]["tried"], "led away, but for those it ignores"
    assert by_cause["refused"]["rescued"] == 0 and by_cause["absent"]["experiment"] == ""
    kept = {path.name: path.read_bytes() for path in (tmp_path / "again").glob("*.jsonl")}
    assert len(kept) == 5
    assert bench.diagnosed(tmp_path, 6, 0, "marked")[0] == record
    assert kept == {path.name: path.read_bytes() for path in (tmp_path / "again").glob("*.jsonl")}


def test_without_the_experiments_the_causes_stand_and_nothing_is_asked(tmp_path: Path) -> None:
    model = FakeModel(lambda request: "brown")
    workshop = workshop_of(model, tmp_path)
    solution = Solution("rag", "Say.", workshop.decoding, retriever=RetrieverSpec("bm25", 3, 100))
    answers = attempt(workshop, solution, workshop.inputs.dev, tmp_path / "dev.jsonl")
    check = set_up_check(workshop, solution, answers, tmp_path / "again")
    before = len(model.requests)
    record = search_record(check, why="no time is left")
    assert len(model.requests) == before and record["why"] == "no time is left"
    assert check.calls == 3 * min(MOST, 24), "gold, demos and the placebo"
    assert {row["cause"]: row["n"] for row in record["causes"]} == {"unused": 24}
    assert all(row["tried"] == 0 for row in record["causes"])


def test_of_a_few_wrong_answers_none_is_asked_again(tmp_path: Path) -> None:
    workshop = workshop_of(FakeModel(lambda request: "brown"), tmp_path)
    workshop = replace(workshop, inputs=replace(workshop.inputs, dev=workshop.inputs.dev[:4]))
    solution = Solution("rag", "Say.", workshop.decoding, retriever=RetrieverSpec("bm25", 3, 100))
    answers = attempt(workshop, solution, workshop.inputs.dev, tmp_path / "dev.jsonl")
    check = set_up_check(workshop, solution, answers, tmp_path / "again")
    assert len(check.wrong) == 4 and check.calls == 0 and search_record(check)["why"] is None


def test_an_answer_that_did_not_come_has_no_cause(tmp_path: Path) -> None:
    workshop = workshop_of(FakeModel(lambda request: ValueError("it broke")), tmp_path)
    solution = Solution("rag", "Say.", workshop.decoding, retriever=RetrieverSpec("bm25", 3, 100))
    answers = attempt(workshop, solution, workshop.inputs.dev, tmp_path / "dev.jsonl")
    record = search_record(set_up_check(workshop, solution, answers, tmp_path / "again"))
    assert record["causes"] == [] and record["wrong"] == record["answered"] == 0
