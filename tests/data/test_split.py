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

from rung.data import near_duplicates
from rung.data import split as splitting
from rung.data.near_duplicates import near_duplicate_groups
from rung.data.split import seen_before, split_examples, split_from_record, split_record
from rung.errors import DataError
from rung.types import Example, ModelSpec, Split, Task

TASK = Task("t", Path("/t/task.yaml"), "Answer.", (Path("/t/e.jsonl"),), "exact_match", (ModelSpec("m", "m"),))
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


@pytest.mark.parametrize("n", [60, 101, 400, 2000])
@pytest.mark.parametrize("labels", [0, 2, 7])
def test_the_sets_are_about_a_half_and_two_quarters(n: int, labels: int) -> None:
    examples = make(n, labels)
    split = split_examples({None: tuple(examples)}, alone(examples), LABELS if labels else TASK)
    for size, share in zip(sizes(split), (0.5, 0.25, 0.25), strict=True):
        assert abs(size - share * n) <= 3.5 * (share * (1 - share) * n) ** 0.5
    assert sorted(set_of(split)) == sorted(e.id for e in examples)


@pytest.mark.parametrize("seed", range(200))
@pytest.mark.parametrize("n", [12, 16, 30])
def test_no_set_has_less_than_four_fifths_of_its_share(n: int, seed: int) -> None:
    examples = make(n)
    split = split_examples({None: tuple(examples)}, alone(examples), replace(TASK, seed=seed))
    assert all(size >= 0.8 * share * n for size, share in zip(sizes(split), (0.5, 0.25, 0.25), strict=True))


@pytest.mark.parametrize("labels", [0, 2, 7])
def test_sixty_examples_are_enough_for_even_sets(labels: int) -> None:
    for seed in range(100):
        examples = make(60, labels, seed)
        split = split_examples({None: tuple(examples)}, alone(examples), replace(LABELS if labels else TASK, seed=seed))
        assert len(split.train) >= 24 and len(split.dev) >= 12 and len(split.test) >= 12, seed


def test_a_set_is_filled_up_with_the_answers_that_it_lacks() -> None:
    """Two answers: by the hash, a set that lacks examples has too few of one of them more often than of the other."""
    short = 0
    for seed in range(100):
        examples = make(60, 2, seed)
        groups = splitting._groups_of(examples, alone(examples), replace(LABELS, seed=seed))
        by_hash = splitting._Assigner(groups, splitting.SHARES)
        repaired = splitting._Assigner(groups, splitting.SHARES)
        repaired.fill_up()
        for name in ("dev", "test"):
            if by_hash.size[name] < 12:
                short += 1
                before, after = (abs(a._held[name, "label 0"] - a._held[name, "label 1"]) for a in (by_hash, repaired))
                assert after <= max(1, before)
    assert short > 20


def test_few_examples_leave_the_test_when_a_small_task_grows() -> None:
    """A set that was filled up gives rows back once it has enough of its own. That is rare, and none goes to train."""
    leaving = []
    for seed in range(20):
        examples = make(230, seed=seed)
        task = replace(TASK, seed=seed)
        home = set_of(split_examples({None: tuple(examples[:180])}, alone(examples[:180]), task))
        now = set_of(split_examples({None: tuple(examples)}, alone(examples), task))
        moved = [now[i] for i, name in home.items() if name == "test" and now[i] != "test"]
        leaving.append(len(moved))
        assert "train" not in moved, seed
    assert max(leaving) <= 4 and sum(n > 0 for n in leaving) <= 2


@pytest.mark.parametrize("seed", range(20))
def test_an_answer_with_two_groups_or_more_is_in_train(seed: int) -> None:
    examples = make(150, labels=60, seed=seed)
    split = split_examples({None: tuple(examples)}, alone(examples), replace(LABELS, seed=seed))
    twice = {label for label, n in Counter(e.output for e in examples).items() if n > 1}
    assert twice <= {e.output for e in split.train}


def test_repairs_move_no_group_that_can_stay() -> None:
    """With hundreds of examples no set is small, so every group stays where its hash puts it, alone or among others."""
    examples = make(600)
    home = set_of(split_examples({None: tuple(examples)}, alone(examples), TASK))
    for part in (examples[:300], examples[300:], examples[::2]):
        own = set_of(split_examples({None: tuple(part)}, alone(part), TASK))
        assert own == {i: home[i] for i in own}


