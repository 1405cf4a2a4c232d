"""`ollama`: GGUF files and a Modelfile whose TEMPLATE, in Go's syntax, writes the prompts that the bundle writes.

The template is made from what the base's own chat template writes around turns: a text before a system turn, before a
user turn, before an answer, and behind the last user turn. Its prompts are compared with the bundle's, token by token.
Source: Ollama, docs/modelfile.md and template/template.go (what Messages and System hold).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rung.errors import ExportError
from rung.records import write_text
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
    spoken,
)
from rung.serving.exports.gguf import ADAPTER, kind_of, weights_file, write_gguf
from rung.serving.exports.gguf_network import WHOLE
from rung.serving.exports.llama_runtime import LlamaProcess, grammar_of, longest_of, started
from rung.serving.exports.prompt_parts import fixed_turns
from rung.types import Message, Solution

if TYPE_CHECKING:
    from rung.models.chat_template import ChatFormat

_SYSTEM, _USER, _ANSWER, _NEXT = (f"@@{letter}" for letter in "suan")
_LEAST_CONTEXT, _MOST_CONTEXT = 2048, 8192  # tokens, of num_ctx; more only where an input needs it


@dataclass(frozen=True)
class TurnJoins:
    """What a chat template writes around turns.

    system: before a system turn's text. only_user: before the first user turn without a system turn. first_user:
    between a system turn and the first user turn. answer: between a user turn and an answer. user: between an answer
    and the next user turn. tail: behind the last user turn.
    """

    system: str
    only_user: str
    first_user: str
    answer: str
    user: str
    tail: str

    def written(self, messages: Sequence[Message]) -> str:
        """The prompt of these turns, as Ollama writes it by `go_template`."""
        text = ""
        has_system = any(m.role == "system" for m in messages)
        for place, message in enumerate(messages):
            if message.role == "system":
                before = self.system
            elif message.role == "assistant":
                before = self.answer
            elif place == 0:
                before = self.only_user
            else:
                before = self.first_user if place == 1 and has_system else self.user
            text += before + message.content
        return text + self.tail

    def go_template(self) -> str:
        """The same as a template of Go. Texts are Go's quoted constants, so that no white space is lost."""
        system, only, first, answer, user, tail = (
            f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" if text else ""
            for text in (self.system, self.only_user, self.first_user, self.answer, self.user, self.tail)
        )
        content = "{{ $m.Content }}"
        return (
            "{{- range $i, $m := .Messages -}}\n"
            f'{{{{- if eq $m.Role "system" }}}}{system}{content}\n'
            f'{{{{- else if eq $m.Role "assistant" }}}}{answer}{content}\n'
            f"{{{{- else if eq $i 0 }}}}{only}{content}\n"
            f"{{{{- else if and (eq $i 1) $.System }}}}{first}{content}\n"
            f"{{{{- else }}}}{user}{content}\n"
            "{{- end -}}\n"
            f"{{{{- end -}}}}{tail}"
        )


def joins_of(chat: ChatFormat) -> TurnJoins:
    """Raises ExportError for a template whose turns are not written one behind the other."""
    whole = chat.whole_template()

    def rendered(messages: Sequence[tuple[str, str]]) -> str:
        return str(
            chat.tokenizer.apply_chat_template(
                [{"role": role, "content": content} for role, content in messages],
                chat_template=whole,
                add_generation_prompt=True,
                tokenize=False,
            )
        )

    talk = [("user", _USER), ("assistant", _ANSWER), ("user", _NEXT)]
    try:
        long, plain = rendered([("system", _SYSTEM), *talk]), rendered(talk)
    except Exception as error:  # a template may raise anything
        raise ExportError(f"ollama: the base's chat template refuses a conversation ({error}).") from None
    parts = []
    for mark in (_SYSTEM, _USER, _ANSWER, _NEXT):
        before, found, long = long.partition(mark)
        if not found:
            raise ExportError("ollama: the base's chat template does not write turns in their order; use --to gguf.")
        parts.append(before)
    system, first, answer, user = parts
    return TurnJoins(
        _without_beginning(chat, system), _without_beginning(chat, plain.partition(_USER)[0]), first, answer, user, long
    )


def _without_beginning(chat: ChatFormat, text: str) -> str:
    """Without the beginning token that llama.cpp puts before a text by itself."""
    from rung.serving.exports.gguf_tokenizer import added_by_itself

    bos = chat.tokenizer.bos_token
    return text.removeprefix(bos) if bos and added_by_itself(chat.tokenizer)[0] else text


