"""Has a bundle become worse? It answers a fixed set, and its score is compared, row by row, with an earlier one.

Knows bundles, metrics and statistics; nothing of the command line. Both sides are scored anew by the bundle's metric.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rung.bundles.scoring import load_scoring, task_for_reading
from rung.errors import DamagedRecord, ModelError, RunError, came
from rung.serving.bundle import Bundle, Packed, read_bundle
from rung.types import Answer, Comparison, Example, MetricInfo, Score

FORMAT = 1
_NAMED = 10  # rows in a message
Tell = Callable[[int, int], None]
"""(rows that are answered, rows)."""


@dataclass(frozen=True)
class CheckedAnswer:
    """What was answered to a row. row: a hash of the input and its accepted answers, by which a later check knows it.

    score: by the bundle's metric; 0 where there is no answer. error: why there is none, or how it breaks its form.
    """

    id: str
    row: str
    text: str
    score: float
    error: str | None = None


@dataclass(frozen=True)
class BundleCheck:
    """What a check came to.

    before: the answers that are compared with, and their score; None where there are none. against: where those are
    from, in words. equal: share of answers that are the same text. difference: after - before. margin: the drop that
    does not matter, on the scale of the metric. answers, earlier: by row, in one order.
    """

    bundle: str
    task: str
    metric: MetricInfo
    examples: str
    against: str | None
    margin: float
    after: Score
    answers: tuple[CheckedAnswer, ...]
    before: Score | None = None
    equal: float | None = None
    difference: Comparison | None = None
    earlier: tuple[CheckedAnswer, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the score has not dropped by more than the margin; true where nothing is compared with."""
        return self.difference is None or self.difference.difference >= -self.margin - 1e-9

    @property
    def changed(self) -> list[tuple[CheckedAnswer, CheckedAnswer]]:
        """(before, after) of the rows whose score is another, those that lost most first."""
        pairs = [(a, b) for a, b in zip(self.earlier, self.answers, strict=False) if a.score != b.score]
        return sorted(pairs, key=lambda pair: pair[1].score - pair[0].score)

    @property
    def failed(self) -> int:
        """Rows without an answer."""
        return sum(not came(a.error) for a in self.answers)

    @property
    def record(self) -> dict[str, Any]:
        """As JSON. A later check takes it as its baseline."""
        return {
            "format": FORMAT,
            "bundle": self.bundle,
            "task": self.task,
            "metric": self.metric.name,
            "examples": self.examples,
            "against": self.against,
            "n": len(self.answers),
            "passed": self.passed,
            "margin": self.margin,
            "score": asdict(self.after),
            "before": asdict(self.before) if self.before is not None else None,
            "equal": self.equal,
            "difference": asdict(self.difference) if self.difference is not None else None,
            "failed": self.failed,
            "changed": [{"id": b.id, "before": a.score, "after": b.score} for a, b in self.changed],
            "answers": [asdict(a) for a in self.answers],
        }


@dataclass(frozen=True)
class CheckOptions:
    """What is checked how. examples: a file of rows like the task's; None: those that the bundle holds. baseline:
    another bundle, or the JSON of an earlier check; None: what is recorded in the bundle. margin: on the scale of the
    metric; None: the bundle's. base: where the base model lies. trusted: whether code in the bundle may run."""

    examples: Path | None = None
    baseline: Path | None = None
    margin: float | None = None
    base: str | None = None
    trusted: bool = False


