"""Files of rows: JSONL, JSON, CSV, TSV, Parquet, Excel, Arrow, also packed by gzip or zstd.

A file's content decides how it is read, its name only breaks ties. Knows bytes, encodings and formats; knows nothing
of examples, documents or tasks. What makes a whole file unreadable raises at once; what is wrong with one row is
collected in `Table.problems`; what was recognised and a user may want to know stands in `Table.how`.
"""

from __future__ import annotations

from rung.data.formats.places import data_files, files_of, is_data_file
from rung.data.formats.reading import read_table

__all__ = ["data_files", "files_of", "is_data_file", "read_table"]
