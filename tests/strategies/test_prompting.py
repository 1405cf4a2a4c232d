"""What prompt strategies choose on dev: the form of the answer in words, demos, passages."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rung.retrieval import INDEXES
from rung.solutions.demos import covering
from rung.strategies.prompting import NEAREST_POOL, constrained, demo_settings, few_shot, names_its_labels, zero_shot
from rung.strategies.retrieving import demos_with_passages, rag
from rung.testing import FakeModel
from rung.trials.choose import screened
from rung.trials.workshop import Workshop
from rung.types import Constraint, Document, ModelSpec, Query, Request, Retriever, RetrieverSpec, Solution, Task
from workshops import COLOURS, INSTRUCTION, PASSAGES, example, workshop_of

LABELS = Constraint("labels", COLOURS)


def asked(request: Request) -> int:
    return int(request.messages[-1].content.split()[-1])


def right_when(condition: Callable[[Request], bool]) -> FakeModel:
    return FakeModel(lambda r: COLOURS[asked(r) % 3] if condition(r) else "?")


def says_form(request: Request) -> bool:
    return all(label in request.messages[0].content for label in COLOURS)


def demos_in(request: Request) -> int:
    return sum(m.role == "assistant" for m in request.messages)


# ---- the form of the answer -----------------------------------------------------------------


@pytest.mark.parametrize("build", [zero_shot, constrained, few_shot, rag], ids=lambda b: b.__name__)
def test_every_prompt_strategy_names_the_labels_where_that_helps(
    tmp_path: Path, build: Callable[[Workshop], Solution]
) -> None:
    shop = workshop_of(right_when(says_form), tmp_path, labels=COLOURS)
    solution = build(replace(shop, inputs=replace(shop.inputs, constraint=LABELS)))
    assert solution.instruction.startswith(f"{INSTRUCTION}\n\n") and says_form_text(solution.instruction)
    assert solution.name == build.__name__
    assert (solution.constraint is None) == (build is zero_shot)


@pytest.mark.parametrize("build", [zero_shot, constrained, few_shot, rag], ids=lambda b: b.__name__)
def test_where_the_form_does_not_help_the_instruction_stays_as_it_is(
    tmp_path: Path, build: Callable[[Workshop], Solution]
) -> None:
    shop = workshop_of(right_when(lambda r: not says_form(r)), tmp_path, labels=COLOURS)
    assert build(shop).instruction == INSTRUCTION


def says_form_text(instruction: str) -> bool:
    return all(label in instruction for label in COLOURS)


def test_the_form_is_tried_again_with_the_demos_that_won(tmp_path: Path) -> None:
    def condition(request: Request) -> bool:
        if demos_in(request) == 8:
            return says_form(request) or asked(request) % 5 > 1
        return not says_form(request) and asked(request) % 5 == 0

    shop = workshop_of(right_when(condition), tmp_path, labels=COLOURS)
    solution = few_shot(shop)
    assert solution.demo_selection is not None and solution.demo_selection.k == 8
    assert says_form_text(solution.instruction), "the form lost with four demos, and wins with eight"
    tried = {p.stem for p in (shop.folder / "trials").glob("*-1.jsonl")}
    won, lost = {"fixed-4", "fixed-8", "fixed-16", "nearest-4", "nearest-8"}, {"fixed-4-form", "fixed-8-form"}
    assert {name.removesuffix("-1") for name in tried} <= won | lost | {"nearest-8-form"} and len(tried) == 7
    assert len(screened(shop.folder)) == 24


@pytest.mark.parametrize("build", [zero_shot, rag], ids=lambda b: b.__name__)
def test_the_form_is_tried_however_long_the_passages_are_and_little_time_is_left(
    tmp_path: Path, build: Callable[[Workshop], Solution]
) -> None:
    shop = workshop_of(right_when(says_form), tmp_path, labels=COLOURS, limits={"training_tokens": 10})
    assert says_form_text(build(shop).instruction)


def test_time_that_is_short_keeps_no_setting_of_demos_out(tmp_path: Path) -> None:
    plan = {"planned_tokens": 100_000, "training_tokens": 0}
    shop = workshop_of(FakeModel({}), tmp_path, limits=plan)
    assert "nearest-8" in [s.name for s in demo_settings(shop, shop.solution("x"))]


@pytest.mark.parametrize(
    ("instruction", "notes", "named"),
    [
        ("Say red, green or blue.", {}, True),
        ("Say red, green or bluest.", {}, False),
        ("Say the colour.", {}, False),
        ("Say red, green or blue.", {"red": "warm"}, False),
        ("Say red (warm), green or blue.", {"red": "warm"}, True),
    ],
)
def test_an_instruction_that_names_all_labels_has_no_other_form(
    tmp_path: Path, instruction: str, notes: dict[str, str], named: bool
) -> None:
    shop = workshop_of(FakeModel(lambda _: "red"), tmp_path, instruction=instruction, labels=COLOURS, label_notes=notes)
    assert names_its_labels(shop.inputs.task) == named
    zero_shot(shop)
    assert (shop.folder / "trials").exists() != named


def test_a_schema_and_a_pattern_enter_the_prompt(tmp_path: Path) -> None:
    forms: tuple[dict[str, Any], ...] = ({"schema": {"type": "object"}}, {"pattern": "red|green|blue"})
    for number, keys in enumerate(forms):
        shop = workshop_of(right_when(lambda r: len(r.messages[0].content) > 20), tmp_path / str(number), **keys)
        assert len(zero_shot(shop).instruction) > len(INSTRUCTION) + 5


def test_labels_are_not_looked_for_in_a_task_without_them(tmp_path: Path) -> None:
    assert not names_its_labels(Task("t", tmp_path, "Say the colour.", (), "exact", (ModelSpec("fake", "fake"),)))


# ---- demos ----------------------------------------------------------------------------------


def test_demos_cover_the_answers_before_they_repeat() -> None:
    train = [example(i) for i in range(36)]
    ordered = covering(train, seed=0)
    assert {d.output for d in ordered[:3]} == set(COLOURS) and len(ordered) == 36
    assert covering(train, seed=0, most=5) == ordered[:5]
    assert covering([], seed=0, most=0) == ()


def test_the_number_of_demos_that_answers_best_on_dev_is_chosen(tmp_path: Path) -> None:
    solution = few_shot(workshop_of(right_when(lambda r: demos_in(r) == 8 and asked(r) % 4 > 0), tmp_path))
    assert solution.demo_selection is not None and solution.demo_selection.k == 8 and solution.name == "few_shot"


def test_a_pool_of_nearest_demos_is_capped_to_a_fixed_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rung.strategies import prompting

    assert NEAREST_POOL == 20_000
    monkeypatch.setattr(prompting, "NEAREST_POOL", 10)
    shop = workshop_of(FakeModel({}), tmp_path)
    pools = [s.demos for s in demo_settings(shop, shop.solution("x")) if s.name.startswith("nearest")]
    assert [len(pool) for pool in pools] == [10, 10] and pools[0] == pools[1]
    again = [s.demos for s in demo_settings(shop, shop.solution("x")) if s.name.startswith("nearest")]
    assert again == pools


def test_a_prompt_that_is_too_long_in_every_setting_is_tried_with_the_fewest_demos(tmp_path: Path) -> None:
    shop = workshop_of(FakeModel({}), tmp_path, limits={"prompt_tokens": 5})
    assert [s.name for s in demo_settings(shop, shop.solution("x"))] == ["fixed-4"]


# ---- passages -------------------------------------------------------------------------------


def test_rag_chooses_demos_that_show_passages_where_only_those_help(tmp_path: Path) -> None:
    def helped(request: Request) -> bool:
        demos = [m for m in request.messages[:-1] if m.role == "user"]
        shown = bool(demos) and all("Thing" in m.content for m in demos)
        return shown and f"Thing {asked(request)} is" in request.messages[-1].content

    solution = rag(workshop_of(right_when(helped), tmp_path))
    assert len(solution.demos) == 4 and "Thing" in solution.demos[0].input
    assert solution.retriever is not None and solution.retriever.k == 1, "one passage is enough and shortest"


def test_rag_chooses_among_the_kinds_of_index_that_are_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ByNumber:
        def search(self, queries: Sequence[Query], k: int) -> list[list[Document]]:
            return [[PASSAGES[int(q.input.split()[-1])]] for q in queries]

    class Blind:
        def search(self, queries: Sequence[Query], k: int) -> list[list[Document]]:
            return [[] for _ in queries]

    def opener(index: Retriever) -> Callable[..., Retriever]:
        return lambda spec, passages, folder: index

    monkeypatch.setitem(INDEXES, "bm25", opener(Blind()))
    monkeypatch.setitem(INDEXES, "by-number", opener(ByNumber()))
    solution = rag(workshop_of(right_when(lambda r: f"Thing {asked(r)} is" in r.messages[-1].content), tmp_path))
    assert solution.retriever is not None and solution.retriever.kind == "by-number"


def test_demos_show_the_passage_that_is_theirs(tmp_path: Path) -> None:
    shop = workshop_of(FakeModel({}), tmp_path)
    for shown in demos_with_passages(shop, replace(shop.solution("x"), retriever=RetrieverSpec("bm25", 3, 600)), 4):
        number = shown.input.split()[-1]
        assert shown.input.startswith(f"Thing {number} is {shown.output}.\n\n")


def test_a_label_that_stands_in_a_passage_makes_no_demo_that_shows_it(tmp_path: Path) -> None:
    shop = workshop_of(FakeModel({}), tmp_path, labels=COLOURS)
    unmarked = tuple(replace(e, gold_ids=()) for e in shop.inputs.train)
    solution = replace(shop.solution("x"), retriever=RetrieverSpec("bm25", 3, 600))
    assert not demos_with_passages(replace(shop, inputs=replace(shop.inputs, train=unmarked)), solution, 4)
    assert len(demos_with_passages(shop, solution, 4)) == 4, "marked ones count"


# ---- growth ---------------------------------------------------------------------------------


def test_many_examples_are_ordered_in_about_linear_time() -> None:
    import time

    texts = random.Random(0)
    train = [replace(example(i), output=f"answer {texts.randrange(10**6)}") for i in range(40_000)]
    started = time.process_time()
    assert len(covering(train, seed=0, most=16)) == 16
    assert time.process_time() - started < 2.0
