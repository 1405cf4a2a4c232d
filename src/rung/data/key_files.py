"""The keys of task.yaml that name files: `examples`, `schema`, `corpus`, and `metric` with a function of the user's.

Each function takes a key's value and returns it as the task keeps it. A ValueError's text follows the name of the key.
"""

from __future__ import annotations

import glob
import json
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationInfo

from rung.data.documents.kinds import named_kind
from rung.data.key_values import beside_task, no_such_path, task_folder
from rung.data.metric_names import JUDGE, KNOWN_METRICS
from rung.data.rows import SUFFIXES, SUPPORTED, decode, kind_of, nearest, parse_json
from rung.data.taught_keys import TAUGHT_HINTS
from rung.errors import DataError
from rung.types import SetName

SETS: tuple[SetName, ...] = ("train", "dev", "test")
_NAMES_OF_DEV = ("val", "valid", "validation", "eval", "evaluation")
_EXAMPLES_HINT = "Write examples: examples.jsonl."


def examples(value: Any, info: ValidationInfo) -> object:
    """The files of examples, or those of each set."""
    if not isinstance(value, dict):
        return tuple(_example_files(value, info))
    for name in value:
        if name not in SETS:
            guess = nearest(str(name), SETS) or ("dev" if str(name).lower() in _NAMES_OF_DEV else None)
            hint = f'Did you mean "{guess}"?' if guess else "The sets are train, dev and test."
            raise ValueError(f'has an unknown set "{name}". {hint}')
    for name in ("train", "test"):
        if name not in value:
            raise ValueError(f'has no "{name}". Name both train and test, or give one file and let rung split it.')
    sets = {name: tuple(_example_files(value[name], info)) for name in SETS if name in value}
    owner: dict[Path, str] = {}
    for name, files in sets.items():
        for file in files:
            if file in owner:
                raise ValueError(f"names {file.name} in {owner[file]} and in {name}. Give each set its own file.")
            owner[file] = name
    return sets


def _example_files(value: Any, info: ValidationInfo) -> list[Path]:
    names = value if isinstance(value, list) else [value]
    if not names:
        raise ValueError(f"names no file. {_EXAMPLES_HINT}")
    files: list[Path] = []
    for name in names:
        if not isinstance(name, str) or not name:
            raise ValueError(f"must name files, holds {kind_of(name)}. {_EXAMPLES_HINT}")
        for path in _files_named(name, info):
            if path in files:
                raise ValueError(f"names {path.name} twice. Keep one.")
            files.append(path)
    return files


def row_files(value: Any, info: ValidationInfo) -> tuple[Path, ...]:
    """Files of rows that stand beside the examples: inputs without answers, pairs of answers, scored answers."""
    names = value if isinstance(value, list) else [value]
    hint = TAUGHT_HINTS.get(str(info.field_name), "Name a file, or a list of files.")
    if not names:
        raise ValueError(f"names no file. {hint}")
    for name in names:
        if not isinstance(name, str) or not name:
            held = "an empty text" if name == "" else kind_of(name)
            raise ValueError(f"must name files of rows, but holds {held}. {hint}")
    return tuple(dict.fromkeys(path for name in names for path in _files_named(name, info)))


def _files_named(name: str, info: ValidationInfo) -> list[Path]:
    """The files that a path, a folder, a glob or hf:NAME stands for. Raises ValueError."""
    from rung.data.formats import files_of

    path = beside_task(name, info)
    if os.path.exists(path):
        return files_of(str(path), task_folder(info))
    if glob.has_magic(name) or name.startswith("hf:"):
        return files_of(name, task_folder(info))
    raise ValueError(f"names {name}, which {no_such_path(name, path)}")


def metric(value: str, info: ValidationInfo) -> str:
    """The name of a metric, or python:FILE:FUNCTION with an absolute path."""
    known = (*KNOWN_METRICS, JUDGE)
    if value in known:
        return value
    if value.startswith("python:"):
        file, _, function = value.removeprefix("python:").rpartition(":")
        if not file or not function.isidentifier():
            raise ValueError(f"is {value}. Write it as python:file.py:function.")
        path = beside_task(file, info)
        if not os.path.isfile(path):
            raise ValueError(f"names {file}, which {no_such_path(file, path)}")
        return f"python:{path}:{function}"
    guess = nearest(value, known)
    hint = f'Did you mean "{guess}"?' if guess else f"Use one of {', '.join(known)}, or python:file.py:function."
    raise ValueError(f'is "{value}", which is no metric. {hint}')


def schema(value: Any, info: ValidationInfo) -> dict[str, object]:
    """The JSON Schema: inline, or that of a JSON or YAML file."""
    place = ""
    if isinstance(value, str) and value:
        path, place = beside_task(value, info), f"{value}, which "
        if os.path.isdir(path):
            raise ValueError(f"names {place}is a folder. Name the JSON Schema file in it.")
        if not os.path.isfile(path):
            raise ValueError(f"names {place}{no_such_path(value, path)}")
        try:
            lines = path.read_bytes().splitlines(keepends=True)
            text = "".join(decode(raw, path, n) for n, raw in enumerate(lines, 1))
            value = _parse_yaml(text) if path.suffix.lower() in (".yaml", ".yml") else parse_json(text)
        except OSError as e:
            raise ValueError(f"names {place}cannot be read ({e.strerror}). Check its permissions.") from e
        except (DataError, ValueError) as e:
            raise ValueError(f"names {place}is no JSON Schema: {e}. Correct the file.") from e
    if not isinstance(value, dict):
        fact = f"names {place}holds" if place else "is"
        raise ValueError(f"{fact} {kind_of(value)}, not a JSON object. Write a schema such as {{type: object, …}}.")
    try:
        return dict(json.loads(json.dumps(value, allow_nan=False)))
    except (TypeError, ValueError, RecursionError) as e:
        raise ValueError(f"holds a value that JSON cannot hold ({e}). Quote dates.") from e


def _parse_yaml(text: str) -> object:
    """The value that a YAML text holds. Raises ValueError."""
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        place = f" at line {mark.line + 1}" if mark is not None else ""
        raise ValueError(f"not valid YAML: {getattr(e, 'problem', None) or 'it cannot be parsed'}{place}") from e
    except RecursionError as e:
        raise ValueError("not usable YAML: nested too deeply") from e


def corpus(value: str, info: ValidationInfo) -> Path:
    """The folder or the file of documents."""
    path = beside_task(value, info)
    if not value or not os.path.exists(path):
        raise ValueError(f"names {value}, which {no_such_path(value, path)}")
    if os.path.isfile(path) and path.suffix.lower() not in SUFFIXES and named_kind(path) is None:
        formats = "text, Markdown, HTML, PDF, Word (.docx), PowerPoint (.pptx)"
        raise ValueError(f"names {value}, which cannot be read. Give a folder of documents, {formats}, or {SUPPORTED}.")
    return path
