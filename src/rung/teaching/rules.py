"""House rules, stated: what the right answers of train have in common and the instruction does not say, as text.

Two drafts are written from different examples, and a third is edited from both. A list of rules stands behind the
instruction. Which list is best is not decided here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rung.errors import came
from rung.models.journal import Journal
from rung.records import read_lines, write_lines
from rung.teaching.feedback import shortened
from rung.teaching.held_out import held_out, without_demos_of
from rung.teaching.proposing import TEMPERATURE, copies, request_within
from rung.text import normal_form
from rung.trials.trial import attempt
from rung.trials.workshop import Workshop
from rung.types import Decoding, Example, Generation, Message, Prediction, Request, Solution

DRAFTS = 2
"""Lists of rules that are written from examples; one more is edited from them."""

SHOWN = 16
"""Train examples that a draft is written from."""

RULES_TOKENS = 300
"""Room of a list of rules."""

MOST_RULES = 10

_LOG, _PROPOSALS = "rules.jsonl", "proposals.jsonl"
_SYSTEM = "You find the rules by which answers are right, and state them."
_TASK = (
    "The right answers follow rules that the instruction does not state: a form, names, units, what is left out, which "
    "of several answers is preferred. State them for someone who sees the instruction alone. Write at most "
    f"{MOST_RULES} rules, each a short sentence on a line of its own that begins with '- '. State what holds for many "
    "inputs, and copy no example. Write only the rules."
)
_EDIT = (
    "Edit these lists into one. Keep what both say, put what contradicts each other in the form that is true more "
    f"often, and drop what holds for single inputs. Write at most {MOST_RULES} rules, each a short sentence on a line "
    "of its own that begins with '- '. Write only the rules."
)
_RULE = re.compile(r"^\s*(?:[-*•–]|\d{1,2}[.)])\s+(.+?)\s*$", re.MULTILINE)
_RULE_CHARACTERS = 300


@dataclass(frozen=True)
class HouseRules:
    """A list of rules. refused: why it is not tried, as a sentence part, or None."""

    number: int
    rules: tuple[str, ...]
    refused: str | None

    def behind(self, instruction: str) -> str:
        """The instruction with these rules."""
        return f"{instruction.rstrip()}\n\nHouse rules:\n" + "\n".join(f"- {rule}" for rule in self.rules)


def drafts(workshop: Workshop, start: Solution) -> list[HouseRules]:
    """The drafts that the teacher writes, or the model itself where there is none; the edited one stands last.

    Each is written from the start's answers to train examples of its own. Raises what the models raise.
    """
    rows = held_out(workshop.inputs, DRAFTS * SHOWN)
    journal = Journal(workshop.tools.teacher or workshop.tools.model, workshop.folder / _PROPOSALS)
    answers = _answers(workshop, start, rows)
    requests = [
        _request(journal, start.instruction, rows[first::DRAFTS], answers, seed)
        for seed, first in enumerate(range(DRAFTS))
    ]
    replies = journal.generate(requests, workshop.tools.tell, "asking for house rules")
    written = [_draft(number, reply, rows, ()) for number, reply in enumerate(replies, 1)]
    usable = [draft for draft in written if draft.refused is None]
    if len(usable) == DRAFTS:
        (reply,) = journal.generate([_edit(start.instruction, usable)], workshop.tools.tell, "asking for house rules")
        written.append(_draft(DRAFTS + 1, reply, rows, usable))
    return written


def note_rules(folder: Path, written: Sequence[HouseRules], kept: HouseRules | None) -> None:
    """Records what was drafted and which of it is kept, for `rules_log`."""
    write_lines(
        folder / _LOG,
        ({"number": d.number, "rules": d.rules, "refused": d.refused, "kept": d == kept} for d in written),
    )


def rules_log(folder: Path) -> list[dict[str, Any]]:
    """number, rules, refused and kept of each draft; empty where no rules were drafted in that folder."""
    return read_lines(folder / _LOG)


def rules_in(text: str) -> tuple[str, ...]:
    """The lines of a reply that are items of a list, each once, at most `MOST_RULES`."""
    found: dict[str, str] = {}
    for rule in _RULE.findall(text):
        if len(rule) <= _RULE_CHARACTERS:
            found.setdefault(normal_form(rule), rule)
    return tuple(found.values())[:MOST_RULES]


def _answers(workshop: Workshop, start: Solution, rows: Sequence[Example]) -> Mapping[str, Prediction]:
    hiding = without_demos_of(start, rows, workshop.inputs)
    return {p.id: p for p in attempt(workshop, hiding, rows, workshop.folder / "trials" / "rules-train.jsonl")}


def _request(
    journal: Journal, instruction: str, rows: Sequence[Example], answers: Mapping[str, Prediction], seed: int
) -> Request:
    """Wrong answers first: what stands beside them is what the instruction does not say."""
    ordered = sorted(rows, key=lambda e: (answers[e.id].score or 0.0) >= 1.0)
    cases = []
    for number, example in enumerate(ordered, 1):
        answer, right = answers[example.id], shortened(example.output)
        wrong = came(answer.error) and (answer.score or 0.0) < 1.0
        said = f"\nWrong answer: {shortened(answer.text)}" if wrong else ""
        cases.append(f"### Example {number}\nInput: {shortened(example.query.text)}{said}\nRight answer: {right}")
    head = f"A language model is given this instruction:\n\n{instruction}"
    return request_within(journal.model, _SYSTEM, head, cases, _TASK, Decoding(RULES_TOKENS, TEMPERATURE, seed))


def _edit(instruction: str, written: Sequence[HouseRules]) -> Request:
    lists = "\n\n".join("\n".join([f"List {d.number}:", *(f"- {rule}" for rule in d.rules)]) for d in written)
    asked = f"Rules for this instruction were written down twice:\n\n{instruction}\n\n{lists}\n\n{_EDIT}"
    return Request((Message("system", _SYSTEM), Message("user", asked)), Decoding(RULES_TOKENS))


def _draft(number: int, reply: Generation, rows: Sequence[Example], earlier: Sequence[HouseRules]) -> HouseRules:
    rules = tuple(rule for rule in rules_in(reply.text) if not copies(rule, rows))
    refused = None
    if not came(reply.error):
        refused = f"there was no answer ({reply.error})"
    elif not rules:
        refused = "the answer held no list of rules"
    elif any(rules == draft.rules for draft in earlier):
        refused = "it is the same as another draft"
    return HouseRules(number, rules, refused)
