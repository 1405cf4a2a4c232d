"""Values of cells: text, nothing, several texts, numbers. The same for every shape."""

from __future__ import annotations

import ast
import io
import math
import re
import tokenize
import warnings
from collections.abc import Sequence
from typing import cast

from rung.data.rows import as_text, kind_of, parse_json
from rung.text import normal_form

MISSING = frozenset({"", "nan", "none", "null", "na", "n/a", "#n/a", "#na", "<na>", "nat", "<noinput>"})
"""What pandas, spreadsheets and Alpaca write where nothing is, in its normal form."""
SEPARATORS = ("|", ";", "\n", ",")
"""What may stand between several values in one cell, the least common in texts first."""
_WHOLE = re.compile(r"[-+]?\d+\.0+")
_ARRAY = re.compile(r"array\((\[[^\[\]]*\])(?:, dtype=\w+)?\)")
_SIDE_BY_SIDE = re.compile(r"['\"]\s+['\"]|\}\s+\{")
_LONGEST_LITERAL = 200_000  # characters; Python takes long to parse more
_FORM = 'write ["first", "second"]'


def listed(value: str | tuple[str, ...]) -> tuple[str, ...]:
    """A column or several, as several."""
    return (value,) if isinstance(value, str) else tuple(value)


def nothing(value: object) -> bool:
    """Whether a cell is null, or a number that is none."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def missing(text: str) -> bool:
    """Whether a text is what programs write where nothing is."""
    return len(text) <= 9 and normal_form(text) in MISSING


def whole(value: object) -> bool:
    """Whether a value is a number with a point, and yet whole: 1.0"""
    return isinstance(value, float) and value.is_integer()


def without_point(text: str) -> str:
    """ "1" of "1.0"; any other text as it is."""
    return text.partition(".")[0] if text[-1:] == "0" and _WHOLE.fullmatch(text) else text


def group_of(value: object) -> str | None:
    """The group of a row, so that 1, 1.0, "1" and " 1 " are one; None for what stands for nothing."""
    if nothing(value):
        return None
    text = normal_form(as_text(value))
    return None if text in MISSING else without_point(text)


def is_scalar(value: object) -> bool:
    """Whether a value is text, a number, true or false."""
    return isinstance(value, str | int | float) and not nothing(value)


def json_list(value: object) -> list[object] | None:
    """A list, or the list that a text writes, as JSON or as Python does; None for anything else."""
    if isinstance(value, list):
        return cast("list[object]", value)
    found = _written(value, "[", "]")
    return cast("list[object]", found) if isinstance(found, list) else None


def _written(value: object, first: str, last: str) -> object:
    """What a text between two signs writes as JSON, or as Python does (pandas puts lists so into CSV); or None."""
    if not isinstance(value, str) or not value.lstrip().startswith(first) or not value.rstrip().endswith(last):
        return None
    try:
        return parse_json(value)
    except ValueError:
        if "'" not in value or len(value) > _LONGEST_LITERAL:
            return None
    text = _ARRAY.sub(r"\1", value.strip())
    try:
        with warnings.catch_warnings():  # of odd escapes in texts
            warnings.simplefilter("ignore")
            if _SIDE_BY_SIDE.search(text):  # numpy writes ['a' 'b'], which Python reads as ['ab']
                text = _with_commas(text)
            return cast("object", ast.literal_eval(text))
    except (ValueError, SyntaxError, MemoryError, RecursionError, tokenize.TokenError):
        return None


def _with_commas(text: str) -> str:
    """Python's text of a list with a comma between strings, or mappings, that stand side by side."""
    tokens = [t for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.string.strip()]
    found: list[str] = []
    for before, token in zip([None, *tokens], tokens, strict=False):
        two = before and (before.type == token.type == tokenize.STRING or (before.string, token.string) == ("}", "{"))
        found += [",", token.string] if two else [token.string]
    return " ".join(found)


def accepted(value: object) -> list[object] | None:
    """Several accepted answers: a list of scalars, or as SQuAD and TriviaQA write them; None for anything else."""
    if (spans := squad_texts(value)) is not None:
        return spans
    if isinstance(value, dict) and isinstance(value.get("value"), str) and isinstance(value.get("aliases"), list):
        return list(dict.fromkeys([value["value"], *value["aliases"]]))
    if isinstance(value, list):
        if value and all(isinstance(item, dict) and isinstance(item.get("text"), str) for item in value):
            spans_alone = all("answer_start" in item or len(item) == 1 for item in value)  # others are entities
            return [item["text"] for item in value] if spans_alone else None
        if all(map(is_scalar, value)):
            return cast("list[object]", value)
    return None


def squad_texts(value: object) -> list[object] | None:
    """The texts of {"text": […], "answer_start": […]}, also where a text writes it; None for anything else."""
    if isinstance(value, str) and "answer_start" in value:
        value = _written(value, "{", "}")
    if isinstance(value, dict) and set(value) <= {"text", "answer_start"} and isinstance(value.get("text"), list):
        return list(value["text"])
    return None


def references_of(value: object, column: str, output: str) -> tuple[str, ...]:
    """Further accepted answers of a row: a list, its JSON, one text, or texts between bars of which one is `output`."""
    if nothing(value) or value == [] or (isinstance(value, str) and missing(value)):
        return ()
    found: object = accepted(value)
    if found is None and isinstance(value, str):
        if value.lstrip().startswith("["):
            found = json_list(value) or _parsed(value, column)
        else:
            parts = [part.strip() for part in value.split("|")]
            same = normal_form(output)
            found = parts if len(parts) > 1 and same in map(normal_form, parts) else [value]
    if found is None and is_scalar(value):
        found = [value]
    return _texts(value if found is None else found, column)


def gold_ids_of(value: object, column: str) -> tuple[str, ...]:
    """Ids of passages: a list, its JSON, one id, or ids between bars, semicolons or commas."""
    if nothing(value) or value == [] or (isinstance(value, str) and missing(value)):
        return ()
    if isinstance(value, str):
        if value.lstrip().startswith("["):
            return _texts(json_list(value) or _parsed(value, column), column)
        sign = next((s for s in SEPARATORS if s in value.strip()), None)
        return tuple(part.strip() for part in value.split(sign) if part.strip())
    return _texts([value] if is_scalar(value) else value, column)


FOUND_BY = "rung init"
"""In a column gold_by: the row's gold_ids were found by a search for the words of its answer; nobody marked them."""


def separator_of(cells: Sequence[str]) -> str | None:
    """What stands between several values in the cells of a column, where it does in one of twenty and in two."""
    return next(
        (s for s in SEPARATORS if (n := sum(s in c.strip() for c in cells)) >= 2 and 20 * n >= len(cells)), None
    )


def _parsed(text: str, column: str) -> object:
    try:
        return parse_json(text)
    except ValueError as e:
        raise ValueError(f'"{column}" is {e}; {_FORM}') from e


def _texts(value: object, column: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f'"{column}" is {kind_of(value)}, not a list of texts; {_FORM}')
    for item in cast("list[object]", value):
        if isinstance(item, bool) or not isinstance(item, str | int | float) or not str(item).strip():
            what = "empty text" if isinstance(item, str) else kind_of(item)
            raise ValueError(f'"{column}" holds {what}, not only texts; {_FORM}')
    try:
        return tuple(as_text(item) for item in value)
    except ValueError as e:
        raise ValueError(f'"{column}" {e}') from e
