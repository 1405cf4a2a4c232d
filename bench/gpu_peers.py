"""transformers + PEFT, also with Liger's kernels: training on padded batches, and `generate`, each at its best."""

from __future__ import annotations

import gc
import importlib.util
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch

from gpu_part import FEW_AND_MANY, Given, measured, ms_per_token, peak_gb, reset_peak
from gpu_shapes import lora_config, make_network, prompts_of
from rung.engine.devices import synchronize
from rung.engine.out_of_memory import is_out_of_memory
from rung.training.batches import TokenRow

RATE = 1e-4
_ONCE_S = 8.0  # prompts that take longer are not answered once more


def plain_network(given: Given, dtype: torch.dtype) -> Any:
    """As transformers computes it, with PyTorch's attention; `generate` goes on to the last token asked for."""
    network = make_network(given.shape, given.device, dtype, attention="sdpa")
    network.generation_config.eos_token_id = None
    network.generation_config.pad_token_id = 0
    return network


class Peer:
    """One network at a time: the plain one for `generate` and, with an adapter, for training; then Liger's."""

    def __init__(self, given: Given) -> None:
        self.given, self.rows = given, given.rows()
        self._network: Any = None
        self._kind = ""

    def network(self, kind: str) -> Any:
        """kind: "plain", "adapted" or "liger"; in this order, since Liger's kernels change transformers for good."""
        if self._kind != kind:
            if kind == "liger":
                from liger_kernel.transformers import apply_liger_kernel_to_llama  # type: ignore[import-not-found]

                apply_liger_kernel_to_llama()
            if self._kind != "plain" or kind != "adapted":
                self._network = None
                gc.collect()
                self._network = plain_network(self.given, self.given.dtype)
            if kind != "plain":
                self._network = fast_adapter(self._network)
            self._kind = kind
        return self._network

    def trained(self, kind: str, batch: int) -> dict[str, Any]:
        return training(self.given, self.network(kind), self.rows, batch)


def run(given: Given) -> None:
    """The measures of kind `transformers`; those named liger_ have Liger's kernels, if it is installed.

    What has no target is begun only where there is time for what has one behind it.
    """
    peer, large = Peer(given), given.size == "8b"
    train = 20 if large else 10
    liger = train if importlib.util.find_spec("liger_kernel") is not None else 0
    works: dict[str, Any] = {
        "prompts": (lambda: prompts(given, peer.network("plain"), peer.rows), 25 if large else 15),
        "request": (lambda: request(peer.network("plain"), peer.rows), 9 + train + liger),
    }
    for batch, behind in ((32, 0), (8, liger)):
        works[f"training_{batch}"] = (lambda batch=batch: peer.trained("adapted", batch), train + behind)
        works[f"liger_{batch}"] = (lambda batch=batch: peer.trained("liger", batch), train)
    measured(given, works)


def fast_adapter(network: Any) -> Any:
    """The network with a fresh adapter in its own type: faster than PEFT's default, whose adapter is in float32."""
    from peft import get_peft_model

    return get_peft_model(network, lora_config(), autocast_adapter_dtype=False)


def padded(rows: Sequence[TokenRow], device: torch.device) -> dict[str, torch.Tensor]:
    """A batch as transformers trains on it: padded on the right, labels at the target tokens alone."""
    width = max(row.tokens for row in rows)
    ids = [[*r.prompt, *r.target] + [0] * (width - r.tokens) for r in rows]
    seen = [[1] * r.tokens + [0] * (width - r.tokens) for r in rows]
    labels = [[-100] * len(r.prompt) + list(r.target) + [-100] * (width - r.tokens) for r in rows]
    return {
        "input_ids": torch.tensor(ids, device=device),
        "attention_mask": torch.tensor(seen, device=device),
        "labels": torch.tensor(labels, device=device),
    }


