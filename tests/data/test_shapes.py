from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import pytest

from rung.data.rows import Row
from rung.data.shapes import Labels, Recognised, examples_of, flat, recognised
from rung.data.shapes.reading import Answers, EmptyAnswer, RowReader, WrongLabel
from rung.errors import DataError
from rung.types import Example, Message

User, Assistant = (lambda text: Message("user", text)), (lambda text: Message("assistant", text))


def rows_of(items: Sequence[Mapping[str, object]]) -> list[Row]:
    return [Row(f"e.jsonl, line {i}", f"line-{i}", item) for i, item in enumerate(items, 1)]


def reading_of(items: Sequence[Mapping[str, object]], **chosen: str | tuple[str, ...]) -> Recognised:
    columns = list(dict.fromkeys(c for item in items for c in item))
    return recognised(columns, rows_of(items), chosen)


PLAIN = Answers()


def read(items: Sequence[Mapping[str, object]], answers: Answers = PLAIN, **chosen: str) -> list[Example]:
    reading = reading_of(items, **chosen)
    assert not reading.alternatives
    return [RowReader(reading.fields, answers)(row) for row in flat(rows_of(items))]


def answers_of(items: Sequence[Mapping[str, object]], reading: Recognised) -> list[str]:
    return [example.output if example else "" for example in examples_of(rows_of(items), reading)]


def chat(*turns: tuple[str, object], **more: object) -> dict[str, object]:
    return {"messages": [{"role": role, "content": content} for role, content in turns], **more}


# ---- chat ----


def test_the_last_answer_of_a_conversation_is_learnt_and_earlier_turns_are_kept() -> None:
    said = chat(("system", "Be short."), ("user", "Hi"), ("assistant", "Hello"), ("user", "2 + 2?"), ("assistant", "4"))
    (e,) = read([said])
    assert (e.input, e.output, e.instruction) == ("2 + 2?", "4", "Be short.")
    assert e.turns == (User("Hi"), Assistant("Hello"))


def test_content_in_parts_is_text_and_a_picture_is_told() -> None:
    parts = [{"type": "text", "text": "What is"}, {"type": "text", "text": "this?"}]
    (e,) = read([chat(("user", parts), ("assistant", "A cat"))])
    assert e.input == "What is\nthis?"
    with pytest.raises(ValueError, match="turn 1 holds image_url; only text can be read"):
        read([chat(("user", [{"type": "image_url", "image_url": {}}]), ("assistant", "A cat"))])


def test_turns_after_the_answer_are_counted_as_left_out() -> None:
    said = chat(("user", "2 + 2?"), ("assistant", "4"), ("user", "Thanks"))
    reader = RowReader(reading_of([said]).fields)
    assert reader(rows_of([said])[0]).output == "4"
    assert reader.left_out == 1


def test_a_conversation_without_an_answer_says_what_is_missing() -> None:
    items = [chat(("user", "Hi"), ("assistant", "Hello"))] * 20 + [chat(("user", "Hi"))]
    with pytest.raises(ValueError, match='"messages" holds no turn of the assistant'):
        read(items)


def test_sharegpt_says_human_and_gpt() -> None:
    said = [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    reading = reading_of([{"conversations": said}])
    assert reading.shape == "sharegpt"
    (e,) = read([{"conversations": said}])
    assert (e.input, e.output, e.instruction) == ("q", "a", "s")


def test_a_conversation_in_a_csv_cell_is_read_from_its_json() -> None:
    (e,) = read([{"dialog": json.dumps(chat(("user", "q"), ("assistant", "a"))["messages"])}])
    assert (e.input, e.output) == ("q", "a")


def test_calls_of_tools_are_answers_in_json_and_the_tools_stand_in_the_instruction() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"city": "string"}}}]
    one = {
        "messages": [{"role": "user", "content": "Rome?"}, {"role": "assistant", "tool_calls": [call]}],
        "tools": tools,
    }
    two = {
        "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "", "tool_calls": [call] * 2}]
    }
    first, second = read([one, two])
    assert json.loads(first.output) == {"name": "weather", "arguments": {"city": "Rome"}}
    assert json.loads(second.output) == [json.loads(first.output)] * 2
    assert first.instruction is not None
    assert '{"name": "weather", "parameters": {"city": "string"}}' in first.instruction
    assert second.instruction is None


