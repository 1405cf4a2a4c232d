"""The documents of a corpus, from one file of rows or of text, or from a folder of texts.

Knows files and ids; does not chunk, index or search.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rung.data.findings import bounded
from rung.data.formats import read_table
from rung.data.formats.encoding import encoding_of, text_of
from rung.data.formats.source import identify
from rung.data.rows import Problem, Table, as_text, nearest, raise_problems, shown_columns
from rung.errors import DataError
from rung.types import Document, Example, Finding

TEXT_SUFFIXES = (".txt", ".md")
MAX_FILE_BYTES = 50_000_000
_MOST_GUESSES = 20  # of ids that may have been meant; each compares with all documents
_TEXT_NAMES = ("text", "content", "contents", "body", "passage", "document", "paragraph", "page_content", "chunk",
               "answer")  # fmt: skip
_ID_NAMES = ("id", "_id", "doc_id", "docid", "document_id", "passage_id", "pid")
_TITLE_NAMES = ("title", "heading", "headline")


@dataclass
class _Read:
    """What a corpus holds, and what is to be said of it."""

    documents: list[Document] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def tell(self, check: str, row: str, message: str, count: int = 1) -> None:
        severity: Literal["warning", "note"] = "note" if check == "document_form" else "warning"
        self.findings.append(Finding(check, severity, row, message, count=count))


def read_corpus(path: Path) -> tuple[Document, ...]:
    """Every document: rows with text (and id, title), or the .txt and .md files below a folder, ids their paths.

    Hidden files and folders are skipped, and documents without text. Raises DataError when the corpus is absent or
    holds no text, an id stands twice, or a file cannot be read.
    """
    return documents_and_findings(path)[0]


def documents_and_findings(path: Path) -> tuple[tuple[Document, ...], tuple[Finding, ...]]:
    """The documents as `read_corpus` returns them, and what is to be said of them.

    The findings are of files that are not read (unread_documents), documents without text (empty_document), files that
    are not UTF-8 (document_encoding), and how a file of rows was understood (document_form).
    """
    if not os.path.exists(path):
        raise DataError(f"{path.name}: no such file or folder ({path}). Check corpus: in task.yaml.")
    if os.path.isdir(path):
        read = _read_folder(path)
    else:
        read = _read_text_file(path) if path.suffix.lower() in TEXT_SUFFIXES else _read_rows(path)
    return tuple(read.documents), bounded(read.findings)


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


def _read_rows(path: Path) -> _Read:
    table = read_table(path)
    read = _Read()
    for fact in table.how:
        read.tell("document_form", path.name, f"{path.name}: {fact}.")
    text_column = _text_column(table) if table.rows else "text"
    columns = (text_column, _named(table, _ID_NAMES) or "id", _named(table, _TITLE_NAMES) or "title")
    others = [c for c, name in zip(columns, ("text", "id", "title"), strict=True) if c != name]
    if others:
        unused = [c for c in table.columns if c not in columns]
        left = f"; not read: {', '.join(unused[:10])}{', …' if len(unused) > 10 else ''}" if unused else ""
        fact = f"documents are read from the column {', '.join(others)}{left}"
        read.tell("document_form", path.name, f"{path.name}: {fact}.")
    problems = list(table.problems)
    first_with: dict[str, str] = {}
    for row in table.taken():
        try:
            text, name, title = (as_text(row.values.get(c)) for c in columns)
        except ValueError as e:
            problems.append(Problem(row.where, str(e)))
            continue
        name = name.strip() or row.key
        if not text.strip():
            message = f'{row.where}: "{text_column}" is empty, so the row is no document. Fill it in or remove the row.'
            read.tell("empty_document", row.where, message)
        elif name in first_with:
            fact = f'the id "{name[:60]}" is that of {first_with[name]} already; make ids unique'
            problems.append(Problem(row.where, fact))
        else:
            first_with[name] = row.where
            read.documents.append(Document(name, text, title.strip() or None))
    if table.problems:
        problems.sort(key=lambda p: int(p.where.rsplit(" ", 1)[1]))
    raise_problems(problems)
    if not read.documents:
        raise DataError(f'{path.name}: no row holds text; "{text_column}" is empty in all of them. Fill it in.')
    return read


def _text_column(table: Table) -> str:
    """The column of texts: by its name, else the only one that is neither id nor title. Raises DataError."""
    if (named := _named(table, _TEXT_NAMES)) is not None:
        return named
    known = (*_ID_NAMES, *_TITLE_NAMES, "url", "source", "date", "metadata")
    others = [c for c in table.columns if c and c.strip().casefold() not in known]
    if len(others) == 1:
        return others[0]
    guess = nearest("text", table.columns)
    fact = f'{table.path.name}: no column "text"; columns are {shown_columns(table.columns)}'
    raise DataError(f"{fact}. Rename {guess or 'the column of texts'} to text.")


def _named(table: Table, names: Sequence[str]) -> str | None:
    """The first of the names that is a column, in whatever case."""
    folded = {c.strip().casefold(): c for c in reversed(table.columns)}
    return next((folded[name] for name in names if name in folded), None)


def _read_text_file(path: Path) -> _Read:
    """One file of text as a corpus of one document."""
    read, problems = _Read(), list[Problem]()
    _add_text(path, path.name, read, problems)
    raise_problems(problems)
    if not read.documents:
        raise DataError(f"{path.name}: the file holds no text. Fill it in.")
    return read


def _read_folder(folder: Path) -> _Read:
    read = _Read()
    problems: list[Problem] = []
    others: Counter[str] = Counter()
    texts = 0
    for path in _files(folder):
        if path.suffix.lower() in TEXT_SUFFIXES:
            texts += 1
            _add_text(path, path.relative_to(folder).as_posix(), read, problems)
        else:
            others[path.suffix.lower() or "no suffix"] += 1
    raise_problems([Problem(f"{folder.name}/{p.where}", p.text) for p in problems])
    held = ", ".join(f"{n} × {s}" for s, n in others.most_common(5)) + (", …" if len(others) > 5 else "")
    if not read.documents:
        if texts:
            raise DataError(f"{folder.name}: none of its {texts} .txt and .md files holds text. Fill them in.")
        fact = f"no .txt or .md file in the folder, only {held or 'hidden or no files'}"
        raise DataError(f"{folder.name}: {fact}. Add or convert documents.")
    if others:
        count, total = others.total(), others.total() + texts
        fact = (
            f"{count} of {total} files {'is' if count == 1 else 'are'} not read ({held}); only .txt and .md files are"
        )
        read.tell("unread_documents", "", f"{folder.name}: {fact}. Convert them, or move them out.", count)
    return read


def _add_text(path: Path, name: str, read: _Read, problems: list[Problem]) -> None:
    """Reads one file of text into `read`, or says in `problems` why it cannot be."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            problems.append(Problem(name, f"larger than {MAX_FILE_BYTES // 1_000_000} MB; cut it into documents"))
            return
        source = identify(path)
        if source.kind != "text" or source.packing:
            problems.append(Problem(name, "is no text but a packed or binary file; convert it to text"))
            return
        encoding = encoding_of(source)
        text = as_text(text_of(source, encoding, MAX_FILE_BYTES))
    except OSError as e:
        problems.append(Problem(name, f"cannot be read ({e.strerror}); check its permissions"))
    except DataError as e:
        problems.append(Problem(name, str(e).removeprefix(path.name).lstrip(":, ")))
    except ValueError as e:
        problems.append(Problem(name, str(e)))
    else:
        if encoding.name not in ("utf-8", "utf-8-sig"):
            message = f"{name}: read as {encoding.how}. Check its special characters, or save it as UTF-8."
            read.tell("document_encoding", name, message)
        if text.strip():
            title = _title(text) if path.suffix.lower() == ".md" else None
            read.documents.append(Document(name, text, title))
        else:
            read.tell("empty_document", name, f"{name}: holds no text, so it is no document. Fill it in or remove it.")


def texts_of(path: Path) -> list[Path]:
    """The files that a corpus is read from: the one, or those of a folder that hold text."""
    return [p for p in _files(path) if p.suffix.lower() in TEXT_SUFFIXES] if path.is_dir() else [path]


def _files(folder: Path) -> list[Path]:
    """All files below but hidden ones, in the order of their relative paths; links to folders are not followed."""
    found: list[Path] = []
    for root, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".")]
        found += [p for f in files if not f.startswith(".") and os.path.isfile(p := Path(root) / f)]
    return sorted(found, key=lambda p: p.relative_to(folder).as_posix())


def _title(text: str) -> str | None:
    """The first heading of a Markdown text, where it opens with one."""
    first = text.lstrip().split("\n", 1)[0]
    return first.lstrip("#").strip() or None if first.startswith("#") else None
