"""Synthetic rows: what is written, what is left out and why, what it costs; against a teacher with planted faults."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rung.errors import NoGain, RunError
from rung.evaluation.metrics import METRICS
from rung.evaluation.scorer import Scorer
from rung.records import read_lines
from rung.retrieval.library import Library
from rung.teaching.answering import VOTES, Voted
from rung.teaching.synthesis import Counts, Kind, SynthesisOptions, counts_of, kinds_for, synthesise
from rung.teaching.synthesis.aims import Aim, aims_of, in_turns, spread
from rung.teaching.synthesis.drafts import DraftInput, _orders, samples_of_requests
from rung.teaching.synthesis.filters import ALIKE, COPY, LEFT_OVER, LONG, NEAR_TRAIN, REFUSAL, SEALED, SHORT, usable
from rung.teaching.synthesis.pipeline import IN_PASSAGES, NOT_IN_PASSAGE, OTHER_MEANING, OTHERWISE, _answer
from rung.teaching.synthesis.prompts import inputs_in
from rung.teaching.synthesis.rows import SyntheticRow, example_of
from rung.trials.workshop import Workshop
from rung.types import Document, Example, Message, Query, Request
from synthetic_cases import COLOURS, THINGS, asked_of, colour_of, is_writing, new_text, scripted, shop_of, train_rows

BOTH: tuple[Kind, ...] = ("new", "paraphrase")


def counts(rows: int = 20, kinds: tuple[Kind, ...] = BOTH) -> Counts:
    return counts_of(rows, kinds, 30, forms=True)


def drafted(*texts: str, context: str | None = None) -> list[DraftInput]:
    return [DraftInput(Query(f"d{i}", t, context), "new", None, "p", (), 0.0) for i, t in enumerate(texts)]


# ---- the whole way --------------------------------------------------------------------------


def test_rows_come_with_their_origin_and_right_answers(tmp_path: Path) -> None:
    shop = shop_of(scripted(), tmp_path)
    found = synthesise(shop, counts())
    assert len(found.rows) == 20 and found.by_kind == {"new": 12, "paraphrase": 8}
    for row in found.rows:
        record = row.record
        assert record["output"] == colour_of(record["input"]) and record["review"] is None
        origin = record["origin"]
        assert origin["kind"] in BOTH and origin["teacher"] == "scripted" and origin["asked"] == VOTES
        assert origin["votes"] == {record["output"]: VOTES}
        assert set(origin["from"]) <= {e.id for e in shop.inputs.train} and origin["from"]
    prompts = {line["prompt"] for line in read_lines(tmp_path / "prompts.jsonl")}
    assert {row.origin["prompt"] for row in found.rows} <= prompts


def test_a_row_that_is_read_back_from_its_line_is_the_same() -> None:
    plain = Example("syn-new-1", "who built it", "brothers", ("brothers",), row="synthetic syn-new-1")
    whole = replace(
        plain,
        references=("brothers", "three brothers"),
        context="the old mill",
        gold_ids=("d1#2",),
        instruction="Answer.",
        turns=(Message("user", "hello"), Message("assistant", "good day")),
    )
    for example in (plain, whole, replace(whole, gold_found=True)):
        record = SyntheticRow(example, {"kind": "new"}).record
        assert example_of(json.loads(json.dumps(record))) == example


def test_the_calls_are_those_of_the_plan_and_a_second_time_nothing_is_asked(tmp_path: Path) -> None:
    teacher = scripted()
    found = synthesise(shop_of(teacher, tmp_path), counts())
    assert len(teacher.requests) == found.calls == counts().calls
    again = scripted()
    assert synthesise(shop_of(again, tmp_path), counts()).rows == found.rows
    assert again.requests == []


def test_a_synthesis_that_is_killed_goes_on_and_asks_nothing_twice(tmp_path: Path) -> None:
    whole = synthesise(shop_of(scripted(), tmp_path / "whole"), counts())

    class Stop(Exception):
        pass

    asked: list[Request] = []
    left = 400
    for _ in range(20):
        teacher = scripted()
        teacher.block = 10  # type: ignore[attr-defined]
        answer, done = teacher.generate, 0

        def generate(requests: list[Request]) -> object:
            nonlocal done
            if done >= 3:
                raise Stop
            done += 1
            asked.extend(requests)
            return answer(requests)  # noqa: B023

        teacher.generate = generate  # type: ignore[method-assign, assignment]
        try:
            found = synthesise(shop_of(teacher, tmp_path / "cut"), counts())
            break
        except Stop:
            left -= 1
    assert left < 400 and found.rows == whole.rows
    assert len(asked) == len(set(map(repr, asked)))


def test_a_teacher_below_the_bar_writes_nothing_and_the_number_is_said(tmp_path: Path) -> None:
    teacher = scripted(lambda text, request: "red")
    with pytest.raises(NoGain, match=r"scripted scores 0\.\d\d on \d+ of 15 known train rows .* 0\.60 is the least"):
        synthesise(shop_of(teacher, tmp_path), counts())
    assert not any(map(is_writing, teacher.requests))


def test_known_rows_are_not_shown_as_demos_while_they_are_measured(tmp_path: Path) -> None:
    teacher = scripted()
    shop = shop_of(teacher, tmp_path)
    synthesise(shop, counts())
    held = {asked_of(r) for r in teacher.requests[: counts().measured]}
    shown = {m.content for r in teacher.requests[: counts().measured] for m in r.messages[1:-1]}
    assert len(held) == counts().known and not held & shown


def test_what_nearly_repeats_a_known_row_is_no_demo_while_it_is_measured(tmp_path: Path) -> None:
    teacher = scripted()
    groups = {e.id: f"g{place // 2}" for place, e in enumerate(train_rows())}
    shop = shop_of(teacher, tmp_path, groups=groups)
    synthesise(shop, counts())
    group_of = {e.input: groups[e.id] for e in shop.inputs.train}
    measured = teacher.requests[: counts().measured]
    held = {group_of[asked_of(r)] for r in measured}
    shown = [group_of[m.content] for r in measured for m in r.messages[1:-1] if m.role == "user"]
    assert shown and not held & set(shown)


def test_where_every_row_is_alike_no_demos_are_shown(tmp_path: Path) -> None:
    shop = shop_of(scripted(), tmp_path, groups={e.id: "g" for e in train_rows()})
    assert synthesise(shop, counts(6)).rows


def test_without_a_fence_nothing_is_written(tmp_path: Path) -> None:
    shop = shop_of(scripted(), tmp_path)
    with pytest.raises(RunError, match="fence"):
        synthesise(replace(shop, inputs=replace(shop.inputs, fence=None)), counts())


# ---- votes ----------------------------------------------------------------------------------


def test_rows_whose_samples_differ_or_break_the_form_or_refuse_are_left_out(tmp_path: Path) -> None:
    known = {e.input for e in train_rows()}

    def answers(text: str, request: Request) -> str:
        if text in known:
            return colour_of(text)
        first = text.split()[0]
        if first < "d":  # a different one each time
            return COLOURS[request.decoding.seed % 3]
        if first < "h":
            return "purple"
        return "I'm sorry, but I cannot answer." if first < "m" else colour_of(text)

    found = synthesise(shop_of(scripted(answers), tmp_path), counts())
    assert found.rejected["no majority"] > 0
    assert found.rejected["outside the labels"] > 0
    assert all(row.example.input.split()[0] >= "m" for row in found.rows)


def test_an_input_that_is_answered_otherwise_than_it_was_written_for_is_left_out(tmp_path: Path) -> None:
    def writes(request: Request) -> str:
        return json.dumps({"inputs": [new_text(request.decoding.seed * 10 + i) for i in range(5)]})  # of any colour

    found = synthesise(shop_of(scripted(writes=writes), tmp_path), counts())
    assert found.rejected[OTHERWISE] > 0 and found.rejected[OTHER_MEANING] > 0
    assert all(row.example.output == colour_of(row.example.input) for row in found.rows)
    left_out = read_lines(tmp_path / "rejected.jsonl")
    assert {line["why"] for line in left_out} >= {OTHERWISE, OTHER_MEANING}


def test_a_paraphrase_keeps_the_references_and_gold_passages_of_its_row(tmp_path: Path) -> None:
    train = tuple(
        Example(e.id, e.input, e.output, (e.output, f"the {e.output}"), gold_ids=("p1",), gold_found=i % 2 == 0)
        for i, e in enumerate(train_rows())
    )
    found = synthesise(shop_of(scripted(), tmp_path, train=train), counts(10, ("paraphrase",)))
    for row in found.rows:
        (source,) = [e for e in train if e.id == row.origin["from"][0]]
        assert row.example.references == source.references and row.example.gold_ids == ("p1",)
        assert row.example.gold_found == source.gold_found


def test_what_is_wrong_on_dev_gets_more_new_inputs() -> None:
    shop = shop_of(scripted(), Path("nowhere"))
    aims = aims_of(shop.inputs.task, shop.inputs.train, {"green": 9, "red": 1}, 0)
    assert aims[0].answer == "green"


def test_labels_that_agree_in_part_are_not_the_same(tmp_path: Path) -> None:
    """F1 of two labels against three is 0.8."""
    shop = shop_of(scripted(), tmp_path, labels=("a", "b", "c"))
    draft = DraftInput(Query("d", "x"), "new", '["a", "b"]', "p", (), 0.0)
    voted = Voted(draft.query, '["a", "b", "c"]', 1.0)
    assert _answer(draft, voted, Scorer(METRICS["label_set_f1"]), shop.inputs.task) == (None, OTHERWISE)


def test_an_empty_answer_is_not_said_in_a_request_for_other_words(tmp_path: Path) -> None:
    train = tuple(replace(e, output="", references=("",)) for e in train_rows())
    shop = shop_of(scripted(), tmp_path, labels=None, train=train)
    (request,) = samples_of_requests(shop.inputs, scripted(), counts(3, ("paraphrase",)), 0)
    assert "and its right answer stays the same." in asked_of(request)


# ---- from documents -------------------------------------------------------------------------

PASSAGES = tuple(Document(f"p{i}", f"The {thing} is {colour}.") for i, (thing, colour) in enumerate(THINGS.items()))


def with_documents(answers: object, folder: Path) -> Workshop:
    def writes(request: Request) -> str:
        asked = asked_of(request)
        about = colour_of(asked.split("Passage:\n")[1].split("\n\n")[0])
        texts = [new_text(request.decoding.seed * 10 + i, about) for i in range(3)]
        return json.dumps(
            {"inputs": [t.replace(t.split()[-1], "ghost") if "sound as if" in asked else t for t in texts]}
        )

    return shop_of(
        scripted(answers, writes),  # type: ignore[arg-type]
        folder,
        labels=None,
        abstain="unknown",
        library=Library(PASSAGES),
    )


def reads_passages(text: str, request: Request) -> str:
    question = text.splitlines()[-1]
    return "unknown" if "ghost" in question else colour_of(question)


def test_questions_about_documents_name_their_passage_and_some_have_no_answer(tmp_path: Path) -> None:
    shop = with_documents(reads_passages, tmp_path)
    found = synthesise(shop, counts(18, ("document", "unanswerable")))
    assert found.by_kind == {"document": 15, "unanswerable": 3}
    for row in found.rows:
        if row.kind == "document":
            (passage,) = [p for p in PASSAGES if p.id in row.example.gold_ids]
            assert row.example.output == colour_of(row.example.input) in passage.text
        else:
            assert row.example.output == "unknown" and row.example.gold_ids == ()


def test_a_question_that_its_passage_does_not_answer_is_left_out_and_one_that_passages_answer_is_answerable(
    tmp_path: Path,
) -> None:
    def contrary(text: str, request: Request) -> str:
        question = text.splitlines()[-1]
        known = question.startswith("what about")
        return colour_of(question) if known or "ghost" in question else "unknown"

    found = synthesise(with_documents(contrary, tmp_path), counts(18, ("document", "unanswerable")))
    assert found.rows == () and found.rejected[NOT_IN_PASSAGE] > 0 and found.rejected[IN_PASSAGES] > 0


def test_documents_that_no_train_row_marks_come_first_also_where_they_are_cut_into_passages(tmp_path: Path) -> None:
    passages = tuple(Document(f"{name}#{n}", f"{name} {n}") for name in ("a", "b") for n in (1, 2, 3))
    train = tuple(replace(e, gold_ids=("a",)) for e in train_rows())
    shop = shop_of(scripted(), tmp_path, labels=None, train=train, library=Library(passages))
    orders = list(_orders(shop.inputs, "document", 3, {}, 0, 1_000))
    assert {order.sources[0] for order in orders} == {"b#1", "b#2", "b#3"}


def test_the_kinds_of_a_task_follow_from_its_documents_and_its_word_for_no_answer() -> None:
    assert kinds_for(documents=False, abstains=False) == ("new", "paraphrase")
    assert kinds_for(documents=True, abstains=True) == ("new", "paraphrase", "document", "unanswerable")


# ---- filters --------------------------------------------------------------------------------


def test_planted_neighbours_of_sealed_rows_are_found_and_not_written_down(tmp_path: Path) -> None:
    sealed = (Example("s", "my brother painted a very large boat beside the old mill pond", "green", ("green",)),)
    near = "My brother painted a very large boat, beside the old mill pond!"

    def writes(request: Request) -> str:
        texts = [near, *(new_text(request.decoding.seed * 10 + i, "green") for i in range(2))]
        return json.dumps({"inputs": texts})

    found = synthesise(shop_of(scripted(writes=writes), tmp_path, sealed=sealed), counts())
    assert found.rejected[SEALED] >= 1
    assert not any("mill pond" in row.example.input for row in found.rows)
    assert "mill pond" not in (tmp_path / "rejected.jsonl").read_text()


def test_each_filter_finds_what_it_is_for() -> None:
    train = train_rows()
    fence = shop_of(scripted(), Path("nowhere")).inputs.fence
    assert fence is not None
    texts = [
        train[0].input.upper(),
        train[1].input + " really",
        "copper morning {{name}} door",
        "As an AI language model I cannot invent such things",
        "long " * 400,
        "velvet river summer dinner boat",
        "velvet river summer dinner boat!",
        "castle pocket engine lamp",
        "),2,",
    ]
    kept, why, left_out = usable(drafted(*texts), train, fence)
    assert [d.query.input for d in kept] == [texts[5], texts[7]]
    found = {draft.query.input: reason for draft, reason in left_out}
    assert found[texts[0]] == COPY and found[texts[2]] == LEFT_OVER and found[texts[3]] == REFUSAL
    assert found[texts[1]] == NEAR_TRAIN and found[texts[4]] == LONG and found[texts[6]] == ALIKE
    assert found[texts[8]] == SHORT and sum(why.values()) == 7


@pytest.mark.parametrize("left", ["[CUSTOMER NAME]", "[COMPANY_NAME]", "TBD", "${order}", "<enter a colour>"])
def test_what_the_check_of_rows_takes_for_a_placeholder_is_one_in_a_new_input_too(left: str) -> None:
    train = train_rows()
    fence = shop_of(scripted(), Path("nowhere"), train=train).inputs.fence
    assert fence is not None
    kept, _, left_out = usable(drafted(f"please paint the castle of {left} anew"), train, fence)
    assert not kept and [reason for _, reason in left_out] == [LEFT_OVER]


def test_signs_of_a_template_are_no_fault_where_train_has_them_too() -> None:
    train = (*train_rows(), Example("x", "where is order {{Order Number}} now", "red", ("red",)))
    fence = shop_of(scripted(), Path("nowhere"), train=train).inputs.fence
    assert fence is not None
    kept, _, _ = usable(drafted("please cancel {{Order Number}} from the castle"), train, fence)
    assert len(kept) == 1


def test_new_questions_about_the_context_of_a_train_row_are_kept() -> None:
    context = "The old mill was built by three brothers in the year of the flood, and painted by their sister. " * 4
    train = (*train_rows(), Example("c", "who built it", "brothers", ("brothers",), context=context))
    fence = shop_of(scripted(), Path("nowhere"), train=train).inputs.fence
    assert fence is not None
    kept, _, left_out = usable(
        drafted("who painted it", "Who built it?", "who painted it", context=context), train, fence
    )
    assert [d.query.input for d in kept] == ["who painted it"]
    assert {reason for _, reason in left_out} <= {COPY, ALIKE, NEAR_TRAIN}


# ---- numbers and words ----------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 7, 100, 501])
@pytest.mark.parametrize("kinds", [BOTH, ("document", "unanswerable"), ("paraphrase",)])
def test_the_kinds_add_up_to_the_rows_that_are_wanted(rows: int, kinds: tuple[Kind, ...]) -> None:
    asked = counts_of(rows, kinds, 40, forms=True)
    assert asked.rows == rows and asked.voted >= rows
    assert asked.calls == asked.measured + asked.written + VOTES * asked.voted


def test_requests_are_spread_by_weight_and_come_in_turns() -> None:
    aims = [Aim("a", (), 3.0), Aim("b", (), 1.0), Aim("c", (), 1.0)]
    assert spread(10, aims) == [6, 2, 2] and spread(1, aims) == [1, 0, 0] and spread(3, []) == []
    assert in_turns([2, 0, 1]) == [0, 2, 0]


def test_a_rare_label_and_one_without_any_row_get_more_than_a_common_one() -> None:
    shop = shop_of(scripted(), Path("nowhere"), labels=(*COLOURS, "violet"))
    train = tuple(e for e in shop.inputs.train if e.output != "blue" or e.id in ("e2", "e5", "e8", "e11"))
    weights = {aim.answer: aim.weight for aim in aims_of(shop.inputs.task, train, {}, 0)}
    assert weights["violet"] > weights["blue"] > weights["red"]


def test_free_answers_are_aimed_at_by_clusters_of_inputs() -> None:
    shop = shop_of(scripted(), Path("nowhere"), labels=None)
    aims = aims_of(shop.inputs.task, shop.inputs.train, {}, 0)
    assert len(aims) > 1 and all(aim.answer is None for aim in aims)
    assert sorted(e.id for aim in aims for e in aim.rows) == sorted(e.id for e in shop.inputs.train)


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ('{"inputs": ["a b", " c "]}', ["a b", "c"]),
        ('```json\n{"inputs": ["a"]}\n```', ["a"]),
        ('["a", ""]', ["a"]),
        ('{"inputs": [{"input": "a"}]}', ["a"]),
        ('{"inputs": ["first one", "second", "cut of', ["first one", "second"]),
        ("Here are some:\n1. one\n2) two\n- three", ["one", "two", "three"]),
        ("I'm sorry, but I cannot help with that.", []),
        ('{"inputs": ["half \\ud83d of it", "\\ud83d\\ude00"]}', ["half \ufffd of it", "\U0001f600"]),
        ("", []),
    ],
)
def test_inputs_are_read_from_replies_of_many_forms(reply: str, found: list[str]) -> None:
    assert inputs_in(reply) == found


def test_another_seed_writes_other_rows(tmp_path: Path) -> None:
    one = synthesise(shop_of(scripted(), tmp_path / "a"), counts(), SynthesisOptions(seed=0))
    two = synthesise(shop_of(scripted(), tmp_path / "b"), counts(), SynthesisOptions(seed=1))
    assert not {r.example.id for r in one.rows} & {r.example.id for r in two.rows}
