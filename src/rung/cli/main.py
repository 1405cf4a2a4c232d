"""`rung`: finds the verb, imports that verb's file alone, and turns errors into one message and an exit code.

With --json an error is an object on standard output, too: of every verb alike, since it is made here.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from importlib import import_module

import click

from rung import __version__
from rung.cli.as_json import is_wanted, print_error
from rung.errors import RungError
from rung.interrupts import interrupt

VERBS: dict[str, str] = {
    "demo": "Run a ready-made task and see a verdict.",
    "init": "Write a task.yaml for your data.",
    "check": "Check your data before anything is spent.",
    "convert": "Write your rows in another shape.",
    "synth": "Let a stronger model write examples to train on.",
    "review": "Accept, reject or correct such examples.",
    "run": "Find out: prompt, retrieve or fine-tune?",
    "ask": "Answer an input with a run's winner.",
    "report": "Show a run's verdict and write its report.",
    "bundle": "Put a solution into a folder to ship.",
    "serve": "Serve bundles as an OpenAI-compatible API.",
    "export": "Write a bundle for other tools, and prove that it answers the same.",
    "check-bundle": "Has a bundle become worse? For pull requests.",
    "drift": "Are requests still like those that were tested?",
    "mcp": "Offer rung to coding agents, by the Model Context Protocol.",
    "models": "List models to choose from, and check one.",
}

_CONTINUED = ("run", "demo", "synth", "review")
"""Verbs that keep what they have done, so that the same command goes on."""

DEFECT, BROKEN_PIPE, TERMINATED = 70, 141, 143
"""Exit codes. 70 is EX_SOFTWARE of sysexits.h; the others are 128 and the signal's number."""


class _Verbs(click.Group):
    """Verbs by name; the file of a verb is imported when that verb is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        module = name.replace("-", "_")
        command: click.Command = getattr(import_module(f"rung.cli.{module}"), module)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], VERBS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"there is no verb {args[0]!r}.{hint} The verbs are {', '.join(VERBS)}.", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="rung")
def rung() -> None:
    """Prompt, retrieve or fine-tune? An answer by experiment, on your own task.

    \b
    Begin with:  rung demo
    Your task:   rung init examples.csv, then rung run task.yaml
    """


def main() -> None:
    """The entry point. Exit codes:

    0 done; 1 a check that the verb makes failed; 2 something the user can correct; 70 a defect of rung; 130 interrupted
    and 143 ended from outside (the same run continues); 141 nobody reads what is printed any more.
    """
    # Waiting threads spin briefly, then sleep: beside other work on the machine, long spinning makes two
    # threads several times slower than one. Read by OpenMP when torch is first imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    # oneDNN, and torch's layer over it, keep a kernel for every number of tokens that they met; so many are as fast as
    # their 1024, in less memory.
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, "128")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # what libraries tell each other is no news to the user
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    signal.signal(signal.SIGINT, interrupt)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, interrupt)
    try:
        code = _call()
    except (click.exceptions.Abort, KeyboardInterrupt):
        verb = next((word for word in sys.argv[1:] if word in VERBS), "")
        goes_on = " Nothing finished is lost; the same command continues." if verb in _CONTINUED else ""
        click.echo(f"\nrung: interrupted.{goes_on}", err=True)
        code = 130
        if is_wanted(sys.argv[1:]):
            print_error("Interrupted", f"interrupted.{goes_on}", code)
    for name in ("SIGINT", "SIGALRM"):  # leaving: a late Ctrl-C must not change the exit code
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    sys.exit(code)


_KINDS = {"a valid integer range": "a whole number", "a valid float range": "a number"}
"""What click says of a value that is no number -> what it means."""


def _call() -> int:
    """Calls the verb and turns errors into messages. Returns the exit code."""
    as_json = is_wanted(sys.argv[1:])
    try:
        code = rung.main(standalone_mode=False)
    except click.exceptions.Abort:  # is a RuntimeError, and no defect
        raise
    except click.ClickException as error:
        for kind, said in _KINDS.items():
            error.message = error.message.replace(kind, said)  # type: ignore[misc]  # nothing else rewords it
        error.show()
        code = error.exit_code
        return print_error("UsageError", error.format_message(), code) if as_json else code
    except RungError as error:
        click.echo(f"rung: {error}", err=True)
        return print_error(type(error).__name__, str(error), 2) if as_json else 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except SystemExit as ended:
        if as_json and ended.code == TERMINATED:
            print_error("Interrupted", "ended from outside.", TERMINATED)
        raise
    except Exception as error:
        import traceback

        from rung.records import damage_behind

        if (damaged := damage_behind(error)) is not None:
            click.echo(f"rung: {damaged}", err=True)
            return print_error(type(damaged).__name__, str(damaged), 2) if as_json else 2
        traceback.print_exc()
        click.echo("rung: this is a defect of rung. Report it with what stands above.", err=True)
        return print_error("Defect", f"{type(error).__name__}: {error}", DEFECT) if as_json else DEFECT
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    main()
