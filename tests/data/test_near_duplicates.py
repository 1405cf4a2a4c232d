from __future__ import annotations

import random
from dataclasses import replace

import pytest

from rung.data import minhash
from rung.data import near_duplicates as module
from rung.data.conflicts import alike_share, conflicting_pairs, same_answers
from rung.data.near_duplicates import content_digest, how_grouped, near_duplicate_groups, near_duplicates
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
        ("My card is stolen. Help!", "Help! My card is stolen."),
        ("How do I cancel my order?", "How do I canecl my order?"),
        ("He paid 5-0 for a ticket, he says, and left at 8:00", "He paid 50 for a ticket he says and left at 800"),
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
        ("What is C#?", "What is C?"),
        ("1 23 apples", "12 3 apples"),
        ("Café", "Cafe"),
        ("Is 5 > 3 for all of the numbers here?", "Is 5 < 3 for all of the numbers here?"),
    ],
)
def test_filled_in_templates_are_not_one_group(a: str, b: str) -> None:
    assert not grouped(a, b, outputs=("x", "y"))


@pytest.mark.parametrize(
    "changed",
    [
        f"{LONG}. I am a customer for ten years",
        f"Ticket 4711 {LONG}",
        LONG[: int(0.7 * len(LONG))],
        f"{LONG} {LONG}",
        LONG.replace("debit", "debbit").replace("account", "acount"),
        f"<div class='a'><h1>x</h1><img src='a.png'>{LONG}</div>",
    ],
)
def test_a_text_with_words_added_left_out_or_misspelt_is_the_same_text(changed: str) -> None:
    assert grouped(LONG, changed, outputs=("x", "y"))


@pytest.mark.parametrize(
    "form", ["Ticket #4711: {}", "{} I wait since May.", "I wait since May. {}", "{}\n\nTen lines"]
)
def test_a_sentence_or_a_heading_at_a_filled_in_template_makes_no_other_text(form: str) -> None:
    names = ["Quito", "Lima", "Oslo", "Riga", "Bern", "Rome", "Kiev", "Doha", "Male", "Lome", "Suva", "Apia"]
    asked = [example(n, f"What is the mayor of {n} called?", n) for n in names]
    more = [example(f"{n}x", form.format(e.input), e.id) for n, e in zip(names, asked[:4], strict=False)]
    groups = near_duplicate_groups([*asked, *more])
    assert len(set(groups.values())) == len(names)
    assert all(groups[e.id] == groups[e.id.rstrip("x")] for e in more)


def test_what_many_texts_begin_with_or_goes_on_within_a_sentence_makes_no_group() -> None:
    things = ["lamp", "kettle", "piano", "tent", "carpet", "notebook", "blanket", "bicycle", "teapot", "hammock", "rug"]
    formula = "I have a question for you."
    goes_on = [example(i, f"{formula} Where is the {thing}?") for i, thing in enumerate(things)]
    assert near_duplicates([example("f", formula), *goes_on]) == []
    assert near_duplicates([example(1, "Show all staff by name"), example(2, "Show all staff by name and age")]) == []


def test_two_misspelt_words_in_a_short_text_are_no_other_words() -> None:
    a, b = "Could somebody look into departures on holidays for a family of four", "Could somebody look into"
    assert grouped(a, f"{b} deparures on holiadys for a family of four", outputs=("x", "y"))
    assert not grouped(a, f"{b} arrivals on holidays for a family of twelve", outputs=("x", "y"))


def test_misspelt_words_may_stand_elsewhere_in_the_text_too() -> None:
    text = f"Which card was it? {LONG}, that card"
    assert grouped(text, text.replace("Monday", "Mondey").replace("that card", "that crad"), outputs=("x", "y"))


def test_words_added_behind_what_all_texts_share_make_another_text() -> None:
    shared = "Tables: staff with name, city, age and pay; orders with day, price, number and state."
    asked = ["staff by name", "orders by price", "staff by age", "orders by day", "staff by pay", "orders by state"]
    asked += [f"{text} in falling order" for text in asked]
    examples = [example(i, f"{shared} Show all {text}", str(i)) for i, text in enumerate(asked)]
    assert near_duplicates(examples) == []


