"""What a run found out about a solution beside its scores: all that speaks against it, and what is not known.

Read from the run's records: decision.json, finalists.json, judge.json. The sentences are those of the verdict.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any, Literal, TypeVar

from rung.decision.checks import MOSTLY, made_up_in_words, makes_up_more_in_words
from rung.decision.evidence import Invention, Shortened, Skills
from rung.decision.figures import Scale
from rung.decision.injections import followed_in_words
from rung.decision.judging import biases_in_words, first_of_all, judge_from_record
from rung.decision.reasons import kept_in_words
from rung.decision.search_causes import search_failures_in_words
from rung.decision.sources import sources_in_words
from rung.decision.warnings import cut_in_words, faults_in_words, lost_in_words, read_seen
from rung.records import from_record
from rung.resume import record_of, recorded
from rung.runs import Files
from rung.types import Decision, Injected, Solution

OfOne = TypeVar("OfOne", Invention, Skills, Injected)

About = Literal[
    "judge", "verdict", "building", "making up", "orders", "skills", "search", "sources", "faults", "not known"
]


@dataclass(frozen=True)
class Caveat:
    """What a user of a solution must know. said: whole sentences. figures: the record that they rest on, if any."""

    about: About
    said: str
    figures: Mapping[str, Any] | None = None


def seen_before(run: Files, decision: Decision | None) -> dict[str, int] | None:
    """How many test examples were in the tests of how many earlier verdicts; None where the run does not say it.

    Older versions left a sentence alone.
    """
    found: dict[str, int] | None = record_of(run.finalists).get("seen_before")
    if found is not None or decision is None:
        return found
    told = next((read for w in decision.warnings if (read := read_seen(w)) is not None), None)
    return {"examples": told[0], "verdicts": told[1]} if told is not None else None


def caveats_of(
    run: Files, solution: Solution, decision: Decision | None, *, abstain: str | None, right_or_wrong: bool
) -> list[Caveat]:
    """The gravest first; none where there is no verdict yet. abstain: the task's answer that says that there is none.
    right_or_wrong: how the task's scores are written.

    A warning of the verdict that begins as one of these sentences takes its place. Those about other solutions alone
    are left out, and no path of this machine is told.
    """
    if decision is None:
        return []
    told = [w for w in _warnings(run, solution.name, decision) if read_seen(w) is None]
    found = []
    against = _verdict(solution.name, decision, Scale(right_or_wrong))
    for caveat in (*_judge(run), *against, *_measured(run, solution, decision)):
        longer = next((w for w in told if w.startswith(caveat.said.removesuffix("."))), None)
        told = [w for w in told if w != longer]
        found.append(Caveat(caveat.about, longer or caveat.said, caveat.figures))
    if abstain is None:
        found = [_without_abstain(caveat) for caveat in found]
    found += [Caveat("verdict", warning) for warning in told]
    found += _unknown(solution, found)
    return [Caveat(c.about, without_paths(c.said), c.figures) for c in found]


def without_paths(text: str) -> str:
    """Paths of this machine by their last name alone."""
    return re.sub(r"(?<![\w./:])(?:/[^\s/:,;()'\"]+){2,}", lambda path: PurePath(path[0]).name, text)


def _warnings(run: Files, name: str, decision: Decision) -> list[str]:
    """Those of the verdict that concern the solution; of one that is not shipped, what holds for the whole run."""
    if decision.solution != name:
        return list(record_of(run.finalists).get("notes", ()))
    others = {c.name for c in decision.candidates} - {name}
    return [w for w in decision.warnings if re.split(r"[ ,:]", w, maxsplit=1)[0] not in others or _names(w, name)]


def _names(sentence: str, name: str) -> bool:
    return re.search(rf"(?<![\w@]){re.escape(name)}(?![\w@])", sentence) is not None


def _judge(run: Files) -> Iterator[Caveat]:
    record = recorded(run.judge)
    if record is None:
        return
    check = judge_from_record(record)
    for said in (*first_of_all(check), *biases_in_words(check)):
        yield Caveat("judge", said)


def _verdict(name: str, decision: Decision, scale: Scale) -> Iterator[Caveat]:
    """That the run ships another one, and by how much that is better on the test."""
    if decision.solution in (None, name):
        return
    said = f"The verdict of the run ships {decision.solution} and not {name}."
    for c in decision.comparisons:
        if c.set == "test" and {c.a, c.b} == {name, decision.solution}:
            sign = 1 if c.b == decision.solution else -1
            low, high = sorted((sign * c.low, sign * c.high))
            gap = f"{scale.gap(sign * c.difference)} ({scale.ends(low, high)})"
            yield Caveat("verdict", f"{said} On the sealed test, {decision.solution} minus {name} is {gap}.", asdict(c))
            return
    yield Caveat("verdict", said)


def _measured(run: Files, solution: Solution, decision: Decision) -> Iterator[Caveat]:
    """By the checks of finalists and the records of the candidate. What was asked of a solution with its longer prompt
    counts for the shortened one that was not asked."""
    named = record_of(run.finalists)
    name = solution.name
    shortened = [from_record(Shortened, one) for one in named.get("shortened", ())]
    long = next((s.tuned for s in shortened if s.short == name), name)
    candidate = next((c for c in decision.candidates if c.name == name), None)
    for left in decision.left_early:
        if left.name == name:
            yield Caveat("building", f"{name} was stopped early on dev: {left.why}.", asdict(left))
    if candidate is not None and candidate.cut:
        yield Caveat("building", cut_in_words(candidate))
    for invention in _of(name, long, [from_record(Invention, one) for one in named.get("invention", ())]):
        if invention.given or solution.retriever is not None:  # no passages can be taken out of what reads none
            said = makes_up_more_in_words(invention) if invention.worse else made_up_in_words(invention)
            yield Caveat("making up", said, asdict(invention))
    for injected in _of(name, long, decision.injections):
        yield Caveat("orders", f"{followed_in_words(injected)}.", asdict(injected))
    for skills in _of(name, long, [from_record(Skills, one) for one in named.get("skills", ())]):
        yield Caveat("skills", lost_in_words(skills) if skills.loses else kept_in_words(skills), asdict(skills))
    failures = decision.search_failures
    if rows := [f for f in failures if f.solution == name] or [f for f in failures if f.solution == long]:
        yield Caveat("search", search_failures_in_words(rows), {"causes": [asdict(row) for row in rows]})
    citing = [one for one in decision.citing if one.candidate == name]
    for cites in [one for one in citing if one.set == "test"] or citing:
        yield Caveat("sources", sources_in_words(cites), asdict(cites))
    if candidate is not None and (candidate.failed_calls or candidate.unscored):
        yield Caveat("faults", faults_in_words(candidate))


def _of(name: str, long: str, found: Sequence[OfOne]) -> Sequence[OfOne]:
    """What was asked of the solution; else of the one with the longer prompt."""
    return [one for one in found if one.candidate == name] or [one for one in found if one.candidate == long]


def _without_abstain(caveat: Caveat) -> Caveat:
    """Where a solution mostly makes an answer up, and the task names none that would say so."""
    share = (caveat.figures or {}).get("share") if caveat.about == "making up" else None
    if share is None or share["mean"] <= MOSTLY:
        return caveat
    said = f"{caveat.said} The task names no answer that says that there is none (`abstain`), so do not expect one."
    return Caveat(caveat.about, said, caveat.figures)


def _unknown(solution: Solution, found: Sequence[Caveat]) -> list[Caveat]:
    """What a reader would want to know and the run did not measure."""
    about = {caveat.about for caveat in found}
    missing = []
    if solution.retriever is not None and "making up" not in about:
        missing.append("what it says where no passage holds the answer")
    if "orders" not in about:
        missing.append("how often it follows orders that stand in what it reads")
    if solution.adapter is not None and "skills" not in about:
        missing.append("what it has forgotten by its training")
    return [Caveat("not known", f"Not measured: {'; '.join(missing)}.")] if missing else []
