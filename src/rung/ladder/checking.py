"""What `rung check` and the head of `rung run` share: the data read, what is wrong in it, and the split.

No model is loaded. Findings that are errors stop a run; all others are told and recorded.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rung.errors import DataError, MetricError
from rung.types import Answer, Constraint, Document, Example, Finding, MetricInfo, Split, Task

if TYPE_CHECKING:
    from pathlib import Path

    from rung.data.examples import Sets
    from rung.data.near_duplicates import Pairs
    from rung.data.rows import Problem

Say = Callable[[str], None]

MANY_ROWS, MANY_BYTES = 20_000, 20_000_000
"""From so much on, reading and comparing take long enough to be told."""
LINES_EVERY = 10.0
"""Seconds at least between two lines about one piece of work."""
SHORT_CONTEXT = 1_000
"""So many characters of input and answer fit every model's context."""
_PROBED = 100  # examples whose answers say whether a metric grades
_SHOWN = 10  # findings that an error message spells out


def quiet(line: str) -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class Read:
    """What the user brought. task: with what the answers showed filled in. how: how it was read, line by line.

    findings: of rows and files that could not be read, or were read otherwise than they were written.
    files: of documents, those that gave some; found: all that were found where the documents are.
    """

    task: Task
    sets: Sets
    documents: tuple[Document, ...]
    metric: MetricInfo
    how: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    files: int = 0
    found: int = 0

    @property
    def examples(self) -> tuple[Example, ...]:
        return tuple(e for part in self.sets.values() for e in part)


