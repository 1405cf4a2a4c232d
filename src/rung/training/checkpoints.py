"""The checkpoint of a training, and the claim that says which training a folder belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from rung.engine.devices import set_random_state
from rung.engine.out_of_memory import is_out_of_memory
from rung.engine.whole_weights import is_whole, weight_files
from rung.errors import TrainingError
from rung.records import read_json, write_json
from rung.training.batches import Item
from rung.types import TrainingOptions

_CHECKPOINT = "checkpoint.pt"


@dataclass
class State:
    """How far a training has come.

    newest: step of the checkpoint on disk. micro_tokens: as in the options, or fewer once memory ran out.
    checkpointing: whether layers are computed again in the backward pass, because memory does not suffice otherwise.
    stopped: whether the caller ended the training. sizes: of static passes, as `CapturedGradients` says.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    micro_tokens: int = 0
    newest: int = 0
    checkpointing: bool = False
    stopped: bool = False
    sizes: list[tuple[int, int]] = field(default_factory=list)


def claim(
    folder: Path, options: TrainingOptions, rows: Sequence[Item], start: Path | None, loss: Mapping[str, Any]
) -> None:
    """Makes the folder belong to these options, rows, first weights and loss.

    loss: what tells it from that of answers, which says nothing. Raises TrainingError when the folder has others.
    """
    content: dict[str, Any] = {"options": asdict(options), "rows": len(rows), "rows_sha256": _sha256_of(rows), **loss}
    if start is not None:
        content["start_sha256"] = _sha256_of_files(start)
    written = read_json(folder / "training.json")
    if written is None:
        write_json(folder / "training.json", content)
        return
    former = {option.name: option.default for option in fields(TrainingOptions) if option.default is not MISSING}
    written = {**written, "options": {**former, **written["options"]}}  # an older version knew fewer options
    if written != content:
        raise TrainingError(
            f"{folder}: holds another training ({written['options']}). Name another folder or remove it."
        )


def save(
    folder: Path,
    parameters: Sequence[Any],
    optimiser: torch.optim.Optimizer,
    state: State,
    random: Sequence[torch.Tensor],
    sizes: Sequence[tuple[int, int]],
) -> None:
    """Writes the checkpoint, unless the one on disk is further on. random: as of `devices.random_state`.

    sizes: those of the state behind its step; the state's own may be of the step after it, which has begun.
    """
    if state.step <= state.newest:
        return
    content = {
        "step": state.step,
        "tokens": state.tokens,
        "seconds": state.seconds,
        "micro_tokens": state.micro_tokens,
        "checkpointing": state.checkpointing,
        "sizes": list(sizes),
        "parameters": [p.detach() for p in parameters],
        "optimiser": optimiser.state_dict(),
        "rng": list(random),
    }
    path = checkpoint_of(folder)
    scratch = path.with_name(f"{path.name}.tmp")
    try:
        torch.save(content, scratch)
        scratch.replace(path)
    except BaseException:  # a disk that is full stays no fuller than it was
        scratch.unlink(missing_ok=True)
        raise
    state.newest = state.step


def restore(
    folder: Path,
    parameters: Sequence[Any],
    optimiser: torch.optim.Optimizer,
    until: int,
    state: State,
    device: torch.device,
) -> bool:
    """Loads the checkpoint, sets the state to its own, and says whether there was one to go on from.

    A checkpoint beyond `until` is not loaded and stays on disk. One that is torn, or of other weights, counts as none.
    """
    content = _read(checkpoint_of(folder))
    if content is None or [p.shape for p in content["parameters"]] != [p.shape for p in parameters]:
        return False
    state.newest = int(content["step"])
    if state.newest > until:
        return False
    with torch.no_grad():
        for parameter, value in zip(parameters, content["parameters"], strict=True):
            parameter.copy_(value)
    optimiser.load_state_dict(content["optimiser"])
    random = content["rng"]
    set_random_state(device, [random] if isinstance(random, torch.Tensor) else random)
    state.step, state.tokens, state.seconds = state.newest, int(content["tokens"]), float(content["seconds"])
    state.micro_tokens = int(content["micro_tokens"])
    state.checkpointing = bool(content.get("checkpointing", False))
    state.sizes[:] = [(int(tokens), int(wanted)) for tokens, wanted in content.get("sizes", [])]
    return True


def checkpoint_of(folder: Path) -> Path:
    return folder / _CHECKPOINT


def _read(path: Path) -> dict[str, Any] | None:
    """What is in a checkpoint, in the memory of the CPU; None where there is none that can be read."""
    if not path.is_file():
        return None
    try:  # on a GPU it would stand beside its copy
        content: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises many kinds for a file that a power cut has torn
        if is_out_of_memory(error):
            raise
        return None
    return content


def _sha256_of_files(start: Path) -> str:
    """Of the weights in an adapter's folder, or of all weights in a folder of those."""
    digest = hashlib.sha256()
    for path in weight_files(start) if is_whole(start) else [start / "adapter_model.safetensors"]:
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
    return digest.hexdigest()


def _sha256_of(items: Sequence[Item]) -> str:
    digest = hashlib.sha256()
    for row in (row for item in items for row in item.rows):
        digest.update(repr((row.prompt, row.target)).encode())
    return digest.hexdigest()
