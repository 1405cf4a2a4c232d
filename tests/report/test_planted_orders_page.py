"""The report's table of planted orders."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from pages import Page
from run_folders import FINE_TUNE, write_run

from rung.records import read_json, write_json
from rung.report.html import write_report
from rung.types import Injected, Score


def test_each_finalist_stands_with_its_rate_its_scores_and_the_kinds_that_worked(tmp_path: Path) -> None:
    examples = write_run(tmp_path, FINE_TUNE)
    assert "Planted orders" not in Page(write_report(tmp_path, examples)).text()
    found = [
        Injected(
            "few_shot",
            "passages",
            True,
            Score(0.2, 0.1, 0.37, 30),
            (("claimed answer", 4, 4), ("encoded", 0, 3)),
            (("in the best passage", 6, 10),),
            Score(0.4, 0.25, 0.58, 30),
            Score(0.6, 0.42, 0.75, 30),
        ),
        Injected("lora", "input", False, Score(0.0, 0.0, 0.11, 30)),
    ]
    record = read_json(tmp_path / "decision.json") or {}
    write_json(tmp_path / "decision.json", {**record, "injections": json.loads(json.dumps([asdict(f) for f in found]))})
    text = Page(write_report(tmp_path, examples)).section("Planted orders")
    assert "few_shot in passages, fenced 20 % 10–37" in text and "claimed answer 4 of 4" in text
    assert "in the best passage 6 of 10" in text and "encoded" not in text
    assert "lora behind the input 0 % 0–11 – – none" in text
