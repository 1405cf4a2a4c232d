"""A first task.yaml for a data file: every guess with its reason, for the user to correct.

Knows columns and what answers look like; decides nothing that the user cannot change in the text it returns.
"""

from __future__ import annotations

import json
import os
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rung.data.corpus import TEXT_SUFFIXES
from rung.data.examples import INPUT_NAMES, OUTPUT_NAMES
from rung.data.rows import SUFFIXES, SUPPORTED, Row, as_text, raise_problems, read_table
from rung.errors import DataError
from rung.text import pieces

MAX_LABELS = 100
_NAMED_LABELS = 30  # more of them make a long instruction, paid for on every request
_FILE_NAMES = ("examples", "data", "dataset", "train", "qa", "questions")
_SET_NAMES = {"train": ("train", "training"), "dev": ("dev", "val", "valid", "validation"), "test": ("test",)}
_CORPUS_NAMES = ("corpus", "docs", "documents", "passages")
_NUMBER = re.compile(r"[-+]?[$€£]?\d[\d,]*(\.\d+)?\s?%?")
_INSTRUCTIONS = {
    "label_accuracy": "Classify the input. Answer with one of the labels only.",
    "json_match": "Answer with one JSON object only.",
    "numeric_match": "Work out the answer. Answer with the number only.",
    "rouge_l": "Answer the input in full sentences.",
    "token_f1": "Answer the question briefly.",
    "exact_match": "Answer the question. Give the answer only.",
}


@dataclass(frozen=True)
class Guess:
    """A value and why."""

    value: str
    why: str


def guess_task(data: Path) -> str:
    """The commented text of a task.yaml for a data file, or for the data file in a folder.

    Paths in it are relative to the folder of the data, where it is meant to be saved; `read_task` accepts it there.
    Raises DataError when there is no data file, it cannot be read, or its columns leave no guess.
    """
    from rung.data.model_keys import DEFAULT_MODEL

    data = Path(os.path.abspath(data))
    files = _find(data)
    rows: list[Row] = []
    columns: list[str] = []
    for path in files.values():
        table = read_table(path)
        raise_problems(table.problems)
        rows += table.rows
        columns += [c for c in table.columns if c not in columns]
    first = next(iter(files.values()))
    source = _input_column(columns, rows, first)
    answer = _output_column(columns, source.value, first)
    outputs = [t for row in rows if (t := _cell(row, answer.value).strip())]
    if not outputs:
        raise DataError(f'{first.name}: the column "{answer.value}" holds no answers. Fill it in.')
    metric, labels = _metric(outputs)
    examples: object = {name: p.name for name, p in files.items()} if len(files) > 1 else first.name
    lines = [
        "# A first guess. Each comment gives the reason; correct what is wrong.",
        f"name: {_yaml(_name(first))}",
        f"instruction: {_yaml(_instruction(metric.value, labels))}  # a guess from the metric; say what you want",
        f"examples: {_yaml(examples)}  # {len(rows)} rows; columns: {_comment(', '.join(columns))}",
    ]
    fields = {n: g.value for n, g in (("input", source), ("output", answer)) if g.value != n}
    lines += [f"# input: {_comment(source.why)}", f"# output: {_comment(answer.why)}"]
    if fields:
        lines.append(f"fields: {_yaml(fields)}")
    lines.append(f"metric: {metric.value}  # {_comment(metric.why)}")
    if labels:
        counts = Counter(outputs)
        rarest = min(counts.values())
        lines.append(f"labels: {_yaml(labels)}  # all {len(labels)} distinct answers; the rarest has {rarest} rows")
    if corpus := _corpus(first.parent, set(files.values())):
        lines.append(f"corpus: {_yaml(corpus.value)}  # {_comment(corpus.why)}")
    lines += [
        f"model: {DEFAULT_MODEL}  # the default: small, answers and trains on two CPU cores",
        "# model: {endpoint: https://api.openai.com/v1, name: gpt-5-mini}  # behind an API; its key: OPENAI_API_KEY",
        "# models: [ … ]  # instead of model: several, cheapest first, compared in one run",
        "# target: 0.9  # good enough; climbing stops there",
        "# budget: {minutes: 30}",
        "seed: 0",
    ]
    return "\n".join(lines) + "\n"


