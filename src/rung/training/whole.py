"""Full fine-tuning: every weight is trained. What it needs is computed beforehand; the base is put back at its end.

The result is a folder that transformers loads by itself. Knows nothing of steps and checkpoints.
Source: Micikevicius et al., Mixed precision training (2018), for float32 copies of weights in half precision.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from rung.engine.engine import Engine
from rung.engine.memory import free_bytes
from rung.engine.shared_card import others_bytes
from rung.engine.whole_weights import save_weights, weights_of
from rung.errors import OutOfMemory, TrainingError
from rung.training.checkpoints import checkpoint_of
from rung.training.learner import Learner, record_base
from rung.types import TrainingOptions

_FLOAT = 4  # bytes
_MOMENTS_IN_8_BITS = 2 * (1 + 4 / 256)  # a byte each, and a scale in float32 for 256 of them
_GB = 1e9


def begin(engine: Engine, options: TrainingOptions, start: Path | None) -> Learner:
    """All weights of the network, trainable until `engine.adapters.end_training`.

    start: a folder of whole weights that are the first ones (None: those of the network).
    """
    weights = engine.adapters.begin_whole_training(options.seed)
    if start is not None:
        engine.adapters.whole.start_from(str(start))
    return Learner(list(weights.values()), lambda folder: _save(engine, folder))


def _save(engine: Engine, folder: Path) -> None:
    save_weights(engine.network, folder)
    record_base(engine, folder)


def check_room(engine: Engine, folder: Path, *, in_8_bits: bool = False) -> None:
    """Raises OutOfMemory or TrainingError, with the numbers, where memory or the disk cannot hold such a training.

    in_8_bits: whether the moments take 8 bits, as `optimisers.optimiser_of` decides.
    """
    engine.make_room()
    needed, free = bytes_needed(engine, in_8_bits=in_8_bits), free_bytes(engine.device)
    if needed > free:
        held = others_bytes(engine.device)
        others = f"; other processes hold {held / _GB:.1f} GB" if held else ""
        raise OutOfMemory(
            f"model {engine.name}: training all weights needs {needed / _GB:.1f} GB of memory beside the model (a copy "
            f"of its weights, their gradients and two moments of each), and {free / _GB:.1f} GB are free{others}. "
            f"{_with_8_bits(engine, free)}Train an adapter, or use a smaller model."
        )
    folder.mkdir(parents=True, exist_ok=True)
    written, room = bytes_written(engine), shutil.disk_usage(folder).free
    before = checkpoint_of(folder)
    kept = before.stat().st_size if before.is_file() else 0
    if written - kept > room:
        raise TrainingError(
            f"{folder}: training all weights of {engine.name} needs {(written - kept) / _GB:.1f} GB of disk (two "
            f"checkpoints and the weights), and {room / _GB:.1f} GB are free. Make room, or train an adapter."
        )


def _with_8_bits(engine: Engine, free: int) -> str:
    """What to install where moments in 8 bits would fit; empty elsewhere."""
    from rung.training.optimisers import is_installed  # which counts by the bytes of this module

    smaller = bytes_needed(engine, in_8_bits=True)
    if engine.device.type != "cuda" or smaller > free or is_installed():
        return ""
    return f"With moments in 8 bits it would take {smaller / _GB:.1f} GB: pip install bitsandbytes. "


def bytes_needed(engine: Engine, *, in_8_bits: bool = False) -> int:
    """Beside the loaded network and without activations."""
    return sum(
        int(p.numel() * bytes_of_weight(p.dtype.itemsize, in_8_bits=in_8_bits))
        for p in weights_of(engine.network).values()
    )


def bytes_of_weight(itemsize: int, *, in_8_bits: bool = False) -> float:
    """What training a weight of so many bytes takes beside it.

    A copy of the weight to train, its gradient and two moments, in float32 but for moments in 8 bits; for half
    precision a float32 weight too.
    """
    moments = _MOMENTS_IN_8_BITS if in_8_bits else 2 * _FLOAT
    return itemsize + _FLOAT + moments + (_FLOAT if itemsize < _FLOAT else 0)


def bytes_written(engine: Engine) -> int:
    """On disk at once: a checkpoint of weights and two moments in float32, the one before it, and the weights."""
    return sum(p.numel() * (2 * 3 * _FLOAT + p.dtype.itemsize) for p in weights_of(engine.network).values())
