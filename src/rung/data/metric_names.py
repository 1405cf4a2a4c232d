"""Names that `metric:` in task.yaml may have.

Metrics are functions of the evaluation room, which stands above this one and is imported late. Whoever registers a
metric there adds its name here.
"""

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
