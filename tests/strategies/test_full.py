"""Full fine-tuning as a strategy: its learning rates, what it keeps on disk, what it costs, and what does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rung.engine.whole_weights import is_whole
from rung.errors import OutOfMemory
from rung.resume import record_of
from rung.strategies import STRATEGIES
from rung.strategies.course import FULL_COST
from rung.strategies.fine_tuning import cost_of_full, cost_of_lora, full, lora
from rung.strategies.learning_rate import OF_ADAPTERS, OF_WEIGHTS, search
from rung.strategies.registry import Texts
from rung.strategies.replay import replayed
from rung.training import whole
from rung.trials.trial import read_predictions
from rung.trials.workshop import Workshop
from rung.types import Request
from workshops import COLOURS, Note, Trainee, workshop_of

TEXTS = Texts(
    own=20, answer=3, room=8, instruction=30, forms=0, passage=60, train=5000, dev=200, screen=48, training_tokens=10**5
)


def learns(request: Request, note: Note) -> str:
    asked = int(request.messages[-1].content.split()[-1]) if request.messages[-1].content[-1].isdigit() else 0
    return COLOURS[asked % 3] if note is not None and asked % 5 < note["step"] // 10 else "?"


def shop_of(model: Any, folder: Path, tokens: int = 20_000) -> Workshop:
    return workshop_of(model, folder, limits={"training_tokens": tokens})


def history(shop: Workshop) -> dict[str, Any]:
    return record_of(shop.folder / "training" / "history.json")


def test_all_weights_are_trained_at_rates_of_their_own_whatever_suited_an_adapter(tmp_path: Path) -> None:
    model = Trainee(learns)
    shop = replace(shop_of(model, tmp_path), learning_rate=1.25e-4)
    solution = full(shop)
    assert solution.name == "full" and solution.family == "fine-tune" and solution.adapter is not None
    assert all(t["options"].full for t in model.trainings)
    tried = {t["options"].learning_rate for t in model.trainings}
    assert len(tried) > 1 and all(OF_WEIGHTS.least <= rate <= OF_WEIGHTS.most for rate in tried)
    record = history(shop)
    assert record["all_weights"] and record["bytes"] > 0 and record["learning_rate"] in tried


def test_in_the_same_time_an_adapter_is_trained_for_more_steps(tmp_path: Path) -> None:
    models = Trainee(learns), Trainee(learns)
    full(shop_of(models[0], tmp_path / "full", tokens=5_000))
    lora(shop_of(models[1], tmp_path / "lora", tokens=5_000))
    steps = [model.trainings[0]["options"].steps for model in models]
    assert FULL_COST * steps[0] == pytest.approx(steps[1], abs=FULL_COST)
    assert not any(t["options"].full for t in models[1].trainings)


def test_rates_of_weights_are_a_tenth_of_those_of_adapters(tmp_path: Path) -> None:
    assert OF_WEIGHTS.grid == pytest.approx([rate / 10 for rate in OF_ADAPTERS.grid])
    assert search(lambda rate: rate, tmp_path / "low.json", rates=OF_WEIGHTS) == pytest.approx(OF_WEIGHTS.least)
    assert search(lambda rate: 1 / rate, tmp_path / "high.json", rates=OF_WEIGHTS) == pytest.approx(OF_WEIGHTS.most)


def test_only_the_checkpoints_of_the_best_probe_stay_on_disk(tmp_path: Path) -> None:
    model = Trainee(learns, loss_of=lambda note: abs(note["rate"] - 1e-4))
    shop = shop_of(model, tmp_path)
    seen: list[list[str]] = []
    train = model.train

    def watched(*given: Any, **more: Any) -> Path:
        seen.append(sorted(p.name for p in (shop.folder / "training").glob("lr-*")))
        return train(*given, **more)

    model.train = watched
    full(shop)
    assert history(shop)["learning_rate"] == 1e-4
    assert len(seen) > 3 and max(map(len, seen)) == 1 and seen[-1] == ["lr-0.0001"]


def test_a_real_network_is_trained_whole_and_trained_on_by_replay(tiny: Any, tmp_path: Path) -> None:
    shop = shop_of(tiny, tmp_path, 2_500)
    solution = full(shop)
    assert solution.adapter is not None and is_whole(Path(solution.adapter))
    assert len(read_predictions(shop.folder / "predictions.dev.jsonl")) == len(shop.inputs.dev)
    assert full(shop) == solution, "read back"
    again = replayed(shop.within(tmp_path / "replay"), solution)
    record = record_of(tmp_path / "replay" / "training" / "history.json")
    assert again.adapter is not None and is_whole(Path(again.adapter)) and record["all_weights"]
    assert record["learning_rate"] == pytest.approx(history(shop)["learning_rate"] / 2)


def test_memory_that_cannot_hold_it_is_told_with_the_numbers(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole, "free_bytes", lambda device: 1000)
    with pytest.raises(OutOfMemory, match=r"GB of memory .* GB are free"):
        full(shop_of(tiny, tmp_path, 2_500))


def test_the_same_time_allows_fewer_steps_that_cost_more() -> None:
    whole_cost, adapter = cost_of_full(TEXTS), cost_of_lora(TEXTS)
    assert whole_cost.trained == pytest.approx(adapter.trained, rel=0.1) and FULL_COST > 1
    plenty = replace(TEXTS, training_tokens=10**9)
    assert cost_of_full(plenty).trained == pytest.approx(FULL_COST * cost_of_lora(plenty).trained)


def test_it_is_off_unless_it_is_named() -> None:
    assert {name for name, s in STRATEGIES.items() if s.asked_for} == {"full", "rag_distilled"}
