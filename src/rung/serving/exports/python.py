"""The export `python`: a program of plain transformers and PEFT that answers as the bundle does, and what it reads.

The program is `plain/answer.py`, copied as it is. What rung finds out about a tokenizer when it loads one is written
down beside it, so that the program need not find it out again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung import __version__
from rung.data.shapes.writing import query_row
from rung.errors import ExportError
from rung.records import write_json, write_text
from rung.retrieval.stemming import letters_of
from rung.serving.exports.export import (
    HERE,
    Export,
    Exported,
    ExportOptions,
    ExportRuntime,
    ExportSource,
    NamedCheck,
    NoRuntime,
    ParityAsk,
)
from rung.serving.exports.peft import base_name
from rung.serving.exports.prompt_parts import chooses_demos, parts_of
from rung.serving.exports.tokenizer_files import context_length_of, write_tokenizer
from rung.types import Constraint, RetrieverSpec, Solution

if TYPE_CHECKING:
    from rung.models.chat_template import ChatFormat

PROGRAM = "answer.py"
_SECONDS = 3_600  # for all inputs of a parity test
_COPIED = {
    "search.py": "rung.serving.exports.plain",
    "words.py": "rung",
    "citing.py": "rung.solutions",
    "fencing.py": "rung.solutions",
    "folding.py": "rung.data",
    "mail.py": "rung.data",
}
"""Files beside the program -> the package that their text is from. They need nothing but Python and bm25s."""


def write(source: ExportSource, folder: Path, options: ExportOptions) -> Exported:
    """Fills the folder. Raises ExportError for what plain code would not answer alike."""
    solution = source.packed.solution
    if (reason := _refused(source)) is not None:
        raise ExportError(f"{source.packed.place}: no plain Python code answers as it does: {reason}")
    chat = source.chat
    if chat.thought is not None and solution.adapter is None:
        raise ExportError(
            f"{source.packed.place}: its model thinks before it answers, and plain code does not bound that. Serve it "
            "with rung serve."
        )
    names = [*_weights(source, folder), *_tokenizer(source, folder)]
    write_json(folder / "chat.json", _knows(solution, chat, source.base))
    write_json(folder / "solution.json", _says(source))
    _copy(files("rung.serving.exports.plain") / PROGRAM, folder / PROGRAM)
    for name in _beside(solution):
        _copy(files(_COPIED[name]) / ("text.py" if name == "words.py" else name), folder / name)
        names.append(name)
    if solution.retriever is not None:
        shutil.copyfile(source.packed.place / "index" / "passages.jsonl", folder / "passages.jsonl")
        names.append("passages.jsonl")
    packages = _packages(solution)
    write_text(folder / "requirements.txt", "".join(f"{name}\n" for name in packages))
    return Exported(
        (PROGRAM, "solution.json", "chat.json", "requirements.txt", *names),
        notes=(
            f'python {HERE}/{PROGRAM} "an input"',
            f"It needs {', '.join(packages)}, and nothing of rung.",
            *_about_the_base(source),
        ),
    )


def _refused(source: ExportSource) -> str | None:
    """Why plain code cannot answer alike; None where it can."""
    solution, spec = source.packed.solution, source.packed.solution.retriever
    if source.four_bit:
        return "its base is kept in 4 bits. Train with the whole base, or serve it with rung serve."
    if solution.decoding.temperature > 0:
        return "its answers are sampled. Only greedy answers are exported."
    if spec is None:
        return None
    if spec.kind != "bm25":
        return f'it searches by the index "{spec.kind}", and only bm25 is plain enough. Serve it with rung serve.'
    if spec.reranker or spec.query == "rewritten":
        what = "a reranker orders its passages" if spec.reranker else "the model writes its search queries"
        return f"{what}. Serve it with rung serve."
    return None


# ---- what is written ----------------------------------------------------------------------------


def _weights(source: ExportSource, folder: Path) -> list[str]:
    """The adapter, or the whole weights, with nothing of how they were trained."""
    if source.adapter is None:
        return []
    place = folder / _place_of_weights(source)
    place.mkdir()
    for pattern in ("*.safetensors", "*.safetensors.index.json", "adapter_config.json", "config.json"):
        for path in sorted(source.adapter.glob(pattern)):
            shutil.copyfile(path, place / path.name)
    return [f"{place.name}/"]


def _place_of_weights(source: ExportSource) -> str:
    return "adapter" if source.factors is not None else "model"


def _tokenizer(source: ExportSource, folder: Path) -> list[str]:
    """tokenizer/, and plain_tokenizer.json, in which no text can be read as a control token."""
    (folder / "tokenizer").mkdir()
    write_tokenizer(source.base, source.chat, folder / "tokenizer", source.packed.solution)
    plain = source.chat.answer_tokens().serialised()
    if plain is None:
        raise ExportError(
            f"{source.base}: its tokenizer is not a fast one, which plain code needs. Serve it with rung serve."
        )
    write_text(folder / "plain_tokenizer.json", plain)
    return ["tokenizer/", "plain_tokenizer.json"]


def _knows(solution: Solution, chat: ChatFormat, base: Path) -> dict[str, Any]:
    """chat.json. labels: label -> its ids. grammar: for llguidance."""
    tokens, constraint = chat.answer_tokens(), solution.constraint
    vocabulary = _vocabulary(base)
    labels, grammar = None, None
    if constraint is not None and constraint.kind == "labels":
        labels = {label: tokens.encode(label) for label in constraint.value}
    elif constraint is not None:
        grammar = _grammar(constraint, chat, vocabulary)
    return {**chat.record(), "vocabulary": vocabulary, "labels": labels, "grammar": grammar}


def _grammar(constraint: Constraint, chat: ChatFormat, vocabulary: int) -> str:
    """The constraint for llguidance. Raises ExportError where it cannot read this tokenizer by itself."""
    from rung.engine.grammar import grammar_of, reads_by_itself

    if not reads_by_itself(chat.answer_tokens(), vocabulary):
        raise ExportError(
            "answers are held to a form by a grammar, and llguidance does not read this tokenizer by itself. Serve it "
            "with rung serve."
        )
    return grammar_of(constraint, chat.answer_tokens().lead)


def _says(source: ExportSource) -> dict[str, Any]:
    """solution.json: what a person may read and change."""
    packed, solution, parts = source.packed, source.packed.solution, parts_of(source)
    near = solution.demo_selection if not parts.fixed else None
    place = None if source.adapter is None else _place_of_weights(source)
    return {
        "made_by": f"rung {__version__}",
        "solution": solution.name,
        "base": base_name(source),
        "base_version": packed.model_version,
        "base_files": {p.name: p.stat().st_size for p in sorted(source.base.glob("*.safetensors"))},
        "adapter": place if place == "adapter" else None,
        "weights": place if place == "model" else None,
        "dtype": "float32",
        "context_length": context_length_of(source),
        "max_new_tokens": solution.decoding.max_new_tokens,
        "keep_space": solution.decoding.keep_space,
        "instruction": parts.instruction,
        "demos": [{"input": d.input, "output": d.output} for d in (parts.demos if near is None else solution.demos)],
        "nearest": near.k if near is not None else None,
        "search": None if solution.retriever is None else _search_of(solution.retriever),
        "cite": solution.cite and solution.retriever is not None,
    }


def _search_of(spec: RetrieverSpec) -> dict[str, Any]:
    return {
        "k": spec.k,
        "token_budget": spec.token_budget,
        "stem": spec.stem,
        "letters": letters_of(spec.stem) if spec.stem else "",
        "query": spec.query,
        "fenced": spec.fenced,
    }


def _beside(solution: Solution) -> list[str]:
    """Names in _COPIED that the program imports for this solution."""
    spec = solution.retriever
    names = ["search.py", "words.py"] if spec is not None or chooses_demos(solution) else []
    if spec is not None and spec.fenced:
        names += ["fencing.py", "folding.py", "mail.py"]
    return [*names, *(["citing.py"] if spec is not None and solution.cite else [])]


def _packages(solution: Solution) -> list[str]:
    """What the program imports, with the versions here."""
    from importlib.metadata import version

    names = ["torch", "transformers", *(["peft"] if solution.adapter is not None else [])]
    names += ["bm25s"] if "search.py" in _beside(solution) else []
    names += ["PyStemmer"] if solution.retriever is not None and solution.retriever.stem else []
    names += ["llguidance"] if solution.constraint is not None and solution.constraint.kind != "labels" else []
    return [f"{name}=={version(name).partition('+')[0]}" for name in names]


def _copy(text: Any, place: Path) -> None:
    """Copies a module of rung; what it imports of rung lies beside it."""
    content: str = text.read_text("utf-8")
    content = content.replace("from rung.text import", "from words import")
    write_text(place, re.sub(r"from rung\.(?:\w+\.)*(\w+) import", r"from \1 import", content))


# ---- the base -----------------------------------------------------------------------------------


def _about_the_base(source: ExportSource) -> tuple[str, ...]:
    name = base_name(source)
    if source.adapter is not None and _place_of_weights(source) == "model":
        return ()
    if name != str(source.base):
        return (f"Its base model is {name} on the Hub.",)
    return (f"Its base model lies in {name}. Elsewhere, copy that folder, too, and name it with --base.",)


def _vocabulary(base: Path) -> int:
    config: Mapping[str, Any] = json.loads((base / "config.json").read_text("utf-8"))
    return int((config.get("text_config") or config)["vocab_size"])


# ---- the parity test ----------------------------------------------------------------------------


class PlainProgram:
    """The exported program in a Python of its own."""

    holds = True

    def __init__(self, folder: Path, python: str) -> None:
        self.name = f"{Path(python).name} {PROGRAM}"
        self._folder, self._python = folder, python

    def answers(self, asks: Sequence[ParityAsk]) -> list[str]:
        """One text an ask; where the program says why there is none, that, which is no answer."""
        rows = "".join(json.dumps(query_row(ask.query), ensure_ascii=False) + "\n" for ask in asks)
        try:
            done = subprocess.run(
                [self._python, str((self._folder / PROGRAM).absolute()), "--jsonl"],
                input=rows.encode("utf-8", "surrogatepass"),
                capture_output=True,
                timeout=_SECONDS,
                env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            )
        except subprocess.TimeoutExpired:
            late = f"did not answer {len(asks)} inputs in {_SECONDS} seconds. Test with fewer: --rows."
            raise ExportError(f"{PROGRAM}: {late}") from None
        said = [json.loads(line) for line in done.stdout.decode("utf-8").splitlines()]
        if done.returncode != 0 or len(said) != len(asks):
            last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no message"]
            raise ExportError(f"{PROGRAM}: ended after {len(said)} of {len(asks)} answers ({last[0]}).")
        return [reply["answer"] if "answer" in reply else f"({PROGRAM}: {reply['error']})" for reply in said]

    def checks(self, asks: Sequence[ParityAsk]) -> Sequence[NamedCheck]:
        return ()

    def close(self) -> None:
        pass


def runtime(source: ExportSource, folder: Path, options: ExportOptions) -> ExportRuntime | NoRuntime:
    """The Python that the user names, else this one."""
    return PlainProgram(folder, str(options.runtime_python or sys.executable))


PYTHON = Export(
    "python", "A program of plain transformers and PEFT that answers the same.", write, runtime, ("runtime_python",)
)
