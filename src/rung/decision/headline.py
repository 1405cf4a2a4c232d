"""The headline: one sentence, and a short second one where a reader must know more at once."""

from __future__ import annotations

from rung.decision.evidence import Evidence, best_of, costs_less, score_of
from rung.decision.figures import more_minutes, p_value, rounded_up
from rung.decision.rule import Ruling, learner_claim, shortfall
from rung.decision.words import (
    FAMILY_WORDS,
    MOST,
    called,
    cause_words,
    cheaper_groups,
    cheaper_how,
    dearer,
    deed,
    full_score,
    given,
    learner_of,
    listed,
    obstacle,
    one_answer_is_always_right,
    priced,
    reach,
    rival_of,
    scale_of,
    skipped_name,
    subject,
    value,
)
from rung.evaluation.statistics import ALPHA
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
    chosen = given(ruling.ship)
    ending = _ending_of_several(evidence, ruling) if evidence.several else _ending(evidence, ruling)
    said = f"{deed(evidence, chosen)}: {reach(evidence, chosen, 'test', words=True)}{ending}"
    lead_cause, of = next(iter(evidence.causes), None), subject(evidence)
    if lead_cause is None or lead_cause.fixed or lead_cause.share < MOST or (of and of.model != chosen.model):
        return said
    wrong = f"what {called(evidence, of)} gets wrong" if of else "what stays wrong"
    return f"{said} By elimination, most of {wrong} comes from {cause_words(lead_cause.cause)}."


def _ending(evidence: Evidence, ruling: Ruling) -> str:
    """How far it is from what is simpler to build, and from what is dearer to build."""
    scale, chosen, best = scale_of(evidence), given(ruling.ship), given(ruling.best)
    tested, rival = evidence.rated("test"), rival_of(evidence, chosen)
    if rival is not None:
        lead = scale.gap(score_of(chosen, "test").mean - score_of(rival, "test").mean)
        return f", {lead} above the best {FAMILY_WORDS[rival.family][1]}."
    if cheaper_groups(evidence, chosen):
        return f"; all that is simpler to build is shown to be worse than {best.name}."
    if all(c.family == chosen.family for c in tested):
        return f"; no other approach than {FAMILY_WORDS[chosen.family][1]} was tested."
    if best is chosen:
        # A higher score than that of the best falls short, or dev had shown it to be worse.
        higher = [c for c in tested if score_of(c, "test").mean > score_of(chosen, "test").mean]
        if not higher:
            return "; nothing dearer to build scores higher."
        top = best_of(higher, "test")
        harder = "is dearer to build and " if top.family != chosen.family else ""
        return f"; {top.name} {harder}scores higher, but {_why_not(evidence, top)}."
    above = score_of(best, "test").mean - score_of(chosen, "test").mean
    if scale.gap(above) == scale.gap(0.0):
        how = "is dearer to build" if best.family != chosen.family else "reads and writes more tokens"
        return f"; {best.name} scores the same and {how}."
    return f"; {best.name} is {scale.gap(above)} above it, which is within the margin."


def _ending_of_several(evidence: Evidence, ruling: Ruling) -> str:
    """How far it is from the best of the cheaper groups and of the dearer ones, at which share of the price, and when
    its building pays."""
    chosen, best = given(ruling.ship), given(ruling.best)
    others = [evidence.named(c.b) for c in dearer(evidence, chosen, best)]
    dear = [c for c in others if c is not None]
    rival, top = rival_of(evidence, chosen), best_of(dear, "test") if dear else None
    beside = [_beside(evidence, chosen, c) for c in (rival, top) if c is not None]
    ending = f", {', and '.join(beside)}" if beside else ""
    if rival is None and cheaper_groups(evidence, chosen):
        if not any(costs_less(c, chosen) for c in dear):
            ending += f"; {_cheaper(evidence, chosen)} is shown to be worse than {called(evidence, best)}"
    elif not beside:
        ending += "; nothing else was tested"
    if top is not None and score_of(top, "test").mean > score_of(chosen, "test").mean:
        why = _why_not(evidence, top)
        ending += f"; {called(evidence, top)} {why}" if why else ""
    return f"{ending}{_pays(evidence, chosen, top, name=';' in ending)}."


def _cheaper(evidence: Evidence, chosen: Candidate) -> str:
    """all of smollm2; all of smollm2, and all of gpt-5-mini that is simpler to build,"""
    models = list(dict.fromkeys(c.model for members in cheaper_groups(evidence, chosen) for c in members))
    others = listed([model for model in models if model != chosen.model])
    own = f"all of {chosen.model} that is simpler to build" if chosen.model in models else ""
    return f"all of {others}, and {own}," if others and own else own or f"all of {others}"


