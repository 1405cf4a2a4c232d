"""`rung serve`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rung.cli.engine import engine_option
from rung.engine.variables import check_variables
from rung.errors import ServingError

if TYPE_CHECKING:
    import socket

    from rung.models.streaming import Answerer
    from rung.serving.http.setup import HttpSetup
    from rung.serving.opening import NamedBundle, OpenBase
    from rung.serving.service import ModelService

DTYPES = ("float32", "bfloat16")
_MB = 1_000_000

_file = click.Path(path_type=Path, dir_okay=False)
_folder = click.Path(path_type=Path, exists=True, file_okay=False)


@click.command()
@click.argument("bundles", nargs=-1, metavar="[NAME=]BUNDLE...")
@click.option("--base", "bases", multiple=True, metavar="SPEC", help="Serve this model too, without a bundle.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0: of all networks.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--adapters", type=_folder, help="Folder of adapters and bundles that may be loaded while it runs.")
@click.option("--slots", type=click.IntRange(1), default=8, show_default=True, help="Adapters of one batch.")
@engine_option("local", "What computes answers.")
@click.option("--vllm-python", metavar="PATH", help="The Python that has vLLM, where it is another one than this.")
@click.option("--dtype", type=click.Choice(DTYPES), help="Type to compute in. [default: as a run, the fastest here]")
@click.option("--max-tokens", type=click.IntRange(1), help="Longest answer, in tokens. [default: what fits]")
@click.option("--max-queue", type=click.IntRange(1), default=256, show_default=True, help="Requests that may wait.")
@click.option("--max-body", type=click.FloatRange(0.001), default=1.0, show_default=True, help="Of a request, in MB.")
@click.option("--timeout", type=click.FloatRange(0.1), default=120.0, show_default=True, help="Seconds of an answer.")
@click.option("--grace", type=click.FloatRange(0), default=30.0, show_default=True, help="Seconds to end in.")
@click.option("--api-key-env", metavar="VARIABLE", help="Who asks needs the key in this environment variable.")
@click.option("--api-key-file", type=_file, help="Or the key in this file.")
@click.option("--admin-key-env", metavar="VARIABLE", help="Key to load and unload adapters with.")
@click.option("--admin-key-file", type=_file, help="Or the key in this file.")
@click.option("--insecure", is_flag=True, help="Listen beyond this machine without a key.")
@click.option("--cors", multiple=True, metavar="ORIGIN", help="Origin whose pages may ask, as https://app.example.")
@click.option("--keep-requests", type=_file, help="Keep a masked sample of requests in this file (unlabelled.jsonl).")
@click.option("--keep-share", type=click.FloatRange(0, 1), default=0.1, show_default=True, help="Of the requests.")
@click.option("--log-contents", is_flag=True, help="Log what is asked and answered, too.")
@click.option("--quiet", is_flag=True, help="Log nothing but faults of the server.")
def serve(bundles: tuple[str, ...], **options: Any) -> int:
    """Serve BUNDLE… (bundles, run folders) with OpenAI's interface, each under its name.

    The name is the task's, or NAME in NAME=BUNDLE. Bundles of one base share it in memory, and requests to all of them
    are answered together. Ctrl-C or SIGTERM ends it: what runs has --grace seconds, and the exit code is 0.
    """
    _check_extra()
    check_variables()
    from rung.serving.http.security import ServerKeys, is_loopback, read_key
    from rung.serving.http.server import listening_socket

    keys = ServerKeys(
        read_key(options["api_key_env"], options["api_key_file"], "api-key"),
        read_key(options["admin_key_env"], options["admin_key_file"], "admin-key"),
    )
    loopback = is_loopback(options["host"])
    if not loopback and keys.api is None and not options["insecure"]:
        raise ServingError(
            f"--host {options['host']} can be reached from other machines, and there is no key. Give one with "
            "--api-key-env or --api-key-file; or say --insecure, and whoever reaches it may ask."
        )
    quiet, say = options["quiet"], lambda line: click.echo(line, err=True)
    with listening_socket(options["host"], options["port"]) as listening:
        service = _open(bundles, options, _silent if quiet else say)
        setup = _setup(service, keys, loopback, options)
        return _serve(setup, listening, options["grace"], _silent if quiet else say)


def _silent(_: str) -> None: ...


def _check_extra() -> None:
    """Raises ServingError where the packages of the extra are missing."""
    try:
        import fastapi
        import prometheus_client
        import uvicorn
    except ImportError as error:
        fact = f'rung serve needs packages more ({error.name} is missing). Install them: pip install "rung[serve]"'
        raise ServingError(fact) from None
    del fastapi, prometheus_client, uvicorn


def _open(bundles: tuple[str, ...], options: dict[str, Any], say: Callable[[str], None]) -> ModelService:
    from rung.serving.opening import named_bundles, open_service
    from rung.serving.service import ServiceLimits

    named = named_bundles(bundles, options["bases"])
    return open_service(
        named,
        bases=options["bases"],
        adapters=options["adapters"],
        slots=options["slots"],
        dtype=options["dtype"],
        limits=ServiceLimits(options["max_tokens"], options["max_queue"]),
        open_base=_vllm(named, options, say) if options["engine"] == "vllm" else None,
        say=say,
    )


def _vllm(named: list[NamedBundle], options: dict[str, Any], say: Callable[[str], None]) -> OpenBase:
    from rung.serving.engines.vllm import open_vllm

    def open_base(spec: str, name: str) -> Answerer:
        solutions = [b.packed.solution for b in named if b.packed.model == spec]
        adapters = [Path(one.adapter) for one in solutions if one.adapter is not None]
        python, slots, waiting = options["vllm_python"], options["slots"], options["max_queue"]
        return open_vllm(spec, name, adapters, say=say, python=python, slots=slots, most_waiting=waiting)

    return open_base


def _setup(service: ModelService, keys: Any, loopback: bool, options: dict[str, Any]) -> HttpSetup:
    from rung.serving.http.limits import HttpLimits
    from rung.serving.http.logs import RequestLog
    from rung.serving.http.setup import HttpSetup
    from rung.serving.sampling import RequestSample

    kept: Path | None = options["keep_requests"]
    return HttpSetup(
        service,
        keys,
        HttpLimits(body_bytes=round(options["max_body"] * _MB), answer_s=options["timeout"]),
        RequestLog(quiet=options["quiet"], contents=options["log_contents"]),
        loopback,
        options["cors"],
        RequestSample(kept, options["keep_share"]) if kept is not None else None,
    )


def _serve(setup: HttpSetup, listening: socket.socket, grace_s: float, say: Callable[[str], None]) -> int:
    import asyncio

    from rung.serving.http.server import heard_signals, serve_app

    def up() -> None:
        for line in _welcome(setup, *listening.getsockname()[:2]):
            say(line)

    async def run() -> int:
        with heard_signals() as told:
            return await serve_app(setup, listening, told, grace_s=grace_s, say=say, up=up)

    try:
        return asyncio.run(run())
    finally:
        if setup.sample is not None:
            setup.sample.close()


def _welcome(setup: HttpSetup, host: str, port: int) -> list[str]:
    """What is served, what bases are computed with, and how to ask."""
    from rung.models.computing import computing_in_words

    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{port}"
    lines = [f"rung: answering at {url}/v1"]
    served, computing = setup.service.models(), setup.service.computing()
    for one in served:
        what = "a base" if one.parent is None else f"a {one.kind} on {one.parent}"
        if (record := computing.get(one.name)) is not None:
            what += f", computed in {record['dtype']} {computing_in_words(record)}"
        lines.append(f"  {one.name}: {what}")
    first = next((one for one in served if one.kind == "bundle"), served[0])
    key = ' -H "Authorization: Bearer $KEY"' if setup.keys.api is not None else ""
    body = json.dumps({"model": first.name, "messages": [{"role": "user", "content": "Hello"}]})
    lines.append(f"Ask: curl {url}/v1/chat/completions{key} -H 'Content-Type: application/json' -d {shlex.quote(body)}")
    lines.append(f"Or look at {url}/ in a browser. End with Ctrl-C.")
    return lines
