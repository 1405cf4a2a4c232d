"""Lists of turns, as chat models are trained on them: OpenAI's role and content, ShareGPT's from and value, Gemini's
role and parts; and texts that hold a conversation.

Knows roles, parts of content, and calls of tools. A call becomes JSON text, {"name": …, "arguments": {…}}; what a tool
answered becomes a turn of the user.
"""

from __future__ import annotations

import json
import re
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
    "ai": "assistant", "chatbot": "assistant", "bing": "assistant", "bard": "assistant", "claude": "assistant",
    "function_call": "assistant", "tool_call": "assistant",
    "tool": "user", "function": "user", "observation": "user", "ipython": "user", "tool_response": "user",
}  # fmt: skip
"""Who speaks, as data sets write it -> the role."""
_SAYS = frozenset({"content", "value", "text", "parts", "tool_calls", "function_call"})
_TOOLS = ("tool", "function", "observation", "ipython", "tool_response")
_CALLS = ("function_call", "tool_call")
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
    speakers = [_speaker(turn) for turn in (_turns(value) if _may_be(value) else ())]
    return None not in speakers and any(str(speaker).strip().lower() in ROLES for speaker in speakers)


def messages_of(value: object) -> list[Message]:
    """The turns of a conversation in order. Raises ValueError for a turn that cannot be read as text."""
    found: list[Message] = []
    after_tool = False
    turns = _turns(value)
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


def split_at_answer(messages: Sequence[Message], unlearnt: int = 0) -> Conversation:
    """The last turn of the assistant is the answer, the turn of the user before it the input.

    unlearnt: so many turns of the assistant at the end are not to be learnt.
    """
    system = "\n\n".join(m.content for m in messages if m.role == "system" and m.content.strip())
    said = [m for m in messages if m.role != "system"]
    answers = [i for i, m in enumerate(said) if m.role == "assistant"]
    last = answers[-1 - unlearnt] if len(answers) > unlearnt else None
    before = said if last is None else said[:last]
    asked = bool(before) and before[-1].role == "user"
    return Conversation(
        system or None,
        tuple(before[:-1] if asked else before),
        before[-1].content if asked else None,
        None if last is None else said[last].content,
        0 if last is None else len(said) - 1 - last,
    )


def unlearnt_of(value: object) -> int:
    """How many of the assistant's turns at the end of a conversation say that they are not to be learnt (weight: 0)."""
    found = 0
    if isinstance(value, str) and "weight" not in value and "train" not in value:
        return 0  # not parsed once more
    for turn in reversed(_turns(value)):
        if ROLES.get((_speaker(turn) or "").strip().lower()) == "assistant" and isinstance(turn, dict):
            if turn.get("weight", turn.get("train", 1)) not in (0, False):
                break
            found += 1
    return found


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


def said_plainly(value: object) -> object:
    """The text of parts, [{"text": …}] or {"parts": [{"text": …}]}; any other value as it is."""
    parts = value.get("parts") if isinstance(value, dict) else value
    if not isinstance(parts, list) or not all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in parts):
        return value
    return "\n".join(part["text"] for part in parts)


def defines_tools(value: object) -> bool:
    """Whether a value is a list of definitions of tools, or its JSON."""
    found = json_list(value)
    return found is not None and all(isinstance(d, dict) and not {"name", "function"}.isdisjoint(d) for d in found)


_MARKS = [
    re.compile(mark)
    for mark in (
        r"(?:^|\n\n)(Human|Assistant):",
        r"\s*###\s*(Human|User|Assistant|System):",
        r"\s*<\|im_start\|>(system|user|assistant)\n",
        r"(?:^|\n\s*)(SYSTEM|USER|ASSISTANT):",
        r"\s*(?:<s>)?\s*\[(/?INST)\]",
        r"(?:^|\n\s*)###\s*(Instruction|Input|Response):",
    )
]
_ENDS = re.compile(r"(?:<\|im_end\|>|<\|endoftext\|>|</s>|\s)+$")
_SPEAKERS: dict[str, Role] = {
    **ROLES, "instruction": "user", "input": "user", "response": "assistant", "inst": "user", "/inst": "assistant",
}  # fmt: skip


def transcript(text: object) -> list[Message] | None:
    """The turns of a text that says before each who speaks ("Human:", "### Assistant:", "<|im_start|>user", …).

    What stands before the first turn is the system's. None for texts in which nobody is asked and answers.
    """
    if not isinstance(text, str):
        return None
    for mark in _MARKS:
        before, *pieces = mark.split(text.strip())
        roles = [_SPEAKERS[name.lower()] for name in pieces[::2]]
        if "assistant" not in roles or next((r for r in roles if r != "system"), "") != "user":
            continue
        if before and mark is not _MARKS[-1]:
            continue  # a text that quotes a conversation
        found = [Message("system", before.strip())] if before.strip() else []
        for role, said in zip(roles, (_ENDS.sub("", piece).strip() for piece in pieces[1::2]), strict=True):
            if found and found[-1].role == role == "user":
                said = f"{found.pop().content}\n\n{said}"
            found.append(Message(role, said))
        return found
    return None


def _turns(value: object) -> list[object]:
    """The turns of a list, or of its JSON; {"human": …, "assistant": …} holds one turn of each."""
    found: list[object] = []
    for turn in json_list(value) or []:
        pair = isinstance(turn, dict) and len(turn) == 2 and {ROLES.get(str(name).lower()) for name in turn}
        if isinstance(turn, dict) and pair == {"user", "assistant"}:
            found += [{"role": name, "content": said} for name, said in turn.items()]
        else:
            found.append(turn)
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
    content = next((turn[name] for name in ("content", "value", "text", "parts") if name in turn), None)
    text = _content(content, number)
    calls = _calls(turn, number)
    if speaker.strip().lower() in _CALLS and text:
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
            elif isinstance(part, dict) and part.get("type") == "tool_result":  # Anthropic's
                texts.append(_content(part.get("content"), number))
            elif isinstance(part, dict) and part.get("type") == "tool_use":
                continue  # one of the calls
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
    parts = turn.get("content")
    used = [p for p in parts if isinstance(p, dict) and p.get("type") == "tool_use"] if isinstance(parts, list) else []
    return [_call({"name": part.get("name"), "arguments": part.get("input")}, number) for part in used]


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
