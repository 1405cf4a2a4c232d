"""`rung synth`."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rung.cli.as_json import json_option, print_json

if TYPE_CHECKING:
    from rung.ladder.synthesis import Prepared
    from rung.teaching.synthesis import Synthesis

_REASONS = 3  # that are named where rows of a kind are lacking
KINDS = ("new", "paraphrase", "document", "unanswerable")


@click.command()
@click.argument("task", type=click.Path(path_type=Path))
@click.option("--n", "rows", type=click.IntRange(min=1), default=500, show_default=True, help="Rows that are wanted.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Default: synthetic.jsonl beside the task."
)
@click.option(
    "--kind",
    "kinds",
    type=click.Choice(KINDS),
    multiple=True,
    help="Kinds of rows; may be named several times. Default: all that the task can have.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Another seed writes other rows. Default: the task's.")
@click.option(
    "--bar",
    type=click.FloatRange(0, 1),
    help="Least score of the teacher on known rows, by the task's metric. Default: 0.6.",
)
@click.option(
    "--usd", type=click.FloatRange(min=0, min_open=True), help="Most dollars to spend, all commands together."
)
@click.option("--plan", "only_plan", is_flag=True, help="Show what would be asked, and ask nothing.")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@json_option
def synth(
    task: Path,
    rows: int,
    out: Path | None,
    kinds: tuple[str, ...],
    seed: int | None,
    bar: float | None,
    usd: float | None,
    only_plan: bool,
    force: bool,
    as_json: bool,
) -> int:
    """Let the teacher of TASK (a task.yaml) write examples to train on, each with its origin.

    It writes new inputs where examples are thin, says train inputs in other words, and asks questions about the
    corpus. Each input is answered three times; what has no majority, breaks the task's form, or nearly repeats a row of
    the task is left out. First the teacher answers rows that are known: below the bar nothing is written.

    The plan is shown before anything is spent. The same command continues one that was interrupted. Look at the rows
    with rung review, and name the file under synthetic: in task.yaml; they train, and never judge.
    """
    from rich.console import Console

    from rung.ladder.synthesis import SynthOptions, prepare
    from rung.report.terminal import TerminalListener

    options = SynthOptions(rows, out, kinds, seed, bar, usd, force or only_plan)
    with TerminalListener(Console(stderr=True)) as listener:
        ready = prepare(task, options, listener.say)
        for line in ready.plan.lines:
            listener.say(line)
        if only_plan:
            return print_json(_planned(ready)) if as_json else 0
        found = ready.write(lambda what, share: listener.progress(what, share, None))
    if as_json:
        return print_json(_record(ready, found))
    for line in _told(ready, found, task):
        click.echo(line)
    return 0


def _planned(ready: Prepared) -> dict[str, Any]:
    plan = ready.plan
    return {"out": str(ready.out), "teacher": plan.teacher, "wanted": dict(plan.wanted), "plan": list(plan.lines)}


def _record(ready: Prepared, found: Synthesis) -> dict[str, Any]:
    return {
        **_planned(ready),
        "rows": len(found.rows),
        "written": dict(found.by_kind),
        "left_out": dict(found.rejected),
        "spare": found.spare,
        "teacher_scores": found.known.said,
        "calls": found.calls,
        "usd": None if ready.plan.usd is None else found.usd,
    }


def _too_few(ready: Prepared, found: Synthesis) -> list[str]:
    """Of which kinds fewer rows came than were wanted, and what most often kept their inputs out."""
    lines = []
    for kind, wanted in ready.plan.wanted.items():
        came = found.by_kind.get(kind, 0)
        if came >= wanted:
            continue
        why = Counter(found.why_left_out.get(kind)).most_common(_REASONS)
        most = ", ".join(f"{reason} ({n:,})" for reason, n in why)
        left = f"left out: {most}" if most else "too few inputs were written"
        lines.append(f"Of {wanted:,} {kind} rows that were wanted {came:,} came; {left}.")
    return lines


def _told(ready: Prepared, found: Synthesis, task: Path) -> list[str]:
    """What came of it, line by line."""
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in found.by_kind.items())
    paid = "" if ready.plan.usd is None else f", {found.usd:.2f} USD"
    wanted = sum(ready.plan.wanted.values())
    of = f" of {wanted:,}" if len(found.rows) < wanted else ""
    lines = [
        f"{len(found.rows):,}{of} row{'' if wanted == 1 else 's'} written to {ready.out}: {kinds}.",
        *_too_few(ready, found),
        f"{ready.plan.teacher} scores {found.known.said}.",
    ]
    if found.rejected:
        lines.append(f"Left out of {sum(found.rejected.values()) + len(found.rows) + found.spare:,} inputs:")
        lines += [f"  {n:>6,}  {why}" for why, n in Counter(found.rejected).most_common()]
    if found.spare:
        lines.append(f"Good as well, and not needed: {found.spare:,}.")
    file = shlex.quote(str(ready.out))
    named = ready.out.name if ready.out.parent == task.absolute().parent else ready.out
    return [
        *lines,
        f"Asked: {found.calls:,} times{paid}.",
        "",
        f"Look at them: rung review {file}",
        f"Train with them: synthetic: {named} in {task.name}",
    ]
