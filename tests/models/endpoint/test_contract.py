"""The contract of a model behind an endpoint, checked on fakes with the ways of several servers.

`bench/endpoints.py` puts the same checks to llama.cpp's server and to vLLM.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from rung.models import open_model
from rung.testing import FakeEndpoint
from rung.testing.contract import CHECKS, LABELS, Subject, ask
from rung.types import Constraint, Message

pytest.importorskip("httptools")

SERVERS: dict[str, dict[str, Any]] = {
    "openai": {"refuses_max_tokens": True, "refuses_temperature": True, "caches_prompts": True},
    "thinking": {"thinks": 40, "refuses_max_tokens": True},
    "vllm": {"server": "vllm", "counts_room": True, "context_error": "vllm", "tells_context": "max_model_len"},
    "llama.cpp": {"server": "llama.cpp", "any_model": True, "context_error": "llama.cpp", "tells_context": "meta"},
    "llama-cpp-python": {"server": "llama-cpp-python", "any_model": True, "response_format": "json_object"},
    "without structured output": {"response_format": "ignored"},
    "that refuses structured output": {"response_format": "refused"},
    "busy": {"most_in_flight": 3, "tells_limits": "retry-after", "latency_s": 0.005},
    "faulty": {"faults": {"429": 0.05, "500": 0.05, "drop": 0.05, "cut": 0.05, "bad-json": 0.05, "html": 0.05}},
}


def says(messages: Sequence[Message], body: Mapping[str, Any]) -> str:
    """A small model: it babbles, and answers as it was asked to once it is asked again."""
    asked = messages[-1].content
    if "exactly one of: " in asked:
        return asked.split("exactly one of: ")[1].split(",")[0].split(". Write")[0]
    if "JSON that meets this schema" in asked:
        return '{"city": "Lima", "country": "Peru"}'
    if "matches it" in asked:
        return "1969"
    if "positive or negative" in asked:
        return f"I think that it is {LABELS[0]}, or maybe {LABELS[1]}."
    return f"Well, you said {asked or 'nothing'} to me, and I say it again"


@pytest.mark.parametrize("check", list(CHECKS))
@pytest.mark.parametrize("server", list(SERVERS))
def test_a_model_behind_an_endpoint_keeps_its_contract(
    server: str, check: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNG_CACHE", str(tmp_path))
    ways = {"context_length": 600, "served": "fake-1-2026", **SERVERS[server]}
    with FakeEndpoint(says, **ways) as endpoint:
        subject = Subject(
            open=lambda: open_model(endpoint.spec(timeout=20)),
            served="fake-1-2026",
            long_words=1000,
            calls=lambda: len(endpoint.calls),
        )
        CHECKS[check](subject)


@pytest.mark.parametrize("takes", ["json_schema", "ignored", "refused"])
def test_a_model_that_babbles_until_it_is_cut_is_asked_again_for_a_label(
    takes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNG_CACHE", str(tmp_path))
    with FakeEndpoint(says, response_format=takes) as endpoint:
        model = open_model(endpoint.spec())
        requests = [ask(f"Is it positive or negative? {i}", 6, Constraint("labels", LABELS)) for i in range(5)]
        assert {answer.text for answer in model.generate(requests)} <= set(LABELS)


@pytest.mark.parametrize("takes", ["json_schema", "json_object", "ignored"])
def test_a_label_has_room_for_the_json_around_it(takes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNG_CACHE", str(tmp_path))
    with FakeEndpoint(lambda *_: LABELS[2], response_format=takes) as endpoint:
        request = ask("Is it positive or negative?", len(LABELS[2].split()), Constraint("labels", LABELS))
        (answer,) = open_model(endpoint.spec()).generate([request])
        assert (answer.text, answer.finish) == (LABELS[2], "stop")


def test_calls_in_flight_when_a_model_is_found_to_think_are_asked_again_with_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNG_CACHE", str(tmp_path))
    asked: list[str] = []

    def thinks_from_the_fourth_on(messages: Sequence[Message], body: Mapping[str, Any]) -> str:
        asked.append(messages[-1].content)
        endpoint.change(thinks=0 if len(asked) < 4 else 40)
        return "an answer"

    with FakeEndpoint(thinks_from_the_fourth_on, latency_s=0.05) as endpoint:
        answers = open_model(endpoint.spec()).generate([ask(f"question {i}") for i in range(12)])
        assert {answer.text for answer in answers} == {"an answer"}
