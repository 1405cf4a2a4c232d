"""What the verdict repeats of the checks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rung.ladder.dev_evidence import _earlier_tests, _of_the_data
from rung.records import write_json
from rung.runs import Files


def found(check: str, row: str, message: str, count: int, severity: str = "warning") -> dict[str, Any]:
    return {"check": check, "severity": severity, "row": row, "message": message, "ids": [], "count": count}


def test_the_verdict_repeats_what_the_checks_say_of_the_whole_and_no_row(tmp_path: Path) -> None:
    findings = [
        found("leakage", "", "12 of 40 test rows stand in train.", 0),
        found("leakage", "t, line 1", "The same input as e, line 3 in train.", 1),
        found("leakage", "", "11 more findings of this kind are not listed.", 11),
        found("few_groups", "", "The 40 rows of the test belong to 2 groups.", 1),
        found("broken_document", "a.pdf", "a.pdf: is damaged.", 1),
        found("broken_document", "", "1 of 9 files cannot be read, and is left out.", 0),
        found("broken_document", "", "11 more findings of this kind are not listed.", 11),
        found("scanned_pages", "", "1 of 9 files has pages without text.", 0),
        found("unread_documents", "", "3 of 9 files are not read.", 3),
        found("too_long", "", "1 input does not fit with its answer.", 1, "note"),
        found("email", "t, line 2", "An address.", 1),
    ]
    write_json(Files(tmp_path).checks, {"findings": findings})
    assert _of_the_data(Files(tmp_path)) == [findings[i]["message"] for i in (0, 3, 5, 7, 8)]


def test_a_folder_that_may_not_be_listed_hides_no_run_elsewhere_and_stops_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, earlier = tmp_path / "closed", Files(tmp_path / "runs" / "earlier")
    earlier.folder.mkdir(parents=True)
    write_json(earlier.task, {"identity": "x"})
    write_json(earlier.split, {"test_digests": {"1": "a"}})
    earlier.test_reads.write_text("{}\n")
    listed = Path.iterdir

    def iterdir(path: Path) -> Any:
        if path == closed:
            raise PermissionError(path)
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    monkeypatch.chdir(tmp_path)
    run: Any = SimpleNamespace(folder=closed / "run")
    assert _earlier_tests(run) == {str(earlier.folder): {"test_digests": {"1": "a"}}}
