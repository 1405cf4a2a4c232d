from __future__ import annotations

from rung.models.constraining import enforced
from rung.testing.fakes import FakeModel
from rung.types import Constraint


def test_a_constraint_holds_only_where_the_model_can_be_held_to_it() -> None:
    model, labels = FakeModel(lambda request: "yes"), Constraint("labels", ("yes", "no"))
    assert enforced(model, labels) is labels
    assert enforced(model, Constraint("regex", "(")) is None
