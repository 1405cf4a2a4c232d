"""One call of vLLM's completions: token ids in, token ids out, and what holds an answer to its constraint.

Knows bodies and streams; knows nothing of connections and processes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rung.engine.decode import Job
from rung.engine.grammar import AnswerTokens, grammar_of
from rung.models.chat_template import ChatFormat
from rung.models.streaming import Token, WrittenToken
from rung.types import Constraint

_ID = "token_id:"  # how vLLM spells a token by its number


def body_of(
    job: Job, stop_ids: Sequence[int], model: str, *, grammar: str | None, logprobs: int | None
) -> dict[str, Any]:
    """model: the name of the base or an adapter in vLLM. grammar: in llguidance's Lark. logprobs: as in Ask."""
    body: dict[str, Any] = {
        "model": model,
        "prompt": list(job.prompt),
        "max_tokens": job.most,
        "temperature": job.temperature,
        "top_p": job.top_p,
        "stop_token_ids": list(stop_ids),
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
    }
    if job.temperature > 0:
        body["seed"] = job.seed
    if grammar is not None:
        body["structured_outputs"] = {"grammar": grammar}
    if logprobs is not None:
        body |= {"logprobs": logprobs, "return_tokens_as_token_ids": True}
    return body


def lark_of(constraint: Constraint, tokens: AnswerTokens, eos_id: int | None) -> str:
    """The grammar of rung's own engine for llguidance inside vLLM: labels are the very ids that training teaches.

    eos_id: the only token that vLLM lets end a grammar. Where answers end by another one, it is part of the grammar.
    """
    if constraint.kind == "labels":
        written = [" ".join(f"<[{id_}]>" for id_ in tokens.encode(str(label))) for label in constraint.value]
        lark = f"start: {' | '.join(dict.fromkeys(written))}"
    else:
        lark = _as_lark(grammar_of(constraint, tokens.lead))
    if tokens.end_id == eos_id:
        return lark
    ends = ",".join(map(str, sorted(tokens.stop_ids)))
    return f"start: answer_to_end <[{ends}]>\n{lark.replace('start:', 'answer_to_end:', 1)}"


def _as_lark(grammar: str) -> str:
    """llguidance hands out a grammar as JSON, where vLLM takes Lark."""
    if not grammar.lstrip().startswith("{"):
        return grammar
    first = json.loads(grammar)["grammars"][0]
    return str(first.get("lark_grammar") or f"start: %json {json.dumps(first['json_schema'])}")


@dataclass
class VllmStream:
    """A streamed completion. told: gets the new ids of each piece, with their log-probabilities where they are asked
    for. finish: as vLLM says it; None while it has not ended."""

    told: Callable[[Sequence[int], Sequence[_Logprob]], None]
    ids: list[int] = field(default_factory=list)
    finish: str | None = None
    tokens_cached: int = 0
    error: str | None = None
    _rest: bytes = b""

    def feed(self, data: bytes, seconds: float = 0.0) -> None:
        """data: bytes of the body. It never raises."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            told = line[5:].strip() if line.startswith(b"data:") else b""
            if not told or told == b"[DONE]":
                continue
            try:
                self._take(json.loads(told))
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                self.error = f"its stream cannot be read ({type(error).__name__})"

    def _take(self, chunk: Mapping[str, Any]) -> None:
        if (error := chunk.get("error")) is not None:
            self.error = message_of(error)
            return
        if (usage := chunk.get("usage")) is not None:
            self.tokens_cached = int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
        for choice in chunk.get("choices") or ():
            new = choice.get("token_ids")
            if new is None:
                self.error = "it sends no token ids. Use vLLM 0.11 or later"
                return
            self.finish = choice.get("finish_reason") or self.finish
            self.ids += new
            self.told(new, _logprobs(choice.get("logprobs") or {}))


@dataclass(frozen=True)
class _Logprob:
    """Of the token at one place, and of the likeliest ones there, the likeliest first."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...]


def written_tokens(chat: ChatFormat, found: Sequence[_Logprob], most: int) -> tuple[WrittenToken, ...]:
    """most: of the likeliest tokens that are told at each place."""

    def token(id_: int, logprob: float) -> tuple[str, bytes, float]:
        return chat.decode_part([id_]), chat.bytes_of(id_), logprob

    return tuple(
        WrittenToken(*token(one.id, one.logprob), tuple(Token(*token(*pair)) for pair in one.top[:most]))
        for one in found
    )


def message_of(error: object) -> str:
    """What an error of vLLM says, in one line."""
    said = error.get("message") if isinstance(error, Mapping) else error
    if isinstance(said, Mapping):
        said = said.get("message")
    return " ".join(str(said or "it gave no reason").split())[:500]


def _logprobs(record: Mapping[str, Any]) -> list[_Logprob]:
    tops = record.get("top_logprobs") or []
    found = []
    for at, (name, logprob) in enumerate(
        zip(record.get("tokens") or (), record.get("token_logprobs") or (), strict=True)
    ):
        top = tops[at] if at < len(tops) and tops[at] else {}
        likeliest = sorted(((_id(key), float(value)) for key, value in top.items()), key=lambda pair: -pair[1])
        found.append(_Logprob(_id(name), float(logprob or 0.0), tuple(likeliest)))
    return found


def _id(name: str) -> int:
    return int(name.removeprefix(_ID))