def training(given: Given, network: Any, rows: Sequence[TokenRow], batch: int) -> dict[str, Any]:
    """Examples a second of AdamW steps. Where a batch does not fit, it goes through in halves, and so on."""
    parts = 1
    while True:
        try:
            return {**_steps(given, network, rows, batch, parts), "parts_of_a_batch": parts}
        except Exception as error:
            if not is_out_of_memory(error) or parts >= batch:
                raise
        gc.collect()
        parts *= 2


def _steps(given: Given, network: Any, rows: Sequence[TokenRow], batch: int, parts: int) -> dict[str, Any]:
    device = given.torch_device
    network.train()
    weights = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.0, fused=True)
    reset_peak(device)
    micro = batch // parts

    def step(number: int) -> None:
        first = number * batch % max(1, len(rows) - batch)
        for start in range(first, first + batch, micro):
            loss = network(**padded(rows[start : start + micro], device), use_cache=False).loss / parts
            loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    warm, most, seconds = (1, 2, 4.0) if given.small else (3, 20, 6.0)
    for number in range(warm):
        step(number)
    synchronize(device)
    started, done = time.perf_counter(), 0
    while done < most and (done < 2 or time.perf_counter() - started < seconds):
        step(warm + done)
        done += 1
        synchronize(device)
    rate = done * batch / (time.perf_counter() - started)
    return {"examples_per_s": rate, "steps": done, "peak_gb": peak_gb(device)}


@torch.inference_mode()
def generated(network: Any, asked: Sequence[Sequence[int]], new: int) -> list[list[int]]:
    """The likeliest tokens behind each prompt, all in one batch that is padded on the left."""
    width = max(map(len, asked))
    device = next(network.parameters()).device
    ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in asked], device=device)
    seen = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in asked], device=device)
    network.eval()
    out = network.generate(ids, attention_mask=seen, max_new_tokens=new, do_sample=False)
    found: list[list[int]] = out[:, width:].tolist()
    return found


def prompts(given: Given, network: Any, rows: Sequence[TokenRow]) -> dict[str, Any]:
    """Seconds to answer prompts that share a prefix, at the batch that answers most prompts a second.

    Where that takes long, they follow from the best batch alone.
    """
    count, new = asked_of(given)
    asked = prompts_of(rows, count)
    rates: dict[int, float] = {}
    generated(network, asked[:2], 2)
    sizes = (4, 8) if given.small else (64, 128, 256, 512)
    for size in sizes[given.size == "8b" :]:
        try:
            started = time.perf_counter()
            generated(network, asked[:size], new)
            rates[size] = size / (time.perf_counter() - started)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reset_peak(given.torch_device)
            break
        if rates[size] < 0.9 * max(rates.values()):
            break
    best = max(rates, key=lambda size: rates[size])
    seconds = count / rates[best]
    if seconds < _ONCE_S:
        started = time.perf_counter()
        for first in range(0, count, best):
            generated(network, asked[first : first + best], new)
        again = time.perf_counter() - started
        seconds = min(seconds, again)
    return {"seconds": seconds, "batch": best, "prompts": count, "new_tokens": new}


def asked_of(given: Given) -> tuple[int, int]:
    """(prompts that share a prefix, new tokens of each)."""
    return (16, 4) if given.small else (512, 32)


def request(network: Any, rows: Sequence[TokenRow]) -> dict[str, Any]:
    """Milliseconds of each token of one request."""

    def seconds(new: int) -> float:
        started = time.perf_counter()
        generated(network, [rows[0].prompt], new)
        return time.perf_counter() - started

    seconds(2)
    return {"ms_per_token": ms_per_token(seconds, *FEW_AND_MANY, times=2)}


def versions() -> dict[str, str | None]:
    """Name -> installed version of what is compared; None where it is not installed."""
    found: dict[str, str | None] = {}
    for name in ("torch", "transformers", "peft", "liger-kernel", "vllm", "bitsandbytes"):
        try:
            found[name] = version(name)
        except Exception:
            found[name] = None
    return found
