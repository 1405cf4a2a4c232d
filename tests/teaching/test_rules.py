"""House rules that are drafted from train and stated behind the instruction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rung.errors import NoGain
from rung.strategies.searching import stated_rules
from rung.teaching.rules import DRAFTS, MOST_RULES, SHOWN, rules_in, rules_log
from rung.testing import FakeModel
from rung.trials.workshop import Workshop
from rung.types import Request
from workshops import COLOURS, INSTRUCTION, workshop_of

RULE = "Answer with the colour alone."


def asked_for_rules(request: Request) -> bool:
    return "the rules by which answers are right" in request.messages[0].content


def model_that(rules: Any) -> FakeModel:
    """Right where the instruction states the rule. rules: (request) -> the list it writes."""

    def answer(request: Request) -> str:
        if asked_for_rules(request):
            return str(rules(request))
        number = int(request.messages[-1].content.split()[-1])
        return COLOURS[number % 3] if RULE in request.messages[0].content else "It is " + COLOURS[number % 3]

    return FakeModel(answer)


def shop_of(model: FakeModel, folder: Path, **more: Any) -> Workshop:
    shop = workshop_of(model, folder, **{"train": 90, **more})
    return replace(shop, best_prompt=shop.solution("zero_shot"))


def test_the_rules_that_help_most_stand_behind_the_instruction(tmp_path: Path) -> None:
    lists = {0: "Rules:\n1. Be kind.\n2. Be brief.", 1: f"- {RULE}\n- Be brief."}
    model = model_that(lambda r: lists[r.decoding.seed] if "Example 1" in r.messages[1].content else "* Be kind.")
    shop = shop_of(model, tmp_path)
    found = stated_rules(shop)
    assert found.name == "stated_rules"
    assert found.instruction == f"{INSTRUCTION}\n\nHouse rules:\n- {RULE}\n- Be brief."
    log = rules_log(shop.folder)
    assert [(r["number"], r["kept"]) for r in log] == [(1, False), (2, True), (3, False)]


def test_drafts_see_wrong_answers_beside_right_ones_of_train_alone(tmp_path: Path) -> None:
    model = model_that(lambda r: f"- {RULE}")
    shop = shop_of(model, tmp_path)
    stated_rules(shop)
    drafts = [r.messages[1].content for r in model.requests if asked_for_rules(r)]
    assert len(drafts) == DRAFTS + 1 and all(text.count("### Example") == SHOWN for text in drafts[:DRAFTS])
    assert "Wrong answer: It is red\nRight answer: red" in drafts[0]
    assert not [e for e in shop.inputs.dev for text in drafts if f"{e.input}\n" in text]


@pytest.mark.parametrize("reply", ["", "I do not know.", "- what colour is thing 7 is green and 8 is blue " * 40])
def test_without_a_usable_draft_that_is_said_and_nothing_is_screened(tmp_path: Path, reply: str) -> None:
    shop = shop_of(model_that(lambda r: reply), tmp_path)
    with pytest.raises(NoGain, match="none of 2 drafts of house rules could be used \\(the answer held no list"):
        stated_rules(shop)
    assert all(r["refused"] and not r["kept"] for r in rules_log(shop.folder))


def test_a_rule_that_copies_an_example_is_dropped(tmp_path: Path) -> None:
    def copying(request: Request) -> str:
        inputs = [line for line in request.messages[1].content.splitlines() if line.startswith("Input: ")]
        return "\n".join([*(f"- {line.removeprefix('Input: ')} is red." for line in inputs[:6]), f"- {RULE}"])

    shop = shop_of(model_that(copying), tmp_path)
    assert stated_rules(shop).instruction == f"{INSTRUCTION}\n\nHouse rules:\n- {RULE}"


def test_rules_are_the_items_of_a_list_each_once() -> None:
    said = "Here:\n- Be brief.\n2) Use lower case.\n• be brief.\nnot a rule\n" + "\n".join(
        f"- Rule {i}." for i in range(20)
    )
    found = rules_in(said)
    assert found[:2] == ("Be brief.", "Use lower case.") and len(found) == MOST_RULES


def test_the_teacher_writes_the_rules_where_there_is_one(tmp_path: Path) -> None:
    teacher = FakeModel(lambda request: f"- {RULE}", name="teacher")
    model = model_that(lambda r: "junk")
    shop = shop_of(model, tmp_path, tools={"teacher": teacher})
    assert RULE in stated_rules(shop).instruction
    assert len(teacher.requests) == DRAFTS + 1 and not any(map(asked_for_rules, model.requests))


def test_what_was_answered_before_is_not_asked_again(tmp_path: Path) -> None:
    model = model_that(lambda r: f"- {RULE}")
    shop = shop_of(model, tmp_path)
    first, asked = stated_rules(shop), len(model.requests)
    assert stated_rules(shop) == first and len(model.requests) == asked
