"""A small task on the tiny model: a whole run takes seconds and goes every way a real one goes."""

from __future__ import annotations

import json
from pathlib import Path

COLOURS = ("red", "green", "blue")
NOUNS = ("door", "boat", "lamp", "card", "stone", "chair", "glove", "wheel", "bottle", "ladder", "bell", "rope")
SIZES = ("small", "large", "old", "new")


def write_task(
    folder: Path, model: Path, *, corpus: bool = False, labels: bool = True, examples: int = 48, **keys: object
) -> Path:
    """Examples whose answer is a function of the noun; returns task.yaml's path. models: in the place of the model."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = [(size, noun) for size in SIZES for noun in NOUNS]
    rows = [
        {"id": f"{i}", "input": f"The {size} {noun} number {i} please", "output": COLOURS[NOUNS.index(noun) % 3]}
        for i, (size, noun) in enumerate(pairs[n % len(pairs)] for n in range(examples))
    ]
    (folder / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    lines = ["instruction: Answer with the colour.", "examples: examples.jsonl"]
    lines += [] if "models" in keys else [f"model: {model}"]
    lines += ["metric: label_accuracy" if labels else "metric: exact_match"]
    if labels:
        lines.append(f"labels: [{', '.join(COLOURS)}]")
    if corpus:
        passages = [{"id": n, "text": f"Every {n} is {COLOURS[i % 3]}."} for i, n in enumerate(NOUNS)]
        (folder / "corpus.jsonl").write_text("".join(json.dumps(p) + "\n" for p in passages), "utf-8")
        lines.append("corpus: corpus.jsonl")
        keys = {"retrieval": {"kinds": ["bm25"]}, **keys}  # an embedder takes seconds to load
    lines += [f"{key}: {json.dumps(value)}" for key, value in keys.items()]
    path = folder / "task.yaml"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def timeless(decision: Path) -> dict[str, object]:
    """decision.json without what differs from run to run: times."""
    record = json.loads(decision.read_text("utf-8"))
    for candidate in record["candidates"]:
        for key in ("latency_s_p50", "latency_s_p95", "build_seconds"):
            del candidate[key]
    return record
