"""What a reader sees: the words of a page, and the lines of a screen."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path

from rich.console import Console

from rung.report.lines import Screen

VOID = {"meta"}


class Page(HTMLParser):
    """Tags in order with their attributes, texts by tag, and whether every tag is closed in its turn."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.source = path.read_text("utf-8")
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.append((self.open[-1], data))

    def text(self, *tags: str) -> str:
        found = " ".join(text for tag, text in self.texts if tag in (tags or (tag,)) and tag != "style")
        return " ".join(found.split())

    def section(self, title: str) -> str:
        """The words between this h2 and the next."""
        after = self.source.split(f"<h2>{title}</h2>")[1].split("<h2>")[0]
        return " ".join(re.sub("<[^>]+>", " ", after).split())


def printed(screen: Screen, width: int = 80, encoding: str = "utf-8") -> list[str]:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    Console(file=stream, width=width).print(screen)
    stream.flush()
    return raw.getvalue().decode(encoding).splitlines()


def joined(lines: list[str]) -> str:
    """The sentences of a screen, as if no line were broken."""
    return " ".join(" ".join(lines).split())
