"""Personal data and secrets replaced by names: <EMAIL_1> wherever the same address stands, in examples and documents.

A value that was recognised by a word beside it is replaced where that word is missing, too: numbers of LEAST_DIGITS or
more everywhere, other values in their own row. Ids, groups and gold_ids are replaced alike, so that they still agree;
ids that only the spelling of a value tells apart stay apart. Names that a text holds already are not given again.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import count
from typing import Any, Literal

from rung.data.checks.json_form import is_json
from rung.data.checks.personal import meant_otherwise
from rung.data.checks.places import document_texts, texts_of
from rung.data.sensitive import LETTER, Sensitive, sensitive
from rung.types import Document, Example

LEAST_DIGITS = 9
_ROUNDS = 5

_NAMES = {
    "email": "EMAIL",
    "phone_number": "PHONE",
    "ip_address": "IP",
    "iban": "IBAN",
    "card_number": "CARD",
    "identifier": "ID",
    "secret": "SECRET",
}
_CHECKS = {name: check for check, name in _NAMES.items()}
_NAMED = re.compile(rf"<({'|'.join(_CHECKS)})_(\d{{1,9}})>")
_DIGITS = re.compile(
    rf"(?<!{LETTER})(?<![.,])[+(]?\d(?:[ ().\-/]{{0,2}}\d){{{LEAST_DIGITS - 1},18}}(?!{LETTER}|[.,]\d)"
)


_Owner = Literal["row", "document"]


class Masks:
    """The names of all values of some examples and documents. labels: texts that stay as they are."""

    def __init__(self, examples: Iterable[Example], documents: Iterable[Document], labels: Iterable[str] = ()) -> None:
        self._labels = frozenset(labels)
        self._doubtful: frozenset[str] = frozenset()
        self._names: dict[tuple[str, str], str] = {}
        self._numbers: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        examples, documents = tuple(examples), tuple(documents)
        self._ids: dict[tuple[_Owner, str], str] = {}  # whose id, as it was -> with names
        self._taken: set[tuple[_Owner, str]] = {("row", e.id) for e in examples} | {
            ("document", d.id) for d in documents
        }
        self._count_names(examples, documents)
        self.learn(examples, documents)

    def learn(self, examples: Iterable[Example], documents: Iterable[Document]) -> None:
        """Looks for values again: with names in place of the values found first, other numbers may count as values."""
        examples, documents = tuple(examples), tuple(documents)
        self._doubtful = meant_otherwise(examples, documents)
        for example in examples:
            for _, text in texts_of(example):
                self._register(text)
        for _, text in document_texts(documents):
            self._register(text)

    def id_of(self, owner: _Owner, written: str) -> str:
        """The id of a row or document, as it was, with names in place of values."""
        return self._id(owner, written, set(), set())

    def example(self, example: Example) -> tuple[Example, frozenset[str]]:
        """The example with names in place of values, and the checks whose values it held."""
        said = {one for _, text in texts_of(example) if text not in self._labels for one in self._values(text)}
        checks: set[str] = set()

        def masked(text: str) -> str:
            return self._masked(text, said, checks)

        references = tuple(dict.fromkeys(self._answer(r, said, checks) for r in example.references))
        changed = replace(
            example,
            id=self._id("row", example.id, said, checks),
            input=masked(example.input),
            output=self._answer(example.output, said, checks),
            references=references,
            group=None if example.group is None else masked(example.group),
            context=None if example.context is None else masked(example.context),
            gold_ids=tuple(self._id("document", i, said, checks) for i in example.gold_ids),
            instruction=None if example.instruction is None else masked(example.instruction),
            turns=tuple(replace(turn, content=masked(turn.content)) for turn in example.turns),
        )
        return changed, frozenset(checks)

    def document(self, document: Document) -> tuple[Document, frozenset[str]]:
        """As `example`, of a document."""
        said, checks = {one for _, text in document_texts([document]) for one in self._values(text)}, set[str]()
        changed = replace(
            document,
            id=self._id("document", document.id, said, checks),
            text=self._masked(document.text, said, checks),
            title=None if document.title is None else self._masked(document.title, said, checks),
            source=None if document.source is None else self._masked(document.source, said, checks),
        )
        return changed, frozenset(checks)

    def columns(self, values: Mapping[str, object], example: Example) -> tuple[dict[str, object], frozenset[str]]:
        """As `example`, of other columns of its row. The name of a column counts as a word before its value."""
        said = {one for _, text in texts_of(example) if text not in self._labels for one in self._values(text)}
        said |= {one for name, value in values.items() for one in self._values(f"{name}: {value}")}
        checks: set[str] = set()
        return {name: self._leaves(value, said, checks) for name, value in values.items()}, frozenset(checks)

    def _count_names(self, examples: Iterable[Example], documents: Iterable[Document]) -> None:
        """Lets names begin behind those that stand in the texts already, of data that were masked before."""
        texts = [text for e in examples for text in (e.id, e.group or "", *(text for _, text in texts_of(e)))]
        for text in (*texts, *(text for d in documents for text in (d.id, d.title or "", d.text))):
            for match in _NAMED.finditer(text) if "<" in text else ():
                check = _CHECKS[match[1]]
                self._counts[check] = max(self._counts[check], int(match[2]))

    def _id(self, owner: _Owner, written: str, said: set[tuple[str, str]], checks: set[str]) -> str:
        """An id with names, which no other id becomes: of those that would be one, later ones get a number behind."""
        masked = self._masked(written, said, checks)
        if masked != written and (owner, written) not in self._ids:
            several = (masked if n == 1 else f"{masked}-{n}" for n in count(1))
            masked = next(one for one in several if (owner, one) not in self._taken)
            self._ids[owner, written] = masked
            self._taken.add((owner, masked))
        return self._ids.get((owner, written), masked)

    def _found(self, text: str) -> list[Sensitive]:
        return [one for one in sensitive(text) if one.name not in self._doubtful]

    def _values(self, text: str) -> Iterable[tuple[str, str]]:
        """(check, value as written) of each value in a text."""
        return ((one.check, text[one.start : one.end]) for one in self._found(text))

    def _register(self, text: str) -> None:
        if text not in self._labels:
            for check, value in self._values(text):
                self._name(check, value)

    def _name(self, check: str, value: str) -> str:
        key = check, _normal(check, value)
        if key not in self._names:
            self._counts[check] += 1
            self._names[key] = f"<{_NAMES[check]}_{self._counts[check]}>"
            digits = re.sub(r"\D", "", value)
            if len(digits) >= LEAST_DIGITS and check not in ("email", "secret", "ip_address"):
                self._numbers.setdefault(digits, check)
        return self._names[key]

    def _masked(self, text: str, said: set[tuple[str, str]], checks: set[str]) -> str:
        """The text with names, looked at again as long as a name uncovers another value beside it."""
        for _ in range(_ROUNDS):
            changed = self._once(text, said, checks)
            if changed == text:
                break
            text = changed
        return text

    def _once(self, text: str, said: set[tuple[str, str]], checks: set[str]) -> str:
        spans = [(one.start, one.end, one.check, text[one.start : one.end]) for one in self._found(text)]
        for check, value in sorted(said, key=lambda pair: -len(pair[1])):
            if len(value) >= 5 and value in text:
                whole = re.finditer(rf"(?<!{LETTER}){re.escape(value)}(?!{LETTER})", text)
                spans += ((m.start(), m.end(), check, value) for m in whole)
        for match in _DIGITS.finditer(text):
            if known := self._numbers.get(re.sub(r"\D", "", match.group())):
                spans.append((*match.span(), known, match.group()))
        if not spans:
            return text
        parts, end = [], 0
        for start, stop, check, value in sorted(spans, key=lambda span: (span[0], -span[1])):
            if start >= end:
                parts += [text[end:start], self._name(check, value)]
                checks.add(check)
                end = stop
        return "".join([*parts, text[end:]])

    def _answer(self, text: str, said: set[tuple[str, str]], checks: set[str]) -> str:
        """An answer with names; of JSON, the values are replaced one by one, where it would be no JSON otherwise."""
        if text in self._labels:
            return text
        changed = self._masked(text, said, checks)
        if changed == text or not is_json(text) or is_json(changed):
            return changed
        try:
            return json.dumps(self._leaves(json.loads(text), said, checks), ensure_ascii=False)
        except RecursionError:  # nested too deeply
            return changed

    def _leaves(self, value: Any, said: set[tuple[str, str]], checks: set[str]) -> Any:
        if isinstance(value, Mapping):
            return {self._masked(str(key), said, checks): self._leaves(v, said, checks) for key, v in value.items()}
        if isinstance(value, list):
            return [self._leaves(item, said, checks) for item in value]
        if isinstance(value, bool) or value is None or not isinstance(value, str | int | float):
            return value
        written = str(value)
        changed = self._masked(written, said, checks)
        return value if changed == written else changed


def _normal(check: str, value: str) -> str:
    """What two ways to write one value have in common."""
    if check == "phone_number":
        return re.sub(r"\D", "", value).removeprefix("00")
    if check in ("card_number", "iban", "identifier"):
        return re.sub(r"[\W_]", "", value).upper()
    return value.casefold() if check == "email" else value