@dataclass(frozen=True)
class CheckedData:
    """What the checks say of it. split: None where the examples cannot be split; a finding says why.

    With `train_size`, the split's train is what was picked.
    """

    read: Read
    split: Split | None
    findings: tuple[Finding, ...]
    constraint: Constraint | None = None

    @property
    def task(self) -> Task:
        return self.read.task

    @property
    def sets(self) -> Sets:
        return self.read.sets

    @property
    def documents(self) -> tuple[Document, ...]:
        return self.read.documents

    @property
    def reading(self) -> tuple[str, ...]:
        """How the files were read, line by line."""
        return self.read.how

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What must be corrected before a run can begin."""
        return tuple(f for f in self.findings if f.severity == "error")


def check_task(task_path: Path, say: Say = quiet, *, beside: bool = True) -> CheckedData:
    """Reads a task and its data, and checks them. say: hears what is being done where it takes long.

    beside: the files beside the examples, too, and what a budget in dollars needs.
    Raises RungError for what cannot be read at all.
    """
    from rung.data.findings import bounded, without_ignored
    from rung.data.task_file import read_task
    from rung.ladder.beside_checks import findings_beside

    checked = check(read(read_task(task_path), say), say)
    if not beside or checked.split is None:
        return checked
    lines: list[str] = []
    found = findings_beside(checked.task, checked.read.examples, checked.split, lines.append)
    data = replace(checked.read, how=(*checked.read.how, *lines))
    more = without_ignored(bounded(found), checked.task.ignore)
    return replace(checked, read=data, findings=(*checked.findings, *more))


def read(task: Task, say: Say = quiet) -> Read:
    """Examples, documents and the metric of a task. Raises RungError for what cannot be read."""
    from rung.data.answer_form import found_whitespace
    from rung.data.corpus import Corpus, files_of_task, read_documents
    from rung.data.examples import read_data
    from rung.evaluation.metrics import as_observed, metric_for
    from rung.ladder.search_keys import check_search_keys

    check_search_keys(task)
    if (size := sum(path.stat().st_size for path in task.example_files if os.path.isfile(path))) >= MANY_BYTES:
        say(f"Reading {size / 1e6:,.0f} MB of examples.")
    found = read_data(task)
    sets = found.sets
    corpus = read_documents(task.corpus, say, files_of_task(task)) if task.corpus else Corpus()
    findings = (*map(_unusable, found.problems), *found.findings, *corpus.findings)
    how = found.how
    examples = [e for part in sets.values() for e in part]
    if task.whitespace is None:
        learnt = sets.get("train") or examples
        free = task.metric == "exact_match" or task.metric.startswith("python:")  # other metrics fold it by themselves
        whitespace, why = found_whitespace([e.output for e in learnt]) if free else ("folded", "")
        task = replace(task, whitespace=whitespace)
        how = (*how, f"White space inside answers counts: {why}.") if whitespace == "counts" else how
    metric = metric_for(task, task.metric)
    if task.metric.startswith("python:"):  # of a user's metric it is not known whether it grades
        metric = as_observed(metric, _scores_of_answers(metric, examples))
    return Read(task, sets, corpus.documents, metric, how, findings, corpus.files, corpus.found)


def check(data: Read, say: Say = quiet) -> CheckedData:
    """Every check of data that was read, and the split. Raises nothing for what is wrong with the data."""
    from rung.data.constraint import constraint_of
    from rung.data.findings import without_ignored
    from rung.data.near_duplicates import near_duplicate_groups, near_duplicates
    from rung.data.picking import doubtful
    from rung.data.split import split_examples
    from rung.data.vectors import forget

    examples = data.examples
    if len(examples) >= MANY_ROWS:
        say(f"Comparing {len(examples):,} inputs with each other.")
    pairs = near_duplicates(examples, _seldom(say))
    groups = near_duplicate_groups(examples, pairs)
    try:
        split = split_examples(data.sets, groups, data.task)
    except DataError as error:
        found = (*findings_of(data, pairs, groups, None), Finding("split", "error", "", str(error)))
        forget()
        return CheckedData(data, None, without_ignored((*data.findings, *found), data.task.ignore))
    constraint = constraint_of(data.task, split.train)
    if len(examples) >= MANY_ROWS:
        say(f"Checking {len(examples):,} rows.")
    doubted: set[str] = set()

    def hear(finding: Finding) -> None:
        if finding.check not in data.task.ignore:
            doubted.update(doubtful([finding]))

    findings = findings_of_split(data, pairs, groups, split, constraint, hear)
    split = picked(split, data.task, doubted.union(doubtful(findings)))
    forget()  # the vectors of the checks, which picking used too
    return CheckedData(data, split, findings, constraint_of(data.task, split.train))  # as a continued run finds it


def findings_of_split(
    data: Read,
    pairs: Pairs,
    groups: Mapping[str, str],
    split: Split,
    constraint: Constraint | None,
    hear: Callable[[Finding], None] | None = None,
) -> tuple[Finding, ...]:
    """Everything that the checks say of data that is split, without what the task ignores.

    hear: gets every finding about rows, those too that are not listed.
    """
    from rung.data.findings import without_ignored
    from rung.data.split import CAPS, SHARES
    from rung.evaluation.size_finding import size_findings

    found = findings_of(data, pairs, groups, constraint, frozenset(split.test.ids), hear)
    own = None in data.sets
    shares, cap = (SHARES, CAPS["test"]) if own else (None, None)
    size = size_findings(split, shares=shares, cap=cap, graded=not data.metric.right_or_wrong)
    return without_ignored((*data.findings, *found, *longer_than_the_context(data, split), *size), data.task.ignore)


def findings_of(
    data: Read,
    pairs: Pairs,
    groups: Mapping[str, str],
    constraint: Constraint | None,
    test: frozenset[str] | None = None,
    hear: Callable[[Finding], None] | None = None,
) -> tuple[Finding, ...]:
    """What the checks of rows and of the metric find. test: ids of test examples, of which nothing is shown.

    hear: as of `findings_of_split`.
    """
    from rung.data.checks import Material, found_in
    from rung.data.corpus import check_gold_ids
    from rung.evaluation.metrics import probe_metric

    examples = data.examples
    material = Material(data.task, data.sets, examples, pairs, groups, data.documents, constraint, test)
    hidden = {e.id for e in examples} - {e.id for e in material.readable}
    gold = check_gold_ids(examples, data.documents) if data.documents else ()
    try:
        probed = probe_metric(data.metric, examples, test=hidden)
    except MetricError as error:
        probed = (Finding("metric_fails", "error", "", str(error)),)
    return (*found_in(material, hear=hear), *gold, *probed)


def longer_than_the_context(data: Read, split: Split) -> tuple[Finding, ...]:
    """Inputs that exceed the context of a model of the task whose tokenizer is on disk."""
    from rung.ladder.lengths import too_long
    from rung.models import text_counter

    longest = max((len(e.query.text) + len(e.output) for e in data.examples), default=0)
    if longest <= SHORT_CONTEXT:  # a tokenizer takes seconds to load
        return ()
    counters = {spec.name: text_counter(spec.spec) for spec in data.task.models}
    return too_long(data.examples, data.task, {n: c for n, c in counters.items() if c is not None}, split)


def picked(split: Split, task: Task, doubted: Collection[str]) -> Split:
    """The split with `train_size` examples of train, doubted ones last; the others are in no set."""
    if task.train_size is None or task.train_size >= len(split.train):
        return split
    from rung.data.picking import pick

    train = pick(split.train, task.train_size, seed=task.seed, doubted=doubted)
    kept = {e.id for e in train}
    left = tuple(e.id for e in split.train if e.id not in kept)
    return replace(split, train=train, unused=(*split.unused, *left))


def refuse(checked: CheckedData, strict: bool) -> None:
    """Raises DataError where something must be corrected first: an error, and with strict a warning too."""
    stops = [f for f in checked.findings if f.severity == "error" or (strict and f.severity == "warning")]
    if not stops:
        return
    lines = [f"{f.row + ': ' if f.row else ''}{f.message}" for f in stops[:_SHOWN]]
    if len(stops) == 1 and checked.errors:
        raise DataError(lines[0])
    number = sum(f.count for f in stops)
    what = "errors in the data"
    if any(f.severity == "warning" for f in stops):
        warnings = "warning" if number == 1 else "warnings"
        what = "errors and warnings in the data" if checked.errors else f"{warnings}, and --strict stops at warnings"
    more = [f"… and {len(stops) - _SHOWN:,} more"] if len(stops) > _SHOWN else []
    task = checked.task.path
    page = f"rung check {shlex.quote(str(task))}"
    raise DataError("\n  ".join([f"{task}: {number:,} {what}.", *lines, *more]) + f"\nAll of them: {page}")


def _seldom(say: Say) -> Say:
    """Tells a line only where the last one was told LINES_EVERY seconds ago or more."""
    told = time.monotonic()

    def tell(line: str) -> None:
        nonlocal told
        if (now := time.monotonic()) - told >= LINES_EVERY:
            told = now
            say(line)

    return tell


def _unusable(problem: Problem) -> Finding:
    return Finding("unusable_row", "error", problem.where, f"{problem.text.removesuffix('.')}.")


def _scores_of_answers(metric: MetricInfo, examples: Sequence[Example]) -> list[float]:
    """Scores of right answers, and of the next example's answers, which say whether the metric grades."""
    from rung.evaluation.scorer import Scorer

    some = examples[:_PROBED]
    pairs = [(e, a.output) for e, a in zip(some, (*some[1:], *some[:1]), strict=True)]
    asked = [Answer(e.query, text, e.references) for e, other in pairs for text in (e.output, other)]
    return [outcome.score for outcome in Scorer(metric).score(asked)]
