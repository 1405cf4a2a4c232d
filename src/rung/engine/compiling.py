"""torch.compile, as this engine uses it: static shapes, and a compiled variant for each of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

_MOST_VARIANTS = 128  # of one function, in place of torch's own 8


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, compiled at its first call with each shape. It takes seconds, and needs a C compiler.

    What cannot be compiled whole raises, and so does one variant too many: neither is run as Python has it.
    """
    import torch

    made: Callable[..., Any] = torch.compile(function, dynamic=False, fullgraph=True)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        _allow_variants()
        return made(*args, **kwargs)

    return call


def _allow_variants() -> None:
    """At each call, since in newer versions of torch a setting holds for the thread that made it."""
    import torch._dynamo

    config: Any = torch._dynamo.config
    name = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"  # its name until torch 2.6
    if getattr(config, name) < _MOST_VARIANTS:
        setattr(config, name, _MOST_VARIANTS)
