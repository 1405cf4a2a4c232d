"""The documents of a corpus, from one file of rows or from a folder of texts.

Knows files and ids; does not chunk, index or search.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rung.data.findings import bounded
from rung.data.rows import Problem, Table, as_text, nearest, raise_problems, read_lines, read_table
from rung.errors import DataError
from rung.types import Document, Example, Finding

TEXT_SUFFIXES = (".txt", ".md")
MAX_FILE_BYTES = 50_000_000
_MOST_GUESSES = 20  # of ids that may have been meant; each compares with all documents
_TEXT_NAMES = ("text", "content", "body", "passage", "document", "paragraph", "answer")


def read_corpus(path: Path) -> tuple[Document, ...]:
    """Every document: rows with text (and id, title), or the .txt and .md files below a folder, ids their paths.

    Hidden files and folders are skipped. Raises DataError when the corpus is absent or empty, an id stands twice
    or a document has no text.
    """
    if not os.path.exists(path):
        raise DataError(f"{path.name}: no such file or folder ({path}). Check corpus: in task.yaml.")
    return _read_folder(path) if os.path.isdir(path) else _read_file(path)


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


def _read_file(path: Path) -> tuple[Document, ...]:
    table = read_table(path)
    if table.rows and "text" not in table.columns:
        raise DataError(_no_text(table))
    problems = list(table.problems)
    documents: list[Document] = []
    first_with: dict[str, str] = {}
    for row in table.taken():
        try:
            text, name, title = (as_text(row.values.get(c)) for c in ("text", "id", "title"))
        except ValueError as e:
            problems.append(Problem(row.where, str(e)))
            continue
        name = name.strip() or row.key
        if not text.strip():
            problems.append(Problem(row.where, '"text" is empty; fill it in or remove the row'))
        elif name in first_with:
            fact = f'the id "{name[:60]}" is that of {first_with[name]} already; make ids unique'
            problems.append(Problem(row.where, fact))
        else:
            first_with[name] = row.where
            documents.append(Document(name, text, title.strip() or None))
    if table.problems:
        problems.sort(key=lambda p: int(p.where.rsplit(" ", 1)[1]))
    raise_problems(problems)
    return tuple(documents)


def _no_text(table: Table) -> str:
    folded = {c.casefold(): c for c in table.columns}
    guess = nearest("text", table.columns) or next((folded[n] for n in _TEXT_NAMES if n in folded), None)
    here = ", ".join(c[:60] for c in table.columns[:20]) or "none"
    return f'{table.path.name}: no column "text"; columns are {here}. Rename {guess or "the column of texts"} to text.'


def _read_folder(folder: Path) -> tuple[Document, ...]:
    documents: list[Document] = []
    problems: list[Problem] = []
    others: Counter[str] = Counter()
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        if path.suffix.lower() not in TEXT_SUFFIXES:
            others[path.suffix.lower() or "no suffix"] += 1
            continue
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                problems.append(Problem(name, f"larger than {MAX_FILE_BYTES // 1_000_000} MB; cut it into documents"))
                continue
            text = as_text("".join(line for _, line in read_lines(path)))
        except OSError as e:
            problems.append(Problem(name, f"cannot be read ({e.strerror}); check its permissions"))
        except ValueError as e:
            problems.append(Problem(name, str(e)))
        else:
            if text.strip():
                documents.append(Document(name, text, _title(text) if path.suffix.lower() == ".md" else None))
            else:
                problems.append(Problem(name, "holds no text; fill it in or remove the file"))
    raise_problems([Problem(f"{folder.name}/{p.where}", p.text) for p in problems])
    if not documents:
        held = ", ".join(f"{n} × {s}" for s, n in others.most_common(5)) or "hidden or no files"
        raise DataError(f"{folder.name}: no .txt or .md file in the folder, only {held}. Add or convert documents.")
    return tuple(documents)


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
