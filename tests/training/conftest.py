from __future__ import annotations

from typing import Any

import pytest
import torch

from rung.testing import tiny_model
from rung.training import lora
from trained import OPTIONS


@pytest.fixture(scope="module")
def with_adapter() -> Any:
    """A model with a random adapter in training, as `train` sets it up."""
    model = tiny_model()
    lora.fresh_adapter(model.engine, OPTIONS)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.network.named_parameters():
            if p.requires_grad and ".lora_B" in name:
                p.copy_(torch.randn(p.shape, generator=draw) * 0.1)
    return model
