"""A model's folder to a LocalModel: weights and tokenizer are read, and the engine is checked against transformers.

Memory is counted before weights are read. A model that is not whole, or that does not fit, is an error that says so.
"""

from __future__ import annotations

import gc
import hashlib
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from rung.cache import cache_folder
from rung.engine.devices import best_device, device_name
from rung.engine.engine import Engine
from rung.engine.kept_check import code_version
from rung.engine.loading_check import checked_engine
from rung.engine.memory import free_bytes, free_host_bytes, give_back
from rung.engine.out_of_memory import is_out_of_memory
from rung.engine.shared_card import others_bytes, prepare_allocator
from rung.engine.variables import check_variables
from rung.errors import ModelError, OutOfMemory, first_line
from rung.models.catalogue import CATALOGUE, Say, ensure_model
from rung.models.file_faults import fault_of, first_fault
from rung.models.four_bit import (
    SUFFIX,
    bytes_in_4_bits,
    can_quantise,
    is_quantised,
    is_unpacked,
    keep_trainable,
    quantisation,
    split_spec,
    version_in_4_bits,
)
from rung.models.identity import BESIDE_WEIGHTS, version_of
from rung.models.kinds import check_loaded, inside, read_config
from rung.models.local import LocalModel
from rung.models.places import remember
from rung.models.sizes import as_count, as_size, shape_of, working_bytes
from rung.models.speed import kept_dtype
from rung.models.suggestions import that_fit
from rung.models.weights import Tensor, are_packed, named, network_bytes, parameters_of, read_weights

_AGAIN = "Copy or download the model again."
_LEAST_TOKENS = 512  # of the one prompt for which there must be room beside the weights


@dataclass(frozen=True)
class _Source:
    """What is loaded. spec: as the user named it. config: of transformers. weights: by name. four_bit: how."""

    spec: str
    folder: Path
    version: str
    config: Any
    weights: Mapping[str, Tensor]
    four_bit: bool

    def bytes_in(self, dtype: torch.dtype, device: str = "cpu") -> int:
        """Memory to answer one prompt with the network in this type."""
        shape = shape_of(self.config.to_dict())
        working = working_bytes(shape, dtype.itemsize, rows=1, tokens=_LEAST_TOKENS) if shape is not None else 0
        if self.four_bit:
            return bytes_in_4_bits(self.weights, dtype.itemsize) + working
        unpacked = is_unpacked(self.config, device)
        return network_bytes(self.weights, dtype.itemsize, unpacked=unpacked) + working


