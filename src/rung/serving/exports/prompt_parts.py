"""A bundle's prompt in parts, for exports that hold the prompt and not the model, and where such a prompt is sent."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from rung.models.four_bit import split_spec
from rung.models.places import is_endpoint
from rung.serving.exports.export import ExportSource, ParityAsk
from rung.types import Demo, Message, Query

SERVE = "http://127.0.0.1:8000/v1"
"""Where rung serve listens by itself."""


@dataclass(frozen=True)
class PromptParts:
    """before: the turns before the user's: instruction and fixed demos. fixed: whether they are the same for every
    input. retrieves: passages stand before the input. title: of the prompt."""

    before: tuple[Message, ...]
    demos: tuple[Demo, ...]
    instruction: str
    fixed: bool
    retrieves: bool
    title: str


@dataclass(frozen=True)
class WhereAsked:
    """bundle: its name in rung serve, with address and the environment variable of a key. model: that a whole prompt
    goes to. known: whether its address is known. about: what must listen there, in a sentence."""

    bundle: str
    bundle_url: str
    bundle_key: str
    model: str
    url: str
    key: str
    known: bool
    about: str


def parts_of(source: ExportSource) -> PromptParts:
    """The prompt of a bundle."""
    from rung.solutions.prompt_rendering import render

    solution = source.packed.solution
    selection = solution.demo_selection
    shown = solution.demos[: selection.k] if selection is not None and selection.kind == "fixed" else ()
    before = render(solution, Query("", "input"), demos=shown)[:-1]
    return PromptParts(
        before=tuple(m for m in before if m.content or m.role != "system"),
        demos=shown,
        instruction=render(replace(solution, demos=()), Query("", ""))[0].content,
        fixed=selection is None or selection.kind == "fixed" or not solution.demos,
        retrieves=solution.retriever is not None,
        title=f"{source.packed.note.get('task') or solution.name}, as rung solved it ({solution.name})",
    )


def passages_of(ask: ParityAsk) -> str:
    """The passages as they stand before the input; empty where there are none."""
    content, asked = ask.request.messages[-1].content, ask.query.asked
    return content.removesuffix(f"\n\n{asked}") if ask.passages and content != asked else ""


def where_asked(source: ExportSource) -> WhereAsked:
    """Where the bundle and its whole prompt are sent."""
    name = source.name
    base = split_spec(source.packed.model)[0]
    endpoint = _endpoint(base)
    if endpoint is not None:
        url, model, key = endpoint
        about = f"The endpoint that it was made with, {url}, with its key in {key}."
        return WhereAsked(name, SERVE, "RUNG_API_KEY", model, url, key, True, about)
    if source.adapter is not None:
        about = "A server that has the adapter by this name and adds nothing to a chat, such as that of --to vllm."
        return WhereAsked(name, SERVE, "RUNG_API_KEY", name, SERVE, "OPENAI_API_KEY", False, about)
    about = "A server of the base model, such as rung serve: there the base answers chats as they are."
    return WhereAsked(name, SERVE, "RUNG_API_KEY", base.rpartition("/")[2], SERVE, "RUNG_API_KEY", False, about)


def _endpoint(spec: str) -> tuple[str, str, str] | None:
    """URL, model and environment variable of the key of an endpoint; None for a local model."""
    if not is_endpoint(spec):
        return None
    from rung.models.endpoint.spec import parse

    parsed = parse(spec)
    return parsed.endpoint, parsed.name, parsed.key_env or "OPENAI_API_KEY"


def as_json(value: Any) -> str:
    """As it stands in files that people read."""
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"
