"""Training speed of the local engine against TRL's SFTTrainer: same rows, batches, first weights, LoRA shape and steps.

    python bench/training.py --task PATH [--steps N] [--batch N] [--json FILE] [--growth]

Needs `pip install trl`. Float32 on the CPU. Every trainer runs in a process of its own, one after the other.
long: the task's own instruction; short: its first sentence, at most ten words. Shares of the matrix
rate count the floating-point operations of the tokens really computed. --growth adds how time grows
with the number of examples and with the length of the instruction.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RANK, ALPHA, RATE = 16, 32, 5e-4
BATCH = 8


def main() -> None:
    global BATCH
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--task", type=Path, required=True, help="a task folder or task.yaml")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch", type=int, default=BATCH, help="examples a step; the product's own is the default")
    parser.add_argument("--model", default=None, help="default: the task's own")
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    BATCH = options.batch
    if options.part:
        print(json.dumps(PARTS[options.part.split(":")[0]](options, *options.part.split(":")[1:])))
        return
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("long", "short"):
            ours = part(options, f"rung:{kind}:{folder}")
            peer = part(options, f"trl:{kind}:{folder}")
            losses = part(options, f"losses:{kind}:{folder}")
            found[kind] = {
                "rung": ours,
                "trl": peer,
                "ratio_vs_trl": round(ours["examples_per_s"] / peer["examples_per_s"], 2),
                "final_loss": losses,
                "loss_difference": round(abs(losses["rung"] / losses["trl"] - 1), 5),
            }
            show(kind, found[kind])
        found["share_of_matrix_rate"] = found["long"]["rung"]["share_of_matrix_rate"]
        print(f"share of the measured fp32 matrix rate: {found['share_of_matrix_rate']:.0%}")
        if options.growth:
            found["growth"] = part(options, f"growth:{folder}")
            for row in found["growth"]:
                print(f"{row['what']:32} tokens x {row['tokens_ratio']:5.2f}   time x {row['time_ratio']:5.2f}")
    if options.json:
        options.json.write_text(json.dumps({"training": found}, indent=1) + "\n", "utf-8")


def show(kind: str, row: dict[str, Any]) -> None:
    print(f"\n{kind} instruction, {row['rung']['tokens_per_example']} tokens an example, batch {BATCH}, rank {RANK}")
    for name in ("rung", "trl"):
        r = row[name]
        print(
            f"  {name:5} {r['examples_per_s']:7.2f} examples/s   peak {r['peak_gb']:.2f} GB   "
            f"loss at the end {row['final_loss'][name]:.4f}"
        )
    print(f"  ratio {row['ratio_vs_trl']:7.2f}   loss differs by {row['loss_difference']:.2%}", flush=True)


def part(options: argparse.Namespace, name: str) -> Any:
    """One measurement in a process of its own, so that nobody inherits the other's memory or threads."""
    return part_of(__file__, options, name)


def part_of(script: str, options: argparse.Namespace, name: str) -> Any:
    """As `part`, of a script with the same options."""
    command = [sys.executable, script, "--task", str(options.task), "--steps", str(options.steps), "--part", name]
    command += ["--model", options.model] if options.model else []
    command += ["--batch", str(options.batch)] if "batch" in options else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


# ---- the measurements ---------------------------------------------------------------------------


def prepared(options: argparse.Namespace, kind: str, *, examples: int | None = None, times: int = 1) -> Any:
    """The model and its training rows in batches. times: the instruction so many times over."""
    import torch

    from rung.data.examples import read_sets
    from rung.data.task_file import read_task
    from rung.models.loading import load_model
    from rung.solutions.answer import requests_for
    from rung.training.batches import batch_indices
    from rung.types import Decoding, Solution, TrainingRow

    path = options.task / "task.yaml" if options.task.is_dir() else options.task
    task = read_task(path)
    model = load_model(options.model or task.models[0].spec, device="cpu", dtype=torch.float32)
    everything = [e for part in read_sets(task).values() for e in part]
    count = examples or min(len(everything), BATCH * options.steps)
    instruction = task.instruction
    if kind == "short":
        instruction = " ".join(re.split(r"(?<=[.:?!])\s", instruction.strip())[0].split()[:10])
    solution = Solution("bench", "\n".join([instruction] * times), Decoding(8))
    chosen = everything[:count]
    requests, _ = requests_for(solution, model, [e.query for e in chosen])
    rows = model.encode_rows([TrainingRow(e.id, r.messages, e.output) for e, r in zip(chosen, requests, strict=True)])
    batches = [[rows[i] for i in batch_indices(len(rows), BATCH, step, 0)] for step in range(options.steps)]
    return model, rows, batches


