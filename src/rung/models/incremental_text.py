"""The text of an answer while its tokens come: whole characters, nothing that may yet be taken back."""

from __future__ import annotations

from collections.abc import Sequence

from rung.models.chat_template import ChatFormat
from rung.models.stop_texts import first_stop, held_back
from rung.models.thinking import PAIRS

_TORN = "\ufffd"


class AnswerText:
    """One answer. stop: texts before which it ends. spelt: as in `ChatFormat.begun_thought`. raw: it continues a text,
    so that what it begins with is part of it and no thought.

    A thought is told never; what stands behind one is told when the answer is whole.
    """

    def __init__(self, chat: ChatFormat, *, stop: Sequence[str] = (), spelt: bool = True, raw: bool = False) -> None:
        self._chat = chat
        self._stop = [text for text in (*stop, *(() if raw else chat.ends_before)) if text]
        self._spelt, self._raw = spelt, raw
        self._ids: list[int] = []
        self._at = 0  # ids whose text is known
        self._text = ""  # of these
        self._thinks = False  # whether it is known to begin with one
        self._open = raw  # whether it is known not to begin with a thought
        self.told = ""
        """What was told so far."""
        self.stopped = False
        """Whether one of the stop texts was written: nothing more is told."""

    def add(self, ids: Sequence[int]) -> str:
        """The text that can be told now that these ids, no end token among them, were written."""
        self._ids += ids
        part = self._chat.decode_part(self._ids[self._at :])
        if part.endswith(_TORN) or self.stopped:
            return ""
        if not self._at and not self._raw:
            part = part.removeprefix(self._chat.lead)
        self._at = len(self._ids)
        self._text += part
        self._open = self._open or not self._may_think()
        return self._tell(self._text[: len(self._text) - held_back(self._text, self._stop)]) if self._open else ""

    def finish(self, whole: str) -> str:
        """What is left to tell. whole: the text of the whole answer."""
        return whole[len(self.told) :] if whole.startswith(self.told) else ""

    def cut(self, whole: str) -> str:
        """The whole text, ended before the first stop text."""
        at = first_stop(whole, self._stop)
        return whole if at is None else whole[:at]

    def _tell(self, known: str) -> str:
        at = first_stop(self._text, self._stop)
        if at is not None:
            known, self.stopped = self._text[:at], True
        new = known[len(self.told) :]
        self.told += new
        return new

    def _may_think(self) -> bool:
        """Whether what is there is a thought, or may become one. What has begun as one stays one."""
        begun = self._text.lstrip()
        if not self._thinks and any(begun.startswith(start) for start, _ in PAIRS):
            self._thinks = self._chat.begun_thought(self._ids, spelt=self._spelt) is not None
        return self._thinks or any(start.startswith(begun) for start, _ in PAIRS)
