"""Personal data and secrets in examples and documents: a finding names the row and what it is, never the value.

What is found, and how surely, stands in `rung.data.sensitive`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal

from rung.data.checks.material import Material
from rung.data.checks.places import document_texts, texts_of
from rung.data.checks.shares import LEAST_FOR_SHARE
from rung.data.sensitive import Sensitive, sensitive, unchecked
from rung.types import Document, Example, Finding

MANY = 0.2
"""Share of rows from which one finding tells it: the data are about such values, or were exported with them."""

_MASK, _A_PERSONS = (
    "Mask with rung check --fix OUT --mask.",
    "Mask with rung check --fix OUT --mask what is a person's.",
)
_DOES = {
    "email": _A_PERSONS,
    "phone_number": _A_PERSONS,
    "ip_address": _A_PERSONS,
    "iban": _MASK,
    "card_number": _MASK,
    "identifier": _MASK,
    "secret": f"Make it invalid where it is used. {_MASK}",
}
"""Check -> what to do."""


def personal(material: Material) -> Iterator[Finding]:
    """A finding for each row, and each document, that holds personal data or a secret of one kind."""
    labels = frozenset(material.task.labels or ())
    found: list[tuple[str, tuple[str, ...], str, Sensitive]] = []  # row, ids, place, what
    for example in material.examples:
        for place, text in texts_of(example):
            if text not in labels and (here := sensitive(text)):
                found += ((example.row, (example.id,), place, one) for one in here)
    documents = document_texts(material.documents)
    for document, text in documents:
        found += ((f"document {document.id}", (), "text", one) for one in sensitive(text))
    doubtful = _doubtful(Counter(one.name for *_, one in found if one.checked), material.examples, documents)
    yield from _findings([one for one in found if one[3].name not in doubtful], len(material.examples))


def meant_otherwise(examples: Iterable[Example], documents: Iterable[Document]) -> frozenset[str]:
    """Names of identifiers whose form means something else in these data: most numbers of it lack the checksum."""
    examples, texts = tuple(examples), document_texts(documents)
    right = Counter(one.name for text in _texts(examples, texts) for one in sensitive(text) if one.checked)
    return _doubtful(right, examples, texts)


def _doubtful(
    right: Counter[str], examples: Iterable[Example], documents: Iterable[tuple[Document, str]]
) -> frozenset[str]:
    """Names of which more numbers lack the checksum than have it. right: name -> how many have it."""
    wrong: Counter[str] = Counter()
    for text in _texts(examples, documents) if right else ():
        wrong.update(unchecked(text))
    return frozenset(name for name in wrong if wrong[name] > right[name])


def _texts(examples: Iterable[Example], documents: Iterable[tuple[Document, str]]) -> Iterator[str]:
    for example in examples:
        yield from (text for _, text in texts_of(example))
    for _, text in documents:
        yield text


def _findings(found: Iterable[tuple[str, tuple[str, ...], str, Sensitive]], rows: int) -> Iterator[Finding]:
    """One for each row and check, with what the row holds of it; one for all where MANY rows hold it."""
    held: dict[tuple[str, str], tuple[tuple[str, ...], Counter[tuple[str, str]]]] = {}
    for row, ids, place, one in found:
        held.setdefault((row, one.check), (ids, Counter()))[1][one.name, place] += 1
    holders = Counter(check for (_, check), (ids, _) in held.items() if ids)
    many = {check for check, n in holders.items() if n >= LEAST_FOR_SHARE and n >= MANY * rows}
    for check in sorted(many):
        own = [(ids, what) for (_, other), (ids, what) in held.items() if ids and other == check]
        names = " or ".join(dict.fromkeys(name for _, what in own for name, _ in what))
        message = f"{holders[check]:,} of {rows:,} rows hold {names}. {_DOES[check]}"
        yield Finding(check, _severity(check), "", message, tuple(i for ids, _ in own for i in ids))
    for (row, check), (ids, what) in held.items():
        if not (ids and check in many):
            said = (f"{name} in the {place}" + (f" ({n} times)" if n > 1 else "") for (name, place), n in what.items())
            yield Finding(check, _severity(check), row, f"Holds {', '.join(said)}. {_DOES[check]}", ids)


def _severity(check: str) -> Literal["warning", "note"]:
    return "note" if check == "ip_address" else "warning"
