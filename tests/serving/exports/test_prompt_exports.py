"""Prompts as files of promptfoo, DSPy and vLLM: the messages that they send are the bundle's."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from export_cases import make_adapter, make_bundle
from rung.errors import ExportError
from rung.evaluation.metrics import METRICS
from rung.models import model_version
from rung.serving.bundle import read_bundle
from rung.serving.exports import export_named
from rung.serving.exports.export import ExportOptions, ExportSource, NoRuntime, ParityAsk
from rung.serving.exports.exporting import export
from rung.serving.exports.source import read_source
from rung.solutions.demos import select_demos
from rung.solutions.prompt_rendering import render
from rung.solutions.store import save_solution
from rung.types import (
    Constraint,
    Decoding,
    Demo,
    DemoSelection,
    Document,
    Message,
    Query,
    Request,
    RetrieverSpec,
    Solution,
)

BRACES = 'Answer in {{ two }} words,\n  {% never %} in {# three #}. "Quote" \\n: yes\n'
DEMOS = (Demo("{{input}}", "{%- raw -%}"), Demo("a card", "card"), Demo("a use of a card", "use"))
FIXED = Solution("shown", BRACES, Decoding(8), DEMOS, DemoSelection("fixed", 2))
NEAREST = replace(FIXED, demo_selection=DemoSelection("nearest", 2))
READS = Solution("reads", BRACES, Decoding(8), retriever=RetrieverSpec("bm25", 2, 60, fenced=True))
PASSAGE = Document("p", "A card is 'paper' & \"glue\".", "Cards")


@pytest.fixture
def source_of(tiny_folder: Path, tmp_path: Path) -> Callable[..., ExportSource]:
    def make(solution: Solution, queries: Sequence[Query], model: str = "") -> ExportSource:
        folder = tmp_path / "bundle"
        save_solution(solution, folder, passages=[PASSAGE] if solution.retriever else ())
        spec = model or str(tiny_folder)
        note = {"task": "cards", "model": spec, "model_version": model_version(spec)}
        (folder / "bundle.json").write_text(json.dumps(note))
        packed = read_bundle(folder, base=model or None)
        shown = (PASSAGE,) if solution.retriever else ()
        demos = select_demos(packed.solution, queries)
        asks = [
            ParityAsk(
                q,
                Request(render(solution, q, demos=d, passages=shown), solution.decoding, solution.constraint),
                shown,
                "x",
                None,
                ("x", "y"),
            )
            for q, d in zip(queries, demos, strict=True)
        ]
        return ExportSource(packed, folder, asks, "recorded", METRICS["exact_match"])

    return make


QUERIES = (
    Query("0", 'a "card" \\ with <signs> & \'quotes\'\n\nand lines: - #"'),
    Query("1", "a use", "its context", "an instruction"),
    Query("2", "1e3"),
)


# ---- promptfoo ------------------------------------------------------------------------------


@pytest.mark.parametrize("solution", [FIXED, NEAREST, READS], ids=lambda s: str(s.name))
def test_promptfoo_is_given_the_bundles_messages_whatever_signs_they_hold(
    solution: Solution, source_of: Callable[..., ExportSource], tmp_path: Path
) -> None:
    report = export(source_of(solution, QUERIES), export_named("promptfoo"), tmp_path / "out", ExportOptions())
    (check,) = report.checks
    prompts = 1 if solution is NEAREST else 2
    assert check.ok and check.fact.startswith(f"{prompts * len(QUERIES)} of {prompts * len(QUERIES)} prompts equal")
    config = yaml.safe_load((tmp_path / "out" / "promptfooconfig.yaml").read_text())
    assert [p["label"] for p in config["prompts"]] == ["input", "rendered"][:prompts]
    assert config["providers"][0]["id"] == "openai:chat:cards" and config["tests"] == "file://tests.json"


def test_the_variable_of_a_key_that_promptfoo_wants_is_named(
    source_of: Callable[..., ExportSource], tmp_path: Path
) -> None:
    report = export(source_of(FIXED, QUERIES), export_named("promptfoo"), tmp_path / "out", ExportOptions())
    config = (tmp_path / "out" / "promptfooconfig.yaml").read_text()
    assert "# Set RUNG_API_KEY to" in config and any("any text" in note for note in report.notes)


def test_texts_that_promptfoo_would_change_are_left_out_and_counted(
    source_of: Callable[..., ExportSource], tmp_path: Path
) -> None:
    changed = [Query(str(n), text) for n, text in enumerate(("{{input}}", "file://a.txt", "ends\n", "{% x %}"))]
    talk = Query("talk", "and?", turns=(Message("user", "a"), Message("assistant", "b")))
    source = source_of(FIXED, [*QUERIES, *changed, talk])
    report = export(source, export_named("promptfoo"), tmp_path / "out", ExportOptions())
    tests = json.loads((tmp_path / "out" / "tests.json").read_text("utf-8"))
    assert [t["description"] for t in tests] == ["0", "1", "2"]
    assert any(note.startswith("5 examples are left out") for note in report.notes)


def test_examples_beyond_the_most_tests_are_not_called_unfit(
    source_of: Callable[..., ExportSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rung.serving.exports.promptfoo._MOST_TESTS", 2)
    report = export(source_of(FIXED, QUERIES), export_named("promptfoo"), tmp_path / "out", ExportOptions())
    assert len(json.loads((tmp_path / "out" / "tests.json").read_text("utf-8"))) == 2
    assert not any("left out" in note for note in report.notes)


def test_a_prompt_that_no_template_can_write_is_refused(source_of: Callable[..., ExportSource], tmp_path: Path) -> None:
    source = source_of(replace(FIXED, instruction="{% raw %} and {% endraw %}"), QUERIES)
    with pytest.raises(ExportError, match="endraw"):
        export(source, export_named("promptfoo"), tmp_path / "out", ExportOptions())


def test_a_schema_is_checked_by_promptfoo_without_what_rung_adds_to_it(
    source_of: Callable[..., ExportSource], tmp_path: Path
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "x-guidance": {"whitespace_flexible": False}}
    source = source_of(replace(FIXED, constraint=Constraint("json_schema", schema)), QUERIES)
    export(source, export_named("promptfoo"), tmp_path / "out", ExportOptions())
    test = json.loads((tmp_path / "out" / "tests.json").read_text())[0]
    assert [a["type"] for a in test["assert"]] == ["javascript", "is-json"]
    assert test["assert"][0]["config"] == {"references": ["x", "y"], "how": "equal"}
    assert set(test["assert"][1]["value"]) == {"type", "properties"}


def test_an_endpoints_address_is_a_provider_of_the_whole_prompt(
    source_of: Callable[..., ExportSource], tmp_path: Path
) -> None:
    spec = json.dumps({"endpoint": "https://models.example/v1", "name": "large", "key_env": "LARGE_KEY"})
    export(source_of(FIXED, QUERIES, spec), export_named("promptfoo"), tmp_path / "out", ExportOptions())
    second = yaml.safe_load((tmp_path / "out" / "promptfooconfig.yaml").read_text())["providers"][1]
    assert second["id"] == "openai:chat:large" and second["prompts"] == ["rendered"]
    assert second["config"]["apiBaseUrl"] == "https://models.example/v1"
    assert second["config"]["apiKeyEnvar"] == "LARGE_KEY"


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_promptfoos_scores_are_those_of_the_metrics(source_of: Callable[..., ExportSource], tmp_path: Path) -> None:
    export(source_of(FIXED, QUERIES), export_named("promptfoo"), tmp_path / "out", ExportOptions())
    asked = [
        ("equal", "  A  Card", "a card", 1),
        ("equal", "card", "cards", 0),
        ("token_f1", "the red card", "red card!", 0.8),
        ("token_f1", "none", "card", 0),
        ("json", '{"a": 1, "b": [2]}', '{"b":[2],"a":1}', 1),
        ("json", "not JSON", "{}", 0),
    ]
    code = "const s=require('./score.js');" + "".join(
        f"console.log(s({json.dumps(said)},{{config:{{how:'{how}',references:[{json.dumps(right)}]}}}}).score);"
        for how, said, right, _ in asked
    )
    done = subprocess.run(["node", "-e", code], cwd=tmp_path / "out", capture_output=True, text=True)
    assert [float(line) for line in done.stdout.split()] == [score for *_, score in asked], done.stderr


# ---- DSPy -----------------------------------------------------------------------------------

STUB = """
import contextlib
class Adapter: pass
class Module:
    def __init__(self): pass
    def load(self, path):
        import json
        state = json.load(open(path))["answer"]
        self.answer.demos = state["demos"]
        self.answer.signature.instructions = state["signature"]["instructions"]
