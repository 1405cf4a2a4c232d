"""What `rung models check` says of an endpoint, against the fake one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rung.errors import ModelError
from rung.models.check import check_model
from rung.models.endpoint.check import without_scheme
from rung.testing.endpoint import FakeEndpoint

QUESTION = "What is 2 + 2? Answer with the number only."
SECRET = "sk-fake-0123456789abcdef"


def answers(messages: object, body: object) -> str:
    return "4" if QUESTION in str(messages) else "yes"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE_KEY", SECRET)


def test_a_check_says_what_an_endpoint_serves_and_when_it_ends() -> None:
    with FakeEndpoint(answers, key=SECRET, shutdown_date="2027-01-06", tells_context="max_model_len") as endpoint:
        found = check_model(endpoint.spec(key_env="FAKE_KEY"))
    facts = dict(found.facts)
    assert (found.name, found.speed) == ("fake-1", None)
    assert facts["endpoint"] == f"{endpoint.url} is reached"
    assert facts["key"] == "found in the environment variable FAKE_KEY"
    assert facts["served"] == "fake-1, fingerprint fp_1"
    assert (facts["context"], facts["ends"], facts["answer"]) == ("8,192 tokens", "2027-01-06", "'4'")
    assert "json_schema" in facts["structured"] and "to the first token" in facts["seconds"]
    assert "not known" in facts["price"]
    assert SECRET not in str(found)


def test_a_check_says_what_is_not_told_and_that_another_model_answers() -> None:
    with FakeEndpoint(answers, any_model=True, served="other", response_format="refused") as endpoint:
        facts = dict(check_model(f"{endpoint.url}#mine").facts)
    assert facts["key"] == "none is sent" and facts["served"].endswith("mine was asked for")
    assert "are assumed" in facts["context"] and facts["ends"] == "no day is told"
    assert facts["structured"].startswith("not held; replies are parsed")


def test_a_check_finds_the_mode_of_a_server_that_fails_in_others() -> None:
    with FakeEndpoint(answers, response_format="json_object") as endpoint:
        assert "json_object" in dict(check_model(endpoint.spec()).facts)["structured"]


@pytest.mark.parametrize(
    ("more", "fact"),
    [({"key_env": "NO_SUCH_KEY"}, "NO_SUCH_KEY is not set"), ({}, "refused the key"), ({"name": "x"}, "x")],
)
def test_what_keeps_an_endpoint_from_answering_is_one_clear_error(more: dict[str, str], fact: str) -> None:
    with FakeEndpoint(answers, key=SECRET) as endpoint, pytest.raises(ModelError, match=fact) as caught:
        check_model(endpoint.spec(**more))
    assert SECRET not in str(caught.value)


def test_a_bare_address_is_answered_with_the_models_that_it_serves() -> None:
    with FakeEndpoint(answers, more_models=("fake-2",)) as endpoint:
        found = check_model(endpoint.url)
        assert not endpoint.calls
    assert [fact for what, fact in found.facts if what == "model"] == ["fake-1", "fake-2"]
    assert f"rung models check '{endpoint.url}#fake-1'" in found.facts[0][1]


def test_a_bare_address_that_cannot_be_asked_is_an_error_that_names_no_model() -> None:
    with FakeEndpoint(answers, key=SECRET) as endpoint:
        with pytest.raises(ModelError, match=r"the endpoint at 127\.0\.0\.1:\d+: the endpoint refused the key"):
            check_model(endpoint.url)
        with pytest.raises(ModelError, match="nothing was found at"):
            check_model(endpoint.url.removesuffix("/v1"))
    with pytest.raises(ModelError, match="its list of models did not come"):
        check_model(endpoint.url)


def test_a_check_of_an_endpoint_loads_no_torch() -> None:
    code = (
        "import sys\nfrom rung.testing.endpoint import FakeEndpoint\nfrom rung.models.check import check_model\n"
        "with FakeEndpoint() as e: check_model(e.spec())\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_mapping_of_a_task_is_checked_with_its_price_and_its_label() -> None:
    tokens = {"usd_per_million_in": 2, "usd_per_million_out": 8}
    with FakeEndpoint(answers) as endpoint:
        facts = dict(check_model(endpoint.spec(label="mine", price=tokens)).facts)
        assert facts["price"] == "2 USD input, 8 USD output a million tokens (the task's)"
        assert float(facts["cost"].split()[0].removeprefix("$")) > 0
        hourly = dict(check_model(endpoint.spec(price={"usd_per_hour": 1.2})).facts)
        assert hourly["price"] == "1.2 USD an hour (the task's)"
        with pytest.raises(ModelError, match=r"price\.usd_an_hour is an unknown key"):
            check_model(endpoint.spec(price={"usd_an_hour": 1.2}))


def test_a_check_says_that_a_name_is_not_listed_and_how_long_the_context_of_the_only_model_is() -> None:
    with FakeEndpoint(answers, any_model=True, server="llama.cpp", tells_context="meta") as endpoint:
        facts = dict(check_model(f"{endpoint.url}#nosuchmodel").facts)
        assert "name" not in dict(check_model(endpoint.spec()).facts)
    assert facts["name"].startswith("nosuchmodel is not in the server's list, which has fake-1; it answers with that")
    assert facts["context"] == "8,192 tokens"


@pytest.mark.parametrize(
    "name", ["127.0.0.1:8077/v1", "localhost:8077/v1#m", "[::1]:8077/v1", "api.openai.com/v1#gpt-5-mini", "gpu7:8000"]
)
def test_an_address_without_http_is_told_from_the_name_of_a_model(name: str) -> None:
    with pytest.raises(ModelError, match="begins with http:// or https://") as caught:
        check_model(name)
    assert f"http://{name}" in str(caught.value)


def test_an_address_without_http_is_shown_without_its_parameters() -> None:
    with pytest.raises(ModelError, match="begins with http:// or https://") as caught:
        check_model("gpu7:8000/v1?api_key=secret-1")
    assert "secret-1" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["owner/model", "smollm2-135m-instruct:4bit", "owner.name/model-v1", "folder/v1", "./v1"]
)
def test_a_name_of_a_local_model_is_no_address(name: str) -> None:
    assert without_scheme(name) is None
