"""What reading one file of documents gives."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

MAX_CHARACTERS = 50_000_000
"""Of the text of one document."""


@dataclass(frozen=True)
class ParsedFile:
    """The text of one file, or why there is none.

    text: its pages are parted by form feeds. pages: their number, 0 where the format has none. unreadable_pages: pages,
    from 1, with pictures or signs but no text. encoding: what to report of it, or "". source: an address that the file
    gives as its own. problem: why it cannot be read and what to do, without the file's name; "" where it could be.
    lasting: whether the problem lies in the file, so that reading it again gives the same.
    """

    text: str = ""
    title: str | None = None
    markdown: bool = True
    pages: int = 0
    unreadable_pages: tuple[int, ...] = ()
    encoding: str = ""
    source: str | None = None
    problem: str = ""
    lasting: bool = True

    @property
    def record(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def parsed_from(record: dict[str, Any]) -> ParsedFile:
    """From JSON values. Raises TypeError for others."""
    return ParsedFile(**{**record, "unreadable_pages": tuple(record["unreadable_pages"])})
