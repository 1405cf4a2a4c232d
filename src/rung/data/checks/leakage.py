"""What makes a test score flatter, or say nothing: test rows that stand in train or in the corpus, and too few groups.

Findings name rows and count them, never say what stands in them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from rung.data.checks.material import Material
from rung.data.near_duplicates import connected
from rung.text import normal_form, units
from rung.types import Document, Example, Finding, SetName

LARGE = 0.5
"""Share of the rows from which one group leaves dev and test less than theirs."""
FEW_UNITS = 2
"""A test of so many groups shows nothing, whatever the score."""
LEAST_INPUT = 3
"""Words of an input from which it is looked for in the documents."""
MOST_SEARCHED = 200_000_000
"""Characters of documents that are searched for test rows."""

_WAY_OUT = (
    "`rung check --fix OUT` takes them out of {}; or name one file with all rows under examples:, and rung splits it."
)


def leakage(material: Material) -> Iterator[Finding]:
    """Rows of the user's test and dev files that stand in files that are learnt from, and groups in several files."""
    if len(material.sets) < 2:
        return
    found = _Overlaps(material)
    yield from _told("leakage", "test", found.of("test", ("train", "dev")), len(material.sets.get("test", ())))
    yield from _told("dev_leakage", "dev", found.of("dev", ("train",)), len(material.sets.get("dev", ())))
    yield from _straddling(material)


def groups(material: Material) -> Iterator[Finding]:
    """Groups that are too large or too few for a test that shows anything."""
    size = Counter(material.groups.values())
    total = len(material.examples)
    test = material.tested
    if None in material.sets and size and (largest := max(size.values())) > LARGE * total:
        message = (
            f"One group holds {largest:,} of {total:,} rows ({100 * largest / total:.0f} %) and stays whole, so dev "
            f"and test share the other {total - largest:,}{f': the test has {len(test):,}' if test else ''}. "
            "Use finer groups, or bring more rows of other groups."
        )
        yield Finding("large_group", "warning", "", message)
    tested = {material.groups.get(i, i) for i in test}
    if 0 < len(tested) <= FEW_UNITS and len(test) > len(tested):
        n = len(tested)
        message = (
            f"The {len(test):,} rows of the test belong to {'one group' if n == 1 else f'{n} groups'}. Rows of a group "
            f"are no independent evidence, so n is {n}: whatever the score, nothing can be shown. Use finer groups, or "
            "bring more of them."
        )
        yield Finding("few_groups", "warning", "", message)


def corpus_holds_test(material: Material) -> Iterator[Finding]:
    """Test rows whose input and answer stand word for word in one document: retrieval looks their answers up."""
    test = material.tested
    rows = [e for e in material.examples if not test or e.id in test]  # before a split, all may be tested
    held = _held(rows, material.documents)
    if not held:
        return
    message = (
        f"Of {len(held):,} of {len(rows):,} test rows the input and the answer stand word for word in one document, so "
        "retrieval can look the answer up. If documents will not hold the users' own questions, take these out of the "
        "corpus."
    )
    yield Finding("corpus_holds_test", "warning", "", message, tuple(e.id for e, _ in held), count=0)
    for example, document in held:
        message = f'Input and answer stand in the document "{document.id[:60]}".'
        yield Finding("corpus_holds_test", "warning", example.row, message, (example.id,))


# ---- between files --------------------------------------------------------------------------


_Overlap = tuple[Example, SetName, Example, bool]
"""A row, the first set that has it too, the row there, and whether a reader sees the same."""


