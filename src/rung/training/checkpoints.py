"""The checkpoint of a training, and the claim that says which training a folder belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from rung.errors import TrainingError
from rung.records import read_json, write_json
from rung.training.batches import TokenRow
from rung.types import TrainingOptions

_CHECKPOINT = "checkpoint.pt"


@dataclass
class State:
    """How far a training has come.

    newest: step of the checkpoint on disk. micro_tokens: as in the options, or fewer once memory ran out.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    micro_tokens: int = 0
    newest: int = 0


def claim(folder: Path, options: TrainingOptions, rows: Sequence[TokenRow], start: Path | None) -> None:
    """Makes the folder belong to these options, rows and first weights. Raises TrainingError when it has others."""
    content: dict[str, Any] = {"options": asdict(options), "rows": len(rows), "rows_sha256": _sha256_of(rows)}
    if start is not None:
        weights = (start / "adapter_model.safetensors").read_bytes()
        content["start_sha256"] = hashlib.sha256(weights).hexdigest()
    written = read_json(folder / "training.json")
    if written is None:
        write_json(folder / "training.json", content)
    elif written != content:
        raise TrainingError(
            f"{folder}: holds another training ({written['options']}). Name another folder or remove it."
        )


def save(folder: Path, parameters: Sequence[Any], optimiser: torch.optim.Optimizer, state: State) -> None:
    """Writes the checkpoint, unless the one on disk is further on."""
    if state.step <= state.newest:
        return
    content = {
        "step": state.step,
        "tokens": state.tokens,
        "seconds": state.seconds,
        "micro_tokens": state.micro_tokens,
        "parameters": [p.detach() for p in parameters],
        "optimiser": optimiser.state_dict(),
        "rng": torch.get_rng_state(),
    }
    scratch = folder / f"{_CHECKPOINT}.tmp"
    torch.save(content, scratch)
    scratch.replace(folder / _CHECKPOINT)
    state.newest = state.step


def restore(
    folder: Path, parameters: Sequence[Any], optimiser: torch.optim.Optimizer, until: int, micro_tokens: int
) -> State:
    """Loads the checkpoint and returns its state. A checkpoint beyond `until` is not loaded and stays on disk."""
    path = folder / _CHECKPOINT
    if not path.is_file():
        return State(micro_tokens=micro_tokens)
    content = torch.load(path, weights_only=True, map_location=parameters[0].device)
    step = int(content["step"])
    if step > until:
        return State(micro_tokens=micro_tokens, newest=step)
    with torch.no_grad():
        for parameter, value in zip(parameters, content["parameters"], strict=True):
            parameter.copy_(value)
    optimiser.load_state_dict(content["optimiser"])
    torch.set_rng_state(content["rng"].cpu())
    return State(step, int(content["tokens"]), float(content["seconds"]), int(content["micro_tokens"]), step)


def _sha256_of(rows: Sequence[TokenRow]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr((row.prompt, row.target)).encode())
    return digest.hexdigest()
