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
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from rung.data.metric_names import KNOWN_METRICS
from rung.data.rows import SUFFIXES, SUPPORTED, decode, kind_of, nearest, parse_json
from rung.errors import DataError
from rung.types import Budget, ModelSpec, Price, SetName, Task

DEFAULT_MODEL = "smollm2-135m-instruct"
FOUR_BIT = ":4bit"
"""Ends the name of a model whose linear layers are kept in 4 bits; `rung.models.four_bit` reads it."""
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
    "model": f"Write model: {DEFAULT_MODEL}, a folder or a GGUF file.",
    "budget": "Write budget: {minutes: 30}.",
    "price": "Write price: {usd_per_hour: 0.40}.",
    "seed": "Write seed: 0, or another whole number from 0.",
}


def _path(value: str, info: ValidationInfo) -> Path:
    folder: Path = (info.context or {})["folder"]
    return Path(os.path.abspath(folder / value))


def _filled(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty. Say what the model is to do.")
    return value.strip()


def folder_name_problem(name: str) -> str | None:
    """Why a text cannot name a folder on every system, or None."""
    if not name.strip():
        return "is empty"
    if bad := re.search(r'[\x00-\x1f\x7f/\\:*?"<>|]', name):
        return f"holds {bad.group()!r}"
    if name != name.strip() or name.startswith((".", "-")) or name.endswith("."):
        return "starts or ends with a dot, dash or space"
    return "is longer than 100 bytes" if len(name.encode()) > 100 else None


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


def _as_spec(value: Any) -> Any:
    """{name: …, load_in_4bit: true} as the one text that names such a model; text as it is."""
    if not isinstance(value, dict):
        return value
    if "name" not in value:
        _local_only()
    for key in value:
        if key not in ("name", "load_in_4bit"):
            guess = nearest(str(key), ("name", "load_in_4bit"))
            raise ValueError(
                f'has an unknown key "{key}". '
                + (f'Did you mean "{guess}"?' if guess else "Its keys are name and load_in_4bit.")
            )
    name, four_bit = value["name"], value.get("load_in_4bit", False)
    if not isinstance(name, str):
        raise ValueError(f"has {kind_of(name)} as its name. Write model: {{name: {DEFAULT_MODEL}}}.")
    if not isinstance(four_bit, bool):
        raise ValueError(f"has {kind_of(four_bit)} as load_in_4bit. Write load_in_4bit: true.")
    return name.removesuffix(FOUR_BIT) + FOUR_BIT if four_bit else name


def _local_only() -> None:
    raise ValueError(
        "is an endpoint, but this version answers with local models only. "
        f"Name a folder, a GGUF file or a catalogue name such as {DEFAULT_MODEL}."
    )


def _model(value: str, info: ValidationInfo) -> str:
    suffix = FOUR_BIT if value.endswith(FOUR_BIT) else ""
    value = value.removesuffix(suffix)
    if not value.strip():
        raise ValueError(f"is empty. {HINTS['model']}")
    if re.match(r"https?://", value):
        _local_only()
    path = _path(value, info)
    gguf = value.lower().endswith(".gguf")
    if os.path.isdir(path) or (gguf and os.path.isfile(path)):
        return str(path) + suffix
    if os.path.isfile(path):
        raise ValueError(f"names {value}, a file that is no GGUF. {HINTS['model']}")
    if gguf or value.startswith((".", "/", "\\", "~")):
        raise ValueError(f"names {value}, which does not exist ({path}). Paths are relative to the task file.")
    return value + suffix


def _teacher(value: Any) -> None:
    raise ValueError(
        "needs a second model, but this version answers with local models only and uses no teacher. Delete the line, "
        "and name a folder, a GGUF file or a catalogue name with model:."
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


class PriceKeys(BaseModel):
    """price: {usd_per_hour} of the machine, or {usd_per_million_in, usd_per_million_out, usd_per_million_cached}."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    usd_per_hour: Annotated[float, Field(ge=0)] | None = None
    usd_per_million_in: Annotated[float, Field(ge=0)] | None = None
    usd_per_million_out: Annotated[float, Field(ge=0)] | None = None
    usd_per_million_cached: Annotated[float, Field(ge=0)] | None = None


NESTED: dict[str, type[BaseModel]] = {"budget": BudgetKeys, "price": PriceKeys}
"""Keys that hold keys."""


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
    model: Annotated[str, BeforeValidator(_as_spec), AfterValidator(_model)] = DEFAULT_MODEL
    teacher: Annotated[Any, PlainValidator(_teacher)] = None
    target: Annotated[Any, PlainValidator(_target)] = None
    budget: BudgetKeys = Field(default_factory=BudgetKeys)
    price: PriceKeys | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


def to_task(keys: TaskKeys, path: Path) -> Task:
    """The Task of validated keys. Raises ValueError when keys contradict each other."""
    shapes = [n for n, v in (("labels", keys.labels), ("schema", keys.schema_), ("pattern", keys.pattern)) if v]
    if len(shapes) > 1:
        raise ValueError(f"{' and '.join(shapes)} both say what an answer may look like. Keep one of them.")
    name = keys.name or path.parent.name
    if problem := folder_name_problem(name):
        raise ValueError(f'the folder\'s name "{name}" {problem}, so it cannot name the run. Add name: my-task.')
    price = _price(keys)
    if keys.budget.usd is not None and (price is None or price.usd_per_hour is None):
        raise ValueError(f"budget in usd needs to know what the machine costs. {HINTS['price']}")
    default = "label_accuracy" if keys.labels else "json_match" if keys.schema_ is not None else "exact_match"
    examples: tuple[Path, ...] | Mapping[SetName, tuple[Path, ...]] = keys.examples
    return Task(
        name=name,
        path=path,
        instruction=keys.instruction,
        examples=examples,
        metric=keys.metric or default,
        models=(ModelSpec(re.sub(r"[^\w.-]+", "-", keys.model.rstrip("/").rpartition("/")[2]), keys.model, price),),
        labels=tuple(keys.labels) if keys.labels else None,
        label_notes=keys.labels.notes if isinstance(keys.labels, _Labels) else {},
        schema=keys.schema_,
        pattern=keys.pattern,
        corpus=Path(keys.corpus) if keys.corpus else None,
        fields=keys.fields,
        target=keys.target,
        budget=Budget(**keys.budget.model_dump()),
        seed=keys.seed,
    )


def _price(keys: TaskKeys) -> Price | None:
    given = keys.price.model_dump(exclude_none=True) if keys.price is not None else {}
    if keys.price is not None and not given:
        raise ValueError(f"price says no price. {HINTS['price']}")
    tokens = {"usd_per_million_in", "usd_per_million_out"} & set(given)
    if "usd_per_hour" in given and len(given) > 1:
        raise ValueError("price holds the machine's price and a price of tokens. Keep one of them.")
    if "usd_per_hour" not in given and given and len(tokens) < 2:
        raise ValueError("price of tokens needs usd_per_million_in and usd_per_million_out. Add what is missing.")
    return Price(**given) if given else None
