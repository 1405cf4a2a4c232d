"""A JSON Schema in plain words, short enough for a prompt: keys, types, choices, and which keys may be left out.

Knows the common keywords; what it does not know it calls "any JSON value". Checks nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

DEPTH = 4
"""Levels of objects and lists that are put into words."""

_TYPES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
    "array": "a list",
    "object": "an object",
}


def schema_in_words(schema: Mapping[str, Any]) -> str:
    """What an answer of this schema looks like; one general sentence where the schema names no keys and no items."""
    definitions = {
        f"#/{place}/{name}": value
        for place in ("$defs", "definitions")
        for name, value in _mapping(schema.get(place)).items()
    }
    schema = _resolved(schema, definitions)
    if "items" in schema and schema.get("type", "array") == "array":
        return f"Answer with JSON only: {_value(schema, definitions, 1)}."
    properties, required = _mapping(schema.get("properties")), schema.get("required")
    if not properties:
        return "Answer with JSON only, and with no other text."
    needed = required if isinstance(required, list) else []
    lines = [
        f'- "{name}": {_value(value, definitions, 1)}{"" if name in needed else " (may be left out)"}'
        for name, value in properties.items()
    ]
    return "\n".join(["Answer with one JSON object only. Its keys are:", *lines])


def _value(schema: object, definitions: Mapping[str, Any], depth: int) -> str:
    """What a value may be, as part of a sentence: "a whole number", "a list, each item text"."""
    found = _resolved(schema, definitions)
    if isinstance(found.get("enum"), list):
        return f"one of {', '.join(json.dumps(v, ensure_ascii=False) for v in found['enum'])}"
    if "const" in found:
        return json.dumps(found["const"], ensure_ascii=False)
    for key in ("anyOf", "oneOf"):
        if isinstance(found.get(key), list) and depth < DEPTH:
            return " or ".join(dict.fromkeys(_value(s, definitions, depth + 1) for s in found[key]))
    kind = found.get("type")
    if isinstance(kind, list):
        return " or ".join(_value({**found, "type": one}, definitions, depth) for one in kind)
    if "items" in found and depth < DEPTH and kind in ("array", None):
        return f"a list, each item {_value(found['items'], definitions, depth + 1)}"
    if (properties := _mapping(found.get("properties"))) and depth < DEPTH and kind in ("object", None):
        inside = (f'"{name}": {_value(v, definitions, depth + 1)}' for name, v in properties.items())
        return f"an object with {'; '.join(inside)}"
    return _TYPES.get(kind, "any JSON value") if isinstance(kind, str) else "any JSON value"


def _resolved(schema: object, definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema, or the one that its $ref names in the same document."""
    found = _mapping(schema)
    return _mapping(definitions.get(found["$ref"])) if isinstance(found.get("$ref"), str) else found


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
