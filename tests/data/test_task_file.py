from __future__ import annotations

import json
from pathlib import Path

import pytest
from broken import TASK, write

from rung.data.metric_names import KNOWN_METRICS
from rung.data.task_file import read_task, task_record
from rung.errors import TaskError


def test_a_short_task_gets_every_default(tmp_path: Path) -> None:
    path = write(tmp_path / "bank-intents", TASK.replace("name: demo\n", ""))
    task = read_task(path)
    assert task.name == "bank-intents"
    assert task.metric == "exact_match"
    assert task.models[0].spec == "smollm2-135m-instruct"
    assert task.examples == (tmp_path / "bank-intents" / "examples.jsonl",)
    assert (task.seed, task.target, task.labels, task.corpus, task.budget.minutes) == (0, None, None, None, None)


def test_a_folder_stands_for_its_task_yaml(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert read_task(tmp_path) == read_task(path)


def test_a_relative_path_reads_the_same_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert read_task(Path("task.yaml")) == read_task(Path()) == read_task(path)


@pytest.mark.parametrize(
    ("more", "metric"),
    [
        ("labels: [a, b]", "label_accuracy"),
        ("schema: {type: object}", "json_match"),
        ("pattern: 'a+'", "exact_match"),
        ("metric: rouge_l\nlabels: [a, b]", "rouge_l"),
    ],
)
def test_the_metric_follows_from_the_shape_of_answers(tmp_path: Path, more: str, metric: str) -> None:
    assert read_task(write(tmp_path, TASK + more)).metric == metric


def test_everything_is_resolved_relative_to_the_file(tmp_path: Path) -> None:
    more = (
        "schema: answer.json\ncorpus: docs\nmetric: python:score.py:score\nmodel: ./model\nfields: {input: q}\n"
        "target: 1\nbudget: {minutes: 30, usd: 0.5}\nprice: {usd_per_hour: 0.4}\nseed: 7\n"
    )
    (tmp_path / "docs").mkdir()
    (tmp_path / "model").mkdir()
    task = read_task(write(tmp_path, TASK + more, answer__json='{"type": "object"}', score__py=""))
    assert task.schema == {"type": "object"}
    assert task.corpus == tmp_path / "docs"
    assert task.metric == f"python:{tmp_path / 'score.py'}:score"
    assert task.models[0].spec == str(tmp_path / "model")
    assert (task.target, task.budget.minutes, task.budget.usd, task.seed) == (1.0, 30.0, 0.5, 7)


def test_a_gguf_beside_the_task_becomes_absolute_and_a_hub_name_stays(tmp_path: Path) -> None:
    path = write(tmp_path, TASK + "model: m.gguf", m__gguf="GGUF")
    assert read_task(path).models[0].spec == str(tmp_path / "m.gguf")
    path.write_text(TASK + "model: org/name")
    assert read_task(path).models[0].spec == "org/name"


def test_a_model_may_be_asked_for_in_4_bits(tmp_path: Path) -> None:
    path = write(tmp_path, TASK + "model: {name: org/name, load_in_4bit: true}")
    assert read_task(path).models[0].spec == "org/name:4bit"
    path.write_text(TASK + "model: org/name:4bit")
    assert read_task(path).models[0].spec == "org/name:4bit"
    path.write_text(TASK + "model: {name: org/name}")
    assert read_task(path).models[0].spec == "org/name"
    path.write_text(TASK + "model: {name: ./model, load_in_4bit: true}")
    (tmp_path / "model").mkdir()
    assert read_task(path).models[0].spec == f"{tmp_path / 'model'}:4bit"


def test_examples_may_be_a_list_or_a_mapping(tmp_path: Path) -> None:
    task = write(tmp_path, TASK.replace("examples.jsonl", "[examples.jsonl, b.csv]"), b__csv="input,output\n")
    assert read_task(task).examples == (tmp_path / "examples.jsonl", tmp_path / "b.csv")
    task.write_text(TASK.replace("examples.jsonl", "{test: b.csv, train: [examples.jsonl]}"))
    assert read_task(task).examples == {"train": (tmp_path / "examples.jsonl",), "test": (tmp_path / "b.csv",)}


def test_the_record_is_json_and_holds_every_default(tmp_path: Path) -> None:
    record = task_record(read_task(write(tmp_path, TASK + "labels: ['yes', no-idea, ünïcode]")))
    assert json.loads(json.dumps(record)) == record
    assert record["labels"] == ["yes", "no-idea", "ünïcode"]
    assert record["examples"] == [str(tmp_path / "examples.jsonl")]
    assert record["budget"] == {"minutes": None, "calls": None, "usd": None}


def test_all_wrong_keys_are_in_one_message_in_the_order_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(TaskError) as caught:
        read_task(write(tmp_path, TASK + "target: 90\nmetrik: x\nlabels: [yes, no]\n"))
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == [f"task.yaml, line {n}" for n in (4, 5, 6, 6)]


def test_a_byte_order_mark_is_tolerated(tmp_path: Path) -> None:
    assert read_task(write(tmp_path, b"\xef\xbb\xbf" + TASK.encode())).name == "demo"


def test_a_folder_whose_name_cannot_name_a_run_asks_for_a_name(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="Add name: my-task"):
        read_task(write(tmp_path / "a:b?", TASK.replace("name: demo\n", "")))


def test_labels_may_say_what_they_mean(tmp_path: Path) -> None:
    more = "labels:\n  refund: asks for\n    money back\n  card:\n  'yes': agrees\n"
    task = read_task(write(tmp_path, TASK + more))
    assert task.labels == ("refund", "card", "yes")
    assert task.label_notes == {"refund": "asks for money back", "yes": "agrees"}
    assert task.metric == "label_accuracy"
    record = task_record(task)
    assert (record["labels"], record["label_notes"]) == (["refund", "card", "yes"], dict(task.label_notes))
    assert read_task(write(tmp_path, TASK + "labels: [a, b]")).label_notes == {}


def test_a_metric_that_is_registered_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, TASK + "metric: closeness")
    with pytest.raises(TaskError, match='"closeness", which is no metric'):
        read_task(path)
    monkeypatch.setitem(KNOWN_METRICS, "closeness", None)
    assert read_task(path).metric == "closeness"


