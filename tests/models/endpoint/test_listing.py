"""The list of models: what each kind of endpoint tells of one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rung.models.endpoint.listing import Listed, listed_from, read_listing


def listing(*rows: dict[str, Any]) -> bytes:
    return json.dumps({"object": "list", "data": rows}).encode()


@pytest.mark.parametrize(
    ("row", "date"),
    [
        ({"shutdown_date": "2027-01-06"}, "2027-01-06"),
        ({"shutdown_date": 1_798_761_600}, "2027-01-01"),
        ({"lifecycle": {"shutdown_date": "2027-01-06T00:00:00Z"}}, "2027-01-06"),
        ({"expiration_date": "2027-02-01"}, "2027-02-01"),
        ({"deprecation": "2027-03-01T12:00:00Z"}, "2027-03-01"),
        ({"deprecation": {"inference": 1_798_761_600, "fine_tune": 1}}, "2027-01-01"),
        ({"shutdown_date": None}, None),
        ({"shutdown_date": "soon"}, None),
        ({}, None),
    ],
)
def test_a_shutdown_date_is_found_in_every_form(row: dict[str, Any], date: str | None) -> None:
    assert read_listing(listing({"id": "other"}, {"id": "m", **row}), "m").shutdown_date == date


@pytest.mark.parametrize(
    ("row", "length"),
    [
        ({"max_model_len": 2048}, 2048),
        ({"context_length": 1000, "top_provider": {"context_length": 900}}, 900),
        ({"meta": {"n_ctx_train": 8192}}, 8192),
        ({"meta": {"n_ctx_train": 8192, "n_ctx": 512}}, 512),
        ({"context_window": True}, None),
    ],
)
def test_the_context_length_is_found_in_every_form(row: dict[str, Any], length: int | None) -> None:
    assert read_listing(listing({"id": "m", **row}), "m").context_length == length


def test_servers_are_known_by_the_owner_that_they_name() -> None:
    assert read_listing(listing({"id": "m", "owned_by": "vllm"}), "m").server == "vllm"
    assert read_listing(listing({"id": "/x.gguf", "owned_by": "me"}), "any name").server == "llama-cpp-python"
    assert read_listing(listing({"id": "m", "owned_by": "openai"}), "m").server is None


def test_the_model_of_a_server_that_takes_any_name_is_told_apart_by_its_id_and_sizes() -> None:
    def weights(id: str, owner: str = "llamacpp", **meta: int) -> str:
        return read_listing(listing({"id": id, "owned_by": owner, "meta": meta}), "any").weights

    known = weights("a.gguf", size=5, n_ctx=512)
    assert known and known == weights("a.gguf", size=5, n_ctx=1024)
    assert len({known, weights("b.gguf", size=5), weights("a.gguf", size=6)}) == 3
    assert weights("a.gguf", "vllm", size=5) == ""


def test_names_like_a_wrong_one_are_found_and_a_record_is_read_back() -> None:
    listed = read_listing(
        listing({"id": "models/gpt-5-mini"}, {"id": "gpt-5"}, *({"id": f"x{i}"} for i in range(9))), "m"
    )
    assert listed.nearest("gpt-5-mni")[0] == "gpt-5-mini"
    assert listed_from(json.loads(json.dumps(listed.record()))) == listed


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"data": 3}', b'{"data": [3, {"id": null}]}', b"3"])
def test_an_unreadable_list_says_nothing(body: bytes) -> None:
    assert read_listing(body, "m") == Listed()