@pytest.mark.parametrize("where", ["before", "behind", "among"])
@pytest.mark.parametrize("labels", [0, 6])
@pytest.mark.parametrize("seed", range(5))
def test_examples_keep_their_set_when_others_are_added(where: str, labels: int, seed: int) -> None:
    everything = [replace(e, id=f"line-{i}") for i, e in enumerate(make(230, labels, seed))]
    old, new = everything[:180], everything[180:]
    grown = {"before": new + old, "behind": old + new, "among": random.Random(seed).sample(everything, 230)}[where]
    grown = [replace(e, id=f"line-{i}") for i, e in enumerate(grown)]  # ids say the line, which has changed
    task = replace(LABELS if labels else TASK, seed=seed)
    first = split_examples({None: tuple(old)}, near_duplicate_groups(old), task)
    second = split_examples({None: tuple(grown)}, near_duplicate_groups(grown), task)
    home, now = set_of(first), set_of(second)
    text = {e.input: e.id for e in grown}
    moved = [(home[e.id], now[text[e.input]]) for e in old if home[e.id] == "test"]
    assert sum(a != b for a, b in moved) <= 1
    assert ("test", "train") not in moved
    assert len(moved) == len(first.test) > 25


def test_a_corrected_answer_moves_no_example() -> None:
    examples = make(100, labels=4)
    corrected = [replace(examples[0], output="label 9", references=("label 9",)), *examples[1:]]
    assert set_of(split_examples({None: tuple(corrected)}, alone(corrected), LABELS)) == set_of(
        split_examples({None: tuple(examples)}, alone(examples), LABELS)
    )


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
    assert all(size >= share * 100 for size, share in zip(sizes(split), (0.5, 0.25, 0.25), strict=True))
    assert split.groups == groups


def test_one_giant_group_goes_to_train_and_no_set_is_empty() -> None:
    examples = make(100)
    groups = {e.id: "giant" if i < 80 else e.id for i, e in enumerate(examples)}
    assert sizes(split_examples({None: tuple(examples)}, groups, TASK)) == (80, 10, 10)


def test_groups_of_the_user_keep_their_set_whatever_joins_them() -> None:
    examples = [replace(e, group=f"g{i % 40}") for i, e in enumerate(make(200))]
    home = set_of(split_examples({None: tuple(examples[40:])}, near_duplicate_groups(examples[40:]), TASK))
    now = set_of(split_examples({None: tuple(examples)}, near_duplicate_groups(examples), TASK))
    assert home == {i: now[i] for i in home}


@pytest.mark.parametrize("seed", range(40))
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
    assert len(split.test) == 40
    assert len(split.train) + len(split.dev) == 90 and 15 <= len(split.dev) <= 45
    assert list(split.test.ids) == [e.id for e in test]


@pytest.fixture
def small_caps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitting, "CAPS", {"dev": 20, "test": 40})


@pytest.mark.usefixtures("small_caps")
@pytest.mark.parametrize("labels", [0, 4])
def test_dev_and_test_are_cut_to_their_caps_and_the_rest_trains(labels: int) -> None:
    examples = make(400, labels)
    split = split_examples({None: tuple(examples)}, alone(examples), LABELS if labels else TASK)
    assert sizes(split) == (340, 20, 40)
    assert set(split.capped) == {"dev", "test"}
    assert abs(split.capped["test"] - 100) < 30 and split.unused == ()
    if labels:
        home = set_of(split)
        counts = Counter(e.output for e in examples if home[e.id] == "test")
        assert max(counts.values()) - min(counts.values()) <= 5


@pytest.mark.usefixtures("small_caps")
def test_caps_keep_groups_whole() -> None:
    examples = make(400)
    groups = {e.id: f"g{i // 3}" for i, e in enumerate(examples)}
    split = split_examples({None: tuple(examples)}, groups, TASK)
    homes = {(groups[i], name) for i, name in set_of(split).items()}
    assert len(homes) == len(set(groups.values()))
    assert 18 <= len(split.dev) <= 20 and 38 <= len(split.test) <= 40


@pytest.mark.usefixtures("small_caps")
def test_a_set_of_groups_above_its_cap_keeps_one_of_them() -> None:
    examples = [replace(e, group=f"g{i // 50}") for i, e in enumerate(make(2000))]
    split = split_examples({None: tuple(examples)}, near_duplicate_groups(examples), TASK)
    assert (len(split.dev), len(split.test)) == (50, 50)
    parts = {"train": (*examples[:300],), "dev": (*examples[300:400],), "test": (*examples[400:],)}
    own = split_examples(parts, near_duplicate_groups(examples), TASK)
    assert (len(own.train), len(own.dev), len(own.test)) == (300, 50, 50)
    assert len(own.unused) == 50 + 1550 and own.capped == {"dev": 100, "test": 1600}


