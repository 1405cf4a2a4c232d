"""`rung check`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rung.cli.as_json import json_option, print_json
from rung.errors import DataError

if TYPE_CHECKING:
    from rung.data.fixing import Fixed
    from rung.ladder.checking import CheckedData
    from rung.report.checks import CheckPage

STOPS = 2
"""Exit code where something must be corrected first."""


@click.command()
@click.argument("task", type=click.Path(path_type=Path))
@json_option
@click.option("--all", "every", is_flag=True, help="Print every row that is found, not only the first of each kind.")
@click.option("--strict", is_flag=True, help="Exit with 2 for warnings, too.")
@click.option("--fix", type=click.Path(path_type=Path), metavar="OUT", help="Write a cleaned copy into the folder OUT.")
@click.option("--mask", is_flag=True, help="With --fix: replace personal data and secrets, documents included.")
def check(task: Path, as_json: bool, every: bool, strict: bool, fix: Path | None, mask: bool) -> int:
    """Check the data of TASK (a task.yaml) before anything is spent: what is wrong, in which rows, and what to do.

    No model is needed. The exit code is 2 when something must be corrected before a run, else 0. With --fix, what can
    be mended without a doubt is mended in a copy, and every change is listed; the original is never touched.
    """
    from rung import api

    if mask and fix is None:
        raise click.UsageError("--mask changes a copy: name a folder for it, as in --fix clean --mask.")
    try:
        checked = api.check(task, say=_say)
    except DataError:
        if fix is None:
            raise
        return _print_fixed(_fix(task, fix, mask), {}, as_json)  # what cannot be checked may still be mended
    page = _page(task, checked, fix)
    stops = any(f.severity == "error" or (strict and f.severity == "warning") for f in checked.findings)
    if fix is not None:
        return _print_fixed(_fix(task, fix, mask, checked), _record(page, checked), as_json)
    code = STOPS if stops else 0
    if as_json:
        return print_json(_record(page, checked), code)
    _print(page, every)
    return code


def _say(line: str) -> None:
    click.echo(line, err=True)


def _page(task: Path, checked: CheckedData, fix: Path | None) -> CheckPage:
    from rung.report.checks import CheckPage

    found = tuple(asdict(f) for f in checked.findings)
    return CheckPage(task, (*_about(checked), *checked.reading), found, () if fix else _next_steps(task, checked))


def _about(checked: CheckedData) -> list[str]:
    """What was read: rows by set, how answers are judged, and whether white space counts."""
    task = checked.task
    rows = sum(map(len, checked.sets.values()))
    answers = f"one or more of {len(task.labels or ())} labels" if task.multi_label else ""
    answers = answers or (f"one of {len(task.labels)} labels" if task.labels else "")
    answers = answers or ("JSON of a schema" if task.schema else "text of a pattern" if task.pattern else "text")
    lines = [f"{task.name}: {rows:,} rows, {task.metric}"]
    if checked.split is not None:
        sizes = {"train": len(checked.split.train), "dev": len(checked.split.dev), "test": len(checked.split.test)}
        lines.append(f"Sets: {', '.join(f'{name} {n:,}' for name, n in sizes.items())}.")
    space = "white space inside answers counts" if task.whitespace == "counts" else "white space is folded"
    lines.append(f"Answers: {answers}." if task.labels else f"Answers: {answers}; {space}.")
    if checked.documents:
        number, read = len(checked.documents), checked.read
        documents = "1 document" if number == 1 else f"{number:,} documents"
        files = f" from {read.files:,} of {read.found:,} files" if read.files < read.found else ""
        lines.append(f"Corpus: {documents}{files}.")
    return lines


def _next_steps(task: Path, checked: CheckedData) -> list[str]:
    from rung.data.checks.kinds import kind_of_check

    name = shlex.quote(str(task))
    mended = {
        kind_of_check(f.check).mended for f in checked.findings if f.severity != "note" or f.check == "whitespace"
    }
    steps = []
    if mended - {""}:
        flag = " --mask" if "mask" in mended else ""
        what = "A cleaned copy" + (", personal data and secrets masked" if flag else "")
        steps.append(f"{what}: rung check {name} --fix clean{flag}")
    if any(f.severity == "error" for f in checked.findings):
        steps.append("Correct what is marked as an error before the run.")
    else:
        steps.append(f"Next: rung run {name}")
    return steps


def _print(page: CheckPage, every: bool) -> None:
    from rich.console import Console

    from rung.report.checks import page_lines
    from rung.report.lines import Screen

    console = Console(highlight=False, markup=False)
    console.print(Screen(lambda width: page_lines(page, width, every=every)))
    if page.next_steps:
        click.echo("\n" + "\n".join(page.next_steps))  # whole lines: a command that is cut cannot be pasted


def _record(page: CheckPage, checked: CheckedData) -> dict[str, Any]:
    from rung.report.checks import page_record

    task = checked.task
    split = checked.split
    facts = {
        "task": str(task.path),
        "name": task.name,
        "metric": task.metric,
        "labels": None if task.labels is None else list(task.labels),
        "whitespace": task.whitespace,
        "rows": {str(name or "all"): len(part) for name, part in checked.sets.items()},
        "sets": split and {"train": len(split.train), "dev": len(split.dev), "test": len(split.test)},
        "documents": len(checked.documents),
        "reading": list(checked.reading),
    }
    return page_record(page, facts)


def _fix(task: Path, out: Path, mask: bool, checked: CheckedData | None = None) -> Fixed:
    from rung.data.fixing import fix_task
    from rung.data.task_file import read_task

    return fix_task(checked.task if checked is not None else read_task(task), out, mask=mask)


def _print_fixed(fixed: Fixed, record: Mapping[str, Any], as_json: bool) -> int:
    """The list of changes by kind; as JSON, all of them behind the page of the original. 0: the copy is written."""
    if as_json:
        return print_json({**record, "fixed": fixed.record})
    for line in fixed.lines:
        click.echo(line)
    name = shlex.quote(str(fixed.task))
    click.echo(f"\nEvery change: {shlex.quote(str(fixed.folder / 'changes.jsonl'))}")
    click.echo(f"See what is left: rung check {name}")
    click.echo(f"Next: rung run {name}")
    return 0
