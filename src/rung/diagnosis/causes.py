"""All experiments of a run, summed up as causes: interventions, pilots, and what each built solution mended.

What a solution mends is counted net: what it broke is subtracted, so a coin thrown again mends nothing. What remains
wrong under the best solution is no cause yet: where the answer can be worked out from the input, reasoning or the
model's size stands in the way; where it cannot, and no passage was there to read it from, knowledge is missing. Where
passages were there and mend a part, the rest wants both: the passages, and a model that can use them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rung.diagnosis.diagnose import causes
from rung.diagnosis.pilot import parts
from rung.types import Comparison, Diagnosis, Example, Metric

LEADS = 0.2
"""A cause that an experiment mends by this share leads before what nothing mended."""

MANY_PARTS = 4
"""From so many words on, an answer may be mended in part."""

Scores = Mapping[str, float]
"""Example id -> score."""


def nearness(metric: str, train: Sequence[Example]) -> Metric | None:
    """How near an answer comes, where the task's metric wants all of many words right; None: the scores tell.

    By such a metric nothing is mended until everything is. What a solution mends is then counted in words.
    """
    from rung.evaluation.metrics import token_f1

    return token_f1 if parts(metric, train) >= MANY_PARTS else None


def all_causes(
    record: Mapping[str, Any],
    built: Mapping[str, Scores],
    pilot: tuple[int, Scores] | None,
    *,
    seed: int,
    groups: Mapping[str, str] | None = None,
    found: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
) -> tuple[Diagnosis, ...]:
    """The causes of what the diagnosed solution got wrong on dev, the leading one first.

    record: of the diagnosis. built: solution -> its dev scores, or nearness. pilot: (examples it saw, the same of some
    of dev). groups: example id -> group; examples of one are one unit. found: solution that
    retrieves -> example id -> the passages that the search brought it.
    """
    made = _Experiments(record, built, seed, groups or {})
    mended = [] if record["poor"] else [*causes(record, proven=True), *made.missed(found or {})]
    tuned = built.get("lora") or (pilot[1] if pilot else None)
    told = "fine-tuning" if "lora" in built else f"a pilot of fine-tuning on {pilot[0]} examples" if pilot else ""
    if tuned is not None:
        mended += made.mended("convention", made.base, tuned, told)
    if "rag" in built:
        mended += made.mended("knowledge", made.base, built["rag"], "retrieved passages")
    if "rag_lora" in built:
        both = built["rag_lora"]
        if tuned is not None:
            mended += made.mended("knowledge", tuned, both, "passages beside fine-tuning")
        if "rag" in built:
            mended += made.mended("convention", built["rag"], both, "fine-tuning beside passages")
    largest: dict[str, Diagnosis] = {}
    for one in mended:
        if one.share > 0 and one.share > largest.get(one.cause, Diagnosis("", 0, 0, 0)).share:
            largest[one.cause] = one
    left = made.unmended(largest)
    shown = sorted((d for d in largest.values() if d.low > 0 and d.share >= LEADS), key=lambda d: -d.share)
    merged = [_joined(d, left.pop(d.cause, None)) for d in shown]
    rest = [d for d in largest.values() if d not in shown]
    rest = [_joined(d, left.pop(d.cause, None)) for d in rest] + list(left.values())
    return (*merged, *sorted(rest, key=lambda d: -d.share))


@dataclass(frozen=True)
class _Experiments:
    """What `all_causes` is given, and what it says net of chance."""

    record: Mapping[str, Any]
    built: Mapping[str, Scores]
    seed: int
    groups: Mapping[str, str]

    @property
    def base(self) -> Scores:
        return self.built[self.record["base"]]

    def mended(self, cause: str, before: Scores, after: Scores, evidence: str) -> list[Diagnosis]:
        """The share of what the base misses that one solution gets right and another does not, net."""
        ids = [i for i in self.base if i in before and i in after]
        missing = 1.0 - sum(self.base[i] for i in ids) / max(1, len(ids))
        if not ids or missing <= 0:
            return []
        net = self._net([before[i] for i in ids], [after[i] for i in ids], ids)
        low, share, high = (min(1.0, max(0.0, x / missing)) for x in (net.low, net.difference, net.high))
        return [Diagnosis(cause, share, low, high, f"mended by {evidence}")]

    def missed(self, found: Mapping[str, Mapping[str, Sequence[str]]]) -> list[Diagnosis]:
        """The share of sampled wrong answers that gold passages mend, where the search did not bring these."""
        rows = [r for r in self.record["examples"] if r["failed"] and r["gold_passages"]]
        if not found or not rows:
            return []
        best = max(found, key=lambda name: _mean(self.built[name].values()))
        right = self.record["dev"]["right_from"]
        searched = [float(self.built[best][r["id"]] >= right) for r in rows]
        gold = [
            now if set(r["gold_passages"]) & set(found[best][r["id"]]) else float(r["outcomes"]["knowledge"])
            for r, now in zip(rows, searched, strict=True)
        ]
        net = self._net(searched, gold, [r["id"] for r in rows])
        tried = len(rows) / self.record["failed"]
        low, share, high = (tried * max(0.0, x) for x in (net.low, net.difference, net.high))
        return [Diagnosis("retrieval", share, low, high, "mended by passages that the search did not find")]

    def unmended(self, mended: Mapping[str, Diagnosis]) -> dict[str, Diagnosis]:
        """What stays wrong under the best solution, by whether the answer can be worked out from the input."""
        record = self.record
        if _mean(self.base.values()) >= 1.0:
            return {}
        best = max(self.built.values(), key=lambda scores: _mean(scores.values()))
        (under,) = self.mended("", self.base, best, "")
        # These mend without any of the solutions that were built.
        others = [d for c, d in mended.items() if c in ("format", "inconsistency", "reasoning", "retrieval")]
        beside = sum(d.share for d in others if d.low > 0)
        least, remaining, most = (max(0.0, 1.0 - x - beside) for x in (under.high, under.share, under.low))
        if remaining <= 0:
            return {}
        tried = record["interventions"].get("knowledge", {}).get("failed", 0)
        read = record["failed"] and tried >= record["failed"] / 2
        at_hand, low, high = (record["derivable"][key] for key in ("share", "low", "high"))
        inside = Diagnosis(
            "reasoning",
            remaining * at_hand,
            least * low,
            most * high,
            "nothing mended it, although the answer can be worked out from the input",
            mended=False,
        )
        shown = next((d for d in mended.values() if d.cause in ("knowledge", "retrieval") and d.low > 0), None)
        if read and shown is not None:
            told = "the answer does not stand in the input, and the passages that hold it did not yet mend it"
            cause = f"{shown.cause}+reasoning"
        elif read:
            told = "nothing mended it, not even the passages that hold the answer"
            cause = "reasoning"
        else:
            told = "nothing mended it, and the answer does not stand in the input"
            cause = "knowledge"
        outside = Diagnosis(cause, remaining * (1 - at_hand), least * (1 - high), most * (1 - low), told, mended=False)
        left = [_joined(outside, inside)] if cause == inside.cause else [inside, outside]
        return {d.cause: d for d in left if d.share > 0}

    def _net(self, before: Sequence[float], after: Sequence[float], ids: Sequence[str]) -> Comparison:
        from rung.evaluation.statistics import compare, units_of

        groups = units_of(ids, self.groups)
        return compare("before", "after", before, after, "dev", groups=groups, seed=self.seed)


def _joined(one: Diagnosis, other: Diagnosis | None) -> Diagnosis:
    """Two parts of one cause that concern different examples."""
    if other is None:
        return one
    larger = one if one.share >= other.share else other
    low, share, high = (
        min(1.0, a + b) for a, b in ((one.low, other.low), (one.share, other.share), (one.high, other.high))
    )
    return Diagnosis(one.cause, share, low, high, larger.evidence, larger.mended)


def _mean(values: Any) -> float:
    scores: Sequence[float] = list(values)
    return sum(scores) / len(scores)
