"""Any model as an Answerer: one who asks does not suffer from the others, nor the thread that answers from any."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rung.models.one_by_one import OneByOne
from rung.models.streaming import Ask, Whole
from rung.testing import FakeModel, tiny_model
from rung.types import Decoding, Generation, Message, Request


def asks(text: str) -> Ask:
    return Ask(Request((Message("user", text),), Decoding(4)))


class Picky(FakeModel):
    """Fails in a call with a text that it does not like, and leaves an answer out in another one."""

    first = threading.Event()

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        self.first.wait(10)
        texts = [request.messages[-1].content for request in requests]
        if "bad" in texts:
            raise ValueError("a bad one")
        return [Generation(text, 1, 1, 0.0, "stop") for text in texts if text != "lost"]


class Deaf(Whole):
    def done(self, generation: Generation) -> None:
        super().done(generation)
        raise OSError("it went")


def test_a_request_that_fails_takes_no_other_with_it() -> None:
    answerer = OneByOne(Picky({}), together=8)
    heard = [Deaf() if text == "deaf" else Whole() for text in ("a", "bad", "deaf", "lost", "b")]
    for text, hears in zip(("a", "bad", "deaf", "lost", "b"), heard, strict=True):
        answerer.submit(asks(text), hears)
    Picky.first.set()
    got = [hears.wait() for hears in heard]
    assert [one.text for one in got] == ["a", "", "deaf", "", "b"]
    assert "a bad one" in str(got[1].error) and "gave 0 answers" in str(got[3].error)
    assert answerer.generate([asks("c").request])[0].text == "c", "the thread lives on"
    answerer.close()


def test_adapters_come_and_go_between_two_calls_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = tiny_model(3)
    computing, ends, changed = threading.Event(), threading.Event(), list[str]()

    def slow(requests: Sequence[Request]) -> list[Generation]:
        computing.set()
        ends.wait(10)
        changed.append("answered")
        return [Generation("x", 1, 1, 0.0, "stop")]

    monkeypatch.setattr(model, "generate", slow)
    monkeypatch.setattr(model, "check_fits", lambda _: changed.append("held"))
    monkeypatch.setattr(model, "release", lambda _: changed.append("released"))
    answerer = OneByOne(model)
    hears = Whole()
    answerer.submit(asks("a"), hears)
    computing.wait(10)
    threads = [threading.Thread(target=do, args=(Path("a"),)) for do in (answerer.hold, answerer.release)]
    for thread in threads:
        thread.start()
    threads[0].join(0.1)
    assert not changed
    ends.set()
    for thread in threads:
        thread.join(10)
    assert changed[0] == "answered" and sorted(changed[1:]) == ["held", "released"]
    answerer.close()
