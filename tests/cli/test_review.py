"""`rung review`: key by key, saved after each, and by a CSV."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rung.cli.main import rung
from rung.errors import DataError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "synthetic.jsonl"
    rows = [
        {
            "id": f"syn-{i}",
            "input": f"text {i}",
            "output": "red",
            "origin": {"kind": "new", "votes": {"red": 3}},
            "review": None,
        }
        for i in range(4)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def call(*words: object, keys: str = "") -> Result:
    return CliRunner().invoke(rung, ["review", *(str(word) for word in words)], input=keys)


def reviews(file: Path) -> list[str | None]:
    return [json.loads(line)["review"] for line in file.read_text().splitlines()]


def test_keys_decide_row_by_row_and_the_next_command_goes_on(file: Path) -> None:
    done = call(file, keys="arq")
    assert done.exit_code == 0 and reviews(file) == ["accepted", "rejected", None, None]
    assert "1 accepted, 0 edited, 1 rejected, 2 open." in done.output
    again = call(file, keys="eblue\na")
    assert "1 of 2   syn-2   new" in again.output and "votes: red (3)" in again.output
    assert reviews(file) == ["accepted", "rejected", "edited", "accepted"]
    assert json.loads(file.read_text().splitlines()[2])["output"] == "blue"
    assert "Every row has been reviewed." in call(file).output


def test_an_unknown_key_shows_the_keys_and_back_returns_to_a_row(file: Path) -> None:
    done = call(file, keys="xabrq")
    assert done.output.count("a accept") == 2
    assert reviews(file) == ["rejected", None, None, None]


def test_a_csv_goes_out_and_comes_back(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "review.csv"
    assert call(file, "--to-csv", out).exit_code == 0
    assert isinstance(call(file, "--to-csv", out).exception, DataError)
    out.write_text(out.read_text("utf-8-sig").replace("syn-0,,red", "syn-0,rejected,red"))
    done = call(file, "--from-csv", out)
    assert done.exit_code == 0 and ": 1 of 4 rows." in done.output
    assert reviews(file) == ["rejected", None, None, None]
    assert call(file, "--to-csv", out, "--from-csv", out).exit_code == 2
    own = call(file, "--to-csv", file.parent / ".." / file.parent.name / file.name, "--force")
    assert isinstance(own.exception, DataError) and len(reviews(file)) == 4


def test_an_answer_that_is_left_as_it_is_is_no_edit(file: Path) -> None:
    done = call(file, keys="e\nq")
    assert "The answer stays as it is." in done.output and reviews(file) == [None] * 4


TASK = "instruction: Say it.\nexamples: {}\nmetric: label_accuracy\nlabels: [red, blue]\n"


def test_an_answer_that_the_task_does_not_allow_is_refused_by_key_and_by_csv(file: Path, tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text(TASK.format(file.name))
    done = call(file, keys="ebogus\neblue\nq")
    assert "labels: red, blue" in done.output and 'Not saved: the answer "bogus" is not one of' in done.output
    assert reviews(file) == ["edited", None, None, None]
    file.write_text(file.read_text().replace('"output": "red"', '"output": "rot"', 1))
    assert 'Not accepted: the answer "rot" is not one of the 2 labels' in call(file, keys="aq").output
    out = tmp_path / "review.csv"
    call(file, "--to-csv", out)
    (tmp_path / "task.yaml").rename(tmp_path / "other.yaml")
    out.write_text(
        out.read_text("utf-8-sig").replace("syn-2,,red", "syn-2,,bogus").replace("syn-1,,rot", "syn-1,accepted,rot")
    )
    refused = call(file, "--from-csv", out, "--task", tmp_path / "other.yaml")
    assert isinstance(refused.exception, DataError) and "2" in str(refused.exception)
    assert str(refused.exception).count("is not one of the 2 labels") == 2
    assert reviews(file) == ["edited", None, None, None]
    assert ": 2 of 4 rows." in call(file, "--from-csv", out).output, "without a task any text is an answer"


def test_a_task_beside_the_file_that_cannot_be_read_is_said_and_stops_nothing(file: Path, tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text("instruction: [")
    done = call(file, keys="aq")
    assert "Answers are not held against the task, which cannot be read:" in done.output
    assert reviews(file)[0] == "accepted"


def test_back_at_the_first_row_is_said(file: Path) -> None:
    assert "This is the first row." in call(file, keys="bq").output


def test_without_a_terminal_the_message_names_the_csv(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def getchar() -> str:
        raise OSError(6, "No such device or address", "/dev/tty")

    result = CliRunner().invoke(rung, ["review", str(file)])
    with monkeypatch.context() as patch:
        patch.setattr("click.getchar", getchar)
        with pytest.raises(DataError, match=r"no terminal that takes keys.* --to-csv review\.csv"):
            rung.main(["review", str(file)], standalone_mode=False)
    assert result.exit_code == 0


def test_what_steers_a_terminal_is_not_printed(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    odd = "\x1b[2Jred\x07"
    turns = [{"role": "user", "content": f"{odd} before"}]
    row = {"id": odd, "input": odd, "output": odd, "turns": turns, "origin": {"kind": odd, "votes": {odd: 3}}}
    path.write_text(json.dumps(row) + "\n")
    shown = call(path, keys="e\nq").output
    assert "\x1b" not in shown and "\x07" not in shown and "user: [2Jred before" in shown
