"""What is at hand while a run climbs: small values, each with its own purpose."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rung.errors import BudgetSpent
from rung.evaluation.statistics import units_of
from rung.ladder.ledger import Ledger, Meter
from rung.ladder.options import Listener
from rung.ladder.plan import LATENCY_INPUTS, Plan
from rung.resume import record_of
from rung.runs import Files
from rung.strategies import STRATEGIES
from rung.trials.workshop import Inputs, Limits, Tools, Workshop
from rung.types import FAMILIES, Family, LeftEarly, Prediction, Score, SealedTest, Skipped, Solution

if TYPE_CHECKING:
    from rung.models.metering import Metered

TRAINING_PART = 0.8
"""Of the time that is there, for one training with its learning-rate sweep."""

GRACE = 1.3
"""Times its end: when a step that should have come to an end is given up."""

PROMPT_SHARE = 0.4
"""Of a limited budget, for prompts, as long as something dearer could still be tried."""


@dataclass(frozen=True)
class Built:
    """A solution with its answers to dev.

    left: why dev was not answered to its end; the solution is then no candidate for the test. seconds_per_answer:
    as timed on dev, None where too few were answered at once. cut: why its training was stopped before its end.
    """

    solution: Solution
    predictions: tuple[Prediction, ...]
    dev: Score
    left: str | None = None
    seconds_per_answer: float | None = None
    cut: str | None = None

    @property
    def family(self) -> Family:
        return self.solution.family


@dataclass
class Climbed:
    """What the climb has brought so far: what was built, in order, and what was not tried, and why."""

    built: dict[str, Built] = field(default_factory=dict)
    skipped: dict[str, Skipped] = field(default_factory=dict)

    def whole(self, family: Family | None = None) -> dict[str, Built]:
        """The solutions that answered all of dev, of one family or of all."""
        return {n: b for n, b in self.built.items() if b.left is None and family in (None, b.family)}

    def best(self, family: Family | None = None) -> str | None:
        """The best on dev of those that answered all of it; of equals, the first built."""
        whole = self.whole(family)
        return max(whole, key=lambda name: whole[name].dev.mean, default=None)

    def best_of_families(self) -> list[str]:
        """The best of each family that has one, cheapest family first."""
        return [name for family in FAMILIES if (name := self.best(family)) is not None]

    @property
    def left_early(self) -> tuple[LeftEarly, ...]:
        return tuple(LeftEarly(name, b.left) for name, b in self.built.items() if b.left is not None)


@dataclass(frozen=True)
class RunState:
    """A run in progress: where it lies, what the user brought, the sealed test, the tools, the plan and the ledger."""

    folder: Path
    inputs: Inputs
    test: SealedTest
    tools: Tools
    model: Metered
    plan: Plan
    ledger: Ledger
    listener: Listener
    exhaustive: bool = False

    @property
    def files(self) -> Files:
        return Files(self.folder)

    def score(self, predictions: Sequence[Prediction]) -> Score:
        """The mean with its interval; groups of the split are the unit."""
        from rung.evaluation.statistics import score

        groups = units_of([p.id for p in predictions], self.inputs.groups)
        return score([p.score or 0.0 for p in predictions], groups=groups, seed=self.inputs.task.seed)

    # ---- the budget ------------------------------------------------------------------------

    def reserve(self, climbed: Climbed, *families: Family | None) -> tuple[float, int]:
        """(seconds, answers) that the final test of what is built will take: the best of each family.

        families: of what is about to be built, too; None counts for nothing.
        """
        names = climbed.best_of_families()
        each = [climbed.built[name].seconds_per_answer or self.plan.answer_seconds for name in names]
        for _ in set(families) - {None, *(climbed.built[name].family for name in names)}:
            each.append(max([*each, self.plan.answer_seconds]))
        return sum(each) * (len(self.test) + LATENCY_INPUTS), len(each) * len(self.test)

    def over_budget(self, climbed: Climbed, seconds: float, calls: int, family: Family | None = None) -> str | None:
        """Reason why so much more, and then the test, would exceed the budget; None where it would not."""
        reserved_s, reserved_calls = self.reserve(climbed, family)
        return self.ledger.exceeded_by(seconds, calls, reserved_s=reserved_s, reserved_calls=reserved_calls)

    # ---- a workshop ------------------------------------------------------------------------

    def workshop(
        self,
        folder: Path,
        climbed: Climbed,
        meter: Meter,
        *,
        family: Family | None = None,
        stops: bool = True,
        ends_s: float | None = None,
    ) -> Workshop:
        """What a strategy or an experiment works with.

        family: of what is being built; its test is reserved too. stops: whether the work is given up, by BudgetSpent,
        when it would leave no time for the test. ends_s: seconds of the run at which choices inside the step have to
        come to an end, and, with some grace, the step itself; None: when the budget is spent.
        """

        def seconds_left() -> float | None:
            left = self.ledger.seconds_left(self.reserve(climbed, family)[0])
            if ends_s is None or left is None:
                return left
            return min(left, ends_s - self.ledger.spent.seconds)

        # A training that the budget ends has to answer dev once more, to be judged with what it has.
        judging = len(self.inputs.dev) if family in ("fine-tune", "rag+fine-tune") else 0
        timed = [b.seconds_per_answer or 0.0 for b in climbed.built.values()]
        judging_s = judging * max([self.plan.answer_seconds, *timed])

        def tell(what: str, share: float) -> None:
            meter.keep()
            late = ends_s is not None and self.ledger.spent.seconds > GRACE * ends_s
            if stops and (late or self.over_budget(climbed, judging_s, judging, family)):
                raise BudgetSpent(f"the budget was spent while {what}")
            here = meter.seconds / share * (1 - share) if share > 0.15 else None
            self.listener.progress(what, share, here)

        rate, chosen_for = self._learning_rate()
        retrieving = climbed.built.get(climbed.best("rag") or "")
        spec = retrieving.solution.retriever if retrieving is not None else None
        return Workshop(
            inputs=self.inputs,
            tools=replace(self.tools, tell=tell),
            limits=Limits(
                training_tokens=self._training_tokens(climbed),
                planned_tokens=self.plan.training_tokens,
                exhaustive=self.exhaustive,
                seconds_left=seconds_left,
            ),
            folder=folder,
            decoding=self.plan.decoding,
            learning_rate=rate,
            learning_rate_from=chosen_for,
            passages_shown=spec.k if spec is not None else None,
            index_kind=spec.kind if spec is not None else None,
        )

    def _training_tokens(self, climbed: Climbed) -> int:
        """What one training may put through the network: as planned, but no more than the time that is there."""
        left = self.ledger.seconds_left(self.reserve(climbed, "fine-tune")[0])
        if left is None:
            return self.plan.training_tokens
        answering = 2 * len(self.inputs.dev) * self.plan.tuned_answer_seconds  # the interim looks
        affordable = int(max(0.0, TRAINING_PART * left - answering) * self.plan.speed.train)
        return min(self.plan.training_tokens, affordable)

    def _learning_rate(self) -> tuple[float | None, str]:
        """The one that was chosen already for adapters, by the trainings or the pilots before, and for what."""
        trained = [self.files.solution(name) for name in STRATEGIES] + sorted(self.files.piloted.glob("pilot-*"))
        for folder in trained:
            history = record_of(folder / "training" / "history.json")
            if "learning_rate" in history and history.get("probed", True) and not history.get("all_weights"):
                piloted = folder.parent == self.files.piloted
                of = f"the pilot on {folder.name.removeprefix('pilot-')} examples" if piloted else folder.name
                return float(history["learning_rate"]), f"as chosen for {of}"
        return None, ""


def tidy(folder: Path) -> None:
    """Removes optimiser states and the adapters of other epochs once a solution stands."""
    for path in (folder / "training").glob("lr-*"):
        shutil.rmtree(path, ignore_errors=True)
