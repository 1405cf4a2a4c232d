"""Small random BERT models in a folder, as sentence-transformers saves an embedder and a cross-encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WORDS = ("red", "blue", "cards", "boats", "at", "sea", "query", "passage", ":")


def save_tokenizer(folder: Path, window: int = 32) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    vocabulary = {word: i for i, word in enumerate((*special, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **{f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep")},
        model_max_length=window,
    )
    fast.save_pretrained(folder)
    return fast


def _config() -> Any:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=len(WORDS) + 4,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.5,
    )


def save_embedder(folder: Path, *, layers: tuple[str, ...] = ("Transformer", "Pooling", "Normalize")) -> Any:
    """Returns the model."""
    import torch
    from transformers import BertModel

    torch.manual_seed(0)
    model = BertModel(_config()).eval()
    model.save_pretrained(folder)
    save_tokenizer(folder)
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(layers)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    for module in modules[1:]:
        (folder / module["path"]).mkdir(exist_ok=True)
    return model


def save_cross_encoder(folder: Path, labels: int = 1) -> Any:
    """Returns the model."""
    import torch
    from transformers import BertForSequenceClassification

    config = _config()
    config.num_labels = labels
    torch.manual_seed(0)
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return model
