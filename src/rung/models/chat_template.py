"""Chat turns to token ids. All text reaches a local model this way, in answering and in training.

Knows where a prompt ends and an answer begins, what ends an answer, and what to do with thoughts. How turns are written
is in `turns`, how text passes control tokens in `text_tokens`, what an answer's ids are in `answer_encoding`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rung.engine.grammar import AnswerTokens
from rung.models.answer_encoding import AnswerEncoding
from rung.models.text_tokens import TextTokens
from rung.models.thinking import PAIRS, SWITCHES, TAGS, Thought, started_by_itself, thought_in
from rung.models.turns import Turns
from rung.types import Message

_NEXT_TURN = "\n\nUser:"
_USER, _ANSWER, _NEXT = "@@u", "@@a", "@@n"


class ChatFormat:
    """A tokenizer with its chat template.

    generation_config: the network's; it may name more end tokens. end_id: the token that ends an answer in training.
    stop_ids: all tokens that end one. thought: how the model thinks before it answers, where that cannot be switched
    off.
    """

    def __init__(self, tokenizer: Any, generation_config: Any = None) -> None:
        self.tokenizer = tokenizer
        self._turns = Turns(tokenizer)
        ends = _ids(getattr(generation_config, "eos_token_id", None))
        self._tokens = TextTokens(tokenizer, self._turns.source, TAGS, SWITCHES, ends)
        self._first = [] if self._turns.has_template else _first_ids(tokenizer)
        layout = self._layout()
        self.thought = layout.thought
        self._closed = layout.closed
        self.end_id = self._end_of_answer(layout, ends)
        self.stop_ids = frozenset({self.end_id, *_ids(tokenizer.eos_token_id), *ends})
        tail = layout.tail + layout.closed
        self._answers = AnswerEncoding(self._tokens, tail[self._tokens.last_control(tail) :], layout.lead)

    # ---- prompts and answers ----------------------------------------------------------------

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Ids of the turns, ending where the assistant's answer begins; a thought before it is empty and closed."""
        return [*self._first, *self._tokens.encode(self._render(messages) + self._closed)]

    def encode_open(self, messages: Sequence[Message]) -> list[int]:
        """As `encode`, but ending where the assistant's thought begins. Only for models with a `thought`."""
        assert self.thought is not None
        return [*self._first, *self._tokens.encode(self._render(messages) + self.thought.opening)]

    def encode_whole(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a conversation as the template writes it, without a turn to come."""
        return [*self._first, *self._tokens.encode(self._render(messages, answer_next=False))]

    def whole_template(self) -> str:
        """A template by which a plain `apply_chat_template` with a generation prompt gives the ids of `encode`, where
        no text spells a control token."""
        first = self.tokenizer.bos_token if self._first else ""
        return self._turns.whole_template(first=first, closed=self._closed)

    def encode_text(self, text: str) -> list[int]:
        """Ids of a text that the model continues, control tokens in it included: no turns are written around it."""
        first = _first_ids(self.tokenizer)
        ids = self._tokens.encode_raw(text)
        return ids if ids[: len(first)] == first else [*first, *ids]

    def encode_answer(self, text: str) -> list[int]:
        """Ids of an answer with its end token; they follow the ids of `encode`."""
        return [*self._answers.encode(text), self.end_id]

    def decode(self, ids: Sequence[int], *, spelt: bool = True) -> str:
        """Text of an answer's ids, without special tokens and without a thought; empty where a thought is unfinished.

        spelt: as in `begun_thought`. The inverse of `encode_answer`, its end token aside.
        """
        if (begun := self.begun_thought(ids, spelt=spelt)) is not None:
            length = self._up_to(ids, begun.end)
            return "" if length is None else self._answers.decode(ids[length:]).lstrip("\n")
        text = self._answers.decode(ids)
        # A base model continues with the next turn.
        return text if self._turns.has_template else text.partition(_NEXT_TURN)[0]

    def decode_part(self, ids: Sequence[int]) -> str:
        """Text that ids in the middle of a text add to it, without special tokens; a torn character ends in U+FFFD."""
        return self._tokens.decode(ids)

    def bytes_of(self, id_: int) -> bytes:
        """Bytes that a token adds behind other text; none for special tokens."""
        return self._tokens.bytes_of(id_)

    @property
    def lead(self) -> str:
        """White space that an answer's ids begin with, and that is no part of its text."""
        return self._answers.lead

    @property
    def ends_before(self) -> tuple[str, ...]:
        """Texts before which an answer ends by itself: a base model goes on with the next turn."""
        return () if self._turns.has_template else (_NEXT_TURN,)

    def count(self, text: str) -> int:
        return len(self._tokens.encode(self._tokens.hide(text)))

    def answer_tokens(self) -> AnswerTokens:
        """What grammars must know."""
        return AnswerTokens(
            encode=self._answers.encode,
            encode_inside=self._answers.behind_text,
            decode=self._tokens.decode,
            bytes_of=self._tokens.bytes_of,
            lead=self._answers.lead,
            end_id=self.end_id,
            stop_ids=self.stop_ids,
            serialised=lambda: self._tokens.plain_json,
        )

    def record(self) -> dict[str, Any]:
        """What prompts, answers and their ends go by beside `whole_template`, as JSON values, for programs that do the
        same without rung."""
        return {
            "in_parts": self._turns.in_parts,
            **self._tokens.record(),
            "end_id": self.end_id,
            "stop_ids": sorted(self.stop_ids),
            "lead": self._answers.lead,
            "next_turn": "" if self._turns.has_template else _NEXT_TURN,
        }

    # ---- thoughts ---------------------------------------------------------------------------

    def begun_thought(self, ids: Sequence[int], *, spelt: bool = True) -> Thought | None:
        """The thought that an answer begins with by itself. Where its tag is a token, text that spells it is none.

        spelt: False where an answer that begins with a tag in ordinary text is wanted as it is.
        """
        text = self._tokens.decode(ids).lstrip()
        for start, _ in PAIRS:
            if text.startswith(start):
                id_ = self._tokens.control.get(start)
                if id_ is None:
                    return started_by_itself(start) if spelt else None
                if id_ in ids and not self._tokens.decode(ids[: list(ids).index(id_)]).strip():
                    return started_by_itself(start)
        return None

    def is_closed(self, thought: Thought, ids: Sequence[int]) -> bool:
        """Whether the mark that ends the thought is among the ids, as a token or spelt."""
        return self._up_to(ids, thought.end) is not None

    def thought_stops(self, thought: Thought) -> frozenset[int]:
        """Tokens that end a thought. Where its mark is not one token, it is looked for when the room is used up."""
        end = self._tokens.control.get(thought.end)
        return self.stop_ids if end is None else self.stop_ids | {end}

    def closed_thought(self, thought: Thought, ids: Sequence[int]) -> list[int]:
        """The ids of a thought, closed, up to where the answer begins."""
        length = self._up_to(ids, thought.end)
        if length is not None:
            return [*ids[:length], *self._tokens.encode(thought.closing.removeprefix(thought.end))]
        kept = ids[:-1] if ids and ids[-1] in self.stop_ids else ids
        return [*kept, *self._tokens.encode("\n" + thought.closing)]

    def _up_to(self, ids: Sequence[int], mark: str) -> int | None:
        """Number of ids up to the end of the first mark, a token or spelt; None where there is none."""
        if (id_ := self._tokens.control.get(mark)) is not None:
            return list(ids).index(id_) + 1 if id_ in ids else None
        if mark not in self._tokens.decode(ids):
            return None
        low, high = 0, len(ids)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if mark in self._tokens.decode(ids[:middle]) else (middle + 1, high)
        return low

    # ---- the template -----------------------------------------------------------------------

    def _render(self, messages: Sequence[Message], *, answer_next: bool = True) -> str:
        hide, answers = self._tokens.hide, self._tokens.hide_answer
        hidden = [Message(m.role, (answers if m.role == "assistant" else hide)(m.content)) for m in messages]
        return self._turns.render(hidden, answer_next=answer_next)

    def _layout(self) -> _Layout:
        """Where prompts end and answers begin, from a conversation with an answer beside its generation prompt."""
        turns = [Message("user", _USER)]
        prompt = self._rendered(turns)
        if not prompt:  # some templates demand a system turn
            turns = [Message("system", "s"), *turns]
            prompt = self._rendered(turns)
        tail = prompt.rpartition(_USER)[2]
        before, after, following = self._around_answer(turns)
        between = before.removeprefix(prompt) if before.startswith(prompt) else ""
        thought = thought_in(tail, between, tail[self._tokens.last_control(tail) :])
        if thought is not None:
            return _Layout(tail, between or thought.closed(tail), "", after, following, thought)
        written = between.rstrip()
        return _Layout(tail, written, between[len(written) :], after, following, None)

    def _rendered(self, messages: Sequence[Message], *, answer_next: bool = True) -> str:
        """A conversation as text; empty where the template refuses it."""
        try:
            return self._turns.render(messages, answer_next=answer_next)
        except Exception:  # a template may raise anything
            return ""

    def _around_answer(self, turns: Sequence[Message]) -> tuple[str, str, str]:
        """What the template writes before an answer, behind it, and between it and a next user turn."""
        answered = [*turns, Message("assistant", _ANSWER)]
        parts = []
        for conversation in (answered, [*answered, Message("user", _NEXT)]):
            before, answer, after = self._rendered(conversation, answer_next=False).rpartition(_ANSWER)
            parts.append((before, after.partition(_NEXT)[0]) if answer else ("", ""))
        (before, after), (also_before, following) = parts
        return before or also_before, after, following

    def _end_of_answer(self, layout: _Layout, ends: Sequence[int]) -> int:
        """The control token that the template writes behind an answer, or one that ends texts.

        GLM's template writes none, but the next turn's mark is among the generation config's. A tokenizer may have no
        token that ends texts. Then it is any special token, which no text holds; at last the next turn's first token.
        """
        mark = _ids(self._tokens.leading_control(layout.after))
        next_mark = _ids(self._tokens.leading_control(layout.following))
        eos, bos, pad = (_ids(getattr(self.tokenizer, f"{name}_token_id")) for name in ("eos", "bos", "pad"))
        special = [self._tokens.special[token] for token in sorted(self._tokens.special)]
        known = self._tokens.encode("a")
        next_turn = self._tokens.encode("a" + _NEXT_TURN)[len(known) :]
        return [*mark, *(i for i in next_mark if i in ends), *eos, *ends, *next_mark, *bos, *pad, *special, *next_turn][
            0
        ]


@dataclass(frozen=True)
class _Layout:
    """tail: what a generation prompt ends with. closed: what is added before an answer. lead: white space before the
    answer. after: what follows the answer. following: what stands between it and a next user turn."""

    tail: str
    closed: str
    lead: str
    after: str
    following: str
    thought: Thought | None


def _first_ids(tokenizer: Any) -> list[int]:
    """The token that the tokenizer itself puts before a text, if any; a model's template writes its own."""
    first: list[int] = tokenizer.encode("a")[:1]
    return first if first == [tokenizer.bos_token_id] else []


def _ids(value: int | Iterable[int] | None) -> list[int]:
    if value is None:
        return []
    return [int(value)] if isinstance(value, int) else [int(i) for i in value]
