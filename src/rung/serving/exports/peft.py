"""`peft`: the plain adapter, with a base that PEFT finds, and the tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from rung.bundles.bases import base_of
from rung.errors import ExportError
from rung.records import read_json, write_json
from rung.serving.exports.export import HERE, Export, Exported, ExportOptions, ExportRuntime, ExportSource, NoRuntime


def base_name(source: ExportSource) -> str:
    """What others load the base from: an id of the hub that has these very weights, else its folder on this machine."""
    base = base_of(source.packed.model, source.packed.model_version)
    return base.hub if base.hub is not None and base.exact else str(source.base)


def plain_adapter(source: ExportSource) -> Path:
    """The folder of a PEFT adapter. Raises ExportError where the bundle has none."""
    if source.factors is not None:
        return source.factors
    if source.adapter is None:
        raise ExportError(
            f"{source.packed.place}: {source.packed.solution.name} has no adapter, so there is no PEFT folder of it. "
            "Use --to merged for its base model and prompt."
        )
    raise ExportError(f"{source.packed.place}: all weights were trained, so there is no adapter. Use --to merged.")


def write_adapter(source: ExportSource, adapter: Path, folder: Path) -> tuple[str, ...]:
    """Copies the adapter, with a base that others find. Returns the files' names."""
    config = read_json(adapter / "adapter_config.json") or {}
    write_json(folder / "adapter_config.json", {**config, "base_model_name_or_path": base_name(source)})
    shutil.copyfile(adapter / "adapter_model.safetensors", folder / "adapter_model.safetensors")
    return "adapter_config.json", "adapter_model.safetensors"


def write(source: ExportSource, folder: Path, options: ExportOptions) -> Exported:
    from rung.serving.exports.tokenizer_files import write_prompt, write_tokenizer

    files = write_adapter(source, plain_adapter(source), folder)
    beside = write_tokenizer(source.base, source.chat, folder, source.packed.solution)
    notes = (*write_prompt(source.packed.solution, folder), *source.weight_notes)
    use = f'AutoPeftModelForCausalLM.from_pretrained("{HERE}")'
    found = (
        f"The base is {base_name(source)} (version {source.packed.model_version}); elsewhere, write its place there "
    )
    return Exported(
        (*files, *beside, "prompt.json"),
        (use, *notes, f'{found}into adapter_config.json as "base_model_name_or_path".'),
        quantised=source.four_bit,
    )


def runtime(source: ExportSource, folder: Path, options: ExportOptions) -> ExportRuntime | NoRuntime:
    import peft

    from rung.models.catalogue import find_model
    from rung.serving.exports.transformers_runtime import opened

    name = base_name(source)
    if name != str(source.base) and find_model(name) is None:
        return NoRuntime(f"PEFT loads the base {name} from the hub's cache, where it is not: hf download {name}")

    def load(dtype: Any) -> Any:
        read: Any = peft.AutoPeftModelForCausalLM.from_pretrained
        return read(folder, local_files_only=True, dtype=dtype)

    return opened(load, folder, f"PEFT {peft.__version__}", source.base)


PEFT = Export("peft", "The plain adapter, with its base's name and the tokenizer.", write, runtime)
