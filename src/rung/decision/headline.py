"""The headline: one sentence, and a short second one where a reader must know more at once."""

from __future__ import annotations

from rung.decision.evidence import Evidence, best_of, score_of
from rung.decision.figures import more_minutes, p_value
from rung.decision.rule import Ruling, learner_claim
from rung.decision.words import (
    FAMILY_WORDS,
    MOST,
    cause_words,
    cheaper_families,
    full_score,
    given,
    learner_of,
    listed,
    obstacle,
    one_answer_is_always_right,
    reach,
    scale_of,
    value,
)
from rung.types import Candidate


def headline(evidence: Evidence, ruling: Ruling, command: str = "") -> str:
    """One sentence, and a short second one where a reader must know more at once."""
    if ruling.choice == "unfinished":
        said = _unfinished(evidence, ruling, command)
    elif ruling.choice == "none":
        said = _none(evidence, ruling)
    elif ruling.choice == "undecided":
        said = _undecided(evidence, ruling)
    else:
        said = _chosen(evidence, ruling)
    learner = learner_of(evidence, ruling)
    return said if learner is None else f"{said} {_learner(evidence, ruling, learner)}"


def _learner(evidence: Evidence, ruling: Ruling, learner: Candidate) -> str:
    """The sentence about a baseline that learns and may do as well as the candidate."""
    candidate, on = given(ruling.ship or ruling.best), ruling.on
    reached = value(evidence, learner, on) + (" on dev" if on == "dev" else "")
    claim = learner_claim(evidence, candidate, learner, on)
    if claim == "better":
        p = evidence.contrast(candidate, learner, on).p_corrected
        ending = f" and is better than {candidate.name} ({p_value(p)})."
    elif claim == "near":
        ending = f", as much as {candidate.name} within the margin of {scale_of(evidence).gap(evidence.margin)}."
    else:
        ending = f" and is not shown to be worse than {candidate.name}."
    return f"You may not need a language model: {learner.name}, which uses none, reaches {reached}{ending}"


# ---- the headline by choice -------------------------------------------------------------------


def _chosen(evidence: Evidence, ruling: Ruling) -> str:
    scale, chosen, best = scale_of(evidence), given(ruling.ship), given(ruling.best)
    tested = evidence.rated("test")
    cheaper = cheaper_families(tested, chosen)
    if cheaper:
        rival = best_of(cheaper, "test")
        lead = scale.gap(score_of(chosen, "test").mean - score_of(rival, "test").mean)
        ending = f", {lead} above the best {FAMILY_WORDS[rival.family][1]}."
    elif all(c.family == chosen.family for c in tested):
        ending = f"; no other approach than {FAMILY_WORDS[chosen.family][1]} was tested."
    elif best is chosen:
        # A higher score than that of the best falls short.
        higher = [c for c in tested if score_of(c, "test").mean > score_of(chosen, "test").mean]
        ending = "; nothing that costs more scores higher."
        if higher:
            top = best_of(higher, "test")
            ending = f"; {top.name} costs more and scores higher, but {obstacle(evidence, top, 'test')}."
    else:
        above = score_of(best, "test").mean - score_of(chosen, "test").mean
        equal = scale.gap(above) == scale.gap(0.0)
        said = (
            "scores the same and costs more" if equal else f"is {scale.gap(above)} above it, which is within the margin"
        )
        ending = f"; {best.name} {said}."
    said = f"{FAMILY_WORDS[chosen.family][0]}: {reach(evidence, chosen, 'test')}{ending}"
    lead_cause = next(iter(evidence.causes), None)
    if lead_cause is not None and not lead_cause.fixed and lead_cause.share >= MOST:
        said += f" By elimination, most of what stays wrong comes from {cause_words(lead_cause.cause)}."
    return said


def _undecided(evidence: Evidence, ruling: Ruling) -> str:
    best, rival = given(ruling.best), given(ruling.rival)
    against = evidence.contrast(rival, best, "test")
    scale = scale_of(evidence)
    lead, nothing = scale.gap(abs(against.difference)), scale.gap(0.0)
    if against.difference < 0 or lead == nothing:  # the cheaper one falls short, or it would be shipped
        above = "scores the same as" if lead == nothing else f"is {lead} above"
        return (
            f"Undecided: {rival.name}, which costs less, {above} {best.name} on the sealed test "
            f"({scale.ends(-against.high, -against.low)}), but {obstacle(evidence, rival, 'test')}."
        )
    return (
        f"Undecided: {best.name} is {lead} above {rival.name} on the sealed test "
        f"({scale.ends(against.low, against.high)}), too close to call with {against.n:,} examples."
    )


def _none(evidence: Evidence, ruling: Ruling) -> str:
    if ruling.best is None:
        return "None: no candidate was scored on the sealed test."
    if one_answer_is_always_right(evidence):
        return "None: one answer is right for every test example, so no model is needed."
    none = "None of what was tried" if evidence.left_out else "None"
    return (
        f"{none}: the best candidate, {ruling.best.name}, {reach(evidence, ruling.best, 'test', name=False)}, "
        f"which {obstacle(evidence, ruling.best, 'test')}."
    )


def _unfinished(evidence: Evidence, ruling: Ruling, command: str) -> str:
    missing = [s for s in evidence.kept_out if s.matters]
    if missing:
        were = "was" if len(missing) == 1 else "were"
        how = "not finished" if all(s.begun for s in missing) else "not tried"
        said = f"Unfinished: {listed([s.name for s in missing])} could change the verdict and {were} {how}."
    else:
        said = "Unfinished: the sealed test was not opened."
    minutes = sum(s.minutes or 0.0 for s in missing if s.reason == "budget")
    said += f" About {more_minutes(minutes)}: `{command}`." if minutes else f" To go on: `{command}`."
    if ruling.best is None:
        return said
    if ruling.ship is not None:
        return f"{said} Meanwhile, the best on dev is {ruling.ship.name}: {full_score(evidence, ruling.ship, 'dev')}."
    best = ruling.best
    return (
        f"{said} The best on dev, {best.name}, {obstacle(evidence, best, 'dev')}: {full_score(evidence, best, 'dev')}."
    )