@pytest.mark.usefixtures("small_caps")
def test_one_small_group_beside_large_ones_is_not_the_whole_set() -> None:
    dev = [replace(e, group="small" if i < 2 else f"g{i // 50}") for i, e in enumerate(make(202))]
    rest = [replace(e, id=f"{e.id}x", input=f"quite another {e.input}") for e in make(80)]
    sets = {"train": (*rest[:40],), "dev": (*dev,), "test": (*rest[40:],)}
    split = split_examples(sets, near_duplicate_groups(dev + rest), TASK)
    assert len(split.dev) > 20


@pytest.mark.usefixtures("small_caps")
def test_few_examples_leave_a_capped_test_when_some_are_added() -> None:
    examples = make(440)
    old = split_examples({None: tuple(examples[:400])}, alone(examples[:400]), TASK)
    new = split_examples({None: tuple(examples)}, alone(examples), TASK)
    assert len(set(old.test.ids) - set(new.test.ids)) <= 10  # a tenth more examples; chance would replace 36


@pytest.mark.usefixtures("small_caps")
def test_what_is_cut_from_a_test_of_the_user_is_not_trained_on() -> None:
    examples = make(300)
    train, test = examples[:100], examples[100:]
    split = split_examples({"train": tuple(train), "test": tuple(test)}, alone(examples), TASK)
    assert len(split.test) == 40 and split.capped["test"] == 200
    assert len(split.unused) == 160 and set(split.unused) <= {e.id for e in test}
    assert {e.id for e in (*split.train, *split.dev)} == {e.id for e in train}
    back = split_from_record(examples, json.loads(json.dumps(split_record(split))))
    assert (back.unused, back.capped, back.test.ids) == (split.unused, split.capped, split.test.ids)


def test_a_split_comes_back_from_its_record() -> None:
    examples = make(40)
    groups = {**alone(examples), "e3": "e12"}
    split = split_examples({None: tuple(examples)}, groups, TASK)
    record = json.loads(json.dumps(split_record(split)))
    assert record["groups"] == {"e3": "e12", "e12": "e12"}
    back = split_from_record(examples, record)
    assert (back.train, back.dev, back.test.ids) == (split.train, split.dev, split.test.ids)
    assert (back.groups, back.test_digests) == (split.groups, split.test_digests)


def test_a_split_is_read_back_though_near_duplicates_would_be_others_today(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = make(60)
    examples += [replace(e, id=f"{e.id}x", input=f"{e.input} and more words") for e in examples]
    split = split_examples({None: tuple(examples)}, near_duplicate_groups(examples), TASK)
    record = json.loads(json.dumps(split_record(split)))

    def refuse(*_: object) -> None:
        raise AssertionError("near-duplicates are computed again")

    monkeypatch.setattr(near_duplicates, "SIMILAR", 0.1)
    monkeypatch.setattr(near_duplicates, "near_duplicates", refuse)
    assert ids_of(split_from_record(examples, record)) == ids_of(split)


def test_the_record_holds_no_text() -> None:
    examples = [replace(e, input=f"zebra {e.input}") for e in make(40)]
    record = split_record(split_examples({None: tuple(examples)}, alone(examples), TASK))
    assert "zebra" not in json.dumps(record)


def test_test_examples_that_an_earlier_run_tested_are_known_by_their_content() -> None:
    old, other = make(100), [replace(e, input=f"quite another {e.input}") for e in make(100)]
    grown = [replace(e, id=f"line-{i}", input=e.input.upper() + "!") for i, e in enumerate(old + other)]
    first = split_examples({None: tuple(old)}, alone(old), TASK)
    strangers = split_examples({None: tuple(other)}, alone(other), TASK)
    second = split_examples({None: tuple(grown)}, alone(grown), TASK)
    seen = seen_before(split_record(second), {"one": split_record(first), "old format": {"sets": {}}})
    assert list(seen) == ["one"]
    assert set(seen["one"]) == {f"line-{i[1:]}" for i in first.test.ids}
    assert seen_before(split_record(first), {"other": split_record(strangers)}) == {}


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
