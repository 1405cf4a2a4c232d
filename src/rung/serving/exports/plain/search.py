"""Passages for an input, and examples near one, by BM25: the library bm25s, the words of words.py, Snowball's stems."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
_CONVERSATION, _CONTEXT = 1_500, 500  # characters that are searched with; of them, of a context


class WordIndex:
    """BM25 over texts."""

    def __init__(self, texts: Sequence[str], stem: str = "", letters: str = "") -> None:
        """stem: the language whose endings are left out; empty: none. letters: of words that lose their endings."""
        bm25s: Any = import_module("bm25s")
        self._words: Callable[[str], list[str]] = import_module("words").words
        self._snowball: Any = import_module("Stemmer").Stemmer(stem, 0) if stem else None
        self._letters = re.compile(f"[{letters}]+").fullmatch if letters else None
        vocabulary: dict[str, int] = {}
        ids = [[vocabulary.setdefault(stem, len(vocabulary)) for stem in self._stems(text)] for text in texts]
        self._index: Any = None
        if vocabulary:
            self._index = bm25s.BM25()
            self._index.index((ids, vocabulary), show_progress=False)

    def best(self, query: str, k: int) -> list[int]:
        """Places of the k best texts that share a word with the query, best first; of equal ones, the earlier first."""
        import numpy as np

        if self._index is None or k <= 0:
            return []
        known = [stem for stem in self._stems(query) if stem in self._index.vocab_dict]
        if not known:
            return []
        scores = self._index.get_scores(known)
        least = np.partition(scores, -k)[-k] if k < len(scores) else -np.inf
        places = np.flatnonzero((scores >= least) & (scores > 0.0))
        return [int(place) for place in places[np.argsort(-scores[places], kind="stable")[:k]]]

    def _stems(self, text: str) -> list[str]:
        if self._snowball is None or self._letters is None:
            return self._words(text)
        return [(self._snowball.stemWord(word) or word) if self._letters(word) else word for word in self._words(text)]


class PassageSearch:
    """The passages of passages.jsonl, and how a prompt shows them."""

    def __init__(self, folder: Path, says: Mapping[str, Any], *, numbered: bool) -> None:
        """says: "search" of solution.json. numbered: passages have their numbers without a fence, too."""
        lines = (folder / "passages.jsonl").read_text("utf-8").split("\n")
        self._passages: list[dict[str, Any]] = [json.loads(line) for line in lines if line.strip()]
        self._says, self._numbered = says, numbered
        texts = [f"{p['title']}\n{p['text']}" if p.get("title") else p["text"] for p in self._passages]
        self._index = WordIndex(texts, says["stem"], says["letters"])

    def shown(self, row: Row, count: Callable[[str], int]) -> list[Row]:
        """The best passages that fit the budget of tokens, best first. The best one is always shown, cut if need be."""
        chosen: list[Row] = []
        left = self._says["token_budget"]
        for place in self._index.best(self._asked(row), self._says["k"]):
            passage = self._passages[place]
            cost = count(_text(passage))
            if cost > left:
                if not chosen:
                    chosen.append(_cut(passage, left, count))
                break
            chosen.append(passage)
            left -= cost
        return chosen

    def before(self, asked: str, passages: Sequence[Row]) -> str:
        """What is asked, behind its passages, the best one last."""
        if not passages:
            return asked
        ordered = list(enumerate(reversed(passages), 1))
        if self._says["fenced"]:
            harmless: Callable[[str], str] = import_module("fencing").harmless
            listed = [f"<passage {n}>\n{harmless(_text(p))}\n</passage {n}>" for n, p in ordered]
        else:
            listed = [f"[{n}] {_text(p)}" if self._numbered else _text(p) for n, p in ordered]
        return "\n".join(listed) + f"\n\n{asked}"

    def _asked(self, row: Row) -> str:
        text: str = row["input"]
        if self._says["query"] == "input":
            return text
        earlier = [turn["content"] for turn in reversed(row.get("turns", ())) if turn["role"] == "user"]
        more = [*earlier, *([row["context"][:_CONTEXT]] if row.get("context") else [])]
        return "\n".join([text, text, *more])[: _CONVERSATION + len(text)] if more else text


class DemoSearch:
    """The examples that are nearest to an input; one that has the input itself is never shown."""

    def __init__(self, demos: Sequence[Row], k: int) -> None:
        self._demos, self._k = demos, k
        self._form: Callable[[str], str] = import_module("words").normal_form
        self._copies = Counter(self._form(demo["input"]) for demo in demos)
        self._index = WordIndex([demo["input"] for demo in demos])

    def demos(self, text: str) -> list[Row]:
        """The k nearest, the nearest last."""
        form = self._form(text)
        hits = [self._demos[place] for place in self._index.best(text, self._k + self._copies[form])]
        return [demo for demo in hits if self._form(demo["input"]) != form][: self._k][::-1]


def _text(passage: Row) -> str:
    return f"{passage['title']}: {passage['text']}" if passage.get("title") else str(passage["text"])


def _cut(passage: Row, budget: int, count: Callable[[str], int]) -> Row:
    """The longest start of the passage that fits. It ends at the end of a word where one is near."""
    text = passage["text"]
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if count(_text({**passage, "text": text[:middle]})) <= budget:
            low = middle
        else:
            high = middle - 1
    if low < len(text) and not text[low].isspace():
        word_end = max((i for i in range(low // 2, low) if text[i].isspace()), default=low)
        low = max(1, word_end)
    return {**passage, "text": text[:low]}
