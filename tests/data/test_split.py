from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from rung.data.checks import near_duplicate_groups
from rung.data.split import split_examples, split_from_record, split_record, straddling_groups
from rung.errors import DataError
from rung.types import Example, Split, Task

TASK = Task("t", Path("/t/task.yaml"), "Answer.", (Path("/t/e.jsonl"),), "exact_match", "m")
LABELS = replace(TASK, metric="label_accuracy")


def make(n: int, labels: int = 0, seed: int = 0) -> list[Example]:
    outputs = [f"label {i % labels}" if labels else f"answer {i}" for i in range(n)]
    random.Random(seed).shuffle(outputs)
    return [Example(f"e{i}", f"text {i}", o, (o,), row=f"e.jsonl, line {i + 1}") for i, o in enumerate(outputs)]


def alone(examples: list[Example]) -> dict[str, str]:
    return {e.id: e.id for e in examples}


def sizes(split: Split) -> tuple[int, int, int]:
    return len(split.train), len(split.dev), len(split.test)


def set_of(split: Split) -> dict[str, str]:
    return {i: name for name, ids in ids_of(split).items() for i in ids}


def ids_of(split: Split) -> dict[str, list[str]]:
    return {"train": [e.id for e in split.train], "dev": [e.id for e in split.dev], "test": list(split.test.ids)}


@pytest.mark.parametrize("n", [12, 13, 60, 101, 400])
@pytest.mark.parametrize("labels", [0, 2, 7])
def test_the_sets_are_a_half_and_two_quarters(n: int, labels: int) -> None:
    examples = make(n, labels)
    split = split_examples({None: tuple(examples)}, alone(examples), LABELS if labels else TASK)
    for size, share in zip(sizes(split), (0.5, 0.25, 0.25), strict=True):
        assert abs(size - share * n) <= 1.5
    assert sorted(set_of(split)) == sorted(e.id for e in examples)


@pytest.mark.parametrize("seed", range(5))
def test_every_label_is_split_like_the_whole(seed: int) -> None:
    examples = make(400, labels=10, seed=seed)
    split = split_examples({None: tuple(examples)}, alone(examples), replace(LABELS, seed=seed))
    counts = Counter((set_of(split)[e.id], e.output) for e in examples)
    for label in {e.output for e in examples}:
        assert abs(counts["train", label] - 20) <= 1
        assert abs(counts["dev", label] - 10) <= 1
        assert abs(counts["test", label] - 10) <= 1


@pytest.mark.parametrize("seed", range(20))
def test_a_group_never_straddles_two_sets_and_sizes_stay_close(seed: int) -> None:
    rng = random.Random(seed)
    examples = make(200, labels=rng.choice([0, 4]), seed=seed)
    groups = {e.id: f"g{min(rng.randrange(60), rng.randrange(60))}" for e in examples}
    split = split_examples({None: tuple(examples)}, groups, replace(TASK, seed=seed))
    homes: dict[str, set[str]] = {}
    for i, name in set_of(split).items():
        homes.setdefault(groups[i], set()).add(name)
    assert all(len(names) == 1 for names in homes.values())
    assert abs(len(split.train) - 100) <= 8
    assert abs(len(split.dev) - 50) <= 8
    assert split.groups == groups


def test_one_giant_group_goes_to_train_and_no_set_is_empty() -> None:
    examples = make(100)
    groups = {e.id: "giant" if i < 80 else e.id for i, e in enumerate(examples)}
    assert sizes(split_examples({None: tuple(examples)}, groups, TASK)) == (80, 10, 10)


@pytest.mark.parametrize("seed", range(10))
def test_three_groups_fill_three_sets_whatever_their_sizes(seed: int) -> None:
    rng = random.Random(seed)
    examples = make(40, labels=rng.choice([0, 3]), seed=seed)
    groups = {e.id: str(i if i < 3 else rng.choice([0, 0, 1, 2])) for i, e in enumerate(examples)}
    assert min(sizes(split_examples({None: tuple(examples)}, groups, LABELS))) > 0


