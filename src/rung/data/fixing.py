"""A cleaned copy of a task's data: what can be mended without a doubt, and a list of every change.

Order of the steps: rows that cannot be used are left out; characters that show nothing, fences and space around answers
are removed; labels are written alike; train rows that stand in dev or test leave train, and what stands twice is kept
once; personal data are masked. Rows of a test that the user made are cleaned, and none is left out but those that
cannot be read. An answer that may be wrong is never changed. Knows nothing of models; the original is only read.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from rung.data.checks.behaviour import CLEAR
from rung.data.checks.examples import has_labels, labels_in
from rung.data.checks.habits import fence, unfenced
from rung.data.corpus import read_corpus
from rung.data.examples import MIN_EXAMPLES, Sets, read_data
from rung.data.fixed_task import write_task
from rung.data.hidden import without_hidden
from rung.data.masking import Masks
from rung.data.near_duplicates import near_duplicate_groups
from rung.data.rows import parse_json
from rung.data.shapes import write_rows
from rung.data.task_file import read_task
from rung.errors import DataError
from rung.records import write_lines
from rung.text import normal_form, visible, visible_lines
from rung.types import Document, Example, SetName, Task

CHANGES = "changes.jsonl"

_SAID = {
    "unusable_row": "rows that cannot be used, left out",
    "empty_answer": "rows with an empty input or answer, left out",
    "broken_json": "rows whose answer is no valid JSON, left out",
    "leakage": "rows of train or dev that stand in dev or test, left out",
    "exact_duplicate": "rows that stand twice, kept once",
    "label_spelling": "labels in another spelling, written as the others are",
    "invisible_characters": "rows with characters that show nothing, which were removed",
    "fenced": "answers in Markdown fences, which were removed",
    "whitespace": "answers with space around them, which was removed",
    "email": "rows with e-mail addresses, masked",
    "phone_number": "rows with phone numbers, masked",
    "ip_address": "rows with IP addresses, masked",
    "iban": "rows with bank accounts, masked",
    "card_number": "rows with card numbers, masked",
    "identifier": "rows with identity numbers, masked",
    "secret": "rows with keys or passwords, masked",
}
"""Kind of a change -> what was done, before a number."""


@dataclass(frozen=True)
class Mended:
    """One change. row: where it stood. check: the kind. what: what was done, without what the row says."""

    row: str
    id: str
    check: str
    what: str


@dataclass(frozen=True)
class Fixed:
    """A cleaned copy. task: its task.yaml. rows: set -> number of rows before and after."""

    folder: Path
    task: Path
    rows: Mapping[str, tuple[int, int]]
    changes: tuple[Mended, ...]

    @property
    def record(self) -> dict[str, object]:
        """As JSON values."""
        rows = {name: {"before": before, "after": after} for name, (before, after) in self.rows.items()}
        changes = [asdict(change) for change in self.changes]
        return {"folder": str(self.folder), "task": str(self.task), "rows": rows, "changes": changes}

    @property
    def lines(self) -> list[str]:
        """What was done, a line each kind."""
        counts = Counter(change.check for change in self.changes)
        sizes = ", ".join(f"{name} {after:,} of {before:,} rows" for name, (before, after) in self.rows.items())
        lines = [f"Cleaned copy: {self.task} ({sizes})"]
        lines += [f"  {said}: {counts[check]:,}" for check, said in _SAID.items() if counts[check]]
        return lines if self.changes else [*lines, "  Nothing had to be changed."]


@dataclass
class _Work:
    """Sets that are being cleaned, and what was done so far."""

    task: Task
    sets: dict[SetName | None, list[Example]]
    changes: list[Mended] = field(default_factory=list)

    def note(self, example: Example, check: str, what: str) -> None:
        self.changes.append(Mended(example.row, example.id, check, what))

    def every(self) -> Iterable[Example]:
        return (example for part in self.sets.values() for example in part)


def fix_task(task: Task, out: Path, *, mask: bool = False) -> Fixed:
    """Writes the cleaned copy of a task's examples, its task.yaml and the list of changes into the folder `out`.

    mask: personal data and secrets are replaced, in a copy of the corpus, too. Raises DataError where the folder is not
    empty or cannot be written, where examples cannot be read at all, and where too few are left.
    """
    out = Path(os.path.abspath(out.expanduser()))
    _check_empty(out, task.corpus)
    work, before = _read(task)
    _clean_texts(work)
    _spell_labels(work)
    _leave_out_unusable(work)
    _leave_out_leaks(work)
    _leave_out_twins(work)
    if (left := sum(map(len, work.sets.values()))) < MIN_EXAMPLES:
        raise DataError(f"{task.path.name}: only {left} rows are left after cleaning; {MIN_EXAMPLES} are needed.")
    documents = read_corpus(task.corpus) if task.corpus is not None else ()
    cleaned = _clean_documents(work, documents, mask)
    _make(out, task, tuple(work.sets))
    files: dict[SetName | None, Path] = {}
    for name, part in work.sets.items():
        files[name] = out / f"{name or 'examples'}.jsonl"
        shape = "messages" if any(e.turns for e in part) else "columns"
        moved = before[name] != len(part)  # an id that names a line is written, as the line is another one now
        write_rows([replace(e, row="") for e in part] if moved else part, shape, files[name])
    corpus = None
    if cleaned != documents:
        corpus = out / "documents.jsonl"
        write_lines(corpus, ({"id": d.id, "title": d.title, "text": d.text} for d in cleaned))
    path = write_task(task, out, files, corpus)
    write_lines(out / CHANGES, (asdict(change) for change in work.changes))
    rows = {str(name or "examples"): (before[name], len(part)) for name, part in work.sets.items()}
    return Fixed(out, path, rows, tuple(work.changes))


def _check_empty(out: Path, corpus: Path | None) -> None:
    """Raises DataError where something lies there, and where the copy would be read as documents."""
    if corpus is not None and out.resolve().is_relative_to(corpus.resolve()):
        raise DataError(
            f"{out}: stands in the corpus {corpus}, which would read the copy. Name another folder: --fix OUT."
        )
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise DataError(f"{out}: is there already and not empty. Name a new folder: --fix OUT.")
    except OSError as error:
        raise DataError(f"{out}: cannot be read ({error.strerror}). Name a folder of yours: --fix OUT.") from error


def _make(out: Path, task: Task, sets: Sequence[SetName | None]) -> None:
    """Raises DataError where it cannot be made, and where a pattern in examples: matches what will stand there."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        there = [out / f"{name or 'examples'}.jsonl" for name in sets]
        for path in there:
            path.touch()
        try:
            is_read = read_task(task.path).examples != task.examples
        finally:
            for path in there:
                path.unlink()
    except OSError as error:
        raise DataError(f"{out}: cannot be made ({error.strerror}). Name a folder of yours: --fix OUT.") from error
    if is_read:
        raise DataError(f"{out}: examples: would read the copy, too. Name a folder elsewhere: --fix OUT.")


