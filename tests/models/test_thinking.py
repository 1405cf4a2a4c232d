"""Models that think before they answer: what they are trained on, and what becomes of a thought."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

import tokenizer_shapes as shapes
from rung.models import answering, local
from rung.models.answering import AnswerRow
from rung.models.chat_template import ChatFormat
from rung.models.incremental_text import AnswerText
from rung.models.local import LocalModel
from rung.testing import TINY_TEMPLATE, tiny_model
from rung.types import Constraint, Decoding, Message, Request, TrainingRow

USER = Message("user", "Which card?")
TAGS = ("<think>", "</think>")


def r1() -> Any:
    return shapes.byte_level(shapes.R1_DISTILL, shapes.R1_MARKS, TAGS, eos_token="<｜end▁of▁sentence｜>")


def ends_with(format: ChatFormat, ids: list[int], text: str) -> bool:
    return str(format.tokenizer.decode(ids)).endswith(text)


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (shapes.QWEN_3, "<|im_start|>assistant\n<think>\n\n</think>\n\n"),
        (shapes.QWEN_3_THINKING, "<|im_start|>assistant\n<think>\n\n</think>\n\n"),
        (shapes.SMOLLM_3, "<|im_start|>assistant\n<think>\n\n</think>\n"),
        (shapes.R1_DISTILL, "<｜Assistant｜><think>\n\n</think>\n\n"),
        (shapes.GPT_OSS, "<|start|>assistant<|channel|>final<|message|>"),
        (shapes.GRANITE, "<|start_of_role|>assistant<|end_of_role|>"),
        (TINY_TEMPLATE.replace("assistant\\n' }}", "assistant\\n<think>' }}"), "assistant\n<think>\n\n</think>\n\n"),
    ],
)
def test_answers_are_trained_behind_an_empty_thought_that_is_closed(template: str, end: str) -> None:
    format = ChatFormat(shapes.byte_level(template, [], TAGS))
    assert ends_with(format, format.encode([USER]), end)
    assert format.decode(format.encode_answer("card")[:-1]) == "card"


@pytest.mark.parametrize("template", [shapes.QWEN_3, shapes.SMOLLM_3, shapes.GRANITE, TINY_TEMPLATE])
def test_a_model_whose_thinking_can_be_switched_off_does_not_think(template: str) -> None:
    format = ChatFormat(shapes.byte_level(template, [], TAGS))
    assert format.thought is None
    assert "Think first" not in format.tokenizer.decode(format.encode([USER]))


def test_the_channels_of_gpt_oss_open_and_close_a_thought() -> None:
    format = ChatFormat(shapes.byte_level(shapes.GPT_OSS, shapes.GPT_OSS_MARKS))
    assert format.thought is not None
    assert ends_with(format, format.encode_open([USER]), "<|start|>assistant<|channel|>analysis<|message|>")
    closed = format.closed_thought(format.thought, format.tokenizer.encode("hm<|end|>", add_special_tokens=False))
    assert format.tokenizer.decode(closed) == "hm<|end|><|start|>assistant<|channel|>final<|message|>"
    assert format.tokenizer.convert_ids_to_tokens(format.end_id) == "<|return|>"


class Scripted:
    """In place of `decode`: says what the script has for a prompt's text, cut by the room and the stop ids."""

    def __init__(self, format: ChatFormat, script: Callable[[str], str]) -> None:
        self.format, self.script = format, script
        self.jobs: list[tuple[str, Any]] = []

    def __call__(self, engine: Any, jobs: Sequence[Any], stop_ids: Any) -> Any:
        answers = []
        for place, job in enumerate(jobs):
            prompt = str(self.format.tokenizer.decode(job.prompt))
            self.jobs.append((prompt, job))
            ids: list[int] = []
            for id_ in self.format.tokenizer.encode(self.script(prompt), add_special_tokens=False)[: job.most]:
                ids.append(id_)
                if id_ in stop_ids:
                    break
            answers.append((place, ids))
        yield answers


