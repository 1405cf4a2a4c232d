"""Completions of a text, the older interface."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from rung.errors import Unanswerable
from rung.models.streaming import WrittenToken
from rung.serving.events import Done, ModelCall, Piece, Served
from rung.serving.http.asked import common_fields, finite
from rung.serving.http.limits import MOST_PROMPTS
from rung.serving.http.replying import Asking, WholeAnswer, calls_of
from rung.serving.http.schemas import CompletionAsked
from rung.serving.http.shapes import CompletionLogprobs

_USUAL_TOKENS = 16
"""Of an answer without max_tokens, as OpenAI says. A bundle has its own number."""


def completion_asking(asked: CompletionAsked, served: Served) -> Asking:
    """Raises Unanswerable."""
    if len(asked.prompts) * asked.choices > MOST_PROMPTS:
        raise Unanswerable(f"n: {asked.choices} answers to each prompt are more than {MOST_PROMPTS} together.", "n")
    most = _USUAL_TOKENS if asked.max_tokens is None and served.kind != "bundle" else asked.max_tokens
    fields = {**common_fields(asked), "max_tokens": most, "logprobs": asked.logprobs}
    calls = [call for prompt in asked.prompts for call in calls_of(ModelCall(prompt=prompt, **fields), asked.choices)]
    return Asking(served, tuple(calls), asked.choices, bool(asked.stream), asked.include_usage)


class CompletionWriter:
    """As OpenAI writes completions. logprobs: whether they were asked for. top: likeliest tokens at each place."""

    id_prefix, whole_kind, chunk_kind = "cmpl", "text_completion", "text_completion"

    def __init__(self, *, top: int | None) -> None:
        self._top = top
        self._told: defaultdict[int, int] = defaultdict(int)  # characters of each answer that were told

    def whole(self, index: int, answer: WholeAnswer, done: Done) -> dict[str, Any]:
        logprobs = self._of(answer.tokens, 0) if self._top is not None else None
        return {"index": index, "text": done.text, "logprobs": logprobs, "finish_reason": done.finish}

    def start(self, index: int) -> dict[str, Any] | None:
        return None

    def piece(self, index: int, piece: Piece) -> dict[str, Any]:
        logprobs = self._of(piece.tokens, self._told[index]) if self._top is not None else None
        self._told[index] += len(piece.text)
        return {"index": index, "text": piece.text, "logprobs": logprobs, "finish_reason": None}

    def end(self, index: int, done: Done) -> dict[str, Any]:
        return {"index": index, "text": "", "logprobs": None, "finish_reason": done.finish}

    def _of(self, tokens: Sequence[WrittenToken], offset: int) -> CompletionLogprobs:
        offsets = []
        for token in tokens:
            offsets.append(offset)
            offset += len(token.text)
        return {
            "tokens": [token.text for token in tokens],
            "token_logprobs": [finite(token.logprob) for token in tokens],
            "top_logprobs": [{other.text: finite(other.logprob) for other in token.top} for token in tokens],
            "text_offset": offsets,
        }
