"""One data file -> its Table: what it holds is found out first, then the reader of that format is called."""

from __future__ import annotations

import os
from pathlib import Path

from rung.data.formats.delimited import read_delimited
from rung.data.formats.encoding import encoding_of
from rung.data.formats.json_rows import clearly_json, read_json
from rung.data.formats.layout import SEPARATORS, clearly_delimited
from rung.data.formats.source import Source, identify
from rung.data.rows import SUFFIXES, SUPPORTED, Table, unpacked_name
from rung.errors import DataError

_JSON = (".jsonl", ".ndjson", ".json")
_DELIMITED = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
_COLUMNAR = {"parquet": (".parquet",), "arrow": (".arrow", ".feather"), "xlsx": (".xlsx",)}
_WORDS = {"parquet": "Parquet", "arrow": "Arrow", "xlsx": "Excel", "gzip": "packed by gzip", "zstd": "packed by zstd"}


def read_table(path: Path) -> Table:
    """Every row of a file, by what the file holds; where its name says something else, `how` tells.

    Raises DataError for an absent, empty, damaged or unsupported file, one without a sensible encoding or with two
    sensible readings, and a line over 10 MB (which is refused after 10 MB of it). Rows that are not objects, not JSON
    or of a wrong number of fields are in `problems`.
    """
    if not os.path.exists(path):
        raise DataError(f"{path.name}: no such file ({path}). Check the path.")
    if os.path.isdir(path):
        raise DataError(f"{path.name}: is a folder ({path}). Name the file in it.")
    if not os.path.isfile(path):
        raise DataError(f"{path.name}: is not a regular file ({path}). Copy the data into a file first.")
    try:
        table = _read(path)
    except OSError as e:
        raise DataError(f"{path.name}: cannot be read ({e.strerror or e}). Check its permissions: {path}") from e
    if not table.rows and not table.problems:
        raise DataError(f"{path.name}: the file holds no rows. Put one record on each line.")
    if not table.columns:
        seen: dict[str, None] = {}
        for row in table.rows:
            seen.update(dict.fromkeys(row.values))
        table.columns = [c.encode(errors="replace").decode() for c in seen]
    return table


def _read(path: Path) -> Table:
    if path.stat().st_size == 0:
        return Table(path)
    suffix = unpacked_name(path).suffix.lower()
    source = identify(path)
    how: list[str] = []
    if source.packing and path.suffix.lower() not in (".gz", ".zst"):
        how.append(_WORDS[source.packing])
    elif not source.packing and suffix != path.suffix.lower():
        how.append(f"not packed, although the name ends in {path.suffix}")
    if source.kind == "text":
        table = _read_text(source, suffix, how)
    else:
        if suffix not in _COLUMNAR[source.kind] and suffix in SUFFIXES:
            how.append(f"{_WORDS[source.kind]}, although the name ends in {suffix}")
        table = _read_typed(source)
    table.how = (*how, *table.how)
    return table


def _read_typed(source: Source) -> Table:
    if source.kind == "xlsx":
        from rung.data.formats.sheets import read_workbook

        return read_workbook(source)
    from rung.data.formats.columnar import read_columnar

    return read_columnar(source)


def _read_text(source: Source, suffix: str, how: list[str]) -> Table:
    if any(suffix in suffixes for suffixes in _COLUMNAR.values()):
        raise DataError(
            f"{source.name}: is not a {suffix} file, although its name ends so, or it is cut off at its beginning. "
            f"Write it again, or convert it to {SUPPORTED}."
        )
    encoding = encoding_of(source)
    if encoding.how:
        how.append(encoding.how)
    as_json = clearly_json(source, encoding)
    if suffix in _DELIMITED and not as_json:
        return read_delimited(source, encoding, _DELIMITED[suffix])
    separator = None if as_json else clearly_delimited(source, encoding)
    if suffix in _JSON and separator is None:
        return read_json(source, encoding, listed=suffix == ".json")
    if as_json:
        how.append(f"JSON{_although(suffix)}")
        return read_json(source, encoding, listed=False)
    if separator is None:
        what = "holds plain text, not rows" if suffix == ".txt" else f'files that end in "{suffix}" cannot be read'
        raise DataError(f"{source.name}: {what}. Convert it to {SUPPORTED}.")
    how.append(f"{SEPARATORS.get(separator, repr(separator))}{_although(suffix)}")
    return read_delimited(source, encoding, separator, tell=False)


def _although(suffix: str) -> str:
    return f', although the name ends in "{suffix}"' if suffix else ""
