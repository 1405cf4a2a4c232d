"""`rung check-bundle`."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rung.cli.as_json import print_json

if TYPE_CHECKING:
    from rung.serving.bundle_check import BundleCheck

DROPPED = 1
"""Exit code where the score dropped by more than the margin."""

_SHOWN = 20  # rows that changed; --json has all
_EVERY = 10.0  # seconds between two lines of progress, where nobody watches


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--examples", type=click.Path(path_type=Path), metavar="FILE", help="Rows to answer, like the task's.")
@click.option(
    "--baseline",
    type=click.Path(path_type=Path, exists=True),
    metavar="FILE|BUNDLE",
    help="What to compare with: the --json of an earlier check, or another bundle.",
)
@click.option("--margin", type=float, metavar="POINTS", help="A drop of at most so many points passes; 2 if not given.")
@click.option("--base", metavar="MODEL", help="Where the base model lies, where that is not known here.")
@click.option("--trust-code", is_flag=True, help="Let the metric run that lies in the bundle as Python code.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON; it can be a later --baseline.")
def check_bundle(
    bundle: Path,
    examples: Path | None,
    baseline: Path | None,
    margin: float | None,
    base: str | None,
    trust_code: bool,
    as_json: bool,
) -> None:
    """Answer a fixed set with BUNDLE and say whether its score has dropped.

    The set is the dev examples in the bundle, compared with what the run answered; or the rows of --examples, compared
    with --baseline. Exit codes: 0 it passed (or there was nothing to compare with), 1 the score dropped by more than
    the margin, 2 something given is wrong.
    """
    from rung.serving.bundle_check import CheckOptions, check_answers

    if margin is not None and not (math.isfinite(margin) and 0 <= margin <= 100):
        raise click.UsageError(f"--margin {margin:g}: it is a number of points, from 0 to 100.")
    share = margin / 100 if margin is not None else None
    options = CheckOptions(examples, baseline, share, base, trust_code)
    found = check_answers(bundle, options, say=_say, tell=_Progress().tell)
    if as_json:
        print_json(found.record, 0 if found.passed else DROPPED)
    else:
        _print(found)
    if not found.passed:
        click.get_current_context().exit(DROPPED)


def _say(line: str) -> None:
    click.echo(line, err=True)


class _Progress:
    """A line on standard error every few seconds, with an estimate."""

    def __init__(self) -> None:
        self._began = self._told = time.monotonic()

    def tell(self, done: int, of: int) -> None:
        now = time.monotonic()
        if done == 0:
            self._began = self._told = now
        elif now - self._told >= (1.0 if sys.stderr.isatty() else _EVERY) and done < of:
            self._told = now
            left = (now - self._began) / done * (of - done)
            _say(f"{done:,} of {of:,} rows answered, about {max(1, round(left)):,} s left")


def _print(found: BundleCheck) -> None:
    from rung.decision.figures import Scale

    scale = Scale(found.metric.right_or_wrong)
    click.echo(f"{found.bundle}: {found.examples}, scored by {found.metric.name.rpartition(':')[2]}")
    click.echo(f"  now     {scale.full(found.after)}")
    if found.failed:
        click.echo(f"  {found.failed} of {len(found.answers)} rows got no answer, and count as 0.")
    if found.before is None or found.difference is None:
        click.echo("There is nothing to compare with. Keep this with --json, and give it as --baseline next time.")
        return
    click.echo(f"  before  {scale.full(found.before)}, {found.against}")
    d = found.difference
    click.echo(f"  change  {scale.signed(d.difference)} (95 % interval {scale.ends(d.low, d.high)})")
    click.echo(f"  {100 * (found.equal or 0):.1f} % of the answers are the same, word for word.")
    for a, b in found.changed[:_SHOWN]:
        click.echo(f"  {b.id}: {scale.bare(a.score)} -> {scale.bare(b.score)}{f' ({b.error})' if b.error else ''}")
    if (more := len(found.changed) - _SHOWN) > 0:
        click.echo(f"  … and {more:,} more rows with another score; --json lists them.")
    limit = scale.gap(found.margin)
    if found.passed:
        click.echo(f"Passed: the score has not dropped by more than {limit}.")
    else:
        click.echo(f"Dropped: the score fell by {scale.gap(-d.difference)}. A fall of {limit} would have passed.")
