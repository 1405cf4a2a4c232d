"""A file of plain text or Markdown."""

from __future__ import annotations

import re
from pathlib import Path

from rung.data.documents.kinds import MARKDOWN_SUFFIXES
from rung.data.documents.parsed import MAX_CHARACTERS, ParsedFile
from rung.data.formats.encoding import encoding_of, text_of
from rung.data.formats.source import identify
from rung.data.rows import PACKED_SUFFIXES, as_text, unpacked_name
from rung.errors import DataError

_FRONT_TITLE = re.compile(r"^title:[ \t]*(['\"]?)(.+?)\1[ \t]*$", re.MULTILINE)


def read_text_file(path: Path) -> ParsedFile:
    """Never raises: what is wrong stands in `problem`."""
    problem = ""
    try:
        if (size := path.stat().st_size) > MAX_CHARACTERS:
            return ParsedFile(problem=f"larger than {MAX_CHARACTERS // 1_000_000} MB; cut it into documents")
        if not size:
            return ParsedFile(markdown=False)
        source = identify(path)
        if source.kind != "text" or (source.packing and path.suffix.lower() not in PACKED_SUFFIXES):
            return ParsedFile(problem="is no text but a packed or binary file; convert it to text")
        encoding = encoding_of(source)
        text = as_text(text_of(source, encoding, MAX_CHARACTERS))
    except OSError as e:
        problem = f"cannot be read ({e.strerror}); check its permissions"
    except DataError as e:
        problem = str(e).removeprefix(path.name).lstrip(":, ")
        problem = problem.replace(", not a file of rows.", ". Convert it to text, or remove it.")
        problem = problem.replace("Convert it to JSONL or CSV.", "Convert it to text, or remove it.")
    except ValueError as e:
        problem = str(e)
    if problem:
        return ParsedFile(problem=problem)
    is_markdown = unpacked_name(path).suffix.lower() in MARKDOWN_SUFFIXES
    told = "" if encoding.name in ("utf-8", "utf-8-sig") else encoding.how
    return ParsedFile(text, _title(text) if is_markdown else None, is_markdown, encoding=told)


def _title(text: str) -> str | None:
    """The title that stands in the front matter of a Markdown text, or the heading that it opens with."""
    text = text.lstrip()
    if text.startswith("---\n"):
        front, mark, body = text[4:].partition("\n---\n")
        if mark and (found := _FRONT_TITLE.search(front)):
            return found[2]
        text = body.lstrip() if mark else text
    first = text.split("\n", 1)[0]
    return first.lstrip("#").strip() or None if first.startswith("#") else None
