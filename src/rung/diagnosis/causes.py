"""All experiments of a run as causes: interventions, pilots, and the solutions that were built.

Each experiment gives one share of what the base gets wrong (net of the placebo and of what it breaks). Experiments
overlap: demos and fine-tuning may fix the same answer. So the shares are attributed one after the other, the largest
proven one first. Each failed example is given to one cause; a later cause keeps the part of its share that lies in
examples no earlier cause took, and its interval shrinks by the same factor. The shares add up to at most 1.

What no cause takes is divided by elimination: where the answer may be worked out from the input, reasoning or the
model's size is missing. Where it cannot, and no passage was there to read it from, knowledge is. Where passages fixed
a part, the rest needs both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rung.diagnosis.evidence import KNOWLEDGE, LABEL_NOISE
from rung.diagnosis.learning_curve import parts
from rung.evaluation.metrics import load_metric
from rung.evaluation.scorer import Scorer
from rung.types import Comparison, Diagnosis, Example, Family, MetricInfo

LEADS = 0.2
"""A cause that an experiment fixes by this share leads before what nothing fixed."""

MANY_PARTS = 4
"""From so many words on, an answer may be fixed in part."""

_NOTHING = 1e-9  # a share that is nothing but rounding

CONVENTION = "convention"
AT_HAND = (
    "nothing that was tried fixed it; by its words, the answer may follow from the input alone, which was not tested"
)
"""What is known of a wrong answer that could be copied or computed from its input (see `lenient.derivable`)."""

RETRIEVAL = "retrieval"
REASONING = "reasoning"

Scores = Mapping[str, float]
"""Example id -> score in [0, 1]."""


@dataclass(frozen=True)
class Tried:
    """A built solution that answered all of dev.

    scores: its dev scores, or nearness (see `nearness`). brought: ids of the examples that the search brought a passage
    which holds the answer, however passages are cut (`answer_places.brought`); None where it does not retrieve.
    """

    name: str
    family: Family
    scores: Scores
    brought: Collection[str] | None = None


def nearness(metric: MetricInfo, train: Sequence[Example]) -> Callable[[str, Sequence[str]], float] | None:
    """(answer, references) -> how near it comes, where the metric wants all of many words right; None otherwise.

    By such a metric nothing is fixed until everything is, so what a solution fixes is counted in words instead.
    """
    return Scorer(load_metric("token_f1", Path())).one if parts(metric, train) >= MANY_PARTS else None


def all_causes(
    record: Mapping[str, Any],
    built: Sequence[Tried],
    pilot: tuple[int, Scores] | None,
    *,
    seed: int,
    groups: Mapping[str, str] | None = None,
    by_elimination: bool = True,
) -> tuple[Diagnosis, ...]:
    """The causes of what the diagnosed solution got wrong on dev, the leading one first; shares add up to at most 1.

    record: of the diagnosis. built: what was built, the diagnosed base among it; of a family, the best on dev is used.
    pilot: (examples it trained on, its scores of some of dev). groups: example id -> group; examples of one group are
    one unit. by_elimination: whether to name a cause of what nothing fixed; not where a family that could matter was
    not tried. Nothing is named so either where the diagnosis had no wrong answer to ask again.

    Two parts of one cause may stand in two rows, one that was fixed and one that nothing fixed.
    """
    experiments = _Experiments(record, built, pilot, seed, groups or {})
    causes = _attributed(experiments.effects(), experiments.missing)
    rest = _eliminated(record, causes) if by_elimination and experiments.asked_again else []
    leading = [d for d in causes if d.low > 0 and d.share >= LEADS]
    others = [d for d in (*causes, *rest) if d not in leading]
    return (*sorted(leading, key=lambda d: -d.share), *sorted(others, key=lambda d: -d.share))


# ---- effects --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Effect:
    """What one experiment says of one cause: its share of what the base misses, and where.

    fixed: example id -> the part of what the base misses in it that the experiment fixed, in [0, 1], for the examples
    it was tried on.
    """

    cause: str
    share: float
    low: float
    high: float
    evidence: str
    fixed: Mapping[str, float]


@dataclass(frozen=True)
class _Experiments:
    """What `all_causes` is given."""

    record: Mapping[str, Any]
    built: Sequence[Tried]
    pilot: tuple[int, Scores] | None
    seed: int
    groups: Mapping[str, str]

    @property
    def base(self) -> Scores:
        return {b.name: b.scores for b in self.built}[self.record["base"]]

    @property
    def missing(self) -> dict[str, float]:
        """Example id -> what the base misses in it."""
        return {i: 1.0 - score for i, score in self.base.items()}

    @property
    def asked_again(self) -> bool:
        """Whether there were wrong answers for the diagnosis to ask again: else nothing was tried in vain."""
        return self.record["failed"] > 0 and sum(self.missing.values()) > 0

    def effects(self) -> list[_Effect]:
        """The experiment with the largest share for each cause."""
        largest: dict[str, _Effect] = {}
        for effect in (*self._of_interventions(), *self._of_solutions()):
            if effect.share > 0 and (effect.cause not in largest or effect.share > largest[effect.cause].share):
                largest[effect.cause] = effect
        return list(largest.values())

    def _of_interventions(self) -> list[_Effect]:
        """What the diagnosis tried, without observed signs that prove nothing; nothing of it where the base is poor."""
        record = self.record
        if record["poor"]:
            return []
        rows = [c for c in record["causes"] if c["net_of_placebo"] or c["cause"] == LABEL_NOISE]
        for pair in record["combinations"]:
            rows.append({**pair, "cause": "+".join(pair["causes"]), "evidence": "fixed by both at once"})
        failed = [e["id"] for e in record["examples"] if e["failed"]]
        found = [self._of_row(row, failed) for row in rows]
        missed = self._missed_by_the_search()
        if missed is None:
            return found
        # Gold passages fix these too. They belong to the search, and the rest to knowledge.
        return [_without(e, missed, self.missing) if e.cause == KNOWLEDGE else e for e in found] + [missed]

    def _of_row(self, row: Mapping[str, Any], failed: Sequence[str]) -> _Effect:
        fixed = {i: float(i in row["ids"]) for i in failed}
        return _Effect(row["cause"], row["share"], max(0.0, row["low"]), min(1.0, row["high"]), row["evidence"], fixed)

    def _missed_by_the_search(self) -> _Effect | None:
        """The failed examples that gold passages fix and whose gold passages the best search did not bring.

        None without such examples, and where gold passages did harm: they are then evidence for no cause.
        """
        if _did_harm(self.record, KNOWLEDGE):
            return None
        rows = [r for r in self.record["examples"] if r["failed"] and KNOWLEDGE in r["outcomes"]]
        searching = [(b.scores, b.brought) for b in self.built if b.brought is not None]
        if not searching or not rows:
            return None
        scores, brought = max(searching, key=lambda pair: _mean(pair[0].values()))
        right = self.record["dev"]["right_from"]
        now = {r["id"]: float(scores[r["id"]] >= right) for r in rows}
        gold = {r["id"]: now[r["id"]] if r["id"] in brought else float(r["outcomes"][KNOWLEDGE]) for r in rows}
        net = self._net(now, gold)
        tried = len(rows) / self.record["failed"]
        share, low, high = (tried * max(0.0, x) for x in (net.difference, net.low, net.high))
        fixed = {r["id"]: 0.0 for r in self.record["examples"] if r["failed"]}
        fixed |= {i: max(0.0, gold[i] - now[i]) for i in gold}
        return _Effect(RETRIEVAL, share, low, high, "fixed by passages that the search did not find", fixed)

    def _of_solutions(self) -> list[_Effect]:
        """What passages and what training fix: the main effects of two factors.

        With all four cells (neither, passages, training, both), the effect of passages is the mean of what they add
        alone and beside training, and likewise for training. The two effects add up to what both fix together. Where
        a cell is missing, the comparisons that can be made are used.
        Source: Box, Hunter & Hunter, Statistics for Experimenters (2005), ch. 5, factorial designs.
        """
        base, tuned, rag, both = self.base, self._best("fine-tune"), self._best("rag"), self._best("rag+fine-tune")
        training = "fine-tuning"
        if tuned is None and self.pilot is not None:
            tuned, training = self.pilot[1], f"a pilot of fine-tuning on {self.pilot[0]} examples"
        if both is not None and tuned is None and rag is None:
            cause = f"{KNOWLEDGE}+{CONVENTION}"
            return self._main_effect(cause, [(base, both, "passages and fine-tuning together")])
        return [
            *self._main_effect(
                KNOWLEDGE, [(base, rag, "retrieved passages"), (tuned, both, "passages beside fine-tuning")]
            ),
            *self._main_effect(CONVENTION, [(base, tuned, training), (rag, both, "fine-tuning beside passages")]),
        ]

    def _main_effect(self, cause: str, pairs: Iterable[tuple[Scores | None, Scores | None, str]]) -> list[_Effect]:
        """The mean of the differences that can be made, as a share of what the base misses; none where none can."""
        made = [(before, after, name) for before, after, name in pairs if before is not None and after is not None]
        befores, afters, names = ([pair[0] for pair in made], [pair[1] for pair in made], [pair[2] for pair in made])
        ids = [i for i in self.base if all(i in scores for scores in (*befores, *afters))]
        missing = sum(self.missing[i] for i in ids) / max(1, len(ids))
        if not made or missing <= 0:
            return []
        before, after = ({i: _mean(s[i] for s in cells) for i in ids} for cells in (befores, afters))
        net = self._net(before, after)
        low, share, high = (min(1.0, max(0.0, x / missing)) for x in (net.low, net.difference, net.high))
        fixed = {i: min(1.0, max(0.0, after[i] - before[i]) / self.missing[i]) for i in ids if self.missing[i] > 0}
        return [_Effect(cause, share, low, high, f"fixed by {', and by '.join(names)}", fixed)]

    def _best(self, family: Family) -> Scores | None:
        """The scores of the best solution of a family on dev; None where none was built."""
        own = [b.scores for b in self.built if b.family == family]
        return max(own, key=lambda scores: _mean(scores.values()), default=None)

    def _net(self, before: Scores, after: Scores) -> Comparison:
        """The paired difference after - before, on the same examples in the same order."""
        from rung.evaluation.statistics import compare, units_of

        groups, a, b = units_of(list(before), self.groups), list(before.values()), list(after.values())
        return compare("before", "after", a, b, "dev", groups=groups, seed=self.seed)


# ---- attribution ----------------------------------------------------------------------------


def _attributed(effects: Sequence[_Effect], missing: Scores) -> list[Diagnosis]:
    """Each failed example given to one cause: the largest proven one first, the unproven ones last."""
    causes: list[Diagnosis] = []
    taken: _Effect | None = None
    for effect in sorted(effects, key=lambda e: (e.low <= 0, -e.share)):
        own = effect if taken is None else _without(effect, taken, missing)
        if own.share > _NOTHING:
            causes.append(Diagnosis(own.cause, own.share, own.low, own.high, own.evidence))
        taken = own if taken is None else _both(taken, own)
    return causes


def _without(effect: _Effect, taken: _Effect, missing: Scores) -> _Effect:
    """The part of the effect that lies in what an earlier one did not take; its share and interval shrink alike.

    The part is measured on the examples that both were tried on: of each, at most the whole can be taken. Where the
    effect fixed none of these, the two are taken to be independent. The share is never more than the earlier one left.
    """
    if effect.share <= 0:
        return effect
    rest = max(0.0, 1.0 - taken.share)
    fixed = {i: min(part, 1.0 - taken.fixed.get(i, 0.0)) for i, part in effect.fixed.items()}
    both = [i for i in effect.fixed if i in taken.fixed]
    whole = sum(missing.get(i, 1.0) * effect.fixed[i] for i in both)
    free = sum(missing.get(i, 1.0) * fixed[i] for i in both)
    factor = min(free / whole if whole > 0 else rest, rest / effect.share)
    share, low, high = (factor * x for x in (effect.share, effect.low, effect.high))
    return replace(effect, share=share, low=low, high=high, fixed=fixed)


def _both(taken: _Effect, own: _Effect) -> _Effect:
    """What two effects take together. own: without what the other takes, so that the two add up."""
    fixed = {i: min(1.0, part + own.fixed[i]) for i, part in taken.fixed.items() if i in own.fixed}
    return replace(taken, share=taken.share + own.share, fixed=fixed)


# ---- by elimination -------------------------------------------------------------------------


def _eliminated(record: Mapping[str, Any], causes: Sequence[Diagnosis]) -> list[Diagnosis]:
    """Causes of what nothing fixed, by whether the answer may be worked out from the input, as far as its words tell.

    The interval of the rest is composed of those of the causes, as of independent estimates (Zou & Donner, 2008).
    """
    rest = max(0.0, 1.0 - sum(d.share for d in causes))
    least = max(0.0, rest - math.hypot(*(d.high - d.share for d in causes)))
    most = min(1.0, rest + math.hypot(*(d.share - d.low for d in causes)))
    with_gold = [record["interventions"].get(n, {}) for n in (KNOWLEDGE, RETRIEVAL) if not _did_harm(record, n)]
    read = max((change.get("failed", 0) for change in with_gold), default=0) >= record["failed"] / 2
    helped = next((d.cause for d in causes if d.cause in (KNOWLEDGE, RETRIEVAL) and d.low > 0), None)
    if read and helped is not None:
        outside = f"{helped}+{REASONING}"
        why = "the answer does not stand in the input, and the passages that hold it did not yet fix it"
    elif read:
        outside, why = REASONING, "nothing that was tried fixed it, not even the passages that hold the answer"
    else:
        outside, why = KNOWLEDGE, "nothing that was tried fixed it, and the answer does not stand in the input"
    inside = record["derivable"]
    found = [
        Diagnosis(
            REASONING,
            rest * inside["share"],
            least * inside["low"],
            most * inside["high"],
            AT_HAND,
            fixed=False,
        ),
        Diagnosis(
            outside,
            rest * (1 - inside["share"]),
            least * (1 - inside["high"]),
            most * (1 - inside["low"]),
            why,
            fixed=False,
        ),
    ]
    found = [d for d in found if d.share > _NOTHING]
    if len(found) == 2 and outside == REASONING:
        evidence = "nothing that was tried fixed it, neither where passages hold the answer nor where the input may"
        return [Diagnosis(REASONING, rest, least, most, evidence, fixed=False)]
    return found


def _did_harm(record: Mapping[str, Any], name: str) -> bool:
    """Whether an intervention broke so many right answers that it says nothing of causes."""
    return bool(record["interventions"].get(name, {}).get("harmful"))


def _mean(values: Iterable[float]) -> float:
    scores = list(values)
    return sum(scores) / max(1, len(scores))
