"""What a strategy or an experiment works with: what the user brought, the tools, and what it may spend.

The test set is not part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.data.sampling import sample_of as sample_of
from rung.records import write_json
from rung.resume import record_of
from rung.retrieval import INDEXES
from rung.retrieval.library import Library
from rung.solutions.prompt_rendering import PASSAGE_TOKENS
from rung.types import (
    Constraint,
    Decoding,
    Document,
    Example,
    Model,
    Prediction,
    Preference,
    Query,
    Retriever,
    RetrieverSpec,
    Solution,
    Task,
    Tell,
)

if TYPE_CHECKING:
    from rung.data.fence import Fence
    from rung.evaluation.scorer import Scorer
    from rung.trials.trial import Executor

SCREEN = 48
"""Dev examples that a choice inside a strategy is made on."""

PILOTED = 150
"""Dev examples that a pilot is judged on: enough to tell 'fixes nothing' from 'fixes a few per cent'."""

_CUT = "cut.json"


@dataclass(frozen=True)
class Inputs:
    """What the user brought, without the test.

    library: the documents of the corpus, cut and indexed. groups: example id -> group of the split. unlabelled,
    synthetic, preferences: rows beside the examples, as in Task. fence: says of new inputs whether they nearly repeat a
    row of the task, the sealed ones among them; None where nothing is written or answered anew.
    """

    task: Task
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    constraint: Constraint | None = None
    library: Library = field(default_factory=Library)
    groups: Mapping[str, str] = field(default_factory=dict)
    unlabelled: tuple[Query, ...] = ()
    synthetic: tuple[Example, ...] = ()
    preferences: tuple[Preference, ...] = ()
    fence: Fence | None = None

    @property
    def passages(self) -> tuple[Document, ...]:
        """Of the corpus, as it is cut where nothing is chosen; none without a corpus."""
        return self.library.passages()

    @property
    def screen(self) -> tuple[Example, ...]:
        """A fixed sample of dev, for choices inside a strategy."""
        return sample_of(self.dev, SCREEN, self.task.seed)

    @property
    def piloted(self) -> tuple[Example, ...]:
        """A fixed sample of dev, for pilots."""
        return sample_of(self.dev, PILOTED, self.task.seed)


@dataclass(frozen=True)
class Tools:
    """The model, the scorer, where trials run, and who hears of progress.

    shared: a folder of records that all runs with this model share; None: each solution keeps its own.
    teacher: a stronger model; None where the task names none.
    """

    model: Model
    scorer: Scorer
    executor: Executor
    tell: Tell = field(default=lambda what, share: None)
    shared: Path | None = None
    teacher: Model | None = None


@dataclass(frozen=True)
class Limits:
    """What a strategy may spend.

    training_tokens: what one training may put through the network in the time that is left. planned_tokens: the same
    by the plan, whatever the clock says; None: no less time is left than was planned with.
    prompt_tokens: of the longest prompt worth paying for. exhaustive: every variant is answered and trained in full,
    none is left early. seconds_left: the time until this step has to end with what it has; None: no limit.
    """

    training_tokens: int = 160_000
    planned_tokens: int | None = None
    prompt_tokens: int = 2_000
    exhaustive: bool = False
    seconds_left: Callable[[], float | None] = field(default=lambda: None)

    @property
    def planned(self) -> int:
        """What one training may put through the network by the plan. What is chosen by it does not vary with time."""
        return self.training_tokens if self.planned_tokens is None else self.planned_tokens


@dataclass(frozen=True)
class Workshop:
    """Everything a strategy builds from.

    folder: the solution's own, for trials and training. decoding: greedy, with room for the longest answer.
    learning_rate: what an earlier strategy of this run chose; None where none did. search: the ways to find passages
    that did best on train questions, the best first; empty where none was measured.
    learning_rate_from: in words, what that rate was chosen for. best_prompt: the best solution without training and
    retrieval so far, with its answers to dev; best_rag: with retrieval and without training. best_tuned: with training
    and without retrieval. diagnosis: of why the best prompt, or an earlier one, fails; empty where there is none.
    """

    inputs: Inputs
    tools: Tools
    limits: Limits
    folder: Path
    decoding: Decoding
    learning_rate: float | None = None
    learning_rate_from: str = ""
    search: tuple[RetrieverSpec, ...] = ()
    best_prompt: Solution | None = None
    prompt_answers: tuple[Prediction, ...] = ()
    best_tuned: Solution | None = None
    best_rag: Solution | None = None
    diagnosis: Mapping[str, Any] = field(default_factory=dict)

    def solution(self, name: str) -> Solution:
        """The plainest Solution of the task: its instruction and nothing else."""
        return Solution(name, self.inputs.task.instruction, self.decoding)

    def passages_spec(self, k: int) -> RetrieverSpec:
        """At most k passages, found as the best solution with retrieval finds them; else as was measured to be best;
        else by the kind of index that is registered first, and fenced."""
        if self.best_rag is not None and self.best_rag.retriever is not None:
            return replace(self.best_rag.retriever, k=k)
        plainest = RetrieverSpec(next(iter(INDEXES)), k, PASSAGE_TOKENS, fenced=True)
        return replace(next(iter(self.search), plainest), k=k)

    def retriever_of(self, solution: Solution) -> Retriever | None:
        """The index that the solution searches; None where it retrieves nothing."""
        return self.inputs.library.search(solution.retriever) if solution.retriever is not None else None

    def within(self, folder: Path) -> Workshop:
        """The same, with another folder."""
        return replace(self, folder=folder)

    def note_cut(self, step: str, why: str | None) -> None:
        """Records that a step of the building was stopped before its end, and why; None: it was not, after all."""
        cuts = {s: w for s, w in record_of(self.folder / _CUT).items() if s != step}
        if why is not None or cuts:
            write_json(self.folder / _CUT, cuts if why is None else {**cuts, step: why})
        else:
            (self.folder / _CUT).unlink(missing_ok=True)


def cut_of(folder: Path) -> str | None:
    """Why the building of the solution in that folder was stopped before its end; None where it was not."""
    return "; ".join(map(str, record_of(folder / _CUT).values())) or None
