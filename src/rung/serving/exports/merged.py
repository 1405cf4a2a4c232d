"""`merged`: base and adapter as one Hugging Face folder of safetensors."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from rung.errors import ExportError
from rung.serving.exports.export import HERE, Export, Exported, ExportOptions, ExportRuntime, ExportSource, NoRuntime

_SHARD = "4GB"
_TYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}


def write(source: ExportSource, folder: Path, options: ExportOptions) -> Exported:
    from rung.serving.exports.tokenizer_files import write_prompt, write_tokenizer

    dtype = dtype_of(options)
    if source.factors is None and options.quantise is not None:
        raise ExportError("--quantise: there is no adapter to merge, and weights are copied as they are. Leave it out.")
    write_network(source, folder, dtype)
    beside = write_tokenizer(source.base, source.chat, folder, source.packed.solution)
    notes = (*write_prompt(source.packed.solution, folder), *source.weight_notes)
    weights = sorted(path.name for path in folder.glob("model*.safetensors*"))
    use = f'AutoModelForCausalLM.from_pretrained("{HERE}")'
    return Exported((*weights, "config.json", *beside, "prompt.json"), (use, *notes), quantised=source.four_bit)


def dtype_of(options: ExportOptions) -> str:
    """The type that --quantise names, "auto" for the base's own. Raises ExportError for one that is not whole."""
    if options.quantise is None:
        return "auto"
    if (found := _TYPES.get(options.quantise.lower())) is None:
        raise ExportError(f"--quantise {options.quantise}: merged weights are whole: {', '.join(_TYPES)}.")
    return found


def write_network(source: ExportSource, folder: Path, dtype: Any = "auto") -> None:
    """Writes config.json and the weights. dtype: to merge in and write; "auto": the base's stored type. The network is
    in memory once.

    Weights that were trained whole, and a base without an adapter, are copied as they are.
    """
    if source.factors is None:
        copied = source.adapter or source.base
        for pattern in ("config.json", "*.safetensors", "*.safetensors.index.json"):
            for path in copied.glob(pattern):
                shutil.copyfile(path, folder / path.name)
        return
    source.say("merging base and adapter …")
    network = merged_network(source.base, source.factors, dtype)
    network.save_pretrained(folder, max_shard_size=_SHARD)


def merged_network(base: Path, adapter: Path, dtype: Any = "auto") -> Any:
    """The base with the adapter merged in, by PEFT. Raises ValueError for weights that are no numbers."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from rung.serving.exports.transformers_runtime import quiet

    quiet()
    read: Any = AutoModelForCausalLM.from_pretrained
    network = read(base, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=dtype)
    put: Any = PeftModel.from_pretrained
    return put(network, adapter).merge_and_unload(safe_merge=True)


def runtime(source: ExportSource, folder: Path, options: ExportOptions) -> ExportRuntime | NoRuntime:
    from transformers import AutoModelForCausalLM

    from rung.serving.exports.transformers_runtime import opened

    def load(dtype: Any) -> Any:
        read: Any = AutoModelForCausalLM.from_pretrained
        return read(folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=dtype)

    return opened(load, folder, "merged weights", source.base)


MERGED = Export("merged", "Base and adapter as one Hugging Face folder.", write, runtime, ("merged", "quantise"))
