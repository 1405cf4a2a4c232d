"""A JSON Schema that every one of some JSON values meets: types, required keys, and enums of what names a category.

Simple on purpose: it fixes what a reader of the values would fix, and nothing that one more row could break.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_KEYS = 60
"""An object with more different keys is a table of names, not a record: its keys are left open."""
MAX_DEPTH = 12
MAX_CHOICES = 8
MIN_REPEATS = 10
"""A closed set of strings: each repeats so often on average, and three times at least."""
_CATEGORY = re.compile(r"[^\W\d_]{2,}([_-][^\W\d_]+)*")
_COPIED = 0.5
_MAX_CHOICE_LENGTH = 40
_STRINGS_KEPT = 200


@dataclass
class Seen:
    """What stands at one place of the values, added one by one. copied: of strings that stand in the input, too."""

    types: Counter[str] = field(default_factory=Counter)
    keys: dict[str, Seen] = field(default_factory=dict)
    items: Seen | None = None
    strings: Counter[str] | None = field(default_factory=Counter)
    copied: int = 0
    deep: bool = False

    def add(self, value: object, source: str = "", depth: int = 0) -> None:
        """Counts one more value, and what is in it. source: the input, case aside."""
        self.types[_type_of(value)] += 1
        if isinstance(value, str) and self.strings is not None:
            self.strings[value] += 1
            self.copied += value.casefold() in source
            if len(self.strings) > _STRINGS_KEPT:
                self.strings = None
        if depth >= MAX_DEPTH:
            self.deep = True
        elif isinstance(value, dict):
            if len(self.keys) <= MAX_KEYS:
                for key, inner in value.items():
                    self.keys.setdefault(key, Seen()).add(inner, source, depth + 1)
        elif isinstance(value, list):
            self.items = self.items or Seen()
            for item in value:
                self.items.add(item, source, depth + 1)


def schema_of(seen: Seen) -> dict[str, object] | None:
    """A schema that all the values meet; None where they are not all objects, or not all arrays."""
    return _schema(seen) if set(seen.types) in ({"object"}, {"array"}) else None


def closed(schema: Mapping[str, object]) -> list[str]:
    """The keys whose values a schema of `schema_of` restricts to those that were seen."""
    found: list[str] = []
    properties = schema.get("properties")
    for key, inner in properties.items() if isinstance(properties, dict) else ():
        found += [key] if "enum" in inner else closed(inner)
    items = schema.get("items")
    return found + (closed(items) if isinstance(items, dict) else [])


def _schema(seen: Seen, in_list: bool = False) -> dict[str, object]:
    types = sorted(seen.types)
    if "integer" in types and "number" in types:
        types.remove("integer")
    if types == ["string"] and not in_list and (choices := _choices(seen)):
        return {"enum": choices}
    result: dict[str, object] = {"type": types[0] if len(types) == 1 else types}
    if seen.deep or not types:
        return result if types else {}
    if "object" in types and 0 < len(seen.keys) <= MAX_KEYS:
        n = seen.types["object"]
        result["properties"] = {key: _schema(inner) for key, inner in seen.keys.items()}
        result["required"] = [key for key, inner in seen.keys.items() if inner.types.total() == n]
        result["additionalProperties"] = False
    if "array" in types and seen.items is not None and seen.items.types:
        result["items"] = _schema(seen.items, in_list=True)  # of items, all kinds are seldom seen
    return result


def _choices(seen: Seen) -> list[str] | None:
    """The strings, where they are few, each repeats and is called as categories are: bug, in_progress.

    Names are none, and what is copied from the input may be another thing tomorrow.
    """
    found = seen.strings
    if found is None or not 2 <= len(found) <= MAX_CHOICES or min(found.values()) < 3:
        return None
    closed = found.total() >= MIN_REPEATS * len(found) and max(map(len, found)) <= _MAX_CHOICE_LENGTH
    named = (
        all(_CATEGORY.fullmatch(text) and text.islower() for text in found) and seen.copied < _COPIED * found.total()
    )
    return sorted(found) if closed and named else None


def _type_of(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    words = {float: "number", str: "string", list: "array"}
    return words.get(type(value), "object")
