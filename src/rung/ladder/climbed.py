"""What a climb has brought so far: the solutions that were built, with their answers to dev, and what was not tried."""

from __future__ import annotations

from dataclasses import dataclass, field

from rung.errors import RungError
from rung.strategies import long_form
from rung.types import FAMILIES, Comparison, Family, LeftEarly, Prediction, Score, Skipped, Solution

Group = tuple[str, Family]
"""(name of a model, family): the best of each group is a finalist."""


@dataclass(frozen=True)
class Built:
    """A solution with its answers to dev.

    left: why it is no candidate for the test: dev was not answered to its end, or, where it is unproven, dev does not
    show the gain that it has to prove. seconds_per_answer: as timed on dev, None where too few were answered at once.
    cut: why its training was stopped before its end.
    usd_per_answer, most_usd: for tokens, at the price of its model: of a mean answer, and of the dearest that may come.
    versus: of one that has to prove its gain, it minus the best of its family that was built before it, on dev.
    """

    solution: Solution
    predictions: tuple[Prediction, ...]
    dev: Score
    left: str | None = None
    seconds_per_answer: float | None = None
    cut: str | None = None
    usd_per_answer: float = 0.0
    most_usd: float = 0.0
    unproven: bool = False
    versus: Comparison | None = None

    @property
    def family(self) -> Family:
        return self.solution.family

    @property
    def group(self) -> Group:
        return self.solution.model, self.family

    @property
    def tokens(self) -> tuple[float, float]:
        """(in, out), means per answer."""
        n = max(1, len(self.predictions))
        return sum(p.tokens_in for p in self.predictions) / n, sum(p.tokens_out for p in self.predictions) / n

    @property
    def uncorrected(self) -> float:
        """The mean of the scores of its answers to dev, as the metric gave them."""
        return round(sum(p.score or 0.0 for p in self.predictions) / max(1, len(self.predictions)), 9)

    @property
    def tokens_cached(self) -> float:
        """Of the input tokens, those that the provider read from its cache: a mean per answer."""
        return sum(p.tokens_cached for p in self.predictions) / max(1, len(self.predictions))


@dataclass
class Climbed:
    """What the climb has brought so far: what was built, in order, and what was not tried, and why.

    models: their names, cheapest first. enough: that the target is reached, in words. failed: the first fault.
    """

    models: tuple[str, ...] = ()
    built: dict[str, Built] = field(default_factory=dict)
    skipped: dict[str, Skipped] = field(default_factory=dict)
    enough: str | None = None
    failed: RungError | None = None

    def whole(self, family: Family | None = None, model: str | None = None) -> dict[str, Built]:
        """The candidates: solutions that answered all of dev and proved what they had to, of one family or all, and of
        one model or all."""
        return {
            n: b
            for n, b in self.built.items()
            if b.left is None and family in (None, b.family) and model in (None, b.solution.model)
        }

    def best(self, family: Family | None = None, model: str | None = None) -> str | None:
        """The best on dev of those that answered all of it; of equals, the first built.

        Means that a judge's errors take to the end of the scale are told apart by the scores themselves.
        """
        whole = self.whole(family, model)
        return max(whole, key=lambda name: (whole[name].dev.mean, whole[name].uncorrected), default=None)

    def up_to(self, model: str) -> tuple[str, ...]:
        """The models that cost less than this one, and itself."""
        cheaper = self.models[: self.models.index(model)] if model in self.models else ()
        return (*cheaper, model)

    def best_up_to(self, model: str) -> str | None:
        """The best of this model and of those that cost less: what more must beat. A dearer one may be equalled."""
        names = [name for m in self.up_to(model) if (name := self.best(model=m)) is not None]
        return max(names, key=lambda name: self.built[name].dev.mean, default=None)

    def best_of_groups(self, model: str | None = None) -> list[str]:
        """The best of each model and family that has one: the cheapest model first, and of it the cheapest family."""
        models = self.models or tuple(dict.fromkeys(b.solution.model for b in self.built.values()))
        wanted = [m for m in models if model in (None, m)]
        return [name for m in wanted for family in FAMILIES if (name := self.best(family, m)) is not None]

    def to_test(self) -> list[str]:
        """The finalists as far as they are known: the best of each group, shorter prompts and their long forms."""
        short = [name for name in self.whole() if long_form(name) is not None]
        return list(dict.fromkeys([*self.best_of_groups(), *short, *(n for s in short if (n := long_form(s)))]))

    @property
    def missing(self) -> list[Skipped]:
        """What was kept from being tried although it could have changed the verdict."""
        return [s for s in self.skipped.values() if s.matters]

    @property
    def left_early(self) -> tuple[LeftEarly, ...]:
        return tuple(LeftEarly(n, b.left, b.unproven) for n, b in self.built.items() if b.left is not None)
