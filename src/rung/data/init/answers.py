"""What the answers look like, and which metric compares answers of this kind: each guess with its reason.

Knows texts; knows nothing of files, columns or YAML. All answers are counted; what costs more looks at a sample.
"""

from __future__ import annotations

import json
import random
import re
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rung.data.init.schemas import Seen, schema_of
from rung.data.init.spellings import Spellings, spellings
from rung.data.rows import parse_json
from rung.data.shapes.labels import MAX_LABELS
from rung.data.shapes.values import missing
from rung.text import normal_form, pieces

_MAX_DISTINCT = 20_000  # beyond it, answers are free text, and their number of repeats is not needed
_SAMPLE = 20_000
_ROWS_KEPT = 2  # of each distinct answer
_LOOKED_AT = 20_000  # characters of an input
_MONEY = r"(?:EUR|USD|GBP|CHF|JPY|CNY|INR|SEK|NOK|DKK|PLN|CZK|CAD|AUD|BRL|kr\.?)"
_DIGITS = (
    r"(?:(?!0)\d{1,3}(?P<group>[,.'’ \u00a0\u2009\u202f])\d{3}(?:(?P=group)\d{3})*(?:(?!(?P=group))[.,]\d+)?"  # 1.234,5
    r"|\d{1,2}(?:,\d{2})+,\d{3}(?:\.\d+)?"  # 12,34,567, as in India
    r"|\d+(?:[.,]\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
)
_NUMBER = re.compile(
    rf"(?P<before>[-+−]?\s?(?:R?[$€£¥₹]|{_MONEY}\s)?\s?[-−]?){_DIGITS}(?P<behind>\s?(?:[%$€£¥₹]|zł|{_MONEY})?)"
)
"""A number and nothing else, as `rung.evaluation.number_metrics` reads it."""
_DECIMAL_COMMA = re.compile(r",(\d{1,2}|\d{4,})(?!\d)")
_WORKED_OUT = re.compile(r"(?:####|answer is:?)\s*[-+−$€£]?\s?\d[\d,.]*\s*%?\s*$")
_DATE = re.compile(r"\d{1,4}([-/.])\d{1,2}\1\d{1,4}([T ]\d{1,2}:\d{2}(:\d{2})?(\.\d+)?Z?)?")
_MANY_DECIMALS = re.compile(r"\.\d{3,}(?![\d.,])|,\d{4,}|[eE]-?\d")
_INDENTED = re.compile(r"(?:.*\n)?(\t| {2,})\S", re.DOTALL)
_CODE = re.compile(
    r"[;{}]$|\w\(.*\)|\w = \w|^(def|class|import|return|SELECT|function|#include)\b|:\n\s+\S", re.MULTILINE
)
_TOLERANCE = 0.01
_NEARLY = 0.9


@dataclass
class AnswersSeen:
    """The answers of all rows: how many, how often each, and a sample.

    counts: None where there are too many distinct ones to be a closed set. rows: where each of them stands first.
    sample: in the order of the rows, at most 20,000, drawn evenly. empty: rows without an answer, of which nothing else
    is counted. json: the objects and arrays among the answers; no_json: number of the others.
    """

    n: int = 0
    empty: int = 0
    counts: Counter[str] | None = field(default_factory=Counter)
    rows: dict[str, list[str]] = field(default_factory=dict)
    sample: list[str] = field(default_factory=list)
    json: Seen = field(default_factory=Seen)
    no_json: int = 0
    _random: random.Random = field(default_factory=lambda: random.Random(0))

    def add(self, text: str, source: str = "", row: str = "") -> None:
        """Counts one more answer. source: what it answers. row: where it stands."""
        if not text.strip():
            self.empty += 1
            return
        self.n += 1
        if (value := _parsed(text)) is None:
            self.no_json += 1
        else:
            self.json.add(value, source[:_LOOKED_AT].casefold())
        if self.counts is not None:
            self.counts[text] += 1
            rows = self.rows.setdefault(text, [])
            if len(rows) < _ROWS_KEPT:
                rows.append(row)
            if len(self.counts) > _MAX_DISTINCT:
                self.counts = None
                self.rows.clear()
        if len(self.sample) < _SAMPLE:
            self.sample.append(text)
        elif (place := self._random.randrange(self.n)) < _SAMPLE:
            self.sample[place] = text


