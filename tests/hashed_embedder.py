"""An embedder for tests: a text's vector counts its words, each at a place that a hash gives it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from rung.text import words


class Hashed:
    """texts: all that it has embedded, in order."""

    def __init__(self, version: str = "1", dimensions: int = 64) -> None:
        self.name, self.version, self.dimensions = "hashed", version, dimensions
        self.texts: list[str] = []

    def embed(self, texts: Sequence[str], query: bool = False) -> Any:
        self.texts += texts
        vectors = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in words(text):
                vectors[row, int(hashlib.sha256(word.encode()).hexdigest(), 16) % self.dimensions] += 1
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
