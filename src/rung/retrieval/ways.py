"""What a way to find passages is called, in tables and in the names of variants."""

from __future__ import annotations

import re

from rung.types import RetrieverSpec

_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")


def dearness(spec: RetrieverSpec) -> tuple[bool, int]:
    """For ordering: of ways that find as much, the one that takes less is chosen."""
    return bool(spec.reranker), bool(spec.embedder) + (spec.kind == "fused")


def way(spec: RetrieverSpec) -> str:
    """A name that is fit for a file: kind, stemming, embedder, size, reranker and what is searched with, as far as they
    are not the plainest."""
    parts = [spec.kind, spec.stem, spec.embedder]
    parts += [f"{spec.tokens}-tokens"] if spec.tokens else []
    parts += [f"reranked-by-{spec.reranker}"] if spec.reranker else []
    parts += [spec.query] if spec.query != "input" else []
    return "-".join(_UNFIT.sub("_", part) for part in parts if part)
