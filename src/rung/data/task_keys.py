"""The keys of task.yaml: the type of each, its default, and what it may say.

Knows pydantic and the folder that paths are relative to; knows nothing of YAML. A validator raises ValueError
whose text follows the name of the key: `"target" is 90; write 0.9`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    WrapValidator,
)

from rung.data import key_answers, key_files, key_labels, retrieval_keys, taught_keys
from rung.data.key_values import folder_name_problem
from rung.data.metric_names import CASELESS, JSON_METRICS, JUDGE, KNOWN_METRICS, MULTI_LABEL
from rung.data.model_keys import DEFAULT, MODEL_HINT, PRICE_HINT, ModelEntry, model_specs, one_model, price_of
from rung.data.rows import kind_of, nearest
from rung.types import AnswersBy, Budget, ModelSpec, Price, SetName, Task, Whitespace

FIELDS = ("input", "output", "id", "group", "context", "gold_ids", "references", "instruction", "turns", "tools")
SEVERAL_COLUMNS = ("input", "output", "instruction")
"""Fields that may name a list of columns."""
NEEDED = ("input", "output")
"""Fields that cannot be switched off with null."""
HINTS = {
    "name": "Write name: my-task.",
    "instruction": "Write instruction: followed by what the model is to do; several lines begin with |.",
    "examples": "Write examples: examples.jsonl.",
    "metric": f"Write metric: followed by one of {', '.join((*KNOWN_METRICS, JUDGE))} or python:file.py:function.",
    "labels": "Write labels: [first, second], or {first: what it means, second: what it means}.",
    "pattern": "Write pattern: followed by a regular expression in single quotes.",
    "corpus": "Write corpus: followed by a folder or file of documents.",
    "fields": "Write fields: {input: question, output: answer}.",
    "multi_label": "Write multi_label: true where an answer is a list of labels.",
    "whitespace": "Write whitespace: counts, or whitespace: folded.",
    "unordered": "Write unordered: true where the order of lists in JSON answers does not count.",
    "tolerance": "Write tolerance: 0.01 for one per cent of the right number.",
    "train_size": "Write train_size: 200, the number of train examples to pick.",
    "ignore": "Write ignore: [near_duplicate], the names of checks that are not to be told.",
    "empty": "Write empty: allowed where an empty answer is right for some inputs.",
    "model": MODEL_HINT,
    "models": "Write models: [first, second], cheapest first.",
    "engine": "Write engine: vllm where vLLM is to answer, or delete the line.",
    "budget": "Write budget: {minutes: 30}.",
    "budget.calls": "Write budget: {calls: 2000}.",
    "budget.usd": "Write budget: {usd: 5}.",
    "price": PRICE_HINT,
    "concurrency": "Write concurrency: 8, the requests that your product has in flight at once.",
    "cite": "Write cite: true where answers are to name the passages that they rest on.",
    "budget.minutes": "Write budget: {minutes: 30}.",
    "seed": "Write seed: 0, or another whole number from 0.",
    "license": "Write license: cc-by-4.0, the licence of your data.",
    **taught_keys.TAUGHT_HINTS,
    **retrieval_keys.RETRIEVAL_HINTS,
}


def _filled(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty. Say what the model is to do.")
    return value.strip()


def _abstain(value: str) -> str:
    if not value.strip():
        raise ValueError(f"is empty. {HINTS['abstain']}")
    return value.strip()


def _repeats(value: int) -> int:
    if not 2 <= value <= 100:
        raise ValueError(f"is {value}, but must be from 2 to 100. Write repeats: 10, or delete the line.")
    return value


def _license(value: str) -> str:
    if not value.strip():
        raise ValueError(f"is empty. {HINTS['license']}")
    return " ".join(value.split()).lower()


def _name(value: str) -> str:
    if problem := folder_name_problem(value):
        raise ValueError(f"{problem}, so it cannot name the run's folder. Use letters, digits, - and _.")
    return value


def _pattern(value: str) -> str:
    if odd := re.search(r"[\x00-\x08\x0b-\x1f\x7f]", value):
        fact = f"holds the control character {odd.group()!r}, which double quotes make of a backslash and a letter"
        raise ValueError(f"{fact}. Write the pattern in single quotes.")
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError) as e:
        raise ValueError(f"is no regular expression: {e}. Write it in single quotes and escape with \\.") from e
    if not value:
        raise ValueError("is empty. Delete the line to allow any answer.")
    return value


def _fields(value: Any) -> dict[str, str | tuple[str, ...]]:
    if not isinstance(value, dict):
        raise ValueError(f"is {kind_of(value)}, but must be a mapping. {HINTS['fields']}")
    found: dict[str, str | tuple[str, ...]] = {}
    owner: dict[str, str] = {}
    for name, columns in value.items():
        if name not in FIELDS:
            guess = nearest(str(name), FIELDS)
            hint = f'Did you mean "{guess}"?' if guess else f"The fields are {', '.join(FIELDS)}."
            raise ValueError(f'has an unknown field "{name}". {hint}')
        if isinstance(columns, list) and name not in SEVERAL_COLUMNS:
            raise ValueError(
                f"gives {name} several columns, which only input, output and instruction may have. Name one."
            )
        if columns is None and name not in NEEDED:
            found[name] = ()
            continue
        several = columns if isinstance(columns, list) else [columns]
        if not several or not all(several):
            raise ValueError(f"gives {name} no column. Write {name}: followed by the column's name.")
        for column in several:
            if not isinstance(column, str):
                fact = f"names a column for {name} that YAML reads as {kind_of(column)}, not text"
                raise ValueError(f"{fact}. Put its name in quotes.")
            if column in owner:
                raise ValueError(f'uses the column "{column}" for {owner[column]} and for {name}. Name two columns.')
            owner[column] = name
        found[name] = tuple(columns) if isinstance(columns, list) else columns
    return found


def _shape(value: str) -> str:
    from rung.data.shapes import SHAPES

    if value in SHAPES:
        return value
    guess = nearest(value, SHAPES)
    hint = f'Did you mean "{guess}"?' if guess else f"The shapes are {', '.join(SHAPES)}."
    raise ValueError(f'is "{value}", which is no shape of rows. {hint}')


def _tolerance(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"is {kind_of(value)}, not a number. {HINTS['tolerance']}")
    if not 0 < value < 1:
        raise ValueError(
            f"is {value}, but it is a share of the right number, above 0 and below 1. {HINTS['tolerance']}"
        )
    return float(value)


def _ignore(value: list[str]) -> list[str]:
    from rung.data.checks.kinds import KINDS
    from rung.data.findings import IGNORED

    for name in value:
        if name not in KINDS or name == IGNORED:
            guess = nearest(name, KINDS)
            hint = f'Did you mean "{guess}"?' if guess else "Their names stand in brackets where rung check lists them."
            raise ValueError(f'names "{name}", which is no check. {hint}')
    return value


def _some(value: list[ModelEntry]) -> list[ModelEntry]:
    if not value:
        raise ValueError(f"names no model. {HINTS['models']}")
    return value


def _price(value: Any) -> Price:
    return price_of(value)


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


NESTED: dict[str, type[BaseModel]] = {"budget": BudgetKeys, "retrieval": retrieval_keys.RetrievalKeys}
"""Keys that hold keys, and are pydantic's own."""


