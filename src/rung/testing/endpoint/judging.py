"""A judge whose taste and biases are scripted: what `FakeEndpoint` answers where rung has an answer scored.

It knows how good an answer truly is, and adds what is planted: it likes length, the first of two, or marks of its own
family; it wavers; and some of its replies hold no grade. All of it is drawn from a seed by the request, so that a
request that comes again gets the same reply. All that it knows of rung's prompts stands in MARKS and _TEXT.
Plain standard library.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rung.testing.endpoint.chat import Body, chance_of, last_user
from rung.types import Message

Asked = Literal["grade", "compare"]

MARKS: tuple[tuple[str, Asked], ...] = (
    ("You grade an answer from 1 to 5", "grade"),
    ("You compare two answers, A and B", "compare"),
)
"""Words of a request -> what it asks for."""

_TEXT = re.compile(r"<<(\w+) ([^\n>]+)>>\n(.*?)\n<<\1 end of \2>>", re.DOTALL)
_GRADES, _TIE = 5, 0.1
_USUAL_WORDS = 20


@dataclass
class ScriptedJudge:
    """Answers of a FakeEndpoint that play a judge.

    quality: (input, answer) -> how good it truly is, in [0, 1]. likes_length: added for each doubling of 20 words, and
    taken off for each halving. likes_first: added to the answer that stands as A. likes: (a mark, what is added to an
    answer that holds it). noise: standard deviation of what is added by chance. unreadable: share of replies without a
    grade. All are on the scale of quality.

    asked: requests by kind. unread: how many replies held no grade.
    """

    quality: Callable[[str, str], float]
    likes_length: float = 0.0
    likes_first: float = 0.0
    likes: tuple[str, float] = ("", 0.0)
    noise: float = 0.0
    unreadable: float = 0.0
    seed: int = 0
    asked: Counter[Asked] = field(default_factory=Counter)
    unread: int = 0

    def __call__(self, messages: Sequence[Message], body: Body) -> str:
        """The reply to a request. Raises LookupError for one that asks for neither a grade nor a comparison."""
        said = last_user(messages)
        kind = next((kind for mark, kind in MARKS if mark in said), None)
        if kind is None:
            raise LookupError(f"the scripted judge is not asked to judge: {said[:100]!r}")
        self.asked[kind] += 1
        chance = chance_of(self.seed, said, str(body.get("seed")), str(body.get("temperature")))
        if chance.random() < self.unreadable:
            self.unread += 1
            return "It depends on what one looks for."
        texts = {title: text for _, title, text in _TEXT.findall(said)}
        if kind == "grade":
            grade = self.opinion(texts["input"], texts["answer to grade"], chance)
            return f"It is like that.\nScore: {1 + round((_GRADES - 1) * min(1.0, max(0.0, grade)))}"
        a, b = (self.opinion(texts["input"], texts[f"answer {name}"], chance) for name in "AB")
        lead = a + self.likes_first - b
        return f"One is more like that.\nBetter: {'tie' if abs(lead) < _TIE else 'A' if lead > 0 else 'B'}"

    def opinion(self, asked: str, answer: str, chance: random.Random) -> float:
        """What it thinks of an answer, biases and all; not held to [0, 1]."""
        length = math.log2(max(1, len(answer.split())) / _USUAL_WORDS)
        mark, more = self.likes
        liked = more if mark and mark in answer else 0.0
        return self.quality(asked, answer) + self.likes_length * length + liked + chance.gauss(0.0, self.noise)
