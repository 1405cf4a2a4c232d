"""What rung computes with one small architecture, against plain transformers and plain PEFT in float32.

`examine` is the whole measurement of one architecture; `tests/engine/test_architectures.py` runs it too. The peer
answers and trains a row at a time, without padding, so that nothing but the network decides what is right.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rung.training.batches import TokenRow
from rung.types import TrainingOptions
from small_architectures import save_small

NEW_TOKENS = 12
STOPS = (2,)  # the tokenizer's end token
STEPS = 3
LOGITS_DIFFER = 1e-3  # the largest difference that is allowed, as a share of the largest logit
LOSS_DIFFERS = 1e-3  # relative
OPTIONS = TrainingOptions(learning_rate=5e-3, steps=STEPS, batch_size=4, rank=4, alpha=8, seed=0)


@dataclass
class Row:
    """What was measured of one architecture. A measurement that failed is in `failures`, with its first line.

    same: rows whose greedy answer equals transformers', of `asked`. logits: largest difference, over the largest logit.
    losses: relative difference of the loss after the last step. adapter: as logits, with the trained adapter in PEFT.
    adapts: whether PEFT itself can adapt the network. why: why it cannot, or why the path is padded.
    time_ratio: transformers' time to answer over rung's. first_failures: of a first try with other weights.
    """

    name: str
    path: str = ""
    fused: str = ""
    why: str = ""
    same: int = 0
    asked: int = 0
    logits: float | None = None
    losses: float | None = None
    adapter: float | None = None
    adapts: bool = True
    time_ratio: float | None = None
    seconds: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)
    first_failures: dict[str, str] = field(default_factory=dict)


def examine(name: str, folder: Path, seed: int = 0) -> Row:
    """Builds the architecture of that name in a folder and measures everything. Failures are kept, not raised."""
    started = time.perf_counter()
    row = Row(name)
    _measured(row, "build", lambda: save_small(name, folder / "model", seed))
    if not row.failures:
        _measured(row, "load", lambda: _with_engine(row, folder, seed))
    row.seconds = round(time.perf_counter() - started, 1)
    return row


def examine_twice(name: str, folder: Path, seed: int = 0) -> Row:
    """As `examine`, again with other weights and prompts where something failed. Both are told.

    Rounding decides where two experts or two tokens are nearly tied, about once in a hundred architectures; what is
    wrong fails again.
    """
    first = examine(name, folder / "first", seed)
    if not first.failures:
        return first
    row = examine(name, folder / "second", seed + 1000)
    row.first_failures = first.failures
    return row


def _with_engine(row: Row, folder: Path, seed: int) -> None:
    from rung.models.loading import load_model

    plain = peer(folder / "model")
    engine = load_model(str(folder / "model"), device="cpu", dtype=torch.float32).engine
    row.path, row.why = engine.path, engine.reason
    row.fused = "{}/{}".format(*engine.fused) if engine.path == "tree" else ""
    _measured(row, "answers", lambda: _compare_answers(row, engine, plain, seed))
    rows = training_rows(engine.vocabulary, seed)
    _measured(row, "logits", lambda: _compare_logits(row, engine, plain, rows))
    _measured(row, "training", lambda: _compare_training(row, engine, folder, rows))


def _measured(row: Row, what: str, measure: Callable[[], Any]) -> None:
    try:
        measure()
    except Exception as error:
        text = str(error).strip().splitlines()
        row.failures[what] = f"{type(error).__name__}: {text[0] if text else ''}"[:300]


def peer(folder: Path) -> Any:
    """The network as transformers loads it."""
    from transformers import AutoModelForCausalLM

    read: Any = AutoModelForCausalLM.from_pretrained  # untyped
    return read(folder, attn_implementation="eager", dtype=torch.float32).eval()


# ---- the rows ---------------------------------------------------------------------------------


def prompts(vocabulary: int, seed: int = 0) -> list[list[int]]:
    """Six prompts of unequal lengths. Three share a prefix that is longer than any window; one is long."""
    chance = random.Random(seed)

    def some(length: int) -> list[int]:
        return [chance.randrange(4, vocabulary) for _ in range(length)]

    shared = some(61)
    return [shared + some(3), shared + some(17), some(7), some(38), some(230), shared + some(9)]


def training_rows(vocabulary: int, seed: int = 0) -> list[TokenRow]:
    chance = random.Random(1000 + seed)
    chosen = prompts(vocabulary, 2000 + seed)
    lengths = (1, 4, 2, 7, 3, 5)
    return [
        TokenRow(str(i), tuple(prompt[-90:]), (*(chance.randrange(4, vocabulary) for _ in range(length)), *STOPS))
        for i, (prompt, length) in enumerate(zip(chosen, lengths, strict=True))
    ]


# ---- answering ----------------------------------------------------------------------------------


def _compare_answers(row: Row, engine: Any, plain: Any, seed: int) -> None:
    from rung.engine.decode import Job, decode
    from rung.models.context_length import context_length

    room = context_length(plain.config.get_text_config(decoder=True)) - NEW_TOKENS
    asked = [prompt[-room:] for prompt in prompts(engine.vocabulary, seed)]
    started = time.perf_counter()
    expected = [_generated(plain, prompt) for prompt in asked]
    theirs = time.perf_counter() - started
    started = time.perf_counter()
    found: list[Any] = [None] * len(asked)
    for answers in decode(engine, [Job(prompt, NEW_TOKENS) for prompt in asked], STOPS):
        for place, ids in answers:
            found[place] = ids
    row.time_ratio = round(theirs / (time.perf_counter() - started), 2)
    row.asked, row.same = len(asked), sum(a == b for a, b in zip(found, expected, strict=True))
    wrong = [i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b]
    if wrong:
        raise AssertionError(_difference(plain, asked[wrong[0]], found[wrong[0]], expected[wrong[0]], wrong))


def _generated(network: Any, prompt: Sequence[int]) -> list[int]:
    ids = torch.tensor([list(prompt)])
    with torch.inference_mode():
        out = network.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            num_beams=1,
            eos_token_id=list(STOPS),
            pad_token_id=0,
        )
    new: list[int] = out[0, len(prompt) :].tolist()
    return new


def _difference(network: Any, prompt: list[int], found: list[int] | None, expected: list[int], wrong: list[int]) -> str:
    """Where the first wrong answer departs, and how close the two tokens are for transformers."""
    if found is None:
        return f"rows {wrong} have no answer"
    at = next((i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), None)
    if at is None:
        return f"rows {wrong} differ, the first one in length: {len(found)} and {len(expected)} tokens"
    with torch.inference_mode():
        logits = network(input_ids=torch.tensor([[*prompt, *expected[:at]]])).logits[0, -1].float()
    gap = float(logits[expected[at]] - logits[found[at]])
    return f"rows {wrong} differ, the first one from token {at + 1} on, where the logits are {gap:.2g} apart"


# ---- logits and training ------------------------------------------------------------------------


def _compare_logits(row: Row, engine: Any, plain: Any, rows: list[TokenRow]) -> None:
    with torch.inference_mode():
        found, _ = engine.scores([(r.prompt, r.target) for r in rows])
        row.logits = _apart(found, torch.cat([_target_logits(plain, r) for r in rows]))
    _demand(row.logits, LOGITS_DIFFER, "logits")


def _target_logits(network: Any, row: TokenRow) -> torch.Tensor:
    """Logits that predict the target tokens of a row, (t, V)."""
    ids = torch.tensor([[*row.prompt, *row.target[:-1]]])
    logits: torch.Tensor = network(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    return logits[0, len(row.prompt) - 1 :].float()


def _apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    if found.shape != expected.shape:
        raise AssertionError(f"logits have the shape {tuple(found.shape)}, not {tuple(expected.shape)}")
    return float((found - expected).abs().max() / expected.abs().max())


def _demand(found: float, most: float, what: str) -> None:
    if not found <= most:
        raise AssertionError(f"{what} differ by {found:.2g}")


def _compare_training(row: Row, engine: Any, folder: Path, rows: list[TokenRow]) -> None:
    """Three steps by rung, three by a plain loop from the same first adapter, and rung's adapter in plain PEFT."""
    from rung.errors import TrainingError
    from rung.training.loop import train
    from rung.training.loss import mean_loss

    if reason := _unadaptable(folder):
        row.adapts, row.why = False, f"PEFT cannot adapt it: {reason}"
        try:
            train(engine, rows, OPTIONS, folder / "trained")
        except TrainingError:
            return
        raise AssertionError(f"PEFT refuses it ({reason}), but rung trains it")
    first = train(engine, rows, OPTIONS, folder / "trained", until=0)
    train(engine, rows, OPTIONS, folder / "trained")
    trained = folder / "trained" / f"step-{STEPS}"
    before, after = mean_loss(engine, rows, None), mean_loss(engine, rows, trained)
    network, expected = _plain_loop(folder / "model", first, rows)
    row.losses = abs(after - expected) / expected
    with torch.inference_mode(), engine.adapters.using(str(trained)):
        found, _ = engine.scores([(r.prompt, r.target) for r in rows])
    del network
    _measured(row, "adapter", lambda: _compare_adapter(row, folder / "model", trained, rows, found))
    if abs(before - after) < 1e-3 * before:
        raise AssertionError(f"the loss stays where it was, {before:.4f}")
    _demand(row.losses, LOSS_DIFFERS, "losses")


