"""Several processes train one thing together: each computes its share of a batch, and their gradients are summed.

Every process holds the same weights and takes the same steps; the first one writes the files. A batch is divided by
its own number of target tokens over all processes, so that any number of them trains what one alone would, to rounding.
Knows torch.distributed, and nothing of engines. Who starts the processes: `rung.models.launching`, or a scheduler.
Source: Li et al., PyTorch Distributed (2020), for gradients that are summed in a few large pieces.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist

from rung.engine.prefix_tree import common_prefix_length
from rung.training.batches import Item, TokenPair, TokenRow
from rung.types import TrainingOptions

Number = TypeVar("Number", float, torch.Tensor)

LONGEST_WAIT = timedelta(minutes=60)
"""For the other processes: one may compile, or write all weights to a slow disk, while the others wait."""

_MOST_ROWS = 256  # that are read to guess what a batch shares
_PIECE = 16 << 20  # numbers that are summed at once: 64 MB in float32


class Peers(Protocol):
    """The processes of a training, of which this is one.

    - rank: number of this process, from 0, of `count`. Only rank 0 writes files and tells how far the training is.
    - `share` is this process's part of a batch, which may be empty; the parts of all processes are the batch.
    - `sum_gradients` puts into each parameter the sum of its gradients over all processes, and returns the sum of the
      loss. Every process calls it, equally often and with parameters of the same shapes.
    - `sums` and `any_of` are the sums of numbers over all processes, and whether something is true of any of them.
      Every process calls them, equally often.
    - in_step: whether all processes must do the same passes, because weights are divided over them. Memory that runs
      out ends such a training: a process that did its share again would wait for the others, which have done theirs.
    """

    @property
    def in_step(self) -> bool: ...

    @property
    def rank(self) -> int: ...

    @property
    def count(self) -> int: ...

    def share(self, batch: Sequence[Item]) -> list[Item]: ...

    def sum_gradients(self, parameters: Sequence[Any], loss: Number) -> Number: ...

    def sums(self, numbers: Sequence[float]) -> list[float]: ...

    def any_of(self, here: bool) -> bool: ...


class Alone:
    """One process: a batch is its own, and there is nothing to sum."""

    in_step = False
    rank = 0
    count = 1

    def share(self, batch: Sequence[Item]) -> list[Item]:
        return list(batch)

    def sum_gradients(self, parameters: Sequence[Any], loss: Number) -> Number:
        return loss

    def sums(self, numbers: Sequence[float]) -> list[float]:
        return list(numbers)

    def any_of(self, here: bool) -> bool:
        return here


def join(device: torch.device) -> None:
    """Joins the group of processes that torchrun's environment variables describe, RANK and WORLD_SIZE among them.

    device: this process's own; torch.cuda.set_device has chosen it. Does nothing in a group that is there, as in one
    of Ray Train's.
    """
    if dist.is_initialized():
        return
    if device.type == "cuda":
        dist.init_process_group("nccl", timeout=LONGEST_WAIT, device_id=device)
    else:
        dist.init_process_group("gloo", timeout=LONGEST_WAIT)


def is_one_of_several() -> bool:
    """Whether a launcher or scheduler has started this process as one of a group."""
    return (dist.is_available() and dist.is_initialized()) or int(os.environ.get("WORLD_SIZE", "1") or 1) > 1


class Together:
    """The processes of torch.distributed's group, which is there: by `join`, or a scheduler's.

    device: where gradients are summed: a GPU with NCCL, the CPU with gloo. in_step: whether weights are divided
    over the processes (`rung.models.in_group`).
    """

    def __init__(self, device: torch.device, *, in_step: bool = False) -> None:
        self.device = device
        self.in_step = in_step
        self.rank = dist.get_rank()
        self.count = dist.get_world_size()
        # Numbers of Python are summed beside what the cards have yet to do, and wait for none of it.
        self._host: Any = dist.new_group(backend="gloo", timeout=LONGEST_WAIT) if device.type != "cpu" else None

    def meet(self) -> None:
        """One sum, which every process takes part in: whether they reach each other is seen before a training."""
        one = torch.ones(1, device=self.device)
        dist.all_reduce(one)
        assert int(one.item()) == self.count

    def share(self, batch: Sequence[Item]) -> list[Item]:
        return shares(batch, self.count)[self.rank]

    @torch.no_grad()
    def sum_gradients(self, parameters: Sequence[Any], loss: Number) -> Number:
        """Summed in float32, in pieces of 64 MB at most or of one parameter. Nothing of it may be recorded in a CUDA
        graph. A parameter without a gradient counts as zeros: this process's share did not reach it."""
        piece: list[Any] = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if piece and sum(p.numel() for p in piece) + parameter.numel() > _PIECE:
                self._sum(piece)
                piece = []
            piece.append(parameter)
        if piece:
            self._sum(piece)
        if isinstance(loss, torch.Tensor):
            summed = loss.detach().to(self.device, torch.float32).clone()
            dist.all_reduce(summed)
            return summed.to(loss)
        return self.sums([loss])[0]

    def _sum(self, parameters: Sequence[Any]) -> None:
        flat = torch.cat([p.grad.reshape(-1).to(self.device, torch.float32) for p in parameters])
        dist.all_reduce(flat)
        for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad.copy_(part.view_as(parameter))

    def sums(self, numbers: Sequence[float]) -> list[float]:
        summed = torch.tensor(list(numbers), dtype=torch.float64)
        dist.all_reduce(summed, group=self._host)
        return [float(number) for number in summed.tolist()]

    def any_of(self, here: bool) -> bool:
        return self.sums([float(here)])[0] > 0


def shares(batch: Sequence[Item], count: int) -> list[list[Item]]:
    """The batch in `count` parts of about equally many tokens to compute, each in the order of the batch.

    Rows that begin alike stay together as far as that goes, since a part computes what its rows share once. No part is
    empty unless there are fewer items than parts.
    """
    order = sorted(range(len(batch)), key=lambda place: batch[place].rows[0].prompt)
    prompts = [batch[place].rows[0].prompt for place in order]
    shared = common_prefix_length(prompts) if prompts else 0  # every part computes it
    costs = []
    for i, place in enumerate(order):
        known = common_prefix_length(prompts[i - 1 : i + 1]) if i else shared
        costs.append(sum(row.tokens - known for row in batch[place].rows))
    parts, first = [], 0
    for later in range(count - 1, -1, -1):  # parts that are still to come
        most, fair = len(order) - later, sum(costs[first:]) / (later + 1)
        end, taken = first, 0.0
        while end < most and (end == first or not later or taken + costs[end] / 2 <= fair):
            taken += costs[end]
            end += 1
        parts.append([batch[place] for place in sorted(order[first:end])])
        first = end
    return parts


def saves(
    rows: Sequence[TokenRow] | Sequence[TokenPair], options: TrainingOptions, steps: int, count: int, speed: float
) -> float:
    """Seconds that `count` cards save over one. speed: tokens a second that one trains on.

    What all rows begin with is computed by every process; the other tokens of a batch are divided.
    """
    some = [row for item in rows[:_MOST_ROWS] for row in item.rows]
    if not some or min(len(rows), options.batch_size) < count:
        return 0.0
    shared = common_prefix_length([row.prompt for row in some])
    items = min(len(rows), options.batch_size) * len(some) / min(len(rows), _MOST_ROWS)
    own = items * sum(row.tokens - shared for row in some) / len(some)
    return steps * own * (1 - 1 / count) / speed
