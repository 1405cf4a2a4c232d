"""`--engine`: what computes the answers of models on this machine, as several verbs take it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, get_args

import click

from rung.types import AnswersBy

_Command = TypeVar("_Command", bound=Callable[..., Any])


def engine_option(default: AnswersBy | None, help_: str) -> Callable[[_Command], _Command]:
    """The option --engine of a verb. default: None where the task says it."""
    choice = click.Choice(get_args(AnswersBy))
    return click.option("--engine", type=choice, default=default, show_default=default is not None, help=help_)