@pytest.mark.parametrize(
    ("more", "metric"),
    [
        ("labels: [a, b]\nmulti_label: true", "label_set_f1"),
        ("labels: [a, b]\nmulti_label: true\nmetric: label_set_match", "label_set_match"),
        ("tolerance: 0.05", "numeric_error"),
        ("whitespace: counts\nempty: allowed", "exact_match"),
        ("metric: json_match\nunordered: true", "json_match"),
        ("fields: {output: [spam, urgent]}\nmulti_label: true", "label_set_f1"),
    ],
)
def test_the_keys_about_answers_say_the_metric_and_stand_in_the_record(tmp_path: Path, more: str, metric: str) -> None:
    task = read_task(write(tmp_path, TASK + more))
    assert task.metric == metric
    record = task_record(task)
    assert json.loads(json.dumps(record)) == record
    for key in ("multi_label", "whitespace", "unordered", "tolerance", "empty_answers"):
        assert record[key] == getattr(task, key)


def test_columns_of_labels_are_the_labels(tmp_path: Path) -> None:
    task = read_task(write(tmp_path, TASK + "fields: {input: [subject, body], output: [spam, b]}\nmulti_label: true"))
    assert task.labels == ("spam", "b")
    assert dict(task.fields) == {"input": ("subject", "body"), "output": ("spam", "b")}
    assert task_record(task)["fields"] == {"input": ["subject", "body"], "output": ["spam", "b"]}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("multi_label: true", "no labels are named"),
        ("fields: {output: [a, b]}", "Write multi_label: true, too"),
        ("fields: {id: [a, b]}", "several columns, which only input, output and"),
        ("fields: {input: [a, a]}", 'uses the column "a" for input and for input'),
        ("fields: {input: [a, yes]}", "YAML reads as true or false"),
        ("fields: {input: []}", "gives input no column"),
        ("fields: {output: null}", "gives output no column"),
        ("labels: [a, b]\nmulti_label: true\nmetric: rouge_l", "rouge_l compares single answers"),
        ("labels: [a, b]\nmetric: label_set_f1", "Write multi_label: true"),
        ("tolerance: 5", '"tolerance" is 5, but it is a share'),
        ("tolerance: 1 %", '"tolerance" is text, not a number'),
        ("metric: rouge_l\ntolerance: 0.1", "tolerance says nothing to rouge_l"),
        ("unordered: true", "unordered says nothing to exact_match"),
        ("whitespace: ignored", "Write whitespace: counts, or whitespace: folded"),
        ("train_size: 0", "Write train_size: 200"),
        ("ignore: [near_duplicates]", 'Did you mean "near_duplicate"?'),
        ("ignore: near_duplicate", "Write ignore: [near_duplicate]"),
        ("shape: colums", 'Did you mean "columns"?'),
    ],
)
def test_keys_about_answers_that_say_nothing_or_contradict_are_errors(tmp_path: Path, more: str, says: str) -> None:
    with pytest.raises(TaskError) as caught:
        read_task(write(tmp_path, TASK + more))
    assert says in str(caught.value)


