"""`rung drift`: what is planted is found, what is not there is not, and what cannot be told is said to be so."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from drift import KINDS, made, measure, planted
from rung.bundles.recorded import RecordedExample, write_recorded
from rung.cli.main import rung
from rung.data.examples import read_sets
from rung.data.split import split_examples, split_record
from rung.data.task_file import read_task
from rung.errors import DataError, RunError
from rung.serving.watching.drift import drift, least_requests
from rung.serving.watching.looks import deals_of, distance, oddity, p_value, script, shares_differ, unseen
from rung.serving.watching.requests import KnownInputs, RequestFile, known_inputs, read_requests
from rung.types import Query
from small_task import write_task


def call(*words: object) -> Result:
    return CliRunner().invoke(rung, ["drift", *(str(word) for word in words)], standalone_mode=False)


def bundle_of(folder: Path, rows: list[tuple[str, str]]) -> Path:
    folder.mkdir()
    answers = [RecordedExample(Query(str(i), text).answered(label), label) for i, (text, label) in enumerate(rows)]
    write_recorded(folder, answers)
    return folder


def file_of(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_text("".join(json.dumps({"input": text, "output": label}) + "\n" for text, label in rows), "utf-8")
    return path


@pytest.fixture
def drawn() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(tested inputs, requests), with their labels, drawn alike."""
    rows = made(random.Random(5), 260, False)
    return rows[:100], rows[100:]


def test_few_files_drawn_like_the_known_inputs_are_called_drift_and_shifts_are_found() -> None:
    found = measure(made, (80, 120), 4)
    assert float(str(found["nothing"]["shown"])) <= 0.25
    assert all(float(str(found[kind]["shown"])) >= 0.75 for kind in KINDS[1:])


def test_a_new_cluster_is_shown_with_examples_and_the_next_step(
    tmp_path: Path, drawn: tuple[list[tuple[str, str]], list[tuple[str, str]]]
) -> None:
    tested, rows = drawn
    rows = planted("new topic", tested, rows, made, random.Random(1))
    file = file_of(tmp_path / "requests.jsonl", rows)
    done = call(bundle_of(tmp_path / "winner", tested), file)
    assert done.exit_code == 0 and done.output.startswith("Drift: requests differ from what was tested in")
    assert "New cluster 1" in done.output and "inverter" in done.output.split("New cluster 1")[1]
    assert "--again" in done.output
    assert call(tmp_path / "winner", file, "--strict").return_value == 1


def test_no_drift_is_said_with_when_to_look_again(
    tmp_path: Path, drawn: tuple[list[tuple[str, str]], list[tuple[str, str]]]
) -> None:
    tested, rows = drawn
    file = file_of(tmp_path / "requests.jsonl", [*rows, *rows[:20]])
    done = call(bundle_of(tmp_path / "winner", tested), file, "--strict", "--json")
    record: dict[str, Any] = json.loads(done.stdout)
    assert done.return_value == record["exit"] == 0 and record["outcome"] == "no drift shown"
    assert (record["tested"], record["requests"], record["repeated"]) == (100, 160, 20)
    assert "rung drift" in record["next"][0] and "answers" in record["not_looked_at"]
    few = json.loads(call(tmp_path / "winner", file_of(tmp_path / "few.jsonl", rows[:30]), "--json").stdout)
    assert few["outcome"] == "too few" and few["least"] > 30 and str(few["least"]) in few["headline"]


def test_tested_inputs_among_the_requests_are_counted_and_say_nothing_new(
    tmp_path: Path, drawn: tuple[list[tuple[str, str]], list[tuple[str, str]]]
) -> None:
    tested, rows = drawn
    file = file_of(tmp_path / "requests.jsonl", [*tested[:10], *rows[:4]])
    done = call(bundle_of(tmp_path / "winner", tested[:12]), file)
    assert "Requests that are tested inputs themselves: 10 of 14." in done.output
    assert "so few inputs cannot show that a tenth of the requests are of a new kind" in done.output
    assert done.output.splitlines()[-1].startswith("Name a file of requests that came since")


