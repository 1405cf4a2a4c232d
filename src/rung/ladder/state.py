"""What every stage of a run needs: the task as loaded, the folder, the plan, and who is told."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rung import runs
from rung.errors import BudgetSpent
from rung.evaluation.statistics import units_of
from rung.ladder.spending import Spending
from rung.records import read_json
from rung.types import Constraint, Document, Family, Metric, Prediction, Retriever, Score, Solution, Split, Task

if TYPE_CHECKING:
    from rung.models.local import LocalModel
    from rung.ladder.plan import Plan
    from rung.trials.workshop import Materials


class Listener(Protocol):
    """Who is told what happens. Every method returns at once; none may raise."""

    def say(self, text: str) -> None: ...
    def planned(self, folder: Path, plan: Mapping[str, Any], checks: Mapping[str, Any]) -> None: ...
    def progress(self, what: str, share: float, left_s: float | None) -> None: ...
    def tried(self, name: str, family: Family, dev: Score, seconds: float) -> None: ...
    def skipped(self, name: str, why: str) -> None: ...


@dataclass(frozen=True)
class RunOptions:
    """How to run.

    out: the run folder. only: strategies to try. strict: data warnings stop the run. exhaustive: every strategy that
    applies is built in full, whatever it can be expected to bring.
    """

    out: Path | None = None
    only: tuple[str, ...] = ()
    strict: bool = False
    exhaustive: bool = False


@dataclass(frozen=True)
class Built:
    """A solution with its answers to dev. left: why dev was left early (it is then no candidate for the test)."""

    solution: Solution
    predictions: tuple[Prediction, ...]
    dev: Score
    left: str | None = None


@dataclass(frozen=True)
class Run:
    """What every stage needs. spent_before_s, calls_before: by earlier commands on the same folder."""

    folder: Path
    task: Task
    split: Split
    model: LocalModel
    metric: Metric
    passages: tuple[Document, ...]
    retriever: Retriever | None
    plan: Plan
    listener: Listener
    exhaustive: bool = False
    started: float = field(default_factory=time.monotonic)
    spent_before_s: float = 0.0
    calls_before: int = 0
    constraint: Constraint | None = None

    @property
    def spent_s(self) -> float:
        return self.spent_before_s + time.monotonic() - self.started

    @property
    def limit_s(self) -> float | None:
        """Seconds that the budget allows in all, from its minutes or from its dollars and the machine's price."""
        budget, price = self.task.budget, self.task.price
        limits = [budget.minutes * 60] if budget.minutes is not None else []
        if budget.usd is not None and price is not None and price.usd_per_hour:
            limits.append(budget.usd / price.usd_per_hour * 3600)
        return min(limits) if limits else None

    def settled(self) -> dict[str, str | None]:
        """What commands so far settled: solution -> why it was skipped, None where it was built; in that order."""
        events = (e for e in runs.events(self.folder) if e["event"] in ("built", "skipped"))
        return {e["solution"]: e.get("why") for e in events}

    def over_budget(
        self, seconds: float, calls: int, built: Mapping[str, Built], family: Family | None = None
    ) -> str | None:
        """Why that much more, and then the test, would pass the budget; None where it would not.

        The test: of a candidate of each family that is built, and of that one.
        """
        if self.limit_s is not None and self.spent_s + seconds + self.plan.test_seconds > self.limit_s:
            return f"about {seconds / 60:.1f} more minutes would pass the budget"
        most = self.task.budget.calls
        families = {b.solution.family for b in built.values()} | ({family} if family else set())
        spent = self.calls_before + self.model.answered + len(families) * len(self.split.test)
        if most is not None and spent + calls > most:
            return f"about {calls} more answers would pass the budget of {most}, those of the test included"
        return None

    def materials(
        self,
        folder: Path,
        built: Mapping[str, Built],
        left: Sequence[float] = (0.0,),
        *,
        spending: Spending | None = None,
        stops: bool = True,
    ) -> Materials:
        """What a strategy builds from. left: estimated seconds of this step and of those after it.

        spending: of this step. stops: whether the work is given up, by BudgetSpent, when it would leave no time for the
        test.
        """
        from rung.engine.memory import give_back
        from rung.trials.workshop import Materials

        give_back()  # what the stage before has freed
        rag = built.get("rag")
        step = spending or Spending(self.model)

        def tell(what: str, share: float) -> None:
            step.keep()
            if stops and self.over_budget(0.0, 0, built):
                raise BudgetSpent(f"the budget was spent while {what}")
            # The estimate of this step, corrected by how far it has come.
            here = step.seconds / share * (1 - share) if share > 0.15 else max(0.0, left[0] - step.seconds)
            self.listener.progress(what, share, here + sum(left[1:]) + self.plan.test_seconds)

        return Materials(
            task=self.task,
            train=self.split.train,
            dev=self.split.dev,
            model=self.model,
            metric=self.metric,
            folder=folder,
            decoding=self.plan.decoding,
            constraint=self.constraint,
            passages=self.passages,
            retriever=self.retriever,
            compute_tokens=self.plan.compute_tokens,
            learning_rate=self._learning_rate(),
            shown_passages=rag.solution.retriever.k if rag and rag.solution.retriever else None,
            exhaustive=self.exhaustive,
            groups=self.split.groups,
            tell=tell,
        )

    def _learning_rate(self) -> float | None:
        """The one that was chosen already, by the training or the pilots before it."""
        places = [self.folder / "solutions" / "lora", *sorted((self.folder / "pilot").glob("pilot-*"))]
        histories = [read_json(place / "training" / "history.json") for place in places]
        return next((h["learning_rate"] for h in histories if h is not None), None)

    def score(self, predictions: Sequence[Prediction]) -> Score:
        """The mean with its interval; groups of the split are the unit."""
        from rung.evaluation.statistics import score

        groups = units_of([p.id for p in predictions], self.split.groups)
        return score([p.score or 0.0 for p in predictions], groups=groups, seed=self.task.seed)
