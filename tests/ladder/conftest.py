from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import rung
from rung.testing import FakeTrainable
from rung.types import Request
from small_task import COLOURS, NOUNS

KNOWN = {noun: COLOURS[i % 3] for i, noun in enumerate(NOUNS)}


def clerk(request: Request) -> str:
    """Knows the colours of half of the nouns; of the others only with a demo or a passage that says it."""
    *_, last = request.messages
    noun = next((n for n in NOUNS if f" {n} " in f"{last.content.splitlines()[-1]} "), None)
    if noun is None:
        return "none"
    if NOUNS.index(noun) % 2 == 0 or any(noun in m.content for m in request.messages[:-1]):
        return KNOWN[noun]
    return KNOWN[noun] if f"Every {noun} is" in last.content else "none"


@pytest.fixture
def fake_model() -> Iterator[Path]:
    """The spec of a model that answers and learns without computing anything; a whole run takes a second."""
    from rung.models import OPENERS

    before = OPENERS.copy()
    rung.register_model("fake:", lambda spec, say: FakeTrainable(clerk, name=spec))
    yield Path("fake:clerk")
    OPENERS.clear()
    OPENERS.update(before) if isinstance(OPENERS, dict) else OPENERS.extend(before)
