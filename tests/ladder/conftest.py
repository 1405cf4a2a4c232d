from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rung
from rung.testing import FakeModel, FakeTrainable
from rung.types import Price, Request
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


SMALL, LARGE = {"name": "small:clerk", "label": "small"}, {"name": "large:expert", "label": "large"}
PRICE = Price(usd_per_million_in=2.0, usd_per_million_out=8.0)


@pytest.fixture
def models() -> Iterator[None]:
    """small: knows half, and can learn the rest. large: knows all, is paid by the token, and cannot be trained."""
    from rung.models import OPENERS

    before = OPENERS.copy()
    rung.register_model("small:", lambda spec, say: FakeTrainable(clerk, taught=expert, name=spec, version=spec))
    rung.register_model("large:", lambda spec, say: FakeModel(expert, name=spec, version=spec, price=PRICE))
    yield
    OPENERS[:] = before


def decision(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "decision.json").read_text())
    return found


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


class Killed(BaseException):
    """Not caught by anything, like SIGKILL."""


def killed_in_search(monkeypatch: pytest.MonkeyPatch, search: type, at: int) -> list[int]:
    """The search of that class kills the run once, behind `at` blocks. [0] of the list: how often it was asked."""
    real, asked = search.search, [0]  # type: ignore[attr-defined]

    def search_or_die(self: Any, queries: Any, k: int) -> Any:
        asked[0] += 1
        if asked[0] == at + 1:
            raise Killed
        return real(self, queries, k)

    monkeypatch.setattr(search, "search", search_or_die)
    return asked


def append_rows(task: Path, rows: list[dict[str, Any]]) -> None:
    with (task.parent / "examples.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def fake_model() -> Iterator[Path]:
    """The spec of a model that answers and learns without computing anything; a whole run takes a second."""
    from rung.models import OPENERS

    before = OPENERS.copy()
    rung.register_model("fake:", lambda spec, say: FakeTrainable(clerk, taught=expert, name=spec))
    yield Path("fake:clerk")
    OPENERS[:] = before
