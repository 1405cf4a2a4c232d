"""Personal data and secrets in examples and documents: a finding names the row and what it is, never the value.

What is found, and how surely, stands in `rung.data.sensitive`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Literal

from rung.data.checks.material import Material
from rung.data.checks.places import document_texts, texts_of
from rung.data.sensitive import Sensitive, sensitive, unchecked
from rung.types import Document, Example, Finding

_DOES = {
    "email": "Mask it with rung check --fix OUT --mask, if it is a person's.",
    "phone_number": "Mask it with rung check --fix OUT --mask, if it is a person's.",
    "ip_address": "Mask it with rung check --fix OUT --mask, if it is a person's.",
    "iban": "Mask it with rung check --fix OUT --mask.",
    "card_number": "Mask it with rung check --fix OUT --mask.",
    "identifier": "Mask it with rung check --fix OUT --mask.",
    "secret": "Make it invalid where it is used, and mask it with rung check --fix OUT --mask.",
}
"""Check -> what to do with one row."""


def personal(material: Material) -> Iterator[Finding]:
    """A finding for each row, and each document, that holds personal data or a secret of one kind."""
    labels = frozenset(material.task.labels or ())
    found: list[tuple[str, tuple[str, ...], str, Sensitive]] = []  # row, ids, place, what
    wrong: Counter[str] = Counter()
    for example in material.examples:
        for place, text in texts_of(example):
            if text not in labels and (here := sensitive(text)):
                found += ((example.row, (example.id,), place, one) for one in here)
    documents = document_texts(material.documents)
    for document, text in documents:
        found += ((f"document {document.id}", (), "text", one) for one in sensitive(text))
    if any(one.checked for *_, one in found):
        wrong = _without_checksum(material.examples, (text for _, text in documents))
    doubtful = _doubtful(Counter(one.name for *_, one in found), wrong)
    yield from _findings((row, ids, place, one) for row, ids, place, one in found if one.name not in doubtful)


def meant_otherwise(examples: Iterable[Example], documents: Iterable[Document]) -> frozenset[str]:
    """Names of identifiers whose form means something else in these data: most numbers of it lack the checksum."""
    examples, texts = tuple(examples), [document.text for document in documents]
    rows = (text for example in examples for _, text in texts_of(example))
    right = Counter(one.name for text in chain(rows, texts) for one in sensitive(text) if one.checked)
    return _doubtful(right, _without_checksum(examples, texts)) if right else frozenset()


def _without_checksum(examples: Iterable[Example], texts: Iterable[str]) -> Counter[str]:
    wrong: Counter[str] = Counter()
    for text in chain((text for example in examples for _, text in texts_of(example)), texts):
        wrong.update(unchecked(text))
    return wrong


def _doubtful(right: Counter[str], wrong: Counter[str]) -> frozenset[str]:
    return frozenset(name for name in wrong if wrong[name] > right[name])


def _findings(found: Iterable[tuple[str, tuple[str, ...], str, Sensitive]]) -> Iterator[Finding]:
    """One for each row and check, with what the row holds of it."""
    rows: dict[tuple[str, str], tuple[tuple[str, ...], Counter[tuple[str, str]]]] = {}
    for row, ids, place, one in found:
        rows.setdefault((row, one.check), (ids, Counter()))[1][one.name, place] += 1
    for (row, check), (ids, held) in rows.items():
        what = ", ".join(
            f"{name} in the {place}" + (f" ({n} times)" if n > 1 else "") for (name, place), n in held.items()
        )
        severity: Literal["warning", "note"] = "note" if check == "ip_address" else "warning"
        yield Finding(check, severity, row, f"Holds {what}. {_DOES[check]}", ids)
