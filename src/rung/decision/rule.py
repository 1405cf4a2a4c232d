"""The verdict: evidence in, Decision out, by rules over numbers.

The rule, with candidates ordered by cost (family, then tokens, then name; never by measured time):

1. *none*, when the best candidate's interval does not clear the floor or its mean is below LEAST_USEFUL.
2. Otherwise walk the families from the cheapest. Ship the family's cheapest candidate that is at most `margin` below
   the best and clears the floor itself. Climb on when every candidate of the family is significantly worse
   (Holm-corrected p below ALPHA).
3. *undecided*, when the walk meets a family that is not shipped, yet not significantly worse either.
   Meanwhile ship the best if it is more than the margin ahead on dev too, the likelier of the two to be better; else
   the cheaper one.

So "fine-tune" is said only when every prompt was shown to be worse: between equals, in at most ALPHA of the runs.
Touches no disk, model or clock, and imports no numbers library: equal evidence gives equal decisions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from statistics import NormalDist
from typing import Any, get_args

from rung.errors import RunError
from rung.evaluation.costs import frontier
from rung.types import FAMILIES, BreakEven, Candidate, Choice, Comparison, Decision, Diagnosis, Family, Score

ALPHA = 0.05
LEAST_USEFUL = 0.05
"""Below this mean a candidate does not do the task, whatever the floor."""

RATES = frozenset({"exact_match", "label_accuracy", "json_match", "numeric_match"})
"""Metrics that say right or wrong; their means are told as shares, all others as scores."""

FAMILY_WORDS: dict[Family, tuple[str, str]] = {
    "prompt": ("Prompt", "prompt"),
    "rag": ("Retrieve", "retrieval"),
    "fine-tune": ("Fine-tune", "fine-tuning"),
    "rag+fine-tune": ("Retrieve and fine-tune", "retrieval with fine-tuning"),
}
"""Family -> (what to do, what it is)."""


@dataclass(frozen=True)
class Evidence:
    """All that the verdict rests on.

    metric: its name in task.yaml. candidates: those without a test score were not named for the test and are only
    recorded. comparisons: every pair of tested candidates on the test, Holm-corrected (those on dev are only recorded).
    floor: the score that needs no model. margin: a difference that does not matter, on the metric's scale.
    minimum_detectable_difference: what the test can show at 80 % power. skipped: (strategy, why it was not tried).
    left_early: (strategy, why dev was not answered to its end). diagnosis: why the best prompt fails, the leading
    cause first. skills: name -> (difference to the base on general prompts, low, high, how many prompts, whether that
    is a real loss). more: (how many more examples, what they would add on dev, low, high). closed_book: (what was
    trained without passages, its dev mean). suspicious: rows whose answers a person should look at. hardest: the
    answers that fail most. model: its name.
    """

    metric: str
    candidates: tuple[Candidate, ...]
    comparisons: tuple[Comparison, ...]
    floor: float
    n_test: int
    minimum_detectable_difference: float
    test_reads: int
    has_corpus: bool
    target: float | None = None
    margin: float = 0.02
    diagnosis: tuple[Diagnosis, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    left_early: tuple[tuple[str, str], ...] = ()
    break_even: tuple[BreakEven, ...] = ()
    skills: Mapping[str, tuple[float, float, float, int, bool]] = field(default_factory=dict)
    more: tuple[int, float, float, float] | None = None
    closed_book: tuple[str, float] | None = None
    suspicious: tuple[str, ...] = ()
    hardest: str | None = None
    model: str = ""


CAUSE_WORDS = {
    "format": "the form of the answers",
    "inconsistency": "answers that change from sample to sample",
    "convention": "a convention that examples teach",
    "knowledge": "missing knowledge",
    "retrieval": "passages that the search misses",
    "reasoning": "reasoning, or the model's size",
    "label noise": "reference answers that contradict each other",
}
"""Cause -> what stands in the way."""


def cause_told(cause: str) -> str:
    """A cause, or several joined by "+", in words."""
    return " and ".join(CAUSE_WORDS.get(part, part) for part in cause.split("+"))


def decide(evidence: Evidence) -> Decision:
    """The verdict. Raises ValueError when two tested candidates lack their comparison on the test."""
    tested = [c for c in _by_cost(evidence) if c.test is not None]
    if not tested:
        headline = "None: no candidate was scored on the sealed test."
        return _decision(evidence, "none", None, headline, [], ["Run again and let at least one candidate finish."])
    best = _top(tested)
    if _fails(evidence, best):
        return _none(evidence, best)
    for family in FAMILIES:
        members = [c for c in tested if c.family == family]
        for candidate in members:
            if _within_margin(evidence, candidate, best) and not _fails(evidence, candidate):
                return _chosen(evidence, tested, candidate)
        standing = [c for c in members if _contrast(evidence, c, best).p_corrected >= ALPHA]
        if standing:
            rival = next(c for c in standing if _within_margin(evidence, c, _top(standing)))
            return _undecided(evidence, rival, best)
    raise AssertionError("the walk ends at the best candidate at the latest")


def decision_record(decision: Decision) -> dict[str, Any]:
    """The decision as decision.json holds it: plain lists and dicts."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(decision).items()}


