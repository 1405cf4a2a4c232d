"""What holds for every built-in metric: a right answer scores 1 against itself, and most metrics are symmetric."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rung.errors import MetricError
from rung.evaluation.metrics import METRICS, load_metric, numeric_match
from rung.evaluation.scorer import Scorer
from rung.types import Answer, MetricInfo, Query

Metric = Callable[[str, Sequence[str]], float]

WAYS: dict[str, MetricInfo] = {name: METRICS[name] for name in METRICS} | {
    "exact_match, white space counts": load_metric("exact_match", Path(), whitespace="counts"),
    "json_match, unordered": load_metric("json_match", Path(), unordered=True),
    "tool_call_match, unordered": load_metric("tool_call_match", Path(), unordered=True),
    "numeric_match, 5 %": load_metric("numeric_match", Path(), tolerance=0.05),
    "numeric_error, 5 %": load_metric("numeric_error", Path(), tolerance=0.05),
}
ONE_WAY = {"numeric_error", "numeric_match, 5 %", "numeric_error, 5 %"}
"""They count an error as a share of the right number."""

THOUSAND = [
    "1234.5",
    "1,234.5",
    "1.234,5",
    "1 234.5",
    "1'234.5",
    "1.2345e3",
    "١٢٣٤٫٥",
    "１２３４.５",
    "1234 1/2",
    "1234½",
]
ODD = [
    *(
        "",
        " ",
        "\n\t",
        "\u200b",
        "a",
        "A",
        "the",
        ".",
        "''",
        '"yes"',
        "“yes”。",
        "- ",
        "[]",
        "{}",
        "null",
        "true",
        '""',
    ),
    *(
        "日本語の答え",
        "我爱你。",
        "สวัสดีครับ",
        "안녕하세요",
        "नमस्ते।",
        "🦊",
        "👩‍👩‍👧",
        "e\u0301",
        "ﬁn",
        "İstanbul",
        "straße",
        "ǅ",
    ),
    *(
        '{"a": 1, "a": 2}',
        '{"a": [1, 1.0, true]}',
        '{"ａ": "x", "a": "y"}',
        '[[], {}, ""]',
        "[1e400, -0.0]",
        '"\\ud83d"',
    ),
    *(
        '{"name": "f", "arguments": {"x": NaN}}',
        '[{"name": "f", "arguments": "{}"}]',
        '{"name": "f"}',
        "```json\n1\n```",
    ),
    *(
        '["a", "b"]',
        '["b", "a", "a"]',
        "a, b; c",
        "1. one\n2. two",
        "[a",
        "  indented\n\tmore  ",
        "x" * 3000,
        "9" * 5000,
    ),
    *(
        "2024-01-05",
        "5.1.2024",
        "January 5, 2024",
        "12:30",
        "2024年1月5日",
        "5–7",
        "from 5 to 7",
        "1.2.3",
        "#### 7",
        "=",
        "½",
    ),
    *(
        "50 %",
        "1/0",
        "1e999",
        "-\u22125",
        "1/3",
        "10^5",
        "CO2",
        "$-5",
        "(3)",
        "3.",
        ".5",
        "1,2,3",
        "0x1F",
        "∞",
        "٣",
        "三",
    ),
    *THOUSAND,
]


def score(metric: MetricInfo, prediction: str, reference: str) -> float | None:
    """None where the metric cannot read the reference."""
    try:
        return float(metric.score([Answer(Query("", ""), prediction, (reference,))])[0])
    except MetricError:
        return None


@pytest.mark.parametrize("name", WAYS)
def test_an_answer_is_right_against_itself_or_is_no_reference(name: str) -> None:
    metric = WAYS[name]
    for text in ODD:
        assert score(metric, text, text) in (1.0, None), text
        assert score(metric, f" {text}\n", text) in (1.0, None) or "white space" in name, text
    if not {"json", "tool", "numeric"} & set(name.split("_")):
        assert all(score(metric, text, text) == 1.0 for text in ODD)


@pytest.mark.parametrize("name", [name for name in WAYS if name not in ONE_WAY])
def test_either_of_two_answers_may_be_the_right_one(name: str) -> None:
    metric = WAYS[name]
    for i, one in enumerate(ODD):
        for other in ODD[:i]:
            there, back = score(metric, one, other), score(metric, other, one)
            assert there is None or back is None or there == pytest.approx(back), (one, other)


@pytest.mark.parametrize("name", WAYS)
@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=30) | st.text('0123456789.,/-%:$ e[]{}"a日', max_size=14), other=st.text(max_size=30))
def test_no_answer_makes_a_metric_raise_or_leave_the_unit_interval(name: str, text: str, other: str) -> None:
    metric = WAYS[name]
    assert score(metric, text, text) in (1.0, None)
    for a, b in ((text, other), (other, text), (text, "7"), (text, "[1]"), (text, '{"name": "f", "arguments": {}}')):
        found = score(metric, a, b)
        assert found is None or 0.0 <= found <= 1.0
        assert Scorer(metric).one(a, [b]) == (found or 0.0), "a scorer never raises"


_JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=80, deadline=None)
@given(_JSON)
def test_json_is_the_same_however_it_is_written(value: Any) -> None:
    ways = [
        json.dumps(value),
        json.dumps(value, ensure_ascii=False, separators=(",", ":")),
        json.dumps(value, indent=2, sort_keys=True),
        f"```json\n{json.dumps(value)}\n```",
    ]
    for unordered in ("json_match", "json_match, unordered"):
        assert all(score(WAYS[unordered], way, ways[0]) == 1.0 for way in ways)


@pytest.mark.parametrize("written", THOUSAND)
def test_a_number_is_the_same_in_every_notation(written: str) -> None:
    assert [numeric_match(written, [other]) for other in THOUSAND] == [1.0] * len(THOUSAND)


@pytest.mark.parametrize(
    "written", ["2024-01-05", "05.01.2024", "January 5, 2024", "5 Jan 2024", "2024年1月5日", "2024/1/5"]
)
def test_a_date_is_the_same_in_every_notation_and_is_no_number(written: str) -> None:
    assert numeric_match(written, ["2024-01-05"]) == 1.0
    assert numeric_match(written, ["2024"]) == numeric_match(written, ["5"]) == 0.0
