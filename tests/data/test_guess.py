from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import yaml

from rung.data.examples import read_sets
from rung.data.init import Draft, TriedDraft, draft_task, try_draft
from rung.data.init.answers import AnswersSeen, form_of
from rung.data.init.yaml_text import as_yaml, quoted
from rung.data.task_file import read_task
from rung.errors import DataError, TaskError
from rung.evaluation.number_metrics import numeric_match
from rung.types import Task

Rows = list[dict[str, object]]


def guess(data: Path, **more: object) -> Task:
    """The task that the guessed text describes; reading it and its examples succeeds."""
    trial = tried(data, **more)
    assert trial.problem is None and trial.task is not None and not trial.note, (trial.problem, trial.note)
    read_sets(trial.task)
    return trial.task


def tried(data: Path, **more: object) -> TriedDraft:
    return try_draft(draft(data, **more))


def draft(data: Path, **more: object) -> Draft:
    return draft_task([str(data)], **more)  # type: ignore[arg-type]


def write(path: Path, items: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(i) + "\n" for i in items))
    return path


def answered(path: Path, outputs: Sequence[object]) -> Path:
    """A file of examples with these answers, each to a question of its own."""
    return write(path / "d.jsonl", [{"question": f"q {i}", "reply": o} for i, o in enumerate(outputs)])


def outputs(kind: str, n: int = 40) -> list[object]:
    rng = random.Random(0)
    words = [f"word{i}" for i in range(200)]
    chinese = "我上星期为账户申请了一张新的借记卡但是到现在还没有"
    made: dict[str, list[object]] = {
        "labels": [("yes", "no", "1", "it's: #odd", "é 👩‍💻")[i % 5] for i in range(n)],
        "amounts": [f"{i * 37:,}.5" for i in range(n)],
        "worked out": [f"First {i} + 3 = {i + 3}.\nSo it is that.\n#### {i + 3}" for i in range(n)],
        "worked out in words": [f"3 and {i}.\nThe answer is: {i + 3}" for i in range(n)],
        "measured": [i * 1.3571 for i in range(n)],
        "scores of stars": [str(i % 5 + 1) for i in range(n)],
        "dates": [f"2024-0{i % 9 + 1}-{i % 28 + 1:02}" for i in range(n)],
        "json": [{"city": f"c{i}", "n": i} for i in range(n)],
        "calls": [{"name": f"f{i % 3}", "arguments": {"n": i}} for i in range(n)],
        "long": [" ".join(rng.choices(words, k=30)) for _ in range(n)],
        "paragraphs": ["\n\n".join(" ".join(rng.choices(words, k=20)) for _ in range(2)) for _ in range(n)],
        "medium": [" ".join(rng.choices(words, k=6)) for _ in range(n)],
        "short": [f"name{i}" for i in range(n)],
        "code": [f"def f{i}(x):\n    return x + {i}" for i in range(n)],
        "lines of code": [("    print(apples)", "  total = 0", "        return x(1)")[i % 3] for i in range(n)],
        "long Chinese": ["".join(rng.choices(chinese, k=45)) for _ in range(n)],
        "short Chinese": ["".join(rng.choices(chinese, k=5)) for _ in range(n)],
        "Chinese labels": [("信用卡还没有寄到怎么办", "忘记密码")[i % 2] for i in range(n)],
        "one answer": ["ok"] * n,
    }
    return made[kind]


