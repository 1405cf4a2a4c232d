"""Values of cells: text, nothing, several texts, numbers. The same for every shape."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import cast

from rung.data.rows import as_text, kind_of, parse_json
from rung.text import normal_form

MISSING = frozenset({"", "nan", "none", "null", "na", "n/a", "#n/a", "#na", "<na>", "nat"})
"""What pandas and spreadsheets write where nothing is, in its normal form."""
SEPARATORS = ("|", ";", "\n", ",")
"""What may stand between several values in one cell, the least common in texts first."""
_WHOLE = re.compile(r"[-+]?\d+\.0+")
_FORM = 'write ["first", "second"]'


def listed(value: str | tuple[str, ...]) -> tuple[str, ...]:
    """A column or several, as several."""
    return (value,) if isinstance(value, str) else tuple(value)


def nothing(value: object) -> bool:
    """Whether a cell is null, or a number that is none."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def missing(text: str) -> bool:
    """Whether a text is what programs write where nothing is."""
    return len(text) <= 8 and normal_form(text) in MISSING


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
    """A list, or the list that a text writes as JSON; None for anything else."""
    if isinstance(value, list):
        return cast("list[object]", value)
    if isinstance(value, str) and value.lstrip().startswith("[") and value.rstrip().endswith("]"):
        try:
            found = parse_json(value)
        except ValueError:
            return None
        return cast("list[object]", found) if isinstance(found, list) else None
    return None


def accepted(value: object) -> list[object] | None:
    """Several accepted answers: a list of scalars, or as SQuAD writes them; None where a value is something else."""
    if isinstance(value, dict) and isinstance(inner := value.get("text"), list | tuple):
        return list(inner)
    if isinstance(value, list):
        if all(isinstance(item, dict) and isinstance(item.get("text"), str) for item in value) and value:
            return [item["text"] for item in value]
        if all(map(is_scalar, value)):
            return cast("list[object]", value)
    return None


def references_of(value: object, column: str, output: str) -> tuple[str, ...]:
    """Further accepted answers of a row: a list, its JSON, one text, or texts between bars of which one is `output`."""
    if nothing(value) or value == [] or (isinstance(value, str) and missing(value)):
        return ()
    found: object = accepted(value)
    if found is None and isinstance(value, str):
        if value.lstrip().startswith("["):
            found = _parsed(value, column)
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
            return _texts(_parsed(value, column), column)
        sign = next((s for s in SEPARATORS if s in value.strip()), None)
        return tuple(part.strip() for part in value.split(sign) if part.strip())
    return _texts([value] if is_scalar(value) else value, column)


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
