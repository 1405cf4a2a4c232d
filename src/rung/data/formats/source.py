"""The bytes of one data file: what they are by their beginning, unpacked within a bound."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from rung.errors import DataError

MAX_UNPACKED_BYTES = 4_000_000_000
MAX_UNPACKED_RATIO = 200
"""How much larger than the packed file its content may be, once it exceeds 200 MB. Text shrinks to a tenth or so."""
RATIO_COUNTS_FROM = 200_000_000
_CHUNK = 1 << 20

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
_ALSO_WORDS = (b"PARE", b"ORC")


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
    binary = any(byte < 9 or 13 < byte < 32 or byte > 127 for byte in head)  # "ORC", "PARENT" begin texts as well
    for magic, what in _REFUSED:
        if not binary and magic in _ALSO_WORDS:
            continue
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
        swollen = self._count > max(RATIO_COUNTS_FROM, MAX_UNPACKED_RATIO * self._packed)
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
