"""The weights in a model's folder, from the headers of its safetensors files: names, types, shapes; no weight is read.

Knows the format of the files and of their index. Knows nothing of networks.
Source: https://huggingface.co/docs/safetensors, "Format".
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rung.errors import ModelError
from rung.models.file_faults import fault_of

INDEX = "model.safetensors.index.json"
_WHOLE = "model.safetensors"
_FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_MOST_HEADER = 100_000_000  # bytes, the format's own limit
_NAMED = 3  # names in messages
_AGAIN = "Copy or download the model again."


@dataclass(frozen=True)
class Tensor:
    """One weight as it lies in a file. dtype: as safetensors writes it ("F32", "BF16", "U8", …). file: its name."""

    dtype: str
    shape: tuple[int, ...]
    file_bytes: int
    file: str = ""

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def is_float(self) -> bool:
        """Whether it is converted to the type that the network computes in."""
        return self.dtype in _FLOATS


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Name -> Tensor, of all weights that transformers would load from a folder.

    Raises ModelError when a file is torn or cut, or when the index names files or weights that are not there.
    """
    name = _own_file(folder) or (_WHOLE if (folder / _WHOLE).is_file() else INDEX)
    if not (folder / name).is_file():
        raise _unindexed(folder, name)
    if not name.endswith(".json"):
        return _read_header(folder / name)
    index = folder / name
    try:
        places: dict[str, str] = json.loads(index.read_text("utf-8"))["weight_map"]
        files = sorted(set(places.values()))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        fault = fault_of(index) or f"{name} says of no weight in which file it is"
        raise ModelError(f"model {folder}: {fault}. {_AGAIN}") from None
    if absent := [part for part in files if not (folder / part).is_file()]:
        raise ModelError(f"model {folder}: {name} names {named(absent)}, and {_are(absent)} not there. {_AGAIN}")
    held = {part: _read_header(folder / part) for part in files}
    if lost := [weight for weight, file in places.items() if weight not in held[file]]:
        raise ModelError(f"model {folder}: {name} names {named(lost)}, and no file holds {_them(lost)}. {_AGAIN}")
    return {weight: tensor for part in held.values() for weight, tensor in part.items()}


def named(names: Iterable[str]) -> str:
    """The first names of a list and how many there are in all, for messages."""
    some = sorted(names)
    rest = len(some) - _NAMED
    return ", ".join(some[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def parameters_of(weights: Mapping[str, Tensor]) -> int:
    """Number of weights; those that a quantised model packs into bytes are counted as they are packed."""
    return sum(tensor.count for tensor in weights.values())


def are_packed(weights: Mapping[str, Tensor]) -> bool:
    """Whether most of the bytes hold several weights in one number, so that the weights cannot be counted."""
    packed = sum(t.file_bytes for t in weights.values() if not t.is_float and not t.dtype.startswith("F8_"))
    return 2 * packed > sum(t.file_bytes for t in weights.values())


def network_bytes(weights: Mapping[str, Tensor], itemsize: int, *, unpacked: bool = False) -> int:
    """Memory of a network with these weights in floats of `itemsize` bytes. Packed weights stay as they are.

    unpacked: floats of 8 bits, and of 4 bits, two in a byte of what is named `…_blocks`, are made whole at loading.
    """

    def count(name: str, tensor: Tensor) -> int:
        if tensor.is_float or (unpacked and tensor.dtype.startswith("F8_") and tensor.dtype != "F8_E8M0"):
            return tensor.count * itemsize
        return tensor.count * 2 * itemsize if unpacked and name.endswith("_blocks") else tensor.file_bytes

    return sum(count(name, tensor) for name, tensor in weights.items())


def is_zero(folder: Path, name: str, tensor: Tensor) -> bool:
    """Whether a weight holds nothing but zeros; it is read from its file."""
    from safetensors import safe_open

    with safe_open(folder / tensor.file, "pt") as file:
        return not file.get_tensor(name).any()


def _own_file(folder: Path) -> str | None:
    """The file of weights, or its index, that config.json names as `transformers_weights`; rarely there."""
    try:
        own = json.loads((folder / "config.json").read_text("utf-8")).get("transformers_weights")
        return own if isinstance(own, str) else None
    except (OSError, ValueError, AttributeError):
        return None


def _unindexed(folder: Path, name: str) -> ModelError:
    found = sorted(path.name for path in folder.glob("*.safetensors"))
    return ModelError(
        f"model {folder}: there is no {name}, only {named(found)}. The weights must be in {_WHOLE}, or in parts with "
        f"their index. {_AGAIN}"
    )


def _read_header(path: Path) -> dict[str, Tensor]:
    """The header of one file, checked against the length of the file."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(9)
            if len(start) < 9:
                raise ValueError(f"is cut off: it has {size} bytes")
            (length,) = struct.unpack("<Q", start[:8])
            if length > _MOST_HEADER or start[8:] != b"{":
                raise ValueError("is no safetensors file")
            if length > size - 8:
                raise ValueError(f"is cut off: it has {size:,} bytes, and its header alone has {length:,}")
            header = json.loads(start[8:] + file.read(length - 1))
        header.pop("__metadata__", None)
        ends = {name: record["data_offsets"] for name, record in header.items()}
        whole = 8 + length + max((end for _, end in ends.values()), default=0)
        tensors = {
            name: Tensor(str(record["dtype"]), tuple(record["shape"]), ends[name][1] - ends[name][0], path.name)
            for name, record in header.items()
        }
    except OSError as error:
        raise ModelError(
            f"model {path.parent}: {path.name} cannot be read ({error.strerror or error}). Check its permissions, or "
            "copy or download the model again."
        ) from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        ours = type(error) is ValueError and str(error).startswith("is ")
        fault = fault_of(path) or f"{path.name} {error if ours else 'has a header that is damaged'}"
        raise ModelError(f"model {path.parent}: {fault}. {_AGAIN}") from None
    if size != whole:
        raise ModelError(
            f"model {path.parent}: {path.name} has {size:,} bytes where its header says {whole:,}. It was cut or "
            f"damaged on the way. {_AGAIN}"
        )
    return tensors


def _are(names: list[str]) -> str:
    return "it is" if len(names) == 1 else "they are"


def _them(names: list[str]) -> str:
    return "it" if len(names) == 1 else "them"
