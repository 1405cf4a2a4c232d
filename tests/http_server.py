"""Servers in a thread of this process, over fakes, and a client each."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from rung.errors import Busy
from rung.models.one_by_one import OneByOne
from rung.models.streaming import Ask, Hearer, Piece, Token, WrittenToken
from rung.serving.bundle import Packed
from rung.serving.http.server import Signals, listening_socket, serve_app
from rung.serving.http.setup import HttpSetup
from rung.serving.service import ModelService, ServiceLimits
from rung.solutions.store import load_solution, save_solution
from rung.testing import FakeModel
from rung.types import Decoding, Document, Generation, Request, RetrieverSpec, Solution

HTTP = httpx.Client(timeout=20, verify=False, trust_env=False)
"""One client for all tests: to make one takes a tenth of a second."""
PASSAGES = [Document("leave", "Leave is 30 days.", title="Handbook", page=3), Document("pay", "Pay comes monthly.")]


class WordByWord(OneByOne):
    """An Answerer that writes a word at a time, with its log-probability. wait_s: between words. gate: words wait for
    it. cancelled: asks that were given up."""

    def __init__(self, answers: Callable[[Request], Any], *, wait_s: float = 0.0, most: int = 1000) -> None:
        super().__init__(FakeModel(answers, name="fake"))
        self.wait_s, self.most = wait_s, most
        self.gate = threading.Event()
        self.gate.set()
        self.asks: list[Ask] = []
        self.cancelled: list[Ask] = []
        self.held: list[Path] = []
        self.released: list[Path] = []
        self.now = 0

    def submit(self, ask: Ask, hears: Hearer) -> Any:
        if self.now >= self.most:
            raise Busy("too many requests wait.", 2.5)
        self.now += 1
        self.asks.append(ask)
        ticket = _Ticket()
        threading.Thread(target=self._write, args=(ask, hears, ticket), daemon=True).start()
        return ticket

    def hold(self, adapter: Path) -> None:
        self.held.append(adapter)

    def release(self, adapter: Path) -> None:
        self.released.append(adapter)

    def _write(self, ask: Ask, hears: Hearer, ticket: _Ticket) -> None:
        answer = self.model.generate([ask.request])[0]
        if answer.error is None:
            hears.begun(answer.tokens_in, 1)
        written = 0
        for number, word in enumerate(answer.text.split() if answer.error is None else ()):
            self.gate.wait(30)
            time.sleep(self.wait_s)
            if ticket.cancelled:
                self.cancelled.append(ask)
                break
            text = word if not number else f" {word}"
            data = text.encode("utf-8", "replace")
            token = WrittenToken(text, data, -0.5, (Token(text, data, -0.5),))
            hears.piece(Piece(text, (token,) if ask.logprobs is not None else ()))
            written += 1
        self.now -= 1
        hears.done(Generation(answer.text, answer.tokens_in, written, 0.1, answer.finish, answer.error, 1))


@dataclass
class _Ticket:
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Server:
    """code: the exit code, once it ended. said: what it tells who runs it."""

    url: str
    port: int
    setup: HttpSetup
    tell: Callable[[signal.Signals], None]
    thread: threading.Thread
    code: list[int] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def chat(self, model: str = "fake", text: str = "hi", **more: Any) -> httpx.Response:
        return HTTP.post(f"{self.url}/v1/chat/completions", json=chat_body(model, text, **more))

    def end(self, sent: signal.Signals = signal.SIGTERM) -> int:
        self.tell(sent)
        self.thread.join(20)
        assert not self.thread.is_alive()
        return self.code[0]


def chat_body(model: str = "fake", text: str = "hi", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


Start = Callable[..., Server]


@contextmanager
def running_server(
    folder: Path, answerer: Any, *, grace_s: float = 5.0, adapters: Path | None = None, waiting: int = 256, **more: Any
) -> Iterator[Server]:
    """A server with a base "fake" and a bundle "handbook" that searches PASSAGES and cites them. more: of HttpSetup."""
    service = ModelService({"fake": answerer}, adapters=adapters, limits=ServiceLimits(None, waiting))
    service.add("handbook", handbook(folder / "handbook"), "fake")
    setup = HttpSetup(service, **more)
    listening = listening_socket("127.0.0.1", 0)
    port = listening.getsockname()[1]
    up = threading.Event()
    told: list[Callable[[signal.Signals], None]] = []

    async def run() -> int:
        queue, loop = Signals(), asyncio.get_running_loop()
        told.append(lambda sent: loop.call_soon_threadsafe(queue.put_nowait, sent) and None)
        return await serve_app(setup, listening, queue, grace_s=grace_s, say=server.said.append, up=up.set)

    thread = threading.Thread(target=lambda: server.code.append(asyncio.run(run())), daemon=True)
    server = Server(f"http://127.0.0.1:{port}", port, setup, lambda sent: told[0](sent), thread)
    thread.start()
    assert up.wait(20)
    try:
        yield server
    finally:
        if thread.is_alive():
            server.tell(signal.SIGTERM)
            server.tell(signal.SIGTERM)
            thread.join(20)
        assert not thread.is_alive()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """start(answerer, …) as `running_server`; the servers end with the test."""
    with ExitStack() as stack:
        yield lambda answerer, **more: stack.enter_context(running_server(tmp_path, answerer, **more))


def handbook(folder: Path) -> Packed:
    if not folder.is_dir():
        solution = Solution("rag", "Answer.", Decoding(12), retriever=RetrieverSpec("bm25", 1, 100), cite=True)
        save_solution(solution, folder, passages=PASSAGES)
    return Packed(folder, load_solution(folder), "fake", "1", {}, folder / "bundle.json")


def connected(server: Server, data: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=15)
    connection.sendall(data)
    return connection


def eventually(holds: Callable[[], object], seconds: float = 8.0) -> bool:
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True
