"""How far a judge agrees with people, and the rule that was fixed before: below LEAST_KAPPA it is secondary.

Kappa is quadratically weighted, on the scores as they are: 1 - E(x - y)^2 / E(x - y')^2, where y' is drawn without
regard to x. Where both sides only say right or wrong, this is Cohen's kappa. Agreement is the share of answers for
which both are on the same side of one half.
Sources: Cohen, A coefficient of agreement for nominal scales (1960), and Weighted kappa (1968); Fleiss and Cohen, The
equivalence of weighted kappa and the intraclass correlation coefficient (1973).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rung.evaluation.intervals import ALPHA, wilson

if TYPE_CHECKING:
    import numpy as np

LEAST_KAPPA = 0.60
"""Below it the judge is secondary. Landis and Koch (1977) call 0.61 and more substantial agreement."""

_DRAWS = 4_000


@dataclass(frozen=True)
class Agreement:
    """Of a judge with people, over n answers. kappa: None where one side gives every answer the same score."""

    n: int
    share: float
    share_low: float
    share_high: float
    kappa: float | None
    kappa_low: float | None
    kappa_high: float | None

    @property
    def suffices(self) -> bool:
        """Whether the judge's scores may count, by the rule: kappa is at least LEAST_KAPPA."""
        return self.kappa is not None and self.kappa >= LEAST_KAPPA


def agreement(human: Sequence[float], judge: Sequence[float], *, seed: int = 0) -> Agreement:
    """Of scores in [0, 1] of the same answers, shape (n,), n >= 1.

    The interval of the share is Wilson's; that of kappa is a percentile bootstrap over answers, of draws in which it is
    defined.
    """
    import numpy as np

    x, y = np.asarray(human, float), np.asarray(judge, float)
    same = int(((x >= 0.5) == (y >= 0.5)).sum())
    low, high = wilson(same, len(x))
    found = weighted_kappa(x, y)
    ends: tuple[float | None, float | None] = (None, None)
    if found is not None:
        drawn = np.random.default_rng(seed).integers(0, len(x), (_DRAWS, len(x)))  # (draws, n)
        kappas = _kappas(x[drawn], y[drawn])
        known = kappas[np.isfinite(kappas)]
        ends = (float(np.quantile(known, ALPHA / 2)), float(np.quantile(known, 1 - ALPHA / 2)))
    return Agreement(len(x), same / len(x), low, high, found, *ends)


def weighted_kappa(x: np.ndarray, y: np.ndarray) -> float | None:
    """Quadratically weighted, of scores, shape (n,). None where neither side's scores vary, or one's do not."""
    import numpy as np

    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(_kappas(x[None], y[None])[0])


def _kappas(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of each row, shape (rows, n); NaN where it is not defined."""
    import numpy as np

    apart = x.mean(1) - y.mean(1)
    together = ((x - x.mean(1, keepdims=True)) * (y - y.mean(1, keepdims=True))).mean(1)
    expected = x.var(1) + y.var(1) + apart**2
    with np.errstate(all="ignore"):
        return np.where(expected > 0, 2 * together / expected, np.nan)
