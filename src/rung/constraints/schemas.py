"""A JSON Schema without what no grammar can hold.

llguidance refuses keywords that it does not know. They are taken out here, so that the result allows at least what the
schema allows, and are named. A property that is called like a keyword stays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rung.constraints.formats import PATTERNS
from rung.constraints.patterns import ANYTHING, loosened_pattern, of_python
from rung.errors import ConstraintError

ANY_ORDER = "x-any-order"
"""A keyword of an array schema with distinct choices: answers may list them in any order."""

NEVER_HELD = frozenset(
    (
        *("not", "if", "then", "else", "contains", "minContains", "maxContains", "uniqueItems", "propertyNames"),
        *("dependentRequired", "dependentSchemas", "dependencies", "unevaluatedProperties", "unevaluatedItems"),
        *("$dynamicRef", "$recursiveRef"),
    )
)
"""Keywords of JSON Schema that llguidance 1.x refuses."""

HELD_FORMATS = frozenset(["date", "ipv4", "ipv6", "uuid"])
"""Formats that llguidance reads as jsonschema does."""

_ONE = frozenset(["items", "additionalItems", "additionalProperties"])
_LIST = frozenset(["anyOf", "allOf", "oneOf", "prefixItems", "items"])
_MAP = frozenset(["properties", "patternProperties", "$defs", "definitions"])
_UNHEARD = frozenset(("$dynamicAnchor", "$recursiveAnchor", ANY_ORDER))  # they assert nothing
_OPTIONS = "x-guidance"


def loosened_schema(schema: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A schema that llguidance takes, and the names of the keywords that it leaves out.

    Raises ConstraintError for a schema that no answer can meet. Where llguidance refuses even the loosened schema, what
    is left is the type of its root.
    """
    first_fact = ""
    for is_one_of_held in (True, False):
        walk = _Walk(is_one_of_held)
        found: dict[str, Any] = walk.loosened(schema)
        fact = _refusal(found)
        if not fact:
            return found, tuple(walk.left_out)
        first_fact = first_fact or fact
    if "nsatisfiable" in first_fact:
        raise ConstraintError(f"schema: no answer can meet it ({first_fact}). Correct it.")
    options = {_OPTIONS: schema[_OPTIONS]} if _OPTIONS in schema else {}
    kind = {"type": schema["type"]} if isinstance(schema.get("type"), str | list) else {}
    return {**kind, **options}, (f"the schema as a whole ({first_fact})",)


def subset_labels(schema: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The choices of a schema that is an array of distinct ones, in their order, and nothing else; None for others.

    minItems may be 0 or 1. The answers are taken to list choices in this order, unless the schema says ANY_ORDER.
    """
    items = schema.get("items")
    known = {"type", "items", "uniqueItems", "minItems", "title", "description", "$schema", _OPTIONS}
    if schema.get("type") != "array" or schema.get("uniqueItems") is not True or set(schema) - known:
        return None
    if not isinstance(items, Mapping) or set(items) - {"type", "enum"} or schema.get("minItems", 0) not in (0, 1):
        return None
    choices = items.get("enum")
    if not isinstance(choices, list | tuple) or not choices or not all(isinstance(choice, str) for choice in choices):
        return None
    return tuple(dict.fromkeys(choices))


@dataclass
class _Walk:
    """One way through a schema. holds_one_of: False makes an `anyOf` of every `oneOf`."""

    holds_one_of: bool
    left_out: dict[str, None] = field(default_factory=dict)

    def loosened(self, schema: Any) -> Any:
        if not isinstance(schema, Mapping):
            return schema
        result: dict[str, Any] = {}
        for name, value in schema.items():
            if name in NEVER_HELD:
                self._leave_out(name)
            elif name in _UNHEARD:
                continue
            elif name in _MAP and isinstance(value, Mapping):
                result[name] = {key: self.loosened(part) for key, part in value.items()}
            elif name in _LIST and isinstance(value, list | tuple):
                result[name] = [self.loosened(part) for part in value]
            elif name in _ONE:
                result[name] = self.loosened(value)
            elif name == "format" and value not in HELD_FORMATS:
                result |= self._format(schema, value)
            elif name == "pattern" and isinstance(value, str):
                result |= self._pattern(value)
            elif name in ("minProperties", "maxProperties") and not _counts_are_held(schema):
                self._leave_out(name)
            else:
                result[name] = value
        if "oneOf" in result and not self.holds_one_of:
            self._leave_out("oneOf")
            result["allOf"] = [*result.get("allOf", ()), {"anyOf": result.pop("oneOf")}]
        return result

    def _format(self, schema: Mapping[str, Any], value: object) -> dict[str, str]:
        """The pattern of a format that has one. A schema with a pattern of its own has no room for it."""
        from jsonschema import FormatChecker

        if value in PATTERNS and "pattern" not in schema:
            return {"pattern": f"^(?:{PATTERNS[str(value)]})$"}
        if isinstance(value, str) and (value in PATTERNS or value in FormatChecker.checkers):  # others assert nothing
            self._leave_out(f"format {value}")
        return {}

    def _pattern(self, pattern: str) -> dict[str, str]:
        """As much of the pattern, as Python reads it, as can be held; one that Python does not know as it is."""
        if of_python(pattern) is None:
            return {"pattern": pattern}
        found, left_out = loosened_pattern(pattern, search=True)
        for name in left_out:
            self._leave_out(f"{name} of pattern")
        return {} if found == ANYTHING else {"pattern": f"^(?:{found})$"}

    def _leave_out(self, name: str) -> None:
        self.left_out[name] = None


def _counts_are_held(schema: Mapping[str, Any]) -> bool:
    """llguidance counts properties only where all that are named are required."""
    return set(schema.get("properties", ())) <= set(schema.get("required", ()))


def _refusal(schema: Mapping[str, Any]) -> str:
    """What llguidance says against a schema, in one line; empty where it takes it."""
    import llguidance

    try:
        grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema, default=dict))
        matcher = llguidance.LLMatcher(llguidance.LLTokenizer("byte"), grammar)
        said = matcher.get_error() if matcher.is_error() else ""
    except ValueError as error:
        said = str(error) or "it is refused"
    return said.strip().splitlines()[0] if said.strip() else ""