def load_model(
    spec: str,
    *,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    threads: int | None = None,
    say: Say = lambda _: None,
) -> LocalModel:
    """The model of that name, on a GPU when there is one. Rooms above `models` call `rung.models.open_model` instead.

    spec: as for `ensure_model`; with ":4bit" behind it, its linear layers in 4 bits. device: "cpu", "cuda" or "mps";
    None chooses. dtype: to compute in; None: the fastest, as timed once a machine, that fits the memory. threads: CPU
    threads; None: as torch chooses.
    Raises ModelError, DownloadError or OutOfMemory.
    """
    check_variables()
    from transformers import AutoTokenizer
    from transformers.utils import logging as hf_logging

    name, four_bit = split_spec(spec)
    folder = ensure_model(name, say=say)
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    if threads is not None:
        torch.set_num_threads(threads)
    config, weights = read_config(spec, folder), read_weights(folder)  # before files are hashed: it says what is torn
    base_version = version_of(folder)
    source_version = version_in_4_bits(base_version) if four_bit else base_version
    source = _Source(spec, folder, source_version, config, weights, four_bit)
    ends = folder / "generation_config.json"
    if ends.is_file() and (fault := fault_of(ends)) is not None:  # transformers would do without it, and say nothing
        raise ModelError(f"model {spec}: {fault}{inside(spec, folder)}. {_AGAIN}")
    with _loading_errors(source, "its tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    chosen = device or best_device()
    prepare_allocator(chosen)
    try:
        engine = _load_engine(source, chosen, dtype, say)
    except ModelError as error:
        if device is not None or chosen != "mps":
            raise
        say(f"the GPU of this machine cannot run {spec} ({error}); using the CPU …")
        engine = _load_engine(source, "cpu", dtype, say)
    engine.base, engine.base_version = _base_of(name, folder), base_version
    remember(source.version, spec)
    with _loading_errors(source, "its tokenizer"):
        return LocalModel(engine, tokenizer, name=spec, version=source.version, folder=folder)


def _base_of(name: str, folder: Path) -> str:
    """What PEFT loads an adapter's base from: an id of the hub, else an absolute folder."""
    is_id = name not in CATALOGUE and re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not Path(name).expanduser().exists()
    return name if is_id else str(folder.resolve())


def _load_engine(source: _Source, device: str, dtype: torch.dtype | None, say: Say) -> Engine:
    from transformers import AutoModelForCausalLM

    read: Any = AutoModelForCausalLM.from_pretrained  # untyped
    chosen = _fitting_dtype(source, device, dtype, say)
    how: dict[str, Any] = {"attn_implementation": "eager", "dtype": chosen}
    packing = quantisation(source.spec, source.config, chosen, four_bit=source.four_bit)
    packed = source.four_bit or is_quantised(source.config)
    if packing is not None:
        how["quantization_config"] = packing
    if packed or device != "cpu":
        how["device_map"] = {"": device}  # weights go to the device one by one, and need no memory of the machine
    with _loading_errors(source, "its network"), _reported() as report:
        try:
            network, found = read(
                source.folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # they are named below
                output_loading_info=True,
                **how,
            )
        except RuntimeError as error:
            if unread := re.findall(r"^\s*([\w.]+)\s*\|\s*CONVERSION", "\n".join(report), re.MULTILINE):
                raise ModelError(
                    f"model {source.spec}: it does not hold the whole model. {len(unread)} of its weights cannot be "
                    f"made of what its files{inside(source.spec, source.folder)} hold: {named(unread)}. {_AGAIN}"
                ) from error
            raise
        check_loaded(source.spec, source.folder, source.config, source.weights, found)
        if packed:
            keep_trainable(network)
        return checked_engine(network.eval(), source.spec, record=_record_of_check(source, network))


def _record_of_check(source: _Source, network: Any) -> Path:
    """Where the check's result is kept: everything that decides it is in the name."""
    libraries = [f"{name} {version(name)}" for name in ("torch", "transformers", "peft")]
    where = [device_name(network.device), str(network.device.type), str(network.dtype)]
    key = hashlib.sha256("\n".join([source.version, *where, *libraries, code_version()]).encode()).hexdigest()
    return cache_folder() / "checks" / f"{key[:32]}.json"


# ---- memory ---------------------------------------------------------------------------------


def _fitting_dtype(source: _Source, device: str, dtype: torch.dtype | None, say: Say) -> torch.dtype:
    """The type to compute in: as asked, else the fastest one; bfloat16 on a CPU where float32 does not fit.

    Raises OutOfMemory where nothing fits what is free on the device now, before weights are read.
    """
    chosen = dtype or kept_dtype(device)
    free, needed = free_bytes(torch.device(device)), source.bytes_in(chosen, device)
    if needed > free:  # a model that nobody holds any more may still lie in memory
        gc.collect()
        give_back(torch.device(device))
        free = free_bytes(torch.device(device))
    if needed <= free:
        return chosen
    halved = source.bytes_in(torch.bfloat16, device)
    if dtype is None and chosen == torch.float32 and halved <= free:
        say(
            f"{source.spec} needs {as_size(needed)} in float32 and {as_size(free)} are free: computing in bfloat16, "
            f"which takes {as_size(halved)} …"
        )
        return torch.bfloat16
    where = "on the GPU" if device != "cpu" else "in memory"
    held = others_bytes(torch.device(device))
    others = f"; other processes hold {as_size(held)} of it" if held else ""
    number = "" if are_packed(source.weights) else f"{as_count(parameters_of(source.weights))} "
    raise OutOfMemory(
        f"model {source.spec}: its {number}weights need {as_size(needed)} in "
        f"{str(chosen).removeprefix('torch.')}{' and 4 bits' if source.four_bit else ''}, and {as_size(free)} are free "
        f"{where}{others}. {_what_would_fit(source, free, chosen)}{_beside_the_gpu(source, device)}"
    )


def _what_would_fit(source: _Source, free: int, dtype: torch.dtype) -> str:
    quarter = bytes_in_4_bits(source.weights, dtype.itemsize)
    if not source.four_bit and not is_quantised(source.config) and quarter <= free:
        install = "" if can_quantise() else "; that needs pip install bitsandbytes"
        return f"In 4 bits it would take {as_size(quarter)}: name it {source.spec}{SUFFIX}{install}."
    fitting = that_fit(free, dtype.itemsize)
    if not fitting:
        return "Close other programs, or use a machine with more memory."
    return f"Close other programs, or name a smaller model, such as {fitting[-1]}."


def _beside_the_gpu(source: _Source, device: str) -> str:
    if not device.startswith("cuda") or source.bytes_in(kept_dtype("cpu")) > free_host_bytes():
        return ""
    return " On the CPU, where it would be slow, it fits: set the environment variable CUDA_VISIBLE_DEVICES to -1."


# ---- errors ---------------------------------------------------------------------------------


@contextmanager
def _loading_errors(source: _Source, what: str) -> Iterator[None]:
    """Within: whatever a library raises, each its own kinds, becomes ModelError with what to do next."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        fact = first_line(error)
        if is_out_of_memory(error):
            raise OutOfMemory(
                f"model {source.spec}: memory ran out while it was loaded ({fact}). Close other programs, or name a "
                "smaller model; `rung models` lists some."
            ) from error
        if isinstance(error, ImportError):
            raise ModelError(
                f"model {source.spec}: {what} needs a package that is not installed here ({fact}). Install it, or name "
                "another model; `rung models` lists some."
            ) from error
        where = inside(source.spec, source.folder)
        if (fault := first_fault(source.folder, BESIDE_WEIGHTS)) is not None:
            raise ModelError(f"model {source.spec}: {fault}{where}. {_AGAIN}") from error
        if not isinstance(error, OSError | ValueError | RuntimeError):
            fact = f"{type(error).__name__}: {fact}"
        raise ModelError(
            f"model {source.spec}: {what} cannot be loaded{where} ({fact}). Check that the folder is whole and "
            "transformers new enough, or name another model; `rung models` lists some."
        ) from error


@contextmanager
def _reported() -> Iterator[list[str]]:
    """Within: what transformers would print of weights that it could not place is collected, and not printed."""
    logger = logging.getLogger("transformers.modeling_utils")
    lines: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(re.sub(r"\x1b\[[\d;]*m", "", record.getMessage()))

    collector, before = Collector(logging.WARNING), (logger.level, logger.propagate)
    logger.addHandler(collector)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        yield lines
    finally:
        logger.removeHandler(collector)
        logger.level, logger.propagate = before
