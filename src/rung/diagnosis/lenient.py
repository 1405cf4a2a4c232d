"""Answers read leniently: is the right content there, in the wrong shape?

There are two ways, and neither changes the answer's text. A *reading* is a part of the text that the metric then
scores: the stated answer, the first line, the first JSON object, the stated number. *Containment* asks whether an
accepted answer stands in the text as whole words. A long text contains much by chance, so containment counts only
where no other known answer stands beside it, and not where pieces of the input of the same length are contained too.
Knows nothing of models and solutions.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import groupby, pairwise
from pathlib import Path

from rung.evaluation.metrics import load_metric
from rung.evaluation.scorer import Scorer
from rung.text import is_character, seen, units
from rung.types import Answer, Example

BY_CHANCE = 0.1
"""Containment is no evidence when at least this share of equally long pieces of the input is contained too."""

COMMON = 0.05
"""A word in at least this share of the answers, and in at least two of them, belongs to their form."""

_STATED = (
    re.compile(r"\banswer\b[ \t*_]*[:：][\s*_]*", re.IGNORECASE),
    re.compile(r"\banswer\b[ \t*_]*is\b[\s*_:]*", re.IGNORECASE),
)
_FENCE = re.compile(r"```[\w-]*[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)
_ONE_NUMBER = re.compile(r"[-+−$€£¥₹~ ]*\d[\d,]*(?:\.\d+)?\s*%?\.?")
_NUMBER = re.compile(r"(?<![\w.])[-−]?[$€£¥₹]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?!\w)")
_ARTICLES = frozenset({"a", "an", "the"})
_LABEL_WORDS = 2  # in "Label: answer"
_CLOSINGS = 20  # closing brackets that are tried as the end of an object


@dataclass(frozen=True)
class Yardstick:
    """How this task's answers are judged.

    right: the score from which an answer is right. labels: the closed set of answers, if there is one. known: answers
    of the task's train examples; a contained answer beside one of them was not singled out. numeric: the metric reads
    the number of an answer and nothing else.
    """

    scorer: Scorer
    right: float
    labels: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    numeric: bool = False

    @cached_property
    def known_bare(self) -> frozenset[str]:
        """The known answers as `bare` has them, but for single characters, which stand in any text."""
        return frozenset(name for name in map(bare, self.known) if len(name) > 1)

    def accepts(self, readings: Sequence[str], example: Example) -> bool:
        """Whether one of the readings is right. A reading that the metric cannot score is not right."""
        answers = [Answer(example.query, r, example.references) for r in dict.fromkeys(readings)]
        return any(outcome.score >= self.right for outcome in self.scorer.score(answers))


def yardstick(scorer: Scorer, right: float, labels: Sequence[str] | None, train: Sequence[Example]) -> Yardstick:
    """As the metric, the labels and the train answers have it."""
    known = tuple(dict.fromkeys(e.output for e in train))
    plain = Yardstick(scorer, right, tuple(labels or ()), known)
    return Yardstick(scorer, right, plain.labels, known, _reads_numbers(plain, train))


def reads_right(text: str, example: Example, by: Yardstick, *, passages: str = "") -> bool:
    """Whether the text holds a right answer when it is read leniently.

    passages: those of the prompt. What is merely copied from them, or from the input, is no answer. A judge reads
    leniently already, so nothing is read for it. Never raises for one bad text.
    """
    references = tuple(r for r in example.references if r.strip())
    if not text.strip() or not references or by.scorer.metric.needs_judge:
        return False
    if all(map(is_json, references)):
        return any(_json_right(value, example, by) for value in _first_json(text))
    if all(_ONE_NUMBER.fullmatch(r.strip()) for r in references) and not by.labels:
        number = _stated_number(text)
        return by.accepts([number], example) or _scorer("numeric_match").one(number, references) == 1.0
    if by.labels:
        return by.accepts(_only_label(text, by.labels), example)
    readings = list(_readings(text))
    accepted = {bare(r) for r in references} - {""}
    if accepted & set(map(bare, readings)) or by.accepts(readings, example):
        return True
    return any(_contains(text, reference, example, by, passages) for reference in references)


def bare(text: str) -> str:
    """Words without case, punctuation and articles, with one space between; all words where nothing else remains.

    A sign of a script without spaces (Chinese, Japanese, Thai) is a word as `rung.text.units` has it.
    """
    found = _words(text)
    return " ".join([w for w in found if w not in _ARTICLES] or found)


def stated(text: str) -> str:
    """The line behind the last "Answer:", or else behind the last "answer is"; the whole text without one.

    What begins with a bracket or a fence goes on to the end of the text.
    """
    return next(iter(_stated(text)), text.strip())


def vote(text: str, *, numeric: bool) -> str:
    """What two samples must share to vote for one answer: the last number, or the text, case and space aside."""
    numbers = _NUMBER.findall(text) if numeric else []
    return str(numbers[-1]) if numbers else " ".join(text.casefold().split()).rstrip(".")


def derivable(example: Example, common: frozenset[str]) -> bool:
    """Whether the answer may be copied or computed from the input, so that it need not be a known fact.

    common: words of the answers' form (see `common_words`). True for a number where the input holds two numbers or
    more, and where every word of the answer stands in the input or is common. Of a script without spaces, every pair
    of neighbouring characters must: single ones stand in any text.
    """
    text = example.query.text
    output = example.output.strip()
    if _ONE_NUMBER.fullmatch(output) and len(_NUMBER.findall(text)) >= 2:
        return True
    return _terms(output) <= _terms(text) | common


def common_words(train: Sequence[Example]) -> frozenset[str]:
    """Words in at least `COMMON` of the answers, and in at least two: labels, keys, keywords of a format."""
    count = Counter(word for e in train for word in _terms(e.output))
    return frozenset(word for word, n in count.items() if n >= max(2, COMMON * len(train)))


def _terms(text: str) -> set[str]:
    """The words of `bare`; of characters of a script without spaces their pairs, or the character that stands alone."""
    terms: set[str] = set()
    for together, run in groupby(bare(text).split(), is_character):
        words = list(run)
        terms |= {a + b for a, b in pairwise(words)} if together and len(words) > 1 else set(words)
    return terms


# ---- readings -------------------------------------------------------------------------------


@cache
def _scorer(name: str) -> Scorer:
    """A built-in metric, whatever the task's own is."""
    return Scorer(load_metric(name, Path()))