def _unadaptable(folder: Path) -> str:
    """Why PEFT cannot adapt the network or train what it adapts; empty where it can."""
    from peft import LoraConfig, get_peft_model

    from rung.engine.target_modules import adaptable_layers

    network = peer(folder / "model")
    try:
        targets = adaptable_layers(network)
        if not targets:
            return "no linear layers"
        network = get_peft_model(network, LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM"))
        network(input_ids=torch.tensor([[5, 6, 7, 8]]), use_cache=False).logits.sum().backward()
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:200]
    return ""


def _plain_loop(folder: Path, first: Path, rows: list[TokenRow]) -> tuple[Any, float]:
    """PEFT's network after the steps of a plain loop, and the mean loss of all rows afterwards."""
    from peft import PeftModel

    from rung.training.batches import batch_indices, learning_rate_at

    network: Any = PeftModel.from_pretrained(peer(folder), first, is_trainable=True)
    weights = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=OPTIONS.learning_rate, weight_decay=OPTIONS.weight_decay)
    network.train()
    for step in range(STEPS):
        batch = [rows[i] for i in batch_indices(len(rows), OPTIONS.batch_size, step, OPTIONS.seed)]
        for group in optimiser.param_groups:
            group["lr"] = learning_rate_at(step, OPTIONS)
        optimiser.zero_grad()
        for row in batch:
            (_summed_loss(network, row) / sum(len(r.target) for r in batch)).backward()
        torch.nn.utils.clip_grad_norm_(weights, OPTIONS.max_grad_norm)
        optimiser.step()
    network.eval()
    with torch.inference_mode():
        total = sum(float(_summed_loss(network, row)) for row in rows)
    return network, total / sum(len(row.target) for row in rows)


def _summed_loss(network: Any, row: TokenRow) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(_target_logits(network, row), torch.tensor(row.target), reduction="sum")


def _compare_adapter(row: Row, folder: Path, trained: Path, rows: list[TokenRow], found: torch.Tensor) -> None:
    """A trained adapter's logits in rung against PEFT's, on a freshly loaded base."""
    from peft import PeftModel

    network: Any = PeftModel.from_pretrained(peer(folder), trained).eval()
    with torch.inference_mode():
        row.adapter = _apart(found, torch.cat([_target_logits(network, r) for r in rows]))
    _demand(row.adapter, LOGITS_DIFFER, "adapted logits")
