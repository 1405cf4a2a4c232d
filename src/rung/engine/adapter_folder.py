"""What a folder must hold to be loaded as an adapter. Opens no weights: pickles are never read."""

from __future__ import annotations

from pathlib import Path

from rung.engine.whole_weights import is_whole, weight_files
from rung.errors import ModelError


def check_adapter(folder: Path) -> None:
    """Raises ModelError unless the folder holds a PEFT adapter, or a network's own weights, in safetensors."""
    if is_whole(folder):
        if not weight_files(folder):
            raise ModelError(f"weights {folder}: no model.safetensors in this folder.")
        return
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / name).is_file():
            raise ModelError(f"adapter {folder}: no {name} in this folder.")


def check_base_stays(folder: str) -> None:
    """Raises ValueError for an adapter that PEFT would load by overwriting weights of the base network."""
    from peft import PeftConfig

    config = PeftConfig.from_pretrained(folder)
    start = str(getattr(config, "init_lora_weights", True)).lower()
    if start.startswith(("pissa", "corda", "olora", "loftq", "lora_ga")):
        raise ValueError(f"init_lora_weights {start} changes the base network; convert it to plain LoRA when saving")
    if (bias := getattr(config, "bias", "none")) != "none":
        raise ValueError(f"bias {bias} changes the base network; train it with bias none")
