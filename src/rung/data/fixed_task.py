"""task.yaml of a cleaned copy: the user's own file, with other examples and with paths that lead from the new folder.

Only the values that change are replaced in the text, so that comments and all other keys stay as they were written.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path

import yaml

from rung.errors import DataError
from rung.types import SetName, Task

_PATHS = ("schema", "corpus", "model", "models", "metric")
"""Keys whose values may hold paths."""
_DROPPED = ("fields", "shape", "examples", "name")
"""Keys that the copy does not need, or that are written anew."""
_COMMENT = re.compile(r"^[ \t]*#[ \t]*([^\n]*)(?:\n|$)", re.M)
_OF_READING = ("input: the column", "input: the columns", "left out, as no field names them:")


def write_task(
    task: Task, folder: Path, files: Mapping[SetName | None, Path], corpus: Path | None, say_columns: bool = False
) -> Path:
    """Writes task.yaml into `folder` and returns its path. corpus: new documents; None: the old ones.

    The name gets "-clean" behind it, so that the copy has a run folder of its own. say_columns: name the columns of
    input and output, where others stand beside them. Comments that tell how the old files were read are left out.
    """
    text = task.path.read_bytes().decode("utf-8-sig")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)  # it was read as a task
    examples = {name: path.name for name, path in files.items()}
    said = _quoted(examples[None]) if None in examples else json.dumps(examples, ensure_ascii=False)
    head = {"name": _quoted(f"{task.name}-clean"), "examples": said}
    if say_columns:
        head |= {"shape": "columns", "fields": "{input: input, output: output}"}
    if task.multi_label and task.labels and all(key.value != "labels" for key, _ in root.value):
        head["labels"] = json.dumps(task.labels, ensure_ascii=False)  # fields: named them as columns
    edits: list[tuple[int, int, str]] = []
    for key, value in root.value:
        start, end = key.start_mark.index, _end_of(value)
        if key.value in _DROPPED:
            edits.append((start, end + _rest_of_line(text, end, bool(root.flow_style)), ""))
        elif key.value == "corpus" and corpus is not None:
            edits.append((value.start_mark.index, end, _quoted(corpus.name)))
        elif key.value in _PATHS:
            edits += _moved(value, key.value, task.path.parent, folder)
    first, between = root.start_mark.index, "\n" + " " * root.start_mark.column
    if root.flow_style:
        first, between = first + 1, ", "
    edits.append((first, first, "".join(f"{key}: {value}{between}" for key, value in head.items())))
    old = {path.name for path in paths_of(task.examples)}
    values = [(value.start_mark.index, _end_of(value)) for _, value in root.value]
    for match in _COMMENT.finditer(text):
        if _tells_reading(match[1], old) and not any(start <= match.start() < end for start, end in values):
            edits.append((match.start(), match.end(), ""))
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    path = folder / "task.yaml"
    text = (
        f"# A cleaned copy of {_path_from(folder, task.path)}; numbers in comments are those of the original.\n{text}"
    )
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}). Choose a folder of yours.") from error
    return path


def paths_of(examples: tuple[Path, ...] | Mapping[SetName, tuple[Path, ...]]) -> tuple[Path, ...]:
    """All files of examples."""
    return tuple(p for part in examples.values() for p in part) if isinstance(examples, Mapping) else examples


def _tells_reading(comment: str, files: Collection[str]) -> bool:
    """Whether a comment says how old files were read, as `rung init` writes it."""
    return comment.startswith(_OF_READING) or any(comment.startswith(f"{name}: ") for name in files)


def _end_of(node: yaml.Node) -> int:
    """Where the text of a value ends. The mark of a block stands behind the comments that follow it."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        end = _end_of(last[1] if isinstance(last, tuple) else last)
        if end > node.start_mark.index:  # an alias ends where its anchor stands
            return end
    return int(node.end_mark.index)


def _rest_of_line(text: str, end: int, in_braces: bool) -> int:
    """Characters after a value that go with it: its comment and line end, or in braces the comma."""
    found = re.compile(r"\s*,?\s*" if in_braces else r"[ \t]*(?:#[^\n]*)?(?:\r?\n)").match(text, end)
    at_line_end = found is not None and (in_braces or text[end - 1 : end] != "\n")
    return found.end() - end if found is not None and at_line_end else 0


def _moved(node: yaml.Node, key: str, old: Path, new: Path) -> list[tuple[int, int, str]]:
    """Edits that let the paths below a node lead to the same files from another folder."""
    if isinstance(node, yaml.MappingNode):
        values = {name.value: value for name, value in node.value}
        is_local = key in ("model", "models") and "name" in values and "endpoint" not in values
        return _moved(values["name"], key, old, new) if is_local else []  # a schema and an endpoint hold no paths
    if isinstance(node, yaml.SequenceNode):
        return [edit for item in node.value for edit in _moved(item, key, old, new)]
    written = str(node.value)
    head, path, tail = "", written, ""
    if key == "metric":
        if not written.startswith("python:"):
            return []
        head = "python:"
        path, _, function = written.removeprefix(head).rpartition(":")
        tail = f":{function}"
    elif path.endswith(":4bit"):
        path, tail = path.removesuffix(":4bit"), ":4bit"
    here = old / path
    if not path or not os.path.exists(here) or os.path.isabs(path):
        return []
    return [(node.start_mark.index, node.end_mark.index, _quoted(f"{head}{_path_from(new, here)}{tail}"))]


def _path_from(folder: Path, path: Path) -> str:
    if os.path.realpath(folder) != os.path.abspath(folder):
        return str(Path(os.path.abspath(path)))  # below a symbolic link, ".." leads to two places
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # on another drive
        return str(Path(os.path.abspath(path)))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
