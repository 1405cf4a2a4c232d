"""The practical path: load, say what can be known, climb, open the sealed test once, decide, hand over.

Every stage leaves a file and looks for it first, so the same command after an interruption goes on
where it stopped and ends in the same decision. `loading` reads, `climbing` chooses and builds by the
expectations of `gains`, `closing` tests and decides; what a rung does is in strategies, and what the
numbers mean in decision.
"""

from __future__ import annotations

import time
from pathlib import Path

from rung import runs
from rung.errors import TaskError
from rung.ladder.state import Listener as Listener
from rung.ladder.state import RunOptions as RunOptions
from rung.records import read_json, write_json
from rung.strategies import STRATEGIES
from rung.types import Example


def run(task_path: Path, options: RunOptions, listener: Listener) -> Path:
    """Runs or continues a task and returns its run folder, in which decision.json then lies.

    Raises RungError, with nothing lost, for everything the user can mend.
    """
    from rung.data.task_file import read_task
    from rung.ladder.climbing import climb
    from rung.ladder.closing import decide_and_hand_over
    from rung.ladder.loading import load, load_network, prepare, task_record_of
    from rung.ladder.plan import machine

    started = time.monotonic()
    task = read_task(task_path)
    unknown = [name for name in options.only if name not in STRATEGIES]
    if unknown:
        raise TaskError(f"--only {unknown[0]}: no such strategy; there are {', '.join(STRATEGIES)}.")
    loaded = load(task, options, listener)
    record = task_record_of(task, options, loaded)
    folder = runs.choose_folder(task.name, record["identity"], out=options.out)
    if runs.is_finished(folder):
        listener.say(f"{folder} is finished: this is its verdict. To run again, name another folder with --out.")
        return folder
    model = load_network(task, loaded.constraint, listener)
    with runs.held(folder):
        if read_json(folder / "task.json") is None:
            write_json(folder / "task.json", {**record, **machine(model)})  # first: it says whose folder this is
        write_json(folder / "checks.json", loaded.checks)
        prepared = prepare(task, loaded, model, folder, listener, started)
        built, skipped = climb(prepared)
        decide_and_hand_over(prepared, built, skipped)
        runs.mark_finished(folder)
    return folder


def test_examples(folder: Path) -> dict[str, Example]:
    """Examples of a finished run by id, for its report; empty when the files are no longer what they were.

    A run without a verdict gives none: its test is still sealed.
    """
    if not (folder / "decision.json").is_file():
        return {}
    from rung.data.examples import read_examples
    from rung.data.task_file import read_task
    from rung.errors import RungError
    from rung.ladder.plan import file_hashes

    record = read_json(folder / "task.json") or {}
    try:
        task = read_task(Path(record["path"]))
        if file_hashes(task) != record["data"]:
            return {}
        return {e.id: e for e in read_examples(task)}
    except (RungError, KeyError, OSError):
        return {}
