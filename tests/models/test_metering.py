from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rung.errors import BudgetSpent, ConstraintError, ModelError, OutOfMemory
from rung.models import Metered, metered, remark_of
from rung.models.purse import Purse
from rung.testing import FakeModel, FakeTrainable
from rung.types import (
    DPO,
    Constraint,
    Decoding,
    Generation,
    Measured,
    Message,
    PreferenceRow,
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


def test_a_training_on_pairs_counts_as_any_other_and_hears_of_its_reference_for_nothing(tmp_path: Path) -> None:
    model: Any = metered(FakeTrainable({}))
    pairs = [PreferenceRow(row.name, row.messages, row.answer, "no") for row in ROWS]
    seen: list[Progress] = []
    folder = model.prefer(pairs, OPTIONS, tmp_path, how=DPO(), on_step=seen.append)
    assert [p.step for p in seen] == [0, 1, 2, 3, 4]
    assert model.computed_tokens == 2 * seen[-1].tokens
    assert model.generate([Request(ROWS[3].messages, Decoding(9), adapter=str(folder))])[0].text == "one two"


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


# ---- dollars --------------------------------------------------------------------------------

PRICE = Price(usd_per_million_in=100.0, usd_per_million_out=1000.0, usd_per_million_cached=10.0)


class Told(FakeModel):
    """A model whose answers say what they were charged, and what of the prompt was cached."""

    def __init__(self, usd: list[float | None], cached: int = 0, error: str | None = None) -> None:
        super().__init__(lambda _: "yes", price=PRICE)
        self.usd, self.cached, self.error = usd, cached, error

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        super().generate(requests)
        return [
            Generation("yes", 20, 1, 0.1, error=self.error, tokens_cached=self.cached, usd=self.usd[i % len(self.usd)])
            for i, _ in enumerate(requests)
        ]


def test_cached_tokens_are_counted_and_paid_at_their_own_price() -> None:
    model = metered(Told([None], cached=15))
    model.generate([ask("a"), ask("b")])
    assert (model.tokens_in, model.tokens_cached, model.tokens_out) == (40, 30, 2)
    assert model.usd == pytest.approx(2 * (5 * 100 + 15 * 10 + 1000) / 1e6)
    model.price = Price(usd_per_million_in=100.0)
    assert model.usd == pytest.approx(40 * 100 / 1e6), "without a price of their own they cost what others do"


def test_what_an_answer_says_it_was_charged_counts_before_the_price() -> None:
    model = metered(Told([0.5, None]))
    model.generate([ask("a"), ask("b")])
    assert model.usd == pytest.approx(0.5 + (20 * 100 + 1000) / 1e6) and model.calls == 2


def test_an_answer_that_was_kept_is_no_call_and_costs_nothing() -> None:
    model = metered(Told([0.0, 0.25]))
    model.generate([ask("a"), ask("b"), ask("c")])
    assert (model.calls, model.kept, model.usd) == (1, 2, 0.25)
    assert (model.tokens_in, model.tokens_out) == (20, 1)
    failed = metered(Told([0.0], error="no reply: timeout"))
    failed.generate([ask("a")])
    assert (failed.calls, failed.kept) == (1, 0), "a call that failed was one"
    filtered = metered(Told([0.0], error="the endpoint's content filter stopped it"))
    filtered.generate([ask("a")])
    assert (filtered.calls, filtered.kept, filtered.tokens_in) == (0, 1, 0), "an error that stays is kept, too"


def test_a_priced_model_never_passes_the_limit_and_answers_as_many_as_it_can(tmp_path: Path) -> None:
    model = metered(FakeModel(lambda _: "one two", price=PRICE))
    purse = Purse(tmp_path / "purse.json", 0.1)
    model.use_purse(purse)
    asked = 0
    with pytest.raises(BudgetSpent, match="model fake: the next answer may cost"):
        for _ in range(100):
            asked += len(model.generate([ask("word " * 10) for _ in range(8)]))
    assert asked >= 8 and model.calls >= asked
    assert 0.08 < purse.spent <= 0.1 and purse.reserved == 0.0
    assert purse.spent == pytest.approx(model.usd)


def test_requests_are_split_into_parts_that_the_purse_allows(tmp_path: Path) -> None:
    inner = FakeModel(lambda _: "one two", price=PRICE)
    model = metered(inner)
    each = 12 * 100 / 1e6 + 2 * 1000 / 1e6  # of an answer; in the worst case it is over three times as much
    model.use_purse(Purse(tmp_path / "purse.json", 12 * each))
    assert [g.text for g in model.generate([ask("word " * 9) for _ in range(8)])] == ["one two"] * 8
    assert len(inner.calls) > 1 and sum(inner.calls) == 8


def test_a_purse_is_handed_on_to_a_model_that_uses_it_itself(tmp_path: Path) -> None:
    given = []

    class Own(FakeModel):
        def use_purse(self, purse: Purse, price: Price | None) -> None:
            given.append((purse, price))

    model = metered(Own(lambda _: "yes", price=PRICE))
    purse = Purse(tmp_path / "purse.json", 0.0)
    model.use_purse(purse)
    model.generate([ask("a")])
    assert given == [(purse, PRICE)] and purse.spent == 0.0


def test_a_model_that_is_not_paid_by_the_token_needs_no_purse(tmp_path: Path) -> None:
    for price in (None, Price(usd_per_hour=3.0)):
        model = metered(FakeModel(lambda _: "yes", price=price))
        model.use_purse(Purse(tmp_path / "purse.json", 0.0))
        assert len(model.generate([ask("a")])) == 1


def test_answers_that_did_not_come_count_as_charged(tmp_path: Path) -> None:
    broken = Broken(ValueError("a shape"))
    broken.price = PRICE
    model = metered(broken)
    purse = Purse(tmp_path / "purse.json", 1.0)
    model.use_purse(purse)
    with pytest.raises(ModelError):
        model.generate([ask("a")])
    assert purse.reserved == 0.0 and purse.spent > 0.009


def test_answers_that_the_budget_refused_are_no_calls() -> None:
    model = metered(Broken(BudgetSpent("enough")))
    with pytest.raises(BudgetSpent):
        model.generate([ask("a"), ask("b")])
    assert model.calls == 0


# ---- beyond the protocol --------------------------------------------------------------------


def test_a_model_that_has_no_more_than_the_protocol_says_nothing_more() -> None:
    model = metered(FakeModel({}))
    assert (model.block, model.timed, model.remark, model.facts(), remark_of(model)) == (None, None, None, {}, None)


def test_what_a_model_has_beyond_the_protocol_passes_through(tmp_path: Path) -> None:
    class More(FakeModel):
        block = 8
        remark = "It ends in May."
        in_flight = 0

        def facts(self) -> dict[str, Any]:
            return {"served": {"m-2026": 3}}

        def timed(self, requests: Sequence[Request], concurrency: int) -> list[Generation]:
            self.in_flight = concurrency
            return self.generate(requests)

    inner = More(lambda _: "one two", price=PRICE)
    model = metered(inner)
    assert (model.block, remark_of(model), model.facts()) == (8, "It ends in May.", {"served": {"m-2026": 3}})
    inner.block = 16
    assert model.block == 16, "it is read anew"
    purse = Purse(tmp_path / "purse.json", 1.0)
    model.use_purse(purse)
    assert model.timed is not None
    assert len(model.timed([ask("a"), ask("b")], 5)) == 2 and inner.in_flight == 5
    assert model.calls == 2 and purse.spent == pytest.approx(model.usd) and model.usd > 0
