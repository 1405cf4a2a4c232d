from __future__ import annotations

from rung.retrieval.marking import mark
from rung.types import Document, Example

DOCUMENTS = [Document(f"d{i}", f"The mayor of Town{i} is called Name{i}.") for i in range(30)]
EXAMPLES = [Example(f"e{i}", f"Who is mayor of Town{i}?", f"Name{i}", (f"Name{i}",)) for i in range(30)]


def test_the_document_that_holds_the_answer_is_marked_and_other_answers_are_not_found_by_chance() -> None:
    marks = mark(EXAMPLES, DOCUMENTS)
    assert marks.gold == {f"e{i}": f"d{i}" for i in range(30)}
    assert (marks.n, marks.by_chance) == (30, 0) and 25 <= marks.drawn <= 30
    assert marks.wrong == 0


def test_documents_and_not_passages_are_marked() -> None:
    filler = " ".join(f"Filler sentence number {i} says nothing." for i in range(80))
    marks = mark(EXAMPLES[:3], [Document("long", f"{filler} {DOCUMENTS[1].text}"), *DOCUMENTS[5:]])
    assert marks.gold == {"e1": "long"}


def test_chance_is_measured_by_answers_of_other_rows() -> None:
    """One document names both of two words, so that the answer of another row is found as often as the own one."""
    both = Document("d", "About Town0 it was said left and right.")
    words = ("left", "right")
    examples = [Example(f"e{i}", f"What of Town0 {i}?", words[i % 2], (words[i % 2],)) for i in range(40)]
    assert mark(examples, [both] * 4).gold == {}, "all passages hold it, so none says anything"
    marks = mark(examples, [both, *(Document(f"f{i}", f"About boats {i}.") for i in range(60))])
    assert set(marks.gold.values()) == {"d"}
    assert marks.by_chance == marks.drawn > 10 and marks.wrong == 1


def test_where_all_answers_are_one_chance_cannot_be_measured_and_nothing_is_sure() -> None:
    examples = [Example(f"e{i}", f"Who is mayor of Town{i}?", "Name1", ("Name1",)) for i in range(5)]
    marks = mark(examples, DOCUMENTS)
    assert marks.drawn == 0 and marks.gold and marks.wrong == 1