def decision_from_record(record: Mapping[str, Any]) -> Decision:
    """The decision that such a record holds. Raises RunError when a key is missing, unknown or of a wrong kind."""
    missing = [f.name for f in fields(Decision) if f.default is MISSING and f.name not in record]
    if missing:
        raise RunError(f"decision.json: {', '.join(missing)} is missing. Run the decision again.")
    try:
        if record["choice"] not in get_args(Choice):
            raise ValueError(f"choice is {record['choice']!r}, none of {', '.join(get_args(Choice))}")
        candidates = [
            Candidate(**{**c, "dev": Score(**c["dev"]), "test": None if c["test"] is None else Score(**c["test"])})
            for c in record["candidates"]
        ]
        lists = {
            "reasons": tuple(record["reasons"]),
            "next": tuple(record["next"]),
            "candidates": tuple(candidates),
            "comparisons": tuple(Comparison(**c) for c in record["comparisons"]),
            "diagnosis": tuple(Diagnosis(**d) for d in record["diagnosis"]),
            "frontier": tuple(record.get("frontier", ())),
            "break_even": tuple(BreakEven(**b) for b in record.get("break_even", ())),
        }
        return Decision(**{**record, **lists})
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"decision.json: {error}. Run the decision again.") from error


# ---- the four kinds of verdict ----------------------------------------------------------------


