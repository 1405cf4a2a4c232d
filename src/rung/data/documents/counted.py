"""The files of a corpus, counted each once as they are read, and what is said of those that gave no document."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from rung.data.documents.collected import Collected
from rung.data.documents.parsed import ParsedFile
from rung.data.documents.reading import NOT_INSTALLED
from rung.data.rows import Problem
from rung.errors import DataError

_SHOWN = 10  # files that a message about a corpus without documents spells out
_NO_TEXT = ("empty_document", "scanned_pages")


@dataclass
class CorpusFiles:
    """What is known while files are read. Each file counts once.

    others: endings of files that nothing reads. missing: of those that need a package. files: number of those that gave
    something. blank: of those without text. broken: of those that cannot be read. bad_rows: rows of `files` that cannot
    be used.
    """

    collected: Collected = field(default_factory=Collected)
    problems: list[Problem] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    files: int = 0
    blank: int = 0
    broken: int = 0
    bad_rows: int = 0

    @property
    def found(self) -> int:
        """All files."""
        return self.files + self.blank + self.broken + self.others.total() + self.missing.total()

    def breaks(self, where: str, why: str) -> None:
        """Notes a file that cannot be read."""
        self.broken += 1
        self.problems.append(Problem(where, why))


def check_some(folder: Path, read: CorpusFiles) -> None:
    """Raises DataError where a folder gave no document."""
    if read.collected.documents:
        return
    lines = [f"{folder.name}/{p.where}: {p.text.rstrip('.')}." for p in read.problems]
    lines += [f"{folder.name}/{f.message}" for check in _NO_TEXT for f in read.collected.told(check)]
    if len(lines) > _SHOWN:
        lines = [*lines[:_SHOWN], f"… and {len(lines) - _SHOWN:,} more"]
    if read.missing:
        lines.append(
            f"{_held(read.missing)}: to read {'it' if read.missing.total() == 1 else 'them'}, rung {NOT_INSTALLED}."
        )
    if read.others and lines:
        lines.append(f"{_held(read.others)}: nothing reads these formats. Convert them, or move them out.")
    if len(lines) == 1:
        raise DataError(f"{folder.name}: no document can be read. {lines[0]}")
    if lines:
        fact = f"{folder.name}: none of its {read.found:,} files is a document that can be read"
        raise DataError("\n  ".join([f"{fact}.", *lines]))
    held = _held(read.others) or "hidden or no files"
    raise DataError(f"{folder.name}: no file of documents in the folder, only {held}. Add or convert documents.")


def _held(counts: Counter[str]) -> str:
    return ", ".join(f"{n} × {s}" for s, n in counts.most_common(5)) + (", …" if len(counts) > 5 else "")


def tell_problems(corpus: Path, read: CorpusFiles) -> None:
    """What is wrong with files among others, which are left out; and how many they are, for the verdict."""
    for problem in read.problems:
        message = f"{problem.where}: {problem.text.rstrip('.')}. It is left out."
        read.collected.tell("broken_document", problem.where, message)
    parts = [f"{read.broken:,} of {read.found:,} files"] if read.broken else []
    if read.bad_rows:
        rows = "1 row" if read.bad_rows == 1 else f"{read.bad_rows:,} rows"
        parts.append(f"{rows} of the others" if read.broken else rows)
    if parts:
        is_one = read.broken + read.bad_rows == 1
        fact = f"{corpus.name}: {' and '.join(parts)} cannot be read, and {'is' if is_one else 'are'} left out."
        read.collected.tell("broken_document", "", fact, count=0)
    read.problems = []


def tell_others(folder: Path, read: CorpusFiles) -> None:
    """How many files of a folder are not read or hold pages without text, for the verdict."""
    total = read.found
    if count := len(read.collected.told("scanned_pages")):
        fact = f"{count:,} of {total:,} files {'has' if count == 1 else 'have'} pages without text that can be read"
        read.collected.tell("scanned_pages", "", f"{folder.name}: {fact}.", count=0)
    if read.missing:
        count = read.missing.total()
        fact = f"{count} of {total} files {'is' if count == 1 else 'are'} not read ({_held(read.missing)})"
        read.collected.tell("unread_documents", "", f"{folder.name}: {fact}; for these, rung {NOT_INSTALLED}.", count)
    if read.others:
        count = read.others.total()
        fact = f"{count} of {total} files {'is' if count == 1 else 'are'} not read ({_held(read.others)})"
        told = f"{folder.name}: {fact}; nothing reads these formats. Convert them, or move them out."
        read.collected.tell("unread_documents", "", told, count)


def no_text(name: str) -> str:
    return f"{name}: holds no text, so it is no document. Fill it in or remove it."


def scanned(name: str, parsed: ParsedFile) -> str:
    count = len(parsed.unreadable_pages)
    shown = ", ".join(map(str, parsed.unreadable_pages[:10])) + (", …" if count > 10 else "")
    pages = f"page {shown} of {parsed.pages}" if count == 1 else f"{count} of {parsed.pages} pages ({shown})"
    fact = f"{pages} {'holds' if count == 1 else 'hold'} no text that can be read"
    return f"{name}: {fact}, only pictures or drawings, or damaged. Run text recognition (OCR) over the file."
