"""The learning curve of fine-tuning: what training on more examples can be expected to reach, from a few small ones.

A pilot is a short training on part of train. What the whole training, or more labels, would bring is extrapolated by
doublings. Errors fall by a power of the number of examples (Hestness et al., Deep learning scaling is predictable,
empirically, 2017), so each further doubling is taken to divide them by at least one, and at most by what the last
doubling divided them by. Where an answer counts only as a whole, these are the errors of its words: of answers of
fifteen words few are right as a whole until nearly all words are (Schaeffer et al., Are emergent abilities a mirage?,
2023). The interval adds the uncertainty of the dev examples, by the Bayesian bootstrap (Rubin 1981).
Numbers in, numbers out: knows nothing of models and trains nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rung.diagnosis.lenient import bare
from rung.types import Example, MetricInfo, Prediction

LEAST = 12
"""Training on fewer examples teaches nothing that could be measured."""

_RESAMPLES = 4_000
_COUNTED = 20_000  # answers at most whose words are counted
_UNSEEN = 0.5  # as in Jeffreys' prior of a rate


def sizes(train: int) -> tuple[int, ...]:
    """How many examples the pilots train on: a quarter and, where everything is tried, a half."""
    return tuple(n for n in (train // 4, train // 2) if n >= LEAST)


def curve(
    points: Sequence[tuple[int, Sequence[float]]],
    train: int,
    seed: int,
    *,
    parts: float = 1.0,
    groups: Sequence[str] | None = None,
) -> dict[str, Any]:
    """A learning curve and what it promises, as a record of plain values.

    points: (examples trained on, scores of the same dev examples in [0, 1]), fewest examples first. The first point is
    the prompt that training starts from, with 0 examples, where it is known. train: how many examples there are.
    parts: how many parts of an answer must all be right for it to count. groups: the group of each dev example; None
    makes each its own. `expected` is the dev mean after training on all examples, `more` what as many examples again
    would add. Each has a 95 % interval over the dev examples and over how much a doubling brings.
    """
    import numpy as np

    scores = np.array([list(values) for _, values in points], dtype=float)  # (points, n)
    seen = [n for n, _ in points]
    random = np.random.default_rng(seed)
    # Half an example that only the last point gets right: that none was fixed so far does not mean that none ever is.
    unseen = np.zeros((len(points), 1))
    unseen[-1] = 1.0
    names = list(groups) if groups is not None else list(range(scores.shape[1]))
    unit = {name: i for i, name in enumerate(dict.fromkeys(names))}
    drawn = random.standard_gamma([1.0] * len(unit) + [_UNSEEN], (_RESAMPLES, len(unit) + 1))
    weights = drawn[:, [*(unit[name] for name in names), len(unit)]]  # a group is drawn as a whole
    weights /= weights.sum(axis=1, keepdims=True)
    means = np.concatenate([scores, unseen], axis=1) @ weights.T  # (points, resamples)
    least = _UNSEEN / (scores.shape[1] + 1)
    errors = np.log(1.0 - np.clip(means, least, 1.0 - least) ** (1.0 / parts))  # of one part of an answer
    steps = random.uniform(0.0, 1.0, _RESAMPLES) * np.minimum(0.0, _per_doubling(errors, seen))
    remaining = math.log2(train / seen[-1]) if 0 < seen[-1] < train else 0.0  # doublings up to all of train

    def gain(doublings: float) -> Any:
        return (1.0 - np.exp(errors[-1] + steps * doublings)) ** parts - (1.0 - np.exp(errors[-1])) ** parts

    expected = np.clip(means[-1] + gain(remaining), 0.0, 1.0)
    more = np.minimum(gain(remaining + 1.0) - gain(remaining), 1.0 - means[-1])
    return {
        "points": [{"examples": n, **_mean_of(values, groups)} for n, values in zip(seen, scores, strict=True)],
        "screen": int(scores.shape[1]),
        "train": train,
        "per_doubling": float(max(0.0, _per_doubling(scores.mean(axis=1), seen))),
        "expected": _summary(expected),
        "more": {"examples": train, **_summary(more)},
    }


def parts(metric: MetricInfo, train: Sequence[Example]) -> float:
    """How many words an answer has on average, where one wrong word makes it wrong; else 1."""
    if not metric.whole_answer or not train:
        return 1.0
    some = train[:: -(-len(train) // _COUNTED)]
    return max(1.0, sum(len(bare(e.output).split()) for e in some) / len(some))


def scores_of(predictions: Sequence[Prediction], ids: Sequence[str]) -> list[float]:
    """The scores of the examples with these ids, in that order."""
    by_id: Mapping[str, Prediction] = {p.id: p for p in predictions}
    return [by_id[i].score or 0.0 for i in ids]


def _per_doubling(means: Any, seen: Sequence[int]) -> Any:
    """What the last doubling of the examples brought. From 0 examples to the first pilot counts as two doublings."""
    if len(seen) < 2:
        return means[0] * 0.0
    doublings = math.log2(seen[-1] / seen[-2]) if seen[-2] else 2.0
    return (means[-1] - means[-2]) / doublings


def _mean_of(values: Any, groups: Sequence[str] | None) -> dict[str, float]:
    from rung.evaluation.statistics import score

    found = score(values, groups=groups)
    return {"mean": found.mean, "low": found.low, "high": found.high}


def _summary(values: Any) -> dict[str, float]:
    import numpy as np

    low, middle, high = np.percentile(values, [2.5, 50, 97.5])
    return {"mean": float(middle), "low": float(low), "high": float(high)}
