"""What a network takes: memory to answer and to train, and how much it computes for a token.

Figures are computed from a network's measurements, so that they hold for models that are not on this machine. They
count weights, the KV cache, what a training keeps for its way back, and one layer's intermediate values; not what torch
and Python take themselves (about 0.5 GB).
Sources: Hu et al., LoRA (2021), for an adapter's weights; Korthikanti et al., Reducing Activation Recomputation (2022),
section 4, for what a layer keeps. Here its attention weights are computed again, so that they count for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ANSWERED_ROWS, ROW_TOKENS = 16, 512
"""The batch for which the memory to answer is told: so many rows of so many tokens."""
TRAINED_TOKENS = 1024
"""Tokens of training rows that go through the network at once; as `TrainingOptions.micro_tokens`."""

_RANK = 16  # of the adapter, as in `TrainingOptions`
_ADAPTER_BYTES = 16  # a weight, its gradient and two moments of AdamW, in float32
_TARGET_SHARE = 1 / 4  # of trained tokens that belong to answers, and so have scores of all tokens
_SCORES = 3  # logits, probabilities and gradients of a target token, in float32


@dataclass(frozen=True)
class Shape:
    """Measurements of a decoder with gated feed-forward layers.

    layers. width: of the residual stream. inner: of the feed-forward layer. heads, key_heads, head_width: of attention.
    vocabulary. tied: whether the output layer is the embedding. norms: weights of normalisation in a layer.
    """

    layers: int
    width: int
    inner: int
    heads: int
    key_heads: int
    head_width: int
    vocabulary: int
    tied: bool = True
    norms: int = 0

    @property
    def queries(self) -> int:
        return self.heads * self.head_width

    @property
    def keys(self) -> int:
        return self.key_heads * self.head_width

    @property
    def computed(self) -> int:
        """Weights that a token is multiplied with: those of all layers and of the output layer."""
        attention = 2 * self.width * (self.queries + self.keys)
        return self.layers * (attention + 3 * self.width * self.inner + self.norms) + self.vocabulary * self.width

    @property
    def parameters(self) -> int:
        """All weights; an output layer that is the embedding counts once."""
        return self.computed + self.width + (0 if self.tied else self.vocabulary * self.width)


def shape_of(config: Mapping[str, Any]) -> Shape | None:
    """The measurements that a config.json gives; None where it does not name them as most decoders do."""
    text: Mapping[str, Any] = config.get("text_config") or config

    def read(*names: str) -> int | None:
        return next((int(text[n]) for n in names if isinstance(text.get(n), int) and text[n] > 0), None)

    layers, width = read("num_hidden_layers", "n_layer", "num_layers"), read("hidden_size", "n_embd", "d_model")
    heads, vocabulary = read("num_attention_heads", "n_head", "num_heads"), read("vocab_size")
    if layers is None or width is None or heads is None or vocabulary is None:
        return None
    return Shape(
        layers=layers,
        width=width,
        inner=read("intermediate_size", "n_inner", "ffn_dim", "d_ff") or 4 * width,
        heads=heads,
        key_heads=read("num_key_value_heads", "num_kv_heads") or heads,
        head_width=read("head_dim") or width // heads,
        vocabulary=vocabulary,
        tied=bool(config.get("tie_word_embeddings", True)),
    )


def working_bytes(shape: Shape, itemsize: int, *, rows: int = ANSWERED_ROWS, tokens: int = ROW_TOKENS) -> int:
    """Memory beside the weights to answer `rows` prompts of `tokens` tokens: keys, values, a layer at work, scores."""
    cache = rows * tokens * shape.layers * 2 * shape.keys * itemsize
    read_at_once = min(rows, 4) * tokens
    layer = read_at_once * (2 * shape.width + shape.queries + 2 * shape.keys + 3 * shape.inner) * itemsize
    return cache + layer + rows * shape.vocabulary * 4


def training_bytes(shape: Shape, itemsize: int) -> int:
    """Memory beside the weights to train LoRA on all linear layers of the decoder, as rung does by default."""
    sides = 4 * shape.width + 2 * shape.queries + 2 * shape.keys + 3 * (shape.width + shape.inner)
    adapter = shape.layers * _RANK * sides * _ADAPTER_BYTES
    kept = 4 * shape.width + 2 * shape.queries + 2 * shape.keys + 3 * shape.inner  # values a token and layer
    activations = TRAINED_TOKENS * shape.layers * kept * itemsize
    scores = int(TRAINED_TOKENS * _TARGET_SHARE) * shape.vocabulary * 4 * _SCORES
    return adapter + activations + scores


def as_count(weights: int) -> str:
    """A number of weights, in millions from one million on."""
    return f"{weights / 1e6:,.0f} M" if weights >= 1e6 else f"{weights:,}"


def as_size(count: float) -> str:
    """Bytes in MB, or from 1 GB on in GB; with a decimal below 10, so that what is there is never told as none."""
    if count < 1e9:
        mb = count / 1e6
        return f"{mb:.0f} MB" if mb >= 10 or not mb else f"{max(mb, 0.1):.1f} MB"
    gb = count / 1e9
    return f"{gb:.1f} GB" if gb < 10 else f"{gb:.0f} GB"
