"""An endpoint's spec: one canonical text, and no key in it."""

from __future__ import annotations

import json

import pytest

from rung.errors import ModelError
from rung.models.endpoint.spec import EndpointSpec, parse
from rung.models.endpoint.transport import Hidden


def test_a_spec_is_read_back_from_its_text_and_defaults_are_left_out() -> None:
    spec = EndpointSpec("https://api.openai.com/v1", "gpt-5-mini", params={"reasoning_effort": "low"}, timeout=600.0)
    assert json.loads(spec.text) == {
        "endpoint": "https://api.openai.com/v1",
        "name": "gpt-5-mini",
        "params": {"reasoning_effort": "low"},
    }
    assert parse(spec.text) == spec


@pytest.mark.parametrize(
    "typed",
    [
        "http://LOCALHOST:8000/v1/#org/model",
        "http://localhost:8000/v1/chat/completions#org/model",
        '{"name": "org/model", "endpoint": "http://localhost:8000/v1"}',
    ],
)
def test_several_spellings_of_an_address_are_one_spec(typed: str) -> None:
    assert parse(typed).text == '{"endpoint": "http://localhost:8000/v1", "name": "org/model"}'


@pytest.mark.parametrize(
    ("endpoint", "variable"),
    [
        ("https://api.openai.com/v1", "OPENAI_API_KEY"),
        ("https://mine.openai.azure.com/openai/v1", "AZURE_OPENAI_API_KEY"),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
        ("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"),
        ("http://127.0.0.1:8080/v1", None),
        ("http://[::1]:8080/v1", None),
        ("https://notapi.openai.com.example.org/v1", None),
    ],
)
def test_the_host_says_which_variable_holds_the_key(endpoint: str, variable: str | None) -> None:
    assert EndpointSpec(endpoint, "m").key_variable == variable


@pytest.mark.parametrize(
    ("typed", "shown"),
    [("http://[::1/v1#m", "it"), ("localhost:8000/v1#m", "it"), ("https://host:99999/v1#m", "https://host")],
)
def test_what_is_no_address_is_shown_as_far_as_its_host(typed: str, shown: str) -> None:
    with pytest.raises(ModelError, match=f"^endpoint: {shown} is no address"):
        parse(typed)


def test_messages_name_the_port_where_the_address_has_one() -> None:
    assert parse("http://127.0.0.1:8077/v1#m").where == "model m at 127.0.0.1:8077"
    assert parse("http://[::1]:8077/v1#*").where == "the endpoint at [::1]:8077"
    assert parse("https://api.openai.com/v1#m").where == "model m at api.openai.com"


def test_a_key_is_read_when_it_is_used_and_a_missing_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = parse("https://api.openai.com/v1#m")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ModelError, match="OPENAI_API_KEY is not set"):
        spec.key()
    monkeypatch.setenv("OPENAI_API_KEY", " sk-1\n")
    assert spec.key() == "sk-1"


def test_azures_older_interface_has_the_deployment_in_its_address() -> None:
    spec = parse("https://mine.openai.azure.com/?api-version=2024-10-21#my model")
    assert spec.base == "https://mine.openai.azure.com/openai"
    assert spec.chat_path == "/deployments/my%20model/chat/completions?api-version=2024-10-21"
    newer = parse("https://mine.openai.azure.com/openai/v1#my model")
    assert (newer.base, newer.chat_path) == ("https://mine.openai.azure.com/openai/v1", "/chat/completions")


def test_a_key_is_hidden_in_the_headers_and_goes_where_the_provider_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K", "sk-1")
    plain = parse('{"endpoint": "https://h/v1", "name": "m", "key_env": "K"}').headers()
    azure = parse('{"endpoint": "https://h.openai.azure.com/openai/v1", "name": "m", "key_env": "K"}').headers()
    assert "sk-1" not in repr(plain) + repr(azure)
    assert isinstance(plain["authorization"], Hidden) and plain["authorization"].reveal() == "Bearer sk-1"
    assert isinstance(azure["api-key"], Hidden) and azure["api-key"].reveal() == "sk-1"
    assert "authorization" not in parse("http://localhost:1/v1#m").headers()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{not json", "is none"),
        ('{"endpoint": "https://h/v1"}', "name is missing"),
        ('{"endpoint": "https://h/v1", "name": "m", "nam": 1}', "'nam'"),
        ('{"endpoint": "ftp://h/v1", "name": "m"}', "no address"),
        ('{"endpoint": "http://[::1/v1", "name": "m"}', "no address"),
        ('{"endpoint": "https://h/v1", "name": "m", "in_flight": 0}', "in_flight must be"),
        ('{"endpoint": "https://h/v1", "name": "m", "timeout": true}', "timeout must be"),
        ('{"endpoint": "https://h/v1", "name": "m", "response_format": "xml"}', "response_format must be"),
        ('{"endpoint": "https://h/v1", "name": "m", "params": {"model": "x"}}', "must not set model"),
    ],
)
def test_a_wrong_spec_is_refused_with_what_to_write(text: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://user:sk-secret-1@h/v1#m",
        "https://h/v1?key=sk-secret-1#m",
        '{"endpoint": "https://h/v1", "name": "m", "key_env": "sk-secret-1"}',
        '{"endpoint": "https://h/v1", "name": "m", "params": {"api-key": "sk-secret-1"}}',
        '{"endpoint": "https://h/v1", "name": "m", "params": {"extra": [{"of": "sk-secret-1-0123456789"}]}}',
        '{"api_key": "sk-secret-1", "endpoint": ',
    ],
)
def test_a_key_in_a_spec_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ModelError) as raised:
        parse(text)
    assert "sk-secret-1" not in str(raised.value)


def test_a_key_in_the_place_of_its_variable_is_not_shown_though_it_could_be_a_name() -> None:
    with pytest.raises(ModelError, match="never the key") as raised:
        parse('{"endpoint": "https://h/v1", "name": "m", "key_env": "gsk_0123456789abcdefABCDEF"}')
    assert "gsk_0123" not in str(raised.value)
