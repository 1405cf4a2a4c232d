"""`rung mcp` over standard input and output, with the SDK's own client."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from rung.errors import RunError
from rung.models import model_version
from rung.serving.background_runs import RunStatus, begin_run, status_of
from rung.serving.mcp_server import McpTools
from rung.solutions.store import save_solution
from rung.types import Decoding, Document, RetrieverSpec, Solution
from small_task import write_task

mcp = pytest.importorskip("mcp")


def talk(root: Path, said: Callable[[Any], Awaitable[None]]) -> None:
    """Starts the server as an agent does, and speaks with it."""

    async def session() -> None:
        server = mcp.StdioServerParameters(
            command=sys.executable, args=["-m", "rung", "mcp"], cwd=root, env={"RUNG_CACHE": str(root / "cache")}
        )
        async with mcp.Client(mcp.stdio_client(server)) as client:
            await said(client)

    asyncio.run(session())


def text_of(result: Any) -> str:
    return "\n".join(part.text for part in result.content)


def ended(folder: Path, seconds: float = 90.0) -> Any:
    until = time.monotonic() + seconds
    while (now := status_of(folder)).state == "running" and time.monotonic() < until:
        time.sleep(0.2)
    return now


def winner_of(tiny_folder: Path, run: Path) -> None:
    """A run folder with a verdict and a winner that reads a passage."""
    spec = RetrieverSpec("bm25", 1, 60)
    solution = Solution("rag", "Answer.", Decoding(4), retriever=spec)
    save_solution(solution, run / "winner", passages=[Document("a", "The door is red.")])
    note = {"model": str(tiny_folder), "model_version": model_version(str(tiny_folder))}
    (run / "winner" / "bundle.json").write_text(json.dumps(note))
    (run / "task.json").write_text(json.dumps(note))
    decision = {"choice": "rag", "solution": "rag", "headline": "rag: 90 %", "reasons": ["It is ahead."]}
    (run / "decision.json").write_text(json.dumps(decision))


def test_an_agent_checks_data_reads_a_verdict_asks_and_is_told_its_errors(tiny_folder: Path, tmp_path: Path) -> None:
    write_task(tmp_path, tiny_folder)
    winner_of(tiny_folder, tmp_path / "runs" / "a")

    async def said(client: Any) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"check", "run", "status", "report", "ask"}
        assert "continue one that was interrupted" in tools["run"].description
        asked, checked = await asyncio.gather(  # one does not wait for the other
            client.call_tool("ask", {"bundle": "runs/a", "input": "the door"}),
            client.call_tool("check", {"task": "task.yaml"}),
        )
        assert asked.structured_content["sources"][0]["text"] == "The door is red.", text_of(asked)
        assert asked.structured_content["solution"] == "rag"
        assert checked.structured_content["exit"] == 0 and checked.structured_content["rows"] == {"all": 48}
        report = await client.call_tool("report", {"run": "runs/a"})
        assert report.structured_content["text"] == "rag: 90 %\nWhy:\n- It is ahead."
        for tool, words, fact in (
            ("report", {"run": "../elsewhere"}, "does not lie in the folder"),
            ("status", {"run": "runs/none"}, "there is no run here"),
            ("check", {"task": "missing.yaml"}, "no such file"),
            ("ask", {"bundle": "runs/a", "input": " "}, "nothing to answer"),
            ("ask", {"bundle": "runs/a"}, "input"),
        ):
            wrong = await client.call_tool(tool, words)
            assert wrong.is_error and fact in text_of(wrong) and "Traceback" not in text_of(wrong)

    talk(tmp_path, said)


def test_a_run_is_begun_at_once_and_goes_on_when_the_server_ends(tiny_folder: Path, tmp_path: Path) -> None:
    write_task(tmp_path, tiny_folder)
    begun: list[dict[str, Any]] = []

    async def said(client: Any) -> None:
        started = await client.call_tool("run", {"task": "task.yaml", "only": "zero_shot"})
        begun.append(started.structured_content)
        again = await client.call_tool("run", {"task": "task.yaml"})
        assert again.is_error and "going on here already" in text_of(again)

    talk(tmp_path, said)
    folder = Path(begun[0]["folder"])
    assert begun[0]["state"] == "running" and folder.parent == tmp_path / "runs"
    now = ended(folder)
    assert now.state in ("finished", "unfinished") and now.verdict is not None, now
    assert now.said and now.minutes >= 0


def test_a_run_that_cannot_begin_says_why_and_one_that_is_killed_is_stopped(tmp_path: Path, tiny_folder: Path) -> None:
    task = write_task(tmp_path, tiny_folder)
    (tmp_path / "examples.jsonl").write_text('{"input": "a", "output": "red"}\n')
    begin_run(task, tmp_path / "runs" / "a", (), cwd=tmp_path)
    failed = ended(tmp_path / "runs" / "a")
    assert failed.state == "failed" and failed.error is not None and failed.error["kind"] == "DataError"
    write_task(tmp_path, tiny_folder)
    begin_run(task, tmp_path / "runs" / "b", (), cwd=tmp_path)
    pid = json.loads((tmp_path / "runs" / "b.job" / "job.json").read_text())["pid"]
    os.kill(pid, signal.SIGKILL)
    assert ended(tmp_path / "runs" / "b").state == "stopped"


def test_paths_and_the_data_of_a_task_stay_in_the_folder(tmp_path: Path, tiny_folder: Path) -> None:
    (tmp_path / "secret.jsonl").write_text('{"input": "a", "output": "b"}\n')
    root = tmp_path / "root"
    task = write_task(root, tiny_folder)
    (root / "link").symlink_to(tmp_path)
    tools = McpTools(root)
    for given in ("..", "/etc/passwd", "link/secret.jsonl", "a\0b", "", "x" * 5_000):
        with pytest.raises(RunError, match="does not lie in the folder"):
            tools.status(given)
    task.write_text(task.read_text().replace("examples: examples.jsonl", "examples: ../secret.jsonl"))
    with pytest.raises(RunError, match="does not lie in the folder"):
        tools.check("task.yaml")
    with pytest.raises(RunError, match="does not lie in the folder"):
        tools.run("task.yaml")
    assert not (root / "runs").exists()


def test_a_torn_record_of_a_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in ("task.json", "decision.json"):
        (tmp_path / "run" / name).write_text("{")
    for tool in (McpTools(tmp_path).report, McpTools(tmp_path).status):
        with pytest.raises(RunError, match=r"decision\.json: is damaged"):
            tool("run")


def test_without_the_extra_one_clear_error_names_it(tmp_path: Path) -> None:
    code = "import sys; sys.modules['mcp'] = None; sys.argv = ['rung', 'mcp']; from rung.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2 and "pip install 'rung[mcp]'" in done.stderr and "Traceback" not in done.stderr


def test_no_word_of_a_tool_leads_out_of_the_folder(tmp_path: Path, tiny_folder: Path) -> None:
    root = tmp_path / "root"
    task = write_task(root, tiny_folder)
    tools = McpTools(root)
    with pytest.raises(RunError, match="does not lie in the folder"):
        tools.run("task.yaml", out=".")  # what notes its process would lie beside the root
    assert not (tmp_path / "root.job").exists()
    winner_of(tiny_folder, root / "runs" / "a")
    save_solution(Solution("own", "Answer.", Decoding(4)), tmp_path / "elsewhere")
    with pytest.raises(RunError, match="no solution"):
        tools.ask("runs/a", "x", solution="../../../../elsewhere")
    (tmp_path / "own.py").write_text("def score(p, r):\n    return 1.0\n")
    task.write_text(re.sub("metric: .*", "metric: python:../own.py:score", task.read_text()))
    assert "own.py" in task.read_text()
    with pytest.raises(RunError, match="does not lie in the folder"):
        tools.check("task.yaml")


def test_a_large_budget_is_passed_on_digit_by_digit(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_task(tmp_path, tiny_folder)
    given: list[Any] = []

    def begin(task: Path, folder: Path, options: Any, *, cwd: Path) -> RunStatus:
        given.extend(options)
        return RunStatus(str(folder), "running", "", 0.0)

    monkeypatch.setattr("rung.serving.background_runs.begin_run", begin)
    McpTools(tmp_path).run("task.yaml", calls=1_234_567, usd=0.25)
    assert given == ["--calls", "1234567", "--usd", "0.25"]
