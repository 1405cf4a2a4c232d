"""Models that people tune, by their ids on the Hugging Face hub: what `rung models` lists and a verdict may name.

Nothing here is fetched or loaded. Sizes are computed from the measurements in each model's config.json.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rung.cache import cache_folder
from rung.models.catalogue import CATALOGUE, DEFAULT_MODEL, GGUF_FORMAT, find_model
from rung.models.four_bit import split_spec
from rung.models.identity import STAMP
from rung.models.sizes import Shape, shape_of, training_bytes, working_bytes
from rung.models.weights import are_packed, parameters_of, read_weights
from rung.types import Speed

if TYPE_CHECKING:
    import torch

_ITEMSIZE = 2  # bytes of a weight in bfloat16
_LIKE = 0.6  # of the characters of two names, for one to be a slip of the other
_LEAST_PART = 3  # characters of a part of a name that says which model is meant
_CLEARLY_LARGER = 1.5  # times the weights of a model; less would hardly change a verdict


@dataclass(frozen=True)
class Suggestion:
    """A model to try. asks: whether its licence must be accepted on the hub before it can be fetched."""

    hub: str
    license: str
    shape: Shape
    asks: bool = False

    def bytes_to_answer(self, itemsize: int = _ITEMSIZE) -> int:
        """Memory to answer 16 prompts of 512 tokens at once."""
        return self.shape.parameters * itemsize + working_bytes(self.shape, itemsize)

    def bytes_to_train(self, itemsize: int = _ITEMSIZE) -> int:
        """Memory to train a LoRA adapter of rank 16."""
        return self.shape.parameters * itemsize + training_bytes(self.shape, itemsize)


SUGGESTIONS: tuple[Suggestion, ...] = (
    Suggestion(
        "HuggingFaceTB/SmolLM2-360M-Instruct", "Apache-2.0", Shape(32, 960, 2560, 15, 5, 64, 49_152, norms=1920)
    ),
    Suggestion("Qwen/Qwen3-0.6B", "Apache-2.0", Shape(28, 1024, 3072, 16, 8, 128, 151_936, norms=2304)),
    Suggestion("google/gemma-3-1b-it", "Gemma", Shape(26, 1152, 6912, 4, 1, 256, 262_144, norms=5120), asks=True),
    Suggestion("Qwen/Qwen3-1.7B", "Apache-2.0", Shape(28, 2048, 6144, 16, 8, 128, 151_936, norms=4352)),
    Suggestion("Qwen/Qwen3-4B-Instruct-2507", "Apache-2.0", Shape(36, 2560, 9728, 32, 8, 128, 151_936, norms=5376)),
    Suggestion(
        "meta-llama/Llama-3.1-8B-Instruct",
        "Llama 3.1",
        Shape(32, 4096, 14_336, 32, 8, 128, 128_256, tied=False, norms=8192),
        asks=True,
    ),
)
"""Smallest first."""

EMBEDDED = Shape(30, 576, 1536, 9, 3, 64, 49_152, norms=1152)
"""The measurements of the embedded model, whose measured speed is scaled to the others."""


def next_larger(spec: str, device: torch.device) -> str | None:
    """The next larger model than `spec` that can be trained in the device's memory, as a task names it, or None.

    The whole memory counts, not what is free, so that the answer does not change with the load. None, too, where the
    size of `spec` is not known without fetching it.
    """
    from rung.engine.memory import total_bytes

    weights = known_parameters(spec)
    if weights is None:
        return None
    room = total_bytes(device)
    embedded = Suggestion(DEFAULT_MODEL, CATALOGUE[DEFAULT_MODEL].license, EMBEDDED)
    larger = (s for s in (embedded, *SUGGESTIONS) if s.shape.parameters >= _CLEARLY_LARGER * weights)
    return next((s.hub for s in larger if s.bytes_to_train() <= room), None)


def nearest(name: str) -> str | None:
    """The model that a name which names none may mean: of the list, on this machine, or a folder or file beside it."""
    if (beside := nearest_path(name)) is not None:
        return beside
    known = [*CATALOGUE, *(s.hub for s in SUGGESTIONS), *(n for n, _ in on_disk() if not n.endswith(".gguf"))]
    wanted = name.lower()
    if name in known:
        return None
    if len(wanted) >= _LEAST_PART and (holding := [k for k in known if wanted in k.lower()]):
        return holding[0]  # the smallest one
    forms = {form.lower(): k for k in reversed(known) for form in (k, k.rpartition("/")[2])}
    near = difflib.get_close_matches(wanted, forms, n=1, cutoff=_LIKE)
    return forms[near[0]] if near else None


def nearest_path(name: str) -> str | None:
    """The model's folder, or GGUF file, whose name is most like the last part of a path that does not exist."""
    path = Path(name).expanduser()
    try:
        beside = [p.name for p in path.parent.iterdir() if p.suffix == ".gguf" or (p / "config.json").is_file()]
    except OSError:
        return None
    near = difflib.get_close_matches(path.name, beside, n=1, cutoff=_LIKE)
    return name.removesuffix("/").removesuffix(path.name) + near[0] if near else None


