"""The pilot: a short fine-tuning on part of train, as the intervention for behaviour, and what it promises.

With two sizes or more it is a learning curve. What the whole training, or more labels, would bring is extrapolated
by doublings: errors fall by a power of the examples (Hestness et al., Deep learning scaling is predictable,
empirically, 2017), so from here on a doubling is taken to divide them by at least one and at most by what the last one
divided them by. Where an answer counts only as a whole, they are the errors of its words: of answers of fifteen words
few are right as a whole until nearly all words are (Schaeffer et al., Are emergent abilities a mirage?, 2023). The
interval adds what the examples that were looked at leave open, by the Bayesian bootstrap (Rubin 1981). Closed book:
it sees no passages, so that what it mends is behaviour and not knowledge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rung.diagnosis.lenient import bare
from rung.strategies.fine_tuning import pilot
from rung.trials.workshop import Materials, read_predictions
from rung.types import Example, Prediction

LEAST = 12
"""Below so many examples a training shows nothing."""

WHOLE = frozenset({"exact_match", "json_match"})
"""Metrics by which one wrong word makes an answer wrong."""

_RESAMPLES = 4_000
_UNSEEN = 0.5  # as in Jeffreys' prior of a rate


def sizes(train: int) -> tuple[int, ...]:
    """How many examples the pilots see: a quarter and, where everything is tried, a half."""
    return tuple(n for n in (train // 4, train // 2) if n >= LEAST)


def run_pilot(materials: Materials, folder: Path, count: int) -> list[Prediction]:
    """Its answers to the piloted examples. Every stage is kept in the folder, so a killed one goes on."""
    pilot(replace(materials, folder=folder / f"pilot-{count}"), count)
    return pilot_answers(folder, count)


def pilot_answers(folder: Path, count: int) -> list[Prediction]:
    """What the pilot on so many examples answered, as `run_pilot` left it in the folder."""
    return read_predictions(folder / f"pilot-{count}" / "predictions.dev.jsonl")


def curve(
    points: Sequence[tuple[int, Sequence[float]]],
    train: int,
    seed: int,
    *,
    parts: float = 1.0,
    groups: Sequence[str] | None = None,
) -> dict[str, Any]:
    """A learning curve and what it promises, as a record of plain values.

    points: (examples seen, scores of the same dev examples), fewest first; the first is the prompt that training starts
    from, which has seen none. train: how many examples there are. parts: how many parts of an answer must be right for
    it to count. groups: of each dev example; None makes each its own. `expected`: dev mean after training on all of
    them, `more`: what as many examples again would add; each with a 95 % interval, over the dev examples and over how
    much a doubling brings.
    """
    import numpy as np

    scores = np.array([list(values) for _, values in points], dtype=float)  # (points, n)
    seen = [n for n, _ in points]
    random = np.random.default_rng(seed)
    # Half an example that only the last point gets right: none seen to be mended does not mean that none ever is.
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
    left = math.log2(train / seen[-1]) if 0 < seen[-1] < train else 0.0

    def gain(doublings: float) -> Any:
        return (1.0 - np.exp(errors[-1] + steps * doublings)) ** parts - (1.0 - np.exp(errors[-1])) ** parts

    expected = np.clip(means[-1] + gain(left), 0.0, 1.0)
    more = np.minimum(gain(left + 1.0) - gain(left), 1.0 - means[-1])
    return {
        "points": [{"examples": n, **_mean_of(values, groups)} for n, values in zip(seen, scores, strict=True)],
        "screen": int(scores.shape[1]),
        "train": train,
        "per_doubling": float(max(0.0, _per_doubling(scores.mean(axis=1), seen))),
        "expected": _told(expected),
        "more": {"examples": train, **_told(more)},
    }


def parts(metric: str, train: Sequence[Example]) -> float:
    """How many words an answer has on average, where it counts only as a whole; else 1."""
    if metric not in WHOLE or not train:
        return 1.0
    return max(1.0, sum(len(bare(e.output).split()) for e in train) / len(train))


def scores_of(predictions: Sequence[Prediction], ids: Sequence[str]) -> list[float]:
    """Scores of those examples, in that order."""
    by_id: Mapping[str, Prediction] = {p.id: p for p in predictions}
    return [by_id[i].score or 0.0 for i in ids]


def _per_doubling(means: Any, seen: Sequence[int]) -> Any:
    """What the last doubling of the examples brought. From none to the first pilot counts as two doublings."""
    if len(seen) < 2:
        return means[0] * 0.0
    doublings = math.log2(seen[-1] / seen[-2]) if seen[-2] else 2.0
    return (means[-1] - means[-2]) / doublings


def _mean_of(values: Any, groups: Sequence[str] | None) -> dict[str, float]:
    from rung.evaluation.statistics import score

    found = score(values, groups=groups)
    return {"mean": found.mean, "low": found.low, "high": found.high}


def _told(values: Any) -> dict[str, float]:
    import numpy as np

    low, middle, high = np.percentile(values, [2.5, 50, 97.5])
    return {"mean": float(middle), "low": float(low), "high": float(high)}
