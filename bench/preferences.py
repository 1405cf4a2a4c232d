"""Preference optimisation with the embedded model: does it learn to prefer short answers, and at what price?

    python bench/preferences.py [--rates R …] [--sft W …] [--steps N] [--prompts N] [--model SPEC]

The model answers general prompts in up to 32 tokens. Of each answer, the first sentence is chosen and the whole is
rejected. Three quarters of the prompts train; of the others, which it does not see: words of an answer, the share of
one sentence, the margin log p(chosen) - log p(rejected) and log p(chosen) per token, in nats, before and after.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from rung.models import open_model
from rung.models.catalogue import DEFAULT_MODEL
from rung.strategies.preferring import HOW, LEAST_WANTED, RATE
from rung.strategies.replay import replay_prompts
from rung.training.batches import TokenPair, TokenRow
from rung.training.preferences import log_probabilities
from rung.types import DPO, Decoding, Message, PreferenceRow, Request, TrainingOptions

TOKENS = 32
PROMPTS = 48
HELD_OUT = 4  # every fourth prompt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rates", type=float, nargs="*", default=[RATE])
    parser.add_argument("--sft", type=float, nargs="*", default=[HOW.sft])
    parser.add_argument("--steps", type=int, default=LEAST_WANTED)
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    options = parser.parse_args()
    model: Any = open_model(options.model)
    rows = pairs_of(model, replay_prompts()[: options.prompts])
    held_out = rows[::HELD_OUT]
    train = [row for i, row in enumerate(rows) if i % HELD_OUT]
    print(
        f"{len(train)} pairs to train on, {len(held_out)} held out; beta {HOW.beta:g}, {options.steps} steps",
        flush=True,
    )
    print(f"{'rate':>8} {'sft':>5} {'words':>7} {'1 sentence':>11} {'margin':>8} {'chosen':>8} {'s':>6}")
    print(f"{'before':>14} {told(model, held_out, None)}", flush=True)
    for rate in options.rates:
        for sft in options.sft:
            with tempfile.TemporaryDirectory() as folder:
                how, began = DPO(HOW.beta, sft), time.perf_counter()
                steps = TrainingOptions(rate, steps=options.steps)
                adapter = model.prefer(train, steps, Path(folder), how=how)
                seconds = time.perf_counter() - began
                print(f"{rate:8.0e} {sft:5g} {told(model, held_out, adapter)} {seconds:6.0f}", flush=True)
                model.release(adapter)


def pairs_of(model: Any, prompts: list[str]) -> list[PreferenceRow]:
    """A pair of each prompt whose answer has more than one sentence."""
    found = []
    for prompt, answer in zip(prompts, answers(model, prompts, None), strict=True):
        first = re.split(r"(?<=[.!?])\s", answer.strip(), maxsplit=1)[0]
        if first and first != answer.strip():
            found.append(PreferenceRow(prompt, (Message("user", prompt),), first, answer.strip()))
    return found


def answers(model: Any, prompts: list[str], adapter: Path | None) -> list[str]:
    place = str(adapter) if adapter is not None else None
    asked = [Request((Message("user", text),), Decoding(TOKENS), adapter=place) for text in prompts]
    return [generation.text for generation in model.generate(asked)]


def told(model: Any, rows: list[PreferenceRow], adapter: Path | None) -> str:
    """Figures of rows that were not trained on."""
    given = [text.strip() for text in answers(model, [row.name for row in rows], adapter)]
    words = sum(len(text.split()) for text in given) / len(given)
    single = sum(len(re.findall(r"[.!?](?:\s|$)", text)) <= 1 and text[-1:] in ".!?" for text in given) / len(given)
    pairs = [TokenPair(encoded(model, row, row.chosen), encoded(model, row, row.rejected)) for row in rows]
    known = log_probabilities(model.engine, pairs, adapter)
    margin = sum(chosen - rejected for chosen, rejected in known) / len(known)
    per_token = sum(chosen / len(p.chosen.target) for (chosen, _), p in zip(known, pairs, strict=True)) / len(known)
    return f"{words:7.1f} {single:11.2f} {margin:8.1f} {per_token:8.2f}"


def encoded(model: Any, row: PreferenceRow, answer: str) -> TokenRow:
    return TokenRow(row.name, tuple(model.encode(row.messages)), tuple(model.encode_answer(answer)))


if __name__ == "__main__":
    main()