def test_what_a_tool_answered_is_a_turn_of_the_user() -> None:
    call = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    said = [
        {"role": "user", "content": "q"},
        call,
        {"role": "tool", "content": "7"},
        {"role": "assistant", "content": "a"},
    ]
    (e,) = read([{"messages": said}])
    assert (e.input, e.output) == ("7", "a")
    assert e.turns == (User("q"), Assistant('{"name": "f", "arguments": {}}'))


# ---- instruction, prompt, preference, SQuAD ----


def test_alpaca_with_an_empty_input_everywhere_asks_by_its_instruction() -> None:
    items = [{"instruction": f"q{i}", "input": "", "output": "a"} for i in range(3)]
    reading = reading_of(items)
    assert reading.fields == {"input": "instruction", "output": "output"}
    assert reading.instruction is None


def test_an_instruction_that_all_rows_share_is_the_tasks() -> None:
    items = [{"instruction": "Classify ", "input": f"q{i}", "output": "a"} for i in range(3)]
    reading = reading_of(items)
    assert reading.instruction is not None
    assert reading.instruction.strip() == "Classify"
    reader = RowReader(reading.fields, said="Classify. Answer with the label only.", same=True)
    assert reader(rows_of(items)[0]).instruction is None


def test_instructions_that_differ_are_their_rows_own() -> None:
    items = [{"instruction": f"do {i}", "input": "x" if i else "", "output": "a"} for i in range(3)]
    first, second, _ = read(items)
    assert (first.instruction, first.input) == (None, "do 0")
    assert (second.instruction, second.input) == ("do 1", "x")
    assert reading_of(items).instruction is None


def test_dolly_has_a_context_and_a_category_that_is_no_answer() -> None:
    (e,) = read([{"instruction": "q", "context": "c", "response": "a", "category": "open_qa"}])
    assert (e.input, e.context, e.output) == ("q", "c", "a")


def test_prompt_and_completion_may_be_texts_or_turns() -> None:
    (plain,) = read([{"prompt": "q", "completion": " a"}])
    asked = chat(("system", "s"), ("user", "q"))["messages"]
    (turns,) = read([{"prompt": asked, "completion": chat(("assistant", "a"))["messages"]}])
    assert (plain.input, plain.output) == ("q", " a")
    assert (turns.input, turns.output, turns.instruction) == ("q", "a", "s")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"chosen": chat(("user", "q"), ("assistant", "a"))["messages"], "rejected": "b"},
        {"prompt": "q", "chosen": chat(("user", "q"), ("assistant", "a"))["messages"], "rejected": "b"},
        {"prompt": "q", "chosen": chat(("assistant", "a"))["messages"], "rejected": "b"},
        {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
    ],
)
def test_the_chosen_answer_is_the_answer(row: dict[str, object]) -> None:
    (e,) = read([row])
    assert (e.input, e.output, e.turns) == ("q", "a", ())


def test_squads_answers_are_all_accepted() -> None:
    answers = {"text": ["Rome", "the city of Rome", "Rome"], "answer_start": [1, 2, 1]}
    (e,) = read([{"question": "q", "context": "c", "answers": answers, "title": "t"}])
    assert (e.input, e.output, e.references, e.context) == ("q", "Rome", ("Rome", "the city of Rome"), "c")


def test_an_article_of_squad_holds_many_rows() -> None:
    qas = [{"question": f"q{i}", "id": f"i{i}", "answers": [{"text": "a", "answer_start": 0}]} for i in range(2)]
    found = read([{"title": "t", "paragraphs": [{"context": "c1", "qas": qas}, {"context": "c2", "qas": qas[:1]}]}])
    assert [(e.input, e.context) for e in found] == [("q0", "c1"), ("q1", "c1"), ("q0", "c2")]
    assert found[2].row == "e.jsonl, line 1.3"


def test_a_question_that_cannot_be_answered_has_an_empty_answer() -> None:
    items = [{"question": "q", "context": "c", "answers": {"text": t, "answer_start": []}} for t in (["a"], [])]
    with pytest.raises(ValueError, match='"answers" is empty'):
        read(items)
    assert [e.output for e in read(items, Answers(empty=True))] == ["a", ""]


# ---- columns ----


def test_several_text_columns_are_joined_under_their_names() -> None:
    items = [
        {"subject": f"My order {i} is late", "body": f"It left {i} days ago.\nWhere is it?", "team": "post"}
        for i in range(9)
    ]
    reading = reading_of(items)
    assert reading.fields == {"input": ("subject", "body"), "output": "team"}
    first = read(items)[0]
    assert first.input == "subject: My order 0 is late\nbody: It left 0 days ago.\nWhere is it?"