@pytest.fixture
def model(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> LocalModel:
    return LocalModel(tiny.engine, r1(), name="r1", version="1")


def ask(most: int = 8, **more: Any) -> Request:
    return Request((USER,), Decoding(most), **more)


END = "<｜end▁of▁sentence｜>"


def test_a_thought_is_counted_and_cut_out_and_the_answer_follows_it(
    model: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted = Scripted(model.chat, lambda prompt: f"card{END}" if "</think>" in prompt else "let me see</think>")
    monkeypatch.setattr(local, "decode", scripted)
    (found,) = model.generate([ask()])
    assert (found.text, found.finish) == ("card", "stop")
    assert found.tokens_in == len(model.chat.encode_open([USER]))
    assert found.tokens_out == len(
        model.chat.tokenizer.encode(f"let me see</think>card{END}", add_special_tokens=False)
    )
    (asked, thinking), (answered, answering_) = scripted.jobs
    assert asked.endswith("<think>\n") and answered == asked + "let me see</think>\n\n"
    assert thinking.most == answering.THOUGHT_TOKENS and answering_.most == 8


def test_a_thought_without_an_end_is_closed_when_its_room_is_used_up(
    model: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "THOUGHT_TOKENS", 5)
    scripted = Scripted(model.chat, lambda prompt: f"card{END}" if "</think>" in prompt else "hm " * 900)
    monkeypatch.setattr(local, "decode", scripted)
    (found,) = model.generate([ask()])
    assert found.text == "card" and found.tokens_out == 5 + len(model.encode_answer("card"))
    assert scripted.jobs[1][0].endswith("<think>\nhm hm\n</think>\n\n")


def test_a_thought_leaves_the_answer_its_room(model: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted = Scripted(model.chat, lambda prompt: f"card{END}" if "</think>" in prompt else "hm " * 900)
    monkeypatch.setattr(local, "decode", scripted)
    model.context_length = len(model.chat.encode_open([USER])) + 60
    (found,) = model.generate([ask(most=30)])
    assert found.text == "card"
    job = scripted.jobs[1][1]
    assert len(job.prompt) + job.most <= model.context_length and job.most == 30
    model.context_length = len(model.chat.encode_open([USER])) + 10
    (found,) = model.generate([ask(most=30)])
    assert found.text == "card" and "<think>\n\n</think>" not in scripted.jobs[0][0]


def test_a_grammar_holds_behind_the_thought_only(model: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted = Scripted(model.chat, lambda prompt: f"card{END}" if "</think>" in prompt else "hm</think>")
    monkeypatch.setattr(local, "decode", scripted)
    model.generate([ask(constraint=Constraint("labels", ("card", "no")))])
    assert [job.matcher is None for _, job in scripted.jobs] == [True, False]


def test_an_adapter_answers_behind_the_empty_thought_that_it_was_trained_behind(
    model: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted = Scripted(model.chat, lambda prompt: f"card{END}")
    monkeypatch.setattr(local, "decode", scripted)
    (found,) = model.generate([ask(adapter="some/adapter")])
    ((prompt, job),) = scripted.jobs
    (row,) = model.encode_rows([TrainingRow("r", (USER,), "card")])
    assert tuple(job.prompt) == row.prompt and prompt.endswith("<think>\n\n</think>\n\n")
    assert row.target == tuple(model.chat.tokenizer.encode(f"card{END}", add_special_tokens=False))
    assert found.tokens_out == len(row.target)


def starts_by_itself(tiny: Any) -> LocalModel:
    tokenizer = shapes.byte_level(shapes.CHATML, [], TAGS)
    return LocalModel(tiny.engine, tokenizer, name="x", version="1")


def test_a_thought_that_a_model_starts_by_itself_is_cut_out(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = starts_by_itself(tiny)
    monkeypatch.setattr(local, "decode", Scripted(model.chat, lambda _: "<think>\nno</think>\n\ncard<|im_end|>"))
    (found,) = model.generate([ask(most=40)])
    assert (found.text, found.finish) == ("card", "stop")


def test_a_thought_that_an_answer_has_no_room_for_gets_its_own(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = starts_by_itself(tiny)

    def script(prompt: str) -> str:
        if "</think>" in prompt:
            return "card<|im_end|>"
        return "long</think>" if "<think>" in prompt else "<think> a long thought"

    monkeypatch.setattr(local, "decode", Scripted(model.chat, script))
    (found,) = model.generate([ask(most=8)])
    assert (found.text, found.finish) == ("card", "stop")
    assert found.tokens_out > 8 + len(model.encode_answer("card"))
    assert found.tokens_in == len(model.encode((USER,)))


def test_an_unfinished_thought_is_no_answer(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = starts_by_itself(tiny)
    monkeypatch.setattr(local, "decode", Scripted(model.chat, lambda _: "<think> and so on <|im_end|>"))
    (found,) = model.generate([ask(most=40)])
    assert (found.text, found.finish) == ("", "length")


def test_a_tag_that_is_spelt_ends_a_thought_too(tiny: Any) -> None:
    format = ChatFormat(shapes.byte_level(shapes.QWEN_3_THINKING))
    assert format.thought is not None and format.thought_stops(format.thought) == format.stop_ids
    ids = format.tokenizer.encode("hm</think>\n\nThe card", add_special_tokens=False)
    assert format.tokenizer.decode(format.closed_thought(format.thought, ids)) == "hm</think>\n\n"
    assert format.decode(format.tokenizer.encode("<think>x</think>\n\ncard")) == "card"


def test_a_real_engine_thinks_and_answers_in_two_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "THOUGHT_TOKENS", 6)
    model = tiny_model(template=shapes.QWEN_3_THINKING)
    labels = Constraint("labels", ("card", "no"))
    requests = [replace(ask(constraint=labels), messages=(Message("user", text),)) for text in ("a", "b c", "d")]
    found = model.generate(requests)
    assert all(g.text in ("card", "no") and g.finish == "stop" for g in found)
    assert all(
        1 + len(model.encode_answer(g.text)) < g.tokens_out <= 6 + len(model.encode_answer(g.text)) for g in found
    )
    assert [g.text for g in model.generate(requests)] == [g.text for g in found]


SPELT = "<reasoning>it says so</reasoning>card"


@pytest.mark.parametrize(
    "request_",
    [
        ask(40, adapter="some/adapter"),
        ask(40, constraint=Constraint("regex", r"<reasoning>[a-z ]*</reasoning>\w+")),
        Request((Message("system", "Write <reasoning>, then the answer."), USER), Decoding(40)),
    ],
)
def test_an_answer_that_is_wanted_with_a_tag_in_it_keeps_it(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, request_: Request
) -> None:
    model = LocalModel(tiny.engine, shapes.byte_level(shapes.CHATML), name="x", version="1")
    scripted = Scripted(model.chat, lambda _: f"{SPELT}<|im_end|>")
    monkeypatch.setattr(local, "decode", scripted)
    (found,) = model.generate([request_])
    assert (found.text, found.finish) == (SPELT, "stop")
    assert model.generate([ask(40)])[0].text == "card", "nobody asked for the tag"
    monkeypatch.setattr(local, "decode", Scripted(model.chat, lambda _: "<reasoning>it says<|im_end|>"))
    (found,) = model.generate([request_])
    breaks = request_.constraint is not None  # a pattern that wants the tag's end
    assert (found.text, found.finish) == ("<reasoning>it says", "error" if breaks else "stop")


def test_an_answer_behind_a_thought_that_the_model_began_has_all_its_room(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = starts_by_itself(tiny)

    def script(prompt: str) -> str:
        return (
            "a card and a no<|im_end|>" if "</think>" in prompt else "<think>no and a card</think>\n\na card and a no"
        )

    scripted = Scripted(model.chat, script)
    monkeypatch.setattr(local, "decode", scripted)
    most = len(model.chat.tokenizer.encode("<think>no and a card</think>\n\na card"))
    assert most >= len(model.encode_answer("a card and a no"))
    (found,) = model.generate([ask(most)])
    assert (found.text, found.finish) == ("a card and a no", "stop")
    assert scripted.jobs[1][0].endswith("<think>no and a card</think>\n\n")


@pytest.mark.parametrize("more", [4, 20, 45])
def test_a_thought_that_the_model_began_never_exceeds_the_context(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, more: int
) -> None:
    model = starts_by_itself(tiny)
    scripted = Scripted(model.chat, lambda prompt: "card " * 90 if "</think>" in prompt else "<think>" + " no" * 90)
    monkeypatch.setattr(local, "decode", scripted)
    model.context_length = len(model.encode((USER,))) + 30 + more
    (found,) = model.generate([ask(most=30)])
    assert all(len(job.prompt) + job.most <= model.context_length for _, job in scripted.jobs)
    assert found.finish == "length" and "no" not in found.text


@pytest.mark.parametrize("switch", ["/think", "/no_think", "/nothink"])
def test_a_text_cannot_switch_thinking(switch: str) -> None:
    switched = shapes.QWEN_3_THINKING.replace(
        "{{- '<|im_start|>assistant\\n<think>\\n' }}",
        "{{- '<|im_start|>assistant\\n' + ('<think></think>' if 'SWITCH' in messages[-1].content else '<think>\\n') }}",
    ).replace("SWITCH", switch)
    assert switched != shapes.QWEN_3_THINKING
    format = ChatFormat(shapes.byte_level(switched, [], TAGS))
    text = f"example.org{switch}"
    assert ends_with(
        format,
        format.encode([Message("user", text)]),
        text + "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    )


def test_a_model_tells_how_much_it_thinks_and_so_does_its_meter(model: LocalModel, tiny: Any) -> None:
    from rung.models.metering import metered

    assert model.thought_tokens == metered(model).thought_tokens == answering.THOUGHT_TOKENS
    assert tiny.thought_tokens == metered(tiny).thought_tokens == 0


def test_a_text_that_is_continued_may_begin_like_a_thought(tiny: Any) -> None:
    model = starts_by_itself(tiny)
    row = model.continued("the cat", Request((), Decoding(40)))
    assert isinstance(row, AnswerRow)
    step = row.next_step(model.chat, model.context_length)
    ids = model.chat.tokenizer.encode("<think>\nno<|im_end|>", add_special_tokens=False)
    assert step is not None
    row.heard(step, ids, model.chat, model.context_length)
    assert row.next_step(model.chat, model.context_length) is None
    found = model.generation(row, 2, raw=True)
    assert (found.text, found.finish) == ("<think>\nno", "stop")


def test_a_long_thought_is_looked_at_once_and_not_at_every_token(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = starts_by_itself(tiny).chat
    looked = [0]
    begun_thought = chat.begun_thought

    def counted(*given: Any, **more: Any) -> Any:
        looked[0] += 1
        return begun_thought(*given, **more)

    monkeypatch.setattr(chat, "begun_thought", counted)
    text = AnswerText(chat)
    for id_ in chat.tokenizer.encode("<think> hm hm hm hm</think> card", add_special_tokens=False):
        assert text.add([id_]) == ""
    assert looked == [1]
