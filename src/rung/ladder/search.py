"""How passages are found: measured once a run, on train questions, before anything that reads passages is built.

What was measured and what is best stands in search.json, with what was not tried and why. All models share it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from rung import runs
from rung.errors import BudgetSpent, SealedTestError, fault_text
from rung.ladder.climbed import Climbed
from rung.ladder.ledger import Meter, spent_on, stage_of
from rung.ladder.state import RunState, WholeRun
from rung.records import from_record, write_json
from rung.resume import is_done, recorded
from rung.types import RetrieverSpec

_FEW = (
    "The ways to find passages could not be told apart on train: for too few questions a passage is known to hold the "
    "answer. Mark such passages as gold_ids in the examples; marks that rung init made do not count here."
)
_NOT_MEASURED = (
    "The ways to find passages were not measured: the budget left no time. Passages were found by words alone, unless "
    "the task names other ways."
)


def measure_search(run: RunState, climbed: Climbed) -> None:
    """Leaves search.json, where something is to read passages.

    A fault ends nothing: the plainest way is tried then, and the record says why. Where the budget ends it, there is no
    record, and the next command measures it. Where it has no room for asking the model, the model is not asked.
    """
    from rung.trials.search_choice import measured_search

    planned = run.plan.searching
    if planned is None or is_done(run.files.search):
        return
    folder, step = run.folder / "search", run.plan.search
    spent = spent_on(folder)
    seconds = max(0.0, step.seconds - spent.seconds)
    if (why := run.over_budget(climbed, seconds, 0)) is not None:
        runs.log(run.folder, "not searched", why=why)
        return
    asking = (
        run.over_budget(climbed, seconds, max(0, step.calls - spent.calls), usd=max(0.0, step.usd - spent.usd)) is None
    )
    meter = Meter(run.asked, folder)
    try:
        workshop = run.workshop(folder, climbed, meter)
        record = measured_search(workshop, planned.specs, folder, sizes=planned.sizes, asking=asking)
    except (BudgetSpent, SealedTestError) as ended:
        runs.log(run.folder, "not searched", why=str(ended))
        if isinstance(ended, SealedTestError):
            raise
        return
    except Exception as defect:  # of a registered index, a library or rung
        best, why = asdict(planned.specs[0]), fault_text(defect)
        record = {"questions": 0, "tried": [], "sizes": [], "best": [best], "not_tried": [], "fault": why}
    run.inputs.library.keep_only([from_record(RetrieverSpec, spec) for spec in record["best"]])
    record["not_tried"] = [{"what": what, "why": why} for what, why in planned.not_tried] + record["not_tried"]
    write_json(run.files.search, record)
    runs.log(run.folder, "searched", stage=stage_of(run.folder, folder), **meter.record())
    meter.done()
    for line in in_words(record):
        run.listener.say(line)


def in_words(record: Mapping[str, Any]) -> list[str]:
    """What a person following the run is told."""
    tried = {row["way"]: row for row in record["tried"]}
    said = []
    if tried:
        listed = ", ".join(f"{name} {100 * row['recall']['5']['mean']:.0f} %" for name, row in tried.items())
        said.append(
            f"passages that hold the answer among the first 5, on {record['questions']} train questions: {listed}"
        )
        said += [f"these passages are {known}"] if (known := known_in_words(record)) else []
    elif "fault" in record:
        said.append(f"the ways to find passages were not measured: {record['fault'].rstrip('.')}")
    else:
        said.append("the ways to find passages cannot be told apart on train: too few questions have a known passage")
    return said + [f"not tried: {row['what']}: {row['why']}" for row in record["not_tried"]]


def known_in_words(record: Mapping[str, Any]) -> str:
    """How the passages are known that the ways were measured by, and for how many questions none is.

    Empty where none was looked for, or an older version did not count.
    """
    gold = record.get("gold")
    if not gold or "n" not in gold:
        return ""
    ways = {
        "marked": "marked by you",
        "contained": "found by containing the answer",
        "model": "pointed out by the model",
    }
    how = ", ".join(f"{ways[name]} for {gold['counts'][name]:,}" for name in ways if gold["counts"][name])
    left = gold["n"] - record["questions"]
    if not left:
        return f"{how} of {gold['n']:,}"
    out = (
        f"{left:,} of {gold['n']:,} questions are left out, as no way found a passage that is known to hold the answer"
    )
    return f"{how}; {out}"


def searches(run: WholeRun, climbed: Climbed) -> dict[str, Any]:
    """Fields of the evidence: the ways as they were measured, and sentences about what was not tried."""
    from rung.retrieval.ways import way

    record = recorded(run.files.search)
    if record is None:
        reads = any("rag" in built.family for built in climbed.built.values())
        return {"searches_not_tried": [_NOT_MEASURED]} if reads else {}
    best = climbed.built.get(climbed.best("rag") or climbed.best("rag+fine-tune") or "")
    spec = best.solution.retriever if best is not None else None
    chosen = ""
    if spec is not None:  # what the model adds is told apart on dev
        plain = replace(spec, reranker=spec.cross_encoder)
        names = (way(plain), way(replace(plain, query="conversation")), way(replace(plain, query="input")))
        chosen = next((name for name in names if any(row["way"] == name for row in record["tried"])), "")
    known = known_in_words(record)
    rows = [("way", row) for row in record["tried"]] + [("size", row) for row in record["sizes"]]
    found = [
        {
            "way": row["way"],
            "stage": stage,
            "n": row["n"],
            "recall_1": row["recall"]["1"],
            "recall_5": row["recall"]["5"],
            **{key: row[key] for key in ("ndcg", "mrr", "shown", "build_s", "query_ms")},
            "chosen": stage == "way" and row["way"] == chosen,
            "known": known,
        }
        for stage, row in rows
    ]
    said = [f"{_capital(row['what'])} was not tried: {row['why'].rstrip('.')}." for row in record["not_tried"]]
    if "fault" in record:
        said.insert(0, f"The ways to find passages were not measured: {record['fault'].rstrip('.')}.")
    elif not record["tried"]:
        said.insert(0, _FEW)
    return {"searches": found, "searches_not_tried": said}


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