# ---- reading ------------------------------------------------------------------------------------


def _read(task: Task) -> tuple[_Work, dict[SetName | None, int]]:
    """All rows that can be read, and the numbers of rows before."""
    from rung.data.answer_form import found_whitespace

    found = read_data(task)
    work = _Work(task, {name: list(part) for name, part in found.sets.items()})
    if task.whitespace is None:
        outputs = [e.output for e in found.sets.get("train") or tuple(work.every())]
        work.task = replace(task, whitespace=found_whitespace(outputs)[0])
    before: dict[SetName | None, int] = {name: len(part) for name, part in found.sets.items()}
    first = next(iter(before))
    for problem in found.problems:
        what = "no answer" if "is empty" in problem.text or "is null" in problem.text else "not usable"
        check = "empty_answer" if what == "no answer" else "unusable_row"
        if "not valid JSON" in problem.text and "json_match" in problem.text:
            check = "broken_json"
        work.changes.append(Mended(problem.where, "", check, "left out"))
        before[_set_of(problem.where, task) or first] += 1
    if any(finding.check == "label_respelt" for finding in found.findings):
        _note_respelt(work, found.sets)
    return work, before


def _set_of(where: str, task: Task) -> SetName | None:
    """The set whose file a row stood in."""
    if not isinstance(task.examples, Mapping):
        return None
    name = where.split(", ")[0]
    return next((s for s, paths in task.examples.items() if any(p.name == name for p in paths)), None)


