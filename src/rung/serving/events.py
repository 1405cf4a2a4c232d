"""What is asked of a service, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rung.models.streaming import Piece as Piece
from rung.serving.sources import ShownPassage
from rung.types import Constraint, Message


@dataclass(frozen=True)
class ModelCall:
    """One request to a name. What is None or empty stays as the bundle was tested.

    messages: a conversation that ends with a user turn. prompt: instead of it a text: to a bundle it is the input, to a
    base or a plain adapter a text to continue. context: that the input comes with, where the bundle's examples have
    one. constraint: instead of the bundle's. The others are as in `models.streaming.Ask` and `types.Decoding`.
    """

    model: str
    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    context: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    constraint: Constraint | None = None
    logprobs: int | None = None


@dataclass(frozen=True)
class Begun:
    """The prompt was read. tokens_in: of it, with those of a search that asked the model; tokens_cached: of these, that
    were not computed anew."""

    tokens_in: int
    tokens_cached: int


@dataclass(frozen=True)
class Done:
    """The end of an answer.

    text: all of it. sources: the passages that its prompt showed; those that it names are `cited`. refused: it says
    that there is no answer. fault: how it breaks what the bundle or the request demands of its form; None: it does not.
    """

    text: str
    finish: Literal["stop", "length"]
    tokens_in: int
    tokens_cached: int
    tokens_out: int
    sources: tuple[ShownPassage, ...] = ()
    refused: bool = False
    fault: str | None = None


Event = Begun | Piece | Done


@dataclass(frozen=True)
class Served:
    """A name that answers.

    kind: a base model as it is, a bundle, or a plain adapter over a base. parent: the name of the base; None of a base
    itself. root: what stands behind the name: a base's id, or the folder's name (never a path). created: in seconds
    since 1970. context_length: tokens of prompt and answer together. solution: the name of a bundle's. takes_context:
    whether an input may come with a context.
    """

    name: str
    kind: Literal["base", "bundle", "adapter"]
    parent: str | None
    root: str
    created: int
    context_length: int
    adapter: Path | None = None
    solution: str | None = None
    takes_context: bool = False