def _find(data: Path) -> dict[str, Path]:
    """{"": file}, or {"train": …, "dev": …, "test": …} for a folder that holds a split."""
    if not os.path.isdir(data):
        return {"": data}
    found = sorted(p for p in data.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    found = [p for p in found if p.stem.lower() not in _CORPUS_NAMES and not p.name.endswith(".schema.json")]
    by_stem = {p.stem.lower(): p for p in reversed(found)}
    sets = {n: next((by_stem[s] for s in stems if s in by_stem), None) for n, stems in _SET_NAMES.items()}
    if sets["train"] and sets["test"]:
        return {name: path for name, path in sets.items() if path}
    if chosen := next((by_stem[s] for s in _FILE_NAMES if s in by_stem), found[0] if len(found) == 1 else None):
        return {"": chosen}
    if not found:
        raise DataError(f"{data.name}: the folder holds no examples ({data}). Put them there as {SUPPORTED}.")
    names = ", ".join(p.name for p in found[:10])
    raise DataError(f"{data.name}: which file holds the examples? It holds {names}. Name the file itself.")


def _input_column(columns: Sequence[str], rows: Sequence[Row], path: Path) -> Guess:
    folded = {c.casefold(): c for c in reversed(columns)}
    for name in INPUT_NAMES:
        if name in folded:
            return Guess(folded[name], f'the column "{folded[name]}", by its name')
    others = [c for c in columns if c and c.casefold() not in (*OUTPUT_NAMES, "id", "group", "context", "title")]
    if not others:
        raise DataError(f"{path.name}: no column looks like an input; columns are {', '.join(columns)}. {_BY_HAND}")
    length = {c: statistics.fmean(len(_cell(row, c)) for row in rows) for c in others}
    longest = max(others, key=lambda c: length[c])
    return Guess(longest, f'the column "{longest}", the longest text ({length[longest]:.0f} characters on average)')


def _output_column(columns: Sequence[str], source: str, path: Path) -> Guess:
    folded = {c.casefold(): c for c in reversed(columns) if c != source}
    for name in OUTPUT_NAMES:
        if name in folded:
            return Guess(folded[name], f'the column "{folded[name]}", by its name')
    others = [c for c in columns if c and c != source and c.casefold() not in ("id", "group", "context", "title")]
    if len(others) != 1:
        raise DataError(f"{path.name}: which column holds the answers? Columns are {', '.join(columns)}. {_BY_HAND}")
    return Guess(others[0], f'the column "{others[0]}", the only one left')


_BY_HAND = "Write task.yaml by hand with fields: {input: COLUMN, output: COLUMN}."


def _instruction(metric: str, labels: Sequence[str]) -> str:
    if 0 < len(labels) <= _NAMED_LABELS:
        return f"Classify the input. Answer with one of these labels only: {', '.join(labels)}."
    return _INSTRUCTIONS[metric]


def _metric(outputs: Sequence[str]) -> tuple[Guess, list[str]]:
    """The metric and, for a closed set of answers, the labels in alphabetical order."""
    n, counts = len(outputs), Counter(outputs)
    if all(_is_json_object(o) for o in outputs):
        return Guess("json_match", f"all {n} answers are JSON"), []
    numbers = sum(_NUMBER.fullmatch(o) is not None for o in outputs)
    if numbers == n and len(counts) > 10:
        return Guess("numeric_match", f"all {n} answers are numbers, {len(counts)} distinct"), []
    repeated = sum(c for c in counts.values() if c > 1)
    words = statistics.median(_words(o) for o in outputs)
    closed = 2 <= len(counts) <= MAX_LABELS and n >= 3 * len(counts) and repeated >= 0.9 * n
    if closed and max(map(_words, counts)) <= 8:
        why = f"{n} answers, only {len(counts)} distinct, {100 * repeated // n} % of them repeated"
        return Guess("label_accuracy", why), sorted(counts)
    if numbers == n:
        return Guess("numeric_match", f"all {n} answers are numbers"), []
    why = f"{len(counts)} distinct answers among {n}, {words:g} words in the middle of the range"
    if words > 12:
        return Guess("rouge_l", f"{why}: long free text"), []
    return Guess("token_f1" if words > 3 else "exact_match", f"{why}: {'medium' if words > 3 else 'short'}"), []


def _words(text: str) -> int:
    """Words between spaces; in scripts without spaces about two characters make a word."""
    return sum((len(pieces(word)) + 1) // 2 for word in text.split())


def _corpus(folder: Path, data: set[Path]) -> Guess | None:
    for name in _CORPUS_NAMES:
        for suffix in SUFFIXES:
            if (path := folder / f"{name}{suffix}").is_file() and path not in data:
                return Guess(path.name, "a file of documents beside the examples")
        if (path := folder / name).is_dir():
            texts = sum(p.suffix.lower() in TEXT_SUFFIXES for p in path.rglob("*"))
            if texts:
                return Guess(f"{name}/", f"a folder of {texts} text files beside the examples")
    return None


def _name(path: Path) -> str:
    """The folder's name, or the file's, with what cannot stand in a folder's name replaced."""
    names = (re.sub(r"[^\w-]+", "-", n).strip("-_")[:30] for n in (path.parent.name, path.stem))
    return next((n for n in names if n), "task")


def _cell(row: Row, column: str) -> str:
    try:
        return as_text(row.values.get(column))
    except ValueError as e:
        raise DataError(f'{row.where}: "{column}" {e}.') from e


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


def _yaml(value: object) -> str:
    """JSON, which is YAML that needs no guess about quotes; plain words stay plain."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w./-]*", value) and value.lower() not in _YAML_WORDS:
        return value
    # YAML, unlike JSON, wants signs that do not print escaped, and has \\U for those beyond 16 bits.
    return "".join(
        c if c.isprintable() else f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}"
        for c in json.dumps(value, ensure_ascii=False)
    )


_YAML_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


def _comment(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
