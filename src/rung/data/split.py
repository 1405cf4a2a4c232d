"""Examples -> train, dev and a sealed test set, groups kept whole.

Where a group goes follows from a hash of its content, so that it keeps its set when examples are added. The test
examples go straight under the seal; nothing here is built from them.
Knows sets, groups and strata.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from rung.data.examples import Sets
from rung.data.near_duplicates import content_digest, how_grouped
from rung.errors import DataError
from rung.types import Example, SealedTest, SetName, Split, Task

SHARES: dict[SetName, float] = {"train": 0.5, "dev": 0.25, "test": 0.25}
DEV_OF_TRAIN: dict[SetName, float] = {"train": 2 / 3, "dev": 1 / 3}
CAPS: dict[SetName, int] = {"dev": 1_000, "test": 2_000}
"""Examples of a set at most, unless one group holds more. More would cost answers without a verdict worth more."""
MAX_STRATA = 50
LEAST_OF_SHARE = 0.8
"""A set with less than this part of its share is filled up."""


def split_examples(sets: Sets, groups: Mapping[str, str], task: Task) -> Split:
    """The split: about 50 % train, 25 % dev, 25 % test, or the one the user made; dev and test are cut to CAPS.

    groups: example id -> group, for every example; a group stays in one set. Where the user named no dev set, about a
    third of train becomes dev. What is cut from a set that rung made is trained on; what is cut from a set of the
    user's is in no set. The same examples, groups and seed give the same sets, in whatever order the examples come.
    Raises DataError when a set would be empty.
    """
    if None in sets:
        assigned, capped = _assign(_groups_of(sets[None], groups, task), SHARES)
        return split_as(sets[None], assigned, groups, capped)
    assigned, capped = {}, {}
    for name, examples in sets.items():
        assert name is not None
        assigned |= dict.fromkeys((e.id for e in examples), name)
        kept = _kept(_groups_of(examples, groups, task), name)
        if len(kept) < len(examples):
            capped[name] = len(examples)
            assigned = {i: s for i, s in assigned.items() if s != name or i in kept}
    if not sets.get("dev"):
        own, capped_dev = _assign(_groups_of(sets.get("train", ()), groups, task), DEV_OF_TRAIN)
        assigned |= own
        capped |= capped_dev
    return split_as([e for examples in sets.values() for e in examples], assigned, groups, capped)


# ---- the record -----------------------------------------------------------------------------


def split_record(split: Split) -> dict[str, object]:
    """The split as JSON values: what split.json keeps. Ids and digests only, no text.

    groups: only of examples that share one. grouped_by: what made the groups, for information.
    """
    sets = {"train": [e.id for e in split.train], "dev": [e.id for e in split.dev], "test": list(split.test.ids)}
    size = Counter(split.groups.values())
    return {
        "sets": sets,
        "unused": list(split.unused),
        "capped": dict(split.capped),
        "groups": {i: group for i, group in split.groups.items() if size[group] > 1 or group != i},
        "test_digests": dict(split.test_digests),
        "row_digests": dict(split.row_digests),
        "grouped_by": how_grouped(),
    }


def split_from_record(examples: Sequence[Example], record: Mapping[str, object]) -> Split:
    """The split that a record describes, of these examples. No group is computed again.

    Raises DataError when the record is damaged, or names other examples than these.
    """
    sets, groups, unused = record.get("sets"), record.get("groups"), record.get("unused", [])
    capped, digests = record.get("capped", {}), record.get("test_digests", {})
    damaged = DataError("split.json: damaged: it needs sets (train, dev, test) and groups. Start a new run.")
    if not all(isinstance(part, dict) for part in (sets, groups, capped, digests)) or not isinstance(unused, list):
        raise damaged
    assert isinstance(sets, dict) and isinstance(groups, dict) and isinstance(capped, dict)
    assert isinstance(digests, dict)
    assigned: dict[str, SetName] = {}
    for name in SHARES:
        ids = sets.get(name)
        if not isinstance(ids, list) or not all(isinstance(i, str) for i in ids):
            raise damaged
        before = len(assigned)
        assigned |= dict.fromkeys(ids, name)
        if len(assigned) < before + len(ids):
            raise damaged
    if not all(isinstance(text, str) for text in (*groups.values(), *digests.values())):
        raise damaged
    here = {e.id for e in examples}
    if missing := [i for i in assigned if i not in here]:
        raise DataError(
            f'split.json: {len(missing)} of its examples are no longer in the data, the first is "{missing[0]}". '
            "Restore the data, or start a new run."
        )
    known = assigned.keys() | set(unused)
    if added := [e for e in examples if e.id not in known]:
        raise DataError(
            f"split.json: {len(added)} examples of the data are not in it, the first is {added[0].row}. "
            "Start a new run to use them."
        )
    return split_as(examples, assigned, groups, capped, digests)


def seen_before(
    record: Mapping[str, object], earlier: Mapping[str, Mapping[str, object]]
) -> dict[str, tuple[str, ...]]:
    """Earlier run -> ids of this split's test whose input and context stood in the test of that run too.

    record: of this split. earlier: name of the run -> its split record. Runs that share no test example are left out.
    """
    own = record.get("test_digests")
    if not isinstance(own, Mapping):
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for run, record in earlier.items():
        digests = record.get("test_digests")
        tested = set(digests.values()) if isinstance(digests, Mapping) else set()
        if ids := tuple(i for i, digest in own.items() if digest in tested):
            found[run] = ids
    return found


def split_as(
    examples: Sequence[Example],
    assigned: Mapping[str, SetName],
    groups: Mapping[str, str],
    capped: Mapping[SetName, int],
    digests: Mapping[str, str] | None = None,
) -> Split:
    """The sets as `assigned` has them, in the order of the examples. groups: an absent id is a group of its own."""
    by_set: dict[SetName, list[Example]] = {name: [] for name in SHARES}
    unused: list[str] = []
    for e in examples:
        if e.id in assigned:
            by_set[assigned[e.id]].append(e)
        else:
            unused.append(e.id)
    if empty := [name for name, members in by_set.items() if not members]:
        n = len({groups.get(e.id, e.id) for e in examples})
        raise DataError(
            f"The {len(examples)} examples form {n} group{'s' if n != 1 else ''}, which leaves {' and '.join(empty)} "
            "empty: train, dev and test need one at least. Bring more examples that are not alike, or use finer groups."
        )
    kept = {e.id: groups.get(e.id, e.id) for e in examples if e.id in assigned}
    digests = {e.id: content_digest(e) for e in by_set["test"]} if digests is None else digests
    test = SealedTest(by_set["test"])
    rows = {e.id: row_digest(e) for e in examples if e.id in assigned}
    return Split(tuple(by_set["train"]), tuple(by_set["dev"]), test, kept, capped, tuple(unused), digests, rows)


def row_digest(example: Example) -> str:
    """Of all that a row says: two rows with one digest are the same example."""
    said: tuple[object, ...]
    said = (example.input, example.context, example.output, example.references, example.group, example.gold_ids)
    if example.instruction is not None or example.turns:
        said += (example.instruction, tuple((turn.role, turn.content) for turn in example.turns))
    return sha256(repr(said).encode(errors="replace")).hexdigest()[:32]


# ---- which group goes where -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Group:
    """Examples that stay together. place: in [0, 1), by the hash. stratum: its commonest answer, "" without strata."""

    ids: tuple[str, ...]
    place: float
    stratum: str

    @property
    def order(self) -> tuple[float, str]:
        return self.place, min(self.ids)


def _groups_of(examples: Sequence[Example], groups: Mapping[str, str], task: Task) -> list[_Group]:
    """The groups in the order of their places.

    The hash is of the seed and the content: the user's group, or the smallest digest of the inputs in the group. It
    is not of rows, ids or answers: a corrected answer moves no group. More rows move a group only where it gains a
    near-duplicate with a smaller digest, or another of the user's groups with an earlier name.
    """
    members: dict[str, list[Example]] = defaultdict(list)
    for e in examples:
        members[groups[e.id]].append(e)
    stratified = _stratified(examples, task)

    def group_of(own: list[Example]) -> _Group:
        named = min((e.group for e in own if e.group is not None), default=None)
        content = f"content {min(map(content_digest, own))}" if named is None else f"group {named}"
        digest = sha256(f"{task.seed}\n{content}".encode(errors="replace")).digest()
        stratum = _commonest([e.output for e in own]) if stratified else ""
        return _Group(tuple(e.id for e in own), int.from_bytes(digest[:8]) / 2**64, stratum)

    return sorted(map(group_of, members.values()), key=lambda g: g.order)


def _commonest(outputs: Sequence[str]) -> str:
    if len(outputs) == 1:
        return outputs[0]
    counts = Counter(outputs)
    return min(counts, key=lambda output: (-counts[output], output))


def _stratified(examples: Sequence[Example], task: Task) -> bool:
    if task.metric == "label_accuracy":
        return True
    counts = Counter(e.output for e in examples)
    return len(counts) <= MAX_STRATA and min(counts.values(), default=0) > 1


def _assign(groups: Sequence[_Group], shares: Mapping[SetName, float]) -> tuple[dict[str, SetName], dict[SetName, int]]:
    """(example id -> set, set that was cut to its cap -> examples before)."""
    assigner = _Assigner(groups, shares)
    assigner.teach_every_stratum()
    assigner.fill_up()
    capped: dict[SetName, int] = {}
    home = assigner.home
    for name in shares:
        kept = _kept([g for g, own in zip(groups, home, strict=True) if own == name], name)
        if len(kept) < assigner.size[name]:
            capped[name] = assigner.size[name]
            home = [
                "train" if own == name and g.ids[0] not in kept else own for g, own in zip(groups, home, strict=True)
            ]
    return {i: name for g, name in zip(groups, home, strict=True) for i in g.ids}, capped


class _Assigner:
    """The set of each group: by its hash, then repaired where that would hurt, moving as few groups as can be."""

    def __init__(self, groups: Sequence[_Group], shares: Mapping[SetName, float]) -> None:
        self._groups = groups
        self._total = sum(len(g.ids) for g in groups)
        self._shares = shares
        self._ranges: dict[SetName, tuple[float, float]] = {}
        low = 0.0
        for name, share in shares.items():
            self._ranges[name] = low, low + share
            low += share
        self.home: list[SetName] = [self._by_hash(g) for g in groups]
        self.size: Counter[SetName] = Counter()
        self._number: Counter[SetName] = Counter()  # of groups
        self._held: Counter[tuple[SetName, str]] = Counter()  # (set, stratum) -> examples
        self._taught: Counter[str] = Counter()  # stratum -> its groups in train
        for g, name in zip(groups, self.home, strict=True):
            self._count(g, name, 1)

    def teach_every_stratum(self) -> None:
        """Moves one group of an answer into train, where the answer has two groups or more and none is there."""
        strata: dict[str, list[int]] = defaultdict(list)
        for number, g in enumerate(self._groups):
            if g.stratum:
                strata[g.stratum].append(number)
        for stratum, numbers in strata.items():
            if len(numbers) > 1 and not self._taught[stratum]:
                self._move(min(numbers, key=lambda n: self._distance(n, "train")), "train")

    def fill_up(self) -> None:
        """Moves the nearest groups into a set below LEAST_OF_SHARE, from sets that stay above; no set stays empty.

        The set that lacks most is served first, and of it the answer that lacks most. The test gives last: what was
        tested should stay tested when examples are added. Each list of groups is gone through once: a set that cannot
        spare a group can spare it no more later on.
        """
        waiting = {name: self._queues(name) for name in self._shares if self._lacks(name)}
        while needy := [n for n in waiting if self._lacks(n)]:
            name = min(needy, key=lambda n: self.size[n] / self._shares[n])
            queues = waiting[name]
            if not queues:
                del waiting[name]
                continue
            stratum = max(queues, key=lambda s: self._stratum_lack(s, name))
            number = next((n for n in queues[stratum] if self._spared(n, name)), None)
            if number is None:
                del queues[stratum]
            else:
                self._move(number, name)
        for name in self._shares:
            rich = [n for n, home in enumerate(self.home) if self._number[home] > 1]
            if not self.size[name] and rich:
                self._move(min(rich, key=lambda n: (self._distance(n, name), self._groups[n].order)), name)

    def _queues(self, name: SetName) -> dict[str, Iterator[int]]:
        """Stratum -> its groups in other sets, in the order in which they would move into this one."""
        strata: dict[str, list[int]] = defaultdict(list)
        for number in sorted(
            (n for n, home in enumerate(self.home) if home != name),
            key=lambda n: (self.home[n] == "test", self._distance(n, name), self._groups[n].order),
        ):
            strata[self._groups[number].stratum].append(number)
        return {stratum: iter(numbers) for stratum, numbers in strata.items()}

    def _stratum_lack(self, stratum: str, name: SetName) -> float:
        """Examples of an answer that a set lacks to its share of them."""
        held = {other: self._held[other, stratum] for other in self._shares}
        return self._shares[name] * sum(held.values()) - held[name]

    def _by_hash(self, group: _Group) -> SetName:
        """A group larger than the whole share of its set is trained on: it would be most of that set."""
        name: SetName = next((n for n, (_, high) in self._ranges.items() if group.place < high), "train")
        return "train" if len(group.ids) > self._shares[name] * self._total else name

    def _lacks(self, name: SetName) -> bool:
        return self.size[name] < LEAST_OF_SHARE * self._shares[name] * self._total

    def _spared(self, number: int, to: SetName) -> bool:
        """Whether the group's set can do without it."""
        g, home = self._groups[number], self.home[number]
        last = home == "train" and g.stratum != "" and self._taught[g.stratum] == 1
        rest = self.size[home] - len(g.ids)
        return home != to and not last and rest >= LEAST_OF_SHARE * self._shares[home] * self._total

    def _distance(self, number: int, name: SetName) -> float:
        place, (low, high) = self._groups[number].place, self._ranges[name]
        return max(low - place, place - high, 0.0)

    def _move(self, number: int, to: SetName) -> None:
        self._count(self._groups[number], self.home[number], -1)
        self._count(self._groups[number], to, 1)
        self.home[number] = to

    def _count(self, group: _Group, name: SetName, sign: int) -> None:
        self.size[name] += sign * len(group.ids)
        self._number[name] += sign
        self._held[name, group.stratum] += sign * len(group.ids)
        if name == "train":
            self._taught[group.stratum] += sign


