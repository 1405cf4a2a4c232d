"""The report's section about why answers with passages are wrong, and the line in the terminal."""

from __future__ import annotations

from dataclasses import asdict
from io import StringIO
from pathlib import Path

from pages import Page
from rich.console import Console
from run_folders import EVERYTHING, write_run

from rung.records import read_json, write_json
from rung.report.html import write_report
from rung.report.terminal import final_screen
from rung.types import SearchFailure

ROWS = (
    SearchFailure("rag_lora", "missed", 0.6, 0.43, 0.74, 18, 30, "<gold>", 18, 12, 1, 0.6, 0.4, 0.8, 12, 2, 0),
    SearchFailure("rag_lora", "absent", 0.4, 0.26, 0.57, 12, 30),
    SearchFailure("rag", "unused", 1.0, 0.9, 1.0, 50, 50),
)


def write_case(folder: Path, rows: tuple[SearchFailure, ...]) -> Path:
    write_run(folder, EVERYTHING)
    record = read_json(folder / "decision.json")
    assert record is not None
    write_json(folder / "decision.json", {**record, "search_failures": [asdict(row) for row in rows]})
    return folder


def terminal(folder: Path) -> str:
    out = StringIO()
    Console(file=out, width=100).print(final_screen(folder))
    return out.getvalue()


def test_each_solution_has_a_table_of_causes_with_what_was_tried(tmp_path: Path) -> None:
    page = Page(write_report(write_case(tmp_path, ROWS)))
    text = page.section("Why answers with passages are wrong")
    assert "Each of the 30 wrong answers of rag_lora" in text and "Each of the 50 wrong answers of rag " in text
    assert "the search does not find the passage" in text and "60 % 43–74" in text
    assert "12 of 18 (1)" in text and "2 of 12 (0)" in text and "&lt;gold&gt;" in text
    assert text.count("answered again") == text.count("Tried on some") == 1, "where nothing was tried, nothing is said"
    assert 'data-label="Came out right"' in (tmp_path / "report.html").read_text("utf-8")


def test_the_end_of_a_run_has_a_line_of_the_shipped_solution(tmp_path: Path) -> None:
    assert "Passages: rag_lora has 30 wrong answers on dev: missed 60 %, absent 40 %." in terminal(
        write_case(tmp_path, ROWS)
    )
    assert "Passages: rag has 50 wrong answers on dev: unused 100 %." in terminal(write_case(tmp_path / "b", ROWS[2:]))


def test_a_run_without_it_says_nothing_of_it(tmp_path: Path) -> None:
    folder = write_case(tmp_path, ())
    assert "Passages:" not in terminal(folder)
    assert "Why answers with passages are wrong" not in write_report(folder).read_text("utf-8")
