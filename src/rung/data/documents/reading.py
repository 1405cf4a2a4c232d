"""One file -> what it holds, or why it cannot be read. Runs in a worker process."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from rung.data.documents.kinds import NAMES, Kind
from rung.data.documents.parsed import ParsedFile
from rung.errors import DataError, first_line

_READERS: dict[Kind, str] = {
    "web": "rung.data.documents.web_page:read_web_page",
    "pdf": "rung.data.documents.pdf:read_pdf",
    "word": "rung.data.documents.office:read_word",
    "slides": "rung.data.documents.office:read_slides",
    "workbook": "rung.data.documents.workbook:read_workbook_pages",
}
LIBRARIES: dict[Kind, tuple[str, ...]] = {
    "web": (),
    "pdf": ("pypdfium2", "pdfplumber"),
    "word": ("mammoth",),
    "slides": ("python-pptx",),
    "workbook": ("openpyxl",),
}
"""Distributions that read each kind."""
NOT_INSTALLED = 'needs a package more: pip install "rung[documents]"'
_BEGINS = {"pdf": b"%PDF-", "word": b"PK", "slides": b"PK", "workbook": b"PK"}


def parse(path: Path, kind: Kind) -> ParsedFile:
    """Never raises but for Ctrl-C: what is wrong stands in `problem`."""
    try:
        if begins := _BEGINS.get(kind):
            _check_beginning(path, kind, begins)
        module, _, name = _READERS[kind].partition(":")
        read: Any = getattr(importlib.import_module(module), name)
        found: ParsedFile = read(path)
        return found
    except DataError as e:
        return ParsedFile(problem=re.sub(rf"^{re.escape(path.name)}(, |: )", "", str(e)))
    except ImportError as e:
        return ParsedFile(problem=f"{NOT_INSTALLED} ({first_line(e)[:80]})", lasting=False)
    except OSError as e:
        if e.errno is None:  # a library's word for a part that is missing
            return _damaged(kind, e)
        return ParsedFile(
            problem=f"cannot be read ({e.strerror or first_line(e)}). Check its permissions.", lasting=False
        )
    except MemoryError:
        return ParsedFile(problem="needs too much memory to be read. Cut it into smaller files.", lasting=False)
    except RecursionError:
        return ParsedFile(problem="is nested too deeply to be read. Save it again, or convert it to text.")
    except Exception as e:  # whatever a library comes upon in a damaged file
        return _damaged(kind, e)


def _damaged(kind: Kind, error: Exception) -> ParsedFile:
    fact = f"cannot be read as {NAMES[kind]}, it is damaged ({type(error).__name__}: {first_line(error)[:100]})"
    return ParsedFile(problem=f"{fact}. Save it again, or convert it to text.")


def _check_beginning(path: Path, kind: Kind, begins: bytes) -> None:
    with path.open("rb") as file:
        head = file.read(1024)
    if head.startswith(b"\xd0\xcf\x11\xe0"):
        raise DataError("is protected by a password, or of a format before 2007. Save it anew, without a password.")
    if begins not in head:
        said = f"is not {NAMES[kind]}, although its name ends in {path.suffix}"
        raise DataError(f"{said}, or its beginning is missing. Copy or download it again.")
