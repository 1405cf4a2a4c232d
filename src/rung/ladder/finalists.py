"""The record that ends the climb: who is tested, and all that dev showed. After it nothing is built or chosen again.

Everything that dev showed is in finalists.json, so that a command that continues, even with another version of rung,
opens the test for the same candidates and reaches the same verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rung import __version__, runs
from rung.decision.evidence import Shortened
from rung.errors import RunError
from rung.evaluation.baselines import CHANCE, FLOORS
from rung.ladder.abstention import check_abstention
from rung.ladder.candidate_costs import candidate_of, measure_latency
from rung.ladder.climbed import Climbed
from rung.ladder.dev_evidence import dev_evidence
from rung.ladder.going_on import command, minutes_for
from rung.ladder.injections import check_injections
from rung.ladder.search_failures import check_search
from rung.ladder.shortening import shorten
from rung.ladder.skills_check import Checked, check_skills
from rung.ladder.state import RunState, WholeRun
from rung.records import write_json, write_lines
from rung.resume import folder_once, recorded
from rung.types import Candidate, Example, Prediction, Score, SetName


def named(run: WholeRun) -> dict[str, Any] | None:
    """The record of the finalists; None as long as the climb is not over."""
    return recorded(run.files.finalists)


def name_finalists(
    run: WholeRun, climbed: Climbed, *, finish: bool = False, only: Sequence[str] = ()
) -> dict[str, Any]:
    """Checks what fine-tuned finalists have forgotten, shortens their prompts, times all finalists, and records them
    with what dev showed.

    The pairs to compare on the test are recorded too: those in which one may be the best, by dev alone. finish: no
    prompt is shortened that was not before. only: strategies that were asked for, for the command that goes on.
    """
    baselines = baselines_on_dev(run.first)
    floor = floor_on_dev(run.first)
    names: list[str] = []
    checks: list[Checked] = []
    outcomes: list[Shortened] = []
    for name in climbed.best_of_groups():
        state = run.of(climbed.built[name].solution.model)
        checks.append(checked := check_skills(state, climbed, name, floor))
        if (shorter := shorten(state, climbed, checked, floor, finish=finish)) is not None:
            outcomes.append(shorter.outcome)
            checks.append(shorter.checked)
            names += [shorter.name] if shorter.name is not None else []  # before its long form: it costs less
        names.append(checked.keep)
    check_abstention(run, climbed, names)
    check_injections(run, climbed, names)
    check_search(run, climbed, names)
    run.first.keep_back_for_test([climbed.built[name] for name in names])
    for name in names:
        measure_latency(run.of(climbed.built[name].solution.model), climbed.built[name])
    candidates = [candidate_of(run.of(built.solution.model), built) for built in climbed.built.values()]
    if not names:
        raise RunError(
            f"{run.folder}: no solution answered all of dev, so there is nothing to test. Try more strategies."
        )
    kept_out = [s for s in climbed.skipped.values() if s.reason == "budget"]
    for s in kept_out:
        climbed.skipped[s.name] = replace(s, minutes=minutes_for(run.of(s.model), s))
    record = {
        "finalists": names,
        "contenders": _contenders(run, climbed, names),
        "baselines": [asdict(c) for c in baselines],
        "candidates": [asdict(c) for c in candidates],
        **dev_evidence(run, climbed, checks),
        "go_on": f"{command(run, climbed, kept_out, only)} --again" if kept_out else "",
        "shortened": [asdict(outcome) for outcome in outcomes],
        "rung": __version__,
    }
    write_json(run.files.finalists, record)
    runs.log(run.folder, "finalists", solutions=names)
    return record


def _contenders(run: WholeRun, climbed: Climbed, names: Sequence[str]) -> list[str]:
    """The finalists that dev does not show to be worse than the best of them; with one model, all of them."""
    from rung.evaluation.contenders import contenders
    from rung.evaluation.statistics import units_of

    if len(run.states) == 1:
        return list(names)
    ids = [e.id for e in run.inputs.dev]
    by_name = {n: {p.id: p.score or 0.0 for p in climbed.built[n].predictions} for n in names}
    scores = {n: [by_name[n][i] for i in ids] for n in names}
    return list(contenders(scores, names, groups=units_of(ids, run.inputs.groups), seed=run.inputs.task.seed))


def baselines_on_dev(run: RunState) -> list[Candidate]:
    """The baselines that look at no input, and the best of those that learn; they are tested too."""
    candidates = [baseline_candidate(n, score_of(run, n, answers)) for n, answers in baseline_answers(run).items()]
    learners = [c for c in candidates if c.name not in FLOORS]
    return [c for c in candidates if c.name in FLOORS] + sorted(learners, key=lambda c: -c.dev.mean)[:1]


def floor_on_dev(run: RunState) -> float:
    """Dev score of the better of the baselines that look at no input; 0 without any."""
    return max((c.dev.mean for c in baselines_on_dev(run) if c.name in FLOORS), default=0.0)


def baseline_answers(run: RunState) -> dict[str, list[Prediction]]:
    """Answers of every baseline to dev."""
    return answers_of_baselines(run, run.inputs.dev, "dev")


def answers_of_baselines(run: RunState, asked: Sequence[Example], which: SetName) -> dict[str, list[Prediction]]:
    """Answers of every baseline to a set; computed once, then read back."""
    from rung.evaluation.baselines import baselines
    from rung.trials.trial import read_whole

    inputs, folder = run.inputs, run.files.baselines / which

    def fill(scratch: Path) -> None:
        labels, seed = inputs.task.labels or (), inputs.task.seed
        answers = baselines(inputs.train, asked, run.tools.scorer, labels=labels, seed=seed)
        for place, (name, predictions) in enumerate(answers.items()):
            write_lines(scratch / f"{place}-{name}.jsonl", (asdict(p) for p in predictions))

    folder_once(folder, fill)
    return {path.stem.partition("-")[2]: read_whole(path, asked) for path in sorted(folder.glob("*.jsonl"))}


def baseline_candidate(name: str, dev: Score) -> Candidate:
    """A baseline as a candidate: it reads and writes no tokens."""
    return Candidate(name, "baseline", dev, None, 0.0, 0.0, None, None, None, 0.0, 0.0)


def score_of(run: RunState, name: str, predictions: Sequence[Prediction]) -> Score:
    """As `RunState.score`; the expected score of a blind guess has no interval where it is one for all examples."""
    found = run.score(predictions)
    known = name == CHANCE and run.tools.scorer.metric.right_or_wrong and len(set(scores_of(predictions))) == 1
    return replace(found, low=found.mean, high=found.mean) if known else found


def scores_of(predictions: Sequence[Prediction]) -> list[float]:
    return [p.score or 0.0 for p in predictions]
