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
    json.dump({**record, "exit": code}, sys.stdout, ensure_ascii=False, indent=1, default=str)
    click.echo()
    return code


def print_error(kind: str, message: str, code: int) -> int:
    """Prints the object of an error. kind: a name of the tree in rung.errors, UsageError, Interrupted or Defect."""
    return print_json({"error": {"kind": kind, "message": message}}, code)