def _words(text: str) -> list[str]:
    """Words in lower case, articles among them. An underscore separates words, as in many labels."""
    found = units(seen(text).replace("_", " "))
    return [word for word in found if any(c.isalnum() for c in word)]


def _stated(text: str) -> list[str]:
    """The stated answer, where one is marked."""
    for mark in _STATED:
        ends = [found.end() for found in mark.finditer(text)]
        rest = text[ends[-1] :].strip() if ends else ""
        if rest:
            line = rest if rest[0] in "{[`" else rest.splitlines()[0]
            return [line.strip().strip("*").strip()]
    return []


def _readings(text: str) -> Iterator[str]:
    """Parts of the text that may be meant as the answer."""
    fence = _FENCE.search(text)
    lines = [line for line in text.splitlines() if line.strip()]
    for part in (text, *([fence[1]] if fence else []), *lines[:1], *_stated(text)):
        yield part.strip()
        yield _stripped(part)
        # "Label: answer", where the label is one or two words.
        pieces = re.split("[:：]", part.strip(), maxsplit=1)
        if len(pieces) == 2 and len(_words(pieces[0])) <= _LABEL_WORDS:
            yield _stripped(pieces[1])


def _stripped(text: str) -> str:
    return text.strip().strip("\"'`*_“”„‘’«»()[] .!,;:")


def _stated_number(text: str) -> str:
    """The stated answer, marked so that a numeric metric reads its first number; the whole text without one."""
    said = [part for part in _stated(text) if _NUMBER.search(part)]
    return f"Answer: {said[0]}" if said else text


def _reads_numbers(by: Yardstick, train: Sequence[Example]) -> bool:
    """Whether the metric takes a sentence for right that shares nothing but its number with the answer."""
    some = [(e, _NUMBER.findall(e.output)) for e in train[:5]]
    if by.scorer.metric.needs_judge or by.labels or not some or not all(numbers for _, numbers in some):
        return False
    return all(by.accepts([f"So, in the end, this comes out at {numbers[-1]}"], e) for e, numbers in some)