def _kept(groups: Sequence[_Group], name: SetName) -> Collection[str]:
    """Ids of the examples that stay in a set when it is cut to its cap, each answer in proportion.

    The groups of an answer stay in the order of their hashes, the highest first, so that more examples change little.
    Where the groups that fit fill less than half the cap, the first one that does not fit stays too.
    """
    cap = CAPS.get(name)
    total = sum(len(g.ids) for g in groups)
    if cap is None or total <= cap:
        return {i for g in groups for i in g.ids}
    strata: dict[str, list[_Group]] = defaultdict(list)
    for g in sorted(groups, key=lambda g: g.order, reverse=True):
        strata[g.stratum].append(g)
    queue: list[tuple[float, tuple[float, str], _Group]] = []
    for members in strata.values():
        size, before = sum(len(g.ids) for g in members), 0
        for g in members:
            queue.append(((before + len(g.ids) / 2) / size, g.order, g))
            before += len(g.ids)
    kept: set[str] = set()
    too_large: list[_Group] = []
    for _, _, g in sorted(queue, key=lambda item: item[:2]):
        if len(kept) + len(g.ids) <= cap:
            kept.update(g.ids)
        else:
            too_large.append(g)
    if too_large and len(kept) < cap / 2:
        kept.update(too_large[0].ids)
    return kept
