"""How often candidates near the top are right every time: samples of the opened test, from which nothing is chosen.

Greedy answers of a model on this machine are always the same, so answers are sampled at TEMPERATURE, each with a seed
of its own, under the same constraint. They lie beside the candidate's answers to the test, and are asked for in blocks,
all samples of a block together, so that a kill loses one block at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rung import runs
from rung.decision.evidence import Evidence
from rung.decision.rule import rule_on_test, within_margin
from rung.errors import RungError, SealedTestError, came
from rung.evaluation.consistency import pass_k
from rung.evaluation.statistics import units_of
from rung.ladder.climbed import Climbed
from rung.ladder.finalist_checks import not_measured
from rung.ladder.ledger import Meter
from rung.ladder.plan_checks import MOST_SAMPLED, repeats_of, sampled_of
from rung.ladder.state import RunState, WholeRun
from rung.resume import once
from rung.solutions.answer import BLOCK
from rung.trials.sampling import DrawnTogether
from rung.trials.trial import attempt, read_predictions, read_whole
from rung.types import Candidate, Example, Solution

TEMPERATURE = 1.0
"""Of the samples: what an endpoint takes where a request names none."""

_SEED = 700_001  # between the seeds of two samples


def with_consistency(run: WholeRun, evidence: Evidence, test: Sequence[Example]) -> Evidence:
    """The evidence, in which candidates near the top have their `pass_k`, and `checks_said` what a reader must know.

    test: the opened test. Which candidates were sampled, and what kept others from it, is recorded once, so that a
    command that continues says the same.
    """
    wanted = [c.name for c in near_the_top(evidence) if run.of_candidate(c.name).plan.consistency.applies]
    if not wanted:
        return evidence
    record = once(run.files.consistency, lambda: _sample_all(run, wanted, test))
    candidates = tuple(
        _scored(run, c, int(record["repeats"]), test) if c.name in record["sampled"] else c for c in evidence.candidates
    )
    return replace(evidence, candidates=candidates, checks_said=(*evidence.checks_said, *record["said"]))


def near_the_top(evidence: Evidence) -> list[Candidate]:
    """What is shipped, the best, its rival, and what comes within the margin of the best: MOST_SAMPLED at most; none
    where nothing is shipped."""
    ruling = rule_on_test(evidence)
    if ruling.ship is None or ruling.best is None:
        return []
    first = [c for c in (ruling.ship, ruling.best, ruling.rival) if c is not None]
    near = [c for c in evidence.rated("test") if within_margin(evidence, c, ruling.best)]
    return list({c.name: c for c in (*first, *near)}.values())[:MOST_SAMPLED]


def _sample_all(run: WholeRun, names: Sequence[str], test: Sequence[Example]) -> dict[str, Any]:
    """Samples the candidates one after the other; what keeps one from it is said and ends nothing."""
    repeats = repeats_of(run.inputs.task)
    sampled, said = [], []
    for name in names:
        state = run.of_candidate(name)
        if why := _sample(state, name, test, repeats):
            said.append(not_measured(f"How often {name} is right every time", why))
            state.listener.say(said[-1])
            runs.log(run.folder, "not sampled", solution=name, why=why)
            continue
        sampled.append(name)
        if failed := _failed(state.files.solution(name), repeats):
            said.append(f"{failed:,} of the sampled answers of {name} did not come and count as wrong.")
        if not state.model.facts().get("takes_temperature", True):
            said.append(f"{state.name} takes no temperature, so its samples vary as its endpoint lets them.")
    return {"repeats": repeats, "temperature": TEMPERATURE, "sampled": sampled, "said": list(dict.fromkeys(said))}


def _sample(run: RunState, name: str, test: Sequence[Example], repeats: int) -> str | None:
    """Draws the samples of a candidate; returns what kept it from that, None where nothing did."""
    from rung.solutions.store import load_solution

    folder = run.files.solution(name)
    solution = load_solution(folder)
    drawn = [_drawn(solution, i) for i in range(1, repeats + 1)]
    paths = [_path(folder, i) for i in range(1, repeats + 1)]
    answered = [len(read_predictions(path)) for path in paths]
    share = 1 - sum(answered) / (repeats * len(test))
    step, candidates = run.plan.consistency, max(1, sampled_of(run.plan))
    seconds, calls, usd = (share * each / candidates for each in (step.seconds, step.calls, step.usd))
    if share and (why := run.over_budget(Climbed(), seconds, round(calls), usd=usd)):
        return why
    meter = Meter(run.asked)
    workshop = run.workshop(folder, Climbed(), meter)
    model = DrawnTogether(run.model, lambda _: [sample.decoding for sample in drawn])
    fault = None
    try:
        for end in range(BLOCK, len(test) + BLOCK, BLOCK):
            if end < min(len(test), max(answered)):
                continue  # an earlier command has come farther
            for sample, path in zip(drawn, paths, strict=True):
                attempt(workshop, sample, test[:end], path, model=model)
            model.forget()
    except SealedTestError:
        raise
    except RungError as error:
        fault = str(error)
    runs.log(run.folder, "sampled", stage=f"samples of {name}", solution=name, **meter.record())
    return fault


def _drawn(solution: Solution, number: int) -> Solution:
    """The solution as it draws a sample. number: from 1."""
    decoding = replace(solution.decoding, temperature=TEMPERATURE, seed=solution.decoding.seed + _SEED * number)
    return replace(solution, name=f"sample {number} of {solution.name}", decoding=decoding)


def _path(folder: Path, number: int) -> Path:
    return folder / f"predictions.test-sample-{number}.jsonl"


def _failed(folder: Path, repeats: int) -> int:
    """Samples that did not come."""
    return sum(not came(p.error) for i in range(1, repeats + 1) for p in read_predictions(_path(folder, i)))


def _scored(run: WholeRun, candidate: Candidate, repeats: int, test: Sequence[Example]) -> Candidate:
    """The candidate with what its samples say."""
    folder = run.files.solution(candidate.name)
    samples = [{p.id: p.score or 0.0 for p in read_whole(_path(folder, i), test)} for i in range(1, repeats + 1)]
    ids = [e.id for e in test]
    scores = [[sample[i] for sample in samples] for i in ids]
    groups, seed = units_of(ids, run.inputs.groups), run.inputs.task.seed
    single, every = (pass_k(scores, k, groups=groups, seed=seed) for k in (1, repeats))
    return replace(candidate, repeats=repeats, pass_1=single, pass_k=every)
