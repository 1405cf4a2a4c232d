"""What the terminal shows: the plan before, one live line meanwhile, the verdict after.

Screens are renderables of rich that know the width they are printed at: lines are laid out and cut
here, so that a screen never grows past its height. Plain without colour, and in ASCII where the
terminal has no more. Knows records and words; decides nothing.
"""

from __future__ import annotations

import contextlib
import shlex
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rung.records import read_json
from rung.report.reading import Run, read_run
from rung.report.words import NO_BREAK, count, duration, scale_of, shortened, thousands, tied, time_left
from rung.types import Candidate, Family, Score

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.live import Live
    from rich.spinner import Spinner

FINAL_LINES = 25
PLAN_LINES = 18
_QUIET_S = 10.0  # between progress lines where there is no live line
_MOST_CANDIDATES = 6

Line = tuple[str, str]
"""(text, style)"""


@dataclass(frozen=True)
class Screen:
    """Something to print. lines: width -> lines of at most that many columns."""

    lines: Callable[[int], list[Line]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        from rich.text import Text

        for text, style in self.lines(options.max_width):
            yield Text(_printable(text, console.encoding), style=style, no_wrap=True, overflow="crop")


# ---- before ---------------------------------------------------------------------------------


def plan_screen(folder: Path, plan: Mapping[str, Any], checks: Mapping[str, Any], task: Mapping[str, Any]) -> Screen:
    """What is going to be done and spent, and what the data can show: at most PLAN_LINES lines."""
    return Screen(lambda width: _plan_lines(folder, plan, checks, task, width)[:PLAN_LINES])


def _plan_lines(
    folder: Path, plan: Mapping[str, Any], checks: Mapping[str, Any], task: Mapping[str, Any], width: int
) -> list[Line]:
    sizes, detectable = plan.get("sizes", {}), plan.get("minimum_detectable_difference", {})
    scale = scale_of(str(task.get("metric", "")))
    steps = list(plan.get("steps", ()))
    shown = [*steps, *(s for s in plan.get("experiments", ()) if s["applies"])]
    lines: list[Line] = [
        (_cut(f"{task.get('name', folder.name)}: {task.get('model', '')}, {task.get('metric', '')}", width), "bold")
    ]
    told = ", ".join(f"{name} {n:,}" for name, n in sizes.items())
    lines += _wrapped(f"Examples: {told} (the test stays sealed until the end).", width, 2)
    if "test" in detectable:
        gap = scale.detectable(detectable["test"])
        lines += _wrapped(f"The smallest difference the test can show (80 % power): {gap}.", width, 2)
    lines.append(("", ""))
    header = ("strategy", "family", "calls", "tokens", "about")
    rows = [
        (
            s["name"],
            s["family"] if s in steps else "experiment",
            f"{s['calls']:,}",
            thousands(s["tokens"]),
            f"{s['seconds'] / 60:.1f} min",
        )
        for s in shown
        if s["applies"]
    ]
    table = _columns([header, *rows], "llrrr", width)
    names = max([len(s["name"]) for s in steps], default=0)
    skipped = [_cut(f"{s['name']:<{names}}  skipped: {s['why']}", width) for s in steps if not s["applies"]]
    lines.append((table[0], "dim"))
    body: list[Line] = [*((line, "") for line in table[1:]), *((line, "dim") for line in skipped)]
    lines += _at_most(body, 8, lambda n: f"and {n} more, in plan.json")
    lines.append(("", ""))
    budget = {k: v for k, v in (task.get("budget") or {}).items() if v is not None}
    units = {"minutes": "min", "calls": "calls", "usd": "USD"}
    told = ", ".join(f"{v:g} {units.get(k, k)}" for k, v in budget.items())
    limit = f" of a budget of {told}" if told else ""
    total = f"In all about {plan.get('seconds', 0) / 60:.1f} min{limit}, {plan.get('usd', 0):.2f} USD."
    return lines + _wrapped(total, width, 1) + _check_lines(folder, checks, width)


def _check_lines(folder: Path, checks: Mapping[str, Any], width: int) -> list[Line]:
    findings = [f for f in checks.get("findings", ()) if f["severity"] != "note"]
    if not findings:
        return [(_cut("Data checks: nothing to warn of.", width), "")]
    first = findings[0]
    place = f"{first['row']}: " if first["row"] else ""
    told = f"Data checks: {count(len(findings), 'warning')}. {place}{first['message']}"
    rest = f"All of them: {folder / 'checks.json'}"
    return [(line, "yellow") for line, _ in _wrapped(told, width, 2)] + _wrapped(rest, width, 2)


# ---- after ----------------------------------------------------------------------------------


def final_screen(folder: Path) -> Screen:
    """The verdict, why, the candidates and what to do next: at most FINAL_LINES lines.

    Raises RunError when the run has no verdict yet or a record is damaged.
    """
    run = read_run(folder)
    return Screen(lambda width: _final_lines(run, width))


def _final_lines(run: Run, width: int) -> list[Line]:
    """The verdict, the table and the last lines stand; next steps and reasons share what is left."""
    place = shlex.quote(str(run.folder))
    headline = [(line, "bold") for line, _ in _wrapped(run.decision.headline, width, 3)]
    shown = run.shown
    other = f" --solution {shown.name}" if run.chosen is None and shown else ""
    tail = _wrapped(f'Try it:  rung ask {place}{other} "…"' if shown else "", width, 3)
    tail += _wrapped(f"Report:  {run.folder / 'report.html'}", width, 3)
    table = _candidate_lines(run, width)
    free = FINAL_LINES - len(headline) - len(table) - len(tail) - 3  # 3 empty lines
    steps = _items([s for s in run.decision.next if s], width, min(4, max(1, free // 2)), 2)
    reasons = _items(_telling(run), width, free - len(steps), 4)
    empty: Line = ("", "")
    lines = [*headline, *reasons, empty, *table, empty, *steps, empty, *tail]
    return lines[:FINAL_LINES]


def _telling(run: Run) -> list[str]:
    """The reasons, those about strategies that were not tried last."""
    return sorted((r for r in run.decision.reasons if r), key=lambda r: " was not tried: " in r)


def _candidate_lines(run: Run, width: int) -> list[Line]:
    """A header and a line each; where the width does not do, the least telling columns go."""
    scale, chosen = run.scale, run.decision.solution
    candidates = sorted(run.decision.candidates, key=lambda c: (c.name != chosen, c.test is None))[:_MOST_CANDIDATES]
    kept = [c for c in run.decision.candidates if c in candidates]

    def cells(c: Candidate) -> dict[str, str]:
        return {
            "candidate": ("→ " if c.name == chosen else "  ") + shortened(c.name, 18),
            "family": c.family,
            "dev": scale.value(c.dev.mean, c.dev.n),
            "test (95 %)": scale.full(c.test) if c.test else "–",
            "tokens": f"{c.tokens_in:,.0f}",
            "p50": duration(c.latency_s_p50),
            "built in": duration(c.build_seconds),
        }

    rows = [cells(c) for c in kept]
    names = list(rows[0]) if rows else ["candidate"]
    for spare in ("", "family", "built in", "dev", "tokens", "p50"):
        names = [n for n in names if n != spare]
        header = ["  candidate" if n == "candidate" else n for n in names]
        laid = [header, *([r[n] for n in names] for r in rows)]
        if _width(laid) <= width:
            break
    left = {"candidate", "family", "test (95 %)"}
    table = _columns(laid, "".join("l" if n in left else "r" for n in names), width)
    lines: list[Line] = [(table[0], "dim")]
    lines += [(text, "bold green" if c.name == chosen else "") for text, c in zip(table[1:], kept, strict=True)]
    more = len(run.decision.candidates) - len(kept)
    return [*lines, (_cut(f"  and {more} more, in the report", width), "dim")] if more else lines


def _items(texts: Sequence[str], width: int, room: int, most: int) -> list[Line]:
    """As many of the texts as there is room for, each cut to at most two lines."""
    lines: list[Line] = []
    for text in texts[:most]:
        left = room - len(lines)
        if left < 1:
            break
        lines += _wrapped(text, width, min(2, left), "- ")
    return lines


# ---- lines ----------------------------------------------------------------------------------


def _wrapped(text: str, width: int, most: int, bullet: str = "") -> list[Line]:
    """The text in at most so many lines; what does not fit ends in an ellipsis."""
    from rich.cells import cell_len

    text = tied(" ".join(_clean(text).split()))
    room = max(8, width)
    if cell_len(text) > len(text):  # wide signs take two columns: as if every one did
        room = max(8, room // 2)
    lines = textwrap.wrap(
        text,
        room,
        initial_indent=bullet,
        subsequent_indent=" " * len(bullet),
        break_on_hyphens=False,
        max_lines=most,
        placeholder="…",
    )
    return [(line.replace(NO_BREAK, " "), "") for line in lines]


def _at_most(lines: list[Line], most: int, more: Callable[[int], str]) -> list[Line]:
    if len(lines) <= most:
        return lines
    return [*lines[: most - 1], (more(len(lines) - most + 1), "dim")]


def _width(rows: Sequence[Sequence[str]]) -> int:
    from rich.cells import cell_len

    return sum(max(cell_len(r[i]) for r in rows) for i in range(len(rows[0]))) + 2 * (len(rows[0]) - 1)


def _columns(rows: Sequence[Sequence[str]], aligned: str, width: int) -> list[str]:
    """Rows with columns two blanks apart. aligned: l or r for each column."""
    from rich.cells import cell_len

    clean = [[_clean(cell) for cell in row] for row in rows]
    widths = [max(cell_len(r[i]) for r in clean) for i in range(len(aligned))]

    def padded(cell: str, i: int) -> str:
        space = " " * (widths[i] - cell_len(cell))
        return cell + space if aligned[i] == "l" else space + cell

    return [_cut("  ".join(padded(cell, i) for i, cell in enumerate(row)).rstrip(), width) for row in clean]


def _cut(text: str, width: int) -> str:
    from rich.cells import cell_len, set_cell_size

    text = _clean(text)
    return text if cell_len(text) <= width else set_cell_size(text, max(0, width - 1)) + "…"


def _clean(text: str) -> str:
    """Without control signs: a name from the user's files must not command the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


_ASCII = str.maketrans({"…": "~", "–": "-", "→": ">", "“": '"', "”": '"', "’": "'", "×": "x"})


def _printable(text: str, encoding: str) -> str:
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return text.translate(_ASCII).encode("ascii", "replace").decode()
    return text


# ---- meanwhile ------------------------------------------------------------------------------


class TerminalListener:
    """Tells a terminal what a run does: one live line, and a plain line for what is finished.

    Where the console is no terminal: plain lines, about progress at most one every ten seconds. Used
    as a context manager, so that the live line goes whatever ends the run. A console that cannot be
    written to is no reason to stop.
    """

    def __init__(self, console: Console | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.console import Console as RichConsole

        self._console = console or RichConsole(stderr=True)
        self._clock = clock
        self._live: tuple[Live, Spinner] | None = None
        self._told = -_QUIET_S + clock()
        self._scale = scale_of("")
        self._names = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._stop()

    def say(self, text: str) -> None:
        self._print(_clean(text))

    def planned(self, folder: Path, plan: Mapping[str, Any], checks: Mapping[str, Any]) -> None:
        task = read_json(folder / "task.json") or {}
        self._scale = scale_of(str(task.get("metric", "")))
        self._names = max((len(s["name"]) for s in plan.get("steps", ())), default=0)
        self._print(plan_screen(folder, plan, checks, task))
        self._print("")

    def progress(self, what: str, share: float, left_s: float | None) -> None:
        share = min(1.0, max(0.0, share))
        left = "" if left_s is None else f", {time_left(left_s)}"
        text = f"{what}  {100 * share:.0f} %{left}"
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._show(text)
        elif self._clock() - self._told >= _QUIET_S:
            self._told = self._clock()
            self._print(text)

    def tried(self, name: str, family: Family, dev: Score, seconds: float) -> None:
        self._stop()
        self._print(f"{name:<{self._names}}  {family:<13}  dev {self._scale.full(dev)}  {duration(seconds)}")

    def skipped(self, name: str, why: str) -> None:
        self._print(f"{name:<{self._names}}  skipped: {why}")

    def _print(self, what: str | Screen) -> None:
        if isinstance(what, str):
            what = _printable(_clean(what), self._console.encoding)
        with contextlib.suppress(OSError, ValueError):
            self._console.print(what, markup=False, highlight=False, soft_wrap=isinstance(what, str))

    def _show(self, text: str) -> None:
        from rich.live import Live
        from rich.spinner import Spinner
        from rich.text import Text

        line = Text(_printable(_cut(text, self._console.width - 2), self._console.encoding), no_wrap=True)
        signs = "line" if self._console.encoding.lower() not in ("utf-8", "utf8") else "dots"
        with contextlib.suppress(OSError, ValueError):
            if self._live is None:
                shown = Spinner(signs, line)
                live = Live(shown, console=self._console, transient=True, redirect_stdout=False, refresh_per_second=5)
                self._live = (live, shown)
                live.start(refresh=True)
            else:
                self._live[1].update(text=line)

    def _stop(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            with contextlib.suppress(OSError, ValueError):
                live[0].stop()
