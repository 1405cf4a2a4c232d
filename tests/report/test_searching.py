"""The section about searched words: what was proposed, as differences, with scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pages import Page
from run_folders import FINE_TUNE, write_run

from rung.records import write_lines
from rung.report.html import write_report
from rung.report.searching import difference
from rung.teaching.rules import HouseRules, note_rules

START = {"number": 0, "changed": None, "parent": None, "instruction": "Name the queue.", "demos": "none"}
NOTHING: dict[str, Any] = {"minibatch": None, "val": None, "refused": None, "accepted": False, "kept": False}


def proposal(number: int, instruction: str, **more: Any) -> dict[str, Any]:
    changed = {"number": number, "changed": "instruction", "parent": 0, "instruction": instruction, "demos": "none"}
    return {**changed, **NOTHING, **more}


LOG = [
    {**START, **NOTHING, "val": {"n": 32, "score": 0.25, "left": None}},
    proposal(1, "", refused="the proposal was empty"),
    proposal(2, "Name the queue, <b>bare</b>.", minibatch={"n": 8, "before": 0.25, "after": 0.25}),
    proposal(
        3,
        "Name the queue in lower case.",
        minibatch={"n": 8, "before": 0.25, "after": 0.75},
        val={"n": 32, "score": 0.5, "left": None},
        accepted=True,
        kept=True,
    ),
]


def test_a_difference_marks_what_is_new_and_what_is_gone() -> None:
    said = difference("Name the queue.", "Say the queue in lower case.")
    assert said == "<pre><del>Name</del><ins>Say</ins> the queue<ins> in lower case</ins>.</pre>"


def test_the_search_stands_in_the_report_with_scores_and_differences(tmp_path: Path) -> None:
    write_run(tmp_path, FINE_TUNE)
    write_lines(tmp_path / "solutions" / "optimised_prompt" / "search.jsonl", LOG)
    page = Page(write_report(tmp_path))
    text = page.text()
    assert page.open == []
    for words in ("How the words were found", "not tried: the proposal was empty", "no better on the examples", "kept"):
        assert words in text
    assert "<ins> in lower case</ins>" in page.source and "<b>bare" not in page.source


def test_stated_rules_stand_in_the_report(tmp_path: Path) -> None:
    write_run(tmp_path, FINE_TUNE)
    drafts = [HouseRules(1, ("Be brief.",), None), HouseRules(2, (), "the answer held no list of rules")]
    note_rules(tmp_path / "solutions" / "stated_rules", drafts, drafts[0])
    text = Page(write_report(tmp_path)).text()
    assert "Be brief." in text and "Draft 1 (kept)" in text and "the answer held no list of rules" in text


def test_a_run_without_a_search_has_no_such_section(tmp_path: Path) -> None:
    write_run(tmp_path, FINE_TUNE)
    assert "How the words were found" not in Page(write_report(tmp_path)).text()