def _chosen(evidence: Evidence, tested: Sequence[Candidate], chosen: Candidate) -> Decision:
    gap, near = _tellers(evidence.metric)
    rank = FAMILIES.index(chosen.family)
    cheaper = [c for c in tested if FAMILIES.index(c.family) < rank]
    dearer = [_top([c for c in tested if c.family == f]) for f in FAMILIES[rank + 1 :] if _has(tested, f)]
    best = _top(tested)
    if best.family == chosen.family and best is not chosen:
        dearer.insert(0, best)

    reasons = []
    for family in FAMILIES[:rank]:
        if _has(cheaper, family):
            against = _contrast(evidence, _top([c for c in cheaper if c.family == family]), best)
            reasons.append(f"{_told(evidence, against)}, p {_p(against.p_corrected)} after Holm.")
    unsettled = []
    for other in dearer:
        against = _contrast(evidence, chosen, other)
        reason = f"{_told(evidence, against)}; the margin that matters is {gap(evidence.margin)}."
        if against.high > evidence.margin:
            reason += f" A difference of up to {gap(against.high)} cannot be excluded."
            unsettled.append(against)
        reasons.append(reason)
    reasons.append(_floor_reason(evidence))

    if cheaper:
        rival = _top(cheaper)
        lead = gap(_test(chosen).mean - _test(rival).mean)
        ending = f", {lead} above the best {FAMILY_WORDS[rival.family][1]}."
    elif not any(c.family != chosen.family for c in tested):
        ending = f"; no other approach than {FAMILY_WORDS[chosen.family][1]} was tested."
    elif best is chosen:
        ending = "; nothing that costs more scores higher."
    else:
        ending = f"; {best.name} is {gap(_test(best).mean - _test(chosen).mean)} above it, which is within the margin."
    headline = f"{FAMILY_WORDS[chosen.family][0]}: {_scored(evidence, chosen)}{ending}"
    leading = next(iter(evidence.diagnosis), None)
    if leading is not None and not leading.mended and leading.share >= _HALF_LEFT:
        headline += f" That does not finish it: the obstacle is {cause_told(leading.cause)}."

    steps = [f"Ship {chosen.name}."]
    if cheaper:
        steps.append(
            f"What would change the verdict: a {FAMILY_WORDS[_top(cheaper).family][1]} solution within "
            f"{gap(evidence.margin)} of {best.name}, or one not significantly worse on new examples."
        )
    for against in unsettled:
        steps.append(
            f"What would change the verdict: {against.b} more than {gap(evidence.margin)} above {against.a}. "
            + _examples_to_exclude(evidence, against)
        )
    if evidence.target is not None:
        reasons.append(_target_reason(evidence, chosen))
        if _test(chosen).mean < evidence.target:
            steps.append(f"To reach the target of {near(evidence.target)}: more or better examples, or a larger model.")
    return _decision(evidence, chosen.family, chosen.name, headline, reasons, steps)


def _undecided(evidence: Evidence, rival: Candidate, best: Candidate) -> Decision:
    gap, _ = _tellers(evidence.metric)
    against = _contrast(evidence, rival, best)
    headline = (
        f"Undecided: {best.name} is {gap(against.difference)} above {rival.name} on the sealed test "
        f"({_range(evidence, against)}), too close to call with {against.n} examples."
    )
    if _within_margin(evidence, rival, best):  # then it is the floor that the cheaper one is not shown to beat
        size = f"within the margin of {gap(evidence.margin)}, and"
        settle, change = _short_of(evidence, rival)
    else:
        size = f"more than the margin of {gap(evidence.margin)}, but"
        more = _round_up(_needed(evidence, against) - against.n)
        settle = f"About {more} more labelled test examples would settle a difference of this size (at 80 % power)."
        change = f"within {gap(evidence.margin)} of it."
    ahead = best.dev.mean - rival.dev.mean  # on dev, whose examples are others
    cheaper = "is the cheaper of the two to run and to change."
    if _fails(evidence, rival):
        ship, why = best, f"{rival.name} is not shown to beat the floor."
    elif ahead > evidence.margin + 1e-9:
        ship, why = best, f"on dev it is ahead too, by {gap(ahead)}. {rival.name} {cheaper}"
    else:
        ship, why = rival, f"it {cheaper}"
    reasons = [
        f"{best.name} {_scored(evidence, best).removeprefix(best.name + ' ')}; {_scored(evidence, rival)}.",
        f"The difference is {size} p {_p(against.p_corrected)} after Holm; {evidence.n_test} test examples show a "
        f"difference of {gap(evidence.minimum_detectable_difference)} or more at 80 % power.",
        _floor_reason(evidence),
    ]
    if evidence.target is not None:
        reasons.append(_target_reason(evidence, ship))
    steps = [
        settle,
        f"Meanwhile ship {ship.name}: {why}",
        f"What would change the verdict: {best.name} significantly above {rival.name}, or {change}",
    ]
    return _decision(evidence, "undecided", ship.name, headline, reasons, steps)


