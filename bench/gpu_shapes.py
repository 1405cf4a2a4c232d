"""Networks of known shapes with random weights on a device, rows of token ids, and equal first adapters for all.

Knows nothing of text. The shapes are those of models that people tune; `tiny` is for a try on a CPU.
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from rung.models.sizes import Shape
from rung.training.batches import TokenRow

RANK, ALPHA = 16, 32
SHAPES = {
    "tiny": Shape(2, 64, 176, 4, 2, 16, 512),
    "135m": Shape(30, 576, 1536, 9, 3, 64, 49_152),  # SmolLM2-135M
    "1.7b": Shape(24, 2048, 8192, 32, 32, 64, 49_152),  # SmolLM2-1.7B
    "8b": Shape(32, 4096, 14_336, 32, 8, 128, 128_256, tied=False),  # Llama-3.1-8B
}
_FIRST_ID = 4
_COUNT = 400  # rows, as in a small task


def config_of(shape: Shape, attention: str = "eager") -> Any:
    """The configuration of a Llama with these measurements."""
    from transformers import LlamaConfig

    return LlamaConfig(
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        head_dim=shape.head_width,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=8192,
        bos_token_id=1,
        eos_token_id=2,
        attn_implementation=attention,
    )


def make_network(shape: Shape, device: str, dtype: torch.dtype, *, attention: str = "eager", seed: int = 0) -> Any:
    """The network with random weights, made on the device itself. One seed gives the same weights each time."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(seed)
    with default_dtype(dtype), torch.device(device):
        network = LlamaForCausalLM(config_of(shape, attention))
    return network.eval().requires_grad_(False)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Within: floats are made in that type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def read_bytes(network: Any) -> int:
    """Bytes of weights that a decode step reads: all but an input embedding that is not the output layer too."""
    total = sum(p.numel() * p.element_size() for p in network.parameters())
    table = network.get_input_embeddings().weight
    apart = table.data_ptr() != network.get_output_embeddings().weight.data_ptr()
    return int(total - table.numel() * table.element_size() * apart)


# ---- rows ---------------------------------------------------------------------------------------


def made_rows(shape: Shape, *, count: int = _COUNT, seed: int = 0) -> list[TokenRow]:
    """Rows like those of a task with a long instruction: 560 shared tokens, then 20 to 40 own ones; 3 to 6 to learn.

    A tiny vocabulary has an instruction of 60 tokens and inputs of 4 to 8.
    """
    chance, most = random.Random(seed), min(shape.vocabulary, 49_152)
    shared, least, longest = (60, 4, 8) if shape.vocabulary < 4096 else (560, 20, 40)

    def some(length: int) -> tuple[int, ...]:
        return tuple(chance.randrange(_FIRST_ID, most) for _ in range(length))

    start = some(shared)
    return [
        TokenRow(str(i), start + some(chance.randint(least, longest)), (*some(chance.randint(2, 5)), 2))
        for i in range(count)
    ]


def apart_rows(shape: Shape, *, count: int, tokens: int, seed: int = 0) -> list[TokenRow]:
    """Rows of so many tokens that share nothing; the last six are to learn."""
    chance, most = random.Random(seed), min(shape.vocabulary, 49_152)
    rows = [tuple(chance.randrange(_FIRST_ID, most) for _ in range(tokens)) for _ in range(count)]
    return [TokenRow(str(i), ids[:-6], ids[-6:]) for i, ids in enumerate(rows)]


def write_rows(rows: Iterable[TokenRow], path: Path) -> None:
    path.write_text(json.dumps([[row.id, row.prompt, row.target] for row in rows]), "utf-8")


def read_rows(path: Path) -> list[TokenRow]:
    return [TokenRow(i, tuple(p), tuple(t)) for i, p, t in json.loads(path.read_text("utf-8"))]


def task_rows(task: Path) -> list[TokenRow]:
    """The rows of a task folder through the embedded model's tokenizer, behind the task's instruction."""
    from rung.data.examples import read_sets
    from rung.data.task_file import read_task
    from rung.models.catalogue import DEFAULT_MODEL
    from rung.models.loading import load_model
    from rung.solutions.answer import requests_for
    from rung.types import Decoding, Solution, TrainingRow

    read = read_task(task / "task.yaml" if task.is_dir() else task)
    model = load_model(DEFAULT_MODEL, device="cpu")
    examples = [e for part in read_sets(read).values() for e in part]
    requests, _ = requests_for(Solution("bench", read.instruction, Decoding(8)), model, [e.query for e in examples])
    pairs = zip(examples, requests, strict=True)
    return list(model.encode_rows([TrainingRow(e.id, r.messages, e.output) for e, r in pairs]))


def prompts_of(rows: Sequence[TokenRow], count: int) -> list[list[int]]:
    """So many prompts of the rows, in turn."""
    return [list(rows[i % len(rows)].prompt) for i in range(count)]


# ---- adapters -----------------------------------------------------------------------------------


def lora_config() -> Any:
    from peft import LoraConfig

    return LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")


def plain_name(name: str) -> str:
    """The name of an adapter's weight without what a wrapper and a name of the adapter add to it."""
    name = name.removeprefix("base_model.model.")
    return name.replace(".in_training.", ".").replace(".default.", ".")


def in_training(network: Any) -> dict[str, Any]:
    """Plain name -> weight that gets a gradient."""
    return {plain_name(name): p for name, p in network.named_parameters() if p.requires_grad}


@torch.no_grad()
def fill(weights: dict[str, Any]) -> None:
    """Sets an adapter's weights to numbers that depend on their names alone. B is not zero, so that A has gradients."""
    for name, weight in weights.items():
        drawn = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        std = 0.01 if "lora_B" in name else weight.shape[-1] ** -0.5
        weight.copy_(std * torch.randn(weight.shape, generator=drawn))
