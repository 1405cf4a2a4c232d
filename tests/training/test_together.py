"""Training in several processes, which are forked and joined by gloo on the CPU. On GPUs nothing of it is measured."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from gloo import in_processes

from rung.models.in_group import train_in_group
from rung.models.loading import load_model
from rung.models.local import LocalModel
from rung.testing import save_tiny_model
from rung.training import loop
from rung.training.batches import TokenPair, TokenRow
from rung.training.checkpoints import checkpoint_of
from rung.training.optimisers import IN_8_BITS
from rung.training.together import Alone, Together, shares
from rung.types import Message, Progress, TrainingOptions, TrainingRow
from trained import OPTIONS, weights

CPU = torch.device("cpu")
ROWS = [TokenRow(f"row-{i}", (5, 6, 7, *range(8, 9 + i)), (20 + i, 21, *range(40, 40 + i % 3), 2)) for i in range(9)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base"))


def loaded(base: Path) -> LocalModel:
    return load_model(str(base), device="cpu", dtype=torch.float32, threads=1)


@pytest.fixture(scope="module")
def model(base: Path) -> LocalModel:
    """Loaded before processes are forked, which then have it too."""
    return loaded(base)


def close(a: Path, b: Path) -> bool:
    """Whether nearly all weights are equal to 1e-5. AdamW's first steps are as long for a gradient that is nothing but
    rounding as for any other, so that one weight in a thousand may differ by more."""
    first, second = weights(a), weights(b)
    far = sum(int(((first[k] - second[k]).abs() > 1e-5).sum()) for k in first)
    return first.keys() == second.keys() and far <= sum(w.numel() for w in first.values()) / 1000


def trained(model: LocalModel, folder: Path, options: TrainingOptions = OPTIONS, **how: Any) -> list[float]:
    """The losses of its steps."""
    losses: list[float] = []
    model.train_tokens(ROWS, options, folder, on_step=lambda p: losses.append(p.loss), **how)
    return losses


# ---- shares -----------------------------------------------------------------------------------


def test_shares_are_the_batch_in_its_order_and_none_is_empty() -> None:
    for count in (1, 2, 3, 9):
        parts = shares(ROWS, count)
        assert sorted(row.id for part in parts for row in part) == [row.id for row in ROWS]
        assert all(part and [row.id for row in part] == sorted(row.id for row in part) for part in parts)


def test_fewer_rows_than_processes_leave_some_without_any() -> None:
    parts = shares(ROWS[:2], 3)
    assert sorted(len(part) for part in parts) == [0, 1, 1]


def test_shares_keep_rows_together_that_begin_alike_and_are_balanced_by_tokens() -> None:
    first = [TokenRow(f"a{i}", (1, *range(100), 3 + i), (2,)) for i in range(4)]
    second = [TokenRow(f"b{i}", (1, 9, *range(100), 3 + i), (2,)) for i in range(4)]
    mixed = [row for pair in zip(first, second, strict=True) for row in pair]
    one, other = shares(mixed, 2)
    assert {row.id[0] for row in one} != {row.id[0] for row in other}
    assert len(one) == len(other) == 4
    long = TokenRow("long", (7, *range(900)), (2,))
    parts = shares([*first, long], 2)
    assert [row.id for row in parts[1]] == ["long"]


def test_the_parts_of_pairs_hold_whole_pairs() -> None:
    pairs = [TokenPair(a, b) for a, b in pairwise(ROWS)]
    assert sum(len(part) for part in shares(pairs, 3)) == len(pairs)


# ---- the same training ------------------------------------------------------------------------


@pytest.mark.parametrize("options", [OPTIONS, replace(OPTIONS, full=True, steps=3)], ids=["adapter", "all weights"])
def test_two_processes_train_what_one_trains(model: LocalModel, tmp_path: Path, options: TrainingOptions) -> None:
    alone = trained(model, tmp_path / "alone", options)
    both = in_processes(2, lambda rank: trained(model, tmp_path / "both", options, peers=Together(CPU)))
    assert both == [pytest.approx(alone, abs=1e-4 if options.full else 1e-5), []]  # the first one tells how far it is
    last = f"step-{options.steps}"
    assert close(tmp_path / "alone" / last, tmp_path / "both" / last)


def test_a_training_goes_on_with_another_number_of_processes(model: LocalModel, tmp_path: Path) -> None:
    alone = trained(model, tmp_path / "alone")
    first = trained(model, tmp_path / "moved", until=2)
    (then, _) = in_processes(2, lambda rank: trained(model, tmp_path / "moved", until=4, peers=Together(CPU)))
    last = trained(model, tmp_path / "moved")
    assert [len(first), len(then), len(last)] == [2, 2, 2]
    assert [*first, *then, *last] == pytest.approx(alone, abs=1e-5)
    assert close(tmp_path / "alone" / "step-6", tmp_path / "moved" / "step-6")


def test_a_group_that_a_scheduler_started_trains_rows_of_messages(model: LocalModel, tmp_path: Path) -> None:
    rows = [TrainingRow(f"row-{i}", (Message("user", f"number {i}"),), f"answer {i}") for i in range(6)]
    model.train(rows, OPTIONS, tmp_path / "alone")
    in_processes(2, lambda rank: str(train_in_group(model, rows, OPTIONS, tmp_path / "both")))
    assert close(tmp_path / "alone" / "step-6", tmp_path / "both" / "step-6")


def test_what_on_step_raises_ends_all_processes_with_a_checkpoint(model: LocalModel, tmp_path: Path) -> None:
    def work(rank: int) -> str:
        def stop(progress: Progress) -> None:
            if progress.step == 2:
                raise InterruptedError

        try:
            model.train_tokens(ROWS, OPTIONS, tmp_path / "both", on_step=stop, peers=Together(CPU))
        except BaseException as error:
            return type(error).__name__
        return "nothing"

    assert in_processes(2, work) == ["InterruptedError", "KeyboardInterrupt"]
    assert torch.load(checkpoint_of(tmp_path / "both"))["step"] == 2


def test_processes_wait_alike_for_a_step_though_one_has_given_recorded_passes_up(
    model: LocalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = trained(model, tmp_path / "alone")

    def work(rank: int) -> list[float]:
        steps: list[int] = []
        monkeypatch.setattr(loop, "_goes_ahead", lambda _: steps.append(1) or rank == 0 or len(steps) < 3)
        return trained(model, tmp_path / "both", peers=Together(CPU))

    assert in_processes(2, work)[0] == pytest.approx(alone, abs=1e-5)


def test_where_one_process_has_room_for_moments_in_8_bits_alone_all_have_them(
    model: LocalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Short(Alone):
        def any_of(self, here: bool) -> bool:
            return True

    def taken(kind: str, *_: Any) -> Any:
        raise NotImplementedError(kind)

    monkeypatch.setattr(loop, "optimiser_for", taken)
    with pytest.raises(NotImplementedError, match=IN_8_BITS):
        model.train_tokens(ROWS, replace(OPTIONS, full=True), tmp_path / "full", peers=Short())


def test_memory_that_runs_out_in_one_process_changes_nothing(
    model: LocalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = trained(model, tmp_path / "alone")
    real = loop.add_gradients

    def work(rank: int) -> list[float]:
        def short(engine: Any, batch: Any, *, micro_tokens: int, **how: Any) -> Any:
            if rank == 1 and micro_tokens > 8:
                raise RuntimeError("out of memory")
            return real(engine, batch, micro_tokens=micro_tokens, **how)

        monkeypatch.setattr(loop, "add_gradients", short)
        return trained(model, tmp_path / "both", peers=Together(CPU))

    assert in_processes(2, work)[0] == pytest.approx(alone, abs=1e-5)
    assert close(tmp_path / "alone" / "step-6", tmp_path / "both" / "step-6")
