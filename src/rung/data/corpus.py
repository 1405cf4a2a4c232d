"""The documents of a corpus, from one file or from a folder of files.

Knows files and ids; what stands in files is read in `rung.data.documents`. Does not chunk, index or search.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rung.data.documents.collected import files_below, shown_name
from rung.data.documents.counted import CorpusFiles, check_some, no_text, scanned, tell_others, tell_problems
from rung.data.documents.kinds import NAMES, Kind, kind_of, named_kind
from rung.data.documents.parsed import ParsedFile
from rung.data.documents.reading import NOT_INSTALLED
from rung.data.documents.tables import Named, lists_files, named_files, rows_of
from rung.data.documents.text_file import read_text_file
from rung.data.documents.workers import parse_all
from rung.data.findings import bounded
from rung.data.formats import read_table
from rung.data.formats.source import identify
from rung.data.rows import Problem, Table, nearest, raise_problems
from rung.errors import DataError
from rung.types import Document, Example, Finding, Task

_MOST_GUESSES = 20  # of ids that may have been meant; each compares with all documents
_HEAD = 65_536


@dataclass(frozen=True)
class Corpus:
    """The documents, and what is to be said of them.

    files: those of them that gave documents or listed some. found: all that were found; a finding counts each of the
    others.
    """

    documents: tuple[Document, ...] = ()
    findings: tuple[Finding, ...] = ()
    files: int = 0
    found: int = 0


@dataclass
class _Entry:
    """A file to read. name: what messages call it, and the id of its document. source, title: what a list of pages
    says."""

    path: Path
    name: str
    kind: Kind
    source: str | None = None
    title: str | None = None


def _quiet(line: str) -> None:
    """Tells nobody."""


def read_corpus(path: Path, but: Collection[Path] = ()) -> tuple[Document, ...]:
    """The documents of `read_documents`."""
    return read_documents(path, but=but).documents


def read_documents(path: Path, say: Callable[[str], None] = _quiet, but: Collection[Path] = ()) -> Corpus:
    """Every document of a folder or a file; ids are paths, of rows in a folder with the row's id behind.

    but: files that are no documents, such as the examples. say: hears how far it is where it takes long.
    The findings are of files that cannot be read (broken_document), of formats that are not read (unread_documents),
    without text (empty_document), with pages without text (scanned_pages), not in UTF-8 (document_encoding), and how
    files were understood (document_form). Raises DataError when the corpus is absent or holds no text, and for a file
    of rows that is the whole corpus, when an id stands twice or a row cannot be read.
    """
    if not os.path.exists(path):
        raise DataError(f"{path.name}: no such file or folder ({path}). Check corpus: in task.yaml.")
    read = _read_folder(path, say, but) if os.path.isdir(path) else _read_file(path, say)
    collected = read.collected
    return Corpus(tuple(collected.documents), bounded(collected.findings), read.files, read.found)


def files_of_task(task: Task) -> tuple[Path, ...]:
    """The files of a task that are no documents, wherever they lie."""
    return (task.path, *task.example_files, *task.judged, *task.unlabelled, *task.synthetic, *task.preferences)


def examples_lie_in_the_corpus(task: Task) -> bool:
    """Whether files of examples lie in the folder of the documents: a task with copies of them would read the first
    ones as documents, and look its answers up there."""
    if task.corpus is None or not task.corpus.is_dir():
        return False
    folder = task.corpus.resolve()
    return any(path.resolve().is_relative_to(folder) for path in task.example_files)


def check_gold_ids(examples: Iterable[Example], documents: Sequence[Document]) -> tuple[Finding, ...]:
    """A warning for each example whose gold_ids name a document that is not in the corpus."""
    known = {d.id for d in documents}

    def findings() -> Iterator[Finding]:
        guesses = _MOST_GUESSES if len(known) <= 10_000 else 0
        for example in examples:
            absent = next((g for g in example.gold_ids if g not in known), None)
            if absent is None:
                continue
            guess = nearest(absent, known) if guesses > 0 else None
            guesses -= 1
            hint = f' Did you mean "{guess}"?' if guess else ""
            message = f'{example.row}: gold_ids names "{absent}", which is not in the corpus.{hint}'
            yield Finding("unknown_gold_id", "warning", example.row, message, (example.id,))

    return bounded(findings())


def texts_of(path: Path, but: Collection[Path] = ()) -> list[Path]:
    """The files that a corpus is read from: those of a folder that can be read, or the one with those that it lists."""
    if path.is_dir():
        return [p for p in files_below(path, but)[0] if _kind(p) is not None]
    return [path, *_listed_by(path)]


def _kind(path: Path) -> Kind | None:
    try:
        return kind_of(path)
    except OSError:
        return None


def _listed_by(path: Path) -> list[Path]:
    """The files that a list of pages names. A file that does not speak of files is not read for it."""
    kind = _kind(path)
    if kind not in ("rows", "workbook"):
        return []
    try:
        if kind == "rows" and path.suffix.lower() in (".jsonl", ".csv", ".tsv"):
            with identify(path).open() as file:
                head = file.read(_HEAD).lower()
            if b"file" not in head and b"path" not in head:
                return []
        return named_files(read_table(path))
    except (DataError, OSError):
        return []


# ---- one file -----------------------------------------------------------------------------------


def _read_file(path: Path, say: Callable[[str], None]) -> CorpusFiles:
    """A corpus of one file. Raises DataError where it cannot be read or holds no text."""
    if not os.path.isfile(path):  # a pipe would wait for ever
        raise DataError(f"{path.name}: is no file that holds data ({path}). Copy the documents into a file first.")
    try:
        kind = kind_of(path)
    except OSError as e:
        raise DataError(f"{path.name}: cannot be read ({e.strerror}). Check its permissions: {path}") from e
    named = named_kind(path)
    read = CorpusFiles()
    if kind == "workbook" and named in ("rows", "workbook"):
        table: Table | None = None
        try:
            table = read_table(path)
            _read_rows(path, table, read, say)
        except DataError:
            if table is not None and table.problems:
                raise
            read = CorpusFiles()  # several sheets, or no column of texts: pages of tables
            _read_entries([_Entry(path, path.name, kind)], read, say)
    elif kind is None or kind == "rows":
        _read_rows(path, read_table(path), read, say)
    else:
        _read_entries([_Entry(path, path.name, kind)], read, say)
    if read.collected.documents:
        return read
    raise_problems(read.problems)
    if read.missing:
        raise DataError(f"{path.name}: to read it, rung {NOT_INSTALLED}.")
    if unreadable := read.collected.told("scanned_pages"):
        raise DataError(unreadable[0].message)
    raise DataError(f"{path.name}: the file holds no text. Fill it in.")


def _read_rows(path: Path, table: Table, read: CorpusFiles, say: Callable[[str], None]) -> None:
    """A file of rows as the whole corpus. Raises DataError for rows that cannot be used."""
    for fact in table.how:
        read.collected.tell("document_form", path.name, f"{path.name}: {fact}.")
    is_list = lists_files(table)
    found = rows_of(table, path.name, read.collected, alone=True)
    if not is_list:
        raise_problems(found.problems)
    read.problems += found.problems
    read.bad_rows += len(found.problems)
    read.collected.documents += found.documents
    read.files += 1
    _read_entries(_entries_of(found.files, read), read, say)
    if not read.collected.documents and not read.problems:
        raise DataError(f"{path.name}: no row holds text; its texts are empty in all of them. Fill it in.")
    if read.collected.documents:
        tell_problems(path, read)


def _entries_of(files: Sequence[Named], read: CorpusFiles) -> list[_Entry]:
    """The files that a list of pages names, each once."""
    entries: dict[str, _Entry] = {}
    for named in files:
        kind = _kind(named.path)
        if kind is None or kind == "rows":
            read.breaks(named.where, f"names {named.path.name}, which is no web page or document")
        elif named.id in entries:
            read.bad_rows += 1
            read.problems.append(Problem(named.where, f'the id "{named.id[:60]}" stands in an earlier row already'))
        else:
            entries[named.id] = _Entry(named.path, shown_name(named.id), kind, named.source, named.title)
    return list(entries.values())


# ---- a folder -----------------------------------------------------------------------------------


def _read_folder(folder: Path, say: Callable[[str], None], but: Collection[Path]) -> CorpusFiles:
    read = CorpusFiles()
    files, troubles = files_below(folder, but)
    for path, why in troubles:
        name = shown_name(path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name)
        read.breaks(name, why)
    entries: list[_Entry] = []
    listed: list[Named] = []
    names: set[str] = set()
    owners: dict[str, str] = {}  # id of a row's document -> its file
    for path in files:
        name = _distinct(shown_name(path.relative_to(folder).as_posix()), names)
        try:
            kind = kind_of(path)
        except OSError as e:
            read.breaks(name, f"cannot be read ({e.strerror}); check its permissions")
            continue
        if kind is None:
            read.others[shown_name(path.suffix.lower()) or "no suffix"] += 1
        elif kind == "rows":
            before = len(read.collected.documents)
            listed += _read_table(path, name, read)
            owners |= dict.fromkeys((d.id for d in read.collected.documents[before:]), name)
        else:
            entries.append(_Entry(path, name, kind))
    if listed:
        said = {os.path.realpath(named.path): named for named in listed}
        for entry in entries:
            if named := said.get(os.path.realpath(entry.path)):
                entry.source, entry.title = named.source, named.title
    _read_entries(entries, read, say)
    read.collected.documents.sort(key=lambda d: owners.get(d.id, d.id))
    check_some(folder, read)
    tell_problems(folder, read)
    tell_others(folder, read)
    return read


def _distinct(name: str, names: set[str]) -> str:
    """The name, with a number behind where another file is shown alike."""
    written, number = name, 2
    while written in names:
        written, number = f"{name} ({number})", number + 1
    names.add(written)
    return written


def _read_table(path: Path, name: str, read: CorpusFiles) -> list[Named]:
    """Adds the documents of a file of rows among others, and returns the files that it lists."""
    try:
        if not path.stat().st_size:
            read.blank += 1
            read.collected.tell("empty_document", name, no_text(name))
            return []
        table = read_table(path)
        table.call(name)
        for fact in table.how:
            read.collected.tell("document_form", name, f"{name}: {fact}.")
        if path.suffix.lower() == ".json" and table.problems and not table.rows:
            raise DataError(table.problems[0].text)
        rows = rows_of(table, name, read.collected, alone=False)
    except OSError as e:
        read.breaks(name, f"cannot be read ({e.strerror}); check its permissions")
        return []
    except DataError as e:
        if path.suffix.lower() == ".json" and not (parsed := read_text_file(path)).problem:
            read.collected.tell("document_form", name, f"{name}: read as text, as it holds no rows.")
            _add(_Entry(path, name, "text"), parsed, read)
        else:
            read.breaks(name, str(e).removeprefix(path.name).lstrip(":, "))
        return []
    if rows.documents or rows.files:
        read.files += 1
        read.bad_rows += len(rows.problems)
    elif rows.problems:
        read.broken += 1
    else:
        read.blank += 1
    read.problems += rows.problems
    read.collected.documents += rows.documents
    return rows.files


# ---- files --------------------------------------------------------------------------------------


def _read_entries(entries: Sequence[_Entry], read: CorpusFiles, say: Callable[[str], None]) -> None:
    jobs = [(entry.path, entry.kind) for entry in entries if entry.kind != "text"]
    parsed = iter(parse_all(jobs, say))
    for entry in entries:
        _add(entry, read_text_file(entry.path) if entry.kind == "text" else next(parsed), read)


def _add(entry: _Entry, parsed: ParsedFile, read: CorpusFiles) -> None:
    """Adds the document of a file, or says why there is none."""
    name, tell = entry.name, read.collected.tell
    if parsed.problem.startswith(NOT_INSTALLED) and not parsed.lasting:
        read.missing[entry.path.suffix.lower() or NAMES[entry.kind]] += 1
        return
    if parsed.problem:
        read.breaks(name, parsed.problem)
        return
    if parsed.text.strip():
        read.files += 1
    else:
        read.blank += 1
    named = named_kind(entry.path)
    if named != entry.kind and not (named == "rows" and entry.kind == "text"):
        tell("document_form", name, f"{name}: read as {NAMES[entry.kind]}, which its name does not say.")
    if parsed.encoding:
        fact = f"read as {parsed.encoding}. Check its special characters, or save it as UTF-8"
        tell("document_encoding", name, f"{name}: {fact}.")
    if parsed.unreadable_pages:
        tell("scanned_pages", name, scanned(name, parsed))
    if parsed.text.strip():
        title, source = entry.title or parsed.title, entry.source or parsed.source
        read.collected.documents.append(Document(name, parsed.text, title, parsed.markdown, source=source))
    elif not parsed.unreadable_pages:
        tell("empty_document", name, no_text(name))
