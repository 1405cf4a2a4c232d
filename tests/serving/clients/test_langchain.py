"""LangChain's ChatOpenAI against a server that runs."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel, SecretStr

from live_server import KEY, Live

pytest.importorskip("langchain_openai")


class Card(BaseModel):
    """A card."""

    colour: Literal["red", "green"]


def chat(live: Live, name: str, **more: Any) -> Any:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model=name, base_url=f"{live.url}/v1", api_key=SecretStr(KEY), max_retries=0, **more)


def test_a_bundle_is_invoked_streamed_and_asked_in_batches(live: Live) -> None:
    model = chat(live, "tuned")
    whole = model.invoke("Which colour is the door?")
    assert whole.content == live.chat("tuned", "Which colour is the door?")["choices"][0]["message"]["content"]
    assert whole.usage_metadata["output_tokens"] > 0
    assert "".join(piece.content for piece in model.stream("Which colour is the door?")) == whole.content
    assert [answer.content for answer in model.batch(["Which colour is the door?"] * 3)] == [whole.content] * 3


def test_turns_of_a_conversation_are_taken(live: Live) -> None:
    turns = [("system", "Be short."), ("human", "A door?"), ("ai", "Red."), ("human", "And a boat?")]
    assert chat(live, "cards").invoke(turns).response_metadata["finish_reason"] in ("stop", "length")


def test_structured_output_is_what_the_schema_says(live: Live) -> None:
    held = chat(live, "tiny", max_completion_tokens=48).with_structured_output(Card, method="json_schema")
    assert isinstance(held.invoke("Which colour is the door?"), Card)
