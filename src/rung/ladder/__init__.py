"""The practical path: load, say what can be known, climb, open the sealed test once, decide, hand over.

Every stage leaves a record and looks for it first, so the same command after an interruption goes on where it stopped
and ends in the same verdict. `loading` reads; `climbing` chooses and builds by the expectations of `gains` and the
`experiments`; `finalists` ends the climb; `final_test` opens the test and decides. What a strategy does is in
strategies, and what the numbers mean in decision.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rung import runs
from rung.errors import BudgetSpent
from rung.ladder.options import Listener as Listener
from rung.ladder.options import RunOptions as RunOptions
from rung.records import read_json
from rung.resume import is_done, recorded
from rung.runs import Files
from rung.types import Decision, Example


def run(task_path: Path, options: RunOptions, listener: Listener) -> Path:
    """Runs or continues a task and returns its run folder, in which decision.json then lies.

    Raises RungError, with nothing lost, for everything the user can correct.
    """
    from rung.data.task_file import read_task
    from rung.ladder.climbing import climb
    from rung.ladder.final_test import test_and_decide
    from rung.ladder.finalists import name_finalists, named
    from rung.ladder.hand_over import hand_over
    from rung.ladder.identity import task_record_of
    from rung.ladder.judging import judge_baselines
    from rung.ladder.ledger import clocked
    from rung.ladder.loading import examine, load, start, with_options
    from rung.ladder.model_records import record_models
    from rung.ladder.opening import open_models
    from rung.ladder.other_cards import on_other_cards
    from rung.ladder.unfinished import write_unfinished
    from rung.strategies.fit import tidy_given_up

    task = with_options(read_task(task_path), options)
    loaded = load(task, listener)
    task = loaded.read.task
    record = task_record_of(task, options, loaded.read.metric, loaded.versions, loaded.helpers, loaded.read.documents)
    basis = record["basis"] if options.again else None
    folder = runs.choose_folder(task.name, record["identity"], out=options.out, basis=basis, engine=task.engine)
    files = Files(folder)
    if runs.is_finished(folder) and not options.again:
        listener.say(f"{folder} is finished: this is its verdict. {_how_to_go_on(task_path, options)}")
        return folder
    if where := _where(folder, task.name, record, options):
        listener.say(where)
    examined = examine(loaded, options, kept := read_json(files.split), listener)
    models = open_models(task, examined.constraint, listener)
    with runs.held(folder), clocked(folder), _saying_how_to_pay(folder):
        runs.check_identity(folder, record["identity"], basis, task.engine)  # another may have begun here meanwhile
        if runs.is_finished(folder) and not options.again:
            return folder
        if options.again and (now := read_json(files.split)) != kept:  # it has, and changed train
            examined = examine(loaded, options, now, listener)
        run = start(task, loaded, examined, models, folder, record, options, listener)
        try:
            finalists = named(run)
            if finalists is None:
                judge_baselines(run, "dev", run.inputs.dev)  # before dollars are kept back for the test
                with on_other_cards(run):
                    climbed = climb(run, finish=options.finish)
                record_models(run)
                if climbed.missing and not options.finish:
                    write_unfinished(run, climbed, options.only)
                    return folder
                finalists = name_finalists(run, climbed, finish=options.finish, only=options.only)
            decision = verdict(files) or test_and_decide(run, finalists)
            hand_over(run, decision)
        finally:
            run.first.ledger.close()
            record_models(run)
        tidy_given_up(folder)
        runs.mark_finished(folder)
    return folder


def verdict(files: Files) -> Decision | None:
    """The verdict that rests on the test; None as long as there is none."""
    from rung.decision import decision_from_record

    record = recorded(files.decision)
    if record is None or record.get("choice") == "unfinished":
        return None
    return decision_from_record(record)


def _how_to_go_on(task_path: Path, options: RunOptions) -> str:
    """The command is to be given where this one was; without --out it finds the folder as this one did."""
    words = ["rung", "run", str(task_path)]
    words += ["--out", str(options.out)] if options.out is not None else []
    words += ["--engine", options.engine] if options.engine is not None else []
    again = shlex.join([*words, "--again"])
    return f"To try more in it: {again}. To begin anew, name another folder with --out."


def _how_to_go_on_with_another(alike: Sequence[Path]) -> str:
    """alike: runs of the same task, the newest last; --again by itself goes on with a finished one."""
    other = next(filter(runs.is_finished, reversed(alike)), alike[-1])
    add = "--again" if runs.is_finished(other) else f"--again --out {other}"
    return (
        f"{other} holds the same task with other models or examples: to go on with that one instead, stop this and "
        f"add {add}."
    )


def _where(folder: Path, name: str, record: Mapping[str, Any], options: RunOptions) -> str:
    """Where the run lies, and of a new one what it has to do with earlier runs; empty: nothing is said."""
    from rung.ladder.again import changed_documents

    lies = f"This run lies in {folder}." if options.again else ""
    earlier = runs.of_name(name)
    if is_done(Files(folder).task) or options.out is not None or not earlier:
        return lies
    if alike := runs.of_basis(name, record["basis"]):
        return f"This run lies in {folder}. {_how_to_go_on_with_another(alike)}"
    last = earlier[-1]
    before = read_json(last / "task.json") or {}
    if (begun := runs.engine_of(before)) != runs.engine_of(record):
        fact = (
            f"{last} was begun with engine {begun}, and answers of two engines are not mixed; --engine {begun} goes on "
            "with that one"
        )
    elif changed := changed_documents(before, record):
        fact = f"documents changed since {last} ({changed}), and they are part of what decides scores"
    elif options.again:
        fact = (
            f"what decides scores beside models and examples is another than in {last}, such as instruction or metric"
        )
    else:
        return lies
    return f"This is a new run, in {folder}: {fact}. Nothing of {last} holds for it."


@contextmanager
def _saying_how_to_pay(folder: Path) -> Iterator[None]:
    """Within: BudgetSpent that ends the run says so, and how to go on."""
    try:
        yield
    except BudgetSpent as spent:
        raise BudgetSpent(
            f"{folder}: the budget ended before the verdict: {str(spent).rstrip('.')}. Nothing is lost: give the same "
            "command with a larger --usd, which counts all commands on the run."
        ) from spent


def test_examples(folder: Path) -> dict[str, Example]:
    """Examples of a finished run by id, for its report; empty when the files are no longer what they were.

    A run whose test is still sealed gives none.
    """
    if not is_done(Files(folder).test_reads) or not is_done(Files(folder).decision):
        return {}
    from rung.data.examples import read_examples
    from rung.data.task_file import read_task
    from rung.errors import RungError
    from rung.ladder.identity import file_hashes

    record = read_json(folder / "task.json") or {}
    try:
        task = read_task(Path(record["path"]))
        if file_hashes(task) != record["data"]:
            return {}
        return {e.id: e for e in read_examples(task)}
    except (RungError, KeyError, OSError):
        return {}
