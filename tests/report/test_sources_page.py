"""The report's section about sources and refusals, and sources beside the answers that are shown."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from pages import Page
from run_folders import FINE_TUNE, write_run

from rung.records import read_json, read_lines, write_json, write_lines
from rung.report.html import write_report
from rung.types import Citing, Refusing, Score


def share(mean: float) -> Score:
    return Score(mean, mean - 0.1, mean + 0.1, 50)


def test_sources_and_refusals_stand_with_intervals_for_each_candidate(tmp_path: Path) -> None:
    examples = write_run(tmp_path, FINE_TUNE)
    record = read_json(tmp_path / "decision.json") or {}
    citing = (
        Citing("rag_lora", "test", share(0.9), share(0.8), share(0.7), 3),
        Citing("rag", "dev", share(0.2), None, None, 0),
    )
    refusing = (Refusing("rag", False, share(0.4), share(0.3)), Refusing("lora", True, share(0.6), None))
    record |= {"citing": [asdict(c) for c in citing], "refusing": [asdict(r) for r in refusing]}
    write_json(tmp_path / "decision.json", record)
    text = Page(write_report(tmp_path, examples)).section("Sources and refusals")
    assert "rag_lora test 90 % 80–100 80 % 70–90 70 % 60–80 3" in text and "rag dev 20 % 10–30 – – 0" in text
    assert "rag 50 dev questions without their passages 40 % 30–50 50 dev rows with an answer 30 % 20–40" in text
    assert "lora 50 unanswerable dev rows 60 % 50–70 – –" in text


def test_sources_stand_beside_the_answers_that_are_shown(tmp_path: Path) -> None:
    examples = write_run(tmp_path, FINE_TUNE)
    name = json.loads((tmp_path / "decision.json").read_text())["solution"]
    path = tmp_path / "solutions" / name / "predictions.test.jsonl"
    rows = [{**row, "citations": ["handbook <b>#3"], "bad_citations": 2} for row in read_lines(path)]
    assert "Sources:" not in write_report(tmp_path, examples).read_text()
    write_lines(path, rows)
    assert "Sources: handbook &lt;b&gt;#3, 2 numbers of no passage" in write_report(tmp_path, examples).read_text()
