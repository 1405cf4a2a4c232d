"""Retrieval: passages to ranked passages.

Knows how documents are cut into passages, how passages are found, and which passages hold an answer. Writes no prompts.
An index is added by one function and one line: `register_index("mine", function)`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from rung.errors import TaskError
from rung.types import Document, Retriever, RetrieverSpec

Opener = Callable[[RetrieverSpec, Sequence[Document], Path | None], Retriever]
"""(what is asked for, passages, a folder where the index may be kept) -> the index. The folder holds indexes of other
passages, too, and may not exist yet; what is kept there is named by its content. None: nowhere."""

INDEXES: dict[str, str | Opener] = {
    "bm25": "rung.retrieval.bm25:open_bm25",
    "dense": "rung.retrieval.dense:open_dense",
    "fused": "rung.retrieval.fused:open_fused",
    "lancedb": "rung.retrieval.lance:open_lance",
}
"""Kind of index -> "module:attribute" of its Opener, or the Opener itself."""


def register_index(kind: str, opener: str | Opener) -> None:
    """Makes a kind of index known, so that `rag` tries it. Raises ValueError when the kind is taken."""
    if kind in INDEXES:
        raise ValueError(f"there is an index of the kind {kind!r} already. Choose another name.")
    INDEXES[kind] = opener


def check_kind(kind: str) -> None:
    """Raises TaskError for a kind of index that nobody registered."""
    if kind not in INDEXES:
        raise TaskError(
            f'retriever: there is no index of the kind "{kind}". The kinds are {", ".join(INDEXES)}. '
            "Import the module that registers it first."
        )


def open_index(spec: RetrieverSpec, passages: Sequence[Document], folder: Path | None = None) -> Retriever:
    """The index over the passages that the spec names. folder: where it may keep files between runs.

    Where the spec names a cross-encoder, that orders the first hits anew. Raises TaskError for an unknown kind.
    """
    check_kind(spec.kind)
    opener = INDEXES[spec.kind]
    if isinstance(opener, str):
        module, attribute = opener.split(":")
        opener = cast(Opener, getattr(importlib.import_module(module), attribute))
    found = opener(spec, passages, folder)
    if not spec.cross_encoder:
        return found
    from rung.retrieval.rerank import Reranked, open_reranker

    return Reranked(found, open_reranker(spec.cross_encoder))
