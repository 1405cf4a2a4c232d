"""The public Python interface: run a task, read what came of it, load the winner and ask it.

run = rung.run("task.yaml", minutes=30)
run.decision.choice, run.decision.headline
answer = rung.load(run.folder)
answer("an input"), answer("an input").sources
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.errors import RunError

if TYPE_CHECKING:
    from rung.ladder.checking import CheckedData
    from rung.ladder.options import Listener, RunOptions
    from rung.ladder.synthesis import SynthOptions
    from rung.serving.sources import ShownPassage
    from rung.teaching.synthesis import Synthesis
    from rung.types import AnswersBy, Candidate, Decision, Prediction, Query, SetName


@dataclass(frozen=True)
class Run:
    """A run folder and what lies in it. Every property reads the folder afresh."""

    folder: Path

    @property
    def decision(self) -> Decision:
        """The verdict. Raises RunError when there is none yet."""
        from rung.decision import decision_from_record
        from rung.runs import verdict_of

        return decision_from_record(verdict_of(self.folder))

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Every solution that was tried, and the baselines, with what they scored and cost."""
        return self.decision.candidates

    def predictions(self, name: str, set: SetName = "test") -> list[Prediction]:
        """Scored answers of a candidate to dev or to the test.

        Raises RunError where it answered none, or the file has fewer of them than the verdict counts.
        """
        from rung.decision import answers_of, decision_from_record
        from rung.resume import recorded
        from rung.trials.trial import read_predictions

        record = recorded(self.folder / "decision.json")
        least = answers_of(decision_from_record(record) if record is not None else None, name, set)
        found = read_predictions(self.folder / "solutions" / name / f"predictions.{set}.jsonl", least=least)
        if not found:
            raise RunError(f"{self.folder}: {name!r} has no answers to {set}. `candidates` lists what was tried.")
        return found

    def report(self) -> Path:
        """Writes report.html afresh and returns its path."""
        from rung.ladder import test_examples
        from rung.report.html import write_report

        write_report(self.folder, test_examples(self.folder))
        return self.folder / "report.html"


def run(task: str | Path, options: RunOptions | None = None, *, listener: Listener | None = None, **fields: Any) -> Run:
    """Runs or continues a task.

    task: a task.yaml or the folder that holds one. options, or its fields by name: as RunOptions has them (out, only,
    minutes, finish, again, executor, …). listener: hears of progress; None: nobody does.
    Raises RungError for everything that the caller can correct.
    """
    from dataclasses import replace

    from rung.ladder import run as climb
    from rung.ladder.options import Quiet, RunOptions

    return Run(climb(Path(task), replace(options or RunOptions(), **_with_paths(fields)), listener or Quiet()))


def _with_paths(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields of options, in which a place may be given as a text."""
    return {**fields, "out": Path(fields["out"])} if isinstance(fields.get("out"), str) else fields


def check(task: str | Path, *, say: Callable[[str], None] | None = None) -> CheckedData:
    """Reads a task's data and checks it, without a model: findings, and the split that a run would use.

    say: hears what is being done where it takes long. Raises RungError for what cannot be read at all.
    """
    from rung.ladder.checking import check_task, quiet

    return check_task(Path(task), say or quiet)


def synth(
    task: str | Path, options: SynthOptions | None = None, *, listener: Listener | None = None, **fields: Any
) -> Synthesis:
    """Lets the task's teacher write examples to train on, into a file of JSON lines.

    options, or its fields by name: as SynthOptions has them (rows, out, kinds, seed, bar, usd, force). listener: hears
    the plan before anything is spent, and of progress. The same call continues one that was interrupted.
    Raises RungError for everything that the caller can correct; NoGain where the teacher does not do the task itself.
    """
    from dataclasses import replace

    from rung.ladder.options import Quiet
    from rung.ladder.synthesis import SynthOptions, prepare

    hears = listener or Quiet()
    ready = prepare(Path(task), replace(options or SynthOptions(), **_with_paths(fields)), hears.say)
    for line in ready.plan.lines:
        hears.say(line)
    return ready.write(lambda what, share: hears.progress(what, share, None))


def bundle(run: str | Path, solution: str | None = None, *, out: str | Path, examples: bool = True) -> Path:
    """Writes the bundle of a run's solution into the new folder `out`, and returns it.

    solution: None: the one that the verdict ships. examples: whether dev examples with their recorded answers are put
    in. Raises RunError when the run holds no such solution, or `out` is there already.
    """
    from rung.ladder.hand_over import bundle_run

    return bundle_run(Path(run), solution, Path(out), examples=examples)


class Sourced(str):
    """An answer, as a text.

    sources: the passages that it was given with, by their numbers (title, page, source, text, whether the answer
    names it, and whether its words then stand there). refused: whether it says that there is no answer.
    """

    sources: tuple[ShownPassage, ...]
    refused: bool

    def __new__(cls, text: str, sources: tuple[ShownPassage, ...] = (), refused: bool = False) -> Sourced:
        reply = super().__new__(cls, text)
        reply.sources, reply.refused = sources, refused
        return reply


def load(
    folder: str | Path,
    *,
    solution: str | None = None,
    base: str | Path | None = None,
    engine: AnswersBy = "local",
) -> Callable[[str | Query], Sourced]:
    """The winner of a run folder, or a bundle, as a function of an input.

    The input is a text, or a Query where it has a context, an instruction of its own or earlier turns. solution:
    another solution of the run. base: where the base model lies, where that is not known on this machine. engine:
    what computes the answers of a model on this machine. The function returns a text that knows its sources, and raises
    ModelError where the model gives no answer.
    Raises RunError when there is nothing to load, a file of the bundle is missing or changed, its model is not the one
    that it was made with, or is an endpoint that was never used on this machine and that base does not name.
    """
    from rung.errors import ModelError
    from rung.serving.bundle import open_bundle

    bundle = open_bundle(Path(folder), solution=solution, base=None if base is None else str(base), engine=engine)

    def answer(asked: str | Query) -> Sourced:
        (prediction,) = bundle.answer([asked])
        if prediction.error is not None:
            raise ModelError(f"no answer: {prediction.error}")
        return Sourced(prediction.text, bundle.sources(prediction), bundle.refuses(prediction))

    return answer
