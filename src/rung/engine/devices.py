"""Where a network runs: the device, the type to compute in, and what differs from one platform to another.

Knows torch's back ends (CPU, CUDA, MPS of macOS). Knows nothing of networks.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from rung.engine.variables import CARDS, asked_cards

_PROBE_SHAPE = (64, 576, 1536)  # tokens x a small model's projection
_PROBES = 12
_CLEARLY_FASTER = 1.5  # bfloat16 rounds more coarsely; it must gain far more than the noise of a timing


def best_device() -> str:
    """The device to run on: "cuda" or "mps" where torch can use one, else "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def cards(own: torch.device) -> list[str]:
    """The devices that one run may use: its own, then further ones, such as "cuda:0", "cuda:1".

    All cards that torch sees, or as RUNG_CARDS says: 1 for its own alone, a larger number for so many of them, "cpu:2"
    for two processes on the CPU (this one and another), which is for tests.
    Raises ModelError where RUNG_CARDS is anything else.
    """
    asked = asked_cards()
    if asked is not None and asked.on_cpu and own.type == "cpu":
        return ["cpu"] * asked.number
    if own.type != "cuda" or (asked is not None and asked.on_cpu):
        return [str(own)]
    first = f"cuda:{own.index or 0}"
    further = [name for i in range(torch.cuda.device_count()) if (name := f"cuda:{i}") != first]
    return [first, *further][: asked.number if asked is not None else None]


def remark_on_cards(own: torch.device) -> str | None:
    """That RUNG_CARDS asks for what is not there, and what is used then, in a sentence; None where it does not."""
    asked = asked_cards()
    if asked is None or (asked.on_cpu and own.type == "cpu"):
        return None
    if asked.on_cpu:
        return f"{CARDS}=cpu:{asked.number} is for models on the CPU, and this one is on {own}: it uses one card."
    found = len(cards(own))
    if asked.number <= found:
        return None
    if own.type != "cuda":
        seen = f"none with CUDA: {'the CPU' if own.type == 'cpu' else own} is used"
    else:
        seen = "1: it alone is used" if found == 1 else f"{found}: these are used"
    return f"{CARDS} asks for {asked.number} cards, and torch sees {seen}."


def fastest_dtype(device: str) -> torch.dtype:
    """The type to compute in: bfloat16 where the device has matrix units for it, else float32; float16 on a GPU without
    them, such as a T4 or V100.

    A CPU is timed on matrix products of a few milliseconds: without such units bfloat16 is several times slower.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.bfloat16 if _has_bfloat16_units() else torch.float16
    if kind == "mps":
        return torch.bfloat16 if _multiplies(torch.bfloat16, device) else torch.float32
    whole, half = _product_seconds(torch.float32, torch.bfloat16)
    return torch.bfloat16 if half * _CLEARLY_FASTER < whole else torch.float32


def synchronize(device: torch.device) -> None:
    """Waits until the device has done what it was given, so that a clock read afterwards counts it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def reading(numbers: torch.Tensor) -> Callable[[], list[float]]:
    """The numbers on their way to Python. The function waits for them, and for nothing that is given to a GPU later."""
    if numbers.device.type != "cuda":
        return numbers.tolist
    host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
    host.copy_(numbers, non_blocking=True)
    arrived: Any = torch.cuda.Event()
    arrived.record(torch.cuda.current_stream(numbers.device))

    def read() -> list[float]:
        arrived.synchronize()
        return host.tolist()

    return read


def empty_cache(device: torch.device) -> None:
    """Hands memory that torch keeps for later back to the device.

    The device is the current one meanwhile: else torch takes memory of growing segments away while kernels that were
    given to it still write there (pytorch/pytorch#196258).
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def random_state(device: torch.device) -> list[torch.Tensor]:
    """The state of torch's random numbers on the CPU and, where it is another, on the device."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    elif device.type == "mps":
        states.append(torch.mps.get_rng_state())
    return states


def set_random_state(device: torch.device, states: Sequence[torch.Tensor]) -> None:
    """Goes back to what `random_state` returned; a state of the CPU alone leaves the device as it is."""
    cpu, *others = (state.cpu() for state in states)
    torch.set_rng_state(cpu)
    for state in others:
        if device.type == "cuda":
            torch.cuda.set_rng_state(state, device)
        elif device.type == "mps":
            torch.mps.set_rng_state(state)


def device_name(device: torch.device) -> str:
    """The maker's name of the GPU, or the machine's kind of processor."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return platform.processor() or platform.machine()


def _has_bfloat16_units() -> bool:
    """Whether the GPU computes in bfloat16 itself. On older ones torch calls it supported, and emulates it slowly."""
    if torch.version.hip:
        return True
    try:
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    except TypeError:  # an older torch does not know the argument
        return torch.cuda.get_device_capability() >= (8, 0)


def _multiplies(dtype: torch.dtype, device: str) -> bool:
    """Whether the device can multiply matrices of this type; older versions of macOS lack bfloat16."""
    try:
        ones: Any = torch.ones(2, 2, dtype=dtype, device=device)
        return bool((ones @ ones).float().sum().item() == 8.0)
    except (TypeError, RuntimeError):
        return False


def _product_seconds(*dtypes: torch.dtype) -> list[float]:
    """The best time of a matrix product in each type, in turn, so that other work on the machine slows all alike."""
    rows, inner, columns = _PROBE_SHAPE
    pairs = [(torch.ones(rows, inner, dtype=t), torch.ones(inner, columns, dtype=t)) for t in dtypes]
    best = [float("inf")] * len(dtypes)
    for _ in range(_PROBES):
        for place, (a, b) in enumerate(pairs):
            started = time.perf_counter()
            _ = a @ b
            best[place] = min(best[place], time.perf_counter() - started)
    return best
