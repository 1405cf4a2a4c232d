"""The reasons for a verdict, in order of weight."""

from __future__ import annotations

from collections.abc import Sequence

from rung.decision.checks import made_up, right_every_time
from rung.decision.evidence import Evidence, Skills, best_of, score_of
from rung.decision.figures import PERCENT, p_value, rounded_up
from rung.decision.injections import resists_orders
from rung.decision.judging import how_scored
from rung.decision.rule import Ruling, ahead_on_dev, shortfall, within_margin
from rung.decision.search_causes import why_search_fails
from rung.decision.searches import how_found, searches_beside
from rung.decision.shorter import shorter_prompts
from rung.decision.sources import names_sources
from rung.decision.teaching import taught_sentences
from rung.decision.words import (
    bare,
    cause_evidence,
    cause_words,
    cheaper_groups,
    cheaper_per_request,
    given,
    learner_of,
    listed,
    minus,
    nearest_dearer,
    nothing_is_learnt,
    percentages,
    reach,
    scale_of,
    skipped_name,
    subject,
    value,
    worth_naming,
)
from rung.evaluation.baselines import MOST_FREQUENT
from rung.evaluation.statistics import MARGIN
from rung.types import Candidate, Skipped, Topic, kind_of, model_of

_SHOWN = 40  # characters of an answer

_FEW_SKILLS = 0.1
"""Share of the general prompts below which a base model has hardly any skills to lose."""


def reasons(evidence: Evidence, ruling: Ruling) -> list[tuple[Topic, str]]:
    """Why, with what each sentence is about: by topic, what decided first, and within each in order of weight."""
    said = _what_decided(evidence, ruling)
    shorter = shorter_prompts(evidence)
    if ruling.ship is not None and evidence.long_form_of(ruling.ship.name) is not None:
        said[1:1], shorter = shorter, []  # it is what is shipped
    said += [*_closed_book(evidence), *how_found(evidence), *why_search_fails(evidence, ruling)]
    said += _kept_skills(evidence, ruling)
    left_early = [
        f"{one.name} {'is no candidate' if one.unproven else 'was stopped early on dev'}: {bare(one.why)}."
        for one in evidence.left_early
    ]
    left_out = _left_out(evidence)
    if ruling.choice == "none":  # what was left out may be what works
        said, left_out = [*left_out, *said], []
    told = {(s.name, s.model) for s in (*evidence.kept_out, *evidence.left_out)}
    not_tried = _not_tried(evidence, [s for s in evidence.skipped if (s.name, s.model) not in told])
    by_topic: dict[Topic, list[str]] = {
        "decided": said,
        "teacher": taught_sentences(evidence),
        "judge": how_scored(evidence.judge) if evidence.judge is not None else [],
        "checks": [
            *made_up(evidence, ruling),
            *names_sources(evidence, ruling),
            *resists_orders(evidence, ruling),
            *right_every_time(evidence),
            *evidence.checks_said,
        ],
        "costs": [*shorter, *_costs(evidence)],
        "not tried": [*left_early, *left_out, *not_tried, *searches_beside(evidence, ruling)],
    }
    return [(topic, sentence) for topic, some in by_topic.items() for sentence in some]


def _what_decided(evidence: Evidence, ruling: Ruling) -> list[str]:
    """The comparisons, the causes, the baselines and the target."""
    best = ruling.best
    if best is None:
        return _causes(evidence)
    said: list[str] = []
    if ruling.choice == "unfinished":
        said.append(f"{reach(evidence, best, 'dev')}.")
    elif ruling.choice == "undecided":
        said += _why_undecided(evidence, ruling)
    elif ruling.ship is not None:
        said += _why_chosen(evidence, ruling)
    said += _floors(evidence, ruling, best)
    if evidence.target is not None and ruling.on == "test":
        said.append(_target(evidence, evidence.target, ruling.ship or best))
    said[1:1] = _causes(evidence)  # beside the comparison that decided
    return said


def _not_tried(evidence: Evidence, skipped: Sequence[Skipped]) -> list[str]:
    """A sentence for each; of several models, one for each reason."""
    if not evidence.several:
        return [f"{skipped_name(evidence, s)} was not tried: {bare(s.why)}." for s in skipped]
    said = []
    for why in dict.fromkeys(s.why for s in skipped):
        alike = [s for s in skipped if s.why == why]
        models: dict[str, set[str]] = {}
        for s in alike:
            models.setdefault(kind_of(s.name), set()).add(s.model)
        everywhere = [kind for kind, own in models.items() if len(own) == len(evidence.models)]
        others = [skipped_name(evidence, s) for s in alike if kind_of(s.name) not in everywhere]
        if everywhere:
            said.append(f"{listed(everywhere)} {_were(everywhere)} not tried with any model: {bare(why)}.")
        if others:
            said.append(f"{listed(others)} {_were(others)} not tried: {bare(why)}.")
    return said


