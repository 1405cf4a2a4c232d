"""A model behind an endpoint: what is asked, what is kept, what it costs, and what a user is told."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from rung.errors import NO_REPLY, BudgetSpent, ConstraintError, ModelError, about_its_prompt, may_pass
from rung.models import model_version, next_larger, open_model, remark_of
from rung.models.endpoint.endpoint import Endpoint
from rung.models.endpoint.spec import parse
from rung.models.endpoint.transport import Reply, Transport
from rung.models.purse import Purse
from rung.testing import FakeEndpoint
from rung.types import Constraint, Decoding, Measured, Message, Price, Request

pytest.importorskip("httptools")

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CLOSED = {**SCHEMA, "additionalProperties": False}
Open = Callable[..., Endpoint]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Opens a model at a fake endpoint, with a call cache of this test; all are closed at its end."""
    models: list[Endpoint] = []

    def open_at(endpoint: FakeEndpoint, folder: str = "cache", **more: Any) -> Endpoint:
        more = {"timeout": 20, **more}
        for model in models:
            model._cache.flush()  # each open cache writes by itself, a moment later
        models.append(Endpoint(parse(endpoint.spec(**more)), folder=tmp_path / folder))
        return models[-1]

    yield open_at
    for model in models:
        model.close()


def ask(text: str, constraint: Constraint | None = None, tokens: int = 16, **how: Any) -> Request:
    return Request((Message("user", text),), Decoding(tokens, **how), constraint)


def bodies(endpoint: FakeEndpoint) -> list[dict[str, Any]]:
    return [call.body for call in endpoint.calls]


# ---- answers and what is kept of them -------------------------------------------------------


def test_half_of_a_surrogate_pair_in_an_answer_is_no_character(opened: Open) -> None:
    with FakeEndpoint(lambda messages, body: "half \ud83d of it") as endpoint:
        (answer,) = opened(endpoint).generate([ask("x")])
    assert answer.text == "half \ufffd of it"


def test_answers_come_in_order_and_a_second_time_from_the_cache(opened: Open) -> None:
    requests = [ask(f"question {i}") for i in range(300)]
    with FakeEndpoint(latency_s=0.002) as endpoint:
        first = opened(endpoint).generate(requests)
        again = opened(endpoint).generate(requests)
        assert len(endpoint.calls) == 300
    assert [g.text for g in first] == [f"question {i}" for i in range(300)] == [g.text for g in again]
    assert {g.usd for g in first} == {None} and {g.usd for g in again} == {0.0}
    assert [g.latency_s for g in again] == [g.latency_s for g in first] and first[0].latency_s > 0


def test_equal_requests_of_one_call_are_answers_of_their_own(opened: Open) -> None:
    requests = [ask("same", temperature=1.0, seed=3)] * 5
    with FakeEndpoint() as endpoint:
        model = opened(endpoint)
        model.generate(requests)
        assert len(endpoint.calls) == 5
        model.generate(requests[:3])
        assert len(endpoint.calls) == 5
        model.generate([ask("same", temperature=1.0, seed=4)])
        assert len(endpoint.calls) == 6
        assert [body["seed"] for body in bodies(endpoint)] == [3] * 5 + [4]


def test_a_body_is_greedy_without_a_seed_and_has_the_params(opened: Open) -> None:
    with FakeEndpoint() as endpoint:
        opened(endpoint, params={"top_k": 1}).generate([ask("hello", seed=7)])
        (body,) = bodies(endpoint)
    assert body == {
        "model": "fake-1",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 16,
        "temperature": 0.0,
        "top_k": 1,
    }


def test_answers_are_not_shared_between_models_hosts_and_params(opened: Open) -> None:
    with FakeEndpoint(more_models=("fake-2",)) as endpoint:
        opened(endpoint).generate([ask("hello")])
        opened(endpoint, name="fake-2").generate([ask("hello")])
        opened(endpoint, params={"top_k": 1}).generate([ask("hello")])
        assert len(endpoint.calls) == 3


def test_answers_of_another_model_that_the_same_server_was_started_with_do_not_count(opened: Open) -> None:
    ways: dict[str, Any] = {"server": "llama.cpp", "any_model": True}
    with FakeEndpoint(model="a.gguf", **ways) as endpoint:
        opened(endpoint, name="local").generate([ask("hello")])
        opened(endpoint, name="local").generate([ask("hello")])
        assert len(endpoint.calls) == 1
        endpoint.change(model="b.gguf")
        opened(endpoint, name="local").generate([ask("hello")])
        assert len(endpoint.calls) == 2


