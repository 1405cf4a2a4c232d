"""A truthful fake of an OpenAI-compatible endpoint: a real HTTP server on loopback whose faults are scripted.

`FakeEndpoint` runs in a thread of this process; `endpoint_process`, and `python -m rung.testing.endpoint`, in a process
of its own. The standard library is all it needs. It answers from a table or a function, counts words as tokens, and
records every call, so that a test can say what a provider would have charged.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from rung.testing.endpoint.chat import Body as Body
from rung.testing.endpoint.chat import ChatAnswers as ChatAnswers
from rung.testing.endpoint.chat import Rejection as Rejection
from rung.testing.endpoint.chat import echo as echo
from rung.testing.endpoint.judging import ScriptedJudge as ScriptedJudge
from rung.testing.endpoint.record import Call as Call
from rung.testing.endpoint.record import Record as Record
from rung.testing.endpoint.service import Service
from rung.testing.endpoint.switches import FAULTS as FAULTS
from rung.testing.endpoint.switches import FaultScript as FaultScript
from rung.testing.endpoint.switches import Switches as Switches
from rung.testing.endpoint.teaching import Filtered as Filtered
from rung.testing.endpoint.teaching import ScriptedTeacher as ScriptedTeacher
from rung.testing.endpoint.teaching import Shares as Shares

_BACKLOG = 2048  # connections that wait to be accepted; the kernel may allow fewer


class FakeEndpoint:
    """An endpoint in a thread of this process, as a context manager.

    answers: a mapping from the last user turn to the answer, or a function of the messages and the body; without one it
    echoes the last user turn. faults: as in FaultScript; shares are drawn from `seed`. switches: fields of Switches.
    port 0: any free one; after close and start again it is the same.

        with FakeEndpoint({"2 + 2": "4"}, latency_s=0.05, most_in_flight=200, faults={"500": 0.1}) as endpoint:
            model = open_model(endpoint.spec())
    """

    def __init__(
        self,
        answers: ChatAnswers = echo,
        *,
        faults: FaultScript | None = None,
        seed: int = 0,
        port: int = 0,
        **switches: Any,
    ) -> None:
        self._service = Service(answers, replace(Switches(), **switches), faults, seed)
        self._port = port
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        self._failed: BaseException | None = None

    # ---- its life ---------------------------------------------------------------------------

    def start(self) -> None:
        """Listens, in a thread. Raises OSError where the port is taken."""
        self._ready.clear()
        self._failed = None
        self._thread = threading.Thread(target=self._run_thread, name="fake endpoint", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failed is not None:
            self._thread.join()
            raise self._failed

    def close(self) -> None:
        """Stops listening and closes every connection, in the middle of answers too. What was recorded stays."""
        if self._thread is not None and self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
            self._thread = None

    def __enter__(self) -> FakeEndpoint:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def serve(self, *, until: asyncio.Event | None = None, announce: bool = False) -> None:
        """Listens on the running loop until the event is set. announce: prints the address as a line of JSON."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(self._service.connection, "127.0.0.1", self._port, backlog=_BACKLOG)
        self._port = server.sockets[0].getsockname()[1]
        if announce:
            print(json.dumps({"url": self.url, "model": self.model}), flush=True)
        self._ready.set()
        try:
            await (until or asyncio.Event()).wait()
        finally:
            server.close()
            self._service.close()
            await asyncio.sleep(0)  # connections that were aborted close now

    def _run_thread(self) -> None:
        async def main() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            await self.serve(until=self._stop)

        try:
            asyncio.run(main())
        except BaseException as error:
            self._failed = error
        finally:
            self._ready.set()

    # ---- what a client needs ----------------------------------------------------------------

    @property
    def url(self) -> str:
        """What a client takes as its base URL: "http://127.0.0.1:PORT/v1", for Azure without a path."""
        return f"http://127.0.0.1:{self._port}" + ("" if self._service.switches.azure else "/v1")

    @property
    def model(self) -> str:
        return self._service.switches.model

    def spec(self, **more: Any) -> str:
        """What `rung.models.open_model` takes: JSON text with the address and the model's name. more: other keys."""
        return spec_of(self.url, self.model, **more)

    def change(self, **switches: Any) -> None:
        """Replaces fields of its switches, for calls that arrive afterwards."""
        self._service.switches = replace(self._service.switches, **switches)

    # ---- what it saw ------------------------------------------------------------------------

    @property
    def record(self) -> Record:
        return self._service.record

    @property
    def calls(self) -> list[Call]:
        """Every call for a chat completion in order of arrival, refused ones and lines of batches among them."""
        return self._service.record.calls

    @property
    def faults(self) -> Counter[str]:
        """How many faults of each kind were sent."""
        return self._service.record.faults

    @property
    def charged(self) -> int:
        """Number of answers that a provider would charge."""
        return self._service.record.charged


def spec_of(url: str, model: str, **more: Any) -> str:
    """The spec of a model behind an address, as JSON text with sorted keys."""
    return json.dumps({"endpoint": url, "name": model, **more}, sort_keys=True)


@contextmanager
def endpoint_process(
    answers: Mapping[str, str] | None = None,
    *,
    faults: Mapping[str, float] | None = None,
    seed: int = 0,
    **switches: Any,
) -> Iterator[str]:
    """A fake endpoint in a process of its own; gives its URL. It ends with the block, or with this process.

    switches: fields of Switches that are numbers, words or yes and no. What it saw: GET /fake/record.
    """
    settings = {"answers": answers, "faults": faults, "seed": seed, "switches": switches}
    command = [sys.executable, "-m", "rung.testing.endpoint", "--settings-from-input"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(settings) + "\n")
            process.stdin.flush()
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.stdin.close()
            process.terminate()
