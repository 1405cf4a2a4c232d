"""What may be wrong with examples that can be read: row-level findings, and groups of near-duplicates.

Knows texts and labels only. A finding names rows, never what stands in them, so that a report of findings
shows nothing of a test set.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Literal

from rung.types import Example, Finding, Task

FEW_EXAMPLES = 60
RARE_LABEL = 4
LONG_OUTPUT_WORDS = 300
SIMILAR = 0.8
"""Jaccard similarity of word shingles from which two inputs count as near-duplicates."""
TYPO = 0.75
"""Share of letters in common from which one word counts as another misspelt."""
EXACT_UP_TO = 2_000
"""So many distinct inputs are compared all with all; beyond, MinHash proposes the pairs."""

# A run of letters and digits, one CJK or kana sign, or one symbol; sentence punctuation is left out, so that
# "2 + 2" and "2 - 2" differ while "Hello!" and "hello" do not.
_CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+|[^\w\s.,;:!?'\"“”‘’…]")
_MISSING = frozenset({"nan", "null", "none", "n/a", "#n/a", "<na>"})


def check_examples(examples: Sequence[Example], task: Task) -> tuple[Finding, ...]:
    """Everything suspicious, whole-data findings first, then row by row. Never raises."""
    return (
        *_whole(examples),
        *_labels(examples, task),
        *_duplicates(examples),
        *(finding for example in examples for finding in _row(example, task)),
    )


def near_duplicate_groups(examples: Sequence[Example]) -> dict[str, str]:
    """Example id -> group: the user's `group`s joined with near-duplicates; a loner is a group of its own.

    A group is named after the smallest id in it, so that the order of the examples does not matter.
    """
    parent = {e.id: e.id for e in examples}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    def join(a: str, b: str) -> None:
        low, high = sorted((root(a), root(b)))
        parent[high] = low

    first_of: dict[str, str] = {}
    for e in examples:
        if e.group is not None:
            join(first_of.setdefault(e.group, e.id), e.id)
    for i, j in _near_pairs(examples):
        join(examples[i].id, examples[j].id)
    return {e.id: root(e.id) for e in examples}


def normalised(example: Example) -> str:
    """Input and context without case, spacing and sentence punctuation; the raw text where nothing else is left."""
    text = f"{example.input}\n{example.context}" if example.context else example.input
    return " ".join(_TOKEN.findall(text.casefold())) or text.strip()


def _near_pairs(examples: Sequence[Example]) -> Iterator[tuple[int, int]]:
    """Positions i < j of near-duplicates. Each repetition of a normalised text is paired with the first only.

    Texts are near-duplicates when the Jaccard similarity of their word 2- and 3-shingles is at least 0.8 and
    they are not one template filled in twice (`_same_template`). Shingles that stand in more than 5 % of the
    texts are boilerplate and count for nothing.
    """
    first: dict[str, int] = {}
    for i, e in enumerate(examples):
        twin = first.setdefault(normalised(e), i)
        if twin != i:
            yield twin, i
    texts = list(first)
    words = [t.split() for t in texts]
    shingles = _telling(list(map(_shingles, words)))
    candidates = _all_pairs(shingles) if len(texts) <= EXACT_UP_TO else _minhash_pairs(shingles)
    for a, b in candidates:
        shared = len(shingles[a] & shingles[b])
        if shared < SIMILAR * (len(shingles[a]) + len(shingles[b]) - shared):
            continue
        i, j = first[texts[a]], first[texts[b]]
        if _same_answers(examples[i], examples[j]) or not _same_template(words[a], words[b]):
            yield i, j


def _shingles(words: list[str]) -> frozenset[str]:
    found = {" ".join(words[i : i + n]) for n in (2, 3) for i in range(len(words) - n + 1)}
    return frozenset(found or words)


def _telling(shingles: list[frozenset[str]]) -> list[frozenset[str]]:
    """Without boilerplate: shingles that stand in more than 5 % of the texts, and in more than ten."""
    in_texts = Counter(s for found in shingles for s in found)
    limit = max(10, len(shingles) // 20)
    return [frozenset(s for s in found if in_texts[s] <= limit) for found in shingles]


def _all_pairs(shingles: list[frozenset[str]]) -> Iterator[tuple[int, int]]:
    """Pairs whose overlap is large enough, counted exactly through an index from shingle to texts."""
    holders: dict[str, list[int]] = defaultdict(list)
    for j, found in enumerate(shingles):
        overlap = Counter(i for s in found for i in holders[s])
        yield from sorted((i, j) for i, n in overlap.items() if n >= SIMILAR * max(len(shingles[i]), len(found)))
        for s in found:
            holders[s].append(j)


def _minhash_pairs(shingles: list[frozenset[str]]) -> Iterator[tuple[int, int]]:
    """Pairs that MinHash LSH proposes; every hash has a fixed seed. Source: Broder (1997); datasketch."""
    from datasketch import MinHash, MinHashLSH

    # A lower threshold than SIMILAR: the proposals are checked exactly, so only misses would hurt.
    lsh = MinHashLSH(threshold=SIMILAR - 0.15, num_perm=64)
    for j, found in enumerate(shingles):
        if not found:
            continue
        sketch = MinHash(num_perm=64, seed=1)
        sketch.update_batch([s.encode() for s in sorted(found)])
        yield from sorted((int(i), j) for i in lsh.query(sketch))
        lsh.insert(j, sketch)


def _same_answers(a: Example, b: Example) -> bool:
    return not {r.strip().casefold() for r in a.references}.isdisjoint(r.strip().casefold() for r in b.references)


def _same_template(a: list[str], b: list[str]) -> bool:
    """Whether two texts differ by exchanged words ("…of France" / "…of Spain") rather than by a typo or an addition."""
    only_a, only_b = Counter(a) - Counter(b), Counter(b) - Counter(a)
    if not only_a or not only_b:
        return False
    left, right = "".join(only_a.elements()), "".join(only_b.elements())
    if any(c.isdigit() for c in left + right):
        return True
    return SequenceMatcher(None, left, right, autojunk=False).ratio() < TYPO


def _whole(examples: Sequence[Example]) -> Iterator[Finding]:
    if len(examples) < FEW_EXAMPLES:
        message = (
            f"Only {len(examples)} examples: differences between solutions will hardly show. "
            f"Bring {FEW_EXAMPLES} or more."
        )
        yield Finding("few_examples", "warning", "", message)


def _labels(examples: Sequence[Example], task: Task) -> Iterator[Finding]:
    if task.labels is None and task.metric != "label_accuracy":
        return
    holders: dict[str, list[str]] = {label: [] for label in task.labels or ()}
    for e in examples:
        holders.setdefault(e.output, []).append(e.id)
    for label, ids in holders.items():
        if not ids:
            message = f'The label "{label}" is declared but no example has it. Add examples or remove the label.'
            yield Finding("unused_label", "warning", "", message)
        elif len(ids) < RARE_LABEL:
            message = f'The label "{label}" has {_count(len(ids), "example")}. Bring {RARE_LABEL} or more.'
            yield Finding("rare_label", "warning", "", message, tuple(ids))
    spellings: dict[str, str] = {}
    for label in holders:
        twin = spellings.setdefault(" ".join(label.casefold().split()), label)
        if twin != label:
            message = f'The labels "{twin}" and "{label}" differ only in case or spacing. Make them one.'
            yield Finding("label_spelling", "warning", "", message, (*holders[twin], *holders[label]))


def _duplicates(examples: Sequence[Example]) -> Iterator[Finding]:
    """One finding for each later row of a near-identical pair."""
    for i, j in sorted(_near_pairs(examples), key=lambda pair: (pair[1], pair[0])):
        a, b = examples[i], examples[j]
        ids = (a.id, b.id)
        same_input = (a.input, a.context) == (b.input, b.context)
        if not _same_answers(a, b):
            alike = "The same input as" if same_input else "Nearly the same input as"
            message = f"{alike} {a.row}, but another answer. Decide which is right, or list both in references."
            yield Finding("conflicting_answers", "warning", b.row, message, ids)
        elif same_input and a.output == b.output:
            message = f"The same example as {a.row}. They are kept in one set."
            yield Finding("exact_duplicate", "warning", b.row, message, ids)
        else:
            message = f"Nearly the same input as {a.row}. They are kept in one set."
            yield Finding("near_duplicate", "note", b.row, message, ids)


def _row(example: Example, task: Task) -> Iterator[Finding]:
    def finding(check: str, message: str, severity: Literal["warning", "note"] = "warning") -> Finding:
        return Finding(check, severity, example.row, message, (example.id,))

    output = example.output
    words = len(output.split())
    if words > LONG_OUTPUT_WORDS:
        yield finding("long_output", f"The answer has {words} words; answers may be cut at the length limit.", "note")
    if output.strip() == example.input.strip():
        yield finding("output_equals_input", "The answer equals the input. Check that the columns are right.")
    if output != output.strip():
        yield finding("whitespace", "The answer starts or ends with spaces or line breaks. Remove them.", "note")
    if output.strip().casefold() in _MISSING and output not in (task.labels or ()):
        yield finding("looks_missing", "The answer looks like a missing value. Fill it in or remove the row.")
    if task.metric == "numeric_match" and not any(c.isdigit() for c in output):
        yield finding("no_number", "The answer holds no digit, but the metric is numeric_match.")
    if task.pattern is not None and re.fullmatch(task.pattern, output) is None:
        yield finding("pattern_mismatch", "The answer does not match pattern: in task.yaml. Mend one of them.")


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