def check_answers(
    folder: Path,
    options: CheckOptions | None = None,
    *,
    say: Callable[[str], None] = lambda _: None,
    tell: Tell = lambda done, of: None,
) -> BundleCheck:
    """Answers the set with the bundle and compares. say: hears what takes long; tell: how many rows are answered.

    Everything that can be wrong in what the user gave is found out before the model is loaded.
    Raises RunError, DataError or MetricError for that, and ModelError where the model gives no answer at all.
    """
    from rung.models import open_model

    options = options or CheckOptions()
    packed = read_bundle(folder, base=options.base)
    scoring = packed.note.get("metric")
    if not isinstance(scoring, Mapping):
        raise RunError(f"{folder}: it does not say how answers are scored. Make it anew: rung bundle RUN --out DIR.")
    metric = load_scoring(packed.place, scoring, trusted=options.trusted)
    rows, named = _rows(packed, options)
    baseline = _baseline(packed, options.baseline)
    known, against = _known(packed, options, baseline, rows)
    bundle = packed.opened(open_model(packed.model, say=say))
    after = _scored(rows, _texts(bundle, rows, tell), metric)
    if all(not came(a.error) for a in after):
        raise ModelError(f"{folder}: no row was answered. The first: {after[0].error}.")
    if known is None and isinstance(baseline, Packed):
        same = baseline.model_version == packed.model_version  # over the same base it shares the model
        other = baseline.opened(bundle.model if same else open_model(baseline.model, say=say))
        known = _texts(other, rows, tell)
    if scoring.get("judged"):
        say(f"The run was scored by a judge, which is not in the bundle: {metric.name} scores instead.")
    margin = options.margin if options.margin is not None else float(packed.note.get("margin", 0.02))
    task = str(packed.note.get("task") or folder.name)
    before = None if known is None else _scored(rows, known, metric)
    return _compared(
        BundleCheck(str(folder), task, metric, named, against, margin, _score(after, rows), after), before, rows
    )


def _rows(packed: Packed, options: CheckOptions) -> tuple[Sequence[Example], str]:
    """The rows that are answered, and where they are from."""
    if options.examples is None:
        recorded = packed.recorded
        if not recorded:
            raise RunError(
                f"{packed.place}: it holds no examples, so that there is nothing to answer. Name rows: --examples FILE."
            )
        return [answer.example for answer in recorded], f"{len(recorded):,} dev examples of the run"
    from rung.data.examples import read_data
    from rung.data.rows import raise_problems

    file = options.examples
    if not file.is_file():
        raise RunError(f"{file}: there is no such file. Name a file of rows like the task's examples.")
    task = task_for_reading(packed.place.name, file.resolve(), packed.instruction, packed.note["metric"])
    found = read_data(task, least=1)
    raise_problems(found.problems)
    rows = [e for part in found.sets.values() for e in part]
    return rows, f"{len(rows):,} row{'' if len(rows) == 1 else 's'} of {file.name}"


_Given = tuple[str, str | None]
"""The text of an answer, and its error."""


_Baseline = Packed | Mapping[str, Any] | None
"""Another bundle, or the JSON of an earlier check; None: what is recorded in the bundle itself."""


def _baseline(packed: Packed, given: Path | None) -> _Baseline:
    """Raises RunError where it cannot be read, or is a bundle, or a check, of another task. Another metric is none:
    both sides are scored anew."""
    if given is None:
        return None
    baseline = read_bundle(given, bases=(packed.model,)) if given.is_dir() else _record(given)
    note = baseline.note if isinstance(baseline, Packed) else baseline
    here, there = ((n.get("task"), n.get("instruction")) for n in (packed.note, note))
    alike = any(a == b for a, b in zip(here, there, strict=True) if a)
    if not alike and here[0] and there[0]:
        raise RunError(
            f"{given}: its task is {there[0]}, and that of {packed.place} is {here[0]}. Scores of two tasks "
            "cannot be compared: name a baseline of the same task."
        )
    return baseline


def _known(
    packed: Packed, options: CheckOptions, baseline: _Baseline, rows: Sequence[Example]
) -> tuple[list[_Given] | None, str | None]:
    """What is compared with, and where it is from. (None, words) where another bundle is still to be asked."""
    if options.baseline is None or baseline is None:
        if options.examples is not None:
            return None, None
        by_vllm = ", which vLLM gave" if packed.note.get("engine") == "vllm" else ""
        return [(a.text, a.error) for a in packed.recorded], f"the answers recorded in the run{by_vllm}"
    if not isinstance(baseline, Packed):
        return _of_record(options.baseline, baseline, rows), f"the earlier check {options.baseline}"
    recorded = {a.example.id: a for a in baseline.recorded}
    if all(row.id in recorded and recorded[row.id].query == row.query for row in rows):
        answers = [recorded[row.id] for row in rows]
        return [(a.text, a.error) for a in answers], f"the answers recorded in {options.baseline}"
    return None, f"the answers of {options.baseline}"


