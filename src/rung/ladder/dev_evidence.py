"""What dev says beside the scores: causes, what more examples would bring, rows to look at; plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rung import runs
from rung.decision.warnings import seen_in_words
from rung.errors import DamagedRecord
from rung.ladder.abstention import inventions
from rung.ladder.again import continued_notes
from rung.ladder.citations import citing_on_dev
from rung.ladder.climbed import Climbed
from rung.ladder.experiments import like_the_pilots, pilot_predictions, whole_curve
from rung.ladder.injections import injected
from rung.ladder.model_records import model_notes
from rung.ladder.search import searches
from rung.ladder.search_failures import search_failures
from rung.ladder.skills_check import Checked
from rung.ladder.state import RunState, WholeRun
from rung.ladder.taught import RECORD, taught_by_others
from rung.resume import is_done, record_of, recorded
from rung.runs import Files
from rung.types import Diagnosis, Prediction

_WORTH_HEARING = 0.6
"""Dev mean from which a solution that contradicts a given answer may well be right."""

_LIMITS_OF_SCORES = (
    "leakage",
    "corpus_holds_test",
    "few_groups",
    "too_long",
    "unread_documents",
    "broken_document",
    "scanned_pages",
)
"""Checks whose findings about the whole the verdict repeats."""
_COUNTED_FIRST = ("leakage", "corpus_holds_test", "broken_document", "scanned_pages")
"""Those of which one finding that counts as none says how many rows there are; each row has its own."""


def dev_evidence(run: WholeRun, climbed: Climbed, checks: Sequence[Checked]) -> dict[str, Any]:
    """All that the verdict reads beside scores and costs. checks: none where no finalists were named; then what is
    known without them of the best of each model and family."""
    from rung.data.split import seen_before
    from rung.evaluation.baselines import most_frequent

    seen = seen_before(record_of(run.files.split), _earlier_tests(run))
    complete = not any(s.matters for s in climbed.skipped.values())
    piloted = _piloted(run, climbed)
    grown = whole_curve(piloted, like_the_pilots(piloted, climbed)) if piloted is not None else None
    asked = _diagnosed(run, climbed)
    names = [check.keep for check in checks] or climbed.best_of_groups()
    invented, unasked = inventions(run, climbed, names)
    followed, unplanted = injected(run, climbed)
    unfound, untried = search_failures(run, names)
    return {
        "skipped": [asdict(s) for s in climbed.skipped.values()],
        "left_early": [asdict(left) for left in climbed.left_early],
        "frequent": most_frequent([e.output for e in run.inputs.train]) if run.inputs.train else "",
        "diagnosis": [asdict(d) for d in causes(asked, climbed, by_elimination=complete)] if asked else [],
        "diagnosed": record_of(asked.files.diagnosis).get("base") if asked else None,
        "curve": {**grown, "model": piloted.name} if grown is not None and piloted is not None else None,
        "more": _more(grown),
        "closed_book": _closed_book(run, climbed),
        "suspicious": _suspicious(run, climbed),
        "hardest": _hardest(run, climbed),
        "skills": [asdict(skills) for check in checks for skills in check.skills],
        "notes": _notes(run, seen),
        "seen_before": {"examples": len(_tested(seen)), "verdicts": len(seen)},
        "invention": invented,
        "injections": followed,
        "citing": citing_on_dev(run, climbed),
        **searches(run, climbed),
        "search_failures": unfound,
        "checks_said": [*unasked, *unplanted, *untried, *(check.said for check in checks if check.said)],
        "teacher": recorded(run.files.teacher / RECORD),
        "taught": taught_by_others(run, climbed),
        "proofs": [asdict(b.versus) for b in climbed.whole().values() if b.versus is not None],
    }


def _best_model_first(run: WholeRun, climbed: Climbed) -> list[RunState]:
    """The models by the best that each has reached on dev."""
    reached = {state.name: climbed.best(model=state.name) for state in run.states}
    best = {name: climbed.built[n].dev.mean if n is not None else -1.0 for name, n in reached.items()}
    return sorted(run.states, key=lambda state: -best[state.name])  # stable: of equals, the cheapest


def _diagnosed(run: WholeRun, climbed: Climbed) -> RunState | None:
    """Of the models whose best prompt was diagnosed, the one that has reached most."""
    return next((s for s in _best_model_first(run, climbed) if is_done(s.files.diagnosis)), None)


def _piloted(run: WholeRun, climbed: Climbed) -> RunState | None:
    """Of the models that a pilot was run with, the one that has reached most."""
    return next((s for s in _best_model_first(run, climbed) if is_done(s.files.pilot)), None)


def causes(run: RunState, climbed: Climbed, *, by_elimination: bool = True) -> tuple[Diagnosis, ...]:
    """All that the experiments say about why the best prompt fails, the leading cause first.

    by_elimination: whether what nothing fixed may be named too; not where something that matters was not tried.
    """
    from rung.diagnosis.answer_places import brought
    from rung.diagnosis.causes import Tried, all_causes, nearness

    record = recorded(run.files.diagnosis)
    if record is None or record["base"] not in climbed.whole():
        return ()
    near = nearness(run.tools.scorer.metric, run.inputs.train)
    accepted = {e.id: e.references for e in run.inputs.dev}

    def judged(predictions: Sequence[Prediction]) -> dict[str, float]:
        if near is None:
            return {p.id: p.score or 0.0 for p in predictions}
        return {p.id: 0.0 if p.error else near(p.text, accepted[p.id]) for p in predictions}

    pilot = record_of(run.files.pilot)
    tuned = None
    if pilot:
        count = pilot["points"][-1]["examples"]
        tuned = (count, judged(pilot_predictions(run, count)))
    tried = [
        Tried(
            name,
            built.family,
            judged(built.predictions),
            brought(run.inputs.library, built.solution, run.inputs.dev, built.predictions)
            if built.solution.retriever is not None
            else None,
        )
        for name, built in climbed.whole(model=run.name).items()
    ]
    return all_causes(
        record, tried, tuned, seed=run.inputs.task.seed, groups=run.inputs.groups, by_elimination=by_elimination
    )


def _more(grown: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What more examples would add, where there is a curve of two sizes of training."""
    if grown is None or sum(bool(p["examples"]) for p in grown["points"]) < 2:
        return None
    more = grown["more"]
    return {"examples": int(more["examples"]), "gain": more["mean"], "low": more["low"], "high": more["high"]}


