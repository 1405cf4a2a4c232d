"""How passages are found: measured once a run, on train questions, before anything that reads passages is built.

What was measured and what is best stands in search.json, with what was not tried and why. All models share it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rung import runs
from rung.errors import BudgetSpent, RungError, SealedTestError
from rung.ladder.climbed import Climbed
from rung.ladder.ledger import Meter, stage_of
from rung.ladder.state import RunState
from rung.records import write_json
from rung.resume import is_done
from rung.types import Document, Example, RetrieverSpec


def measure_search(run: RunState, climbed: Climbed) -> None:
    """Leaves search.json, where something is to read passages.

    A fault in an index ends nothing: the plainest way is tried then, and the record says why. Where the budget ends it,
    there is no record, and the next command measures it.
    """
    from rung.trials.search_choice import measured_search

    planned = run.plan.searching
    if planned is None or is_done(run.files.search) or run.over_budget(climbed, run.plan.search.seconds, 0):
        return
    folder = run.folder / "search"
    meter = Meter(run.asked, folder)
    try:
        record = measured_search(run.workshop(folder, climbed, meter), planned.specs, _gold(run))
    except (BudgetSpent, SealedTestError) as ended:
        runs.log(run.folder, "not searched", why=str(ended))
        if isinstance(ended, SealedTestError):
            raise
        return
    except Exception as defect:  # of a registered index, a library or rung
        why = str(defect) if isinstance(defect, RungError) else f"{type(defect).__name__}: {defect}"
        record = {"questions": 0, "tried": [], "sizes": [], "best": [asdict(planned.specs[0])], "fault": why}
    record["not_tried"] = [{"what": what, "why": why} for what, why in planned.not_tried]
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
    elif "fault" in record:
        said.append(f"the ways to find passages were not measured: {record['fault'].rstrip('.')}")
    else:
        said.append("the ways to find passages cannot be told apart on train: too few questions have a known passage")
    return said + [f"not tried: {row['what']}: {row['why']}" for row in record["not_tried"]]


def _gold(run: RunState):  # type: ignore[no-untyped-def]
    library = run.inputs.library

    def gold(example: Example, spec: RetrieverSpec, pooled: Sequence[Document]) -> frozenset[str]:
        return library.gold(spec).relevant(example, pooled)

    return gold
