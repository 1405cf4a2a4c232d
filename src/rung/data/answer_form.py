"""Whether the white space inside answers counts, as the answers of train show."""

from __future__ import annotations

from collections.abc import Iterable

from rung.types import Whitespace

STRAY = 0.02
"""At most this share of answers that hold lines or indentation is stray: a slip of who wrote them, not their form."""


def found_whitespace(outputs: Iterable[str]) -> tuple[Whitespace, str]:
    """("counts" or "folded", why), for metrics that compare whole texts; labels, numbers and JSON are not concerned.

    White space counts where at least two answers, and more than STRAY of them, hold a line break inside or begin with
    a tab or two or more spaces. One space in front is what some formats put between a prompt and its completion.
    """
    n = lines = indented = both = 0
    for output in outputs:
        n += 1
        text = output.rstrip()
        body = text.lstrip()
        front = text[: len(text) - len(body)].rpartition("\n")[2]
        broken, pushed = "\n" in body or "\r" in body, "\t" in front or len(front) > 1
        lines, indented, both = lines + broken, indented + pushed, both + (broken or pushed)
    found = " and ".join(
        f"{count:,} {what}" for count, what in ((lines, "hold line breaks"), (indented, "are indented")) if count
    )
    if not found:
        return "folded", "no answer holds a line break or is indented"
    if both < max(2, STRAY * n):
        return "folded", f"of {n:,} answers only {found}"
    return "counts", f"of {n:,} answers {found}"
