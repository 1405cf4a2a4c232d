"""Does an export answer as the bundle does? Equal answers counted, scores compared, one verdict.

Knows no format and no runtime; texts come in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rung.serving.exports.export import ParityAsk, answer_text
from rung.types import Solution

if TYPE_CHECKING:
    from rung.types import MetricInfo

EQUAL_SHARE = 0.98
"""Least share of equal answers at the same precision."""
SCORE_DROP = 0.01
"""Largest drop of the score at the same precision."""
QUANTISED_DROP = 0.02
"""Drop of the score of a quantised export from which it fails, once the whole interval lies beyond it."""

_SHOWN = 3  # rows that differ, in messages
_LONGEST = 200  # characters of an answer there


@dataclass(frozen=True)
class DifferingAnswer:
    """A row whose answers differ."""

    id: str
    bundle: str
    export: str


@dataclass(frozen=True)
class ScoreChange:
    """Mean score of the export's answers minus that of the bundle's, on the same rows, with its 95 % interval."""

    before: float
    after: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class ParityResult:
    """What a parity test found. rows: asked; equal: of them, those with the same answer. score: None where the rows
    have no accepted answers, or the metric is not known. reference: where the bundle's answers come from. holds:
    whether the runtime held answers to the bundle's constraint; None where there is none. as_recorded: of the export's
    answers, those equal to the recorded ones, where the bundle answered anew because too few were. since_recorded: the
    change of the score from the recorded answers, then. metric: by whose rules the score is; "" where there is none."""

    runtime: str
    reference: str
    rows: int
    equal: int
    differing: tuple[DifferingAnswer, ...]
    score: ScoreChange | None = None
    holds: bool | None = None
    as_recorded: int | None = None
    since_recorded: ScoreChange | None = None
    metric: str = ""

    @property
    def share(self) -> float:
        """Share of equal answers, in [0, 1]."""
        return self.equal / self.rows

    def fault(self, *, quantised: bool) -> str | None:
        """Why the export must not be used, in a sentence part; None where it may."""
        change = self.score
        if quantised:
            if change is not None and change.high < -QUANTISED_DROP:
                limit = f"more than {100 * QUANTISED_DROP:.0f} points"
                return f"the score drops by {_points(-change.difference)}, surely {limit}"
            return None
        if self.share < EQUAL_SHARE:
            return f"only {self.equal} of {self.rows} answers are equal ({100 * EQUAL_SHARE:.0f} % are needed)"
        if change is not None and change.difference < -SCORE_DROP - 1e-9:
            return f"the score drops by {_points(-change.difference)} ({_points(SCORE_DROP)} is allowed)"
        if (since := self.since_recorded) is not None and since.high < -QUANTISED_DROP:
            limit = f"more than {100 * QUANTISED_DROP:.0f} points"
            return (
                f"the score drops by {_points(-since.difference)} from the recorded answers, surely {limit}: the "
                "bundle itself does not answer here as it was tested"
            )
        return None

    def lines(self) -> list[str]:
        """The result in words."""
        found = [f"{self.equal} of {self.rows} answers equal ({100 * self.share:.1f} %), answered by {self.runtime}"]
        if self.as_recorded is not None:
            rounding = "in another numeric type near ties can fall otherwise, in the bundle, too"
            found.append(f"{self.as_recorded} of {self.rows} equal the recorded answers: {rounding}")
        if (c := self.score) is not None:
            change = f"{_signed(c.difference)} points, 95 % interval {_signed(c.low)} to {_signed(c.high)}"
            found.append(f"{self.metric} {100 * c.before:.1f} -> {100 * c.after:.1f}: {change}")
        else:
            found.append("no score: the inputs have no accepted answers, or their metric does not run here")
        if self.holds is False:
            found.append("this runtime does not hold answers to the form that the bundle holds them to")
        for row in self.differing[:_SHOWN]:
            found.append(f"differs, {row.id}: {row.bundle!r} became {row.export!r}")
        return found

    def record(self) -> dict[str, Any]:
        """For export.json."""
        return {**asdict(self), "share": self.share}


def measured(
    solution: Solution,
    asks: Sequence[ParityAsk],
    texts: Sequence[str],
    *,
    metric: MetricInfo | None,
    runtime: str,
    reference: str,
    holds: bool | None = None,
) -> ParityResult:
    """Compares raw texts of a runtime, one an ask, with the bundle's answers; at least one."""
    answers = [_read(solution, text, ask) for ask, text in zip(asks, texts, strict=True)]
    differing = [
        DifferingAnswer(ask.query.id, _short(ask.text), _short(answer))
        for ask, answer in zip(asks, answers, strict=True)
        if _whole(answer) != _whole(ask.text)
    ]
    equal = len(asks) - len(differing)
    score = _scores(asks, answers, metric)
    name = metric.name if metric is not None and score is not None else ""
    return ParityResult(runtime, reference, len(asks), equal, tuple(differing), score, holds, metric=name)


def _read(solution: Solution, text: str, ask: ParityAsk) -> str:
    """What an answer says, read as the bundle's own is."""
    from rung.solutions.answer import without_marks

    return without_marks(solution, answer_text(solution, text), ask.passages).text


def _whole(text: str) -> str:
    """Without what stands for bytes that are no character, as where an answer is cut inside one: rung and transformers
    write U+FFFD there, llama.cpp nothing."""
    return text.replace("\ufffd", "")


def _scores(asks: Sequence[ParityAsk], answers: Sequence[str], metric: MetricInfo | None) -> ScoreChange | None:
    from rung.evaluation.scorer import Scorer
    from rung.evaluation.statistics import compare
    from rung.types import Answer

    if metric is None or any(not ask.references for ask in asks):
        return None
    scorer = Scorer(metric)
    both = [
        [o.score for o in scorer.score([Answer(a.query, t, a.references) for a, t in zip(asks, texts, strict=True)])]
        for texts in ([ask.text for ask in asks], answers)
    ]
    before, after = (sum(scores) / len(scores) for scores in both)
    found = compare("bundle", "export", both[0], both[1], "dev")
    return ScoreChange(before, after, found.difference, found.low, found.high)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _signed(value: float) -> str:
    return f"{100 * value:+.1f}"


def _points(value: float) -> str:
    points = f"{100 * value:.1f}"
    return f"{points} point" if points == "1.0" else f"{points} points"
