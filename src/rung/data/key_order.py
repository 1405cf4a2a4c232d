"""In which order the keys of JSON answers stand, at every level, and a schema in that order.

The order of most answers counts; a key that these lack stands behind the key that it follows in the others.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_DEEPEST = 64
_OTHER_NAMES = ("anyOf", "oneOf", "allOf")

Keys = tuple[str, ...]


def merged(orders: Counter[Keys]) -> Keys:
    """One order of all keys: the most frequent order, then what the others add."""
    result: list[str] = []
    for keys, _ in orders.most_common():
        before = -1
        for key in keys:
            if key not in result:
                result.insert(before + 1, key)
            before = result.index(key)
    return tuple(result)


def key_orders(values: Iterable[Any]) -> dict[str, Keys]:
    """Place in the values ("$.item", "$.tags[]") -> the order of keys there."""
    seen: dict[str, Counter[Keys]] = defaultdict(Counter)
    for value in values:
        for place, keys in _objects(value, "$"):
            seen[place][keys] += 1
    return {place: merged(orders) for place, orders in seen.items()}


def follows(value: Any, orders: Mapping[str, Keys]) -> bool:
    """Whether the keys of a value stand in these orders, at every place."""
    for place, keys in _objects(value, "$"):
        known = iter(orders.get(place, keys))
        if not all(key in known for key in keys):  # a subsequence: the iterator moves on
            return False
    return True


def ordered(schema: Mapping[str, Any], values: Sequence[Any]) -> dict[str, Any]:
    """The schema with properties in the order of the keys of the values, at every level, through references too."""
    walk = _Walk(schema)
    for value in values:
        walk.see(schema, value)
    result: dict[str, Any] = walk.sorted(schema)
    return result


def referred(reference: str, root: Mapping[str, Any]) -> Any:
    """What a $ref within the same document names; an empty schema where it names nothing."""
    schema: Any = root
    for part in reference.split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        schema = schema.get(part, {}) if isinstance(schema, Mapping) else {}
    return schema


class _Walk:
    """A schema, and the orders of keys that were seen in objects of each of its parts. Parts are known by identity."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._seen: dict[int, Counter[Keys]] = defaultdict(Counter)

    def see(self, schema: Any, value: Any, depth: int = _DEEPEST) -> None:
        """depth: of references and of values, which may come back to where they began."""
        if not isinstance(schema, Mapping) or not isinstance(value, dict | list) or depth == 0:
            return
        if isinstance(reference := schema.get("$ref"), str) and reference.startswith("#"):
            self.see(referred(reference, self._root), value, depth - 1)
        for name in _OTHER_NAMES:
            branches = schema.get(name)
            for branch in branches if isinstance(branches, list | tuple) else ():
                if name == "allOf" or self._may_be(branch, value):
                    self.see(branch, value, depth - 1)
        if isinstance(value, list):
            for item in value:
                self.see(schema.get("items"), item, depth - 1)
            return
        properties = schema.get("properties")
        if isinstance(properties, Mapping):
            self._seen[id(properties)][tuple(key for key in value if key in properties)] += 1
            for key, part in value.items():
                self.see(properties.get(key, schema.get("additionalProperties")), part, depth - 1)

    def sorted(self, schema: Any) -> Any:
        """A copy of a part with all its properties in order."""
        if isinstance(schema, list | tuple):
            return [self.sorted(part) for part in schema]
        if not isinstance(schema, Mapping):
            return schema
        result = {name: self.sorted(part) for name, part in schema.items()}
        properties = schema.get("properties")
        if isinstance(properties, Mapping) and id(properties) in self._seen:
            known = merged(self._seen[id(properties)])
            names = [*known, *(name for name in properties if name not in known)]
            result["properties"] = {name: result["properties"][name] for name in names}
        return result

    def _may_be(self, schema: Any, value: Any) -> bool:
        """Whether an object has the required keys of a branch, and the values that it fixes."""
        if isinstance(schema, Mapping) and isinstance(reference := schema.get("$ref"), str):
            schema = referred(reference, self._root)
        if not isinstance(schema, Mapping) or not isinstance(value, Mapping):
            return True
        properties = schema.get("properties", {})
        return set(schema.get("required", ())) <= set(value) and all(
            part in fixed.get("enum", [part]) and part == fixed.get("const", part)
            for key, part in value.items()
            if isinstance(fixed := properties.get(key), Mapping)
        )


def _objects(value: Any, place: str, depth: int = _DEEPEST) -> Iterable[tuple[str, Keys]]:
    if isinstance(value, dict):
        yield place, tuple(value)
    if depth == 0:
        return
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _objects(part, f"{place}.{key}", depth - 1)
    elif isinstance(value, list):
        for part in value:
            yield from _objects(part, f"{place}[]", depth - 1)