def InputField(): return "in"
def OutputField(): return "out"
class Signature:
    def __init__(self, fields, instructions): self.fields, self.instructions = fields, instructions
class Predict:
    def __init__(self, signature, **config): self.signature, self.config, self.demos = signature, config, []
"""
"""As much of DSPy as the program needs to say what it sends."""


@pytest.mark.parametrize("solution", [FIXED, NEAREST, READS], ids=["fixed", "nearest", "reads"])
def test_the_program_of_dspy_sends_the_bundles_messages(
    solution: Solution,
    source_of: Callable[..., ExportSource],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub" / "dspy.py").write_text(STUB)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "stub"))
    options = ExportOptions(runtime_python=Path(sys.executable))
    report = export(source_of(solution, QUERIES), export_named("dspy"), tmp_path / "out", options)
    assert [(c.ok, c.fact) for c in report.checks] == [(True, "3 of 3 prompts equal, written by DSPy")]
    state = json.loads((tmp_path / "out" / "program.json").read_text())["answer"]
    assert set(state) == {"traces", "train", "demos", "signature", "lm"}
    assert "type: ignore" not in (tmp_path / "out" / "program.py").read_text()


def test_without_dspy_the_program_is_written_and_said_to_be_untested(
    source_of: Callable[..., ExportSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rung.serving.exports.dspy._python_with_dspy", lambda options: None)
    report = export(source_of(FIXED, QUERIES), export_named("dspy"), tmp_path / "out", ExportOptions())
    assert not report.checks and report.untested is not None and "dspy is not installed" in report.untested


def test_conversations_alone_are_no_inputs_for_dspy_and_the_reason_is_told(
    source_of: Callable[..., ExportSource], tmp_path: Path
) -> None:
    talk = Query("talk", "and?", turns=(Message("user", "a"), Message("assistant", "b")))
    options = ExportOptions(runtime_python=Path(sys.executable))
    report = export(source_of(FIXED, [talk]), export_named("dspy"), tmp_path / "out", options)
    assert report.untested is not None and "no inputs of one turn" in report.untested
    assert any(note.startswith("1 of the examples are conversations") for note in report.notes)


# ---- vLLM -----------------------------------------------------------------------------------


def test_vllm_gets_the_adapter_its_flags_and_a_request(source: ExportSource, tiny_folder: Path, tmp_path: Path) -> None:
    report = export(source, export_named("vllm"), tmp_path / "out", ExportOptions(), parity=False)
    script = (tmp_path / "out" / "serve.sh").read_text()
    assert f"exec vllm serve {tiny_folder}" in script and "--lora-modules cards=./adapter" in script
    assert "--enable-lora" in script and "--max-lora-rank 16" in script and "--max-model-len 2048" in script
    assert "--chat-template ./tokenizer/chat_template.jinja" in script
    config = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny_folder)
    request: dict[str, Any] = json.loads((tmp_path / "out" / "request.json").read_text())
    assert request["model"] == "cards" and request["temperature"] == 0 and request["max_tokens"] == 8
    assert [m["content"] for m in request["messages"]] == ["Answer.", "{input}"]
    assert "curl" in (tmp_path / "out" / "README.md").read_text() and report.exported.files[0] == "serve.sh"
    subprocess.run(["sh", "-n", str(tmp_path / "out" / "serve.sh")], check=True)


@pytest.mark.parametrize("merged", [False, True])
def test_what_vllm_serves_as_no_adapter_is_merged(tiny_folder: Path, tmp_path: Path, merged: bool) -> None:
    adapter = make_adapter(tiny_folder, tmp_path / "adapter", use_dora=not merged)
    bundle = read_source(make_bundle(tiny_folder, tmp_path / "bundle", adapter, text="x"))
    export(bundle, export_named("vllm"), tmp_path / "out", ExportOptions(merged=merged), parity=False)
    script = (tmp_path / "out" / "serve.sh").read_text()
    assert "exec vllm serve ./model --served-model-name cards" in script and "lora" not in script
    assert (tmp_path / "out" / "model" / "model.safetensors").is_file()


def test_a_request_to_vllm_holds_answers_as_the_bundle_does(tiny_folder: Path, tmp_path: Path) -> None:
    labels = Constraint("labels", ("card", "none"))
    bundle = read_source(make_bundle(tiny_folder, tmp_path / "bundle", None, constraint=labels, text="card"))
    export(bundle, export_named("vllm"), tmp_path / "out", ExportOptions(), parity=False)
    request = json.loads((tmp_path / "out" / "request.json").read_text())
    assert request["structured_outputs"] == {"choice": ["card", "none"]}


def test_where_vllm_is_not_installed_the_export_says_how_to_test_it(source: ExportSource, tmp_path: Path) -> None:
    from rung.serving.exports.vllm import runtime

    missing = runtime(source, tmp_path, ExportOptions(runtime_python=tmp_path / "no" / "python"))
    assert isinstance(missing, NoRuntime) and "no such program" in missing.reason
