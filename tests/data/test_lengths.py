"""One row that is far longer than the others decides nothing for them."""

from __future__ import annotations

from rung.data.lengths import of_usual_length, usual_length
from rung.types import Example


def test_one_length_of_millions_is_unusual_and_a_long_tail_is_usual() -> None:
    assert usual_length([20] * 35 + [9_000_000]) == 20
    assert usual_length([30] * 12 + [300_000, 310_000]) == 30
    tail = [int(100 * 1.06**i) for i in range(100)]
    assert usual_length(tail) == tail[-1]


def test_what_many_rows_have_is_usual() -> None:
    assert usual_length([4] * 80 + [30_000] * 20) == 30_000
    assert usual_length([5, 1_900]) == 1_900
    assert usual_length([]) == 0


def test_an_unusual_input_or_answer_leaves_a_row_out() -> None:
    rows = [Example(str(i), "a question", "yes", ("yes",)) for i in range(20)]
    long_input = Example("in", "word " * 60_000, "yes", ("yes",))
    long_answer = Example("out", "a question", "word " * 60_000, ("x",))
    assert of_usual_length([*rows, long_input, long_answer]) == rows
    assert of_usual_length([long_input]) == [long_input]