@pytest.mark.parametrize(
    ("kind", "metric"),
    [
        ("labels", "label_accuracy"),
        ("amounts", "numeric_match"),
        ("measured", "numeric_error"),
        ("worked out", "numeric_match"),
        ("worked out in words", "numeric_match"),
        ("scores of stars", "label_accuracy"),
        ("dates", "exact_match"),
        ("json", "json_match"),
        ("calls", "tool_call_match"),
        ("long", "rouge_l"),
        ("paragraphs", "rouge_l"),
        ("medium", "token_f1"),
        ("short", "exact_match"),
        ("code", "exact_match"),
        ("lines of code", "exact_match"),
        ("long Chinese", "rouge_l"),
        ("short Chinese", "exact_match"),
        ("Chinese labels", "label_accuracy"),
        ("one answer", "exact_match"),
    ],
)
def test_the_metric_is_guessed_from_the_answers(tmp_path: Path, kind: str, metric: str) -> None:
    task = guess(answered(tmp_path, outputs(kind)))
    assert task.metric == metric
    assert {name: task.fields[name] for name in ("input", "output")} == {"input": "question", "output": "reply"}
    if kind == "labels":
        assert task.labels == ("1", "it's: #odd", "no", "yes", "é 👩‍💻")
    else:
        assert (task.labels is not None) == (metric == "label_accuracy")
    assert task.whitespace == ("counts" if "code" in kind else None)
    assert task.tolerance == (0.01 if kind == "measured" else None)


def test_every_guess_gives_its_reason_with_figures(tmp_path: Path) -> None:
    text = draft(write(tmp_path / "d.jsonl", [{"text": f"q {i}", "intent": "ab"[i % 2]} for i in range(40)])).text
    assert "# 40 rows; columns: text, intent" in text
    assert "# 40 answers, only 2 distinct, 100 % of them repeated" in text
    assert "# all 2 distinct answers; the rarest has 20 rows" in text


def test_one_answer_for_all_is_said(tmp_path: Path) -> None:
    (note,) = draft(answered(tmp_path, outputs("one answer"))).notes
    assert note == 'All 40 answers are "ok": there is nothing to decide, and no model is needed.'


def test_a_rare_label_and_one_that_is_nearly_always_right_are_said(tmp_path: Path) -> None:
    notes = " ".join(draft(answered(tmp_path, ["a"] * 40 + ["b"] * 4 + ["c"])).notes)
    assert 'Rare labels, with fewer than 3 rows, cannot stand in train, dev and test: "c" (1).' in notes
    assert '88 % of the answers are "a"' in notes


def test_spellings_that_look_the_same_are_one_label(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "remboursé")
    spelt: list[object] = [
        "remboursé",
        decomposed,
        decomposed,
        "on the way",
        "on the\u00a0way",
        "Lost ",
        "lost",
        "lost",
    ]
    task = guess(answered(tmp_path, spelt * 6))
    assert task.labels == ("lost", "on the way", "remboursé")
    (note,) = draft(tmp_path / "d.jsonl").notes
    assert "'rembourse\\u0301' (12)" in note


def test_labels_that_case_tells_apart_are_two_and_the_metric_counts_case(tmp_path: Path) -> None:
    task = guess(answered(tmp_path, ["us", "US", "IT"] * 12))
    assert (task.metric, task.labels) == ("exact_match", ("IT", "US", "us"))
    (note,) = draft(tmp_path / "d.jsonl").notes
    assert '"US" and "us" differ only in case' in note


@pytest.mark.parametrize("twins", [("broken", "br\u043eken"), ("BAN", "\u0412AN")], ids=ascii)
def test_labels_in_letters_of_two_scripts_are_said(tmp_path: Path, twins: tuple[str, str]) -> None:
    (note,) = draft(answered(tmp_path, [*twins] * 20)).notes
    assert "look alike, but are two labels" in note


@pytest.mark.parametrize(
    "cells",
    [
        ["refund, urgent", "urgent, refund", "delivery", "delivery, urgent", "refund"],
        [["refund", "urgent"], ["urgent"], ["delivery", "urgent"], ["refund"], ["delivery"]],
        ["refund;urgent", "urgent", "delivery;urgent", "delivery", "refund"],
    ],
)
def test_combinations_of_labels_are_several_labels(tmp_path: Path, cells: list[object]) -> None:
    task = guess(answered(tmp_path, cells * 8))
    assert (task.metric, task.multi_label) == ("label_set_f1", True)
    assert task.labels == ("delivery", "refund", "urgent")


