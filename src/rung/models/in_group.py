"""Training in a group of processes that somebody else started: torchrun, a scheduler such as Slurm, or Ray Train.

Every process calls the same functions with the same arguments; the first one writes the files. A model that does not
fit one card has its layers divided over the group (`load_sharded`). Only training is offered so: a run needs a model
that answers, and such a model is answered by vLLM or an endpoint.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from rung.engine.memory import give_back
from rung.engine.sharding import sharded
from rung.errors import TrainingError
from rung.models.loading import load_model
from rung.models.local import LocalModel
from rung.training.together import Together, join
from rung.types import Progress, TrainingOptions, TrainingRow

_AT_ONCE = 1 << 30  # tokens: every process does one pass a step


def train_in_group(
    model: LocalModel,
    rows: Sequence[TrainingRow],
    options: TrainingOptions,
    folder: Path,
    *,
    on_step: Callable[[Progress], None] = lambda _: None,
) -> Path:
    """Trains as `types.Trainable.train` does, together with the other processes, each of which holds the whole model.

    model: of `load_model`, on this process's own card, which torch.cuda.set_device has chosen. on_step is called in
    the first process; what it raises ends the training in all of them.
    """
    join(model.engine.device)
    peers = Together(model.engine.device)
    return model.train_tokens(model.encode_rows(rows), options, folder, on_step=on_step, peers=peers)


def load_sharded(spec: str, device: torch.device, *, dtype: torch.dtype = torch.bfloat16) -> LocalModel:
    """The model of that name, divided over the processes of the group.

    device: this process's own: a card that torch.cuda.set_device has chosen, or the CPU. The processes load in turn,
    each into the memory of the machine first, which must hold the whole model once. Raises as `load_model` does, and
    ModelError where the model cannot be divided.
    """
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    join(device)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    model: LocalModel | None = None
    for turn in range(dist.get_world_size()):
        if turn == dist.get_rank():
            whole = load_model(spec, device="cpu", dtype=dtype)
            engine = sharded(whole.engine, mesh)
            model = LocalModel(
                engine, whole.chat.tokenizer, name=whole.name, version=whole.version, folder=whole.folder
            )
            del whole
            gc.collect()
            give_back(device)
        dist.barrier()
    assert model is not None
    return model


def train_sharded(
    model: LocalModel,
    rows: Sequence[TrainingRow],
    options: TrainingOptions,
    folder: Path,
    *,
    on_step: Callable[[Progress], None] = lambda _: None,
) -> Path:
    """Trains an adapter for a model of `load_sharded`. Every process calls it, with the same arguments.

    As `train_in_group`, but that each process does one pass a step, so that all gather the same layers: memory that
    runs out ends the training.
    Raises TrainingError where all weights are to be trained, or a batch has fewer rows than there are processes.
    """
    peers = Together(model.engine.device, in_step=True)
    fewest = len(rows) // max(1, -(-len(rows) // options.batch_size))  # of a batch; they are of nearly equal size
    if options.full or fewest < peers.count:
        raise TrainingError(
            f"model {model.name}: over {peers.count} processes only adapters are trained, and with at least as many "
            f"rows in each batch; here all weights are {'' if options.full else 'not '}to be trained, and a batch has "
            f"{fewest} rows. Change the options, or use fewer processes."
        )
    options = replace(options, micro_tokens=_AT_ONCE)
    return model.train_tokens(model.encode_rows(rows), options, folder, on_step=on_step, peers=peers)