def write(source: ExportSource, folder: Path, options: ExportOptions) -> Exported:
    from rung.serving.exports.tokenizer_files import write_prompt

    chat, solution = source.chat, source.packed.solution
    files = write_gguf(source, folder, options)
    write_text(folder / "Modelfile", _modelfile(files, chat, solution, joins_of(chat), source.asks))
    name = source.name.lower()
    use = f"ollama create {name} -f {HERE}/Modelfile && ollama run {name}"
    notes = [use, *write_prompt(solution, folder), *source.weight_notes]
    if solution.constraint is not None and solution.constraint.kind == "json_schema":
        notes.append(
            f"Send the schema of {HERE}/prompt.json as `format` with each request: a Modelfile cannot hold it."
        )
    elif solution.constraint is not None:
        notes.append("Ollama cannot hold answers to labels or a pattern; the parity test is without.")
    quantised = kind_of(options) not in WHOLE or source.four_bit
    return Exported(("Modelfile", *files, "prompt.json"), tuple(notes), quantised=quantised)


def _modelfile(
    files: Sequence[str], chat: ChatFormat, solution: Solution, joins: TurnJoins, asks: Sequence[ParityAsk]
) -> str:
    turns = spoken(fixed_turns(solution))
    longest = longest_of(chat, asks)
    context = _LEAST_CONTEXT
    while context < longest or context < min(2 * longest, _MOST_CONTEXT):  # Ollama cuts a longer prompt, and is silent
        context *= 2
    stops = [chat.tokenizer.convert_ids_to_tokens(i) for i in sorted(chat.stop_ids)]
    lines = [f"FROM ./{files[0]}"]
    lines += [f"ADAPTER ./{ADAPTER}"] if ADAPTER in files else []
    lines.append(f"TEMPLATE {_quoted(joins.go_template())}")
    lines += [f"SYSTEM {_quoted(m.content)}" for m in turns if m.role == "system"]
    lines += [f"MESSAGE {m.role} {_quoted(m.content)}" for m in turns if m.role != "system"]
    lines += [
        "PARAMETER temperature 0",
        "PARAMETER seed 0",
        "PARAMETER repeat_penalty 1.0",
        f"PARAMETER num_predict {solution.decoding.max_new_tokens}",
        f"PARAMETER num_ctx {context}",
        *(f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stops),
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A value of a Modelfile. Raises ExportError where it cannot be quoted there."""
    if '"""' in text:
        raise ExportError('ollama: the instruction or a demo holds """, which a Modelfile cannot. Use --to gguf.')
    return f'"""{text}"""'


class OllamaTemplateRuntime:
    """llama.cpp with the prompts that the Modelfile's TEMPLATE gives: what Ollama computes, without its server."""

    def __init__(self, process: LlamaProcess, version: str, chat: ChatFormat, solution: Solution) -> None:
        self.name = f"llama.cpp (llama-cpp-python {version}) with the Modelfile's prompts"
        self.holds = solution.constraint is None or solution.constraint.kind == "json_schema"
        self._process = process
        self._chat = chat
        self._joins = joins_of(chat)

    def answers(self, asks: Sequence[ParityAsk]) -> list[str]:
        stops = [self._chat.tokenizer.convert_ids_to_tokens(i) for i in sorted(self._chat.stop_ids)]
        return [
            self._process.ask(
                "complete",
                prompt=self._joins.written(spoken(ask.request.messages)),
                tokens=ask.request.decoding.max_new_tokens,
                stop=stops,
                grammar=grammar_of(ask.request.constraint) if self.holds else None,
            )["text"]
            for ask in asks
        ]

    def checks(self, asks: Sequence[ParityAsk]) -> Sequence[NamedCheck]:
        """The TEMPLATE's prompts, by their tokens."""
        for number, ask in enumerate(asks, 1):
            found = self._process.ask("text_ids", text=self._joins.written(spoken(ask.request.messages)))["ids"]
            if found != self._chat.encode(ask.request.messages):
                fact = f"the tokens of prompt {number} ({ask.query.id}) are not rung's"
                return (NamedCheck("template", False, fact),)
        return (NamedCheck("template", True, f"tokens of {len(asks)} prompts are rung's"),)

    def close(self) -> None:
        self._process.close()


def runtime(source: ExportSource, folder: Path, options: ExportOptions) -> ExportRuntime | NoRuntime:
    chat, adapter = source.chat, folder / ADAPTER
    found = started(weights_file(folder), adapter if adapter.is_file() else None, chat, source.asks, options)
    if isinstance(found, NoRuntime):
        return found
    return OllamaTemplateRuntime(*found, chat, source.packed.solution)


OLLAMA = Export(
    "ollama", "GGUF files and a Modelfile for Ollama.", write, runtime, ("merged", "quantise", "runtime_python")
)
