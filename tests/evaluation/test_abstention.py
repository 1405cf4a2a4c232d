"""What an answer to an unanswerable question amounts to, and the comparison of two solutions."""

from __future__ import annotations

import pytest

from rung.evaluation.abstention import (
    Unanswered,
    more_invented,
    refuses_by_reference,
    says_nothing,
    share_of,
    what_it_says,
)
from rung.evaluation.statistics import compare
from rung.types import Example


@pytest.mark.parametrize(
    "text",
    [
        "",
        " .\n",
        "I don't know.",
        "I don’t know",
        "Sorry, I do not know the answer.",
        "The passages do not say who founded it.",
        "The provided context does not mention this.",
        "It is not mentioned in the text.",
        "Not stated.",
        "No information is given.",
        "unknown",
        "N/A",
        "I'm sorry, but I can't answer that.",
        "Das weiß ich nicht.",
        "Je ne sais pas.",
    ],
)
def test_an_answer_that_says_that_there_is_none_makes_nothing_up(text: str) -> None:
    assert says_nothing(text) and what_it_says(text, ("Paris",)) == "nothing"


@pytest.mark.parametrize(
    "text",
    [
        "Paris",
        "Not Paris but Lyon",
        "The town is not known for its wine but for its cheese",
        "No. 7 Baker Street",
        "I found it in the passage: Lyon",
        "The document was signed in Lyon",
        "We don't see patients on Sundays.",
        "unknown soldier",
    ],
)
def test_any_other_answer_is_made_up_unless_it_holds_an_accepted_one(text: str) -> None:
    assert not says_nothing(text)
    assert what_it_says(text, ("Marseille",)) == "made up"
    assert what_it_says(f"{text}, that is Marseille", ("Marseille",)) == "right"


def test_the_answer_that_the_task_names_is_known_in_any_spelling_and_may_be_followed_by_more() -> None:
    assert says_nothing("not in the handbook!", "Not in the handbook.")
    assert says_nothing("Not in the handbook: ask your manager.", "Not in the handbook.")
    assert says_nothing("none", "None") and not says_nothing("None other than Lyon", "None")


def test_a_row_is_unanswerable_where_an_accepted_answer_is_what_the_task_names() -> None:
    row = Example("1", "Who?", "not in the handbook", ("not in the handbook",))
    assert refuses_by_reference(row, "Not in the handbook.")
    assert not refuses_by_reference(row, None) and not refuses_by_reference(row, "Unknown")


def test_two_solutions_are_compared_on_the_rows_that_both_were_asked_by_the_usual_paired_test() -> None:
    ids = [str(i) for i in range(40)]
    base = Unanswered({i: "made up" if int(i) < 10 else "nothing" for i in ids}, {})
    tuned = Unanswered({i: "made up" if int(i) < 25 else "right" for i in ids[:-2]}, {})
    found = more_invented(("rag", base), ("rag_lora", tuned), {}, 0)
    a, b = [float(i < 10) for i in range(38)], [float(i < 25) for i in range(38)]
    assert found == compare("rag", "rag_lora", a, b, "dev") and found.difference == pytest.approx(15 / 38)
    assert more_invented(("rag", base), ("lora", Unanswered({}, {})), {}, 0) is None


def test_shares_have_intervals_over_groups_and_there_is_none_without_rows() -> None:
    said = Unanswered({"a": "made up", "b": "right", "c": "nothing", "d": "made up"}, {"e": "nothing", "f": "right"})
    invented, refused = share_of(said.invented, {}, 0), share_of(said.refused, {}, 0)
    assert invented is not None and refused is not None
    assert (invented.mean, invented.n, refused.mean, refused.n) == (0.5, 4, 0.5, 2)
    grouped = share_of(said.invented, {"a": "g", "b": "g"}, 0)
    assert grouped is not None and (grouped.low, grouped.high) != (invented.low, invented.high)
    assert share_of({}, {}, 0) is None
