"""The text of a data file: its encoding and its line ends, found from its bytes."""

from __future__ import annotations

import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
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
_UNDEFINED = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")  # in Windows-1252
_REGIONS = (
    (("ðýþ",), "áæíóú"),  # Turkish, where Icelandic and Faroese have á, í, ó
    (("šž", "èìøùòæð"), ""),  # Czech, Slovak, Slovene, Croatian
    (("õû", "öü", "áé"), "ãçä"),  # Hungarian, where Portuguese has ã and Estonian has ä
)
"""Letters of Windows-1252 that stand together only where another encoding was meant, and those that must lack."""
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
    """UTF-16 without a mark: one byte of each pair is often zero, the other hardly ever, and the pairs are text.

    Of Latin text nearly every second byte is zero; of other scripts, that of digits, separators and line ends.
    """
    head = head[: len(head) // 2 * 2]
    for name, high, low in (("utf-16-le", head[1::2], head[::2]), ("utf-16-be", head[::2], head[1::2])):
        if high.count(0) > len(high) / 50 and low.count(0) <= high.count(0) / 5:
            text = head.decode(name, errors="ignore")
            odd = sum(unicodedata.category(c) in ("Cn", "Co", "Cc") and c not in "\t\r\n" for c in text)
            if odd <= len(text) / 100 and ("\n" in text or "\r" in text):
                return name
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
    letters: Counter[str] = Counter()
    lines = utf8 = doubtful = undefined = 0
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
            undefined += bool(_UNDEFINED.search(raw))
            if letters.total() < 20_000:
                letters.update(re.findall(r"[^\x00-\x7f]", raw.decode("cp1252", errors="replace")))
                doubtful += _doubtful(raw)
    assert first is not None
    line, byte, value = first
    if not undefined and doubtful <= letters.total() / 50 and not utf8 and not _is_of_another_region(letters):
        more = f" and {lines - 1:,} more are" if lines > 1 else " is"
        some = ", ".join(letter for letter, _ in letters.most_common(5))
        return Encoding("cp1252", f"Windows-1252 (line {line}{more} not UTF-8; its special characters are {some})")
    if utf8:
        why = f"is not UTF-8, although {utf8:,} other line{'s are' if utf8 > 1 else ' is'}; two encodings are mixed"
        then = "Save each part as UTF-8 before you join them"
    else:
        why = "is not UTF-8, and it is not Windows-1252 either"
        then = "Save the file again as UTF-8 (for example: iconv -f CP1250 -t UTF-8, with the name of its encoding)"
    raise DataError(f"{source.name}, line {line}: byte {byte} of the line (0x{value:02x}) {why}. {then}.")


def _is_of_another_region(letters: Mapping[str, int]) -> bool:
    """Whether letters of Windows-1252 are those that Turkish, Slavic or Hungarian text has if it is wrongly read so."""
    total = sum(letters.values())

    def share(some: str) -> float:
        return sum(letters.get(c, 0) + letters.get(c.upper(), 0) for c in some) / total

    return any(all(share(some) > 0.03 for some in has) and share(lacks) < share(has[0]) / 5 for has, lacks in _REGIONS)


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


def huge_cell(values: Mapping[str, object]) -> str:
    """Why a row cannot be used that has a text longer than a line may be, or ""."""
    for name, value in values.items():
        if isinstance(value, str) and len(value) > MAX_LINE:
            return f'"{name[:60]}" is longer than {MAX_LINE // 1_000_000} MB; cut it'
    return ""


def line_end(source: Source, encoding: Encoding) -> Literal["\n", "\r"]:
    """What ends a line: a carriage return alone where the beginning of a file has no other (old Macs)."""
    head = beginning(source, encoding, _CHUNK)
    return "\r" if "\r" in head and "\n" not in head else "\n"


def beginning(source: Source, encoding: Encoding, characters: int) -> str:
    """The text up to so many characters, its line ends as they are."""
    with source.open() as file, io.TextIOWrapper(file, encoding.name, newline="") as text:
        return text.read(characters)


def text_of(source: Source, encoding: Encoding, limit: int) -> str:
    """The whole text. Raises DataError where it exceeds `limit` characters."""
    whole = beginning(source, encoding, limit + 1)
    if len(whole) > limit:
        raise DataError(f"{source.name}: larger than {limit // 1_000_000} MB. Convert it to JSONL (.jsonl).")
    return whole
