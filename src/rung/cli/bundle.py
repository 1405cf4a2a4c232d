"""`rung bundle`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from rung.cli.as_json import json_option, print_json


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("solution", required=False)
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="The new folder.")
@click.option("--without-examples", is_flag=True, help="Put in no dev examples with their recorded answers.")
@json_option
def bundle(run: Path, solution: str | None, out: Path, without_examples: bool, as_json: bool) -> int:
    """Put SOLUTION of the run folder RUN into the new folder DIR, ready to ship.

    Without SOLUTION it is the one that the verdict ships. DIR holds the prompt, the adapter, the passages, the figures
    of the sealed test, a model card and the hash of every file, and no path of this machine. Up to 100 dev examples
    with what the run answered are in it, by which rung check-bundle and rung export prove that it still answers so;
    leave them out where the data must not leave the house. Examples of the test are never put in.
    """
    from rung.bundles.files import NOTE
    from rung.ladder.hand_over import bundle_run
    from rung.models.sizes import as_size
    from rung.records import read_json

    bundle_run(run, solution, out, examples=not without_examples, say=lambda line: click.echo(line, err=True))
    files = [path for path in out.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    if as_json:
        names = sorted(str(path.relative_to(out)) for path in files)
        return print_json({"folder": str(out), "card": str(out / "README.md"), "files": names, "bytes": size})
    click.echo(f"{out}: {len(files)} files, {as_size(size)}. Its card is {out / 'README.md'}.")
    engine = " --engine vllm" if (read_json(out / NOTE) or {}).get("engine") == "vllm" else ""
    click.echo(f'Ask it with: rung ask {shlex.quote(str(out))}{engine} "an input"')
    return 0