def test_answers_in_the_file_are_compared_and_new_labels_named(
    tmp_path: Path, drawn: tuple[list[tuple[str, str]], list[tuple[str, str]]]
) -> None:
    tested, rows = drawn
    rows = planted("new label", tested, rows, made, random.Random(1))
    done = call(bundle_of(tmp_path / "winner", tested), file_of(tmp_path / "r.jsonl", rows), "--answers", "--json")
    looks = {look["name"]: look for look in json.loads(done.stdout)["looks"]}
    assert looks["new labels"]["differs"] and looks["new labels"]["figures"]["labels"] == ["something new"]
    assert not looks["words"]["differs"]


def test_chats_and_lines_of_text_are_read_and_what_is_no_request_is_told(tmp_path: Path) -> None:
    known = KnownInputs(())
    chats = tmp_path / "chats.jsonl"
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    rows = [{"messages": [*turns, {"role": "user", "content": f"Question {i}"}]} for i in range(3)]
    chats.write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = read_requests(chats, known, answers=False)
    assert [q.input for q in read.inputs] == ["Question 0", "Question 1", "Question 2"] and len(
        read.inputs[0].turns
    ) == 2
    lines = tmp_path / "lines.txt"
    lines.write_text("One\n\nTwo\n")
    assert [q.input for q in read_requests(lines, known, answers=False).inputs] == ["One", "Two"]
    holes = file_of(tmp_path / "holes.jsonl", [("One", "x"), (" ", "x")])
    read = read_requests(holes, known, answers=False)
    assert len(read.inputs) == 1 and "line 2" in read.unreadable[0]
    with pytest.raises(DataError, match="no request can be read"):
        read_requests(file_of(tmp_path / "empty.jsonl", [(" ", "x")]), known, answers=False)
    with pytest.raises(DataError, match="no such file"):
        read_requests(tmp_path / "nowhere.jsonl", known, answers=False)