def test_what_the_filter_stopped_is_not_asked_again(opened: Open) -> None:
    with FakeEndpoint(filtered="bomb") as endpoint:
        opened(endpoint).generate([ask("hello"), ask("a bomb")])
        opened(endpoint).generate([ask("a bomb")])
        assert len(endpoint.calls) == 2


def test_answers_of_a_model_that_is_not_served_any_more_do_not_count(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    with FakeEndpoint(served="fake-1-january") as endpoint:
        opened(endpoint).generate([ask("one"), ask("two")])
        endpoint.change(served="fake-1-may")
        monkeypatch.setattr("rung.models.endpoint.endpoint.now", lambda: now + 2 * 86_400)
        opened(endpoint).generate([ask("three")])
        again = opened(endpoint).generate([ask("one"), ask("two"), ask("three")])
        assert len(endpoint.calls) == 5
    assert [g.usd for g in again] == [None, None, 0.0]


def test_a_change_of_the_served_model_in_mid_run_is_said_and_recorded(tmp_path: Path) -> None:
    said: list[str] = []
    with FakeEndpoint(changes_after=3) as endpoint:
        model = Endpoint(parse(endpoint.spec()), say=said.append, folder=tmp_path)
        for i in range(6):
            model.generate([ask(f"question {i}")])
        model.close()
    assert model.facts()["served"] == {"fake-1": 3, "fake-1-next": 3}
    assert sum("another model answers now, fake-1-next" in line for line in said) == 1


# ---- what an endpoint takes -----------------------------------------------------------------


def test_fields_that_an_endpoint_refuses_are_learnt_once_and_kept(opened: Open) -> None:
    with FakeEndpoint(refuses_max_tokens=True, refuses_temperature=True) as endpoint:
        answers = opened(endpoint).generate([ask(f"question {i}") for i in range(20)])
        assert all(g.error is None for g in answers)
        assert len(endpoint.calls) == 22  # the first one twice more
        opened(endpoint).generate([ask("another")])
        assert len(endpoint.calls) == 23
        assert bodies(endpoint)[-1].keys() == {"model", "messages", "max_completion_tokens"}


@pytest.mark.parametrize(
    "said", ["System role not supported", "Developer instruction is not enabled for models/gemma-3"]
)
def test_a_system_turn_that_is_refused_opens_the_first_user_turn(opened: Open, said: str) -> None:
    def says(messages: Sequence[Message], body: Mapping[str, Any]) -> str:
        if messages[0].role == "system":
            raise ValueError(said)
        return messages[0].content

    turns = (Message("system", "Be short."), Message("user", "hi"), Message("assistant", "ho"), Message("user", "hu"))
    with FakeEndpoint(says) as endpoint:
        answers = opened(endpoint).generate([Request(turns, Decoding(16)), Request(turns[:2], Decoding(16))])
        assert [g.text for g in answers] == ["Be short.\n\nhi"] * 2
        assert len(endpoint.calls) == 3


def test_a_model_that_thinks_gets_room_for_it_from_then_on(opened: Open) -> None:
    with FakeEndpoint(thinks=100) as endpoint:
        model = opened(endpoint)
        assert model.thought_tokens == 0
        answers = model.generate([ask(f"question {i}") for i in range(10)])
        assert [g.text for g in answers] == [f"question {i}" for i in range(10)]
        assert len(endpoint.calls) == 11
    assert model.thought_tokens == 1024


@pytest.mark.parametrize(
    ("ways", "used", "calls"),
    [
        ({"response_format": "json_schema"}, "json_schema", 4),
        ({"response_format": "json_object"}, "json_object", 7),
        ({"server": "llama-cpp-python", "response_format": "json_object"}, "grammar", 4),
        ({"server": "vllm"}, "choice", 4),
    ],
)
def test_labels_come_plain_by_the_best_way_that_the_endpoint_has(
    opened: Open, ways: dict[str, Any], used: str, calls: int
) -> None:
    labels = Constraint("labels", ("refund", "card lost"))
    with FakeEndpoint(**ways) as endpoint:
        model = opened(endpoint)
        model.check(labels)
        answers = model.generate([ask(f"card lost {i}", labels) for i in range(4)])
        assert {g.text for g in answers} == {"card lost"}
        assert len(endpoint.calls) == calls
        assert model.facts()["response_format"] == {used: 4}


@pytest.mark.parametrize("ways", [{"response_format": "ignored"}, {"response_format": "refused"}])
def test_where_nothing_holds_replies_are_parsed_and_asked_again(opened: Open, ways: dict[str, Any]) -> None:
    def says(messages: Sequence[Message], body: Mapping[str, Any]) -> str:
        return '```json\n{"city": "Lima"}\n```' if len(messages) > 1 else "It is Lima, I think."

    constraint = Constraint("json_schema", CLOSED)
    with FakeEndpoint(says, **ways) as endpoint:
        model = opened(endpoint)
        (answer,) = model.generate([ask("Where?", constraint)])
        last = bodies(endpoint)[-1]
        assert json.loads(answer.text) == {"city": "Lima"}
        assert [turn["role"] for turn in last["messages"]] == ["user", "assistant", "user"]
        assert "not JSON" in last["messages"][2]["content"] and "response_format" not in last
        model.check(constraint)
        assert "parsed" in (model.remark or "")
        assert model.facts()["response_format"] == {"none": 1}


def test_a_reply_that_never_fits_stands_after_two_more_attempts_with_its_fault(opened: Open) -> None:
    requests = [ask(when, Constraint("regex", r"\d{4}")) for when in ("When?", "And when?")]
    with FakeEndpoint(lambda messages, body: "no idea") as endpoint:
        answers = opened(endpoint).generate(requests)
        kept = opened(endpoint).generate(requests)
        assert len(endpoint.calls) == 6, "none is asked again later"
    assert {(a.text, a.finish) for a in (*answers, *kept)} == {("no idea", "error")}
    assert {a.error for a in (*answers, *kept)} == {r"the answer breaks pattern: 'no idea' does not match \d{4}"}
    assert answers[0].tokens_in > 3, "tokens of all attempts count"
    assert {a.usd for a in kept} == {0.0}


def test_a_constraint_that_cannot_be_checked_is_refused(opened: Open) -> None:
    with FakeEndpoint() as endpoint, pytest.raises(ConstraintError):
        opened(endpoint).check(Constraint("regex", "("))


SOFT = Constraint("labels", ("refund", "card lost"))


def test_an_outage_is_not_taken_for_a_way_that_does_not_hold(opened: Open) -> None:
    with FakeEndpoint(faults=["500"] * 10) as endpoint:  # three tries in each of three ways, and one more
        model = opened(endpoint)
        answers = model.generate([ask(f"card lost {i}", SOFT) for i in range(5)])
        assert {g.text for g in answers} == {"card lost"}
        assert model.facts()["response_format"] == {"json_schema": 5}


def test_a_way_that_failed_is_tried_again_on_another_day(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    with FakeEndpoint(response_format="json_object") as endpoint:
        opened(endpoint).generate([ask("card lost", SOFT)])
        endpoint.change(response_format="json_schema")
        model = opened(endpoint)
        model.generate([ask("card lost 2", SOFT)])
        assert model.facts()["response_format"] == {"json_object": 1}
        monkeypatch.setattr("rung.models.endpoint.endpoint.now", lambda: now + 2 * 86_400)
        model = opened(endpoint)
        model.generate([ask("card lost 3", SOFT)])
        assert model.facts()["response_format"] == {"json_schema": 1}


def test_a_request_that_is_always_refused_spoils_no_way_for_the_others(opened: Open) -> None:
    def says(messages: Sequence[Message], body: Mapping[str, Any]) -> str:
        if "bad" in messages[-1].content:
            raise ValueError("a character that is not allowed")
        return "refund"

    with FakeEndpoint(says) as endpoint:
        model = opened(endpoint)
        answers = model.generate([ask("bad", SOFT), *(ask(f"good {i}", SOFT) for i in range(4))])
        assert "refused the request" in (answers[0].error or "") and [g.text for g in answers[1:]] == ["refund"] * 4
        assert model.facts()["response_format"] == {"json_schema": 4}


def test_a_first_request_that_is_always_a_server_error_does_not_keep_the_others_waiting(opened: Open) -> None:
    def fault(at: int) -> str | None:
        return "500" if b"bad" in endpoint.calls[at].raw else None

    with FakeEndpoint(lambda messages, body: "refund", faults=fault) as endpoint:
        model = opened(endpoint, timeout=6)
        answers = model.generate([ask("bad", SOFT), *(ask(f"good {i}", SOFT) for i in range(4))])
        assert (answers[0].error or "").startswith(NO_REPLY) and [g.text for g in answers[1:]] == ["refund"] * 4
        assert model.facts()["response_format"] == {"json_schema": 4}


def test_one_reply_of_many_that_does_not_fit_is_asked_again_in_the_same_way(opened: Open) -> None:
    def says(messages: Sequence[Message], body: Mapping[str, Any]) -> str:
        return "none of them" if messages[-1].content.startswith("odd") else "refund"

    with FakeEndpoint(says) as endpoint:
        model = opened(endpoint)
        model.generate([ask(f"good {i}", SOFT) for i in range(40)])
        endpoint.change(response_format="ignored")
        (answer,) = model.generate([ask("odd", SOFT)])
        assert answer.text == "refund" and model.facts()["response_format"] == {"json_schema": 41}
        model.generate([ask(f"odd {i}", SOFT) for i in range(8)])
        assert model.facts()["response_format"].get("none")


def test_a_refusal_in_words_says_nothing_of_the_way(opened: Open) -> None:
    with FakeEndpoint(filtered="bomb", filter_as="refusal") as endpoint:
        model = opened(endpoint)
        answers = model.generate([ask("a bomb", SOFT), ask("refund", SOFT)])
        assert [g.text for g in answers] == ["I cannot help with that.", "refund"]
        assert model.facts()["response_format"] == {"json_schema": 1}


# ---- errors ---------------------------------------------------------------------------------


def test_a_prompt_that_is_too_long_or_filtered_fails_alone(opened: Open) -> None:
    with FakeEndpoint(context_length=50, filtered="bomb") as endpoint:
        answers = opened(endpoint).generate([ask("hello"), ask("word " * 60), ask("a bomb"), ask("bye")])
    assert [g.error is None for g in answers] == [True, False, False, True]
    assert about_its_prompt(answers[1].error or "") and "content filter" in (answers[2].error or "")
    assert not any(may_pass(g.error) for g in answers)


def test_an_answer_has_the_room_that_its_prompt_leaves(opened: Open) -> None:
    with FakeEndpoint(context_length=50, counts_room=True, context_error="vllm") as endpoint:
        (answer,) = opened(endpoint).generate([ask("word " * 40, tokens=30)])
        assert bodies(endpoint)[-1]["max_tokens"] == 10
    assert answer.error is None and answer.finish == "length"


@pytest.mark.parametrize(
    ("ways", "more", "said"),
    [
        ({"key": "right"}, {"key_env": "FAKE_KEY"}, "environment variable FAKE_KEY"),
        ({"key": "right"}, {}, "key_env"),
        ({}, {"name": "fake-l"}, "It has fake-1"),
        ({"no_quota": True}, {}, "no money or quota"),
    ],
)
def test_what_concerns_all_requests_is_an_error_that_says_what_to_do(
    opened: Open, monkeypatch: pytest.MonkeyPatch, ways: dict[str, Any], more: dict[str, Any], said: str
) -> None:
    monkeypatch.setenv("FAKE_KEY", "wrong-key-123456")
    with FakeEndpoint(**ways) as endpoint, pytest.raises(ModelError, match=said):
        opened(endpoint, **more).generate([ask(f"question {i}") for i in range(30)])


def test_an_endpoint_that_cannot_be_reached_is_an_error_with_its_address(opened: Open) -> None:
    with FakeEndpoint() as endpoint:
        model = opened(endpoint, timeout=1)
    with pytest.raises(ModelError, match=r"none of 2 requests to http://127\.0\.0\.1.* got a reply.*server is up"):
        model.generate([ask("one"), ask("two")])


def test_requests_that_alone_fail_end_no_run_that_is_continued_with_them(opened: Open) -> None:
    def fault(at: int) -> str | None:
        return "500" if b"bad" in endpoint.calls[at].raw else None

    with FakeEndpoint(faults=fault) as endpoint:
        answers = opened(endpoint, timeout=2).generate([ask("bad one"), ask("bad two")])
    assert all(g.error is not None and may_pass(g.error) for g in answers)


def test_an_answer_that_does_not_come_in_time_may_come_later(opened: Open) -> None:
    with FakeEndpoint(latency_s=lambda number: 5.0 if number == 1 else 0.0) as endpoint:
        model = opened(endpoint, timeout=0.8, in_flight=1)
        first = model.generate([ask("one"), ask("two"), ask("three")])
        assert sum(g.error is None for g in first) >= 2
        for g in first:
            assert g.error is None or g.error.startswith(NO_REPLY)


def test_a_missing_key_is_named_when_the_model_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ModelError, match="OPENAI_API_KEY"):
        open_model("https://api.openai.com/v1#gpt-5-mini")


def test_a_refused_key_is_noticed_although_speed_and_answers_are_kept(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_KEY", "right-key-123456")
    with FakeEndpoint(key="right-key-123456") as endpoint:
        model = opened(endpoint, key_env="FAKE_KEY")
        model.reach()
        model.speed()
        model.generate([ask("one")])
        monkeypatch.setenv("FAKE_KEY", "wrong-key-123456")
        again = opened(endpoint, key_env="FAKE_KEY")
        again.look()
        again.speed()
        assert again.generate([ask("one")])[0].usd == 0.0, "none of these asks anything"
        asked = len(endpoint.calls)
        with pytest.raises(ModelError, match=r"refused the key .*environment variable FAKE_KEY"):
            again.reach()
        assert len(endpoint.calls) == asked


_SCOPES = b'{"error": {"message": "You have insufficient permissions. Missing scopes: api.model.read"}}'


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, _SCOPES),
        (500, _SCOPES),
        (403, _SCOPES),
        (401, _SCOPES),
        (403, b'{"message":"Missing Authentication Token"}'),
    ],
)
def test_a_list_that_does_not_come_for_another_reason_than_the_key_is_no_error(
    opened: Open, monkeypatch: pytest.MonkeyPatch, status: int, body: bytes
) -> None:
    async def answered(self: Transport, *_: Any, **__: Any) -> Reply:
        return Reply(status, {}, body, 0.0, 0.0)

    with FakeEndpoint() as endpoint:
        model, gone = opened(endpoint), opened(endpoint, timeout=1)
        monkeypatch.setattr(Transport, "exchange", answered)
        model.reach()
        monkeypatch.undo()
    gone.reach()