def test_names_are_found_without_case_and_spaces() -> None:
    (e,) = read([{" Input ": "q", "OUTPUT": "a", "Gold IDs": "d1"}])
    assert (e.input, e.output, e.gold_ids) == ("q", "a", ("d1",))
    (chosen,) = read([{"Frage": "q", "Antwort": "a"}], input="frage", output=" ANTWORT")
    assert (chosen.input, chosen.output) == ("q", "a")


def test_the_users_columns_win_over_every_shape() -> None:
    item = chat(("user", "q"), ("assistant", "a"), text="t", label="l", output="no")
    (e,) = read([item], input="text", output="label")
    assert (e.input, e.output) == ("t", "l")


def test_two_equally_sensible_readings_are_alternatives() -> None:
    items = [{"text": f"a text of words {i}", "category": "a", "intent": "b"} for i in range(5)]
    reading = reading_of(items)
    assert [r.fields["output"] for r in (reading, *reading.alternatives)] == ["intent", "category"]
    same = [{"text": f"a text of words {i}", "category": "a", "intent": "a"} for i in range(5)]
    assert not reading_of(same).alternatives  # both readings give the same examples


def test_a_label_in_words_is_preferred_to_its_number() -> None:
    items = [{"text": "some words here", "label": i, "label_text": f"class {i}"} for i in range(3)]
    assert reading_of(items).fields["output"] == "label_text"


def test_references_alone_are_answers() -> None:
    items: list[dict[str, object]] = [{"question": "q", "references": ["a", "b"]}]
    (e,) = read(items)
    assert (e.output, e.references) == ("a", ("a", "b"))


def test_a_list_of_accepted_answers_is_never_text_to_be_reproduced() -> None:
    (e,) = read([{"question": "q", "answer": ["Rome", "Roma"]}])
    assert (e.output, e.references) == ("Rome", ("Rome", "Roma"))


def test_rows_of_no_shape_name_the_columns_and_what_to_write() -> None:
    with pytest.raises(DataError, match=r"columns are a, b, c\. Name them in task.yaml with fields: \{input: COLUMN"):
        reading_of([{"a": 1, "b": 2, "c": 3}])
    with pytest.raises(DataError, match='line 1: no column "topic"; columns are input, output'):
        reading_of([{"input": "q", "output": "a"}], group="topic")


# ---- several labels ----


@pytest.mark.parametrize("sign", [", ", ";", " | "])
def test_texts_that_recombine_a_few_labels_are_several_labels(sign: str) -> None:
    pairs = [("refund", "urgent"), ("urgent", "refund"), ("post", "calm"), ("refund", "calm"), ("post", "urgent")]
    items = [{"text": f"words {i}", "answer": sign.join(pairs[i % 5])} for i in range(40)]
    reading = reading_of(items)
    assert reading.several is not None
    assert reading.several.labels == ("calm", "post", "refund", "urgent")
    assert answers_of(items, reading)[:2] == ['["refund", "urgent"]', '["refund", "urgent"]']


def test_texts_with_commas_that_do_not_recombine_are_one_label() -> None:
    cities = ["Rome, Italy", "Paris, France", "Bonn, Germany"]
    reading = reading_of([{"text": f"words {i}", "label": cities[i % 3]} for i in range(40)])
    assert reading.several is None


def test_one_column_a_label_gives_the_labels_that_apply() -> None:
    items = [{"comment": f"some words {i}", "toxic": i % 2, "rude": int(i % 3 == 0)} for i in range(12)]
    reading = reading_of(items)
    assert reading.fields == {"input": "comment", "output": ("toxic", "rude")}
    assert answers_of(items, reading)[:4] == ['["rude"]', '["toxic"]', "[]", '["rude", "toxic"]']


def test_a_system_column_stands_before_the_instruction() -> None:
    items = [{"system": "Be short.", "instruction": f"do {i}", "input": "x", "output": "a"} for i in range(3)]
    assert read(items)[1].instruction == "Be short.\n\ndo 1"


def test_a_field_that_is_to_be_left_unread_is() -> None:
    item = {"input": "q", "output": "a", "id": "7"}
    reading = recognised(list(item), rows_of([item]), {"id": ()})
    assert reading.fields == {"input": "input", "output": "output"}


