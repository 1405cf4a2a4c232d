"""General skills: short prompts with programmatic checks, which show what fine-tuning has cost a model.

The suite is `skills.jsonl`, one prompt a line, all written for rung. `answered` asks a model every prompt and checks
the answers; `compare_skills` compares a fine-tuned model with its base. Small models fail most prompts, so only the
difference counts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, get_args

from rung.errors import ModelError, ScoreMismatch, about_its_prompt
from rung.evaluation.skill_checks import passes
from rung.evaluation.statistics import ALPHA, MARGIN, compare
from rung.types import Decoding, Message, Model, Request

SkillKind = Literal["instructions", "formats", "arithmetic", "declining", "knowledge"]
KINDS: tuple[SkillKind, ...] = get_args(SkillKind)


@dataclass(frozen=True)
class Skill:
    """One prompt, a user turn without a system turn.

    room: tokens that an answer may take, at most 48. check: the name in CHECKS ("type") and its parameters.
    accepts, rejects: one answer that the check accepts, and one that it rejects.
    """

    id: str
    kind: SkillKind
    prompt: str
    room: int
    check: Mapping[str, Any]
    accepts: str
    rejects: str


@dataclass(frozen=True)
class SkillsChange:
    """Shares of n prompts that the base model and the tuned model answered well.

    difference: tuned minus base, in [-1, 1], with its 95 % interval. p: two-sided exact McNemar, not corrected.
    """

    kind: SkillKind | Literal["all"]
    n: int
    base: float
    tuned: float
    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class SkillsReport:
    """What fine-tuning did to general skills. loses: the total fell by more than MARGIN, and p is below ALPHA."""

    total: SkillsChange
    kinds: tuple[SkillsChange, ...]
    loses: bool


@cache
def suite() -> tuple[Skill, ...]:
    """All prompts, in the order in which outcomes are compared."""
    text = files("rung.evaluation").joinpath("skills.jsonl").read_text("utf-8")
    return tuple(Skill(**json.loads(line)) for line in text.splitlines())


def check(skill: Skill, text: str) -> bool:
    """Whether the answer does what the prompt asks. No answer raises; an empty one fails."""
    return bool(text.strip()) and passes(text, skill.check)


def compare_skills(base: Sequence[bool], tuned: Sequence[bool]) -> SkillsReport:
    """What a fine-tuned model lost or gained against its base.

    base, tuned: the outcome of `check` for each prompt of `suite()`, in its order.
    Raises ScoreMismatch when a length is not that of the suite.
    """
    skills = suite()
    for name, outcomes in (("base", base), ("tuned", tuned)):
        if len(outcomes) != len(skills):
            raise ScoreMismatch(
                f"{name} has {len(outcomes)} outcomes and the suite {len(skills)} prompts; give one each, in its order"
            )
    total = _change("all", base, tuned)
    kinds = []
    for kind in KINDS:
        places = [i for i, skill in enumerate(skills) if skill.kind == kind]
        kinds.append(_change(kind, [base[i] for i in places], [tuned[i] for i in places]))
    return SkillsReport(total, tuple(kinds), loses=total.p < ALPHA and total.difference < -MARGIN)


def answered(model: Model, adapter: str | None) -> list[bool]:
    """The outcome of `check` for each prompt of the suite. adapter: a PEFT folder, or None for the base model.

    Raises ModelError when an answer has an error that may pass, such as a lack of memory: the outcomes are kept.
    """
    skills = suite()
    requests = [Request((Message("user", s.prompt),), Decoding(s.room), adapter=adapter) for s in skills]
    generations = model.generate(requests)
    if passing := [g.error for g in generations if g.error is not None and not about_its_prompt(g.error)]:
        raise ModelError(
            f"model {model.name}: {len(passing)} of the {len(skills)} prompts for general skills got no answer "
            f"({passing[0]}). Run the command again."
        )
    return [g.error is None and check(s, g.text) for s, g in zip(skills, generations, strict=True)]


def suite_version() -> str:
    """A hash of the prompts and their checks; stored outcomes are valid only for the same hash."""
    return hashlib.sha256(repr(suite()).encode()).hexdigest()[:12]


def _change(kind: SkillKind | Literal["all"], base: Sequence[bool], tuned: Sequence[bool]) -> SkillsChange:
    change = compare("base", "tuned", base, tuned, "dev")  # the name of the set is not used
    n = len(base)
    share_base, share_tuned = sum(map(bool, base)) / n, sum(map(bool, tuned)) / n
    return SkillsChange(kind, n, share_base, share_tuned, change.difference, change.low, change.high, change.p)