class TaskKeys(BaseModel):
    """task.yaml, key by key. Validation needs context={"folder": the folder that paths are relative to}."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())

    name: Annotated[str, AfterValidator(_name)] = ""
    instruction: Annotated[str, AfterValidator(_filled)]
    examples: Annotated[Any, PlainValidator(key_files.examples)]
    metric: Annotated[str, AfterValidator(key_files.metric)] = ""
    labels: Annotated[list[str], WrapValidator(key_labels.labels)] | None = None
    schema_: Annotated[Any, PlainValidator(key_files.schema)] = Field(default=None, alias="schema")
    pattern: Annotated[str, AfterValidator(_pattern)] | None = None
    corpus: Annotated[str, AfterValidator(key_files.corpus)] | None = None
    fields: Annotated[Any, PlainValidator(_fields)] = Field(default_factory=dict)
    shape: Annotated[str, AfterValidator(_shape)] | None = None
    multi_label: bool = False
    whitespace: Whitespace | None = None
    unordered: bool = False
    tolerance: Annotated[Any, PlainValidator(_tolerance)] = None
    train_size: Annotated[int, Field(ge=1)] | None = None
    empty: Literal["allowed"] | None = None
    ignore: Annotated[list[str], AfterValidator(_ignore)] = Field(default_factory=list)
    model: Annotated[Any, PlainValidator(one_model)] = None
    models: Annotated[list[Annotated[Any, PlainValidator(one_model)]], AfterValidator(_some)] | None = None
    engine: AnswersBy = "local"
    teacher: Annotated[Any, PlainValidator(taught_keys.teacher)] = None
    judge: Annotated[Any, PlainValidator(taught_keys.judge)] = None
    judged: Annotated[Any, PlainValidator(key_files.row_files)] = ()
    unlabelled: Annotated[Any, PlainValidator(key_files.row_files)] = ()
    synthetic: Annotated[Any, PlainValidator(key_files.row_files)] = ()
    preferences: Annotated[Any, PlainValidator(key_files.row_files)] = ()
    repeats: Annotated[int, AfterValidator(_repeats)] | None = None
    abstain: Annotated[str, AfterValidator(_abstain)] | None = None
    cite: bool = False
    retrieval: retrieval_keys.RetrievalKeys = Field(default_factory=retrieval_keys.RetrievalKeys)
    target: Annotated[Any, PlainValidator(_target)] = None
    budget: BudgetKeys = Field(default_factory=BudgetKeys)
    price: Annotated[Any, PlainValidator(_price)] = None
    concurrency: Annotated[int, Field(ge=1)] = 1
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    license: Annotated[str, AfterValidator(_license)] | None = None


def to_task(keys: TaskKeys, path: Path) -> Task:
    """The Task of validated keys. Raises ValueError when keys contradict each other."""
    shapes = [n for n, v in (("labels", keys.labels), ("schema", keys.schema_), ("pattern", keys.pattern)) if v]
    if len(shapes) > 1:
        raise ValueError(f"{' and '.join(shapes)} both say what an answer may look like. Keep one of them.")
    name = keys.name or path.parent.name
    if problem := folder_name_problem(name):
        raise ValueError(f'the folder\'s name "{name}" {problem}, so it cannot name the run. Add name: my-task.')
    if keys.empty and keys.labels and not keys.multi_label:
        raise ValueError("empty: allowed and labels contradict each other. Declare a label such as none instead.")
    labels = _labels_of(keys)
    metric = keys.metric or _default_metric(keys)
    _check_metrics(keys, metric, labels)
    key_answers.check_cite(keys)
    key_answers.check_abstain(keys, labels)
    judge = taught_keys.to_judge(keys.judge, metric, judged=bool(keys.judged))  # before a budget asks for its price
    examples: tuple[Path, ...] | Mapping[SetName, tuple[Path, ...]] = keys.examples
    return Task(
        name=name,
        path=path,
        instruction=keys.instruction,
        examples=examples,
        metric=metric,
        models=_models(keys),
        labels=labels,
        label_notes=keys.labels.notes if isinstance(keys.labels, key_labels.LabelKeys) else {},
        schema=keys.schema_,
        pattern=keys.pattern,
        corpus=Path(keys.corpus) if keys.corpus else None,
        fields=keys.fields,
        shape=keys.shape,
        multi_label=keys.multi_label,
        whitespace=keys.whitespace,
        unordered=keys.unordered,
        tolerance=keys.tolerance,
        train_size=keys.train_size,
        empty_answers=keys.empty is not None,
        ignore=tuple(dict.fromkeys(keys.ignore)),
        target=keys.target,
        budget=Budget(**keys.budget.model_dump()),
        concurrency=keys.concurrency,
        seed=keys.seed,
        teacher=taught_keys.to_teacher(keys.teacher),
        judge=judge,
        judged=keys.judged,
        unlabelled=keys.unlabelled,
        synthetic=keys.synthetic,
        preferences=keys.preferences,
        repeats=keys.repeats or 0,
        abstain=keys.abstain,
        cite=keys.cite,
        retrieval=retrieval_keys.to_search_keys(keys.retrieval, path.parent),
        license=keys.license,
        engine=keys.engine,
    )


def _labels_of(keys: TaskKeys) -> tuple[str, ...] | None:
    """The labels: those named, or the columns where each label has a column of its own. Raises ValueError."""
    columns = keys.fields.get("output")
    if isinstance(columns, tuple) and not keys.multi_label:
        raise ValueError("fields.output names several columns, one for each label. Write multi_label: true, too.")
    if keys.labels:
        return tuple(keys.labels)
    if keys.multi_label and not isinstance(columns, tuple):
        raise ValueError(
            "multi_label says that answers are lists of labels, but no labels are named. Write labels: […]."
        )
    return columns if isinstance(columns, tuple) else None


def _default_metric(keys: TaskKeys) -> str:
    if keys.multi_label:
        return "label_set_f1"
    if keys.labels:
        return "label_accuracy"
    if keys.schema_ is not None:
        return "json_match"
    return "numeric_error" if keys.tolerance is not None else "exact_match"


def _check_metrics(keys: TaskKeys, metric: str, labels: tuple[str, ...] | None) -> None:
    """As `_check_metric`; of a judge, the metric that counts in its place. Raises ValueError."""
    if metric != JUDGE or keys.judge is None:
        return _check_metric(keys, metric, labels)
    try:
        _check_metric(keys, keys.judge.fallback, labels)
    except ValueError as error:
        raise ValueError(f"judge.fallback: {str(error).replace('Write metric:', 'Write fallback:')}") from None


def _check_metric(keys: TaskKeys, metric: str, labels: tuple[str, ...] | None) -> None:
    """Raises ValueError where a key says something that the metric would ignore, or cannot tell labels apart."""
    if metric in CASELESS and labels:
        key_labels.refuse_one_form(labels, metric)
    if keys.multi_label and metric not in MULTI_LABEL and not metric.startswith("python:"):
        raise ValueError(
            f"{metric} compares single answers, not sets of labels. Write metric: {' or '.join(MULTI_LABEL)}."
        )
    if metric in MULTI_LABEL and not keys.multi_label:
        raise ValueError(f"{metric} compares sets of labels. Write multi_label: true, and labels: […].")
    if keys.tolerance is not None and metric not in ("numeric_error", "numeric_match"):
        raise ValueError(f"tolerance says nothing to {metric}. Write metric: numeric_error, or delete tolerance.")
    if keys.unordered and metric not in JSON_METRICS:
        raise ValueError(f"unordered says nothing to {metric}: it is about lists in JSON. Delete it.")


def _models(keys: TaskKeys) -> tuple[ModelSpec, ...]:
    """The models with their prices. Raises ValueError where the keys about models contradict each other."""
    if keys.model is not None and keys.models is not None:
        raise ValueError("model and models both name what answers. Keep one of them.")
    named: list[ModelEntry] = keys.models or [keys.model or DEFAULT]
    specs = model_specs(named, keys.price)
    asked = [*named, *([keys.teacher] if keys.teacher else []), *([keys.judge.model] if keys.judge else [])]
    priced = keys.price is not None or any(model.endpoint or model.price is not None for model in asked)
    if keys.budget.usd is not None and not priced:
        raise ValueError(f"budget in usd needs to know what the machine costs. {PRICE_HINT}")
    return specs
