from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from rung.data.examples import read_sets
from rung.data.guess import guess_task
from rung.data.task_file import read_task
from rung.errors import DataError
from rung.types import Task


def guess(data: Path) -> Task:
    """The task that the guessed text describes; reading it and its examples must succeed."""
    folder = data if data.is_dir() else data.parent
    (folder / "task.yaml").write_text(guess_task(data))
    task = read_task(folder / "task.yaml")
    read_sets(task)
    return task


def write(path: Path, items: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(i) + "\n" for i in items))
    return path


def outputs(kind: str, n: int = 40) -> list[object]:
    rng = random.Random(0)
    words = [f"word{i}" for i in range(200)]
    made: dict[str, list[object]] = {
        "labels": [("yes", "no", "1", "it's: #odd", "é 👩‍💻")[i % 5] for i in range(n)],
        "numbers": [f"{i * 37:,}.5" for i in range(n)],
        "json": [{"city": f"c{i}", "n": i} for i in range(n)],
        "long": [" ".join(rng.choices(words, k=30)) for _ in range(n)],
        "medium": [" ".join(rng.choices(words, k=6)) for _ in range(n)],
        "short": [f"name{i}" for i in range(n)],
        "long Chinese": [
            "".join(rng.choices("我上星期为账户申请了一张新的借记卡但是到现在还没有", k=45)) for _ in range(n)
        ],
        "short Chinese": [
            "".join(rng.choices("我上星期为账户申请了一张新的借记卡但是到现在还没有", k=5)) for _ in range(n)
        ],
        "Chinese labels": [("信用卡还没有寄到怎么办", "忘记密码")[i % 2] for i in range(n)],
    }
    return made[kind]


@pytest.mark.parametrize(
    ("kind", "metric"),
    [
        ("labels", "label_accuracy"),
        ("numbers", "numeric_match"),
        ("json", "json_match"),
        ("long", "rouge_l"),
        ("medium", "token_f1"),
        ("short", "exact_match"),
        ("long Chinese", "rouge_l"),
        ("short Chinese", "exact_match"),
        ("Chinese labels", "label_accuracy"),
    ],
)
def test_the_metric_is_guessed_from_the_answers(tmp_path: Path, kind: str, metric: str) -> None:
    items: list[dict[str, object]] = [{"question": f"q {i}", "reply": o} for i, o in enumerate(outputs(kind))]
    task = guess(write(tmp_path / "d.jsonl", items))
    assert task.metric == metric
    assert dict(task.fields) == {"input": "question", "output": "reply"}
    if kind == "labels":
        assert task.labels == ("1", "it's: #odd", "no", "yes", "é 👩‍💻")
    else:
        assert (task.labels is not None) == (kind == "Chinese labels")


def test_every_guess_gives_its_reason_with_figures(tmp_path: Path) -> None:
    items: list[dict[str, object]] = [{"text": f"q {i}", "intent": "ab"[i % 2]} for i in range(40)]
    text = guess_task(write(tmp_path / "d.jsonl", items))
    assert "# 40 rows; columns: text, intent" in text
    assert "# 40 answers, only 2 distinct, 100 % of them repeated" in text
    assert "# all 2 distinct answers; the rarest has 20 rows" in text


def test_columns_without_a_telling_name_are_guessed_from_their_texts(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("x,y\n" + "".join(f"b{i},a longer text {i}\n" for i in range(20)))
    assert dict(guess(tmp_path / "d.csv").fields) == {"input": "y", "output": "x"}


def test_columns_that_leave_no_guess_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("x,y,z\n" + "a,b,c\n" * 20)
    with pytest.raises(DataError, match=r"d.csv: which column holds the answers\? Columns are x, y, z"):
        guess_task(tmp_path / "d.csv")


def test_a_folder_is_searched_for_examples_and_documents(tmp_path: Path) -> None:
    items: list[dict[str, object]] = [{"input": f"q {i}", "output": f"a {i}"} for i in range(20)]
    write(tmp_path / "mine.jsonl", items)
    write(tmp_path / "corpus.jsonl", [{"text": "t"}])
    task = guess(tmp_path)
    assert task.examples == (tmp_path / "mine.jsonl",)
    assert task.corpus == tmp_path / "corpus.jsonl"
    assert not task.fields


def test_a_folder_of_documents_beside_the_data_is_the_corpus(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("text")
    items: list[dict[str, object]] = [{"input": f"q {i}", "output": f"a {i}"} for i in range(20)]
    assert guess(write(tmp_path / "d.jsonl", items)).corpus == tmp_path / "docs"


def test_a_split_in_a_folder_is_kept(tmp_path: Path) -> None:
    items: list[dict[str, object]] = [{"input": f"q {i}", "output": f"a {i}"} for i in range(20)]
    for name in ("train", "validation", "test"):
        write(tmp_path / f"{name}.jsonl", items)
    task = guess(tmp_path)
    assert task.examples == {
        "train": (tmp_path / "train.jsonl",),
        "dev": (tmp_path / "validation.jsonl",),
        "test": (tmp_path / "test.jsonl",),
    }


@pytest.mark.parametrize("files", [[], ["a.csv", "b.csv"], ["notes.md"]])
def test_a_folder_without_one_clear_file_is_an_error(tmp_path: Path, files: list[str]) -> None:
    for name in files:
        (tmp_path / name).write_text("x,y\n1,2\n")
    with pytest.raises(DataError, match=tmp_path.name):
        guess_task(tmp_path)


@pytest.mark.parametrize("folder", ["odd: name?", "123", "é", "yes"])
def test_odd_folder_names_give_a_task_that_can_be_read(tmp_path: Path, folder: str) -> None:
    items: list[dict[str, object]] = [{"input": f"q {i}", "output": f"a {i}"} for i in range(20)]
    assert guess(write(tmp_path / folder / "odd: 'file' #1.jsonl", items)).name
