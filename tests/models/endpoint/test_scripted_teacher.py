"""The scripted teacher and judge know rung's own prompts, reply the same each time, and count what they planted."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from rung.data.near_duplicates import near_duplicate_groups
from rung.evaluation.judge import prompts as judging
from rung.evaluation.judge.replies import grade, preference
from rung.teaching.proposing import instruction_in, request_for_instruction
from rung.teaching.rules import rules_in
from rung.teaching.synthesis import prompts
from rung.testing import FakeModel, ScriptedJudge, ScriptedTeacher, Shares
from rung.testing.endpoint.teaching import OFF_LABEL, REFUSAL, asked_for, nearly
from rung.types import Answer, Document, Example, Generation, JudgeSpec, Message, ModelSpec, Query

COLOURS = ("red", "green", "blue")
KNOWN = {f"What colour is the thing with number {i}?": COLOURS[i % 3] for i in range(300)}
PASSAGE = Document("p", "The thing with number 7 is green.")


def makes(chance: random.Random, wanted: str | None) -> tuple[str, str]:
    colour = wanted or chance.choice(COLOURS)
    return f"Say what colour a {chance.randrange(10**9)} {colour} thing has", colour


def asks(chance: random.Random, passage: str, answered: bool) -> tuple[str, str]:
    return f"Which colour, by {passage[:20]}, number {chance.randrange(10**9)}?", "green" if answered else "unknown"


def teacher(**more: Any) -> ScriptedTeacher:
    return ScriptedTeacher(
        KNOWN, makes, asks=asks, labels=COLOURS, instructions=("Say the colour.", "Name a colour."), **more
    )


def text_of(messages: Sequence[Message]) -> str:
    return "\n".join(m.content for m in messages)


def answer_to(teacher: ScriptedTeacher, text: str, seed: int | None = None) -> str:
    sampled = {} if seed is None else {"temperature": 0.7, "seed": seed}
    return teacher((Message("system", "Say the colour."), Message("user", text)), sampled)


def test_what_rung_asks_is_recognised_by_its_prompts() -> None:
    row = Query("1", "What colour is it?")
    found = {
        "inputs": prompts.new_inputs("Say it.", None, ["an input"], "red", 4, ""),
        "paraphrases": prompts.other_words("Say it.", row, "red", 4, ""),
        "questions": prompts.questions("Say it.", PASSAGE, ["an input"], 4, answered=True),
        "unanswerable": prompts.questions("Say it.", PASSAGE, ["an input"], 4, answered=False),
        "instruction": request_for_instruction(FakeModel({}), "Say it.", [], "", 0).messages,
        "answer": (Message("system", "Say it."), Message("user", "What colour is it?")),
    }
    assert {kind: asked_for(text_of(messages)) for kind, messages in found.items()} == {kind: kind for kind in found}
    from rung.teaching import rules

    assert asked_for(rules._SYSTEM) == "rules"


def test_what_it_writes_is_what_was_ordered() -> None:
    scripted = teacher(rules=("Write in small letters.", "One word."))
    ordered = prompts.new_inputs("Say it.", None, ["an input"], "red", 4, "")
    texts = prompts.inputs_in(scripted(ordered, {"seed": 1}))
    assert len(texts) == 4 and {scripted.right_answer(text) for text in texts} == {"red"}
    assert scripted(ordered, {"seed": 1}) == scripted(ordered, {"seed": 1}) != scripted(ordered, {"seed": 2})
    question = next(iter(KNOWN))
    again = prompts.inputs_in(scripted(prompts.other_words("Say it.", Query("1", question), "red", 3, ""), {}))
    assert len(again) == 3 and {scripted.right_answer(text) for text in again} == {KNOWN[question]}
    for answered, right in ((True, "green"), (False, "unknown")):
        (asked, *_) = prompts.inputs_in(scripted(prompts.questions("", PASSAGE, [], 2, answered=answered), {}))
        assert scripted.right_answer(asked) == right and "The thing" in asked
    proposal = scripted(request_for_instruction(FakeModel({}), "Say it.", [], "", 0).messages, {})
    assert instruction_in(Generation(proposal, 1, 1, 0.0)) in scripted.instructions
    assert set(rules_in(scripted((Message("system", "You find the rules by which answers are right, …"),), {})))


def test_answers_are_right_but_for_what_is_planted_and_stay_the_same() -> None:
    scripted = teacher(shares=Shares(wrong=0.1, wavering=0.1, off_label=0.1, broken=0.1, refused=0.1))
    samples = {text: [answer_to(scripted, text, seed) for seed in range(8)] for text in KNOWN}
    by_plant: dict[str | None, int] = {}
    for text, answers in samples.items():
        plant, right = scripted.plant_of(text), KNOWN[text]
        by_plant[plant] = by_plant.get(plant, 0) + 1
        expected: dict[str | None, Callable[[list[str]], bool]] = {
            None: lambda found, right=right: set(found) == {right},
            "wrong": lambda found, right=right: len(set(found)) == 1 and found[0] in COLOURS and found[0] != right,
            "wavering": lambda found, right=right: set(found) <= set(COLOURS),
            "off_label": lambda found: set(found) == {OFF_LABEL},
            "broken": lambda found, right=right: right in found[0] and found[0] != right,
            "refused": lambda found: set(found) == {REFUSAL},
        }
        assert expected[plant](answers), (plant, answers)
        assert [answer_to(scripted, text, seed) for seed in range(8)] == answers
    assert by_plant[None] == pytest.approx(150, abs=30) and all(n > 10 for n in by_plant.values())
    assert answer_to(scripted, "What is this?") == "What is this?" == scripted.unknown[0]


def test_the_input_is_found_behind_passages() -> None:
    assert answer_to(teacher(), "A passage.\nAnother one.\n\nWhat colour is the thing with number 7?") == "green"


def test_small_changes_leave_near_duplicates() -> None:
    chance = random.Random(0)
    for number in range(12):
        text = f"What colour has the thing that stands behind the door of house {number}?"
        pair = [Example("a", text, "", ()), Example("b", nearly(text, chance), "", ())]
        groups = near_duplicate_groups(pair)
        assert groups["a"] == groups["b"], pair


def test_recall_and_precision_are_of_what_was_planted() -> None:
    scripted = teacher(shares=Shares(wrong=0.2, near=0.3), near=list(KNOWN)[:5])
    for seed in range(40):
        for text in prompts.inputs_in(scripted(prompts.new_inputs("", None, [], None, 5, ""), {"seed": seed})):
            answer_to(scripted, text)
    kept = {text: next(iter(samples.values())) for text, samples in scripted.given.items()}
    nothing = scripted.filtered(kept)
    assert nothing.recall == 0.0 and nothing.planted == nothing.through and nothing.dropped == 0
    right = {text: answer for text, answer in kept.items() if scripted.written[text] is None}
    right = {text: answer for text, answer in right.items() if scripted.plant_of(text) is None}
    perfect = scripted.filtered(right)
    assert (perfect.recall, perfect.precision) == (1.0, 1.0)
    cautious = scripted.filtered(dict(list(right.items())[::2]))
    assert cautious.recall == 1.0 and 0.0 < cautious.precision < 1.0
    only_near = scripted.filtered({text: answer for text, answer in kept.items() if scripted.written[text] is None})
    assert set(only_near.through) == {"wrong"} and 0.0 < only_near.recall < 1.0 == only_near.precision


def test_a_bad_reply_refuses_or_breaks_off() -> None:
    scripted = teacher(shares=Shares(bad_replies=0.5))
    replies = [scripted(prompts.new_inputs("", None, [], None, 5, ""), {"seed": seed}) for seed in range(100)]
    whole = 0
    for reply in replies:
        try:
            whole += len(json.loads(reply)["inputs"]) == 5
        except ValueError:
            continue
    assert REFUSAL in replies and 30 < whole < 70


def test_a_judge_says_what_it_thinks_and_what_is_planted() -> None:
    spec = JudgeSpec(ModelSpec("j", "j"), "It is right.")
    right = Answer(Query("1", "1 + 1"), "two", ("two",))
    wrong = Answer(Query("1", "1 + 1"), "three", ("two",))

    def graded(judge: ScriptedJudge, answer: Answer) -> float | None:
        return grade(judge(judging.graded(spec, answer, "Add.", 0, 0.0).messages, {}))

    def compared(judge: ScriptedJudge, answer: Answer, *, first: bool) -> float | None:
        messages = judging.pairwise(spec, answer, "Add.", 0, 0.0, first=first).messages
        return preference(judge(messages, {}), first=first)

    def truth(asked: str, text: str) -> float:
        return float(text.startswith("two"))

    fair = ScriptedJudge(truth)
    assert (graded(fair, right), graded(fair, wrong)) == (1.0, 0.0)
    assert compared(fair, wrong, first=True) == compared(fair, wrong, first=False) == 0.0
    assert compared(fair, right, first=True) == 0.5
    assert fair.asked == {"grade": 2, "compare": 3}
    long = Answer(right.query, "three " * 80, ("two",))
    assert graded(ScriptedJudge(truth, likes_length=0.5), long) == 1.0
    assert compared(ScriptedJudge(truth, likes_first=2.0), wrong, first=True) == 1.0
    assert compared(ScriptedJudge(truth, likes_first=2.0), wrong, first=False) == 0.0
    assert graded(ScriptedJudge(truth, likes=("three", 1.0)), wrong) == 1.0
    assert graded(ScriptedJudge(truth, unreadable=1.0), right) is None
    with pytest.raises(LookupError):
        fair((Message("user", "Hello"),), {})
