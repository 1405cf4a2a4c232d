"""The fake endpoint does what its switches say, seen by a client that knows nothing of rung."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import pytest

from rung.testing import FakeEndpoint
from rung.testing.endpoint import FAULTS, endpoint_process


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return str(self.json["choices"][0]["message"]["content"])

    @property
    def code(self) -> object:
        return self.json["error"]["code"]


def send(url: str, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=5)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, parts.path + path, body, named)
        reply = connection.getresponse()
        return Reply(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())
    finally:
        connection.close()


def body_of(text: str = "one two three", **more: Any) -> dict[str, Any]:
    return {"model": "fake-1", "messages": [{"role": "user", "content": text}], **more}


def ask(endpoint: FakeEndpoint, text: str = "one two three", **more: Any) -> Reply:
    return send(endpoint.url, "POST", "/chat/completions", json.dumps(body_of(text, **more)).encode())


def connected(endpoint: FakeEndpoint) -> socket.socket:
    return socket.create_connection(("127.0.0.1", urlsplit(endpoint.url).port or 0), timeout=5)


def events(reply: Reply) -> list[Any]:
    lines = [line[6:] for line in reply.body.decode().splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


# ---- answers --------------------------------------------------------------------------------


def test_it_answers_from_a_table_and_counts_words() -> None:
    with FakeEndpoint({"2 + 2": "it is 4"}) as endpoint:
        reply = ask(endpoint, "2 + 2")
        assert reply.text == "it is 4"
        assert reply.json["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
        assert reply.json["choices"][0]["finish_reason"] == "stop"
        assert ask(endpoint, "3 + 3").status == 400
    assert (endpoint.charged, len(endpoint.calls)) == (1, 2)


def test_it_answers_from_a_function_of_messages_and_body() -> None:
    with FakeEndpoint(lambda messages, body: f"{messages[-1].content} at {body['temperature']}") as endpoint:
        assert ask(endpoint, "hot", temperature=0.5).text == "hot at 0.5"


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_an_answer_is_cut_at_the_tokens_that_it_may_have(field: str) -> None:
    with FakeEndpoint() as endpoint:
        reply = ask(endpoint, "one  two\nthree", **{field: 2})
    assert reply.text == "one  two"
    assert reply.json["choices"][0]["finish_reason"] == "length"
    assert reply.json["usage"]["completion_tokens"] == 2


def test_a_streamed_answer_is_the_plain_one_in_pieces_with_its_usage_where_that_is_asked_for() -> None:
    with FakeEndpoint() as endpoint:
        plain = events(ask(endpoint, "a b  c", stream=True))
        told = events(ask(endpoint, "a b  c", stream=True, stream_options={"include_usage": True}))
    pieces = [event["choices"][0]["delta"].get("content", "") for event in plain]
    assert "".join(pieces) == "a b  c"
    assert len([piece for piece in pieces if piece]) == 3
    assert all("usage" not in event for event in plain)
    assert told[-1]["usage"]["completion_tokens"] == 3 and told[-1]["choices"] == []
    assert all(event["usage"] is None for event in told[:-1])


def test_the_first_token_of_a_stream_comes_after_the_latency_and_the_role_before_it() -> None:
    body = json.dumps(body_of("a b c", stream=True)).encode()
    seen, times = b"", {}
    with FakeEndpoint(latency_s=0.4, per_token_s=0.05) as endpoint, connected(endpoint) as client:
        started = time.monotonic()
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        while b"[DONE]" not in seen:
            seen += client.recv(65536)
            for part in (b'"role"', b'"content": "a"', b'"content": " c"'):
                if part in seen:
                    times.setdefault(part, time.monotonic() - started)
    role, first, last = times.values()
    assert role < 0.4 <= first < last
    assert last - first >= 0.09


# ---- the list of models, names, fingerprints ------------------------------------------------


def test_the_list_of_models_tells_ends_and_lengths() -> None:
    ways: dict[str, Any] = {"shutdown_date": "2027-01-06", "context_length": 4096, "tells_context": "max_model_len"}
    with FakeEndpoint(more_models=("org/other",), server="vllm", **ways) as endpoint:
        listed = send(endpoint.url, "GET", "/models").json["data"]
        one = send(endpoint.url, "GET", "/models/org/other").json
        assert send(endpoint.url, "GET", "/models/none").code == "model_not_found"
        assert ask(endpoint, model="none").status == 404
    assert [row["id"] for row in listed] == ["fake-1", "org/other"]
    assert one["shutdown_date"] == "2027-01-06" and one["max_model_len"] == 4096 and one["owned_by"] == "vllm"


def test_the_served_name_and_the_fingerprint_change_after_so_many_answers() -> None:
    with FakeEndpoint(served="fake-1-2026-01-01", changes_after=2) as endpoint:
        replies = [ask(endpoint).json for _ in range(3)]
    assert [r["model"] for r in replies] == ["fake-1-2026-01-01"] * 2 + ["fake-1-2026-01-01-next"]
    assert [r["system_fingerprint"] for r in replies] == ["fp_1", "fp_1", "fp_2"]


# ---- faults ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(FAULTS))
def test_a_fault_is_sent_counted_and_charged_as_its_description_says(kind: str) -> None:
    with FakeEndpoint(faults=[kind], slow_s=0.2, retry_after_s=2) as endpoint:
        started = time.monotonic()
        if kind in ("drop", "cut"):
            with pytest.raises((http.client.HTTPException, ConnectionError)):
                ask(endpoint)
        elif kind == "stall":
            connection = http.client.HTTPConnection("127.0.0.1", urlsplit(endpoint.url).port, timeout=0.2)
            connection.request("POST", "/v1/chat/completions", json.dumps(body_of()))
            with pytest.raises(TimeoutError):
                connection.getresponse()
            connection.close()
        else:
            _check_reply(kind, ask(endpoint), time.monotonic() - started)
        assert ask(endpoint).text == "one two three"
        assert endpoint.faults == {kind: 1}
        assert endpoint.charged == 1 + ("charged" in FAULTS[kind])
        assert endpoint.record.delivered == 1 + (kind == "slow")


def _check_reply(kind: str, reply: Reply, seconds: float) -> None:
    status = int(kind[:3]) if kind[:3].isdigit() else 429 if kind == "quota" else 200
    assert reply.status == status
    if kind == "quota":
        assert reply.code == "insufficient_quota"
    elif status == 429:
        assert reply.code == "rate_limit_exceeded"
        assert ("retry-after" in reply.headers) == (kind in ("429-retry-after", "429-date"))
        assert ("x-ratelimit-reset-requests" in reply.headers) == (kind == "429-headers")
        if kind == "429-retry-after":
            assert reply.headers["retry-after"] == "2"
        if kind == "429-date":
            assert abs(parsedate_to_datetime(reply.headers["retry-after"]).timestamp() - time.time() - 2) < 1.5
    elif kind == "slow":
        assert reply.text == "one two three" and seconds >= 0.2
    elif kind in ("503", "html"):
        assert b"<html>" in reply.body and reply.headers["content-type"].startswith("text/html")
    elif kind == "bad-json":
        with pytest.raises(ValueError):
            assert reply.json
    elif kind == "empty":
        assert reply.body == b""
    elif kind == "no-choices":
        assert reply.json["choices"] == []


def test_a_streamed_answer_can_be_cut() -> None:
    with FakeEndpoint(faults=["cut"]) as endpoint:
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            ask(endpoint, "a b c d e f", stream=True)
        assert endpoint.calls[0].charged and endpoint.calls[0].delivered is None


def test_shares_of_faults_are_drawn_from_the_seed() -> None:
    def sent(seed: int) -> list[str | None]:
        with FakeEndpoint(faults={"500": 0.3, "html": 0.2}, seed=seed) as endpoint:
            for _ in range(60):
                ask(endpoint)
        assert 5 <= endpoint.faults["500"] <= 32 and 2 <= endpoint.faults["html"] <= 25
        return [call.fault for call in endpoint.calls]

    assert sent(1) == sent(1) != sent(2)


def test_faults_can_be_a_function_of_the_calls_number() -> None:
    with FakeEndpoint(faults=lambda number: "500" if number % 2 else None) as endpoint:
        assert [ask(endpoint).status for _ in range(4)] == [200, 500, 200, 500]


def test_a_kind_of_fault_that_is_unknown_is_refused() -> None:
    with pytest.raises(ValueError, match="429-retry-after"):
        FakeEndpoint(faults={"teapot": 0.1})


# ---- limits ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tells", "header"),
    [("nothing", None), ("retry-after", "retry-after"), ("headers", "x-ratelimit-remaining-requests")],
)
def test_calls_beyond_the_most_in_flight_are_refused_at_once(tells: Any, header: str | None) -> None:
    with FakeEndpoint(latency_s=0.3, most_in_flight=3, tells_limits=tells) as endpoint:
        with ThreadPoolExecutor(8) as pool:
            replies = list(pool.map(lambda i: ask(endpoint, f"call {i}"), range(8)))
        refused = [reply for reply in replies if reply.status == 429]
        assert len(refused) == 5 == endpoint.faults["in-flight"]
        assert endpoint.record.most_at_once == 3
        assert all((header in reply.headers) == (header is not None) for reply in refused)
        assert ask(endpoint).status == 200


def test_calls_beyond_the_most_a_second_are_refused_and_later_ones_taken() -> None:
    with FakeEndpoint(per_second=4, tells_limits="headers") as endpoint:
        replies = [ask(endpoint) for _ in range(6)]
        assert [reply.status for reply in replies[:4]] == [200] * 4
        assert replies[-1].status == 429 and replies[-1].headers["x-ratelimit-remaining-requests"] == "0"
        assert replies[0].headers["x-ratelimit-remaining-requests"] == "3"
        time.sleep(float(replies[-1].headers["x-ratelimit-reset-requests"].removesuffix("ms")) / 1000)
        assert ask(endpoint).status == 200


def test_it_closes_a_connection_without_a_word_after_so_many_answers() -> None:
    with FakeEndpoint(requests_per_connection=2) as endpoint:
        connection = http.client.HTTPConnection("127.0.0.1", urlsplit(endpoint.url).port, timeout=5)
        for _ in range(2):
            connection.request("POST", "/v1/chat/completions", json.dumps(body_of()))
            assert connection.getresponse().read()
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            connection.request("POST", "/v1/chat/completions", json.dumps(body_of()))
            connection.getresponse()
        connection.close()


# ---- keys -----------------------------------------------------------------------------------


def test_a_key_is_checked_and_never_kept() -> None:
    with FakeEndpoint(key="secret-wanted") as endpoint:
        body = json.dumps(body_of()).encode()
        path = ("POST", "/chat/completions", body)
        assert send(endpoint.url, *path).status == 401
        assert send(endpoint.url, *path, authorization="Bearer secret-wrong").code == "invalid_api_key"
        assert send(endpoint.url, *path, authorization="Bearer secret-wanted").status == 200
        assert send(endpoint.url, "GET", "/models").status == 401
        assert send(endpoint.url, "GET", "/models", authorization="Bearer secret-wanted").status == 200
        told = send(endpoint.url.removesuffix("/v1"), "GET", "/fake/record?calls=1").body
    assert [call.key for call in endpoint.calls] == ["absent", "unequal", "equal"]
    assert b"secret" not in told and "secret" not in repr(endpoint.calls)


def test_azure_has_the_deployment_in_its_path_and_a_header_of_its_own() -> None:
    with FakeEndpoint(azure=True, key="k") as endpoint:
        body = json.dumps({"messages": [{"role": "user", "content": "hi"}]}).encode()
        path = "/openai/deployments/fake-1/chat/completions?api-version=2024-10-21"
        assert send(endpoint.url, "POST", path, body, api_key="k").text == "hi"
        assert send(endpoint.url, "POST", path, body, authorization="Bearer k").status == 401
        assert send(endpoint.url, "POST", path.partition("?")[0], body, api_key="k").status == 404


# ---- ways of models and servers -------------------------------------------------------------


def test_fields_that_a_model_does_not_take_are_refused() -> None:
    with FakeEndpoint(refuses_max_tokens=True, refuses_temperature=True) as endpoint:
        refused = ask(endpoint, max_tokens=5)
        assert (refused.status, refused.code) == (400, "unsupported_parameter")
        assert ask(endpoint, temperature=0).code == "unsupported_value"
        assert ask(endpoint, repeat_penalty=1.0).code == "unknown_parameter"
        assert ask(endpoint, max_completion_tokens=5, temperature=1).status == 200


def test_thinking_takes_the_answers_room() -> None:
    with FakeEndpoint(thinks=10) as endpoint:
        small, larger, short = ask(endpoint, max_tokens=8), ask(endpoint, max_tokens=12), ask(endpoint)
        less = ask(endpoint, reasoning_effort="minimal", max_tokens=8)
    assert small.text == "" and small.json["choices"][0]["finish_reason"] == "length"
    assert small.json["usage"]["completion_tokens_details"] == {"reasoning_tokens": 8}
    assert larger.text == "one two" and larger.json["usage"]["completion_tokens"] == 12
    assert short.text == less.text == "one two three"


SCHEMA = {"type": "object", "properties": {"label": {"enum": ["yes", "no"]}}, "required": ["label"]}
NAMED = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
PLAIN = {"type": "json_object", "schema": SCHEMA}


@pytest.mark.parametrize(
    ("mode", "named", "plain"),
    [
        ("json_schema", '{"label": "no"}', '{"label": "no"}'),
        ("json_object", 500, '{"label": "no"}'),
        ("ignored", "I say no", "I say no"),
        ("refused", 400, 400),
    ],
)
def test_response_format_is_heeded_refused_or_ignored(mode: Any, named: object, plain: object) -> None:
    with FakeEndpoint(lambda *_: "I say no", response_format=mode) as endpoint:
        for form, wanted in ((NAMED, named), (PLAIN, plain)):
            reply = ask(endpoint, response_format=form)
            assert (reply.text if reply.status == 200 else reply.status) == wanted


def test_an_answer_of_the_schema_stays_as_it_is() -> None:
    with FakeEndpoint(lambda *_: '{"label":"yes"}') as endpoint:
        assert ask(endpoint, response_format=NAMED).text == '{"label":"yes"}'


def test_vllm_heeds_choices_and_llama_cpp_a_grammar_of_labels() -> None:
    with FakeEndpoint(lambda *_: "I say no", server="vllm") as endpoint:
        assert ask(endpoint, structured_outputs={"choice": ["yes", "no"]}).text == "no"
        assert json.loads(ask(endpoint, structured_outputs={"json": SCHEMA}).text) == {"label": "no"}
    with FakeEndpoint(lambda *_: "I say no", server="llama.cpp") as endpoint:
        assert ask(endpoint, grammar='root ::= "yes" | "no"').text == "no"


@pytest.mark.parametrize(("form", "code"), [("openai", "context_length_exceeded"), ("vllm", 400), ("llama.cpp", 400)])
def test_a_prompt_beyond_the_context_is_refused(form: Any, code: object) -> None:
    with FakeEndpoint(context_length=10, context_error=form) as endpoint:
        assert ask(endpoint, "word " * 9, max_tokens=5).json["choices"][0]["finish_reason"] == "length"
        refused = ask(endpoint, "word " * 10)
    assert (refused.status, refused.code) == (400, code)
    assert "context" in refused.json["error"]["message"] and "10 tokens" in refused.json["error"]["message"]


def test_an_endpoint_may_refuse_a_prompt_that_leaves_no_room_for_all_tokens() -> None:
    with FakeEndpoint(context_length=10, counts_room=True) as endpoint:
        assert ask(endpoint, "word " * 6, max_tokens=5).status == 400
        assert ask(endpoint, "word " * 6, max_tokens=4).status == 200


def test_a_quota_that_is_spent_refuses_every_call() -> None:
    with FakeEndpoint(no_quota=True) as endpoint:
        reply = ask(endpoint)
        assert (reply.status, reply.code) == (429, "insufficient_quota")
        endpoint.change(no_quota=False)
        assert ask(endpoint).status == 200


def test_a_content_filter_stops_in_three_ways() -> None:
    with FakeEndpoint(filtered="bomb") as endpoint:
        assert ask(endpoint, "a bomb").code == "content_filter"
        endpoint.change(filter_as="finish")
        assert ask(endpoint, "a bomb").json["choices"][0]["finish_reason"] == "content_filter"
        endpoint.change(filter_as="refusal")
        assert ask(endpoint, "a bomb").json["choices"][0]["message"]["refusal"]
        assert ask(endpoint, "a bombast").text == "a bombast"


def test_beginnings_seen_before_are_told_as_cached() -> None:
    shared = "word " * 40
    with FakeEndpoint(caches_prompts=True) as endpoint:
        ask(endpoint, shared + "first")
        usage = ask(endpoint, shared + "second").json["usage"]
        assert usage["prompt_tokens_details"] == {"cached_tokens": 32}
        assert "prompt_tokens_details" not in ask(endpoint, "other " * 40).json["usage"]


# ---- files and batches ----------------------------------------------------------------------


def upload(endpoint: FakeEndpoint, bodies: list[Any]) -> str:
    lines = [
        json.dumps({"custom_id": f"c{i}", "method": "POST", "url": "/v1/chat/completions", "body": body})
        for i, body in enumerate(bodies)
    ]
    form = b'--edge\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--edge\r\n'
    form += b'Content-Disposition: form-data; name="file"; filename="in.jsonl"\r\nContent-Type: text/plain\r\n\r\n'
    form += "\n".join(lines).encode() + b"\r\n--edge--\r\n"
    reply = send(endpoint.url, "POST", "/files", form, content_type="multipart/form-data; boundary=edge")
    assert reply.status == 200, reply.body
    return str(reply.json["id"])


def start(endpoint: FakeEndpoint, bodies: list[Any]) -> Any:
    job = {"input_file_id": upload(endpoint, bodies), "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    return send(endpoint.url, "POST", "/batches", json.dumps(job).encode()).json


def lines_of(endpoint: FakeEndpoint, id: str) -> dict[str, Any]:
    content = send(endpoint.url, "GET", f"/files/{id}/content").body
    return {line["custom_id"]: line for line in map(json.loads, content.splitlines())}


def state(endpoint: FakeEndpoint, id: str) -> Any:
    return send(endpoint.url, "GET", f"/batches/{id}").json


def test_a_batch_takes_its_time_and_answers_every_line() -> None:
    with FakeEndpoint(batch_s=1.0) as endpoint:
        job = start(endpoint, [body_of(f"text {i}") for i in range(20)])
        assert job["status"] == "validating"
        time.sleep(0.2)
        assert state(endpoint, job["id"])["status"] == "in_progress"
        time.sleep(0.8)
        done = state(endpoint, job["id"])
        lines = lines_of(endpoint, done["output_file_id"])
    assert done["status"] == "completed" and done["error_file_id"] is None
    assert done["request_counts"] == {"total": 20, "completed": 20, "failed": 0}
    assert {id: line["response"]["body"]["choices"][0]["message"]["content"] for id, line in lines.items()} == {
        f"c{i}": f"text {i}" for i in range(20)
    }
    assert list(lines) != [f"c{i}" for i in range(20)], "the order of the output is not the input's"
    assert endpoint.charged == 20


def test_lines_of_a_batch_that_fail_stand_in_the_error_file() -> None:
    with FakeEndpoint(batch_fails=0.3) as endpoint:
        done = state(endpoint, start(endpoint, [body_of(f"text {i}") for i in range(20)])["id"])
        good, bad = lines_of(endpoint, done["output_file_id"]), lines_of(endpoint, done["error_file_id"])
    assert len(good) + len(bad) == 20 and len(bad) == done["request_counts"]["failed"] > 0
    assert all(line["response"]["status_code"] == 500 for line in bad.values())
    assert endpoint.charged == len(good)


def test_a_batch_that_expires_keeps_what_was_answered() -> None:
    with FakeEndpoint(batch_answers=0.5) as endpoint:
        done = state(endpoint, start(endpoint, [body_of(f"text {i}") for i in range(10)])["id"])
        good, bad = lines_of(endpoint, done["output_file_id"]), lines_of(endpoint, done["error_file_id"])
    assert done["status"] == "expired" and (len(good), len(bad)) == (5, 5)
    assert all(line["error"]["code"] == "batch_expired" for line in bad.values())


def test_a_batch_can_be_cancelled_and_listed() -> None:
    with FakeEndpoint(batch_s=60) as endpoint:
        id = start(endpoint, [body_of()])["id"]
        cancelled = send(endpoint.url, "POST", f"/batches/{id}/cancel").json
        listed = send(endpoint.url, "GET", "/batches").json["data"]
    assert cancelled["status"] == "cancelled" == listed[0]["status"] and endpoint.charged == 0


def test_a_batch_file_with_a_wrong_line_fails() -> None:
    with FakeEndpoint() as endpoint:
        done = state(endpoint, start(endpoint, [])["id"])
        assert done["status"] == "failed" and done["errors"]["data"]


# ---- the record -----------------------------------------------------------------------------


def test_a_request_that_is_charged_after_it_was_answered_is_told() -> None:
    with FakeEndpoint(faults=[None, "cut"]) as endpoint:
        ask(endpoint, "first")
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            ask(endpoint, "second")
        ask(endpoint, "second")
        assert endpoint.record.paid_again() == []
        ask(endpoint, "first")
        assert [call.number for call in endpoint.record.paid_again()] == [3]
        counts = endpoint.record.by_request()
    assert sorted((c["asked"], c["charged"], c["delivered"]) for c in counts.values()) == [(2, 2, 1), (2, 2, 2)]


def test_an_answer_is_not_delivered_where_the_client_left_or_never_read_it() -> None:
    body = json.dumps(body_of()).encode()
    request = b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with FakeEndpoint(latency_s=0.1) as endpoint:
        with connected(endpoint) as client:
            client.sendall(request)
        with connected(endpoint) as client:
            client.sendall(request)
            time.sleep(0.3)  # the answer has come and is not read
        time.sleep(0.1)
        assert [(call.charged, call.delivered) for call in endpoint.calls] == [(True, None), (True, None)]


# ---- its forms ------------------------------------------------------------------------------


def test_it_listens_on_the_same_port_after_a_pause() -> None:
    endpoint = FakeEndpoint()
    endpoint.start()
    url = endpoint.url
    endpoint.close()
    with pytest.raises(ConnectionError):
        ask(endpoint)
    with endpoint:
        assert endpoint.url == url and ask(endpoint).status == 200


def test_as_a_process_it_prints_its_url_and_tells_its_record() -> None:
    command = [sys.executable, "-m", "rung.testing.endpoint", "--port", "0", "--latency", "0.05", "--fault", "500=1"]
    with subprocess.Popen([*command, "--most-in-flight", "200"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        started = time.monotonic()
        assert send(url, "POST", "/chat/completions", json.dumps(body_of()).encode()).status == 500
        assert time.monotonic() - started >= 0.05
        assert send(url.removesuffix("/v1"), "GET", "/fake/record").json["faults"] == {"500": 1}
        process.terminate()


def test_a_process_that_a_test_started_ends_with_it() -> None:
    code = (
        "from rung.testing.endpoint import endpoint_process; import os\n"
        "with endpoint_process({'a': 'b'}, latency_s=0.0) as url:\n print(url, flush=True); os._exit(9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    url = done.stdout.strip()
    for _ in range(100):
        try:
            send(url, "GET", "/models")
        except ConnectionError:
            return
        time.sleep(0.05)
    raise AssertionError("it still listens")


def test_a_process_takes_answers_and_faults_from_its_parent() -> None:
    with endpoint_process({"one two three": "four"}, faults={"429": 0.0}, response_format="ignored") as url:
        assert send(url, "POST", "/chat/completions", json.dumps(body_of()).encode()).text == "four"


def test_it_holds_two_hundred_calls_at_once() -> None:
    with FakeEndpoint(latency_s=0.3, most_in_flight=200) as endpoint:
        body = json.dumps(body_of()).encode()
        request = b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        clients = [connected(endpoint) for _ in range(200)]
        for client in clients:
            client.sendall(request)
        assert all(client.recv(65536).startswith(b"HTTP/1.1 200") for client in clients)
        for client in clients:
            client.close()
    assert endpoint.record.most_at_once == 200 and endpoint.record.delivered == 200


def test_importing_the_testing_room_loads_no_server() -> None:
    code = "import sys, rung.testing\nassert not {'asyncio', 'torch', 'rung.testing.endpoint'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
