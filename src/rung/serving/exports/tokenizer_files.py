"""Tokenizer, chat template, end tokens and the prompt, as files that need nothing of rung.

The chat template is the base's, completed so that a plain `apply_chat_template` gives the tokens that rung gives.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.models.identity import BESIDE_WEIGHTS
from rung.records import read_json, write_json, write_text
from rung.serving.exports.export import ExportSource, sent
from rung.serving.exports.prompt_parts import chooses_demos, fixed_turns
from rung.types import Message, Solution

if TYPE_CHECKING:
    from rung.models.chat_template import ChatFormat

PROMPT = "prompt.json"
"""File of an export: the turns to send, with {input} in the place of the input."""

_TEMPLATES = ("chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja")
_IDS = ("bos_token_id", "pad_token_id")


def chat_of(base: Path) -> ChatFormat:
    """The chat format of a base folder, as the bundle uses it; no weights are read."""
    from transformers import AutoTokenizer, GenerationConfig

    from rung.models.chat_template import ChatFormat

    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    ends = (base / "generation_config.json").is_file()
    return ChatFormat(tokenizer, GenerationConfig.from_pretrained(base, local_files_only=True) if ends else None)


def context_length_of(source: ExportSource) -> int:
    """How many tokens the base takes, prompt and answer together."""
    from transformers import AutoConfig

    from rung.models.context_length import context_length

    config: Any = AutoConfig.from_pretrained(source.base, local_files_only=True, trust_remote_code=False)
    return context_length(config.get_text_config(), source.chat.tokenizer)


def write_tokenizer(base: Path, chat: ChatFormat, folder: Path, solution: Solution) -> tuple[str, ...]:
    """Writes the base's tokenizer with the completed template, and a generation config that answers as the bundle does.

    Returns the files' names.
    """
    templates = {path for pattern in _TEMPLATES for path in base.glob(pattern)}
    files = [path for pattern in BESIDE_WEIGHTS for path in base.glob(pattern) if path not in templates]
    for path in files:
        shutil.copyfile(path, folder / path.name)
    write_text(folder / "chat_template.jinja", chat.whole_template())
    own = read_json(folder / "tokenizer_config.json")
    if own is not None:
        own.pop("chat_template", None)
        write_json(folder / "tokenizer_config.json", own)
    config = read_json(folder / "generation_config.json") or {}
    config = {key: config[key] for key in _IDS if key in config}  # no sampling, and nothing else that changes answers
    ends = [chat.end_id, *sorted(chat.stop_ids - {chat.end_id})]
    config |= {"do_sample": False, "eos_token_id": ends, "max_new_tokens": solution.decoding.max_new_tokens}
    write_json(folder / "generation_config.json", config)
    return tuple(sorted({*(path.name for path in files), "chat_template.jinja", "generation_config.json"}))


def write_prompt(solution: Solution, folder: Path) -> tuple[str, ...]:
    """Writes prompt.json: what to send, and what a runtime is to hold answers to. Returns notes for the user."""
    record: dict[str, Any] = {
        "messages": sent([*fixed_turns(solution), Message("user", "{input}")]),
        "max_new_tokens": solution.decoding.max_new_tokens,
        "temperature": solution.decoding.temperature,
        "constraint": asdict(solution.constraint) if solution.constraint is not None else None,
    }
    write_json(folder / PROMPT, record)
    notes = [f"{PROMPT} holds the turns to send: put your input in the place of {{input}}."]
    if chooses_demos(solution):
        notes.append("The bundle chooses demos for each input; these files do not. `rung serve` does.")
    if solution.retriever is not None:
        notes.append("The bundle puts passages before each input; these files do not. `rung serve` does.")
    return tuple(notes)