def test_a_column_for_each_label_is_several_labels(tmp_path: Path) -> None:
    items: Rows = [{"text": f"a text {i}", "spam": i % 2, "urgent": i % 3 == 0} for i in range(30)]
    task = guess(write(tmp_path / "d.jsonl", items))
    assert (task.multi_label, task.labels, task.fields["output"]) == (True, ("spam", "urgent"), ("spam", "urgent"))


def test_answers_in_json_get_a_schema_that_all_of_them_meet(tmp_path: Path) -> None:
    items: list[object] = [
        {"kind": ("bug", "wish")[i % 2], "n": i, "tags": [f"t{i}"] * (i % 3), **({"note": None} if i % 4 else {})}
        for i in range(40)
    ]
    schema = guess(answered(tmp_path, items)).schema
    assert schema == {
        "type": "object",
        "properties": {
            "kind": {"enum": ["bug", "wish"]},
            "n": {"type": "integer"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "note": {"type": "null"},
        },
        "required": ["kind", "n", "tags"],
        "additionalProperties": False,
    }
    assert "lists count in order (unordered: true" in (tmp_path / "task.yaml").read_text()


def test_a_long_schema_stands_in_a_file_of_its_own(tmp_path: Path) -> None:
    items: list[object] = [{f"a rather long name of a key {k}": k for k in range(40)} for _ in range(20)]
    items[0] = {**items[0], "one more": 1}  # type: ignore[dict-item]
    task = guess(answered(tmp_path, items))
    assert task.schema == json.loads((tmp_path / "answer.schema.json").read_text())


def test_answers_of_which_a_few_are_no_json_are_named(tmp_path: Path) -> None:
    items = outputs("json")
    items[6] = '{"city": '
    trial = tried(answered(tmp_path, items))
    assert trial.problem is not None and "d.jsonl, line 7: the metric is json_match" in trial.problem
    assert "1 of 40 answers are no JSON" in trial.draft.notes[0]


def test_bad_rows_are_named_and_the_task_is_written_all_the_same(tmp_path: Path) -> None:
    path = answered(tmp_path, outputs("short"))
    path.write_text(path.read_text() + '{"question": \n')
    trial = tried(path)
    assert trial.problem is not None and "d.jsonl, line 41" in trial.problem
    assert trial.path.exists() and trial.task is not None


def test_a_label_that_stands_for_nothing_elsewhere_is_told(tmp_path: Path) -> None:
    notes = draft(answered(tmp_path, ["red", "nan", "none"] * 10)).notes
    assert [note for note in notes if '"nan" (10)' in note and '"none"' not in note]


def test_rows_of_which_none_can_be_read_are_named_with_their_reason(tmp_path: Path) -> None:
    picture = [{"type": "image_url", "image_url": {"url": "a.png"}}]
    said = [{"role": "user", "content": picture}, {"role": "assistant", "content": "a cat"}]
    path = write(tmp_path / "d.jsonl", [{"messages": said}] * 30)
    with pytest.raises(DataError, match=r"30 problems in its rows.*\n.*line 1: turn 1 holds image_url"):
        draft(path)


def test_rows_that_hold_several_have_the_columns_of_those(tmp_path: Path) -> None:
    answers = [{"text": "a house", "answer_start": 0}]
    qas = [{"id": str(i), "question": f"Which {i}?", "answers": answers, "kind": "x"} for i in range(20)]
    path = write(tmp_path / "d.jsonl", [{"title": "T", "paragraphs": [{"context": "a house", "qas": qas}]}])
    text = draft(path).text
    assert "# left out, as no field names them: kind\n" in text
    assert "# 20 rows; columns: context, id, question, answers, kind\n" in text


def test_an_object_beside_a_text_is_the_answer_however_long_it_is(tmp_path: Path) -> None:
    rows: Rows = [
        {"note": f"sink {i} leaks", "ticket": {"room": i, "trade": "plumber", "what": "a leaking sink in the kitchen"}}
        for i in range(30)
    ]
    task = guess(write(tmp_path / "d.jsonl", rows))
    assert dict(task.fields) == {"input": "note", "output": "ticket"} and task.metric == "json_match"


def test_a_schema_closes_categories_and_neither_names_nor_what_the_input_says(tmp_path: Path) -> None:
    rng = random.Random(0)
    rows: Rows = []
    for i in range(80):
        city, fruit = rng.choice(["Graz", "Lyon"]), rng.choice(["apples", "pears"])
        answer = {"kind": rng.choice(["order", "complaint"]), "city": city, "fruit": fruit, "n": i}
        rows.append({"email": f"{i} boxes of {fruit} please, to where we are", "extracted": answer})
    path = write(tmp_path / "d.jsonl", rows)
    schema = guess(path).schema
    assert schema is not None and schema["properties"] == {
        "kind": {"enum": ["complaint", "order"]},
        "city": {"type": "string"},
        "fruit": {"type": "string"},
        "n": {"type": "integer"},
    }
    said = "# fixes keys, types and the values of kind (delete enum where others can come); all 80 answers meet it\n"
    assert said in (tmp_path / "task.yaml").read_text()


def test_a_few_other_answers_among_labels_are_named_with_what_to_do(tmp_path: Path) -> None:
    odd = "As a language model I cannot say what this message is about."
    task = guess(answered(tmp_path, [*["late", "lost", "broken"] * 20, odd]))
    assert (task.metric, task.labels) == ("exact_match", None)
    assert task.instruction == "Classify the input. Answer with one of these labels only: broken, late, lost."
    text = (tmp_path / "task.yaml").read_text()
    assert '\n# labels: ["broken", "late", "lost"]\n' in text
    assert "1 row has another answer (d.jsonl, line 61). Correct or remove such rows; then take labels: in" in text
    (tmp_path / "task.yaml").write_text(text.replace("# labels", "labels").replace("exact_match", "label_accuracy"))
    path = tmp_path / "d.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:60]))
    assert len(read_sets(read_task(tmp_path))[None]) == 60


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("{:,}.55", ""),
        ("€{:,}.55", ", with € before it"),
        ("CHF {:,}.50", ", with CHF before it"),
        ("{:,}.5 %", ", with % after it"),
        ("{:.},55", ", with a decimal comma"),
        ("{:.},55 EUR", ", with EUR after it and a decimal comma"),
        ("{: },55 €", ", with € after it and a decimal comma"),
        ("{:\u202f},55\u00a0€", ", with € after it and a decimal comma"),
        ("{:'}.05 CHF", ", with CHF after it"),
        ("-{:.},7 kr", ", with kr after it and a decimal comma"),
    ],
)
def test_numbers_are_numbers_as_their_country_writes_them(tmp_path: Path, written: str, said: str) -> None:
    before, _, rest = written.partition("{:")
    sign, _, behind = rest.partition("}")
    numbers = [1000 + 617 * i for i in range(30)]
    answers: list[object] = [f"{before}{n:,}{behind}".replace(",", sign, 1) for n in numbers]
    task = guess(answered(tmp_path, answers))
    assert task.metric == "numeric_match"
    assert task.instruction == f"Work out the answer. Answer with the number only{said}."
    decimals = "".join(c for c in behind.replace(",", ".") if c in ".0123456789")
    plain = [f"{'-' if before == '-' else ''}{n}{decimals}" for n in numbers]
    assert [numeric_match(p, [str(a)]) for p, a in zip(plain, answers, strict=True)] == [1.0] * 30