def _none(evidence: Evidence, best: Candidate) -> Decision:
    _, near = _tellers(evidence.metric)
    if evidence.floor >= 1.0:
        headline = "None: one answer is right for every test example, so no model is needed."
        steps = ["Give that answer, or bring examples with other answers: these cannot tell candidates apart."]
        return _decision(evidence, "none", None, headline, [_floor_reason(evidence)], steps)
    if _test(best).low <= evidence.floor:
        obstacle = f"is not shown to beat the floor of {near(evidence.floor)}"
    else:
        obstacle = f"is too little to ship (below {near(LEAST_USEFUL)})"
    scored = _scored(evidence, best).removeprefix(best.name)
    headline = f"None: the best candidate, {best.name},{scored}, which {obstacle}."
    reasons = [_floor_reason(evidence)]
    if evidence.target is not None:
        reasons.append(_target_reason(evidence, best))
    causes = {part for d in evidence.diagnosis for part in d.cause.split("+")}
    steps = []
    if not evidence.has_corpus and (not causes or "knowledge" in causes):
        steps.append(_BRING_DOCUMENTS)
    if not _wants_a_larger_model(evidence):  # which is told with the cause
        steps.append("Try a larger model: the same task.yaml with another `model`.")
    steps += [
        "Look at the wrong answers: unclear instructions and wrong reference answers stop every rung of the ladder.",
        "Bring more examples, above all of the inputs that fail.",
        f"What would change the verdict: a candidate whose whole interval lies above {near(evidence.floor)}"
        + (f" and whose mean is at least {near(LEAST_USEFUL)}." if evidence.floor < LEAST_USEFUL else "."),
    ]
    return _decision(evidence, "none", None, headline, reasons, steps)


def _decision(
    evidence: Evidence, choice: Choice, solution: str | None, headline: str, reasons: list[str], steps: list[str]
) -> Decision:
    """Adds what is said in every verdict: causes, costs, what was lost, what was not tried, and what to do about it."""
    causes, advice = _causes_told(evidence, steps)
    if evidence.diagnosis and reasons:
        reasons[1:1] = causes  # beside the comparison that decided
    else:
        reasons += causes
    reasons += [*_closed_book_told(evidence), *_skills_told(evidence, solution), *_costs_told(evidence)]
    reasons += [f"{strategy} was left early on dev: {why.rstrip('.')}." for strategy, why in evidence.left_early]
    reasons += [f"{strategy} was not tried: {why.rstrip('.')}." for strategy, why in evidence.skipped]
    if evidence.test_reads > 1:
        reasons.append(
            f"The sealed test was opened {evidence.test_reads} times; each further look makes a win by chance likelier."
        )
    place = 1 if choice != "none" else 0
    steps[place:place] = advice
    return Decision(
        choice=choice,
        solution=solution,
        headline=headline,
        reasons=tuple(reasons),
        next=tuple(dict.fromkeys(steps)),
        candidates=tuple(_by_cost(evidence)),
        comparisons=evidence.comparisons,
        diagnosis=evidence.diagnosis,
        minimum_detectable_difference=evidence.minimum_detectable_difference,
        test_reads=evidence.test_reads,
        break_even=evidence.break_even,
        frontier=frontier(evidence.candidates),
    )


# ---- what is said in every verdict ------------------------------------------------------------

_HALF_LEFT = 0.5
_WORTH_TELLING = 0.1
_MOST_ROWS = 7


