"""A metric from a user's own file, and the files beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rung.errors import MetricError
from rung.evaluation.metric_files import metric_files
from rung.evaluation.metrics import load_metric
from rung.evaluation.scorer import Scorer
from rung.types import Answer, MetricInfo, Query


def answer(text: str, *references: str) -> Answer:
    return Answer(Query("x", "input"), text, references)


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
        ("python:my.py:f", "import spoilt\n", "spoilt.py, line 2: the file cannot be imported: SyntaxError"),
        ("python:my.py:f", "async def f(p, r):\n    return 1\n", "f is async.*write def f\\(prediction, references\\)"),
        ("python:my.py:f", "def f(p, r):\n    yield 1\n", "f yields, but a metric returns one number"),
        (
            "python:my.py:f",
            "def f(p, r, row):\n    return 1\n",
            "f\\(p, r, row\\) cannot be called: missing .*'row'.*two arg",
        ),
        ("python:my.py:f", "def f(p):\n    return 1\n", "f\\(p\\) cannot be called: too many positional arguments"),
        ("python:my.py:f", "raise SystemExit\n", "my.py, line 1: the file cannot be imported: SystemExit"),
        ("python:my.py", "", "not of the form python:file.py:function"),
    ],
)
def test_a_users_metric_that_cannot_be_loaded_says_where_and_why(
    tmp_path: Path, name: str, body: str, message: str
) -> None:
    (tmp_path / "spoilt.py").write_text("x = 1\ndef g(:\n")
    with pytest.raises(MetricError, match=message):
        load_metric(name, write(tmp_path, body))


def test_references_equal_to_the_prediction_alone_are_seen_as_such_by_the_metric(tmp_path: Path) -> None:
    metric = load_metric("python:my.py:f", write(tmp_path, "def f(p, r):\n    return r == [p]\n"))
    assert outcome(metric, "a", "a") == (1.0, None) and outcome(metric, "b", "a") == (0.0, None)


@pytest.mark.parametrize(
    ("value", "score"),
    [
        ("True", 1.0),
        ("np.float32(0.5)", 0.5),
        ("np.bool_(True)", 1.0),
        ("np.array(0.5)", 0.5),
        ("np.array([0.5])", 0.5),
    ],
)
def test_bools_and_arrays_of_one_number_are_numbers(tmp_path: Path, value: str, score: float) -> None:
    body = f"import numpy as np\ndef f(p, r):\n    return {value}\n"
    assert outcome(load_metric("python:my.py:f", write(tmp_path, body)), "a", "a") == (score, None)


def test_an_array_of_two_numbers_is_no_score(tmp_path: Path) -> None:
    body = "import numpy as np\ndef f(p, r):\n    return np.array([0.5, 0.5])\n"
    score, error = outcome(load_metric("python:my.py:f", write(tmp_path, body)), "a", "a")
    assert score == 0.0 and error is not None and "returned array([0.5, 0.5])" in error


def test_what_a_metric_prints_stays_off_the_screen_and_goes_into_its_files(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "noisy.py").write_text("def say(p):\n    print('helper', p)\n")
    log = tmp_path / "log.txt"
    body = (
        "import sys\nfrom noisy import say\nprint('import')\ndef f(p, r):\n    say(p)\n    print(p, file=sys.stderr)\n"
        f"    with open({str(log)!r}, 'a') as file:\n        print(p, file=file)\n    return 1\n"
    )
    metric = load_metric("python:my.py:f", write(tmp_path, body))
    assert outcome(metric, "seen", "a") == (1.0, None)
    assert capfd.readouterr() == ("", "") and log.read_text() == "seen\n"


def test_files_beside_a_metric_are_imported_also_from_inside_its_functions(tmp_path: Path) -> None:
    folders = []
    for name, value in (("one", 0.25), ("two", 0.75)):
        folder = tmp_path / name
        (folder / "parts").mkdir(parents=True)
        (folder / "shared_words.py").write_text(f"value = {value}\n")
        (folder / "parts" / "late_words.py").write_text("from shared_words import value\n")
        folders.append(write(folder, "def f(p, r):\n    from parts.late_words import value\n    return value\n"))
    first, second = (load_metric("python:my.py:f", folder) for folder in folders)
    scores = [outcome(metric, "a", "a")[0] for metric in (first, second, first, second)]
    assert scores == [0.25, 0.75, 0.25, 0.75]
    assert not list(tmp_path.rglob("__pycache__"))


def test_an_edited_helper_is_imported_anew(tmp_path: Path) -> None:
    body = "from tiny_helper import value\ndef f(p, r):\n    return value\n"
    for value in ("0.5", "0.9"):  # of one length, within one second
        (tmp_path / "tiny_helper.py").write_text(f"value = {value}\n")
        metric = load_metric("python:my.py:f", write(tmp_path, body))
        assert outcome(metric, "a", "a")[0] == float(value)


def test_a_file_beside_the_metric_shadows_neither_python_nor_an_installed_package(tmp_path: Path) -> None:
    for name in ("statistics", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('shadowed')\n")
    body = "import statistics\ndef f(p, r):\n    return statistics.mean([0, 1])\n"
    assert outcome(load_metric("python:my.py:f", write(tmp_path, body)), "a", "a") == (0.5, None)
    with pytest.raises(MetricError, match=r'"import numpy" does not mean .*numpy.py but .*Give the file another name'):
        load_metric("python:my.py:f", write(tmp_path, "import numpy\ndef f(p, r):\n    return 1\n"))


def test_the_files_of_a_metric_are_those_it_imports_and_those_they_import(tmp_path: Path) -> None:
    package = tmp_path / "pack"
    for folder in (package, tmp_path / "lib"):
        folder.mkdir()
    files = {
        tmp_path / "my.py": "import os, json\nfrom a_helper import x\ndef f(p, r):\n    import late\n    return 1\n",
        tmp_path / "a_helper.py": "import sys\nsys.path.insert(0, 'lib')\nfrom pack import inner\nimport far\n",
        tmp_path / "late.py": "",
        tmp_path / "json.py": "",
        tmp_path / "unused.py": "",
        package / "__init__.py": "from . import other\n",
        package / "inner.py": "import a_helper\n",
        package / "other.py": "def broken(:\n",
        tmp_path / "lib" / "far.py": "",
    }
    for path, text in files.items():
        path.write_text(text)
    unused = {tmp_path / "json.py", tmp_path / "unused.py"}
    found = metric_files("python:my.py:f", tmp_path)
    assert found[0] == tmp_path / "my.py" and set(found) == set(files) - unused
    assert metric_files("exact_match", tmp_path) == ()
    assert metric_files("python:absent.py:f", tmp_path) == (tmp_path / "absent.py",)


def test_loading_a_metric_leaves_the_path_of_modules_alone(tmp_path: Path) -> None:
    before = list(sys.path)
    load_metric("python:my.py:f", write(tmp_path, "def f(p, r):\n    return 1\n"))
    assert sys.path == before
