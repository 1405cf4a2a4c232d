"""The report's section about the ways to find passages."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from pages import Page
from run_folders import EVERYTHING, write_run

from rung.records import read_json, write_json
from rung.report.html import write_report
from rung.types import Score, SearchWay

HALF = Score(0.5, 0.4, 0.6, 100)
WAYS = (
    SearchWay("bm25", "way", 100, HALF, HALF, HALF, HALF, HALF, 0.1, 1.5),
    SearchWay("dense-<a>", "way", 100, HALF, Score(0.7, 0.61, 0.78, 100), HALF, HALF, HALF, 1234.5, 2.5, chosen=True),
    SearchWay("bm25-256-tokens", "size", 100, HALF, HALF, HALF, HALF, Score(0.9, 0.8, 0.95, 100), 0.1, 1.5),
)


def page_of(folder: Path, **found: object) -> Page:
    write_run(folder, EVERYTHING)
    record = read_json(folder / "decision.json")
    assert record is not None
    write_json(folder / "decision.json", {**record, **found})
    return Page(write_report(folder))


def test_ways_and_sizes_have_a_table_each_and_the_chosen_one_is_marked(tmp_path: Path) -> None:
    page = page_of(tmp_path, searches=[asdict(w) for w in WAYS], searches_not_tried=["Fused search was not tried: x."])
    text = page.section("How passages are found")
    assert "On 100 train questions" in text and "70 % 61–78" in text and "1,234.5 s" in text
    assert text.count("chosen") == 1 and text.index("dense-&lt;a&gt;") < text.index("chosen") < text.index("70 %")
    assert text.index("passages of other sizes") < text.index("bm25-256-tokens")
    assert "Fused search was not tried: x." in text


def test_the_page_says_how_the_passages_are_known(tmp_path: Path) -> None:
    ways = [{**asdict(w), "known": "marked by you for 100 of 100"} for w in WAYS]
    text = page_of(tmp_path, searches=ways).section("How passages are found")
    assert "These passages are marked by you for 100 of 100." in text


def test_a_run_without_a_corpus_has_no_such_section(tmp_path: Path) -> None:
    page_of(tmp_path)
    assert "How passages are found" not in (tmp_path / "report.html").read_text("utf-8")
