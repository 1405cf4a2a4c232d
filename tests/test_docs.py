"""The documents against the code: what they name exists, and what exists is named."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

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
    named = set(re.findall(r"^rung ([\w-]+)", text("README.md"), re.MULTILINE))
    assert named == set(VERBS)


def test_options_named_in_the_documents_exist() -> None:
    shown = " ".join(CliRunner().invoke(rung, [verb, "--help"]).output for verb in VERBS)
    for page in (ROOT / "README.md", ROOT / "docs" / "run-folder.md"):
        for option in re.findall(r"rung \w+[^`\n]*?(--[a-z]+)", page.read_text("utf-8")):
            assert option in shown, f"{page.name} names {option}"


def test_every_key_of_a_task_is_documented() -> None:
    table = set(re.findall(r"^\| `(\w+)` \|", text("docs/task.md").split("## ")[0], re.MULTILINE))
    assert table == {key.rstrip("_") for key in TaskKeys.model_fields}


def test_every_metric_is_documented() -> None:
    table = set(re.findall(r"^\| `([\w:.]+)` \|", text("docs/task.md").split("## Metrics")[1], re.MULTILINE))
    assert table == {*METRICS, "judge", "python:file.py:function"}


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


def blocks_of(section: str, run: Path) -> str:
    """The example of a section of docs/models.md, for another run folder."""
    (code,) = re.findall(
        r"```python\n(.*?)```", text("docs/models.md").split(f"## {section}\n")[1].split("\n## ")[0], re.S
    )
    return str(code).replace("runs/my-task", str(run))


@pytest.mark.parametrize("full", [False, True])
def test_the_example_of_an_adapter_elsewhere_answers_as_rung_does(
    full: bool, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from rung.models.loading import load_model
    from rung.solutions.prompt_rendering import render
    from rung.solutions.store import save_solution
    from rung.types import Decoding, Query, Request, Solution, TrainingOptions, TrainingRow

    model = load_model(str(tiny_folder), device="cpu", dtype=torch.float32)
    solution = Solution("lora", "Answer.", Decoding(8))
    asked = render(solution, Query("q", "Where is my card?"))
    rate = 3e-3 if full else 3e-2
    options = TrainingOptions(rate, steps=25, batch_size=1, full=full)
    adapter = model.train([TrainingRow("a", asked, "the card")], options, tmp_path / "training")
    save_solution(replace(solution, adapter=str(adapter)), tmp_path / "solutions" / ("full" if full else "lora"))
    (tmp_path / "task.json").write_text(json.dumps({"machine": model.describe()}))
    (ours,) = model.generate([Request(asked, solution.decoding, adapter=str(adapter))])
    names: dict[str, Any] = {}
    if full:
        exec(blocks_of("Whole weights elsewhere", tmp_path), names)
        chat = [{"role": m.role, "content": m.content} for m in asked]
        prompt = names["tokenizer"].apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")
        written = names["model"].generate(**prompt, max_new_tokens=8, do_sample=False)[
            0, prompt["input_ids"].shape[1] :
        ]
        print(names["tokenizer"].decode(written, skip_special_tokens=True))
    else:
        exec(blocks_of("Adapters elsewhere", tmp_path), names)
    assert capsys.readouterr().out.splitlines()[-1] == ours.text == "the card"


def test_the_three_demos_are_described() -> None:
    assert len(DEMOS) == 3 and all(DEMOS.values())
