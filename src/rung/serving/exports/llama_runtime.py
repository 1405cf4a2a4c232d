"""The runtime of GGUF files: llama.cpp by llama-cpp-python, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.constraints import loosened
from rung.errors import ExportError
from rung.serving.exports.export import ExportOptions, NamedCheck, NoRuntime, ParityAsk, sent
from rung.types import Constraint

if TYPE_CHECKING:
    from rung.models.chat_template import ChatFormat

_WORKER = Path(__file__).with_name("llama_worker.py")
_SPARE = 64  # tokens of context beyond the longest prompt and answer
_TOLD = 300  # characters of what the process said last


class LlamaProcess:
    """A worker of llama.cpp. Raises ExportError when it ends or says that it cannot."""

    def __init__(self, python: Path) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - a pipe that nobody reads would stop the process
        self._process = subprocess.Popen(
            [python, _WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            encoding="utf-8",
        )

    def ask(self, operation: str, **more: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"operation": operation, **more}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            said = self.close()
            raise ExportError(f"llama.cpp ended by itself: {said or 'it said nothing'}.")
        answer: dict[str, Any] = json.loads(line)
        if (error := answer.get("error")) is not None:
            raise ExportError(f"llama.cpp could not {operation.replace('_', ' ')}: {error}.")
        return answer

    def close(self) -> str:
        """Ends it, and returns the last it said."""
        self._process.kill()
        self._process.communicate()
        if self._said.closed:
            return ""
        with self._said as file:
            file.seek(0)
            return file.read().decode("utf-8", "replace").strip()[-_TOLD:]


class LlamaRuntime:
    """GGUF files with their own chat template. chat: of the bundle, to compare with."""

    def __init__(self, process: LlamaProcess, chat: ChatFormat, version: str, constraint: Constraint | None) -> None:
        self.name = f"llama.cpp (llama-cpp-python {version})"
        self.holds = constraint is None or constraint.kind != "regex"
        self._process = process
        self._chat = chat

    def answers(self, asks: Sequence[ParityAsk]) -> list[str]:
        return [
            self._process.ask(
                "chat",
                messages=sent(ask.request.messages),
                tokens=ask.request.decoding.max_new_tokens,
                grammar=grammar_of(ask.request.constraint),
            )["text"]
            for ask in asks
        ]

    def checks(self, asks: Sequence[ParityAsk]) -> Sequence[NamedCheck]:
        """Chat template, end token and beginning token, each by itself."""
        facts = self._process.ask("facts")
        return (self._template(asks), self._end(facts), self._beginning(facts))

    def close(self) -> None:
        self._process.close()

    def _template(self, asks: Sequence[ParityAsk]) -> NamedCheck:
        forged = 0
        for number, ask in enumerate(asks, 1):
            found = self._process.ask("chat_ids", messages=sent(ask.request.messages))["ids"]
            wanted = self._chat.encode(ask.request.messages)
            if found == wanted:
                continue
            if found == self._as_plain(ask):
                forged += 1
                continue
            place = next((i for i, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b), len(wanted))
            fact = f"the tokens of chat {number} ({ask.query.id}) differ from rung's at place {place}"
            return NamedCheck("chat template", False, fact)
        more = f"; {forged} hold the text of a control token, which llama.cpp reads as that token" if forged else ""
        return NamedCheck("chat template", True, f"tokens of {len(asks) - forged} chats are rung's{more}")

    def _as_plain(self, ask: ParityAsk) -> list[int]:
        """Ids of the chat where text that spells a control token is that token."""
        tokenizer = self._chat.tokenizer
        text = tokenizer.apply_chat_template(
            sent(ask.request.messages),
            chat_template=self._chat.whole_template(),
            add_generation_prompt=True,
            tokenize=False,
        )
        return [int(i) for i in tokenizer.encode(text, add_special_tokens=False)]

    def _end(self, facts: dict[str, Any]) -> NamedCheck:
        wanted = self._chat.end_id
        ends = self._process.ask("ends", token=wanted)["ends"]
        right = facts["eos"] == wanted and ends
        fact = f"{facts['eos']}" if right else f"it is {facts['eos']}, and answers were taught to end with {wanted}"
        return NamedCheck("end token", right, fact)

    def _beginning(self, facts: dict[str, Any]) -> NamedCheck:
        tokenizer = self._chat.tokenizer
        bos = tokenizer.bos_token_id
        wanted = bos is not None and tokenizer.encode("a")[:1] == [bos]
        found = facts["alone"][:1] == [facts["bos"]]
        which = "none" if bos is None else f"{bos}"
        what = "before a text by itself" if found else "before no text by itself"
        if found == wanted == facts["add_bos"] and (bos is None or facts["bos"] == bos):
            return NamedCheck("beginning token", True, f"{which}, {what}, as in the base's tokenizer")
        fact = f"it is {facts['bos']}, {what}; in the base's tokenizer it is {which}, and "
        return NamedCheck(
            "beginning token", False, fact + ("stands before a text" if wanted else "does not stand there")
        )


def grammar_of(constraint: Constraint | None) -> dict[str, Any] | None:
    """What llama.cpp is to hold an answer to; None for nothing, and for patterns, which its grammars are not."""
    if constraint is None or constraint.kind == "regex":
        return None
    if constraint.kind == "labels":
        return {"labels": list(constraint.value)}
    return {"schema": loosened(constraint).value}


def longest_of(chat: ChatFormat, asks: Sequence[ParityAsk]) -> int:
    """Tokens of the longest prompt with the room of its answer; 0 of none."""
    return max((len(chat.encode(a.request.messages)) + a.request.decoding.max_new_tokens for a in asks), default=0)


def started(
    weights: Path, adapter: Path | None, chat: ChatFormat, asks: Sequence[ParityAsk], options: ExportOptions
) -> tuple[LlamaProcess, str] | NoRuntime:
    """A worker with the files loaded, and its version."""
    longest = longest_of(chat, asks)
    process = LlamaProcess(options.runtime_python or Path(sys.executable))
    try:
        found = process.ask(
            "open", model=str(weights), lora=str(adapter) if adapter else None, context=longest + _SPARE
        )
    except ExportError as error:
        process.close()
        if "No module named" not in str(error):
            raise
        return NoRuntime(
            "llama-cpp-python is not installed here: pip install llama-cpp-python, or name a Python that has it with "
            "--runtime-python"
        )
    return process, found["version"]


def opened(
    weights: Path, adapter: Path | None, chat: ChatFormat, asks: Sequence[ParityAsk], options: ExportOptions
) -> LlamaRuntime | NoRuntime:
    """The files in llama.cpp, or why not. Raises ExportError where llama.cpp cannot load them."""
    found = started(weights, adapter, chat, asks, options)
    if isinstance(found, NoRuntime):
        return found
    process, version = found
    return LlamaRuntime(process, chat, version, asks[0].request.constraint)
