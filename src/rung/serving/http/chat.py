"""Chat completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rung.models.streaming import Token, WrittenToken
from rung.serving.events import Done, ModelCall, Piece, Served
from rung.serving.http.asked import common_fields, finite
from rung.serving.http.replying import Asking, WholeAnswer, calls_of
from rung.serving.http.schemas import ChatAsked
from rung.serving.http.shapes import ChatLogprobs, TopToken
from rung.types import Message


def chat_asking(asked: ChatAsked, served: Served) -> Asking:
    """Raises Unanswerable."""
    turns = tuple(
        Message("system" if turn.role == "developer" else turn.role, turn.text) for turn in asked.messages
    )  # fmt: skip
    most = asked.max_tokens if asked.max_completion_tokens is None else asked.max_completion_tokens
    call = ModelCall(messages=turns, max_tokens=most, logprobs=asked.top, **common_fields(asked))
    return Asking(served, calls_of(call, asked.choices), asked.choices, bool(asked.stream), asked.include_usage)


class ChatWriter:
    """As OpenAI writes chat completions. logprobs: whether they were asked for."""

    id_prefix, whole_kind, chunk_kind = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(self, *, logprobs: bool) -> None:
        self._logprobs = logprobs

    def whole(self, index: int, answer: WholeAnswer, done: Done) -> dict[str, Any]:
        return {
            "index": index,
            "message": {"role": "assistant", "content": done.text, "refusal": None},
            "logprobs": self._of(answer.tokens) if self._logprobs else None,
            "finish_reason": done.finish,
        }

    def start(self, index: int) -> dict[str, Any] | None:
        return _delta(index, {"role": "assistant", "content": ""})

    def piece(self, index: int, piece: Piece) -> dict[str, Any]:
        return _delta(index, {"content": piece.text}, self._of(piece.tokens) if self._logprobs else None)

    def end(self, index: int, done: Done) -> dict[str, Any]:
        return {**_delta(index, {}), "finish_reason": done.finish}

    def _of(self, tokens: Sequence[WrittenToken]) -> ChatLogprobs:
        content = [{**_token(t), "top_logprobs": [_token(other) for other in t.top]} for t in tokens]
        return {"content": content, "refusal": None}  # type: ignore[typeddict-item]


def _delta(index: int, delta: dict[str, str], logprobs: ChatLogprobs | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None}


def _token(token: Token) -> TopToken:
    return {"token": token.text, "logprob": finite(token.logprob), "bytes": list(token.bytes)}