def test_ctrl_c_ends_a_call_and_keeps_what_was_answered(opened: Open) -> None:
    requests = [ask(f"question {i}") for i in range(200)]
    with FakeEndpoint(latency_s=0.02) as endpoint:
        model = opened(endpoint, in_flight=4)
        main = threading.main_thread().ident
        assert main is not None
        timer = threading.Timer(0.4, lambda: os.kill(os.getpid(), 2))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            model.generate(requests)
        answered = endpoint.record.delivered
        assert 0 < answered < 200
        opened(endpoint).generate(requests)
        assert endpoint.charged <= 200 + 4  # those in flight at the moment of the Ctrl-C


# ---- dollars --------------------------------------------------------------------------------

PRICE = Price(usd_per_million_in=1000.0, usd_per_million_out=2000.0)


def test_calls_in_flight_at_a_ctrl_c_are_paid_with_what_they_cost(opened: Open, tmp_path: Path) -> None:
    with FakeEndpoint(latency_s=0.2) as endpoint:
        model = opened(endpoint, in_flight=8)
        purse = Purse(tmp_path / "spent.json", 100.0)
        model.use_purse(purse, PRICE)
        threading.Timer(0.5, lambda: os.kill(os.getpid(), 2)).start()
        with pytest.raises(KeyboardInterrupt):
            model.generate([ask(f"question {i}") for i in range(400)])
        purse.close()
        spent, before = purse.spent, endpoint.record.delivered
        found = opened(endpoint, in_flight=8)
        found.generate([ask(f"question {i}") for i in range(before)])
        assert endpoint.record.delivered == before, "every answer that came was kept"
        charged = sum(c.tokens_in * 1000 + c.tokens_out * 2000 for c in endpoint.calls) / 1e6
    assert spent == pytest.approx(charged) and model.facts()["doubtful_usd"] == 0


