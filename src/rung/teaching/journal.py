"""The journal of answers, under the name by which this room uses it: see `rung.models.journal`."""

from rung.models.journal import Journal

__all__ = ["Journal"]
