"""A trial: one solution answered on one set of examples and scored, kept block by block.

A run that was killed answers no block twice, and answers the remaining ones in the same batches as it would have. Only
a block with a failure that may pass is answered again: memory ran out, or an endpoint gave no reply in time, be it that
of a judge.
A model that names the size of its blocks answers each request by itself (an endpoint). Its blocks may change size at
any time, and only the answers that are missing are asked for.
Trials run wherever an Executor maps them. Chooses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from rung.errors import DamagedRecord, may_pass
from rung.records import append_lines, check_whole, from_record, read_lines, write_lines
from rung.solutions.answer import BLOCK, answer
from rung.trials.workshop import Workshop
from rung.types import Answer, Example, Model, Outcome, Prediction, Retriever, Solution


@dataclass(frozen=True)
class Trial:
    """A solution, the examples it answers, and where its scored answers are kept (JSON lines).

    known: this solution's predictions from elsewhere; they are not answered again, unless they failed and may not now.
    model, retriever: in the place of those of the workshop. reading: the part of an answer that is scored; None scores
    all of it.
    """

    solution: Solution
    examples: Sequence[Example]
    path: Path
    known: Sequence[Prediction] = ()
    model: Model | None = None
    retriever: Retriever | None = None
    reading: Callable[[str], str] | None = None


class Executor(Protocol):
    """Where trials run.

    - `map` returns what `work` returns for each trial, in the order of the trials.
    - Trials share no file, so they may run in any order and at the same time.
    - What `work` raises ends the map and is raised by it.
    """

    def map(self, work: Callable[[Trial], list[Prediction]], trials: Sequence[Trial]) -> list[list[Prediction]]: ...


class InOrder:
    """One trial after the other, in this process."""

    def map(self, work: Callable[[Trial], list[Prediction]], trials: Sequence[Trial]) -> list[list[Prediction]]:
        return [work(trial) for trial in trials]


def try_all(workshop: Workshop, trials: Sequence[Trial]) -> list[list[Prediction]]:
    """Scored predictions of each trial, in order, by the workshop's executor."""
    return workshop.tools.executor.map(lambda trial: _run(workshop, trial), trials)


def attempt(
    workshop: Workshop, solution: Solution, examples: Sequence[Example], path: Path, **how: Any
) -> list[Prediction]:
    """As `try_all`, for one trial. how: the other fields of Trial."""
    return try_all(workshop, [Trial(solution, examples, path, **how)])[0]


def is_answered(trial: Trial) -> bool:
    """Whether the trial's file has an answer to each example, be it a failure that may pass."""
    return {e.id for e in trial.examples} <= {p.id for p in read_predictions(trial.path)}


def _run(workshop: Workshop, trial: Trial) -> list[Prediction]:
    model = trial.model or workshop.tools.model
    given = {p.id: p for p in trial.known if not _may_pass(p)}
    rest = [e for e in trial.examples if e.id not in given]
    written = read_predictions(trial.path)
    usable = {p.id: p for p in written if not _may_pass(p)}
    done = {e.id: usable[e.id] for e in _done(model, rest, usable)}
    if len(written) != len(given) + len(done):
        # The file is new, or something is to be answered again. It is written whole, so that no other answer is lost.
        write_lines(trial.path, (asdict(p) for p in (*given.values(), *done.values())))
    missing = [e for e in rest if e.id not in done]  # only then is an index opened
    retriever = (trial.retriever or workshop.retriever_of(trial.solution)) if missing else None
    what = f"answering {trial.solution.name}, {len(rest):,} example{'' if len(rest) == 1 else 's'}"
    for block in _blocks(model, missing):
        workshop.tools.tell(what, len(done) / len(rest))
        predictions = answer(trial.solution, model, [e.query for e in block], retriever=retriever)
        scored = _scored(workshop, trial, predictions, block)
        append_lines(trial.path, (asdict(p) for p in scored))
        done.update((p.id, p) for p in scored)
    return [given.get(e.id) or done[e.id] for e in trial.examples]


def _may_pass(prediction: Prediction) -> bool:
    """Whether the answer, or what a judge says of it, did not come for a reason that may pass."""
    return may_pass(prediction.error) or may_pass(prediction.metric_error)


def _done(model: Model, examples: Sequence[Example], answered: Collection[str]) -> list[Example]:
    """Examples that need no answer. Where answers depend on their block, only those of blocks that are whole."""
    if _own_block(model) is not None:
        return [e for e in examples if e.id in answered]
    return [e for block in _blocks(model, examples) if all(e.id in answered for e in block) for e in block]


def _blocks(model: Model, examples: Sequence[Example]) -> Iterator[Sequence[Example]]:
    """The examples in pieces that are answered together. The model is asked for their size before each one."""
    at = 0
    while at < len(examples):
        size = _own_block(model) or BLOCK
        yield examples[at : at + size]
        at += size


def _own_block(model: Model) -> int | None:
    """Answers that the model likes to be asked for at once; None where it does not say, and answers depend on it."""
    return getattr(model, "block", None)


def _scored(
    workshop: Workshop, trial: Trial, predictions: Sequence[Prediction], examples: Sequence[Example]
) -> list[Prediction]:
    """Predictions with their scores. One with an error scores 0, and the metric does not see it."""
    read = trial.reading or (lambda text: text)
    pairs = [(p, e) for p, e in zip(predictions, examples, strict=True) if p.error is None]
    outcomes = workshop.tools.scorer.score([Answer(e.query, read(p.text), e.references) for p, e in pairs])
    by_id = {p.id: outcome for (p, _), outcome in zip(pairs, outcomes, strict=True)}
    found = [by_id.get(p.id, Outcome(0.0)) for p in predictions]
    return [replace(p, score=o.score, metric_error=o.error) for p, o in zip(predictions, found, strict=True)]


def mean_score(predictions: Sequence[Prediction]) -> float:
    """The mean over at least one scored prediction."""
    return sum(p.score or 0.0 for p in predictions) / len(predictions)


def read_predictions(path: Path, *, least: int = 0) -> list[Prediction]:
    """Predictions as a trial leaves them; none where there is no such file.

    least: how many a file that is there has to have, by the verdict. Raises DamagedRecord where it has fewer.
    """
    found = [from_record(Prediction, record) for record in read_lines(path)]
    check_whole(path, len(found), least)
    return found


def read_whole(path: Path, examples: Sequence[Example]) -> list[Prediction]:
    """As `read_predictions`, of a file that was written whole. Raises DamagedRecord unless it answers each example."""
    found = read_predictions(path)
    if len(found) != len(examples) or {p.id for p in found} != {e.id for e in examples}:
        raise DamagedRecord(path, f"it has {len(found)} answers to {len(examples)} examples, or answers to others")
    return found
