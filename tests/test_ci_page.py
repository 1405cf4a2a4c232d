"""The workflow of docs/ci.md: it is YAML, its commands exist as they stand there, and its summary says what failed."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from rung.cli.main import rung

PAGE = (Path(__file__).parent.parent / "docs" / "ci.md").read_text("utf-8")


@pytest.fixture(scope="module")
def steps() -> list[dict[str, Any]]:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    found: list[dict[str, Any]] = yaml.safe_load(text)["jobs"]["check"]["steps"]
    return found


def test_every_command_of_the_page_has_a_verb_and_options_that_exist(steps: list[dict[str, Any]]) -> None:
    lines = [step["run"] for step in steps if "run" in step]
    lines += [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    commands = [shlex.split(line) for line in lines if line.startswith("rung ")]
    assert len(commands) >= 4
    for _, verb, *words in commands:
        found = rung.get_command(click.Context(rung), verb)
        assert found is not None, verb
        known = {name for param in found.params for name in param.opts}
        assert {word for word in words if word.startswith("--")} <= known


def test_python_is_set_up_without_a_cache_that_fails_where_a_repository_lists_no_requirements(
    steps: list[dict[str, Any]],
) -> None:
    (python,) = (step for step in steps if step.get("uses", "").startswith("actions/setup-python"))
    assert python["with"] == {"python-version": "3.12"}


def test_the_summary_tells_a_drop_and_an_error(steps: list[dict[str, Any]], tmp_path: Path) -> None:
    (script,) = (step["run"] for step in steps if step.get("name") == "Summary")
    code = script.split("<<'PY'\n")[1].rsplit("PY", 1)[0]
    (tmp_path / "check.json").write_text(json.dumps({"error": {"message": "no such file"}}))
    (tmp_path / "bundle.json").write_text(json.dumps({"difference": {"difference": -0.2, "low": -0.3, "high": -0.1}}))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "**check.json**: no such file" in done.stdout
    assert "**bundle.json**: -20.0 points (-30.0 to -10.0)" in done.stdout
