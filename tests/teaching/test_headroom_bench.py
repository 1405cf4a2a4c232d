"""The bench that sets the head-room beside what a search reached."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest

import headroom
import rung
from rung.testing import FakeModel
from rung.types import Request
from small_task import COLOURS, NOUNS, write_task

pytest.importorskip("gepa")

GOOD = "Answer with the colour of the noun, in one word."


def _pupil(request: Request) -> str:
    if "better instruction" in request.messages[-1].content:
        return f"<instruction>{GOOD}</instruction>"
    noun = next(n for n in NOUNS if f" {n} " in request.messages[-1].content)
    colour = COLOURS[NOUNS.index(noun) % 3]
    return colour if request.messages[0].content == GOOD else f"I think that it is {colour}"


@pytest.fixture
def pupil() -> Iterator[Path]:
    from rung.models import OPENERS

    before = OPENERS.copy()
    rung.register_model("pupil:", lambda spec, say: FakeModel(_pupil, name=spec))
    yield Path("pupil:one")
    OPENERS[:] = before


def test_where_the_form_is_what_fails_the_test_says_yes_and_the_search_gains(tmp_path: Path, pupil: Path) -> None:
    task = write_task(tmp_path, pupil, examples=160, labels=False)
    options = argparse.Namespace(
        train=120, dev=40, model=None, teacher=None, prompts="zero_shot", strategies="optimised_prompt"
    )
    (row,) = headroom.measure(task.parent, options, tmp_path / "out", {})
    assert row["head_room"] == 1.0 and row["says"] and row["gain"] == 1.0 and row["shown"] and row["right"]
    assert "yes" in headroom.line(row) and "right in 1 of 1 searches" in headroom.summary([row])
