"""A tokenizer as GGUF metadata, for the kinds that llama.cpp has: byte-level BPE and sentencepiece's BPE.

The file is tokenizer.json's vocabulary; what llama.cpp does with it is told by the name of the pre-tokenizer. That the
ids come out equal is checked with llama.cpp itself, in the parity test.
Source: llama.cpp, src/llama-vocab.cpp, and the GGUF specification (docs/gguf.md of ggml).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.errors import ExportError
from rung.models.gguf import GPT2_PATTERN, pre_tokenizer_named
from rung.types import Message

if TYPE_CHECKING:
    from rung.models.chat_template import ChatFormat

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6  # token types of the specification
_BYTE_NAME = re.compile("<0x[0-9A-F]{2}>")
_SPACE = "▁"
_ELSEWHERE = "Convert the folder of `--to merged` with llama.cpp's convert_hf_to_gguf.py."


@dataclass(frozen=True)
class GgufVocabulary:
    """kind: of llama.cpp, "gpt2" or "llama". pre: its name for the pre-tokenizer. merges: of "gpt2"; scores: of
    "llama". space_prefix: a text gets a space before it."""

    kind: str
    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    scores: list[float]
    space_prefix: bool


def read_vocabulary(base: Path, size: int, chat: ChatFormat) -> GgufVocabulary:
    """The vocabulary of a base folder. size: rows of the embedding; ids without a token are unused. chat: of the base.

    Raises ExportError for a tokenizer that llama.cpp does not have.
    """
    try:
        record = json.loads((base / "tokenizer.json").read_text("utf-8"))
    except FileNotFoundError:
        raise ExportError(f"{base}: there is no tokenizer.json, which GGUF is written from. {_ELSEWHERE}") from None
    model = record["model"]
    if model.get("type", "BPE") != "BPE":
        raise ExportError(f"{base}: its tokenizer is {model['type']}; only BPE is written here. {_ELSEWHERE}")
    tokens: list[str | None] = [None] * max(size, len(model["vocab"]))
    for token, id_ in model["vocab"].items():
        tokens[id_] = token
    added = {int(entry["id"]): entry for entry in record.get("added_tokens", ())}
    tokens += [None] * (max(added, default=-1) + 1 - len(tokens))
    for id_, entry in added.items():
        tokens[id_] = entry["content"]
    if len(tokens) > size:
        raise ExportError(f"{base}: it has {len(tokens)} tokens and {size} rows of embeddings. {_ELSEWHERE}")
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    named = [f"[PAD{id_}]" if token is None else token for id_, token in enumerate(tokens)]
    bytewise = bool(model.get("byte_fallback"))
    types = [_type_of(id_, tokens[id_], added, model.get("unk_token"), bytewise) for id_ in range(len(tokens))]
    if not bytewise:
        pre = _pre_tokenizer(record, bool(model.get("ignore_merges")))
        if pre is None:
            raise ExportError(f"{base}: how its tokenizer cuts words has no name known here. {_ELSEWHERE}")
        return GgufVocabulary("gpt2", pre, named, types, merges, [], False)
    return GgufVocabulary("llama", "default", named, types, [], _scores(named, merges), _space_prefix(record, chat))


def add_tokenizer(writer: Any, chat: ChatFormat, vocabulary: GgufVocabulary) -> None:
    """Writes the vocabulary, the tokens with a role, which of them a text gets by itself, and the chat template.

    The end token is the one that ends an answer; where the tokenizer ends texts with another one, that ends a turn too.
    """
    tokenizer = chat.tokenizer
    writer.add_tokenizer_model(vocabulary.kind)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.kind == "gpt2":
        writer.add_token_merges(vocabulary.merges)
    else:
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(vocabulary.space_prefix)
    writer.add_eos_token_id(chat.end_id)
    if (others := sorted(chat.stop_ids - {chat.end_id})) != []:
        writer.add_eot_token_id(others[0])
    for role, write in (
        ("bos", writer.add_bos_token_id),
        ("unk", writer.add_unk_token_id),
        ("pad", writer.add_pad_token_id),
    ):
        id_ = getattr(tokenizer, f"{role}_token_id")
        if id_ is not None:
            write(int(id_))
    begins, ends = added_by_itself(tokenizer)
    writer.add_add_bos_token(begins)
    writer.add_add_eos_token(ends)
    writer.add_chat_template(chat.whole_template())


def added_by_itself(tokenizer: Any) -> tuple[bool, bool]:
    """Whether the tokenizer puts its beginning token before a text, and its end token behind it."""
    ids = tokenizer.encode("a")
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    return bos is not None and ids[:1] == [bos], eos is not None and len(ids) > 1 and ids[-1:] == [eos]


def _type_of(id_: int, token: str | None, added: Mapping[int, Any], unknown: str | None, bytewise: bool) -> int:
    if token is None:
        return _UNUSED
    if bytewise and token == unknown:
        return _UNKNOWN
    if (entry := added.get(id_)) is not None:
        return _CONTROL if entry.get("special") else _USER_DEFINED
    return _BYTE if bytewise and _BYTE_NAME.fullmatch(token) else _NORMAL


def _pre_tokenizer(record: Mapping[str, Any], whole_words: bool) -> str | None:
    """llama.cpp's name for how words are cut, from the patterns of tokenizer.json."""
    own = record.get("pre_tokenizer") or {}
    parts = own.get("pretokenizers", [own])
    patterns: list[str] = []
    for part in parts:
        kind = part.get("type")
        if kind == "Split" and part.get("behavior") == "Isolated" and not part.get("invert"):
            patterns.append(part["pattern"].get("Regex", ""))
        elif kind == "Digits" and part.get("individual_digits"):
            patterns.append(r"\p{N}")
        elif kind == "ByteLevel" and not part.get("add_prefix_space"):
            patterns += [GPT2_PATTERN] if part.get("use_regex", True) else []
        else:
            return None
    return pre_tokenizer_named(patterns, whole_words=whole_words)


def _scores(tokens: list[str], merges: list[str]) -> list[float]:
    """llama.cpp joins the pair whose whole has the highest score; tokenizer.json the one whose merge stands first."""
    first: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        left, _, right = merge.partition(" ")
        first.setdefault(left + right, rank)
    last = len(merges)
    return [-float(first.get(token, last)) for token in tokens]


def _space_prefix(record: Mapping[str, Any], chat: ChatFormat) -> bool:
    """Whether a text gets a space before it: by a normaliser, or by the pre-tokenizer.

    llama.cpp then puts one behind every control token, too. Where tokenizer.json does so before the first word alone,
    chats that begin with a control token are right without.
    """
    normalizer = record.get("normalizer") or {}
    parts = normalizer.get("normalizers", [normalizer])
    if any(part.get("type") == "Prepend" and part.get("prepend") == _SPACE for part in parts):
        return True
    own = record.get("pre_tokenizer") or {}
    cuts = [part for part in own.get("pretokenizers", [own]) if part.get("type") == "Metaspace"]
    scheme = cuts[0].get("prepend_scheme", "always") if cuts else "never"
    if scheme == "first":
        return chat.encode([Message("user", "a")])[0] not in chat.tokenizer.all_special_ids
    return bool(scheme == "always")
