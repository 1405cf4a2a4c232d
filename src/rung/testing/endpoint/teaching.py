"""A teacher whose knowledge and faults are scripted: what `FakeEndpoint` answers where rung asks a stronger model.

It knows right answers and can make new inputs. It tells by the prompt what it is asked; all that it knows of rung's
prompts stands in MARKS and in the patterns beside it. What it does wrong is planted: drawn from a seed by the input
(and by the sample, where samples differ), never by the order of calls, so that a request that comes again after a kill
gets the same reply. It remembers what it planted, so that a test can say how much of it was filtered.
Plain standard library. Delays, refused calls and broken connections are faults of `FakeEndpoint`, not of this.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rung.testing.endpoint.chat import Body, chance_of, last_user
from rung.types import Message

Asked = Literal["answer", "instruction", "rules", "inputs", "paraphrases", "questions", "unanswerable"]
Plant = Literal["wrong", "wavering", "off_label", "broken", "refused", "near"]
"""What may be wrong with an input or its answers: see Shares."""

MARKS: tuple[tuple[str, Asked], ...] = (
    ("You write the instruction that a language model follows.", "instruction"),
    ("You find the rules by which answers are right", "rules"),
    ("new inputs about the same subject that sound as if this passage answered them", "unanswerable"),
    ("new inputs that this passage answers by itself", "questions"),
    ("other ways, each in other words and with another structure", "paraphrases"),
    ("You write inputs for a task", "inputs"),
)
"""Words of a request -> what it asks for; the first that are found count. A request without any asks for an answer."""

REFUSAL = "I'm sorry, but I cannot help with that."
OFF_LABEL = "something else entirely"

_COUNT = re.compile(r"(?:Write|in) (\d+) (?:new|other)")
_WANTED = re.compile(r"new inputs whose right answer is (.+?)\. They must not repeat")
_REWORDED = re.compile(r"Input:\n(.*?)\n\nWrite this input in \d+ other ways", re.DOTALL)
_PASSAGE = re.compile(r"Passage:\n(.*?)\n\n", re.DOTALL)
_OPENINGS = ("To put it in another way:", "In other words:", "Let me say it like this:", "What I mean is this:")
_KNOWS = 0.5  # share of the samples of a wavering input that are right


@dataclass(frozen=True)
class Shares:
    """How much is planted, as shares.

    Of inputs to answer. wrong: every sample is the same wrong answer, which no vote can find. wavering: each sample is
    right or wrong by chance. off_label: it answers OFF_LABEL. broken: the right answer stands among other words.
    refused: it answers REFUSAL. Of inputs that it writes. near: they repeat a text of `near` with a small change.
    bad_replies: of requests for anything but an answer, those that get REFUSAL or a reply that breaks off.
    """

    wrong: float = 0.0
    wavering: float = 0.0
    off_label: float = 0.0
    broken: float = 0.0
    refused: float = 0.0
    near: float = 0.0
    bad_replies: float = 0.0


@dataclass(frozen=True)
class Filtered:
    """What filters did with what was planted. planted: inputs by plant. through: of these, the rows that were kept with
    the fault in them. dropped: number of inputs that were not kept. in_vain: of these, those without any fault."""

    planted: Counter[Plant]
    through: Counter[Plant]
    dropped: int
    in_vain: tuple[str, ...]

    @property
    def recall(self) -> float:
        """Share of the planted faults that are in no row."""
        return 1.0 - self.through.total() / self.planted.total() if self.planted else 1.0

    @property
    def precision(self) -> float:
        """Share of the dropped inputs that had a fault."""
        return 1.0 - len(self.in_vain) / self.dropped if self.dropped else 1.0


@dataclass
class ScriptedTeacher:
    """Answers of a FakeEndpoint that play a teacher: `FakeEndpoint(ScriptedTeacher(known, makes))`.

    known: input -> right answer. makes: (random, the right answer that is wanted or None) -> a new input and its right
    answer. rewords: (random, an input) -> the same in other words. asks: (random, a passage, whether it is to hold the
    answer) -> a question and its right answer. instructions, rules: what it proposes. near: texts that it repeats.
    labels: what wrong answers are drawn from; without any, the right answers of other inputs.

    asked: requests by kind. written: input -> "near" where it is a repeat, else None. given: input -> sample -> answer.
    unknown: what it was asked and knows no answer to; it repeats that.
    """

    known: Mapping[str, str]
    makes: Callable[[random.Random, str | None], tuple[str, str]] | None = None
    rewords: Callable[[random.Random, str], str] = lambda chance, text: f"{chance.choice(_OPENINGS)} {text}"
    asks: Callable[[random.Random, str, bool], tuple[str, str]] | None = None
    instructions: Sequence[str] = ()
    rules: Sequence[str] = ()
    near: Sequence[str] = ()
    labels: Sequence[str] = ()
    shares: Shares = Shares()
    seed: int = 0
    asked: Counter[Asked] = field(default_factory=Counter)
    written: dict[str, Plant | None] = field(default_factory=dict)
    given: dict[str, dict[str, str]] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._right = dict(self.known)
        self._others = sorted(set(self.labels or self.known.values()))

    def __call__(self, messages: Sequence[Message], body: Body) -> str:
        """The reply to a request. Raises LookupError where it is asked for what it was given no means to write."""
        said = "\n".join(message.content for message in messages)
        kind = asked_for(said)
        self.asked[kind] += 1
        if kind == "answer":
            return self._answer(last_user(messages), body)
        chance = chance_of(self.seed, kind, said, str(body.get("seed")), str(body.get("temperature")))
        if chance.random() < self.shares.bad_replies and chance.random() < 0.5:
            return REFUSAL
        reply = self._proposal(kind, chance) if kind in ("instruction", "rules") else self._inputs(kind, said, chance)
        bad = chance.random() < self.shares.bad_replies / 2
        return reply[: len(reply) // 2] if bad else reply

    # ---- answers ----------------------------------------------------------------------------

    def right_answer(self, text: str) -> str | None:
        """To one of the inputs that it knows or wrote."""
        return self._right.get(text)

    def plant_of(self, text: str) -> Plant | None:
        """What it does wrong when it answers an input: the same at each call."""
        place, shares = chance_of(self.seed, "plant", text).random(), self.shares
        drawn: tuple[tuple[Plant, float], ...] = (
            ("wrong", shares.wrong),
            ("wavering", shares.wavering),
            ("off_label", shares.off_label),
            ("broken", shares.broken),
            ("refused", shares.refused),
        )
        for plant, share in drawn:
            if place < share:
                return plant
            place -= share
        return None

    def _answer(self, asked: str, body: Body) -> str:
        text = self._input_of(asked)
        if text is None:
            self.unknown.append(asked)
            return asked
        sample = f"{body.get('temperature', 0)} {body.get('seed')}"
        answer = self._said(text, sample)
        self.given.setdefault(text, {})[sample] = answer
        return answer

    def _said(self, text: str, sample: str) -> str:
        right, plant = self._right[text], self.plant_of(text)
        wrong = chance_of(self.seed, "wrong", text).choice([o for o in self._others if o != right] or [f"not {right}"])
        if plant == "wavering":
            return right if chance_of(self.seed, "sample", text, sample).random() < _KNOWS else wrong
        if plant == "broken":
            return f"Sure! I would say that the answer is {right}, but let me know if you need more."
        replies: dict[Plant | None, str] = {"wrong": wrong, "off_label": OFF_LABEL, "refused": REFUSAL}
        return replies.get(plant, right)

    def _input_of(self, asked: str) -> str | None:
        """The input that a user turn ends with: the longest that is known."""
        if asked in self._right:
            return asked
        found = [text for text in self._right if asked.rstrip().endswith(text)]
        return max(found, key=len, default=None)

    # ---- what it writes ---------------------------------------------------------------------

    def _proposal(self, kind: Asked, chance: random.Random) -> str:
        known = self.rules if kind == "rules" else self.instructions
        if not known:
            raise LookupError(f"the scripted teacher has no {kind} to propose")
        if kind == "instruction":
            return f"Here is a better one.\n<instruction>\n{chance.choice(list(known))}\n</instruction>"
        return "\n".join(f"- {rule}" for rule in chance.sample(list(known), chance.randint(1, len(known))))

    def _inputs(self, kind: Asked, said: str, chance: random.Random) -> str:
        count = found[1] if (found := _COUNT.search(said)) is not None else "1"
        texts = [self._input(kind, said, chance) for _ in range(int(count))]
        return json.dumps({"inputs": texts}, ensure_ascii=False)

    def _input(self, kind: Asked, said: str, chance: random.Random) -> str:
        """One new input; it is remembered with its right answer."""
        if self.near and chance.random() < self.shares.near:
            source = chance.choice(list(self.near))
            text = nearly(source, chance)
            self._right.setdefault(text, self._right.get(source, self._others[0]))
            self.written[text] = "near"
            return text
        if kind == "paraphrases":
            source = _first(_REWORDED, said)
            text, right = self.rewords(chance, source), self._right.get(source, self._others[0])
        elif kind in ("questions", "unanswerable") and self.asks is not None:
            text, right = self.asks(chance, _first(_PASSAGE, said), kind == "questions")
        elif self.makes is not None:
            text, right = self.makes(chance, _first(_WANTED, said) or None)
        else:
            raise LookupError(f"the scripted teacher cannot write {kind}")
        self._right.setdefault(text, right)
        self.written.setdefault(text, None)
        return text

    # ---- what came of it --------------------------------------------------------------------

    def filtered(self, kept: Mapping[str, str], of: Collection[str] | None = None) -> Filtered:
        """What the filters did. kept: input -> output of the rows that came through. of: the inputs that were to be
        rows; None: all that it wrote.

        A wavering input has a fault where most of its samples are wrong. A row is at fault where its input nearly
        repeats one of `near`, or its output is not the right answer.
        """
        inputs = set(self.written if of is None else of)
        faulty = {text: plant for text in inputs if (plant := self._fault_of(text)) is not None}
        through = Counter(plant for text, plant in faulty.items() if text in kept and self._is_faulty(text, kept))
        gone = sorted(text for text in inputs if text not in kept)
        in_vain = tuple(text for text in gone if text not in faulty)
        return Filtered(Counter(faulty.values()), through, len(gone), in_vain)

    def _fault_of(self, text: str) -> Plant | None:
        if self.written.get(text) == "near":
            return "near"
        plant = self.plant_of(text) if text in self.given else None
        if plant == "wavering":
            samples = self.given[text].values()
            return plant if 2 * sum(said == self._right[text] for said in samples) < len(samples) else None
        return plant

    def _is_faulty(self, text: str, kept: Mapping[str, str]) -> bool:
        return self.written.get(text) == "near" or kept[text].strip() != self._right[text].strip()


def asked_for(said: str) -> Asked:
    """What a request asks for, by the words of its turns."""
    return next((kind for mark, kind in MARKS if mark in said), "answer")


def nearly(text: str, chance: random.Random) -> str:
    """The text with a change that leaves it a near-duplicate: its case, its end, or a letter that stands twice."""
    place = chance.randrange(1, max(2, len(text)))
    doubled = text[:place] + text[place - 1] + text[place:]
    return chance.choice((text.upper(), text.lower() + " !", f"{text.rstrip('.!?')} ...", doubled))


def _first(pattern: re.Pattern[str], said: str) -> str:
    return found[1] if (found := pattern.search(said)) is not None else ""
