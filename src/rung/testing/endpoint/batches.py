"""Files and batches of a fake endpoint, as OpenAI's batch interface has them. Knows nothing of connections.

A batch goes through validating, in_progress and finalizing to completed, by the time since it was made. Its answers
are computed when it ends, and stand in the output file in another order than the input's, which real ones may do too.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rung.testing.endpoint.chat import Rejection
from rung.testing.endpoint.switches import Switches

AnswerLine = Callable[[dict[str, Any], bytes], tuple[int, dict[str, Any]]]
"""A line's body, as JSON and as bytes -> status and body of its answer."""


@dataclass
class StoredFile:
    """A file that was uploaded or made. content: its bytes."""

    id: str
    name: str
    purpose: str
    content: bytes

    def told(self) -> dict[str, Any]:
        told = {"id": self.id, "object": "file", "bytes": len(self.content), "created_at": 1_790_000_000}
        return {**told, "filename": self.name, "purpose": self.purpose, "status": "processed"}


@dataclass
class FakeBatch:
    """A batch and where it stands. made: on the monotonic clock. ended: its answers are computed."""

    id: str
    source: StoredFile
    endpoint: str
    window: str
    metadata: dict[str, str]
    made: float
    lines: list[dict[str, Any]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    status: str = "validating"
    ended: bool = False
    completed: int = 0
    failed: int = 0
    output: str | None = None
    error: str | None = None

    def told(self) -> dict[str, Any]:
        faults = [{"code": "invalid_line", "message": message, "line": None} for message in self.errors]
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "input_file_id": self.source.id,
            "completion_window": self.window,
            "status": self.status,
            "errors": {"object": "list", "data": faults} if faults else None,
            "output_file_id": self.output,
            "error_file_id": self.error,
            "created_at": 1_790_000_000,
            "request_counts": {"total": len(self.lines), "completed": self.completed, "failed": self.failed},
            "metadata": self.metadata,
        }