def _of_record(file: Path, record: Mapping[str, Any], rows: Sequence[Example]) -> list[_Given]:
    """The answers of an earlier check to these rows. Raises RunError where it has others."""
    try:
        by_id = {a["id"]: a for a in record["answers"]}
        given = [(str(by_id[r.id]["text"]), by_id[r.id].get("error")) if r.id in by_id else None for r in rows]
        same = [r.id in by_id and by_id[r.id]["row"] == _row_hash(r) for r in rows]
    except (DamagedRecord, KeyError, TypeError) as error:
        raise _no_check(file, error) from None
    if not all(same):
        first = next(r for r, known in zip(rows, same, strict=True) if not known)
        raise RunError(
            f"{file}: {same.count(False)} of {len(rows)} rows are not in it, or were others then; the first is "
            f"{first.row or first.id}. Check the set with the earlier bundle again, and take that as the baseline."
        )
    if gone := [str(i) for i in by_id if i not in {row.id for row in rows}]:
        raise RunError(
            f"{file}: {len(gone)} of its {len(by_id)} rows are not in the set any more: {', '.join(gone[:_NAMED])}"
            f"{' …' if len(gone) > _NAMED else ''}. Put them back; or, where they are left out on purpose, check the "
            "set with the earlier bundle again, and take that as the baseline."
        )
    return [one for one in given if one is not None]


def _record(file: Path) -> dict[str, Any]:
    """The JSON of an earlier check. Raises RunError where it is none."""
    try:
        record = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise RunError(f"{file}: cannot be read ({error.strerror}). Name a bundle, or the JSON of a check.") from None
    except (ValueError, RecursionError) as error:
        raise _no_check(file, error) from None
    if not isinstance(record, dict):
        raise _no_check(file, TypeError())
    return record


def _no_check(file: Path, error: Exception) -> RunError:
    fact = f"no check of a bundle ({type(error).__name__})"
    return RunError(f"{file}: {fact}. Write one with rung check-bundle BUNDLE --json > FILE.")


def _texts(bundle: Bundle, rows: Sequence[Example], tell: Tell) -> list[_Given]:
    """What a bundle answers, in the blocks that a run answers in."""
    from rung.solutions.answer import BLOCK

    found: list[_Given] = []
    while len(found) < len(rows):
        tell(len(found), len(rows))
        block = rows[len(found) : len(found) + (getattr(bundle.model, "block", None) or BLOCK)]
        found += [(p.text, p.error) for p in bundle.answer([row.query for row in block])]
    tell(len(rows), len(rows))
    return found


def _scored(rows: Sequence[Example], given: Sequence[_Given], metric: MetricInfo) -> tuple[CheckedAnswer, ...]:
    """Answers with their scores. One with an error scores 0, as in a run."""
    from rung.evaluation.scorer import Scorer

    whole = [(row, text) for row, (text, error) in zip(rows, given, strict=True) if error is None]
    outcomes = iter(Scorer(metric).score([Answer(row.query, text, row.references) for row, text in whole]))
    scores = [next(outcomes).score if error is None else 0.0 for _, error in given]
    return tuple(
        CheckedAnswer(row.id, _row_hash(row), text, score, error)
        for row, (text, error), score in zip(rows, given, scores, strict=True)
    )


def _compared(check: BundleCheck, before: tuple[CheckedAnswer, ...] | None, rows: Sequence[Example]) -> BundleCheck:
    from dataclasses import replace

    from rung.evaluation.statistics import compare

    if before is None:
        return check
    earlier, now = [a.score for a in before], [a.score for a in check.answers]
    same = sum(a.text == b.text and came(a.error) == came(b.error) for a, b in zip(before, check.answers, strict=True))
    difference = compare("before", "now", earlier, now, "dev", groups=_groups(rows))
    return replace(check, before=_score(before, rows), equal=same / len(before), difference=difference, earlier=before)


def _score(answers: Sequence[CheckedAnswer], rows: Sequence[Example]) -> Score:
    from rung.evaluation.statistics import score

    return score([a.score for a in answers], groups=_groups(rows))


def _groups(rows: Sequence[Example]) -> list[str] | None:
    """The group of each row; None where each is its own."""
    if all(row.group is None for row in rows):
        return None
    return [f"group {row.group}" if row.group is not None else f"row {row.id}" for row in rows]


def _row_hash(row: Example) -> str:
    said = [row.input, row.context, row.instruction, [[t.role, t.content] for t in row.turns], list(row.references)]
    return hashlib.sha256(json.dumps(said, ensure_ascii=True).encode()).hexdigest()[:16]