def test_usage_at_the_price_is_what_an_answer_cost(opened: Open, tmp_path: Path) -> None:
    with FakeEndpoint() as endpoint:
        model = opened(endpoint)
        purse = Purse(tmp_path / "spent.json", 10.0)
        model.use_purse(purse, PRICE)
        (answer,) = model.generate([ask("one two three")])
    assert answer.usd == pytest.approx((3 * 1000 + 3 * 2000) / 1e6)
    assert purse.spent == pytest.approx(answer.usd) and purse.reserved == 0


def test_those_that_wait_for_a_first_request_that_is_refused_are_not_sent(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_KEY", "wrong-key-123456")
    with FakeEndpoint(key="right-key-123456") as endpoint:
        model = opened(endpoint, key_env="FAKE_KEY")
        for _ in range(2):
            sent = model._line.calls.sent
            with pytest.raises(ModelError, match="refused the key"):
                model.generate([ask(f"question {i}") for i in range(30)])
            assert model._line.calls.sent - sent <= 2, "one request, and the list of models at first"
        monkeypatch.setenv("FAKE_KEY", "right-key-123456")
        assert all(g.error is None for g in model.generate([ask(f"question {i}") for i in range(30)]))


def test_requests_that_a_refused_key_ends_cost_nothing(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_KEY", "right-key-123456")
    with FakeEndpoint(key="right-key-123456", latency_s=0.05) as endpoint:
        opened(endpoint, key_env="FAKE_KEY").generate([ask("one")])
        monkeypatch.setenv("FAKE_KEY", "wrong-key-123456")
        model = opened(endpoint, key_env="FAKE_KEY")
        purse = Purse(tmp_path / "spent.json", 10.0)
        model.use_purse(purse, PRICE)
        with pytest.raises(ModelError, match="refused the key"):
            model.generate([ask(f"question {i}") for i in range(30)])
    assert model.facts()["doubtful_usd"] == 0.0
    assert purse.spent == purse.reserved == 0.0


def test_a_budget_that_is_spent_names_small_amounts_with_their_figures(opened: Open, tmp_path: Path) -> None:
    with FakeEndpoint() as endpoint:
        model = opened(endpoint)
        model.use_purse(Purse(tmp_path / "spent.json", 2.1e-6), Price(usd_per_million_in=0.1, usd_per_million_out=0.4))
        with pytest.raises(BudgetSpent, match=r"not suffice .* up to 0\.0000\d\d USD, and 0\.0000021 USD are"):
            model.generate([ask("one")])


def test_what_was_charged_before_there_was_a_purse_is_paid_from_it(opened: Open, tmp_path: Path) -> None:
    with FakeEndpoint() as endpoint:
        model = opened(endpoint)
        model._line.asker.price = PRICE
        model.speed()
        charged = sum(c.tokens_in * 1000 + c.tokens_out * 2000 for c in endpoint.calls) / 1e6
        purse = Purse(tmp_path / "spent.json", 10.0)
        model.use_purse(purse)
    assert purse.spent == pytest.approx(charged) and charged > 0


@pytest.mark.parametrize("faults", [None, {"cut": 0.03, "bad-json": 0.03, "drop": 0.03, "500": 0.05}])
def test_a_budget_is_never_passed_and_what_was_answered_is_kept(
    opened: Open, tmp_path: Path, faults: dict[str, float] | None
) -> None:
    requests = [ask(f"question {i}") for i in range(400)]
    with FakeEndpoint(latency_s=0.001, faults=faults) as endpoint:
        model = opened(endpoint, in_flight=16)
        purse = Purse(tmp_path / "spent.json", 2.0)
        model.use_purse(purse, PRICE)
        with pytest.raises(BudgetSpent, match="budget in dollars"):
            model.generate(requests)
        charged = sum(c.tokens_in * 1000 + c.tokens_out * 2000 for c in endpoint.calls if c.charged) / 1e6
        assert 0.0 < charged < purse.spent + 1e-9 < 2.0 and purse.reserved == 0
        if faults is None:
            assert charged == pytest.approx(purse.spent)
        answered = endpoint.record.delivered
        kept = [g for g in opened(endpoint).generate(requests[:answered]) if g.usd == 0.0]
        assert len(kept) >= 0.7 * answered  # those that were delivered whole and well


# ---- timing ---------------------------------------------------------------------------------


def test_timed_calls_are_fresh_streamed_and_so_many_at_once(opened: Open) -> None:
    requests = [ask(f"a question number {i}") for i in range(12)]
    with FakeEndpoint(latency_s=0.02, per_token_s=0.01) as endpoint:
        model = opened(endpoint)
        model.generate(requests)
        answers = model.timed(requests, 3)
        assert len(endpoint.calls) == 24
        assert max(call.in_flight for call in endpoint.calls[12:]) == 3
        assert all(body["stream"] for body in bodies(endpoint)[12:])
    assert [g.text for g in answers] == [f"a question number {i}" for i in range(12)]
    for g in answers:
        assert g.first_token_s is not None and 0.0 < g.first_token_s < g.latency_s
        assert g.tokens_in == 4 and g.tokens_out == 4


def test_a_mode_that_is_a_server_error_is_found_out_before_calls_are_timed(opened: Open, tmp_path: Path) -> None:
    labels = Constraint("labels", ("refund", "card lost"))
    requests = [ask(f"card lost {i}", labels) for i in range(6)]
    with FakeEndpoint(response_format="json_object") as endpoint:
        model = opened(endpoint)
        purse = Purse(tmp_path / "spent.json", 10.0)
        model.use_purse(purse, PRICE)
        started = time.monotonic()
        answers = model.timed(requests, 3)
        assert time.monotonic() - started < 10
        assert {g.text for g in answers} == {"card lost"}
        assert len(endpoint.calls) == 3 + 1 + 6
    assert purse.spent == pytest.approx(sum(g.usd or 0.0 for g in answers))


def test_the_speed_is_measured_once_and_kept(opened: Open) -> None:
    with FakeEndpoint(latency_s=0.01) as endpoint:
        model = opened(endpoint)
        assert isinstance(model, Measured)
        speed = model.speed()
        assert speed.read > speed.write > 0 and len(endpoint.calls) == 2
        assert opened(endpoint).speed() == speed == model.speed() and len(endpoint.calls) == 2


# ---- what is known of it --------------------------------------------------------------------


def test_a_model_that_ends_is_remarked_on_and_its_context_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNG_CACHE", str(tmp_path))
    with FakeEndpoint(shutdown_date="2027-01-06", tells_context="max_model_len", context_length=2048) as endpoint:
        model = open_model(endpoint.spec())
        assert model.context_length == 2048
        assert "ends on 2027-01-06" in (remark_of(model) or "")
        assert model.facts()["shutdown_date"] == "2027-01-06"  # type: ignore[attr-defined]
        assert next_larger(model, endpoint.spec()) is None


def test_a_version_needs_no_connection_and_changes_with_what_decides_answers() -> None:
    plain = model_version("http://localhost:9/v1#m")
    assert plain == model_version('{"name": "m", "endpoint": "http://localhost:9/v1", "in_flight": 3, "timeout": 5}')
    for other in (
        "http://localhost:9/v1#n",
        "http://localhost:8/v1#m",
        '{"name": "m", "endpoint": "http://localhost:9/v1", "params": {"top_k": 1}}',
        '{"name": "m", "endpoint": "http://localhost:9/v1", "response_format": "none"}',
    ):
        assert model_version(other) != plain


# ---- keys -----------------------------------------------------------------------------------

SECRET = "sk-test-" + "Zq9" * 30


def test_a_key_is_in_no_file_no_repr_and_no_traceback(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_KEY", SECRET)
    shown: list[str] = []
    said: list[str] = []
    requests = [ask(f"question {i}") for i in range(3)]
    for ways, timeout in (
        ({}, 20),
        ({"key": "another"}, 20),  # refused
        ({"faults": ["drop", "cut", "bad-json", "html", "stall"] * 9}, 0.8),
        ({"no_quota": True}, 20),
    ):
        with FakeEndpoint(**ways) as endpoint:
            model = opened(endpoint, key_env="FAKE_KEY", timeout=timeout)
            model._say = said.append
            try:
                model.generate(requests)
                model.timed(requests, 2)
            except Exception as error:
                shown += _every_trace(error)
            shown += [repr(model), repr(vars(model)), repr(vars(model._line)), json.dumps(model.facts(), default=str)]
            shown += [repr(model.spec), model.spec.text, json.dumps(model.describe()), repr(vars(model._line.asker))]
            assert {call.key for call in endpoint.calls} <= {"present", "unequal"}
            model.close()
        with pytest.raises(ModelError) as raised:
            model.generate(requests)  # it is closed, and the server is gone
        shown += _every_trace(raised.value)
    assert len(shown) > 30
    for text in (*shown, *said):
        assert SECRET[:20] not in text
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    for path in written:
        assert SECRET[:20].encode() not in path.read_bytes(), path


def _every_trace(error: BaseException) -> list[str]:
    """As Python, and as rich prints it, with the variables of every frame."""
    from rich.console import Console
    from rich.traceback import Traceback

    console = Console(width=200, record=True, file=io.StringIO())
    console.print(Traceback.from_exception(type(error), error, error.__traceback__, show_locals=True))
    with_locals = traceback.TracebackException.from_exception(error, capture_locals=True)
    return [str(error), *traceback.format_exception(error), *with_locals.format(), console.export_text()]


# ---- batch jobs -----------------------------------------------------------------------------


def test_batch_mode_asks_one_by_itself_and_the_others_by_a_job(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rung.models.endpoint.batch_jobs._FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr("rung.models.endpoint.prices.batch_share", lambda *_, **__: 0.5)
    labels = Constraint("labels", ("refund", "card lost"))
    requests = [ask(f"card lost {i}", labels) for i in range(30)]
    with FakeEndpoint(refuses_max_tokens=True, batch_s=0.1, batch_fails=0.1) as endpoint:
        model = opened(endpoint, batch=True)
        purse = Purse(tmp_path / "spent.json", 20.0)
        model.use_purse(purse, PRICE)
        answers = model.generate(requests)
        assert {g.text for g in answers} == {"card lost"} and all(g.error is None for g in answers)
        assert sum(call.path.endswith("/v1/chat/completions") for call in endpoint.calls) == 2  # the first one, twice
        before = len(endpoint.calls)
        assert all(g.usd == 0.0 for g in opened(endpoint, batch=True).generate(requests))
        assert len(endpoint.calls) == before
    full = (answers[0].tokens_in * 1000 + answers[0].tokens_out * 2000) / 1e6
    assert answers[0].usd == pytest.approx(full)
    assert sorted(g.usd or 0 for g in answers)[5] == pytest.approx(full / 2)
    assert purse.spent == pytest.approx(sum(g.usd or 0 for g in answers))


# ---- kills ----------------------------------------------------------------------------------

ASKING = """
import sys
from pathlib import Path
from rung.models.endpoint.endpoint import Endpoint
from rung.models.endpoint.spec import parse
from rung.types import Decoding, Message, Request
model = Endpoint(parse(sys.argv[1]), folder=Path(sys.argv[2]))
model.generate([Request((Message("user", f"question {i}"),), Decoding(16)) for i in range(300)])
"""


def test_a_process_that_is_killed_again_and_again_pays_for_no_answered_call_twice(opened: Open, tmp_path: Path) -> None:
    in_flight, kills = 5, 4
    asking: list[subprocess.Popen[bytes]] = []

    def answer(messages: Sequence[Message], body: object) -> str:
        if len(asking) <= kills and len(endpoint.calls) >= 50 * len(asking):
            asking[-1].kill()  # by the endpoint itself: the test would notice too late on a machine under load
        return messages[-1].content

    with FakeEndpoint(answer, latency_s=0.01) as endpoint:
        for _ in range(kills):
            command = [sys.executable, "-c", ASKING, endpoint.spec(in_flight=in_flight), str(tmp_path / "cache")]
            asking.append(subprocess.Popen(command))
            assert asking[-1].wait() != 0
        asked = len(endpoint.calls)
        assert 50 * kills <= asked < 300
        asking.append(asking[-1])  # the last one: no kill is left
        answers = opened(endpoint, in_flight=in_flight).generate([ask(f"question {i}") for i in range(300)])
        assert [g.text for g in answers] == [f"question {i}" for i in range(300)]
        assert endpoint.charged <= 300 + kills * in_flight  # those in flight at each kill
        assert len(endpoint.calls) - asked <= 300 - 50 * kills + kills * in_flight
