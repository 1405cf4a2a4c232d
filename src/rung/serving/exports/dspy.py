"""`dspy`: the prompt as a program of DSPy, with its state in DSPy's own JSON.

DSPy's adapters write a prompt of their own around fields; the program brings one that writes the bundle's. The parity
test needs no model: the program says what it would send, and its messages are compared with the bundle's.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from rung.errors import ExportError
from rung.records import write_json, write_text
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
from rung.serving.exports.prompt_parts import PromptParts, parts_of, passages_of, where_asked

PROGRAM, STATE, PROMPT = "program.py", "program.json", "prompt.json"

_SECONDS = 300
_WITHOUT = "Given the fields {}, produce the fields `answer`."  # what DSPy says where there is no instruction


def write(source: ExportSource, folder: Path, options: ExportOptions) -> Exported:
    """Fills the folder. Raises ExportError where the program does not run."""
    parts = parts_of(source)
    fields = ["passages", "input"] if parts.retrieves else ["input"]
    said_as = inspect.cleandoc(parts.instruction) or _WITHOUT.format(", ".join(f"`{name}`" for name in fields))
    write_json(folder / PROMPT, _prompt(source, parts, fields, said_as))
    write_json(folder / STATE, _state(parts, fields, said_as))
    program = (files("rung.serving.exports.plain") / "dspy_program.py").read_text("utf-8")
    write_text(folder / PROGRAM, re.sub(r"  # type: ignore\S*", "", program))
    names = [PROGRAM, STATE, PROMPT]
    if not parts.fixed:
        write_text(folder / "search.py", (files("rung.serving.exports.plain") / "search.py").read_text("utf-8"))
        write_text(folder / "words.py", (files("rung") / "text.py").read_text("utf-8"))
        names += ["search.py", "words.py"]
    python = _python_with_dspy(options)
    asks = [ask for ask in source.asks if not ask.query.turns]
    checks = [_check(folder, python, asks)] if python is not None and asks else []
    untested = None
    if python is None:
        untested = "dspy is not installed here; name a Python that has it with --runtime-python"
    elif not asks:
        untested = "there are no inputs of one turn; give some with --parity FILE"
    return Exported(tuple(names), _notes(source, parts), checks=tuple(checks), untested=untested)


def _prompt(source: ExportSource, parts: PromptParts, fields: Sequence[str], said_as: str) -> dict[str, Any]:
    solution = source.packed.solution
    near = solution.demo_selection if not parts.fixed else None
    return {
        "fields": list(fields),
        "instruction": parts.instruction,
        "said_as": said_as,
        "nearest": near.k if near is not None else None,
        "demos": [{"input": d.input, "output": d.output} for d in solution.demos] if near is not None else [],
        "temperature": solution.decoding.temperature,
        "max_tokens": solution.decoding.max_new_tokens,
    }


def _state(parts: PromptParts, fields: Sequence[str], said_as: str) -> dict[str, Any]:
    """As `Module.save` writes it. Versions are left out, which DSPy compares only to warn."""
    shown = [*fields, "answer"]
    described = [{"prefix": f"{name.capitalize()}:", "description": f"${{{name}}}"} for name in shown]
    demos = [{**dict.fromkeys(fields, ""), "input": d.input, "answer": d.output} for d in parts.demos]
    predict = {
        "traces": [],
        "train": [],
        "demos": demos,
        "signature": {"instructions": said_as, "fields": described},
        "lm": None,
    }
    return {"answer": predict, "metadata": {"dependency_versions": {}}}


# ---- the parity test ----------------------------------------------------------------------------


def _python_with_dspy(options: ExportOptions) -> str | None:
    if options.runtime_python is not None:
        return str(options.runtime_python)
    return sys.executable if importlib.util.find_spec("dspy") is not None else None


def _check(folder: Path, python: str, asks: Sequence[ParityAsk]) -> NamedCheck:
    """Whether the messages that the program would send are the bundle's."""
    rows = [{"input": ask.query.asked, "passages": passages_of(ask)} for ask in asks]
    if not any(row["passages"] for row in rows):
        rows = [{"input": row["input"]} for row in rows]
    try:
        done = subprocess.run(
            [python, str((folder / PROGRAM).absolute()), "--messages"],
            input="".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", "surrogatepass"),
            capture_output=True,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise ExportError(f"dspy: the program does not end within {_SECONDS} seconds in {python}.") from None
    if done.returncode != 0:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no message"]
        raise ExportError(f"dspy: the program does not run in {python} ({last[0]}).")
    found = [json.loads(line) for line in done.stdout.decode("utf-8").splitlines()]
    wanted = [sent(ask.request.messages) for ask in asks]
    equal = sum(a == b for a, b in zip(found, wanted, strict=False))
    return NamedCheck("messages", found == wanted, f"{equal} of {len(wanted)} prompts equal, written by DSPy")


def _notes(source: ExportSource, parts: PromptParts) -> tuple[str, ...]:
    where = where_asked(source)
    lm = f'dspy.LM("openai/{where.model}", api_base="{where.url}", api_key=…)'
    notes = [f"cd {HERE}, then in Python: from program import load; load({lm})(input=…).answer"]
    notes.append(f"It sends the whole prompt. {where.about}")
    if parts.retrieves:
        notes.append(
            "Its field passages is yours to fill; rung serve finds passages by itself, asked by the bundle's name."
        )
    if not parts.fixed:
        notes.append("Its examples are chosen for each input by BM25, which needs bm25s.")
    if source.packed.solution.constraint is not None:
        notes.append("The bundle holds answers to a form; ask the server for it (response_format), as DSPy does not.")
    if talks := sum(bool(ask.query.turns) for ask in source.asks):
        notes.append(f"{talks} of the examples are conversations, which this program does not hold: it asks one turn.")
    return tuple(notes)


DSPY = Export("dspy", "The prompt as a program of DSPy.", write, heeds=("runtime_python",))
