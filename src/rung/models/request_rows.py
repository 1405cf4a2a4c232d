"""Requests and training rows as token ids, and what rows wrote as answers: a local model without its network.

Whatever computes the tokens, prompts, grammars and texts are the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from rung.constraints import checked
from rung.engine.decode import Job
from rung.engine.grammar import Grammars, Matcher
from rung.errors import DOES_NOT_FIT, OUT_OF_MEMORY, REFUSED_TURNS, TrainingError, TruncatedAnswer
from rung.models.answering import AnswerRow
from rung.models.chat_template import ChatFormat
from rung.models.thinking import TAGS, Thought
from rung.training.batches import TokenRow
from rung.types import Constraint, Generation, Request, TrainingRow

_REMEMBERED_TOKENS = 1_000_000  # of encoded training rows; about 40 MB
_NAMED_ROWS = 5  # in messages


class RequestRows:
    """What a model needs to know for it: its chat format, the tokens that fit it, and the width of its logits."""

    def __init__(self, chat: ChatFormat, context_length: int, vocabulary: int) -> None:
        self.chat, self.context_length, self.vocabulary = chat, context_length, vocabulary
        self._grammars: Grammars | None = None
        self._encoded: dict[TrainingRow, TokenRow] = {}
        self._encoded_tokens = 0  # of all of them

    def count_tokens(self, text: str) -> int:
        return self.chat.count(text)

    def asked(self, request: Request) -> AnswerRow | Generation:
        """What the engine is to answer, or why it cannot."""
        thought = self.chat.thought if request.adapter is None else None  # adapters are trained without one
        try:
            prompt = self.chat.encode(request.messages) if thought is None else self.chat.encode_open(request.messages)
        except Exception as error:  # a template may raise anything
            return Generation("", 0, 0, 0.0, "error", f"{REFUSED_TURNS} ({error})")
        # An answer may begin with `<reasoning>` because a grammar, training, or the prompt itself says so.
        wanted = any(tag in message.content for message in request.messages for tag in TAGS)
        spelt = not (wanted or request.constraint or request.adapter)
        return self._row_of(prompt, thought, request, spelt=spelt)

    def _row_of(
        self, prompt: list[int], thought: Thought | None, request: Request, *, spelt: bool
    ) -> AnswerRow | Generation:
        decoding = request.decoding
        closing = 0 if thought is None else len(self.chat.closed_thought(thought, []))
        room = min(decoding.max_new_tokens, self.context_length - len(prompt) - closing)
        if room < 1:
            fact = f"prompt of {len(prompt)} tokens {DOES_NOT_FIT} of {self.context_length}"
            return Generation("", len(prompt), 0, 0.0, "error", fact)
        matcher = self._matcher(request.constraint) if request.constraint is not None else None
        job = Job(prompt, room, decoding.temperature, decoding.seed, matcher, request.adapter)
        return AnswerRow(job, thought, spelt)

    def continued(self, text: str, request: Request) -> AnswerRow | Generation:
        """As `asked`, of a text that the model continues as it is, instead of the request's messages."""
        row = self._row_of(self.chat.encode_text(text) or [self.chat.end_id], None, request, spelt=False)
        if isinstance(row, AnswerRow):
            row.answers_left = 1  # what looks like a thought is part of the text
        return row

    def generation(self, row: AnswerRow, prompt: int, *, raw: bool = False) -> Generation:
        """What a row has come to. prompt: tokens of the request. raw: it continues a text, as of `continued`."""
        ids = row.ids
        if ids is None:
            return Generation("", prompt, 0, row.seconds, "error", OUT_OF_MEMORY)
        stopped = bool(ids) and ids[-1] in self.chat.stop_ids
        text_ids = ids[:-1] if stopped else ids
        if raw:
            text = self.chat.decode_part(text_ids)
            return Generation(text, prompt, row.written, row.seconds, "stop" if stopped else "length")
        begun = self.chat.begun_thought(text_ids, spelt=row.spelt)
        whole = stopped and (begun is None or self.chat.is_closed(begun, text_ids))
        text = self.chat.decode(text_ids, spelt=row.spelt)
        return Generation(text, prompt, row.written, row.seconds, "stop" if whole else "length")

    def check(self, constraint: Constraint) -> None:
        """Raises ConstraintError when no grammar can be made of it."""
        self._matcher(constraint)

    def _matcher(self, constraint: Constraint) -> Matcher:
        if self._grammars is None:
            self._grammars = Grammars(self.chat.answer_tokens(), self.vocabulary)
        return self._grammars.matcher(constraint)

    # ---- training rows ---------------------------------------------------------------------

    def too_long(self, rows: Sequence[TrainingRow]) -> list[TrainingRow]:
        """The rows whose prompt and answer together exceed the context."""
        return [row for row in rows if self._training_row(row).tokens > self.context_length]

    def encode_rows(self, rows: Sequence[TrainingRow]) -> list[TokenRow]:
        """The rows as token ids. Raises TruncatedAnswer, which names them, when rows do not fit the context whole."""
        encoded = [self._training_row(row) for row in rows]
        if long := [row for row in encoded if row.tokens > self.context_length]:
            named = ", ".join(f"{row.id} ({row.tokens} tokens)" for row in long[:_NAMED_ROWS])
            more = f" and {len(long) - _NAMED_ROWS} more" if len(long) > _NAMED_ROWS else ""
            raise TruncatedAnswer(
                f"{len(long)} of {len(rows)} training examples do not fit {self.context_length} tokens, so that their "
                f"answers would be cut: {named}{more}. Shorten these inputs, show fewer passages, or use a model with "
                "a longer context."
            )
        return encoded

    def _training_row(self, row: TrainingRow) -> TokenRow:
        """The row as token ids, remembered until a training ends: rows are measured first, then trained on."""
        if (known := self._encoded.get(row)) is not None:
            return known
        try:
            encoded = TokenRow(
                row.name, tuple(self.chat.encode(row.messages)), tuple(self.chat.encode_answer(row.answer))
            )
        except Exception as error:  # a template may raise anything
            raise TrainingError(f"{row.name}: {REFUSED_TURNS} ({error}).") from error
        self._encoded[row] = encoded
        self._encoded_tokens += encoded.tokens
        while self._encoded_tokens > _REMEMBERED_TOKENS:
            self._encoded_tokens -= self._encoded.pop(next(iter(self._encoded))).tokens
        return encoded

    def forget_rows(self) -> None:
        """Frees the rows that are remembered."""
        self._encoded.clear()
        self._encoded_tokens = 0


def held_to(generation: Generation, constraint: Constraint | None) -> Generation:
    """The generation, checked for what no grammar could hold of the constraint. A grammar holds labels whole: in the
    spelling that the tokenizer gives them."""
    return checked(generation, None if constraint is None or constraint.kind == "labels" else constraint)
