"""Choosing on the screen: successive halving, and what happens when the time is up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rung.testing import FakeModel
from rung.trials.choose import affordable, choose, screened
from rung.trials.trial import attempt, mean_score, read_predictions
from rung.trials.workshop import Workshop, cut_of
from rung.types import Demo, DemoSelection, Request, Solution
from workshops import COLOURS, workshop_of


def answers_by_instruction(shares: dict[str, int]) -> Callable[[Request], str]:
    """Right for so many of three numbers, by the instruction's first word."""

    def answers(request: Request) -> str:
        asked = int(request.messages[-1].content.split()[-1])
        return COLOURS[asked % 3] if asked % 3 < shares[request.messages[0].content.split()[0]] else "?"

    return answers


def variants(shop: Workshop, *names: str) -> list[Solution]:
    return [replace(shop.solution(name), instruction=name) for name in names]


def test_only_the_best_two_and_their_equals_answer_the_whole_screen(tmp_path: Path) -> None:
    shop = workshop_of(FakeModel(answers_by_instruction({"a": 0, "b": 2, "c": 1, "d": 1, "e": 0})), tmp_path)
    assert choose(shop, variants(shop, *"abcde")).name == "b"
    rounds = sorted(p.stem for p in (shop.folder / "trials").iterdir())
    assert [name for name in rounds if name.endswith("-1")] == ["a-1", "b-1", "c-1", "d-1", "e-1"]
    assert [name for name in rounds if name.endswith("-2")] == ["b-2", "c-2", "d-2"]
    chosen = screened(shop.folder)
    assert [p.id for p in chosen] == [e.id for e in shop.inputs.screen]
    dev = attempt(shop, shop.solution("b"), shop.inputs.dev, shop.folder / "p", known=chosen)
    assert mean_score(dev) > 0.5


def test_of_equal_variants_the_one_with_the_shortest_prompt_is_chosen(tmp_path: Path) -> None:
    shop = workshop_of(FakeModel(lambda _: "red"), tmp_path)
    long = replace(shop.solution("long"), instruction="Say the colour. " * 20)
    assert choose(shop, [long, shop.solution("short")]).name == "short"


def test_where_everything_is_tried_every_variant_answers_the_whole_screen(tmp_path: Path) -> None:
    shop = workshop_of(
        FakeModel(answers_by_instruction({"a": 0, "b": 2, "c": 1})), tmp_path, limits={"exhaustive": True}
    )
    choose(shop, variants(shop, *"abc"))
    assert sorted(p.stem for p in (shop.folder / "trials").iterdir()) == ["a-2", "b-2", "c-2"]


def test_when_the_time_is_up_the_choice_is_among_what_was_answered_and_says_so(tmp_path: Path) -> None:
    left = [30.0, 20.0, -1.0]
    shop = workshop_of(
        FakeModel(answers_by_instruction({"a": 1, "b": 2, "c": 3, "d": 3})),
        tmp_path,
        limits={"seconds_left": lambda: left.pop(0) if len(left) > 1 else left[0]},
    )
    assert choose(shop, variants(shop, *"abcd")).name == "b", "c and d would have been better, but came too late"
    assert cut_of(shop.folder) == "2 of 4 variants were compared when the time was up"
    assert len(screened(shop.folder)) == len(shop.inputs.screen), "the chosen one has answered the whole screen"
    more = replace(shop, limits=replace(shop.limits, seconds_left=lambda: 1000.0))
    assert choose(more, variants(more, *"abcd")).name == "c"
    assert cut_of(shop.folder) is None, "continued with more time, the choice is whole"


def test_a_choice_that_was_killed_keeps_what_it_has_answered_when_the_time_is_up(tmp_path: Path) -> None:
    names = "abc"
    model = FakeModel(answers_by_instruction({"a": 0, "b": 3, "c": 1}))
    left = [1000.0]
    shop = workshop_of(model, tmp_path, limits={"seconds_left": lambda: left[0]})
    assert choose(shop, variants(shop, *names)).name == "b"
    asked, left[0] = len(model.requests), -1.0
    assert choose(shop, variants(shop, *names)).name == "b" and cut_of(shop.folder) is None
    assert len(model.requests) == asked
    (shop.folder / "trials" / "b-1.jsonl").unlink()
    assert choose(shop, variants(shop, *names)).name == "c", (
        "what is not whole is left out; what stands behind it counts"
    )
    assert cut_of(shop.folder) == "2 of 3 variants were compared when the time was up"


def test_when_the_second_round_is_cut_the_best_of_the_first_is_chosen(tmp_path: Path) -> None:
    rounds = {"count": 0}

    def left() -> float:
        rounds["count"] += 1
        return 10.0 if rounds["count"] <= 4 else -1.0  # three variants in the first round, then no time

    shop = workshop_of(
        FakeModel(answers_by_instruction({"a": 1, "b": 3, "c": 2})), tmp_path, limits={"seconds_left": left}
    )
    assert choose(shop, variants(shop, *"abc")).name == "b"
    assert [p.name for p in (shop.folder / "trials").glob("*-2.jsonl")] == ["b-2.jsonl"]
    assert cut_of(shop.folder) == "1 of 2 variants were compared when the time was up"


def test_the_first_round_is_drawn_at_random_from_a_dev_set_in_order(tmp_path: Path) -> None:
    shop = workshop_of(FakeModel(lambda _: "red"), tmp_path)
    choose(shop, variants(shop, *"abc"))
    first = {p.id for p in read_predictions(shop.folder / "trials" / "a-1.jsonl")}
    assert len(first) == 8 and first != {e.id for e in shop.inputs.dev[:8]}
    assert [p.id for p in screened(shop.folder)] == [e.id for e in shop.inputs.screen]


def test_without_any_time_the_first_variant_is_answered_all_the_same(tmp_path: Path) -> None:
    shop = workshop_of(FakeModel(lambda _: "red"), tmp_path, limits={"seconds_left": lambda: -5.0})
    assert choose(shop, variants(shop, "a", "b")).name == "a" and len(screened(shop.folder)) == 24


def test_fixed_demos_cost_next_to_nothing_and_nearest_ones_cost_every_time(tmp_path: Path) -> None:
    shop = workshop_of(FakeModel({}), tmp_path, limits={"training_tokens": 300})
    pool = tuple(Demo(f"thing {i}", "red") for i in range(60))
    fixed = replace(shop.solution("fixed"), demos=pool[:8], demo_selection=DemoSelection("fixed", 8))
    assert affordable(shop, fixed)
    assert not affordable(shop, replace(fixed, demos=pool, demo_selection=DemoSelection("nearest", 8)))
    short = replace(shop, limits=replace(shop.limits, prompt_tokens=60))
    assert not affordable(short, fixed), "a prompt that is longer than any worth paying for"
