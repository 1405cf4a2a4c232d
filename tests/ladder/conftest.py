from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import rung
from rung.testing import FakeTrainable
from rung.types import Request
from small_task import COLOURS, NOUNS

KNOWN = {noun: COLOURS[i % 3] for i, noun in enumerate(NOUNS)}


def noun_of(request: Request) -> str | None:
    asked = f" {request.messages[-1].content.splitlines()[-1]} "
    return next((noun for noun in NOUNS if f" {noun} " in asked), None)


def clerk(request: Request) -> str:
    """Knows the colours of half of the nouns, and of the others what a passage says."""
    noun = noun_of(request)
    if noun is None:
        return "none"
    said = f"Every {noun} is" in request.messages[-1].content
    return KNOWN[noun] if said or NOUNS.index(noun) % 2 == 0 else "none"


def expert(request: Request) -> str:
    """What training can teach: the colours of all nouns."""
    noun = noun_of(request)
    return KNOWN[noun] if noun is not None else "none"


@pytest.fixture
def fake_model() -> Iterator[Path]:
    """The spec of a model that answers and learns without computing anything; a whole run takes a second."""
    from rung.models import OPENERS

    before = OPENERS.copy()
    rung.register_model("fake:", lambda spec, say: FakeTrainable(clerk, taught=expert, name=spec))
    yield Path("fake:clerk")
    OPENERS[:] = before
