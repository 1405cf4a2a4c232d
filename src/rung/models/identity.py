"""A model's version, from the contents of its files: equal wherever the same weights are, on any machine and path.

Times and paths never count. They only serve to remember the hash of a large file that has not changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from pathlib import Path

from rung.cache import cache_folder
from rung.records import write_json

STAMP = "rung.json"
"""A file in folders that rung converted: the source's SHA-256, and the version of the folder's own contents."""

BESIDE_WEIGHTS = (
    "generation_config.json",
    "tokenizer.json",
    "*.model",
    "*.tiktoken",
    "tekken.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
)
"""Files of a model that are not its network: tokenizer, chat template and what ends an answer."""

_DECIDING = ("config.json", *BESIDE_WEIGHTS, "*.safetensors", "*.safetensors.index.json")
_LARGE = 1 << 20  # bytes; the hashes of smaller files are not remembered
_SETTLED_NS = 2_000_000_000  # a file changed more recently could change again within one tick of its clock
_LENGTH = 16  # hexadecimal digits


def version_of(folder: Path) -> str:
    """The version of the model in a Hugging Face folder.

    A folder that rung converted has the version of its source and of the conversion, wherever it was copied to, unless
    its files changed.
    """
    stamp = folder / STAMP
    if stamp.is_file():
        record = json.loads(stamp.read_text("utf-8"))
        ours = folder.resolve().parent == (cache_folder() / "models").resolve()
        if ours or record.get("content") == content_version(folder):
            source, conversion = str(record["source_sha256"]), int(record.get("format", 1))
            # Format 1 has no part in the version, so that the versions of folders that exist stay.
            return (source if conversion == 1 else _sha256(f"{source} {conversion}"))[:_LENGTH]
    return content_version(folder)


def content_version(folder: Path) -> str:
    """A hash of the names and contents of the files that decide the answers: weights, config, tokenizer, template."""
    files = sorted({path for pattern in _DECIDING for path in folder.glob(pattern)})
    lines = [f"{path.name}:{file_sha256(path)}" for path in files]
    return _sha256("\n".join(lines))[:_LENGTH]


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file. Large files are hashed once per path, size and modification time.

    In the cache of the Hugging Face hub a large file's name is its SHA-256, and is trusted.
    """
    real = path.resolve()
    if real.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", real.name):
        return real.name
    stat = real.stat()
    if stat.st_size < _LARGE:
        return _digest(real)
    record = cache_folder() / "hashes" / f"{_sha256(str(real))[:32]}.json"
    known = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):  # no such record
        kept = json.loads(record.read_text("utf-8"))
        if {key: kept[key] for key in known} == known:
            return str(kept["sha256"])
    digest = _digest(real)
    if time.time_ns() - stat.st_mtime_ns > _SETTLED_NS:
        with contextlib.suppress(OSError):  # without a cache it is hashed again next time
            write_json(record, {**known, "sha256": digest, "path": str(real)})
    return digest


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
