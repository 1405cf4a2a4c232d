"""The header of a safetensors file: which tensors it holds, checked before any of them is read.

Source: the format of safetensors, github.com/huggingface/safetensors: eight bytes with the length of the header, the
header as JSON, then the tensors one behind the other.
"""

from __future__ import annotations

import json
import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LONGEST = 32 << 20  # bytes of a header; one of 10,000 tensors has about 2 MiB
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True)
class TensorShape:
    """A tensor in a file. shape: at most the numbers that its bytes hold."""

    kind: str
    shape: tuple[int, ...]


def read_header(path: Path) -> dict[str, TensorShape]:
    """Name -> shape of every tensor. Reads no tensor. Raises ValueError where the file is no whole safetensors file of
    floating-point tensors."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= size - 8:
            raise ValueError(f"{path.name} is torn, or no safetensors file")
        if length > _LONGEST:
            raise ValueError(f"the header of {path.name} has {length:,} bytes, and may have {_LONGEST:,}")
        text = file.read(length)
    try:
        content = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the header of {path.name} is damaged") from error
    if not isinstance(content, dict):
        raise ValueError(f"the header of {path.name} is damaged")
    content.pop("__metadata__", None)
    found, end = {}, 0
    for name, entry in sorted(content.items(), key=lambda item: _first_of(path, *item)):
        shape, stop = _tensor(path, name, entry, end)
        found[name], end = shape, stop
    if 8 + length + end != size:
        raise ValueError(f"{path.name} has {size:,} bytes, and its header names {8 + length + end:,}")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _first_of(path: Path, name: str, entry: Any) -> tuple[int, int]:
    """Where a tensor starts and ends. An empty one stands before another one at the same place."""
    places = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(places, list) or len(places) != 2 or not all(_is_count(place) for place in places):
        raise ValueError(f"the header of {path.name} is damaged at {name[:100]!r}")
    return places[0], places[1]


def _tensor(path: Path, name: str, entry: Any, start: int) -> tuple[TensorShape, int]:
    """A tensor and where it ends. start: where the one before it ends."""
    kind, shape, places = entry.get("dtype"), entry.get("shape"), entry["data_offsets"]
    if kind not in _BYTES:
        raise ValueError(f"{name[:100]} has the type {str(kind)[:20]}; F64, F32, F16 and BF16 are read")
    if not isinstance(shape, list) or len(shape) > 8 or not all(_is_count(n) for n in shape):
        raise ValueError(f"the header of {path.name} is damaged at {name[:100]!r}")
    if places[0] != start or places[1] - places[0] != math.prod(shape) * _BYTES[kind]:
        raise ValueError(f"the header of {path.name} gives {name[:100]} another place or size than its shape")
    return TensorShape(kind, tuple(shape)), places[1]


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62
