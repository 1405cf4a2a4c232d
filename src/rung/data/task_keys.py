"""The keys of task.yaml: the type of each, its default, and what it may say.

Knows pydantic and the folder that paths are relative to; knows nothing of YAML. A validator raises ValueError
whose text follows the name of the key: `"target" is 90; write 0.9`.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from rung.data.key_values import beside_task as _path
from rung.data.key_values import folder_name_problem
from rung.data.metric_names import KNOWN_METRICS
from rung.data.model_keys import DEFAULT, MODEL_HINT, PRICE_HINT, ModelEntry, model_specs, one_model, price_of
from rung.data.rows import SUFFIXES, SUPPORTED, decode, kind_of, nearest, parse_json
from rung.errors import DataError
from rung.types import Budget, ModelSpec, Price, SetName, Task

FIELDS = ("input", "output", "id", "group", "context", "gold_ids", "references")
SETS: tuple[SetName, ...] = ("train", "dev", "test")
HINTS = {
    "name": "Write name: my-task.",
    "instruction": "Write instruction: followed by what the model is to do.",
    "examples": "Write examples: examples.jsonl.",
    "metric": f"Write metric: followed by one of {', '.join(KNOWN_METRICS)} or python:file.py:function.",
    "labels": "Write labels: [first, second], or {first: what it means, second: what it means}.",
    "pattern": "Write pattern: followed by a regular expression in single quotes.",
    "corpus": "Write corpus: followed by a folder or file of documents.",
    "fields": "Write fields: {input: question, output: answer}.",
    "model": MODEL_HINT,
    "models": "Write models: [first, second], cheapest first.",
    "budget": "Write budget: {minutes: 30}.",
    "price": PRICE_HINT,
    "concurrency": "Write concurrency: 8, the requests that your product has in flight at once.",
    "seed": "Write seed: 0, or another whole number from 0.",
}


def _filled(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty. Say what the model is to do.")
    return value.strip()


def _name(value: str) -> str:
    if problem := folder_name_problem(value):
        raise ValueError(f"{problem}, so it cannot name the run's folder. Use letters, digits, - and _.")
    return value


def _examples(value: Any, info: ValidationInfo) -> object:
    if not isinstance(value, dict):
        return tuple(_example_files(value, info))
    for name in value:
        if name not in SETS:
            guess = nearest(str(name), SETS) or {"val": "dev", "eval": "dev"}.get(str(name)[:4].rstrip("i"))
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
        raise ValueError("names no file. Write examples: examples.jsonl.")
    files: list[Path] = []
    for name in names:
        if not isinstance(name, str) or not name:
            raise ValueError(f"must name files, holds {kind_of(name)}. Write examples: examples.jsonl.")
        path = _path(name, info)
        if os.path.isdir(path):
            raise ValueError(f"names {name}, which is a folder. Name the file in it.")
        if not os.path.isfile(path):
            raise ValueError(f"names {name}, which does not exist ({path}). Paths are relative to the task file.")
        if path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"names {name}, which cannot be read. Convert it to {SUPPORTED}.")
        if path in files:
            raise ValueError(f"names {name} twice. Keep one.")
        files.append(path)
    return files


def _metric(value: str, info: ValidationInfo) -> str:
    if value in KNOWN_METRICS:
        return value
    if value == "judge":
        raise ValueError(
            f"is judge, but this version has no judge. Use one of {', '.join(KNOWN_METRICS)}, "
            "or python:file.py:function."
        )
    if value.startswith("python:"):
        file, _, function = value.removeprefix("python:").rpartition(":")
        if not file or not function.isidentifier():
            raise ValueError(f"is {value}. Write it as python:file.py:function.")
        path = _path(file, info)
        if not os.path.isfile(path):
            raise ValueError(f"names {file}, which does not exist ({path}). Paths are relative to the task file.")
        return f"python:{path}:{function}"
    guess = nearest(value, KNOWN_METRICS)
    hint = (
        f'Did you mean "{guess}"?' if guess else f"Use one of {', '.join(KNOWN_METRICS)}, or python:file.py:function."
    )
    raise ValueError(f'is "{value}", which is no metric. {hint}')


class _Labels(list[str]):
    """Labels in order. notes: label -> what it means, of those that have a note."""

    notes: Mapping[str, str] = MappingProxyType({})


def _labels(value: Any, as_texts: ValidatorFunctionWrapHandler) -> _Labels:
    """A list of labels, or a mapping from each label to what it means."""
    labels = _Labels(as_texts(list(_label_names(value)) if isinstance(value, dict) else value))
    if isinstance(value, dict):
        labels.notes = {label: " ".join(note.split()) for label, note in value.items() if note and note.strip()}
    if len(labels) < 2:
        raise ValueError("must name at least two labels. Write labels: [first, second].")
    first: dict[str, int] = {}
    for i, label in enumerate(labels, 1):
        if not label.strip():
            raise ValueError(f"has an empty label, item {i}. Remove it.")
        if label != label.strip():
            raise ValueError(f'has spaces around item {i}, "{label}". Remove them.')
        if first.setdefault(label, i) != i:
            raise ValueError(f'names "{label}" twice, items {first[label]} and {i}. Remove one.')
    return labels


def _label_names(value: dict[Any, Any]) -> Iterator[str]:
    for label, note in value.items():
        if not isinstance(label, str):
            raise ValueError(f"has a label that YAML reads as {kind_of(label)}, not text. Quote it.")
        if note is not None and not isinstance(note, str):
            raise ValueError(f'has {kind_of(note)} as the meaning of "{label}". Write one line of text, or nothing.')
        yield label


def _schema(value: Any, info: ValidationInfo) -> dict[str, object]:
    place = ""
    if isinstance(value, str) and value:
        path, place = _path(value, info), f"{value}, which "
        if os.path.isdir(path):
            raise ValueError(f"names {place}is a folder. Name the JSON Schema file in it.")
        if not os.path.isfile(path):
            raise ValueError(f"names {place}does not exist ({path}). Paths are relative to the task file.")
        try:
            lines = path.read_bytes().splitlines(keepends=True)
            value = parse_json("".join(decode(raw, path, n) for n, raw in enumerate(lines, 1)))
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


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError) as e:
        raise ValueError(f"is no regular expression: {e}. Write it in single quotes and escape with \\.") from e
    if not value:
        raise ValueError("is empty. Delete the line to allow any answer.")
    return value


def _corpus(value: str, info: ValidationInfo) -> Path:
    path = _path(value, info)
    if not value or not os.path.exists(path):
        raise ValueError(f"names {value}, which does not exist ({path}). Paths are relative to the task file.")
    if os.path.isfile(path) and path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"names {value}, which cannot be read. Give a folder of .txt and .md files, or {SUPPORTED}.")
    return path


def _fields(value: dict[str, str]) -> dict[str, str]:
    for name, column in value.items():
        if name not in FIELDS:
            guess = nearest(name, FIELDS)
            hint = f'Did you mean "{guess}"?' if guess else f"The fields are {', '.join(FIELDS)}."
            raise ValueError(f'has an unknown field "{name}". {hint}')
        if not column:
            raise ValueError(f"gives {name} no column. Write {name}: followed by the column's name.")
        if twin := next((n for n, c in value.items() if c == column and n != name), None):
            raise ValueError(f'uses the column "{column}" for {name} and for {twin}. Name two columns.')
    return value


def _some(value: list[ModelEntry]) -> list[ModelEntry]:
    if not value:
        raise ValueError(f"names no model. {HINTS['models']}")
    return value


def _price(value: Any) -> Price:
    return price_of(value)


def _teacher(value: Any) -> None:
    raise ValueError(
        "is not in this version: nothing here is taught by another model. Delete the line. To compare with a stronger "
        "model, list both in models:."
    )


def _target(value: Any) -> float:
    number = value
    if isinstance(value, str) and re.fullmatch(r"[0-9.]+ ?%?", value.strip()):
        try:
            number = float(value.strip().rstrip("% "))
        except ValueError:
            number = None
        if number is not None and "%" not in value and 0 < number <= 1:
            raise ValueError(f"is quoted, so YAML reads it as text. Write target: {number:g}")
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        what = value if isinstance(value, float) else kind_of(value)
        raise ValueError(f"is {what}, not a number above 0 and up to 1. Write target: 0.9")
    if number > 0 and number <= 100 and (number > 1 or isinstance(value, str)):
        raise ValueError(f"is {value}, but scores go from 0 to 1. Write target: {number / 100:g}")
    if not 0 < number <= 1:
        raise ValueError(f"is {value}, not a number above 0 and up to 1. Write target: 0.9")
    return float(number)


class BudgetKeys(BaseModel):
    """budget: {minutes, calls, usd}."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    minutes: Annotated[float, Field(gt=0)] | None = None
    calls: Annotated[int, Field(gt=0)] | None = None
    usd: Annotated[float, Field(gt=0)] | None = None