def _causes_told(evidence: Evidence, steps: Sequence[str]) -> tuple[list[str], list[str]]:
    """(reasons, next steps) from why the best prompt fails."""
    reasons, advice = [], []
    told = [d for d in evidence.diagnosis if d.share >= _WORTH_TELLING][:2] or list(evidence.diagnosis[:1])
    for place, cause in enumerate(told):
        what = cause_told(cause.cause)
        share = f"{_percent(cause.share)} of it ({_percent_range(cause.low, cause.high)})"
        proof = f"; {cause.evidence}" if cause.evidence else ""
        if cause.mended and cause.low <= 0:
            proof += "; the interval includes nothing"
        start = "Why the best prompt fails" if place == 0 else "Beside that"
        reasons.append(f"{start}: {what}, {share}{proof}.")
    names = {part for d in told if d.low > 0 or not d.mended for part in d.cause.split("+")}
    if "knowledge" in names and not evidence.has_corpus:
        advice.append(_BRING_DOCUMENTS)
    if "retrieval" in names:
        advice.append(
            "The search misses passages that hold the answer: split or reword the documents, or show more of them."
        )
    if _wants_a_larger_model(evidence):
        advice.append(
            "Try a larger model: the same task.yaml with another `model`. Nothing that was tried with "
            f"{evidence.model or 'this one'} mends what is left."
        )
    if evidence.more is not None and evidence.more[1] > 0 and "convention" in names:
        more, gain, low, high = evidence.more
        gap, _ = _tellers(evidence.metric)
        bare = _points if evidence.metric in RATES else _graded
        advice.append(
            f"About {_round_up(more)} more examples would bring {gap(gain)} on dev ({bare(low)} to {bare(high)}), if a "
            "doubling mends no larger a share of the errors than the last one did."
            + (f" Label above all inputs whose answer is {evidence.hardest}." if evidence.hardest else "")
        )
    if evidence.suspicious:
        rows = ", ".join(evidence.suspicious[:_MOST_ROWS])
        rest = len(evidence.suspicious) - _MOST_ROWS
        rows += f" and {rest} more in diagnosis.json" if rest > 0 else ""
        advice.append(f"Look at these rows, whose answers may be wrong: {rows}.")
    return reasons, [a for a in advice if a not in steps]


def _wants_a_larger_model(evidence: Evidence) -> bool:
    lead = next(iter(evidence.diagnosis), None)
    return lead is not None and "reasoning" in lead.cause.split("+") and not lead.mended


def _closed_book_told(evidence: Evidence) -> list[str]:
    """Facts are not learnt by fine-tuning: its score without passages beside that with them."""
    if evidence.closed_book is None:
        return []
    what, mean = evidence.closed_book
    with_passages = [c for c in evidence.candidates if c.family in ("rag", "rag+fine-tune")]
    if not with_passages:
        return []
    best = max(with_passages, key=lambda c: c.dev.mean)
    if best.dev.mean <= mean + evidence.margin:
        return []
    _, near = _tellers(evidence.metric)
    return [
        f"Fine-tuning without passages ({what}) reaches {near(mean)} on dev, on facts that it has not seen; "
        f"{best.name}, which reads them, {near(best.dev.mean)}."
    ]


def _skills_told(evidence: Evidence, solution: str | None) -> list[str]:
    told = []
    for name, (difference, low, high, n, loses) in evidence.skills.items():
        if loses:
            told.append(
                f"{name} answers {_points(-difference)} points ({_points(-high)} to {_points(-low)}) fewer of {n} "
                f"general prompts than the base model. {_remedy_told(evidence, name)}"
            )
        elif name == solution:
            change = f"{_points(difference)} points ({_points(low)} to {_points(high)})"
            told.append(f"{name} keeps its general skills: {change} on {n} prompts.")
    return told


def _remedy_told(evidence: Evidence, name: str) -> str:
    """What to do about lost general skills: the solution trained with replay, where it keeps them and comes near."""
    other = f"{name}_replay"
    found = next((c for c in evidence.candidates if c.name == other), None)
    if found is None or other not in evidence.skills or evidence.skills[other][4]:
        return "Use the adapter for this task alone."
    _, near = _tellers(evidence.metric)
    return (
        f"Use it for this task alone; {other}, trained with the base model's own answers mixed in, keeps them, at "
        f"{near(found.dev.mean)} on dev."
    )


