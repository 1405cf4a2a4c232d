from __future__ import annotations

import random
from dataclasses import replace

import pytest

from rung.data import near_duplicates as module
from rung.data.near_duplicates import conflicting_pairs, content_digest, near_duplicate_groups, near_duplicates
from rung.types import Example

LONG = "I ordered a new debit card for my account last Monday and it has still not arrived at my home address"

HAN = "我上星期一为我的账户申请了一张新的借记卡但是到现在它还没有寄到我家请问你们可以帮我查一下"


def example(i: int | str, text: str, output: str = "a", **more: str) -> Example:
    return Example(str(i), text, output, (output,), row=f"e.jsonl, line {i}", **more)


def grouped(*texts: str, outputs: tuple[str, ...] = ()) -> bool:
    pairs = zip(texts, outputs or ("a",) * len(texts), strict=True)
    return len(set(near_duplicate_groups([example(i, t, o) for i, (t, o) in enumerate(pairs)]).values())) == 1


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Where is my card?", "where is  my card"),
        (LONG, LONG + " yet"),
        (f"{LONG}, what can I do to get it soon?", f"{LONG}, waht can I do to get it soon?"),
        (LONG + " please help", "Please: " + LONG),
        ("卡在哪里?", "卡在哪里"),
        (f"{HAN}吗", f"{HAN}么"),
        ("???", "???"),
    ],
)
def test_near_duplicates_are_one_group(a: str, b: str) -> None:
    assert grouped(a, b, outputs=("x", "y"))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("What is the capital of France?", "What is the capital of Spain?"),
        ("2 + 2", "2 - 2"),
        ("Is a < b?", "Is a > b?"),
        ("卡在哪里", "卡坏了"),
        ("法国的首都是什么", "英国的首都是什么"),
        (f"{HAN}三吗", f"{HAN}五吗"),
        (f"{HAN}3", f"{HAN}4"),
        ("???", "!!!"),
        (f"{LONG} in Paris", f"{LONG} in Rome"),
        (f"{LONG} 12345", f"{LONG} 12346"),
    ],
)
def test_filled_in_templates_are_not_one_group(a: str, b: str) -> None:
    assert not grouped(a, b, outputs=("x", "y"))


def test_a_long_template_with_one_answer_for_many_does_not_chain_everything() -> None:
    examples = [example(i, f"{LONG} {LONG} said customer number {i} of branch {i * 7}", "same") for i in range(60)]
    assert len(set(near_duplicate_groups(examples).values())) == 60


def test_the_same_question_about_another_context_is_another_example() -> None:
    a, b = example(1, "Who won?", context="Ann beat Bob in the final"), example(2, "Who won?", context="Cy won it")
    assert len(set(near_duplicate_groups([a, b]).values())) == 2
    assert conflicting_pairs([a, replace(b, output="b", references=("b",))]) == []


def test_groups_of_the_user_join_with_near_duplicates() -> None:
    examples = [
        example("c", "Where is my card?", group="u1"),
        example("b", "where is my card", group="u2"),
        example("d", "something quite different", group="u2"),
        example("a", "nothing like the others"),
    ]
    assert near_duplicate_groups(examples) == {"a": "a", "b": "b", "c": "b", "d": "b"}


def test_groups_do_not_depend_on_the_order_of_examples() -> None:
    rng = random.Random(0)
    words = [f"w{i}" for i in range(40)]
    examples = [example(i, " ".join(rng.choices(words, k=rng.randint(1, 12)))) for i in range(150)]
    examples += [example(f"{e.id}x", e.input + " too") for e in examples[:50]]
    groups = near_duplicate_groups(examples)
    for _ in range(3):
        rng.shuffle(examples)
        assert near_duplicate_groups(examples) == groups


def test_minhash_finds_the_groups_that_comparing_all_with_all_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(1)
    examples = [example(i, " ".join(f"w{rng.randrange(500)}" for _ in range(20))) for i in range(120)]
    examples += [example(f"{e.id}x", e.input + " extra") for e in examples[:60]]
    exact = near_duplicate_groups(examples)
    assert len(set(exact.values())) == 120
    monkeypatch.setattr(module, "EXACT_UP_TO", 0)
    assert near_duplicate_groups(examples) == exact


def test_minhash_gives_the_same_groups_in_whatever_order_the_examples_come(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(2)
    examples = [example(i, " ".join(f"w{rng.randrange(300)}" for _ in range(rng.randint(1, 15)))) for i in range(200)]
    examples += [example(f"{e.id}x", e.input + " too") for e in examples[:90]]
    monkeypatch.setattr(module, "EXACT_UP_TO", 0)
    groups = near_duplicate_groups(examples)
    assert len(set(groups.values())) < 280
    for _ in range(3):
        rng.shuffle(examples)
        assert near_duplicate_groups(examples) == groups


def test_pairs_are_computed_once_and_handed_on() -> None:
    examples = [example(1, LONG), example(2, "other"), example(3, LONG + " yet", "b"), example(4, LONG.upper())]
    pairs = near_duplicates(examples)
    assert list(pairs) == [(0, 2), (0, 3)]
    assert near_duplicate_groups(examples, pairs) == near_duplicate_groups(examples) == {"1": "1", "2": "2", "3": "1", "4": "1"}
    assert near_duplicate_groups(examples, [])["3"] == "3"
    assert conflicting_pairs(examples, pairs) == conflicting_pairs(examples) == [(examples[0], examples[2])]


def test_a_digest_is_that_of_the_words() -> None:
    assert content_digest(example(1, "Where is my card?")) == content_digest(example(2, "where is  my card", "b"))
    assert content_digest(example(1, "Where is my card?")) != content_digest(example(1, "Where is my cat?"))
    assert content_digest(example(1, "???")) != content_digest(example(1, "!!!"))


def test_many_examples_of_few_templates_take_no_square_of_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """30 templates, each filled in 80 times: 94,800 pairs share most words and are no near-duplicates."""
    shared = [" ".join(f"word{kind}x{i}" for i in range(25)) for kind in range(30)]
    examples = [example(i, f"{shared[i % 30]} account {i}", str(i)) for i in range(2_400)]
    compared = []
    monkeypatch.setattr(module, "_same_template", lambda a, b: compared.append((a, b)) or True)
    assert len(near_duplicates(examples)) == 0
    assert 0 < len(compared) <= module.MOST_REFUSALS * len(examples) / 2
