from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rung.models.context_length import context_length


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"max_position_embeddings": 32768, "sliding_window": 4096}, 32768),
        ({"max_position_embeddings": 32768, "sliding_window": 512, "layer_types": ["sliding_attention"]}, 32768),
        (
            {
                "max_position_embeddings": 131072,
                "rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 4096},
            },
            131072,
        ),
        ({"n_positions": 1024}, 1024),
        ({"max_seq_len": 2048, "model_type": "mpt"}, 2048),
        ({"model_type": "bloom"}, 4096),
        ({"model_type": "mamba"}, 32768),
        ({"model_type": "mamba2", "max_position_embeddings": None}, 32768),
        ({"model_type": "x", "max_position_embeddings": 0}, 4096),
    ],
)
def test_the_context_is_what_the_configuration_names_and_no_window(config: dict[str, Any], expected: int) -> None:
    assert context_length(SimpleNamespace(**config)) == expected


@pytest.mark.parametrize(
    ("limit", "expected"), [(1024, 1024), (8192, 4096), (int(1e30), 4096), (64, 4096), (None, 4096)]
)
def test_a_plausible_limit_of_the_tokenizer_counts_where_it_is_smaller(limit: int | None, expected: int) -> None:
    config = SimpleNamespace(max_position_embeddings=4096)
    assert context_length(config, SimpleNamespace(model_max_length=limit)) == expected


def test_gemma_3_has_its_whole_context() -> None:
    from transformers import Gemma3TextConfig

    assert context_length(Gemma3TextConfig(max_position_embeddings=32768, sliding_window=512)) == 32768
