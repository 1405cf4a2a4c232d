"""Files of rows as documents: a row each, a list of pages that were fetched, or one table.

Which it is, the columns say: a column of texts or of pages in HTML; `url` with `file`; or any others.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rung.data.documents.collected import Collected
from rung.data.documents.counted import no_text
from rung.data.documents.markdown import clean, pipe_table
from rung.data.documents.parsed import MAX_CHARACTERS
from rung.data.documents.web_page import markdown_of
from rung.data.rows import Problem, Row, Table, as_text, nearest, shown_columns
from rung.errors import DataError
from rung.types import Document

_TEXT_NAMES = ("text", "content", "contents", "body", "passage", "document", "paragraph", "page_content", "chunk",
               "markdown", "answer")  # fmt: skip
_ID_NAMES = ("id", "_id", "doc_id", "docid", "document_id", "passage_id", "pid")
_TITLE_NAMES = ("title", "heading", "headline")
_HTML_NAMES = ("html", "raw_html", "page_html")
_FILE_NAMES = ("file", "filename", "file_name", "path", "filepath", "file_path")
_SOURCE_NAMES = ("url", "source_url", "uri", "link", "source")
_NO_TEXT = (*_ID_NAMES, *_TITLE_NAMES, *_SOURCE_NAMES, "date", "metadata", "markdown")


@dataclass(frozen=True)
class Named:
    """A file that a list of pages names. where: the row that does."""

    path: Path
    id: str
    where: str
    source: str | None
    title: str | None


@dataclass
class _Columns:
    text: str
    id: str
    title: str
    source: str
    html: bool = False

    @property
    def names(self) -> tuple[str, str, str, str]:
        return self.text, self.id, self.title, self.source


@dataclass
class Rows:
    """What the rows of a table are. problems: of rows that cannot be used."""

    documents: list[Document] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    files: list[Named] = field(default_factory=list)


def rows_of(table: Table, name: str, read: Collected, *, alone: bool) -> Rows:
    """The documents of a table, or the files that it lists. read: hears what is to be said.

    alone: whether it is the whole corpus; its ids are then those of its rows, else they follow its name. Where no
    column holds texts, a table among others is one document. Raises DataError for one that is alone.
    """
    found = Rows(problems=list(table.problems))
    if file_column := _file_column(table):
        _add_files(table, file_column, found)
        return found
    try:
        columns = _columns(table, alone)
    except DataError:
        if alone:
            raise
        document = _as_one(table, name)
        if document.text:
            found.documents.append(document)
        elif not found.problems:
            read.tell("empty_document", name, no_text(name))
        return found
    _tell_columns(table, columns, name, read)
    first_with: dict[str, str] = {}
    for row in table.taken():
        _add_row(row, columns, "" if alone else f"{name}/", first_with, found, read)
    if table.problems:
        found.problems.sort(key=lambda p: int(p.where.rsplit(" ", 1)[1]))
    return found


def lists_files(table: Table) -> bool:
    """Whether the rows name files of pages that were fetched."""
    return _file_column(table) is not None


def named_files(table: Table) -> list[Path]:
    """The files that the rows name and that are there."""
    found = Rows()
    if column := _file_column(table):
        _add_files(table, column, found)
    return [named.path for named in found.files]


def _columns(table: Table, alone: bool) -> _Columns:
    html = _named(table, _HTML_NAMES)
    text = _named(table, _TEXT_NAMES)
    others = [c for c in table.columns if c and c.strip().casefold() not in _NO_TEXT]
    if not alone and text is not None and text.strip().casefold() == "answer" and len(others) > 1:
        text = None  # a question belongs to its answer, in a table of both
        if html is None:
            raise DataError("no column holds texts")
    is_html = text is None and html is not None
    chosen = html if is_html and html else (text if text is not None else _only(table, others))
    id_, title = _named(table, _ID_NAMES) or "id", _named(table, _TITLE_NAMES) or "title"
    return _Columns(chosen if table.rows else "text", id_, title, _named(table, _SOURCE_NAMES) or "url", is_html)


def _only(table: Table, others: Sequence[str]) -> str:
    """The only column that may hold texts. Raises DataError where there are several."""
    if len(others) == 1:
        return others[0]
    guess = nearest("text", table.columns)
    fact = f'{table.path.name}: no column "text"; columns are {shown_columns(table.columns)}'
    raise DataError(f"{fact}. Rename {guess or 'the column of texts'} to text.")


def _tell_columns(table: Table, columns: _Columns, name: str, read: Collected) -> None:
    usual = ("text", "id", "title", columns.source)
    others = [c for c, usually in zip(columns.names, usual, strict=True) if c != usually]
    if others:
        unused = [c for c in table.columns if c not in columns.names and c != "markdown"]
        left = f"; not read: {', '.join(unused[:10])}{', …' if len(unused) > 10 else ''}" if unused else ""
        fact = f"documents are read from the column {', '.join(others)}{left}"
        read.tell("document_form", name, f"{name}: {fact}.")


def _add_row(
    row: Row, columns: _Columns, before: str, first_with: dict[str, str], found: Rows, read: Collected
) -> None:
    """Adds the document of a row, or says why it is none. first_with: ids -> the rows that have them."""
    try:
        text, id_, title, source = (as_text(row.values.get(c)) for c in columns.names)
    except ValueError as e:
        found.problems.append(Problem(row.where, str(e)))
        return
    id_ = id_.strip() or row.key
    is_markdown = columns.text.strip().casefold() == "markdown" or row.values.get("markdown") in (True, "true", "True")
    if columns.html or text.lstrip()[:20].lower().startswith(("<!doctype html", "<html")):
        try:
            page = markdown_of(text)
        except DataError as e:
            found.problems.append(Problem(row.where, str(e)))
            return
        text, title, source, is_markdown = page.text, title or page.title or "", source or page.source or "", True
    if not text.strip():
        fact = f'"{columns.text}" is empty, so the row is no document. Fill it in or remove the row.'
        read.tell("empty_document", row.where, f"{row.where}: {fact}")
    elif id_ in first_with:
        fact = f'the id "{id_[:60]}" is that of {first_with[id_]} already; make ids unique'
        found.problems.append(Problem(row.where, fact))
    else:
        first_with[id_] = row.where
        document = Document(before + id_, text, title.strip() or None, is_markdown, source=source.strip() or None)
        found.documents.append(document)


def _file_column(table: Table) -> str | None:
    """The column of files, in a list of addresses without texts."""
    if _named(table, _SOURCE_NAMES) is None or _named(table, (*_TEXT_NAMES, *_HTML_NAMES)) is not None:
        return None
    return _named(table, _FILE_NAMES)


def _add_files(table: Table, column: str, found: Rows) -> None:
    folder = table.path.parent
    id_, title, source = (_named(table, names) or "" for names in (_ID_NAMES, _TITLE_NAMES, _SOURCE_NAMES))
    for row in table.rows:
        try:
            written = as_text(row.values.get(column)).strip()
            own, called, address = (as_text(row.values.get(c)).strip() for c in (id_, title, source))
        except ValueError as e:
            found.problems.append(Problem(row.where, str(e)))
            continue
        path = folder / written
        if not written or "\0" in written:
            found.problems.append(Problem(row.where, f'"{column}" is empty; name the file of the page'))
        elif not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
            fact = f'"{column}" names {written[:200]}, outside the folder of {table.path.name}'
            found.problems.append(Problem(row.where, f"{fact}; copy the file there"))
        elif not os.path.isfile(path):
            fact = f'"{column}" names {written[:200]}, which is not there'
            found.problems.append(Problem(row.where, f"{fact}; fetch the page, or remove the row"))
        else:
            found.files.append(Named(path, own or written, row.where, address or None, called or None))


def _as_one(table: Table, name: str) -> Document:
    """A table without a column of texts, as one document. Raises DataError for one with too many characters."""
    rows = [[clean(c) for c in table.columns]]
    characters = 0
    for row in table.taken():
        rows.append([_cell(row.values.get(c)) for c in table.columns])
        characters += sum(map(len, rows[-1]))
        if characters > MAX_CHARACTERS:
            fact = f"{table.path.name}: holds over {MAX_CHARACTERS // 1_000_000} million characters in one table"
            raise DataError(f"{fact}. Give it a column text, or cut it into several files.")
    return Document(name, pipe_table(rows), markdown=True)


def _cell(value: object) -> str:
    try:
        return clean(as_text(value))
    except ValueError:  # what no file can hold
        return clean(str(value))


def _named(table: Table, names: Sequence[str]) -> str | None:
    """The first of the names that is a column, in whatever case."""
    folded = {c.strip().casefold(): c for c in reversed(table.columns)}
    return next((folded[name] for name in names if name in folded), None)
