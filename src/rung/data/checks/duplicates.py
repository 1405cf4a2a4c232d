"""Rows that say the same: examples that stand twice, nearly the same inputs, and answers that contradict each other.

A finding names rows and says how alike they are, never what stands in them. Copies that lie in two files of a user's
split are leakage (`leakage`), and are not told here; contradictions are.
"""

from __future__ import annotations

from collections.abc import Iterator

from rung.data.checks.material import Material
from rung.data.conflicts import alike_share, conflicting_pairs
from rung.text import normal_form, visible_lines
from rung.types import Example, Finding

MOST_COMPARED = 5_000
"""Of more near-duplicates than that, the first ones alone are sorted by how alike they are."""


def duplicates(material: Material) -> Iterator[Finding]:
    """One finding for each pair, about its later row: contradictions, then copies, then near-duplicates."""
    examples = material.examples
    conflicts = conflicting_pairs(examples, material.pairs)
    for a, b in conflicts:
        same = _same_input(a, b)
        alike = f"The same input as {a.row}" if same else f"Nearly the same input as {a.row} ({_share(a, b)} alike)"
        message = f"{alike}, but another answer. Decide which is right, or list both in references."
        yield Finding("conflicting_answers", "warning", b.row, message, (a.id, b.id))
    home = {e.id: name for name, part in material.sets.items() for e in part}
    where = "They are kept in one set." if None in material.sets else "Both stand in {}."
    known = {(a.id, b.id) for a, b in conflicts}
    near: list[tuple[Example, Example]] = []
    for i, j in material.pairs:
        a, b = examples[i], examples[j]
        if home.get(a.id) != home.get(b.id):
            continue
        if a.output == b.output and visible_lines(a.query.text) == visible_lines(b.query.text):
            message = f"The same example as {a.row}. {where.format(home.get(a.id))}"
            yield Finding("exact_duplicate", "warning", b.row, message, (a.id, b.id))
        elif (a.id, b.id) not in known:
            near.append((a, b))
    shares = [(alike_share(a, b), n) for n, (a, b) in enumerate(near[:MOST_COMPARED])]
    for share, n in [*sorted(shares), *((1.0, n) for n in range(len(shares), len(near)))]:
        a, b = near[n]
        how = f"{_per_cent(share)} alike" if n < len(shares) and share < 1 else "the same words"
        message = f"Nearly the same input as {a.row} ({how}). {where.format(home.get(a.id))}"
        yield Finding("near_duplicate", "note", b.row, message, (a.id, b.id))


def _same_input(a: Example, b: Example) -> bool:
    """Whether a reader sees no difference but case."""
    return a.query.text == b.query.text or normal_form(a.query.text) == normal_form(b.query.text)


def _share(a: Example, b: Example) -> str:
    return _per_cent(alike_share(a, b))


def _per_cent(share: float) -> str:
    return f"{100 * share:.0f} %"
