from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rung.data.checks import kinds
from rung.data.checks.kinds import Sureness
from rung.report.checks import CheckPage, by_kind, counted, page_lines, page_record, screen_lines


def finding(check: str, severity: str, row: str = "", message: str = "Message.", count: int = 1) -> dict[str, Any]:
    return {"check": check, "severity": severity, "row": row, "message": message, "ids": [], "count": count}


def page(*findings: dict[str, Any]) -> str:
    lines = page_lines(CheckPage(Path("task.yaml"), ["orders: 90 rows"], findings, ["Next: rung run task.yaml"]), 100)
    return "\n".join(text for text, _ in lines)


def test_kinds_are_grouped_and_the_gravest_come_first() -> None:
    found = [
        *(finding("casing", "note", f"line {i}") for i in range(3)),
        finding("casing", "note", "", "40 more findings", count=40),
        finding("email", "warning", "line 9"),
        finding("split", "error", "", "Too few."),
    ]
    assert [(k.check, k.severity, k.count) for k in by_kind(found)] == [
        ("split", "error", 1),
        ("email", "warning", 1),
        ("casing", "note", 43),
    ]
    assert counted(found) == "1 error, 1 warning and 43 notes"


def test_the_page_shows_three_rows_of_a_kind_and_counts_the_others() -> None:
    shown = page(*(finding("email", "warning", f"line {i}", f"Holds {i}.") for i in range(5)))
    assert "WARNING E-mail addresses: 5 [email]" in shown and "- line 2: Holds 2." in shown
    assert "line 3" not in shown and "and 2 more" in shown
    assert "--all shows every row" in shown
    assert shown.startswith("orders: 90 rows\n")


def test_a_finding_about_all_rows_of_its_kind_speaks_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rung.report.checks.measured", dict)
    head = finding("leakage", "warning", "", "18 of 60 test rows stand in train.", count=0)
    shown = page(head, *(finding("leakage", "warning", f"t, line {i}") for i in range(18)))
    assert (
        "WARNING Test rows that stand in train: 18 [leakage]\n  18 of 60 test rows stand in train.\n  - t, line 0"
        in shown
    )
    assert "and 15 more" in shown


def test_what_the_data_can_show_is_counted_and_clean_data_are_said_to_be() -> None:
    small = finding("too_small", "warning", "", "90 examples show 30 points.")
    shown = page(small, finding("email", "warning", "line 1"))
    assert "2 warnings, of 2 kinds" in shown
    assert shown.index("E-mail") < shown.index("too small to show [too_small]\n  90 examples show 30 points.")
    assert "nothing to report" in page() and "nothing to report" not in page(small)


def test_all_places_count_the_same_findings() -> None:
    found = [finding("too_small", "warning", "", "Small."), *(finding("casing", "note", f"line {i}") for i in range(3))]
    assert "1 warning and 3 notes, of 2 kinds" in page(*found)
    screen = " ".join(text for text, _ in screen_lines({"findings": found}, {"path": "task.yaml"}, 100))
    assert "Data checks: 1 warning and 3 notes." in screen and "too small to show" in screen
    record = page_record(CheckPage(Path("t"), [], found), {})
    assert record["counts"] == {"errors": 0, "warnings": 1, "notes": 3}


def test_of_many_kinds_fewer_rows_are_shown_and_all_shows_every_one() -> None:
    some = ("email", "iban", "secret", "refusal", "loop", "casing", "quoted")
    found = [finding(c, "note" if c == "casing" else "warning", f"{c} {i}", "M.") for c in some for i in range(5)]
    shown = page(*found)
    assert "email 1" in shown and "email 2" not in shown and "casing 0" in shown and "casing 1" not in shown
    lines = page_lines(CheckPage(Path("task.yaml"), [], found), 100, every=True)
    assert all(f"{c} {i}: M." in "\n".join(text for text, _ in lines) for c in some for i in range(5))
    assert "--all" not in "\n".join(text for text, _ in lines)


def test_what_all_rows_of_a_kind_say_at_their_end_is_not_repeated() -> None:
    found = [finding("email", "warning", f"line {i}", f"Holds {i}. Both here. Mask it.") for i in range(2)]
    assert "line 0: Holds 0.\n" in page(*found) and "line 1: Holds 1.\n" in page(*found)
    assert "line 0: Holds 0. Both here. Mask it." in page(found[0])


def test_a_message_that_begins_with_its_row_does_not_name_it_twice() -> None:
    shown = page(*(finding("broken_document", "warning", f"{i}.pdf", f"{i}.pdf: is damaged.") for i in range(2)))
    assert "  - 1.pdf: is damaged." in shown


def test_what_is_ignored_is_one_line_and_is_not_counted() -> None:
    note = finding("ignored", "note", "", "Not told, as ignore: in task.yaml says: casing (3).", count=0)
    shown = page(note)
    assert "nothing to report" in shown and "Not told, as ignore: in task.yaml says: casing (3)." in shown
    assert "1 warning, of 1 kind" in page(note, finding("email", "warning", "line 1"))
    assert counted([note]) == "no findings"


def test_how_sure_a_kind_is_is_said_where_it_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "right)" not in page(finding("casing", "note", "line 1")) or "casing" in kinds.measured()
    monkeypatch.setattr("rung.report.checks.measured", lambda: {"email": Sureness(0.97, 0.95)})
    found = finding("email", "warning", "line 1")
    assert "WARNING E-mail addresses: 1 [email] (finds 97 %, 95 % right)\n" in page(found)
    record = page_record(CheckPage(Path("t"), [], [found]), {"name": "orders"})
    assert record["name"] == "orders" and record["counts"] == {"errors": 0, "warnings": 1, "notes": 0}
    (kind,) = record["kinds"]
    assert (kind["recall"], kind["precision"], kind["mended_by"]) == (0.97, 0.95, "--fix --mask")


def test_signs_that_command_a_terminal_are_not_printed() -> None:
    assert "\x1b" not in page(finding("email", "warning", "line 1", "\x1b[31mred"))
