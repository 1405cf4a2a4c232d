"""Chat turns to token ids. All text reaches a local model this way, in answering and in training.

Knows the tokenizer's chat template and its end-of-answer token. Text from outside cannot forge a turn: special tokens
are broken up wherever they stand inside a message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rung.types import Message

# For models without a template (base models): turns one under the other.
PLAIN_TEMPLATE = (
    "{% for m in messages %}{{ m['role'].capitalize() + ': ' + m['content'] + '\\n\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
_ZERO_WIDTH_SPACE = "\u200b"


class ChatFormat:
    """A tokenizer with its chat template. end_id: the token that ends an answer. stop_ids: all tokens that end one."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._template = tokenizer.chat_template or PLAIN_TEMPLATE
        self._first = [] if tokenizer.chat_template else _first_ids(tokenizer)
        self._special = _special_tokens(tokenizer)
        self._takes_system = self._accepts_a_system_turn()
        self.end_id = self._end_of_answer()
        self.stop_ids = frozenset({self.end_id, tokenizer.eos_token_id} - {None})

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Ids of the turns, ending where the assistant's answer begins."""
        return [*self._first, *self.tokenizer.encode(self._render(messages), add_special_tokens=False)]

    def encode_answer(self, text: str) -> list[int]:
        """Ids of an answer with its end token; they follow the ids of `encode`."""
        return [*self.tokenizer.encode(self._defused(text), add_special_tokens=False), self.end_id]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of an answer's ids, without special tokens."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        # A base model continues with the next turn.
        return text if self.tokenizer.chat_template else text.partition("\n\nUser:")[0]

    def count(self, text: str) -> int:
        return len(self.tokenizer.encode(text, add_special_tokens=False))

    def _render(self, messages: Sequence[Message], *, answer_next: bool = True) -> str:
        turns = [{"role": m.role, "content": self._defused(m.content)} for m in messages]
        if not self._takes_system and turns and turns[0]["role"] == "system":
            turns[1] = {"role": "user", "content": turns[0]["content"] + "\n\n" + turns[1]["content"]}
            del turns[0]
        text: str = self.tokenizer.apply_chat_template(
            turns,
            tokenize=False,
            add_generation_prompt=answer_next,
            chat_template=self._template,
            enable_thinking=False,  # for models that can think before they answer; other templates ignore it
        )
        return text

    def _defused(self, text: str) -> str:
        for token in self._special:
            if token in text:
                text = text.replace(token, token[:1] + _ZERO_WIDTH_SPACE + token[1:])
        return text

    def _accepts_a_system_turn(self) -> bool:
        self._takes_system = True
        try:
            return "@@s" in self._render([Message("system", "@@s"), Message("user", "@@u")])
        except Exception:  # a template may raise anything
            return False

    def _end_of_answer(self) -> int:
        """The first token the template puts after an assistant's turn, if it is a special one; else eos."""
        eos: int = self.tokenizer.eos_token_id
        try:
            whole = self._render([Message("user", "@@u"), Message("assistant", "@@a")], answer_next=False)
        except Exception:
            return eos
        after = self.tokenizer.encode(whole.rpartition("@@a")[2], add_special_tokens=False)
        return int(after[0]) if after and after[0] in self._special.values() else eos


def _first_ids(tokenizer: Any) -> list[int]:
    """The token that the tokenizer itself puts before a text, if any; a model's template writes its own."""
    first: list[int] = tokenizer.encode("a")[:1]
    return first if first == [tokenizer.bos_token_id] else []


def _special_tokens(tokenizer: Any) -> dict[str, int]:
    """Every special token and its id, including those without a role, which `all_special_tokens` leaves out."""
    named = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    added = {token.content: id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
    return {token: int(id_) for token, id_ in {**added, **named}.items() if token}
