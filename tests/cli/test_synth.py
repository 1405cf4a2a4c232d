"""`rung synth`: the plan first, rows with their origin, and what a user can do wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import rung as package
from rung.cli.main import rung
from rung.errors import BudgetSpent, DataError, NoGain, RunError, TaskError
from rung.models import OPENERS
from rung.runs import held
from rung.testing import FakeModel
from rung.types import Price, Request
from synthetic_cases import THINGS, asked_of, colour_of, is_writing, written_by_table


class Scripted:
    """Teachers that were opened, in order. Each is to stop after so many calls of generate."""

    def __init__(self) -> None:
        self.models: list[FakeModel] = []
        self.price: Price | None = None
        self.only: str | None = None

    def open(self, spec: str, say: object) -> FakeModel:
        def answer(request: Request) -> str:
            if is_writing(request):
                return written_by_table(request)
            return self.only or colour_of(asked_of(request))

        self.models.append(FakeModel(answer, name="scripted", price=self.price))
        return self.models[-1]


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    teachers = Scripted()
    opener = package.register_model("scripted:", teachers.open)
    yield teachers
    OPENERS.remove(opener)


@pytest.fixture
def task(tmp_path: Path) -> Path:
    things = list(THINGS)
    sizes = ("small", "large", "old", "new", "green", "wooden", "heavy", "broken", "painted", "lost")
    places = ("in the hall", "by the river", "under a tree", "near Rome", "at school", "on the roof")
    rows = [
        {
            "id": f"{i}",
            "input": f"tell me of a {sizes[i % 10]} {things[i % 6]} {places[i // 10]}",
            "output": THINGS[things[i % 6]],
        }
        for i in range(60)
    ]
    (tmp_path / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "task.yaml"
    path.write_text(
        "instruction: Answer with the colour.\nexamples: examples.jsonl\nmetric: label_accuracy\n"
        "labels: [red, green, blue]\nmodel: smollm2-135m-instruct\nteacher: 'scripted:strong'\n"
    )
    return path


def call(*words: object) -> Result:
    return CliRunner().invoke(rung, ["synth", *(str(word) for word in words)])


def test_the_plan_is_shown_first_and_rows_are_written_with_their_origin(task: Path, scripted: Scripted) -> None:
    scripted.price = Price(usd_per_million_in=100.0, usd_per_million_out=100.0)
    done = call(task, "--n", 12)
    assert done.exit_code == 0, done.output
    assert "Rows that are wanted: 12 (8 new, 4 paraphrase)." in done.output
    assert "scripted will be asked at most" in done.output and "up to about" in done.output and "USD" in done.output
    rows = [json.loads(line) for line in (task.parent / "synthetic.jsonl").read_text().splitlines()]
    assert len(rows) == 12 and {row["origin"]["kind"] for row in rows} == {"new", "paraphrase"}
    assert all(row["review"] is None and row["origin"]["usd"] > 0 for row in rows)
    assert "12 rows written to" in done.output and "Look at them: rung review" in done.output
    asked = len(scripted.models[0].requests)
    planned = json.loads((task.parent / "synthetic.work" / "plan.json").read_text())["calls"]
    assert 0.9 * planned <= asked <= planned


def test_nothing_of_dev_and_the_test_is_shown_to_the_teacher(task: Path, scripted: Scripted) -> None:
    assert call(task, "--n", 12).exit_code == 0
    split = package.check(task).split
    assert split is not None
    train = {e.input for e in split.train}
    inputs = {json.loads(line)["input"] for line in (task.parent / "examples.jsonl").read_text().splitlines()}
    shown = "\n".join(m.content for r in scripted.models[0].requests for m in r.messages)
    assert not [text for text in inputs - train if text in shown]


def test_the_same_command_continues_and_asks_nothing_twice(
    task: Path, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    generate, left = FakeModel.generate, [3]

    def stops(self: FakeModel, requests: list[Request]) -> object:
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return generate(self, requests)

    monkeypatch.setattr(FakeModel, "generate", stops)
    with pytest.raises(Killed):
        CliRunner().invoke(rung, ["synth", str(task), "--n", "12"], catch_exceptions=False)
    assert not (task.parent / "synthetic.jsonl").exists()
    monkeypatch.setattr(FakeModel, "generate", generate)
    assert call(task, "--n", 12).exit_code == 0
    asked = [repr(request) for model in scripted.models for request in model.requests]
    assert len(asked) == len(set(asked))


def test_only_the_plan_asks_nothing(task: Path, scripted: Scripted) -> None:
    done = call(task, "--plan")
    assert done.exit_code == 0 and "Rows that are wanted: 500" in done.output
    assert scripted.models[0].requests == [] and not (task.parent / "synthetic.work").exists()


def test_a_limit_in_dollars_ends_the_work_and_a_larger_one_continues(task: Path, scripted: Scripted) -> None:
    scripted.price = Price(usd_per_million_in=100.0, usd_per_million_out=100.0)
    stopped = call(task, "--n", 12, "--usd", "0.05")
    assert isinstance(stopped.exception, BudgetSpent) and "--usd 0.05 may not suffice" in stopped.output
    first = len(scripted.models[-1].requests)
    assert first > 0 and call(task, "--n", 12).exit_code == 0
    assert len(scripted.models[-1].requests) > 0


def test_two_commands_do_not_write_the_same_rows(task: Path, scripted: Scripted) -> None:
    with held(task.parent / "synthetic.work"):
        done = call(task, "--n", 12)
    assert isinstance(done.exception, RunError) and "another rung is working here" in str(done.exception)
    assert scripted.models[0].requests == []


def test_a_weak_teacher_is_refused_with_its_score(task: Path, scripted: Scripted) -> None:
    scripted.only = "red"
    done = call(task, "--n", 12)
    assert isinstance(done.exception, NoGain) and "scripted scores 0." in str(done.exception)
    assert "Name a stronger teacher" in str(done.exception)
    allowed = call(task, "--n", 12, "--bar", "0")
    assert isinstance(allowed.exception, DataError)
    assert "wrote no row that can be used (10 answered otherwise than it was written for" in str(allowed.exception)
    assert not (task.parent / "synthetic.jsonl").exists()


def test_what_stands_in_the_file_is_not_written_over(task: Path, scripted: Scripted) -> None:
    out = task.parent / "synthetic.jsonl"
    out.write_text("mine")
    refused = call(task, "--n", 12)
    assert isinstance(refused.exception, DataError) and "Use --force" in str(refused.exception)
    assert out.read_text() == "mine" and call(task, "--n", 12, "--force").exit_code == 0
    own = call(task, "--out", task.parent / ".." / task.parent.name / "examples.jsonl", "--force")
    assert isinstance(own.exception, DataError) and "the task reads it for something else" in str(own.exception)


def test_rows_that_were_written_are_no_examples_where_a_pattern_names_them(task: Path, scripted: Scripted) -> None:
    assert call(task, "--n", 1).exit_code == 0
    out, text = task.parent / "synthetic.jsonl", task.read_text()
    for pattern in ("*.jsonl", "*.csv"):
        task.write_text(text.replace("examples.jsonl", f"['e*.jsonl', 's{pattern}']"))
        with pytest.raises(DataError, match=r"synthetic.\w+: holds rows that a model wrote .* under synthetic:"):
            package.check(task)
        task.write_text(text)
        CliRunner().invoke(rung, ["review", str(out), "--to-csv", str(out.with_suffix(".csv"))])


def test_what_is_to_be_done_next_names_the_file_as_it_can_be_found(task: Path, scripted: Scripted) -> None:
    inside = call(task, "--n", 1)
    assert "1 row written" in inside.output and "Train with them: synthetic: synthetic.jsonl in" in inside.output
    out = task.parent / "else where" / "rows.jsonl"
    outside = call(task, "--n", 1, "--out", out)
    assert f"synthetic: {out} in task.yaml" in outside.output and f"rung review '{out}'" in outside.output


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("--kind", "document"), "the task has no corpus"),
        (("--kind", "unanswerable"), "the task has no corpus"),
        (("--usd", "1"), "no price of the teacher is known"),
        (("--n", "100000"), "from 1 to 20,000"),
        (("--out", "rows.csv"), "ends in .jsonl"),
    ],
)
def test_wrong_options_say_what_to_do(task: Path, scripted: Scripted, words: tuple[str, ...], fault: str) -> None:
    done = call(task, *words)
    assert isinstance(done.exception, TaskError | DataError) and fault in str(done.exception)


def test_a_task_without_a_teacher_is_told_how_to_name_one(task: Path) -> None:
    task.write_text(task.read_text().replace("teacher: 'scripted:strong'\n", ""))
    done = call(task)
    assert isinstance(done.exception, TaskError) and "Write teacher:" in str(done.exception)


def test_a_kind_of_which_rows_are_lacking_is_named_with_the_reasons() -> None:
    from types import SimpleNamespace
    from typing import Any, cast

    from rung.cli.synth import _too_few

    ready = SimpleNamespace(plan=SimpleNamespace(wanted={"new": 2, "paraphrase": 24, "document": 1}))
    left_out = {"paraphrase": {"a refusal": 1, "nearly repeats a train row": 30}}
    found = SimpleNamespace(by_kind={"new": 3}, why_left_out=left_out)
    assert _too_few(cast("Any", ready), cast("Any", found)) == [
        "Of 24 paraphrase rows that were wanted 0 came; left out: nearly repeats a train row (30), a refusal (1).",
        "Of 1 document rows that were wanted 0 came; too few inputs were written.",
    ]


def test_it_is_a_function_of_the_package_too(task: Path, scripted: Scripted) -> None:
    found = package.synth(task, rows=6, kinds=("paraphrase",), out=task.parent / "more.jsonl")
    assert found.by_kind == {"paraphrase": 6} and (task.parent / "more.jsonl").exists()
