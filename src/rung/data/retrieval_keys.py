"""The key `retrieval` of task.yaml: how passages may be found. Which names there are is not known here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from rung.types import SearchKeys

RETRIEVAL_HINTS = {
    "retrieval": "Write retrieval: {kinds: [bm25, dense]}, where only some ways to find passages are to be tried.",
    "retrieval.kinds": "Write kinds: [bm25, dense], the kinds of search that are to be tried.",
    "retrieval.embedders": "Write embedders: [minilm], or OWNER/NAME of the hub, or a folder.",
    "retrieval.rerankers": "Write rerankers: [model], or OWNER/NAME of a cross-encoder, or a folder.",
    "retrieval.stem": 'Write stem: english, or another language; stem: "" for none.',
    "retrieval.tokens": "Write tokens: [128, 256], the sizes of passages that are to be tried, each from 32 to 8192.",
    "retrieval.rewrite": "Write rewrite: true where the model is to write the query anew before it is searched.",
}


class RetrievalKeys(BaseModel):
    """retrieval: {kinds, embedders, rerankers, stem, tokens, rewrite}."""

    model_config = ConfigDict(extra="forbid", strict=True)

    kinds: list[str] = Field(default_factory=list)
    embedders: list[str] = Field(default_factory=list)
    rerankers: list[str] = Field(default_factory=list)
    stem: str | None = None
    tokens: list[Annotated[int, Field(ge=32, le=8192)]] = Field(default_factory=list)
    rewrite: bool | None = None


def to_search_keys(keys: RetrievalKeys, folder: Path) -> SearchKeys:
    """What a task keeps of them. Names that begin with a point are folders beside the task."""

    def named(names: list[str]) -> tuple[str, ...]:
        return tuple(os.path.normpath(folder / name) if name.startswith(".") else name for name in names)

    return SearchKeys(
        kinds=tuple(keys.kinds),
        embedders=named(keys.embedders),
        rerankers=named(keys.rerankers),
        stem=keys.stem,
        tokens=tuple(keys.tokens),
        rewrite=keys.rewrite,
    )