NESTED: dict[str, type[BaseModel]] = {"budget": BudgetKeys}
"""Keys that hold keys, and are pydantic's own."""


class TaskKeys(BaseModel):
    """task.yaml, key by key. Validation needs context={"folder": the folder that paths are relative to}."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())

    name: Annotated[str, AfterValidator(_name)] = ""
    instruction: Annotated[str, AfterValidator(_filled)]
    examples: Annotated[Any, PlainValidator(_examples)]
    metric: Annotated[str, AfterValidator(_metric)] = ""
    labels: Annotated[list[str], WrapValidator(_labels)] | None = None
    schema_: Annotated[Any, PlainValidator(_schema)] = Field(default=None, alias="schema")
    pattern: Annotated[str, AfterValidator(_pattern)] | None = None
    corpus: Annotated[str, AfterValidator(_corpus)] | None = None
    fields: Annotated[dict[str, str], AfterValidator(_fields)] = Field(default_factory=dict)
    model: Annotated[Any, PlainValidator(one_model)] = None
    models: Annotated[list[Annotated[Any, PlainValidator(one_model)]], AfterValidator(_some)] | None = None
    teacher: Annotated[Any, PlainValidator(_teacher)] = None
    target: Annotated[Any, PlainValidator(_target)] = None
    budget: BudgetKeys = Field(default_factory=BudgetKeys)
    price: Annotated[Any, PlainValidator(_price)] = None
    concurrency: Annotated[int, Field(ge=1)] = 1
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


def to_task(keys: TaskKeys, path: Path) -> Task:
    """The Task of validated keys. Raises ValueError when keys contradict each other."""
    shapes = [n for n, v in (("labels", keys.labels), ("schema", keys.schema_), ("pattern", keys.pattern)) if v]
    if len(shapes) > 1:
        raise ValueError(f"{' and '.join(shapes)} both say what an answer may look like. Keep one of them.")
    name = keys.name or path.parent.name
    if problem := folder_name_problem(name):
        raise ValueError(f'the folder\'s name "{name}" {problem}, so it cannot name the run. Add name: my-task.')
    default = "label_accuracy" if keys.labels else "json_match" if keys.schema_ is not None else "exact_match"
    examples: tuple[Path, ...] | Mapping[SetName, tuple[Path, ...]] = keys.examples
    return Task(
        name=name,
        path=path,
        instruction=keys.instruction,
        examples=examples,
        metric=keys.metric or default,
        models=_models(keys),
        labels=tuple(keys.labels) if keys.labels else None,
        label_notes=keys.labels.notes if isinstance(keys.labels, _Labels) else {},
        schema=keys.schema_,
        pattern=keys.pattern,
        corpus=Path(keys.corpus) if keys.corpus else None,
        fields=keys.fields,
        target=keys.target,
        budget=Budget(**keys.budget.model_dump()),
        concurrency=keys.concurrency,
        seed=keys.seed,
    )


def _models(keys: TaskKeys) -> tuple[ModelSpec, ...]:
    """The models with their prices. Raises ValueError where the keys about models contradict each other."""
    if keys.model is not None and keys.models is not None:
        raise ValueError("model and models both name what answers. Keep one of them.")
    named: list[ModelEntry] = keys.models or [keys.model or DEFAULT]
    specs = model_specs(named, keys.price)
    priced = any(spec.price is not None for spec in specs) or any(model.endpoint for model in named)
    if keys.budget.usd is not None and not priced:
        raise ValueError(f"budget in usd needs to know what the machine costs. {PRICE_HINT}")
    return specs