def test_what_pandas_writes_for_nothing_is_nothing_in_every_optional_column() -> None:
    item = {"input": "q", "output": "a", "id": "nan", "context": "NaN", "references": "None", "gold_ids": "<NA>"}
    (e,) = read([item])
    assert (e.id, e.context, e.references, e.gold_ids) == ("line-1", None, ("a",), ())


def test_of_columns_without_a_known_name_the_one_whose_few_values_repeat_is_the_answer() -> None:
    items = [
        {"from": f"a{i}@x.org", "subject": f"my order {i} is late", "city": f"town {i}", "team": "ab"[i % 2]}
        for i in range(20)
    ]
    assert reading_of(items).fields == {"input": "subject", "output": "team"}


def test_json_answers_about_roles_of_another_kind_are_no_conversation() -> None:
    people = '[{"role": "director", "value": "Ann"}]'
    (e,) = read([{"input": "Who leads?", "output": people}], Answers(lists_are_json=True))
    assert e.output == people


def test_a_prompt_that_quotes_a_conversation_stays_as_it_is() -> None:
    prompt = "Human: q\n\nAssistant:"
    (e,) = read([{"prompt": prompt, "completion": " a"}])
    assert (e.input, e.output, e.turns) == (prompt, " a", ())


def test_an_answer_in_turns_is_a_conversation_only_where_it_repeats_what_is_asked() -> None:
    said = "\n\nHuman: Do you like tea?\n\nAssistant: Yes."
    for asked, source, answer in (
        ("Write a dialogue about tea.", "Write a dialogue about tea.", said),
        ("Do you like tea?", "Do you like tea?", "Yes."),
        ("\n\nHuman: Do you like tea?\n\nAssistant:", "Do you like tea?", "Yes."),
    ):
        (e,) = read([{"prompt": asked, "completion": said}])
        assert (e.input, e.output, e.turns) == (source, answer, ())


# ---- rows in the wild ----


def test_a_turn_of_weight_nought_is_not_learnt() -> None:
    said = chat(("user", "2 + 2?"), ("assistant", "4"), ("user", "And 3?"), ("assistant", "Eh"))
    said["messages"][-1]["weight"] = 0  # type: ignore[index]
    (e,) = read([said])
    assert (e.input, e.output, e.turns) == ("2 + 2?", "4", ())
    said["messages"][1]["weight"] = 0  # type: ignore[index]
    with pytest.raises(EmptyAnswer, match="no turn of the assistant that is to be learnt"):
        RowReader({"input": "messages"})(rows_of([said])[0])


@pytest.mark.parametrize("name", ["system", "system_prompt", "systemInstruction"])
def test_what_a_column_of_the_system_says_is_never_lost(name: str) -> None:
    system: object = {"parts": [{"text": "Be very kind."}]} if name == "systemInstruction" else "Be very kind."
    for row in (
        chat(("user", "Hi"), ("assistant", "Hello")),
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "bing", "value": "Hello"}]},
        {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}, {"role": "model", "parts": [{"text": "Hello"}]}]},
        {"prompt": "Hi", "chosen": "Hello", "rejected": "What?"},
        {"prompt": "Hi", "completion": "Hello"},
    ):
        reading = reading_of([{**row, name: system}])
        (e,) = [RowReader(reading.fields)(row) for row in rows_of([{**row, name: system}])]
        assert (e.input, e.output, e.instruction) == ("Hi", "Hello", "Be very kind."), reading
        assert reading.instruction == "Be very kind."
    rows = [{"question": f"Which day is {i}?", "response": "Monday", name: "Be very kind."} for i in range(3)]
    if name != "systemInstruction":
        assert read(rows)[0].instruction == "Be very kind."


def test_a_column_called_system_or_tools_in_a_table_may_be_something_else() -> None:
    rows = [{"text": f"It crashed again on day {i}", "system": "Windows", "tools": "a saw", "label": "x"} for i in "12"]
    assert read(rows)[0].instruction is None


def test_definitions_of_tools_beside_a_question_are_shown() -> None:
    tools = json.dumps([{"name": "look_up", "parameters": {"word": {"type": "str"}}}])
    call = json.dumps([{"name": "look_up", "arguments": {"word": "ox"}}])
    (e,) = read([{"query": "What is an ox?", "tools": tools, "answers": call}], Answers(lists_are_json=True))
    assert e.output == call
    assert e.instruction is not None and '"look_up"' in e.instruction


