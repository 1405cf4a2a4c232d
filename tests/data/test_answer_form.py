"""Whether the white space of answers counts."""

from __future__ import annotations

import pytest

from rung.data.answer_form import found_whitespace

LABELS = ["refund", "delivery "] * 10


@pytest.mark.parametrize(
    ("outputs", "found", "why"),
    [
        (["x = 1\ny = 2", "    return x"] * 5, "counts", "of 10 answers 5 hold line breaks and 5 are indented"),
        (["\treturn", "pass"] * 5, "counts", "5 are indented"),
        (["one\r\ntwo"] * 3, "counts", "3 hold line breaks"),
        (["\n    return x"] * 3, "counts", "3 are indented"),
        (LABELS, "folded", "no answer holds a line break or is indented"),
        ([" refund\n", " delivery\n"] * 5, "folded", "no answer"),  # as prompt/completion files write it
        ([*LABELS, "a\nb"], "folded", "of 21 answers only 1 hold line breaks"),
        ([*LABELS * 10, "a\nb", "  c"], "folded", "of 202 answers only"),
        ([], "folded", "no answer"),
        (["", " \n"], "folded", "no answer"),
    ],
)
def test_white_space_counts_where_answers_hold_lines_or_indentation(outputs: list[str], found: str, why: str) -> None:
    assert found_whitespace(iter(outputs))[0] == found
    assert why in found_whitespace(outputs)[1]
