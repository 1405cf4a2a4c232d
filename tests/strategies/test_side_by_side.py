"""Learning rates that are trained side by side: what is chosen, judged and left behind is what one card would leave."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rung.models.card_worker import Ahead
from rung.models.loading import load_model
from rung.models.metering import metered
from rung.records import read_json
from rung.strategies.course import probe_steps
from rung.strategies.fine_tuning import full, lora
from rung.strategies.learning_rate import OF_ADAPTERS, next_probes
from rung.trials.trial import read_predictions
from rung.trials.workshop import Workshop
from trained import same
from workshops import Note, Trainee, workshop_of


class OnCards(Trainee):
    """A Trainee whose other cards have done all that is to be trained ahead when it is first asked for."""

    def __init__(self, *args: Any, cards: int = 2, **more: Any) -> None:
        super().__init__(*args, **more)
        self.cards = SimpleNamespace(cards=["cpu"] * cards)
        self.ahead_of: list[float] = []

    @contextmanager
    def ahead(self, jobs: Sequence[Ahead], say: Callable[[str], None]) -> Iterator[None]:
        for job in jobs:
            self.ahead_of.append(job.options.learning_rate)
            for until in job.untils:
                super().train(list(job.rows), job.options, job.folder, until=until, start=job.start)
        yield


def left_by(shop: Workshop) -> dict[str, Any]:
    """What a training leaves: its folders, its records, and its answers but for their times."""
    folder = shop.folder / "training"
    return {
        "folders": sorted(str(p.relative_to(shop.folder)) for p in shop.folder.rglob("*") if p.is_dir()),
        "sweep": read_json(folder / "sweep.json"),
        "history": read_json(folder / "history.json"),
        "answers": [(p.id, p.text, p.score) for p in read_predictions(shop.folder / "predictions.dev.jsonl")],
    }


def best_at(rate: float) -> Callable[[Note], float]:
    return lambda note: abs(note["rate"] - rate) if note is not None else 9.0


@pytest.mark.parametrize("best", [2e-3, 1e-3, 5e-4, 4e-3, 2.5e-4])
@pytest.mark.parametrize("build", [lora, full], ids=lambda b: b.__name__)
@pytest.mark.parametrize("cards", [1, 2, 5])
def test_the_same_rate_is_chosen_and_the_same_is_left(
    tmp_path: Path, best: float, build: Callable[[Workshop], Any], cards: int
) -> None:
    scale = 0.1 if build is full else 1.0
    left = []
    for name, model in (
        ("one", Trainee(lambda request, note: "red", loss_of=best_at(scale * best))),
        ("more", OnCards(lambda request, note: "red", loss_of=best_at(scale * best), cards=cards)),
    ):
        shop = workshop_of(model, tmp_path / name, limits={"training_tokens": 20_000})
        build(shop)
        left.append(left_by(shop))
    assert left[0] == left[1]
    assert isinstance(model, OnCards) and len(model.ahead_of) >= min(2, cards)


def test_where_every_rate_is_trained_in_full_the_others_are_trained_meanwhile(tmp_path: Path) -> None:
    left = []
    for name, model in (("one", Trainee(lambda r, n: "red")), ("more", OnCards(lambda r, n: "red"))):
        shop = workshop_of(model, tmp_path / name, limits={"training_tokens": 20_000, "exhaustive": True})
        lora(shop)
        left.append(left_by(shop))
    assert left[0] == left[1]
    assert isinstance(model, OnCards) and model.ahead_of == list(OF_ADAPTERS.grid[1:])


@pytest.mark.parametrize(("best", "said"), [(2e-3, ["learning rate 0.0005"]), (5e-4, [])])
def test_a_rate_that_was_tried_ahead_and_is_not_needed_is_said(tmp_path: Path, best: float, said: list[str]) -> None:
    told: list[str] = []
    model = OnCards(lambda request, note: "red", loss_of=best_at(best), cards=1)
    tools = {"tell": lambda what, share: told.append(what)}
    lora(workshop_of(model, tmp_path, limits={"training_tokens": 20_000}, tools=tools))
    assert model.ahead_of == [1e-3, 5e-4]
    wanted = [f"not needed after all: {name}, tried on another card" for name in said]
    assert [line for line in told if line.startswith("not needed")] == wanted


def test_probes_are_foreseen_in_the_order_of_the_search(tmp_path: Path) -> None:
    record = tmp_path / "sweep.json"
    assert next_probes(record, OF_ADAPTERS, beyond=True, more=0) == []
    assert next_probes(record, OF_ADAPTERS, beyond=True, more=1) == [1e-3, 5e-4]
    assert next_probes(record, OF_ADAPTERS, beyond=True, more=8) == [1e-3, 5e-4, 2.5e-4, 4e-3]
    assert next_probes(record, OF_ADAPTERS, beyond=False, more=8) == [1e-3, 5e-4]


def test_a_real_network_learns_the_same_on_one_card_and_on_two(
    monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, tmp_path: Path
) -> None:
    built, tokens, told = [], [], []
    for cards in (1, 2):
        monkeypatch.setenv("RUNG_CARDS", f"cpu:{cards}")
        model = load_model(str(tiny_folder))
        if model.cards is not None:
            model.cards.start()
            ends = time.monotonic() + 60
            while not model.cards.ready and time.monotonic() < ends:
                time.sleep(0.05)
        counted, own = metered(model), model.engine.computed_tokens
        shop = workshop_of(
            counted,
            tmp_path / f"{cards}",
            limits={"training_tokens": 3_000},
            tools={"tell": lambda what, share: told.append(what)},
        )
        before = counted.computed_tokens
        solution = lora(shop)
        built.append((left_by(shop), Path(str(solution.adapter))))
        tokens.append((counted.computed_tokens - before, model.engine.computed_tokens - own))
    assert model.cards is not None
    model.cards.close()
    (one, first), (two, second) = built
    assert probe_steps(one["history"]["steps"]) > 0
    assert one == two
    assert same(first, second)
    assert tokens[0][0] == tokens[0][1]
    assert tokens[1][0] >= tokens[0][0] > tokens[1][1]  # what others trained counts, and was not trained here
    assert any(what.startswith("other cards train at learning rates") for what in told)