@pytest.mark.parametrize(
    "text",
    [
        "### Human: Hi### Assistant: Hello",
        "\n\nHuman: Hi\n\nAssistant: Hello",
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n",
        "<s>[INST] Hi [/INST] Hello </s>",
        "USER: Hi\n\n\nASSISTANT: Hello <|endoftext|>",
        "### Instruction:\nHi\n\n### Response:\nHello",
    ],
)
def test_a_text_that_holds_a_conversation_is_read_as_one(text: str) -> None:
    (e,) = read([{"text": text}])
    assert (e.input, e.output, e.turns, e.instruction) == ("Hi", "Hello", (), None)


def test_a_template_before_the_first_turn_is_what_the_system_says() -> None:
    text = "Below is an instruction.\n\n### Instruction:\nSum up.\n\n### Input:\nA long text\n\n### Response:\nShort"
    (e,) = read([{"text": text}])
    assert (e.input, e.output, e.instruction) == ("Sum up.\n\nA long text", "Short", "Below is an instruction.")


def test_a_conversation_that_is_to_be_labelled_stays_a_text() -> None:
    rows = [{"text": f"### Human: Hi {i}### Assistant: Hello", "label": "ab"[i % 2]} for i in range(6)]
    assert read(rows)[0].input == "### Human: Hi 0### Assistant: Hello"


def test_pairs_of_human_and_assistant_are_turns() -> None:
    (e,) = read([{"conversation": [{"human": "Hi", "assistant": "Hello"}, {"human": "2 + 2?", "assistant": "4"}]}])
    assert (e.input, e.output, e.turns) == ("2 + 2?", "4", (User("Hi"), Assistant("Hello")))


def test_rows_that_are_one_turn_each_are_told() -> None:
    rows = [{"text": f"Hm {i}", "role": ("prompter", "assistant")[i % 2], "parent_id": str(i)} for i in range(8)]
    with pytest.raises(DataError, match="each row is one turn of a conversation"):
        reading_of(rows)


def test_openais_preferences_hold_messages_in_their_input() -> None:
    asked = {"messages": [{"role": "user", "content": "Hi"}], "tools": []}
    (e,) = read([{"input": asked, "preferred_output": [{"role": "assistant", "content": "Hello"}],
                  "non_preferred_output": [{"role": "assistant", "content": "What?"}]}])  # fmt: skip
    assert (e.input, e.output, e.id) == ("Hi", "Hello", "line-1")


def test_a_judged_completion_may_be_learnt_or_judged() -> None:
    rows = [{"prompt": f"Say {i}", "completion": f"It is {i}", "label": i % 2 == 0} for i in range(6)]
    reading = reading_of(rows)
    assert [r.fields["output"] for r in (reading, *reading.alternatives)] == ["completion", "label"]


@pytest.mark.parametrize(
    ("options", "columns"),
    [
        ({"A": "ox", "B": "cow", "C": "hen"}, ["A", "B", "C"]),
        ({"choices": ["ox", "cow", "hen"]}, ["choices"]),
        ({"choices": {"text": ["ox", "cow"], "label": ["A", "B"]}}, ["choices"]),
        ({"opa": "ox", "opb": "cow"}, ["opa", "opb"]),
    ],
)
def test_what_is_to_be_chosen_from_belongs_to_the_input(options: dict[str, object], columns: list[str]) -> None:
    rows = [{"question": f"What says moo on day {i}?", **options, "answer": "AB"[i % 2]} for i in range(6)]
    reading = reading_of(rows)
    assert reading.fields == {"input": ("question", *columns), "output": "answer"}


@pytest.mark.parametrize("name", ["passage", "evidence", "contexts"])
def test_a_passage_is_the_context_of_its_question(name: str) -> None:
    rows = [
        {"question": f"Is it so on day {i}?", name: f"It is so on day {i}.", "answer": i % 2 == 0} for i in range(6)
    ]
    assert read(rows)[0].context == "It is so on day 0."


def test_two_texts_without_a_telling_name_may_be_read_both_ways() -> None:
    rows = [{"en": f"The house {i} is red", "fr": f"La maison {i} est rouge"} for i in range(6)]
    for shape in (rows, [{"translation": row} for row in rows], [{"id": "a", "translation": row} for row in rows[:1]]):
        reading = reading_of(shape)
        ways = [(r.fields["input"], r.fields["output"]) for r in (reading, *reading.alternatives)]
        assert ways == [("en", "fr"), ("fr", "en")]


