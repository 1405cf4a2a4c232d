"""Which searches are worth measuring on a corpus, and which are left out and why.

Every kind of index, with and without stems, by every embedder; a fused search of the better lexical form and each
embedder; a cross-encoder where one is named. Sizes of passages and queries are the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

from rung.retrieval import INDEXES, check_kind
from rung.retrieval.embedders import embedders_here, why_not
from rung.retrieval.languages import languages_of
from rung.types import Document, RetrieverSpec, SearchKeys

LEXICAL, DENSE, FUSED = "bm25", "dense", "fused"
_LARGE = ("lancedb",)
"""Kinds for corpora past memory. They find what the others find, so they are tried in their place, or where named."""
MANY = 200_000
"""Passages from which on a kind for large corpora takes the place of those in memory, where it is installed."""


@dataclass(frozen=True)
class Proposals:
    """specs: in the order to measure them, the quickest first. not_tried: (what, why it is left out), why as a sentence
    part without a full stop."""

    specs: tuple[RetrieverSpec, ...]
    not_tried: tuple[tuple[str, str], ...] = ()


def specs_to_try(passages: Sequence[Document], keys: SearchKeys, k: int, token_budget: int) -> Proposals:
    """The single searches that the task's keys allow here; `fusions` and `rerankings` build on those that are good.

    Raises TaskError when the keys name a kind that nobody registered.
    """
    for kind in keys.kinds:
        check_kind(kind)
    chosen = keys.kinds or _unnamed(passages)
    specs: list[RetrieverSpec] = []
    not_tried: list[tuple[str, str]] = []
    stems = _stems(passages, keys)
    names, left_out = _embedders(keys)
    for kind in chosen:
        spec = RetrieverSpec(kind, k, token_budget)
        if kind == LEXICAL:
            specs += [replace(spec, stem=stem) for stem in stems]
        elif kind == DENSE:
            specs += [replace(spec, embedder=name) for name in names]
            not_tried += left_out
        elif kind in _LARGE and find_spec(kind) is None:
            not_tried.append((kind, f"it is not installed. Install it with pip install 'rung[{kind}]'"))
        elif kind in _LARGE:
            specs += [replace(spec, stem=stem) for stem in stems]
            specs += [replace(spec, stem=stems[-1], embedder=name) for name in names]
            not_tried += left_out
        elif kind == FUSED and LEXICAL not in chosen:
            specs += [replace(spec, stem=stem, embedder=name) for name in names for stem in stems]
            not_tried += left_out
        elif kind != FUSED:
            specs.append(spec)
    return Proposals(tuple(specs), tuple(dict.fromkeys(not_tried)))


def fusions(lexical: RetrieverSpec, keys: SearchKeys) -> tuple[RetrieverSpec, ...]:
    """The fused searches of a lexical one, the better of those that were measured, with each embedder."""
    if lexical.kind != LEXICAL or (keys.kinds and FUSED not in keys.kinds):
        return ()
    return tuple(replace(lexical, kind=FUSED, embedder=name) for name in _embedders(keys)[0])


def rerankings(spec: RetrieverSpec, keys: SearchKeys) -> tuple[RetrieverSpec, ...]:
    """The same search, its first hits ordered anew by each reranker that the task names ("model" is one)."""
    return tuple(replace(spec, reranker=name) for name in keys.rerankers if name)


def _unnamed(passages: Sequence[Document]) -> tuple[str, ...]:
    """The kinds that are tried where the task names none."""
    large = tuple(kind for kind in _LARGE if len(passages) >= MANY and find_spec(kind) is not None)
    in_memory = (LEXICAL, DENSE, FUSED) if large else ()
    return tuple(kind for kind in INDEXES if kind in large or kind not in (*_LARGE, *in_memory))


def _stems(passages: Sequence[Document], keys: SearchKeys) -> tuple[str, ...]:
    stem = languages_of(passages) if keys.stem is None else keys.stem
    return ("",) if not stem else ("", stem) if keys.stem is None else (stem,)


def _embedders(keys: SearchKeys) -> tuple[list[str], list[tuple[str, str]]]:
    """(names that can be opened here as far as is seen, those that cannot with the reason)."""
    wanted = keys.embedders or embedders_here()
    if not wanted:
        return [], [("dense search", "no embedder is installed. Install one with pip install 'rung[dense]'")]
    reasons = {name: why_not(name) for name in wanted}
    left_out = [(f'dense search with "{name}"', why) for name, why in reasons.items() if why is not None]
    return [name for name, why in reasons.items() if why is None], left_out
