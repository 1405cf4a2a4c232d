"""The factors of an adapter in training, in the type that layers multiply in: converted once a pass, not in each layer.

On a GPU each conversion is a launch, and a layer has a dozen of them each way. Knows nothing of PEFT and layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from rung.engine.factors import Factors


class CastFactors:
    """Copies of factors, which a pass makes anew at its beginning, in a few launches for all layers.

    They stay in their places, so that recordings may read them. Gradients go to the factors themselves.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], list[Factors]] = {}
        self._from: list[Any] = []
        self._into: list[Any] = []

    @torch.no_grad()
    def refresh(self) -> None:
        """Copies all factors that are known, as they are now."""
        if self._into:
            torch._foreach_copy_(self._into, self._from)

    def of(self, key: tuple[int, ...], factors: Sequence[Factors]) -> list[Factors]:
        """The factors of layers with the same input, with copies in their fields `side` and `stored`.

        key: the same for the same layers. What is new is copied at once, later on by `refresh`.
        """
        if key not in self._known:
            self._known[key] = self._copied(list(factors))
        return self._known[key]

    @torch.no_grad()
    def _copied(self, factors: list[Factors]) -> list[Factors]:
        adapted = [i for i, f in enumerate(factors) if f.a is not None]
        if not adapted:
            return factors
        dtype, ranks = factors[0].weight.dtype, [len(factors[i].a) for i in adapted]
        first = factors[adapted[0]].a
        side = torch.empty(sum(ranks), first.shape[1], dtype=dtype, device=first.device)
        sources, copies = [factors[i].a for i in adapted], list(side.split(ranks))
        for i in adapted:
            stored = torch.empty_like(factors[i].b, dtype=dtype)
            sources.append(factors[i].b)
            copies.append(stored)
            factors[i] = replace(factors[i], stored=stored)
        factors[0] = replace(factors[0], side=side)
        torch._foreach_copy_(copies, sources)
        self._from += sources
        self._into += copies
        return factors