@pytest.mark.parametrize(("asked", "given"), [("Q", "A"), ("src", "tgt"), ("user", "bot"), ("Frage", "Antwort")])
def test_names_that_belong_together_say_which_is_the_answer(asked: str, given: str) -> None:
    rows = [{given: f"It is the {i}. of them", asked: f"Which one is {i}, and why is it?"} for i in range(6)]
    reading = reading_of(rows)
    assert (reading.fields, reading.alternatives) == ({"input": asked, "output": given}, ())
    aside = reading_of([{**row, "category": "xy"[i % 2]} for i, row in enumerate(rows)])
    assert (aside.fields, aside.alternatives) == ({"input": asked, "output": given}, ())


def test_the_names_of_people_are_no_question_and_answer() -> None:
    rows = [{"customer": f"Ann {i}", "agent": "Bo", "message": f"It is late, {i}", "sentiment": "x"} for i in range(6)]
    assert reading_of(rows).fields == {"input": "message", "output": "sentiment"}


def test_what_all_rows_hold_is_no_guess_for_the_answer() -> None:
    rows = [{"body": f"It is day {i} now", "note": "Written by hand in the year 1900"} for i in range(6)]
    with pytest.raises(DataError, match="no column looks like the output"):
        reading_of(rows)


@pytest.mark.parametrize("written", [json.dumps, repr, lambda cell: repr(cell).replace(",", "")])
def test_lists_that_pandas_wrote_into_cells_are_lists(written: Callable[[object], str]) -> None:
    cells = [["a", "b"], ["b"], ["a"], ["b", "c"], ["c", "a"]] * 6
    several = reading_of([{"text": f"t {i}", "labels": written(cell)} for i, cell in enumerate(cells)]).several
    assert several is not None and several.labels == ("a", "b", "c")


@pytest.mark.parametrize(
    "cell",
    [
        "{'text': ['x', 'y'], 'answer_start': [3, 4]}",
        "{'text': array(['x', 'y'], dtype=object), 'answer_start': array([3, 4])}",
        '{"text": ["x", "y"], "answer_start": [3, 4]}',
    ],
)
def test_squads_answers_are_read_from_a_csv_cell(cell: str) -> None:
    (e,) = read([{"question": "Which?", "context": "x or y", "answers": cell}])
    assert e.references == ("x", "y")


def test_the_aliases_of_an_answer_are_accepted() -> None:
    (e,) = read([{"question": "Who?", "answer": {"value": "Bo", "aliases": ["Bo", "B."], "type": "person"}}])
    assert e.references == ("Bo", "B.")


@pytest.mark.parametrize(
    "answer",
    [
        {"entities": [{"text": "Bo", "label": "PER", "start": 0}, {"text": "Rome", "label": "LOC", "start": 9}]},
        {"entities": ["Bo", "Rome"]},
        {"ner_tags": [1, 0, 0, 2, 0, 0]},
    ],
)
def test_a_list_that_is_the_answer_itself_is_no_list_of_accepted_ones(answer: dict[str, object]) -> None:
    rows = [{"text": f"Bo was in Rome {i}", **answer} for i in range(2)]
    reading = reading_of(rows)
    assert reading.several is None and not reading.lists
    assert answers_of(rows, reading)[0] == json.dumps(next(iter(answer.values())))


def test_alpacas_noinput_is_no_input() -> None:
    (e,) = read([{"instruction": "Name a bird", "input": "<noinput>", "output": "Owl"}])
    assert (e.input, e.instruction) == ("Name a bird", None)
    rows = [{"instruction": f"Do {i}", "input": ("<noinput>", "x")[i % 2], "output": "y"} for i in range(4)]
    assert [(e.input, e.instruction) for e in read(rows)[:2]] == [("Do 0", None), ("x", "Do 1")]


def test_calls_and_results_of_tools_are_read_as_anthropic_writes_them() -> None:
    used = [{"type": "text", "text": "Let me see."}, {"type": "tool_use", "id": "t", "name": "look", "input": {"x": 1}}]
    called = {"name": "look", "arguments": {"x": 1}}
    (e,) = read([chat(("user", "How warm?"), ("assistant", used))])
    assert json.loads(e.output) == called
    result = [{"type": "tool_result", "tool_use_id": "t", "content": "20"}]
    (e,) = read([chat(("user", "How warm?"), ("assistant", used), ("user", result), ("assistant", "20 degrees"))])
    assert (e.input, e.output) == ("20", "20 degrees")
    assert e.turns == (User("How warm?"), Assistant(f"Let me see.\n{json.dumps(called)}"))


