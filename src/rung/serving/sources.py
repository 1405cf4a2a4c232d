"""The passages that an answer was given with, as a reader sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rung.evaluation.citations import supports
from rung.retrieval.answers_in_text import says_something
from rung.types import Document, Prediction


@dataclass(frozen=True)
class ShownPassage:
    """A passage of an answer's prompt.

    number: in that prompt, from 1. title: with the headings that it stands under. page: that it begins on, from 1.
    last_page: that it ends on, where that is another one. source: where a reader finds it, where its id does not say
    so. cited: whether the answer names it. supports: of a cited one, whether the words of the answer stand in it
    (`evaluation.citations.supports`); None where that cannot be said, as of an answer "no" or of one that refuses.
    """

    number: int
    id: str
    text: str
    title: str | None = None
    page: int | None = None
    source: str | None = None
    cited: bool = False
    last_page: int | None = None
    supports: bool | None = None

    @property
    def line(self) -> str:
        """[2] Handbook › Leave, pages 3–4 (handbook.pdf)"""
        name, place = self.title or self.id, self.source or self.id
        page = "" if self.page is None else f", page {self.page}"
        if self.page is not None and self.last_page is not None:
            page = f", pages {self.page}–{self.last_page}"
        doubt = " – does not contain this answer" if self.supports is False else ""
        return f"[{self.number}] {name}{page}{f' ({place})' if place != name else ''}{doubt}"


def sources_of(
    prediction: Prediction, passages: Mapping[str, Document], *, refuses: bool = False
) -> tuple[ShownPassage, ...]:
    """The passages that its prompt showed, in the order of their numbers. passages: by id, all that are searched.
    refuses: whether it says that there is no answer."""
    found = []
    tells = not refuses and says_something(prediction.text)
    for number, id_ in enumerate(reversed(prediction.passages), 1):
        p, cited = passages[id_], id_ in prediction.citations
        holds = supports(p, prediction.text) if cited and tells else None
        found.append(ShownPassage(number, id_, p.text, p.title, p.page, p.source, cited, p.last_page, holds))
    return tuple(found)
