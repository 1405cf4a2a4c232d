"""Checks of data that can be read: what is wrong or doubtful in it, with rows, gravity and what to do.

A check is a function from `Material` to findings, listed in `DETECTORS`. No check needs a model, and none raises.
"""

from __future__ import annotations

from rung.data.checks.examples import check_examples
from rung.data.near_duplicates import near_duplicate_groups

__all__ = ["check_examples", "near_duplicate_groups"]
