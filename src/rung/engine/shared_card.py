"""A GPU that several processes share: torch's allocator, memory that others hold, and waiting for it.

Nothing here takes memory from others: what they hold is not counted as free, and what this process keeps unused is
given back where others need it. torch is imported where a GPU is asked.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rung.engine.memory import driver_bytes, free_bytes, give_back, reserved_bytes, used_now

if TYPE_CHECKING:
    import torch

_ALLOCATOR = "expandable_segments:True"
_VARIABLES = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")  # of older torch, of newer
_CONTEXT = 1 << 30  # bytes that CUDA itself may hold for a process, its kernels among them
_MUCH = 2 << 30  # bytes that torch may keep unused where nobody else is on the card
_WAITS_S = (1.0, 2.0, 4.0)
_FORGOTTEN_S = 60.0  # after which a new shortage is waited for again

_log = logging.getLogger(__name__)
_set_here: set[str] = set()  # variables that `prepare_allocator` has set


def prepare_allocator(device: str) -> None:
    """Makes torch's allocator grow its segments instead of leaving gaps between them, as batches of many sizes do.

    Called before a network is loaded on a GPU. Does nothing where the user has set torch's own variables, where CUDA
    is at work already, and on systems whose torch does not know it. The variable holds for processes that this one
    starts, too.
    Source: PyTorch, CUDA semantics, "Optimizing memory usage with PYTORCH_CUDA_ALLOC_CONF".
    """
    if not device.startswith("cuda") or not sys.platform.startswith("linux"):
        return
    import torch

    if any(name in os.environ for name in _VARIABLES) or torch.version.hip or torch.cuda.is_initialized():
        return
    newer = hasattr(torch._C, "_accelerator_setAllocatorSettings")  # which calls the older name out of date
    os.environ[_VARIABLES[newer]] = _ALLOCATOR  # read when CUDA is first used
    _set_here.add(_VARIABLES[newer])


def environment_of_others() -> dict[str, str]:
    """The environment for a program that is not rung: without what `prepare_allocator` has set in this process.

    vLLM on several cards fails with it, since cudaIpcGetMemHandle takes no memory of segments that grow.
    """
    return {name: value for name, value in os.environ.items() if name not in _set_here}


def others_bytes(device: torch.device) -> int:
    """About how much of a GPU's memory other processes hold; 0 on any other device, where nobody says."""
    if device.type != "cuda":
        return 0
    free, total = driver_bytes(device)
    return max(0, total - free - reserved_bytes(device) - _CONTEXT)


def is_crowded(device: torch.device) -> bool:
    """Whether less than half of a GPU's memory is free: what answering keeps for later is then in a training's way."""
    if device.type != "cuda":
        return False
    return 2 * free_bytes(device) < driver_bytes(device)[1]


def give_back_surplus(device: torch.device) -> None:
    """Hands back what torch keeps unused of a GPU where others share it, or where it is more than what is in use.

    Called after a stage, such as a list of answers or a training: it waits for the device.
    """
    if device.type != "cuda":
        give_back()
        return
    unused = reserved_bytes(device) - used_now(device)
    shared = others_bytes(device) > 0 and unused > _CONTEXT // 4
    give_back(device if shared or unused > max(_MUCH, used_now(device)) else None)


@dataclass
class Patience:
    """How long was waited for memory that others hold. waited: how many times, since the last long pause."""

    sleep: Callable[[float], Any] = time.sleep
    clock: Callable[[], float] = time.monotonic
    waited: int = 0
    latest: float = float("-inf")

    def wait(self, device: torch.device, held: int) -> bool:
        """Waits a while where others hold memory of the device; False where they hold none or it was waited enough.

        held: bytes that others hold. A few seconds in all: a batch of theirs may end meanwhile.
        """
        if self.clock() - self.latest > _FORGOTTEN_S:
            self.waited = 0
        if held <= 0 or self.waited >= len(_WAITS_S):
            return False
        seconds = _WAITS_S[self.waited]
        _log.warning(
            "memory of %s ran out, and other processes hold %.1f GB of it: trying again in %.0f s",
            device,
            held / 1e9,
            seconds,
        )
        self.sleep(seconds)
        self.waited, self.latest = self.waited + 1, self.clock()
        return True
