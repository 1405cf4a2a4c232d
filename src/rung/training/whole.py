"""Full fine-tuning: every weight is trained. What it needs is computed beforehand; the base is put back at its end.

The result is a folder that transformers loads by itself. Knows nothing of steps and checkpoints.
Source: Micikevicius et al., Mixed precision training (2018), for float32 copies of weights in half precision.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from rung.engine.engine import Engine
from rung.engine.memory import free_bytes
from rung.engine.whole_weights import save_weights, weights_of
from rung.errors import OutOfMemory, TrainingError
from rung.training.checkpoints import checkpoint_of
from rung.training.learner import Learner, record_base
from rung.types import TrainingOptions

_FLOAT = 4  # bytes
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


def check_room(engine: Engine, folder: Path) -> None:
    """Raises OutOfMemory or TrainingError, with the numbers, where memory or the disk cannot hold such a training."""
    engine.make_room()
    needed, free = bytes_needed(engine), free_bytes(engine.device)
    if needed > free:
        raise OutOfMemory(
            f"model {engine.name}: training all weights needs {needed / _GB:.1f} GB of memory beside the model (a copy "
            f"of its weights, their gradients and two moments of each), and {free / _GB:.1f} GB are free. Train an "
            "adapter, or use a smaller model."
        )
    written, room = bytes_written(engine), shutil.disk_usage(folder).free
    before = checkpoint_of(folder)
    kept = before.stat().st_size if before.is_file() else 0
    if written - kept > room:
        raise TrainingError(
            f"{folder}: training all weights of {engine.name} needs {(written - kept) / _GB:.1f} GB of disk (two "
            f"checkpoints and the weights), and {room / _GB:.1f} GB are free. Make room, or train an adapter."
        )


def bytes_needed(engine: Engine) -> int:
    """Beside the loaded network and without activations.

    A copy of the weights to train, gradients and two moments in float32; for half precision float32 weights too.
    """
    return sum(
        p.numel() * (p.dtype.itemsize + 3 * _FLOAT + (_FLOAT if p.dtype.itemsize < _FLOAT else 0))
        for p in weights_of(engine.network).values()
    )


def bytes_written(engine: Engine) -> int:
    """On disk at once: a checkpoint of weights and two moments in float32, the one before it, and the weights."""
    return sum(p.numel() * (2 * 3 * _FLOAT + p.dtype.itemsize) for p in weights_of(engine.network).values())