def _costs_told(evidence: Evidence) -> list[str]:
    told = []
    for b in evidence.break_even:
        end = f"{_round_up(b.high)}" if b.high is not None else "no number"
        told.append(
            f"{b.fine_tuned} saves {b.saving_per_1k_usd:.4g} USD per 1,000 requests against {b.prompt}, and "
            f"pays for its building from about {_round_up(b.requests)} requests on ({_round_up(b.low)} to {end}); that "
            "many a month where it is trained anew every month."
        )
    return told


_BRING_DOCUMENTS = (
    "If the answers are facts that the model has not seen, bring documents (corpus: in task.yaml): "
    "neither a prompt nor fine-tuning teaches facts."
)


# ---- the rule's terms -------------------------------------------------------------------------


def _by_cost(evidence: Evidence) -> list[Candidate]:
    """Cheapest first. An output token is counted as three input tokens, a usual ratio of prices."""
    return sorted(evidence.candidates, key=lambda c: (FAMILIES.index(c.family), c.tokens_in + 3 * c.tokens_out, c.name))


def _test(candidate: Candidate) -> Score:
    if candidate.test is None:
        raise ValueError(f"{candidate.name} has no test score")
    return candidate.test


def _top(candidates: Sequence[Candidate]) -> Candidate:
    """The highest test mean; of equals, the cheapest."""
    return max(candidates, key=lambda c: _test(c).mean)


def _has(candidates: Sequence[Candidate], family: Family) -> bool:
    return any(c.family == family for c in candidates)


def _fails(evidence: Evidence, candidate: Candidate) -> bool:
    return _test(candidate).low <= evidence.floor or _test(candidate).mean < LEAST_USEFUL


def _within_margin(evidence: Evidence, candidate: Candidate, other: Candidate) -> bool:
    # 0.52 - 0.50 is a little more than 0.02 in binary.
    return _test(other).mean - _test(candidate).mean <= evidence.margin + 1e-9


def _contrast(evidence: Evidence, a: Candidate, b: Candidate) -> Comparison:
    """b minus a on the test, whichever way round it was compared."""
    for c in evidence.comparisons:
        if c.set == "test" and (c.a, c.b) == (a.name, b.name):
            return c
        if c.set == "test" and (c.a, c.b) == (b.name, a.name):
            return replace(c, a=a.name, b=b.name, difference=-c.difference, low=-c.high, high=-c.low)
    raise ValueError(f"{a.name} and {b.name} were not compared on the test")


def _needed(evidence: Evidence, against: Comparison) -> int:
    """About how many test examples show the observed difference at 80 % power after Holm's first step.

    The interval's half-width h is 1.96 standard errors and shrinks with the square root of n, and the difference d must
    be z(1 - alpha / 2m) + z(0.8) standard errors: n_needed = n * ((z(1 - alpha / 2m) + z(0.8)) * h / (1.96 * d)) ** 2.
    """
    contrasts = sum(c.set == "test" for c in evidence.comparisons)
    z = NormalDist().inv_cdf
    errors = z(1 - ALPHA / (2 * contrasts)) + z(0.8)
    half_width = (against.high - against.low) / 2
    needed = against.n * (errors * half_width / (z(0.975) * against.difference)) ** 2
    return max(against.n + 1, math.ceil(needed))


def _examples_to_exclude(evidence: Evidence, against: Comparison) -> str:
    """How many more examples bring the interval's end down to the margin, if the difference stays as observed."""
    room = evidence.margin - against.difference
    if room > 0:
        more = against.n * (((against.high - against.difference) / room) ** 2 - 1)
        if more <= 50 * against.n:
            return f"About {_round_up(more)} more labelled test examples would exclude that, or show it."
    return "No practical number of examples would exclude that."