@dataclass(frozen=True)
class AnswerForm:
    """What task.yaml says of the answers.

    why: the reason of the metric. kind: what the instruction calls them. keys: more keys of task.yaml, each with its
    reason. counts: label -> its rows. notes: what the user should know, one sentence each. faulty: the form is that of
    most answers, and some rows must be corrected. nearly: labels of most rows, where a few have other answers.
    written: how numbers are written, for the instruction.
    """

    metric: str
    why: str
    kind: str
    counts: dict[str, int] = field(default_factory=dict)
    keys: dict[str, tuple[object, str]] = field(default_factory=dict)
    schema: dict[str, object] | None = None
    notes: tuple[str, ...] = ()
    faulty: bool = False
    nearly: tuple[str, ...] = ()
    written: str = ""

    @property
    def labels(self) -> list[str]:
        """The labels in alphabetical order."""
        return sorted(self.counts)


def form_of(
    answers: AnswersSeen,
    *,
    several: str | None = None,
    columns: Sequence[str] = (),
    squad: bool = False,
    documents: bool = False,
) -> AnswerForm:
    """The form of answers.

    several: why each answer is a JSON list of labels; None where it is not. columns: one for each label, where that is
    how answers are written. squad: they are spans of a text. documents: answers stand in documents, so that they are
    labels only where they repeat very often. At least one answer is not empty.
    """
    if several is not None and (form := _label_lists(answers, several, columns)) is not None:
        return form
    for guess in (_one_answer, _tool_calls, _json, _numbers):
        if (form := guess(answers)) is not None:
            return form
    if not _indented_code(answers):
        least = 10 if documents else 3
        if (form := _labels(answers, least) or _nearly_labels(answers, least)) is not None:
            return form
    return _free_text(answers, squad)


def _one_answer(answers: AnswersSeen) -> AnswerForm | None:
    if answers.counts is None or len({normal_form(a) for a in answers.counts}) > 1:
        return None
    one = next(iter(answers.counts))
    note = f'All {answers.n} answers are "{one[:60]}": there is nothing to decide, and no model is needed.'
    return AnswerForm(
        "exact_match", f"all {answers.n} answers are the same: nothing to decide", "answer", notes=(note,)
    )


