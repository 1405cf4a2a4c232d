"""Embedders that other packages read: static models by model2vec, ONNX models by fastembed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rung.errors import ModelError, first_line

_DIGITS = 12


class PackageEmbedder:
    """An embedder by two functions of a package."""

    def __init__(self, name: str, version: str, passages: Any, queries: Any) -> None:
        """passages, queries: texts -> vectors, any length, shape (n, d). version: of model and package."""
        self.name = name
        self._of = {False: passages, True: queries}
        first = self.embed(["a"])
        self.dimensions = first.shape[1]
        # What the model makes of a few texts is part of its version: a name alone says nothing of its weights.
        probe = self.embed(["The card was lost on 7 May.", "Wo liegt der Fluss?"]).round(2).tobytes()
        self.version = f"{version}-{hashlib.sha256(probe).hexdigest()[:_DIGITS]}"

    def embed(self, texts: Sequence[str], query: bool = False) -> Any:
        import numpy as np

        if not texts:
            return np.zeros((0, self.dimensions), dtype=np.float32)
        vectors = np.asarray(self._of[query](list(texts)), dtype=np.float32)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def open_model2vec(name: str, folder: Path | None) -> PackageEmbedder:
    """A static model of the hub or in a folder, by model2vec."""
    import model2vec

    try:
        model = model2vec.StaticModel.from_pretrained(str(Path(name).expanduser()) if Path(name).is_dir() else name)
    except Exception as error:
        raise _not_there(f"model2vec:{name}", error) from None

    def vectors(texts: list[str]) -> Any:
        return model.encode(texts, max_length=None)

    return PackageEmbedder(f"model2vec:{name}", f"model2vec-{model2vec.__version__}", vectors, vectors)


def open_fastembed(name: str, folder: Path | None) -> PackageEmbedder:
    """A model by its name in fastembed, which fetches it at first use."""
    import fastembed

    try:
        model = fastembed.TextEmbedding(name)
    except Exception as error:
        raise _not_there(f"fastembed:{name}", error) from None
    return PackageEmbedder(
        f"fastembed:{name}",
        f"fastembed-{fastembed.__version__}",
        lambda texts: list(model.passage_embed(texts)),
        lambda texts: list(model.query_embed(texts)),
    )


def _not_there(name: str, error: Exception) -> ModelError:
    return ModelError(
        f'embedder "{name}": it is not on this machine and could not be fetched ({first_line(error)}). Check the name '
        "and the network."
    )
