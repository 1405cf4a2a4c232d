"""Rows of Parquet and Arrow files (Feather too), in batches. Labels that the `datasets` library keeps as numbers
become their names."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from rung.data.formats.encoding import huge_cell
from rung.data.formats.header import header_problem
from rung.data.formats.source import Source, needs_files
from rung.data.formats.typed_values import plain
from rung.data.rows import Table
from rung.errors import DataError, first_line

MAX_ROWS = 20_000_000
MAX_CHARACTERS = 4_000_000_000
"""Of all texts of a file; one that repeats a text in every row is small on disk."""
_BATCH = 1000


def read_columnar(source: Source) -> Table:
    """The rows of a Parquet or Arrow file. Raises DataError where it is damaged, or pyarrow is not installed."""
    try:
        import pyarrow as pa  # noqa: F401
    except ImportError as e:
        raise needs_files(source.name, source.kind.capitalize()) from e
    table = Table(source.path)
    with ExitStack() as open_files:
        content: Any = source.path
        if source.packing:
            content = io.BytesIO(open_files.enter_context(source.open()).read())
        with _library(source):
            schema, batches = (_parquet if source.kind == "parquet" else _arrow)(content, open_files)
        _fill(table, source, schema, batches)
    return table


@contextmanager
def _library(source: Source) -> Iterator[None]:
    """Around what pyarrow does, which raises whatever a damaged part leads to. Keep rung's own work outside."""
    import pyarrow as pa

    try:
        yield
    except Exception as e:
        if isinstance(e, OSError) and e.errno is not None and not isinstance(e, pa.ArrowException):
            raise
        fact = (
            f"cannot be read as {source.kind.capitalize()}, it is damaged, cut off or too large ({first_line(e)[:200]})"
        )
        raise DataError(f"{source.name}: {fact}. Copy or write it again.") from e


def _parquet(content: Any, open_files: ExitStack) -> tuple[Any, Iterator[Any]]:
    import pyarrow.parquet as parquet

    file = open_files.enter_context(parquet.ParquetFile(content))
    if file.metadata.num_rows > MAX_ROWS:
        raise ValueError(f"it has over {MAX_ROWS:,} rows")
    return file.schema_arrow, file.iter_batches(batch_size=_BATCH)


def _arrow(content: Any, open_files: ExitStack) -> tuple[Any, Iterator[Any]]:
    """Arrow's file format, which is Feather's too, or its stream format, which `datasets` writes."""
    import pyarrow as pa
    from pyarrow import ipc

    raw = open_files.enter_context(content.open("rb") if hasattr(content, "open") else content)
    head = raw.read(6)
    raw.seek(0)
    if head.startswith(b"ARROW1"):
        file = open_files.enter_context(ipc.open_file(pa.PythonFile(raw)))
        return file.schema, (file.get_batch(i) for i in range(file.num_record_batches))
    stream = open_files.enter_context(ipc.open_stream(raw))
    return stream.schema, iter(stream)


def _fill(table: Table, source: Source, schema: Any, batches: Iterator[Any]) -> None:
    with _library(source):
        names: list[str] = schema.names
        metadata = schema.metadata
    if problem := header_problem(names):
        raise DataError(f"{source.name}: {problem}")
    kept = [(i, n) for i, n in enumerate(names) if not n.startswith("__index_level_")]
    table.columns = [n for _, n in kept]
    label_names = _label_names(metadata)
    number = characters = 0
    for batch, size in _pieces(source, batches):
        characters += size
        if characters > MAX_CHARACTERS or number > MAX_ROWS:
            raise DataError(f"{source.name}: holds more than 4 GB of text. Cut it into several files.")
        with _library(source):
            columns: list[list[object]] = [batch.column(i).to_pylist() for i, _ in kept]
        cells = [_named(values, label_names.get(name)) for values, (_, name) in zip(columns, kept, strict=True)]
        for values in zip(*cells, strict=True) if cells else ():
            number += 1
            _add(table, number, dict(zip(table.columns, values, strict=True)))
    named = [n for n in table.columns if n in label_names]
    if named:
        table.how = (f"the numbers in {', '.join(named[:5])} are given as the names that the file has for them",)


def _pieces(source: Source, batches: Iterator[Any]) -> Iterator[tuple[Any, int]]:
    """(up to _BATCH rows of a batch that is whole, their bytes)."""
    with _library(source):
        for whole in batches:
            whole.validate(full=True)
            for start in range(0, whole.num_rows, _BATCH):
                piece = whole.slice(start, _BATCH)
                yield piece, piece.nbytes


def _named(values: list[object], names: Sequence[str] | None) -> list[object]:
    """Values of a column, numbers of labels as their names."""
    if names is None:
        return values
    return [names[v] if isinstance(v, int) and 0 <= v < len(names) else None if v == -1 else v for v in values]


def _add(table: Table, number: int, values: dict[str, object]) -> None:
    for name, value in values.items():
        if isinstance(value, str) or value is None:
            continue
        try:
            values[name] = plain(value)
        except ValueError as e:
            table.refuse(f"row {number}", f'"{name[:60]}" {e}')
            return
    if problem := huge_cell(values):
        table.refuse(f"row {number}", problem)
    else:
        table.add(f"row {number}", values)


def _label_names(metadata: Any) -> dict[str, list[str]]:
    """Column -> names of its numbers (ClassLabel), as the `datasets` library writes them beside the schema."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {
            column: [str(n) for n in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}
