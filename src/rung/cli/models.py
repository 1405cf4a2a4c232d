"""`rung models`, and `rung models check`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from rung.cli.as_json import json_option, print_json
from rung.cli.engine import engine_option
from rung.types import AnswersBy


def _say(line: str) -> None:
    click.echo(line, err=True)


class _Models(click.Group):
    """A model's name in place of a command is answered with the command that takes one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            raise click.UsageError(f"to try a model: rung models check {args[-1]}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_Models, invoke_without_command=True)
@click.option("--fetch", metavar="NAME", help="Fetch and convert a model now.")
@json_option
@click.pass_context
def models(context: click.Context, fetch: str | None, as_json: bool) -> int:
    """List models: those on this machine, and some to choose from, with what they need.

    A task may name any of them, a local Hugging Face folder, a .gguf file, or another Hugging Face id; with :4bit
    behind it, its linear layers are kept in 4 bits. It may also name a model behind an API, as an endpoint.
    rung models check NAME tries one, rung models check https://host/v1#NAME asks an endpoint one question.
    """
    if context.invoked_subcommand is not None:
        return 0
    if fetch is not None:
        from rung.models.catalogue import ensure_model
        from rung.models.four_bit import split_spec

        folder = ensure_model(split_spec(fetch)[0], say=_say)
        if as_json:
            return print_json({"name": fetch, "folder": str(folder)})
        click.echo(str(folder))
        return 0
    if as_json:
        return print_json(_record())
    _list_present()
    _list_suggestions()
    click.echo(
        "\nBehind an API (OpenAI, vLLM, Ollama and others): {endpoint: https://host/v1, name: NAME} in a task,"
        "\nwith the key in an environment variable. `rung models check https://host/v1#NAME` tries one."
    )
    return 0


@models.command(short_help="Try the model NAME and say what it is like.")
@click.argument("name")
@engine_option("local", "What computes its answers: rung's own engine, or vLLM.")
@json_option
def check(name: str, engine: AnswersBy, as_json: bool) -> int:
    """Load the model NAME and say how it is computed here, in which type, how fast, and whether it can be trained.

    Of an endpoint, NAME is https://host/v1#MODEL, or its mapping in a task as JSON: '{"endpoint": …, "name": …}'. It is
    asked two or three small questions, to see what it serves, how fast, and at which price. Of an address without
    #MODEL, the models that it serves are listed.
    """
    from rung.models.check import check_model

    found = check_model(name, engine=engine, say=_say)
    if as_json:
        speed = None if found.speed is None else asdict(found.speed)
        return print_json({"name": found.name, "facts": dict(found.facts), "tokens_a_second": speed})
    click.echo(found.name)
    for what, finding in found.facts:
        click.echo(f"  {what + ':':<15}{finding}")
    if found.speed is not None:
        from rung.ladder.plan import typical_seconds

        click.echo(f"  {'400 rows:':<15}{_minutes(typical_seconds(found.speed))} for a run on short inputs")
    return 0


def _record() -> dict[str, Any]:
    """Models here, and some to choose from. Bytes are for bfloat16, weights included."""
    from rung.cache import cache_folder
    from rung.models.catalogue import CATALOGUE, present
    from rung.models.suggestions import SUGGESTIONS, on_disk

    own = [(entry.name, present(entry.name), entry.license) for entry in CATALOGUE.values()]
    listed = [*own, *((name, folder, None) for name, folder in on_disk())]
    return {
        "cache": str(cache_folder()),
        "models": [
            {"name": name, "folder": None if folder is None else str(folder), "license": license_}
            for name, folder, license_ in listed
        ],
        "suggestions": [
            {
                "name": one.hub,
                "license": one.license,
                "asks": one.asks,
                "parameters": one.shape.parameters,
                "bytes_to_answer": one.bytes_to_answer(),
                "bytes_to_train": one.bytes_to_train(),
            }
            for one in SUGGESTIONS
        ],
    }


def _list_present() -> None:
    from rung.cache import cache_folder
    from rung.models.catalogue import CATALOGUE, present
    from rung.models.sizes import as_size
    from rung.models.suggestions import folder_bytes, on_disk

    for entry in CATALOGUE.values():
        folder = present(entry.name)
        once = f"a download of {entry.size_mb} MB"
        size = (
            f"present ({as_size(folder_bytes(folder))} on disk, made of {once})" if folder else f"not here yet ({once})"
        )
        click.echo(f"{entry.name}  {entry.parameters_m} M parameters  {entry.license}  {size}")
        click.echo(f"  {entry.description}")
    for name, folder in on_disk():
        path = "; name it by its path" if name.endswith(".gguf") else ""
        click.echo(f"{name}  present ({as_size(folder_bytes(folder))} on disk){path}")
    click.echo(f"Kept in {cache_folder()} (set RUNG_CACHE to change) and in the cache of the Hugging Face hub.")


def _list_suggestions() -> None:
    from rung.engine.memory import free_host_bytes
    from rung.ladder.plan import typical_seconds
    from rung.models.catalogue import CATALOGUE, DEFAULT_MODEL
    from rung.models.sizes import as_size
    from rung.models.suggestions import EMBEDDED, SUGGESTIONS, Suggestion, embedded_speed, scaled

    speed = embedded_speed()
    embedded = Suggestion(DEFAULT_MODEL, CATALOGUE[DEFAULT_MODEL].license, EMBEDDED)
    click.echo("\nWhat they need, and others to try by their id on the Hugging Face hub (fetched at first use):")
    click.echo(f"  {'':<38}{'weights':>8}  {'to answer':>9}  {'to train':>8}  {'400 rows':>8}  licence")
    for one in (embedded, *SUGGESTIONS):
        minutes = _minutes(typical_seconds(scaled(speed, one.shape))) if speed is not None else "unknown"
        terms = f"{one.license} (accept it there first)" if one.asks else one.license
        click.echo(
            f"  {one.hub:<38}{one.shape.parameters / 1e6:>6,.0f} M  {as_size(one.bytes_to_answer()):>9}  "
            f"{as_size(one.bytes_to_train()):>8}  {minutes:>8}  {terms}"
        )
    click.echo(
        "  Memory is computed for bfloat16, weights included; float32 takes twice as much. Python and torch take\n"
        "  about 500 MB beside it. To answer: 16 prompts of 512 tokens at once. To train: LoRA of rank 16, 1,024\n"
        "  tokens at once. `rung models check NAME` measures what a model takes here. "
        f"This machine has {as_size(free_host_bytes())} free, GPUs aside.\n"
        "  400 rows: a run on short inputs, from the speed of the embedded model on this machine, slower by the ratio "
        "of the\n  weights that a token is multiplied with"
        + ("." if speed is not None else "; unknown until `rung models check smollm2-135m-instruct` has timed it.")
    )


def _minutes(seconds: float) -> str:
    if seconds < 60:
        return "< 1 min"
    return f"{seconds / 60:,.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:,.0f} h"
