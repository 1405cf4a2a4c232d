from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rung.evaluation.statistics import score
from rung.retrieval.gold import GoldIndex, pooled
from rung.retrieval.library import Library
from rung.testing import FakeModel
from rung.trials.sufficiency import CALLS, KNOWN, GoldFound, SufficiencyErrors, calls_of, gold_of, suffices
from rung.trials.workshop import Workshop
from rung.types import Document, Example, Request, Score
from workshops import workshop_of

N = 40
PLACES = tuple(f"Town{i:02d}" for i in range(N))
PASSAGES = tuple(Document(f"p{i}", f"The mayor of {place} lives in Street{i:02d}.") for i, place in enumerate(PLACES))
WORDED = tuple(
    Document(f"w{i}", f"Of {place} it is known that the river is a wide one.") for i, place in enumerate(PLACES)
)


def example(i: int, *gold: str) -> Example:
    return Example(
        f"e{i}", f"Where does the mayor of {PLACES[i]} live?", f"Street{i:02d}", (f"Street{i:02d}",), gold_ids=gold
    )


def paraphrased(i: int) -> Example:
    """Its answer stands in no passage word by word."""
    return Example(f"e{i}", f"How is the river of {PLACES[i]}?", "broad", ("broad",))


def hits(i: int) -> tuple[Document, ...]:
    """What searches find for example i: its own passage, one of another question, one about the river."""
    return PASSAGES[i], PASSAGES[(i + 1) % N], WORDED[i]


EXAMPLES = tuple(map(example, range(20)))
POOLED = {f"e{i}": hits(i) for i in range(N)}


def is_judging(request: Request) -> bool:
    return "Does the passage show this answer?" in request.messages[-1].content


def careful(request: Request) -> str:
    """Says yes where the passage holds the answer, or says broad in other words; answers from the passage."""
    text = request.messages[-1].content
    passage = text[: text.index("</passage")]
    if not is_judging(request):
        return passage.split("lives in ")[1].split(".")[0]
    question, answer = text.split("Question: ")[1].split("\n\nAnswer: ")
    answer = answer.split("\n")[0]
    town = next(place for place in PLACES if place in question)
    return "yes" if town in passage and (answer in passage or (answer == "broad" and "wide" in passage)) else "no"


def always(reply: str) -> Callable[[Request], str]:
    return lambda request: reply if is_judging(request) else careful(request)


def workshop(folder: Path, model: FakeModel, **task: object) -> Workshop:
    made = workshop_of(model, folder, **task)
    return replace(made, inputs=replace(made.inputs, library=Library((*PASSAGES, *WORDED))))


def test_marked_passages_need_no_model(tmp_path: Path) -> None:
    model = FakeModel(careful)
    marked = [example(i, f"p{i}") for i in range(20)]
    found = gold_of(workshop(tmp_path, model), marked, POOLED, tmp_path)
    assert found.passages == {f"e{i}": {f"p{i}"} for i in range(20)}
    assert (found.counts, found.errors, model.requests) == ({"marked": 20, "contained": 0, "model": 0}, None, [])
    assert found.any_of(marked) == [False] * 20
    assert calls_of(workshop(tmp_path, model).inputs.task, marked) == 0


def test_marks_that_a_search_found_are_none_when_a_search_is_measured(tmp_path: Path) -> None:
    made = workshop(tmp_path, FakeModel(always("no")))
    wrong = [replace(example(i, f"p{(i + 1) % N}"), gold_found=True) for i in range(20)]
    mixed = [example(20, "p20"), *wrong]
    found = gold_of(made, mixed, POOLED, tmp_path, asking=False)
    assert found.counts == {"marked": 1, "contained": 20, "model": 0} and found.record["n"] == 21
    assert found.passages["e0"] == {"p0"} and found.any_of(mixed) == [False, *[True] * 20]
    assert found.relevant_in(made.inputs.library.gold(), wrong[0]) == {"p0"}
    assert calls_of(made.inputs.task, wrong) == CALLS


def test_a_careful_model_is_measured_and_finds_what_no_passage_holds_word_by_word(tmp_path: Path) -> None:
    model = FakeModel(careful)
    asked = [*EXAMPLES, *(paraphrased(i) for i in range(20, 24))]
    river = {f"e{i}": hits(i)[::-1] for i in range(20, 24)}
    made = workshop(tmp_path, model)
    found = gold_of(made, asked, POOLED | river, tmp_path / "gold")
    assert found.errors is not None and found.errors.low
    assert (found.errors.missed.mean, found.errors.passed.mean) == (0, 0)
    assert (found.errors.missed.n, found.errors.passed.n) == (KNOWN, KNOWN)
    assert found.counts == {"marked": 0, "contained": 20, "model": 4} and found.n == len(asked)
    assert found.passages["e20"] == {"w20"} and found.passages["e3"] == {"p3"}
    assert "so its word counts. It read passages for 4 questions" in found.why
    assert len(model.requests) <= calls_of(made.inputs.task, asked) <= CALLS
    before = len(model.requests)
    assert gold_of(made, asked, POOLED | river, tmp_path / "gold") == found
    assert len(model.requests) == before, "nothing is asked twice"


