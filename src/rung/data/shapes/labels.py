"""Answers as labels: one of those that are declared, or several of them as a JSON array.

Two spellings that differ only in what the normal form leaves aside are one label. Knows texts; knows no columns.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from rung.data.rows import as_text, kind_of, nearest
from rung.data.shapes.values import SEPARATORS, is_scalar, json_list, missing, nothing, separator_of, without_point
from rung.text import normal_form, visible

MAX_LABELS = 100
_LABEL_WORDS = 6
_NAMES = re.compile(r"(labels|tags|topics|categories|classes|intents|genres|emotions|keywords|aspects|skills)$")


class Labels:
    """The labels that a task declares, by every spelling that is read as one of them."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.names = tuple(labels)
        self.order = {label: i for i, label in enumerate(labels)}
        self._exact = frozenset(labels)
        self._seen = _of_one(labels, visible)
        self._normal = _of_one(labels, normal_form)
        self._known: dict[str, str | None] = {}

    def match(self, text: str) -> str | None:
        """The label that a text writes, or None."""
        if text in self._exact:
            return text
        if text not in self._known:
            if len(self._known) > 10_000:  # answers that are no labels: not worth the memory
                self._known.clear()
            self._known[text] = self._look_up(text)
        return self._known[text]

    def _look_up(self, text: str) -> str | None:
        for form, known in ((visible, self._seen), (normal_form, self._normal)):
            if found := known.get(form(text)) or known.get(without_point(form(text))):
                return found
        return None

    def unknown(self, text: str, *, guess: bool) -> str:
        """What to say about an answer that is no label. guess: look for the nearest one, which takes long."""
        if missing(text):
            return (
                f'the answer "{text.strip()}" stands for nothing; give an answer, remove the row, '
                "or add it to labels: in task.yaml"
            )
        near = nearest(text.strip(), self.names) if guess else None
        hint = f'did you mean "{near}"?' if near else "add it to labels: in task.yaml or correct the row"
        odd = next((c for c in text if near and ord(c) > 127 and c not in near), None)
        if odd is not None:
            hint += f" (it holds {odd}, {unicodedata.name(odd, hex(ord(odd))).lower()})"
        return f'the answer "{text[:80]}" is not one of the {len(self.names)} labels; {hint}'


def _of_one(labels: Iterable[str], form: Callable[[str], str]) -> dict[str, str]:
    """Form -> the only label that has it."""
    counts = Counter(map(form, labels))
    return {key: label for label in labels if counts[key := form(label)] == 1}


def as_answer(labels: Iterable[str], order: Mapping[str, int] | None) -> str:
    """Several labels as an answer: a JSON array, each once, in the declared order or else by the alphabet."""
    found = dict.fromkeys(labels)
    return json.dumps(sorted(found, key=order.__getitem__ if order else None), ensure_ascii=False)


def several(value: object, labels: Labels | None, separator: str | None) -> list[str]:
    """The labels of a cell: a list, its JSON, or texts between separators; none for an empty cell.

    labels: every part is one of them, in whatever spelling. separator: of the column, where no labels are declared.
    Raises ValueError for a cell that holds something else; of an undeclared label, its first argument is that text.
    """
    if nothing(value):
        raise ValueError("is null; write [] where no label applies")
    items = json_list(value)
    if items is not None:
        if wrong := next((item for item in items if not is_scalar(item)), None):
            raise ValueError(f"holds {kind_of(wrong)}, not only labels")
        parts = [as_text(item).strip() for item in items]
    elif not is_scalar(value):
        raise ValueError(f"is {kind_of(value)}, not a list of labels")
    else:
        parts = _parts(as_text(value), labels, separator)
    if labels is None:
        return [visible(part) for part in parts if part]
    return [labels.match(part) or _refuse(part) for part in parts if part]


class UnknownLabel(ValueError):
    """A part of a cell that is no declared label; `text` is the part."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


def _refuse(part: str) -> str:
    raise UnknownLabel(part)


def _parts(text: str, labels: Labels | None, separator: str | None) -> list[str]:
    """The texts between separators. With labels, the first separator that leaves labels only is the one."""
    text = text.strip()
    if labels is None:
        return [part.strip() for part in text.split(separator)] if separator else [text]
    if not text or labels.match(text):
        return [text]
    used = [s for s in SEPARATORS if s in text]
    for sign in used:
        parts = [part.strip() for part in text.split(sign) if part.strip()]
        if all(map(labels.match, parts)):
            return parts
    return [part.strip() for part in text.split(used[0])] if used else [text]


@dataclass(frozen=True)
class SeveralLabels:
    """Answers that are several labels each. labels: all of them, sorted. separator: None where they are lists."""

    labels: tuple[str, ...]
    separator: str | None
    why: str


def found_several(values: Sequence[object], column: str = "") -> SeveralLabels | None:
    """Whether the answers of a column are combinations of a few labels, and of which.

    They are where lists or texts between separators recombine the same short parts. column: its name may say so.
    """
    named = _NAMES.search(normal_form(column)) is not None
    lists = [items for v in values if (items := json_list(v)) is not None and all(map(is_scalar, items))]
    if lists and len(lists) >= 0.9 * len(values):
        cells = [[as_text(item).strip() for item in items] for items in lists]
        return _closed(cells, None, named)
    texts = [v for v in values if isinstance(v, str) and v.strip()]
    if len(texts) < 0.9 * len(values) or (sign := separator_of(texts)) is None:
        return None
    cells = [[part.strip() for part in text.split(sign) if part.strip()] for text in texts]
    wholes = len(set(map(visible, texts)))
    found = _closed(cells, sign, named)
    return found if found and (named or len(found.labels) < wholes) else None


def _closed(cells: Sequence[Sequence[str]], separator: str | None, named: bool) -> SeveralLabels | None:
    counts = Counter(visible(part) for cell in cells for part in cell)
    total = counts.total()
    if not 2 <= len(counts) <= MAX_LABELS or all(len(cell) < 2 for cell in cells):
        return None
    if sum(repeats(cell) for cell in cells) > 0.1 * len(cells):
        return None
    if max(len(label.split()) for label in counts) > _LABEL_WORDS:
        return None
    repeated = sum(n for n in counts.values() if n > 1)
    if total < (2 if named else 3) * len(counts) or repeated < 0.9 * total:
        return None
    how = "lists" if separator is None else f"texts between {_SIGNS[separator]}"
    why = f"the answers are {how} that combine {len(counts)} labels"
    return SeveralLabels(tuple(sorted(counts)), separator, why)


def repeats(cell: Sequence[object]) -> bool:
    """Whether one value stands several times in a list: in a sequence, such as a tag for each word, not in a set."""
    return len(set(map(str, cell))) < len(cell)


_SIGNS = {"|": "bars (|)", ";": "semicolons", "\n": "line breaks", ",": "commas"}
