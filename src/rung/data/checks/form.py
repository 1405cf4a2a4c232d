"""Answers whose form differs from that of nearly all others: a model learns both forms, and the metric counts one.

A habit of answers counts as the rule only where CLEAR of them keep it, so each threshold comes from the data. What
answers are compared by stands in `rung.data.checks.habits`. A finding tells the form, never what a row says.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rung.data.checks import habits
from rung.data.checks.habits import CLEAR, LEAST
from rung.data.checks.json_form import JsonHabits, broken_habits
from rung.data.checks.material import Material
from rung.types import Example, Finding, Task

MISSING = frozenset({"nan", "#n/a", "<na>", "undefined", "#value!", "#ref!", "#name?"})
MAY_BE_MEANT = frozenset({"null", "none", "n/a", "nil", "-", "--", "–", "—"})
"""What may stand for a missing value, and may be an answer: nothing was found."""
FOLLOWED = 0.5
"""Share of the answers to inputs of one form that have this form, from which on the input explains it."""

_AROUND = ".,;:!?\"'()[]“”„«»"
_MANY_MISSING = 0.05  # share of answers that say none, from which on that may be meant
_OFTEN = 0.02  # share of answers that equal their input, from which on one note tells it
_REMEMBERED = 50_000  # answers whose class is kept, as most data have each of few answers many times

Severity = Literal["warning", "note"]


@dataclass(frozen=True)
class _Rule:
    """How answers are compared. of: an answer -> its class, None where it has none. words: class -> what it does."""

    check: str
    of: Callable[[str], str | None]
    words: dict[str, str]
    todo: str
    severity: Severity = "note"
    one_way: str | None = None
    """The class that breaks the rule, where only one can: more careful than the others is no fault."""


_RULES = (
    _Rule(
        "fenced",
        habits.fence,
        {"yes": "stands in a Markdown fence", "no": "stands in no Markdown fence"},
        "Take the fence away, or put all answers into one: rung check --fix OUT takes it away.",
        "warning",
    ),
    _Rule(
        "explanation",
        habits.lines,
        {"one": "is one line", "more": "goes on for more lines"},
        "Keep the answer, and take away what explains it.",
        "warning",
        "more",
    ),
    _Rule(
        "explanation",
        habits.reason,
        {"yes": "gives a reason behind what is answered", "no": "give none"},
        "Keep the answer, and take away what explains it.",
        "warning",
        "yes",
    ),
    _Rule(
        "prefixed",
        habits.prefix,
        {"yes": 'begins with a heading such as "Answer:"', "no": "begins without a heading"},
        "Write all answers alike.",
        "warning",
    ),
    _Rule(
        "quoted",
        habits.quotes,
        {"yes": "stands in quotation marks", "no": "stands in no quotation marks"},
        "Write all answers alike.",
    ),
    _Rule(
        "closing_punctuation",
        habits.end,
        {"yes": "ends with a closing mark", "no": "ends without a closing mark"},
        "Write all answers alike.",
    ),
    _Rule(
        "casing",
        habits.case,
        {"capital": "begins with a capital letter", "small": "begins with a small letter", "all": "is all capitals"},
        "Write all answers alike.",
    ),
    _Rule("markup", habits.markup, {"yes": "holds HTML or Markdown signs", "no": "is plain text"}, "Write plain text."),
)


def form(material: Material) -> Iterator[Finding]:
    """Findings about answers that break the form of the others, and about single answers that look wrong."""
    task, examples = material.task, material.examples
    for example in examples:
        yield from _row(example, task)
    yield from _missing(examples, frozenset(task.labels or ()))
    yield from _equal(examples)
    if task.labels is not None or task.multi_label or len(examples) < LEAST:
        return
    as_json = JsonHabits(examples)
    if as_json.are_rule:
        yield from broken_habits(examples, as_json, task)
        return
    yield from _explained(examples)
    if task.metric == "label_accuracy":
        return
    told: set[str] = set()
    for rule in _RULES:
        if rule.check == "markup" and task.whitespace == "counts":
            rule = replace(rule, of=habits.html)  # in code, # begins a comment
        yield from _broken(rule, examples, told)
    yield from _numbers(examples, told)
    yield from _shapes(examples, told)
    yield from _languages(examples)
    yield from _lengths(examples)


# ---- one answer -----------------------------------------------------------------------------------


def _row(example: Example, task: Task) -> Iterator[Finding]:
    def finding(check: str, message: str, severity: Severity = "warning") -> Finding:
        return Finding(check, severity, example.row, message, (example.id,))

    output = example.output
    bare = output.strip()
    if output != bare and bare and task.whitespace != "counts" and _edges(output) != _edges(example.input):
        message = "The answer starts or ends with spaces or line breaks. Remove them: rung check --fix OUT."
        yield finding("whitespace", message, "note")
    if task.metric in ("numeric_match", "numeric_error") and not any(c.isdigit() for c in output):
        yield finding("no_number", f"The answer holds no digit, but the metric is {task.metric}. Correct one of them.")
    for place, text in (("input", example.input), ("answer", output)):
        if not text.isascii() and habits.MISREAD.search(text):
            message = f"The {place} was read in a wrong encoding once (as Ã© for é). Export the data again as UTF-8."
            yield finding("wrong_encoding", message)


def _missing(examples: Sequence[Example], labels: frozenset[str]) -> Iterator[Finding]:
    """Values that a program wrote where there was none. Answers of which many rows have one may be meant: one note."""
    maybe = [e for e in examples if _bare(e.output) in MAY_BE_MEANT and e.output not in labels]
    if many := len(maybe) >= LEAST and len(maybe) >= _MANY_MISSING * len(examples):
        share = habits.percent(len(maybe), len(examples))
        message = f"{len(maybe):,} answers ({share}) are none, null, n/a or a dash. Fill them in, unless that is right."
        yield Finding("looks_missing", "note", "", message, tuple(e.id for e in maybe))
    doubtful = MISSING if many else MISSING | MAY_BE_MEANT
    for e in examples:
        if _bare(e.output) in doubtful and e.output not in labels:
            message = "The answer looks like a missing value. Fill it in or remove the row."
            yield Finding("looks_missing", "warning", e.row, message, (e.id,))
        if _bare(e.input) in MISSING | MAY_BE_MEANT and not e.turns and not e.context:
            message = "The input looks like a missing value. Fill it in or remove the row."
            yield Finding("looks_missing", "warning", e.row, message, (e.id,))


def _bare(text: str) -> str:
    """A short text without space around it and without case; empty for a long one."""
    return text.strip().casefold() if len(text) < 12 else ""


def _edges(text: str) -> tuple[bool, bool]:
    """Whether a text begins and ends with space."""
    return text[:1].isspace(), text[-1:].isspace()


def _equal(examples: Sequence[Example]) -> Iterator[Finding]:
    """Answers that equal the input: a fault of single rows, unless much is left as it is (names, correct sentences)."""
    same = [e for e in examples if e.output.strip() and e.output.strip() == e.input.strip()]
    if not same:
        return
    ids, share = tuple(e.id for e in same), habits.percent(len(same), len(examples))
    if len(same) >= LEAST and len(same) >= CLEAR * len(examples):
        message = f"{share} of the answers equal their input. Check that the columns are right."
        yield Finding("output_equals_input", "warning", "", message, ids)
    elif len(same) >= LEAST and len(same) >= _OFTEN * len(examples):
        message = f"{len(same):,} answers ({share}) equal their input. That is right where nothing is to be changed."
        yield Finding("output_equals_input", "note", "", message, ids)
    else:
        kept = _keep_words(examples)
        for e in same:
            short = len(e.output.split()) < 3  # names are the same in many languages
            message = "The answer equals the input. Check that this is meant."
            yield Finding("output_equals_input", "note" if kept or short else "warning", e.row, message, (e.id,))


def _keep_words(examples: Sequence[Example]) -> bool:
    """Whether answers mostly consist of words of their inputs, as corrected sentences do."""
    kept = []
    for e in examples[:200]:
        words, asked = e.output.split(), set(e.input.split())
        kept.append(sum(w in asked for w in words) >= 0.6 * max(len(words), 0.6 * len(asked)))
    return sum(kept) >= 0.5 * len(kept)


# ---- a rule that nearly all keep --------------------------------------------------------------------


def _broken(rule: _Rule, examples: Sequence[Example], told: set[str]) -> Iterator[Finding]:
    """A finding for each answer that breaks a rule. told: ids of rows that break one; a row is told once.

    No rule is broken by what stands so in the question, nor where answers to inputs of a form have this form.
    """
    answered = _classes(rule.of, [e.output for e in examples])
    others = [one for one in _others(examples, answered) if rule.one_way in (None, one[1])]
    if not others:
        return
    asked = _classes(rule.of, [e.input for e in examples])
    inputs, both = Counter(asked), Counter(zip(asked, answered, strict=True))
    for e, own, most, share in others:
        follows = rule.of(e.input) == own and both[own, own] >= FOLLOWED * inputs[own]
        if e.id in told or follows or _is_copied(e, rule.check):
            continue
        told.add(e.id)
        words = f"The answer {rule.words[own]}; {share} of the answers {_plural(rule.words[most])}. {rule.todo}"
        yield Finding(rule.check, rule.severity, e.row, words, (e.id,))


def _classes(of: Callable[[str], str | None], texts: Sequence[str]) -> list[str | None]:
    """The class of each text; that of repeated texts is found once."""
    known: dict[str, str | None] = {}
    classes = []
    for text in texts:
        own = known.get(text, "")
        if own == "":
            own = of(text)
            if len(known) < _REMEMBERED:
                known[text] = own
        classes.append(own)
    return classes


def _is_copied(e: Example, check: str) -> bool:
    """Whether the answer stands as it is in what was asked; of casing, its first word."""
    if check != "casing":
        return e.output.strip() in e.query.text
    word = e.output.split(maxsplit=1)[0].strip(_AROUND)
    return any(word == other.strip(_AROUND) for other in e.query.text.split())


def _others(examples: Sequence[Example], classes: Sequence[str | None]) -> Iterator[tuple[Example, str, str, str]]:
    """(row, its class, the class of most, their share in words) of each row beside a clear majority."""
    counts = Counter(c for c in classes if c is not None)
    total = sum(counts.values())
    if total < LEAST or total < 0.5 * len(examples) or len(counts) < 2:
        return
    most, number = counts.most_common(1)[0]
    if number < CLEAR * total:
        return
    share = habits.percent(number, total)
    for e, own in zip(examples, classes, strict=True):
        if own is not None and own != most:
            yield e, own, most, share


def _plural(words: str) -> str:
    """holds …, stands … -> hold …, stand …"""
    first, _, rest = words.partition(" ")
    verb = {"is": "are", "goes": "go"}.get(first, first.removesuffix("s"))
    return f"{verb} {rest}"


def _explained(examples: Sequence[Example]) -> Iterator[Finding]:
    """Answers that begin with what others answer in full, and go on."""
    counts = Counter(e.output.strip().casefold() for e in examples)
    common = {text for text, n in counts.items() if n >= 3 and 0 < len(text) <= 60}
    if sum(counts[text] for text in common) < CLEAR * len(examples):
        return
    for e in examples:
        text = e.output.strip().casefold()
        if text in common:
            continue
        head = re.split(r"[.,:;(\n–—]| - | because | since |，|。|：", text, maxsplit=1)[0].strip()
        if head != text and head in common and len(text) > len(head) + 3:
            message = "The answer goes on after what others answer in full. Keep the answer, and take away the rest."
            yield Finding("explanation", "warning", e.row, message, (e.id,))


def _numbers(examples: Sequence[Example], told: set[str]) -> Iterator[Finding]:
    """Numbers with another unit, or with none, and answers that are no number where others are."""
    classes = [habits.unit(e.output) for e in examples]
    counts = Counter(c for c in classes if c is not None)
    total = sum(counts.values())
    if total < max(LEAST, CLEAR * len(examples)):
        return
    most, number = counts.most_common(1)[0]
    for e, own in zip(examples, classes, strict=True):
        if e.id in told:
            continue
        if own is None and any(c.isdigit() for c in e.output):
            message = f"The answer is not only a number; {habits.percent(total, len(examples))} of the answers are."
            yield Finding("unit", "warning", e.row, f"{message} Keep the number alone.", (e.id,))
        elif own is not None and own != most and number >= CLEAR * total:
            usual = f'the unit "{most}"' if most else "none"
            has = "another unit" if own and most else "a unit" if own else "no unit"
            message = f"The number has {has}; {habits.percent(number, total)} have {usual}. Convert it."
            yield Finding("unit", "warning", e.row, message, (e.id,))
        else:
            continue
        told.add(e.id)


def _shapes(examples: Sequence[Example], told: set[str]) -> Iterator[Finding]:
    """Codes, dates and the like that are written in another way."""
    classes = [habits.shape(e.output) for e in examples]
    counts = Counter(c for c in classes if c)
    if not counts or counts.most_common(1)[0][1] < CLEAR * len(examples):
        return
    most, number = counts.most_common(1)[0]
    if not re.search(r"[^a ]", most) or "a a" in most:
        return  # words, and no code
    share = habits.percent(number, len(examples))
    of_numbers = "a" not in most and habits.unit(most) is not None  # 1,000 and 0.5 are numbers as 12 is
    for e, own in zip(examples, classes, strict=True):
        if own != most and e.id not in told and not (of_numbers and habits.unit(e.output) is not None):
            told.add(e.id)
            message = (
                f'The answer has another form than {share} of the answers, which are written as "{most}" '
                "(9 for digits, a for letters). Write it as they are."
            )
            yield Finding("answer_shape", "warning", e.row, message, (e.id,))


def _languages(examples: Sequence[Example]) -> Iterator[Finding]:
    """Answers in another script or language than the others, though their input is in that of the others.

    Names and other words of the question may be in any script; where rows ask for different things, so may answers.
    """
    for of in (habits.script, habits.language):
        for e, own, most, share in _others(examples, [of(e.output) for e in examples]):
            if e.instruction is not None or of(e.input) == own or e.output.strip() in e.query.text:
                continue
            if of is habits.script and not habits.is_foreign(e.output, own, most):
                continue
            message = f"The answer is written in {own}; {share} of the answers are in {most}. Translate it."
            yield Finding("language", "warning", e.row, message, (e.id,))


def _lengths(examples: Sequence[Example]) -> Iterator[Finding]:
    """Answers far longer than the others: beyond six spreads of log length, and three times as long as 98 %."""
    logs = sorted(math.log(len(e.output) + 1) for e in examples)
    middle = logs[len(logs) // 2]
    spread = sorted(abs(x - middle) for x in logs)[len(logs) // 2]
    usual = math.exp(logs[int(0.98 * (len(logs) - 1))])
    bound = max(math.exp(middle + 6 * max(spread, 0.25)), 3 * usual, 40)
    for e in examples:
        if len(e.output) > bound:
            message = (
                f"The answer has {len(e.output):,} characters; 98 % of the answers have at most {usual:,.0f}. "
                "See whether more than the answer stands there; it may be cut at the length limit."
            )
            yield Finding("long_output", "note", e.row, message, (e.id,))
