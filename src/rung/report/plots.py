"""Plots as inline SVG. Positions are in percent, so that text keeps its size at every width.

Knows values in [0, 1] and how they are written; every plot carries its numbers as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from rung.decision.figures import Scale
from rung.report.markup import Html, element
from rung.types import Candidate, Score

_LEFT, _RIGHT = 1.5, 98.5  # percent: room for the dots at 0 and 1
_TOP, _ROW, _TEXT_LINE = 30, 52, 18  # pixels
_ONE_LINE = 40  # characters that fit into a line on a phone (358 pixels), in bold and in a wide font too


def interval_plot(
    candidates: Sequence[Candidate], scale: Scale, *, chosen: str | None, floor: tuple[float, str] | None
) -> Html:
    """A dot and its 95 % interval for each candidate's test score, and fainter for dev, on the whole scale.

    A value stands to the right of the name, or all stand below the names where one would not fit on a phone.
    floor: its value, and the value in words.
    """
    prefix = "dev only: " if any(c.test for c in candidates) else ""
    values = [scale.full(c.test) if c.test else prefix + scale.full(c.dev) for c in candidates]
    names = [_shortened(c.name) for c in candidates]
    below = any(len(name) + len(value) > _ONE_LINE for name, value in zip(names, values, strict=True))
    shift, height = (_TEXT_LINE, _ROW + _TEXT_LINE) if below else (0, _ROW)
    place, side = (_LEFT, "start") if below else (_RIGHT, "end")
    bottom = _TOP + height * len(candidates)
    parts = []
    for step in range(5):
        x = _x(step / 4)
        anchor = ("start", "middle", "middle", "middle", "end")[step]
        label = element("text", scale.value(step / 4), x=x, y=bottom + 16, class_="tick", text_anchor=anchor)
        parts += [_line(x, _TOP - 6, x, bottom, "grid"), label]
    if floor is not None:
        tops = [_TOP + height * number + shift + _TEXT_LINE for number in range(len(candidates))]
        parts += _floor(*floor, [(top, top - shift - _TEXT_LINE + height - 2) for top in tops])
    for number, (candidate, name, value) in enumerate(zip(candidates, names, values, strict=True)):
        y = _TOP + height * number
        kind = "chosen" if candidate.name == chosen else candidate.family
        parts.append(element("text", name, x=_percent(_LEFT), y=y + 12, class_=f"name {kind}"))
        parts.append(element("text", value, x=_percent(place), y=y + 12 + shift, class_="value", text_anchor=side))
        if candidate.test:
            test = "test chosen" if candidate.name == chosen else "test"
            parts += _interval(candidate.test, y + 24 + shift, test, 5.5)
        parts += _interval(candidate.dev, y + 36 + shift, "dev", 4)
    alternative = "; ".join(f"{c.name}: {_in_words(c, scale)}" for c in candidates)
    if floor is not None:
        alternative += f"; floor {floor[1]}"
    return _figure(parts, bottom + 24, "Scores with 95 % intervals", alternative)


def _floor(floor: float, words: str, spans: Sequence[tuple[float, float]]) -> list[Html]:
    """A dashed line beside each candidate's dots, not through its name; its value stands on the side that has room.

    spans: (top, bottom) of each part.
    """
    place = _x(floor)
    side, shift = ("start", 5) if floor < 0.5 else ("end", -5)
    text = element("text", f"floor {words}", x=place, y=14, dx=shift, class_="floor", text_anchor=side)
    parts = [(4, _TOP - _TEXT_LINE / 2), *spans]
    return [*(_line(place, top, place, end, "floor") for top, end in parts), text]


def _shortened(name: str) -> str:
    """A name that fits into a line: of a longer one the middle is left out. The table below the plot has it whole."""
    if len(name) <= _ONE_LINE:
        return name
    return f"{name[: _ONE_LINE // 2]}…{name[-(_ONE_LINE // 2 - 1) :]}"


def _in_words(c: Candidate, scale: Scale) -> str:
    """For those who cannot see the plot."""
    return (f"test {scale.full(c.test)}, " if c.test else "") + f"dev {scale.full(c.dev)}"


def curve_plot(
    epochs: Sequence[tuple[float, float]], kept: float, scale: Scale, *, title: str, unit: str, n: int
) -> Html:
    """Dev scores after so many epochs or examples, evenly spaced; the kept one is filled. n: examples scored."""
    height, top = 120, 22
    low, high = min(v for _, v in epochs), max(v for _, v in epochs)
    span = (high - low) or 1.0

    def at(place: int, value: float) -> tuple[str, float]:
        across = (place + 0.5) / len(epochs)
        return _x(across), top + (height - top) * (1 - (value - low) / span if high > low else 0.5)

    points = [at(i, value) for i, (_, value) in enumerate(epochs)]
    parts = [_line(x1, y1, x2, y2, "curve") for (x1, y1), (x2, y2) in pairwise(points)]
    for (x, y), (epoch, value) in zip(points, epochs, strict=True):
        mark = "kept" if epoch == kept else "passed"
        parts.append(element("circle", cx=x, cy=round(y, 1), r=5, class_=mark))
        parts.append(
            element("text", scale.value(value, n), x=x, y=round(y - 10, 1), class_="value", text_anchor="middle")
        )
        parts.append(element("text", f"{epoch:g}", x=x, y=height + 24, class_="tick", text_anchor="middle"))
    alternative = "; ".join(f"{unit} {e:g}: {scale.value(v, n)}{' (kept)' if e == kept else ''}" for e, v in epochs)
    return _figure(parts, height + 30, title, alternative)


def _interval(score: Score, y: float, mark: str, radius: float) -> list[Html]:
    return [
        _line(_x(score.low), y, _x(score.high), y, f"interval {mark}"),
        element("circle", cx=_x(score.mean), cy=y, r=radius, class_=f"dot {mark}"),
    ]


def _figure(parts: Sequence[Html], height: float, title: str, alternative: str) -> Html:
    label = f"{title}. {alternative}."
    return element("svg", *parts, role="img", aria_label=label, width="100%", height=height, class_="figure")


def _line(x1: str, y1: float, x2: str, y2: float, mark: str) -> Html:
    return element("line", x1=x1, y1=round(y1, 1), x2=x2, y2=round(y2, 1), class_=mark)


def _x(share: float) -> str:
    return _percent(_LEFT + (_RIGHT - _LEFT) * min(1.0, max(0.0, share)))


def _percent(x: float) -> str:
    return f"{x:.2f}%"
