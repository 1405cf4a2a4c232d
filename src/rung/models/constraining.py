"""What a model can be held to. Knows nothing of how it is."""

from __future__ import annotations

from rung.errors import ConstraintError
from rung.types import Constraint, Model


def enforced(model: Model, constraint: Constraint) -> Constraint | None:
    """The constraint where the model can be held to it; else None, so that a request asks without."""
    try:
        model.check(constraint)
    except ConstraintError:
        return None
    return constraint
