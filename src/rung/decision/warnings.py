"""Warnings: what a reader must not miss. They stand first, and no page shortens or drops one."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rung.decision.checks import invents_more, refuses_wrongly
from rung.decision.evidence import Evidence, Skills, costs_less, turned
from rung.decision.figures import PERCENT, more_minutes
from rung.decision.injections import follows_orders
from rung.decision.judging import biases_in_words, first_of_all, unlike_in_words
from rung.decision.rule import Ruling, learner_claim, shortfall, within_margin
from rung.decision.searches import searches_left_out
from rung.decision.sources import seldom_names_sources
from rung.decision.words import (
    FAMILY_WORDS,
    SET_WORDS,
    bare,
    given,
    learner_of,
    listed,
    minus,
    obstacle,
    scale_of,
    skipped_name,
    value,
)
from rung.evaluation.statistics import MARGIN
from rung.types import Candidate, Skipped


def warnings(evidence: Evidence, ruling: Ruling) -> list[str]:
    """What a reader must not miss, the gravest first: whole sentences that no page shortens or drops."""
    said = first_of_all(evidence.judge) if evidence.judge is not None else []
    said += [_kept_out(evidence, s) for s in evidence.kept_out]
    said += searches_left_out(evidence, ruling)
    said += [cut_in_words(c) for c in evidence.cut]
    said += [*invents_more(evidence, ruling), *refuses_wrongly(evidence, ruling)]
    said += [*seldom_names_sources(evidence, ruling), *follows_orders(evidence, ruling)]
    learner = learner_of(evidence, ruling)
    if learner is not None:
        said.append(_learner_warning(evidence, ruling, learner))
    if ruling.choice == "undecided" and ruling.rival is not None:
        rival = ruling.rival
        if shortfall(evidence, rival, "test") is not None:
            said.append(f"{rival.name} {obstacle(evidence, rival, 'test')}, so it is not shipped meanwhile.")
    shipped = ruling.ship.name if ruling.ship is not None else None
    said += [lost_skills(evidence, s) for s in _losing(evidence, shipped)]
    said += [*_costs_less_all_the_same(evidence, ruling), *_higher_but_no_contender(evidence, ruling)]
    said += _opened_before(evidence)
    counted = evidence.rated(ruling.on)
    said += [faults_in_words(c) for c in counted if c.failed_calls or c.unscored]
    if evidence.judge is not None:
        said += [*biases_in_words(evidence.judge), *unlike_in_words(evidence.judge)]
    return list(dict.fromkeys([*said, *evidence.notes]))


def _kept_out(evidence: Evidence, skipped: Skipped) -> str:
    how = "was begun and given up" if skipped.begun else "was not tried"
    said = f"{skipped_name(evidence, skipped)} ({FAMILY_WORDS[skipped.family][1]}) {how}: {bare(skipped.why)}."
    if skipped.matters:
        said += " It could change the verdict."
    if skipped.reason == "budget" and skipped.minutes is not None:
        said += f" It would take about {more_minutes(skipped.minutes)}."
    return said


def _learner_warning(evidence: Evidence, ruling: Ruling, learner: Candidate) -> str:
    candidate, on = given(ruling.ship or ruling.best), ruling.on
    against = evidence.contrast(learner, candidate, on)
    claim = learner_claim(evidence, candidate, learner, on)
    if claim == "better":
        shown = f"is better than {candidate.name}"
    elif claim == "near":
        shown = f"reaches as much as {candidate.name} within the margin of {scale_of(evidence).gap(evidence.margin)}"
    else:
        shown = f"is not shown to be worse than {candidate.name}"
    numbers = minus(evidence, against if against.difference >= 0 else turned(against))  # as tables have it
    return (
        f"{learner.name}, which learns from the same examples without a language model, {shown} on {SET_WORDS[on]} "
        f"({numbers}). It costs next to nothing to run."
    )


def _losing(evidence: Evidence, shipped: str | None) -> list[Skills]:
    """Those that lost general skills, but for what is told of the shipped one itself: it may be repaired, or have a
    shorter prompt than another one with the same weights."""
    long = evidence.long_form_of(shipped)
    known = {s.candidate for s in evidence.skills}
    return [
        s
        for s in evidence.skills
        if s.loses
        and (s.repaired is None or s.repaired not in (shipped, long))
        and not (s.candidate == long and shipped in known)
        and not (evidence.long_form_of(s.candidate) in known and s.candidate != shipped)
    ]


def lost_skills(evidence: Evidence, skills: Skills) -> str:
    """What a fine-tuned candidate lost, and what to do about it."""
    said = f"{lost_in_words(skills)} "
    kept = {s.candidate: s for s in evidence.skills if not s.loses}
    long = evidence.named(evidence.long_form_of(skills.candidate))
    if long is not None and long.name in kept:
        return (
            f"{said}Use it for this task alone, or take {long.name}: it has a longer prompt, "
            f"{_kept(kept[long.name])}, and reaches {value(evidence, long, 'dev')} on dev."
        )
    repaired = evidence.named(skills.repaired)
    if repaired is None or repaired.name not in kept:
        return said + "Use it for this task alone."
    reached = value(evidence, repaired, "dev")
    return (
        f"{said}Use it for this task alone, or take {repaired.name}: it was trained with the base model's own answers "
        f"mixed in, {_kept(kept[repaired.name])}, and reaches {reached} on dev."
    )


def _kept(skills: Skills) -> str:
    if skills.keeps:
        return "keeps general skills"
    return f"is not shown to lose more than {PERCENT.gap(MARGIN)} of general skills"


def lost_in_words(skills: Skills) -> str:
    """What a fine-tuned candidate lost against its base."""
    return (
        f"{skills.candidate} lost general skills: of {skills.n:,} general prompts it answers "
        f"{PERCENT.gap(-skills.difference)} fewer than the base model ({PERCENT.ends(-skills.high, -skills.low)})."
    )


def seen_in_words(examples: int, of: int, runs: Sequence[str], most: int = 3) -> str:
    """That test examples were in tests of earlier runs. runs: their names, of which `most` are told."""
    more = [f"{len(runs) - most} more"] if len(runs) > most else []
    one = "the test of an earlier verdict" if len(runs) == 1 else f"the tests of {len(runs):,} earlier verdicts"
    return (
        f"{examples:,} of the {of:,} test examples were in {one} ({', '.join([*runs[:most], *more])}). What was chosen "
        "since then may be tuned to them."
    )


_SEEN = re.compile(
    r"([\d,]+) of the ([\d,]+) test examples were in (?:the test of an|the tests of ([\d,]+)) earlier verdict"
)


def read_seen(sentence: str) -> tuple[int, int] | None:
    """(test examples, earlier verdicts) of a sentence of `seen_in_words`; None of any other sentence."""
    found = _SEEN.match(sentence)
    if found is None:
        return None
    examples, _, verdicts = (int((number or "1").replace(",", "")) for number in found.groups())
    return examples, verdicts


def _higher_but_no_contender(evidence: Evidence, ruling: Ruling) -> list[str]:
    """What the test shows to be better than the best, although dev had shown it to be worse than the best there."""
    best = ruling.best
    if best is None or ruling.on != "test" or not evidence.contenders or not evidence.may_be_best(best):
        return []
    above = [
        c
        for c in evidence.rated("test")
        if not evidence.may_be_best(c)
        and evidence.shown_above(best, c, "test")
        and not within_margin(evidence, best, c)
        and shortfall(evidence, c, "test") is None
    ]
    return [
        f"{c.name} is better than {best.name} on the sealed test ({minus(evidence, evidence.contrast(best, c, 'test'))}"
        " after Holm), but dev showed it to be worse than the best there, so it was not among those that could be the "
        "best. Dev and test disagree: bring more labelled examples."
        for c in above
    ]


def _costs_less_all_the_same(evidence: Evidence, ruling: Ruling) -> list[str]:
    """The cheapest of what is as good by the rule, stands behind by its model, and costs less per request."""
    chosen, best = ruling.ship, ruling.best
    if ruling.on != "test" or ruling.choice == "undecided" or chosen is None or best is None:
        return []
    behind = [
        c
        for c in evidence.rated("test")
        if c.model != chosen.model
        and costs_less(c, chosen)
        and within_margin(evidence, c, best)
        and shortfall(evidence, c, "test") is None
    ]
    if not behind:
        return []
    other = min(behind, key=lambda c: c.cost_per_1k_usd or 0.0)
    return [
        f"{other.name} costs less per request than {chosen.name} ({other.cost_per_1k_usd:.2g} against "
        f"{chosen.cost_per_1k_usd:.2g} USD per 1,000) and is within {scale_of(evidence).gap(evidence.margin)} of the "
        f"best too. It stands behind because {chosen.model} counts as the cheaper model."
    ]


def _opened_before(evidence: Evidence) -> list[str]:
    """That the test was opened before, and when and for which solutions where that is known."""
    times = max(evidence.test_reads, len(evidence.earlier_reads) + 1 if evidence.earlier_reads else 0)
    if times < 2:
        return []
    earlier = [
        f"on {when[:10] or 'an unknown day'}" + (f" for {listed(solutions)}" if solutions else "")
        for when, solutions in evidence.earlier_reads
    ]
    first = ""
    if earlier:
        first = f", first {earlier[0]}" + (f" and last {earlier[-1]}" if len(earlier) > 1 else "")
    return [f"The sealed test was opened {times} times{first}. Each further opening makes a win by chance more likely."]


def cut_in_words(candidate: Candidate) -> str:
    """That its building was stopped, and why."""
    return f"{candidate.name} was stopped before it was built to its end: {bare(candidate.cut or '')}."


def faults_in_words(candidate: Candidate) -> str:
    """How many inputs got no usable answer or no score; one number at least is not 0."""
    parts = []
    if candidate.failed_calls:
        parts.append(f"the model gave no usable answer to {candidate.failed_calls:,}")
    if candidate.unscored:
        parts.append(f"the metric could not score {candidate.unscored:,}")
    why = f" The metric failed first with: {candidate.unscored_why}." if candidate.unscored_why else ""
    return f"{candidate.name}: {' and '.join(parts)} of the inputs. These count as 0.{why}"