def _note_respelt(work: _Work, sets: Sets) -> None:
    """Notes each label that was read as a declared one in another spelling."""
    raw = read_data(replace(work.task, labels=None, metric="exact_match")).sets
    written = {e.row: e.output for part in raw.values() for e in part}
    for part in sets.values():
        for example in part:
            if written.get(example.row, example.output) != example.output:
                work.note(example, "label_spelling", "written as the declared label")


# ---- texts --------------------------------------------------------------------------------------


def _clean_texts(work: _Work) -> None:
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


def _spell_labels(work: _Work) -> None:
    """Writes labels that are one to the metric as the declared one, or as most rows have it."""
    task = work.task
    if task.labels is not None and not task.multi_label:
        return  # the reader wrote them so
    if not has_labels(task):
        return
    counts = Counter(label for e in work.every() for label in labels_in(e.output, task))
    spellings: dict[str, list[str]] = defaultdict(list)
    for label, _ in counts.most_common():
        spellings[normal_form(label)].append(label)
    for label in task.labels or ():
        spellings[normal_form(label)].insert(0, label)
    other = {label: many[0] for many in spellings.values() for label in many if label != many[0]}
    if not other or task.multi_label:
        return
    for part in work.sets.values():
        for place, example in enumerate(part):
            if example.output in other:
                output = other[example.output]
                references = tuple(dict.fromkeys((output, *(other.get(r, r) for r in example.references))))
                part[place] = replace(example, output=output, references=references)
                work.note(example, "label_spelling", "written as most rows have it")


# ---- rows ---------------------------------------------------------------------------------------


def _leave_out_unusable(work: _Work) -> None:
    """Rows that show nothing, and answers that are no JSON where nearly all are."""
    task = work.task
    outputs = [e.output for e in work.every()]
    are_json = sum(_is_json(o) for o in outputs) >= CLEAR * len(outputs)
    for name, part in work.sets.items():
        kept = []
        for example in part:
            if not visible(example.query.text) or (not task.empty_answers and not visible(example.output)):
                work.note(example, "empty_answer", "left out")
            elif are_json and not _is_json(example.output):
                work.note(example, "broken_json", "left out")
            else:
                kept.append(example)
        work.sets[name] = kept


def _is_json(text: str) -> bool:
    if text.lstrip()[:1] not in ("{", "["):
        return False
    try:
        parse_json(text)
    except ValueError:
        return False
    return True


def _leave_out_leaks(work: _Work) -> None:
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


def _leave_out_twins(work: _Work) -> None:
    """Rows of train and dev, or of the one file, that say what an earlier row says; rows of a user's test stay."""
    for name, part in work.sets.items():
        if name == "test":
            continue
        first: dict[tuple[object, ...], Example] = {}
        for example in part:
            says = (visible_lines(example.query.text), example.output, example.references)
            if (twin := first.setdefault(says, example)) is not example:
                work.note(example, "exact_duplicate", f"left out; it is {twin.row} again")
        work.sets[name] = list(first.values())


# ---- documents and masks ------------------------------------------------------------------------


def _clean_documents(work: _Work, documents: Sequence[Document], mask: bool) -> tuple[Document, ...]:
    """The documents cleaned, and with `mask` examples and documents masked by one list of names."""
    cleaned = []
    for document in documents:
        text = without_hidden(document.text)
        if text != document.text:
            what = "characters that show nothing removed"
            work.changes.append(Mended(f"document {document.id}", "", "invisible_characters", what))
        cleaned.append(document if text == document.text else replace(document, text=text))
    if not mask:
        return tuple(cleaned)
    masks = Masks(work.every(), cleaned, work.task.labels or ())
    for part in work.sets.values():
        for place, example in enumerate(part):
            part[place], checks = masks.example(example)
            for check in sorted(checks):
                work.changes.append(Mended(example.row, part[place].id, check, "masked"))
    for place, document in enumerate(cleaned):
        cleaned[place], checks = masks.document(document)
        for check in sorted(checks):
            work.changes.append(Mended(f"document {cleaned[place].id}", "", check, "masked"))
    return tuple(cleaned)
