"""The registry of metrics, a user's own function, and the probe."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rung.errors import MetricError
from rung.evaluation.metrics import METRICS, as_observed, load_metric, metric_of, probe_metric, register_metric
from rung.evaluation.scorer import Scorer
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
        metric = load_metric(name, Path())
        assert metric.name == name
        assert all(0.0 <= s <= 1.0 for s in metric.score([answer(text, "7") for text in NASTY]))
        assert metric.score([answer("7", "8", "7"), answer("7")]) == [1.0, 0.0]


def test_a_metric_says_whether_it_grades_and_whether_the_whole_answer_counts() -> None:
    assert {m.name for m in METRICS.values() if m.right_or_wrong} == {
        "exact_match",
        "label_accuracy",
        "json_match",
        "numeric_match",
    }
    assert {m.name for m in METRICS.values() if m.whole_answer} == {"exact_match", "json_match"}


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


# ---- a user's function


def write(folder: Path, body: str) -> Path:
    (folder / "my.py").write_text(body)
    return folder


def outcome(metric: MetricInfo, text: str, *references: str) -> tuple[float, str | None]:
    found = Scorer(metric).score([answer(text, *references)])[0]
    return found.score, found.error


def test_a_users_function_is_a_metric(tmp_path: Path) -> None:
    body = "def half(prediction, references):\n    return prediction in references\n"
    metric = load_metric("python:my.py:half", write(tmp_path, body))
    assert metric.name == "python:my.py:half" and not metric.right_or_wrong
    assert metric.score([answer("a", "a"), answer("b", "a")]) == [1.0, 0.0]


def test_a_users_function_gets_a_list_of_references(tmp_path: Path) -> None:
    body = "def f(p, r):\n    assert type(r) is list\n    r.append('more')\n    return float(p in r[:-1])\n"
    metric = load_metric("python:my.py:f", write(tmp_path, body))
    assert outcome(metric, "b", "a", "b") == (1.0, None)


@pytest.mark.parametrize("value", ["1.5", "-0.1", "float('nan')", "None", "'1'", "[1]"])
def test_a_users_function_that_returns_no_score_scores_zero_with_the_reason(tmp_path: Path, value: str) -> None:
    metric = load_metric("python:my.py:f", write(tmp_path, f"def f(p, r):\n    return {value}\n"))
    score, error = outcome(metric, "guess", "truth")
    assert score == 0.0 and error is not None
    assert "my.py: f returned" in error and "'guess'" in error and "['truth']; it must return a number" in error


def test_a_users_function_that_raises_spoils_only_its_row_and_the_error_names_file_and_line(tmp_path: Path) -> None:
    body = "import json\n\ndef f(p, r):\n    return float(json.loads(p) == json.loads(r[0]))\n"
    metric = load_metric("python:my.py:f", write(tmp_path, body))
    good, bad, wrong = Scorer(metric).score([answer("[1]", "[1]"), answer("guess", "[1]"), answer("2", "[1]")])
    assert (good.score, good.error, wrong.score, wrong.error) == (1.0, None, 0.0, None)
    assert bad.score == 0.0 and bad.error is not None
    assert "my.py, line 4: f failed for the prediction 'guess'" in bad.error and "JSONDecodeError" in bad.error


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("python:other.py:f", "", "no file .*other.py.*relative to task.yaml"),
        ("python:my.py:g", "def f(p, r):\n    return 1\n", 'no function "g"; functions there are f'),
        ("python:my.py:f", "x = 1\nimport no_such_module\n", "my.py, line 2: the file cannot be imported: ModuleNotF"),
        ("python:my.py:f", "x = (\n", "my.py, line 1: the file cannot be imported: SyntaxError"),
        ("python:my.py:f", "raise SystemExit\n", "my.py, line 1: the file cannot be imported: SystemExit"),
        ("python:my.py", "", "not of the form python:file.py:function"),
    ],
)
def test_a_users_metric_that_cannot_be_loaded_says_where_and_why(
    tmp_path: Path, name: str, body: str, message: str
) -> None:
    with pytest.raises(MetricError, match=message):
        load_metric(name, write(tmp_path, body))


# ---- the probe


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
    assert finding.severity == "warning" and finding.check == "metric"
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


@pytest.mark.parametrize("body", ["return 0.0", "raise ValueError('no')", "return 7"])
def test_a_metric_that_gives_right_answers_nothing_is_a_broken_yardstick(tmp_path: Path, body: str) -> None:
    metric = load_metric("python:my.py:f", write(tmp_path, f"def f(p, r):\n    {body}\n"))
    with pytest.raises(MetricError, match="gives nothing to any of 2 right answers"):
        probe_metric(metric, examples("a", "b"))


@pytest.mark.parametrize(("name", "right"), [("numeric_match", "7"), ("json_match", "{}")])
def test_a_reference_that_cannot_be_read_is_an_error_wherever_it_stands(name: str, right: str) -> None:
    rows = examples(*[right] * 1001, "many", right)
    with pytest.raises(MetricError, match="row 1001: the right answer 'many' is not"):
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
