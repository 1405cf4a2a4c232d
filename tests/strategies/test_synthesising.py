"""Training on synthetic rows beside train: which rows, how many, and when it is not worth trying."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rung.errors import NoGain
from rung.records import read_lines
from rung.strategies import STRATEGIES, Texts, function_of
from rung.strategies.course import Lengths
from rung.strategies.synthesising import MOST_WRITTEN, rows_wanted, synth_lora
from rung.trials.workshop import Workshop
from rung.types import Example, Prediction
from synthetic_cases import colour_of, scripted, shop_of, train_rows
from workshops import Trainee


def training_shop(folder: Path, teacher: object = None, **inputs: object) -> tuple[Workshop, Trainee]:
    """A workshop with a model that can be trained, six dev rows, and a teacher."""
    shop = shop_of(teacher or scripted(), folder, **inputs)  # type: ignore[arg-type]
    dev = tuple(Example(f"d{i}", f"dev row {i} about the lamp", "blue", ("blue",)) for i in range(6))
    student = Trainee(lambda request, note: colour_of(request.messages[-1].content))
    shop = replace(shop, inputs=replace(shop.inputs, dev=dev), tools=replace(shop.tools, model=student))
    return shop, student


def test_the_adapter_learns_train_and_rows_that_the_teacher_wrote(tmp_path: Path) -> None:
    shop, student = training_shop(tmp_path)
    solution = synth_lora(shop)
    assert solution.adapter is not None and solution.family == "fine-tune"
    rows = read_lines(tmp_path / "synthetic.jsonl")
    counts = json.loads((tmp_path / "synthetic.json").read_text())
    assert counts["kept"] == len(rows) == 30 and counts["teacher_score"] == 1.0
    learnt = {row.messages[-1].content for row in student.trainings[0]["rows"]}
    assert learnt == {e.input for e in shop.inputs.train} | {row["input"] for row in rows}
    assert not learnt & {e.input for e in shop.inputs.dev}


def test_nothing_is_asked_again_when_it_continues(tmp_path: Path) -> None:
    teacher = scripted()
    shop, _ = training_shop(tmp_path, teacher)
    first = synth_lora(shop)
    asked = len(teacher.requests)
    shop, _ = training_shop(tmp_path, teacher)
    assert synth_lora(shop) == first and len(teacher.requests) == asked


def test_the_plan_names_the_calls_that_are_made(tmp_path: Path) -> None:
    teacher = scripted()
    shop, _ = training_shop(tmp_path, teacher)
    synth_lora(shop)
    texts = Texts(10, 1, 8, 5, 5, 0, train=30, dev=6, screen=6, training_tokens=shop.limits.planned)
    strategy = STRATEGIES["synth_lora"]
    planned = function_of(strategy.taught or "")(texts).calls
    assert 0.9 * planned <= len(teacher.requests) <= planned
    assert function_of(strategy.taught or "")(replace(texts, synthetic=50)).calls == 0
    plain, more = (function_of(STRATEGIES[name].cost)(texts) for name in ("lora", "synth_lora"))
    assert more.trained >= plain.trained
    assert strategy.imitates and strategy.proves and strategy.needs == {"trainable", "synthetic"}


def test_rows_that_the_task_names_are_used_and_no_teacher_is_asked(tmp_path: Path) -> None:
    teacher = scripted()
    given = tuple(Example(f"s{i}", f"given row {i} about the door", "red", ("red",)) for i in range(12))
    shop, student = training_shop(tmp_path, teacher, synthetic=given)
    synth_lora(shop)
    assert teacher.requests == []
    assert {e.input for e in given} <= {row.messages[-1].content for row in student.trainings[0]["rows"]}


def test_rows_without_an_answer_in_documents_do_not_train_a_model_that_sees_none(tmp_path: Path) -> None:
    given = tuple(Example(f"s{i}", f"given row {i}", "unknown", ("unknown",)) for i in range(12))
    shop, _ = training_shop(tmp_path, labels=None, abstain="unknown", synthetic=given)
    with pytest.raises(NoGain, match="0 synthetic rows can be used"):
        synth_lora(shop)


def test_a_teacher_below_the_bar_brings_nothing(tmp_path: Path) -> None:
    shop, student = training_shop(tmp_path, scripted(lambda text, request: "red"))
    with pytest.raises(NoGain, match="known train rows"):
        synth_lora(shop)
    assert student.trainings == []


def test_labels_that_dev_gets_wrong_are_counted_and_nothing_else_of_dev_is_used(tmp_path: Path) -> None:
    teacher = scripted()
    shop, _ = training_shop(tmp_path, teacher)
    wrong = tuple(Prediction(e.id, "red", 1, 1, 0.0, score=0.0) for e in shop.inputs.dev)
    synth_lora(replace(shop, prompt_answers=wrong))
    rows = read_lines(tmp_path / "synthetic.jsonl")
    new = [row["output"] for row in rows if row["origin"]["kind"] == "new"]
    assert new.count("blue") > new.count("red")
    shown = "\n".join(m.content for request in teacher.requests for m in request.messages)
    assert not any(e.input in shown for e in shop.inputs.dev)


def test_as_many_rows_are_wanted_as_train_has_within_time_and_bounds() -> None:
    lengths = Lengths(0, 10)
    assert rows_wanted(30, lengths, 10_000) == 30
    assert rows_wanted(1_000, lengths, 10**9) == MOST_WRITTEN
    assert rows_wanted(1_000, lengths, 8_080) == 0  # the training sees train once and no more


def test_a_training_that_sees_no_more_than_train_asks_no_teacher(tmp_path: Path) -> None:
    teacher = scripted()
    shop, _ = training_shop(tmp_path, teacher, train=train_rows(30))
    shop = replace(shop, limits=replace(shop.limits, training_tokens=10, exhaustive=False))
    many = tuple(replace(e, id=f"{e.id}-{n}", input=f"{e.input} {n}") for n in range(4) for e in shop.inputs.train)
    with pytest.raises(NoGain, match="no more rows than those of train"):
        synth_lora(replace(shop, inputs=replace(shop.inputs, train=many)))
    assert teacher.requests == []
