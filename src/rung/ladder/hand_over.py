"""The winner, or any other solution of a run, as a bundle: the folder to ship."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from rung import runs
from rung.bundles.packing import FORMAT, pack
from rung.errors import RunError, RungError
from rung.ladder.state import WholeRun
from rung.resume import folder_once, record_of, recorded
from rung.types import Decision, Example


def hand_over(run: WholeRun, decision: Decision) -> None:
    """Puts the bundle of the solution to ship into winner/, in the place of what an earlier verdict left there."""
    folder, name = run.files.winner, decision.solution
    note = record_of(folder / "bundle.json")
    if (note.get("format"), note.get("solution"), note.get("headline")) != (FORMAT, name, decision.headline):
        shutil.rmtree(folder, ignore_errors=True)
    if name is not None:
        folder_once(folder, lambda scratch: pack(run.files.folder, name, scratch, dev=run.inputs.dev))


def bundle_run(
    run: Path,
    solution: str | None,
    out: Path,
    *,
    examples: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Writes the bundle of a run's solution into the new folder `out`, and returns it.

    solution: None: the one that the verdict ships. examples: whether dev examples with their recorded answers are put
    in, where the data of the run is still there. Raises RunError.
    """
    runs.check_run(run)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out}: is there already. Name a new folder with --out.")
    built = runs.Files(run).built
    name = solution or _shipped(run, built)
    if name not in built:
        raise RunError(f"{run}: no solution {name!r} here; there are {', '.join(built) or 'none yet'}.")
    dev = dev_examples(run) if examples else ()
    if examples and not dev:
        say(
            f"The data of {run} cannot be read as it was, so that the bundle holds no recorded answers: rung "
            "check-bundle and rung export then need --examples."
        )
    try:
        if out.is_dir():
            out.rmdir()
        return folder_once(out, lambda scratch: pack(run, name, scratch, dev=dev, examples=examples))
    except OSError as error:
        fact = f"{error.filename or out}: {error.strerror}"
        raise RunError(f"{out}: the bundle cannot be written ({fact}). Name another folder with --out.") from error


def dev_examples(run: Path) -> Sequence[Example]:
    """The dev examples of a run that ended: from its data, as far as its rows are what they were; else those that its
    winner holds. Rows of other sets are never returned."""
    from rung.bundles.recorded import read_recorded
    from rung.data.examples import read_examples
    from rung.data.split import row_digest
    from rung.data.task_file import read_task
    from rung.ladder.identity import file_hashes

    split, record = record_of(run / "split.json"), record_of(run / "task.json")
    digests, dev = split.get("row_digests"), split.get("sets", {}).get("dev", ())
    try:
        task = read_task(Path(record["path"]))
        by_id = {e.id: e for e in read_examples(task)}
        if digests is None and file_hashes(task) != record["data"]:  # an older version kept no digests
            by_id = {}
    except (RungError, KeyError, OSError):
        by_id = {}
    found = [by_id[i] for i in dev if i in by_id and (digests is None or row_digest(by_id[i]) == digests.get(i))]
    return found or [answer.example for answer in read_recorded(runs.Files(run).winner)]


def _shipped(run: Path, built: Sequence[str]) -> str:
    """The solution that the verdict ships. built: those that there are. Raises RunError where it ships none."""
    choose = f"Name a solution: rung bundle {run} SOLUTION --out DIR; there are {', '.join(built) or 'none yet'}."
    decision = recorded(run / "decision.json")
    if decision is None or decision["choice"] == "unfinished":
        raise RunError(f"{run}: not finished, so there is no winner yet. {choose}")
    if decision["solution"] is None:
        raise RunError(f"{run}: the verdict is {decision['choice']!r}, so there is no winner. {choose}")
    return str(decision["solution"])
