"""`rung drift`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rung.cli.as_json import json_option, print_json

if TYPE_CHECKING:
    from rung.retrieval.embedders import Embedder
    from rung.serving.watching.drift import Drift
    from rung.serving.watching.requests import KnownInputs, RequestFile

MOST_ANSWERED = 500
"""Requests that --answer lets the bundle answer; of more, a fixed random sample."""
_CLUSTERS = 5  # that are shown
_WIDEST = 100  # columns of an example on the screen


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("requests", type=click.Path(path_type=Path))
@click.option("--answers", is_flag=True, help="Also compare the answers that stand in the file, given by the bundle.")
@click.option("--answer", is_flag=True, help=f"Let the bundle answer up to {MOST_ANSWERED} of them, and compare these.")
@click.option("--model", metavar="NAME", help="Name that the bundle is served by, if not its task's; '*': any model.")
@click.option("--base", metavar="MODEL", help="For --answer: where the base model lies, where that is not known here.")
@click.option("--embedder", metavar="NAME", help="Compare by meaning, too: minilm, or as under retrieval: of a task.")
@click.option("--strict", is_flag=True, help="Exit with 1 where drift is shown.")
@json_option
def drift(
    bundle: Path,
    requests: Path,
    answers: bool,
    answer: bool,
    model: str | None,
    base: str | None,
    embedder: str | None,
    strict: bool,
    as_json: bool,
) -> int:
    """Say how far REQUESTS, a file of inputs, are from those that BUNDLE (or a run folder) was tested on.

    Of a file that names models, as a server's sample does, only requests to this bundle count. Looked at are new
    clusters, topics, words, lengths, scripts, languages, odd inputs and, where there are answers, labels. One
    statistical level holds for all of it: of files that are drawn like the tested inputs, at most 5 % are called drift.
    REQUESTS is in any form that unlabelled: of a task may have, as a server's sample is. No model is needed, except
    with --answer.
    """
    from rung.serving.watching.drift import drift as compare
    from rung.serving.watching.requests import known_inputs, read_requests

    if answers and answer:
        raise click.UsageError("--answers reads answers, and --answer makes them. Leave one of them out.")
    known = known_inputs(bundle)
    asked = read_requests(requests, known, answers=answers, model=model, say=_say)
    if answer:
        asked = replace(asked, answers=_answered(bundle, asked, base))
    found = compare(known, asked, embedder=_opened(embedder))
    steps = _next(found, known, bundle, requests, model)
    code = 1 if strict and found.outcome == "drift" else 0
    if as_json:
        return print_json(_record(found, asked, bundle, requests, steps), code)
    _print(found, asked, steps)
    return code


def _opened(name: str | None) -> Embedder | None:
    """Raises ModelError where there is no such embedder here."""
    if name is None:
        return None
    from rung.errors import ModelError
    from rung.retrieval.embedders import open_embedder, why_not

    if (wrong := why_not(name)) is not None:
        raise ModelError(f"--embedder {name}: {wrong}.")
    return open_embedder(name)


def _say(line: str) -> None:
    click.echo(line, err=True)


def _answered(bundle: Path, asked: RequestFile, base: str | None) -> tuple[str, ...]:
    from rung.data.sampling import sample_of
    from rung.serving.bundle import open_bundle

    some = sample_of(asked.inputs, MOST_ANSWERED, 0)
    opened = open_bundle(bundle, base=base, say=_say)
    _say(f"Answering {len(some):,} requests …")
    given = opened.answer([replace(query, id=str(i)) for i, query in enumerate(some)])
    return tuple(p.text for p in given if p.error is None)


def _next(found: Drift, known: KnownInputs, bundle: Path, requests: Path, model: str | None) -> list[str]:
    """What to do next, with the command."""
    task = shlex.quote(str(known.task.path)) if known.task is not None else "task.yaml"
    out = f" --out {shlex.quote(str(bundle))}" if known.task is not None else ""
    look = f"rung drift {shlex.quote(str(bundle))} {shlex.quote(str(requests))}"
    look += f" --model {shlex.quote(model)}" if model else ""
    if found.outcome == "drift":
        first = "those of the new clusters first, " if found.clusters else "those that look new to you first, "
        steps = [
            f"Answer some of the requests, {first}add them to the examples, and run again: rung run {task}{out} --again"
        ]
        if known.task is None or known.task.teacher is not None:
            steps.append(
                f"Or let the teacher answer them: unlabelled: {requests.name} in task.yaml, and the same command."
            )
        return steps
    if 2 * found.themselves > found.requests:
        return ["Name a file of requests that came since: most of these are tested inputs, which cannot be new."]
    if found.outcome == "too few" and found.least is not None:
        return [f"Look again when there are {found.least:,} requests: {look}"]
    if found.outcome == "too few":
        return [f"Name the run folder instead of the bundle, whose train rows count too, or add examples to {task}."]
    return [f"Look again when there are about {max(found.requests, found.least or 0):,} new requests: {look}"]


def _record(found: Drift, asked: RequestFile, bundle: Path, requests: Path, steps: Sequence[str]) -> dict[str, Any]:
    return {
        "bundle": str(bundle),
        "file": str(requests),
        "outcome": found.outcome,
        "headline": found.headline,
        "tested": found.tested,
        "requests": found.requests,
        "repeated": found.repeated,
        "tested_themselves": found.themselves,
        "least": found.least,
        "looks": [{**asdict(look), "differs": look.differs} for look in found.looks],
        "not_looked_at": dict(found.not_looked_at),
        "clusters": [asdict(cluster) for cluster in found.clusters],
        "other_models": dict(asked.others),
        "unreadable": list(found.unreadable),
        "next": list(steps),
    }


def _print(found: Drift, asked: RequestFile, steps: Sequence[str]) -> None:
    from rung.report.lines import cut

    click.echo(found.headline)
    for look in found.looks:
        mark = "!" if look.differs else " "
        click.echo(f"{mark} {look.name + ':':<14}{look.said} (p {look.corrected:.2g})")
    for name, why in found.not_looked_at.items():
        click.echo(f"  {name + ':':<14}not looked at: {why}")
    for number, cluster in enumerate(found.clusters[:_CLUSTERS] if found.outcome == "drift" else (), 1):
        click.echo(f"New cluster {number}, {cluster.size:,} requests:")
        for text in cluster.examples:
            click.echo(f"    {cut(text, _WIDEST)}")
    if (more := len(found.clusters) - _CLUSTERS) > 0 and found.outcome == "drift":
        click.echo(f"and {more:,} more new clusters (--json lists them).")
    if found.repeated:
        click.echo(f"Requests that stand there again: {found.repeated:,}. Each text counts once.")
    if found.themselves:
        click.echo(f"Requests that are tested inputs themselves: {found.themselves:,} of {found.requests:,}.")
    if asked.others:
        names = ", ".join(f"{cut(name, _WIDEST)} {n:,}" for name, n in list(asked.others.items())[:_CLUSTERS])
        click.echo(f"Left out, because they asked another model: {sum(asked.others.values()):,} ({names}).")
    for problem in found.unreadable[:3]:
        click.echo(f"Cannot be read: {problem}")
    click.echo()
    for step in steps:
        click.echo(step)
