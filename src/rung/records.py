"""Records on disk: whole-file writes that happen or do not, and append-only lines that survive a kill.

What is read knows its file: a record that is torn, or lacks a key that is asked for, is a `DamagedRecord` that names
it. Knows bytes, JSON and how it holds dataclasses; nothing of what they mean.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from textwrap import shorten
from traceback import walk_tb
from types import NoneType, UnionType
from typing import IO, Any, Literal, NoReturn, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from rung.errors import DamagedRecord

SCRATCH = ".tmp"
"""Ending of files and folders that are being written."""

_TAIL_BYTES = 65_536

Value = TypeVar("Value")


def scratch_beside(path: Path) -> Path:
    """A name for unfinished work beside `path` that no other process or thread uses."""
    return path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}{SCRATCH}")


def write_text(path: Path, text: str, *, synced: bool = True) -> None:
    """Writes the whole file or leaves the old one, whatever interrupts and whoever else writes it.

    synced: it is on disk when this returns; else a power cut, and no kill, may take it.
    """
    _write(path, (text,), synced)


def _write(path: Path, parts: Iterable[str], synced: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = scratch_beside(path)
    try:
        with scratch.open("w", encoding="utf-8") as file:
            file.writelines(parts)
            file.flush()
            if synced:
                os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def write_json(path: Path, record: Mapping[str, Any], *, synced: bool = True) -> None:
    """As `write_text`, for one JSON object."""
    write_text(path, json.dumps(record, ensure_ascii=False, indent=1) + "\n", synced=synced)


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """As `write_text`, for one JSON line a record; they are taken and written one by one."""
    _write(path, map(_line, records))


def link_or_copy(source: str | Path, path: str | Path) -> None:
    """A second name for a file that nobody changes any more: a hard link; a copy where the disk has no such links."""
    try:
        os.link(source, path)
    except OSError:
        shutil.copyfile(source, path)


class KeptRecord(dict[str, Any]):
    """An object of a file. file: where it stands. Raises DamagedRecord for a key that is not there; `get` does not."""

    file: Path

    def __missing__(self, key: str) -> NoReturn:
        if hasattr(self, "file"):
            raise DamagedRecord(self.file, f"{key!r} is missing; another version of rung may have written it")
        raise KeyError(key)


def but(record: Mapping[str, Any], *gone: str, **changed: Any) -> dict[str, Any]:
    """A copy that still knows its file, without the keys that are named, and with others as they are given."""
    copied = cast(dict[str, Any], copy(record))
    for key in gone:
        copied.pop(key, None)
    copied.update(changed)
    return copied


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file, or None when there is no such file. It and all objects in it are `KeptRecord`s.

    Raises DamagedRecord where the file holds something else.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    return object_of(text, path)


def object_of(text: bytes, path: Path, where: str = "") -> dict[str, Any]:
    """The JSON object that a text of a file holds. where: the line that it is, in words. Raises as `read_json` does."""

    def kept(found: dict[str, Any]) -> KeptRecord:
        record = KeptRecord(found)
        record.file = path
        return record

    try:
        if not text.strip():
            raise ValueError("it is empty")
        record = json.loads(text.decode("utf-8"), object_hook=kept)
        if not isinstance(record, KeptRecord):
            raise ValueError("it is no JSON object")
    except (ValueError, RecursionError) as error:
        raise DamagedRecord(path, f"{where}{_broken(error)}") from None
    return record


def _broken(error: Exception) -> str:
    """What is wrong with a text that is no JSON, in words for people."""
    if isinstance(error, json.JSONDecodeError):
        rest = error.doc[error.pos :].strip()
        cut = error.msg.startswith("Unterminated") or (len(rest) < _LONGEST_PART and rest[-1:] not in ("]", "}"))
        return _CUT if cut else f"it is no JSON from line {error.lineno}, column {error.colno} on"
    if isinstance(error, UnicodeDecodeError):
        return _CUT if error.reason == "unexpected end of data" else "it is no text in UTF-8"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


_CUT = "it ends in the middle"
_LONGEST_PART = len("\\u123") + 1
"""One more than the characters that may be left of a value of JSON that is cut and is no text: fals, \\u123."""


def check_whole(path: Path, found: int, least: int) -> None:
    """Raises DamagedRecord where a file is there and has fewer lines than another record counts. found: its lines."""
    if found < least and path.is_file():
        raise DamagedRecord(
            path, f"{_CUT}: it has {found:,} of {least:,} lines" if path.stat().st_size else "it is empty"
        )


def from_record(kind: type[Value], record: Mapping[str, Any]) -> Value:
    """The dataclass that `asdict` and JSON made the record of; a field that it leaves out has its default.

    Fields that hold dataclasses, tuples or None are read so; others stay as they are. Raises TypeError or ValueError
    where a key is missing or unknown, or a value is of another type than its field; of a `KeptRecord`, DamagedRecord.
    """
    try:
        return cast(Value, _reader(cast(Any, kind))(record))
    except (TypeError, ValueError) as error:
        if isinstance(record, KeptRecord):
            raise DamagedRecord(record.file, str(error)) from None
        raise


@cache
def _reader(kind: Any) -> Callable[[Any], Any]:
    """What makes of a value of JSON one of that type. JSON knows one kind of number; of a Literal, texts alone."""
    members, origin = get_args(kind), get_origin(kind)
    if origin in (Union, UnionType):
        others = [one for one in members if one is not NoneType]
        return _or_none(_reader(others[0])) if len(others) == 1 and NoneType in members else _as_it_is
    if origin is tuple:
        return _reader_of_tuple(members)
    if isinstance(kind, type) and is_dataclass(kind):
        return _reader_of_dataclass(kind)
    plain = _PLAIN.get(origin or kind)
    return _as_it_is if plain is None else _checked(*plain)


_PLAIN: Mapping[Any, tuple[str, tuple[type, ...]]] = {
    str: ("no text", (str,)),
    Literal: ("no text", (str,)),
    bool: ("neither true nor false", (bool,)),
    int: ("no number", (int, float)),
    float: ("no number", (int, float)),
    list: ("no list", (list, tuple)),
    Sequence: ("no list", (list, tuple)),
    dict: ("no object", (Mapping,)),
    Mapping: ("no object", (Mapping,)),
}
"""Type of a field -> what is said of another one, and what may stand there."""


def _as_it_is(value: Any) -> Any:
    return value


def _checked(otherwise: str, types: tuple[type, ...]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not isinstance(value, types):
            raise TypeError(f"{_short(value)} is {otherwise}")
        return value

    return read


def _or_none(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else read(value)


def _reader_of_tuple(members: Sequence[Any]) -> Callable[[Any], tuple[Any, ...]]:
    repeated = members[-1] is ...
    kinds = [_reader(one) for one in members if one is not ...]

    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise TypeError(f"{_short(value)} is no list")
        if repeated:
            return tuple(map(kinds[0], value))
        return tuple(each(one) for each, one in zip(kinds, value, strict=True))

    return read


def _reader_of_dataclass(kind: type) -> Callable[[Any], Any]:
    required = [f.name for f in fields(kind) if f.init and f.default is MISSING and f.default_factory is MISSING]
    hints = get_type_hints(kind)

    def read(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise TypeError(f"{_short(value)} is no {kind.__name__}")
        found = {key: field(key, one) for key, one in value.items()}
        if isinstance(value, KeptRecord):
            for name in required:
                value[name]  # says which is missing
        return kind(**found)

    def field(key: str, value: Any) -> Any:
        if (each := readers.get(key)) is None:
            each = readers[key] = _reader(hints.get(key))
        try:
            return each(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{key}: {error}") from None

    readers: dict[str, Callable[[Any], Any]] = {}
    return read


def _short(value: Any) -> str:
    """A value as JSON has it, cut."""
    return shorten(json.dumps(value, ensure_ascii=False, default=str), 60, placeholder=" …")


_UNEXPECTED = (TypeError, AttributeError, ValueError, LookupError)
_NEAR = 4  # functions of rung from the one that failed on outwards
_HERE = str(Path(__file__).parent)


def damage_behind(error: Exception) -> DamagedRecord | None:
    """What an error that nobody foresaw says of a file: that a value in it is probably of another type than expected.

    So it is where the function that failed, or one of the few that called it, works on a record of the file. None where
    nothing points to a file: the error is a defect.
    """
    if not isinstance(error, _UNEXPECTED):
        return None
    own = [(f, n) for f, n in walk_tb(error.__traceback__) if f.f_code.co_filename.startswith(_HERE)]
    for frame, _ in reversed(own[-_NEAR:]):
        for value in frame.f_locals.values():
            for one in value[:1] if isinstance(value, list | tuple) else (value,):
                if isinstance(one, KeptRecord) and hasattr(one, "file"):
                    inner, line = own[-1]
                    place = f"{Path(inner.f_code.co_filename).relative_to(_HERE).as_posix()}, line {line}"
                    fact = f"a value in it is not of the type that {place} reads: {type(error).__name__}: {error}"
                    return DamagedRecord(one.file, f"{fact}. If rung alone has written it, report this as a defect")
    return None


def append_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Appends one JSON line a record, on disk when it returns. A torn last line is cut off first.

    Reads only the end of the file, so that appending costs the same however long the file is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(map(_line, records))
    with path.open("ab+") as file:
        _cut_torn_line(file)
        file.seek(0, os.SEEK_END)
        file.write(text.encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All whole lines; a last line torn by a kill is left out. Empty when there is no such file.

    They are as `read_json` has them. Raises DamagedRecord for a line before the last that is no object.
    """
    try:
        written = path.read_bytes()
    except FileNotFoundError:
        return []
    lines = written[: written.rfind(b"\n") + 1].splitlines()
    return [object_of(line, path, f"line {number}: ") for number, line in enumerate(lines, 1)]


def _line(record: Mapping[str, Any]) -> str:
    """The record as a line of JSON; one that holds half of a surrogate pair, which UTF-8 cannot write, in ASCII."""
    text = json.dumps(record, ensure_ascii=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = json.dumps(record)
    return f"{text}\n"


def _cut_torn_line(file: IO[bytes]) -> None:
    end = file.seek(0, os.SEEK_END)
    place = end
    while place > 0:
        start = max(0, place - _TAIL_BYTES)
        file.seek(start)
        newline = file.read(place - start).rfind(b"\n")
        if newline >= 0:
            whole = start + newline + 1
            break
        place = start
    else:
        whole = 0
    if whole < end:
        file.truncate(whole)
