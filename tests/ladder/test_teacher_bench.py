from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench"


def test_the_bench_of_a_teacher_counts_what_is_paid_planned_and_filtered(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCH / "teacher.py"), "--json", str(tmp_path / "found.json")]
    sizes = ["--only", "distillation", "--rows", "40", "--kills", "2", "--latency", "0.05", "--faults", "0"]
    done = subprocess.run([*command, *sizes], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((tmp_path / "found.json").read_text("utf-8"))["teacher"]
    assert found["kills"] > 0 and found["same"] and found["paid_twice"] == 0
    assert 0.9 * found["planned"] <= found["kept"] <= 1.1 * found["planned"]
    assert found["charged"] >= found["kept"] and found["recall"] > 0.8 and found["leaked"] == 0
