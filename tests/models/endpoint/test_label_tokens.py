from __future__ import annotations

from pathlib import Path

from rung.models.endpoint.endpoint import Endpoint
from rung.models.endpoint.label_tokens import token_grammar
from rung.models.endpoint.spec import parse
from rung.testing import FakeEndpoint
from rung.types import Constraint, Decoding, Message, Request

LABELS = Constraint("labels", ("card arrived", "card lost", "où est-elle"))


def asked(text: str) -> Request:
    return Request((Message("user", text),), Decoding(8), LABELS)


def test_a_grammar_of_tokens_lists_each_label() -> None:
    assert token_grammar([[5], [6, 70]]) == "root ::= <[5]> | <[6]> <[70]>"


def test_llama_cpp_is_held_to_the_tokens_of_labels_which_are_asked_for_once(tmp_path: Path) -> None:
    with FakeEndpoint(lambda messages, body: "card lost", server="llama.cpp") as server:
        for command in range(2):
            endpoint = Endpoint(parse(server.spec()), folder=tmp_path)
            found = [g.text for g in endpoint.generate([asked(f"where {command} {i}") for i in range(6)])]
            assert found == ["card lost"] * 6
            assert endpoint.facts()["response_format"] == {"tokens": 6}
            endpoint.close()
        bodies = [call.body for call in server.record.calls]
        assert all("<[" in body["grammar"] for body in bodies) and len(bodies) == 12


def test_a_server_that_tells_no_tokens_is_held_to_texts(tmp_path: Path) -> None:
    with FakeEndpoint(lambda messages, body: "card lost", server="llama-cpp-python") as server:
        endpoint = Endpoint(parse(server.spec()), folder=tmp_path)
        assert endpoint.generate([asked("where")])[0].text == "card lost"
        assert endpoint.facts()["response_format"] == {"grammar": 1}
        endpoint.close()