def _were(names: Sequence[str]) -> str:
    return "was" if len(names) == 1 else "were"


def _they(names: Sequence[str]) -> str:
    return "it" if len(names) == 1 else "they"


def _left_out(evidence: Evidence) -> list[str]:
    names = [skipped_name(evidence, s) for s in evidence.left_out]
    return (
        [f"{listed(names)} {_were(names)} left out by --only, so nothing is known of what {_they(names)} can do."]
        if names
        else []
    )


def _why_chosen(evidence: Evidence, ruling: Ruling) -> list[str]:
    scale, chosen, best = scale_of(evidence), given(ruling.ship), given(ruling.best)
    said = []
    for members in cheaper_groups(evidence, chosen):
        against = evidence.contrast(best_of(members, "test"), best, "test")  # named, or it would not be passed over
        said.append(f"{minus(evidence, against)} after Holm.")
    for against in nearest_dearer(evidence, chosen, best):
        reason = (
            f"{against.b} minus {against.a}: {scale.gap(against.difference)} "
            f"({scale.ends(against.low, against.high)}); the margin that matters is {scale.gap(evidence.margin)}."
        )
        if against.high > evidence.margin:
            reason += f" A difference of up to {scale.gap(against.high)} cannot be excluded."
        said.append(reason)
    return said + _cheaper_to_ask(evidence, chosen, best)


def _cheaper_to_ask(evidence: Evidence, chosen: Candidate, best: Candidate) -> list[str]:
    """Of each dearer family of the same model, the first in the order of tokens that is as good as the chosen candidate
    and cheaper per request, and why it stands behind. What is cheaper by its model's price is a warning.
    """
    margin, said = scale_of(evidence).gap(evidence.margin), []
    for members in evidence.groups("test"):
        good = [c for c in members if within_margin(evidence, c, best) and shortfall(evidence, c, "test") is None]
        if not good or good[0].model != chosen.model or good[0].family == chosen.family:
            continue
        if how := cheaper_per_request(good[0], chosen):
            said.append(
                f"{good[0].name} is within {margin} of the best too and cheaper per request ({how}), but dearer to "
                f"build and to change than {chosen.name}, which is what decides between approaches."
            )
    return said


def _why_undecided(evidence: Evidence, ruling: Ruling) -> list[str]:
    scale, best, rival = scale_of(evidence), given(ruling.best), given(ruling.rival)
    if not evidence.asked(rival, best):
        return [
            f"{reach(evidence, best, 'test')}; {reach(evidence, rival, 'test')}.",
            "On dev both were shown to be worse than the best there, so the test was not asked to compare them.",
        ]
    against = evidence.contrast(rival, best, "test")
    margin = scale.gap(evidence.margin)
    if against.difference < 0:
        size = f"in favour of {rival.name}"
    elif within_margin(evidence, rival, best):
        size = f"within the margin of {margin}"
    else:
        size = f"above the margin of {margin}"
    said = [
        f"{reach(evidence, best, 'test')}; {reach(evidence, rival, 'test')}.",
        f"The difference is {size}; {p_value(against.p_corrected)} after Holm. {evidence.n_test:,} test examples show "
        f"a difference of {scale.gap(evidence.minimum_detectable_difference)} or more at 80 % power.",
    ]
    if shortfall(evidence, rival, "test") is None and ahead_on_dev(evidence, best, rival):
        said.append(
            f"On dev, whose examples are others, {best.name} is {scale.gap(best.dev.mean - rival.dev.mean)} ahead."
        )
    return said


def _floors(evidence: Evidence, ruling: Ruling, best: Candidate) -> list[str]:
    """What needs no language model: the floor, and the best baseline that learns."""
    on, floor, learners = ruling.on, evidence.floor(ruling.on), evidence.learners(ruling.on)
    candidate = ruling.ship or best
    said = []
    where = " on dev" if on == "dev" else ""
    if floor is not None:
        against = evidence.contrast(floor, candidate, on)
        said.append(
            f"The floor ({floor.name}), which {_blind(evidence, floor)}, is {value(evidence, floor, on)}{where}; "
            f"{minus(evidence, against)}."
        )
    if learners and learner_of(evidence, ruling) is None:
        against = evidence.contrast(learners[0], candidate, on)
        said.append(
            f"{learners[0].name}, which learns without a language model, reaches "
            f"{value(evidence, learners[0], on)}{where}; {minus(evidence, against)}."
        )
    return said


def _blind(evidence: Evidence, floor: Candidate) -> str:
    """always answers "I do not know." and looks at no input"""
    if floor.name != MOST_FREQUENT or not (answer := " ".join(evidence.frequent.split())):
        return "looks at no input"
    short = answer if len(answer) <= _SHOWN else f"{answer[:_SHOWN].rstrip()}…"
    return f'always answers "{short}" and looks at no input'