def lora_options(steps: int) -> Any:
    from rung.types import TrainingOptions

    return TrainingOptions(RATE, steps=steps, batch_size=BATCH, rank=RANK, alpha=ALPHA, seed=0)


def rung(options: argparse.Namespace, kind: str, folder: str) -> dict[str, Any]:
    from rung.training.loop import train

    model, rows, batches = prepared(options, kind)
    rates = [matrix_rate()]
    ends: list[float] = []
    train(
        model.engine,
        rows,
        lora_options(options.steps),
        Path(folder) / f"rung-{kind}",
        on_step=lambda progress: ends.append(time.perf_counter()),
    )
    rates.append(matrix_rate())
    seconds = ends[-1] - ends[0]
    work = sum(operations(model, batch) for batch in batches[1:])
    return {
        "examples_per_s": round(sum(len(b) for b in batches[1:]) / seconds, 3),
        "tokens_per_example": round(sum(len(r.prompt) + len(r.target) - 1 for r in rows) / len(rows)),
        "gflops": round(work / seconds / 1e9, 1),
        "matrix_gflops": round(max(rates), 1),
        "share_of_matrix_rate": round(work / seconds / 1e9 / max(rates), 3),
        "peak_gb": peak_gb(),
    }


def trl(options: argparse.Namespace, kind: str, folder: str) -> dict[str, Any]:
    """TRL's trainer on the same token ids, in the same order, from the same first weights."""
    import torch
    from datasets import Dataset  # type: ignore[import-untyped]
    from peft import LoraConfig, get_peft_model
    from torch.optim.lr_scheduler import LambdaLR
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from rung.data.task_file import read_task
    from rung.models.catalogue import ensure_model
    from rung.training.batches import learning_rate_at

    path = options.task / "task.yaml" if options.task.is_dir() else options.task
    place = ensure_model(options.model or read_task(path).model)
    ours, _, batches = prepared(options, kind)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    first = {  # rung's first weights
        name: p.detach().clone()
        for name, p in ours.engine.adapters.begin_training(config, 0).named_parameters()
        if p.requires_grad
    }
    del ours
    network: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32), config)
    with torch.no_grad():
        for name, p in network.named_parameters():
            if p.requires_grad:
                p.copy_(first[name.replace(".default.", ".in_training.")])
    data = Dataset.from_list(
        [
            {
                "input_ids": [*row.prompt, *row.target],
                "labels": [-100] * len(row.prompt) + list(row.target),
            }
            for batch in batches
            for row in batch
        ]
    )
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    class InOrder(SFTTrainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            rows: Any = train_dataset if train_dataset is not None else self.train_dataset
            return SequentialSampler(rows)

    optimiser = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=RATE, weight_decay=0.0)
    schedule = LambdaLR(optimiser, lambda step: learning_rate_at(step, lora_options(options.steps)) / RATE)
    trainer = InOrder(
        model=network,
        args=SFTConfig(
            output_dir=f"{folder}/trl-work-{kind}",
            per_device_train_batch_size=BATCH,
            max_steps=options.steps,
            max_grad_norm=1.0,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            max_length=None,
            completion_only_loss=True,
            dataset_kwargs={"skip_prepare_dataset": True},
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(place),
        callbacks=[Clock()],
        optimizers=(optimiser, schedule),
    )
    trainer.train()
    network.save_pretrained(f"{folder}/trl-{kind}")
    examples = sum(len(b) for b in batches[1:])
    return {"examples_per_s": round(examples / (ends[-1] - ends[0]), 3), "peak_gb": peak_gb()}


def losses(options: argparse.Namespace, kind: str, folder: str) -> dict[str, float]:
    """Mean loss of the training rows after the last step, computed by rung for both trainers."""
    from rung.training.loss import mean_loss

    model, rows, _ = prepared(options, kind)
    adapters = {"rung": Path(folder) / f"rung-{kind}" / f"step-{options.steps}", "trl": Path(folder) / f"trl-{kind}"}
    return {name: round(mean_loss(model.engine, rows, adapter), 6) for name, adapter in adapters.items()}


def growth(options: argparse.Namespace, folder: str) -> list[dict[str, Any]]:
    """Time of one epoch over growing data, and over growing instructions; each against the smallest."""
    from rung.training.loss import backward

    found = []
    for what, variants in {
        "examples": [{"examples": 16 * n} for n in (1, 2, 4, 8)],
        "instruction": [{"times": n, "examples": 16} for n in (1, 2, 4)],
    }.items():
        base: tuple[float, int] | None = None
        for n, variant in zip((1, 2, 4, 8), variants, strict=False):
            model, rows, _ = prepared(options, "long", **variant)
            model.engine.adapters.begin_training(lora_config(), 0)
            batches = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
            backward(model.engine, batches[0], micro_tokens=lora_options(1).micro_tokens)
            started = time.perf_counter()
            tokens = sum(backward(model.engine, b, micro_tokens=lora_options(1).micro_tokens)[1] for b in batches)
            seconds = time.perf_counter() - started
            base = base or (seconds, tokens)
            found.append(
                {
                    "what": f"training, {what} x {n}",
                    "tokens": tokens,
                    "seconds": round(seconds, 2),
                    "tokens_ratio": round(tokens / base[1], 2),
                    "time_ratio": round(seconds / base[0], 2),
                }
            )
    return found


def lora_config() -> Any:
    from peft import LoraConfig

    return LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")


def operations(model: Any, batch: list[Any]) -> float:
    """Floating-point operations of one step: forward once and backward towards activations and adapters."""
    from rung.engine.prefix_tree import grow

    config = model.network.config.get_text_config()
    tree = grow([[*row.prompt, *row.target[:-1]] for row in batch])
    tokens, targets = len(tree.ids), sum(len(row.target) for row in batch)
    layer = model.parameters - int(model.network.get_input_embeddings().weight.numel())
    last = model.network.get_decoder().layers[-1]
    ends = sum(p.numel() for n, p in last.named_parameters() if "lora_" not in n and ("mlp" in n or "o_proj" in n))
    width: int = config.hidden_size
    shapes = [m.base_layer.weight.shape for m in model.network.modules() if hasattr(m, "lora_A")]
    adapter = RANK * sum(out + into for out, into in shapes)
    pairs = sum(n.length * (n.length + 1) / 2.0 + n.length * (n.end - n.start - n.length) for n in tree.nodes)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = 2 * config.num_hidden_layers * pairs * config.num_attention_heads * head
    # Attention: two products forward, five backward, one of them the weights computed again.
    skipped = 4 * ends * (tokens - targets)  # the last layer is computed to its end for the target tokens alone
    return float(
        4 * layer * tokens - skipped + 6 * adapter * tokens + 4 * config.vocab_size * width * targets + 7 * attention
    )


def matrix_rate() -> float:
    """GFLOP/s of large float32 matrix products: the best of several."""
    import torch

    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    best = 0.0
    for _ in range(6):
        started = time.perf_counter()
        _ = a @ b
        best = max(best, 2.0 * 2048**3 / (time.perf_counter() - started) / 1e9)
    return best


def peak_gb() -> float:
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


PARTS: dict[str, Any] = {"rung": rung, "trl": trl, "losses": losses, "growth": growth}

if __name__ == "__main__":
    main()
