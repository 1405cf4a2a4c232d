"""Which metric a task uses, and whether it works: the registry, the loading and the probe.

A metric is a `MetricInfo`; only a `Scorer` calls it. What raises `MetricError` is a broken yardstick: an unknown name,
a reference that cannot be read, a user's file that cannot be imported. Knows nothing about solutions or intervals.
Imports the standard library only.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from rung.data.metric_names import JUDGE, KNOWN_METRICS
from rung.errors import MetricError
from rung.evaluation.judge import unbound
from rung.evaluation.number_metrics import TOLERANCE, numeric_error, numeric_match
from rung.evaluation.scorer import NoScore, Scorer
from rung.evaluation.structured_metrics import json_fields, json_match, label_set_f1, label_set_match, tool_call_match
from rung.evaluation.text_metrics import exact_match, exact_match_with_space, label_accuracy, rouge_l, token_f1
from rung.evaluation.user_metric import load_function
from rung.types import Answer, Example, Finding, MetricInfo, Outcome, Task, Whitespace

__all__ = [
    "METRICS",
    "as_observed",
    "exact_match",
    "json_fields",
    "json_match",
    "label_accuracy",
    "label_set_f1",
    "label_set_match",
    "load_metric",
    "metric_for",
    "metric_of",
    "numeric_error",
    "numeric_match",
    "probe_metric",
    "register_metric",
    "rouge_l",
    "token_f1",
    "tool_call_match",
]

PROBED = 200
"""Reference answers that `probe_metric` scores."""

_ODD_ANSWERS = {
    "an empty answer": "",
    "an answer of control characters, emoji and broken JSON": "null\x00\x1b\u202e 🦊 {'a': [1, NaN\n```json\n"
    + 5000 * "x ",
}
_READ_REFERENCES = ("json_match", "numeric_match", "numeric_error", "tool_call_match")
"""Metrics that raise MetricError for a reference they cannot read; every reference is then tried."""


def metric_of(
    name: str,
    function: Callable[[str, Sequence[str]], float],
    *,
    right_or_wrong: bool = False,
    whole_answer: bool = False,
) -> MetricInfo:
    """A metric that scores each answer by itself: function(prediction, references) -> a number in [0, 1].

    references is a list of its own in every call.
    """

    def score(answers: Sequence[Answer]) -> list[float]:
        return [function(answer.text, list(answer.references)) for answer in answers]

    return MetricInfo(name, score, right_or_wrong=right_or_wrong, whole_answer=whole_answer)


METRICS: dict[str, MetricInfo] = {
    metric.name: metric
    for metric in (
        metric_of("exact_match", exact_match, right_or_wrong=True, whole_answer=True),
        metric_of("label_accuracy", label_accuracy, right_or_wrong=True),
        metric_of("token_f1", token_f1),
        metric_of("rouge_l", rouge_l),
        metric_of("json_match", json_match, right_or_wrong=True, whole_answer=True),
        metric_of("numeric_match", numeric_match, right_or_wrong=True),
        metric_of("numeric_error", numeric_error),
        metric_of("label_set_f1", label_set_f1),
        metric_of("label_set_match", label_set_match, right_or_wrong=True, whole_answer=True),
        metric_of("tool_call_match", tool_call_match, right_or_wrong=True, whole_answer=True),
    )
}
"""Name in task.yaml -> metric."""

_BUILT_IN = frozenset(METRICS)


def register_metric(metric: MetricInfo) -> None:
    """Makes a metric known by its name, or replaces it. Raises MetricError when the name is that of a built-in one."""
    if metric.name in _BUILT_IN or metric.name.startswith("python:"):
        raise MetricError(f'metric: the name "{metric.name}" is taken. Register the metric under another name.')
    METRICS[metric.name] = metric
    KNOWN_METRICS[metric.name] = None


def metric_for(task: Task, name: str) -> MetricInfo:
    """The metric of that name, as `load_metric`, with what the task says of white space, order and tolerance."""
    return load_metric(
        name,
        task.path.parent,
        whitespace=task.whitespace or "folded",
        unordered=task.unordered,
        tolerance=task.tolerance,
    )


def load_metric(
    name: str,
    task_dir: Path,
    *,
    whitespace: Whitespace = "folded",
    unordered: bool = False,
    tolerance: float | None = None,
) -> MetricInfo:
    """The metric of that name: one of METRICS, `python:file.py:function` with the file relative to task_dir, or judge.

    whitespace: whether the space inside answers counts, for exact_match (`rung.data.answer_form`). unordered: the order
    of lists does not count, for json_match and tool_call_match. tolerance: share of the right number by which another
    may differ, for numeric_match (None: not at all) and numeric_error (None: TOLERANCE). Other metrics ignore them.
    Of a user's function it is not known whether every score is 0 or 1; see `as_observed`. A judge has no model yet
    and refuses to score, until `rung.evaluation.judge.bound` gives it one.
    Raises MetricError when there is no such metric, file or function, or when the file cannot be imported.
    """
    if name.startswith("python:"):
        return metric_of(name, load_function(name, task_dir))
    if name == JUDGE:
        return unbound()
    if name not in METRICS:
        near = difflib.get_close_matches(name, METRICS, n=1)
        meant = f'Did you mean "{near[0]}"? ' if near else ""
        raise MetricError(
            f'metric: there is no "{name}". {meant}Known: {", ".join(METRICS)}, or python:file.py:function.'
        )
    metric = METRICS[name]
    functions: dict[str, Callable[[str, Sequence[str]], float]] = {
        "exact_match": exact_match_with_space if whitespace == "counts" else exact_match,
        "json_match": partial(json_match, unordered=unordered),
        "tool_call_match": partial(tool_call_match, unordered=unordered),
        "numeric_match": partial(numeric_match, tolerance=tolerance),
        "numeric_error": partial(numeric_error, tolerance=TOLERANCE if tolerance is None else tolerance),
    }
    if (whitespace, unordered, tolerance) == ("folded", False, None) or name not in functions:
        return metric
    return metric_of(name, functions[name], right_or_wrong=metric.right_or_wrong, whole_answer=metric.whole_answer)


def as_observed(metric: MetricInfo, scores: Iterable[float]) -> MetricInfo:
    """The metric, taken to be right-or-wrong when every score seen so far is 0 or 1 and there is at least one."""
    seen = set(scores)
    return replace(metric, right_or_wrong=True) if seen and seen <= {0.0, 1.0} else metric


def probe_metric(metric: MetricInfo, examples: Sequence[Example], *, test: Collection[str] = ()) -> tuple[Finding, ...]:
    """Tries the metric before anything is spent; what is odd comes back as warnings.

    Scores the right answers of up to PROBED examples against themselves: each should score 1. Then scores the answers
    of other examples, and odd answers: none should make the metric raise. Every example is tried where the metric reads
    its references (JSON, numbers). A metric that asks a model is not probed. test: ids of examples that may come to be
    tested, of which no word is said.
    Raises MetricError when no right answer scores anything, when the metric gives no number in [0, 1] to an answer of
    an example, right or wrong, or when a built-in metric cannot read a reference.
    """
    if metric.needs_judge or not examples:
        return ()
    if metric.name in _READ_REFERENCES:
        _read_all(metric, examples, test)
    step = -(-len(examples) // PROBED)
    probed = sorted(examples[::step], key=lambda e: e.id in test)  # the others first: they are told of
    scorer = Scorer(metric)
    right = [Answer(e.query, e.output, e.references) for e in probed]
    outcomes = scorer.score(right)
    if all(outcome.score == 0 for outcome in outcomes):
        reason = _told(outcomes[0].error, probed[0], test) or f"{probed[0].row or probed[0].id} scores 0"
        raise MetricError(
            f"metric: {metric.name} gives nothing to any of {len(probed)} right answers, compared with themselves: "
            f"{reason}. Correct the metric or the examples."
        )
    pairs = list(zip(probed, (*probed[1:], probed[0]), strict=True))
    others = [Answer(e.query, other.output, e.references) for e, other in pairs]
    hidden = [e.id in test or other.id in test for e, other in pairs]
    _refuse_no_score(metric, right, outcomes, [e.id in test for e in probed])
    _refuse_no_score(metric, others, scorer.score(others), hidden)
    findings = _of_right_answers(metric, probed, outcomes, test)
    for what, text in _ODD_ANSWERS.items():
        outcome = scorer.score([Answer(probed[0].query, text, probed[0].references)])[0]
        if outcome.error is not None:
            why = _told(outcome.error, probed[0], test)
            message = f"The metric {metric.name} cannot score {what}, which then counts as 0: {why}."
            findings.append(Finding("metric_fails", "warning", "", message))
    return tuple(findings)


def _told(reason: str | None, example: Example, test: Collection[str]) -> str | None:
    """The reason of an error, which holds words of the example."""
    return reason if reason is None or example.id not in test else "the reason holds words of the test"


def _refuse_no_score(
    metric: MetricInfo, answers: Sequence[Answer], outcomes: Sequence[Outcome], hidden: Sequence[bool]
) -> None:
    """Raises MetricError for the first answer to which the metric gave something else than a number in [0, 1]."""
    for answer, outcome, is_hidden in zip(answers, outcomes, hidden, strict=True):
        if outcome.error is not None:
            try:
                metric.score([answer])
            except NoScore as error:
                fact = f"{metric.name} gave no number in [0, 1] to an answer of the test" if is_hidden else error
                raise MetricError(f"metric: {fact}. Correct the metric.") from error
            except Exception:
                continue


def _read_all(metric: MetricInfo, examples: Sequence[Example], test: Collection[str]) -> None:
    for example in examples:
        try:
            metric.score([Answer(example.query, example.output, example.references)])
        except MetricError as error:
            fact = f"{metric.name} cannot read the right answer. Correct it, or choose another metric."
            raise MetricError(f"{example.row or example.id}: {fact if example.id in test else error}") from error


def _of_right_answers(
    metric: MetricInfo, examples: Sequence[Example], outcomes: Sequence[Outcome], test: Collection[str]
) -> list[Finding]:
    """Warnings about right answers that were scored against themselves: one for each kind, with the first row."""
    n = len(examples)
    raising = [(e, o) for e, o in zip(examples, outcomes, strict=True) if o.error is not None]
    below = [(e, o) for e, o in zip(examples, outcomes, strict=True) if o.error is None and o.score < 1]
    findings = []
    if raising:
        example, outcome = raising[0]
        message = (
            f"The metric {metric.name} cannot score {len(raising)} of {n} right answers, which then count as 0: "
            f"{_told(outcome.error, example, test)}."
        )
        findings.append(Finding("metric", "warning", example.row, message, tuple(e.id for e, _ in raising)))
    if below:
        example, outcome = below[0]
        message = (
            f"The metric {metric.name} gives less than 1 to {len(below)} of {n} right answers, compared with "
            f"themselves; this one scores {outcome.score:.2f}. No candidate can score more there. Correct the metric, "
            "or the examples."
        )
        findings.append(Finding("metric", "warning", example.row, message, tuple(e.id for e, _ in below)))
    if metric.right_or_wrong and any(o.score not in (0, 1) for o in outcomes):
        message = f"The metric {metric.name} says that it scores right or wrong, but it gives scores between 0 and 1."
        findings.append(Finding("metric", "warning", "", message))
    return findings
