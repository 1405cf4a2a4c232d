from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rung.cli.convert import SHAPES
from rung.cli.main import rung
from rung.data.shapes import WRITABLE
from rung.errors import DataError


def call(*words: object) -> Result:
    return CliRunner().invoke(rung, ["convert", *(str(word) for word in words)])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text(
        "subject,body,team,source\nMy bill,It is twice as high,money,web\nA lamp,It broke at once,repairs,web\n"
    )
    return path


def test_the_shapes_of_the_command_are_those_that_can_be_written() -> None:
    assert sorted(SHAPES) == sorted(WRITABLE)


def test_rows_are_written_in_another_shape_and_what_was_read_is_said(data: Path, tmp_path: Path) -> None:
    done = call(data, tmp_path / "out.jsonl", "--to", "messages", "--field", "output=team")
    assert done.exit_code == 0, done.output
    assert "2 rows of rows.csv (columns) written to" in done.output
    assert "Kept beside: source." in done.output
    first = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert first == {
        "messages": [
            {"role": "user", "content": "subject: My bill\nbody: It is twice as high"},
            {"role": "assistant", "content": "money"},
        ],
        "source": "web",
    }


def test_a_file_that_is_there_is_replaced_only_by_force(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("mine")
    words = (data, out, "--to", "alpaca", "--field", "output=team")
    refused = call(*words)
    assert isinstance(refused.exception, DataError) and "is there already. Use --force" in str(refused.exception)
    assert out.read_text() == "mine"
    assert call(*words, "--force").exit_code == 0
    assert json.loads(out.read_text().splitlines()[1])["output"] == "repairs"


def test_a_field_that_is_none_is_refused_with_the_names(data: Path, tmp_path: Path) -> None:
    done = call(data, tmp_path / "out.jsonl", "--to", "alpaca", "--field", "answer=team")
    assert done.exit_code == 2 and "write NAME=COLUMN; the names are input, output" in done.output
