"""Examples -> train, dev and a sealed test set, groups kept whole.

Knows sets, groups and strata. The test examples go straight under the seal; nothing here is built from them.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from rung.data.examples import Sets
from rung.errors import DataError
from rung.types import Example, Finding, SealedTest, SetName, Split, Task

SHARES: dict[SetName, float] = {"train": 0.5, "dev": 0.25, "test": 0.25}
DEV_OF_TRAIN: dict[SetName, float] = {"train": 2 / 3, "dev": 1 / 3}
MAX_STRATA = 50


def split_examples(sets: Sets, groups: Mapping[str, str], task: Task) -> Split:
    """The split: 50 % train, 25 % dev, 25 % test, or the one the user made.

    groups: example id -> group, for every example. A group stays in one set. Strata are the answers, where they
    are labels. Without a dev set of the user's, a third of train becomes dev. The same examples, groups and seed
    give the same sets, in whatever order the examples come. Raises DataError when a set would be empty.
    """
    if None in sets:
        assigned = _assign(sets[None], groups, SHARES, task)
        everything: Sequence[Example] = sets[None]
    else:
        assigned = {e.id: name for name, examples in sets.items() if name is not None for e in examples}
        everything = [e for examples in sets.values() for e in examples]
        if not sets.get("dev"):
            assigned |= _assign(sets.get("train", ()), groups, DEV_OF_TRAIN, task)
    return _split(everything, assigned, groups)


def straddling_groups(sets: Sets, groups: Mapping[str, str]) -> tuple[Finding, ...]:
    """A warning for each group that a user's own split has in more than one set: its test scores flatter."""
    members: dict[str, list[tuple[str, Example]]] = defaultdict(list)
    for name, examples in sets.items():
        for e in examples:
            members[groups[e.id]].append((name or "", e))
    findings: list[Finding] = []
    for group in members.values():
        names = list(dict.fromkeys(name for name, _ in group))
        if len(names) > 1:
            rows = ", ".join(e.row for _, e in group[:4]) + (", …" if len(group) > 4 else "")
            message = f"One group or near-duplicate stands in {' and '.join(names)} ({rows}). Keep it in one set."
            ids = tuple(e.id for _, e in group)
            findings.append(Finding("straddling_group", "warning", group[-1][1].row, message, ids))
    return tuple(findings)


def split_record(split: Split) -> dict[str, object]:
    """The split as JSON values: what split.json keeps. Ids only, no text."""
    sets = {"train": [e.id for e in split.train], "dev": [e.id for e in split.dev], "test": list(split.test.ids)}
    return {"sets": sets, "groups": dict(split.groups)}


def split_from_record(examples: Sequence[Example], record: Mapping[str, object]) -> Split:
    """The split that a record describes, of these examples.

    Raises DataError when the record is damaged, or names other examples than these.
    """
    sets, groups = record.get("sets"), record.get("groups")
    damaged = DataError("split.json: damaged: it needs sets (train, dev, test) and groups. Start a new run.")
    if not isinstance(sets, dict) or not isinstance(groups, dict):
        raise damaged
    assigned: dict[str, SetName] = {}
    for name in SHARES:
        ids = sets.get(name)
        if not isinstance(ids, list) or any(not isinstance(i, str) or i in assigned for i in ids):
            raise damaged
        assigned |= dict.fromkeys(ids, name)
    here = {e.id for e in examples}
    if missing := [i for i in assigned if i not in here]:
        raise DataError(
            f'split.json: {len(missing)} of its examples are no longer in the data, the first is "{missing[0]}". '
            "Restore the data, or start a new run."
        )
    if added := [e for e in examples if e.id not in assigned]:
        raise DataError(
            f"split.json: {len(added)} examples of the data are not in it, the first is {added[0].row}. "
            "Start a new run to use them."
        )
    if any(not isinstance(groups.get(i), str) for i in assigned):
        raise damaged
    return _split(examples, assigned, groups)


def _split(examples: Sequence[Example], assigned: Mapping[str, SetName], groups: Mapping[str, str]) -> Split:
    by_set: dict[SetName, list[Example]] = {name: [] for name in SHARES}
    for e in examples:
        by_set[assigned[e.id]].append(e)
    empty = [name for name, found in by_set.items() if not found]
    if empty:
        n = len({groups[e.id] for e in examples})
        raise DataError(
            f"The {len(examples)} examples form {n} group{'s' if n != 1 else ''}, which leaves {' and '.join(empty)} "
            "empty. Bring more examples that are not alike, or use finer groups."
        )
    kept = {e.id: groups[e.id] for e in examples}
    return Split(tuple(by_set["train"]), tuple(by_set["dev"]), SealedTest(by_set["test"]), kept)


def _assign(
    examples: Sequence[Example], groups: Mapping[str, str], shares: Mapping[SetName, float], task: Task
) -> dict[str, SetName]:
    """Example id -> set. Whole groups, largest first, each to the set that is furthest behind its share.

    Behind: of all examples placed so far, plus of those with the group's commonest answer. Going through groups
    of one size answer by answer, both stay within about one example of the share.
    """
    members: dict[str, list[Example]] = defaultdict(list)
    for e in examples:
        members[groups[e.id]].append(e)
    stratified = _stratified(examples, task)

    def stratum(group: str) -> str:
        if not stratified:
            return ""
        counts = Counter(e.output for e in members[group])
        return min(counts, key=lambda output: (-counts[output], output))

    # Sorted by smallest id before the shuffle, so that neither file order nor hashing plays a part.
    order = sorted(members, key=lambda g: min(e.id for e in members[g]))
    random.Random(task.seed).shuffle(order)
    order.sort(key=lambda g: (-len(members[g]), stratum(g)))
    placed: Counter[SetName] = Counter()
    of_stratum: dict[str, Counter[SetName]] = defaultdict(Counter)
    assigned: dict[str, SetName] = {}
    for group in order:
        size, answers = len(members[group]), of_stratum[stratum(group)]

        def behind(name: SetName, size: int = size, answers: Counter[SetName] = answers) -> tuple[float, float]:
            # Rounded, so that a tie is a tie whatever the floating-point noise.
            lack = sum(shares[name] * (c.total() + size) - c[name] for c in (placed, answers))
            return round(lack, 6), round(-placed[name] / shares[name], 6)

        best = max(shares, key=behind)
        placed[best] += size
        answers[best] += size
        assigned |= {e.id: best for e in members[group]}
    return assigned


def _stratified(examples: Sequence[Example], task: Task) -> bool:
    if task.metric == "label_accuracy":
        return True
    counts = Counter(e.output for e in examples)
    return len(counts) <= MAX_STRATA and min(counts.values(), default=0) > 1
