"""The report's section about shorter prompts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pages import Page
from run_folders import FINE_TUNE, write_run

from rung.records import write_json
from rung.report.examples import _tally
from rung.report.html import write_report
from rung.types import Candidate, LeftEarly, Score


def length(name: str, tokens: float, mean: float, n: int = 60, *, trained: bool = False) -> dict[str, Any]:
    score = {"mean": mean, "low": mean - 0.05, "high": mean + 0.05, "n": n}
    versus = {"difference": mean - 0.85, "low": mean - 0.95, "high": mean - 0.75}
    part = {"length": name, "trained": trained, "tokens_in": tokens, "set": "dev" if n == 60 else "screen"}
    return {**part, "score": score, "versus": None if name == "as it is" else versus}


def page_of(folder: Path, taken: int | None, **more: Any) -> Page:
    examples = write_run(folder, FINE_TUNE)
    rows = [
        length("as it is", 143, 0.85),
        length("the first sentence of the instruction", 31, 0.6, 48),
        length("the input alone", 12, 0.84, trained=True),
    ]
    record = {"from": "lora", "lengths": rows, "taken": taken, "not_trained": None, **more}
    write_json(folder / "solutions" / "lora_short" / "shortening.json", record)
    return Page(write_report(folder, examples))


def test_every_length_stands_with_its_tokens_and_scores_and_the_taken_one_is_marked(tmp_path: Path) -> None:
    text = page_of(tmp_path, 2).section("Shorter prompts")
    assert "The prompt of lora made shorter" in text
    assert "the input alone, trained on with it lora_short" in text
    assert "48 of dev" in text and "143" in text and "79–89" in text


def test_without_a_shorter_prompt_the_table_stands_all_the_same(tmp_path: Path) -> None:
    text = page_of(tmp_path, None, not_trained="the budget was spent").section("Shorter prompts")
    assert "The prompt of lora made shorter" in text and "lora_short" not in text
    assert "was not trained on with the input alone: the budget was spent" in text


def test_the_caption_of_scores_says_who_was_tested_beside_shorter_prompts_and_unproven_solutions(
    tmp_path: Path,
) -> None:
    scores = page_of(tmp_path / "short", 2).section("Scores and costs")
    assert "Only the candidate of each approach that is best on dev, and the same with a shorter prompt, was." in scores
    assert "did not prove its gain" not in scores
    taught = LeftEarly("zero_shot", "it is not ahead of few_shot on dev", unproven=True)
    case = replace(FINE_TUNE, left_early=(taught,))
    text = Page(write_report(tmp_path / "other", write_run(tmp_path / "other", case))).section("Scores and costs")
    assert "best on dev was. What did not prove its gain on dev is no candidate." in text


def test_where_the_winner_gets_nothing_right_none_is_said() -> None:
    few = Candidate("few_shot", "prompt", Score(0, 0, 0.3, 9), Score(0, 0, 0.3, 9), 9, 9, None, None, None, 0, 0)
    answers = {str(i): {"score": 0.0} for i in range(9)}
    assert _tally(few, None, answers, ([], [], list(answers))) == "Of 9 test examples, few_shot gets none wholly right."
    assert "does not get 8 wholly right" in _tally(few, None, answers, ([], [], list(answers)[:8]))
