"""Intervals of a mean that a biased judge scored: how often they hold the mean that people would give.

A judge that prefers long answers scores 200 answers; people have scored 20 to 100 others. Each line is a way to make a
95 % interval from both, and how often it held the true mean in 1,000 simulations, with its mean width. The answers that
people scored come from the same solution as the others, or from a weaker one.

    python bench/judges.py                  # what rung does, and what it leaves out
    python bench/judges.py --libraries      # evalstats, cje-eval and ppi-python too, as far as they are installed
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rung.evaluation.intervals import wilson
from rung.evaluation.judge.agreement import agreement
from rung.evaluation.judge.powered import powered, student
from rung.types import Score

Array = np.ndarray
Interval = tuple[float, float]
Method = Callable[[Array, Array, Array], Interval]
"""(scores by people, scores by the judge of the same answers, scores by the judge of the others) -> interval."""

SIMULATIONS = 1_000
JUDGED = 200
PEOPLE = (20, 50, 100)
SHIFTS = {"the same": 0.0, "a weaker one": 0.5}
"""Where the answers come from that people scored -> how much better the others are, in standard deviations."""
KINDS = {
    "graded": "graded in quarters",
    "right": "right or wrong",
    "rare": "right or wrong, the judge seldom errs",
    "high": "graded in quarters, nearly all fully good, the judge seldom errs",
}
_HIGH = {(1.0, 1.0): 0.90, (0.75, 1.0): 0.04, (1.0, 0.75): 0.03, (0.0, 1.0): 0.02, (0.5, 0.25): 0.01}
"""(score by people, score by the judge) -> share of answers, in the world "high", whoever gave them."""


@dataclass(frozen=True)
class World:
    """How scores come about.

    kind: "graded" in quarters, "right" or wrong, "rare": right or wrong, where the judge errs on a tenth of the wrong
    answers alone, and on more of the long ones, or "high": as _HIGH says. likes_length: added to what the judge thinks
    of an answer, for each standard deviation of its length; people do not care. lenient: added to all.
    """

    kind: str
    likes_length: float = 0.15
    lenient: float = 0.12
    noise: float = 0.12

    def draw(self, random: np.random.Generator, n: int, shift: float = 0.0) -> tuple[Array, Array]:
        """Scores by people and by the judge, shape (n,) each. shift: how much better the answers are."""
        if self.kind == "high":
            pairs = np.array(list(_HIGH))[random.choice(len(_HIGH), n, p=list(_HIGH.values()))]  # (n, 2)
            return pairs[:, 0], pairs[:, 1]
        quality, length = random.normal(0.2 + shift, 1.0, n), random.normal(0.0, 1.0, n)
        if self.kind == "rare":
            right = quality > 0
            passes = right | (random.random(n) < 0.1 * np.exp(self.likes_length * length))
            return right.astype(float), passes.astype(float)
        share = 1 / (1 + np.exp(-1.5 * quality))
        people = share + random.normal(0, 0.08, n)
        judge = share + self.lenient + self.likes_length * length + random.normal(0, self.noise, n)
        if self.kind == "right":
            return (people > 0.5).astype(float), (judge > 0.5).astype(float)
        return np.round(4 * np.clip(people, 0, 1)) / 4, np.round(4 * np.clip(judge, 0, 1)) / 4

    @functools.cache  # noqa: B019
    def mean(self, shift: float) -> float:
        """The mean that people would give, by drawing two million."""
        return float(self.draw(np.random.default_rng(1), 2_000_000, shift)[0].mean())


def mean_of(scores: Array) -> Score:
    """A mean with its interval: Wilson's where all scores are right or wrong, else Student's."""
    mean = float(scores.mean())
    if np.isin(scores, (0.0, 1.0)).all():
        return Score(mean, *wilson(float(scores.sum()), len(scores)), len(scores))
    return Score(mean, *student(scores.tolist()), len(scores))


def naive(people: Array, judge: Array, others: Array) -> Interval:
    found = mean_of(others)
    return found.low, found.high


def people_alone(people: Array, judge: Array, others: Array) -> Interval:
    found = mean_of(people)
    return found.low, found.high


def rungs(people: Array, judge: Array, others: Array) -> Interval:
    found = powered(mean_of(others), (people - judge).tolist())
    return found.low, found.high


def tuned(people: Array, judge: Array, others: Array) -> Interval:
    """PPI++: the judge's weight has the smallest variance. Angelopoulos, Duchi and Zrnic (2023), with Student's t."""
    from scipy.stats import t

    n, many = len(people), len(others)
    of_judge = float(np.var(np.concatenate([judge, others]), ddof=1))
    weight = float(np.cov(people, judge)[0, 1]) / of_judge / (1 + n / many) if of_judge else 0.0
    weight = min(1.0, max(0.0, weight))
    rest = people - weight * judge
    middle = weight * float(others.mean()) + float(rest.mean())
    error = math.sqrt(weight**2 * float(others.var(ddof=1)) / many + float(rest.var(ddof=1)) / n)
    half = float(t.isf(0.025, n - 1)) * error
    return middle - half, middle + half


METHODS: dict[str, Method] = {
    "the judge alone (naive)": naive,
    "people alone": people_alone,
    "PPI++ with a tuned weight": tuned,
    "rung: PPI, weight 1, joined ends": rungs,
}


def libraries() -> dict[str, Method]:
    """What is installed of the three that were compared."""
    found: dict[str, Method] = {}
    if importlib.util.find_spec("ppi_py"):
        import ppi_py

        def ppi(weight: float | None) -> Method:
            def ends(people: Array, judge: Array, others: Array) -> Interval:
                low, high = ppi_py.ppi_mean_ci(people, judge, others, alpha=0.05, lam=weight)
                return float(np.ravel(low)[0]), float(np.ravel(high)[0])

            return ends

        found |= {"ppi-python, as it comes": ppi(None), "ppi-python, weight 1": ppi(1.0)}
    if importlib.util.find_spec("evalstats"):
        from evalstats import ppi as evalstats_ppi

        def evalstats(tune: bool, backend: str) -> Method:
            def ends(people: Array, judge: Array, others: Array) -> Interval:
                given = {"Y_lab": people, "Y_hat_lab": judge, "Y_hat_unlab": others, "rng": 0, "n_boot": 400}
                got = evalstats_ppi.correct(np.mean, power_tune=tune, backend=backend, compute_pvalue=False, **given)
                return float(got.ci_low), float(got.ci_high)

            return ends

        found["evalstats, as it comes"] = evalstats(True, "auto")
        found["evalstats, weight 1, analytic"] = evalstats(False, "analytic")
    if importlib.util.find_spec("cje"):
        from cje.array_api import calibrated_mean_ci

        def cje(people: Array, judge: Array, others: Array) -> Interval:
            labels = np.concatenate([people, np.full(len(others), np.nan)])
            low, high = calibrated_mean_ci(np.concatenate([judge, others]), labels).ci
            return float(low), float(high)

        found["cje-eval, as it comes"] = cje
    return found


def held(world: World, method: Method, n: int, shift: float, simulations: int = SIMULATIONS) -> tuple[float, float]:
    """(share of simulations whose interval holds the mean that people would give, mean width). n: scored by people."""
    random, truth = np.random.default_rng(2), world.mean(shift)
    inside, width = 0, 0.0
    for _ in range(simulations):
        people, judge = world.draw(random, n)
        low, high = method(people, judge, world.draw(random, JUDGED, shift)[1])
        inside += low <= truth <= high
        width += high - low
    return inside / simulations, width / simulations


def table(methods: dict[str, Method], simulations: int) -> list[str]:
    """Lines of the table: coverage in per cent and mean width, by world, origin and number of answers."""
    lines = []
    for kind, words in KINDS.items():
        for origin, shift in SHIFTS.items():
            lines += ["", f"{words}; people scored answers of {origin}", ""]
            lines.append("| interval | " + " | ".join(f"{n} scored" for n in PEOPLE) + " |")
            lines.append("|---|" + "---:|" * len(PEOPLE))
            for name, method in methods.items():
                cells = [held(World(kind), method, n, shift, simulations) for n in PEOPLE]
                lines.append(f"| {name} | " + " | ".join(f"{100 * c:.1f} % ({w:.2f})" for c, w in cells) + " |")
    return lines


def kappas() -> list[str]:
    """How wide the interval of kappa is, at the least number of scored answers and above."""
    lines = [
        "",
        "kappa of this judge (graded), one draw of each size",
        "",
        "| scored | kappa | interval |",
        "|---:|---:|---|",
    ]
    for n in PEOPLE:
        people, judge = World("graded").draw(np.random.default_rng(3), n)
        found = agreement(people.tolist(), judge.tolist())
        lines.append(f"| {n} | {found.kappa:.2f} | {found.kappa_low:.2f} to {found.kappa_high:.2f} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--libraries", action="store_true", help="the three libraries too, as far as installed")
    parser.add_argument("--simulations", type=int, default=SIMULATIONS)
    given = parser.parse_args(arguments)
    methods = METHODS | (libraries() if given.libraries else {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        print("\n".join([*table(methods, given.simulations), *kappas()]).strip())


if __name__ == "__main__":
    main()
