"""The bench of searches judges every search alike, divides as a run does, and its made documents are read back."""

from __future__ import annotations

from pathlib import Path

import pytest

import document_sets
import retrieval
from retrieval_judge import Judge
from rung.data.corpus import read_corpus
from rung.data.examples import read_sets
from rung.data.task_file import read_task
from rung.ladder.checking import read
from rung.retrieval.answers_in_text import contains_answer
from rung.types import Document, Example


def words(text: str) -> int:
    return len(text.split())


def example(id: str, answer: str, *gold: str) -> Example:
    return Example(id, f"question {id}", answer, (answer,), gold_ids=gold)


DOCUMENTS = {"a": Document("a", "far " * 30 + "the code is K7 today"), "b": Document("b", "the code is K7 as well")}


def test_a_text_is_right_where_it_is_of_a_marked_document_and_contains_the_answer() -> None:
    judge = Judge([example("q", "K7", "a")], DOCUMENTS, words)
    assert judge.right(0, ("a", "the code is K7 today"))
    assert not judge.right(0, ("a", "far far far"))
    assert not judge.right(0, ("b", "the code is K7 as well"))


def test_any_text_of_a_marked_document_is_right_where_none_contains_the_answer_or_answers_are_labels() -> None:
    assert Judge([example("q", "seven", "a")], DOCUMENTS, words).right(0, ("a", "far far"))
    assert Judge([example("q", "K7", "a")], DOCUMENTS, words, labels=True).right(0, ("a", "far far"))


def test_a_text_that_reaches_over_the_tokens_is_cut_there(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Judge([example("q", "K7", "a")], DOCUMENTS, words)
    before, late = "far " * 590, "far " * 595 + "the code is K7 today"
    shown = judge.measured([[("b", before), ("a", "the code is K7 today")]])
    assert shown.within == {600: (1.0,), 1200: (1.0,)}
    assert judge.measured([[("a", late + " far" * 60)]]).within == {600: (1.0,), 1200: (1.0,)}
    assert judge.measured([[("a", "far " * 700 + "the code is K7")]]).within == {600: (0.0,), 1200: (1.0,)}


def test_ranks_are_those_of_right_texts() -> None:
    judge = Judge([example("q", "K7", "a"), example("r", "K7", "b")], DOCUMENTS, words)
    found = judge.measured([[("a", "far"), ("a", "is K7 today")], [("a", "is K7 today")]])
    assert found.recall_5 == (1.0, 0.0)
    assert found.record["recall"]["1"]["mean"] == 0.0
    assert found.record["mrr"]["mean"] == 0.25


def test_passages_that_stand_in_inputs_become_documents(tmp_path: Path) -> None:
    rows = "".join(
        f'{{"id": "{i}", "input": "Passage: text {i // 2}\\nQuestion: what {i}?", "output": "t"}}\n' for i in range(16)
    )
    (tmp_path / "examples.jsonl").write_text(rows, "utf-8")
    (tmp_path / "task.yaml").write_text("instruction: answer\nexamples: examples.jsonl\n", "utf-8")
    data = retrieval.with_documents(read(read_task(tmp_path / "task.yaml")), None)
    assert [d.text for d in data.documents] == [f"text {n}" for n in range(8)]
    assert [(e.input, e.gold_ids) for e in data.examples[:3]] == [
        ("what 0?", ("p0000",)),
        ("what 1?", ("p0000",)),
        ("what 2?", ("p0001",)),
    ]


@pytest.mark.parametrize("name", document_sets.SETS)
def test_a_made_set_is_the_same_each_time_and_its_documents_hold_the_answers(name: str, tmp_path: Path) -> None:
    made = document_sets.SETS[name]()
    assert made == document_sets.SETS[name]()
    assert len(made.rows) >= 150
    task = read_task(made.write(tmp_path / name) / "task.yaml")
    rows = [e for part in read_sets(task).values() for e in part]
    assert {r.answer for r in made.rows} == {e.output for e in rows}
    assert task.corpus is not None
    documents = {d.id: d for d in read_corpus(task.corpus)}
    assert len(documents) == len(made.files)
    unheld = [e.id for e in rows if not any(contains_answer(documents[i], e) for i in e.gold_ids)]
    assert not unheld
