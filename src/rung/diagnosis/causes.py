"""All experiments of a run, summed up as causes: interventions, pilots, and what each built solution mended.

What a solution mends is counted net: what it broke is subtracted, so a coin thrown again mends nothing. What remains
wrong under the best solution is no cause yet: where the answer can be worked out from the input, reasoning or the
model's size stands in the way; where it cannot, and no passage was there to read it from, knowledge is missing. Where
passages were there and mend a part, the rest wants both: the passages, and a model that can use them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rung.diagnosis.diagnose import causes
from rung.diagnosis.pilot import parts
from rung.types import Diagnosis, Example, Metric

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
    record: Mapping[str, Any], built: Mapping[str, Scores], pilot: tuple[int, Scores] | None, *, seed: int
) -> tuple[Diagnosis, ...]:
    """The causes of what the diagnosed solution got wrong on dev, the leading one first.

    record: of the diagnosis. built: solution -> its dev scores, or nearness. pilot: (examples it saw, the same of some
    of dev).
    """
    base = built[record["base"]]
    mended = [] if record["poor"] else [d for d in causes(record, proven=True)]
    tuned = built.get("lora") or (pilot[1] if pilot else None)
    told = "fine-tuning" if "lora" in built else f"a pilot of fine-tuning on {pilot[0]} examples" if pilot else ""
    if tuned is not None:
        mended += _mended("convention", base, base, tuned, told, seed)
    if "rag" in built:
        mended += _mended("knowledge", base, base, built["rag"], "retrieved passages", seed)
    if "rag_lora" in built:
        both = built["rag_lora"]
        if tuned is not None:
            mended += _mended("knowledge", base, tuned, both, "passages beside fine-tuning", seed)
        if "rag" in built:
            mended += _mended("convention", base, built["rag"], both, "fine-tuning beside passages", seed)
    largest: dict[str, Diagnosis] = {}
    for found in mended:
        if found.share > 0 and found.share > largest.get(found.cause, Diagnosis("", 0, 0, 0)).share:
            largest[found.cause] = found
    left = _unmended(record, built, largest, seed)
    shown = sorted((d for d in largest.values() if d.low > 0 and d.share >= LEADS), key=lambda d: -d.share)
    merged = [_joined(d, left.pop(d.cause, None)) for d in shown]
    rest = [d for d in largest.values() if d not in shown]
    rest = [_joined(d, left.pop(d.cause, None)) for d in rest] + list(left.values())
    return (*merged, *sorted(rest, key=lambda d: -d.share))


def _mended(cause: str, base: Scores, before: Scores, after: Scores, evidence: str, seed: int) -> list[Diagnosis]:
    """The share of what the base misses that one solution gets right and another does not, net, with its interval."""
    from rung.evaluation.statistics import compare

    ids = [i for i in base if i in before and i in after]
    missing = 1.0 - sum(base[i] for i in ids) / max(1, len(ids))
    if not ids or missing <= 0:
        return []
    found = compare("before", "after", [before[i] for i in ids], [after[i] for i in ids], "dev", seed=seed)
    low, share, high = (min(1.0, max(0.0, x / missing)) for x in (found.low, found.difference, found.high))
    return [Diagnosis(cause, share, low, high, f"mended by {evidence}")]


def _unmended(
    record: Mapping[str, Any], built: Mapping[str, Scores], mended: Mapping[str, Diagnosis], seed: int
) -> dict[str, Diagnosis]:
    """What stays wrong under the best solution, by whether the answer can be worked out from the input."""
    base = built[record["base"]]
    missing = 1.0 - _mean(base.values())
    if missing <= 0:
        return {}
    best = max(built.values(), key=lambda scores: _mean(scores.values()))
    (under,) = _mended("", base, base, best, "", seed)
    # These mend without any of the solutions that were built.
    beside = sum(d.share for d in mended.values() if d.cause in ("format", "inconsistency", "reasoning") and d.low > 0)
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
    found = [_joined(outside, inside)] if cause == inside.cause else [inside, outside]
    return {d.cause: d for d in found if d.share > 0}


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
