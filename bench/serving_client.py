"""A cheap HTTP client for benches of servers: it shares the cores with what it measures."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from serving_servers import PATIENCE_S


@dataclass(frozen=True)
class Reply:
    """status: of HTTP; 0 where the connection broke. body: JSON, or text that is none. seconds: from sending to the
    end of the reply."""

    status: int
    body: Any
    seconds: float

    @property
    def text(self) -> str:
        choice = self.body["choices"][0]
        content: str = choice["message"]["content"] if "message" in choice else choice["text"]
        return content

    @property
    def tokens_out(self) -> int:
        return int(self.body["usage"]["completion_tokens"])


class Connection:
    """One connection that is kept open, with one request at a time."""

    def __init__(self, url: str, key: str | None = None) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._key = f"Authorization: Bearer {key}\r\n" if key else ""
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: object) -> Reply:
        """path: with its /v1. A broken connection is a Reply with status 0: it is not asked again."""
        started = time.perf_counter()
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\n{self._key}Content-Type: application/json\r\n"
        sent = f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(self._host, self._port)
            reader, writer = self._streams
            writer.write(sent)
            status, text = await asyncio.wait_for(_read(reader), PATIENCE_S)
            return Reply(status, _body(text), time.perf_counter() - started)
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            self.close()
            return Reply(0, {"error": {"message": f"{type(error).__name__}: {error}"}}, time.perf_counter() - started)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def _body(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.decode("utf-8", "replace")


async def _read(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status = int(head[0].split(" ", 2)[1])
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    if "content-length" in headers:
        return status, await reader.readexactly(int(headers["content-length"]))
    parts = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return status, b"".join(parts)


async def all_at_once(url: str, bodies: Sequence[dict[str, Any]]) -> tuple[float, list[Reply]]:
    """Asks for every chat completion at the same time, each over a connection of its own. Returns the seconds of all
    together, and the replies in order."""
    connections = [Connection(url) for _ in bodies]
    started = time.perf_counter()
    try:
        asked = zip(connections, bodies, strict=True)
        replies = await asyncio.gather(*(one.post("/v1/chat/completions", body) for one, body in asked))
        return time.perf_counter() - started, list(replies)
    finally:
        for one in connections:
            one.close()
