"""The text of a data file: its encoding and its line ends, found from its bytes."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TextIO

from rung.data.formats.source import Source
from rung.errors import DataError

MAX_LINE = 10_000_000
_CHUNK = 1 << 20
_HEAD = 1 << 16


@dataclass(frozen=True)
class Encoding:
    """name: as Python's codecs call it. how: what to report, or ""."""

    name: str
    how: str = ""


_MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32", "UTF-32"),
    (b"\x00\x00\xfe\xff", "utf-32", "UTF-32"),
    (b"\xef\xbb\xbf", "utf-8-sig", "UTF-8 with a byte-order mark"),
    (b"\xff\xfe", "utf-16", "UTF-16"),
    (b"\xfe\xff", "utf-16", "UTF-16"),
)
_HIGH = re.compile(rb"[\x80-\xff]")
_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")


def encoding_of(source: Source) -> Encoding:
    """The encoding of a text file: by its mark, else UTF-8, else Windows-1252 where that alone is plausible.

    Reads the whole file once, in bounded memory. Raises DataError with the line and the byte where no encoding is,
    and for what is no text.
    """
    with source.open() as file:
        head = file.read(_HEAD)
    for mark, name, told in _MARKS:
        if head.startswith(mark):
            _check(source, name, told)
            return Encoding(name, told)
    if unmarked := _unmarked_utf16(head):
        _check(source, unmarked, "UTF-16")
        return Encoding(unmarked, "UTF-16 without a mark")
    if head and len(_CONTROLS.findall(head)) > len(head) / 10:
        raise DataError(f"{source.name}: holds binary data, not text. Convert it to JSONL or CSV.")
    if _decodes(source, "utf-8"):
        return Encoding("utf-8")
    return _legacy(source)


def _unmarked_utf16(head: bytes) -> str | None:
    """UTF-16 without a mark, where every second byte of the beginning is mostly zero."""
    even, odd = head[0:2000:2], head[1:2000:2]
    if len(even) < 2 or len(odd) < 2:
        return None
    if odd.count(0) > 0.7 * len(odd) and even.count(0) < 0.05 * len(even):
        return "utf-16-le"
    if even.count(0) > 0.7 * len(even) and odd.count(0) < 0.05 * len(odd):
        return "utf-16-be"
    return None


def _decodes(source: Source, encoding: str) -> bool:
    try:
        with source.open() as file, io.TextIOWrapper(file, encoding, newline="\n") as text:
            while text.read(_CHUNK):
                pass
    except UnicodeError:
        return False
    return True


def _check(source: Source, encoding: str, told: str) -> None:
    if not _decodes(source, encoding):
        raise DataError(f"{source.name}: begins as {told} but does not go on so. Save it again as UTF-8.")


def _legacy(source: Source) -> Encoding:
    """Windows-1252, or DataError that names the first line that is not UTF-8."""
    first: tuple[int, int, int] | None = None  # line, byte of it, value
    lines = utf8 = doubtful = high = 0
    with source.open() as file:
        number = 0
        while raw := file.readline(MAX_LINE):
            number += 1
            if not _HIGH.search(raw):
                continue
            try:
                raw.decode("utf-8")
                utf8 += 1
                continue
            except UnicodeDecodeError as e:
                first = first or (number, e.start + 1, raw[e.start])
            lines += 1
            if high < 20_000:
                high += len(_HIGH.findall(raw))
                doubtful += _doubtful(raw)
    assert first is not None
    line, byte, value = first
    if doubtful <= high / 50 and utf8 <= lines / 10:
        more = f" and {lines - 1:,} more are" if lines > 1 else " is"
        return Encoding("cp1252", f"Windows-1252 (line {line}{more} not UTF-8)")
    why = f", although {utf8} other lines are" if utf8 > lines / 10 else ", and it is not Windows-1252 either"
    raise DataError(
        f"{source.name}, line {line}: byte {byte} of the line (0x{value:02x}) is not UTF-8{why}. "
        "Save the file again as UTF-8 (for example: iconv -f WINDOWS-1252 -t UTF-8)."
    )


def _doubtful(raw: bytes) -> int:
    """How many bytes from 0x80 make no sense in a Western European text of Windows-1252."""
    text = raw.decode("cp1252", errors="replace")
    count = 0
    for match in re.finditer(r"[^\x00-\x7f]+", text):
        run, before, after = match.group(), text[match.start() - 1 : match.start()], text[match.end() : match.end() + 1]
        if len(run) > 2 and any(c.isalpha() for c in run):
            count += len(run)  # Cyrillic, Greek, Chinese in an encoding of their own
            continue
        inside = before.isalpha() and after.isalpha()
        for char in run:
            odd = char == "\ufffd" or unicodedata.category(char) == "Cc"
            if inside and (not char.isalpha() or (char.isupper() and before.islower())):
                odd = odd or char not in "’‘\xad–—…·"
            count += odd
    return count


@contextmanager
def lines_of(source: Source, encoding: Encoding) -> Iterator[Iterator[tuple[int, str]]]:
    r"""(line number, text with its line end), in bounded memory. Ends are \n, \r\n, or \r where a file has no \n.

    Reading them raises DataError for a line of over 10 MB.
    """
    with source.open() as file, io.TextIOWrapper(file, encoding.name, newline=line_end(source, encoding)) as text:
        yield _numbered(text, source.name)


def _numbered(text: TextIO, name: str) -> Iterator[tuple[int, str]]:
    number = 0
    while line := text.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise DataError(
                f"{name}, line {number}: longer than {MAX_LINE // 1_000_000} MB. "
                "Put each record on its own line, and cut long texts."
            )
        yield number, line


def line_end(source: Source, encoding: Encoding) -> Literal["\n", "\r"]:
    """What ends a line: a carriage return alone where the beginning of a file has no other (old Macs)."""
    with source.open() as file, io.TextIOWrapper(file, encoding.name, newline="") as text:
        head = text.read(_CHUNK)
    return "\r" if "\r" in head and "\n" not in head else "\n"


def text_of(source: Source, encoding: Encoding, limit: int) -> str:
    """The whole text. Raises DataError where it exceeds `limit` characters."""
    with source.open() as file, io.TextIOWrapper(file, encoding.name, newline="") as text:
        whole = text.read(limit + 1)
    if len(whole) > limit:
        raise DataError(f"{source.name}: larger than {limit // 1_000_000} MB. Convert it to JSONL (.jsonl).")
    return whole
