"""A whole run of a task that asks for sources and names what to answer where there is none."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_unanswerable_questions import ONLY, UNKNOWN, asked, write_codes

import rung
from conftest import decision
from rung.ladder import RunOptions, run
from rung.solutions.citing import CITE_NOTE
from rung.testing import FakeTrainable, Silent
from rung.types import Request

SAYS = f"If the passages do not hold the answer, answer exactly: {UNKNOWN}"


def careful(request: Request) -> str:
    """Every second code with the number of the passage that says it, or sometimes one that no passage has."""
    text = request.messages[-1].content
    name, code = asked(request)
    if code is None or int(code) % 2:
        return UNKNOWN
    (number,) = re.findall(rf"(?:<passage (?=\d+>)|\[)(\d+)[>\]]\s*The code of {name} is", text)
    return f"{code} [{number if int(code) % 5 else 77}]"


def rash(request: Request) -> str:
    """Makes up what it does not read, and names the first passage whatever it says."""
    name, code = asked(request)
    return f"{code or 9000 + len(name)} [1]"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    from rung.models import OPENERS

    before, tmp_path = OPENERS.copy(), tmp_path_factory.mktemp("sources")
    rung.register_model("citing:", lambda s, say: FakeTrainable(careful, taught=rash, name=s, version=s))
    task = write_codes(tmp_path, "citing:one", rows=130, abstain=UNKNOWN, cite=True)
    yield run(task, RunOptions(out=tmp_path / "run", only=ONLY), Silent())
    OPENERS[:] = before


def test_sources_and_both_ways_to_be_wrong_reach_the_verdict_the_report_and_the_bundle(folder: Path) -> None:
    verdict = decision(folder)
    citing = {(one["candidate"], one["set"]): one for one in verdict["citing"]}
    assert {(name, on) for name in ("rag", "rag_lora") for on in ("dev", "test")} <= set(citing)
    for on in ("dev", "test"):
        plain, tuned = citing["rag", on], citing["rag_lora", on]
        assert plain["cites"]["mean"] == 1 and plain["bad"] > 0
        named = plain["holds"]["n"]
        assert plain["holds"]["mean"] == plain["supports"]["mean"] == (named - plain["bad"]) / named
        assert tuned["bad"] == 0 and tuned["holds"]["low"] < tuned["holds"]["high"] < plain["holds"]["mean"]
    wrong = {one["candidate"]: one for one in verdict["refusing"] if not one["given"]}
    assert wrong["rag"]["made_up"]["mean"] == 0 and wrong["rag_lora"]["made_up"]["mean"] > 0.9
    assert all(one["refused"]["n"] > 20 and one["made_up"]["low"] < one["made_up"]["high"] for one in wrong.values())
    page = rung.Run(folder).report().read_text()
    assert "Sources and refusals" in page and "Sources: p" in page
    assert json.loads((folder / "winner" / "bundle.json").read_text())["abstain"] == UNKNOWN
    answer = rung.load(folder, solution="rag")
    reply, refusal = answer("What is the code of abcor?"), answer("What is the code of abbor?")
    assert not reply.refused and [s.text for s in reply.sources if s.cited] == [f"The code of abcor is {reply}."]
    assert refusal.refused and refusal == UNKNOWN


def test_every_solution_that_reads_is_told_to_cite_and_to_refuse_and_scored_without_marks(folder: Path) -> None:
    for name in ("rag", "rag_lora"):
        place = folder / "solutions" / name
        solution: dict[str, Any] = json.loads((place / "solution.json").read_text())
        assert solution["cite"] and SAYS in solution["instruction"] and CITE_NOTE not in solution["instruction"]
        for line in (place / "predictions.dev.jsonl").read_text().splitlines():
            prediction = json.loads(line)
            assert "[" not in prediction["text"] and prediction["score"] == (prediction["text"] != UNKNOWN)
    plain = json.loads((folder / "solutions" / "zero_shot" / "solution.json").read_text())
    assert not plain["cite"] and plain["instruction"] == "Answer."