def _short_of(evidence: Evidence, candidate: Candidate) -> tuple[str, str]:
    """Of a candidate that fails: what more test examples would say of it, and what it would have to be."""
    _, near = _tellers(evidence.metric)
    name, score, room = candidate.name, _test(candidate), _test(candidate).mean - evidence.floor
    if score.low > evidence.floor:
        settle = f"{name} is too little to ship: more test examples would rather confirm that."
        return settle, f"{name} at {near(LEAST_USEFUL)} or more."
    settle = f"{name} is at the floor or below it: more test examples would rather confirm that."
    if room > 0:  # the interval's low end comes up to the floor, if the mean stays as observed
        more = _round_up(evidence.n_test * (((score.mean - score.low) / room) ** 2 - 1))
        settle = f"About {more} more labelled test examples would show {name} above the floor, if it stays there."
    return settle, f"{name} shown to beat the floor."


def _round_up(n: float) -> str:
    """At least 1, upwards to two figures: an estimate must not look like a measurement."""
    whole = max(1, math.ceil(round(n, 6)))
    step: int = 10 ** max(0, len(str(whole)) - 2)
    return f"{math.ceil(whole / step) * step:,}"


# ---- words ------------------------------------------------------------------------------------


def _tellers(metric: str) -> tuple[Callable[[float], str], Callable[[float], str]]:
    """(how a difference is told, how a value is told)."""
    if metric not in RATES:
        return _graded, _graded
    return lambda d: f"{_points(d)} point{'' if _points(d) == '1' else 's'}", _percent


def _scored(evidence: Evidence, candidate: Candidate) -> str:
    score = _test(candidate)
    if evidence.metric in RATES:
        share = f"{_percent(score.mean)} of the sealed test right ({_percent_range(score.low, score.high)})"
        return f"{candidate.name} answers {share}"
    name = evidence.metric.rpartition(":")[2]
    interval = f"{_graded(score.low)}–{_graded(score.high)}"
    return f"{candidate.name} reaches a {name} of {_graded(score.mean)} on the sealed test ({interval})"


def _told(evidence: Evidence, against: Comparison) -> str:
    gap, _ = _tellers(evidence.metric)
    return f"{against.b} minus {against.a}: {gap(against.difference)} ({_range(evidence, against)})"


def _range(evidence: Evidence, against: Comparison) -> str:
    tell = _points if evidence.metric in RATES else _graded
    return f"{tell(against.low)} to {tell(against.high)}"


def _floor_reason(evidence: Evidence) -> str:
    _, near = _tellers(evidence.metric)
    return f"The floor, which needs no model, is {near(evidence.floor)}."


def _target_reason(evidence: Evidence, candidate: Candidate) -> str:
    assert evidence.target is not None
    gap, near = _tellers(evidence.metric)
    target, score = f"The target of {near(evidence.target)}", _test(candidate)
    if score.low >= evidence.target:
        return f"{target} is met by {candidate.name}, even by the low end of its interval."
    if score.mean >= evidence.target:
        return f"{target} is met by the mean of {candidate.name}, not by the low end of its interval."
    missed = f"{target} is missed by {candidate.name} by {gap(evidence.target - score.mean)}"
    return missed + ("; its interval includes the target." if score.high >= evidence.target else ".")


def _percent(x: float) -> str:
    return f"{_percent_figure(x)} %"


def _percent_range(low: float, high: float) -> str:
    return f"{_percent_figure(low)}–{_percent_figure(high)} %"


def _percent_figure(x: float) -> str:
    """Whole, unless that would make nothing or everything of almost."""
    figure = f"{100 * x:.0f}"
    return figure if figure not in {"0", "100"} or x in (0, 1) else _trim(f"{100 * x:.1f}")


def _points(d: float) -> str:
    d = round(d, 9)  # 0.375 - 0.1 is a little less than 0.275 in binary
    return _trim(f"{100 * d:.1f}") if abs(d) < 0.0995 else f"{100 * d:.0f}"


def _graded(x: float) -> str:
    return "0.00" if f"{x:.2f}" == "-0.00" else f"{x:.2f}"


def _trim(figure: str) -> str:
    figure = figure.removesuffix(".0")
    return "0" if figure == "-0" else figure


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.1 else f"= {p:.2f}"
