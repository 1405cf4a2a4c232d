"""Answers in JSON whose form differs from that of nearly all: no valid JSON, other keys, values of other types.

Answers are parsed twice instead of kept, so that a million of them need no memory.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from rung.data.checks import habits
from rung.data.checks.habits import CLEAR
from rung.data.rows import kind_of
from rung.text import visible
from rung.types import Example, Finding, Task

_FEW_KEYS = 3  # keys that a message names
_MOST_KEYS = 10_000  # keys that are counted; data of more have no form
_NONE = object()


class JsonHabits:
    """What the answers of a task have in common as JSON."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.total = len(examples)
        self.kinds: Counter[type] = Counter()
        self.holders: Counter[str] = Counter()
        self.types: dict[str, Counter[str | None]] = defaultdict(Counter)
        for example in examples:
            value = _parsed(example.output)
            self.kinds[type(value)] += 1
            if isinstance(value, dict):
                for key in value:
                    if key in self.types or len(self.types) < _MOST_KEYS:
                        self.holders[key] += 1
                        self.types[key][_kind(value[key])] += 1
        objects = self.kinds[dict]
        self.needed = [key for key, n in self.holders.items() if n >= CLEAR * objects]
        rare = {key for key, n in self.holders.items() if n <= max(1, (1 - CLEAR) / 5 * objects)}
        self.strange = rare if self.needed and len(rare) < 0.5 * objects else set()

    @property
    def are_rule(self) -> bool:
        """Whether nearly all answers are JSON objects or lists."""
        return self.number > 0 and self.number >= CLEAR * self.total

    @property
    def number(self) -> int:
        """Answers that are JSON objects or lists."""
        return self.kinds[dict] + self.kinds[list]


def broken_habits(examples: Sequence[Example], common: JsonHabits, task: Task) -> Iterator[Finding]:
    """Findings about answers that break what nearly all keep. Keys are left to the schema, where the task has one."""
    share = habits.percent(common.number, common.total)
    most = common.kinds.most_common(1)[0][0]
    with_keys = task.schema is None and task.metric != "tool_call_match"
    for e in examples:
        value = _parsed(e.output)
        if value is _NONE:
            yield from _no_json(e, share, task)
        elif type(value) is not most and common.kinds[most] >= CLEAR * common.total:
            yield _other_kind(e, value)
        elif isinstance(value, dict) and with_keys:
            yield from _keys(e, value, common)


def _parsed(text: str) -> Any:
    """The value of JSON that is an object, a list or in a fence; else _NONE."""
    if text.lstrip()[:1] not in ("{", "["):
        return _NONE
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _NONE


def is_json(text: str) -> bool:
    """Whether a text is a JSON object or list."""
    return _parsed(text) is not _NONE


def is_broken(text: str, task: Task) -> bool:
    """Whether an answer is no valid JSON at all, where the others are JSON. A single value is JSON of another kind."""
    return _fault(text, task) != ""


def _fault(text: str, task: Task) -> str:
    if task.empty_answers and not visible(text):
        return ""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return f"{error.msg} at character {error.pos + 1}"
    except (ValueError, RecursionError):
        return "nested too deeply"
    return ""


def _no_json(e: Example, share: str, task: Task) -> Iterator[Finding]:
    """What is wrong with an answer that is no object and no list. That `null` may be a missing value is told of all."""
    if is_json(habits.unfenced(e.output)):
        message = f"The answer stands in a Markdown fence; {share} of the answers are JSON alone."
        yield Finding("fenced", "warning", e.row, f"{message} rung check --fix OUT takes it away.", (e.id,))
    elif fault := _fault(e.output, task):
        message = f"The answer is no valid JSON ({fault}), as {share} of the answers are. Correct or remove it."
        yield Finding("broken_json", "warning", e.row, message, (e.id,))
    elif visible(e.output) not in ("", "null"):
        yield _other_kind(e, json.loads(e.output))


def _other_kind(e: Example, value: Any) -> Finding:
    message = f"The answer is JSON of another kind ({kind_of(value)}) than nearly all. Write it as they are."
    return Finding("json_types", "warning", e.row, message, (e.id,))


def _keys(e: Example, value: dict[str, Any], common: JsonHabits) -> Iterator[Finding]:
    missing = [key for key in common.needed if key not in value]
    extra = [key for key in value if key in common.strange]
    if missing or extra:
        lacks = f"lacks {_named(missing)}" if missing else ""
        has = f"has {_named(extra)}, as nearly no other" if extra else ""
        message = f"The answer {' and '.join(p for p in (lacks, has) if p)}. Give all answers the same keys."
        yield Finding("json_keys", "warning", e.row, message, (e.id,))
    for key in common.needed:
        if key not in value or (own := _kind(value[key])) is None:
            continue
        most, number = common.types[key].most_common(1)[0]
        total = sum(common.types[key].values())
        if own != most and most is not None and number >= CLEAR * total:
            message = f'The value of "{key[:40]}" is {own}; {habits.percent(number, total)} of the answers have {most}.'
            yield Finding("json_types", "warning", e.row, f"{message} Write it as they do.", (e.id,))


def _kind(value: Any) -> str | None:
    """What a value is; None for null, which may stand in place of any."""
    return None if value is None else kind_of(value)


def _named(keys: Sequence[str]) -> str:
    named = ", ".join(f'"{key[:40]}"' for key in keys[:_FEW_KEYS])
    more = f" and {len(keys) - _FEW_KEYS} more" if len(keys) > _FEW_KEYS else ""
    return f"the key{'s' if len(keys) > 1 else ''} {named}{more}"