def test_labels_that_the_metric_cannot_tell_apart_are_an_error_that_names_both(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match='the labels "us" and "US" differ only in case, which label_accuracy'):
        read_task(write(tmp_path, TASK + "labels: [us, it, US]"))
    assert read_task(write(tmp_path, TASK + "labels: [us, it, US]\nmetric: exact_match")).labels == ("us", "it", "US")
    for twin in ("a\\u200bb", "ａｂ", "a\\u00adb"):
        with pytest.raises(TaskError, match="look the same"):
            read_task(write(tmp_path, TASK + f'labels: [ab, "{twin}"]\nmetric: exact_match'))


def test_examples_may_be_a_glob_or_a_folder(tmp_path: Path) -> None:
    path = write(tmp_path, TASK.replace("examples.jsonl", '"part-*.jsonl"'))
    for name in ("part-2.jsonl", "part-1.jsonl", "more/a.csv", "more/b.jsonl.gz", "more/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert read_task(path).examples == (tmp_path / "part-1.jsonl", tmp_path / "part-2.jsonl")
    path.write_text(TASK.replace("examples.jsonl", "more"))
    assert read_task(path).examples == (tmp_path / "more" / "a.csv", tmp_path / "more" / "b.jsonl.gz")


def test_the_home_folder_is_where_a_tilde_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = write(tmp_path, TASK.replace("examples.jsonl", "~/examples.jsonl"))
    with pytest.raises(TaskError, match=r"home/examples\.jsonl.*home folder"):
        read_task(path)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "examples.jsonl").write_text("")
    assert read_task(path).examples == (tmp_path / "home" / "examples.jsonl",)


def test_a_path_that_is_nearly_right_is_met_with_what_was_meant(tmp_path: Path) -> None:
    path = write(tmp_path, TASK.replace("examples.jsonl", "exampels.jsonl"))
    with pytest.raises(TaskError, match=r"Did you mean examples\.jsonl\?"):
        read_task(path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").write_text("")
    path.write_text(TASK.replace("examples.jsonl", r"data\a.jsonl"))
    with pytest.raises(TaskError, match=r"Did you mean data/a\.jsonl\?"):
        read_task(path)


def test_a_schema_may_stand_in_a_yaml_file(tmp_path: Path) -> None:
    path = write(tmp_path, TASK + "schema: s.yaml", s__yaml="type: object\nrequired: [a]\n")
    assert read_task(path).schema == {"type": "object", "required": ["a"]}
    path = write(tmp_path, TASK + "schema: s.yaml", s__yaml="type: [object\n")
    with pytest.raises(TaskError, match=r"s\.yaml, which is no JSON Schema: not valid YAML: .* at line"):
        read_task(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "instruction: Say: one of a, b\nexamples: x\n",
            "Put the text in single quotes: instruction: 'Say: one of a, b'",
        ),
        (TASK + 'pattern: "\\d+"\n', "In double quotes a backslash begins an escape"),
        (TASK + 'pattern: "\\bx"\n', "Write the pattern in single quotes"),
        (TASK + "---\nname: two\n", "A second document begins here"),
        (TASK + "budget:\n\u00a0\u00a0minutes: 2\n", "line 5: begins with no-break space (U+00A0)"),
        (TASK + "labels: [01, no, ~]\n", 'quote it: "~"'),
        (TASK + "seed: 99999999999999999999\n", "Write seed: 0"),
        (TASK.replace("Answer.", "\n  - Answer."), "several lines begin with |"),
    ],
)
def test_what_yaml_reads_in_another_way_than_meant_is_said(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(TaskError) as caught:
        read_task(write(tmp_path, text))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("retrieval: {tokens: 5}", '"retrieval.tokens" is a number, but must be a list. Write tokens: [128, 256]'),
        ("retrieval: {tokens: [5]}", "Write tokens: [128, 256]"),
        ("retrieval: {kinds: dense}", '"retrieval.kinds" is text, but must be a list. Write kinds: [bm25, dense]'),
        ("retrieval: {rewrite: 3}", '"retrieval.rewrite" is a number, but must be true or false. Write rewrite: true'),
        ("cite: yes please", '"cite" is yes please, but must be true or false. Write cite: true'),
    ],
)
def test_a_wrong_value_is_told_with_a_hint_for_that_very_key(tmp_path: Path, more: str, said: str) -> None:
    with pytest.raises(TaskError) as caught:
        read_task(write(tmp_path, f"{TASK}\n{more}\n"))
    assert said in str(caught.value)


def test_every_key_of_retrieval_and_budget_has_a_hint_of_its_own() -> None:
    from rung.data.task_keys import HINTS, NESTED

    assert {f"{key}.{inner}" for key, model in NESTED.items() for inner in model.model_fields} <= set(HINTS)


def test_a_form_that_leaves_no_room_for_sources_is_told_before_what_it_says_to_abstain(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    more = "cite: true\nlabels: [a, b]\nabstain: I do not know.\ncorpus: docs\n"
    with pytest.raises(TaskError, match="and labels leaves no room for them"):
        read_task(write(tmp_path, f"{TASK}\n{more}"))
