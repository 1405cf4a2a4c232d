"""What all solutions that read passages have in common: they name their sources, and refuse, where the task says so.

Neither is chosen on dev. A dev set without unanswerable questions would never choose to refuse, and marks of sources
are taken out before anything is scored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from rung.evaluation.abstention import refuses_by_reference
from rung.evaluation.citations import SHORT, supports
from rung.retrieval.answers_in_text import says_something
from rung.retrieval.gold import SEARCHED, GoldIndex, WithoutGold, contains_answer
from rung.solutions.citing import ROOM, with_marks
from rung.solutions.prompt_rendering import numbered
from rung.solutions.refusing import with_refusal
from rung.text import units
from rung.trials.workshop import Inputs, Workshop
from rung.types import Document, Example, Query, Retriever, Solution, Task

REFUSED = 10
"""One in so many training prompts shows no passage that holds the answer."""

_LOOKED_AT = 200  # examples, for demos that refuse


def reading(workshop: Workshop, name: str) -> Solution:
    """The plainest Solution of the task that is to read passages; without its retriever yet."""
    inputs, task = workshop.inputs, workshop.inputs.task
    plain = workshop.solution(name)
    room = plain.decoding.max_new_tokens + (ROOM if task.cite else 0)
    return replace(
        plain,
        instruction=with_refusal(plain.instruction, abstain_of(task)),
        decoding=replace(plain.decoding, max_new_tokens=room),
        constraint=inputs.constraint,
        cite=task.cite,
    )


def abstain_of(task: Task) -> str | None:
    """What a prompt with passages says to answer where none of them holds the answer; None: nothing. An answer of
    several labels says it by none of them."""
    return None if task.multi_label else task.abstain


def answers_repeat(inputs: Inputs) -> bool:
    """Whether answers are one of a few: labels, or texts that hardly any row has for itself."""
    task = inputs.task
    if task.labels or task.multi_label:
        return True
    return len({e.output for e in inputs.dev}) <= len(inputs.dev) // 4


def to_refuse(workshop: Workshop, search: Retriever, index: GoldIndex, examples: Sequence[Example]) -> frozenset[str]:
    """Ids of the examples whose training prompts show no passage that holds the answer, and that learn `abstain`.

    About one in REFUSED, always the same ones, of those for which a passage is known to hold the answer. None where
    the task names no `abstain`, its own rows teach it often enough, or answers are labels, one of a few or held to a
    form: that a passage holds such a word says nothing. So that the adapter keeps refusing.
    Source: Zhang et al., RAFT (2024); Zhang et al., R-Tuning (2024).
    """
    inputs, task = workshop.inputs, workshop.inputs.task
    if not _may_be_made(inputs):
        return frozenset()
    own = sum(refuses_by_reference(e, task.abstain) for e in inputs.train)
    if own * REFUSED >= len(inputs.train):
        return frozenset()
    drawn = [e for e in examples if _is_drawn(e, task.seed) and _tells(e) and not refuses_by_reference(e, task.abstain)]
    ranked = search.search([e.query for e in drawn], SEARCHED)
    known = zip(drawn, ranked, strict=True)
    return frozenset(e.id for e, row in known if (p := index.passage(e, row)) is not None and contains_answer(p, e))


def refusals(
    workshop: Workshop, search: Retriever, index: GoldIndex, examples: Sequence[Example]
) -> list[tuple[Example, Document]]:
    """Examples to refuse, each with the best passage that does not hold its answer; the shortest passages first.

    Those whose own answer is `abstain`; without any, those of which a passage is known to hold the answer, as in
    `to_refuse`. None where the prompt does not say to refuse.
    """
    abstain = abstain_of(workshop.inputs.task)
    if abstain is None:
        return []
    asked = [e for e in examples if refuses_by_reference(e, abstain)][:_LOOKED_AT]
    examples = examples[:_LOOKED_AT]
    if not asked and _may_be_made(workshop.inputs):
        ranked = search.search([e.query for e in examples], SEARCHED)
        known = zip(examples, ranked, strict=True)
        asked = [e for e, row in known if _tells(e) and not refuses_by_reference(e, abstain) and index.passage(e, row)]
    if not asked:
        return []
    others = WithoutGold(search, asked, index).search([e.query for e in asked], 1)
    found = [(e, row[0]) for e, row in zip(asked, others, strict=True) if row]
    return sorted(found, key=lambda pair: len(pair[1].text))


def _may_be_made(inputs: Inputs) -> bool:
    """Whether an example with an answer may stand for one without, where its passages are not shown."""
    task = inputs.task
    return task.abstain is not None and not (task.schema or task.pattern or answers_repeat(inputs))


def _is_drawn(example: Example, seed: int) -> bool:
    digest = hashlib.sha256(f"{seed} {example.id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % REFUSED == 0


class Parted:
    """Two searches: one for the queries with these ids, the other for all others."""

    def __init__(self, ids: frozenset[str], of_these: Retriever, of_others: Retriever) -> None:
        self._ids, self._of_these, self._of_others = ids, of_these, of_others

    def search(self, queries: Sequence[Query], k: int) -> list[list[Document]]:
        these = [q for q in queries if q.id in self._ids]
        others = [q for q in queries if q.id not in self._ids]
        found_of = dict(zip((q.id for q in these), self._of_these.search(these, k) if these else [], strict=True))
        found_of |= zip((q.id for q in others), self._of_others.search(others, k) if others else [], strict=True)
        return [found_of[q.id] for q in queries]


def learnt_answer(
    example: Example, solution: Solution, shown: Sequence[Document], index: GoldIndex, abstain: str | None
) -> str:
    """The answer to learn: where the solution cites, with the number of the passage that holds it in this prompt.

    shown: passages of the prompt, best first. Of a long answer that stands in none word by word, the first that holds
    most of its words (`supports`). Without a mark where there is none, where that cannot be said, and of a refusal.
    """
    output = example.output
    if not solution.cite or not output.strip() or not _tells(example) or refuses_by_reference(example, abstain):
        return output
    place = {p.id: (n, p) for n, p in reversed(numbered(shown).items())}
    for gold in index.passages(example, shown):
        number, seen = place.get(gold.id, (0, gold))
        if number and (contains_answer(seen, example) or not contains_answer(gold, example)):  # it may be cut
            return with_marks(output, [number])
    worded = [n for n, p in place.values() if supports(p, output)] if len(units(output)) > SHORT else []
    return with_marks(output, worded[:1])


def _tells(example: Example) -> bool:
    """Whether it can be said which passages hold the answer: any may contain a "no"."""
    return bool(example.gold_ids) or any(map(says_something, example.references))
