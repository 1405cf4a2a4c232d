"""In which ways an engine computes its passes: the plain one anywhere, faster ones where a GPU runs them.

A GPU computes faster than Python can give it work. So there a pass over a tree is one fused attention a layer and not
a product for each block, passes of one shape are recorded once as CUDA graphs and replayed, and steps that run often
are compiled. Each way gives the same numbers to rounding, and can be taken by itself: tests take all of them on the
CPU, where nothing is recorded. A way that fails is given up for good, and the reason is kept.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import torch

from rung.engine.variables import NAMES, asked_ways

_log = logging.getLogger(__name__)

TRAINING, ANSWERS = "training", "answers"
"""What a static or compiled way may be given up for, by itself."""


@dataclass
class Ways:
    """fused: attention over a tree is one kernel a layer (`masked_view`), not one a block.

    static: passes are padded to a few shapes, recorded as CUDA graphs on a GPU, and replayed.
    compiled: the steps of layers are compiled where enough passes of one shape are to come.
    given_up: way -> why it is not taken here, as a clause; or "way of what".
    """

    fused: bool = False
    static: bool = False
    compiled: bool = False
    given_up: dict[str, str] = field(default_factory=dict)

    @property
    def taken(self) -> tuple[str, ...]:
        """The names of the ways that are taken, in the order of NAMES."""
        return tuple(name for name in NAMES if getattr(self, name))

    def give_up(self, way: str, reason: str, *, of: str = "") -> None:
        """It is not taken any more, which is logged once, as information. of: TRAINING or ANSWERS, where the other may
        go on taking it."""
        what = f"{way} {of}" if of else way
        if what not in self.given_up:
            _log.info("A way to compute is given up: %s (%s).", what, reason)
        if not of:
            setattr(self, way, False)
        self.given_up[what] = reason

    def takes(self, way: str, of: str) -> bool:
        """Whether a way is taken for training or for answers; of: as in `give_up`."""
        return bool(getattr(self, way)) and f"{way} {of}" not in self.given_up


def ways_of(device: torch.device) -> Ways:
    """The ways that are taken on a device: those that RUNG_WAYS names; where it is unset, those that are usual there.

    Raises ModelError for a value that is not allowed.
    """
    asked = asked_ways()
    chosen = usual_ways(device) if asked is None else asked
    return Ways("fused" in chosen, "static" in chosen, "compiled" in chosen)


def usual_ways(device: torch.device) -> tuple[str, ...]:
    """All on a GPU with CUDA, none elsewhere."""
    return NAMES if device.type == "cuda" else ()
