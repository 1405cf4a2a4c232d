"""A bundle's prompt in parts, for exports that hold the prompt and not the model, and where such a prompt is sent."""

from __future__ import annotations

from dataclasses import dataclass

from rung.models.four_bit import split_spec
from rung.models.places import is_endpoint
from rung.serving.exports.export import ExportSource, ParityAsk, spoken
from rung.types import Demo, Message, Query, Solution

SERVE, SERVE_KEY = "http://127.0.0.1:8000/v1", "RUNG_API_KEY"
"""Where rung serve listens by itself, and the environment variable of its key."""


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
    """model: that a whole prompt goes to. key: the environment variable of its key. known: whether its address is
    known. about: what must listen there, in a sentence."""

    model: str
    url: str
    key: str
    known: bool
    about: str


def fixed_turns(solution: Solution) -> tuple[Message, ...]:
    """The turns before the user's that are the same for every input: the instruction, which may be empty, and demos."""
    from rung.solutions.prompt_rendering import render

    return render(solution, Query("", ""), demos=_fixed_demos(solution))[:-1]


def chooses_demos(solution: Solution) -> bool:
    """Whether each input gets demos of its own."""
    return bool(solution.demos) and solution.demo_selection is not None and solution.demo_selection.kind == "nearest"


def _fixed_demos(solution: Solution) -> tuple[Demo, ...]:
    from rung.solutions.demos import select_demos

    return () if chooses_demos(solution) else select_demos(solution, [Query("", "")])[0]


def parts_of(source: ExportSource) -> PromptParts:
    """The prompt of a bundle."""
    solution = source.packed.solution
    return PromptParts(
        before=tuple(spoken(fixed_turns(solution))),
        demos=_fixed_demos(solution),
        instruction=fixed_turns(solution)[0].content,
        fixed=not chooses_demos(solution),
        retrieves=solution.retriever is not None,
        title=f"{source.packed.note.get('task') or solution.name}, as rung solved it ({solution.name})",
    )


def passages_of(ask: ParityAsk) -> str:
    """The passages as they stand before the input; empty where there are none."""
    content, asked = ask.request.messages[-1].content, ask.query.asked
    return content.removesuffix(f"\n\n{asked}") if ask.passages and content != asked else ""


def where_asked(source: ExportSource) -> WhereAsked:
    """Where the bundle's whole prompt is sent."""
    base = split_spec(source.packed.model)[0]
    endpoint = _endpoint(base)
    if endpoint is not None:
        url, model, key = endpoint
        about = f"The endpoint that it was made with, {url}, with its key in {key}."
        return WhereAsked(model, url, key, True, about)
    if source.adapter is not None:
        about = "A server that has the adapter by this name and adds nothing to a chat, such as that of --to vllm."
        return WhereAsked(source.name, SERVE, "OPENAI_API_KEY", False, about)
    about = "A server of the base model, such as rung serve: there the base answers chats as they are."
    return WhereAsked(base.rpartition("/")[2], SERVE, SERVE_KEY, False, about)


def _endpoint(spec: str) -> tuple[str, str, str] | None:
    """URL, model and environment variable of the key of an endpoint; None for a local model."""
    if not is_endpoint(spec):
        return None
    from rung.models.endpoint.spec import parse

    parsed = parse(spec)
    return parsed.endpoint, parsed.name, parsed.key_env or "OPENAI_API_KEY"
