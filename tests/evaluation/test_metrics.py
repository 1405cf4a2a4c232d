from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from rung.errors import MetricError
from rung.evaluation.metrics import (
    METRICS,
    _lcs_length,
    exact_match,
    json_fields,
    json_match,
    label_accuracy,
    load_metric,
    numeric_match,
    rouge_l,
    token_f1,
)

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


def test_importing_the_metrics_loads_no_numbers_library() -> None:
    code = "import sys, rung.evaluation.metrics; print({'numpy', 'scipy', 'statsmodels'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_every_name_loads_and_no_bad_prediction_makes_it_raise() -> None:
    for name in METRICS:
        metric = load_metric(name, Path())
        for prediction in NASTY:
            assert 0.0 <= metric(prediction, ["7"]) <= 1.0
        assert metric("7", ["8", "7"]) == 1.0
        assert metric("7", []) == 0.0


def test_an_unknown_name_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(MetricError, match=r'"exact_mach".*Did you mean "exact_match"'):
        load_metric("exact_mach", Path())


# ---- text


def test_exact_match_ignores_space_and_encoding_and_nothing_else() -> None:
    assert exact_match("  cafe\u0301\n au  lait ", ["café au lait"]) == 1.0
    assert exact_match("Paris", ["paris"]) == 0.0
    assert exact_match("Paris.", ["Paris"]) == 0.0
    assert exact_match("b", ["a", "b"]) == 1.0


@pytest.mark.parametrize(
    "prediction", ["card_arrival", ' "Card_Arrival".\n', "'card_arrival.'", "`CARD_ARRIVAL`", "“card_arrival”"]
)
def test_a_label_is_right_whatever_its_case_quotes_and_full_stop(prediction: str) -> None:
    assert label_accuracy(prediction, ["card_arrival"]) == 1.0


def test_a_label_keeps_the_signs_that_tell_it_from_others() -> None:
    assert label_accuracy("refund?", ["refund"]) == 0.0
    assert label_accuracy('"reverted_card_payment?".', ["reverted_card_payment?"]) == 1.0
    assert label_accuracy(".", ["''"]) == 0.0
    assert label_accuracy(".", ["."]) == 1.0
    assert label_accuracy("the label is spam", ["spam"]) == 0.0


@pytest.mark.parametrize(
    ("prediction", "reference", "f1"),
    [
        ("The Denver Broncos!", "Denver Broncos", 1.0),  # articles, case and punctuation do not count
        ("Denver", "Denver Broncos", 2 / 3),  # precision 1, recall 1/2
        ("the the cat", "cat cat dog", 1 / 2),  # one common token, lengths 1 and 3
        ("Carolina Panthers", "Denver Broncos", 0.0),
        ("golden-anniversary", "golden anniversary", 0.0),  # the official code joins what a hyphen parts
        ("A", "a", 1.0),  # nothing is left of either: the whole texts are compared
        ("A", "the", 0.0),
        ("", "Denver", 0.0),
    ],
)
def test_token_f1_follows_the_official_squad_normalisation(prediction: str, reference: str, f1: float) -> None:
    assert token_f1(prediction, [reference]) == pytest.approx(f1)
    assert token_f1(prediction, ["quite other", reference]) == pytest.approx(f1)


def test_rouge_l_equals_googles_rouge_score() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=False)
    random_ = random.Random(1)
    words = ["the", "cat's", "sat_on", "Mat,", "a-b", "7", "running", "!", "A"]
    for _ in range(200):
        a, b = (" ".join(random_.choices(words, k=random_.randint(0, 9))) for _ in "ab")
        assert rouge_l(a, [b]) == pytest.approx(scorer.score(b, a)["rougeL"].fmeasure)


def test_rouge_l_of_lins_published_example() -> None:
    reference = "police killed the gunman"  # Lin (2004), section 3: S2 and S3 against S1
    assert rouge_l("police kill the gunman", [reference]) == pytest.approx(3 / 4)
    assert rouge_l("the gunman kill police", [reference]) == pytest.approx(1 / 2)


def test_rouge_l_reads_letters_of_every_script() -> None:
    assert rouge_l("Москва столица", ["Москва большая"]) == pytest.approx(1 / 2)


def test_the_longest_common_subsequence_equals_the_textbook_recursion() -> None:
    def textbook(a: list[str], b: list[str]) -> int:
        row = [0] * (len(b) + 1)
        for x in a:
            last = row[:]
            for j, y in enumerate(b):
                row[j + 1] = last[j] + 1 if x == y else max(last[j + 1], row[j])
        return row[-1]

    random_ = random.Random(2)
    for _ in range(200):
        a, b = (random_.choices("abcd", k=random_.randint(0, 80)) for _ in "ab")
        assert _lcs_length(a, b) == textbook(a, b)


# ---- JSON


@pytest.mark.parametrize(
    "prediction",
    [
        '{"b": [2.0, 1], "a": "x  y "}',
        '```json\n{"a": "x y", "b": [1, 2]}\n```',
        '\n```\n{"a": "x y", "b": [1, 2]}```\n',
    ],
)
def test_json_is_compared_by_content_and_not_by_order_or_fence(prediction: str) -> None:
    assert json_match(prediction, ['{"a": "x y", "b": [1, 2]}']) == 1.0


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("[1, 1, 2]", "[1, 2, 2]"),
        ("[1, 1]", "[1]"),
        ("true", "1"),
        ("0", "false"),
        ("null", "{}"),
        ('"1"', "1"),
        ("[]", "{}"),
        ('[["a", 1]]', '{"a": 1}'),
        ('{"a": 1, "b": 2}', '{"a": 1}'),
        ('Here it is: {"a": 1}', '{"a": 1}'),
        ("{'a': 1}", '{"a": 1}'),
        ("NaN", "0"),
    ],
)
def test_json_that_differs_or_is_none_scores_nothing(prediction: str, reference: str) -> None:
    assert json_match(prediction, [reference]) == 0.0


