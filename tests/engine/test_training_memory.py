"""What a training keeps, by formula and as counted: the tensors that autograd is given for the way back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import PretrainedConfig

from rung.engine import training_memory
from rung.engine.layers import unfuse_layers
from rung.engine.shapes import Shape
from rung.engine.training_memory import (
    Steps,
    bytes_per_target,
    bytes_per_token,
    checkpointing_needed,
    fixed_bytes,
    kept_bytes,
    shape_of_engine,
    steps_of,
    tokens_at_once,
    training_bytes_per_token,
    working_bytes,
)
from rung.testing import tiny_model
from rung.training import lora, whole
from rung.types import TrainingOptions

OPTIONS = TrainingOptions(1e-3, steps=1, rank=4, alpha=8)
TOKENS = 96
ROW = [5 + i % 50 for i in range(TOKENS + 1)]
EIGHT_B = Shape(32, 4096, 14_336, 32, 8, 128, 128_256, tied=False, norms=8192)


def kept_of(engine: Any, row: list[int]) -> int:
    """Bytes of all tensors kept for the way back of one row, each memory once; of weights and masks, none.

    All tokens but the first are targets, so that the last layer computes all of them.
    """
    fixed = {p.untyped_storage().data_ptr() for p in (*engine.network.parameters(), *engine.network.buffers())}
    seen: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in fixed and tuple(tensor.shape[-2:]) != (len(row) - 1, len(row) - 1):
            seen[place] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        engine.scores([(row[:1], row[1:])])
    return sum(tensor.untyped_storage().nbytes() for tensor in seen.values())


def begun(monkeypatch: pytest.MonkeyPatch, kind: str, dtype: torch.dtype = torch.float32) -> Any:
    """An engine with a training of that kind, as a GPU would compute it."""
    monkeypatch.setenv("RUNG_WAYS", "fused")
    engine = tiny_model().engine
    engine.network.to(dtype)
    engine.dtype = dtype
    engine.adapters.plain = kind == "few bits"  # PEFT computes adapters as it does beside layers in 4 bits
    if kind in ("as written", "few bits"):
        unfuse_layers(engine.network)
        engine.fused = (0, engine.fused[1])
    (whole if kind == "all weights" else lora).begin(engine, OPTIONS, None)
    return engine


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["fused", "as written", "few bits", "all weights"])
def test_what_layers_keep_is_what_the_formula_says(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, kind: str
) -> None:
    engine = begun(monkeypatch, kind, dtype)
    shape, steps = shape_of_engine(engine), steps_of(engine)
    assert shape is not None
    assert (steps.fused, steps.packed) == (kind == "fused", kind == "few bits")
    assert steps.rank == (0 if kind == "all weights" else 4)
    told = TOKENS * (bytes_per_token(shape, steps) - working_bytes(shape, steps))
    assert told == pytest.approx(kept_of(engine, ROW), rel=0.15)
    inputs = TOKENS * shape.layers * shape.width * dtype.itemsize
    one = TOKENS * (kept_bytes(shape, steps) + working_bytes(shape, steps))
    assert TOKENS * bytes_per_token(shape, steps, checkpointing=True) >= inputs + one


def test_rows_that_fit_are_counted_before_any_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, freed = begun(monkeypatch, "fused"), list[int]()
    each = training_bytes_per_token(engine)
    assert each > training_bytes_per_token(engine, checkpointing=True) > 0
    monkeypatch.setattr(training_memory, "free_bytes", lambda device: 100 * each + len(freed) * each)
    engine.on_make_room.append(lambda: freed.append(1))
    assert not checkpointing_needed(engine, 100) and not freed
    assert not checkpointing_needed(engine, 101) and len(freed) == 1, "what is freed then suffices"
    assert checkpointing_needed(engine, 104)
    assert tokens_at_once(engine, targets=0) == 102
    assert (tokens_at_once(engine, targets=1) or 0) < 102 < (tokens_at_once(engine, checkpointing=True, targets=0) or 0)
    monkeypatch.setattr(training_memory, "free_bytes", lambda device: 1 << 30)
    assert engine.scored_tokens() == engine.limits.scored_tokens
    monkeypatch.setattr(training_memory, "free_bytes", lambda device: 100_000)
    assert 1 < engine.scored_tokens() < 100
    engine.network.config = PretrainedConfig()
    assert engine.scored_tokens() == engine.limits.scored_tokens
    assert not checkpointing_needed(engine, 1 << 40), "a network of unknown measurements is tried"
    assert tokens_at_once(engine) is None


def test_an_8_b_shape_in_4_bits_trains_within_24_gb() -> None:
    """Batches of 8 rows of 2,048 tokens, of which 256 are targets; the table in docs/gpu.md has the same figures."""
    weights = (EIGHT_B.computed - EIGHT_B.vocabulary * EIGHT_B.width) * (0.5 + 1 / 64 + 1 / 4096)
    weights += 2 * EIGHT_B.vocabulary * EIGHT_B.width * 2  # embedding and output layer stay in bfloat16
    unpacked = EIGHT_B.width * EIGHT_B.inner * 2  # of one linear layer, while it computes
    fixed = weights + unpacked + fixed_bytes(EIGHT_B, 16)
    assert (round(weights / 1e9, 1), round(fixed / 1e9, 1)) == (5.7, 6.5)

    def needed_gb(steps: Steps, rows: int, *, on: bool) -> float:
        tokens = rows * 2048 * bytes_per_token(EIGHT_B, steps, checkpointing=on)
        return round((fixed + tokens + rows * 256 * bytes_per_target(EIGHT_B)) / 1e9, 1)

    fused, written = Steps(2), Steps(2, fused=False, packed=True)
    every = (1, 2, 4, 8)
    assert [needed_gb(fused, rows, on=False) for rows in every] == [15.4, 24.4, 42.3, 78.1], "a row at a time fits"
    assert [needed_gb(fused, rows, on=True) for rows in every] == [8.7, 10.9, 15.3, 24.1]
    assert [needed_gb(written, rows, on=False) for rows in every] == [27.5, 48.6, 90.7, 174.8], "none fits"
    assert [needed_gb(written, rows, on=True) for rows in every] == [8.5, 10.6, 14.6, 22.8]


def test_a_fused_layer_keeps_less_than_one_as_transformers_wrote_it() -> None:
    fused, written, packed = (
        bytes_per_token(EIGHT_B, steps)
        for steps in (Steps(2), Steps(2, fused=False), Steps(2, fused=False, packed=True))
    )
    assert 1.4 * fused < written < packed / 1.4
    assert kept_bytes(EIGHT_B, Steps(2, spread=False)) < kept_bytes(EIGHT_B, Steps(2))
    for more in ({"head_norms": True}, {"behind": True}):
        assert kept_bytes(EIGHT_B, Steps(2, **more)) > kept_bytes(EIGHT_B, Steps(2))
        assert kept_bytes(EIGHT_B, Steps(2, fused=False, **more)) > kept_bytes(EIGHT_B, Steps(2, fused=False))
