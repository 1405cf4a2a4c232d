"""What `rung models check` says of an endpoint, against the fake one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rung.errors import ModelError
from rung.models.check import check_model
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
        with pytest.raises(ModelError, match=r"the endpoint at 127\.0\.0\.1: the endpoint refused the key"):
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
