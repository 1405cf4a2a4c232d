"""A cleaned copy of a task's data: what can be mended without a doubt, and a list of every change.

Order of the steps: rows that cannot be read are left out; characters that show nothing, fences and space around answers
are removed; labels are written alike; rows that show nothing and answers of broken JSON are left out; train rows that
stand in dev or test leave train, and what stands twice is kept once; personal data are masked. Rows of a test that the
user made are cleaned; those that cannot be read, show nothing or hold broken JSON are left out, and no others.
An answer that may be wrong is never changed. Columns that the examples do not use are kept beside them, unless the copy
would be read otherwise then. Knows nothing of models; the original is only read.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rung.data.corpus import examples_lie_in_the_corpus, files_of_task, read_corpus
from rung.data.examples import MIN_EXAMPLES, Sets, names_of, read_data
from rung.data.fixed_task import write_task
from rung.data.hidden import without_hidden
from rung.data.masking import Masks
from rung.data.mending import (
    Mended,
    Work,
    clean_texts,
    leave_out_leaks,
    leave_out_twins,
    leave_out_unusable,
    spell_labels,
)
from rung.data.shapes import write_rows
from rung.data.task_file import read_task
from rung.errors import DataError, RungError
from rung.records import write_lines
from rung.types import Document, SetName, Task

CHANGES = "changes.jsonl"
_NAMED = 10  # columns
_MASKINGS = 5

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
class Fixed:
    """A cleaned copy. task: its task.yaml. rows: set -> number of rows before and after. form: how it is written."""

    folder: Path
    task: Path
    rows: Mapping[str, tuple[int, int]]
    changes: tuple[Mended, ...]
    form: tuple[str, ...] = ()

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
        if not self.changes:
            lines.append("  No row had to be mended or left out.")
        return [*lines, *(f"  {said}" for said in self.form)]


def fix_task(task: Task, out: Path, *, mask: bool = False) -> Fixed:
    """Writes the cleaned copy of a task's examples, its task.yaml and the list of changes into the folder `out`.

    mask: personal data and secrets are replaced, in a copy of the corpus, too. Raises DataError where the folder is not
    empty or cannot be written, where examples cannot be read at all, and where too few are left.
    """
    out = Path(os.path.abspath(out.expanduser()))
    _check_empty(out, task.corpus)
    work, before = _read(task)
    clean_texts(work)
    spell_labels(work)
    leave_out_unusable(work)
    leave_out_leaks(work)
    leave_out_twins(work)
    _leave_out_empty_dev(work)
    if (left := sum(map(len, work.sets.values()))) < MIN_EXAMPLES:
        raise DataError(f"{task.path.name}: only {left} rows are left after cleaning; {MIN_EXAMPLES} are needed.")
    documents = read_corpus(task.corpus, files_of_task(task)) if task.corpus is not None else ()
    cleaned = _clean_documents(work, documents)
    if mask:
        cleaned = _mask(work, cleaned)
    _make(out, task, tuple(work.sets))
    corpus = None
    if cleaned != documents or examples_lie_in_the_corpus(task):
        corpus = out / "documents.jsonl"
        write_lines(corpus, map(_document_record, cleaned))
    path, form = _write(work, before, out, corpus)
    if mask and any(work.beside.values()):
        form = (
            *form,
            "What --mask cannot know stays in these columns, as in all texts: names of people, street addresses.",
        )
    write_lines(out / CHANGES, (asdict(change) for change in work.changes))
    rows = {str(name or "examples"): (before[name], len(part)) for name, part in work.sets.items()}
    return Fixed(out, path, rows, tuple(work.changes), (*work.told, *form))


def _write(
    work: Work, before: Mapping[SetName | None, int], out: Path, corpus: Path | None
) -> tuple[Path, tuple[str, ...]]:
    """Writes examples and task.yaml; with further columns, if the copy is read as it is meant. Returns what is told."""
    files: dict[SetName | None, Path] = {name: out / f"{name or 'examples'}.jsonl" for name in work.sets}
    others = list(dict.fromkeys(name for own in work.beside.values() for name in own))
    turns = any(e.turns for e in work.every())
    for keep in (True, False) if others else (False,):
        left_out: list[str] = []
        for name, part in work.sets.items():
            moved = before[name] != len(part)  # an id that names a line is written, as the line is another one now
            written = [replace(e, row="") for e in part] if moved else part
            own = [work.beside.get(e.id, {}) for e in part] if keep else None
            left_out += write_rows(written, "messages" if turns else "columns", files[name], own)
        path = write_task(work.task, out, files, corpus, say_columns=keep and not turns)
        if not keep or _reads_alike(path, work):
            break
    said = "Rows are written as JSON lines"
    said += ", answers of several labels as lists" if work.task.multi_label else ""
    if kept := [name for name in others if keep and name not in left_out]:
        said += f"; your other columns stand beside them: {_some(kept)}"
    if lost := [name for name in others if name not in kept]:
        said += f"; left out, as the copy would be read otherwise: {_some(lost)}"
    return path, (f"{said}.",)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _reads_alike(path: Path, work: Work) -> bool:
    """Whether reading the copy gives its examples."""
    try:
        found = read_data(read_task(path))
    except RungError:
        return False
    sets = {name: [replace(e, id="", row="") for e in part] for name, part in found.sets.items()}
    return not found.problems and sets == {
        name: [replace(e, id="", row="") for e in part] for name, part in work.sets.items()
    }


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


def _read(task: Task) -> tuple[Work, dict[SetName | None, int]]:
    """All rows that can be read, and the numbers of rows before."""
    from rung.data.answer_form import found_whitespace

    found = read_data(task, beside=True)
    told = tuple(f.message for f in found.findings if f.check == "turns_left_out")
    beside = {i: dict(own) for i, own in found.beside.items()}
    work = Work(task, {name: list(part) for name, part in found.sets.items()}, beside, told)
    if task.whitespace is None:
        outputs = [e.output for e in found.sets.get("train") or tuple(work.every())]
        work.task = replace(task, whitespace=found_whitespace(outputs)[0])
    before: dict[SetName | None, int] = {name: len(part) for name, part in found.sets.items()}
    first, owners = next(iter(before)), _owners(task)
    for problem in found.problems:
        check = "empty_answer" if "is empty" in problem.text or "is null" in problem.text else "unusable_row"
        if "not valid JSON" in problem.text and "json_match" in problem.text:
            check = "broken_json"
        work.changes.append(Mended(problem.where, "", check, "left out"))
        before[owners.get(problem.where.rpartition(", ")[0], first)] += 1
    if any(finding.check == "label_respelt" for finding in found.findings):
        _note_respelt(work, found.sets)
    return work, before


def _owners(task: Task) -> dict[str, SetName]:
    """What messages call a file -> its set, where the user made the split."""
    if not isinstance(task.examples, Mapping):
        return {}
    called = names_of([path for paths in task.examples.values() for path in paths])
    return {called[path]: name for name, paths in task.examples.items() for path in paths}


def _note_respelt(work: Work, sets: Sets) -> None:
    """Notes each label that was read as a declared one in another spelling."""
    raw = read_data(replace(work.task, labels=None, metric="exact_match")).sets
    written = {e.row: e.output for part in raw.values() for e in part}
    for part in sets.values():
        for example in part:
            if written.get(example.row, example.output) != example.output:
                work.note(example, "label_spelling", "written as the declared label")


def _leave_out_empty_dev(work: Work) -> None:
    """Leaves out a dev without rows, as its file could not be read. Raises DataError for a train or test without."""
    for name in [name for name, part in work.sets.items() if name is not None and not part]:
        if name != "dev":
            raise DataError(
                f"{work.task.path.name}: no row of {name} is left after cleaning. Name one file with all rows under "
                "examples:, and rung splits it."
            )
        del work.sets[name]
        work.told = (*work.told, "No row of dev is left: the copy has no dev, and rung takes one from train.")


# ---- documents and masks ------------------------------------------------------------------------


def _clean_documents(work: Work, documents: Sequence[Document]) -> tuple[Document, ...]:
    cleaned = []
    for document in documents:
        text = without_hidden(document.text)
        if text != document.text:
            what = "characters that show nothing removed"
            work.changes.append(Mended(f"document {document.id}", "", "invisible_characters", what))
        cleaned.append(document if text == document.text else replace(document, text=text))
    return tuple(cleaned)


def _document_record(document: Document) -> dict[str, object]:
    """A row of documents.jsonl, which is read as the document again."""
    record: dict[str, object] = {"id": document.id, "title": document.title, "text": document.text}
    if document.markdown:
        record["markdown"] = True
    return record | ({} if document.source is None else {"source": document.source})


def _mask(work: Work, documents: Sequence[Document]) -> tuple[Document, ...]:
    """Examples, their further columns and documents masked by one list of names, until nothing is found any more."""
    masked = list(documents)
    masks = Masks(work.every(), masked, work.task.labels or ())
    done: dict[tuple[str, str], Mended] = {}
    for _ in range(_MASKINGS):
        known = len(done)
        for place, document in enumerate(masked):
            masked[place], checks = masks.document(document)
            where = f"document {masked[place].id}"
            done |= {(where, c): Mended(where, "", c, "masked") for c in sorted(checks)}
        for example in work.every():
            if own := work.beside.get(example.id):
                work.beside[example.id], checks = masks.columns(own, example)
                done |= {(example.row, c): Mended(example.row, example.id, c, "masked") for c in sorted(checks)}
        for part in work.sets.values():
            for place, example in enumerate(part):
                part[place], checks = masks.example(example)
                if own := work.beside.pop(example.id, None):
                    work.beside[part[place].id] = own
                done |= {(example.row, c): Mended(example.row, part[place].id, c, "masked") for c in sorted(checks)}
        if len(done) == known:
            break
        masks.learn(work.every(), masked)
    work.changes = [_with_names(change, masks) for change in (*work.changes, *done.values())]
    return tuple(masked)


def _with_names(change: Mended, masks: Masks) -> Mended:
    """The change without personal data in ids: those of rows that were left out or noted before, and of documents."""
    document = change.row.removeprefix("document ")
    row = change.row if document == change.row else f"document {masks.id_of('document', document)}"
    return replace(change, row=row, id=masks.id_of("row", change.id))