class _Overlaps:
    """Which rows are copies or near-duplicates of which, file by file."""

    def __init__(self, material: Material) -> None:
        self._sets = material.sets
        roots = connected(len(material.examples), material.pairs)
        self._root = {e.id: root for e, root in zip(material.examples, roots, strict=True)}
        shared = Counter(roots)
        self._first: dict[tuple[str | None, int | str], Example] = {}  # of each group, and of each text, in a set
        for name, part in material.sets.items():
            for e in part:
                if shared[self._root[e.id]] > 1:
                    self._first.setdefault((name, self._root[e.id]), e)
                    self._first.setdefault((name, normal_form(e.query.text)), e)

    def of(self, judging: SetName, learnt: Sequence[SetName]) -> list[_Overlap]:
        """The rows of a set that stand in a set that is learnt from."""
        found: list[_Overlap] = []
        for e in self._sets.get(judging, ()):
            for name in learnt:
                if nearly := self._first.get((name, self._root[e.id])):
                    same = self._first.get((name, normal_form(e.query.text)))
                    found.append((e, name, same or nearly, same is not None))
                    break
        return found


def _told(check: str, judging: str, found: Sequence[_Overlap], n: int) -> Iterator[Finding]:
    """One finding that counts, then one for each row."""
    if not found:
        return
    parts = []
    for name in dict.fromkeys(name for _, name, _, _ in found):
        exactly = sum(same for _, other, _, same in found if other == name)
        nearly = sum(not same for _, other, _, same in found if other == name)
        how = " and ".join(f"{k:,} {word}" for k, word in ((exactly, "exactly"), (nearly, "nearly")) if k)
        parts.append(f"{exactly + nearly:,} of {n:,} {judging} rows stand in {name} too ({how})")
    why = "The test is not clean: its score flatters" if judging == "test" else "Choices by dev are not fair"
    message = f"{'; '.join(parts)}. {why}. {_WAY_OUT.format(' and '.join(dict.fromkeys(f[1] for f in found)))}"
    yield Finding(check, "warning", "", message, tuple(e.id for e, _, _, _ in found), count=0)
    for e, name, twin, same in found:
        row = f"{'The same' if same else 'Nearly the same'} input as {twin.row} in {name}."
        yield Finding(check, "warning", e.row, row, (e.id, twin.id))


def _straddling(material: Material) -> Iterator[Finding]:
    """The user's own groups that stand in more than one of the user's files."""
    members: dict[str, list[tuple[str, Example]]] = defaultdict(list)
    for name, part in material.sets.items():
        for e in part:
            if e.group is not None:
                members[e.group].append((name or "", e))
    for own in members.values():
        names = list(dict.fromkeys(name for name, _ in own))
        if len(names) > 1:
            rows = ", ".join(e.row for _, e in own[:4]) + (", …" if len(own) > 4 else "")
            message = f"One group stands in {' and '.join(names)} ({rows}). Keep it in one set."
            yield Finding("straddling_group", "warning", own[-1][1].row, message, tuple(e.id for _, e in own))


# ---- in documents ---------------------------------------------------------------------------


def _held(rows: Sequence[Example], documents: Iterable[Document]) -> list[tuple[Example, Document]]:
    """Rows whose input and one of whose answers stand in one document, with the first such document."""
    inputs: dict[tuple[str, ...], list[tuple[list[str], Example]]] = defaultdict(list)
    for e in rows:
        if len(words := _words(e.input)) >= LEAST_INPUT:
            inputs[tuple(words[:LEAST_INPUT])].append((words, e))
    if not inputs:
        return []
    found: dict[str, tuple[Example, Document]] = {}
    searched = 0
    for document in documents:
        searched += len(document.text)
        if searched > MOST_SEARCHED:
            break
        words = _words(f"{document.title or ''} {document.text}")
        whole = ""
        for k, start in enumerate(zip(words, words[1:], words[2:], strict=False)):
            for asked, e in inputs.get(start, ()):
                if e.id in found or words[k : k + len(asked)] != asked:
                    continue
                whole = whole or f" {' '.join(words)} "
                if any((said := _words(answer)) and f" {' '.join(said)} " in whole for answer in e.references):
                    found[e.id] = (e, document)
    return [found[e.id] for e in rows if e.id in found]


def _words(text: str) -> list[str]:
    """Units; a line break counts as one where JSON writes it as \\n, too: a document may be rows of chats."""
    return units(text.replace("\\n", "\n").replace("\\t", "\t"))