@pytest.mark.parametrize("answer", ["1,2,{}", "1.2.{}", "0{}.12.2025", "3-{}", "{} km or more", "030 123 {:03}"])
def test_lists_versions_dates_telephones_and_ranges_are_no_numbers(tmp_path: Path, answer: str) -> None:
    assert "numeric" not in guess(answered(tmp_path, [answer.format(i) for i in range(1, 31)])).metric


def test_answers_to_a_question_name_the_column_that_asks_it(tmp_path: Path) -> None:
    rows: Rows = [{"comment": f"the comment {i}", "spam": ("yes", "no")[i % 2]} for i in range(30)]
    said = guess(write(tmp_path / "d.jsonl", rows)).instruction
    assert said == "Classify the input. spam: yes or no? Answer with one of these labels only: no, yes."


def test_rows_that_ask_for_different_things_are_told_and_each_is_shown(tmp_path: Path) -> None:
    asked = ("Name the mood.", "Write a reply.")
    rows: Rows = [
        {"instruction": asked[i >= 20], "input": f"parcel {i} is late", "output": "bad" if i < 20 else f"Sorry for {i}"}
        for i in range(60)
    ]
    trial = tried(write(tmp_path / "d.jsonl", rows))
    assert {e.instruction for e in trial.examples} == set(asked)
    (note,) = [n for n in trial.draft.notes if n.startswith("Rows carry")]
    assert note.startswith("Rows carry 2 different instructions (40 and 20 rows), and one metric judges them all.")