def _closed_book(run: WholeRun, climbed: Climbed) -> dict[str, Any] | None:
    """What fine-tuning without passages reaches on dev, where there is a corpus: facts that it has not seen."""
    if not run.inputs.passages:
        return None
    if best := climbed.best("fine-tune"):
        return {"what": best, "dev": climbed.built[best].dev.mean}
    piloted = _piloted(run, climbed)
    if piloted is None:
        return None
    pilot = record_of(piloted.files.pilot)
    return {"what": f"a pilot on {pilot['points'][-1]['examples']} examples", "dev": pilot["points"][-1]["mean"]}


def _suspicious(run: WholeRun, climbed: Climbed) -> list[str]:
    """Rows for a person to look at: conflicting answers, and dev answers that two good families agree against."""
    records = [record_of(state.files.diagnosis) for state in run.states]
    rows = [row for record in records for pair in record.get("label_noise", ()) for row in pair["rows"]]
    bests = [name for name in climbed.best_of_groups() if climbed.built[name].dev.mean >= _WORTH_HEARING]
    if len(bests) >= 2:
        by_id = [{p.id: p for p in climbed.built[name].predictions} for name in bests]
        for example in run.inputs.dev:
            given = [answers[example.id] for answers in by_id if example.id in answers]
            texts = {p.text.strip().casefold() for p in given}
            if len(given) >= 2 and len(texts) == 1 and not any(p.score for p in given) and given[0].text.strip():
                rows.append(example.row or example.id)
    return list(dict.fromkeys(rows))


def _hardest(run: WholeRun, climbed: Climbed) -> str | None:
    """The answer whose dev examples the best solution gets wrong most often, and how often; None without repeats."""
    best = climbed.best()
    if best is None or not run.metric.right_or_wrong:
        return None
    wrong = {p.id for p in climbed.built[best].predictions if not p.score}
    outputs: dict[str, list[bool]] = {}
    for example in run.inputs.dev:
        outputs.setdefault(example.output, []).append(example.id in wrong)
    often = {o: sum(w) for o, w in outputs.items() if len(w) >= 3 and sum(w) >= 2}
    if not often:
        return None
    worst = max(often, key=lambda o: (often[o] / len(outputs[o]), often[o]))
    return f"{worst!r} ({often[worst]} of {len(outputs[worst])} wrong on dev)"


def _notes(run: WholeRun, seen: Mapping[str, Sequence[str]]) -> list[str]:
    """Whole sentences that a reader must not miss. seen: earlier run -> ids of test examples that its test had too."""
    notes = []
    versions = list(dict.fromkeys(e["rung"] for e in runs.events(run.folder) if e["event"] == "started"))
    if len(versions) > 1:
        notes.append(f"Versions {', '.join(versions)} of rung worked on this run.")
    notes += [*_of_the_data(run.files), *model_notes(run), *continued_notes(run.folder)]
    if seen:
        notes.append(seen_in_words(len(_tested(seen)), len(run.test), list(seen)))
    return notes


def _tested(seen: Mapping[str, Sequence[str]]) -> set[str]:
    """Ids of all test examples that some earlier test had too."""
    return {i for own in seen.values() for i in own}


def _of_the_data(files: Files) -> list[str]:
    """What the checks found that makes the scores say less than they seem to."""
    found = (recorded(files.checks) or {}).get("findings", ())
    about_all = [f for f in found if not f["row"] and not (f["check"] in _COUNTED_FIRST and f.get("count"))]
    return [str(f["message"]) for f in about_all if f["check"] in _LIMITS_OF_SCORES and f["severity"] != "note"]


def _earlier_tests(run: WholeRun) -> dict[str, dict[str, Any]]:
    """Other runs whose test was opened, with their split records: those beside this one, and those in runs/ here.

    Only this very folder is left out, whose openings are counted by themselves. A repetition of it in another folder
    counts: it shows the same test examples once more.
    """
    own = run.folder.resolve()
    places = dict.fromkeys((own.parent, runs.BASE.resolve()))
    found = {}
    for path in [path for place in places for path in _inside(place)]:
        files = Files(path)
        try:
            if path.resolve() != own and is_done(files.test_reads) and "identity" in record_of(files.task):
                found[path.name if path.parent == own.parent else str(path)] = record_of(files.split)
        except (OSError, DamagedRecord):  # a folder of somebody else's
            continue
    return found


def _inside(folder: Path) -> list[Path]:
    """What a folder holds, by name; nothing where it is not there or may not be listed."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
