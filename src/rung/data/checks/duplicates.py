"""Rows that say the same: examples that stand twice, nearly the same inputs, and answers that contradict each other.

A finding names rows and says how alike they are, never what stands in them. Copies that lie in two files of a user's
split are leakage (`leakage`), and are not told here; contradictions are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rung.data.checks.material import Material
from rung.data.conflicts import alike_share, conflicting_pairs
from rung.text import normal_form, units, visible_lines
from rung.types import Example, Finding, SetName

MOST_COMPARED = 5_000
"""Of more near-duplicates than that, the first ones alone are sorted by how alike they are."""


def duplicates(material: Material) -> Iterator[Finding]:
    """Contradictions, a finding each pair, then rows that stand twice, each once, then pairs of near-duplicates."""
    examples = material.examples
    conflicts = conflicting_pairs(examples, material.pairs)
    for a, b in conflicts:
        if _same_input(a, b):
            message = (
                f"The same input as {a.row}, but another answer. Decide which is right, or list both in references."
            )
            yield Finding("conflicting_answers", "warning", b.row, message, (a.id, b.id))
        else:
            near_to = f"Nearly the same input as {a.row} ({_how_alike(a, b, alike_share(a, b))}), and another answer"
            message = f"{near_to}. Decide whether both are right."
            yield Finding("conflicting_answers", "note", b.row, message, (a.id, b.id))
    home = {e.id: name for name, part in material.sets.items() for e in part}
    twins = [pair for part in material.sets.values() for pair in repeated(part)]
    for a, b in twins:
        message = f"The same example as {a.row}. {_where(home.get(a.id), twin=True)}"
        yield Finding("exact_duplicate", "warning", b.row, message, (a.id, b.id))
    told = {(a.id, b.id) for a, b in conflicts}
    again = {b.id for _, b in twins}
    pairs = [(examples[i], examples[j]) for i, j in material.pairs]
    near = [
        (a, b) for a, b in pairs if home.get(a.id) == home.get(b.id) and b.id not in again and (a.id, b.id) not in told
    ]
    shares = [(alike_share(a, b), n) for n, (a, b) in enumerate(near[:MOST_COMPARED])]
    for share, n in [*sorted(shares), *((1.0, n) for n in range(len(shares), len(near)))]:
        a, b = near[n]
        how = f" ({_how_alike(a, b, share)})" if n < len(shares) else ""
        message = f"Nearly the same input as {a.row}{how}. {_where(home.get(a.id))}"
        yield Finding("near_duplicate", "note", b.row, message, (a.id, b.id))


def repeated(examples: Sequence[Example]) -> Iterator[tuple[Example, Example]]:
    """(first, later) of each row that says what an earlier one says, answers and what is accepted included."""
    first: dict[tuple[object, ...], Example] = {}
    for example in examples:
        says = (visible_lines(example.query.text), example.output, example.references)
        if (twin := first.setdefault(says, example)) is not example:
            yield twin, example


def _where(home: SetName | None, *, twin: bool = False) -> str:
    if home is None:
        return "They are kept in one set."
    return f"Both stand in {home}" + (", where --fix leaves them." if twin and home == "test" else ".")


def _same_input(a: Example, b: Example) -> bool:
    """Whether a reader sees no difference but case."""
    return a.query.text == b.query.text or normal_form(a.query.text) == normal_form(b.query.text)


def _how_alike(a: Example, b: Example, share: float) -> str:
    """What two inputs have in common: all words, all but what says nothing (greetings, markup), or a share of them.

    share: of `alike_share`.
    """
    if units(a.query.text) == units(b.query.text):
        return "the same words"
    return "the same but for greetings, markup or spelling" if share == 1 else f"{min(99, int(100 * share))} % alike"
