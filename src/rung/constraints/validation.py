"""Whether a JSON value meets a JSON Schema, by the library jsonschema, and why not in a few words.

References outside of the schema are never fetched. Patterns that only other dialects know are held by grammars, and
not checked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from functools import lru_cache, partial
from typing import Any

from rung.constraints.formats import PATTERNS, is_of_format
from rung.constraints.patterns import is_held, matches, of_python

_SHOWN, _SHOWN_VALUE = 120, 40  # characters of a reason, and of a wrong value in it
_OF_TYPE = re.compile(r" is not of type '(\w+)'$")
_DRAFTS = {"draft-03": "Draft3Validator", "draft-04": "Draft4Validator", "draft-06": "Draft6Validator"}
_DRAFTS |= {"draft-07": "Draft7Validator", "2019-09": "Draft201909Validator"}


def schema_fault(schema: Mapping[str, Any]) -> str | None:
    """Why this is no JSON Schema that answers can be checked by, as a sentence part; None where it is one."""
    from jsonschema.exceptions import SchemaError

    try:
        validator = _validator(_text(schema))
        validator.check_schema(validator.schema, format_checker=_formats_of_schemas())
        dangling = _dangling(validator.schema)
    except SchemaError as error:
        where = ".".join(map(str, error.absolute_path))
        return f"it is no JSON Schema: {f'{where}: ' if where else ''}{_short(error.message)}"
    except RecursionError:
        return "it is nested too deeply"
    return dangling and f"$ref {dangling} names nothing in it, and no other file is read"


def fault_of_schema(schema: Mapping[str, Any], value: Any, *, shown: bool = True) -> str | None:
    """The first and gravest reason why a value does not meet a schema, "$.price: 'x' is not a number"; None: it does.

    shown: False names the place and the keyword alone, "$.price: it breaks type", and nothing of the value. Raises
    nothing for a schema without a `schema_fault`.
    """
    from jsonschema.exceptions import best_match
    from referencing.exceptions import Unresolvable

    try:
        error = best_match(_validator(_text(schema)).iter_errors(value))
    except RecursionError:
        return "it is nested too deeply"
    except Unresolvable as unknown:
        return f"$ref {unknown.ref} names nothing in the schema"
    if error is None:
        return None
    if not shown:
        return f"{error.json_path}: it breaks {error.validator}"
    instance, message = repr(error.instance), str(error.message)
    if len(instance) > _SHOWN_VALUE and message.startswith(instance):
        message = "the value" + message.removeprefix(instance)
    return f"{error.json_path}: {_short(_OF_TYPE.sub(_in_words, message))}"


def _in_words(found: re.Match[str]) -> str:
    kind = found[1]
    return f" is not {'null' if kind == 'null' else f'an {kind}' if kind[0] in 'aeio' else f'a {kind}'}"


def _text(schema: Mapping[str, Any]) -> str:
    return json.dumps(schema, default=dict)


@lru_cache(maxsize=256)
def _validator(text: str) -> Any:
    import jsonschema
    from referencing import Registry

    schema = json.loads(text)
    named = str(schema.get("$schema", ""))
    draft = next((name for version, name in _DRAFTS.items() if version in named), "Draft202012Validator")
    base = getattr(jsonschema, draft)
    own = {"pattern": _pattern, "patternProperties": _pattern_properties(base), "multipleOf": _multiple_of}
    kind = jsonschema.validators.extend(base, own)
    return kind(schema, registry=Registry(), format_checker=_formats())


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema.exceptions import ValidationError

    if isinstance(instance, str) and of_python(pattern) and not matches(pattern, instance, search=True):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _multiple_of(validator: Any, step: float, instance: Any, schema: Any) -> Iterator[Any]:
    """In decimals, as JSON writes them: 1.11 is a multiple of 0.01."""
    from jsonschema.exceptions import ValidationError

    if isinstance(instance, int | float) and not isinstance(instance, bool):
        try:
            is_multiple = Decimal(repr(instance)) % Decimal(repr(step)) == 0
        except InvalidOperation:  # infinite, or too many digits
            is_multiple = True
        if not is_multiple:
            yield ValidationError(f"{instance!r} is not a multiple of {step!r}")


def _pattern_properties(base: Any) -> Any:
    check = base.VALIDATORS.get("patternProperties")

    def known_patterns(validator: Any, patterns: Mapping[str, Any], instance: Any, schema: Any) -> Iterator[Any]:
        if check is not None:
            known = {pattern: part for pattern, part in patterns.items() if of_python(pattern)}
            yield from check(validator, known, instance, schema) or ()

    return known_patterns


def _formats() -> Any:
    from jsonschema import FormatChecker

    checker = FormatChecker()
    for name in PATTERNS:
        checker.checks(name)(partial(_is_text_of, name))
    return checker


def _is_text_of(name: str, value: object) -> bool:
    return not isinstance(value, str) or is_of_format(name, value)


def _formats_of_schemas() -> Any:
    """For schemas themselves: a pattern may be of Python or of llguidance."""
    from jsonschema import FormatChecker

    checker = FormatChecker(["regex"])
    checker.checks("regex")(lambda v: not isinstance(v, str) or of_python(v) is not None or is_held(v))
    return checker


def _dangling(schema: Mapping[str, Any]) -> str | None:
    """The first $ref that names nothing in the schema; None where there is none, or where parts have names."""
    from referencing import Registry, Resource
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    if _text(schema).count('"$id"') > 1:
        return None
    resolver = Registry().resolver_with_root(Resource.from_contents(schema, default_specification=DRAFT202012))
    for reference in _references(schema):
        try:
            resolver.lookup(reference)
        except Unresolvable:
            return reference
    return None


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, Mapping):
        if isinstance(reference := part.get("$ref"), str):
            yield reference
        for name, value in part.items():
            if name not in ("enum", "const", "default", "examples"):
                yield from _references(value)
    elif isinstance(part, list):
        for value in part:
            yield from _references(value)


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
