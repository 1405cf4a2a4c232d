"""JSON of a schema, from whatever a model says: how a fake endpoint holds its answers to a schema.

It knows the part of JSON Schema that structured output of real endpoints takes. `format` is not kept, and a `pattern`
only where a part of what the model says matches it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}


def held_to(schema: Schema, text: str) -> str:
    """`text` where it is JSON of the schema, else JSON of the schema that is made from it: always the same."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    else:
        if conforms(value, schema, schema):
            return text
    return json.dumps(_made(schema, schema, text), ensure_ascii=False)


def chosen(values: list[Any], text: str) -> Any:
    """The value that the text is or names; else one that the text alone decides."""
    for value in values:
        if text.strip() == str(value):
            return value
    for value in values:
        if isinstance(value, str) and value in text:
            return value
    return values[int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % len(values)]


def conforms(value: Any, schema: Schema, root: Schema) -> bool:
    """Whether a value is one of the schema. root: where `$ref` points into."""
    schema = _resolved(schema, root)
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "const" in schema and value != schema["const"]:
        return False
    if "anyOf" in schema and not any(conforms(value, part, root) for part in schema["anyOf"]):
        return False
    types = _types(schema)
    if types and not any(_is(value, name) for name in types):
        return False
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        if any(name not in value for name in schema.get("required", ())):
            return False
        if schema.get("additionalProperties") is False and set(value) - set(properties):
            return False
        return all(conforms(value[name], part, root) for name, part in properties.items() if name in value)
    if isinstance(value, list):
        enough = schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
        return enough and all(conforms(item, schema.get("items", {}), root) for item in value)
    if isinstance(value, str):
        if "pattern" in schema and not re.search(schema["pattern"], value):
            return False
        return bool(schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))
    return True


def _made(schema: Schema, root: Schema, text: str) -> Any:
    schema = _resolved(schema, root)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return chosen(schema["enum"], text)
    if "anyOf" in schema:
        return _made(schema["anyOf"][0], root, text)
    kind = (_types(schema) or ["object" if "properties" in schema else "string"])[0]
    if kind == "object":
        return {name: _made(part, root, text) for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        return [_made(schema.get("items", {}), root, text) for _ in range(schema.get("minItems", 1))]
    if kind in ("number", "integer"):
        return schema.get("minimum", 0)
    if kind == "boolean":
        return True
    if kind == "null":
        return None
    if "pattern" in schema and (match := re.search(schema["pattern"].strip("^$"), text)):
        return match[0]
    return text[: schema.get("maxLength", len(text))].ljust(schema.get("minLength", 0), "x")


def _resolved(schema: Schema, root: Schema) -> Schema:
    while "$ref" in schema:
        part: Any = root
        for name in str(schema["$ref"]).removeprefix("#/").split("/"):
            part = part[name]
        schema = part
    return schema


def _types(schema: Schema) -> list[str]:
    types = schema.get("type", [])
    return [types] if isinstance(types, str) else list(types)


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool) and name != "boolean":
        return False
    return isinstance(value, _TYPES.get(name, (object,)))


def spelt(grammar: str) -> list[str]:
    """The labels of a grammar of tokens; here a character is a token."""
    alternatives = grammar.partition("::=")[2].split("|")
    return ["".join(chr(int(token)) for token in re.findall(r"<\[(\d+)\]>", label)) for label in alternatives]
