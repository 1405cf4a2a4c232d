"""Every error that rung raises on purpose, one tree, drawn here.

    RungError                     a fact, a place and a next step; the command line prints it and exits with 2
    ├── TaskError                 task.yaml says something impossible
    ├── DataError                 examples or documents cannot be used as they are
    ├── SealedTestError           the sealed test was reached for outside its one opening
    ├── ModelError                a model is missing, broken or unknown
    │   ├── DownloadError         it could not be fetched whole
    │   └── OutOfMemory           memory does not suffice, even for one row at a time
    ├── ConstraintError           a label set, schema or pattern that no grammar can be made of
    ├── TrainingError             training cannot start or go on
    │   ├── Diverged              the loss stopped being a number
    │   └── TruncatedAnswer       an answer would be cut to nothing; the rows are named
    ├── MetricError               a metric is unknown or a user's metric failed
    ├── ScoreMismatch             two score lists that should be about the same examples are not
    ├── NoGain                    an experiment within a step shows that the step brings nothing; the ladder goes on
    ├── BudgetSpent               the budget ran out in the middle of a step; the ladder goes on to the verdict
    ├── RunError                  a run folder or bundle is in use, foreign, unfinished or damaged
    │   └── DamagedRecord         a file of it is torn, or lacks what this version reads in it
    ├── ExportError               an export cannot be made, or does not answer as the bundle does
    └── ServingError              a request to a server cannot be answered
        ├── UnknownModel          no bundle, adapter or base has this name
        ├── Unanswerable          the request itself is at fault: too long, or it asks for what there is not
        └── Busy                  too many requests wait, or the server is about to end: try again later

A bad reply of a model is not an error but a scored failure. Anything outside this tree is a defect of rung.
"""

from __future__ import annotations

from pathlib import Path

OUT_OF_MEMORY = "out of memory"
"""The error of an answer for which memory did not suffice. It says nothing of the request: later it may be answered."""
DOES_NOT_FIT, REFUSED_TURNS = "does not fit the context", "the chat template refused the turns"
"""Parts of the errors that a request always gets, whenever it is made."""

NO_REPLY = "no reply"
"""How the error of an answer begins that an endpoint did not give in time. Later it may be answered."""

BREAKS = "the answer breaks"
"""How the error of an answer begins that came whole and does not meet its constraint. Its text is kept."""


def came(error: str | None) -> bool:
    """Whether there is an answer to read, be it one that breaks its constraint."""
    return error is None or error.startswith(BREAKS)


def may_pass(error: str | None) -> bool:
    """Whether the error of an answer says nothing of its request, so that it is worth asking again later."""
    return error is not None and (error == OUT_OF_MEMORY or error.startswith(NO_REPLY))


def about_its_prompt(error: str) -> bool:
    """Whether the error of an answer follows from its request, so that the same request fails again."""
    return DOES_NOT_FIT in error or REFUSED_TURNS in error


def first_line(error: BaseException) -> str:
    """What an exception says, in one line; its type where it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def fault_text(error: BaseException) -> str:
    """What an exception says; with its type, where rung did not raise it on purpose."""
    return str(error) if isinstance(error, RungError) else f"{type(error).__name__}: {error}"


class RungError(Exception):
    """Base of every error a user can correct. The message is the fact, the place and the next step."""


class TaskError(RungError):
    """task.yaml says something impossible."""


class DataError(RungError):
    """Examples or documents cannot be used as they are."""


class SealedTestError(RungError):
    """The sealed test was reached for outside its one opening."""


class ModelError(RungError):
    """A model is missing, broken or unknown."""


class DownloadError(ModelError):
    """A model could not be fetched whole."""


class OutOfMemory(ModelError):
    """Memory does not suffice for a model's work, even for one row at a time."""


class ConstraintError(RungError):
    """A label set, schema or pattern that no grammar can be made of."""


class TrainingError(RungError):
    """Training cannot start or go on."""


class Diverged(TrainingError):
    """The loss stopped being a number."""


class TruncatedAnswer(TrainingError):
    """An answer would be cut to nothing by the length limit."""


class MetricError(RungError):
    """A metric is unknown, or a user's metric failed."""


class ScoreMismatch(RungError):
    """Two score lists that should be about the same examples are not."""


class NoGain(RungError):
    """A strategy found out, before it was built, that it brings nothing. The message is a sentence part: the number."""


class BudgetSpent(RungError):
    """The budget ran out in the middle of a step. Caught by the ladder, which goes on to the verdict."""


class RunError(RungError):
    """A run folder or bundle is in use, foreign, unfinished or damaged."""


class DamagedRecord(RunError):
    """A file that rung wrote is torn, holds something else, or lacks what this version reads in it.

    file: where. fact: what is wrong in it, for who says something else of what to do.
    """

    def __init__(self, file: Path, fact: str) -> None:
        super().__init__(
            f"{file}: is damaged ({fact}). Put it back from a copy, or run the task again in a new folder."
        )
        self.file, self.fact = file, fact

    def __reduce__(self) -> tuple[type[DamagedRecord], tuple[Path, str]]:
        return type(self), (self.file, self.fact)


class ExportError(RungError):
    """An export cannot be made, or does not answer as the bundle does."""


class ServingError(RungError):
    """A request to a server cannot be answered."""


class UnknownModel(ServingError):
    """No bundle, adapter or base has this name."""


class Unanswerable(ServingError):
    """The request itself is at fault: the same request fails again. param: the field that is at fault."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class Busy(ServingError):
    """Too many requests wait, or the server is about to end. retry_after_s: when it is worth trying again."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