def known_parameters(spec: str) -> int | None:
    """Number of weights of a model, where that can be told from what is on this machine; not of packed ones."""
    name, _ = split_spec(spec)
    if name in CATALOGUE:
        return CATALOGUE[name].parameters_m * 1_000_000
    for suggestion in SUGGESTIONS:
        if suggestion.hub == name:
            return suggestion.shape.parameters
    try:
        folder = find_model(name)
        weights = read_weights(folder) if folder is not None else {}
        return parameters_of(weights) if weights and not are_packed(weights) else None
    except Exception:  # a damaged model has its say when it is loaded
        return None


def that_fit(room: int, itemsize: int = _ITEMSIZE) -> list[str]:
    """Names of the models that can answer within `room` bytes, the embedded one first."""
    embedded = EMBEDDED.parameters * itemsize + working_bytes(EMBEDDED, itemsize)
    first = [DEFAULT_MODEL] if embedded <= room else []
    return first + [s.hub for s in SUGGESTIONS if s.bytes_to_answer(itemsize) <= room]


def scaled(speed: Speed, shape: Shape) -> Speed:
    """The speed of another network on the same machine, from that of the embedded model.

    The time for a token is taken to grow with the weights that it is multiplied with.
    """
    times = EMBEDDED.computed / shape.computed
    return Speed(speed.read * times, speed.write * times, speed.train * times)


def embedded_speed() -> Speed | None:
    """The speed of the embedded model as it was measured on this machine, the newest; None where it never was."""
    from rung.models.speed import machine_kind

    version = CATALOGUE[DEFAULT_MODEL].sha256[:16]
    found = []
    for path in (cache_folder() / "speed").glob(f"{version}-*.json"):
        try:
            record = json.loads(path.read_text("utf-8"))
            if str(record["machine"]).endswith(machine_kind()):
                found.append((path.stat().st_mtime, Speed(record["read"], record["write"], record["train"])))
        except (OSError, ValueError, LookupError, TypeError):
            continue
    return max(found, key=lambda one: one[0])[1] if found else None


def on_disk() -> list[tuple[str, Path]]:
    """(name, folder) of the language models in the Hugging Face cache and of the .gguf files that rung converted."""
    from huggingface_hub.constants import HF_HUB_CACHE

    found = []
    for repo in sorted(Path(HF_HUB_CACHE).glob("models--*--*")):
        for config in sorted((repo / "snapshots").glob("*/config.json"), key=lambda p: p.stat().st_mtime)[-1:]:
            if any(config.parent.glob("*.safetensors")) and _writes_text(config):
                found.append((repo.name.removeprefix("models--").replace("--", "/", 1), config.parent))
    for stamp in sorted((cache_folder() / "models").glob(f"gguf-*-v{GGUF_FORMAT}/{STAMP}")):
        try:
            found.append((str(json.loads(stamp.read_text("utf-8"))["source"]), stamp.parent))
        except (OSError, ValueError, LookupError, TypeError):  # a damaged one is made anew when it is named
            continue
    return found


def _writes_text(config: Path) -> bool:
    """Whether a config.json names a class of decoders, or none; encoders and models of sound lie in the same cache."""
    try:
        written = json.loads(config.read_text("utf-8"))
        classes = " ".join(written.get("architectures") or ())
    except (OSError, ValueError, AttributeError, TypeError):
        return False
    decoder = not classes or re.search(r"ForCausalLM|LMHead|ForConditionalGeneration", classes)
    return bool(decoder) and not written.get("is_encoder_decoder")


def folder_bytes(folder: Path) -> int:
    """Size of the files in a model's folder."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def shape_in(folder: Path) -> Shape | None:
    """The measurements of the model in a folder, where its config.json names them as usual."""
    try:
        return shape_of(json.loads((folder / "config.json").read_text("utf-8")))
    except (OSError, ValueError, AttributeError):
        return None
