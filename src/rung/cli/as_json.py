"""`--json`: one JSON object on standard output, whatever happens; everything else goes to standard error.

docs/cli.md says which keys each verb has. Every object has `exit`, the exit code; one about an error has `error`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

FLAG = "--json"
_Command = TypeVar("_Command", bound=Callable[..., Any])


def json_option(command: _Command) -> _Command:
    """The option --json of a verb, which it gets as `as_json`."""
    help_ = "Print one JSON object, for programs: docs/cli.md."
    return click.option(FLAG, "as_json", is_flag=True, help=help_)(command)


def is_wanted(words: Sequence[str]) -> bool:
    """Whether a command line asks for JSON; also one that is wrong elsewhere, so that no verb has read it."""
    return FLAG in (words[: words.index("--")] if "--" in words else words)


def print_json(record: Mapping[str, Any], code: int = 0) -> int:
    """Prints the object of a verb with its exit code, which is returned."""
    click.echo(_text({**record, "exit": code}))
    return code


def print_error(kind: str, message: str, code: int) -> int:
    """Prints the object of an error. kind: a name of the tree in rung.errors, UsageError, Interrupted or Defect."""
    return print_json({"error": {"kind": kind, "message": message}}, code)


def _text(record: Mapping[str, Any]) -> str:
    """The whole object before a byte of it is printed. Numbers that JSON has not are null; what standard output cannot
    write is escaped."""
    try:
        text = json.dumps(record, ensure_ascii=False, indent=1, default=str, allow_nan=False)
        text.encode(sys.stdout.encoding or "utf-8")
    except ValueError:
        plain = json.loads(json.dumps(record, default=str), parse_constant=lambda _: None)
        text = json.dumps(plain, indent=1)
    return text
