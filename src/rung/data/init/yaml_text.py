"""Values as YAML that reads back as the same value, and text that is safe in a comment."""

from __future__ import annotations

import json
import re

_RESERVED = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


def as_yaml(value: object) -> str:
    """A value on one line: JSON, which is YAML that needs no guess about quotes; plain words stay plain."""
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z][\w./-]*", value) and value.lower() not in _RESERVED
        return value if plain else quoted(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{as_yaml(k)}: {as_yaml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(as_yaml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def quoted(text: str) -> str:
    """Text in double quotes."""
    return escaped(json.dumps(text, ensure_ascii=False))


def escaped(written: str) -> str:
    """JSON as YAML wants it, which, unlike JSON, escapes what does not print, with \\U beyond 16 bits."""
    return "".join(
        c if c.isprintable() else f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}" for c in written
    )


def as_comment(text: str) -> str:
    """Text on one line, without signs that do not print."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
