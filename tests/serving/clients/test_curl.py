"""curl against a server that runs, as the documentation writes it."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest

from live_server import KEY, Live

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
ASKED = {"model": "tuned", "messages": [{"role": "user", "content": "Which colour?"}], "max_tokens": 8}


def curl(url: str, *arguments: str, key: str = KEY) -> str:
    command = ["curl", "--silent", "--show-error", url, "-H", f"Authorization: Bearer {key}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout


def data(body: dict[str, Any]) -> tuple[str, ...]:
    return "-H", "Content-Type: application/json", "-d", json.dumps(body)


def test_an_answer_comes_whole_and_in_pieces(live: Live) -> None:
    url = f"{live.url}/v1/chat/completions"
    whole = json.loads(curl(url, *data(ASKED)))["choices"][0]["message"]["content"]
    lines = [line for line in curl(url, "-N", *data({**ASKED, "stream": True})).splitlines() if line]
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"]) == whole


def test_a_wrong_key_is_refused_with_a_reason(live: Live) -> None:
    reply = curl(f"{live.url}/v1/models", "-w", "\n%{http_code}", key="wrong")
    body, _, status = reply.rpartition("\n")
    assert status == "401" and json.loads(body)["error"]["message"]
