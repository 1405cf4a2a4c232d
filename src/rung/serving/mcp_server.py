"""rung for coding agents: tools by the Model Context Protocol, over standard input and output.

Every path that a tool is given must lie in one folder, also when links are followed, and so must the data that a task
names. No shell is involved. A tool that takes long runs in a thread or in a process of its own; what the user can
correct comes back as a tool's error in plain words.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from rung.errors import RunError, RungError
from rung.records import damage_behind

if TYPE_CHECKING:
    from rung.serving.bundle import Bundle

INSTRUCTIONS = (
    "rung finds out by experiment whether to prompt, retrieve or fine-tune for a task. Check the data first (check), "
    "then begin a run (run), look at it now and then (status), read its verdict (report), and ask its winner (ask). A "
    "run takes minutes to hours and goes on by itself. Paths are relative to the folder that the server works in."
)
_MOST_FINDINGS = 50
_CHECK_S = 900.0
_OPEN = 2  # bundles that stay loaded

_Words = ParamSpec("_Words")
_Answer = TypeVar("_Answer")


def serve_mcp(root: Path) -> None:
    """Serves until the client goes. root: the folder that all paths lie in. Raises RunError where mcp is missing."""
    _server(root).run("stdio")


def _server(root: Path) -> Any:
    try:
        from mcp.server.mcpserver import MCPServer
    except ImportError as error:
        raise RunError("the package mcp (2 or newer) is not installed. Install it: pip install 'rung[mcp]'.") from error
    from rung import __version__

    server = MCPServer("rung", instructions=INSTRUCTIONS, version=__version__, log_level="WARNING")
    for handler in logging.getLogger().handlers:  # libraries tell each other much on standard error
        handler.setLevel(logging.WARNING)
    tools = McpTools(root)
    for tool in (tools.check, tools.run, tools.status, tools.report, tools.ask):
        server.add_tool(_as_tool(tool))
    return server


def _as_tool(method: Callable[_Words, _Answer]) -> Callable[_Words, _Answer]:
    """The method; its RungError, or what it says of a damaged record, is an error of the tool that its caller reads."""
    from mcp.server.mcpserver.exceptions import ToolError

    @wraps(method)
    def tool(*words: _Words.args, **named: _Words.kwargs) -> _Answer:
        try:
            return method(*words, **named)
        except RungError as error:
            raise ToolError(str(error)) from error
        except Exception as error:
            if (damaged := damage_behind(error)) is not None:
                raise ToolError(str(damaged)) from error
            raise

    return tool


class McpTools:
    """The tools. Their docstrings and arguments are what an agent reads of them. root: the folder of all paths."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._bundles: dict[tuple[Path, str | None, int], Bundle] = {}
        self._asking, self._beginning = threading.Lock(), threading.Lock()

    def check(self, task: str) -> dict[str, Any]:
        """Check the data of a task.yaml before anything is spent: what is wrong, in which rows, and what to do.

        Needs no model and takes seconds to minutes. exit is 2 where something must be corrected before a run.
        """
        found = self._rung("check", str(self._task(task)), "--json")
        findings = found.get("findings", [])
        more = max(0, len(findings) - _MOST_FINDINGS)
        return {**found, "findings": findings[:_MOST_FINDINGS], "more_findings": more}

    def run(
        self,
        task: str,
        minutes: float | None = None,
        calls: int | None = None,
        usd: float | None = None,
        only: str | None = None,
        out: str | None = None,
        finish: bool = False,
        again: bool = False,
    ) -> dict[str, Any]:
        """Begin a run of a task.yaml, or continue one that was interrupted or ran out of its budget. Returns at once
        with the run folder; ask for its status later.

        minutes, calls, usd: the budget of the run, all calls together. only: strategies to try, separated by commas.
        out: the run folder; by default runs/NAME. finish: try nothing more, open the sealed test and decide.
        again: try more in a finished run, with models or rows that are new.
        """
        from rung.serving.background_runs import begin_run, job_of

        path = self._task(task)
        budget = {"--minutes": minutes, "--calls": calls, "--usd": usd}
        options = [word for name, value in budget.items() if value is not None for word in (name, str(value))]
        options += ["--only", only] if only is not None else []
        options += ["--finish"] * finish + ["--again"] * again
        with self._beginning:
            folder = self._inside(out) if out is not None else self._folder_of(path)
            self._inside(str(job_of(folder)))
            return asdict(begin_run(path, folder, options, cwd=self._root))

    def status(self, run: str) -> dict[str, Any]:
        """Say how a run stands: running, finished, unfinished, stopped or failed, its stage, minutes and last lines,
        and the verdict where there is one. run: the run folder."""
        from rung.serving.background_runs import status_of

        return asdict(status_of(self._inside(run)))

    def report(self, run: str) -> dict[str, Any]:
        """Show the verdict of a run: what to ship and why, as text, and decision.json with all scores and intervals.

        run: the run folder.
        """
        from rung.runs import verdict_of

        folder = self._inside(run)
        decision = verdict_of(folder)
        page = folder / "report.html"
        return {
            "text": _as_text(decision),
            "report": self._short(page) if page.is_file() else None,
            "decision": decision,
        }

    def ask(
        self,
        bundle: str,
        input: str,
        context: str | None = None,
        instruction: str | None = None,
        solution: str | None = None,
    ) -> dict[str, Any]:
        """Answer an input with the winner of a run, or with a bundle, with the passages that it was given.

        bundle: a run folder or a bundle. context, instruction: where the examples have them. solution: another solution
        of the run than its winner. The first call loads the model.
        """
        from rung.types import Query

        if not input.strip():
            raise RunError("there is nothing to answer: input is empty.")
        with self._asking:
            opened = self._opened(self._inside(bundle), solution)
            query = Query("0", input, context, instruction)
            (answer,) = opened.answer([query])
            return {
                "answer": answer.text,
                "error": answer.error,
                "refused": opened.refuses(answer),
                "sources": [asdict(source) for source in opened.sources(answer)],
                "solution": opened.solution.name,
                "tokens_in": answer.tokens_in,
                "tokens_out": answer.tokens_out,
                "seconds": answer.latency_s,
                "notes": opened.notes([query]),
            }

    # ---- parts ------------------------------------------------------------------------------

    def _opened(self, folder: Path, solution: str | None) -> Bundle:
        """A bundle with its model, kept as long as its files are what they were."""
        from rung.models import open_model
        from rung.serving.bundle import read_bundle

        packed = read_bundle(folder, solution=solution)
        key = (folder, solution, (packed.place / "solution.json").stat().st_mtime_ns)
        if key not in self._bundles:
            while len(self._bundles) >= _OPEN:
                del self._bundles[next(iter(self._bundles))]
            self._bundles[key] = packed.opened(open_model(packed.model))
        return self._bundles[key]

    def _inside(self, given: str) -> Path:
        """A path that lies in the root, also when links are followed. Raises RunError; tells nothing of elsewhere."""
        elsewhere = RunError(
            f"{given[:200]!r} does not lie in the folder that this server works in. Name a path in it."
        )
        if not given.strip() or "\0" in given:
            raise elsewhere
        try:
            path = (self._root / given).resolve()
            path.exists()
        except (OSError, RuntimeError) as error:  # a loop of links, a name that is too long
            raise elsewhere from error
        if path != self._root and self._root not in path.parents:
            raise elsewhere
        return path

    def _task(self, given: str) -> Path:
        """A task.yaml in the root whose data, and its metric where that is a file, lie in the root, too."""
        from rung.data.task_file import read_task
        from rung.evaluation.metric_files import metric_files

        path = self._inside(given)
        if not path.exists():
            raise RunError(f"{given}: there is no such file. Name a task.yaml, or the folder that holds one.")
        task = read_task(path)
        beside = (*task.unlabelled, *task.synthetic, *task.preferences, *task.judged)
        corpus = (task.corpus,) if task.corpus is not None else ()
        own = metric_files(task.metric, task.path.parent)
        for file in (task.path, *task.example_files, *beside, *corpus, *own):
            self._inside(str(file))
        return task.path

    def _folder_of(self, task: Path) -> Path:
        """The default run folder: that of the same task.yaml, else one that is not there yet."""
        from rung.data.task_file import read_task
        from rung.resume import recorded

        name = read_task(task).name
        for number in range(1, 1_000):
            folder = self._root / "runs" / (name if number == 1 else f"{name}-{number}")
            record = recorded(folder / "task.json")
            if not folder.exists() or (record is not None and record.get("path") == str(task)):
                return self._inside(str(folder))
        raise RunError("runs: holds a thousand runs of this name. Name a folder with out.")

    def _rung(self, *words: str) -> dict[str, Any]:
        """The object that a verb prints, called in a process of its own. Raises RunError with the error that it has."""
        command = [sys.executable, "-m", "rung", *words]
        try:
            done = subprocess.run(
                command, cwd=self._root, stdin=subprocess.DEVNULL, capture_output=True, timeout=_CHECK_S, check=False
            )
        except subprocess.TimeoutExpired:
            limit = f"{_CHECK_S / 60:.0f} minutes"
            raise RunError(f"rung {words[0]} took longer than {limit}. Call it in a terminal.") from None
        try:
            found: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            raise RunError(f"rung {words[0]} ended with exit code {done.returncode} and said nothing.") from None
        if "error" in found:
            raise RunError(found["error"]["message"])
        return found

    def _short(self, path: Path) -> str:
        return str(path.relative_to(self._root))


def _as_text(decision: dict[str, Any]) -> str:
    """The verdict in sentences: headline, warnings, reasons and what to do next."""

    def told(title: str, key: str) -> list[str]:
        sentences: Sequence[str] = decision.get(key) or ()
        return [title, *(f"- {sentence}" for sentence in sentences)] if sentences else []

    parts = [str(decision["headline"])]
    return "\n".join([*parts, *told("Warnings:", "warnings"), *told("Why:", "reasons"), *told("Next:", "next")])
