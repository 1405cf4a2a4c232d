"""Examples that were added to a run: they train, and dev and the sealed test stay as they were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rung.data.examples import Sets
from rung.data.split import row_digest, split_as
from rung.errors import DataError
from rung.types import SetName, Split


@dataclass(frozen=True)
class Growth:
    """What changed in train: numbers of rows. held_out: new and changed rows that are in no set.

    That is so where such a row stands in a test or dev file of the user's, or nearly repeats a row of dev or test.
    """

    added: int
    removed: int
    changed: int
    held_out: int

    @property
    def any(self) -> bool:
        """Whether train is another one than before."""
        return bool(self.added or self.removed or self.changed)


def grown_split(sets: Sets, groups: Mapping[str, str], record: Mapping[str, object]) -> tuple[Split, Growth]:
    """The split that a record describes, with the rows that were added since then in train.

    groups: example id -> group, for every example as it is now. Raises DataError when a row of dev or of the test is
    gone or says something else: only train may change.
    """
    before, earlier, known_groups = record["sets"], record.get("row_digests"), record["groups"]
    assert isinstance(before, dict) and isinstance(known_groups, dict) and isinstance(earlier, dict)
    where = {e.id: name for name, examples in sets.items() for e in examples}
    by_id = {e.id: e for examples in sets.values() for e in examples}
    judging = {i: name for name in ("dev", "test") for i in before[name]}
    moved = [i for i in judging if i not in by_id or row_digest(by_id[i]) != earlier.get(i)]
    if moved:
        raise DataError(
            f'split.json: {len(moved)} rows of dev and test were changed or are gone, the first is "{moved[0]}". '
            "--again takes new rows to train on and leaves these as they are: restore them, or start a new run without "
            "--again."
        )
    unused = record.get("unused")
    left = set(unused) if isinstance(unused, list) else set()
    train = set(before["train"])
    judged = {groups[i] for i in judging}
    assigned: dict[str, SetName] = dict(judging)
    held_out = 0
    for i in by_id:
        if i in judging or i in left:
            continue
        as_before = i in train and row_digest(by_id[i]) == earlier.get(i)
        if as_before or (where[i] in (None, "train") and groups[i] not in judged):
            assigned[i] = "train"
        else:
            held_out += 1
    kept = {i for i, name in assigned.items() if name == "train"}
    changed = sum(row_digest(by_id[i]) != earlier.get(i) for i in kept & train)
    growth = Growth(len(kept - train), len(train - kept), changed, held_out)
    own = {i: groups[i] for i in kept - train} | {i: g for i, g in known_groups.items() if i in assigned}
    examples = list(by_id.values())
    capped, digests = record.get("capped", {}), record.get("test_digests", {})
    assert isinstance(capped, dict) and isinstance(digests, dict)
    return split_as(examples, assigned, own, capped, digests), growth
