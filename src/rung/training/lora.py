"""LoRA by PEFT: a fresh adapter on the linear layers of a network, and the folder it is saved in.

Knows nothing of steps and checkpoints.
Sources: Hu et al., LoRA (2021); Kalajdzievski, rsLoRA (2023), and Liu et al., DoRA (2024), for the options.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rung.engine.adapters import IN_TRAINING
from rung.engine.engine import Engine
from rung.engine.out_of_memory import is_out_of_memory
from rung.engine.target_modules import ALL_LINEAR, adaptable_layers, linear_layers
from rung.errors import RungError, TrainingError, first_line
from rung.training.learner import Learner, record_base
from rung.types import TrainingOptions


def begin(engine: Engine, options: TrainingOptions, start: Path | None) -> Learner:
    """A fresh adapter, applied and trainable until `engine.adapters.end_training`.

    start: an adapter folder of the same shape whose weights are the first ones (None: fresh ones).
    Raises TrainingError where PEFT has no adapter for this kind of network.
    """
    try:
        network = fresh_adapter(engine, options)
        if start is not None:
            _copy_weights(start, network)
    except RungError:
        raise
    except Exception as error:  # PEFT raises many kinds for layers that it does not know
        if is_out_of_memory(error):
            raise
        raise TrainingError(f"model {engine.name}: PEFT cannot adapt it ({first_line(error)}).") from error
    weights = [p for p in engine.network.parameters() if p.requires_grad]
    return Learner(weights, lambda folder: _save_adapter(engine, network, folder))


def fresh_adapter(engine: Engine, options: TrainingOptions) -> Any:
    """PEFT's wrapper with a fresh adapter in training. Raises ValueError where PEFT adapts nothing."""
    from peft import LoraConfig

    depth = int(getattr(engine.network.config.get_text_config(decoder=True), "num_hidden_layers", 0) or 0)
    adapted = max(1, round(options.layers * depth))
    targets = adaptable_layers(engine.network)
    if not targets:
        raise TrainingError(f"model {engine.name}: it has no linear layers that PEFT adapts. Use prompts or retrieval.")
    if adapted < depth and targets == ALL_LINEAR:  # PEFT picks layers by number only among named modules
        targets = sorted({name.rpartition(".")[2] for name in linear_layers(engine.network)})
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        use_rslora=options.rslora,
        use_dora=options.dora,
        layers_to_transform=list(range(depth - adapted, depth)) if adapted < depth else None,
        target_modules=targets,
        task_type="CAUSAL_LM",
        base_model_name_or_path=engine.base,
    )
    network = engine.adapters.begin_training(config, options.seed)
    if not any(p.requires_grad for p in network.parameters()):  # PEFT 0.20 says nothing where it finds no such layer
        raise ValueError(f"it has no layer of the names {targets}")
    return network


def _save_adapter(engine: Engine, network: Any, folder: Path) -> None:
    """The adapter as a PEFT folder, and a record of the base that it was trained on."""
    network.save_pretrained(folder, selected_adapters=[IN_TRAINING], save_embedding_layers=False)
    for file in (folder / IN_TRAINING).iterdir():  # PEFT puts a named adapter into a folder of its name
        file.replace(folder / file.name)
    (folder / IN_TRAINING).rmdir()
    (folder / "README.md").unlink(missing_ok=True)
    record_base(engine, folder)


def _copy_weights(start: Path, network: Any) -> None:
    """Copies the weights of an adapter folder into the adapter in training."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    set_peft_model_state_dict(network, load_file(start / "adapter_model.safetensors"), adapter_name=IN_TRAINING)