def test_lists_of_objects_are_compared_as_multisets() -> None:
    assert json_match('[{"a": [1, {"b": 2}]}, 3]', ['[3, {"a": [{"b": 2.0}, 1]}]']) == 1.0


def test_json_nested_past_all_reason_scores_without_raising() -> None:
    for depth in (100, 300, 400, 900, 5000):
        deep = "[" * depth + "]" * depth
        assert json_match(deep, ["[]"]) == 0.0
    reasonable = "[" * 50 + "]" * 50
    assert json_match(reasonable, [reasonable]) == 1.0


def test_a_reference_that_is_no_json_is_an_error_and_not_a_wrong_answer() -> None:
    with pytest.raises(MetricError, match="'yes' is not JSON"):
        json_match("{}", ["yes"])
    assert json_match("{}", ["yes", "{}"]) == 1.0


def test_json_fields_scores_each_field_against_the_reference_that_fits_best() -> None:
    references = ['{"name": "Ada", "age": 36}', '{"name": "Ada", "age": 37, "city": "London"}']
    assert json_fields('{"age": 37, "name": "Ada", "x": 1}', references) == {
        "name": 1.0,
        "age": 1.0,
        "city": 0.0,
        "x": 0.0,
    }
    assert json_fields("no object", references[:1]) == {"name": 0.0, "age": 0.0}
    assert json_fields("[1]", ["[1]"]) == {}


def test_all_fields_are_right_exactly_when_the_whole_is() -> None:
    random_ = random.Random(3)
    for _ in range(300):
        a, b = ({k: random_.choice([1, [1, 2], [2, 1]]) for k in random_.sample("pqr", 2)} for _ in "ab")
        fields = json_fields(json.dumps(a), [json.dumps(b)])
        assert (min(fields.values()) == 1.0) == (json_match(json.dumps(a), [json.dumps(b)]) == 1.0)


# ---- numbers


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42", "42"),
        ("It costs $1,234.50.", "1234.5"),
        ("1.234,56 €", "1234.56"),
        ("3,14", "3.14"),
        ("1\u202f234\u202f567", "1234567"),
        ("a 12,345", "12345"),
        ("\u22127", "-7"),
        ("-$7", "-7"),
        ("$-7", "-7"),
        ("from 10-20", "20"),
        ("3/4", "0.75"),
        ("1/3", "0.33333333"),
        ("50 %", "50"),
        ("6.02e23", "602000000000000000000000"),
        (".5", "0.5"),
        ("45 km2", "45"),
        ("COVID-19 hit 7 towns", "7"),
        ("2 + 3 = 5 apples in 1 basket", "5"),
        ("The answer is 8, since 4+4 = 9 - 1.", "8"),
        ("answer: 3; no, the answer is 4 of 5", "4"),
        ("7 * 6 = 41\n#### 42", "42"),
        ("First 3, then 4", "4"),
        ("The answer is here: x = 6", "6"),
        ("6 and that = all", "6"),
    ],
)
def test_the_number_of_a_text_is_read(text: str, number: str) -> None:
    assert numeric_match(text, [number]) == 1.0
    assert numeric_match(number, [text]) == 1.0


@pytest.mark.parametrize(
    ("text", "number"),
    [("none", "0"), ("7", "-7"), ("12345678", "12345679"), ("1.00001", "1.0"), ("5/0", "5"), ("", "1"), ("CO2", "2")],
)
def test_another_number_or_none_is_wrong(text: str, number: str) -> None:
    assert numeric_match(text, [number]) == 0.0


def test_numbers_with_a_fraction_match_to_a_millionth() -> None:
    assert numeric_match("3.1415926", ["3.1415927"]) == 1.0
    assert numeric_match("2.0", ["2"]) == 1.0


def test_a_reference_without_a_number_is_an_error() -> None:
    with pytest.raises(MetricError, match="'many' is not a number"):
        numeric_match("3", ["many"])


# ---- a user's function


def write(folder: Path, body: str) -> Path:
    (folder / "my.py").write_text(body)
    return folder


def test_a_users_function_is_a_metric(tmp_path: Path) -> None:
    metric = load_metric(
        "python:my.py:half", write(tmp_path, "def half(prediction, references):\n    return prediction in references\n")
    )
    assert (metric("a", ["a"]), metric("b", ["a"])) == (1.0, 0.0)


@pytest.mark.parametrize("value", ["1.5", "-0.1", "float('nan')", "None", "'1'", "[1]"])
def test_a_users_function_that_returns_no_score_is_an_error_that_names_the_example(tmp_path: Path, value: str) -> None:
    metric = load_metric("python:my.py:f", write(tmp_path, f"def f(p, r):\n    return {value}\n"))
    with pytest.raises(MetricError, match=r"my.py: f returned .*'guess'.*\['truth'\]; it must return a number"):
        metric("guess", ["truth"])


def test_a_users_function_that_fails_is_an_error_with_file_line_and_example(tmp_path: Path) -> None:
    metric = load_metric("python:my.py:f", write(tmp_path, "import json\n\ndef f(p, r):\n    return json.loads(p)\n"))
    with pytest.raises(MetricError, match=r"my.py, line 4: f failed for the prediction 'guess'.*JSONDecodeError"):
        metric("guess", ["truth"])


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