def test_a_run_is_compared_by_train_and_dev_and_never_by_a_row_of_its_test(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    path = write_task(tmp_path, tmp_path / "model")
    task = read_task(path)
    sets = read_sets(task)
    examples = sets[None]
    split = split_examples(sets, {e.id: e.id for e in examples}, task)
    run = tmp_path / "run"
    run.mkdir()
    (run / "task.json").write_text(json.dumps({"path": str(path)}))
    (run / "split.json").write_text(json.dumps(split_record(split)))
    known = known_inputs(run)
    seen = {e.input for e in (*split.train, *split.dev)}
    assert {q.input for q in known.inputs} == seen and len(seen) < len(examples)
    assert known.labels == ("red", "green", "blue")
    rows = (tmp_path / "examples.jsonl").read_text().replace("please", "now")
    (tmp_path / "examples.jsonl").write_text(rows)
    with pytest.raises(RunError, match="are not what they were, and its winner holds no inputs"):
        known_inputs(run)
    with pytest.raises(RunError, match="no such folder"):
        known_inputs(tmp_path / "nowhere")


def test_the_number_of_requests_that_suffices_falls_with_the_known_inputs_and_may_be_none() -> None:
    numbers = [least_requests(tested, 6) for tested in (100, 200, 1000)]
    assert numbers == sorted(numbers, key=lambda n: -(n or 0)) and all(numbers)
    assert least_requests(2, 6) is None


def test_p_values_are_those_of_closed_forms() -> None:
    deals = deals_of(30, 30, 0)
    apart = [0.0] * 30 + [1.0] * 30
    assert p_value(distance(apart), deals) == pytest.approx(1 / len(deals))
    assert p_value(distance([1.0] * 60), deals) == 1.0
    values = np.random.default_rng(1).normal(size=60)
    from scipy.stats import chi2_contingency, ks_2samp

    assert p_value(distance(values.tolist()), deals) == pytest.approx(
        ks_2samp(values[:30], values[30:]).pvalue, abs=0.05
    )
    kinds = ["a"] * 20 + ["b"] * 10 + ["a"] * 12 + ["b"] * 18
    table = [[20, 10], [12, 18]]
    assert shares_differ(kinds)(deals[:1])[0] == pytest.approx(chi2_contingency(table, correction=False).statistic)
    assert unseen(["a"] * 30 + ["a"] * 27 + ["c"] * 3)(deals[:1])[0] == pytest.approx(0.1)


def test_the_script_of_a_text_is_that_of_most_letters() -> None:
    assert script("我的包裹在哪里 OK") == "cjk" and script("Hi") == "latin" and script("12 34") == ""


def test_languages_are_compared_where_they_are_sure_and_scripts_always() -> None:
    tested = tuple(Query(f"t{i}", f"a lovely film no {i}, to see o so by i do") for i in range(60))
    short = tuple(Query(f"r{i}", f"i do hope a man s {i}, se o by ale") for i in range(60))
    found = drift(KnownInputs(tested), RequestFile(short))
    assert "languages" in found.not_looked_at, "words of one or two letters say no language"
    german = tuple(Query(f"g{i}", f"Wo ist das Paket {i}, das ich bestellt habe und nicht da ist") for i in range(60))
    english = tuple(Query(f"e{i}", f"Where is the parcel {i} that I have ordered from you") for i in range(60))
    looks = {look.name: look for look in drift(KnownInputs(english), RequestFile((*german, *short))).looks}
    assert looks["languages"].differs and "60 requests and 60 tested inputs whose language is sure" in (
        looks["languages"].said
    )
    assert set(looks["languages"].figures["requests"]) == {"german"}
    chinese = tuple(Query(f"c{i}", f"包裹 {i}") for i in range(10))
    looks = {look.name: look for look in drift(KnownInputs(tested), RequestFile((*short, *chinese))).looks}
    assert looks["scripts"].differs and looks["scripts"].figures["new"] == ["cjk"]


def test_odd_texts_are_named() -> None:
    assert oddity("  ") == "empty" and oddity("12 34") == "no letters" and oddity("a\x00b")
    assert oddity("buy now " * 30).startswith("the same words") and oddity("Where is my card?") == ""


def test_a_part_that_requests_lack_is_a_difference(drawn: tuple[list[tuple[str, str]], list[tuple[str, str]]]) -> None:
    tested, rows = ([Query(str(i), text) for i, (text, _) in enumerate(part)] for part in drawn)
    known = KnownInputs(tuple(replace(q, context="Said before: yes.") for q in tested))
    found = drift(known, RequestFile(tuple(rows)))
    (form,) = (look for look in found.looks if look.name == "forms")
    assert form.differs and "an input and context 0 % (tested 100 %)" in form.said


def kept(path: Path, asked: Sequence[tuple[str, str | None]]) -> Path:
    """A file as a server keeps it: (text, model)."""
    rows = ({"input": text, "model": model} if model else {"input": text} for text, model in asked)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_only_requests_to_this_bundle_count_where_the_file_names_models(
    tmp_path: Path, drawn: tuple[list[tuple[str, str]], list[tuple[str, str]]]
) -> None:
    tested, rows = drawn
    out = bundle_of(tmp_path / "winner", tested)
    (out / "bundle.json").write_text(json.dumps({"model": "m", "model_version": "1", "task": "my shop"}))
    mine = [(text, "my-shop") for text, _ in rows[:100]] + [(text, None) for text, _ in rows[100:]]
    file = kept(tmp_path / "kept.jsonl", [*mine, *((f"capital of land {i}", "facts") for i in range(90))])
    record = json.loads(call(out, file, "--json").stdout)
    assert (record["outcome"], record["requests"], record["other_models"]) == ("no drift shown", 160, {"facts": 90})
    assert "Left out, because they asked another model: 90 (facts 90)." in call(out, file).output
    other = json.loads(call(out, file, "--model", "facts", "--json").stdout)
    assert (other["outcome"], other["requests"], other["other_models"]) == ("drift", 150, {"my-shop": 100})
    assert json.loads(call(out, file, "--model", "*", "--json").stdout)["requests"] == 250
    with pytest.raises(DataError, match=r"no request asked the model winner; its rows name my-shop \(1\)"):
        read_requests(kept(tmp_path / "one.jsonl", mine[:1]), KnownInputs((), name="winner"), answers=False)


def test_answers_of_other_models_are_left_out_too(tmp_path: Path) -> None:
    file = tmp_path / "answered.jsonl"
    file.write_text("".join(json.dumps({"input": f"a{m}", "output": m, "model": m}) + "\n" for m in "xyx"))
    read = read_requests(file, KnownInputs((), name="x"), answers=True)
    assert read.answers == ("x", "x") and read.others == {"y": 1}


def test_requests_that_are_told_apart_are_named_where_none_is_far(tmp_path: Path) -> None:
    rng = random.Random(3)
    films = [(f"{rng.choice('abcdefghij')}{i}x film{i % 97} moody{i * 7 % 89}", "") for i in range(100)]
    asked = [(f"my headset {rng.choice(('buzzes', 'is broken'))}, case {i} moody{i}, film{i}", "") for i in range(60)]
    done = call(bundle_of(tmp_path / "winner", films), file_of(tmp_path / "r.jsonl", asked), "--json")
    record = json.loads(done.stdout)
    assert (
        record["outcome"] == "drift" and not next(x for x in record["looks"] if x["name"] == "new clusters")["differs"]
    )
    assert record["clusters"] and "headset" in record["clusters"][0]["examples"][0]
    assert "those of the new clusters first" in record["next"][0]


def test_a_file_in_the_place_of_a_bundle_and_a_bundle_with_a_changed_file_are_refused(tmp_path: Path) -> None:
    out = bundle_of(tmp_path / "winner", [(f"text {i}", "") for i in range(6)])
    with pytest.raises(RunError, match="is a file"):
        known_inputs(out / "parity.jsonl")
    (out / "solution.json").write_text("{}")
    note = {"format": 2, "model": "m", "model_version": "1", "files": {"solution.json": "0" * 64}}
    (out / "bundle.json").write_text(json.dumps(note))
    with pytest.raises(RunError, match=r"solution.json is not what it was"):
        known_inputs(out)
    (out / "bundle.json").write_text(json.dumps({**note, "format": 3}))
    with pytest.raises(RunError, match=r"is of format 3, and this rung reads"):
        known_inputs(out)
    (out / "bundle.json").write_text("{")
    with pytest.raises(RunError, match="cannot be read as a bundle"):
        known_inputs(out)


def test_a_run_of_an_older_version_is_read_while_its_files_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    path = write_task(tmp_path, tmp_path / "model")
    task = read_task(path)
    sets = read_sets(task)
    split = split_examples(sets, {e.id: e.id for e in sets[None]}, task)
    run = tmp_path / "run"
    run.mkdir()
    hashes = {"examples.jsonl": hashlib.sha256((tmp_path / "examples.jsonl").read_bytes()).hexdigest()}
    (run / "task.json").write_text(json.dumps({"path": str(path), "data": hashes}))
    record = split_record(split)
    del record["row_digests"]
    (run / "split.json").write_text(json.dumps(record))
    assert {q.input for q in known_inputs(run).inputs} == {e.input for e in (*split.train, *split.dev)}
    rows = (tmp_path / "examples.jsonl").read_text().replace("please", "now")
    (tmp_path / "examples.jsonl").write_text(rows)
    (run / "winner").mkdir()
    with pytest.raises(RunError, match=r"the data of this run .* are not what they were"):
        known_inputs(run)