@pytest.mark.parametrize("reply", ["yes", "no", "well, it depends"])
def test_the_word_of_a_model_that_errs_too_often_does_not_count(tmp_path: Path, reply: str) -> None:
    asked = [*EXAMPLES, paraphrased(20)]
    model = FakeModel(always(reply))
    found = gold_of(workshop(tmp_path, model), asked, POOLED, tmp_path)
    assert found.errors is not None and not found.errors.low
    assert found.counts == {"marked": 0, "contained": 20, "model": 0}
    assert "so containment alone counts" in found.why
    assert sum(map(is_judging, model.requests)) == 2 * KNOWN, "it is asked no more"


def test_of_several_passages_that_hold_an_answer_the_model_takes_away_those_that_do_not_show_it(tmp_path: Path) -> None:
    chance = tuple(Document(f"c{i}", f"Street{i:02d} is long.") for i in range(20))
    made = workshop(tmp_path, FakeModel(careful))
    made = replace(made, inputs=replace(made.inputs, library=Library((*PASSAGES, *WORDED, *chance))))
    both = {f"e{i}": (PASSAGES[i], chance[i], PASSAGES[i + 1]) for i in range(20)}
    found = gold_of(made, EXAMPLES, both, tmp_path)
    assert found.passages == {f"e{i}": {f"p{i}"} for i in range(20)}
    credulous = replace(made, tools=replace(made.tools, model=FakeModel(always("yes"))))
    alone = gold_of(credulous, EXAMPLES, both, tmp_path / "credulous")
    assert alone.passages["e1"] == {"p1", "c1"}


def test_answers_that_are_labels_and_questions_that_cannot_be_answered_have_no_gold(tmp_path: Path) -> None:
    model = FakeModel(careful)
    labelled = workshop(tmp_path, model, labels=("Street01", "Street02"))
    found = gold_of(labelled, [example(1, "p1"), example(2)], POOLED, tmp_path)
    assert found.counts == {"marked": 1, "contained": 0, "model": 0} and "labels" in found.why
    assert calls_of(labelled.inputs.task, EXAMPLES) == 0 and model.requests == []
    refusing = workshop(tmp_path, model, abstain="broad")
    assert "e20" not in gold_of(refusing, [*EXAMPLES, paraphrased(20)], POOLED, tmp_path).passages


def test_without_a_passage_that_is_known_the_model_is_not_asked(tmp_path: Path) -> None:
    model = FakeModel(careful)
    found = gold_of(workshop(tmp_path, model), [paraphrased(1)], POOLED, tmp_path)
    assert (found.passages, found.errors, model.requests) == ({}, None, [])
    assert "cannot be measured" in found.why


def test_passages_that_were_found_are_found_again_under_another_cutting(tmp_path: Path) -> None:
    whole = Document("d", "The mayor of Town01 lives in Street01. The river is a wide one, and boats leave at noon.")
    halves = (
        Document("d#1", "The mayor of Town01 lives in Street01."),
        Document("d#2", "The river is a wide one, and boats leave at noon."),
    )
    one, other = example(1), Example("x", "How is the river?", "broad", ("broad",))
    found = GoldFound({}, {"e1": "contained", "x": "model"}, None, "", {"e1": (halves[0],), "x": (halves[1],)})
    assert found.relevant_in(GoldIndex([whole]), one) == {"d"}
    assert found.relevant_in(GoldIndex(halves), one) == {"d#1"}
    assert found.relevant_in(GoldIndex(halves), other) == {"d#2"}
    larger = GoldFound({}, {"e1": "contained"}, None, "", {"e1": (whole,)})
    assert larger.relevant_in(GoldIndex(halves), one) == {"d#1"}, "of the parts, the one with the answer"
    marked = GoldFound({}, {"e1": "marked"}, None, "")
    assert marked.relevant_in(GoldIndex(halves), replace(one, gold_ids=("d",))) == {"d#1"}


def test_an_answer_that_does_not_come_is_neither_yes_nor_no(tmp_path: Path) -> None:
    model = FakeModel({}, context_length=10)
    assert suffices(workshop(tmp_path, model), [(EXAMPLES[0], PASSAGES[0])], tmp_path) == [None]


def test_one_wrong_pair_of_sixteen_is_allowed_and_two_are_not() -> None:
    def rate(wrong: int, n: int = KNOWN) -> Score:
        return score([1.0] * wrong + [0.0] * (n - wrong))

    assert SufficiencyErrors(rate(1), rate(1)).low
    assert not SufficiencyErrors(rate(0), rate(2)).low
    assert not SufficiencyErrors(rate(0, 8), rate(0)).low, "too few pairs"


def test_hits_of_several_searches_are_taken_in_turn_and_once() -> None:
    a, b, c, d = PASSAGES[:4]
    assert pooled([[a, b], [b, c, d]]) == (a, b, c, d)
    assert pooled([[a, b], [b, c, d]], most=2) == (a, b)
