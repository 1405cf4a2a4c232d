"""Rows to examples, and back: which shape a file's rows have, and which columns hold what.

A shape is one module and one line in SHAPES. Knows columns and the values of rows; knows nothing of files' formats
(`rung.data.formats`) nor whether examples are good (`rung.data.checks`).
"""

from __future__ import annotations

from rung.data.shapes.converting import WRITABLE, Converted, convert, rows_of, write_rows
from rung.data.shapes.labels import Labels, SeveralLabels, found_several
from rung.data.shapes.recognising import SHAPES, Recognised, examples_of, flat, recognise, recognised
from rung.data.shapes.seam import Fields

__all__ = [
    "SHAPES",
    "WRITABLE",
    "Converted",
    "Fields",
    "Labels",
    "Recognised",
    "SeveralLabels",
    "convert",
    "examples_of",
    "flat",
    "found_several",
    "recognise",
    "recognised",
    "rows_of",
    "write_rows",
]
