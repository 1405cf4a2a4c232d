"""Reranking: a cross-encoder reads the query with each of the first hits, and orders them anew.

A cross-encoder is a model of the hub or a folder, with one score for a pair of texts. It is read with transformers.
Source: Nogueira & Cho, Passage re-ranking with BERT (2019).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rung.errors import ModelError, first_line
from rung.retrieval.embedders.transformer import BATCH_TOKENS, batches, device, fetched, quiet
from rung.retrieval.passages import searched
from rung.retrieval.shared import forget_queries, prepare
from rung.types import Document, Query, Retriever, Tell

DEPTH = 50
"""First hits that are ordered anew; more only where more are asked for."""
_KNOWN_QUERIES = 20_000
_WINDOW = 512


class CrossEncoder:
    """Scores of pairs of a query and a passage; higher is better."""

    def __init__(self, name: str) -> None:
        """Raises ModelError when the model is not there, or is no cross-encoder."""
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        quiet()
        path = Path(name).expanduser()
        path = path if path.is_dir() else fetched(name, "reranker")
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(path)
            self._model = AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32).eval()
        except Exception as error:
            raise ModelError(
                f'reranker "{name}": {path} cannot be read as a cross-encoder ({first_line(error)}). Name a model for '
                "sequence classification with one label, such as cross-encoder/ms-marco-MiniLM-L6-v2."
            ) from None
        if self._model.config.num_labels != 1:
            raise ModelError(
                f'reranker "{name}": it has {self._model.config.num_labels} labels where a cross-encoder has one '
                "score. Name another model, such as cross-encoder/ms-marco-MiniLM-L6-v2."
            )
        self._device = device()
        self._model.to(self._device)
        known = (self._tokenizer.model_max_length, getattr(self._model.config, "max_position_embeddings", None))
        self._window = int(min(_WINDOW, *(n for n in known if n)))
        self._working = threading.Lock()

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        """One for each text. A text that is too long is cut at its end."""
        import torch

        with self._working, torch.inference_mode():
            pairs = self._tokenizer(
                [query] * len(texts), list(texts), truncation="longest_first", max_length=self._window
            )
            scores = [0.0] * len(texts)
            for batch in batches([len(ids) for ids in pairs["input_ids"]], BATCH_TOKENS):
                rows = [{key: values[i] for key, values in pairs.items()} for i in batch]
                padded = self._tokenizer.pad(rows, return_tensors="pt").to(self._device)
                for place, score in zip(batch, self._model(**padded).logits[:, 0].float().tolist(), strict=True):
                    scores[place] = score
        return scores


_opened: dict[str, CrossEncoder] = {}
_opening = threading.Lock()


def open_reranker(name: str) -> CrossEncoder:
    """The cross-encoder with this name, opened once. Raises ModelError as CrossEncoder does."""
    with _opening:
        if name not in _opened:
            _opened[name] = CrossEncoder(name)
        return _opened[name]


class Reranked:
    """A search whose first hits a cross-encoder orders anew; those behind them keep their order.

    Solutions and checks ask with the same inputs: the order of hits that were ordered before is known.
    """

    def __init__(self, search: Retriever, reranker: Any) -> None:
        """reranker: has `scores`, as a CrossEncoder."""
        self.first = search
        self._reranker = reranker
        self._orders: dict[tuple[str, tuple[str, ...]], list[int]] = {}  # (query, ids of its hits) -> their order

    def prepare(self, tell: Tell) -> None:
        prepare(self.first, tell)

    def forget_queries(self) -> None:
        self._orders.clear()
        forget_queries(self.first)

    def search(self, queries: Sequence[Query], k: int) -> list[list[Document]]:
        if k <= 0:
            return [[] for _ in queries]
        found = self.first.search(queries, max(k, DEPTH))
        return [self._ordered(query.input, row)[:k] for query, row in zip(queries, found, strict=True)]

    def _ordered(self, query: str, found: Sequence[Document]) -> list[Document]:
        if len(found) < 2:
            return list(found)
        key = (query, tuple(passage.id for passage in found))
        if (order := self._orders.get(key)) is None:
            scores = self._reranker.scores(query, [searched(passage) for passage in found])
            order = sorted(range(len(found)), key=lambda i: -scores[i])  # of equal ones, the first hit first
            if len(self._orders) >= _KNOWN_QUERIES:
                self._orders.clear()
            self._orders[key] = order
        return [found[i] for i in order]
