from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("httptools")

BENCH = Path(__file__).parents[3] / "bench"


def test_kills_cost_no_kept_answer_and_no_cent_beyond_the_budget(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCH / "paid.py"), "--json", str(tmp_path / "found.json")]
    sizes = ["--calls", "120", "--kills", "2", "--in-flight", "10", "--budget-in-flight", "2", "--faults", "0.05"]
    done = subprocess.run([*command, *sizes, "--seed", "2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text("utf-8"))["paid"]
    assert found["kills"] > 0 and found["budget_kills"] > 0
    assert (found["again"], found["lost"], found["right"]) == (0, 0, 120)
    assert found["charged"] == 120 + found["in_flight_charged_twice"]
    assert found["in_flight_charged_twice"] <= found["in_flight"] and found["most_in_flight_at_a_kill"] <= 10
    assert 0 < found["usd_charged"] <= found["usd_limit"] == 1.0
    for row in ("budget_", "budget_unkilled_", "budget_plain_"):
        assert found[f"{row}usd_charged"] <= found[f"{row}usd_purse"] <= 1.0
        assert (found[f"{row}again"], found[f"{row}usd_short"]) == (0, 0.0)
        assert found[f"{row}answers"] > 0
