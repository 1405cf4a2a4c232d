"""Metrics, logs, the kept sample and the schema of the server."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from http_server import HTTP, Start, WordByWord, chat_body, eventually
from rung.engine.ways import ANSWERS, Ways
from rung.serving.http.app import build_app
from rung.serving.http.logs import RequestLog
from rung.serving.http.setup import HttpSetup
from rung.serving.sampling import RequestSample
from rung.serving.service import ModelService

SECRET = "sesame-of-the-cave"


def says(_: object) -> str:
    return f"so {SECRET} opens"


def logged(capfd: pytest.CaptureFixture[str], lines: int) -> tuple[list[dict[str, Any]], str]:
    """The lines of the log, as soon as there are so many, and all of standard error. A line is written once its
    request has ended, which the client may know before."""
    output: list[str] = []

    def found() -> list[dict[str, Any]]:
        output.append(capfd.readouterr().err)
        return [json.loads(line) for line in "".join(output).splitlines() if line.startswith("{")]

    assert eventually(lambda: len(found()) >= lines)
    return found(), "".join(output)


def test_metrics_count_requests_and_tokens_by_model(start: Start) -> None:
    server = start(WordByWord(says))
    server.chat()
    server.chat(stream=True)
    for i in range(5):
        server.chat(f"nobody-{i}")
    assert eventually(lambda: 'model="fake",status="200"} 2.0' in HTTP.get(f"{server.url}/metrics").text)
    text = HTTP.get(f"{server.url}/metrics").text
    assert 'rung_requests_total{model="other",status="404"} 5.0' in text and "nobody" not in text
    assert 'rung_tokens_total{kind="out",model="fake"} 6.0' in text
    assert 'rung_tokens_total{kind="cached",model="fake"} 2.0' in text
    assert 'rung_request_seconds_count{model="fake"} 2.0' in text
    assert 'rung_first_token_seconds_count{model="fake"} 2.0' in text
    assert 'rung_requests_waiting{base="fake"} 0.0' in text and "rung_ready 1.0" in text
    assert 'rung_adapters_held{base="fake"} 0.0' in text


def test_a_request_that_is_at_fault_counts_for_its_model(start: Start) -> None:
    server = start(WordByWord(says))
    assert server.chat(tools=[{"type": "function", "function": {"name": "f"}}]).status_code == 400
    assert server.chat("nobody", temperature=9).status_code == 400
    assert eventually(lambda: 'model="fake",status="400"} 1.0' in HTTP.get(f"{server.url}/metrics").text)
    assert eventually(lambda: 'model="other",status="400"} 1.0' in HTTP.get(f"{server.url}/metrics").text)


def test_a_request_is_one_line_of_the_log_without_contents(start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    server = start(WordByWord(says), log=RequestLog())
    server.chat(text=SECRET)
    server.chat(text=SECRET, stream=True)
    server.chat("nobody", text=SECRET, temperature=9)
    lines, output = logged(capfd, 3)  # a line is written once its answer is sent
    first, second, third = sorted(lines, key=lambda line: (line["status"], line["stream"]))
    assert SECRET not in output
    assert first["status"] == 200 and first["model"] == "fake" and first["client"] == "127.0.0.1"
    assert first["tokens_out"] == 3 and first["ms"] >= first["ttft_ms"] > 0 and len(first["id"]) == 32
    assert second["stream"] is True and second["tokens_out"] == 3
    assert third["status"] == 400 and third["fault"] == "invalid_request_error"


def test_a_way_that_is_given_up_is_logged_once(start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    start(WordByWord(says), log=RequestLog())
    ways = Ways(static=True)
    for _ in range(2):
        ways.give_up("static", "no memory for it", of=ANSWERS)
    ((line,), _) = logged(capfd, 1)
    assert line["message"] == "A way to compute is given up: static answers (no memory for it)."


def test_what_an_engine_says_is_a_line_of_the_log_without_the_words_of_its_error(
    start: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    start(WordByWord(says), log=RequestLog())
    try:
        raise ValueError(SECRET)
    except ValueError:
        logging.getLogger("rung.models.continuous").exception("the engine failed")
    ((line,), output) = logged(capfd, 1)
    assert line["message"] == "the engine failed" and line["error"].startswith("ValueError at ")
    assert SECRET not in output and "Traceback" not in output


def test_contents_are_logged_where_that_is_wanted_and_quiet_logs_faults_alone(
    start: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    start(WordByWord(says), log=RequestLog(contents=True)).chat(text="open")
    ((line,), _) = logged(capfd, 1)
    assert line["asked"]["messages"][0]["content"] == "open" and line["answered"] == [f"so {SECRET} opens"]
    quiet = start(WordByWord(lambda request: ValueError("broken inside")), log=RequestLog(quiet=True))
    quiet.chat("nobody")
    quiet.chat()
    ((line,), _) = logged(capfd, 1)
    assert line["status"] == 500 and "broken inside" in line["why"]


def test_a_sample_of_requests_to_bundles_is_kept(start: Start, tmp_path: Path) -> None:
    kept = RequestSample(tmp_path / "unlabelled.jsonl", 1.0)
    server = start(WordByWord(says), sample=kept)
    server.chat("handbook", "How long is leave?")
    server.chat("fake", "not to a bundle")
    body = {"model": "handbook", "prompt": ["When is pay?"], "n": 2}
    assert HTTP.post(f"{server.url}/v1/completions", json=body).status_code == 200
    kept.close()
    rows = [json.loads(line) for line in (tmp_path / "unlabelled.jsonl").read_text().splitlines()]
    assert [(row["input"], row["model"]) for row in rows] == [
        ("How long is leave?", "handbook"),
        ("When is pay?", "handbook"),
    ]


def test_the_schema_tells_bodies_limits_and_errors() -> None:
    schema = build_app(HttpSetup(ModelService({"fake": WordByWord(says)}))).openapi()
    parts = schema["components"]["schemas"]
    text = json.dumps(schema)
    assert all(f'"{name}"' in text for name in ("ChatAsked", "CompletionAsked", "AdapterToLoad", "ErrorBody"))
    chat = schema["paths"]["/v1/chat/completions"]["post"]
    assert chat["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/ChatAsked")
    assert {"400", "401", "404", "408", "413", "415", "429", "500", "503", "504"} <= set(chat["responses"])
    assert "422" not in text
    assert {"text/event-stream", "application/json"} <= set(chat["responses"]["200"]["content"])
    assert parts["ChatAsked"]["properties"]["tools"]["enum"] == [None, []]
    loading = schema["paths"]["/v1/load_lora_adapter"]["post"]["responses"]
    assert list(loading["200"]["content"]) == ["text/plain"] and list(loading["400"]["content"]) == ["application/json"]
    (parameter,) = schema["paths"]["/v1/models/{model}"]["get"]["parameters"]
    assert parameter["in"] == "path" and parameter["required"]
    references = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert references <= set(parts)


def test_the_page_is_shown_with_its_own_headers(start: Start) -> None:
    reply = HTTP.get(start(WordByWord(says)).url + "/")
    assert reply.headers["content-type"] == "text/html; charset=utf-8" and "<html" in reply.text
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert reply.headers.get_list("x-content-type-options") == ["nosniff"]


def test_the_bodies_of_the_tests_are_those_of_the_schema() -> None:
    from rung.serving.http.schemas import ChatAsked

    assert ChatAsked.model_validate(chat_body()).messages[0].text == "hi"
