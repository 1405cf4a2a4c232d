"""A model that scores answers: `metric: judge`.

prompts: what it is asked, with the answer fenced in. replies: what it says, read. scoring: batches of answers through a
metered model, each request asked and paid once. agreement: how far it agrees with people. powered: intervals that carry
its errors. biases: length, position and its own family. Imports numpy and scipy when called.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rung.data.metric_names import JUDGE
from rung.errors import MetricError
from rung.evaluation.judge.scoring import Judge as Judge
from rung.types import Answer, JudgeSpec, MetricInfo, Model

CALLS = "calls.jsonl"
"""In the folder of the judge: its replies, by request."""


def _not_open(answers: Sequence[Answer]) -> list[float]:
    raise MetricError("metric: the judge is not asked before the plan is shown.")


def unbound() -> MetricInfo:
    """The metric before its model is open: it refuses to score."""
    return MetricInfo(JUDGE, _not_open, needs_judge=True)


def judge_of(spec: JudgeSpec, model: Model, folder: Path, instruction: str) -> Judge:
    """The judge of a task. folder: where its replies are kept. instruction: what the answers were asked for."""
    from rung.models.journal import Journal

    return Judge(spec, Journal(model, folder / CALLS), instruction)


def bound(metric: MetricInfo, judge: Judge) -> MetricInfo:
    """The metric that asks this judge."""
    return replace(metric, score=judge.score)
