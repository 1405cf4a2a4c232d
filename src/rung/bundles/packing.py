"""A solution of a run -> a bundle: everything is read from the run's records, and written into an empty folder.

No path of this machine is written. The same records give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rung import __version__
from rung.bundles.bases import BundledBase, base_of
from rung.bundles.card import card_of
from rung.bundles.caveats import caveats_of, seen_before, without_paths
from rung.bundles.files import CARD, NOTE, hashes_of
from rung.bundles.licences import UNKNOWN, licence_of_model
from rung.bundles.recorded import recorded_of, write_recorded
from rung.bundles.scoring import scoring_note
from rung.decision import answers_of
from rung.errors import RunError
from rung.models import vllm_may_answer
from rung.models.places import remember
from rung.records import write_json, write_text
from rung.resume import record_of, recorded
from rung.runs import Files
from rung.types import Decision, Example, Prediction, RetrieverSpec, Score, Solution, model_of

FORMAT = 2
_PATHS_IN = ("_name_or_path", "name_or_path", "base_model_name_or_path", "model", "base")
"""Keys of JSON files of an adapter that may hold a place of this machine."""


def pack(run: Path, name: str, folder: Path, *, dev: Sequence[Example], examples: bool = True) -> None:
    """Fills an empty folder with the bundle of a solution.

    run: the run folder. name: the solution's. dev: the run's dev examples, as far as they can be read. examples:
    whether answers to some of them are put in; see `recorded`. Raises RunError where the run does not hold the
    solution, or fewer of its answers to dev than the verdict counts.
    """
    from rung.solutions.store import load_passages, load_solution, save_solution

    place = run / "solutions" / name
    solution = load_solution(place)
    task = record_of(run / "task.json")
    said = note_of_run(place, task)
    base = base_of(said["model"], said["model_version"])
    portable, search = _without_places(solution)
    save_solution(portable, folder, passages=load_passages(place))
    if solution.adapter is not None:
        _rename_base(folder / "adapter", base)
    decision, predictions = _decision_of(run), answers_to_dev(run, name)
    groups = record_of(run / "split.json").get("groups", {})
    answers = recorded_of(dev, predictions, groups, task.get("seed", 0)) if examples else []
    if answers:
        write_recorded(folder, answers)
    scoring = scoring_note(task, folder)
    abstain, right_or_wrong = task.get("abstain"), bool(scoring["right_or_wrong"])
    caveats = caveats_of(Files(run), solution, decision, abstain=abstain, right_or_wrong=right_or_wrong)
    note = {
        "format": FORMAT,
        "rung": __version__,
        "task": task["name"],
        "solution": solution.name,
        "family": solution.family,
        "trained": _trained(solution),
        "model": base.model,
        "model_version": base.version,
        "base": base.record,
        "engine": said.get("engine", "local"),
        "search": search,
        "instruction": task.get("instruction"),
        "abstain": abstain,
        "metric": scoring,
        "margin": decision.margin if decision is not None else _margin(),
        "figures": _figures(Files(run), name, decision, predictions, groups, task),
        "caveats": [asdict(caveat) for caveat in caveats],
        "licenses": {"base": licence_of_model(said["model"]), "data": task.get("license") or UNKNOWN},
        **_verdict(name, decision),
    }
    write_text(folder / CARD, card_of(note, solution, recorded=bool(answers)))
    write_json(folder / NOTE, {**note, "files": hashes_of(folder)})


def answers_to_dev(run: Path, name: str) -> list[Prediction]:
    """What a solution of a run answered to dev; none where there is no such file.

    Raises DamagedRecord where it has fewer answers than the verdict counts.
    """
    from rung.trials.trial import read_predictions

    path = run / "solutions" / name / "predictions.dev.jsonl"
    return read_predictions(path, least=answers_of(_decision_of(run), name, "dev"))


def _trained(solution: Solution) -> str | None:
    """What `adapter/` holds: an adapter, or all weights."""
    if solution.adapter is None:
        return None
    return "adapter" if (Path(solution.adapter) / "adapter_config.json").is_file() else "weights"


def note_of_run(place: Path, task: Mapping[str, Any]) -> dict[str, Any]:
    """The model of a run's solution, its version, and what the task says. place: the solution's folder. task:
    task.json, as this version or an older one wrote it. Raises RunError where the run names the model no more.
    """
    if "models" not in task:
        return {"model": task["model"], "model_version": task["model_version"]}
    own, versions = model_of(place.name), task["model_versions"]
    for spec in task["models"]:
        if spec["name"] == own or (not own and versions[spec["name"]] == task["home"]):
            version = versions[spec["name"]]
            said = {key: task.get(key) for key in ("instruction", "abstain")}
            engine = {"engine": "vllm"} if task.get("engine") == "vllm" and vllm_may_answer(spec["spec"]) else {}
            return {"model": spec["spec"], "model_version": version, **said, **engine}
    raise RunError(
        f"{place}: the run no longer names the model of this solution{f', {own}' if own else ''}. Name it again in "
        "task.yaml, and run it with --again."
    )


def _decision_of(run: Path) -> Decision | None:
    """The verdict; None where there is none yet."""
    from rung.decision import decision_from_record

    record = recorded(run / "decision.json")
    return decision_from_record(record) if record is not None else None


def _margin() -> float:
    from rung.evaluation.statistics import MARGIN

    return MARGIN


def _verdict(name: str, decision: Decision | None) -> dict[str, Any]:
    """What the run says of this solution; its headline is of the solution that it ships alone."""
    if decision is None or decision.solution != name:
        return {"choice": None, "headline": None}
    return {"choice": decision.choice, "headline": without_paths(decision.headline)}


# ---- figures ----------------------------------------------------------------------------------


def _figures(
    run: Files,
    name: str,
    decision: Decision | None,
    predictions: Sequence[Prediction],
    groups: Mapping[str, str],
    task: Mapping[str, Any],
) -> dict[str, Any]:
    """Scores on dev, which the run chose by, and on the sealed test, with what a request takes. None: not measured."""
    candidate = next((c for c in decision.candidates if c.name == name), None) if decision is not None else None
    if decision is None or candidate is None:
        dev = _score(predictions, groups, task.get("seed", 0))
        return {"dev": _seen(dev), "test": None, "floor": None, "comparisons": []}
    test = candidate.test
    kept = ("tokens_in", "tokens_out", "latency_s_p50", "latency_s_p95", "cost_per_1k_usd")
    return {
        "dev": _seen(candidate.dev),
        "test": _tested(test, decision, seen_before(run, decision)) if test is not None else None,
        "floor": decision.floor,
        **{key: getattr(candidate, key) for key in kept},
        "comparisons": [asdict(c) for c in decision.comparisons if name in (c.a, c.b)],
    }


def _tested(score: Score, decision: Decision, seen: dict[str, int] | None) -> dict[str, Any]:
    """The score on the sealed test, and how often that, or some of its examples in another run, was looked at."""
    looked_at = bool(seen and seen["examples"])
    return {**asdict(score), "seen": looked_at, "seen_before": seen, "opened": decision.test_reads}


def _seen(score: Score | None) -> dict[str, Any] | None:
    return {**asdict(score), "seen": True} if score is not None else None


def _score(predictions: Sequence[Prediction], groups: Mapping[str, str], seed: int) -> Score | None:
    from rung.evaluation.statistics import score, units_of

    if not predictions:
        return None
    units = units_of([p.id for p in predictions], groups)
    return score([p.score or 0.0 for p in predictions], groups=units, seed=seed)


# ---- without places ---------------------------------------------------------------------------


def _without_places(solution: Solution) -> tuple[Solution, dict[str, Any]]:
    """The solution with folders of its search by their names alone, and what bundle.json says of these folders."""
    spec, search = solution.retriever, {}
    if spec is None:
        return solution, {}
    for key in ("embedder", "reranker"):
        kind, colon, name = getattr(spec, key).rpartition(":")
        if Path(name).is_absolute():
            spec, search[key] = _named(spec, key, f"{kind}{colon}", Path(name))
    return replace(solution, retriever=spec), search


def _named(spec: RetrieverSpec, key: str, kind: str, path: Path) -> tuple[RetrieverSpec, dict[str, str]]:
    from rung.models.identity import content_version

    version = content_version(path)
    remember(version, str(path))
    return replace(spec, **{key: f"{kind}{path.name}"}), {"name": path.name, "version": version}  # type: ignore[arg-type]


def _rename_base(adapter: Path, base: BundledBase) -> None:
    """Names the base without a path in an adapter's own files: an id that PEFT finds, or a name beside its version."""
    for path in adapter.glob("*.json"):
        record = json.loads(path.read_text("utf-8")) if path.stat().st_size < 1 << 20 else None
        if not isinstance(record, dict):
            continue
        changed = dict(record)
        for key in _PATHS_IN:
            if isinstance(record.get(key), str) and Path(record[key]).is_absolute():
                changed[key] = base.for_peft
        if path.name == "adapter_config.json":
            changed["base_model_name_or_path"] = base.for_peft
            if base.kind == "hub":
                changed["revision"] = base.revision
        if path.name == "base.json":
            changed |= {"model": base.model, "base": base.for_peft}
        if changed != record:
            write_json(path, changed)
