"""HTML and SVG by elements. A plain string is text and is escaped; only `element` makes markup."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape

from rung.decision.figures import Scale
from rung.report.words import tied
from rung.types import Score

_OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z-]*)")


class Html(str):
    """A string that is markup already."""

    __slots__ = ()


def element(tag: str, *children: str, **attributes: str | float) -> Html:
    """<tag attributes>children</tag>. An empty attribute is left out. In names
    a trailing underscore is dropped, others become hyphens."""
    named = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for name, value in attributes.items()
        if value != ""
    )
    return Html(f"<{tag}{named}>{joined(children)}</{tag}>")


def joined(parts: Iterable[str], between: str = "") -> Html:
    return Html(safe(between).join(safe(part) for part in parts if part))


def safe(text: str) -> str:
    """The text escaped, markup as it is. Signs that HTML does not allow are replaced."""
    if isinstance(text, Html):
        return text
    return escape("".join(c if c >= " " or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text))


def section(title: str, *content: str, class_: str = "") -> Html:
    """Nothing when there is nothing to show."""
    return element("section", element("h2", title), *content, class_=class_) if any(content) else Html("")


def unbroken(text: str) -> Html:
    """The text, in which no line breaks within an option of a command."""
    parts = _OPTION.split(text)
    return joined([element("span", part, class_="option") if place % 2 else part for place, part in enumerate(parts)])


def prose(text: str) -> Html:
    """A sentence; what stands between backticks is set as code."""
    parts = tied(text).split("`")
    if len(parts) % 2 == 0:  # a backtick without its pair is a sign like others
        return element("span", unbroken(tied(text)))
    return joined(
        [element("code", unbroken(part)) if place % 2 else unbroken(part) for place, part in enumerate(parts)]
    )


def items(texts: Sequence[str]) -> Html:
    """A list of sentences."""
    return element("ul", *(element("li", prose(text)) for text in texts)) if texts else Html("")


def facts(pairs: Mapping[str, str]) -> Html:
    """Names and values; what has no value is left out."""
    return element(
        "dl", *(joined([element("dt", name), element("dd", value)]) for name, value in pairs.items() if value)
    )


def table(
    caption: str,
    header: Iterable[str],
    rows: Iterable[Html],
    *,
    label: str = "",
    right: Collection[str] = (),
    class_: str = "",
) -> Html:
    """A table that scrolls sideways within itself when the page is narrow.

    label: its name for screen readers, where the caption is long. right: the headers that stand over numbers. class_:
    stacked, for one whose cells stand below each other on a phone, each with its data-label.
    """
    cells = [element("th", h, scope="col", class_="num" if h in right else "") for h in header]
    inner = element(
        "table",
        element("caption", element("span", caption)),
        element("thead", element("tr", *cells)),
        element("tbody", *rows),
        class_=class_,
    )
    return element("div", inner, class_="scroll", tabindex="0", role="region", aria_label=label or caption)


def row(first: str, *cells: str, class_: str = "", labels: Sequence[str] = ()) -> Html:
    """A table row that its first cell names. labels: of the other cells, in a table that is stacked on a phone."""
    data = [c if isinstance(c, Html) and c.startswith("<td") else element("td", c) for c in cells]
    if labels:
        pairs = zip(labels, data, strict=True)
        data = [Html(f'<td data-label="{escape(label)}"{cell.removeprefix("<td")}') for label, cell in pairs]
    return element("tr", element("th", first, scope="row"), *data, class_=class_)


def num(text: str) -> Html:
    """A cell with a number."""
    return element("td", text, class_="num")


def short(text: str) -> Html:
    """A cell that does not break."""
    return element("td", text, class_="short")


def ranged(text: str, ends: str) -> Html:
    """A cell with a figure and its interval."""
    return short(joined([text, element("span", ends, class_="range")], " "))


def scored(scale: Scale, score: Score | None) -> Html:
    """A cell with a score and its interval; a dash where there is none."""
    return short("–") if score is None else ranged(scale.value(score.mean, score.n), scale.interval(score))


def wide(text: str) -> Html:
    """A cell with a sentence."""
    return element("td", text if isinstance(text, Html) else unbroken(text), class_="wide")
