"""The demo tasks: their data are sound, and copying one never overwrites a user's work."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from importlib import resources
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from rung.demos import DEMOS, copy_demo
from rung.errors import TaskError

Row = dict[str, Any]


def folder(name: str) -> Path:
    return Path(str(resources.files("rung.demos") / name))


def rows(name: str, file: str = "examples.jsonl") -> list[Row]:
    return [json.loads(line) for line in (folder(name) / file).read_text(encoding="utf-8").splitlines()]


def task(name: str) -> Row:
    yaml = pytest.importorskip("yaml")
    loaded: Row = yaml.safe_load((folder(name) / "task.yaml").read_text(encoding="utf-8"))
    return loaded


def words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower())


def shingles(text: str) -> set[tuple[str, ...]]:
    w = words(text)
    return {tuple(w[i : i + 3]) for i in range(len(w) - 2)}


@pytest.fixture(params=list(DEMOS))
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param


# ---- the data -------------------------------------------------------------------------------


def test_the_first_demo_is_tickets() -> None:
    assert list(DEMOS) == ["tickets", "handbook", "reviews"]


def test_a_task_file_is_named_after_its_demo_and_its_files_exist(name: str) -> None:
    loaded = task(name)
    assert loaded["name"] == name
    assert all((folder(name) / loaded[key]).is_file() for key in ("examples", "corpus") if key in loaded)


def test_a_demo_has_enough_examples_and_not_too_many(name: str) -> None:
    low, high = {"tickets": (150, 170), "handbook": (240, 280), "reviews": (200, 240)}[name]
    assert low <= len(rows(name)) <= high


def test_ids_are_unique_and_no_field_is_empty_or_padded(name: str) -> None:
    found = rows(name)
    assert len({r["id"] for r in found}) == len(found)
    assert all(r[key] and r[key] == r[key].strip() for r in found for key in ("id", "input", "output"))


def test_no_input_occurs_twice(name: str) -> None:
    twice = [text for text, n in Counter(" ".join(words(r["input"])) for r in rows(name)).items() if n > 1]
    assert twice == []


def test_no_two_inputs_share_three_quarters_of_their_shingles(name: str) -> None:
    cut = [(r["id"], shingles(r["input"])) for r in rows(name)]
    near = [(a, b) for (a, s), (b, t) in combinations(cut, 2) if len(s & t) > 0.75 * min(len(s), len(t))]
    assert near == []


@pytest.mark.parametrize("demo", ["tickets", "reviews"])
def test_outputs_are_exactly_the_labels_and_equally_many_of_each(demo: str) -> None:
    counts = Counter(r["output"] for r in rows(demo))
    assert set(counts) == set(task(demo)["labels"])
    assert len(set(counts.values())) == 1


@pytest.mark.parametrize("demo", ["tickets", "reviews"])
def test_the_instruction_names_every_label(demo: str) -> None:
    loaded = task(demo)
    assert all(label in loaded["instruction"] for label in loaded["labels"])


def test_tickets_do_not_contain_the_codes_they_are_routed_to() -> None:
    labels = {r["output"] for r in rows("tickets")}
    assert not [r["id"] for r in rows("tickets") if any(label in r["input"] for label in labels)]


def test_tickets_are_short() -> None:
    assert all(8 <= len(r["input"].split()) <= 25 for r in rows("tickets"))


# ---- the handbook ---------------------------------------------------------------------------


def test_passages_are_short_and_have_unique_ids_and_texts() -> None:
    passages = rows("handbook", "corpus.jsonl")
    assert 120 <= len(passages) <= 200
    assert len({p["id"] for p in passages}) == len({p["text"] for p in passages}) == len(passages)
    assert all(len(p["text"].split()) <= 45 for p in passages)


def test_the_gold_passage_exists_and_contains_the_answer_and_the_name_asked_about() -> None:
    passages = {p["id"]: p for p in rows("handbook", "corpus.jsonl")}
    for row in rows("handbook"):
        (gold,) = row["gold_ids"]
        assert row["output"] in passages[gold]["text"], row["id"]
        assert row["group"].replace("-", " ") in passages[gold]["text"].lower(), row["id"]


def test_a_question_names_its_own_group_and_no_other() -> None:
    groups = {r["group"] for r in rows("handbook")}
    for row in rows("handbook"):
        asked = {g for g in groups if g.replace("-", " ") in row["input"].lower()}
        assert asked == {row["group"]}, row["id"]


def test_no_fact_is_shared_by_two_groups() -> None:
    passage_groups: dict[str, set[str]] = {}
    answer_groups: dict[str, set[str]] = {}
    for row in rows("handbook"):
        answer_groups.setdefault(row["output"].lower(), set()).add(row["group"])
        for gold in row["gold_ids"]:
            passage_groups.setdefault(gold, set()).add(row["group"])
    assert [g for g, found in passage_groups.items() if len(found) > 1] == []
    assert [a for a, found in answer_groups.items() if len(found) > 1] == []


def test_every_fact_is_asked_about_in_at_least_three_wordings() -> None:
    wordings: dict[str, set[str]] = {}
    titles = {p["id"]: p["title"].split(": ")[1] for p in rows("handbook", "corpus.jsonl")}
    for row in rows("handbook"):
        entity = re.compile(re.escape(row["group"].replace("-", " ")), re.IGNORECASE)
        wordings.setdefault(titles[row["gold_ids"][0]], set()).add(entity.sub("…", row["input"]))
    assert all(len(found) >= 3 for found in wordings.values())


def test_searching_words_finds_the_gold_passage_among_the_first_three() -> None:
    bm25s = pytest.importorskip("bm25s")
    passages, questions = rows("handbook", "corpus.jsonl"), rows("handbook")
    index = bm25s.BM25()
    index.index(bm25s.tokenize([p["text"] for p in passages], show_progress=False), show_progress=False)
    asked = bm25s.tokenize([q["input"] for q in questions], show_progress=False)
    best, _ = index.retrieve(asked, k=3, show_progress=False)
    hits = [q["gold_ids"][0] in {passages[i]["id"] for i in found} for q, found in zip(questions, best, strict=True)]
    assert sum(hits) > 0.9 * len(hits)


# ---- copying --------------------------------------------------------------------------------


def test_a_copied_demo_is_the_demo_and_its_task_file_is_returned(name: str, tmp_path: Path) -> None:
    path = copy_demo(name, tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "task.yaml"
    copied = {f.name: f.read_bytes() for f in path.parent.iterdir()}
    assert copied == {f.name: f.read_bytes() for f in folder(name).iterdir()}


def test_copying_twice_reuses_the_folder_and_leaves_other_files_alone(tmp_path: Path) -> None:
    first = copy_demo("tickets", tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    before = first.stat().st_mtime_ns
    assert copy_demo("tickets", tmp_path) == first
    assert first.stat().st_mtime_ns == before
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_missing_file_is_put_back(tmp_path: Path) -> None:
    path = copy_demo("reviews", tmp_path)
    path.unlink()
    assert copy_demo("reviews", tmp_path).read_bytes() == (folder("reviews") / "task.yaml").read_bytes()


def test_a_changed_file_is_never_overwritten_and_nothing_else_is_written(tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text("name: mine\n")
    with pytest.raises(TaskError, match=r"task\.yaml.*another folder"):
        copy_demo("tickets", tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == ["task.yaml"]
    assert (tmp_path / "task.yaml").read_text() == "name: mine\n"


def test_one_demo_is_not_copied_over_another(tmp_path: Path) -> None:
    copy_demo("tickets", tmp_path)
    with pytest.raises(TaskError, match="examples"):
        copy_demo("handbook", tmp_path)
    assert not (tmp_path / "corpus.jsonl").exists()


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(TaskError, match="cannot be copied"):
        copy_demo("tickets", tmp_path / "taken")


def test_an_unknown_name_is_answered_with_the_nearest_and_all(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"'ticket'.*did you mean 'tickets'.*tickets, handbook, reviews"):
        copy_demo("ticket", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_name_that_resembles_nothing_gets_the_list_only(tmp_path: Path) -> None:
    with pytest.raises(TaskError) as error:
        copy_demo("zzz", tmp_path)
    assert "did you mean" not in str(error.value)
    assert all(known in str(error.value) for known in DEMOS)


@pytest.mark.parametrize("bad", ["", "../demos/tickets", "tickets/", "/etc"])
def test_a_name_is_never_a_path(bad: str, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no demo named"):
        copy_demo(bad, tmp_path)
