"""What to do next, from the ruling and the causes. Each piece of advice fits the task and is given once.

Advice on causes is exclusive: where the obstacle is the model itself, documents and more examples are not advised too.
"""

from __future__ import annotations

from collections.abc import Sequence

from rung.decision.checks import name_abstain
from rung.decision.evidence import Evidence, best_of, costs_less, score_of
from rung.decision.figures import more_minutes, rounded_up
from rung.decision.injections import against_orders
from rung.decision.rule import (
    LEAST_USEFUL,
    Ruling,
    ahead_on_dev,
    more_to_exclude,
    more_to_show,
    shortfall,
    too_few,
    within_margin,
)
from rung.decision.search_causes import mend_search
from rung.decision.words import (
    FAMILY_WORDS,
    MOST,
    SET_WORDS,
    called,
    dearer_models,
    learner_of,
    listed,
    nearest_dearer,
    nothing_is_learnt,
    one_answer_is_always_right,
    rival_of,
    scale_of,
    skipped_name,
    subject,
    value,
    worth_naming,
)
from rung.types import Candidate, Diagnosis, SetName

_MOST_ROWS = 7
_NEARLY_ALWAYS = 0.95
_SURE = 0.2
"""Low end of a share from which a cause by elimination calls for something."""


_BRING_DOCUMENTS = (
    "If the answers are facts that the model has not seen, bring documents (corpus: in task.yaml): "
    "neither a prompt nor fine-tuning teaches facts."
)

_READ_FIRST = (
    "Read some of the wrong answers: neither a language model nor a classifier that learns from the examples is shown "
    "to beat the floor, so the reference answers may be noise, or the inputs may lack what decides them."
)


_REINFORCEMENT = (
    "Reinforcement fine-tuning was not tried: the model learns from its own attempts, which {metric} would check, so "
    "some of them must be right already. Published runs cost between 30 USD (TinyZero, 2025) and 4,500 USD "
    "(DeepScaleR, 2025) of rented GPUs, with models of 3 and 1.5 billion weights; OpenAI asks for 100 USD an hour of "
    "training (2025). What it would bring here is not known."
)


def next_steps(evidence: Evidence, ruling: Ruling, command: str = "") -> list[str]:
    """Whole sentences, the first one to do first."""
    if ruling.choice == "unfinished":
        steps = _unfinished(evidence, ruling, command)
    elif ruling.choice == "none":
        steps = _none(evidence, ruling)
    elif ruling.choice == "undecided":
        steps = _undecided(evidence, ruling)
    else:
        steps = _chosen(evidence, ruling)
    steps = [*steps, *name_abstain(evidence), *against_orders(evidence, ruling)]
    steps = [*steps, *mend_search(evidence, ruling)]
    consider = _consider(evidence, ruling)
    # Of an unfinished run, the first two steps say how to go on.
    steps = [*steps, *consider] if ruling.choice == "unfinished" else [*consider, *steps]
    return list(dict.fromkeys(steps))


def _chosen(evidence: Evidence, ruling: Ruling) -> list[str]:
    chosen, best = ruling.ship, ruling.best
    assert chosen is not None and best is not None
    scale = scale_of(evidence)
    margin = scale.gap(evidence.margin)
    causes = _on_causes(evidence, chosen)
    steps = [f"Ship {chosen.name}.", *_try_the_rest(evidence), *causes]
    rival = rival_of(evidence, chosen)
    if rival is not None:
        of = f" of {rival.model}" if evidence.several and rival.model else ""
        steps.append(
            f"What would change the verdict: a {FAMILY_WORDS[rival.family][1]} solution{of} within {margin} of "
            f"{best.name}, or one not significantly worse on new examples."
        )
    for against in nearest_dearer(evidence, chosen, best):
        if against.high > evidence.margin:
            more = more_to_exclude(evidence, against)
            settle = (
                "No practical number of examples would exclude that."
                if more is None
                else f"{_more_examples(more)} would exclude that, or show it."
            )
            steps.append(f"What would change the verdict: {against.b} more than {margin} above {against.a}. {settle}")
    target = evidence.target
    if target is not None and score_of(chosen, "test").mean < target and not causes:
        dear = evidence.several and dearer_models(evidence, chosen.model, "test")
        such = f", such as {evidence.larger}" if not dear and _larger_is_untried(evidence, chosen.model) else ""
        tried = " than those that were tried" if dear else ""
        steps.append(
            f"To reach the target of {scale.value(target)}: more or better examples, or a larger model{tried}{such}."
        )
    return [*steps, *_rows_to_read(evidence), *_missing_prices(evidence, chosen)]


