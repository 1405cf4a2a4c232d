"""What is at hand while a run climbs: small values, each with its own purpose."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.decision.figures import Scale
from rung.errors import BudgetSpent, RunError
from rung.evaluation.costs import request_usd
from rung.evaluation.statistics import units_of
from rung.ladder.climbed import Built, Climbed
from rung.ladder.ledger import Ledger, Meter, Spent
from rung.ladder.options import Listener
from rung.ladder.plan import Plan
from rung.records import from_record
from rung.resume import record_of
from rung.runs import Files
from rung.strategies import STRATEGIES
from rung.trials.workshop import Inputs, Limits, Tools, Workshop
from rung.types import (
    Family,
    MetricInfo,
    ModelSpec,
    Prediction,
    Price,
    RetrieverSpec,
    Score,
    SealedTest,
    candidate_name,
    model_of,
)

if TYPE_CHECKING:
    from rung.ladder.judging import HeldJudge
    from rung.models.metering import Metered

TRAINING_PART = 0.8
"""Of the time that is there, for one training with its learning-rate sweep."""

GRACE = 1.3
"""Times its end: when a step that should have come to an end is given up."""

LEAST_OF_A_STEP = 0.4
"""Of its estimated seconds, must be there for a step to be begun: choices and trainings can be cut."""

PROMPT_SHARE = 0.4
"""Of a limited budget, for prompts, as long as something dearer could still be tried."""

USD_SPARE = 1.1
"""Times the dollars of the answers to dev: what is kept for as many to the test, whose answers may be longer."""

_MOST_TOKENS = 4
"""Times the tokens of the longest prompt: what a call may be taken to read before it is made, by its bytes."""


@dataclass(frozen=True)
class RunState:
    """A run in progress as one of its models sees it.

    Shared by all models: where it lies, what the user brought, the sealed test, the ledger, the listener. Of this
    model: spec (as the task names it), tools, model, plan. home: whether the run began with it, so that its candidates
    are called by their strategies alone, and its records lie in the run folder itself. helpers: "teacher" and "judge",
    where the task names them. held: the judge, as it was held against people. engine_named: whether the command, and
    not the task, says what computes answers.
    """

    folder: Path
    inputs: Inputs
    test: SealedTest
    tools: Tools
    model: Metered
    plan: Plan
    ledger: Ledger
    listener: Listener
    exhaustive: bool = False
    engine_named: bool = False
    spec: ModelSpec = field(default_factory=lambda: ModelSpec("", ""))
    home: bool = True
    helpers: Mapping[str, Metered] = field(default_factory=dict)
    held: HeldJudge | None = None

    @property
    def asked(self) -> tuple[Metered, ...]:
        """What a stage may ask: the model, the teacher and the judge, each once."""
        return tuple(dict.fromkeys((self.model, *self.helpers.values())))

    @property
    def name(self) -> str:
        """The model's name in the task."""
        return self.spec.name

    @property
    def files(self) -> Files:
        return Files(self.folder, "" if self.home else self.name)

    @property
    def price(self) -> Price | None:
        """As the task gives it, else as the model knows it."""
        return self.spec.price or self.model.price

    def named(self, kind: str) -> str:
        """What a solution of this model is called. kind: the strategy, or the repair of one."""
        return kind if self.home else candidate_name(kind, self.name)

    def score(self, predictions: Sequence[Prediction]) -> Score:
        """The mean with its interval; groups of the split are the unit. A judge's errors are in both."""
        from rung.evaluation.statistics import score

        groups = units_of([p.id for p in predictions], self.inputs.groups)
        found = score([p.score or 0.0 for p in predictions], groups=groups, seed=self.inputs.task.seed)
        if self.held is None:
            return found
        return self.held.corrected(found, sum(p.error is None for p in predictions) / len(predictions))

    # ---- the budget ------------------------------------------------------------------------

    def usd_of_answers(self, predictions: Sequence[Prediction]) -> tuple[float, float]:
        """Dollars at this model's price of tokens for one more answer like these, and the most that one may cost.

        No prompt is taken to be cached. What a judge takes for its score is in both.
        """
        price, judge = self.price, self.plan.judging.usd if self.plan.judging is not None else 0.0
        if price is None or price.usd_per_hour is not None or not predictions:
            return judge, judge
        tokens_in, tokens_out = (sum(p.tokens_in for p in predictions), sum(p.tokens_out for p in predictions))
        usd = request_usd(price, tokens_in=tokens_in, tokens_cached=0.0, tokens_out=tokens_out, seconds=0.0)
        longest = _MOST_TOKENS * max(p.tokens_in for p in predictions)
        room = self.plan.decoding.max_new_tokens + self.model.thought_tokens
        most = request_usd(price, tokens_in=longest, tokens_cached=0.0, tokens_out=room, seconds=0.0)
        return usd / len(predictions) + judge, most + judge

    def reserve(self, climbed: Climbed, family: Family | None = None) -> Spent:
        """What the final test of what is built will take: the best of each group, of every model.

        family: of what is about to be built with this model, which counts too; None: nothing is.
        """
        best = [climbed.built[name] for name in climbed.to_test()]
        seconds = [built.seconds_per_answer or self.plan.answer_seconds for built in best]
        usd = [built.usd_per_answer for built in best]
        if family is not None and (self.name, family) not in {built.group for built in best}:
            own = [climbed.built[name] for name in climbed.best_of_groups(self.name)]
            seconds.append(max([*(b.seconds_per_answer or 0.0 for b in own), self.plan.answer_seconds]))
            usd.append(max((built.usd_per_answer for built in own), default=self.plan.answer_usd(self.price)))
        asked = len(self.test) + self.plan.timed
        more, floor = (self._samples, self.judged_baselines) if seconds else (Spent(), Spent())
        calls = len(seconds) * len(self.test) * (1 + (self.plan.judging.calls if self.plan.judging is not None else 0))
        paid = _for_test(sum(usd) * asked, best) + more.usd + floor.usd
        return Spent(sum(seconds) * asked + more.seconds + floor.seconds, calls + more.calls + floor.calls, paid)

    @property
    def judged_baselines(self) -> Spent:
        """What a judge that counts takes for the baselines' answers to the test."""
        if self.held is None or not self.held.check.primary or self.plan.judging is None:
            return Spent()
        return self.plan.judging.of_baselines(len(self.test))

    @property
    def _samples(self) -> Spent:
        """What more answers to the test take, where the task asks for them."""
        step = self.plan.consistency
        wanted = self.plan.samples_are_wanted and step.applies
        return Spent(step.seconds, step.calls, USD_SPARE * step.usd) if wanted else Spent()

    def keep_back_for_test(self, finalists: Sequence[Built]) -> None:
        """From now on, dollars are kept for the test alone: what is left beside them may be used to time finalists."""
        usd = sum(built.usd_per_answer for built in finalists)
        more = self._samples.usd + self.judged_baselines.usd
        self.ledger.keep_back(_for_test(usd * len(self.test), finalists) + more)

    def over_budget(
        self, climbed: Climbed, seconds: float, calls: int, family: Family | None = None, usd: float = 0.0
    ) -> str | None:
        """Reason why so much more, and then the test, would exceed the budget; None where it would not."""
        return self.ledger.exceeded_by(Spent(seconds, calls, usd), reserved=self.reserve(climbed, family))

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
        come to an end, and, with some grace, the step itself; None: when the budget is spent. While it is used, nothing
        is added to `climbed`.
        """
        reserved = self.reserve(climbed, family)

        def keep_back() -> None:
            self.ledger.keep_back(reserved.usd if stops else 0.0)

        def seconds_left() -> float | None:
            left = self.ledger.seconds_left(reserved.seconds)
            if ends_s is None or left is None:
                return left
            return min(left, ends_s - self.ledger.spent.seconds)

        # A training that the budget ends has to answer dev once more, to be judged with what it has.
        judging = len(self.inputs.dev) if family in ("fine-tune", "rag+fine-tune") else 0
        timed = [b.seconds_per_answer or 0.0 for b in climbed.whole(model=self.name).values()]
        judging_s = judging * max([self.plan.answer_seconds, *timed])
        judging_calls = judging * (1 + (self.plan.judging.calls if self.plan.judging is not None else 0))

        def tell(what: str, share: float) -> None:
            meter.keep()
            keep_back()  # the machine's hours have gone on
            late = ends_s is not None and self.ledger.spent.seconds > GRACE * ends_s
            if stops and (late or self.ledger.exceeded_by(Spent(judging_s, judging_calls), reserved=reserved)):
                raise BudgetSpent(f"the budget was spent while {what}")
            here = meter.seconds / share * (1 - share) if share > 0.15 else None
            self.listener.progress(what if self.home else f"{self.name}: {what}", share, here)

        keep_back()
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
            **self._known_before(climbed),
        )

    def _known_before(self, climbed: Climbed) -> dict[str, Any]:
        """Fields of a Workshop: what earlier strategies and experiments with this model found out."""
        rate, chosen_for = self._learning_rate()
        retrieving = climbed.built.get(climbed.best("rag", self.name) or "")
        prompting = climbed.built.get(climbed.best("prompt", self.name) or "")
        tuned = climbed.built.get(climbed.best("fine-tune", self.name) or "")
        return {
            "learning_rate": rate,
            "learning_rate_from": chosen_for,
            "best_prompt": prompting.solution if prompting is not None else None,
            "prompt_answers": prompting.predictions if prompting is not None else (),
            "best_tuned": tuned.solution if tuned is not None else None,
            "best_rag": retrieving.solution if retrieving is not None else None,
            "search": tuple(from_record(RetrieverSpec, spec) for spec in record_of(self.files.search).get("best", ())),
            "diagnosis": record_of(self.files.diagnosis),
        }

    def _training_tokens(self, climbed: Climbed) -> int:
        """What one training may put through the network: as planned, but no more than the time that is there."""
        left = self.ledger.seconds_left(self.reserve(climbed, "fine-tune").seconds)
        if left is None:
            return self.plan.training_tokens
        answering = 2 * len(self.inputs.dev) * self.plan.tuned_answer_seconds  # the interim looks
        affordable = int(max(0.0, TRAINING_PART * left - answering) * self.plan.speed.train)
        return min(self.plan.training_tokens, affordable)

    def _learning_rate(self) -> tuple[float | None, str]:
        """The one that was chosen already for adapters, by the trainings or the pilots before, and for what."""
        trained = [self.files.solution(self.named(kind)) for kind in STRATEGIES]
        for folder in trained + sorted(self.files.piloted.glob("pilot-*")):
            history = record_of(folder / "training" / "history.json")
            if "learning_rate" in history and history.get("probed", True) and not history.get("all_weights"):
                piloted = folder.parent == self.files.piloted
                of = f"the pilot on {folder.name.removeprefix('pilot-')} examples" if piloted else folder.name
                return float(history["learning_rate"]), f"as chosen for {of}"
        return None, ""


@dataclass(frozen=True)
class WholeRun:
    """A run in progress with all its models, cheapest first: one split, one sealed test, one ledger, one verdict.

    recorded: models.json as earlier commands left it.
    """

    states: tuple[RunState, ...]
    recorded: Mapping[str, Any] = field(default_factory=dict)

    @property
    def first(self) -> RunState:
        """Any of them, for what they share."""
        return self.states[0]

    @property
    def folder(self) -> Path:
        return self.first.folder

    @property
    def files(self) -> Files:
        """Of the run as a whole."""
        return Files(self.folder)

    @property
    def inputs(self) -> Inputs:
        return self.first.inputs

    @property
    def test(self) -> SealedTest:
        return self.first.test

    @property
    def metric(self) -> MetricInfo:
        return self.first.tools.scorer.metric

    @property
    def names(self) -> tuple[str, ...]:
        """Of the models."""
        return tuple(state.name for state in self.states)

    def of(self, model: str) -> RunState:
        """As the model of that name sees it; empty: the first one. Raises RunError where there is none of that name."""
        found = next((state for state in self.states if model in ("", state.name)), None)
        if found is None:
            raise RunError(f"{self.folder}: the task names no model {model}. Name it again, or go on with --again.")
        return found

    def of_candidate(self, name: str) -> RunState:
        """As the model of that candidate sees it."""
        return self.of(model_of(name) or next((s.name for s in self.states if s.home), ""))


def _for_test(usd: float, finalists: Sequence[Built]) -> float:
    """Dollars to keep for answers that cost so much by their means: some more, and the most that the last may cost.

    A call is only made where the most that it may cost is there.
    """
    return USD_SPARE * usd + max((built.most_usd for built in finalists), default=0.0)


def scale_of(run: RunState) -> Scale:
    """How scores of the run are written."""
    return Scale(run.tools.scorer.metric.right_or_wrong)


def tidy(folder: Path) -> None:
    """Removes optimiser states and the adapters of other epochs once a solution stands."""
    for path in (folder / "training").glob("lr-*"):
        shutil.rmtree(path, ignore_errors=True)