def is_json(text: str) -> bool:
    """Whether the whole text is a JSON object or list."""
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


def _first_json(text: str) -> Iterator[str]:
    """The first object or list in the text, as JSON. One in Python's notation counts as well."""
    for match in re.finditer(r"[{\[]", text):
        part = text[match.start() :]
        try:
            _, end = json.JSONDecoder().raw_decode(part)
            yield part[:end]
            return
        except (ValueError, RecursionError):
            pass
        closing = "}" if match[0] == "{" else "]"
        for end in [m.end() for m in re.finditer(re.escape(closing), part)][:_CLOSINGS]:
            try:
                yield json.dumps(ast.literal_eval(part[:end]))
                return
            except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
                continue


def _json_right(value: str, example: Example, by: Yardstick) -> bool:
    """Whether it is right by the metric, or as JSON whatever the case of its keys and values.

    A metric of JSON decides itself whether the order of lists counts.
    """
    folded = [r.casefold() for r in example.references]
    scorer = by.scorer if by.scorer.metric.name in ("json_match", "tool_call_match") else _scorer("json_match")
    return by.accepts([value], example) or scorer.one(value.casefold(), folded) == 1.0


# ---- containment ----------------------------------------------------------------------------


def _only_label(text: str, labels: Sequence[str]) -> list[str]:
    """The one label that the stated answer names, else the first line, else the whole text; none where several stand.

    A label of one letter is read only where the answer begins ("(B) because"): "a" is a word, too.
    """
    names = {" ".join(_words(label)): label for label in labels}
    if len(names) < len(labels):  # "refund" and "refund?": only punctuation tells them apart
        exact = [label for label in labels if _stripped(text).casefold() == _stripped(label).casefold()]
        return exact[:1] if len(exact) == 1 else []
    lines = [line for line in text.splitlines() if line.strip()]
    for part in dict.fromkeys((*_stated(text), *lines[:1], text)):
        spaced = _words(part)
        if " ".join(spaced) in names:
            return [names[" ".join(spaced)]]
        if any(len(name) == 1 for name in names):
            return [names[spaced[0]]] if spaced and spaced[0] in names else []
        found = []
        rest = f" {' '.join(spaced)} "
        for name in sorted(names, key=len, reverse=True):  # "declined card payment" before "card payment"
            if name and f" {name} " in rest:
                found.append(names[name])
                rest = rest.replace(f" {name} ", " | ")
        if found:
            return found if len(found) == 1 else []
    return []


def _contains(text: str, reference: str, example: Example, by: Yardstick, passages: str) -> bool:
    answer, wanted = f" {bare(text)} ", bare(reference)
    if not wanted or f" {wanted} " not in answer:
        return False
    asked = bare(example.query.text)
    accepted = {bare(r) for r in example.references}
    rest = answer.replace(f" {wanted} ", " | ").split()
    longest = max((len(name.split()) for name in by.known_bare), default=0)
    named = {" ".join(rest[i : i + n]) for n in range(1, longest + 1) for i in range(len(rest) - n + 1)}
    others = (named & by.known_bare) - accepted
    if any(f" {other} " not in f" {asked} " and other not in wanted for other in others):
        return False
    if 2 * len(wanted.split()) >= len(answer.split()):
        return True
    return max(_chance(wanted, answer, asked, ""), _chance(wanted, answer, bare(passages), asked)) < BY_CHANCE


def _chance(wanted: str, answer: str, source: str, asked: str) -> float:
    """The share of the source's other pieces, as long as what is wanted, that the answer contains as well.

    Pieces with a word of the question do not count: an answer in a whole sentence repeats those. 0 where the source
    does not hold what is wanted: then it was not copied from there.
    """
    if not source or f" {wanted} " not in f" {source} ":
        return 0.0
    all_words, length, known = source.split(), len(wanted.split()), set(asked.split())
    pieces = [all_words[i : i + length] for i in range(len(all_words) - length + 1)]
    pieces = [piece for piece in pieces if not known & set(piece) and piece != wanted.split()]
    return sum(f" {' '.join(piece)} " in answer for piece in pieces) / max(1, len(pieces))