def _undecided(evidence: Evidence, ruling: Ruling) -> list[str]:
    best, rival, ship = ruling.best, ruling.rival, ruling.ship
    assert best is not None and rival is not None and ship is not None
    scale = scale_of(evidence)
    if within_margin(evidence, rival, best):  # then the cheaper one falls short
        settle, change = _short_of(evidence, rival)
    elif not evidence.asked(rival, best):
        settle = "Bring more labelled examples and run again: what was best on dev falls short on the sealed test."
        change = f"within {scale.gap(evidence.margin)} of it."
    else:
        more = _more_examples(more_to_show(evidence, evidence.contrast(rival, best, "test")))
        settle = f"{more} would settle a difference of this size (at 80 % power)."
        change = f"within {scale.gap(evidence.margin)} of it."
    elsewhere = rival.model != best.model
    cheaper = "is of the cheaper model." if elsewhere else "is the simpler of the two to build and to change."
    if shortfall(evidence, rival, "test") == "floor":
        why = f"{rival.name} is not shown to beat the floor."
    elif shortfall(evidence, rival, "test") == "useful":
        why = f"{rival.name} is right too rarely."
    elif ahead_on_dev(evidence, best, rival):
        less = elsewhere and costs_less(best, rival)
        why = f"on dev it is ahead too, by {scale.gap(best.dev.mean - rival.dev.mean)}"
        why += ", and its request costs less." if less else f". {rival.name} {cheaper}"
    elif ship is best:
        why = "it scores higher, and its request costs less."
    else:
        why = f"it {cheaper}"
    return [
        settle,
        f"Meanwhile ship {ship.name}: {why}",
        *_try_the_rest(evidence),
        *_on_causes(evidence, ship),
        f"What would change the verdict: {best.name} significantly above {rival.name}, or {rival.name} {change}",
        *_rows_to_read(evidence),
        *_missing_prices(evidence, best),
    ]


def _none(evidence: Evidence, ruling: Ruling) -> list[str]:
    best = ruling.best
    if best is None:
        return ["Run again and let at least one candidate finish."]
    if one_answer_is_always_right(evidence):
        return ["Give that answer, or bring examples with other answers: these cannot tell candidates apart."]
    scale, floor = scale_of(evidence), evidence.floor("test")
    left_out = _left_out(evidence)
    steps = left_out + (_to_beat_the_floor(evidence, best) if shortfall(evidence, best, "test") == "floor" else [])
    steps += _try_the_rest(evidence)
    larger = [] if left_out else _try_larger(evidence)
    if score_of(best, "test").mean >= _NEARLY_ALWAYS:  # hardly an answer is wrong
        steps += _rows_to_read(evidence)
    elif nothing_is_learnt(evidence):
        steps += [*_rows_to_read(evidence), _READ_FIRST, *(_on_causes(evidence) or larger)]
    else:
        steps += _on_causes(evidence) or larger
        steps += _rows_to_read(evidence) or [
            "Read some of the wrong answers: unclear instructions and wrong reference answers stop every approach."
        ]
    least = f"has a mean of at least {scale.value(LEAST_USEFUL)}"
    beats = f"is shown to beat the floor of {value(evidence, floor, 'test')} and " if floor else ""
    return [*steps, f"What would change the verdict: a candidate that {beats}{least}."]


def _unfinished(evidence: Evidence, ruling: Ruling, command: str) -> list[str]:
    missing = [s for s in evidence.kept_out if s.matters]
    names = {
        why: ", ".join(skipped_name(evidence, s) for s in missing if s.reason == why)
        for why in ("budget", "memory", "fault")
    }
    finish = (
        "Or add --finish to that command: it tries nothing more, opens the sealed test for what there is, and decides."
    )
    helped = []
    if names["memory"]:
        helped.append(f"For {names['memory']}: use a machine with more memory, or a smaller model; then `{command}`.")
    if names["fault"]:
        helped.append(f"For {names['fault']}: remove the fault that is named above; then `{command}`.")
    if names["budget"] or not helped:
        minutes = sum(s.minutes or 0.0 for s in missing if s.reason == "budget")
        cost = f" with about {more_minutes(minutes)}" if minutes else ""
        steps = [f"Go on from here{cost}: `{command}`. Nothing that is done is done again.", finish, *helped]
    else:
        steps = [*helped, finish]
    if ruling.ship is not None:
        steps.append(f"Meanwhile use {ruling.ship.name}: it is the best on dev so far.")
    elif ruling.best is not None:
        steps.append("Ship nothing meanwhile.")
    return [*steps, *_on_causes(evidence), *_rows_to_read(evidence)]


