"""A JSON Schema in plain words, short enough for a prompt: keys, types, choices, and which keys may be left out.

Knows the common keywords; what it does not know it calls "any JSON value". Checks nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rung.data.key_order import referred

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

_FORMATS = {
    "date": "a date (YYYY-MM-DD)",
    "time": "a time (HH:MM:SS)",
    "date-time": "a date and time (ISO 8601)",
    "email": "an e-mail address",
    "uuid": "a UUID",
    "uri": "a URI",
    "ipv4": "an IPv4 address",
    "ipv6": "an IPv6 address",
    "duration": "an ISO 8601 duration",
}
_LIMITS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
    "multipleOf": "a multiple of",
    "maxLength": "number of characters at most",
}


def schema_in_words(schema: Mapping[str, Any]) -> str:
    """What an answer of this schema looks like; one general sentence where the schema names no keys and no items."""
    root, schema = schema, _resolved(schema, schema)
    if "items" in schema and schema.get("type", "array") == "array":
        return f"Answer with JSON only: {_value(schema, root, 1)}."
    properties, required = _mapping(schema.get("properties")), schema.get("required")
    if not properties:
        return "Answer with JSON only, and with no other text."
    needed = required if isinstance(required, list) else []
    lines = [
        f'- "{name}": {_value(value, root, 1)}{"" if name in needed else " (may be left out)"}'
        for name, value in properties.items()
    ]
    return "\n".join(["Answer with one JSON object only. Its keys are:", *lines])


def _value(schema: object, root: Mapping[str, Any], depth: int) -> str:
    """What a value may be, as part of a sentence: "a whole number", "a list, each item text"."""
    found = _resolved(schema, root)
    if isinstance(found.get("enum"), list):
        return f"one of {', '.join(json.dumps(v, ensure_ascii=False) for v in found['enum'])}"
    if "const" in found:
        return json.dumps(found["const"], ensure_ascii=False)
    for key in ("anyOf", "oneOf"):
        if isinstance(found.get(key), list) and depth < DEPTH:
            return " or ".join(dict.fromkeys(_value(s, root, depth + 1) for s in found[key]))
    kind = found.get("type")
    if isinstance(kind, list):
        return " or ".join(_value({**found, "type": one}, root, depth) for one in kind)
    if "items" in found and depth < DEPTH and kind in ("array", None):
        return f"a list, each item {_value(found['items'], root, depth + 1)}"
    if (properties := _mapping(found.get("properties"))) and depth < DEPTH and kind in ("object", None):
        inside = (f'"{name}": {_value(v, root, depth + 1)}' for name, v in properties.items())
        return f"an object with {'; '.join(inside)}"
    words = _TYPES.get(kind, "any JSON value") if isinstance(kind, str) else "any JSON value"
    return f"{words}{_bounds(found)}" if kind in ("string", "integer", "number") else words


def _bounds(schema: Mapping[str, Any]) -> str:
    """What a text or number must keep to, behind its type: ", a date (YYYY-MM-DD)"."""
    parts = [_FORMATS[form]] if (form := schema.get("format")) in _FORMATS else []
    if "pattern" in schema:
        parts.append(f"that matches {schema['pattern']}")
    parts += [f"{words} {schema[key]}" for key, words in _LIMITS.items() if key in schema]
    return "".join(f", {part}" for part in parts)


def _resolved(schema: object, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema, or the one that its $ref names in the same document, with what stands beside the $ref."""
    found = _mapping(schema)
    for _ in range(DEPTH):
        reference = found.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#"):
            break
        beside = {key: value for key, value in found.items() if key != "$ref"}
        found = {**_mapping(referred(reference, root)), **beside}
    if isinstance(parts := found.get("allOf"), list) and len(parts) == 1:  # as pydantic 1 writes a $ref
        found = {**_resolved(parts[0], root), **{key: value for key, value in found.items() if key != "allOf"}}
    return found


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
