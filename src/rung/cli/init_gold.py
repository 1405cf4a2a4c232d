"""Gold passages that `rung init` marks where there are documents and no row marks one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from rung.types import Document, Example, Task

if TYPE_CHECKING:
    from rung.data.init import TriedDraft
    from rung.data.init.reading import Ask

MOST_EXAMPLES = 5_000
MOST_CHARACTERS = 300_000_000
"""Of documents: above, a lexical index would take minutes and gigabytes."""
LEAST_MARKED = 0.05
MOST_WRONG = 0.2
"""Share of the marks that may be chance; above, none is written."""
_TOLD_FROM = 20_000_000  # characters from which looking takes seconds


def mark_gold(trial: TriedDraft, ask: Ask | None, force: bool) -> TriedDraft:
    """The trial, whose task.yaml reads copies of the rows with a column gold_ids where these could be found.

    ask: who is asked before anything is written; None: nobody, and copies are written. What was done, or why nothing
    was, is one of the trial's notes.
    """
    from rung.data.init.gold_copies import copy_names, rows_are_examples, with_gold_copies
    from rung.retrieval.marking import mark

    task = trial.task
    if task is None or trial.problem is not None or task.corpus is None:
        return trial
    examples, documents = trial.every, trial.draft.documents
    if any(e.gold_ids for e in examples):
        return trial
    why_not = _why_not(task, examples, documents, rows_are_examples(examples))
    there = [copy.name for copy in copy_names(task).values() if copy.exists()]
    if not why_not and there and not force:
        why_not = f"{there[0]} is there already; use --force to replace it"
    if why_not:
        return _noted(trial, f"Gold passages are not marked: {why_not}.")
    if sum(len(d.text) for d in documents) > _TOLD_FROM:
        click.echo("Looking for documents that hold the answers …", err=True)
    marks = mark(examples[:MOST_EXAMPLES], documents, seed=task.seed)
    fact = (
        f"A document that holds the answer was found for {len(marks.gold):,} of {marks.n:,} rows; one that holds the "
        f"answer of another row, for {marks.by_chance:,} of {marks.drawn:,}"
    )
    if len(marks.gold) < LEAST_MARKED * marks.n or marks.wrong > MOST_WRONG:
        return _noted(trial, f"Gold passages are not marked: {fact[0].lower()}{fact[1:]}.")
    copies = ", ".join(copy.name for copy in copy_names(task).values())
    replies = (f"yes: write {copies} with a column gold_ids, and read that", "no: leave the rows as they are")
    if ask is not None and ask(f"{fact}. Mark these documents as gold passages?", replies) != 0:
        return trial
    more = f" Rows after the first {MOST_EXAMPLES:,} are not marked." if len(examples) > MOST_EXAMPLES else ""
    note = (
        f"{fact}. Your rows with these documents as gold_ids are in {copies}, which the task reads; look at some. No "
        f"search is measured by them, unless you check a row and delete its gold_by.{more}"
    )
    rows = {e.id: e.row for e in examples}
    return with_gold_copies(trial, {rows[id_]: document for id_, document in marks.gold.items()}, note)


def _why_not(task: Task, examples: Sequence[Example], documents: Sequence[Document], one_each: bool) -> str:
    """Why no row can be marked, a sentence part; empty where rows can."""
    from rung.data.corpus import examples_lie_in_the_corpus

    if task.labels is not None or task.multi_label:
        return "answers are labels, and that a document contains one says nothing"
    if examples_lie_in_the_corpus(task):
        return "rows lie in the folder of the documents, where a marked copy would leave the first ones as a document"
    if not one_each:
        return "several examples come of one row"
    if sum(len(d.text) for d in documents) > MOST_CHARACTERS:
        return f"the documents have more than {MOST_CHARACTERS / 1e6:,.0f} million characters"
    return ""


def _noted(trial: TriedDraft, note: str) -> TriedDraft:
    return replace(trial, draft=replace(trial.draft, notes=(*trial.draft.notes, note)))
