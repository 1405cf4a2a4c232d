"""Names that `metric:` in task.yaml may have.

Metrics are functions of the evaluation room, which stands above this one and is imported late. Whoever registers a
metric there adds its name here.
"""

from rung.types import Task

KNOWN_METRICS: dict[str, None] = dict.fromkeys(
    (
        "exact_match",
        "label_accuracy",
        "token_f1",
        "rouge_l",
        "json_match",
        "numeric_match",
        "numeric_error",
        "label_set_f1",
        "label_set_match",
        "tool_call_match",
    )
)
"""Names in the order of messages; `rung.evaluation.metrics.register_metric` adds to them."""

JUDGE = "judge"
"""The metric that asks a model, which `judge:` names."""

MULTI_LABEL = ("label_set_f1", "label_set_match")
"""Metrics that compare sets of labels."""
CASELESS = ("label_accuracy", *MULTI_LABEL)
"""Metrics that compare labels in their normal form, which leaves case aside."""
JSON_METRICS = ("json_match", "tool_call_match")
"""Metrics of answers that are JSON."""


def lists_are_json(task: Task) -> bool:
    """Whether a list is the answer itself, and does not hold several right ones."""
    return task.schema is not None or task.metric in JSON_METRICS or task.metric.startswith("python:")
