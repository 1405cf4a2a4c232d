"""`rung models`."""

from __future__ import annotations

import click


@click.command()
@click.option("--fetch", metavar="NAME", help="Fetch and convert a model now.")
def models(fetch: str | None) -> None:
    """List the models rung knows by name, and which are on this machine.

    A task may also name a local Hugging Face folder, a .gguf file, or a Hugging Face id.
    """
    from rung.models.catalogue import CATALOGUE, cache_folder, ensure_model, present

    if fetch is not None:
        click.echo(str(ensure_model(fetch, say=lambda line: click.echo(line, err=True))))
        return
    for entry in CATALOGUE.values():
        folder = present(entry.name)
        size = sum(p.stat().st_size for p in folder.iterdir()) / 1e6 if folder else 0
        state = f"present ({size:.0f} MB)" if folder else f"fetched at first use ({entry.size_mb} MB)"
        click.echo(f"{entry.name}  {entry.parameters_m} M parameters  {entry.license}  {state}")
        click.echo(f"  {entry.description}")
    click.echo(
        f"Kept in {cache_folder()} (set RUNG_CACHE to change). Also: a local folder, a .gguf file, a Hugging Face id."
    )