def _beside(evidence: Evidence, chosen: Candidate, other: Candidate) -> str:
    """2 points below gpt-5-mini's few-shot prompt (-3 to 7, not shown to differ), at a 40th of the price

    The interval is of the distance as it is worded: what lies below zero would be on the other side.
    """
    scale, share = scale_of(evidence), priced(chosen, other)
    against = evidence.contrast(other, chosen, "test")
    low, high = (against.low, against.high) if against.difference >= 0 else (-against.high, -against.low)
    where = f"{scale.gap(abs(against.difference))} {'above' if against.difference > 0 else 'below'}"
    note = f" ({scale.ends(low, high)}, not shown to differ)" if against.p_corrected >= ALPHA else ""
    if scale.gap(abs(against.difference)) == scale.gap(0.0):
        where, note = "the same as", f" ({scale.ends(low, high)})"
    return f"{where} {called(evidence, other)}{note}" + (f", {share}" if share else "")


def _why_not(evidence: Evidence, candidate: Candidate) -> str:
    """Why a candidate that scores higher is not the best, as a predicate; empty where it is."""
    if shortfall(evidence, candidate, "test") is not None:
        return obstacle(evidence, candidate, "test")
    return "" if evidence.may_be_best(candidate) else "was shown to be worse than the best on dev"


def _pays(evidence: Evidence, chosen: Candidate, top: Candidate | None, *, name: bool) -> str:
    """After how many requests its building pays: against the best of the dearer groups, if that was computed.

    name: whether its name is needed, because another one was the last that was spoken of.
    """
    known = {b.prompt: b for b in evidence.break_even if b.fine_tuned == chosen.name}
    if not known:
        return ""
    pays = known.get(top.name if top is not None else "") or next(iter(known.values()))
    prompt = evidence.named(pays.prompt)
    against = f"against {called(evidence, prompt) if prompt else pays.prompt} " if prompt is not top else ""
    low, high = rounded_up(pays.low), rounded_up(pays.high) if pays.high is not None else None
    range_ = f"{low} to {high}" if high is not None else f"at least {low}"
    it = called(evidence, chosen) if name else "it"
    return f"; {against}{it} pays for itself after about {rounded_up(pays.requests)} requests ({range_})"


def _undecided(evidence: Evidence, ruling: Ruling) -> str:
    best, rival = given(ruling.best), given(ruling.rival)
    if not evidence.asked(rival, best):
        return _not_compared(evidence, best, rival)
    against = evidence.contrast(rival, best, "test")
    scale, of_best, of_rival = scale_of(evidence), called(evidence, best), called(evidence, rival)
    lead, nothing = scale.gap(abs(against.difference)), scale.gap(0.0)
    if against.difference < 0 or lead == nothing:  # the cheaper one falls short, or it would be shipped
        above = "scores the same as" if lead == nothing else f"is {lead} above"
        return (
            f"Undecided: {of_rival}, {cheaper_how(evidence, rival, best)}, {above} {of_best} on the sealed test "
            f"({scale.ends(-against.high, -against.low)}), but {obstacle(evidence, rival, 'test')}."
        )
    share = priced(best, rival) if evidence.several else ""
    return (
        f"Undecided: {of_best} is {lead} above {of_rival} on the sealed test "
        f"({scale.ends(against.low, against.high)}){f', {share}' if share else ''}, too close to call with "
        f"{against.n:,} examples."
    )


def _not_compared(evidence: Evidence, best: Candidate, rival: Candidate) -> str:
    """Of two that dev showed to be worse than another, which then fell short: nothing is said of their difference."""
    why = f"{called(evidence, rival)}, {cheaper_how(evidence, rival, best)}, was not to be compared with it"
    if shortfall(evidence, rival, "test") is not None:
        why = f"{called(evidence, rival)}, {cheaper_how(evidence, rival, best)}, {obstacle(evidence, rival, 'test')}"
    return (
        f"Undecided: {reach(evidence, best, 'test', words=True)}, but {why}: what was best on dev falls short on the "
        "sealed test."
    )


def _none(evidence: Evidence, ruling: Ruling) -> str:
    if ruling.best is None:
        return "None: no candidate was scored on the sealed test."
    if one_answer_is_always_right(evidence):
        return "None: one answer is right for every test example, so no model is needed."
    none = "None of what was tried" if evidence.left_out else "None"
    reached = reach(evidence, ruling.best, "test", name=False)
    why = obstacle(evidence, ruling.best, "test")
    return f"{none}: the best candidate, {called(evidence, ruling.best)}, {reached}, which {why}."


def _unfinished(evidence: Evidence, ruling: Ruling, command: str) -> str:
    missing = [s for s in evidence.kept_out if s.matters]
    if missing:
        were = "was" if len(missing) == 1 else "were"
        how = "not finished" if all(s.begun for s in missing) else "not tried"
        names = listed([skipped_name(evidence, s) for s in missing])
        said = f"Unfinished: {names} could change the verdict and {were} {how}."
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