def test_no_conflict_is_claimed_where_words_were_added_that_may_matter() -> None:
    a, b = example(1, LONG, "x"), example(2, f"{LONG} and now I have found it again behind the door", "y")
    assert near_duplicates([a, b]) == [(0, 1)]
    assert conflicting_pairs([a, b]) == []


def test_what_follows_one_long_instruction_makes_no_group() -> None:
    rng = random.Random(4)
    words = [f"w{i}".translate(str.maketrans("0123456789", "abcdefghij")) for i in range(2_000)]
    told = [" ".join(rng.choices(words, k=300)) for _ in range(25)]
    examples = [example(i, f"{told[i % 25]} {' '.join(rng.choices(words, k=28))}", str(i)) for i in range(375)]
    assert near_duplicates(examples) == []


def test_other_characters_in_a_chinese_template_make_no_group() -> None:
    cities = ["\u5317\u4eac", "\u4e0a\u6d77", "\u6df1\u5733", "\u6210\u90fd", "\u91cd\u5e86"]
    days = ["\u4eca\u5929", "\u540e\u65e5", "\u4e0b\u5468"]
    text = "\u6211\u60f3\u95ee{}{}\u7684\u98ce\u529b\u5927\u4e0d\u5927\u9002\u5408\u722c\u5c71\u6e38\u6cf3\u5417"
    examples = [example(c + d, text.format(c, d), c + d) for c in cities for d in days]
    assert near_duplicates(examples) == []


def test_two_words_that_both_stand_in_other_texts_are_no_misspelling_of_each_other() -> None:
    names = ["Rob", "Bob"]
    text = "Is {} Miller still a customer of the bank in {} or only a visitor?"
    places = {"Rob": ["Oslo", "Bern"], "Bob": ["Oslo", "Lima"]}
    examples = [example(f"{n}{c}", text.format(n, c), f"{n}{c}") for n in names for c in places[n]]
    assert near_duplicates(examples) == [(0, 2)]
    assert conflicting_pairs(examples) == []


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
    assert (
        near_duplicate_groups(examples, pairs)
        == near_duplicate_groups(examples)
        == {"1": "1", "2": "2", "3": "1", "4": "1"}
    )
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
    monkeypatch.setattr(module._Texts, "_same_template", lambda self, i, j, only: compared.append((i, j)) or True)
    assert len(near_duplicates(examples)) == 0
    assert 0 < len(compared) <= minhash.MOST_REFUSALS * len(examples) / 2


def test_two_words_a_letter_apart_in_a_slot_of_a_template_are_two_words() -> None:
    countries = ["Iran", "Iraq", "Peru", "Chad", "Togo"]
    examples = [example(f"{t}{c}", t.format(c), c) for c in countries for t in ("Where is {}?", "Who rules {} now?")]
    assert len(set(near_duplicate_groups(examples).values())) == len(examples)


def test_a_template_that_is_filled_in_with_similar_words_makes_no_group() -> None:
    things = ["lamp", "kettle", "piano", "tent", "carpet", "notebook", "blanket", "bicycle", "teapot", "hammock", "rug"]
    text = "What colour is the {} of the {} hall?"
    rows = [
        example(f"{t}{h}", text.format(t, h), f"{t}{h}") for t in things for h in ("east", "west", "north", "south")
    ]
    assert near_duplicates(rows) == []


def test_a_misspelt_word_is_one_that_stands_nowhere_else() -> None:
    texts = [f"{a} {b} card" for a in ("Lost my", "Block the", "Where is") for b in ("new", "old", "debit", "gold")]
    examples = [example(i, text, str(i)) for i, text in enumerate(texts)]
    assert near_duplicates(examples) == []
    assert near_duplicates([*examples, example("x", "Lost my new crad", "other")]) == [(0, len(examples))]


def test_two_names_that_differ_in_a_letter_are_grouped_but_no_conflict_is_claimed() -> None:
    names = ["Iceland", "Ireland", "Portugal", "Hungary"]
    examples = [example(i, f"What is the capital of {name}?", name) for i, name in enumerate(names)]
    assert near_duplicates(examples) == [(0, 1)]
    assert conflicting_pairs(examples) == []


