"""The steps by which rows are mended, each change noted: texts cleaned, labels written alike, rows left out.

Knows examples by set; knows nothing of files.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from rung.data.checks.duplicates import repeated
from rung.data.checks.examples import has_labels
from rung.data.checks.habits import CLEAR, fence, unfenced
from rung.data.checks.json_form import is_broken, is_json
from rung.data.hidden import without_hidden
from rung.data.near_duplicates import near_duplicate_groups
from rung.text import normal_form, visible
from rung.types import Example, SetName, Task


@dataclass(frozen=True)
class Mended:
    """One change. row: where it stood. check: the kind. what: what was done, without what the row says."""

    row: str
    id: str
    check: str
    what: str


@dataclass
class Work:
    """Sets that are being cleaned, and what was done so far. beside: id -> further columns. told: of the reading."""

    task: Task
    sets: dict[SetName | None, list[Example]]
    beside: dict[str, dict[str, object]] = field(default_factory=dict)
    told: tuple[str, ...] = ()
    changes: list[Mended] = field(default_factory=list)

    def note(self, example: Example, check: str, what: str) -> None:
        self.changes.append(Mended(example.row, example.id, check, what))

    def every(self) -> Iterable[Example]:
        return (example for part in self.sets.values() for example in part)


# ---- texts --------------------------------------------------------------------------------------


def clean_texts(work: Work) -> None:
    """Removes hidden characters, fences that most answers lack, and space around answers unless it counts."""
    outputs = [e.output for e in work.every()]
    plain = sum(fence(o) == "no" for o in outputs) >= CLEAR * len(outputs)
    strip = work.task.whitespace != "counts"
    known = frozenset(work.task.labels or ())

    def answer(text: str) -> str:
        if text in known:
            return text
        text = without_hidden(text)
        text = unfenced(text) if plain else text
        return text.strip() if strip else text

    for part in work.sets.values():
        for place, example in enumerate(part):
            changed = replace(
                example,
                input=without_hidden(example.input),
                output=answer(example.output),
                references=tuple(dict.fromkeys(map(answer, example.references))),
                context=None if example.context is None else without_hidden(example.context),
                instruction=None if example.instruction is None else without_hidden(example.instruction),
                turns=tuple(replace(turn, content=without_hidden(turn.content)) for turn in example.turns),
            )
            if changed == example:
                continue
            part[place] = changed
            shown = without_hidden(example.output)
            if (changed.input, changed.context, changed.turns, changed.instruction, shown) != (
                (example.input, example.context, example.turns, example.instruction, example.output)
            ):
                work.note(example, "invisible_characters", "characters that show nothing removed")
            inner = unfenced(shown) if plain else shown
            if inner != shown:
                work.note(example, "fenced", "Markdown fence around the answer removed")
            if changed.output != inner:
                work.note(example, "whitespace", "space around the answer removed")


def spell_labels(work: Work) -> None:
    """Writes labels that are one to the metric as most rows have them."""
    if work.task.labels is not None or not has_labels(work.task):
        return  # the reader wrote declared labels so
    spellings: dict[str, list[str]] = defaultdict(list)
    for label, _ in Counter(e.output for e in work.every()).most_common():
        spellings[normal_form(label)].append(label)
    other = {label: many[0] for many in spellings.values() for label in many[1:]}
    for part in work.sets.values():
        for place, example in enumerate(part):
            if example.output in other:
                output = other[example.output]
                references = tuple(dict.fromkeys((output, *(other.get(r, r) for r in example.references))))
                part[place] = replace(example, output=output, references=references)
                work.note(example, "label_spelling", "written as most rows have it")


# ---- rows ---------------------------------------------------------------------------------------


def leave_out_unusable(work: Work) -> None:
    """Rows that show nothing, and answers that are no valid JSON where nearly all are objects or lists."""
    task = work.task
    outputs = [e.output for e in work.every()]
    are_json = sum(map(is_json, outputs)) >= CLEAR * len(outputs)
    for name, part in work.sets.items():
        kept = []
        for example in part:
            if not visible(example.query.text) or (not task.empty_answers and not visible(example.output)):
                work.note(example, "empty_answer", "left out")
            elif are_json and is_broken(example.output, task):
                work.note(example, "broken_json", "left out")
            else:
                kept.append(example)
        work.sets[name] = kept


def leave_out_leaks(work: Work) -> None:
    """Train rows whose input stands in dev or test, or nearly does, and dev rows whose input stands in test."""
    if len(work.sets) < 2:
        return
    everything = [replace(e, group=None) for e in work.every()]
    groups = near_duplicate_groups(everything)
    for name, above in (("train", ("dev", "test")), ("dev", ("test",))):
        held: set[str] = {groups[e.id] for other in above for e in work.sets.get(other, ())}  # type: ignore[call-overload]
        part = work.sets.get(name)  # type: ignore[call-overload]
        if part is None:
            continue
        for example in part:
            if groups[example.id] in held:
                work.note(example, "leakage", f"left out of {name}")
        work.sets[name] = [e for e in part if groups[e.id] not in held]  # type: ignore[index]


def leave_out_twins(work: Work) -> None:
    """Rows of train and dev, or of the one file, that say what an earlier row says; rows of a user's test stay."""
    for name, part in work.sets.items():
        if name == "test":
            continue
        again = {later.id: first for first, later in repeated(part)}
        for example in part:
            if example.id in again:
                work.note(example, "exact_duplicate", f"left out; it is {again[example.id].row} again")
        work.sets[name] = [e for e in part if e.id not in again]
