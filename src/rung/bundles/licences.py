"""Under which licence a base model is, as far as its files or the catalogue say it."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import yaml

from rung.models.four_bit import split_spec
from rung.models.places import is_endpoint

UNKNOWN = "unknown"
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST = 8, 9
_MOST = 1 << 20  # bytes of a text, and items of a list: a file that claims more is damaged


def licence_of_model(spec: str) -> str:
    """As the Hub writes it ("apache-2.0"), in small letters; "unknown" where nothing on this machine says it.

    Read from the catalogue, the model card in its folder, or the head of a GGUF file.
    """
    from rung.models.catalogue import CATALOGUE, find_model

    name, _ = split_spec(spec)
    if is_endpoint(spec):
        return UNKNOWN
    if name in CATALOGUE:
        return CATALOGUE[name].license.lower()
    path = Path(name).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        return str(_head_of_gguf(path).get("general.license") or UNKNOWN).lower()
    folder = find_model(name)
    return _of_card(folder / "README.md") if folder is not None else UNKNOWN


def licence_of_both(base: str, data: str) -> tuple[str, str | None]:
    """What the front matter of a model card says: (license, license_name). Where base and data differ it is "other",
    with a name that tells both; where one of them is unknown, so is it."""
    if UNKNOWN in (base, data):
        return UNKNOWN, None
    return (base, None) if base == data else ("other", f"{base} (base), {data} (data)")


def _of_card(card: Path) -> str:
    """The licence in the front matter of a model card."""
    try:
        matter = re.match(r"---\s*\n(.*?)\n---", card.read_text("utf-8"), re.DOTALL)
        said = yaml.safe_load(matter[1]) if matter is not None else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return UNKNOWN
    if not isinstance(said, Mapping):
        return UNKNOWN
    found = said.get("license")
    if found == "other":
        found = said.get("license_name") or found
    return str(found).lower() if isinstance(found, str) and found.strip() else UNKNOWN


def _head_of_gguf(path: Path) -> dict[str, Any]:
    """Keys and values at the head of a GGUF file, up to its tokenizer, whose lists take seconds to read.

    Source: the GGUF specification of ggml, version 2 and 3.
    """
    found: dict[str, Any] = {}
    try:
        with path.open("rb") as file:
            magic, version, _, pairs = struct.unpack("<4sIQQ", file.read(24))
            if magic != b"GGUF" or version < 2:
                return found
            for _ in range(pairs):
                key = _value(file, _TEXT)
                if key.startswith("tokenizer."):
                    break
                found[key] = _value(file, *struct.unpack("<I", file.read(4)))
    except (OSError, ValueError, LookupError, struct.error):
        pass
    return found


def _value(file: IO[bytes], kind: int) -> Any:
    if kind == _TEXT:
        return file.read(_length(file)).decode("utf-8", "replace")
    if kind == _LIST:
        (inner,) = struct.unpack("<I", file.read(4))
        return [_value(file, inner) for _ in range(_length(file))]
    form = f"<{_NUMBERS[kind]}"
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]


def _length(file: IO[bytes]) -> int:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > _MOST:
        raise ValueError(f"{length} is no length")
    return int(length)
