"""Text to token ids and back, with the tokens that steer a chat kept apart from text.

A control token is one that is special, or that the chat template writes. Where its string stands in somebody's text it
is hidden before the template renders the text, and goes in as ordinary tokens: text cannot forge a turn, and it comes
out as it went in. A string that only the tokenizer's normal form would make a control token stays text, too. Knows
tokenizers; knows nothing of turns and answers.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from typing import Any

_FIRST_PLACEHOLDER = 0xF0000  # private use, plane 15: one character for each hidden string
_PRIVATE = "\U000f0000-\U000ffffd"
_BORDER = "\U000ffffd"  # where the ids of an answer begin
_ESCAPE = "\U000ffffc"  # before a character of a text that looks like a placeholder
_PLACEHOLDER = re.compile(f"{_ESCAPE}(.)|[{_PRIVATE}]", re.DOTALL)
_BYTE = re.compile("<0x([0-9A-F]{2})>")  # the name of a token for one byte, in sentencepiece
_ANCHORS = ("a", "the", "1", ":", ".", "\n")


class TextTokens:
    """A tokenizer, its control tokens, and how text passes by them.

    control: string -> id. template: the source of the chat template. tags: of thoughts (`</think>`); their tokens are
    control tokens, and they are shown when ids are decoded. read: other strings that a template may look for inside a
    text; they are hidden from it, as tags are. ends: ids that end an answer; those of added tokens are control.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: str,
        tags: Collection[str] = (),
        read: Collection[str] = (),
        ends: Collection[int] = (),
    ) -> None:
        self.tokenizer = tokenizer
        self.special = _special_tokens(tokenizer)
        self.control = {**_written_tokens(tokenizer, template, tags, ends), **self.special}
        self._control_ids = frozenset(self.control.values())
        self._backend = getattr(tokenizer, "backend_tokenizer", None)
        self._nonce = secrets.token_hex(8)  # so that no text can hold the names that control tokens get in `plain`
        self._control = _any_of(self.control)
        guarded = {*self.control, *tags, *read}
        firsts = "".join(sorted(re.escape(first) for first in {text[0] for text in guarded}))
        # The first characters stand in front: a tokenizer may have 1,000 control tokens, to be tried at every place.
        self._guarded = re.compile(f"(?=[{firsts}{_PRIVATE}])(?:{_any_of(guarded).pattern}|[{_PRIVATE}])")
        self._placeholders: dict[str, str] = {}
        self._hidden: dict[str, str] = {}
        self._lock = threading.Lock()
        self._dropped = set(self.special.values()) - {self.control[tag] for tag in tags if tag in self.control}
        self._anchor = self._ordinary_ids()
        self._anchor_text = self._raw_decode(self._anchor)

    def hide(self, text: str) -> str:
        """The text with a placeholder for every string that a template or tokenizer could take for a control token."""
        return self._guarded.sub(lambda found: self._placeholder(found[0]), text)

    def hide_answer(self, text: str) -> str:
        """As `hide`, for an answer within a conversation. Space that it begins with is not trimmed by a template, and
        its tokens do not merge with what stands before: the model is to begin its own answers so."""
        return (_BORDER if text[:1].isspace() else "") + self.hide(text)

    def encode(self, text: str) -> list[int]:
        """Ids of a rendered text. Its control strings are tokens; what was hidden is ordinary text."""
        if _BORDER in text:
            split = [i for part in text.split(_BORDER) for i in self.encode(part)]
            joint = self.encode(text.replace(_BORDER, ""))
            return split if self._raw_decode(split) == self._raw_decode(joint) else joint
        if not _PLACEHOLDER.search(text) and not self._becomes_control(text):
            return [int(i) for i in self.tokenizer.encode(text, add_special_tokens=False)]
        if self._backend is None:
            return self._encode_in_pieces(text)
        named = self._control.sub(lambda found: self._name(found[0]), text)
        shown = _PLACEHOLDER.sub(self._shown, named)
        return [int(i) for i in self._plain.encode(shown, add_special_tokens=False).ids]

    def encode_raw(self, text: str) -> list[int]:
        """As `encode`, of a text that nothing was hidden in: it may hold the characters of placeholders."""
        return self.encode(re.sub(f"[{_PRIVATE}]", lambda found: self._placeholder(found[0]), text))

    def decode(self, ids: Sequence[int]) -> str:
        """Text that the ids add behind other text, without special tokens."""
        kept = [i for i in ids if i not in self._dropped]
        whole = self._raw_decode([*self._anchor, *kept])
        return whole.removeprefix(self._anchor_text) if whole.startswith(self._anchor_text) else self._raw_decode(kept)

    def bytes_of(self, id_: int) -> bytes:
        """Bytes that a token adds behind other text; none for special tokens and those without a name."""
        name = self.tokenizer.convert_ids_to_tokens(id_)
        if not isinstance(name, str) or id_ in self._control_ids:
            return b""
        if byte := _BYTE.fullmatch(name):
            return bytes([int(byte[1], 16)])
        coded = self._of_bytes if id_ not in self.tokenizer.added_tokens_decoder else None
        if coded is not None and all(character in coded for character in name):
            return bytes(coded[character] for character in name)
        return self.decode([id_]).encode()

    @cached_property
    def _of_bytes(self) -> dict[str, int] | None:
        """Character -> byte, where tokens are named by their bytes so that each has a visible character (GPT-2)."""
        decoder = json.loads(self._backend.to_str())["decoder"] if self._backend is not None else None
        parts = decoder.get("decoders", [decoder]) if decoder else []
        if not any(part["type"] == "ByteLevel" for part in parts):
            return None
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        return {character: byte for byte, character in bytes_to_unicode().items()}

    def record(self) -> dict[str, Any]:
        """What `hide`, `encode` and `decode` go by, as JSON values, for programs that do so without rung.

        named: control string -> its name in `plain_json`.
        """
        return {
            "named": {text: self._name(text) for text in self.control},
            "guarded": self._guarded.pattern,
            "first_placeholder": _FIRST_PLACEHOLDER,
            "border": _BORDER,
            "dropped": sorted(self._dropped),
            "anchor": self._anchor,
        }

    def last_control(self, text: str) -> int:
        """Where the last control token of a rendered text begins; 0 where there is none."""
        return max((found.start() for found in self._control.finditer(text)), default=0)

    def leading_control(self, text: str) -> int | None:
        """The id of the control token that the text begins with, white space aside."""
        found = self._control.match(text.lstrip())
        return self.control[found[0]] if found else None

    @cached_property
    def plain_json(self) -> str | None:
        """The fast tokenizer, serialised, in which no text can be read as a control token; None where there is none."""
        if self._backend is None:
            return None
        content = json.loads(self._backend.to_str())
        for token in content["added_tokens"]:
            if token["content"] in self.control:
                token.update(content=self._name(token["content"]), special=True)
        model = content["model"]
        if isinstance(model.get("vocab"), dict):
            model["vocab"] = {self._name(t) if t in self.control else t: i for t, i in model["vocab"].items()}
        elif isinstance(model.get("vocab"), list):
            model["vocab"] = [[self._name(t) if t in self.control else t, score] for t, score in model["vocab"]]
        if "merges" in model:  # of ordinary tokens to a control token, whose name is another now
            model["merges"] = [m for m in model["merges"] if not {*m, "".join(m)} & self.control.keys()]
        if model.get("unk_token") in self.control:
            model["unk_token"] = self._name(model["unk_token"])
        content.update(truncation=None, padding=None, post_processor=None)
        return json.dumps(content, ensure_ascii=False)

    @cached_property
    def _plain(self) -> Any:
        from tokenizers import Tokenizer

        assert self.plain_json is not None
        return Tokenizer.from_str(self.plain_json)

    def _becomes_control(self, text: str) -> bool:
        """Whether a control string appears only once the tokenizer has normalised the text: full-width signs do."""
        normalizer = getattr(self._backend, "normalizer", None)
        if normalizer is None or (text.isascii() and self._keeps_ascii):
            return False
        normal = normalizer.normalize_str(text)
        return len(self._guarded.findall(normal)) != len(self._guarded.findall(text))

    @cached_property
    def _keeps_ascii(self) -> bool:
        """Whether the tokenizer's normal form of visible ASCII characters is themselves."""
        assert self._backend is not None
        signs = "".join(map(chr, range(33, 127)))
        return str(self._backend.normalizer.normalize_str(signs)).endswith(signs)

    def _name(self, token: str) -> str:
        """What a control token is called in the plain tokenizer."""
        return f"\U00100000{self._nonce}{self.control[token]}\U00100001"

    def _shown(self, placeholder: re.Match[str]) -> str:
        return placeholder[1] or self._hidden[placeholder[0]]

    def _placeholder(self, text: str) -> str:
        """One for a guarded string; a character that looks like one is escaped, so that texts use up none."""
        if len(text) == 1 and chr(_FIRST_PLACEHOLDER) <= text < _BORDER:
            return _ESCAPE + text
        with self._lock:  # several threads may write prompts
            if text not in self._placeholders:
                placeholder = chr(_FIRST_PLACEHOLDER + len(self._placeholders))
                self._hidden[placeholder] = text
                self._placeholders[text] = placeholder
            return self._placeholders[text]

    def _encode_in_pieces(self, text: str) -> list[int]:
        """For tokenizers without a fast backend: what was hidden is encoded apart from its neighbours."""
        ids: list[int] = []
        at = 0
        for found in _PLACEHOLDER.finditer(text):
            ids += self.tokenizer.encode(text[at : found.start()], add_special_tokens=False)
            ids += self.tokenizer.encode(self._shown(found), add_special_tokens=False, split_special_tokens=True)
            at = found.end()
        return ids + list(self.tokenizer.encode(text[at:], add_special_tokens=False))

    def _ordinary_ids(self) -> list[int]:
        """Ids of a short ordinary text. Behind it, decoders show the white space that ids begin with."""
        for text in _ANCHORS:
            ids = [int(i) for i in self.tokenizer.encode(text, add_special_tokens=False)]
            if ids and not set(ids) & set(self.special.values()):
                return ids
        return []

    def _raw_decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _any_of(strings: Iterable[str]) -> re.Pattern[str]:
    """Matches any of the strings, the longest first; nothing where there are none."""
    return re.compile("|".join(map(re.escape, sorted(strings, key=lambda s: (-len(s), s)))) or "(?!)")


def _special_tokens(tokenizer: Any) -> dict[str, int]:
    """Every special token and its id, including those without a role, which `all_special_tokens` leaves out."""
    named = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    added = {token.content: id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
    return {token: int(id_) for token, id_ in {**added, **named}.items() if token.strip() and id_ is not None}


def _written_tokens(tokenizer: Any, template: str, tags: Collection[str], ends: Collection[int]) -> dict[str, int]:
    """Tags, ends, and added tokens that the template writes, special or not: many models' turn marks are not special.

    White space and words, which templates hold as ordinary text, are none.
    """
    added = {token.content: int(id_) for id_, token in tokenizer.added_tokens_decoder.items()}
    marks = {text for text in added if text in template and text.strip() and not text.strip().isalnum()}
    return {text: id_ for text, id_ in added.items() if text in marks or text in tags or id_ in ends}