# ---- advice of every verdict ------------------------------------------------------------------


def _left_out(evidence: Evidence) -> list[str]:
    """What --only left out: the verdict says nothing of it."""
    names = [skipped_name(evidence, s) for s in evidence.left_out]
    if not names:
        return []
    return [f"Try what --only left out: {listed(names)}. Give the command again without --only, and with --again."]


def _try_the_rest(evidence: Evidence) -> list[str]:
    """What a larger budget would try, in a verdict that was reached without it."""
    missing = [s for s in evidence.kept_out if s.reason == "budget"]
    if not missing:
        return []
    minutes = sum(s.minutes or 0.0 for s in missing)
    cost = f" (about {more_minutes(minutes)})" if minutes else ""
    names = listed([skipped_name(evidence, s) for s in missing])
    if evidence.go_on:
        return [f"To try {names} as well{cost}: `{evidence.go_on}`."]
    return [f"To try {names} as well, give the run a larger budget{cost}."]


def _missing_prices(evidence: Evidence, candidate: Candidate) -> list[str]:
    """Of several models: which price to add, and what the verdict then says."""
    tested = evidence.rated("test")
    unknown = {c.model for c in tested} - {c.model for c in tested if c.cost_per_1k_usd is not None}
    missing = [m for m in evidence.models if m in unknown]
    if not evidence.several or not missing:
        return []
    learn = "which of the models costs less, and by how much"
    sides = [candidate, *(c for c in tested if c.family == "prompt")]
    if "fine-tune" in candidate.family and any(c.model in unknown for c in sides):
        learn = f"after how many requests {candidate.name} pays for itself, and {learn}"
    prices = "prices" if len(missing) > 1 else "price"
    return [
        f"To learn {learn}, add the {prices} of {listed(missing)} to task.yaml (`price:`). Until then the order of "
        "`models` counts."
    ]


def _consider(evidence: Evidence, ruling: Ruling) -> list[str]:
    """A baseline that learns and may do as well as what is advised."""
    learner = learner_of(evidence, ruling)
    if learner is None:
        return []
    reached = value(evidence, learner, ruling.on)
    return [
        f"Consider {learner.name} first: it uses no language model, reaches {reached} on {SET_WORDS[ruling.on]}, and "
        "costs next to nothing to run. docs/statistics.md says how it is built."
    ]


def _on_causes(evidence: Evidence, ship: Candidate | None = None) -> list[str]:
    """What the causes call for. ship: what is advised already."""
    named = worth_naming(evidence)
    unfixed = [d for d in named if not d.fixed and d.low >= _SURE and "reasoning" in d.cause.split("+")]
    if any(d is named[0] or d.share >= MOST for d in unfixed):
        of = subject(evidence)
        model = of.model if of is not None else evidence.model
        steps = [
            f"{step} No experiment with {model or 'this one'} fixed most of what stays wrong."
            for step in _try_larger(evidence, model, ship)
        ]
        return [*steps, *(_reinforcement(evidence, named) if steps else [])]
    causes = {part: d.fixed for d in reversed(named) if d.low > 0 or not d.fixed for part in d.cause.split("+")}
    advice = []
    if not evidence.has_corpus and _wants_documents(evidence, causes):
        advice.append(_BRING_DOCUMENTS)
    if "retrieval" in causes and not evidence.search_failures:  # which say more of it
        advice.append(
            "The search misses passages that hold the answer: split or reword the documents, or show more of them."
        )
    if evidence.more is not None and evidence.more.gain >= evidence.margin and "convention" in causes:
        more, scale = evidence.more, scale_of(evidence)
        advice.append(
            f"Label more examples: about {rounded_up(more.examples)} more would add {scale.gap(more.gain)} on dev "
            f"({scale.ends(more.low, more.high)}), if the next doubling helps no more than the last one."
            + (f" Start with inputs whose answer is {evidence.hardest}." if evidence.hardest else "")
        )
    return [*advice, *_reinforcement(evidence, named)]