def test_the_same_words_in_another_order_are_a_group_and_no_conflict() -> None:
    examples = [example(1, "A train from Rome to Bari", "x"), example(2, "a train from Bari to Rome", "y")]
    assert near_duplicates(examples) == [(0, 1)]
    assert conflicting_pairs(examples) == []
    assert near_duplicates([example(1, "Rome to Bari"), example(2, "Bari to Rome")]) == []


def test_a_conflict_is_one_under_every_disguise() -> None:
    a, b = example(1, "Where is my new card?", "x"), example(2, "Hello, wh\u0435re is m\u200by new <b>card</b>", "y")
    assert conflicting_pairs([a, b]) == [(a, b)]
    assert conflicting_pairs([a, replace(b, output="X ", references=("X ",))]) == []


def test_answers_are_compared_in_their_normal_form() -> None:
    a, b = example(1, "q", "caf\u00e9 no"), example(2, "q", " CAFE\u0301\u00a0n\u200bo")
    assert same_answers(a, b)
    assert not same_answers(a, example(3, "q", "cafe no"))


def test_a_formula_that_many_mails_quote_makes_no_group() -> None:
    quoted = "On Monday, Ann wrote:\n> Thank you for your message.\n> We will see to it."
    subjects = ["lamp", "kettle", "piano", "tent", "keyboard", "notebook", "blanket", "bicycle"]
    examples = [example(i, f"What does the {thing} cost with you?\n\n{quoted}") for i, thing in enumerate(subjects)]
    assert len(set(near_duplicate_groups(examples).values())) == len(subjects)
    plain = [example(f"p{i}", f"What does the {thing} cost with you?") for i, thing in enumerate(subjects)]
    assert len(set(near_duplicate_groups([*examples, *plain]).values())) == len(subjects)


def test_long_versions_of_one_text_are_a_group_and_take_seconds() -> None:
    rng = random.Random(3)
    words = [f"w{i:04}".translate(str.maketrans("0123456789", "abcdefghij")) for i in range(3_000)]
    examples = []
    for family in range(4):
        base = rng.choices(words, k=6_000)
        for version in range(4):
            start = rng.randrange(5_500)
            text = [*base[:start], *rng.choices(words, k=300), *base[start + 300 :]]
            examples.append(example(f"{family}{version}", " ".join(text), rng.choice("abc")))
    groups = near_duplicate_groups(examples)
    assert len(set(groups.values())) == 4
    assert all(groups[e.id] == f"{e.id[0]}0" for e in examples)


def test_a_rare_answer_in_common_tells_two_phrasings_from_a_template() -> None:
    names = ["Quito", "Lima", "Oslo", "Riga", "Bern", "Rome", "Kiev", "Doha", "Male", "Lome", "Suva", "Apia"]
    asked = [example(f"a{n}", f"Please tell me now which country has the capital named {n}", n) for n in names]
    told = [example(f"b{n}", f"So what may a country be called with the capital named {n}", n) for n in names]
    groups = near_duplicate_groups([*asked, *told])
    other = near_duplicate_groups([*asked, *(replace(e, output="x", references=("x",)) for e in told)])
    assert len(set(other.values())) == 24
    assert len(set(groups.values())) == 12


def test_what_made_the_groups_is_recorded() -> None:
    assert {"normal_form", "folding", "similar", "unicode"} <= how_grouped().keys()


def test_likeness_is_one_under_a_disguise_and_less_for_a_change() -> None:
    a = example(1, LONG)
    assert alike_share(a, example(2, f"> {LONG.upper()}")) == 1
    assert 0.8 < alike_share(a, example(3, LONG + " yet again")) < 1


def test_large_data_tell_what_is_being_done(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    near_duplicates([example(i, f"text {i}") for i in range(30)], said.append)
    assert said == []
    monkeypatch.setattr(module, "_MANY", 10)
    near_duplicates([example(i, f"text {i}") for i in range(30)], said.append)
    assert said == ["Comparing inputs: 10 of 30 read.", "Comparing inputs: 20 of 30 read."]
