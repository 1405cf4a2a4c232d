"""`rung export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rung.cli.as_json import print_json
from rung.errors import ExportError

if TYPE_CHECKING:
    from rung.serving.exports.export import ExportSource
    from rung.serving.exports.exporting import ExportReport


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
@click.option("--to", "name", metavar="NAME", help="What to write; --list names all.")
@click.option("--list", "listing", is_flag=True, help="List what can be written.")
@click.option("--solution", help="Another solution of the run than its winner.")
@click.option("--base", metavar="MODEL", help="Where the base model lies, if that is not known here.")
@click.option("--out", type=click.Path(path_type=Path), help="The folder to write. [default: exports/TASK-NAME]")
@click.option("--merged", is_flag=True, help="Adapter and base as one, for gguf, ollama and vllm.")
@click.option(
    "--quantise",
    metavar="TYPE",
    help="Type of the weights: f16, q8_0, q4_0, … for gguf and ollama; f32, bf16, f16 for merged.",
)
@click.option("--rows", type=click.IntRange(min=1), default=50, show_default=True, help="Inputs of the parity test.")
@click.option("--parity", type=click.Path(path_type=Path, exists=True), help="A JSONL file of inputs to test with.")
@click.option("--no-parity", is_flag=True, help="Do not test whether it answers as the bundle does.")
@click.option("--trust-code", is_flag=True, help="Let the bundle's own metric, which is code, run.")
@click.option(
    "--runtime-python",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A Python that has the export's runtime.",
)
@click.option("--force", is_flag=True, help="Replace the folder if it is there.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def export(
    bundle: Path | None,
    name: str | None,
    listing: bool,
    solution: str | None,
    base: str | None,
    out: Path | None,
    merged: bool,
    quantise: str | None,
    rows: int,
    parity: Path | None,
    no_parity: bool,
    trust_code: bool,
    runtime_python: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write BUNDLE, a bundle or a run folder, for another tool.

    Each export is then asked in its own runtime for answers that the bundle has given. Where they differ too much, the
    export fails (exit code 1), and its files are kept under another name.
    """
    from rung.serving.exports import export_named
    from rung.serving.exports.export import ExportOptions
    from rung.serving.exports.exporting import check_options, check_place
    from rung.serving.exports.exporting import export as write_export
    from rung.serving.exports.source import SourceOptions, read_source

    if listing:
        _tell_all(as_json)
        return
    if bundle is None or name is None:
        raise click.UsageError("name a bundle or run folder and what to write, as: rung export runs/NAME --to merged.")
    chosen = export_named(name)
    # Without a test its inputs are read, too: they tell how long prompts are, and are the tests of promptfoo.
    options = ExportOptions(merged=merged, quantise=quantise, runtime_python=runtime_python)
    check_options(chosen, options)
    reading = SourceOptions(solution, base, max(rows, chosen.rows), None if no_parity else parity, trust_code)
    source = read_source(bundle, reading, say=lambda line: click.echo(line, err=True))
    place = out or Path("exports") / f"{source.name.replace('/', '-')}-{name}"
    check_place(place, force=force)
    report = write_export(source, chosen, place, options, parity=not no_parity)
    if as_json:
        record = {"folder": str(report.folder), **report.record(source), "notes": report.notes}
        print_json(record, 1 if report.faults else 0)
    else:
        _tell(report, source)
    if report.faults:
        click.echo(f"rung: {_failed(report)}", err=True)
        raise click.exceptions.Exit(1)


def _failed(report: ExportReport) -> ExportError:
    return ExportError(
        f"{report.export}: it does not answer as the bundle does: {'; '.join(report.faults)}. Its files are kept as "
        f"{report.folder}, so that they are not taken for good ones; export.json there names the rows."
    )


def _tell(report: ExportReport, source: ExportSource) -> None:
    click.echo(f"{report.export}: {report.folder} ({', '.join(report.exported.files)})")
    for check in report.checks:
        click.echo(f"  {'ok' if check.ok else 'FAILED'}  {check.name}: {check.fact}")
    if report.parity is not None:
        lines = report.parity.lines()
        click.echo(f"  parity: {lines[0]}; the bundle's answers were {report.parity.reference}")
        for line in lines[1:]:
            click.echo(f"    {line}")
    elif report.untested is not None:
        click.echo(f"  NOT TESTED: nobody knows whether it answers as the bundle does ({report.untested}).", err=True)
    if (licences := source.packed.note.get("licenses")) is not None:
        click.echo(f"  licences: base {licences['base']}, data {licences['data']}; check them before you pass it on")
    for note in report.notes:
        click.echo(f"  {note}")


def _tell_all(as_json: bool) -> None:
    from rung.serving.exports import EXPORTS, export_named

    about = {name: export_named(name).about for name in EXPORTS}
    if as_json:
        print_json({"exports": about})
        return
    width = max(map(len, about))
    for name, line in about.items():
        click.echo(f"{name:<{width}}  {line}")
