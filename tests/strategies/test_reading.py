"""Solutions that read passages name their sources and refuse where the task says so, in prompts and in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rung.retrieval.library import Library, SearchedBy
from rung.solutions.citing import CITE_NOTE, ROOM, cited
from rung.solutions.prompt_rendering import FENCE_NOTE, render
from rung.solutions.refusing import with_refusal
from rung.strategies.fine_tuning import rag_lora
from rung.strategies.reading import reading
from rung.strategies.retrieving import demos_with_passages, rag
from rung.strategies.training_rows import training_rows
from rung.testing import FakeModel
from rung.trials.workshop import Workshop
from rung.types import Document, Example, Query, Retriever, RetrieverSpec, Solution, TrainingRow
from workshops import COLOURS, INSTRUCTION, Trainee, workshop_of

ABSTAIN = "Not in the documents."
SPEC = RetrieverSpec("bm25", 3, 600, fenced=True)


def code_of(i: int) -> str:
    return f"code{7 * i}"


def coded(i: int, **more: Any) -> Example:
    return Example(f"e{i}", f"what is the code of thing {i}", code_of(i), (code_of(i),), **more)


def shop_of(folder: Path, *, marked: bool = True, rows: int = 200, model: Any = None, **task: Any) -> Workshop:
    """Every answer stands in one passage."""
    shop = workshop_of(model or Trainee(), folder, limits={"training_tokens": 20_000}, **task)
    passages = [Document(f"p{i}", f"The code of thing {i} is {code_of(i)}.") for i in range(rows)]
    examples = tuple(coded(i, gold_ids=(f"p{i}",) if marked else ()) for i in range(rows))
    dev = rows // 5
    inputs = replace(shop.inputs, train=examples[dev:], dev=examples[:dev], library=Library(passages))
    return replace(shop, inputs=inputs)


def solution_of(shop: Workshop, spec: RetrieverSpec = SPEC) -> Solution:
    return replace(reading(shop, "rag_lora"), retriever=spec)


def refused(rows: list[TrainingRow]) -> set[str]:
    return {row.name for row in rows if row.answer == ABSTAIN}


# ---- the instruction ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instruction", "abstain", "said"),
    [
        ("Answer.", None, "Answer."),
        ("", ABSTAIN, f"If the passages do not hold the answer, answer exactly: {ABSTAIN}"),
        ("Answer.\n", ABSTAIN, f"Answer.\n\nIf the passages do not hold the answer, answer exactly: {ABSTAIN}"),
        (f"Answer, or say {ABSTAIN.upper()}", ABSTAIN, f"Answer, or say {ABSTAIN.upper()}"),
        ("Answer from known facts.", "known", "Answer from known facts."),
        (
            "Answer from unknown places.",
            "known",
            "Answer from unknown places.\n\nIf the passages do not hold the answer, answer exactly: known",
        ),
    ],
)
def test_what_to_answer_without_a_passage_is_said_once(instruction: str, abstain: str | None, said: str) -> None:
    assert with_refusal(instruction, abstain) == said


def test_rag_names_its_sources_and_refuses_whatever_dev_would_choose(tmp_path: Path) -> None:
    shop = shop_of(tmp_path, model=FakeModel(lambda request: "x"), abstain=ABSTAIN, cite=True)
    solution = rag(shop)
    assert solution.cite and solution.instruction == with_refusal(INSTRUCTION, ABSTAIN)
    assert solution.decoding.max_new_tokens == shop.decoding.max_new_tokens + ROOM
    assert render(solution, Query("q", "?"))[0].content.endswith(CITE_NOTE)


def test_a_form_that_is_tried_keeps_what_to_answer_without_a_passage(tmp_path: Path) -> None:
    abstain = COLOURS[0]
    shop = workshop_of(FakeModel(lambda request: "x"), tmp_path, abstain=abstain, labels=COLOURS)
    solution = rag(shop)
    assert with_refusal(INSTRUCTION, abstain) in solution.instruction
    with_form = FakeModel(
        lambda r: COLOURS[int(r.messages[-1].content.split()[-1]) % 3] if "one of" in said(r) else "x"
    )
    shop = workshop_of(with_form, tmp_path / "formed", abstain=abstain, labels=COLOURS)
    formed = rag(shop).instruction
    assert formed.startswith(with_refusal(INSTRUCTION, abstain)) and "one of" in formed


def said(request: Any) -> str:
    return str(request.messages[0].content)


def test_neither_is_there_where_the_task_says_neither(tmp_path: Path) -> None:
    shop = shop_of(tmp_path)
    assert reading(shop, "rag") == replace(shop.solution("rag"), constraint=shop.inputs.constraint)
    rows = training_rows(shop, replace(solution_of(shop), retriever=SPEC), shop.inputs.train)
    assert [row.answer for row in rows] == [e.output for e in shop.inputs.train]
    assert all(row.messages[0].content == f"{INSTRUCTION}\n\n{FENCE_NOTE}" for row in rows)


# ---- training -------------------------------------------------------------------------------


@pytest.mark.parametrize("marked", [True, False], ids=["marked", "found by the answer"])
def test_about_one_training_prompt_in_ten_shows_no_gold_passage_and_learns_to_refuse(
    tmp_path: Path, marked: bool
) -> None:
    shop = shop_of(tmp_path, marked=marked, abstain=ABSTAIN)
    train = shop.inputs.train
    rows = training_rows(shop, solution_of(shop), train)
    ids = refused(rows)
    assert 0.04 * len(train) < len(ids) < 0.17 * len(train)
    for example, row in zip(train, rows, strict=True):
        shown = row.messages[-1].content.split("\n\n")[0]
        assert shown.count("<passage") == 3, "other passages stand there"
        assert (example.output in shown.replace(".", " ").split()) == (row.name not in ids)
        assert row.answer == (ABSTAIN if row.name in ids else example.output)
    assert refused(training_rows(shop, solution_of(shop), train[:40])) == ids & {e.id for e in train[:40]}
    assert not refused(training_rows(shop, solution_of(shop), train, gold=False)), "as answering shows them"


@pytest.mark.parametrize("why", ["own rows", "labels", "one of a few", "nothing is known", "form"])
def test_nothing_is_made_unanswerable_where_that_would_teach_wrong_things(tmp_path: Path, why: str) -> None:
    shop = shop_of(tmp_path, marked=False, abstain=ABSTAIN)
    inputs = shop.inputs
    if why == "own rows":
        some = tuple(replace(e, output=ABSTAIN, references=(ABSTAIN,)) for e in inputs.train[:20])
        inputs = replace(inputs, train=(*some, *inputs.train[20:]))
    elif why == "labels":
        inputs = replace(inputs, task=replace(inputs.task, labels=(*map(code_of, range(200)), ABSTAIN)))
    elif why == "one of a few":
        inputs = replace(inputs, dev=tuple(replace(e, output="yes", references=("yes",)) for e in inputs.dev))
    elif why == "form":
        inputs = replace(inputs, task=replace(inputs.task, pattern=".*"))
    else:
        inputs = replace(inputs, train=tuple(replace(e, output="?", references=("zzz",)) for e in inputs.train))
    shop = replace(shop, inputs=inputs)
    own = {e.id for e in inputs.train if e.output == ABSTAIN}
    assert refused(training_rows(shop, solution_of(shop), inputs.train)) == own


@pytest.mark.parametrize("fenced", [True, False])
def test_a_learnt_answer_names_the_gold_passage_by_its_number_in_that_prompt(tmp_path: Path, fenced: bool) -> None:
    shop = shop_of(tmp_path, cite=True, abstain=ABSTAIN)
    library = shop.inputs.library
    turned = SearchedBy(library.passages(), Turned(library.search(SPEC)))
    shop = replace(shop, inputs=replace(shop.inputs, library=turned))
    solution = solution_of(shop, replace(SPEC, fenced=fenced))
    rows = training_rows(shop, solution, shop.inputs.train)
    numbers = set()
    for example, row in zip(shop.inputs.train, rows, strict=True):
        if row.answer == ABSTAIN:
            continue
        shown = {n: str(n) for n in (1, 2, 3)}
        found = cited(row.answer, shown)
        assert found.text == example.output and len(found.ids) == 1
        number = found.ids[0]
        numbers.add(number)
        mark = f"<passage {number}>\n" if fenced else f"[{number}] "
        assert f"{mark}The code of thing {example.id[1:]} is {example.output}." in row.messages[-1].content
    assert len(numbers) == 3, "the gold passage stands in any place"


class Turned:
    """A search whose best hit stands in any place, by the length of the question."""

    def __init__(self, search: Retriever) -> None:
        self._search = search

    def search(self, queries: Sequence[Query], k: int) -> list[list[Document]]:
        rows = self._search.search(queries, k)
        return [
            [*row[1 : 1 + (n := int(q.id[1:]) % 3)], row[0], *row[1 + n :]]
            for q, row in zip(queries, rows, strict=True)
        ]


def test_an_answer_names_nothing_where_its_passage_is_not_shown_or_cut_before_the_answer(tmp_path: Path) -> None:
    shop = shop_of(tmp_path, cite=True, abstain=ABSTAIN)
    stranger = replace(coded(500), gold_ids=())
    refusal = replace(coded(7, gold_ids=("p7",)), output=ABSTAIN, references=(ABSTAIN,))
    assert training_rows(shop, solution_of(shop), [refusal])[0].answer == ABSTAIN, "a refusal rests on none"
    assert training_rows(shop, solution_of(shop), [stranger])[0].answer == stranger.output
    long = Document("long", f"what is the code of thing 77 {'word ' * 40} {code_of(77)}")
    shop = replace(shop, inputs=replace(shop.inputs, library=Library([long])))
    cut = replace(SPEC, token_budget=12)
    assert training_rows(shop, solution_of(shop, cut), [coded(77, gold_ids=("long",))])[0].answer == code_of(77)
    whole = training_rows(shop, solution_of(shop), [coded(77, gold_ids=("long",))])[0].answer
    assert whole == f"{code_of(77)} [1]"


def test_a_long_answer_names_the_passage_that_holds_most_of_its_words(tmp_path: Path) -> None:
    shop = shop_of(tmp_path, cite=True, marked=False)
    said = "Thing 77 has the code code539, as it stands here."
    row = Example("long", "what is the code of thing 77", said, (said,))
    other = replace(row, output=(far := "Nobody has ever been able to say so."), references=(far,))
    passages = [Document("p", "Thing 77 has code539 as the code: it stands here."), Document("q", "Thing 77 is old.")]
    shop = replace(shop, inputs=replace(shop.inputs, library=Library([*passages, *shop.inputs.library.documents[:50]])))
    (learnt, without) = training_rows(shop, solution_of(shop), [row, other])
    found = cited(learnt.answer, {n: learnt.messages[-1].content.split(f"<passage {n}>\n")[1] for n in (1, 2, 3)})
    assert found.text == said and found.ids[0].startswith(passages[0].text) and without.answer == far


def test_that_a_passage_contains_a_no_says_nothing_of_what_it_holds(tmp_path: Path) -> None:
    shop = shop_of(tmp_path, cite=True, marked=False, abstain=ABSTAIN)
    inputs = shop.inputs
    library = Library([Document(d.id, f"{d.text} There is no doubt.") for d in inputs.library.documents])
    rows = tuple(replace(e, output="No", references=("No",)) for e in inputs.train)
    shop = replace(shop, inputs=replace(inputs, library=library, train=rows))
    assert {row.answer for row in training_rows(shop, solution_of(shop), rows)} == {"No"}


def test_demos_of_a_solution_that_cites_name_their_own_passage_and_none_is_shown_that_does_not(tmp_path: Path) -> None:
    shop = shop_of(tmp_path, cite=True, model=FakeModel(lambda request: "x"))
    for number, shown in enumerate(demos_with_passages(shop, solution_of(shop), 4), 1):
        assert shown.input.startswith(f"<passage {number}>\n") and shown.output.endswith(f" [{number}]")
    for number, shown in enumerate(demos_with_passages(shop, solution_of(shop, replace(SPEC, fenced=False)), 4), 1):
        assert shown.input.startswith(f"[{number}] The code")
    rag(shop)
    tried = {path.stem for path in (shop.folder / "trials").iterdir()}
    assert any("-shown" in name for name in tried) and not any("-demos" in name for name in tried)


@pytest.mark.parametrize("own", [True, False], ids=["rows of the task's own", "rows that are made"])
@pytest.mark.parametrize("cite", [True, False])
def test_one_of_four_demos_refuses_beside_a_passage_that_does_not_hold_the_answer(
    cite: bool, own: bool, tmp_path: Path
) -> None:
    shop = shop_of(tmp_path, abstain=ABSTAIN, cite=cite)
    unknown = [Example(f"u{i}", f"what is the code of thing {900 + i}", ABSTAIN, (ABSTAIN,)) for i in range(30)]
    train = (*shop.inputs.train, *unknown) if own else shop.inputs.train
    shop = replace(shop, inputs=replace(shop.inputs, train=train))
    demos = demos_with_passages(shop, solution_of(shop), 4)
    assert [d.output == ABSTAIN for d in demos] == [False, True, False, False]
    assert [bool(cited(d.output, {n: "x" for n in range(1, 5)}).ids) for d in demos] == [
        cite and i != 1 for i in range(4)
    ]
    thing = int(demos[1].input.split()[-1])
    assert "The code of thing" in demos[1].input and f"{code_of(thing)}." not in demos[1].input
    assert (thing >= 900) == own
    assert len({d.input.split()[-1] for d in demos}) == 4, "no question is both answered and refused"


def test_no_demo_refuses_where_the_task_names_no_refusal_or_none_can_be_made(tmp_path: Path) -> None:
    tasks: tuple[dict[str, Any], ...] = ({}, {"abstain": ABSTAIN, "pattern": r"code\d+"})
    for task in tasks:
        shop = shop_of(tmp_path, **task)
        demos = demos_with_passages(shop, solution_of(shop), 4)
        assert len(demos) == 4 and all(d.output.startswith("code") for d in demos)
    refusing = tuple(replace(e, output=ABSTAIN, references=(ABSTAIN,)) for e in shop.inputs.train)
    shop = shop_of(tmp_path, abstain=ABSTAIN)
    shop = replace(shop, inputs=replace(shop.inputs, train=refusing))
    assert demos_with_passages(shop, solution_of(shop), 4) == (), "refusals alone would teach to refuse"


def test_rag_lora_is_judged_by_its_answers_without_marks(tmp_path: Path) -> None:
    from rung.trials.trial import mean_score, read_predictions

    def answers(request: Any, note: Any) -> str:
        return f"{code_of(int(request.messages[-1].content.split()[-1]))} [2]" if note is not None else "?"

    shop = shop_of(tmp_path, model=Trainee(answers), cite=True)
    solution = rag_lora(shop)
    found = read_predictions(shop.folder / "predictions.dev.jsonl")
    assert solution.retriever is not None and solution.retriever.fenced, "where no search was measured and no rag built"
    assert solution.cite and mean_score(found) == 1.0 and all(len(p.citations) == 1 for p in found)
