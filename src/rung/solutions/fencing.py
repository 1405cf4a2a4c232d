"""Text that is shown as data, made unable to pose as what surrounds it: the marks of a fence, or a turn of the chat.

A local model reads control tokens in a text as ordinary text anyway (`rung.models.text_tokens`). A server may not, and
templates such as Llama 2's write their turns in plain words; so a passage loses the brackets of both.
"""

from __future__ import annotations

import re
import unicodedata

from rung.data.folding import TO_LATIN
from rung.text import UNSEEN

OPENER = "("
"""In the place of the bracket that opens a mark."""

_OPENS = re.compile("&(?:lt|#0*60|#[xX]0*3[cC]);|[<\uff1c\ufe64\u2039\u2329\u27e8\u3008\u02c2\u1438\u227a\u276e\u2770]")
"""What is or looks like the bracket that a mark begins with."""

_LONGEST = 64  # characters behind a bracket in which a disguised mark is looked for
_SLASHES = str.maketrans(dict.fromkeys("\u2044\u2215\u29f8\uff0f\\", "/"))
_PASSAGE = re.compile(r"\W{0,8}passages?(?![a-z])")

_TURNS = re.compile(
    r"[<\uff1c](?=[|\uff5c][^\s|\uff5c<>]{1,40}[|\uff5c][>\uff1e])"  # <|im_start|>, <｜User｜>
    r"|<(?=/?(?:start_of_turn|end_of_turn|bos|eos|s)>)"
    r"|<(?=<?/?SYS>>)|(?<=<)<(?=/?SYS>>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CALLS)\])"
)
"""Brackets of the marks by which chat templates part turns."""


def harmless(text: str) -> str:
    """The text without a mark of a fence or of a turn, however it is disguised. All else stays as it is."""
    if "[" in text or "<" in text or "\uff1c" in text:
        text = _TURNS.sub(OPENER, text)
    return _OPENS.sub(lambda found: OPENER if _opens_a_mark(text, found.end()) else found[0], text)


def _opens_a_mark(text: str, at: int) -> bool:
    """Whether what follows a bracket reads as "passage" or "/passage": without characters that show nothing, in
    whatever case, width and look-alike letters."""
    after = UNSEEN.sub("", text[at : at + _LONGEST])
    if not after.isascii():
        plain = unicodedata.normalize("NFKD", after).casefold()
        after = "".join(c for c in plain if not unicodedata.combining(c)).translate(TO_LATIN)
    return _PASSAGE.match(after.translate(_SLASHES).lower()) is not None
