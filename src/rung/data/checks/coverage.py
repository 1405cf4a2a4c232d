"""What the examples hold too little of: answers that are rare or stand in one set alone, and kinds of inputs.

Kinds of inputs are clusters of their vectors (k-means), named by the words that set them apart. Words are shown of
train and dev only; of the test nothing but labels is named.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rung.data.checks.examples import labels_in
from rung.data.checks.material import Material
from rung.data.checks.wrong_labels import labelled
from rung.data.sensitive import sensitive
from rung.data.vectors import vectors_of
from rung.text import normal_form, units
from rung.types import Example, Finding, Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ONE_ANSWER = "one_answer"
IMBALANCE = "imbalance"
LABEL_ONLY_IN_TEST = "label_only_in_test"
LABEL_NOT_IN_TEST = "label_not_in_test"
FEW_OF_A_KIND = "few_of_a_kind"

LEAST_FOR_KINDS = 60
"""Among fewer inputs no kind can be told from chance."""

_MAJORITY, _TIMES_ITS_SHARE, _GRAVE = 0.5, 1.5, 0.8
_NAMED = 5  # kinds, and labels of one finding
_KINDS = (4, 30)
_FEW, _LEAST, _SHARE = 0.34, 3, 0.04  # of a usual kind's size; rows; share of all rows
_TELLING = 4.0  # a telling word is so many times as frequent in the kind as outside
_LEAST_OF_LABEL = 3  # rows with an answer from which it is a label, where none are declared
_LETTERS = 3  # of a telling word, where words have letters
_MOST_CLUSTERED = 5_000
_ADDRESSES = re.compile(r"\S*(?:@|://)\S*")
_BARE_KIND = 0.5  # share of a kind's rows that hold its first telling word


def coverage(material: Material) -> Iterator[Finding]:
    """All findings about coverage."""
    yield from answers(material)
    yield from kinds(material)


# ---- answers ----------------------------------------------------------------------------------


def answers(material: Material) -> Iterator[Finding]:
    """`one_answer`, `imbalance`, `label_only_in_test` and `label_not_in_test`."""
    examples, task = material.examples, material.task
    if not examples:
        return
    first = normal_form(examples[0].output)
    if all(normal_form(e.output) == first for e in examples):
        message = (
            f'All {len(examples)} answers are the same ("{examples[0].output.strip()[:60]}"): no model is needed to '
            "give it, and nothing can be compared. Bring examples with other answers, or correct fields: in task.yaml."
        )
        yield Finding(ONE_ANSWER, "error", "", message)
        return
    if task.multi_label or labelled(examples, bool(task.labels)):
        if not task.multi_label:
            yield from _imbalance(examples)
        yield from _in_one_set_alone(material)


def _imbalance(examples: Sequence[Example]) -> Iterator[Finding]:
    counts = Counter(normal_form(e.output) for e in examples)
    (_, most), *_ = counts.most_common(1)
    n = len(examples)
    if most / n < max(_MAJORITY, _TIMES_ITS_SHARE / len(counts)):
        return
    written = {normal_form(e.output): e.output.strip() for e in reversed(examples)}
    major = next(a for a, count in counts.items() if count == most)
    others = ", ".join(f'"{written[a][:40]}" ({c})' for a, c in counts.most_common()[1 : 1 + _NAMED])
    message = (
        f'"{written[major][:40]}" is the answer of {most:,} of {n:,} examples ({100 * most / n:.0f} %): always giving '
        f"it scores about {most / n:.2f} by the share of right answers. That is the floor, and only the other "
        f"{n - most:,} examples show what is above it. Bring more of the others: {others}."
    )
    yield Finding(IMBALANCE, "warning" if most >= _GRAVE * n else "note", "", message)


def _in_one_set_alone(material: Material) -> Iterator[Finding]:
    tested, known = _sides(material)
    if not tested or not known:
        return
    task = material.task
    here, there = _holders(tested, task), _holders(known, task)
    if not (task.labels or task.multi_label):  # a rare answer is no label: a stray text, say
        few = {
            label for label in {*here, *there} if len(here.get(label, ())) + len(there.get(label, ())) < _LEAST_OF_LABEL
        }
        here, there = ({label: rows for label, rows in side.items() if label not in few} for side in (here, there))
    for label, holders in here.items():
        if label not in there:
            message = (
                f'The label "{_written(holders[0], label, task)}" stands in the test only ({_rows(len(holders))}): no '
                "solution can learn it. Bring examples of it for train, or move some there."
            )
            yield Finding(LABEL_ONLY_IN_TEST, "warning", holders[0].row, message, tuple(e.id for e in holders))
    if missing := [(label, rows) for label, rows in there.items() if label not in here]:
        names = ", ".join(f'"{_written(rows[0], label, task)}"' for label, rows in missing[:_NAMED])
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        message = (
            f"{len(missing)} of {len(there)} labels stand in no test example ({names}{more}): the test says nothing "
            f"about them. {_how_to_test(material, missing, len(tested), len(tested) + len(known))}"
        )
        yield Finding(LABEL_NOT_IN_TEST, "note", "", message)


def _how_to_test(material: Material, missing: Sequence[tuple[str, list[Example]]], tested: int, total: int) -> str:
    """Of labels that no test example has: more rows help where a label is rare, else it is how the split fell."""
    if "test" in material.sets:
        return "Put some examples of them into the test."
    fewest = min(len(rows) for _, rows in missing)
    if fewest * tested / total >= 1:
        rows = _rows(fewest) if len(missing) == 1 else f"{_rows(fewest)} or more each"
        return f"With {rows}, that is how the split fell: another seed, or a test file of your own, has some."
    return "Bring more examples of them, or a test file of your own."


def _sides(material: Material) -> tuple[list[Example], list[Example]]:
    """(examples in the test, examples in train and dev); both empty where nobody knows yet."""
    if material.test is None and "test" not in material.sets:
        return [], []
    known = {e.id for e in material.readable}
    tested = [e for e in material.examples if e.id not in known]
    return tested, list(material.readable)


def _holders(examples: Sequence[Example], task: Task) -> dict[str, list[Example]]:
    """Normal form of a label -> the examples that have it, in order."""
    found: dict[str, list[Example]] = defaultdict(list)
    for e in examples:
        for label in labels_in(e.output, task):
            found[normal_form(label)].append(e)
    return found


def _written(example: Example, label: str, task: Task) -> str:
    return next(own for own in labels_in(example.output, task) if normal_form(own) == label).strip()[:60]


def _rows(n: int) -> str:
    return "1 row" if n == 1 else f"{n} rows"


# ---- kinds of inputs --------------------------------------------------------------------------


def kinds(material: Material) -> Iterator[Finding]:
    """`few_of_a_kind`: clusters of few inputs, smallest first, named by the words that set them apart."""
    import numpy as np

    readable = {e.id for e in material.readable}
    if len(readable) < LEAST_FOR_KINDS or (vectors := vectors_of(material.examples, material.task.seed)) is None:
        return
    own = [n for n, place in enumerate(vectors.places) if material.examples[place].id in readable]
    if len(own) > _MOST_CLUSTERED:
        own = sorted(np.random.default_rng(material.task.seed).choice(own, _MOST_CLUSTERED, replace=False).tolist())
    examples = [material.examples[vectors.places[n]] for n in own]
    members = _clusters(vectors.dense[own], material.task.seed)
    words = [_words(e.input) for e in examples]
    everywhere = Counter(word for own_words in words for word in own_words)
    usual = len(examples) / len(members)
    small = [m for m in members if _LEAST <= len(m) <= min(_FEW * usual, _SHARE * len(examples))]
    told = 0
    for rows in sorted(small, key=len):
        inside = Counter(w for n in rows for w in words[n] & _words(_without_values(examples[n].input)))
        telling = _telling(inside, len(rows), everywhere, len(examples))
        if not telling or told == _NAMED:
            continue
        told += 1
        message = (
            f"{len(rows)} of {len(examples):,} inputs of train and dev are about {', '.join(telling)}. If such inputs "
            "matter, bring more of them: so few teach and show next to nothing."
        )
        yield Finding(FEW_OF_A_KIND, "note", examples[rows[0]].row, message, tuple(examples[n].id for n in rows))


def _words(text: str) -> set[str]:
    """The words of a text that may say what it is about: without digits, and of some letters."""
    return {u for u in units(text) if u.isalpha() and (len(u) >= _LETTERS or not u.isascii())}


def _without_values(text: str) -> str:
    """A text without addresses, personal data and secrets, which are not to be shown."""
    text = _ADDRESSES.sub(" ", text)
    for one in reversed(sensitive(text)):
        text = f"{text[: one.start]} {text[one.end :]}"
    return text


def _clusters(dense: Any, seed: int) -> list[list[int]]:
    """Rows of each cluster; about the square root of half the rows many clusters. dense: shape (n, dimensions)."""
    from sklearn.cluster import KMeans

    low, high = _KINDS
    k = max(low, min(high, round((len(dense) / 2) ** 0.5)))
    labels: NDArray[np.intp] = KMeans(k, n_init=2, max_iter=50, random_state=seed % 2**32).fit_predict(dense)
    found: dict[int, list[int]] = defaultdict(list)
    for row, label in enumerate(labels.tolist()):
        found[label].append(row)
    return list(found.values())


def _telling(inside: Counter[str], n_in: int, everywhere: Counter[str], n: int) -> list[str]:
    """At most three words that most of a cluster's rows hold and few others do, the most telling first."""
    found = []
    for word, times in inside.items():
        share, outside = times / n_in, (everywhere[word] - times + 0.5) / (n - n_in + 1)
        if times >= _LEAST and share >= _BARE_KIND and share / outside >= _TELLING:
            found.append((-share * (share / outside) ** 0.5, word))
    return [word for _, word in sorted(found)[:3]]
