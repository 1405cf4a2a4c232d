"""Preferences: the best fine-tuned solution trained on with pairs, or one that learnt the chosen answers first."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rung.errors import BudgetSpent, TrainingError
from rung.ladder.applies import has, why_not
from rung.models.metering import metered
from rung.records import read_lines, write_json
from rung.resume import record_of
from rung.strategies import STRATEGIES
from rung.strategies.fine_tuning import lora
from rung.strategies.preferring import EPOCHS, HOW, LEAST_WANTED, RATE, cost_of_dpo, dpo
from rung.strategies.registry import Texts
from rung.testing import FakeModel, FakeTrainable
from rung.trials.workshop import Workshop
from rung.types import DPO, Preference, PreferenceRow, Preferring, Query, Request, Trainable, TrainingOptions
from workshops import COLOURS, Note, Trainee, workshop_of

TEXTS = Texts(60, 8, 12, 60, 80, 0, 200, 100, 48, 10**9, preferences=200)


class Pupil(Trainee):
    """A Trainee that remembers what each call of `prefer` was given."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.preferred: list[dict[str, Any]] = []

    def prefer(self, rows: Any, options: TrainingOptions, folder: Path, *, how: DPO, **more: Any) -> Path:
        self.preferred.append({"rows": list(rows), "options": options, "how": how, **more})
        return super().prefer(rows, options, folder, how=how, **more)


def pair(i: int) -> Preference:
    return Preference(
        Query(f"preference:{i}", f"name thing {i}"), COLOURS[i % 3], f"it is {COLOURS[i % 3]}", f"row {i}"
    )


def shop_of(model: Any, folder: Path, pairs: int = 40, **more: Any) -> Workshop:
    shop = workshop_of(model, folder, **more)
    return replace(shop, inputs=replace(shop.inputs, preferences=tuple(map(pair, range(pairs)))))


def tuned_and_shop(tmp_path: Path, model: Pupil, **more: Any) -> Workshop:
    shop = shop_of(model, tmp_path, **more)
    tuned = lora(shop.within(tmp_path / "lora"))
    model.trainings.clear()
    return replace(shop, best_tuned=tuned)


def answers(request: Request, note: Note) -> str:
    return COLOURS[len(request.messages[-1].content) % 3]


def test_it_goes_on_from_the_best_fine_tuned_solution_with_the_prompts_of_answering(tmp_path: Path) -> None:
    model = Pupil(answers)
    shop = tuned_and_shop(tmp_path, model)
    assert shop.best_tuned is not None
    found = dpo(shop)
    assert replace(found, name="lora", adapter=None) == replace(shop.best_tuned, adapter=None) and found.name == "dpo"
    first = model.preferred[0]
    assert str(first["start"]) == shop.best_tuned.adapter != found.adapter and first["how"] == HOW
    assert first["options"].learning_rate == RATE and first["options"].steps == max(EPOCHS * 5, LEAST_WANTED)
    row = first["rows"][7]
    assert isinstance(row, PreferenceRow) and (row.name, row.chosen, row.rejected) == ("row 7", "green", "it is green")
    model.generate([])
    asked = model.requests[-1].messages
    assert [m.role for m in row.messages] == [m.role for m in asked] and "name thing 7" in row.messages[-1].content
    assert len(first["rows"]) == 40
    trained = len(model.preferred)
    assert dpo(shop) == found and len(model.preferred) == trained, "what is built is read back"


def test_dev_is_answered_at_each_interim_look_and_the_training_is_recorded(tmp_path: Path) -> None:
    model = Pupil(answers)
    dpo(shop := tuned_and_shop(tmp_path, model))
    history = record_of(shop.folder / "training" / "history.json")
    assert len(history["epochs"]) == 2 and history["steps"] == LEAST_WANTED
    assert history["learning_rate"] == RATE and history["rate_from"] == "the usual one for pairs of answers"
    assert history["probed"] is False, "no other training takes this rate over"
    assert len(read_lines(shop.folder / "predictions.dev.jsonl")) == 24


def test_without_a_fine_tuned_solution_the_chosen_answers_are_learnt_first(tmp_path: Path) -> None:
    model = Pupil(answers)
    shop = shop_of(model, tmp_path)
    found = dpo(shop)
    first = tmp_path / "solution" / "first" / "adapter"
    assert {row.answer for t in model.trainings for row in t["rows"]} == set(COLOURS)
    assert {row.name for row in model.trainings[0]["rows"]} == {f"row {i}" for i in range(40)}
    assert model.preferred[0]["start"] == first and first.is_dir() and found.name == "dpo"
    assert not list((first.parent / "training").glob("lr-*"))
    assert found.adapter == str(shop.folder / "adapter")


def test_all_weights_are_trained_on_where_all_weights_were_trained(tmp_path: Path) -> None:
    model = Pupil(answers)
    shop = tuned_and_shop(tmp_path, model)
    write_json(tmp_path / "lora" / "training" / "history.json", {"all_weights": True})
    dpo(shop)
    options = model.preferred[0]["options"]
    assert options.full and options.learning_rate == pytest.approx(RATE / 10)


