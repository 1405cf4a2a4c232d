"""Searching for an instruction: what is tried and refused, what survives a kill, what is never shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rung.errors import BudgetSpent, NoGain
from rung.strategies.searching import optimised_prompt
from rung.teaching.held_out import held_out, without_demos_of
from rung.teaching.search import ACCEPTED, ASKED, planned_calls, search, sizes
from rung.teaching.search_log import search_in_words, search_log
from rung.testing import FakeModel
from rung.trials.workshop import Workshop
from rung.types import DemoSelection, Request, Solution
from workshops import COLOURS, INSTRUCTION, example, workshop_of

pytest.importorskip("gepa")

GOOD = "Name the colour of the thing in one word of lower case."
BETTER = "Name the colour of the thing in one word of lower case, without a full stop."


def said(request: Request) -> str:
    return request.messages[-1].content


def proposing(request: Request) -> bool:
    return "better instruction" in said(request)


def scripted(rights: dict[str, int], proposals: Callable[[Request], str], **more: Any) -> FakeModel:
    """Right under an instruction for so many of ten inputs; asked for a better instruction, it gives a proposal."""

    def answer(request: Request) -> str:
        if proposing(request):
            return proposals(request)
        number = int(said(request).split()[-1])
        return COLOURS[number % 3] if number % 10 < rights.get(request.messages[0].content, 0) else "The colour is red."

    return FakeModel(answer, **more)


def one_after_the_other(*texts: str) -> Callable[[Request], str]:
    """A proposal by the seed of its request, so that it does not depend on what was asked before."""
    return lambda request: texts[min(request.decoding.seed, len(texts)) - 1]


def tagged(text: str) -> str:
    return f"Here you are: <instruction>{text}</instruction>"


def shop_of(model: Any, folder: Path, **more: Any) -> Workshop:
    shop = workshop_of(model, folder, **{"train": 90, **more})
    return replace(shop, best_prompt=replace(shop.solution("zero_shot"), model="fake"))


def start_of(shop: Workshop) -> Solution:
    return shop.solution("start")


def test_an_instruction_that_is_better_on_train_is_found_and_kept(tmp_path: Path) -> None:
    model = scripted({INSTRUCTION: 2, GOOD: 6, BETTER: 10}, one_after_the_other(tagged(GOOD), tagged(BETTER)))
    shop = shop_of(model, tmp_path)
    found = optimised_prompt(shop)
    assert (found.name, found.instruction) == ("optimised_prompt", BETTER)
    log = search_log(shop.folder)
    assert [r["instruction"] for r in log if r["accepted"]][-1] == BETTER and [r["kept"] for r in log].count(True) == 1
    assert log[0]["val"]["score"] < log[1]["val"]["score"] < log[-1]["val"]["score"] == 1.0
    assert log[1]["minibatch"]["before"] < log[1]["minibatch"]["after"] and log[1]["parent"] == 0
    assert f"number {log[-1]['number']} is kept (1.00 on 32 train examples, before 0." in search_in_words(log)


def test_a_search_sees_no_dev_row(tmp_path: Path) -> None:
    model = scripted({INSTRUCTION: 2, GOOD: 6}, one_after_the_other(tagged(GOOD)))
    shop = shop_of(model, tmp_path)
    optimised_prompt(shop)
    seen = "\n".join(m.content for r in model.requests for m in r.messages)
    assert not [e.input for e in shop.inputs.dev if f"{e.input}\n" in f"{seen}\n"]


def test_the_calls_stay_within_the_plan_and_suffice_for_three_accepted_proposals(tmp_path: Path) -> None:
    texts = [f"Say the colour, in the manner of number {i}, in one word." for i in range(9)]
    model = scripted(
        {INSTRUCTION: 1, **{t: min(9, i + 2) for i, t in enumerate(texts)}}, lambda r: texts[r.decoding.seed]
    )
    shop = shop_of(model, tmp_path)
    search(shop, start_of(shop), [])
    answered = [r for r in model.requests if not proposing(r)]
    assert len(answered) <= planned_calls(90) == sizes(74).calls
    assert sum(r["accepted"] for r in search_log(shop.folder)) >= ACCEPTED
    assert len(model.requests) - len(answered) <= ASKED


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("", "empty"),
        (tagged(""), "empty"),
        ("word " * 2_000, "cut off"),
        (tagged(INSTRUCTION), "before"),
        (tagged("\n".join(f"{example(i).input}: {example(i).output}" for i in range(60))), "copied"),
    ],
)
def test_junk_of_a_weak_proposer_is_refused_with_its_reason_and_costs_no_answers(
    tmp_path: Path, reply: str, why: str
) -> None:
    model = scripted({INSTRUCTION: 2}, lambda request: reply)
    shop = shop_of(model, tmp_path, limits={"prompt_tokens": 5_000})
    assert search(shop, start_of(shop), []).instruction == INSTRUCTION
    log = search_log(shop.folder)
    assert len(log) == ASKED + 1 and all(why in r["refused"] for r in log[1:])
    assert {r.messages[0].content for r in model.requests if not proposing(r)} == {INSTRUCTION}


def test_a_proposal_that_makes_the_prompt_too_long_is_refused(tmp_path: Path) -> None:
    long = "Say the colour. " + "Be brief and plain and exact. " * 50
    shop = shop_of(scripted({INSTRUCTION: 2}, lambda r: tagged(long)), tmp_path, limits={"prompt_tokens": 100})
    search(shop, start_of(shop), [])
    assert "longer than 100 tokens" in search_log(shop.folder)[1]["refused"]


def test_a_proposer_that_gives_no_answer_leaves_the_prompt_as_it_is(tmp_path: Path) -> None:
    def nothing(request: Request) -> str:
        raise RuntimeError("overloaded")

    shop = shop_of(scripted({INSTRUCTION: 2}, nothing), tmp_path)
    assert search(shop, start_of(shop), []).instruction == INSTRUCTION
    assert "overloaded" in search_log(shop.folder)[1]["refused"]


def test_the_teacher_proposes_where_there_is_one(tmp_path: Path) -> None:
    teacher = FakeModel(lambda request: tagged(BETTER), name="teacher")
    model = scripted({INSTRUCTION: 2, BETTER: 10}, lambda request: "junk")
    shop = shop_of(model, tmp_path, tools={"teacher": teacher})
    assert optimised_prompt(shop).instruction == BETTER
    assert teacher.requests and not any(map(proposing, model.requests))


class _Killed(Exception):
    pass


def test_a_search_that_is_killed_again_and_again_pays_for_nothing_twice_and_ends_alike(tmp_path: Path) -> None:
    rights = {INSTRUCTION: 2, GOOD: 6, BETTER: 9}
    proposals = one_after_the_other("", tagged(GOOD), tagged(BETTER))
    whole = scripted(rights, proposals, version="a")
    undisturbed = shop_of(whole, tmp_path / "whole")
    expected = optimised_prompt(undisturbed)
    model = scripted(rights, proposals, version="a")
    kills = 0
    for patience in range(1, 60):
        left = [patience]

        def tell(what: str, share: float) -> None:
            left[0] -= 1  # noqa: B023
            if left[0] < 0:  # noqa: B023
                raise BudgetSpent("killed")

        shop = shop_of(model, tmp_path / "killed", tools={"tell": tell})
        try:
            found = optimised_prompt(shop)
            break
        except BudgetSpent:
            kills += 1
    assert kills >= 5 and found == expected
    assert search_log(shop.folder) == search_log(undisturbed.folder)
    assert len(model.requests) == len(whole.requests)


def test_a_prompt_that_is_right_everywhere_is_not_searched_on(tmp_path: Path) -> None:
    model = scripted({INSTRUCTION: 10}, one_after_the_other(tagged(GOOD)))
    shop = shop_of(model, tmp_path)
    search(shop, start_of(shop), [])
    assert len(model.requests) == sizes(74).val and not any(map(proposing, model.requests))


def test_where_nothing_is_better_that_is_said_with_its_numbers_and_dev_is_not_answered(tmp_path: Path) -> None:
    model = scripted({INSTRUCTION: 5}, lambda request: tagged("Say nothing at all."))
    shop = shop_of(model, tmp_path)
    with pytest.raises(NoGain, match=r"proposals, of which .* none beat the start on 32 train examples \(0\.\d\d\)"):
        optimised_prompt(shop)
    assert not list(shop.folder.glob("predictions*"))


def test_when_the_time_is_up_before_anything_is_better_it_can_be_gone_on_with(tmp_path: Path) -> None:
    left = [0.0]
    model = scripted({INSTRUCTION: 2, GOOD: 9}, one_after_the_other(tagged(GOOD)))
    shop = shop_of(model, tmp_path, limits={"seconds_left": lambda: left[0]})
    with pytest.raises(BudgetSpent, match="the time was up after 0 proposals"):
        optimised_prompt(shop)
    left[0] = 60.0
    assert optimised_prompt(shop).instruction == GOOD


def test_a_candidate_that_is_clearly_behind_is_left_early(tmp_path: Path) -> None:
    """It is right on the small parts alone, and the start on all but one of the others."""

    def answer(request: Request) -> str:
        if proposing(request):
            return tagged("Guess a colour.")
        number = int(said(request).split()[-1])
        guessed = request.messages[0].content != INSTRUCTION
        return COLOURS[number % 3] if (f"e{number}" in small) == guessed and f"e{number}" != first else "?"

    shop = shop_of(FakeModel(answer), tmp_path)
    rows = [e.id for e in held_out(shop.inputs, 56)]
    first, small = rows[0], rows[32:]
    assert search(shop, start_of(shop), []).instruction == INSTRUCTION
    record = search_log(shop.folder)[1]
    assert record["accepted"] and record["val"]["n"] < 32 and "clearly ahead" in record["val"]["left"]


def test_demos_are_searched_with_the_instruction(tmp_path: Path) -> None:
    def answer(request: Request) -> str:
        if proposing(request):
            return "-"
        number = int(said(request).split()[-1])
        demos = sum(m.role == "assistant" for m in request.messages)
        return COLOURS[number % 3] if demos >= 4 or number % 10 < 2 else "?"

    shop = shop_of(FakeModel(answer), tmp_path)
    found = optimised_prompt(shop)
    assert found.instruction == INSTRUCTION and found.demo_selection is not None and len(found.demos) >= 4
    assert [r["changed"] for r in search_log(shop.folder) if r["kept"]] == ["demos"]


def test_no_prompt_shows_the_answer_of_the_example_that_it_is_judged_on(tmp_path: Path) -> None:
    shop = workshop_of(FakeModel({}), tmp_path, train=30)
    rows = held_out(shop.inputs, 20)
    demos = tuple(replace(d, output=d.output) for d in _demos(shop))
    for kind in ("fixed", "nearest"):
        shown = without_demos_of(
            replace(start_of(shop), demos=demos, demo_selection=DemoSelection(kind, 30)),  # type: ignore[arg-type]
            rows,
            shop.inputs,
        )
        assert shown.demos and not {d.input for d in shown.demos} & {e.input for e in rows}


def _demos(shop: Workshop) -> list[Any]:
    from rung.solutions.demos import demo

    return [demo(e) for e in shop.inputs.train]


def test_near_duplicates_of_a_judged_example_are_hidden_with_it(tmp_path: Path) -> None:
    shop = workshop_of(FakeModel({}), tmp_path, train=30)
    groups = {f"e{i}": f"g{i // 2}" for i in range(30)}
    inputs = replace(shop.inputs, groups=groups)
    solution = replace(start_of(shop), demos=tuple(_demos(shop)), demo_selection=DemoSelection("nearest", 4))
    shown = without_demos_of(solution, [example(4)], inputs)
    assert len(shown.demos) == 28 and not {d.input for d in shown.demos} & {example(4).input, example(5).input}


def test_too_few_train_examples_are_refused_with_their_number(tmp_path: Path) -> None:
    shop = shop_of(scripted({}, lambda r: ""), tmp_path, train=12)
    with pytest.raises(NoGain, match="8 train examples are left"):
        optimised_prompt(shop)
    assert planned_calls(12) == 0


def test_when_the_time_is_up_the_best_so_far_is_kept_and_the_cut_is_noted(tmp_path: Path) -> None:
    from rung.trials.workshop import cut_of

    model = scripted({INSTRUCTION: 2, GOOD: 9}, one_after_the_other(tagged(GOOD)))
    proposed = lambda: any(map(proposing, model.requests))  # noqa: E731
    shop = shop_of(model, tmp_path, limits={"seconds_left": lambda: 0.0 if proposed() else 60.0})
    assert optimised_prompt(shop).instruction == GOOD
    assert "after 1 proposal" in (cut_of(shop.folder) or "")
