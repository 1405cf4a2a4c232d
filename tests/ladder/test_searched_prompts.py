"""A whole run that searches an instruction: after the diagnosis, proven on dev, shown on the terminal and the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import rung
from conftest import clerk, decision, expert, noun_of
from rung.ladder import RunOptions, run
from rung.report.html import write_report
from rung.testing import FakeTrainable, Silent
from rung.types import Request
from small_task import write_task

pytest.importorskip("gepa")

GOOD = "Answer with the colour of the noun, in one word."


def _pupil(request: Request) -> str:
    """Proposes a good instruction, and knows all nouns under it."""
    if "better instruction" in request.messages[-1].content:
        return f"<instruction>{GOOD}</instruction>"
    known = noun_of(request) and request.messages[0].content == GOOD
    return expert(request) if known else clerk(request)


def _stubborn(request: Request) -> str:
    return "" if "better instruction" in request.messages[-1].content else clerk(request)


@pytest.fixture
def pupils() -> Iterator[None]:
    from rung.models import OPENERS

    before = OPENERS.copy()
    rung.register_model("pupil:", lambda spec, say: FakeTrainable(_pupil, name=spec))
    rung.register_model("stubborn:", lambda spec, say: FakeTrainable(_stubborn, name=spec))
    yield
    OPENERS[:] = before


def _run(tmp_path: Path, model: str) -> tuple[Path, Silent]:
    listener = Silent()
    options = RunOptions(out=tmp_path / "run", only=("zero_shot", "optimised_prompt"))
    return run(write_task(tmp_path, Path(model), examples=200), options, listener), listener


def test_an_instruction_that_helps_is_found_proven_and_shipped(tmp_path: Path, pupils: None) -> None:
    folder, listener = _run(tmp_path, "pupil:one")
    assert decision(folder)["solution"] == "optimised_prompt" and not decision(folder)["left_early"]
    assert any("is kept (1.00 on 32 train examples" in line for line in listener.said)
    page = write_report(folder).read_text("utf-8")
    assert "How the words were found" in page and "in one word" in page


def test_where_no_proposal_can_be_used_the_verdict_says_so(tmp_path: Path, pupils: None) -> None:
    folder, listener = _run(tmp_path, "stubborn:one")
    skipped = next(s for s in decision(folder)["skipped"] if s["name"] == "optimised_prompt")
    assert skipped["reason"] == "gain" and "of which 6 could not be used" in skipped["why"]
    assert listener.skips["optimised_prompt"] == skipped["why"]
    assert "the proposal was empty" in write_report(folder).read_text("utf-8")
