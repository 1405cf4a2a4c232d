"""Lists of turns, as chat models are trained on them: OpenAI's role and content, ShareGPT's from and value.

Knows roles, parts of content, and calls of tools. A call becomes JSON text, {"name": …, "arguments": {…}}; what a tool
answered becomes a turn of the user.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from rung.data.rows import as_text, kind_of, parse_json
from rung.data.shapes.values import json_list, nothing
from rung.types import Message, Role

ROLES: dict[str, Role] = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user", "customer": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "bot": "assistant",
    "ai": "assistant", "chatbot": "assistant", "function_call": "assistant",
    "tool": "user", "function": "user", "observation": "user", "ipython": "user",
}  # fmt: skip
"""Who speaks, as data sets write it -> the role."""
_SAYS = frozenset({"content", "value", "text", "tool_calls", "function_call"})
_TOOLS = ("tool", "function", "observation", "ipython")
_PLAIN: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
TOOLS_INTRODUCED = 'Tools that may be called, one a line. A call is written as JSON: {"name": …, "arguments": {…}}.'


@dataclass(frozen=True)
class Conversation:
    """Turns of one row, as an example has them. answer: None where the last turn is not by the assistant.

    after: number of turns after the answer, which are left out.
    """

    instruction: str | None
    turns: tuple[Message, ...]
    input: str | None
    answer: str | None
    after: int = 0


def is_conversation(value: object) -> bool:
    """Whether a value is a list of turns, or its JSON. A list of people with roles of other kinds is none."""
    speakers = [_speaker(turn) for turn in (json_list(value) if _may_be(value) else None) or ()]
    return None not in speakers and any(str(speaker).strip().lower() in ROLES for speaker in speakers)


def messages_of(value: object) -> list[Message]:
    """The turns of a conversation in order. Raises ValueError for a turn that cannot be read as text."""
    found: list[Message] = []
    after_tool = False
    turns = json_list(value) or []
    for number, turn in enumerate(turns, 1):
        if isinstance(turn, dict) and len(turn) == 2 and type(text := turn.get("content")) is str:
            plain = _PLAIN.get(cast("str", turn.get("role")))
            if plain is not None:  # nearly all turns: the long way below takes four times as long
                found.append(Message(plain, as_text(text)))
                after_tool = False
                continue
        speaker = _speaker(turn)
        if speaker is None or not isinstance(turn, dict):
            raise ValueError(f"turn {number} has no role; write {{role: user, content: …}}")
        role = ROLES.get(speaker.strip().lower())
        if role is None:
            raise ValueError(f'turn {number} is by "{speaker[:40]}"; write system, user, assistant or tool')
        text = _said(turn, speaker, number, last=number == len(turns))
        from_tool = speaker.strip().lower() in _TOOLS
        if from_tool and after_tool:  # answers of tools that were called together are one turn
            text = f"{found.pop().content}\n{text}"
        after_tool = from_tool
        found.append(Message(role, text))
    return found


def split_at_answer(messages: Sequence[Message]) -> Conversation:
    """The last turn of the assistant is the answer, the turn of the user before it the input."""
    system = "\n\n".join(m.content for m in messages if m.role == "system" and m.content.strip())
    said = [m for m in messages if m.role != "system"]
    last = max((i for i, m in enumerate(said) if m.role == "assistant"), default=None)
    before = said if last is None else said[:last]
    asked = bool(before) and before[-1].role == "user"
    return Conversation(
        system or None,
        tuple(before[:-1] if asked else before),
        before[-1].content if asked else None,
        None if last is None else said[last].content,
        0 if last is None else len(said) - 1 - last,
    )


def system_of(value: object) -> str | None:
    """What the system's turns of a conversation say, found without reading the others."""
    turns = json_list(value) or []
    own = [t for t in turns if isinstance(t, dict) and ROLES.get(str(t.get("role", t.get("from")))) == "system"]
    return split_at_answer(messages_of(own)).instruction if own else None


def tools_in_words(value: object) -> str | None:
    """Definitions of tools for an instruction: a line of words, then each definition as JSON on a line of its own."""
    if nothing(value) or value == "" or value == []:
        return None
    definitions = json_list(value)
    if definitions is None:
        return as_text(value)
    inner = [d["function"] if isinstance(d, dict) and isinstance(d.get("function"), dict) else d for d in definitions]
    return "\n".join([TOOLS_INTRODUCED, *(as_text(definition) for definition in inner)])


def transcript(text: object) -> list[Message] | None:
    """The turns of a text that says "\\n\\nHuman: " and "\\n\\nAssistant: " before each; None for other texts."""
    if not isinstance(text, str) or not text.lstrip().startswith("Human:") or "\n\nAssistant:" not in text:
        return None
    found: list[Message] = []
    for block in ("\n\n" + text.lstrip()).split("\n\nHuman:")[1:]:
        asked, *answers = block.split("\n\nAssistant:")
        found += [Message("user", asked.strip()), *(Message("assistant", answer.strip()) for answer in answers)]
    return found


def _may_be(value: object) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and value.lstrip()[:1] == "[" and "{" in value[:9])


def _speaker(turn: object) -> str | None:
    if not isinstance(turn, dict):
        return None
    speaker = turn.get("role", turn.get("from"))
    return speaker if isinstance(speaker, str) and not _SAYS.isdisjoint(turn) else None


def _said(turn: Mapping[str, object], speaker: str, number: int, last: bool) -> str:
    """The text of a turn. One that calls tools says the calls; where others follow, what it says beside them too."""
    content = turn.get("content", turn.get("value", turn.get("text")))
    text = _content(content, number)
    calls = _calls(turn, number)
    if speaker.strip().lower() == "function_call" and text:
        return as_text(_call(parse_json(text), number))
    if not calls:
        return text
    called = as_text(calls[0] if len(calls) == 1 else calls)
    return called if last or not text.strip() else f"{text}\n{called}"


def _content(content: object, number: int) -> str:
    """Text, or a list of parts that are text."""
    if nothing(content):
        return ""
    if isinstance(content, list):
        texts = []
        for part in cast("list[object]", content):
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                texts.append(str(part["text"]))
            elif isinstance(part, str):
                texts.append(part)
            else:
                kind = part.get("type", "an object") if isinstance(part, dict) else kind_of(part)
                raise ValueError(f"turn {number} holds {str(kind)[:40]}; only text can be read")
        return as_text("\n".join(texts))
    return as_text(content)


def _calls(turn: Mapping[str, object], number: int) -> list[dict[str, object]]:
    calls = turn.get("tool_calls")
    if isinstance(calls, list) and calls:
        return [_call(call, number) for call in cast("list[object]", calls)]
    if turn.get("function_call"):
        return [_call(turn["function_call"], number)]
    return []


def _call(call: object, number: int) -> dict[str, object]:
    """{"name": …, "arguments": {…}} of a call as OpenAI writes it, or as it stands. Raises ValueError for others."""
    inner = call.get("function", call) if isinstance(call, dict) else None
    name = inner.get("name") if isinstance(inner, dict) else None
    if not isinstance(inner, dict) or not isinstance(name, str):
        raise ValueError(f'turn {number} calls a tool without a name; write {{"name": …, "arguments": {{…}}}}')
    arguments = inner.get("arguments", inner.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError as e:
            raise ValueError(f"turn {number} calls {name[:40]} with arguments that are no JSON; correct them") from e
    return {"name": name, "arguments": arguments}
