"""The documents against the code: what they name exists, and what exists is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from rung.cli.main import VERBS, rung
from rung.data.task_keys import TaskKeys
from rung.demos import DEMOS
from rung.evaluation.metrics import METRICS
from rung.strategies import STRATEGIES

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def text(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def test_the_readme_begins_with_two_commands_that_the_makefile_has() -> None:
    commands = re.findall(r"^make (\w+)", text("README.md"), re.MULTILINE)
    targets = re.findall(r"^(\w+):", text("Makefile"), re.MULTILINE)
    assert commands == ["demo", "test"] and set(commands) <= set(targets)


def test_every_verb_in_the_readme_exists_and_every_verb_is_in_it() -> None:
    named = set(re.findall(r"^rung (\w+)", text("README.md"), re.MULTILINE))
    assert named == set(VERBS)


def test_options_named_in_the_documents_exist() -> None:
    shown = " ".join(CliRunner().invoke(rung, [verb, "--help"]).output for verb in VERBS)
    for page in (ROOT / "README.md", ROOT / "docs" / "run-folder.md"):
        for option in re.findall(r"rung \w+[^`\n]*?(--[a-z]+)", page.read_text("utf-8")):
            assert option in shown, f"{page.name} names {option}"


def test_every_key_of_a_task_is_documented() -> None:
    table = set(re.findall(r"^\| `(\w+)` \|", text("docs/task.md").split("## ")[0], re.MULTILINE))
    assert table == {key.rstrip("_") for key in TaskKeys.model_fields} - {"teacher"}


def test_every_metric_is_documented() -> None:
    table = set(re.findall(r"^\| `([\w:.]+)` \|", text("docs/task.md").split("## Metrics")[1], re.MULTILINE))
    assert table == {*METRICS, "python:file.py:function"}


def test_every_strategy_is_in_the_help_of_run_and_in_the_changelog() -> None:
    shown = CliRunner().invoke(rung, ["run", "--help"]).output
    for name in STRATEGIES:
        assert name in re.sub(r"\s+", "", shown) and name in text("CHANGELOG.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_files_named_in_a_page_exist(page: Path) -> None:
    words = page.read_text("utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", words):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links {target}"
    for target in re.findall(r"`((?:src|tests|bench|docs)/[\w./]+)`", words):
        assert (ROOT / target).exists(), f"{page.name} names {target}"


def test_the_three_demos_are_described() -> None:
    assert len(DEMOS) == 3 and all(DEMOS.values())
