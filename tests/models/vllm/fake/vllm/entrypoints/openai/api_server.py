"""What rung uses of vLLM's server, faked with the standard library: `python -m vllm.entrypoints.openai.api_server …`.

$FAKE_VLLM names a folder. plan.json in it: answers (name of the base or of an adapter's folder -> token ids), delay_s
of each token, fails (a text: it says so and does not start), max_model_len, dies (so many of the processes end in the
middle of their second answer), dies_loading (as many, when they load an adapter), refuses_grammars. A "*" among the
answers is for every other name. What it was asked goes into seen.jsonl.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

PLACE = Path(os.environ["FAKE_VLLM"])
ADAPTERS: dict[str, str] = {}  # name -> the folder's name
LOCK = threading.Lock()
ASKED = count()


def plan() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((PLACE / "plan.json").read_text())
    return read


def saw(**what: Any) -> None:
    with LOCK, (PLACE / "seen.jsonl").open("a") as file:
        file.write(json.dumps(what) + "\n")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        if self.path == "/health":
            self._reply(200, {})
        elif self._may():
            length = plan().get("max_model_len") or int(word("--max-model-len"))
            self._reply(200, {"data": [{"id": word("--served-model-name"), "max_model_len": length}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not self._may():
            return
        saw(path=self.path, body=body)
        if self.path == "/v1/load_lora_adapter":
            if "unfit" in body["lora_path"]:
                self._reply(400, {"error": {"message": "rank 64 is above max_lora_rank"}})
                return
            if plan().get("dies_loading", 0) >= NUMBER:
                self._reply(400, {"error": {"message": "EngineCore encountered an issue"}})
                threading.Timer(0.3, os._exit, (1,)).start()  # the server follows its engine
                return
            ADAPTERS[body["lora_name"]] = Path(body["lora_path"]).name
            self._reply(200, {})
        elif self.path == "/v1/unload_lora_adapter":
            self._reply(200 if ADAPTERS.pop(body["lora_name"], None) else 404, {})
        elif body["model"] not in (word("--served-model-name"), *ADAPTERS):
            self._reply(404, {"error": {"message": f"no model {body['model']}"}})
        elif plan().get("refuses_grammars") and "structured_outputs" in body:
            self._reply(400, {"error": {"message": "this grammar is too large"}})
        else:
            self._stream(body)

    def _stream(self, body: dict[str, Any]) -> None:
        said = plan()
        answers = said["answers"]
        name = ADAPTERS.get(body["model"], body["model"])
        ids = answers[name if name in answers else "*"][: body["max_tokens"]]
        stops = [at for at, id_ in enumerate(ids) if id_ in body["stop_token_ids"]]
        ids = ids[: stops[0] + 1] if stops else ids
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            for at, id_ in enumerate(ids):
                if at == 1 and said.get("dies", 0) >= NUMBER and next(ASKED) > 0:
                    os._exit(1)
                time.sleep(said.get("delay_s", 0.0))
                choice: dict[str, Any] = {"index": 0, "text": "not used", "token_ids": [id_]}
                choice["finish_reason"] = None if at < len(ids) - 1 else "stop" if stops else "length"
                if body.get("logprobs") is not None:
                    top = {f"token_id:{id_}": -0.25, "token_id:1": -1.5}
                    choice["logprobs"] = {
                        "tokens": [f"token_id:{id_}"],
                        "token_logprobs": [-0.25],
                        "top_logprobs": [top],
                    }
                self._event({"choices": [choice]})
            usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": len(ids)}
            self._event({"choices": [], "usage": {**usage, "prompt_tokens_details": {"cached_tokens": 2}}})
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            saw(left=body["model"])

    def _event(self, record: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(record)}\n\n".encode())
        self.wfile.flush()

    def _may(self) -> bool:
        if self.headers["authorization"] == f"Bearer {os.environ['VLLM_API_KEY']}":
            return True
        self._reply(401, {"error": "Unauthorized"})
        return False

    def _reply(self, status: int, record: dict[str, Any]) -> None:
        content = json.dumps(record).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def word(flag: str) -> str:
    return sys.argv[sys.argv.index(flag) + 1]


if __name__ == "__main__":
    NUMBER = 1 + (PLACE / "seen.jsonl").read_text().count('"words"') if (PLACE / "seen.jsonl").exists() else 1
    saw(words=sys.argv[1:], environment={key: value for key, value in os.environ.items() if key.startswith("VLLM_")})
    print("INFO vLLM fakes its start", flush=True)
    if failure := plan().get("fails"):
        sys.exit(f"RuntimeError: {failure}")
    server = ThreadingHTTPServer(("127.0.0.1", int(word("--port"))), Handler)
    server.daemon_threads = True
    server.serve_forever()
