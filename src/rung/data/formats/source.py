"""The bytes of one data file: what they are by their beginning, unpacked within a bound, and their encoding."""

from __future__ import annotations

import gzip
import io
import re
import unicodedata
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from rung.errors import DataError

MAX_UNPACKED_BYTES = 4_000_000_000
MAX_UNPACKED_RATIO = 200
"""How much larger than the packed file its content may be, once it exceeds 200 MB. Text shrinks to a tenth or so."""
_RATIO_COUNTS_FROM = 200_000_000
MAX_LINE = 10_000_000
_CHUNK = 1 << 20
_HEAD = 1 << 16

Kind = Literal["text", "parquet", "arrow", "xlsx", "gzip", "zstd"]
_MAGIC: tuple[tuple[bytes, Kind], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PAR1", "parquet"),
    (b"ARROW1", "arrow"),
    (b"\xff\xff\xff\xff", "arrow"),
)
_REFUSED = (
    (b"PARE", "an encrypted Parquet file. Write it without encryption"),
    (b"\xd0\xcf\x11\xe0", "an old Excel file (.xls), or one with a password. Save it as .xlsx without a password"),
    (b"SQLite format 3", "an SQLite database. Export its table as CSV"),
    (b"%PDF", "a PDF, not a file of rows. Convert it"),
    (b"BZh", "packed by bzip2. Unpack it with bunzip2"),
    (b"\xfd7zXZ", "packed by xz. Unpack it with unxz"),
    (b"7z\xbc\xaf", "a 7-Zip archive. Unpack it"),
    (b"Rar!", "a RAR archive. Unpack it"),
    (b"\x89PNG", "a picture, not a file of rows"),
    (b"\xff\xd8\xff", "a picture, not a file of rows"),
    (b"Obj\x01", "an Avro file. Convert it to Parquet"),
    (b"FEA1", "Feather of version 1, which pyarrow gives up. Write it again as version 2"),
    (b"ORC", "an ORC file. Convert it to Parquet"),
    (b"\x89HDF", "an HDF5 file. Convert it to Parquet"),
    (b"\x80\x04", "a Python pickle, which is never opened because it may run code. Write it as JSONL"),
    (b"<!DOCTYPE", "a web page, not a file of rows. Download the file itself"),
    (b"<html", "a web page, not a file of rows. Download the file itself"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the data. Fetch it with git lfs pull"),
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A file, and what packs it. kind: of the content."""

    path: Path
    kind: Kind
    packing: Literal["gzip", "zstd"] | None = None

    @property
    def name(self) -> str:
        return self.path.name

    def open(self) -> BinaryIO:
        """The content, unpacked. Reading it raises DataError where it is damaged or much larger than its file."""
        if self.packing is None:
            return self.path.open("rb")
        return io.BufferedReader(_Unpacked(self), _CHUNK)


@dataclass(frozen=True)
class Encoding:
    """name: as Python's codecs call it. how: what to report, or ""."""

    name: str
    how: str = ""


def identify(path: Path) -> Source:
    """What a file holds, by its first bytes. Raises DataError for what cannot be read, and says what it is."""
    with path.open("rb") as file:
        head = file.read(64)
    kind = _kind(head, path)
    if kind not in ("gzip", "zstd"):
        return Source(path, kind)
    packing: Literal["gzip", "zstd"] = "gzip" if kind == "gzip" else "zstd"
    packed = Source(path, kind, packing)
    with packed.open() as content:
        inside = _kind(content.read(64), path)
    if inside in ("gzip", "zstd"):
        raise DataError(f"{path.name}: is packed twice ({packing} and {inside}). Unpack it once.")
    return Source(path, inside, packing)


def _kind(head: bytes, path: Path) -> Kind:
    if head.startswith(b"PK\x03\x04") or head.startswith(b"PK\x05\x06"):
        return "xlsx"
    bare = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for magic, what in _REFUSED:
        if head.startswith(magic) or (magic[:1] in b"<v" and bare.lower().startswith(magic.lower())):
            raise DataError(f"{path.name}: is {what}.")
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), "text")


class _Unpacked(io.RawIOBase):
    """The content of a packed file as a stream, with a bound on its size."""

    def __init__(self, source: Source) -> None:
        self._name = source.name
        self._packed = source.path.stat().st_size
        self._file = source.path.open("rb")
        self._parts = _gunzipped(self._file) if source.packing == "gzip" else _unzstd(self._file, source.name)
        self._part = b""
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._part:
            try:
                self._part = next(self._parts)
            except StopIteration:
                return 0
            except (OSError, EOFError, zlib.error, _Damaged) as e:
                raise DataError(f"{self._name}: is cut off or damaged ({e}). Copy or download it again.") from e
        n = min(len(buffer), len(self._part))
        buffer[:n], self._part = self._part[:n], self._part[n:]
        self._count += n
        swollen = self._count > max(_RATIO_COUNTS_FROM, MAX_UNPACKED_RATIO * self._packed)
        if self._count > MAX_UNPACKED_BYTES or swollen:
            size = f"{self._count // 1_000_000:,} MB"
            raise DataError(
                f"{self._name}: its content is larger than {size}, and the file has {self._packed:,} bytes. "
                "Unpack it yourself if that is right, and name the file that results."
            )
        return n

    def close(self) -> None:
        self._file.close()
        super().close()


class _Damaged(Exception):
    """A packed file that ends too early or does not follow its format."""


def _gunzipped(file: BinaryIO) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=file, mode="rb") as content:
        while part := content.read(_CHUNK):
            yield part


def _unzstd(file: BinaryIO, name: str) -> Iterator[bytes]:
    """Fed in small pieces: 4 bytes of a repeated block may unpack to 128 kB, and a piece is unpacked whole."""
    try:
        import zstandard
    except ImportError as e:
        raise needs_files(name, "zstd") from e
    unpack = zstandard.ZstdDecompressor().decompressobj()
    begun = False
    while piece := file.read(1024):
        while piece:
            try:
                part = unpack.decompress(piece)
            except zstandard.ZstdError as e:
                raise _Damaged(str(e)) from e
            begun = True
            piece = unpack.unused_data if unpack.eof else b""
            if unpack.eof:
                unpack, begun = zstandard.ZstdDecompressor().decompressobj(), False
            if part:
                yield part
    if begun:
        raise _Damaged("it ends too early")


def needs_files(name: str, what: str) -> DataError:
    """The error of a file whose format needs a package that is not there."""
    return DataError(f'{name}: to read {what}, install the packages for it: pip install "rung[files]".')


# ---- text -----------------------------------------------------------------------------------

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


def lines_of(source: Source, encoding: Encoding) -> Iterator[tuple[int, str]]:
    r"""(line number, text with its line end), in bounded memory. Ends are \n, \r\n, or \r where a file has no \n.

    Raises DataError for a line of over 10 MB.
    """
    with source.open() as file, io.TextIOWrapper(file, encoding.name, newline=line_end(source, encoding)) as text:
        number = 0
        while line := text.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE:
                raise DataError(
                    f"{source.name}, line {number}: longer than {MAX_LINE // 1_000_000} MB. "
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
