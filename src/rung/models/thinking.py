"""Thoughts that models write before they answer: how they are marked, and what closes one.

Knows marks as text; knows nothing of token ids.
"""

from __future__ import annotations

from dataclasses import dataclass

THOUGHT_TOKENS = 1024
"""Room for a thought, in tokens, where a model cannot be asked not to think. Used up, the thought is closed."""

PAIRS = (
    ("<think>", "</think>"),  # Qwen, QwQ, DeepSeek, SmolLM3, GLM
    ("[THINK]", "[/THINK]"),  # Magistral
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    ("<seed:think>", "</seed:think>"),  # Seed-OSS
    ("◁think▷", "◁/think▷"),  # Kimi
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),  # EXAONE Deep
    ("<reasoning>", "</reasoning>"),
)
TAGS = tuple(tag for pair in PAIRS for tag in pair)
SWITCHES = ("/think", "/no_think", "/nothink")
"""By which a text switches thinking on or off in the templates of SmolLM3, Nemotron and GLM."""

_FINAL, _ANALYSIS, _MESSAGE_END = "<|channel|>final<|message|>", "<|channel|>analysis<|message|>", "<|end|>"  # gpt-oss


@dataclass(frozen=True)
class Thought:
    """How a model thinks that cannot be asked not to.

    opening: what a prompt gets behind the template's own text before a thought. end: the mark that ends a thought.
    closing: from that mark to where the answer begins.
    """

    opening: str
    end: str
    closing: str

    def closed(self, written: str) -> str:
        """What closes an empty thought. written: what the prompt ends with."""
        return "\n" * max(0, 2 - (len(written) - len(written.rstrip("\n")))) + self.closing


def thought_in(prompt: str, between: str, header: str) -> Thought | None:
    """The thought that a generation prompt leaves open, or that channels stand for.

    prompt: what the template writes behind the last user turn. between: what it writes between the generation prompt
    and an answer. header: what opens an assistant's message.
    """
    if _FINAL in between and _FINAL not in prompt:
        return Thought(_ANALYSIS, _MESSAGE_END, _MESSAGE_END + header + between)
    for start, end in PAIRS:
        if prompt.rfind(start) > prompt.rfind(end):
            return Thought("", end, between[between.index(end) :] if end in between else f"{end}\n\n")
    return None


def started_by_itself(start: str) -> Thought:
    """A thought that the model began although its template shows none. start: the tag that opened it."""
    end = dict(PAIRS)[start]
    return Thought("", end, f"{end}\n\n")
