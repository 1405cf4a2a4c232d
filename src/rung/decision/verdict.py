"""From evidence to a Decision: the ruling, and its headline, warnings, reasons and next steps."""

from __future__ import annotations

from dataclasses import replace

from rung.decision.advice import next_steps
from rung.decision.evidence import Evidence, score_of
from rung.decision.headline import headline
from rung.decision.reasons import reasons
from rung.decision.rule import Ruling, rule_on_dev, rule_on_test
from rung.decision.sources import refusing_of
from rung.decision.warnings import warnings
from rung.evaluation.costs import frontier
from rung.types import Decision


def decide(evidence: Evidence) -> Decision:
    """The verdict of a run whose sealed test was opened.

    Raises ValueError when two finalists that were to be compared, or a finalist and a baseline, lack their comparison
    on the test.
    """
    return _decision(evidence, rule_on_test(evidence))


def unfinished(evidence: Evidence, command: str) -> Decision:
    """The outcome of a run that was ended before something that matters was tried. It rests on dev alone.

    command: the command that goes on with a larger budget, as the user would type it. Test scores and what was compared
    on the test are left out. Raises ValueError when a candidate lacks its comparison with a baseline on dev.
    """
    on_dev = replace(
        evidence,
        candidates=tuple(replace(c, test=None) for c in evidence.candidates),
        comparisons=tuple(c for c in evidence.comparisons if c.set == "dev"),
        against_floor=tuple(c for c in evidence.against_floor if c.set == "dev"),
        diagnosis=tuple(d for d in evidence.diagnosis if d.fixed),
        break_even=(),
    )
    return _decision(on_dev, rule_on_dev(on_dev), command)


def _decision(evidence: Evidence, ruling: Ruling, command: str = "") -> Decision:
    floor, said = evidence.floor(ruling.on), reasons(evidence, ruling)
    return Decision(
        choice=ruling.choice,
        solution=ruling.ship.name if ruling.ship is not None else None,
        headline=headline(evidence, ruling, command),
        warnings=tuple(warnings(evidence, ruling)),
        reasons=tuple(sentence for _, sentence in said),
        next=tuple(next_steps(evidence, ruling, command)),
        candidates=tuple(evidence.by_cost),
        comparisons=(*evidence.comparisons, *evidence.against_floor),
        diagnosis=evidence.causes,
        minimum_detectable_difference=evidence.minimum_detectable_difference,
        test_reads=evidence.test_reads,
        break_even=evidence.break_even,
        frontier=frontier([c for c in evidence.candidates if c.family != "baseline"], evidence.models),
        skipped=evidence.skipped,
        left_early=evidence.left_early,
        floor=score_of(floor, ruling.on).mean if floor is not None else 0.0,
        n_dev=evidence.n_dev,
        n_test=evidence.n_test,
        margin=evidence.margin,
        models=evidence.models_by_cost,
        reasons_about=tuple(topic for topic, _ in said),
        injections=evidence.injections,
        citing=evidence.citing,
        refusing=tuple(map(refusing_of, evidence.invention)),
        search_failures=evidence.search_failures,
        searches=evidence.searches,
        searches_not_tried=evidence.searches_not_tried,
    )
