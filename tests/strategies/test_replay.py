"""Replay: the fine-tuned solution trained on, with the base model's own answers mixed in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rung.errors import OUT_OF_MEMORY, ModelError, TrainingError
from rung.records import write_json
from rung.resume import record_of
from rung.strategies.fine_tuning import lora
from rung.strategies.replay import base_answers, replay_prompts, replayed
from rung.testing import FakeModel
from rung.trials.workshop import Workshop
from rung.types import Request, Solution
from workshops import COLOURS, Note, Trainee, workshop_of


def answers(request: Request, note: Note) -> str:
    last = request.messages[-1].content.split()[-1]
    return COLOURS[int(last) % 3] if last.isdigit() else f"I would say: {last}"


def tuned_and_shop(tmp_path: Path, model: Trainee, **history: Any) -> tuple[Solution, Workshop]:
    shop = workshop_of(model, tmp_path, train=400, limits={"training_tokens": 40_000})
    tuned = lora(shop)
    place = shop.folder / "training" / "history.json"
    write_json(place, {**record_of(place), **history})
    model.trainings.clear()
    return tuned, shop.within(tmp_path / "replay")


@pytest.mark.parametrize(
    ("history", "steps"), [({"steps": 600}, 60), ({"steps": 40}, 8), ({"steps": 600, "stopped_at": 300}, 30)]
)
def test_replay_takes_a_tenth_of_the_trainings_own_steps(tmp_path: Path, history: dict[str, int], steps: int) -> None:
    model = Trainee(answers)
    tuned, shop = tuned_and_shop(tmp_path, model, **history)
    replayed(shop, tuned)
    assert {t["options"].steps for t in model.trainings} == {steps}


def test_replay_is_short_by_intent_and_is_not_called_cut(tmp_path: Path) -> None:
    model = Trainee(lambda request, note: answers(request, note) if request.messages[-1].content[-1] != "1" else "no")
    tuned, shop = tuned_and_shop(tmp_path, model, steps=40)
    replayed(shop, tuned)
    history = record_of(shop.folder / "training" / "history.json")
    assert history["steps"] == 8 and history["epochs"][0]["dev"] < 1.0 and "cut" not in history


def test_replay_goes_on_from_the_adapter_more_slowly_and_mixes_general_prompts_in(tmp_path: Path) -> None:
    model = Trainee(answers)
    tuned, shop = tuned_and_shop(tmp_path, model, learning_rate=1e-3, steps=400)
    again = replayed(shop, tuned)
    (training,) = model.trainings
    names = [row.name for row in training["rows"]]
    general = [name for name in names if name.startswith("replay")]
    assert len(general) * 2 == len(names) and len(set(general)) == len(replay_prompts())
    assert len(set(names) - set(general)) == max(len(set(general)), 40 * 4), "half of each batch, none twice"
    assert training["options"].learning_rate == 5e-4 and str(training["start"]) == tuned.adapter != again.adapter
    assert again.name == "lora_replay" and replace(again, name=tuned.name, adapter=None) == replace(tuned, adapter=None)
    assert replayed(shop, tuned) == again and len(model.trainings) == 1


def test_the_base_model_is_asked_once_for_all_runs_that_share_a_folder(tmp_path: Path) -> None:
    model = Trainee(answers)
    shared = tmp_path / "shared"
    one = workshop_of(model, tmp_path / "one", tools={"shared": shared})
    other = workshop_of(model, tmp_path / "other", tools={"shared": shared})
    assert base_answers(one, ["Name a colour", "Name a day"]) == base_answers(other, ["Name a colour", "Name a day"])
    assert model.calls == [2]
    base_answers(other, ["Name a town"])
    assert model.calls == [2, 1], "other prompts are kept apart"
    base_answers(workshop_of(model, tmp_path / "alone"), ["Name a town"])
    assert model.calls == [2, 1, 1], "without a shared folder each solution keeps its own"


def test_a_base_model_that_answers_nothing_cannot_be_replayed(tmp_path: Path) -> None:
    model = Trainee(lambda request, note: answers(request, note) if request.messages[-1].content[-1].isdigit() else "")
    tuned, shop = tuned_and_shop(tmp_path, model)
    with pytest.raises(TrainingError, match="answers none of the general prompts"):
        replayed(shop, tuned)


def test_an_answer_that_fails_by_chance_is_not_recorded_as_none(tmp_path: Path) -> None:
    error: list[str] = [OUT_OF_MEMORY]

    def failing(request: Request) -> Any:
        return ValueError(error[0]) if request.messages[-1].content == "Name a day" else "Monday"

    shop = workshop_of(FakeModel(failing), tmp_path, tools={"shared": tmp_path / "shared"})
    with pytest.raises(ModelError, match=r"1 of 2 general prompts \(out of memory\)"):
        base_answers(shop, ["Name a colour", "Name a day"])
    error[0] = "prompt of 9000 tokens does not fit the context of 8192"
    assert base_answers(shop, ["Name a colour", "Name a day"]) == ["Monday", ""]


def test_replay_prompts_are_none_of_the_suite() -> None:
    from rung.evaluation.skills import suite

    def words(text: str) -> frozenset[str]:
        return frozenset("".join(c if c.isalnum() else " " for c in text.casefold()).split())

    asked = [words(skill.prompt) for skill in suite()]
    for prompt in replay_prompts():
        mine = words(prompt)
        assert all(len(mine & other) < 0.6 * len(mine | other) for other in asked), prompt
    assert len(replay_prompts()) >= 60