def test_two_groups_cannot_fill_three_sets() -> None:
    examples = make(20)
    with pytest.raises(DataError, match="form 2 groups, which leaves test empty"):
        split_examples({None: tuple(examples)}, {e.id: "a" if e.id[-1] > "4" else "b" for e in examples}, TASK)


def test_the_split_follows_from_examples_and_seed_alone() -> None:
    examples = make(100, labels=5)
    split = split_examples({None: tuple(examples)}, alone(examples), LABELS)
    shuffled = random.Random(3).sample(examples, 100)
    assert set_of(split_examples({None: tuple(shuffled)}, alone(shuffled), LABELS)) == set_of(split)
    assert set_of(split_examples({None: tuple(examples)}, alone(examples), replace(LABELS, seed=1))) != set_of(split)


def test_hash_randomisation_plays_no_part() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_split import *\n"
        "e = make(80, 4); e += [replace(x, id=x.id + 'x', input=x.input + '!') for x in e[:20]]\n"
        "print(ids_of(split_examples({None: tuple(e)}, near_duplicate_groups(e), LABELS)))"
    )

    def run(seed: str) -> str:
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", code, str(Path(__file__).parent)]
        return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout

    assert run("1") == run("2") != ""


def test_near_duplicates_stay_in_one_set() -> None:
    examples = make(60)
    examples += [replace(e, id=f"{e.id}x", input=e.input.upper() + "!") for e in examples]
    split = split_examples({None: tuple(examples)}, near_duplicate_groups(examples), TASK)
    home = set_of(split)
    assert all(home[f"e{i}"] == home[f"e{i}x"] for i in range(60))


def test_a_split_of_the_user_is_kept() -> None:
    a, b, c = make(30)[:10], make(30)[10:20], make(30)[20:]
    split = split_examples({"train": tuple(a), "dev": tuple(b), "test": tuple(c)}, alone(a + b + c), TASK)
    assert ids_of(split) == {"train": [e.id for e in a], "dev": [e.id for e in b], "test": [e.id for e in c]}


def test_dev_is_a_third_of_train_when_the_user_names_only_train_and_test() -> None:
    examples = make(130, labels=3)
    train, test = examples[:90], examples[90:]
    split = split_examples({"train": tuple(train), "test": tuple(test)}, alone(examples), LABELS)
    assert sizes(split) == (60, 30, 40)
    assert list(split.test.ids) == [e.id for e in test]


def test_a_group_in_two_sets_of_the_user_is_a_warning() -> None:
    a, b = make(20)[:10], make(20)[10:]
    groups = {**alone(a + b), "e3": "e12"}
    (finding,) = straddling_groups({"train": tuple(a), "test": tuple(b)}, groups)
    assert finding.severity == "warning"
    assert finding.ids == ("e3", "e12")
    assert "train and test" in finding.message
    assert straddling_groups({None: tuple(a + b)}, groups) == ()


def test_a_split_comes_back_from_its_record() -> None:
    examples = make(40)
    split = split_examples({None: tuple(examples)}, alone(examples), TASK)
    record = json.loads(json.dumps(split_record(split)))
    back = split_from_record(examples, record)
    assert (back.train, back.dev, back.test.ids, back.groups) == (split.train, split.dev, split.test.ids, split.groups)


@pytest.mark.parametrize("record", [{}, {"sets": [], "groups": {}}, {"sets": {"train": [1]}, "groups": {}}])
def test_a_damaged_record_is_an_error(record: dict[str, object]) -> None:
    with pytest.raises(DataError, match=r"split\.json: damaged"):
        split_from_record(make(20), record)


def test_a_record_of_other_examples_is_an_error() -> None:
    examples = make(20)
    record = split_record(split_examples({None: tuple(examples)}, alone(examples), TASK))
    with pytest.raises(DataError, match="1 of its examples are no longer in the data"):
        split_from_record(examples[1:], record)
    with pytest.raises(DataError, match="1 examples of the data are not in it"):
        split_from_record([*examples, replace(examples[0], id="new")], record)
