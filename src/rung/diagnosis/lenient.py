"""Answers read leniently: was the right content there, in the wrong shape?

Two ways, and the answer is the same text as before in both. A reading is a part of the text that the metric
then judges (the stated answer, the first line, the first JSON object, the last number). Containment asks
whether the accepted answer stands in the text as whole words; because a long text contains much by chance, it
counts only beside no other answer, and not where a piece of the input as long would be contained as well.
Knows nothing of models and solutions.
"""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rung.errors import MetricError
from rung.evaluation.metrics import json_match, numeric_match
from rung.types import Example, Metric

BY_CHANCE = 0.1
"""Containment is no evidence when at least this share of equally long pieces of the input is contained too."""

_STATED = (
    re.compile(r"\banswer\b[ \t*_]*:[\s*_]*", re.IGNORECASE),
    re.compile(r"\banswer\b[ \t*_]*is\b[\s*_:]*", re.IGNORECASE),
)
_FENCE = re.compile(r"```[\w-]*[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)
_ONE_NUMBER = re.compile(r"[-+−$€£¥₹~ ]*\d[\d,]*(?:\.\d+)?\s*%?\.?")
_NUMBER = re.compile(r"(?<![\w.])[-−]?[$€£¥₹]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?!\w)")
_ARTICLES = frozenset({"a", "an", "the"})


@dataclass(frozen=True)
class Yardstick:
    """How this task's answers are judged.

    right: the score from which an answer is right. labels: the closed set of answers, if there is one. known:
    answers that the task's other examples have; beside one of them, a contained answer was not singled out.
    """

    metric: Metric
    right: float
    labels: tuple[str, ...] = ()
    known: tuple[str, ...] = ()

    def accepts(self, reading: str, references: Sequence[str]) -> bool:
        """Whether the metric takes it for right. A user's metric may fail at a piece of a text: that is not right."""
        try:
            return self.metric(reading, references) >= self.right
        except MetricError:
            return False


def yardstick(metric: Metric, right: float, labels: Sequence[str] | None, train: Sequence[Example]) -> Yardstick:
    return Yardstick(metric, right, tuple(labels or ()), tuple(dict.fromkeys(e.output for e in train)))


def reads_right(text: str, example: Example, by: Yardstick, *, shown: str = "") -> bool:
    """Whether the text holds a right answer when it is read leniently.

    shown: passages that stood in the prompt; what is merely copied from them, or from the input, is no answer.
    Never raises for one bad text.
    """
    references = [r for r in example.references if r.strip()]
    if not text.strip() or not references:
        return False
    if all(map(is_json, references)):
        return any(_json_right(value, references, by) for value in _first_json(text))
    if all(_ONE_NUMBER.fullmatch(r.strip()) for r in references) and not by.labels:
        return any(numeric_match(found, references) == 1.0 for found in _last_number(text))
    if by.labels:
        return any(by.accepts(label, references) for label in _only_label(text, by.labels))
    if any(_judged(reading, references, by) for reading in _readings(text)):
        return True
    return any(_contains(text, reference, example, by, shown) for reference in references)


def bare(text: str) -> str:
    """Words without case, punctuation and articles; the whole where nothing else is left."""
    words = re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", text).casefold()).split()
    return " ".join([w for w in words if w not in _ARTICLES] or words)


def stated(text: str) -> str:
    """The line behind the last "Answer:", or else behind the last "answer is"; the whole text without one.

    What begins with a bracket or a fence goes on to the end of the text.
    """
    return next(iter(_stated(text)), text.strip())


def vote(text: str, *, numeric: bool) -> str:
    """What two samples must share to vote for one answer: the last number, or the text but for case and spacing."""
    numbers = _NUMBER.findall(text) if numeric else []
    return str(numbers[-1]) if numbers else " ".join(text.casefold().split()).rstrip(".")


def derivable(example: Example, common: frozenset[str]) -> bool:
    """Whether the answer may be copied or computed from the input, so that it need not be a fact.

    common: words that many answers of the task have (see `common_words`). True for a number beside an input
    with two numbers or more, and where every word of the answer stands in the input or is common.
    """
    text = f"{example.context or ''} {example.input}"
    output = example.output.strip()
    if _ONE_NUMBER.fullmatch(output) and len(_NUMBER.findall(text)) >= 2:
        return True
    return set(bare(output).split()) <= set(bare(text).split()) | common


def common_words(train: Sequence[Example]) -> frozenset[str]:
    """Words in at least a twentieth of the answers, and in at least two: labels, keys, keywords of a format."""
    count = Counter(word for e in train for word in set(bare(e.output).split()))
    return frozenset(word for word, n in count.items() if n >= max(2, len(train) / 20))


# ---- readings -------------------------------------------------------------------------------


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
        # "Label: answer" on the first line, where the label is one or two words.
        before, colon, after = part.strip().partition(":")
        if colon and len(before.split()) <= 2:
            yield _stripped(after)


def _judged(reading: str, references: Sequence[str], by: Yardstick) -> bool:
    return by.accepts(reading, references) or bare(reading) in map(bare, references)


def _stripped(text: str) -> str:
    return text.strip().strip("\"'`*_“”„‘’«»()[] .!,;:")


def _last_number(text: str) -> list[str]:
    said = [number for part in _stated(text) for number in _NUMBER.findall(part)]
    return [str(n) for n in said[:1] or _NUMBER.findall(text)[-1:]]


def is_json(text: str) -> bool:
    """Whether the whole text is a JSON object or list."""
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


def _first_json(text: str) -> Iterator[str]:
    """The first object (or list) in the text, as JSON; one written the Python way counts as well."""
    for match in re.finditer(r"[{\[]", text):
        part = text[match.start() :]
        try:
            _, end = json.JSONDecoder().raw_decode(part)
            yield part[:end]
            return
        except (ValueError, RecursionError):
            pass
        closing = "}" if match[0] == "{" else "]"
        for end in [m.end() for m in re.finditer(re.escape(closing), part)][:20]:
            try:
                yield json.dumps(ast.literal_eval(part[:end]))
                return
            except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
                continue


def _json_right(value: str, references: Sequence[str], by: Yardstick) -> bool:
    """By the metric, or as JSON whatever the case of its keys and values."""
    folded = [r.casefold() for r in references]
    return by.accepts(value, references) or Yardstick(json_match, 1.0).accepts(value.casefold(), folded)


# ---- containment ----------------------------------------------------------------------------


def _only_label(text: str, labels: Sequence[str]) -> list[str]:
    """The label that the text names, if it names exactly one: the stated answer's, else the first line's, else its own.

    A label of one letter is read only where the answer begins ("(B) because"): "a" is a word, too.
    """
    names = {_spaced(label): label for label in labels}
    if len(names) < len(labels):  # "refund" and "refund?": only signs tell them apart
        exact = [label for label in labels if _stripped(text).casefold() == _stripped(label).casefold()]
        return exact[:1] if len(exact) == 1 else []
    lines = [line for line in text.splitlines() if line.strip()]
    for part in dict.fromkeys((*_stated(text), *lines[:1], text)):
        spaced = _spaced(part)
        if spaced in names:
            return [names[spaced]]
        begins = spaced.split()[:1]
        if any(len(name) == 1 for name in names):
            return [names[begins[0]]] if begins and begins[0] in names else []
        found = []
        rest = f" {spaced} "
        for name in sorted(names, key=len, reverse=True):  # "declined card payment" before "card payment"
            if name and f" {name} " in rest:
                found.append(names[name])
                rest = rest.replace(f" {name} ", " | ")
        if found:
            return found if len(found) == 1 else []
    return []


def _spaced(text: str) -> str:
    """As `bare`, articles kept: a label may be one."""
    return " ".join(re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", text).casefold()).split())


def _contains(text: str, reference: str, example: Example, by: Yardstick, shown: str) -> bool:
    answer, wanted = f" {bare(text)} ", bare(reference)
    if not wanted or f" {wanted} " not in answer:
        return False
    asked = bare(f"{example.context or ''} {example.input}")
    accepted = {bare(r) for r in example.references}
    rest = answer.replace(f" {wanted} ", " | ")
    for other in map(bare, by.known):
        named = len(other) > 1 and other not in accepted and f" {other} " in rest
        if named and f" {other} " not in f" {asked} " and other not in wanted:
            return False
    if 2 * len(wanted.split()) >= len(answer.split()):
        return True
    return max(_chance(wanted, answer, asked, ""), _chance(wanted, answer, bare(shown), asked)) < BY_CHANCE


def _chance(wanted: str, answer: str, source: str, asked: str) -> float:
    """The share of the source's other pieces, as long as what is wanted, that the answer contains as well.

    Pieces with a word of the question are left out: an answer in a whole sentence repeats those. 0 where the
    source does not hold what is wanted: then it was not copied from there.
    """
    if not source or f" {wanted} " not in f" {source} ":
        return 0.0
    words, length, known = source.split(), len(wanted.split()), set(asked.split())
    pieces = [words[i : i + length] for i in range(len(words) - length + 1)]
    pieces = [piece for piece in pieces if not known & set(piece) and piece != wanted.split()]
    return sum(f" {' '.join(piece)} " in answer for piece in pieces) / max(1, len(pieces))
