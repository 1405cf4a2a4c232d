"""The passages that an answer was given with, as a reader sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rung.types import Document, Prediction


@dataclass(frozen=True)
class ShownPassage:
    """A passage of an answer's prompt.

    number: in that prompt, from 1. title: with the headings that it stands under. page: that it begins on, from 1.
    source: where a reader finds it, where its id does not say so. cited: whether the answer names it.
    """

    number: int
    id: str
    text: str
    title: str | None = None
    page: int | None = None
    source: str | None = None
    cited: bool = False

    @property
    def line(self) -> str:
        """[2] Handbook › Leave, page 3 (handbook.pdf)"""
        name, place = self.title or self.id, self.source or self.id
        page = f", page {self.page}" if self.page is not None else ""
        return f"[{self.number}] {name}{page}{f' ({place})' if place != name else ''}"


def sources_of(prediction: Prediction, passages: Mapping[str, Document]) -> tuple[ShownPassage, ...]:
    """The passages that its prompt showed, in the order of their numbers. passages: by id, all that are searched."""
    found = []
    for number, id_ in enumerate(reversed(prediction.passages), 1):
        p, cited = passages[id_], id_ in prediction.citations
        found.append(ShownPassage(number, id_, p.text, p.title, p.page, p.source, cited))
    return tuple(found)