def _parsed(text: str) -> dict[str, object] | list[object] | None:
    """The object or array that a text is; None for any other text."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        value = parse_json(text)
    except ValueError:
        return None
    return value if isinstance(value, dict | list) else None


def _tool_calls(answers: AnswersSeen) -> AnswerForm | None:
    def is_call(value: object) -> bool:
        return isinstance(value, dict) and set(value) == {"name", "arguments"} and isinstance(value["name"], str)

    if answers.no_json:
        return None
    values = map(_parsed, answers.sample)
    if not all(is_call(v) or (isinstance(v, list) and v and all(map(is_call, v))) for v in values):
        return None
    return AnswerForm("tool_call_match", f"all {answers.n} answers are tool calls: name and arguments", "call")


def _label_lists(answers: AnswersSeen, why: str, columns: Sequence[str]) -> AnswerForm | None:
    """Sets of labels, as JSON lists."""
    if answers.counts is None or set(answers.json.types) != {"array"} or answers.no_json:
        return None
    parts: Counter[str] = Counter({column: 0 for column in columns})
    many = 0
    for text, n in answers.counts.items():
        labels = [str(label) for label in json.loads(text)]
        many += n * (len(labels) > 1)
        for label in labels:
            parts[label] += n
    found = spellings(parts, case=False)
    if not 2 <= len(found.counts) <= MAX_LABELS:
        return None
    why = f"{why}; {many} of {answers.n} answers hold more than one"
    keys: dict[str, tuple[object, str]] = {"multi_label": (True, "an answer is a list of labels, in any order")}
    return AnswerForm(
        "label_set_f1", why, "labels", dict(found.counts), keys, notes=(*found.notes, *_rare(found.counts))
    )


def _json(answers: AnswersSeen) -> AnswerForm | None:
    n, no_json = answers.n, answers.no_json
    if no_json > 0.1 * n:
        return None
    order = ""
    if any(map(_holds_list, map(_parsed, answers.sample))):
        order = "; lists count in order (unordered: true leaves their order aside)"
    kind = "JSON object" if set(answers.json.types) == {"object"} else "JSON"
    if not no_json:
        return AnswerForm("json_match", f"all {n} answers are JSON{order}", kind, schema=schema_of(answers.json))
    text = next((a for a in answers.sample if _parsed(a) is None), "")
    note = f'{no_json} of {n} answers are no JSON, such as "{text[:60]}". Correct them, or write metric: exact_match.'
    return AnswerForm("json_match", f"{n - no_json} of {n} answers are JSON{order}", kind, notes=(note,), faulty=True)


def _holds_list(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_list, value.values()))
    return isinstance(value, list) and (len(value) > 1 or any(map(_holds_list, value)))


def _numbers(answers: AnswersSeen) -> AnswerForm | None:
    sample, n = answers.sample, answers.n
    if _share(sample, _WORKED_OUT.search) >= 0.98:
        sign = "####" if _share(sample, lambda text: "####" in text) >= 0.5 else "the answer is"
        why = f'answers end in "{sign}" and a number, which alone is compared'
        return AnswerForm("numeric_match", why, "steps" if sign == "####" else "steps in words")
    if not all(_NUMBER.fullmatch(a.strip()) for a in sample):
        return None
    distinct = None if answers.counts is None else len(answers.counts)
    if distinct is not None and distinct <= 10 and n >= 3 * distinct:
        return None  # classes that are called by numbers
    many = sum(bool(_MANY_DECIMALS.search(a)) for a in sample)
    if many >= 0.5 * len(sample):
        why = f"all {n} answers are numbers, {100 * many // len(sample)} % of them with three decimals or more"
        near = "a number counts by how near it is; metric: numeric_match would count equal numbers only"
        keys: dict[str, tuple[object, str]] = {"tolerance": (_TOLERANCE, f"1 %: so near is right. {near}")}
        return AnswerForm("numeric_error", why, "number", keys=keys, written=_written(sample))
    why = (
        f"all {n} answers are numbers: only equal ones count (metric: numeric_error, with a tolerance, if near is good)"
    )
    return AnswerForm("numeric_match", why, "number", written=_written(sample))


def _written(numbers: Sequence[str]) -> str:
    """How most numbers are written beyond their digits: their currency or percent sign, a decimal comma."""
    found = []
    for side, place in (("before", "before"), ("behind", "after")):
        signs = Counter(m[side].strip(" +-−\u00a0") for n in numbers if (m := _NUMBER.fullmatch(n.strip())))
        sign, most = signs.most_common(1)[0]
        if sign and most >= 0.9 * len(numbers):
            found.append(f"{sign} {place} it")
    if _share(numbers, _DECIMAL_COMMA.search) >= 0.5:
        found.append("a decimal comma")
    return " and ".join(found)


def _labels(answers: AnswersSeen, least: int) -> AnswerForm | None:
    if answers.counts is None:
        return None
    found = spellings(answers.counts)
    n, kinds = answers.n, len(found.counts)
    repeated = sum(c for c in found.counts.values() if c > 1)
    closed = 2 <= kinds <= MAX_LABELS and n >= least * kinds and repeated >= 0.9 * n
    usual = max((words(label) for label, c in found.counts.items() if c >= 3), default=8)
    stray = any(c < 3 and words(label) > max(4, 3 * usual) for label, c in found.counts.items())
    if not closed or stray or max(map(words, found.counts)) > 8:
        return None
    why = f"{n} answers, only {kinds} distinct, {100 * repeated // n} % of them repeated"
    return _label_form(found, n, why)


def _nearly_labels(answers: AnswersSeen, least: int) -> AnswerForm | None:
    """Labels beside which a few rows have other answers, which have to be corrected first."""
    if answers.counts is None:
        return None
    found = spellings(answers.counts)
    labels = {label: c for label, c in found.counts.items() if c >= 3 and words(label) <= 8}
    n, many = answers.n, sum(labels.values())
    if not 2 <= len(labels) <= MAX_LABELS or many < max(5, least) * len(labels) or many < _NEARLY * n or many == n:
        return None
    known = {normal_form(label) for label in labels}
    rows = [row for text, where in answers.rows.items() if normal_form(text) not in known for row in where]
    named = "; ".join(rows[:5]) + ("; …" if n - many > len(rows[:5]) else "")
    others = "1 row has another answer" if n - many == 1 else f"{n - many} rows have other answers"
    note = (
        f"{100 * many // n} % of the answers are {len(labels)} labels, and {others} ({named}). Correct or remove such "
        "rows; then take labels: in, and write metric: label_accuracy. Where they are right, correct the instruction."
    )
    why = f"the safe choice until all answers are labels; {many} of {n} are"
    return AnswerForm("exact_match", why, "label", nearly=tuple(sorted(labels)), notes=(note,))


def _label_form(found: Spellings, n: int, why: str) -> AnswerForm:
    notes = [*found.notes, *_rare(found.counts), *_like_nothing(found.counts)]
    label, most = found.counts.most_common(1)[0]
    if most >= 0.8 * n:
        share = 100 * most // n
        notes.append(f'{share} % of the answers are "{label[:60]}": always to answer so is right as often.')
    if found.case_counts:
        return AnswerForm("exact_match", f"{why}; case counts", "label", dict(found.counts), notes=tuple(notes))
    return AnswerForm("label_accuracy", why, "label", dict(found.counts), notes=tuple(notes))


def _like_nothing(counts: Counter[str]) -> list[str]:
    """A sentence about labels that are perhaps none; "none" is a usual name of a class."""
    odd = [f'"{label}" ({n})' for label, n in counts.items() if missing(label) and normal_form(label) != "none"]
    what = "is what programs write where a value is missing. Delete it under labels: if it is no label"
    return [f"{', '.join(odd)} {what}; its rows are then named."] if odd else []


def _rare(counts: Counter[str]) -> list[str]:
    """A sentence about labels with so few rows that a set of the split has none of them."""
    rare = [label for label, n in counts.items() if n < 3]
    if not rare:
        return []
    shown = ", ".join(f'"{label[:40]}" ({counts[label]})' for label in rare[:5]) + (", …" if len(rare) > 5 else "")
    return [f"Rare labels, with fewer than 3 rows, cannot stand in train, dev and test: {shown}."]


def _free_text(answers: AnswersSeen, squad: bool) -> AnswerForm:
    from rung.data.answer_form import found_whitespace

    sample, n = answers.sample, answers.n
    if squad:
        return AnswerForm("token_f1", f"{n} answers are spans of a text, as SQuAD has them", "span")
    distinct = f"{len(answers.counts)} distinct" if answers.counts is not None else "many distinct"
    length = statistics.median(words(a) for a in sample)
    why = f"{distinct} answers among {n}, median length {length:g} word{'s' if length != 1 else ''}"
    space, reason = found_whitespace(sample)
    code = _share(sample, _CODE.search) >= 0.5 or _share(sample, _INDENTED.match) >= 0.5
    if space == "counts" and (code or length <= 12):
        return AnswerForm(
            "exact_match", f"{why}: text whose lines count", "code", keys={"whitespace": ("counts", reason)}
        )
    if length > 12:
        return AnswerForm("rouge_l", f"{why}: long free text", "long")
    if all(_DATE.fullmatch(a.strip()) for a in sample):
        return AnswerForm("exact_match", f"all {n} answers are dates, which are no numbers", "date")
    return AnswerForm(
        "token_f1" if length > 3 else "exact_match", f"{why}: {'medium' if length > 3 else 'short'}", "answer"
    )


def _indented_code(answers: AnswersSeen) -> bool:
    """Whether answers are lines of code whose indentation counts, so that no two spellings are one label."""
    return _share(answers.sample, _INDENTED.match) >= 0.1 and _share(answers.sample, _CODE.search) >= 0.5


def _share(sample: Sequence[str], holds: Callable[[str], object]) -> float:
    return sum(bool(holds(text)) for text in sample) / len(sample)


def words(text: str) -> int:
    """Words between spaces; in scripts without spaces about two characters make a word."""
    return sum((len(pieces(word)) + 1) // 2 for word in text.split())
