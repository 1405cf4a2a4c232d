"""The keys `abstain` and `cite` beside those that say what an answer may look like: where no answer could do both."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rung.text import normal_form

if TYPE_CHECKING:
    from rung.data.task_keys import TaskKeys


def check_abstain(keys: TaskKeys, labels: tuple[str, ...] | None) -> None:
    """Raises ValueError where no answer could be the one that `abstain` names."""
    if keys.abstain is None or keys.multi_label:
        return
    if labels and normal_form(keys.abstain) not in map(normal_form, labels):
        raise ValueError(f'abstain is "{keys.abstain}", which is no label. Add it to labels, or delete abstain.')
    if keys.pattern and not re.fullmatch(keys.pattern, keys.abstain):
        raise ValueError(f'abstain is "{keys.abstain}", which breaks the pattern. Allow it there, or delete abstain.')


def check_cite(keys: TaskKeys) -> None:
    """Raises ValueError where no answer could name its sources: it may be nothing else than its form, or there are
    none."""
    if not keys.cite:
        return
    if keys.corpus is None:
        raise ValueError("cite asks for sources, but there are no documents to name. Write corpus:, or delete cite.")
    forms = {"labels": keys.labels, "multi_label": keys.multi_label, "schema": keys.schema_, "pattern": keys.pattern}
    if form := next((name for name, value in forms.items() if value), None):
        raise ValueError(
            f"cite asks for marks of sources behind each answer, and {form} leaves no room for them. Delete cite: "
            "rung ask --verbose lists the passages of any answer."
        )
