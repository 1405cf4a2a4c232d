"""`rung serve`: what it refuses before it opens anything, and a process from its first line to its last."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from http_server import HTTP, chat_body
from rung.cli.main import rung
from rung.errors import RungError
from rung.models import model_version
from rung.solutions.store import save_solution
from rung.types import Decoding, Solution


def call(*words: str) -> int:
    return int(rung.main(["serve", *words], standalone_mode=False))


def test_without_its_packages_it_names_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(RungError, match=r'pip install "rung\[serve\]"') as caught:
        call("somewhere")
    assert "\n" not in str(caught.value)


def test_it_listens_beyond_this_machine_with_a_key_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RungError, match="--insecure"):
        call("somewhere", "--host", "0.0.0.0", "--port", "0")
    monkeypatch.setenv("KEY", "a-key-of-some-length")
    for more in (("--api-key-env", "KEY"), ("--insecure",)):
        with pytest.raises(RungError, match="somewhere"):  # it goes on to the bundle, which is not there
            call("somewhere", "--host", "0.0.0.0", "--port", "0", *more)


def test_a_name_that_is_given_twice_and_a_way_that_is_none_are_told_before_anything_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "colours"
    save_solution(Solution("zero_shot", "Say a colour.", Decoding(4)), bundle)
    (bundle / "bundle.json").write_text(json.dumps({"model": "fake", "model_version": "1"}))
    with pytest.raises(RungError, match=r"the name 'a' is taken already\. Give it a name of its own, as OTHER="):
        call(f"a={bundle}", f"a={bundle}", "--port", "0")
    monkeypatch.setenv("RUNG_WAYS", "fast")
    with pytest.raises(RungError, match="RUNG_WAYS"):
        call("somewhere", "--port", "0")


def test_a_port_in_use_is_known_before_anything_is_opened() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RungError, match=f"port {port} of 127.0.0.1 cannot be used .* --port"):
            call("somewhere", "--port", str(port))


def test_a_process_says_where_it_answers_and_ends_with_0_when_it_is_told_to(tiny_folder: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "colours"
    save_solution(Solution("zero_shot", "Say a colour.", Decoding(4)), bundle)
    note = {"model": str(tiny_folder), "model_version": model_version(str(tiny_folder)), "instruction": "Say a colour."}
    (bundle / "bundle.json").write_text(json.dumps(note))
    command = [sys.executable, "-m", "rung", "serve", f"paint={bundle}", "--port", "0", "--timeout", "30"]
    log = tmp_path / "log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(command, stderr=errors, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process,
    ):
        try:
            until = time.monotonic() + 90
            while not (found := re.search(r"answering at (http://127\.0\.0\.1:\d+)/v1", log.read_text())):
                assert process.poll() is None and time.monotonic() < until, log.read_text()
                time.sleep(0.1)
            url = found[1]
            reply = HTTP.post(f"{url}/v1/chat/completions", json=chat_body("paint", "Which?"))
            assert reply.status_code == 200 and reply.json()["rung"]["solution"] == "zero_shot"
            assert re.search(
                r'rung_computing{base="[^"]+",device="[^"]+",dtype="\w+",ways="', HTTP.get(f"{url}/metrics").text
            )
            evil = HTTP.get(f"{url}/v1/models", headers={"Host": "evil.example"})
            assert evil.status_code == 403
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
    text = log.read_text()
    assert re.search(r": a base, computed in (bfloat16|float16|float32) on .+; ways: \w+", text)
    assert "paint: a bundle on" in text and "curl http://127.0.0.1:" in text
    (line,) = (json.loads(one) for one in text.splitlines() if '"status": 200' in one and "/chat/" in one)
    assert line["model"] == "paint" and "Which?" not in text
    assert "Traceback" not in text
