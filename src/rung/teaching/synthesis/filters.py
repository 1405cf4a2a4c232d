"""What keeps a new input from being answered at all: nothing of it could be learnt, or it would spoil what is measured.

Knows drafts and the fence; nothing of answers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from rung.data.checks.phrases import PLACEHOLDER, refuses
from rung.data.fence import Fence
from rung.data.near_duplicates import content_digest, near_duplicate_groups
from rung.teaching.synthesis.drafts import DraftInput
from rung.types import Example, Query

COPY, NEAR_TRAIN, SEALED, ALIKE = (
    "repeats a train row",
    "nearly repeats a train row",
    "nearly repeats a row of dev or the test",
    "nearly repeats another new row",
)
LEFT_OVER, REFUSAL = "holds what a template left over", "a refusal"
LONG, SHORT = "far longer than any train input", "far shorter than any train input"

_LEFT_OVERS = re.compile(
    r"\{\{.*?\}\}|\{\w[\w \-]*\}|\[(?:insert|your|name|date|city|company|product|number|placeholder|input|x+)\b[^\]]*\]"
    r"|<(?:insert|your|name|placeholder|input|text)\b[^>]*>|\blorem ipsum\b|\bTODO\b|_{4,}|…{2,}|^\s*(?:input|example)"
    r"\s*\d*\s*:|\bnew inputs?\b.{0,20}\bright answer\b|\"inputs\"\s*:",
    re.IGNORECASE | re.DOTALL,
)
"""Wider than PLACEHOLDER: of inputs that a model wrote, others are there, and one left out in error costs little."""
_FAR = 2  # times the longest train input, or this part of the shortest, in characters
_LEAST_LONG = 200  # characters that are not too long in any task


def usable(
    drafts: Sequence[DraftInput], train: Sequence[Example], fence: Fence
) -> tuple[list[DraftInput], Counter[str], list[tuple[DraftInput, str]]]:
    """(the drafts that may be answered, in order; reason -> how many were left out; these, each with its reason).

    Inputs that share their context with a train row (or its instruction, or its turns) are near that row by what they
    share. Of these, only copies of a train input are left out as repeating train.
    """
    nearby = fence.near([draft.query for draft in drafts])  # of all: what repeats a sealed row is not written down
    longest = max([_LEAST_LONG, *(_FAR * len(e.input) for e in train)])
    shortest = min((len(e.input) / _FAR for e in train), default=0)
    known = {content_digest(e) for e in train}
    left_overs = [form for form in (PLACEHOLDER, _LEFT_OVERS) if not any(form.search(e.input) for e in train)]
    own_refusals = any(refuses(e.input) for e in train)
    why: dict[int, str] = {}
    for place, (draft, near) in enumerate(zip(drafts, nearby, strict=True)):
        text = draft.query.input
        if near in ("dev", "test"):
            why[place] = SEALED
        elif content_digest(_alone(draft.query)) in known:
            why[place] = COPY
        elif not own_refusals and refuses(text):
            why[place] = REFUSAL
        elif any(form.search(text) for form in left_overs):
            why[place] = LEFT_OVER
        elif len(text) > longest:
            why[place] = LONG
        elif len(text) < shortest:
            why[place] = SHORT
        elif near == "train" and not _shares(draft):
            why[place] = NEAR_TRAIN
    rest = [place for place in range(len(drafts)) if place not in why]
    for place in _repeating(drafts, rest):
        why[place] = ALIKE
    kept = [draft for place, draft in enumerate(drafts) if place not in why]
    return kept, Counter(why.values()), [(drafts[place], reason) for place, reason in sorted(why.items())]


def _shares(draft: DraftInput) -> bool:
    """Whether the input has a context, an instruction or turns, which it then has from a train row."""
    return bool(draft.query.context or draft.query.instruction or draft.query.turns)


def _repeating(drafts: Sequence[DraftInput], places: Sequence[int]) -> list[int]:
    """Places of drafts that nearly repeat an earlier one. Those that share a context are compared by their inputs."""
    alone = [_alone(Query(f"{place}", drafts[place].query.input)) for place in places]
    groups = near_duplicate_groups(alone) if alone else {}
    first: dict[tuple[str, str], int] = {}
    found = []
    for place in places:
        query = drafts[place].query
        key = (groups[f"{place}"], f"{query.context or ''}\n{query.instruction or ''}\n{query.turns}")
        if first.setdefault(key, place) != place:
            found.append(place)
    return found


def _alone(query: Query) -> Example:
    """The query as an example without an answer, as near-duplicates are compared."""
    return Example(
        query.id, query.input, "", (), context=query.context, instruction=query.instruction, turns=query.turns
    )