def _target(evidence: Evidence, wanted: float, candidate: Candidate) -> str:
    scale, score = scale_of(evidence), score_of(candidate, "test")
    target = f"The target of {scale.value(wanted)}"
    if score.low >= wanted:
        return f"{target} is met by {candidate.name}, even by the low end of its interval."
    if score.mean >= wanted:
        return f"{target} is met by the mean of {candidate.name}, not by the low end of its interval."
    missed = f"{target} is missed by {candidate.name} by {scale.gap(wanted - score.mean)}"
    return missed + ("; its interval includes the target." if score.high >= wanted else ".")


def _causes(evidence: Evidence) -> list[str]:
    named, of = worth_naming(evidence), subject(evidence)
    failing = of.name if of is not None else evidence.diagnosed if evidence.several else ""
    failing = failing or "the best prompt"
    said = []
    for place, cause in enumerate(named):
        what, proof = cause_words(cause.cause), cause_evidence(cause, evidence.causes)
        share = f"{PERCENT.value(cause.share)} of its wrong answers ({percentages(cause.low, cause.high)})"
        if cause.fixed:
            start = f"Why {failing} fails" if place == 0 else "Another cause"
            sentence = f"{start}: {what}, {share}"
        elif place == 0:
            sentence = f"Why {failing} fails, by elimination: {what}, {share}"
        else:
            sentence = f"What stays wrong, by elimination: {what}, {share}"
        if not cause.fixed and nothing_is_learnt(evidence):
            proof += "; reference answers that do not follow from the inputs would look the same"
        if cause.fixed and cause.low <= 0:
            proof += (", but " if proof else "") + "not shown to be more than chance"
        said.append(sentence + (f"; {proof}." if proof else "."))
    return said


def _closed_book(evidence: Evidence) -> list[str]:
    """Fine-tuning does not teach facts: its score without passages, beside that with passages."""
    closed = evidence.closed_book
    reading = [c for c in evidence.rated("dev") if c.family in ("rag", "rag+fine-tune")]
    if closed is not None and evidence.several:  # of the same model
        trained = evidence.named(closed.what)
        model = trained.model if trained is not None else model_of(closed.what) or evidence.model
        reading = [c for c in reading if c.model == model]
    if closed is None or not reading:
        return []
    best = best_of(reading, "dev")
    if best.dev.mean <= closed.dev + evidence.margin:
        return []
    alone = scale_of(evidence).value(closed.dev, best.dev.n)
    return [
        f"Fine-tuning without passages ({closed.what}) reaches {alone} on dev, where the facts are new to it; "
        f"{best.name}, which reads passages, reaches {value(evidence, best, 'dev')}."
    ]


def _kept_skills(evidence: Evidence, ruling: Ruling) -> list[str]:
    """What is shown of the general skills of the candidate to ship, and what was lost before it was repaired."""
    if ruling.ship is None:
        return []
    name = ruling.ship.name
    repaired = {name, evidence.long_form_of(name)} - {None}
    before = next((s for s in evidence.skills if s.repaired in repaired), None)
    lost = f" {before.candidate}, before its repair, lost {PERCENT.gap(-before.difference)}." if before else ""
    return [f"{kept_in_words(s)}{lost}" for s in evidence.skills if not s.loses and s.candidate == name]


def kept_in_words(skills: Skills) -> str:
    """What is shown where no loss is: that skills are kept, or how large a loss may be that is not shown.

    The base's own score stands beside the change: what a base model cannot do, no training takes away.
    """
    change = f"a change of {PERCENT.gap(skills.difference)} ({PERCENT.ends(skills.low, skills.high)})"
    if skills.keeps:
        said = f"{skills.candidate} keeps its general skills"
    else:
        said = (
            f"{skills.candidate} is not shown to lose more than {PERCENT.gap(MARGIN)} of its general skills, and may "
            f"have lost up to {PERCENT.gap(-skills.low)}"
        )
    if skills.base is None:
        return f"{said}: {change} on {skills.n:,} prompts."
    known = f"{skills.n:,} general prompts, of which the base model answers {PERCENT.value(skills.base)}"
    if skills.base < _FEW_SKILLS:
        return f"{skills.candidate} had hardly any general skills to lose: {change} on {known}."
    return f"{said}: {change} on {known}."


def _costs(evidence: Evidence) -> list[str]:
    said = []
    for b in evidence.break_even:
        end = rounded_up(b.high) if b.high is not None else "no number"
        said.append(
            f"{b.fine_tuned} saves {b.saving_per_1k_usd:.4g} USD per 1,000 requests against {b.prompt}, and has paid "
            f"for its training after about {rounded_up(b.requests)} requests ({rounded_up(b.low)} to {end}). If it is "
            "trained anew every month, it needs that many every month."
        )
    return said
