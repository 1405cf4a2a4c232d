"""`promptfoo`: the prompt, dev examples as tests, and where to send them, as files of promptfoo.

Its prompts and variables are templates of Nunjucks. What the bundle says is put between `raw` marks; dev examples that
promptfoo itself would change are left out and counted. The parity test needs no model: promptfoo, where it is
installed, renders every test, and its messages are compared with the bundle's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from rung.errors import ExportError, first_line
from rung.records import write_text
from rung.serving.exports.export import (
    HERE,
    Export,
    Exported,
    ExportOptions,
    ExportSource,
    NamedCheck,
    ParityAsk,
    sent,
)
from rung.serving.exports.prompt_parts import SERVE, SERVE_KEY, PromptParts, parts_of, passages_of, where_asked
from rung.types import Message

CONFIG, RENDERED, PLAIN, TESTS, SCORE = "promptfooconfig.yaml", "rendered.json", "input.json", "tests.json", "score.js"

_TEMPLATE = re.compile(r"\{\{|\{%|\{#")
_PLACES = ("file://", "package:", "http://", "https://")  # how a variable begins that promptfoo may fetch
_SECONDS = 300
_MOST_TESTS = 200
_HOW = {"token_f1": "token_f1", "json_match": "json"}
"""Metric -> how score.js compares; all others: equal but for case and space."""


def write(source: ExportSource, folder: Path, options: ExportOptions) -> Exported:
    """Fills the folder. Raises ExportError for an instruction that ends a `raw` block of Nunjucks."""
    parts = parts_of(source)
    kept = [ask for ask in source.asks if _is_kept(ask)]
    asks = kept[:_MOST_TESTS]
    names = [CONFIG, TESTS, SCORE, PLAIN]
    write_text(folder / PLAIN, _as_json([{"role": "user", "content": "{{input}}"}]))
    if parts.fixed:
        write_text(folder / RENDERED, _as_json(_rendered(parts)))
        names.append(RENDERED)
    tests = [_test(source, ask) for ask in asks]
    write_text(folder / TESTS, _as_json(tests))
    write_text(folder / CONFIG, _config(source, parts))
    write_text(folder / SCORE, (files("rung.serving.exports.plain") / SCORE).read_text("utf-8"))
    checks = [_check(folder, parts, asks, tests)] if asks else []
    untested = None if checks else "there are no inputs that can be its tests; give some with --parity FILE"
    notes = _notes(source, parts, len(asks), len(source.asks) - len(kept))
    return Exported(tuple(names), notes, checks=tuple(checks), untested=untested)


def _is_kept(ask: ParityAsk) -> bool:
    """Whether promptfoo leaves its text as it is. A conversation has more turns than the prompt has places for."""
    texts = (ask.query.asked, passages_of(ask))
    changed = any(_TEMPLATE.search(text) or text.startswith(_PLACES) or text.endswith("\n") for text in texts)
    return not changed and not ask.query.turns


def _raw(text: str) -> str:
    """The text as a template that writes it."""
    if not _TEMPLATE.search(text):
        return text
    if re.search(r"\{%-?\s*endraw", text):
        raise ExportError("promptfoo: the prompt holds {% endraw %}, which no template of Nunjucks can write.")
    return f"{{% raw %}}{text}{{% endraw %}}"


def _rendered(parts: PromptParts) -> list[dict[str, str]]:
    said = [{"role": m.role, "content": _raw(m.content)} for m in parts.before]
    passages = "{% if passages %}{{passages}}\n\n{% endif %}" if parts.retrieves else ""
    return [*said, {"role": "user", "content": f"{passages}{{{{input}}}}"}]


def _as_json(turns: Sequence[Any]) -> str:
    return json.dumps(turns, ensure_ascii=False, indent=1) + "\n"


# ---- tests --------------------------------------------------------------------------------------


def _test(source: ExportSource, ask: ParityAsk) -> dict[str, Any]:
    """A dev example. Its accepted answers are what score.js is told."""
    variables = {"input": ask.query.asked}
    if source.packed.solution.retriever is not None:
        variables["passages"] = passages_of(ask)
    test: dict[str, Any] = {"description": ask.query.id, "vars": variables}
    if ask.references:
        how = _HOW.get(source.metric.name if source.metric is not None else "", "equal")
        config = {"references": list(ask.references), "how": how}
        test["assert"] = [{"type": "javascript", "value": f"file://{SCORE}", "config": config}]
    constraint = ask.request.constraint
    if constraint is not None and constraint.kind == "json_schema":
        # What rung adds to a schema for its own grammar is unknown to promptfoo's validator, which then refuses it.
        schema = {key: value for key, value in dict(constraint.value).items() if key != "x-guidance"}  # type: ignore[arg-type]
        test.setdefault("assert", []).append({"type": "is-json", "value": schema})
    return test


def _config(source: ExportSource, parts: PromptParts) -> str:
    """YAML whose values are all written as JSON: readers differ in what a bare word is."""
    where = where_asked(source)
    most = source.packed.solution.decoding.max_new_tokens
    lines = [
        "# promptfoo eval",
        f"# Set {SERVE_KEY} to the key of rung serve; where it needs none, to any text, as promptfoo wants one.",
    ]
    lines += [f"description: {json.dumps(parts.title, ensure_ascii=False)}", "prompts:"]
    lines += [f"  - id: {json.dumps(f'file://{PLAIN}')}", "    label: input"]
    if parts.fixed:
        lines += [f"  - id: {json.dumps(f'file://{RENDERED}')}", "    label: rendered"]
    lines.append("providers:")
    lines += _provider(source.name, SERVE, SERVE_KEY, most, "input", hidden=False)
    if parts.fixed:
        lines.append(f"  # {' '.join(where.about.split())}")
        lines += _provider(where.model, where.url, where.key, most, "rendered", hidden=not where.known)
    return "\n".join([*lines, f"tests: {json.dumps(f'file://{TESTS}')}", ""])


def _provider(model: str, url: str, key: str, most: int, prompt: str, *, hidden: bool) -> list[str]:
    """hidden: as comments."""
    lines = [
        f"  - id: {json.dumps(f'openai:chat:{model}', ensure_ascii=False)}",
        f"    prompts: [{json.dumps(prompt)}]",
        "    config:",
        f"      apiBaseUrl: {json.dumps(url)}",
        f"      apiKeyEnvar: {json.dumps(key)}",
        "      temperature: 0",
        f"      max_tokens: {most}",
    ]
    return [f"  #{line[1:]}" for line in lines] if hidden else lines


# ---- the parity test ----------------------------------------------------------------------------


def _check(folder: Path, parts: PromptParts, asks: Sequence[ParityAsk], tests: Sequence[dict[str, Any]]) -> NamedCheck:
    """Whether the messages of every test are the bundle's."""
    wanted = {"input": [sent([Message("user", ask.query.asked)]) for ask in asks]}
    if parts.fixed:
        wanted["rendered"] = [sent(ask.request.messages) for ask in asks]
    try:
        by, found = "promptfoo", _by_promptfoo(folder)
    except (OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
        by = f"Jinja2, in the place of promptfoo: {first_line(error)}"
        found = {label: _by_jinja(folder / f"{label}.json", tests) for label in wanted}
    rows = len(wanted) * len(asks)
    equal = sum(a == b for label in wanted for a, b in zip(found.get(label, ()), wanted[label], strict=False))
    return NamedCheck("messages", equal == rows, f"{equal} of {rows} prompts equal, rendered by {by}")


def _by_promptfoo(folder: Path) -> dict[str, list[Any]]:
    """Label of a prompt -> the messages of every test, by promptfoo's own provider that says what it is sent.

    Raises FileNotFoundError where promptfoo is not installed, and ValueError where it does not run.
    """
    program = shutil.which("promptfoo")
    if program is None:
        raise FileNotFoundError("it is not installed")
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out.json"
        quiet = {"PROMPTFOO_DISABLE_TELEMETRY": "1", "PROMPTFOO_DISABLE_UPDATE": "1", "PROMPTFOO_CONFIG_DIR": scratch}
        words = ["eval", "-c", CONFIG, "--providers", "echo", "-o", str(out), "--no-cache", "--no-write", "--no-table"]
        done = subprocess.run(
            [program, *words], cwd=folder, env={**os.environ, **quiet}, capture_output=True, timeout=_SECONDS
        )
        if not out.is_file():
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no message"]
            raise ValueError(f"it does not run here ({said[0]})")
        results = json.loads(out.read_text("utf-8"))["results"]["results"]
    found: dict[str, list[Any]] = {}
    for result in sorted(results, key=lambda result: int(result["testIdx"])):
        if "response" not in result:
            raise ValueError(f"it does not run a test ({result.get('error')})")
        found.setdefault(result["prompt"]["label"], []).append(json.loads(result["response"]["output"]))
    return found


def _by_jinja(prompt: Path, tests: Sequence[dict[str, Any]]) -> list[Any]:
    """The messages of every test: these templates mean the same to Jinja2 as to Nunjucks."""
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(keep_trailing_newline=True)
    turns = json.loads(prompt.read_text("utf-8"))
    written = [{**turn, "content": environment.from_string(turn["content"])} for turn in turns]
    return [[{**turn, "content": turn["content"].render(test["vars"])} for turn in written] for test in tests]


def _notes(source: ExportSource, parts: PromptParts, tests: int, left_out: int) -> tuple[str, ...]:
    where = where_asked(source)
    metric = source.metric.name if source.metric is not None else "the task's metric"
    notes = [
        f"Start the bundle with rung serve, then: cd {HERE} && {SERVE_KEY}=KEY promptfoo eval",
        f"promptfoo wants {SERVE_KEY} to be set: to the server's key, or to any text where it needs none.",
        f"{tests} dev examples are its tests. They ask {source.name} with the input alone; rung serve adds the rest.",
    ]
    if parts.fixed:
        notes.append(f"{RENDERED} holds the whole prompt, for {where.about[0].lower()}{where.about[1:]}")
    else:
        notes.append("Its demos are chosen for each input, by rung serve, so there is no fixed prompt.")
    if parts.retrieves:
        notes.append(f"{TESTS} holds passages as they were found; for other inputs, rung serve finds them.")
    if left_out:
        notes.append(f"{left_out} examples are left out: conversations, and texts that read as templates.")
    if metric not in ("exact_match", "label_accuracy", *_HOW):
        notes.append(f"{SCORE} counts answers that equal an accepted one; rung scores by {metric}.")
    return tuple(notes)


PROMPTFOO = Export("promptfoo", "The prompt and dev examples as tests of promptfoo.", write, rows=_MOST_TESTS)