class Batches:
    """The files and the batches. answer: answers one line, and records it as charged. clock: monotonic seconds."""

    def __init__(self, answer: AnswerLine, switches: Callable[[], Switches], clock: Callable[[], float]) -> None:
        self._answer = answer
        self._switches = switches
        self._clock = clock
        self.files: dict[str, StoredFile] = {}
        self.batches: dict[str, FakeBatch] = {}

    def upload(self, body: bytes, content_type: str) -> StoredFile:
        """Stores the file of a multipart form. Raises Rejection where the form has no file or no purpose."""
        parts = _form(body, content_type)
        if "file" not in parts or "purpose" not in parts:
            raise Rejection(400, "a form with the fields file and purpose is needed", None, param="file")
        name, content = parts["file"]
        return self._store(name or "upload", parts["purpose"][1].decode(), content)

    def file(self, id: str) -> StoredFile:
        """Raises Rejection where there is no such file."""
        if id not in self.files:
            raise Rejection(404, f"No such File object: {id}", None, param="id")
        return self.files[id]

    def create(self, body: dict[str, Any]) -> FakeBatch:
        """Starts a batch over an uploaded file. Raises Rejection where a field is missing or wrong."""
        source = self.file(str(body.get("input_file_id")))
        endpoint, window = body.get("endpoint"), body.get("completion_window")
        if endpoint != "/v1/chat/completions" or window != "24h" or source.purpose != "batch":
            fact = "endpoint must be /v1/chat/completions, completion_window 24h and the file's purpose batch"
            raise Rejection(400, fact, None)
        id = f"batch_{len(self.batches) + 1}"
        batch = FakeBatch(id, source, endpoint, window, dict(body.get("metadata") or {}), self._clock())
        batch.lines, batch.errors = _lines(source.content)
        self.batches[id] = batch
        return batch

    def get(self, id: str) -> FakeBatch:
        """The batch as it stands now. Raises Rejection where there is none of that name."""
        if id not in self.batches:
            raise Rejection(404, f"No batch found with id '{id}'.", None, param="batch_id")
        batch = self.batches[id]
        self._advance(batch)
        return batch

    def cancel(self, id: str) -> FakeBatch:
        """Stops a batch that runs: what it answered until now is its output. Raises Rejection where it has ended."""
        batch = self.get(id)
        if batch.ended:
            raise Rejection(400, f"Cannot cancel a batch with status '{batch.status}'.", None)
        self._finish(batch, "cancelled", self._share(batch), "batch_cancelled")
        return batch

    def _share(self, batch: FakeBatch) -> float:
        """The share of its time that has passed."""
        takes = self._switches().batch_s
        return min(1.0, (self._clock() - batch.made) / takes) if takes > 0 else 1.0

    def _advance(self, batch: FakeBatch) -> None:
        if batch.ended:
            return
        if batch.errors:
            batch.status, batch.ended = "failed", True
            return
        share, answers = self._share(batch), self._switches().batch_answers
        if share >= 1:
            self._finish(batch, "completed" if answers >= 1 else "expired", answers, "batch_expired")
        else:
            batch.status = "validating" if share < 0.1 else "in_progress" if share < 0.9 else "finalizing"
            batch.completed = int(len(batch.lines) * share * min(1.0, answers))

    def _finish(self, batch: FakeBatch, status: str, share: float, code: str) -> None:
        """Computes the first `share` of the lines; the others are told as errors with `code`."""
        draw = random.Random(batch.id)
        answered: list[dict[str, Any]] = []
        failed: list[dict[str, Any]] = []
        until = int(len(batch.lines) * min(1.0, share))
        for place, line in enumerate(batch.lines):
            told: dict[str, Any] = {"id": f"batch_req_{place}", "custom_id": line["custom_id"], "response": None}
            if place >= until:
                failed.append({**told, "error": {"code": code, "message": "This request was not executed in time."}})
                continue
            if draw.random() < self._switches().batch_fails:
                refusal = Rejection(500, "The server had an error while processing your request.", None)
                answer: tuple[int, dict[str, Any]] = (500, {"error": refusal.error})
            else:
                answer = self._answer(line["body"], json.dumps(line["body"]).encode())
            told["response"] = {"status_code": answer[0], "request_id": f"req_{place}", "body": answer[1]}
            (answered if answer[0] == 200 else failed).append({**told, "error": None})
        draw.shuffle(answered)
        batch.output = self._written(batch, "output", answered)
        batch.error = self._written(batch, "error", failed)
        batch.completed, batch.failed = len(answered), len(failed)
        batch.status, batch.ended = status, True

    def _written(self, batch: FakeBatch, what: str, lines: list[dict[str, Any]]) -> str | None:
        if not lines:
            return None
        content = "".join(json.dumps(line) + "\n" for line in lines).encode()
        return self._store(f"{batch.id}_{what}.jsonl", "batch_output", content).id

    def _store(self, name: str, purpose: str, content: bytes) -> StoredFile:
        stored = StoredFile(f"file-{len(self.files) + 1}", name, purpose, content)
        self.files[stored.id] = stored
        return stored


def _lines(content: bytes) -> tuple[list[dict[str, Any]], list[str]]:
    """The requests of a batch file, and what is wrong with it."""
    lines: list[dict[str, Any]] = []
    errors: list[str] = []
    for number, text in enumerate(content.splitlines(), 1):
        try:
            line = json.loads(text)
        except ValueError:
            errors.append(f"line {number}: no JSON")
            continue
        if not isinstance(line, dict) or not isinstance(line.get("custom_id"), str) or "body" not in line:
            errors.append(f"line {number}: custom_id and body are needed")
        elif (line.get("method"), line.get("url")) != ("POST", "/v1/chat/completions"):
            errors.append(f"line {number}: method must be POST and url /v1/chat/completions")
        else:
            lines.append(line)
    if len({line["custom_id"] for line in lines}) < len(lines):
        errors.append("custom_id: two lines have the same")
    return lines, errors or ([] if lines else ["the file has no lines"])


def _form(body: bytes, content_type: str) -> dict[str, tuple[str, bytes]]:
    """The fields of a multipart form: name -> (file name, content)."""
    _, _, boundary = content_type.partition("boundary=")
    if not boundary:
        return {}
    found = {}
    for part in body.split(b"--" + boundary.strip().strip('"').encode("latin-1"))[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        values = dict(
            piece.strip().split("=", 1) for piece in head.decode("utf-8", "replace").split(";") if "=" in piece
        )
        name = values.get("name", "").split("\r\n")[0].strip('"')
        file_name = values.get("filename", "").split("\r\n")[0].strip('"')
        found[name] = (file_name, content.removesuffix(b"\r\n"))
    return found