@pytest.mark.parametrize(
    ("columns", "input", "output"),
    [
        (("Title", "Review Text", "Rating"), ("Title", "Review Text"), "Rating"),
        (("Headline", "Long story", "Rating"), ("Headline", "Long story"), "Rating"),
        (("Customer message", "Agent reply"), "Customer message", "Agent reply"),
        (("question", "schema", "query"), "question", "query"),
        (("text", "user_id", "category"), "text", "category"),
    ],
)
def test_names_in_several_words_say_what_a_column_holds(
    columns: tuple[str, ...], input: str | tuple[str, ...], output: str
) -> None:
    rows = [{c: str(i % 2) if c == output else f"this is the {c} of row {i}" for c in columns} for i in range(8)]
    reading = reading_of(rows)
    assert (reading.fields["input"], reading.fields["output"]) == (input, output)


def test_of_two_columns_with_few_values_the_user_says_which_is_the_answer() -> None:
    rows = [{"text": f"It is day {i} now", "team": "ab"[i % 2], "urgent": "yn"[i % 2]} for i in range(9)]
    reading = reading_of(rows)
    assert [r.fields["output"] for r in (reading, *reading.alternatives)] == ["team", "urgent"]
    assert reading.as_options == "--shape columns --field input=text --field output=team"


def test_correct_answers_beside_the_best_one_are_accepted() -> None:
    (e,) = read([{"question": "Who?", "best_answer": "Bo", "correct_answers": ["Bo", "It is Bo"]}])
    assert e.references == ("Bo", "It is Bo")


@pytest.mark.parametrize("name", ["target", "label"])
def test_an_instruction_beside_an_input_is_never_lost(name: str) -> None:
    rows = [{"instruction": ("Say it", "Sing it")[i % 2], "input": f"the song {i}", name: f"la {i}"} for i in range(4)]
    assert [(e.instruction, e.input, e.output) for e in read(rows)[:2]] == [
        ("Say it", "the song 0", "la 0"),
        ("Sing it", "the song 1", "la 1"),
    ]


def test_a_row_wrapped_in_one_object_is_what_that_holds() -> None:
    wrapped: list[dict[str, object]] = [
        {"_index": "t", "_id": str(i), "_score": 1.0, "_source": {"message": f"q {i}", "category": "ab"[i % 2]}}
        for i in range(4)
    ]
    assert [e.output for e in read(wrapped)] == ["a", "b", "a", "b"]
    nodes: list[dict[str, object]] = [{"cursor": f"c{i}", "node": {"body": f"q {i}", "label": None}} for i in range(4)]
    assert reading_of(nodes).columns == ("cursor", "body", "label")
    labelled = {"text": "q", "meta": {"a": 1, "b": 2}, "label": "x"}
    assert reading_of([labelled]).columns == ("text", "meta", "label")


def test_words_of_a_sentence_are_never_the_answer() -> None:
    items = [{"tokens": ["to", "be", f"{i}"], "id": i, "remark": f"the remark number {i}"} for i in range(6)]
    assert reading_of(items).fields["input"] == "tokens"


def test_beside_a_column_of_objects_another_text_may_be_the_answer() -> None:
    items = [{"email": f"the mail number {i}", "facts_found": {"n": i}, "verdict": f"it is {i}"} for i in range(6)]
    reading = reading_of(items)
    assert [r.fields["output"] for r in (reading, *reading.alternatives)] == ["facts_found", "verdict"]
    searched = [{"question": f"Which one is {i}?", "passages": [{"n": i}], "verdict": f"it is {i}"} for i in range(6)]
    with pytest.raises(DataError, match="no column looks like the output"):
        reading_of(searched)


def test_a_column_that_is_no_declared_label_is_told_and_not_taken_for_one() -> None:
    read = RowReader({"input": "text", "output": ("a", "c")}, Answers(labels=Labels(["a", "b"]), several=True))
    assert read(Row("e.csv, row 1", "row-1", {"text": "hello", "a": 1, "c": 0})).output == '["a"]'
    with pytest.raises(WrongLabel, match="c"):
        read(Row("e.csv, row 2", "row-2", {"text": "hello", "a": 1, "c": 1}))
