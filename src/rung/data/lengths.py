"""Which lengths are usual: one row of 9 MB says nothing about the others, and must not decide for them."""

from __future__ import annotations

from collections.abc import Sequence

from rung.types import Example

FAR = 10
"""So many times the upper quartile of all lengths a length may be and still be usual."""

ALWAYS_USUAL = 2_000
"""Characters that are usual in any data."""

_FEW, _FEW_SHARE = 2, 0.02  # rows that may be unusual, and the share of them: more are no exceptions


def usual_length(lengths: Sequence[int]) -> int:
    """The longest usual length: the longest of all but a few that are far longer than the others; 0 for no lengths."""
    if not lengths:
        return 0
    ordered = sorted(lengths)
    limit = max(ALWAYS_USUAL, FAR * ordered[(len(ordered) * 3 - 1) // 4])
    usual = [length for length in ordered if length <= limit]
    few = max(_FEW, int(_FEW_SHARE * len(ordered)))
    return usual[-1] if usual and len(ordered) - len(usual) <= few else ordered[-1]


def of_usual_length(examples: Sequence[Example]) -> list[Example]:
    """Examples whose input and whose answer are of usual length, in order; all where there is none."""
    lengths = [(len(e.query.text), len(e.output)) for e in examples]
    asked, answered = usual_length([a for a, _ in lengths]), usual_length([b for _, b in lengths])
    usual = [e for e, (a, b) in zip(examples, lengths, strict=True) if a <= asked and b <= answered]
    return usual or list(examples)
