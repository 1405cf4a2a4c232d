from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rung.errors import BudgetSpent, ConstraintError, ModelError, OutOfMemory
from rung.models import Metered, metered
from rung.testing import FakeModel, FakeTrainable
from rung.types import (
    Constraint,
    Decoding,
    Generation,
    Measured,
    Message,
    Price,
    Progress,
    Request,
    Speed,
    Trainable,
    TrainingOptions,
    TrainingRow,
)

ROWS = [TrainingRow(f"row {i}", (Message("user", f"question {i}"),), "one two") for i in range(8)]
OPTIONS = TrainingOptions(1e-3, steps=4, batch_size=2)


def ask(text: str, most: int = 9) -> Request:
    return Request((Message("system", "Answer this."), Message("user", text)), Decoding(most))


def test_calls_and_tokens_are_counted() -> None:
    model = metered(FakeModel(lambda r: "one two three"))
    model.generate([ask("a"), ask("b c")])
    model.generate([ask("d", most=1)])
    assert (model.calls, model.tokens_in, model.tokens_out) == (3, 10, 7)
    assert model.computed_tokens == 17
    assert model.seconds > 0


def test_everything_else_passes_through() -> None:
    inner = FakeModel({"a": "b"}, name="x", version="3", context_length=77, price=Price(usd_per_million_in=1.0))
    model = metered(inner)
    assert (model.name, model.version, model.context_length, model.price) == ("x", "3", 77, inner.price)
    assert model.count_tokens("a b") == 2
    with pytest.raises(ConstraintError):
        model.check(Constraint("labels", ()))


@pytest.mark.parametrize("trainable", [True, False])
def test_a_metered_model_is_trainable_exactly_when_its_model_is(trainable: bool) -> None:
    inner = FakeTrainable({}) if trainable else FakeModel({})
    for model in (metered(inner), Metered(inner)):
        assert isinstance(model, Metered) and isinstance(model, Measured)
        assert isinstance(model, Trainable) is trainable


def test_a_metered_model_is_not_metered_twice() -> None:
    model = metered(FakeModel({}))
    model.calls = 3
    again = metered(model, Price(usd_per_million_in=1.0))
    assert again is model and again.calls == 3 and again.price is not None


def test_dollars_are_those_of_the_task_before_those_of_the_model() -> None:
    dear, cheap = (Price(usd_per_million_in=p, usd_per_million_out=2 * p) for p in (100.0, 1.0))
    for model, each in (
        (metered(FakeModel({"a": "b"}, price=dear)), 100e-6),
        (metered(FakeModel({"a": "b"}, price=dear), cheap), 1e-6),
        (metered(FakeModel({"a": "b"})), 0.0),
        (metered(FakeModel({"a": "b"}), Price(usd_per_hour=9.0)), 0.0),  # the ledger counts hours
    ):
        model.generate([ask("a")])
        assert model.usd == pytest.approx(3 * each + 2 * each)


class Own(FakeModel):
    """A model that measures itself."""

    answers_key = "own-key"
    computed_tokens = 123

    def speed(self) -> Speed:
        return Speed(1, 2, 3)

    def describe(self) -> dict[str, Any]:
        return {"device": "abacus"}


def test_what_a_model_measures_itself_counts() -> None:
    model = metered(Own({"a": "b"}))
    model.generate([ask("a")])
    assert (model.computed_tokens, model.answers_key) == (123, "own-key")
    assert model.speed() == Speed(1, 2, 3) and model.describe() == {"device": "abacus"}


class Broken(FakeTrainable):
    """Raises whatever it is given."""

    def __init__(self, error: BaseException) -> None:
        super().__init__({})
        self.error = error

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        raise self.error

    def train(self, *_: Any, **__: Any) -> Path:
        raise self.error

    def loss(self, *_: Any) -> float:
        raise self.error


@pytest.mark.parametrize("verb", ["generate", "train", "loss"])
@pytest.mark.parametrize(
    ("error", "becomes", "words"),
    [
        (ValueError("a shape"), ModelError, "the model failed: a shape"),
        (KeyError(), ModelError, "the model failed: KeyError"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), OutOfMemory, "memory ran out"),
        (MemoryError(), OutOfMemory, "memory ran out"),
        (BudgetSpent("enough"), BudgetSpent, "enough"),
        (KeyboardInterrupt("key"), KeyboardInterrupt, "key"),
    ],
)
def test_failures_of_a_model_are_of_one_kind(
    verb: str, error: BaseException, becomes: type[BaseException], words: str, tmp_path: Path
) -> None:
    model: Any = metered(Broken(error))
    with pytest.raises(becomes, match=words):
        {
            "generate": lambda: model.generate([ask("a")]),
            "train": lambda: model.train(ROWS, OPTIONS, tmp_path),
            "loss": lambda: model.loss(ROWS, None),
        }[verb]()


def test_a_model_that_leaves_out_answers_is_an_error() -> None:
    class Short(FakeModel):
        def generate(self, requests: Sequence[Request]) -> list[Generation]:
            return super().generate(requests[1:])

    with pytest.raises(ModelError, match="1 answers to 2 requests"):
        metered(Short({})).generate([ask("a"), ask("b")])


def test_trained_tokens_count_twice_also_when_a_training_is_continued(tmp_path: Path) -> None:
    model: Any = metered(FakeTrainable({}))
    seen: list[Progress] = []
    model.train(ROWS, OPTIONS, tmp_path, until=2, on_step=seen.append)
    assert model.computed_tokens == 2 * seen[-1].tokens
    later: Any = metered(FakeTrainable({}))
    later.train(ROWS, OPTIONS, tmp_path, on_step=seen.append)
    assert model.computed_tokens + later.computed_tokens == 2 * seen[-1].tokens
    assert [p.step for p in seen] == [1, 2, 3, 4]


@pytest.mark.parametrize("error", [ValueError("of the listener"), MemoryError(), BudgetSpent("enough")])
def test_what_a_listener_raises_is_not_the_models_failure(error: Exception, tmp_path: Path) -> None:
    model: Any = metered(FakeTrainable({}))

    def stop(progress: Progress) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        model.train(ROWS, OPTIONS, tmp_path, on_step=stop)
    assert caught.value is error


def test_a_trained_adapter_answers_through_the_meter(tmp_path: Path) -> None:
    model: Any = metered(FakeTrainable({}))
    folder = model.train(ROWS, OPTIONS, tmp_path)
    asked = Request(ROWS[3].messages, Decoding(9), adapter=str(folder))
    assert model.generate([asked])[0].text == "one two"
    assert model.loss(ROWS, folder) < model.loss(ROWS, None)
    model.release(folder)
    assert model.too_long(ROWS) == []
