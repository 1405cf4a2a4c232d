"""What the terminal shows: the plan before, one live line meanwhile, the verdict after.

Screens are renderables of rich that know the width they are printed at. Of the verdict, the headline, the warnings and
the first next step are always whole; other sentences are whole or left to the report. Plain without colour, and in
ASCII where the terminal has no more. Knows records and words; decides nothing.
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
from rung.report.background import sizes
from rung.report.reading import RunRecords, read_run, scale_of
from rung.report.words import NO_BREAK, count, duration, shortened, thousands, tied, time_left
from rung.types import Candidate, Family, Score

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.live import Live
    from rich.spinner import Spinner

FINAL_LINES = 25
"""The verdict is laid out for so many lines. Only what must be whole takes more."""

PLAN_LINES = 19
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
    detectable, scale = plan.get("minimum_detectable_difference", {}), scale_of(task)
    steps = list(plan.get("steps", ()))
    shown = [*steps, *(s for s in plan.get("experiments", ()) if s["applies"])]
    lines: list[Line] = [
        (_cut(f"{task.get('name', folder.name)}: {task.get('model', '')}, {task.get('metric', '')}", width), "bold")
    ]
    lines += _wrapped(f"Examples: {sizes(plan)} (the test stays sealed until the end).", width, 2)
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
    reasons = dict.fromkeys(s["why"] for s in steps if not s["applies"])
    alike = {why: ", ".join(s["name"] for s in steps if not s["applies"] and s["why"] == why) for why in reasons}
    names = max([len(s["name"]) for s in steps], default=0)
    skipped = [_skipped_lines(f"{named:<{names}}", why, width) for why, named in alike.items()]
    lines.append((table[0], "dim"))
    body = [*([(line, "")] for line in table[1:]), *skipped]
    lines += _at_most(body, 9, lambda n: f"and {n} more, in plan.json")
    lines.append(("", ""))
    budget = {k: v for k, v in (task.get("budget") or {}).items() if v is not None}
    units = {"minutes": "min", "calls": "calls", "usd": "USD"}
    allowed = ", ".join(f"{v:g} {units.get(k, k)}" for k, v in budget.items())
    limit = f" of a budget of {allowed}" if allowed else ""
    usd = f", {plan['usd']:.2f} USD" if plan.get("usd") else ""
    total = f"In all about {plan.get('seconds', 0) / 60:.1f} min{limit}{usd}."
    return lines + _wrapped(total, width, 1) + _check_lines(folder, checks, width)


def _skipped_lines(named: str, why: str, width: int) -> list[Line]:
    """In one line where it fits, else in at most three."""
    from rich.cells import cell_len

    whole = _clean(f"{named}  skipped: {why}")
    lines = [(whole, "")] if cell_len(whole) <= width else _wrapped(f"skipped: {why}: {named}", width, 3)
    return _styled(lines, "dim")


def _check_lines(folder: Path, checks: Mapping[str, Any], width: int) -> list[Line]:
    findings = [f for f in checks.get("findings", ()) if f["severity"] != "note"]
    if not findings:
        notes = len(checks.get("findings", ()))
        noted = f", {count(notes, 'note')} in {folder / 'checks.json'}" if notes else ""
        return [(_cut(f"Data checks: no warnings{noted}.", width), "")]
    first = findings[0]
    place = f"{first['row']}: " if first["row"] else ""
    warning = f"Data checks: {count(len(findings), 'warning')}. {place}{first['message']}"
    rest = f"All of them: {folder / 'checks.json'}"
    return _styled(_wrapped(warning, width, 2), "yellow") + _wrapped(rest, width, 2)


# ---- after ----------------------------------------------------------------------------------


def final_screen(folder: Path) -> Screen:
    """The verdict, its warnings, why, the candidates and what to do next.

    Headline, warnings and the first next step (two of an unfinished run, three while undecided) are always whole. Of
    the other sentences as many are shown, whole, as FINAL_LINES have room for.
    Raises RunError when the run has no verdict yet or a record is damaged.
    """
    run = read_run(folder)
    return Screen(lambda width: _final_lines(run, width))


def _final_lines(run: RunRecords, width: int) -> list[Line]:
    decision = run.decision
    top = _styled(_wrapped(decision.headline, width), "bold")
    for warning in decision.warnings:
        top += _styled(_wrapped(warning, width, bullet="! "), "yellow")
    table = _candidate_lines(run, width)
    tail = _wrapped(f'Try it: rung ask {shlex.join(run.asking)} "…"' if run.asking else "", width)
    tail += _wrapped(f"Report: {run.folder / 'report.html'}", width)
    room = FINAL_LINES - len(top) - len(table) - len(tail) - 3  # three empty lines
    steps = _sentences(
        decision.next, width, room // 2, "more step", least={"unfinished": 2, "undecided": 3}.get(decision.choice, 1)
    )
    reasons = _sentences(decision.reasons, width, room - len(steps), "more reason")
    empty: Line = ("", "")
    return [*top, *reasons, empty, *table, empty, *steps, empty, *tail]


def _sentences(texts: Sequence[str], width: int, room: int, more: str, *, least: int = 0) -> list[Line]:
    """As many of the texts as there is room for, each whole, and a line that counts the others.

    least: so many are shown however little room there is. more: how one that is left out is called.
    """
    wrapped = [lines for text in texts if (lines := _wrapped(text, width, bullet="- "))]
    used, number = 0, 0
    for lines in wrapped:
        last = number + 1 == len(wrapped)
        if number >= least and used + len(lines) + (0 if last else 1) > room:
            break
        used, number = used + len(lines), number + 1
    left = len(wrapped) - number
    counted = [(_cut(f"  {count(left, more)} in report.html", width), "dim")] if left else []
    return [line for lines in wrapped[:number] for line in lines] + counted


def _rank(c: Candidate) -> int:
    """What a short table shows first: what was tested, then what is set beside it, then what was only tried."""
    return (0 if c.family != "baseline" else 1) + (0 if c.test else 2)


def _candidate_lines(run: RunRecords, width: int) -> list[Line]:
    """A header and a line each; where the width does not suffice, the least important columns go."""
    scale, chosen = run.scale, run.decision.solution
    tested = any(c.test is not None for c in run.decision.candidates)
    ranked = sorted(run.decision.candidates, key=lambda c: (c.name != chosen, _rank(c), -(c.test or c.dev).mean))
    kept = [c for c in run.decision.candidates if c in ranked[:_MOST_CANDIDATES]]

    def cells(c: Candidate) -> dict[str, str]:
        return {
            "candidate": ("→ " if c.name == chosen else "  ") + shortened(c.name, 18),
            "family": c.family,
            "dev": scale.value(c.dev.mean, c.dev.n) if tested else scale.full(c.dev),
            **({"test (95 %)": scale.full(c.test) if c.test else "–"} if tested else {}),
            "tokens": "–" if c.family == "baseline" else f"{c.tokens_in:,.0f}",
            "p50": duration(c.latency_s_p50),
            "built in": "–" if c.family == "baseline" else duration(c.build_seconds),
        }

    rows = [cells(c) for c in kept]
    names = [n for n in rows[0] if any(r[n] != "–" for r in rows)] if rows else ["candidate"]
    for spare in ("", "family", "built in", *(["dev"] if tested else []), "tokens", "p50"):
        names = [n for n in names if n != spare]
        header = ["  candidate" if n == "candidate" else n for n in names]
        laid = [header, *([r[n] for n in names] for r in rows)]
        if _width(laid) <= width:
            break
    words = {"candidate", "family", "test (95 %)"} | (set() if tested else {"dev"})
    table = _columns(laid, "".join("l" if n in words else "r" for n in names), width)
    lines: list[Line] = [(table[0], "dim")]
    lines += [(text, "bold green" if c.name == chosen else "") for text, c in zip(table[1:], kept, strict=True)]
    more = len(run.decision.candidates) - len(kept)
    return [*lines, (_cut(f"  and {more} more, in the report", width), "dim")] if more else lines


# ---- lines ----------------------------------------------------------------------------------


def _wrapped(text: str, width: int, most: int | None = None, bullet: str = "") -> list[Line]:
    """The text in lines. most: at most so many; what does not fit ends in an ellipsis. None: the whole text."""
    from rich.cells import cell_len

    text = tied(" ".join(_clean(text).split()))
    room = max(8, width)
    if cell_len(text) > len(text):  # wide signs take two columns: as if every one did
        room = max(8, room // 2)
    limit: dict[str, Any] = {} if most is None else {"max_lines": most, "placeholder": "…"}
    lines = textwrap.wrap(
        text,
        room,
        initial_indent=bullet,
        subsequent_indent=" " * len(bullet),
        break_on_hyphens=False,
        **limit,
    )
    return [(line.replace(NO_BREAK, " "), "") for line in lines]


def _styled(lines: Sequence[Line], style: str) -> list[Line]:
    return [(text, style) for text, _ in lines]


def _at_most(entries: list[list[Line]], most: int, more: Callable[[int], str]) -> list[Line]:
    """As many entries, each whole, as so many lines have room for, and a line that counts the others."""
    used, number = 0, 0
    for lines in entries:
        last = number + 1 == len(entries)
        if used + len(lines) + (0 if last else 1) > most:
            break
        used, number = used + len(lines), number + 1
    left = len(entries) - number
    shown = [line for lines in entries[:number] for line in lines]
    return [*shown, (more(left), "dim")] if left else shown


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
    """Shows in a terminal what a run does: one live line, and a plain line for what is finished.

    Where the console is no terminal: plain lines, about progress at most one every ten seconds. Used
    as a context manager, so that the live line goes whatever ends the run. A console that cannot be
    written to is no reason to stop.
    """

    def __init__(self, console: Console | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.console import Console as RichConsole

        self._console = console or RichConsole(stderr=True)
        self._clock = clock
        self._live: tuple[Live, Spinner] | None = None
        self._last_line_at = -_QUIET_S + clock()
        self._scale = scale_of({})
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
        self._scale = scale_of(task)
        self._names = max((len(s["name"]) for s in plan.get("steps", ())), default=0)
        self._print(plan_screen(folder, plan, checks, task))
        self._print("")

    def progress(self, what: str, share: float, left_s: float | None) -> None:
        share = min(1.0, max(0.0, share))
        left = "" if left_s is None else f", {time_left(left_s)}"
        text = f"{what}  {100 * share:.0f} %{left}"
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._show(text)
        elif self._clock() - self._last_line_at >= _QUIET_S:
            self._last_line_at = self._clock()
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
