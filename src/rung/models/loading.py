"""A model's folder to a LocalModel: weights and tokenizer are read, and the engine is checked against transformers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from rung.engine import attention
from rung.engine.devices import best_device
from rung.engine.engine import Engine
from rung.engine.loading_check import checked_engine
from rung.engine.out_of_memory import is_out_of_memory
from rung.errors import ModelError, OutOfMemory, first_line
from rung.models.catalogue import Say, ensure_model
from rung.models.identity import version_of
from rung.models.local import LocalModel
from rung.models.speed import kept_dtype


def load_model(
    spec: str,
    *,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    threads: int | None = None,
    say: Say = lambda _: None,
) -> LocalModel:
    """The model of that name, on a GPU when there is one. Rooms above `models` call `rung.models.open_model` instead.

    spec: as for `ensure_model`. device: "cpu", "cuda" or "mps"; None chooses. dtype: to compute in; None: the fastest,
    as timed once a machine. threads: CPU threads; None: as torch chooses.
    Raises ModelError, DownloadError or OutOfMemory.
    """
    from transformers import AttentionInterface, AutoTokenizer
    from transformers.utils import logging as hf_logging

    folder = ensure_model(spec, say=say)
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    if threads is not None:
        torch.set_num_threads(threads)
    AttentionInterface.register(attention.NAME, attention.attention)
    with _loading_errors(spec, folder):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    chosen = device or best_device()
    try:
        engine = _load_engine(spec, folder, chosen, dtype)
    except ModelError as error:
        if device is not None or chosen != "mps":
            raise
        say(f"the GPU of this machine cannot run {spec} ({error}); using the CPU …")
        engine = _load_engine(spec, folder, "cpu", dtype)
    return LocalModel(engine, tokenizer, name=spec, version=version_of(folder))


def _load_engine(spec: str, folder: Path, device: str, dtype: torch.dtype | None) -> Engine:
    from transformers import AutoModelForCausalLM

    with _loading_errors(spec, folder):
        network: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype or kept_dtype(device),
            local_files_only=True,
            use_safetensors=True,
            attn_implementation="eager",
        )
        return checked_engine(network.to(device).eval(), spec)


@contextmanager
def _loading_errors(spec: str, folder: Path) -> Iterator[None]:
    """Within: torn files and unknown architectures, for which each library raises its own kinds, become ModelError."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        fact = first_line(error)
        if is_out_of_memory(error):
            raise OutOfMemory(
                f"model {spec}: memory does not suffice to load it ({fact}). Close other programs or use another."
            ) from error
        raise ModelError(f"model {spec}: {folder} cannot be loaded ({fact}).") from error
