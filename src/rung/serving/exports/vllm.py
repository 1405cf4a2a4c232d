"""`vllm`: the adapter, or merged weights, with the command that serves them and a request that asks as the bundle does.

The parity test runs this very command, checks that prompts become the same tokens, and asks over HTTP.
"""

from __future__ import annotations

import json
import math
import shlex
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rung.errors import ExportError, ModelError, first_line
from rung.models.vllm.adapters import unserved_key
from rung.models.vllm.process import VllmFlags, VllmProcess, has_gpu, python_with_vllm
from rung.records import read_json, write_json, write_text
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
    sent,
)
from rung.serving.exports.peft import base_name, write_adapter
from rung.serving.exports.prompt_parts import parts_of
from rung.serving.exports.tokenizer_files import context_length_of, write_tokenizer
from rung.types import Constraint, Message

COMMAND, REQUEST, README, FLAGS = "serve.sh", "request.json", "README.md", "flags.json"

_LEAST_LENGTH = 2_048  # tokens of prompt and answer for which there is room
_SECONDS = 600.0  # for one answer


def write(source: ExportSource, folder: Path, options: ExportOptions) -> Exported:
    """Fills the folder. What vLLM does not serve as an adapter is merged into the base."""
    from rung.serving.exports.merged import write_network

    if source.four_bit:
        raise ExportError(
            f"{source.packed.place}: its base is kept in 4 bits, which vLLM does in another way. Use --to merged."
        )
    (folder / "tokenizer").mkdir()
    write_tokenizer(source.base, source.chat, folder / "tokenizer", source.packed.solution)
    adapter = _adapter(source, options)
    names = ["tokenizer/"]
    if adapter is not None:
        (folder / "adapter").mkdir()
        write_adapter(source, adapter, folder / "adapter")
        names.append("adapter/")
    elif source.adapter is not None:
        (folder / "model").mkdir()
        write_network(source, folder / "model")
        names.append("model/")
    flags = _flags(source, adapter)
    write_json(folder / FLAGS, flags)
    write_text(folder / COMMAND, _script(flags))
    (folder / COMMAND).chmod(0o755)
    turns = sent([*parts_of(source).before, Message("user", "{input}")])
    write_json(folder / REQUEST, request_of(source, turns))
    write_text(folder / README, _readme(source, flags))
    return Exported((COMMAND, REQUEST, README, FLAGS, *names), _notes(source, flags))


def _adapter(source: ExportSource, options: ExportOptions) -> Path | None:
    """The folder of an adapter that vLLM serves beside its base; None: there is none, or it is to be merged."""
    if source.factors is None or options.merged:
        return None
    config = read_json(source.factors / "adapter_config.json") or {}
    if unserved_key(config) is not None:
        return None
    return source.factors


# ---- the command --------------------------------------------------------------------------------


def _flags(source: ExportSource, adapter: Path | None) -> dict[str, Any]:
    """flags.json. model, name, adapter, rank, length and dtype."""
    merged = adapter is None and source.adapter is not None
    base = base_name(source)
    config = read_json(adapter / "adapter_config.json") if adapter is not None else None
    ranks = [config["r"], *(config.get("rank_pattern") or {}).values()] if config is not None else []
    return {
        "model": "model" if merged else base,
        "name": source.name if adapter is None else Path(base).name,
        "adapter": source.name if adapter is not None else None,
        "rank": max(ranks, default=0),
        "length": _length(source),
        "dtype": "auto" if has_gpu() else "float32",
    }


def _length(source: ExportSource) -> int:
    """Tokens of prompt and answer: a power of two with room for twice the longest of the parity test."""
    prompts = [len(source.chat.encode(ask.request.messages)) for ask in source.asks]
    wanted = 2 * (max(prompts, default=0) + source.packed.solution.decoding.max_new_tokens)
    room = 1 << math.ceil(math.log2(max(wanted, _LEAST_LENGTH)))
    return min(room, context_length_of(source))


def words_of(flags: Mapping[str, Any], folder: str) -> list[str]:
    """What stands behind `vllm serve`. folder: of the export."""
    model = flags["model"] if flags["model"] != "model" else f"{folder}/model"
    words = [model, "--served-model-name", flags["name"], "--tokenizer", f"{folder}/tokenizer"]
    words += ["--chat-template", f"{folder}/tokenizer/chat_template.jinja"]
    words += ["--generation-config", f"{folder}/tokenizer", "--override-generation-config", '{"temperature": 0.0}']
    words += ["--max-model-len", str(flags["length"]), "--dtype", flags["dtype"]]
    words += ["--structured-outputs-config", '{"backend": "guidance"}']
    if flags["adapter"] is not None:
        most = VllmFlags(Path(model), flags["name"], flags["length"], rank=flags["rank"]).most_rank
        words += ["--enable-lora", "--lora-modules", f"{flags['adapter']}={folder}/adapter"]
        words += ["--max-loras", "1", "--max-lora-rank", str(most)]
    return words if has_gpu() else [*words, "--enforce-eager"]


def _script(flags: Mapping[str, Any]) -> str:
    quoted = " ".join(shlex.quote(word) for word in words_of(flags, "."))
    return f'#!/bin/sh\ncd "$(dirname "$0")" && exec vllm serve {quoted} "$@"\n'


