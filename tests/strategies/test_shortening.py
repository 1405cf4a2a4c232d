"""Shorter prompts: which lengths there are, which one is taken, and what is recorded of the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rung.errors import BudgetSpent, NoGain
from rung.resume import record_of
from rung.solutions.refusing import with_refusal
from rung.strategies.fine_tuning import lora
from rung.strategies.registry import Cost, Texts
from rung.strategies.replay import trained_on
from rung.strategies.shortening import (
    ALONE,
    AS_IT_IS,
    SHORTENING,
    cost_of_shortening,
    first_sentence,
    lengths,
    removable,
    shortened,
)
from rung.trials.trial import read_predictions
from rung.trials.workshop import Workshop, cut_of
from rung.types import Decoding, Demo, DemoSelection, Request, RetrieverSpec, Solution
from workshops import COLOURS, Note, Trainee, workshop_of

LONG = "Say the colour of the thing. There are three of them, and no others: red, green and blue. One word."
FIRST = "the first sentence of the instruction"


def colour_of(request: Request) -> str:
    last = request.messages[-1].content.split()[-1]
    return COLOURS[int(last) % 3] if last.isdigit() else f"I would say: {last}"


def needs(least: int) -> Callable[[Request, Note], str]:
    """A model that, with an adapter, answers right where the system turn has at least so many words. An adapter that
    was trained on prompts without an instruction needs none."""

    def answer(request: Request, note: Note) -> str:
        if note is None or len(request.messages[0].content.split()) < (0 if note.get("bare") else least):
            return "none"
        return colour_of(request)

    return answer


class Learner(Trainee):
    """A trainee that learns no answer by heart; its adapters note whether their prompts had an instruction."""

    def train(self, rows: Any, options: Any, folder: Path, **more: Any) -> Path:
        from rung.records import write_json

        result = super().train(rows, options, folder, **more)
        bare = any(not row.messages[0].content for row in rows if row.messages[0].role == "system")
        write_json(result / "note.json", {"rate": options.learning_rate, "step": more["until"], "bare": bare})
        return result

    def _adapter(self, folder: str) -> dict[str, Any]:
        return {"table": {}, "share": 0.0}


def tuned_and_shop(
    tmp_path: Path, answers: Callable[[Request, Note], str], **task: Any
) -> tuple[Learner, Solution, Workshop]:
    model = Learner(answers)
    shop = workshop_of(model, tmp_path, train=80, limits={"training_tokens": 40_000}, instruction=LONG, **task)
    tuned = lora(shop)
    model.trainings.clear()
    return model, tuned, shop.within(tmp_path / "short")


def rows_of(shop: Workshop) -> dict[tuple[str, bool], dict[str, Any]]:
    return {(row["length"], row["trained"]): row for row in record_of(shop.folder / SHORTENING)["lengths"]}


def test_where_the_adapter_needs_no_instruction_the_input_alone_is_taken_and_nothing_is_trained(tmp_path: Path) -> None:
    model, tuned, shop = tuned_and_shop(tmp_path, needs(0))
    short = shortened(shop, tuned)
    assert (short.name, short.instruction, short.adapter) == ("lora_short", "", tuned.adapter)
    assert not model.trainings and not (shop.folder / "training").exists()
    found = rows_of(shop)
    assert list(found) == [(AS_IT_IS, False), (FIRST, False), (ALONE, False)], "every length is scored"
    assert all(row["score"]["mean"] == 1.0 and row["score"]["n"] == 24 for row in found.values())
    assert [row["tokens_in"] for row in found.values()] == [25.0, 11.0, 5.0]
    answers = read_predictions(shop.folder / "predictions.dev.jsonl")
    assert {p.tokens_in for p in answers} == {5} and len(answers) == 24


def test_where_it_needs_a_few_words_the_shortest_prompt_that_has_them_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stubborn(Learner):
        def train(self, rows: Any, options: Any, folder: Path, **more: Any) -> Path:
            return Trainee.train(self, rows, options, folder, **more)

    def cut_short(workshop: Workshop, *given: Any, **more: Any) -> Solution:
        found = trained_on(workshop, *given, **more)
        workshop.note_cut("training", "the budget ended it")
        return found

    model = Stubborn(needs(6))
    shop = workshop_of(model, tmp_path, train=80, instruction=LONG)
    tuned = lora(shop)
    short_shop = shop.within(tmp_path / "short")
    monkeypatch.setattr("rung.strategies.shortening.trained_on", cut_short)
    short = shortened(short_shop, tuned)
    assert cut_of(short_shop.folder) is None, "nor is what cut it"
    assert short.instruction == "Say the colour of the thing." and short.adapter == tuned.adapter
    found = rows_of(short_shop)
    assert found[ALONE, False]["score"]["mean"] == found[ALONE, True]["score"]["mean"] == 0.0
    assert not (short_shop.folder / "training").exists(), "a training that is not taken is no part of the solution"


def test_where_the_input_alone_is_too_little_it_is_trained_on_with_it_for_half_of_the_steps(tmp_path: Path) -> None:
    model, tuned, shop = tuned_and_shop(tmp_path, needs(10))
    short = shortened(shop, tuned)
    assert short.instruction == "" and short.adapter == str(shop.folder / "adapter")
    (training,) = model.trainings
    before = record_of(Path(str(tuned.adapter)).parent / "training" / "history.json")
    assert training["start"] == Path(str(tuned.adapter))
    assert training["options"].steps == round(before["steps"] / 2)
    assert training["options"].learning_rate == before["learning_rate"]
    assert {row.messages[0].content for row in training["rows"]} == {""}
    found = rows_of(shop)
    assert found[ALONE, False]["versus"]["difference"] == -1.0 and found[ALONE, True]["versus"]["difference"] == 0.0


def test_without_a_shorter_prompt_within_the_margin_it_says_so_and_the_lengths_are_recorded(tmp_path: Path) -> None:
    class Stubborn(Learner):
        def train(self, rows: Any, options: Any, folder: Path, **more: Any) -> Path:
            return Trainee.train(self, rows, options, folder, **more)

    model = Stubborn(needs(12))
    shop = workshop_of(model, tmp_path, train=80, instruction=LONG)
    tuned = lora(shop)
    short_shop = shop.within(tmp_path / "short")
    for _ in range(2):  # also when it is read back
        with pytest.raises(NoGain, match="no shorter prompt than that of lora"):
            shortened(short_shop, tuned)
    assert record_of(short_shop.folder / SHORTENING)["taken"] is None and len(rows_of(short_shop)) == 4
    assert not (short_shop.folder / "adapter").exists()


def test_after_a_kill_nothing_is_answered_twice_and_the_same_length_is_taken(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    model, tuned, shop = tuned_and_shop(tmp_path, needs(10))
    whole = shortened(shop.within(tmp_path / "undisturbed"), tuned)
    model.requests.clear()
    for alive in range(1, 12):
        calls = iter(range(alive))

        def tell(what: str, share: float, calls: Any = calls) -> None:
            if next(calls, None) is None:
                raise Killed

        killed = replace(shop, tools=replace(shop.tools, tell=tell))
        try:
            assert shortened(killed, tuned) == replace(whole, adapter=str(shop.folder / "adapter"))
            break
        except Killed:
            continue
    else:
        raise AssertionError("it never ended")
    one, other = (record_of(tmp_path / name / SHORTENING) for name in ("undisturbed", "short"))
    assert one == other
    ids = [(*(m.content for m in r.messages), r.adapter or "") for r in model.requests]
    assert max(map(ids.count, ids)) <= 2, "a block of answers that was cut is the most that is asked again"


def test_where_the_budget_ends_in_the_training_a_length_that_needs_none_is_taken(tmp_path: Path) -> None:
    _, tuned, shop = tuned_and_shop(tmp_path, needs(5))

    def tell(what: str, share: float) -> None:
        if what.startswith("training"):
            raise BudgetSpent(f"the budget was spent while {what}")

    short = shortened(replace(shop, tools=replace(shop.tools, tell=tell)), tuned)
    assert short.instruction == "Say the colour of the thing."
    assert "budget was spent" in record_of(shop.folder / SHORTENING)["not_trained"]


@pytest.mark.parametrize(("tokens", "steps"), [(10**9, 160), (16 * 1100, 16)])
def test_the_plan_counts_half_of_the_steps_however_few_they_are(tokens: int, steps: int) -> None:
    texts = Texts(
        own=80,
        answer=10,
        room=20,
        instruction=380,
        forms=0,
        passage=0,
        train=320,
        dev=0,
        screen=0,
        training_tokens=tokens,
    )
    repair = Cost(trained=8.0 * max(1.0, steps / 80))  # of a token a step, and 8 steps at least
    assert cost_of_shortening(texts, repair).trained == pytest.approx(steps / 2, rel=0.01)


def test_the_lengths_follow_from_the_prompt_and_no_two_are_alike(tmp_path: Path) -> None:
    shop = workshop_of(Trainee(), tmp_path, instruction="Say the colour.", labels=COLOURS)
    bare = Solution("lora", "Say the colour.", Decoding(8), adapter="a")
    assert list(lengths(shop, bare)) == [AS_IT_IS, ALONE], "one sentence is the whole of it"
    formed = replace(bare, instruction="Say the colour.\n\nAnswer with exactly one of: red, green, blue.")
    found = lengths(shop, formed)
    assert list(found) == [AS_IT_IS, "without the form of the answer", ALONE]
    assert found["without the form of the answer"].instruction == "Say the colour."
    shown = replace(bare, demos=(Demo("thing 1", "green"),), demo_selection=DemoSelection("fixed", 1))
    assert list(lengths(shop, shown)) == [AS_IT_IS, "without demos", ALONE]
    assert all(not s.demos for length, s in lengths(shop, shown).items() if length != AS_IT_IS)
    assert removable(shop, bare) == (3.0, 8.0)


def test_a_shorter_prompt_with_passages_still_says_what_to_answer_where_they_hold_no_answer(tmp_path: Path) -> None:
    shop = workshop_of(Trainee(), tmp_path, instruction=LONG, abstain="not given")
    spec = RetrieverSpec("bm25", 3, 600, fenced=True)
    reads = Solution("rag_lora", with_refusal(LONG, "not given"), Decoding(8), adapter="a", retriever=spec)
    found = lengths(shop, reads)
    assert list(found) == [AS_IT_IS, FIRST, ALONE] and found[AS_IT_IS] == reads
    assert all(solution.instruction.endswith("answer exactly: not given") for solution in found.values())
    assert found[ALONE].instruction == with_refusal("", "not given")
    for other in (replace(reads, retriever=None), replace(reads, instruction=LONG)):  # of an older version
        assert lengths(shop, other)[AS_IT_IS] == other and lengths(shop, other)[ALONE].instruction == ""


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("Say it. Then stop.", "Say it."),
        ("Say it, e.g. red. Stop.", "Say it, e.g. red."),
        ("Say it\nLabels: a, b", "Say it"),
        ("\u8bf7\u56de\u7b54\u3002\u53ea\u8bf4\u989c\u8272\u3002", "\u8bf7\u56de\u7b54\u3002"),
        ("Version 1.5 only", "Version 1.5 only"),
        ("", ""),
    ],
)
def test_the_first_sentence_ends_at_its_mark_or_at_its_line(text: str, first: str) -> None:
    assert first_sentence(text) == first


def test_where_what_the_template_writes_leaves_too_little_to_save_nothing_is_trained(tmp_path: Path) -> None:
    class Wordy(Learner):
        def generate(self, requests: Any) -> Any:
            return [replace(answer, tokens_in=answer.tokens_in + 300) for answer in super().generate(requests)]

    model = Wordy(needs(10))
    shop = workshop_of(model, tmp_path, train=80, limits={"training_tokens": 40_000}, instruction=LONG)
    tuned = lora(shop)
    model.trainings.clear()
    with pytest.raises(NoGain):
        shortened(shop.within(tmp_path / "short"), tuned)
    assert not model.trainings
