from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[3] / "bench"


def test_the_bench_counts_every_answer_and_every_fault(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCH / "http.py"), "--json", str(tmp_path / "found.json")]
    sizes = ["--calls", "200", "--in-flight", "50", "--latency", "0.01", "--faults", "0.2", "--rounds", "1"]
    done = subprocess.run([*command, *sizes], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text("utf-8"))["http"]
    assert found["faults_sent"] > 0 and 0 < found["share_of_ideal"] <= 1 and 0 < found["calls_share_of_ideal"] <= 1
    assert {"openai_share_of_ideal"} <= set(found)
    assert (found["faults_lost"], found["faults_doubled"], found["faults_uncounted"]) == (0, 0, 0)


def test_the_name_of_the_bench_hides_no_module_of_the_standard_library() -> None:
    code = f"import sys; sys.path.insert(0, {str(BENCH)!r})\nimport http.client, http\nassert http.HTTPStatus.OK == 200"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
