"""The registry of metrics, a user's own function, and the probe."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rung.data.metric_names import KNOWN_METRICS
from rung.errors import MetricError
from rung.evaluation.metrics import METRICS, as_observed, load_metric, metric_of, probe_metric, register_metric
from rung.evaluation.scorer import NoScore, Scorer
from rung.types import Answer, Example, MetricInfo, Query

NASTY = [
    "",
    " ",
    "\x00",
    "{",
    '{"a":',
    "```",
    "[" * 5000,
    "9" * 6000,
    "1e999",
    "1/0",
    "=" * 3000,
    "🦊",
    "\ud800",
    "NaN",
]


def answer(text: str, *references: str) -> Answer:
    return Answer(Query("x", "input"), text, references)


def examples(*outputs: str) -> list[Example]:
    return [Example(f"e{i}", f"input {i}", o, (o,), row=f"row {i}") for i, o in enumerate(outputs)]


def test_importing_the_metrics_loads_no_numbers_library() -> None:
    code = "import sys, rung.evaluation.metrics; print({'numpy', 'scipy', 'statsmodels'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_every_name_loads_and_no_bad_prediction_makes_it_raise() -> None:
    for name in METRICS:
        right, other = ('{"name": "f"}', '{"name": "g"}') if name == "tool_call_match" else ("7", "8")
        for metric in (load_metric(name, Path()), load_metric(name, Path(), whitespace="counts", unordered=True)):
            assert metric.name == name
            assert all(0.0 <= s <= 1.0 for s in metric.score([answer(text, right) for text in NASTY]))
            assert metric.score([answer(right, other, right), answer(right)]) == [1.0, 0.0]


def test_the_task_says_whether_space_and_order_count_and_what_numbers_may_differ_by() -> None:
    def score(name: str, text: str, reference: str, **how: Any) -> float:
        return load_metric(name, Path(), **how).score([answer(text, reference)])[0]

    assert score("exact_match", "x", "  x") == 1.0 and score("exact_match", "x", "  x", whitespace="counts") == 0.0
    assert score("label_accuracy", "x", " x", whitespace="counts") == 1.0
    assert (
        score("json_match", "[1, 2]", "[2, 1]") == 0.0 and score("json_match", "[1, 2]", "[2, 1]", unordered=True) == 1
    )
    calls = ['[{"name": "f"}, {"name": "g"}]', '[{"name": "g"}, {"name": "f"}]']
    assert score("tool_call_match", *calls) == 0.0 and score("tool_call_match", *calls, unordered=True) == 1.0
    assert score("numeric_match", "104", "100") == 0.0 and score("numeric_match", "104", "100", tolerance=0.05) == 1.0
    assert score("numeric_error", "104", "100") == 0.96 and score("numeric_error", "104", "100", tolerance=0.05) == 1.0
    strict = load_metric("json_match", Path(), unordered=True)
    assert strict.right_or_wrong and strict.whole_answer


def test_the_names_that_task_yaml_may_have_are_those_of_the_metrics() -> None:
    assert list(KNOWN_METRICS) == list(METRICS)


def test_a_metric_says_whether_it_grades_and_whether_the_whole_answer_counts() -> None:
    assert {m.name for m in METRICS.values() if m.right_or_wrong} == {
        "exact_match",
        "label_accuracy",
        "json_match",
        "numeric_match",
        "label_set_match",
        "tool_call_match",
    }
    whole = {m.name for m in METRICS.values() if m.whole_answer}
    assert whole == {"exact_match", "json_match", "label_set_match", "tool_call_match"}


def test_an_unknown_name_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(MetricError, match=r'"exact_mach".*Did you mean "exact_match"'):
        load_metric("exact_mach", Path())


@pytest.fixture
def length() -> Iterator[MetricInfo]:
    def score(answers: Sequence[Answer]) -> list[float]:
        return [min(1.0, len(a.text) / len(a.query.input)) for a in answers]

    yield MetricInfo("length", score)
    METRICS.pop("length", None)


def test_a_registered_metric_is_loaded_by_its_name_and_sees_the_query(length: MetricInfo) -> None:
    register_metric(length)
    assert load_metric("length", Path()) is length
    assert Scorer(length).score([answer("xx")])[0].score == pytest.approx(2 / 5)
    with pytest.raises(MetricError, match='"exact_match" is taken'):
        register_metric(replace(length, name="exact_match"))


def test_a_metric_that_only_gave_zeros_and_ones_is_taken_to_say_right_or_wrong(length: MetricInfo) -> None:
    assert as_observed(length, [0.0, 1.0, 1.0]).right_or_wrong
    assert not as_observed(length, [0.0, 0.5]).right_or_wrong and not as_observed(length, []).right_or_wrong


# ---- the probe


def write(folder: Path, body: str) -> Path:
    (folder / "my.py").write_text(body)
    return folder


def test_a_sound_metric_passes_the_probe_without_a_word() -> None:
    for name, outputs in [
        ("exact_match", "ab"),
        ("rouge_l", "ab"),
        ("numeric_match", "12"),
        ("json_match", ["{}", "1"]),
    ]:
        assert probe_metric(METRICS[name], examples(*outputs)) == ()
    assert probe_metric(METRICS["exact_match"], []) == ()


def test_a_metric_that_fails_for_odd_answers_is_a_warning_with_the_reason(tmp_path: Path) -> None:
    metric = load_metric("python:my.py:f", write(tmp_path, "def f(p, r):\n    return float(p[0] == r[0][0])\n"))
    [finding] = probe_metric(metric, examples("a", "b"))
    assert finding.severity == "warning" and finding.check == "metric_fails"
    assert "cannot score an empty answer" in finding.message and "my.py, line 2" in finding.message


def test_right_answers_that_are_not_scored_one_are_warnings_with_the_first_row() -> None:
    def odd(prediction: str, references: Sequence[str]) -> float:
        return {"a": 1.0, "b": 0.4, "c": 1 / 0 if prediction == "c" else 0.0}.get(prediction, 0.0)

    raising, below = probe_metric(metric_of("odd", odd), examples("a", "b", "b", "c"))
    assert raising.row == "row 3" and "cannot score 1 of 4 right answers" in raising.message
    assert "ZeroDivisionError" in raising.message
    assert below.row == "row 1" and below.ids == ("e1", "e2") and "scores 0.40" in below.message


def test_a_metric_that_says_right_or_wrong_and_grades_is_a_warning() -> None:
    metric = metric_of("half", lambda prediction, references: 0.5, right_or_wrong=True)
    assert any("says that it scores right or wrong" in f.message for f in probe_metric(metric, examples("a")))


def test_a_metric_that_grades_right_answers_says_how_many_and_what_to_do(tmp_path: Path) -> None:
    metric = load_metric("python:my.py:f", write(tmp_path, "def f(p, r):\n    return 0.5\n"))
    [finding] = probe_metric(metric, examples("a", "b"))
    assert "less than 1 to 2 of 2 right answers" in finding.message and "Correct the metric" in finding.message
    assert finding.row == "row 0"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return 1.0 if p in r else float('nan')", "returned nan for the prediction 'b' and the references \\['a'\\]"),
        ("return 1.0 if p in r else -1.0", "returned -1.0 .*must return a number in \\[0, 1\\]"),
        ("return 1.0 if p == 'a' else 100.0 * (p in r)", "returned 100.0"),
    ],
)
def test_a_metric_that_gives_no_score_to_a_row_right_or_wrong_is_refused(
    tmp_path: Path, body: str, reason: str
) -> None:
    metric = load_metric("python:my.py:f", write(tmp_path, f"def f(p, r):\n    {body}\n"))
    with pytest.raises(MetricError, match=reason):
        probe_metric(metric, examples("a", "b"))


@pytest.mark.parametrize("body", ["return 0.0", "raise ValueError('no')", "return 7"])
def test_a_metric_that_gives_right_answers_nothing_is_a_broken_yardstick(tmp_path: Path, body: str) -> None:
    metric = load_metric("python:my.py:f", write(tmp_path, f"def f(p, r):\n    {body}\n"))
    with pytest.raises(MetricError, match="gives nothing to any of 2 right answers"):
        probe_metric(metric, examples("a", "b"))


@pytest.mark.parametrize(
    ("name", "right"),
    [("numeric_match", "7"), ("numeric_error", "7"), ("json_match", "{}"), ("tool_call_match", '{"name": "f"}')],
)
def test_a_reference_that_cannot_be_read_is_an_error_wherever_it_stands(name: str, right: str) -> None:
    wrong = '"many"' if name == "tool_call_match" else "many"
    rows = examples(*[right] * 1001, wrong, right)
    with pytest.raises(MetricError, match=f"row 1001: the right answer '{wrong}' is not"):
        probe_metric(METRICS[name], rows)


def test_a_large_set_is_probed_by_a_sample() -> None:
    seen: list[int] = []

    def score(answers: Sequence[Answer]) -> list[float]:
        seen.append(len(answers))
        return [1.0] * len(answers)

    assert probe_metric(MetricInfo("counted", score), examples(*["a"] * 1999)) == ()
    assert max(seen) <= 200


def test_a_metric_that_asks_a_model_is_not_probed() -> None:
    def score(answers: Sequence[Answer]) -> list[float]:
        raise AssertionError("asked")

    assert probe_metric(MetricInfo("judge", score, needs_judge=True), examples("a")) == ()


def test_no_word_of_the_test_is_said(tmp_path: Path) -> None:
    def odd(prediction: str, references: Sequence[str]) -> float:
        if prediction == "secret":
            raise ValueError(f"cannot read {prediction}")
        if prediction == "open secret":
            raise NoScore(f"{prediction} is 2")
        return 1.0

    rows = examples("a", "secret", "b")
    [finding] = probe_metric(metric_of("odd", odd), rows, test={rows[1].id})
    assert "1 of 3" in finding.message and "secret" not in finding.message and finding.row == rows[1].row
    [finding] = probe_metric(metric_of("odd", odd), rows)
    assert "cannot read secret" in finding.message
    secret = examples("a", "open secret")
    with pytest.raises(MetricError, match=r"^metric: odd gave no number in \[0, 1\] to an answer of the test"):
        probe_metric(metric_of("odd", odd), secret, test={secret[1].id})
    words = examples("1", "two")
    with pytest.raises(MetricError) as raised:
        probe_metric(METRICS["numeric_match"], words, test={words[1].id})
    assert "two" not in str(raised.value) and "cannot read the right answer" in str(raised.value)
