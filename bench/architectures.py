"""Every causal architecture of the installed transformers, small and random, in rung and in transformers.

    python bench/architectures.py [NAME …] [--start-from NAME] [--jobs N] [--seed N] [--json FILE]
    python bench/architectures.py --half [--full] [--device DEVICE]

One line an architecture: the path it takes, how many layers run fused, greedy answers equal to transformers', the
largest difference of logits, of the loss after three steps and of the adapter's logits in plain PEFT, and the time that
transformers takes to answer, over rung's. Float32, eager attention, the peer a row at a time. Ends with totals, and
with the architectures that are left out and why. What fails is tried once more with other weights, because rounding
decides between experts that are nearly tied. Exit code 1 if any fails twice.

--half: a random model of Llama 3 8B's depth and ratios in bfloat16. Its logits' error against float32 is printed as a
ratio to transformers' own. --full: at full width, which needs a large GPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from small_architectures import OUT_OF_SCOPE, architectures

GROUP = 20  # architectures a process; importing takes ten seconds, and memory is given back at its end
SILENCE_S = 300.0  # a process that says nothing for so long is ended
MEMORY = 12 << 30  # bytes that a process may map, so that a size that was not made small ends it and nothing else
HALF_TARGET = 1.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--start-from", metavar="NAME")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once, of one thread each")
    parser.add_argument("--seed", type=int, default=0, help="other weights and prompts")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--half", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.names, options.seed)
        return
    if options.half or options.full:
        sys.exit(half(options.full, options.device))
    known = list(architectures())
    if unknown := [name for name in [*options.names, options.start_from] if name and name not in known]:
        sys.exit(f"{unknown[0]}: no such architecture. Names are {', '.join(known)}.")
    names = options.names or known[known.index(options.start_from) if options.start_from else 0 :]
    print(f"{'architecture':40} path    fused  same   logits    loss  adapter   time")
    rows = measured(names, options.jobs, options.seed)
    if options.json:
        options.json.write_text(json.dumps({"architectures": rows}, indent=1) + "\n", "utf-8")
    sys.exit(total(rows))


def show(row: dict[str, Any]) -> None:
    def number(value: float | None) -> str:
        return f"{value:8.1e}" if value is not None else f"{'-':>8}"

    ratio = f"{row['time_ratio']:6.2f}" if row["time_ratio"] is not None else f"{'-':>6}"
    numbers = " ".join(number(row[key]) for key in ("logits", "losses", "adapter"))
    adapts = "" if row["adapts"] else f"  ({row['why']})"
    print(f"{row['name']:40} {row['path']:7} {row['fused']:5} {row['same']}/{row['asked']} {numbers} {ratio}{adapts}")
    for what, fact in row["first_failures"].items():
        print(f"    {what} failed with other weights: {fact}")
    for what, fact in row["failures"].items():
        print(f"    {what} FAILS: {fact}")
    sys.stdout.flush()


def total(rows: Sequence[dict[str, Any]]) -> int:
    """Prints the totals and returns the exit code."""
    failed = [row["name"] for row in rows if row["failures"]]
    paths = Counter(row["path"] or "none" for row in rows)
    loaded = sum(bool(row["path"]) for row in rows)
    answers = sum(row["same"] == row["asked"] > 0 for row in rows)
    adapted = [row for row in rows if row["adapts"]]

    def fine(key: str) -> int:
        return sum(row[key] is not None and not {"training", "adapter"} & row["failures"].keys() for row in adapted)

    print(f"\n{len(rows)} architectures: {loaded} load ({', '.join(f'{n} {path}' for path, n in paths.items())})")
    print(f"answers equal to transformers': {answers}; all layers fused: {sum(_all_fused(row) for row in rows)}")
    print(f"of {len(adapted)} that PEFT adapts: losses equal {fine('losses')}, adapters reload {fine('adapter')}")
    print(f"tried again with other weights: {sum(bool(row['first_failures']) for row in rows)}")
    print(f"failed: {len(failed)}{': ' if failed else ''}{', '.join(failed)}")
    print("\nleft out:")
    for name, reason in OUT_OF_SCOPE.items():
        print(f"  {name:26} {reason}")
    return 1 if failed else 0


def _all_fused(row: dict[str, Any]) -> bool:
    fused, _, layers = row["fused"].partition("/")
    return bool(layers) and fused == layers


# ---- processes --------------------------------------------------------------------------------


def measured(names: Sequence[str], jobs: int, seed: int) -> list[dict[str, Any]]:
    """One row a name, shown as it comes. A process that crashes costs the architecture it was at, and no other."""
    groups = [list(names[i : i + GROUP]) for i in range(0, len(names), GROUP)]
    rows: dict[str, dict[str, Any]] = {}
    lock = threading.Lock()

    def run() -> None:
        while True:
            with lock:
                if not groups:
                    return
                group = groups.pop(0)
            while group:
                for row in lines_of(group, seed):
                    with lock:
                        rows[row["name"]] = row
                        show(row)
                    group.remove(row["name"])
                if group:  # the process ended early
                    from architecture_checks import Row

                    row = dataclasses.asdict(Row(group.pop(0), failures={"process": "it ended without an answer"}))
                    with lock:
                        rows[row["name"]] = row
                        show(row)

    threads = [threading.Thread(target=run) for _ in range(max(1, jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [rows[name] for name in names]


def lines_of(names: Sequence[str], seed: int) -> Any:
    """The rows that a process of its own prints, as they come."""
    command = [sys.executable, __file__, "--worker", "--seed", str(seed), *names]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    assert process.stdout is not None
    watch = threading.Timer(SILENCE_S, process.kill)
    watch.start()
    try:
        for line in process.stdout:
            if line.startswith("{"):
                watch.cancel()
                watch = threading.Timer(SILENCE_S, process.kill)
                watch.start()
                yield json.loads(line)
    finally:
        watch.cancel()
        process.kill()
        process.wait()


def work(names: Sequence[str], seed: int) -> None:
    """Prints one row a name, as JSON."""
    import gc
    import warnings
    from contextlib import suppress

    import torch

    from architecture_checks import examine_twice

    with suppress(ImportError, OSError, ValueError):  # Windows, and systems with lower limits
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(dataclasses.asdict(examine_twice(name, Path(folder), seed))), flush=True)
        gc.collect()


# ---- half precision ---------------------------------------------------------------------------


def half(full: bool, device: str) -> int:
    """Prints the error of rung's logits in bfloat16 as a ratio to transformers' own, and returns the exit code."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig
    from transformers.utils import logging

    from architecture_checks import prompts
    from rung.models.loading import load_model
    from small_architectures import small_tokenizer

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tokenizer = small_tokenizer()
    width = 4096 if full else 512
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=width * 7 // 2,
        num_hidden_layers=32,
        num_attention_heads=width // (128 if full else 64),
        num_key_value_heads=width // (128 if full else 64) // 4,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        rms_norm_eps=1e-5,
        bos_token_id=1,
        eos_token_id=2,
    )
    read: Any = AutoModelForCausalLM
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        torch.set_default_dtype(torch.bfloat16)
        with torch.device(device):
            network = read.from_config(config)
        torch.set_default_dtype(torch.float32)
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        del network
        rows = [(prompt[:-8], prompt[-8:]) for prompt in prompts(len(tokenizer)) if len(prompt) > 8]

        def plain(dtype: torch.dtype) -> torch.Tensor:
            network = read.from_pretrained(folder, dtype=dtype, attn_implementation="eager").to(device).eval()
            found = []
            with torch.inference_mode():
                for prompt, target in rows:
                    ids = torch.tensor([[*prompt, *target[:-1]]], device=device)
                    found.append(network(ids).logits[0, len(prompt) - 1 :].float())
            return torch.cat(found)

        exact, theirs = plain(torch.float32), plain(torch.bfloat16)
        engine = load_model(folder, device=device, dtype=torch.bfloat16).engine
        with torch.inference_mode():
            ours, _ = engine.scores(rows)
    own, found = (float((logits - exact).norm() / exact.norm()) for logits in (theirs, ours))
    print(
        f"Llama of 32 layers, width {width}, bfloat16: {engine.path}, {engine.fused[0]} of {engine.fused[1]} layers "
        f"fused; error against float32 {found:.2%}, transformers' own {own:.2%}, ratio {found / own:.2f} "
        f"(target: at most {HALF_TARGET})"
    )
    return 0 if found <= HALF_TARGET * own else 1


if __name__ == "__main__":
    main()