def test_earlier_turns_are_told(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    rows: Rows = [
        {"messages": [*said[: 2 * (i % 3 == 0)], {**said[0], "content": f"q {i}"}, {**said[1], "content": f"a {i}"}]}
        for i in range(30)
    ]
    (note,) = draft(write(tmp_path / "d.jsonl", rows)).notes
    assert note == "10 of 30 rows have earlier turns, which the model sees before the input."


@pytest.mark.parametrize(
    "columns", [("category", "priority"), ("sentiment", "topic"), ("agent_reply", "category"), ("label", "intent")]
)
def test_two_columns_that_are_as_good_an_answer_are_an_error_with_both_ways(
    tmp_path: Path, columns: tuple[str, str]
) -> None:
    first = [f"Hello, we will look into parcel {i}" for i in range(30)] if "reply" in columns[0] else ["a", "b"] * 15
    rows: Rows = [{"message": f"parcel {i}", columns[0]: first[i], columns[1]: "xyz"[i % 3]} for i in range(30)]
    with pytest.raises(DataError, match="can be read in 2 ways") as caught:
        draft(write(tmp_path / "d.jsonl", rows))
    assert all(f"--field output={column}" in str(caught.value) for column in columns)


@pytest.mark.parametrize("columns", [("category", "status"), ("answer", "category"), ("response", "kind")])
def test_a_column_that_only_describes_a_row_is_no_second_answer(tmp_path: Path, columns: tuple[str, str]) -> None:
    rows: Rows = [{"question": f"parcel {i}", columns[0]: "ab"[i % 2], columns[1]: "xyz"[i % 3]} for i in range(30)]
    assert guess(write(tmp_path / "d.jsonl", rows)).fields["output"] == columns[0]


def test_a_guess_that_does_not_hold_is_taken_back(tmp_path: Path) -> None:
    rows: Rows = [{"input": f"q {i}", "output": "ab"[i % 2], "references": ["c"]} for i in range(40)]
    trial = tried(write(tmp_path / "d.jsonl", rows))
    assert trial.problem is None and "was taken back" in trial.note
    assert trial.task is not None and trial.task.labels is None


def test_an_instruction_that_all_rows_share_is_that_of_the_task(tmp_path: Path) -> None:
    rows: Rows = [{"instruction": "Name the colour.", "input": f"q {i}", "output": f"a{i}"} for i in range(20)]
    assert guess(write(tmp_path / "d.jsonl", rows)).instruction == "Name the colour."
    chats: Rows = [
        {
            "messages": [
                {"role": "system", "content": "Be brief: #1"},
                {"role": "user", "content": f"q {i}"},
                {"role": "assistant", "content": f"a{i}"},
            ]
        }
        for i in range(20)
    ]
    assert guess(write(tmp_path / "chat" / "d.jsonl", chats)).instruction == "Be brief: #1"


def test_columns_that_no_field_names_are_said(tmp_path: Path) -> None:
    rows: Rows = [{"input": f"q {i}", "output": f"a{i}", "sent": "monday", "group": i % 5} for i in range(20)]
    text = draft(write(tmp_path / "d.jsonl", rows)).text
    assert "# left out, as no field names them: sent" in text
    assert 'rows with the same "group" are kept in one set' in text


def test_ids_that_name_two_rows_are_not_read_as_ids(tmp_path: Path) -> None:
    rows: Rows = [{"id": i // 2, "input": f"q {i}", "output": f"a{i}"} for i in range(20)]
    task = guess(write(tmp_path / "d.jsonl", rows))
    assert task.fields["id"] == ()
    assert 'the column "id" names several rows alike' in (tmp_path / "task.yaml").read_text()


def test_ids_of_a_later_file_that_name_two_rows_are_told(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", [{"input": f"p {i}", "output": f"b{i}"} for i in range(20)])
    later = write(tmp_path / "b.jsonl", [{"id": i // 2, "input": f"q {i}", "output": f"a{i}"} for i in range(20)])
    text = draft_task([str(first), str(later)]).text
    assert 'the column "id" names several rows alike' in text
    assert yaml.safe_load(text)["fields"]["id"] is None


def test_rows_without_an_id_are_not_called_alike(tmp_path: Path) -> None:
    rows: Rows = [{"id": f"n{i}" if i > 3 else None, "input": f"q {i}", "output": f"a{i}"} for i in range(20)]
    assert "id" not in guess(write(tmp_path / "d.jsonl", rows)).fields


def test_columns_without_a_telling_name_are_guessed_from_their_texts(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("x,y\n" + "".join(f"b{i},a much longer text {i}\n" for i in range(20)))
    assert dict(guess(tmp_path / "d.csv").fields) == {"input": "y", "output": "x"}


def test_columns_that_leave_no_guess_are_an_error_that_lists_them(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("x,y,z\n" + "a,b,c\n" * 20)
    with pytest.raises(DataError, match="columns are x, y, z"):
        draft(tmp_path / "d.csv")
    task = guess(tmp_path / "d.csv", fields={"input": "x", "output": "z"})
    assert dict(task.fields) == {"input": "x", "output": "z"}


def two_ways(tmp_path: Path) -> Path:
    rows: Rows = [{"question": f"q {i}", "answer": f"a{i}", "label": "xy"[i % 2]} for i in range(20)]
    return write(tmp_path / "d.jsonl", rows)


def test_two_sensible_readings_are_an_error_that_says_how_to_choose(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="can be read in 2 ways") as caught:
        draft(two_ways(tmp_path))
    assert f"rung init {tmp_path}/d.jsonl --shape columns --field input=question" in str(caught.value)
    options = [line.split("--field output=")[1] for line in str(caught.value).splitlines() if "--field output=" in line]
    assert sorted(options) == ["answer", "label"]
    assert guess(tmp_path / "d.jsonl", fields={"output": "label"}).labels == ("x", "y")


def test_a_user_at_a_terminal_is_asked_which_reading_is_meant(tmp_path: Path) -> None:
    asked: list[str] = []

    def second(question: str, replies: object) -> int:
        asked.append(question)
        return 1

    task = guess(two_ways(tmp_path), ask=second)
    assert task.fields["output"] == "label" and len(asked) == 1


def test_a_user_says_whether_an_empty_answer_is_right(tmp_path: Path) -> None:
    path = answered(tmp_path, ["", "a name", "another"] * 10)
    trial = tried(path)
    assert trial.problem is not None and "line 1" in trial.problem
    (tmp_path / "task.yaml").unlink()
    assert guess(path, ask=lambda *_: 1).empty_answers


def test_of_questions_that_cannot_be_answered_nothing_is_asked(tmp_path: Path) -> None:
    rows: Rows = [
        {"question": f"q {i}", "context": "a b c", "answers": {"text": ["b"][: i % 3], "answer_start": [2][: i % 3]}}
        for i in range(30)
    ]
    asked: list[str] = []
    task = guess(write(tmp_path / "d.jsonl", rows), ask=lambda question, replies: asked.append(question) or 0)
    assert task.empty_answers and not asked


def test_columns_that_the_user_names_need_no_reason(tmp_path: Path) -> None:
    path = answered(tmp_path, [f"the {i}. answer" for i in range(20)])
    text = draft(path, fields={"input": "question", "output": "reply"}).text
    assert "median length 3 words" in text
    assert "# \n" not in text and "\nshape: columns\n" in text


def test_a_folder_is_searched_for_examples_and_documents(tmp_path: Path) -> None:
    write(tmp_path / "mine.jsonl", [{"input": f"q {i}", "output": f"a {i}"} for i in range(20)])
    write(tmp_path / "corpus.jsonl", [{"text": "t"}])
    task = guess(tmp_path)
    assert task.examples == (tmp_path / "mine.jsonl",)
    assert task.corpus == tmp_path / "corpus.jsonl"


def test_documents_beside_the_data_or_named_are_counted(tmp_path: Path) -> None:
    for folder in (tmp_path / "docs", tmp_path / "more"):
        folder.mkdir()
        (folder / "a.md").write_text("text")
        (folder / "b.xyz").write_text("text")
    data = write(tmp_path / "d.jsonl", [{"input": f"q {i}", "output": f"a {i}"} for i in range(20)])
    text = draft(data).text
    assert "corpus: docs/  # a folder of documents beside the examples; 1 of 2 files is read" in text
    assert "not read" in text
    assert guess(data, docs=str(tmp_path / "more")).corpus == tmp_path / "more"
    with pytest.raises(DataError, match="no such file or folder"):
        draft(data, docs=str(tmp_path / "absent"))


def test_documents_that_cannot_be_read_are_left_out_with_the_reason(tmp_path: Path) -> None:
    write(tmp_path / "corpus.jsonl", [{"id": 1, "text": "a"}, {"id": 1, "text": "b"}])
    data = write(tmp_path / "d.jsonl", [{"input": f"q {i}", "output": f"a {i}"} for i in range(20)])
    assert "Not taken for documents: corpus.jsonl" in draft(data).notes[0]
    assert guess(data).corpus is None
    with pytest.raises(DataError, match=r"corpus\.jsonl"):
        draft(data, docs=str(tmp_path / "corpus.jsonl"))


@pytest.mark.parametrize("name", ["{}.jsonl", "bank_{}-v2.jsonl", "{}-00000-of-00001.jsonl", "{}/rows.jsonl"])
def test_a_split_in_a_folder_is_kept(tmp_path: Path, name: str) -> None:
    sets = {"train": "train", "validation": "dev", "test": "test"}
    for number, said in enumerate(sets):
        write(tmp_path / name.format(said), [{"input": f"q {i} {number}", "output": f"a {i}"} for i in range(20)])
    task = guess(tmp_path)
    assert task.examples == {ours: (tmp_path / name.format(said),) for said, ours in sets.items()}


def test_files_without_a_test_file_among_them_are_taken_together(tmp_path: Path) -> None:
    for name in ("train", "dev"):
        write(tmp_path / f"{name}.jsonl", [{"input": f"q {i} {name}", "output": f"a {i}"} for i in range(20)])
    drafted = draft_task([str(tmp_path / "train.jsonl"), str(tmp_path / "dev.jsonl")])
    task = try_draft(drafted).task
    assert task is not None and task.examples == (tmp_path / "train.jsonl", tmp_path / "dev.jsonl")
    assert "no train file with a test file" in drafted.notes[0]


def test_a_test_file_without_answers_is_left_out(tmp_path: Path) -> None:
    for name, more in (("train", {"label": "a"}), ("test", {}), ("dev", {"label": "b"})):
        write(tmp_path / f"{name}.jsonl", [{"text": f"text {i} {name}", **more} for i in range(20)])
    drafted = draft(tmp_path)
    assert "Left out, as no row has an answer: test.jsonl. rung splits the others." in drafted.notes
    task = guess(tmp_path)
    assert task.examples == (tmp_path / "train.jsonl", tmp_path / "dev.jsonl")


def test_a_column_that_only_one_of_the_files_has_is_no_error(tmp_path: Path) -> None:
    for name, more in (("train", {"group": 1, "id": 2}), ("test", {})):
        rows: Rows = [{"text": f"text {i} {name}", "label": "ab"[i % 2], **more} for i in range(20)]
        write(tmp_path / f"{name}.jsonl", rows)
    assert guess(tmp_path).labels == ("a", "b")


@pytest.mark.parametrize("files", [{}, {"a.csv": "x,y", "b.csv": "p,q,r"}, {"notes.md": "x,y"}])
def test_a_folder_without_one_kind_of_file_is_an_error(tmp_path: Path, files: Mapping[str, str]) -> None:
    for name, header in files.items():
        (tmp_path / name).write_text(header + "\n" + "1,2,3"[: len(header)] + "\n")
    with pytest.raises(DataError):
        draft(tmp_path)


@pytest.mark.parametrize("folder", ["odd: name?", "123", "é", "yes", "-dash", "emoji 🦊"])
def test_odd_folder_names_give_a_task_that_can_be_read(tmp_path: Path, folder: str) -> None:
    rows: Rows = [{"input": f"q {i}", "output": f"a {i}"} for i in range(20)]
    assert guess(write(tmp_path / folder / "odd: 'file' #1.jsonl", rows)).name


ODD = (
    *("yes", "No", "~", "null", "NA", "01", "1.0", "1e3", "0x1F", "12:30", "2024-01-05", "a: b", "# x", "- x", "it's"),
    *('say "x"', "C:\\new", "line\nbreak", "tab\t", "👩‍💻", "\u200bx", "\x7f", "\u2028", "{x}", "[x]", "@x", "%x", "é"),
)


@pytest.mark.parametrize("text", ODD)
def test_text_is_written_so_that_yaml_reads_it_back_as_the_same_text(text: str) -> None:
    assert yaml.safe_load(as_yaml(text)) == yaml.safe_load(quoted(text)) == text
    assert yaml.safe_load(as_yaml({"a": [text, 1, True]})) == {"a": [text, 1, True]}


def test_a_million_answers_are_counted_and_few_are_kept() -> None:
    answers = AnswersSeen()
    for i in range(60_000):
        answers.add(f"answer number {i}")
    assert (answers.n, len(answers.sample), answers.counts) == (60_000, 20_000, None)
    assert form_of(answers).metric == "exact_match"


def test_a_task_that_is_there_is_kept(tmp_path: Path) -> None:
    path = answered(tmp_path, outputs("short"))
    (tmp_path / "task.yaml").write_text("mine")
    with pytest.raises(TaskError, match="is there already"):
        tried(path)
    assert (tmp_path / "task.yaml").read_text() == "mine"
    assert try_draft(draft(path), force=True).problem is None


def with_documents(folder: Path, answers: Sequence[object]) -> Path:
    (folder / "docs").mkdir(parents=True)
    (folder / "docs" / "a.md").write_text("text")
    return answered(folder, answers)


def test_a_usual_refusal_is_proposed_to_abstain_where_there_are_documents(tmp_path: Path) -> None:
    known: list[object] = [f"{word} {i}" for i, word in enumerate(["valve", "Ben Okoro", "Oxmere"] * 20)]
    answers = [*known, *["I do not know."] * 7, "I do not know", "We cannot tell."]
    data = with_documents(tmp_path / "some", answers)
    text = draft(data).text
    assert 'abstain: "I do not know."  # 8 of 69 answers; right where the documents hold no answer\n' in text
    assert "# cite: true  #" in text and "# retrieval: {kinds: [bm25, dense]}  #" in text and "# abstain" not in text
    assert guess(data).abstain == "I do not know."
    assert "abstain" not in draft(answered(tmp_path / "none", answers)).text
    rare = draft(with_documents(tmp_path / "rare", [*known, *["I do not know."] * 4])).text
    assert "\n# abstain: I do not know.  #" in rare and "\nabstain" not in rare


def test_labels_and_schemas_are_offered_no_sources(tmp_path: Path) -> None:
    labels = draft(with_documents(tmp_path, ["yes", "no", "unknown"] * 20)).text
    assert "labels: [" in labels and "cite" not in labels and "abstain" not in labels and "# retrieval:" in labels
