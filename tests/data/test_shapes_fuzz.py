"""Rows of any JSON values give examples or a ValueError that says why not, in every shape."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from rung.data.rows import Row
from rung.data.shapes import WRITABLE, Labels, examples_of, flat, recognised, rows_of
from rung.data.shapes.reading import Answers, RowReader
from rung.errors import DataError
from rung.types import Example

NAMES = ["input", "output", "messages", "conversations", "prompt", "completion", "chosen", "rejected", "instruction",
         "question", "answers", "context", "labels", "text", "id", "group", "references", "gold_ids", "turns", "tools",
         "history", "paragraphs", "role", "content", "from", "value", "answer", "label", "", " "]  # fmt: skip
TEXTS = ["", " ", "a", "a | b, c", "[1, 2", '[{"role": "user", "content": "q"}]', "\n\nHuman: a\n\nAssistant: b", "nan"]
TURNS = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["user", "assistant", "system", "tool", "function_call", "narrator"]),
            "content": st.sampled_from(
                ["", "x", None, [{"type": "text", "text": "x"}], [{"type": "image"}], '{"name": "f"}']
            ),
        },
        optional={"tool_calls": st.sampled_from([[], [1], [{"function": {"name": "f", "arguments": "{"}}], {}])},
    ),
    max_size=4,
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.sampled_from(TEXTS) | TURNS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*NAMES, "answer_start", "qas", "name", "arguments"]), inner, max_size=3)
    ),
    max_leaves=6,
)
ROWS = st.lists(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5), min_size=1, max_size=5)
WAYS = (
    Answers(),
    Answers(labels=Labels(["a", "b"])),
    Answers(labels=Labels(["a", "b"]), several=True),
    Answers(lists_are_json=True, empty=True),
)


@settings(max_examples=150, deadline=None)
@given(ROWS, st.sampled_from([{}, {"output": "output"}, {"input": "text", "output": "label"}]))
def test_rows_of_any_values_are_read_or_told(items: list[dict[str, object]], chosen: dict[str, str]) -> None:
    rows = [Row(f"e.jsonl, line {i}", f"line-{i}", item) for i, item in enumerate(items, 1)]
    try:
        reading = recognised(list(dict.fromkeys(c for item in items for c in item)), rows, chosen)
    except DataError:
        return
    assert len(list(examples_of(rows, reading))) == len(list(flat(rows)))
    for way in WAYS:
        read, found = RowReader(reading.fields, way), list[Example]()
        for row in flat(rows):
            try:
                found.append(read(row))
            except ValueError as error:
                assert str(error)
        assert all(e.output or way.empty for e in found)
        for shape in WRITABLE:
            assert all(json.dumps(row) for row in rows_of(found, shape))
