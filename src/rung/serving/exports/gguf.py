"""`gguf`: base and adapter, or both merged, for llama.cpp and what is built on it."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.errors import ExportError
from rung.records import read_json
from rung.serving.exports.export import HERE, Export, Exported, ExportOptions, ExportRuntime, ExportSource, NoRuntime
from rung.serving.exports.gguf_network import (
    TYPES,
    WHOLE,
    adapter_tensors,
    add_shape,
    alpha_of,
    architecture_of,
    tensors_of,
    write_tensors,
)

if TYPE_CHECKING:
    from rung.models.chat_template import ChatFormat

ADAPTER = "adapter.gguf"
"""File of the adapter, beside that of its base."""

_FILE_TYPES = {
    "f32": "ALL_F32",
    "f16": "MOSTLY_F16",
    "bf16": "MOSTLY_BF16",
    "q8_0": "MOSTLY_Q8_0",
    "q5_1": "MOSTLY_Q5_1",
    "q5_0": "MOSTLY_Q5_0",
    "q4_1": "MOSTLY_Q4_1",
    "q4_0": "MOSTLY_Q4_0",
}


def weights_file(folder: Path) -> Path:
    """The file of the base, or of both merged."""
    return next(path for path in sorted(folder.glob("*.gguf")) if path.name != ADAPTER)


def write(source: ExportSource, folder: Path, options: ExportOptions) -> Exported:
    from rung.serving.exports.tokenizer_files import write_prompt

    kind = kind_of(options)
    files = write_gguf(source, folder, options)
    adapter = f" --lora {HERE}/{ADAPTER}" if ADAPTER in files else ""
    use = f"llama-server -m {HERE}/{files[0]}{adapter} --jinja --temp 0 --repeat-penalty 1.0"
    return Exported(
        (*files, "prompt.json"),
        (use, *write_prompt(source.packed.solution, folder), *source.weight_notes),
        quantised=kind not in WHOLE or source.four_bit,
    )


def kind_of(options: ExportOptions) -> str:
    """The type of the weights. Raises ExportError for one that is not written here."""
    kind = (options.quantise or "f16").lower()
    if kind not in TYPES:
        raise ExportError(
            f"--quantise {options.quantise}: the types written here are {', '.join(TYPES)}. For others write f16, and "
            "use llama.cpp's llama-quantize."
        )
    return kind


def write_gguf(source: ExportSource, folder: Path, options: ExportOptions) -> tuple[str, ...]:
    """Writes base and adapter, or one file, and returns the files' names: weights first."""
    from rung.serving.exports.merged import write_network
    from rung.serving.exports.transformers_runtime import dtype_that_fits

    kind = kind_of(options)
    apart = None if options.merged else source.factors
    network = source.base
    scratch = folder / "network.tmp"
    try:
        if source.adapter is not None and apart is None:
            scratch.mkdir()
            write_network(source, scratch, dtype_that_fits(source.base))  # rounded once, when it is written
            network = scratch
        config = _config_of(network)
        name = f"{'base' if network == source.base else 'model'}-{kind}.gguf"
        source.say(f"writing {name} …")
        _write_network(network, config, source.chat, folder / name, kind)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if apart is None:
        return (name,)
    _write_adapter(apart, config, folder / ADAPTER)
    return name, ADAPTER


def _config_of(folder: Path) -> dict[str, Any]:
    config = read_json(folder / "config.json") or {}
    return {**config, **(config.get("text_config") or {})}


def _write_network(network: Path, config: dict[str, Any], chat: ChatFormat, path: Path, kind: str) -> None:
    from gguf import GGUFWriter, LlamaFileType

    from rung.serving.exports.gguf_tokenizer import add_tokenizer, read_vocabulary

    architecture = architecture_of(config)
    vocabulary = read_vocabulary(Path(chat.tokenizer.name_or_path), int(config["vocab_size"]), chat)
    writer = GGUFWriter(path, architecture.name)
    with ExitStack() as stack:
        stack.callback(writer.close)
        tensors = tensors_of(network, config, architecture, stack)
        add_shape(writer, config, architecture, int(LlamaFileType[_FILE_TYPES[kind]]))
        if kind not in WHOLE:
            writer.add_quantization_version(2)
        add_tokenizer(writer, chat, vocabulary)
        write_tensors(writer, tensors, kind)


def _write_adapter(adapter: Path, config: dict[str, Any], path: Path) -> None:
    from gguf import GGUFType, GGUFWriter

    says = read_json(adapter / "adapter_config.json")
    assert says is not None
    architecture = architecture_of(config)
    tensors = list(adapter_tensors(adapter, says, config, architecture))
    writer = GGUFWriter(path, architecture.name)
    try:
        writer.add_type(GGUFType.ADAPTER)
        writer.add_string("adapter.type", str(says["peft_type"]).lower())
        writer.add_float32("adapter.lora.alpha", alpha_of(says))
        write_tensors(writer, tensors, "f32")
    finally:
        writer.close()


def runtime(source: ExportSource, folder: Path, options: ExportOptions) -> ExportRuntime | NoRuntime:
    from rung.serving.exports.llama_runtime import opened

    adapter = folder / ADAPTER
    return opened(weights_file(folder), adapter if adapter.is_file() else None, source.chat, source.asks, options)


GGUF = Export(
    "gguf",
    "Base and adapter, or one file with --merged, for llama.cpp.",
    write,
    runtime,
    ("merged", "quantise", "runtime_python"),
)
