"""Bodies of requests, replies as endpoints send them, and what their refusals mean."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("httptools")

from rung.models.endpoint.asking import Asker
from rung.models.endpoint.listing import Listed
from rung.models.endpoint.policy import BadReply, Refused
from rung.models.endpoint.protocol import (
    Habits,
    Keys,
    chat_body,
    first_habits,
    most_tokens_in,
    most_tokens_out,
    repeated,
)
from rung.models.endpoint.refusals import error_of_all, learnt, refusal_of, room_told
from rung.models.endpoint.replies import Stream, parse_answer, read_answer, without_thought
from rung.models.endpoint.spec import parse
from rung.types import Constraint, Decoding, Message, Price, Request

SPEC = parse("http://localhost:1/v1#m")


def ask(text: str = "hello", **how: Any) -> Request:
    return Request((Message("user", text),), Decoding(16, **how))


def reply(content: Any = "hi", finish: str = "stop", usage: Any = None, **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    return {"model": "m-1", "choices": [{"message": message, "finish_reason": finish}], "usage": usage, **more}


# ---- requests -------------------------------------------------------------------------------


def test_openai_gets_the_newer_field_first_and_others_the_older() -> None:
    assert first_habits(parse("https://api.openai.com/v1#m")).max_field == "max_completion_tokens"
    assert first_habits(SPEC).max_field == "max_tokens"


def test_an_answer_that_params_bound_is_not_bounded_twice() -> None:
    spec = parse('{"endpoint": "https://api.openai.com/v1", "name": "m", "params": {"max_tokens": 900}}')
    body = chat_body(spec, ask(), first_habits(spec))
    assert body["max_tokens"] == 900 == most_tokens_out(body) and "max_completion_tokens" not in body


def test_a_server_that_penalises_repeats_is_told_not_to() -> None:
    assert chat_body(SPEC, ask(), Habits(), server="llama-cpp-python")["repeat_penalty"] == 1.0
    assert "repeat_penalty" not in chat_body(SPEC, ask(), Habits(), server="vllm")


def test_keys_differ_in_everything_that_decides_an_answer_and_in_nothing_else() -> None:
    keys = Keys(SPEC, None)
    asked = [
        ask(),
        ask("other"),
        Request((Message("system", "hello"),), Decoding(16)),
        Request((Message("user", "hello"),), Decoding(17)),
        ask(temperature=0.5),
        ask(temperature=0.5, seed=1),
        Request((Message("user", "hello"),), Decoding(16), Constraint("labels", ("a", "b"))),
        Request((Message("user", "hello"),), Decoding(16), Constraint("labels", ("b", "a"))),
    ]
    found = [keys.of(request) for request in asked] + [repeated(keys.of(ask()), 1), repeated(keys.of(ask()), 2)]
    assert len(set(found)) == len(found)
    assert keys.of(ask(seed=5)) == keys.of(ask()) == repeated(Keys(SPEC, None).of(ask()), 0)
    assert Keys(parse("http://localhost:2/v1#m"), None).of(ask()) != keys.of(ask())
    assert Keys(SPEC, "llama-cpp-python").of(ask()) != keys.of(ask())


def test_the_most_tokens_of_a_prompt_are_more_than_its_bytes() -> None:
    assert most_tokens_in(chat_body(SPEC, ask("é" * 100), Habits())) > 200


# ---- replies --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usage", "read", "written", "cached", "thought"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}, 9, 4, 0, 0),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 4,
                "prompt_tokens_details": {"cached_tokens": 8},
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            9,
            4,
            8,
            3,
        ),
        ({"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 33}, 9, 24, 0, 20),  # Gemini: thoughts in the sum
        ({"prompt_tokens": 9, "completion_tokens": 4, "prompt_cache_hit_tokens": 5}, 9, 4, 5, 0),  # DeepSeek
        ({"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": None}, 9, 4, 0, 0),
        ({"prompt_tokens": 9, "total_tokens": 33}, 9, 24, 0, 24),  # Gemini, when a thought used up the room
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, None, 0, 0, 0),
        ({"prompt_tokens": float("inf"), "completion_tokens": -1}, None, None, 0, 0),
        (None, None, None, 0, 0),
        ({"prompt_tokens": "9", "completion_tokens": True}, None, None, 0, 0),
    ],
)
def test_usage_is_read_as_each_provider_tells_it(
    usage: Any, read: int | None, written: int | None, cached: int, thought: int
) -> None:
    answer = read_answer(reply(usage=usage))
    assert (answer.tokens_in, answer.tokens_out) == (read, written)
    assert (answer.tokens_cached, answer.tokens_thought) == (cached, thought)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", BadReply),
        (b"<html>", BadReply),
        (b"[]", BadReply),
        (b"{}", BadReply),
        (b'{"choices": []}', BadReply),
        (b'{"choices": [{"message": null}]}', BadReply),
        (json.dumps(reply(finish="error")).encode(), BadReply),
        (json.dumps(reply(content=3)).encode(), BadReply),
        (b'{"error": {"code": 502, "message": "upstream"}}', BadReply),
        (b'{"error": {"code": 402, "message": "no credits"}}', Refused),
        (b'{"error": {"code": "400", "message": "bad"}}', Refused),
        (b'{"error": "Unexpected endpoint or method. (POST /chat/completions)"}', Refused),  # LM Studio
    ],
)
def test_a_good_status_with_a_bad_body_is_no_answer(body: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        parse_answer(body)


def test_content_may_come_in_parts_or_be_a_refusal() -> None:
    assert read_answer(reply([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])).text == "ab"
    refused = reply(None)
    refused["choices"][0]["message"]["refusal"] = "I cannot."
    assert read_answer(refused).text == "I cannot."
    assert read_answer(reply(finish="content_filter")).finish == "filter"
    assert read_answer(reply(finish="content_filter: PROHIBITED_CONTENT")).finish == "filter"
    assert (
        read_answer(reply(finish="MAX_TOKENS")).finish == read_answer(reply(finish="model_length")).finish == "length"
    )


@pytest.mark.parametrize(
    ("text", "left", "open_"),
    [
        ("plain", "plain", False),
        ("<think>\nhm\n</think>\n\nyes", "yes", False),
        ("hm\n</think>\n\nyes", "yes", False),
        ("\n<think>hm", "", True),
        ("a <think> tag in the middle", "a <think> tag in the middle", False),
    ],
)
def test_a_thought_is_cut_out_of_a_text(text: str, left: str, open_: bool) -> None:
    assert without_thought(text) == (left, open_)


def test_a_thought_is_left_where_the_prompt_asks_for_its_tags() -> None:
    assert read_answer(reply("<reasoning>x</reasoning>y"), tags_wanted=True).text == "<reasoning>x</reasoning>y"


def test_an_answer_that_a_thought_left_no_room_for_needs_some() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 16, "completion_tokens_details": {"reasoning_tokens": 16}}
    assert read_answer(reply("", "length", usage)).needs_room
    assert read_answer(reply("<think>hm", "length")).needs_room
    beside = reply("", "length", {"prompt_tokens": 1, "completion_tokens": 16})  # Ollama, vLLM: no reasoning_tokens
    beside["choices"][0]["message"]["reasoning"] = "The user asks"
    assert read_answer(beside).needs_room
    assert not read_answer(reply("half an ans", "length")).needs_room
    assert not read_answer(reply("", "stop", usage)).needs_room


# ---- streams --------------------------------------------------------------------------------


def events(*chunks: Any) -> bytes:
    return b"".join(b"data: " + (c if isinstance(c, bytes) else json.dumps(c).encode()) + b"\n\n" for c in chunks)


def delta(text: str | None = None, finish: str | None = None) -> dict[str, Any]:
    return {"model": "m-1", "choices": [{"delta": {"content": text}, "finish_reason": finish}]}


def test_a_stream_is_read_whole_however_it_is_cut() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    sent = b": ping\n\n" + events(
        delta(""), delta("é"), delta("b"), delta(None, "stop"), {"choices": [], "usage": usage}
    )
    sent += events(b"[DONE]")
    for size in (1, 7, len(sent)):
        stream = Stream()
        for place, at in enumerate(range(0, len(sent), size)):
            stream.feed(sent[at : at + size], float(place + 1))
        answer = read_answer(stream.record)
        assert (answer.text, answer.finish, answer.tokens_out, answer.model) == ("éb", "stop", 2, "m-1")
        assert stream.first_token_s is not None and (size == len(sent) or stream.first_token_s > 1.0)


def test_a_stream_of_a_thought_alone_needs_room_and_one_in_parts_or_of_another_shape_is_read() -> None:
    thought = {"choices": [{"delta": {"reasoning_content": "hm"}, "finish_reason": "length"}]}
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "ab"}]
    in_parts = {"choices": [{"delta": {"content": parts}, "finish_reason": "stop"}]}  # Mistral
    odd: list[Any] = [{"choices": 3}, {"choices": [None, {"delta": "x"}]}]
    streams = [Stream(), Stream(), Stream()]
    for stream, chunks in zip(streams, ([thought], [in_parts], [*odd, in_parts]), strict=True):
        stream.feed(events(*chunks, b"[DONE]"), 0.1)
        assert stream.first_token_s == 0.1
    assert read_answer(streams[0].record).needs_room
    assert read_answer(streams[1].record).text == read_answer(streams[2].record).text == "ab"


def test_what_an_endpoint_says_to_have_charged_counts_with_the_users_own_account_behind_it() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "cost": 0.25, "cost_details": {"upstream_inference_cost": 1.5}}
    assert read_answer(reply(usage=usage)).usd == 0.25
    assert read_answer(reply(usage={**usage, "is_byok": True})).usd == 1.75
    assert read_answer(reply(usage={**usage, "cost": -1})).usd is None


def test_tokens_written_into_a_cache_have_a_price_of_their_own() -> None:
    details = {"cached_tokens": 20, "cache_write_tokens": 30}
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "prompt_tokens_details": details}
    answered = read_answer(reply(usage=usage))
    assert (answered.tokens_cached, answered.tokens_cache_written) == (20, 30)
    price = Price(usd_per_million_in=1e6, usd_per_million_out=2e6, usd_per_million_cached=1e5)
    assert Asker.usd_at(price, answered) == pytest.approx(80 + 2 + 20)
    dearer = replace(price, usd_per_million_cache_written=1.25e6)
    assert Asker.usd_at(dearer, answered) == pytest.approx(50 + 2 + 37.5 + 20)


@pytest.mark.parametrize(
    "sent", [b"", events(delta("a")), events(delta("a"), b"{half"), events({"error": {"message": "overloaded"}})]
)
def test_a_stream_that_breaks_off_is_no_answer(sent: bytes) -> None:
    stream = Stream()
    stream.feed(sent, 0.1)
    with pytest.raises(BadReply):
        read_answer(stream.record)


# ---- refusals -------------------------------------------------------------------------------


def error(message: str, **more: Any) -> str:
    return json.dumps({"error": {"message": message, **more}})


@pytest.mark.parametrize(
    ("status", "detail", "cause"),
    [
        (401, error("Incorrect API key provided", code="invalid_api_key"), "key"),
        (403, "<html>Forbidden</html>", "key"),
        (400, json.dumps([{"error": {"message": "API key not valid. Please pass a valid API key."}}]), "key"),
        (404, error("The model `x` does not exist", code="model_not_found"), "model"),
        (404, '{"detail":"Not Found"}', "model"),
        (429, error("You exceeded your current quota", code="insufficient_quota"), "quota"),
        (402, error("Insufficient Balance"), "quota"),
        (400, error("This model's maximum context length is 8192 tokens.", code="context_length_exceeded"), "context"),
        (400, error("request (900 tokens) exceeds the available context size (512 tokens)"), "context"),
        (400, error("prompt is too long: 210000 tokens > 200000 maximum"), "context"),
        (
            400,
            error("The input token count (1200293) exceeds the maximum number of tokens allowed (1048576)."),
            "context",
        ),
        (400, error("input length and `max_tokens` exceed context limit: 178959 + 64000 > 200000"), "context"),
        (
            422,
            error("`inputs` tokens + `max_new_tokens` must be <= 4097. Given: 80125 `inputs` tokens and 9"),
            "context",
        ),
        (400, error("Please reduce the length of the messages or completion."), "context"),
        (413, "<html>413 Request Entity Too Large</html>", "context"),
        (429, error("Request too large for gpt-5 on tokens per min (TPM): Limit 30000, Requested 34238."), "context"),
        (400, error("Your credit balance is too low to access the Anthropic API."), "quota"),
        (400, error("You have reached your specified API usage limits. You will regain access on 2026-12-01"), "quota"),
        (400, error("Invalid model: mistral-larg", type="invalid_model"), "model"),
        (400, error("Model Not Exist"), "model"),
        (400, error("gpt-9 is not a valid model ID"), "model"),
        (400, error("Provider returned error", metadata={"raw": error("prompt is too long: 9 > 8")}), "context"),
        (403, error("The model requires moderation. Your input was flagged", code=403), "filter"),
        (400, error("The response was filtered", code="content_filter"), "filter"),
        (302, "The endpoint sends on to https://x. Name that address, if you trust it.", "address"),
        (400, error("Unknown name reasoning_effort"), "request"),
        (422, '{"detail":[{"loc":["body","top_k"],"msg":"wrong","input":{"temperature":0}}]}', "request"),
    ],
)
def test_the_cause_of_a_refusal_is_known_by_its_status_and_words(status: int, detail: str, cause: str) -> None:
    assert refusal_of(status, detail).cause == cause


@pytest.mark.parametrize(
    ("message", "param", "changed"),
    [
        (
            "Unsupported parameter: 'max_tokens' is not supported here. Use 'max_completion_tokens' instead.",
            "max_tokens",
            {"max_field": "max_completion_tokens"},
        ),
        ("Unsupported value: 'temperature' does not support 0 with this model.", "temperature", {"temperature": False}),
        ("seed: Extra inputs are not permitted", None, {"seed": False}),
        ("Unrecognized request argument supplied: stream_options", None, {"stream_usage": False}),
        ("Could not finish the message because max_tokens or model output limit was reached.", None, {"thinks": True}),
        ("max_tokens is too large: 100000. This model supports at most 4096", None, None),
        ("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]", None, None),
        ("`temperature` is deprecated for this model.", None, {"temperature": False}),
        ("Unsupported value: top_k", None, None),
    ],
)
def test_a_refusal_teaches_which_fields_an_endpoint_takes(message: str, param: Any, changed: Any) -> None:
    body = chat_body(SPEC, ask(temperature=0.5), Habits(), stream=True)
    found = learnt(Habits(), body, refusal_of(400, error(message, param=param)))
    assert found == (None if changed is None else Habits(**changed))


def test_the_words_of_a_provider_behind_a_gateway_are_heard() -> None:
    raw = error("Unsupported parameter: use 'max_completion_tokens' instead.", param="max_tokens")
    refusal = refusal_of(400, error("Provider returned error", code=400, metadata={"raw": raw, "provider_name": "x"}))
    assert "Provider returned error: Unsupported parameter" in refusal.said and refusal.param == "max_tokens"
    plain = error("Provider returned error", metadata={"raw": "upstream is full"})
    assert refusal_of(400, plain).said == "Provider returned error: upstream is full"


def test_mistrals_list_of_faults_is_read_without_the_input_that_it_repeats() -> None:
    part = {
        "type": "extra_forbidden",
        "loc": ["body", "seed"],
        "msg": "Extra inputs are not permitted",
        "input": {"t": 1},
    }
    refusal = refusal_of(422, json.dumps({"object": "error", "message": {"detail": [part]}, "code": 422}))
    assert refusal.said == "body.seed: Extra inputs are not permitted"
    assert learnt(Habits(), chat_body(SPEC, ask(temperature=0.5), Habits()), refusal) == Habits(seed=False)


def test_a_key_of_a_schema_that_is_called_like_a_field_teaches_nothing() -> None:
    said = "Invalid schema for response_format 'answer': In context=('properties', 'temperature'), not permitted."
    refusal = refusal_of(400, error(said, param="response_format"))
    assert learnt(Habits(), chat_body(SPEC, ask(temperature=0.5), Habits()), refusal) is None


def test_an_unknown_deployment_is_not_told_as_one_of_the_models_that_azure_lists() -> None:
    azure = parse("https://mine.openai.azure.com/openai/v1#mine")
    refusal = refusal_of(404, error("The API deployment for this resource does not exist.", code="DeploymentNotFound"))
    listed = Listed(("gpt-5", "gpt-5-mini"))
    assert "does not exist" in str(error_of_all(refusal, 404, azure, listed))
    assert "It has gpt-5" in str(error_of_all(refusal, 404, parse("http://localhost:1/v1#gpt-5-min"), listed))
    assert "does not exist" in str(error_of_all(refusal, 404, parse("http://localhost:1/v1#models/gpt-5"), listed))


def test_what_an_error_repeats_of_the_input_teaches_nothing() -> None:
    detail = '{"detail":[{"loc":["body","top_k"],"msg":"not permitted","input":{"temperature":0,"max_tokens":1}}]}'
    assert learnt(Habits(), chat_body(SPEC, ask(), Habits()), refusal_of(422, detail)) is None


@pytest.mark.parametrize(
    ("said", "room"),
    [
        ("maximum context length is 50 tokens. However, you requested 30 output tokens; your prompt contains 40 input "
         "tokens.", 10),
        ("maximum context length is 50 tokens. However, your messages resulted in 60 tokens", None),
        ("maximum context length is 50 tokens, you requested 80 (60 in the messages, 20 in the completion)", None),
        ("input length and `max_tokens` exceed context limit: 178959 + 64000 > 200000, decrease", 21041),
        ("`inputs` tokens + `max_new_tokens` must be <= 100. Given: 80 `inputs` tokens and 40 `max_new_tokens`", 20),
        ("too long", None),
    ],
)  # fmt: skip
def test_the_room_that_is_left_is_read_from_a_refusal(said: str, room: int | None) -> None:
    assert room_told(said) == room
