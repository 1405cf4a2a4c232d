"""All that a verdict rests on, as one value, and what can be looked up in it.

Knows numbers that others measured. Touches no disk, model or clock, and imports no numbers library.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rung.decision.judging import JudgeCheck
from rung.evaluation.statistics import ALPHA, MARGIN
from rung.types import (
    FAMILIES,
    BreakEven,
    Candidate,
    Citing,
    Comparison,
    Diagnosis,
    Family,
    Injected,
    LeftEarly,
    MetricInfo,
    Score,
    SearchFailure,
    SearchWay,
    SetName,
    Skipped,
)


@dataclass(frozen=True)
class Skills:
    """How many general prompts a fine-tuned candidate answers well, against its base model.

    difference: share of the candidate minus share of the base, with its 95 % interval, over n prompts. loses: the fall
    is real and large enough to matter. repaired: the candidate that was trained on so that it keeps general skills.
    base: share of the base model; None where an older version wrote the record.
    """

    candidate: str
    difference: float
    low: float
    high: float
    n: int
    loses: bool
    repaired: str | None = None
    base: float | None = None

    @property
    def keeps(self) -> bool:
        """Whether a loss of more than MARGIN is ruled out; where `loses` is false, none may be shown and none ruled
        out."""
        return not self.loses and self.low >= -MARGIN


@dataclass(frozen=True)
class Shortened:
    """What shortening the prompt of a fine-tuned candidate came to on dev.

    tuned: that candidate. short: the one with the shorter prompt; None where none was within the margin. length: of the
    prompt that was taken, in words; where none was, of the shortest. trained: whether the adapter was trained on with
    it. tokens, tokens_before: of a request with it and with the prompt as it was. mean: its score over n dev examples;
    difference: that minus the tuned one's, with its 95 % interval.
    """

    tuned: str
    short: str | None
    length: str
    trained: bool
    tokens: float
    tokens_before: float
    mean: float
    difference: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class MoreExamples:
    """What `examples` more training examples would add on dev, with its interval."""

    examples: int
    gain: float
    low: float
    high: float


@dataclass(frozen=True)
class ClosedBook:
    """The dev mean of a training without passages, where there is a corpus. what: which training that was."""

    what: str
    dev: float


@dataclass(frozen=True)
class Invention:
    """What a solution says to dev questions that nothing it reads can answer: how often it makes an answer up.

    given: the task's own rows, whose reference is its `abstain`; else dev questions, without the passages that hold
    their answers. share: of these rows for which an answer is made up. refused: share of the answerable rows to which
    it gives no answer; None where none were looked at. base: the solution without fine-tuning that was asked the same;
    empty where there is none. base_share, base_refused: its own. difference: share minus base_share, with its 95 %
    interval and the p-value of the same paired test.
    """

    candidate: str
    given: bool
    share: Score
    refused: Score | None = None
    base: str = ""
    base_share: Score | None = None
    base_refused: Score | None = None
    difference: float = 0.0
    low: float = 0.0
    high: float = 0.0
    p: float = 1.0

    @property
    def worse(self) -> bool:
        """Whether it is shown to make up more than its base."""
        return bool(self.base) and self.difference > 0 and self.p < ALPHA


@dataclass(frozen=True)
class Taught:
    """Answers that a candidate learnt beside train. by: what gave them. asked, kept: inputs, and of these with an
    answer. left_out: why the others have none, in words with their numbers."""

    candidate: str
    by: str
    asked: int
    kept: int
    left_out: str = ""


@dataclass(frozen=True)
class Evidence:
    """All that the verdict rests on.

    metric: how answers are scored; `right_or_wrong` decides how numbers are written.
    candidates: those that use a language model, and baselines (family "baseline"). One without a test score was not
    named for the test and is only recorded.
    comparisons: every pair of finalists that was named before the test was opened, on the test, after Holm within that
    family.
    contenders: names of the finalists among which the best is sought; empty: all. A pair was named when at least one of
    the two is a contender.
    against_floor: every finalist with every baseline on the test, after Holm within the comparisons of one baseline.
    For `unfinished`: every candidate that answered all of dev with every baseline, on dev.
    floors: names of the baselines that look at no input (the most frequent answer, chance). The best of them is the
    floor. The other baselines learn from examples without a language model.
    n_dev, n_test: examples of the sets. minimum_detectable_difference: what the test shows at 80 % power.
    has_corpus, has_labels, has_schema: of the task. target: good enough, as the task says. margin: a difference that
    does not matter. models: names in the task's order, cheapest first; with one name or none, sentences name no model.
    model: a model's name in the task. larger: the next larger one than that, to try; empty where none is known.
    frequent: the answer that "most_frequent" always gives; empty where it is not known.
    diagnosis: why the prompt of the candidate `diagnosed` fails, the leading cause first. skipped, left_early: as in
    Decision. earlier_reads: of each earlier opening of the test, when (ISO 8601) and for which solutions.
    break_even: with a price only. skills: of fine-tuned candidates that were checked. shortened: of those whose prompts
    were shortened.
    more, closed_book: where they were measured. suspicious: rows whose answers a person should read. hardest: the
    answer that is wrong most often, as a noun phrase. notes: whole sentences that a reader must not miss.
    judge: where the task's metric is one, as it was held against people.
    invention: of finalists that were asked what cannot be answered. injections: of those that were asked with orders
    planted in what they read. citing: how candidates name their sources. searches: the ways to find passages on
    train, and sentences about those that were not tried. search_failures: why finalists that retrieve are wrong on
    dev. abstain: the answer for that, as the task names it; else empty. teacher: what the teacher reaches on dev,
    where it was asked. taught: of candidates that learnt answers which are not the user's. proofs: on dev, of
    candidates that have to show their gain, against the best of their family that was built before. checks_said:
    whole sentences about checks of finalists: what kept one from being made, or limits it. go_on: the command with
    a budget for all that the budget kept out; empty where it kept out nothing.
    """

    metric: MetricInfo
    candidates: tuple[Candidate, ...]
    comparisons: tuple[Comparison, ...]
    against_floor: tuple[Comparison, ...]
    floors: tuple[str, ...]
    n_dev: int
    n_test: int
    minimum_detectable_difference: float
    test_reads: int
    models: tuple[str, ...] = ()
    contenders: tuple[str, ...] = ()
    earlier_reads: tuple[tuple[str, tuple[str, ...]], ...] = ()
    has_corpus: bool = False
    has_labels: bool = False
    has_schema: bool = False
    target: float | None = None
    margin: float = MARGIN
    model: str = ""
    larger: str = ""
    frequent: str = ""
    diagnosis: tuple[Diagnosis, ...] = ()
    diagnosed: str = ""
    skipped: tuple[Skipped, ...] = ()
    left_early: tuple[LeftEarly, ...] = ()
    break_even: tuple[BreakEven, ...] = ()
    skills: tuple[Skills, ...] = ()
    shortened: tuple[Shortened, ...] = ()
    more: MoreExamples | None = None
    closed_book: ClosedBook | None = None
    suspicious: tuple[str, ...] = ()
    hardest: str | None = None
    notes: tuple[str, ...] = ()
    judge: JudgeCheck | None = None
    invention: tuple[Invention, ...] = ()
    injections: tuple[Injected, ...] = ()
    citing: tuple[Citing, ...] = ()
    search_failures: tuple[SearchFailure, ...] = ()
    searches: tuple[SearchWay, ...] = ()
    searches_not_tried: tuple[str, ...] = ()
    abstain: str = ""
    checks_said: tuple[str, ...] = ()
    go_on: str = ""
    teacher: Score | None = None
    taught: tuple[Taught, ...] = ()
    proofs: tuple[Comparison, ...] = ()

    # ---- candidates ----------------------------------------------------------------------------

    @property
    def several(self) -> bool:
        """Whether the task names several models."""
        return len(self.models) > 1

    @property
    def models_by_cost(self) -> tuple[str, ...]:
        """The models, cheapest first: by the price of their cheapest tested candidate where every tested one has a
        price, else in the task's order. A model without a tested candidate comes last."""
        tested = [c for c in self.candidates if c.family != "baseline" and c.test is not None]
        priced = [(c.model, c.cost_per_1k_usd) for c in tested if c.cost_per_1k_usd is not None]
        if not self.several or len(priced) < len(tested):
            return self.models

        def cheapest(model: str) -> float:
            return min((usd for of, usd in priced if of == model), default=math.inf)

        return tuple(sorted(self.models, key=cheapest))  # stable

    @property
    def by_cost(self) -> list[Candidate]:
        """All candidates, baselines first, then by model, family, tokens and name; never by a measured time.

        An output token counts as three input tokens, a usual ratio of prices.
        """
        models = self.models_by_cost
        order = {"baseline": -1, **{family: place for place, family in enumerate(FAMILIES)}}

        def cost(c: Candidate) -> tuple[int, str, int, float, str]:
            model, _ = self.group_of(c)
            known = models.index(model) if model in models else len(models)
            place = -1 if c.family == "baseline" else known
            return place, model, order[c.family], c.tokens_in + 3 * c.tokens_out, c.name

        return sorted(self.candidates, key=cost)

    def group_of(self, candidate: Candidate) -> tuple[str, Family]:
        """Its model, where there are several, and its family: what is shipped or passed over as one."""
        return candidate.model if self.several else "", candidate.family

    def groups(self, on: SetName) -> list[list[Candidate]]:
        """The language-model candidates whose scores on that set count, by group, cheapest first."""
        return [list(members) for _, members in itertools.groupby(self.rated(on), key=self.group_of)]

    def rated(self, on: SetName) -> list[Candidate]:
        """The language-model candidates whose scores on that set count, cheapest first."""
        early = {one.name for one in self.left_early}
        models = [c for c in self.by_cost if c.family != "baseline"]
        if on == "test":
            return [c for c in models if c.test is not None]
        return [c for c in models if c.name not in early]

    def named(self, name: str | None) -> Candidate | None:
        return next((c for c in self.candidates if c.name == name), None)

    def long_form_of(self, name: str | None) -> str | None:
        """The candidate whose prompt the one of that name shortens; None where it shortens none."""
        return next((s.tuned for s in self.shortened if s.short is not None and s.short == name), None)

    def may_be_best(self, candidate: Candidate) -> bool:
        """Whether it is a contender."""
        return not self.contenders or candidate.name in self.contenders

    def floor(self, on: SetName) -> Candidate | None:
        """The best baseline that looks at no input; of equals, the first. None where there is none."""
        known = [c for name in self.floors if (c := self.named(name)) is not None and _known(c, on)]
        return best_of(known, on) if known else None

    def learners(self, on: SetName) -> list[Candidate]:
        """The baselines that learn from examples without a language model, the best first."""
        known = [c for c in self.candidates if c.family == "baseline" and c.name not in self.floors and _known(c, on)]
        return sorted(known, key=lambda c: -score_of(c, on).mean)

    # ---- comparisons ---------------------------------------------------------------------------

    def contrast(self, a: Candidate, b: Candidate, on: SetName) -> Comparison:
        """b minus a, whichever way round the two were compared. Raises ValueError when they were not."""
        for c in (*self.comparisons, *self.against_floor):
            if c.set == on and (c.a, c.b) == (a.name, b.name):
                return c
            if c.set == on and (c.a, c.b) == (b.name, a.name):
                return turned(c)
        raise ValueError(f"{a.name} and {b.name} were not compared on {on}")

    def asked(self, a: Candidate, b: Candidate) -> bool:
        """Whether their comparison on the test was named before the test was opened: else nothing is said of it."""
        return "baseline" in (a.family, b.family) or self.may_be_best(a) or self.may_be_best(b)

    def shown_above(self, a: Candidate, b: Candidate, on: SetName) -> bool:
        """Whether b is shown to be better than a. Of a pair that was not named, it is not."""
        if not self.asked(a, b):
            return False
        against = self.contrast(a, b, on)
        return against.difference > 0 and against.p_corrected < ALPHA

    def family_size(self, against: Comparison) -> int:
        """How many comparisons were corrected together with this one: the finalists', or those with its baseline."""
        bases = {c.name for c in self.candidates if c.family == "baseline"} & {against.a, against.b}
        alike = [c for c in self.against_floor if bases & {c.a, c.b}] if bases else self.comparisons
        return max(1, sum(c.set == against.set for c in alike))

    # ---- what was not tried --------------------------------------------------------------------

    @property
    def kept_out(self) -> list[Skipped]:
        """Strategies that the budget, the memory or a fault kept from being tried; those that matter come first."""
        kept = [s for s in self.skipped if s.reason in ("budget", "memory", "fault")]
        return sorted(kept, key=lambda s: not s.matters)

    @property
    def left_out(self) -> list[Skipped]:
        """Strategies that the task allows and that --only left out; one that is off by default is not meant."""
        left_out = (s for s in self.skipped if s.reason == "plan" and "left out by --only" in s.why)
        return [s for s in left_out if self.has_corpus or "rag" not in s.family]

    @property
    def cut(self) -> list[Candidate]:
        """Candidates whose building was stopped before its end."""
        return [c for c in self.by_cost if c.cut is not None]

    @property
    def causes(self) -> tuple[Diagnosis, ...]:
        """The diagnosis; without what rests on elimination where something was not tried that might have fixed it.

        That is a strategy that matters, or a whole family that the task allows and that was skipped because enough was
        reached or --only left it out. Of several models, what was tried with the one that was diagnosed counts.
        """
        subject = self.named(self.diagnosed)
        model = subject.model if self.several and subject is not None else ""
        tried = {c.family for c in self.candidates if not model or c.model == model}
        enough = [s for s in self.skipped if s.reason == "target" and (self.has_corpus or "rag" not in s.family)]
        untried = [s for s in (*enough, *self.left_out) if s.family not in tried]
        missing = [*untried, *(s for s in self.kept_out if s.matters)]
        if any(not model or s.model in ("", model) for s in missing):
            return tuple(d for d in self.diagnosis if d.fixed)
        return self.diagnosis


def score_of(candidate: Candidate, on: SetName) -> Score:
    """Raises ValueError when the candidate has no test score."""
    if on == "dev":
        return candidate.dev
    if candidate.test is None:
        raise ValueError(f"{candidate.name} has no test score")
    return candidate.test


def best_of(candidates: Sequence[Candidate], on: SetName) -> Candidate:
    """The highest mean; of equals, the first."""
    return max(candidates, key=lambda c: score_of(c, on).mean)


def costs_less(a: Candidate, b: Candidate) -> bool:
    """Whether a request of a is known to cost less than one of b, by 5 % or more: measured seconds are that noisy."""
    if a.cost_per_1k_usd is None or b.cost_per_1k_usd is None or b.cost_per_1k_usd == 0:
        return False
    return a.cost_per_1k_usd <= 0.95 * b.cost_per_1k_usd


def turned(c: Comparison) -> Comparison:
    """The same comparison, seen from the other side."""
    return replace(c, a=c.b, b=c.a, difference=-c.difference, low=-c.high, high=-c.low)


def _known(candidate: Candidate, on: SetName) -> bool:
    return on == "dev" or candidate.test is not None
