"""What else one could train: kinds of adapters and full fine-tuning, same rows, same steps; time, memory, dev loss.

    python bench/variants.py --task PATH [--steps N] [--json FILE] [--only NAME …]

Each variant trains from scratch in a process of its own with the learning rate that had the lowest dev loss in a short
probe. dev loss: mean per answer token on up to 64 examples that were not trained on. MB: of what was learnt, on disk.
full: all weights, at a tenth of the learning rates. side by side: three learning
rates trained as one batch of three times the rows, the most that sharing a step could save.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from training import BATCH, part_of, peak_gb, prepared  # the script beside this one

PROBE = 8
DEV = 64
VARIANTS: dict[str, dict[str, Any]] = {
    "LoRA": {},
    "rsLoRA": {"rslora": True},
    "DoRA": {"dora": True},
    "LoRA, upper half": {"layers": 0.5},
    "LoRA, rank 4": {"rank": 4, "alpha": 8},
    "activated LoRA": {},
    "full": {"full": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--task", type=Path, required=True, help="a task folder or task.yaml")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--model", default=None, help="default: the task's own")
    parser.add_argument("--only", nargs="*", choices=[*VARIANTS, "side by side"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        found = side_by_side(options) if options.part == "side by side" else variant(options, options.part)
        print(json.dumps(found))
        return
    rows: dict[str, Any] = {}
    print(f"{'variant':18} {'dev loss':>9} {'rate':>8} {'s a step':>9} {'x LoRA':>7} {'peak GB':>8} {'MB':>8}")
    for name in VARIANTS:
        if options.only and name not in options.only:
            continue
        row = rows[name] = part_of(__file__, options, name)
        share = row["step_s"] / rows["LoRA"]["step_s"] if "LoRA" in rows else float("nan")
        print(
            f"{name:18} {row['dev_loss']:9.4f} {row['rate']:8.0e} {row['step_s']:9.2f} {share:7.2f} "
            f"{row['peak_gb']:8.2f} {row.get('mb', float('nan')):8.1f}",
            flush=True,
        )
    if not options.only or "side by side" in options.only:
        row = rows["side by side"] = part_of(__file__, options, "side by side")
        print(f"three rates side by side: {row['ratio']:.2f} x the time of one after the other")
    if options.json:
        options.json.write_text(json.dumps({"variants": rows}, indent=1) + "\n", "utf-8")


def variant(options: argparse.Namespace, name: str) -> dict[str, Any]:
    from rung.strategies.learning_rate import OF_ADAPTERS, OF_WEIGHTS
    from rung.training.loop import train
    from rung.training.loss import mean_loss
    from rung.types import TrainingOptions

    model, rows, _ = prepared(options, "long", examples=BATCH * options.steps + DEV)
    dev, rows = rows[:DEV], rows[DEV:]
    if name == "activated LoRA":
        return activated(model, rows, dev, options.steps)
    base = replace(TrainingOptions(0.0, steps=options.steps, batch_size=BATCH), **VARIANTS[name])
    with tempfile.TemporaryDirectory() as folder:
        losses = {}
        for rate in (OF_WEIGHTS if base.full else OF_ADAPTERS).grid:
            place = Path(folder, f"{rate:g}")
            adapter = train(model.engine, rows, replace(base, learning_rate=rate), place, until=PROBE)
            losses[rate] = mean_loss(model.engine, dev, adapter)
            model.release(adapter)
        rate = min(losses, key=lambda r: losses[r])
        ends: list[float] = []
        adapter = train(
            model.engine,
            rows,
            replace(base, learning_rate=rate),
            Path(folder, f"{rate:g}"),
            on_step=lambda progress: ends.append(time.perf_counter()),
        )
        loss = mean_loss(model.engine, dev, adapter)
        size = sum(file.stat().st_size for file in adapter.iterdir())
    return {
        "dev_loss": round(loss, 4),
        "rate": rate,
        "step_s": round((ends[-1] - ends[0]) / (len(ends) - 1), 3),
        "peak_gb": peak_gb(),
        "mb": round(size / 1e6, 1),
    }


def activated(model: Any, rows: list[Any], dev: list[Any], steps: int) -> dict[str, Any]:
    """An adapter that is applied behind the prefix that all prompts share; the base model computes the prefix once.

    Source: Greenewald et al., Activated LoRA (2025).
    """
    import torch

    from rung.engine.prefix_tree import common_prefix_length
    from rung.strategies.learning_rate import OF_ADAPTERS
    from rung.training.batches import batch_indices, learning_rate_at
    from rung.training.loss import summed_loss
    from rung.types import TrainingOptions

    shared = common_prefix_length([row.prompt for row in (*rows, *dev)])
    with torch.no_grad():
        prefix = model.engine.compute(rows[0].prompt[:shared])
    adapters = model.engine.adapters

    def loss_of(some: list[Any]) -> Any:
        return summed_loss(model.engine, some, prefix)[0] / sum(len(row.target) for row in some)

    def run(rate: float, until: int) -> tuple[float, float]:
        from peft import LoraConfig

        options = TrainingOptions(rate, steps=steps, batch_size=BATCH)
        config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        adapters.begin_training(config, 0)
        trained = [p for p in model.network.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
        ends = []
        for step in range(until):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate_at(step, options)
            optimiser.zero_grad(set_to_none=True)
            loss_of([rows[i] for i in batch_indices(len(rows), BATCH, step, 0)]).backward()
            torch.nn.utils.clip_grad_norm_(trained, options.max_grad_norm)
            optimiser.step()
            ends.append(time.perf_counter())
        with torch.no_grad():
            loss = float(loss_of(dev))
        adapters.end_training()
        return loss, (ends[-1] - ends[0]) / max(1, len(ends) - 1)

    rate = min(OF_ADAPTERS.grid, key=lambda r: run(r, PROBE)[0])
    loss, seconds = run(rate, steps)
    return {"dev_loss": round(loss, 4), "rate": rate, "step_s": round(seconds, 3), "peak_gb": peak_gb()}


def side_by_side(options: argparse.Namespace) -> dict[str, Any]:
    """One pass over three batches' rows against three passes over one: what training three rates at once could save.

    The rows of each rate would need all of their own activations, so the shared prefix is counted three times.
    """
    from peft import LoraConfig

    from rung.training.loss import backward

    model, rows, _ = prepared(options, "long", examples=3 * BATCH)
    config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model.engine.adapters.begin_training(config, 0)
    batches = [rows[i : i + BATCH] for i in range(0, 3 * BATCH, BATCH)]
    # Rows that differ from the first token on share nothing, as rows under different adapters do not.
    apart = [replace(row, prompt=(2 + i, *row.prompt[1:])) for i, b in enumerate(batches) for row in b]
    best = {"one": float("inf"), "three": float("inf")}
    for _ in range(4):
        started = time.perf_counter()
        for batch in batches:
            backward(model.engine, batch, micro_tokens=4096)
        middle = time.perf_counter()
        backward(model.engine, apart, micro_tokens=4096)
        best["one"] = min(best["one"], middle - started)
        best["three"] = min(best["three"], time.perf_counter() - middle)
    return {"ratio": round(best["three"] / best["one"], 3), **{k: round(v, 3) for k, v in best.items()}}


if __name__ == "__main__":
    main()
