"""Which inputs a model cannot read whole, before anything is spent: told in tokens of each model of the task.

Few texts are counted: those that may not fit by their bytes, the longest first, until many in a row fit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from rung.types import Example, Finding, Split, Task

Counter = tuple[Callable[[str], int], int]
"""As `rung.models.text_counter` gives it: text -> number of tokens, and the tokens that fit the context."""

_TEMPLATE_TOKENS = 24  # that a chat template may write around a prompt
_COUNTED_CHARACTERS = 16  # of a text, for each token of the context: whatever follows changes nothing
_FITTING_IN_A_ROW = 50
_NAMED = 5


def too_long(
    examples: Sequence[Example], task: Task, counters: Mapping[str, Counter], split: Split | None = None
) -> tuple[Finding, ...]:
    """For each model: a warning about inputs that exceed its context, and a note about those that do with their answer.

    counters: name of a model -> its counter. split: names the sets in which they stand.
    """
    findings = []
    for name, (count, most) in counters.items():
        room = most - count(task.instruction) - _TEMPLATE_TOKENS
        rows = _over(examples, [e.query.text for e in examples], count, room)
        inputs = {e.id for e in rows}
        if rows:
            message = (
                f"{len(rows):,} of {len(examples):,} inputs do not fit the {most:,} tokens that {name} reads: "
                f"{_rows(rows)}. It cannot answer them, and they count as wrong{_where(inputs, split)}. Training "
                "leaves them out. Shorten them, or use a model with a longer context."
            )
            findings.append(Finding("too_long", "warning", "", message, tuple(e.id for e in rows)))
        others = [e for e in examples if e.id not in inputs]
        whole = _over(others, [f"{e.query.text}\n{e.output}" for e in others], count, room)
        if whole:
            message = (
                f"{len(whole):,} of {len(examples):,} inputs do not fit the {most:,} tokens of {name} together with "
                f"their answers: {_rows(whole)}. Training leaves them out. Shorten them."
            )
            findings.append(Finding("too_long", "note", "", message, tuple(e.id for e in whole)))
    return tuple(findings)


def _over(examples: Sequence[Example], texts: Sequence[str], count: Callable[[str], int], room: int) -> list[Example]:
    """The examples whose texts have more tokens than there is room for, in their order."""
    sizes = [len(text) if text.isascii() else len(text.encode()) for text in texts]  # at least as many as tokens
    doubtful = sorted((at for at, size in enumerate(sizes) if size > room), key=lambda at: -sizes[at])
    over, fitting = set[int](), 0
    for at in doubtful:
        if count(texts[at][: _COUNTED_CHARACTERS * max(1, room)]) > room:
            over.add(at)
            fitting = 0
        elif (fitting := fitting + 1) == _FITTING_IN_A_ROW:
            break
    return [examples[at] for at in sorted(over)]


def _rows(examples: Sequence[Example]) -> str:
    named = ", ".join(e.row or e.id for e in examples[:_NAMED])
    return named + (f" and {len(examples) - _NAMED:,} more" if len(examples) > _NAMED else "")


def _where(ids: Collection[str], split: Split | None) -> str:
    """ ": 7 of 93 in the test, 1 of 90 in dev"; empty where none stands there, or where there is no split yet."""
    if split is None:
        return ""
    sets = {"the test": split.test.ids, "dev": tuple(e.id for e in split.dev)}
    found = {name: sum(i in ids for i in own) for name, own in sets.items()}
    told = ", ".join(f"{n:,} of {len(sets[name]):,} in {name}" for name, n in found.items() if n)
    return f": {told}" if told else ""