def test_a_training_from_another_solution_is_begun_anew(tmp_path: Path) -> None:
    model = Pupil(answers)
    shop = tuned_and_shop(tmp_path, model)
    dpo(shop)
    shutil.rmtree(shop.folder / "adapter")
    assert shop.best_tuned is not None
    other = replace(
        shop.best_tuned, name="other", adapter=str(shutil.copytree(tmp_path / "lora", tmp_path / "o") / "adapter")
    )
    model.preferred.clear()
    dpo(replace(shop, best_tuned=other))
    assert record_of(shop.folder / "training" / "course.json")["from"] == "other"
    assert model.preferred[0]["start"] == tmp_path / "o" / "adapter"


def test_a_kill_while_it_is_begun_anew_leaves_no_answers_of_the_former_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.parent.name == "trials":
            raise Killed
        real(path, missing_ok)

    model, real = Pupil(answers), Path.unlink
    shop = tuned_and_shop(tmp_path, model)
    dpo(shop)
    shutil.rmtree(shop.folder / "adapter")
    assert shop.best_tuned is not None
    other = replace(
        shop.best_tuned, name="other", adapter=str(shutil.copytree(tmp_path / "lora", tmp_path / "o") / "adapter")
    )
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "unlink", unlink)
        dpo(replace(shop, best_tuned=other))
    model.requests.clear()
    dpo(replace(shop, best_tuned=other))
    assert len(model.requests) == 2 * 24, "each interim look answers dev with the new training's adapter"


def test_a_budget_that_ends_it_keeps_the_checkpoint_that_dev_judged(tmp_path: Path) -> None:
    model = Pupil(answers)

    def tell(what: str, share: float) -> None:
        if what.startswith("training dpo") and share > 0.8:
            raise BudgetSpent("the budget was spent")

    shop = tuned_and_shop(tmp_path, model, tools={"tell": tell})
    found = dpo(shop)
    history = record_of(shop.folder / "training" / "history.json")
    assert found.adapter is not None and "training was stopped by the budget" in history["cut"]


def test_pairs_are_bounded_by_the_time_and_too_long_ones_are_left_out(tmp_path: Path) -> None:
    model = Pupil(answers)
    dpo(tuned_and_shop(tmp_path / "a", model, pairs=400, limits={"training_tokens": 3_000}))
    options = model.preferred[0]["options"]
    assert options.steps * 8 >= len(model.preferred[0]["rows"]) < 400
    short = Pupil(answers, context_length=60)
    shop = tuned_and_shop(tmp_path / "b", short)
    long = replace(pair(3), rejected="it " * 60)
    dpo(replace(shop, inputs=replace(shop.inputs, preferences=(long, *map(pair, range(4, 20))))))
    assert len(short.preferred[0]["rows"]) == 16
    assert record_of(shop.folder / "training" / "history.json")["left_out"] == {"count": 1, "rows": ["row 3"]}


def test_a_model_that_learns_from_no_pairs_is_refused_and_the_plan_says_so(tmp_path: Path) -> None:
    class Unable(FakeTrainable):
        prefer = None  # type: ignore[assignment]

    model = Unable(lambda request: "red")
    assert isinstance(model, Trainable) and not isinstance(model, Preferring)
    assert isinstance(metered(model), Trainable) and not isinstance(metered(model), Preferring)
    with pytest.raises(TrainingError, match="does not learn from pairs of answers"):
        dpo(shop_of(model, tmp_path))
    task = replace(shop_of(model, tmp_path).inputs.task, preferences=(tmp_path / "p.jsonl",))
    words: dict[Any, str] = {
        model: "the model does not learn from pairs of answers",
        FakeModel({}): "the model cannot be trained from here",
        FakeTrainable({}): "",
    }
    for one, why in words.items():
        assert why_not(STRATEGIES["dpo"], has(one, task, corpus=False, constrained=False), ()) == why
    none = replace(task, preferences=())
    assert "no preferences" in why_not(STRATEGIES["dpo"], has(model, none, corpus=False, constrained=False), ())


def test_it_stands_behind_lora_and_has_to_prove_itself() -> None:
    names = list(STRATEGIES)
    assert names.index("lora") < names.index("dpo") < names.index("rag_lora")
    assert STRATEGIES["dpo"].proves and STRATEGIES["dpo"].family == "fine-tune"


def test_what_it_costs_grows_with_the_pairs_up_to_the_tokens_of_a_training() -> None:
    few, many = cost_of_dpo(TEXTS), cost_of_dpo(replace(TEXTS, preferences=2_000))
    assert few.calls == 2 * TEXTS.dev and few.trained == 50 * (60 + 8 * (60 + 16))
    assert many.trained == pytest.approx(10 * few.trained)
    capped = cost_of_dpo(replace(TEXTS, preferences=2_000, training_tokens=20_000))
    assert capped.trained <= 20_000 and capped.calls == TEXTS.dev
