"""task.yaml -> Task: YAML with line numbers, and the record of a task that a run keeps.

Knows YAML and where each key stands; what each key means is in `task_keys`. Reads no example and no document.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import yaml

from rung.data.rows import SUFFIXES, kind_of, nearest
from rung.errors import TaskError
from rung.types import Task

MAX_TASK_BYTES = 5_000_000

BESIDE = ("judged", "unlabelled", "synthetic", "preferences")
"""Keys that name files of rows beside the examples."""

Place = tuple[str | int, ...]
"""Keys and list positions that lead to a value: ("labels", 2)."""


@dataclass
class Parsed:
    """task.yaml as plain values. lines: place -> line, from 1. raw: place -> the scalar as it was written."""

    file: str
    values: dict[str, object]
    lines: dict[Place, int] = field(default_factory=dict)
    raw: dict[Place, str] = field(default_factory=dict)

    def at(self, place: Place) -> str:
        """ "task.yaml, line 3", for the nearest enclosing value whose line is known."""
        while place and place not in self.lines:
            place = place[:-1]
        return f"{self.file}, line {self.lines[place]}" if place else self.file


def read_task(path: Path) -> Task:
    """The task that a task.yaml, or the folder that holds one, describes; paths absolute, defaults filled in.

    Raises TaskError with file, line, key and next step; all wrong keys are in one message.
    """
    from pydantic import ValidationError

    from rung.data.task_keys import TaskKeys, to_task

    path = _find(Path(path))
    text = _text_of(path)
    try:
        parsed = _parse(path.name, text)
    except TaskError as e:
        raise TaskError(f"{_odd_indent(path.name, text)}{e}") from e
    try:
        keys = TaskKeys.model_validate(parsed.values, context={"folder": path.parent})
    except ValidationError as e:
        found = [(tuple(p["loc"]), str(p["type"]), p.get("input"), p) for p in e.errors(include_url=False)]
        found.sort(key=lambda f: next((parsed.lines[f[0][:n]] for n in (2, 1) if f[0][:n] in parsed.lines), 0))
        messages = [_explain(parsed, place, kind, value, dict(p)) for place, kind, value, p in found]
        raise TaskError(_odd_indent(path.name, text) + "\n".join(dict.fromkeys(messages))) from None
    try:
        return to_task(keys, path)
    except ValueError as e:
        raise TaskError(f"{parsed.file}: {e}") from None


def task_record(task: Task) -> dict[str, object]:
    """The task as JSON values, everything resolved: what task.json keeps."""
    examples = task.examples
    return {
        "name": task.name,
        "path": str(task.path),
        "instruction": task.instruction,
        "examples": {name: [str(p) for p in paths] for name, paths in examples.items()}
        if isinstance(examples, Mapping)
        else [str(p) for p in examples],
        "metric": task.metric,
        "labels": None if task.labels is None else list(task.labels),
        "label_notes": dict(task.label_notes),
        "schema": None if task.schema is None else dict(task.schema),
        "pattern": task.pattern,
        "corpus": None if task.corpus is None else str(task.corpus),
        "fields": {name: list(c) if isinstance(c, tuple) else c for name, c in task.fields.items()},
        "shape": task.shape,
        "multi_label": task.multi_label,
        "whitespace": task.whitespace,
        "unordered": task.unordered,
        "tolerance": task.tolerance,
        "train_size": task.train_size,
        "empty_answers": task.empty_answers,
        "ignore": list(task.ignore),
        "models": [asdict(model) for model in task.models],
        "target": task.target,
        "budget": asdict(task.budget),
        "concurrency": task.concurrency,
        "seed": task.seed,
        "teacher": None if task.teacher is None else asdict(task.teacher),
        "judge": None if task.judge is None else asdict(task.judge),
        **{key: [str(p) for p in getattr(task, key)] for key in BESIDE},
        "repeats": task.repeats,
        "abstain": task.abstain,
        "cite": task.cite,
        "retrieval": {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(task.retrieval).items()},
        "license": task.license,
        "engine": task.engine,
    }


def _find(path: Path) -> Path:
    path = Path(os.path.abspath(path))
    if os.path.isdir(path):
        if not os.path.exists(path / "task.yaml"):
            raise TaskError(f"{path.name}: the folder holds no task.yaml ({path}). Write one, or name the file itself.")
        path = path / "task.yaml"
    if not os.path.exists(path):
        raise TaskError(f"{path.name}: no such file ({path}). Check the path, or write a task with rung init.")
    if path.suffix.lower() in SUFFIXES:
        raise TaskError(f"{path.name}: is a file of data, not a task. Write a task for it: rung init {path.name}.")
    if not os.path.isfile(path):
        raise TaskError(f"{path.name}: is not a file ({path}). Name a task.yaml.")
    return path


def _text_of(path: Path) -> str:
    """The text of a task file. Raises TaskError where it cannot be read as UTF-8."""
    file = path.name
    try:
        with path.open("rb") as handle:
            data = handle.read(MAX_TASK_BYTES + 1)
    except OSError as e:
        raise TaskError(f"{file}: cannot be read ({e.strerror}). Check its permissions: {path}") from e
    if len(data) > MAX_TASK_BYTES:
        raise TaskError(f"{file}: larger than {MAX_TASK_BYTES // 1_000_000} MB. Name the data with examples:.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise TaskError(
            f"{file}, line {line}: byte 0x{data[e.start]:02x} is not UTF-8. Save the file again as UTF-8."
        ) from e


def _odd_indent(file: str, text: str) -> str:
    """A line about an indentation that only looks like one, to stand before another message; or nothing."""
    odd = re.search(r"^[ \t]*([^\S \t\r\n]|[\u200b\u2060\ufeff])", text, re.MULTILINE)
    if odd is None:
        return ""
    sign, line = odd.group(1), text.count("\n", 0, odd.start(1)) + 1
    name = unicodedata.name(sign, "a control character").lower()
    return (
        f"{file}, line {line}: begins with {name} (U+{ord(sign):04X}), which is no indentation in YAML. "
        "Indent with ordinary spaces. Without that:\n"
    )


def _parse(file: str, text: str) -> Parsed:
    parsed = Parsed(file, {})
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            raise TaskError(f"{file}: the file is empty. Write at least instruction: and examples:.")
        if not isinstance(node, yaml.MappingNode):
            raise TaskError(f"{file}: must be a mapping of keys to values, such as instruction: Answer the question.")
        _note_lines(node, (), parsed, set())
        values = loader.construct_document(node)
    except yaml.YAMLError as e:
        raise TaskError(_not_yaml(e, file, text)) from e
    except RecursionError as e:
        raise TaskError(f"{file}: nested too deeply. Write the keys flat.") from e
    except (ValueError, OverflowError) as e:
        raise TaskError(f"{file}: a value cannot be read ({e}). Quote it if it is text.") from e
    finally:
        if loader is not None:
            loader.dispose()
    parsed.values = values
    return parsed


def _not_yaml(error: yaml.YAMLError, file: str, text: str) -> str:
    """What is wrong with a text that is not YAML, where, and how to write it instead."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    place = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
    if mark is None and isinstance(position := getattr(error, "position", None), int):
        place = f", line {text.count(chr(10), 0, position) + 1}"
    what = str(getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be parsed")
    line = text.splitlines()[mark.line].strip() if mark is not None and mark.line < len(text.splitlines()) else ""
    hint = "Quote text that holds : # or quotes."
    if "mapping values are not allowed" in what and ": " in line:
        key, _, value = line.partition(": ")
        fact = "the text holds a colon and a space, which begin a value in YAML"
        quoted = value.replace("'", "''")
        return f"{file}{place}: not valid YAML ({fact}). Put the text in single quotes: {key}: '{quoted[:80]}'"
    if "unknown escape character" in what:
        hint = r"In double quotes a backslash begins an escape. Put a pattern or a path in single quotes: '\d+'."
    elif "another document" in what:
        hint = "A second document begins here (---). A task is one document: delete this line and what follows."
    elif "\\t" in what:
        hint = "A tab stands here. Indent with spaces."
    return f"{file}{place}: not valid YAML ({what}). {hint}"


def _note_lines(node: yaml.Node, place: Place, parsed: Parsed, inside: set[int]) -> None:
    """Remember lines and raw scalars; refuse duplicate keys and aliases, of which a task has no need."""
    line = node.start_mark.line + 1
    if id(node) in inside:
        raise TaskError(f"{parsed.file}, line {line}: YAML aliases (*name) are not supported. Write the value out.")
    inside.add(id(node))
    parsed.lines.setdefault(place, line)
    if isinstance(node, yaml.ScalarNode):
        parsed.raw[place] = _writable(node, parsed)
    elif isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            _note_lines(item, (*place, i), parsed, inside)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            at = f"{parsed.file}, line {key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode):
                raise TaskError(f"{at}: a key must be plain text. Write key: value.")
            inner = (*place, _writable(key, parsed))
            if inner in parsed.lines:
                name = ".".join(map(str, inner))
                raise TaskError(f'{at}: the key "{name}" stands twice, first on line {parsed.lines[inner]}. Keep one.')
            parsed.lines[inner] = key.start_mark.line + 1
            if not place and key.tag != "tag:yaml.org,2002:str":
                raise TaskError(_unknown(parsed, inner, key.value))
            if not place and value.tag == "tag:yaml.org,2002:null":
                raise TaskError(f'{at}: "{key.value}" has no value. Give it one, or delete the line.')
            _note_lines(value, inner, parsed, inside)


def _writable(node: yaml.ScalarNode, parsed: Parsed) -> str:
    """The scalar's text, if UTF-8 can hold it."""
    text = str(node.value)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        line = node.start_mark.line + 1
        raise TaskError(f"{parsed.file}, line {line}: holds half of a surrogate pair. Remove it.") from None
    return text


def _unknown(parsed: Parsed, place: Place, key: str) -> str:
    from rung.data.task_keys import NESTED, TaskKeys

    model = NESTED.get(str(place[0]), TaskKeys) if len(place) > 1 else TaskKeys
    known = [f.alias or name for name, f in model.model_fields.items()]
    guess = nearest(key, known)
    hint = f'Did you mean "{guess}"?' if guess else f"The keys are {', '.join(known)}."
    return f'{parsed.at(place)}: unknown key "{key}". {hint}'


def _explain(parsed: Parsed, place: Place, kind: str, value: object, problem: dict[str, object]) -> str:
    """One problem that pydantic found, as fact, place and next step."""
    from rung.data.key_values import WrongKey
    from rung.data.model_keys import SECRET_HINT, SECRETS
    from rung.data.task_keys import HINTS

    top = str(place[0]) if place else ""
    name = ".".join(str(p) for p in place if isinstance(p, str))
    item = next((f", item {p + 1}" for p in place if isinstance(p, int)), "")
    at = f'{parsed.at(place)}: "{name}"{item}'
    hint = HINTS.get(name, HINTS.get(top, "See the documentation of task.yaml."))
    if kind == "missing":
        return f'{parsed.file}: no "{name}". {hint}'
    if kind == "extra_forbidden":
        if str(place[-1]).lower() in SECRETS:
            return f"{at} would hold a secret, and a task never does. {SECRET_HINT}"
        return _unknown(parsed, place, str(place[-1]))
    if kind == "value_error":
        context = problem.get("ctx")
        error = context["error"] if isinstance(context, dict) else problem["msg"]
        if isinstance(error, WrongKey):
            at = f'{parsed.at((*place, *error.inside))}: "{".".join((name, *error.inside))}"{item}'
        return f"{at} {error}"
    if kind == "string_type" and not isinstance(value, list | dict):
        raw = parsed.raw.get(place, "")
        if not raw:
            return f"{at} is empty. {hint}"
        return f'{at} is {raw}, which YAML reads as {kind_of(value)}, not text; quote it: "{raw}"'
    if kind == "bool_type" and isinstance(value, str):
        return f"{at} is {parsed.raw.get(place, 'text')}, but must be true or false. {hint}"
    if kind in _MUST_BE:
        return f"{at} is {kind_of(value)}, but must be {_MUST_BE[kind]}. {hint}"
    return f"{at} is {parsed.raw.get(place, kind_of(value))}, but {str(problem['msg']).replace('Input ', '')}. {hint}"


_MUST_BE = {
    "string_type": "text",
    "list_type": "a list",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
}
