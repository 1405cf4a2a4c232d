"""Small bundles to export, with adapters that change answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rung.serving.exports.export import ParityAsk
from rung.types import Constraint, Decoding, Message, Query, Request, Solution

INPUTS = ("What is a card?", "What is a use?", "no card", "Is it?", "a card and a use", "none")


def make_adapter(base: Path, folder: Path, **options: Any) -> Path:
    """A random LoRA adapter, large enough to change answers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    chosen = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj"], **options}
    torch.manual_seed(0)
    network = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **chosen)
    )
    network.save_pretrained(folder)
    return folder


def make_bundle(
    base: Path,
    folder: Path,
    adapter: Path | None,
    *,
    constraint: Constraint | None = None,
    text: str | None = None,
    tokens: int = 8,
) -> Path:
    """A bundle of an older format, with the answers that the bundle gives as the recorded ones, or `text` for each."""
    from rung.models import model_version
    from rung.solutions.store import save_solution

    adapted = str(adapter) if adapter is not None else None
    solution = Solution("lora", "Answer.", Decoding(tokens), adapter=adapted, constraint=constraint)
    save_solution(solution, folder)
    note = {
        "task": "cards",
        "model": str(base),
        "model_version": model_version(str(base)),
        "metric": {"name": "exact_match"},
    }
    (folder / "bundle.json").write_text(json.dumps(note))
    texts: Sequence[str] = [text] * len(INPUTS) if text is not None else []
    if not texts:
        import torch

        from rung.models.loading import load_model
        from rung.serving.bundle import read_bundle

        model = load_model(str(base), dtype=torch.float32)
        texts = [p.text for p in read_bundle(folder).opened(model).answer(INPUTS)]
    rows = [
        {"id": f"d{i}", "input": asked, "output": said or "x", "references": [said or "x"], "text": said, "score": 1.0}
        for i, (asked, said) in enumerate(zip(INPUTS, texts, strict=True))
    ]
    (folder / "parity.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def ask_of(text: str, answer: str, references: tuple[str, ...] = ()) -> ParityAsk:
    turns = (Message("system", "Answer."), Message("user", text))
    return ParityAsk(Query(text, text), Request(turns, Decoding(8)), (), answer, None, references)
