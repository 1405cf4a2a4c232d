from __future__ import annotations

from pathlib import Path

import pytest

from rung.ladder.plan import typical_seconds
from rung.types import Speed


def test_a_typical_run_takes_as_many_times_longer_as_the_model_is_slower() -> None:
    embedded = Speed(1010, 169, 331)  # on two cores
    seconds = typical_seconds(embedded)
    assert 5 * 60 < seconds < 15 * 60
    assert typical_seconds(Speed(101, 16.9, 33.1)) == pytest.approx(10 * seconds, rel=1e-3)


def test_the_plan_counts_the_check_of_general_skills_and_the_dearest_repair() -> None:
    from rung.ladder.plan import TYPICAL, _skills, _step
    from rung.ladder.plan_rates import PlanRates
    from rung.strategies import STRATEGIES

    speed = PlanRates(Speed(1000, 100, 300))
    prompt, lora, full = (_step(STRATEGIES[name], TYPICAL, speed, "") for name in ("zero_shot", "lora", "full"))
    assert not _skills([prompt], TYPICAL, speed).applies
    alone, both = _skills([prompt, lora], TYPICAL, speed), _skills([prompt, lora, full], TYPICAL, speed)
    assert alone.applies and alone.calls > 3 * 200 + TYPICAL.dev
    assert both.seconds > alone.seconds and both.seconds < full.seconds, "a tenth of its steps, of all weights"


def test_the_plan_counts_the_thoughts_of_a_model_that_always_thinks() -> None:
    from dataclasses import replace

    from rung.ladder.plan import LATENCY_INPUTS, TYPICAL, Plan, Step, _diagnosis, _step
    from rung.ladder.plan_rates import PlanRates
    from rung.ladder.plan_records import plan_record
    from rung.strategies import STRATEGIES
    from rung.types import Decoding

    speed, none = Speed(1000, 100, 300), Step("pilot", "fine-tune", False, "")

    def plan(thought: int) -> Plan:
        texts = replace(TYPICAL, thought=thought)
        steps = tuple(_step(STRATEGIES[name], texts, PlanRates(speed), "") for name in ("zero_shot", "lora"))
        sizes = {"train": 200, "dev": 100, "test": 100}
        return Plan(steps, _diagnosis(texts, PlanRates(speed)), none, Decoding(8), texts, speed, sizes, {}, {})

    plain, thinking = plan(0), plan(1000)
    assert thinking.answer_seconds == pytest.approx(plain.answer_seconds + 10)
    assert thinking.tuned_answer_seconds == plain.tuned_answer_seconds == plain.answer_seconds
    assert thinking.steps[1] == plain.steps[1], "an adapter answers without a thought"
    answers = plain.steps[0].calls + plain.diagnosis.calls + 100 + LATENCY_INPUTS
    assert plan_record({"": thinking})["seconds"] - plan_record({"": plain})["seconds"] == pytest.approx(
        10 * answers, rel=1e-3
    )


def test_an_answer_has_more_room_where_its_tokens_are_only_estimated(tmp_path: Path) -> None:
    from rung.ladder.plan_texts import texts_of
    from rung.models import metered
    from rung.testing.fakes import FakeModel
    from rung.types import Example, ModelSpec, SealedTest, Split, Task

    rows = tuple(Example(str(i), "an input", "one two three four", ("one two three four",)) for i in range(8))
    split = Split(rows, rows[:2], SealedTest(rows[:2]), {})
    task = Task("t", tmp_path, "Answer.", (tmp_path,), "exact_match", (ModelSpec("m", "fake"),))
    rooms = []
    for error in (1.0, 2.0):
        model = FakeModel({})
        model.count_error = error  # type: ignore[attr-defined]
        rooms.append(texts_of(task, split, metered(model), (), 0).room)
    assert rooms == [5 + 4, 10 + 4]
