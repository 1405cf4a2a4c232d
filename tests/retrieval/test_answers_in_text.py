from __future__ import annotations

import random
import time
from dataclasses import replace

import pytest

from rung.retrieval.answers_in_text import AnswersInText, passages_with, says_something
from rung.retrieval.gold import GoldIndex
from rung.types import Document, Example


def example(id_: str, *answers: str, gold: tuple[str, ...] = ()) -> Example:
    return Example(id_, "Which?", answers[0], answers, gold_ids=gold)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("Tokyo", True),
        ("1811", True),
        ("12", True),
        ("2", False),
        ("Yes.", False),
        ("no", False),
        ("N/A", False),
        ("Not known", False),
        ("", False),
        ("?!", False),
        ("the", True),
        ("东京", True),
        ("京", False),
        ("42 mg", True),
    ],
)
def test_answers_like_yes_and_single_signs_say_nothing_of_a_passage(answer: str, says: bool) -> None:
    assert says_something(answer) is says


def test_the_passages_that_hold_an_answer_are_found_in_one_pass_and_others_are_not() -> None:
    documents = [Document("a", "The boat leaves Tokyo at noon."), Document("b", "It is red.", title="The Old Pier")]
    asked = {
        "in": ("tokyo",),
        "title": ("old pier",),
        "both": ("Old Pier", "at noon"),
        "out": ("Kyoto",),
        "apart": ("boat noon",),
        "yes": ("yes",),
    }
    found = passages_with(documents, [example(id_, *answers) for id_, answers in asked.items()])
    assert {id_: [p.id for p in row] for id_, row in found.items()} == {
        "in": ["a"],
        "title": ["b"],
        "both": ["a", "b"],
        "out": [],
        "apart": [],
        "yes": [],
    }


def test_a_whole_corpus_is_read_once_for_all_answers() -> None:
    drawn = random.Random(0)
    known = [f"w{drawn.randrange(30_000)}" for _ in range(300_000)]
    documents = [Document(str(i), " ".join(known[i * 60 : i * 60 + 60])) for i in range(5_000)]
    rows = [example(str(i), " ".join(known[i * 100 : i * 100 + 2])) for i in range(1_000)]
    started = time.process_time()
    found = passages_with(documents, rows)
    assert time.process_time() - started < 5  # a scan for each example takes minutes
    assert sum(bool(found[str(i)]) for i in range(1_000)) >= 980  # the others stand across two documents


def test_a_hit_counts_where_so_few_passages_hold_the_answer_that_it_is_no_chance() -> None:
    rare = [Document(f"r{i}", f"Thing {i} costs {1000 + i} pounds.") for i in range(80)]
    common = [Document(f"c{i}", f"Thing {100 + i} comes from Spain.") for i in range(20)]
    holds = AnswersInText([*rare, *common])

    def ids(answer: str, hits: list[Document]) -> list[str]:
        return [p.id for p in holds.telling_hits(example("e", answer), hits)]

    assert ids("1002 pounds", rare[:20]) == ["r2"], "one passage alone holds it"
    assert ids("1007 pounds", rare[:20]) == [], "of a hundred passages, the eighth hit is the one by chance too often"
    assert ids("Spain", common) == [], "of twenty in a hundred, even a first hit is chance too often"
    assert ids("pounds", rare[:3]) == []
    few = AnswersInText([*rare, *common[:2]])
    found = few.telling_hits(example("e", "Spain"), [common[0], *rare[:5], common[1]])
    assert [p.id for p in found] == ["c0"], "of few, the first ranks count"


def test_relevant_are_marked_passages_or_else_contained_ones_among_the_hits() -> None:
    passages = [
        Document("fees#1", "The fee is 17 pounds."),
        Document("fees#2", "Refunds take a week."),
        Document("cards", "A lost card costs 7 pounds."),
        Document("boats", "Boats leave at noon."),
        *(Document(f"more{i}", f"Something else {i}.") for i in range(96)),
    ]
    index = GoldIndex(passages)
    assert index.relevant(example("e", "a week", gold=("fees",)), passages) == {"fees#2"}
    assert index.relevant(example("e", "nothing", gold=("fees",)), passages) == {"fees#1", "fees#2"}
    assert index.relevant(example("e", "a week", gold=("fees#1", "cards")), passages) == {"fees#1", "cards"}
    assert index.relevant(example("e", "at noon"), passages) == {"boats"}
    assert index.relevant(example("e", "at noon"), passages[:3]) == set(), "among the hits alone"
    assert index.relevant(example("e", "at noon", gold=("lost",)), passages) == {"boats"}
    assert index.relevant(example("e", "yes"), [Document("boats", "Yes.")]) == set()


def test_passages_are_known_again_under_another_cutting_by_their_words() -> None:
    words = " ".join(f"word{i}" for i in range(60))
    whole = Document("d", words)
    thirds = [replace(whole, id=f"d#{i + 1}", text=" ".join(words.split()[i * 20 : i * 20 + 20])) for i in range(3)]
    halves = [replace(whole, id=f"d#{i + 1}", text=" ".join(words.split()[i * 30 : i * 30 + 30])) for i in range(2)]
    assert GoldIndex([whole]).overlapping([thirds[0]]) == {"d"}
    assert GoldIndex(thirds).overlapping([halves[0]]) == {"d#1", "d#2"}
    assert GoldIndex(halves).overlapping([thirds[0]]) == {"d#1"}
    assert GoldIndex([replace(whole, id="other")]).overlapping([thirds[0]]) == set()