def _reinforcement(evidence: Evidence, named: Sequence[Diagnosis]) -> list[str]:
    """The rung that no run tries, where the leading cause is reasoning and a program tells right from wrong."""
    on: SetName = "test" if evidence.rated("test") else "dev"
    rated, metric = evidence.rated(on), evidence.metric
    leads = bool(named) and "reasoning" in named[0].cause.split("+") and named[0].low >= _SURE
    checked = metric.right_or_wrong and not metric.needs_judge
    if not leads or not checked or not rated or not 0.0 < score_of(best_of(rated, on), on).mean < _NEARLY_ALWAYS:
        return []
    return [_REINFORCEMENT.format(metric=metric.name.rpartition(":")[2])]


def _larger_is_untried(evidence: Evidence, model: str) -> bool:
    """Whether `larger` is that of this model, and none of the task's models."""
    if not evidence.several or not evidence.larger:
        return bool(evidence.larger)
    listed_names = {name.lower() for name in evidence.models}
    return (
        model == evidence.model
        and not {evidence.larger.lower(), evidence.larger.lower().rpartition("/")[2]} & listed_names
    )


def _try_larger(evidence: Evidence, model: str = "", ship: Candidate | None = None) -> list[str]:
    """One step, or none where what is shipped is the answer to it.

    model: whose failures call for it, by name; empty: those of all models.
    """
    if evidence.several:
        on: SetName = "test" if evidence.rated("test") else "dev"
        dearest = evidence.models_by_cost[-1]
        model = model or dearest
        if dear := dearer_models(evidence, model, on):
            top = best_of(dear, on)
            reached = f"{called(evidence, top)} reaches {value(evidence, top, on)} on {SET_WORDS[on]}"
            return [f"Look at what a dearer model does: {reached}."] if top != ship else []
        if not _larger_is_untried(evidence, model):
            return ["Try a larger model: add one to `models` in task.yaml."]
        return [
            f"Try a larger model: add {evidence.larger} to `models` in task.yaml, the next larger one than {model} "
            "that `rung models` lists and this machine can train."
        ]
    if not evidence.larger:
        return ["Try a larger model: the same task.yaml with another `model`."]
    return [
        f"Try a larger model: the same task.yaml with `model: {evidence.larger}`, the next larger one that "
        "`rung models` lists and this machine can train."
    ]


def _wants_documents(evidence: Evidence, causes: dict[str, bool]) -> bool:
    """Where labels or a schema close the answers, only an experiment can show that facts are missing."""
    if evidence.has_labels or evidence.has_schema:
        return causes.get("knowledge", False)
    return "knowledge" in causes


def _rows_to_read(evidence: Evidence) -> list[str]:
    if not evidence.suspicious:
        return []
    rows = ", ".join(evidence.suspicious[:_MOST_ROWS])
    rest = len(evidence.suspicious) - _MOST_ROWS
    rows += f" and {rest} more in diagnosis.json" if rest > 0 else ""
    return [f"Read these rows, whose reference answers may be wrong: {rows}."]


def _short_of(evidence: Evidence, candidate: Candidate) -> tuple[str, str]:
    """Of a candidate that falls short: what more test examples would say of it, and what it would have to be."""
    name, scale, floor = candidate.name, scale_of(evidence), evidence.floor("test")
    if shortfall(evidence, candidate, "test") == "useful" or floor is None:
        settle = f"{name} is right too rarely to ship: more test examples would rather confirm that."
        return settle, f"at {scale.value(LEAST_USEFUL)} or more."
    settle = " ".join(_to_beat_the_floor(evidence, candidate))
    return settle or f"{name} is not above the floor: more test examples would rather confirm that.", (
        "shown to beat the floor."
    )


def _to_beat_the_floor(evidence: Evidence, candidate: Candidate) -> list[str]:
    """How many more test examples would show a candidate above the floor; nothing where it is not above it."""
    floor = evidence.floor("test")
    if floor is None:
        return []
    against, few = evidence.contrast(floor, candidate, "test"), too_few(evidence, candidate, "test")
    if against.difference > 0:
        more = _more_examples(max(few, more_to_show(evidence, against)))
        return [f"{more} would show {candidate.name} above the floor, if it stays there."]
    if few:
        return [
            f"Label more test examples, at least {rounded_up(few)}: with {against.n:,}, not even a perfect score could "
            "be shown to beat the floor."
        ]
    return []


def _more_examples(n: int) -> str:
    return f"About {rounded_up(n)} more labelled test example{'' if n == 1 else 's'}"