# ---- a request ----------------------------------------------------------------------------------


def request_of(source: ExportSource, messages: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """The body of a chat completion, greedy, held to the solution's constraint."""
    solution = source.packed.solution
    body: dict[str, Any] = {
        "model": source.name,
        "messages": list(messages),
        "temperature": solution.decoding.temperature,
        "max_tokens": solution.decoding.max_new_tokens,
    }
    held = _held(solution.constraint) if solution.constraint is not None else None
    return body if held is None else {**body, "structured_outputs": held}


def _held(constraint: Constraint) -> dict[str, Any]:
    if constraint.kind == "labels":
        return {"choice": list(constraint.value)}
    return {"json" if constraint.kind == "json_schema" else "regex": constraint.value}


def _readme(source: ExportSource, flags: Mapping[str, Any]) -> str:
    parts = parts_of(source)
    cpu = "" if has_gpu() else "VLLM_CPU_KVCACHE_SPACE=2 "
    more = "" if parts.fixed else "The bundle chooses examples for each input; this request has none. "
    more += "The bundle puts passages before the input; put yours there, or use rung serve. " if parts.retrieves else ""
    body = f"sed 's/{{input}}/your input/' {REQUEST}"
    asked = f"{body} | curl -s http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' -d @-"
    return "\n".join(
        [
            f"# {parts.title}",
            "",
            "Start vLLM; more flags go behind the command.",
            "",
            "```sh",
            f"{cpu}./{COMMAND} --host 127.0.0.1 --port 8000",
            "```",
            "",
            f"Ask it as `{source.name}`. {REQUEST} holds the instruction, the examples and the answer's form;",
            f"your input stands in the place of {{input}}. {more}".rstrip(),
            "",
            "```sh",
            asked,
            "```",
            "",
            f"The base model is `{flags['model']}` (version {source.packed.model_version}).",
            "",
        ]
    )


def _notes(source: ExportSource, flags: Mapping[str, Any]) -> tuple[str, ...]:
    notes = [f"{HERE}/{COMMAND} starts it; {HERE}/{README} has a request for curl."]
    if Path(flags["model"]).is_absolute():
        notes.append(f"Its base model lies in {flags['model']}. Elsewhere, write its place there into {COMMAND}.")
    if flags["model"] == "model" and source.factors is not None:
        notes.append("Adapter and base are merged.")
    return tuple(notes)


# ---- the parity test ----------------------------------------------------------------------------


@dataclass(frozen=True)
class ExportedFlags(VllmFlags):
    """The very flags that were exported. told: they."""

    told: tuple[str, ...] = ()

    def words(self, port: int) -> list[str]:
        return [*self.told, "--host", "127.0.0.1", "--port", str(port), "--disable-uvicorn-access-log"]


class VllmServer:
    """vLLM, started by the exported command."""

    holds = True

    def __init__(self, source: ExportSource, process: VllmProcess) -> None:
        self._source, self._process = source, process
        self.name = f"vLLM {self._asked('/version', None)['version']}"

    def answers(self, asks: Sequence[ParityAsk]) -> list[str]:
        """One text an ask. Raises what `VllmProcess.failure` gives where vLLM refuses one."""
        return [self._answer(ask) for ask in asks]

    def checks(self, asks: Sequence[ParityAsk]) -> Sequence[NamedCheck]:
        """Whether prompts become the tokens that they are for rung."""
        chat = self._source.chat
        equal = sum(self._tokens(ask) == chat.encode(ask.request.messages) for ask in asks)
        return [NamedCheck("prompt tokens", equal == len(asks), f"{equal} of {len(asks)} prompts equal")]

    def close(self) -> None:
        self._process.end()

    def _answer(self, ask: ParityAsk) -> str:
        reply = self._asked("/v1/chat/completions", request_of(self._source, sent(ask.request.messages)))
        return str(reply["choices"][0]["message"]["content"] or "")

    def _tokens(self, ask: ParityAsk) -> list[int]:
        body = {"model": self._source.name, "messages": sent(ask.request.messages), "add_generation_prompt": True}
        found: list[int] = self._asked("/tokenize", {**body, "add_special_tokens": False})["tokens"]
        return found

    def _asked(self, path: str, body: Mapping[str, Any] | None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._process.key}"}
        request = urllib.request.Request(f"{self._process.url}{path}", data, headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=_SECONDS) as reply:
                return json.loads(reply.read())
        except OSError as error:
            raise self._process.failure(f"vLLM did not answer {path} ({first_line(error)})") from error


def runtime(source: ExportSource, folder: Path, options: ExportOptions) -> ExportRuntime | NoRuntime:
    """vLLM in the Python that the user names, or where it is installed."""
    try:
        python = python_with_vllm(str(options.runtime_python) if options.runtime_python is not None else None)
    except ModelError as error:
        return NoRuntime(str(error))
    flags = read_json(folder / FLAGS) or {}
    words = tuple(words_of(flags, str(folder.absolute())))
    process = VllmProcess(ExportedFlags(source.base, flags["name"], flags["length"], told=words), python=python)
    try:
        process.wait_until_ready(source.say)
        return VllmServer(source, process)
    except BaseException:
        process.end()
        raise


VLLM = Export("vllm", "A folder for vLLM, its command and a request.", write, runtime, ("merged", "runtime_python"))
