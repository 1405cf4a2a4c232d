"""One encoding of an answer, for demos, training, grammars and scoring: its ids behind the end of its prompt.

What tokenizers give for a text depends on what stands before it: sentencepiece adds a space at the start of a text,
templates write one before an answer. Such white space, the *lead*, is part of an answer's ids: it is trained, grammars
demand it, and it is cut off when ids become text again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rung.models.text_tokens import TextTokens

_SENTINELS = ("\n", "a", ":", ">", "1", "\x02")
_PROBES = ("a", "b", "the", "1")


class AnswerEncoding:
    """Answers to ids and back.

    context: the text that every prompt ends with, from its last control token on. written: white space that the
    template puts between a prompt and an answer. lead: white space before an answer's text in its ids.
    """

    def __init__(self, tokens: TextTokens, context: str, written: str) -> None:
        self._tokens = tokens
        self._context = context
        self._written = written
        self._known: dict[str, list[int]] = {}
        self.lead = self._probed_lead()

    def encode(self, text: str) -> list[int]:
        """Ids of an answer, without an end token; none for an empty one. `decode` gives the text back.

        Source of the idea: encode what stands before together with the text, and cut. Where that merges tokens across
        the border, or cannot tell a text from the same with a space before it, another neighbour is tried. Where a
        tokenizer loses characters, the first way that keeps the border counts.
        """
        if not text:
            return []
        first: list[int] | None = None
        for ids in self._ways(text):
            if self._tokens.decode(ids) == self.lead + text:
                return ids
            first = ids if first is None else first
        by_character = [i for character in self.lead + text for i in self._character(character)]
        if first is None or self._tokens.decode(by_character) == self.lead + text:
            return by_character
        return first

    def decode(self, ids: Sequence[int]) -> str:
        """Text of an answer's ids, without the lead and without special tokens."""
        return self._tokens.decode(ids).removeprefix(self.lead)

    def behind_text(self, text: str) -> list[int]:
        """Ids of a text in the middle of an answer, without a lead."""
        for sentinel in _SENTINELS:
            ids = self._cut(sentinel, sentinel, text)
            if ids is not None and self._tokens.decode(ids) == text:
                return ids
        return [i for character in text for i in self._character(character)]

    def _ways(self, text: str) -> Iterator[list[int]]:
        befores = [(self._context, self._context + self._written), (self._context, f"{self._context}{self._written} ")]
        for context, before in [*befores, *((sentinel, sentinel + self.lead) for sentinel in _SENTINELS)]:
            if (ids := self._cut(context, before, text)) is not None:
                yield ids

    def _cut(self, context: str, before: str, text: str) -> list[int] | None:
        """Ids that stand behind those of the context in `before` and the text; None where the border is merged."""
        if context not in self._known:
            self._known[context] = self._tokens.encode(context)
        known = self._known[context]
        joint = self._tokens.encode(before + self._tokens.hide(text))
        return joint[len(known) :] if joint[: len(known)] == known else None

    def _character(self, character: str) -> list[int]:
        found: list[int] | None = None
        for sentinel in _SENTINELS:
            ids = self._cut(sentinel, sentinel, character)
            if ids is not None and self._tokens.decode(ids) == character:
                return ids
            found = ids if found is None else found
        return found or []

    def _probed_lead(self) -> str:
        for probe in _PROBES:
            ids = self._cut(self._context, self._context + self._written, probe)
            if ids is not None and (text := self._tokens.decode(ids)).endswith(probe):
                lead = text.removesuffix(probe)
                if not lead.strip():
                    return lead
        return self._written
