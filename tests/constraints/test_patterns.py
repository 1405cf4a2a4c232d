"""Python's patterns as grammars hold them: never less than `re.fullmatch` matches, and what is left out is named."""

from __future__ import annotations

import re

import llguidance
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rung.constraints import fault_of, fault_of_constraint, loosened
from rung.constraints.patterns import ANYTHING, loosened_pattern, matches
from rung.types import Constraint


def lets_through(pattern: str, text: str) -> bool:
    matcher = llguidance.LLMatcher(
        llguidance.LLTokenizer("byte"), llguidance.LLMatcher.grammar_from_regex(loosened_pattern(pattern)[0])
    )
    written = list(text.encode())
    return bool(matcher.try_consume_tokens(written) == len(written) and matcher.is_accepting())


@pytest.mark.parametrize(
    ("pattern", "text", "left_out"),
    [
        (r"^[A-Z]{2}-\d{3}$", "AB-123", ()),
        (r"\A(?:ab|^cd$)\Z", "cd", ()),
        (r"(?i)yes|NO", "nO", ()),
        (r"(?x) a \ b  # and a remark", "a b", ()),
        (r"(?s)a.b", "a\nb", ()),
        (r"a+?b*?(?P<name>c)", "abc", ()),
        (r"5 \w+", "5 m²", ()),
        (r"\d\D\s\S", "٣é \u200b", ()),
        (r"[^\W\d_]+", "Straße", ()),
        (r"(?a:\w+)\s", "ab\t", ()),
        (r"[\]\[^&~-]+#<>", "]^&-#<>", ()),
        (r"(?!000)\d{3}", "001", ("look-aheads",)),
        (r"\d+(?<!0)", "101", ("look-behinds",)),
        (r"\bAB\b-\d+", "AB-1", ("word borders",)),
        (r"(a+)-\1", "aa-aa", ("back-references",)),
        (r"(a)?(?(1)b|c)", "c", ("back-references",)),
        (r"(?m)^a$\n^b$", "a\nb", ("anchors inside",)),
        (r"(?>a+)b", "aab", ("atomic groups",)),
        (r"x++y", "xxy", ("possessive quantifiers",)),
    ],
)
def test_a_pattern_means_what_it_means_to_python(pattern: str, text: str, left_out: tuple[str, ...]) -> None:
    assert re.fullmatch(pattern, text)
    assert lets_through(pattern, text)
    assert loosened(Constraint("regex", pattern)).checked_after == left_out


@pytest.mark.parametrize(
    ("pattern", "text"), [(r"^a$", "^a$"), (r"(?i)yes", "maybe"), (r"\d{3}", "12"), (r"a|b", "ab")]
)
def test_what_a_grammar_can_hold_is_held(pattern: str, text: str) -> None:
    assert not lets_through(pattern, text)


def test_what_is_left_out_is_checked_after_the_answer() -> None:
    constraint = Constraint("regex", r"(?!000)\d{3}")
    assert lets_through(str(constraint.value), "000")
    assert fault_of(constraint, "000") == r"'000' does not match (?!000)\d{3}"
    assert fault_of(constraint, "001") is None
    assert fault_of_constraint(Constraint("regex", "(")) is not None


@pytest.mark.parametrize(
    ("pattern", "text"), [(r"(\w+\s?)+", "a" * 60 + "."), (r"(a|aa)+", "a" * 60 + "b"), (r"(.*)*x", "y" * 60)]
)
def test_a_pattern_with_many_ways_to_fail_fails_at_once(pattern: str, text: str) -> None:
    assert not matches(pattern, text) and not matches(f"^{pattern}$", text, search=True)
    good = text[:-1] + ("x" if pattern.endswith("x") else "a")
    assert matches(pattern, good) and matches(pattern, f"? {good}", search=True)


_ATOMS = st.sampled_from(
    ["a", "b", ".", r"\d", r"\w", r"\b", "[ab]", "[^a]", "^", "$", "(?=a)", "(?:a|b)", "(a)", " ", "(?:a|b*)"]
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(_ATOMS, st.sampled_from(["", "*", "+?", "?", "{2}"])), max_size=5), st.text("ab1 ", max_size=6)
)
def test_whatever_python_matches_may_be_written(parts: list[tuple[str, str]], text: str) -> None:
    pattern = "".join(atom + ("" if atom in ("^", "$", r"\b") else times) for atom, times in parts)
    if re.fullmatch(pattern, text):
        assert lets_through(pattern, text)
    for search in (True, False):
        assert matches(pattern, text, search=search) == bool((re.search if search else re.fullmatch)(pattern, text))


@pytest.mark.parametrize(
    ("pattern", "text"), [("ab", "xaby"), ("^ab", "abx"), ("ab$", "xab"), ("^a|b$", "xb"), (r"\bab(?!c)", "x ab")]
)
def test_a_pattern_that_is_searched_for_may_stand_anywhere(pattern: str, text: str) -> None:
    found, _ = loosened_pattern(pattern, search=True)
    assert re.search(pattern, text) and re.fullmatch(found.replace("(?s:.*)", r"[\s\S]*"), text)
    assert found != ANYTHING
