"""Measurements of a decoder, as its config.json names them: what memory and speed are computed from. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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
