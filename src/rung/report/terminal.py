"""What the terminal shows: the plan before, one live line meanwhile, the verdict after.

Screens are renderables of rich that know the width they are printed at. Of the verdict, the headline, the warnings,
what was not measured and the first next step are always whole; other sentences are whole or left to the report. Plain
without colour, and in ASCII where the terminal has no more. The plan screen stands in `planned`. Knows records and
words; decides nothing.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rung.records import read_json
from rung.report.lines import Line, Screen, clean, columns, cut, printable, styled, width_of, wrapped
from rung.report.planned import plan_screen
from rung.report.reading import RunRecords, read_run, scale_of
from rung.report.search_failures import search_failure_lines
from rung.report.spending import spent_usd
from rung.report.words import both_ends, count, dollars, duration, shortened, time_left
from rung.types import Candidate, Decision, Family, Score, kind_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner

FINAL_LINES = 25
"""The verdict is laid out for so many lines. Only what must be whole takes more."""

_QUIET_S = 10.0  # between progress lines where there is no live line
_LEAST_SHARE = 0.005
_MOST_CANDIDATES = 6
_WIDEST_NAME = 18
_UNMEASURED = " was not measured: "  # in a reason about a check of a finalist

# ---- after ----------------------------------------------------------------------------------


def final_screen(folder: Path) -> Screen:
    """The verdict, its warnings, why, the candidates, what to do next, and which checks of finalists were not made.

    Headline, warnings and the first next step (two of an unfinished run, three while undecided) are always whole. Of
    the other sentences as many are shown, whole, as FINAL_LINES have room for.
    Raises RunError when the run has no verdict yet or a record is damaged.
    """
    run = read_run(folder)
    return Screen(lambda width: _final_lines(run, width))


def _final_lines(run: RunRecords, width: int) -> list[Line]:
    decision = run.decision
    top = styled(wrapped(decision.headline, width), "bold")
    for warning in decision.warnings:
        top += styled(wrapped(warning, width, bullet="! "), "yellow")
    table = _candidate_lines(run, width)
    tail = wrapped(f'Try it: rung ask {shlex.join(run.asking)} "…"' if run.asking else "", width)
    tail += search_failure_lines(run, width)
    reasons, unmeasured = _by_measured(decision)
    for sentence in unmeasured:
        tail += styled(wrapped(sentence, width, bullet="! "), "yellow")
    if spent := spent_usd(run):
        tail += wrapped(f"Spent: {spent}.", width)
    tail += wrapped(f"Report: {run.folder / 'report.html'}", width)
    room = FINAL_LINES - len(top) - len(table) - len(tail) - 3  # three empty lines
    steps = _sentences(
        decision.next, width, room // 2, "more step", least={"unfinished": 2, "undecided": 3}.get(decision.choice, 1)
    )
    why = _sentences(reasons, width, room - len(steps), "more reason")
    empty: Line = ("", "")
    return [*top, *why, empty, *table, empty, *steps, empty, *tail]


def _by_measured(decision: Decision) -> tuple[list[str], list[str]]:
    """(the reasons without checks of finalists that were not made, a sentence about those for each cause).

    A sentence: Not measured: whether rag follows planted orders; what few_shot has forgotten (the budget was spent).
    """
    about = decision.reasons_about
    if len(about) != len(decision.reasons):  # of an older version
        return list(decision.reasons), []
    rest: list[str] = []
    by_why: dict[str, list[str]] = {}
    for reason, topic in zip(decision.reasons, about, strict=True):
        what, found, why = reason.partition(_UNMEASURED)
        if topic == "checks" and found:
            by_why.setdefault(why.rstrip("."), []).append(what[:1].lower() + what[1:])
        else:
            rest.append(reason)
    return rest, [f"Not measured: {'; '.join(own)} ({why})." for why, own in by_why.items()]


def _sentences(texts: Sequence[str], width: int, room: int, more: str, *, least: int = 0) -> list[Line]:
    """As many of the texts as there is room for, each whole, and a line that counts the others.

    least: so many are shown however little room there is. more: how one that is left out is called.
    """
    sentences = [lines for text in texts if (lines := wrapped(text, width, bullet="- "))]
    used, number = 0, 0
    for lines in sentences:
        last = number + 1 == len(sentences)
        if number >= least and used + len(lines) + (0 if last else 1) > room:
            break
        used, number = used + len(lines), number + 1
    left = len(sentences) - number
    counted = [(cut(f"  {count(left, more)} in report.html", width), "dim")] if left else []
    return [line for lines in sentences[:number] for line in lines] + counted


def _rank(c: Candidate) -> int:
    """What a short table shows first: what was tested, then what is set beside it, then what was only tried."""
    return (0 if c.family != "baseline" else 1) + (0 if c.test else 2)


def _candidate_lines(run: RunRecords, width: int) -> list[Line]:
    """A header and a line each; where the width does not suffice, the least important columns go."""
    chosen = run.decision.solution
    tested = any(c.test is not None for c in run.decision.candidates)
    best = {c.name for c in run.best_of_models()} if run.several else set()
    ranked = sorted(
        run.decision.candidates,
        key=lambda c: (c.name != chosen, c.name not in best, _rank(c), -(c.test or c.dev).mean),
    )
    kept = [c for c in run.decision.candidates if c in ranked[:_MOST_CANDIDATES]]
    rows = [_cells(run, c, tested) for c in kept]
    names = [n for n in rows[0] if any(r[n] != "–" for r in rows)] if rows else ["candidate"]
    whose = ["strategy", "model"] if run.several else ["candidate"]
    dropped = ["family", "built in", *(["dev"] if tested else []), "tokens", "p50", "USD/1,000"]
    if run.several:  # whose dollars say more than tokens
        dropped = ["family", "tokens", "built in", *(["dev"] if tested else []), "p50", "USD/1,000"]
    spare = [n for n in names if n not in ("candidate", "strategy", "model")]
    layouts = [[*whose, *(n for n in spare if n not in dropped[:i])] for i in range(len(dropped) + 1)]
    layouts.append(["candidate", *layouts[-1][len(whose) :]])
    for shown in layouts:
        header = [f"  {n}" if n == shown[0] else n for n in shown]
        laid = [header, *([r[n] for n in shown] for r in rows)]
        if width_of(laid) <= width:
            break
    words = {"candidate", "strategy", "model", "family", "test (95 %)"} | (set() if tested else {"dev"})
    table = columns(laid, "".join("l" if n in words else "r" for n in shown), width)
    lines: list[Line] = [(table[0], "dim")]
    lines += [(text, "bold green" if c.name == chosen else "") for text, c in zip(table[1:], kept, strict=True)]
    more = len(run.decision.candidates) - len(kept)
    return [*lines, (cut(f"  and {more} more, in the report", width), "dim")] if more else lines


def _cells(run: RunRecords, c: Candidate, tested: bool) -> dict[str, str]:
    """All columns of a candidate's line, in their order; of a name, also its two halves."""
    scale, baseline = run.scale, c.family == "baseline"
    mark = "→ " if c.name == run.decision.solution else "  "
    return {
        "candidate": mark + (both_ends if run.several else shortened)(c.name, _WIDEST_NAME),
        "strategy": mark + shortened(kind_of(c.name), _WIDEST_NAME),
        "model": both_ends(c.model, _WIDEST_NAME) or "–",
        "family": c.family,
        "dev": scale.value(c.dev.mean, c.dev.n) if tested else scale.full(c.dev),
        **({"test (95 %)": scale.full(c.test) if c.test else "–"} if tested else {}),
        "tokens": "–" if baseline else f"{c.tokens_in:,.0f}",
        "p50": duration(c.latency_s_p50),
        "built in": "–" if baseline else duration(c.build_seconds),
        "USD/1,000": "–" if baseline or c.cost_per_1k_usd is None else dollars(c.cost_per_1k_usd),
    }


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
        self._folder: Path | None = None
        self._names = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._stop()

    def say(self, text: str) -> None:
        self._print(clean(text))

    def planned(self, folder: Path, plan: Mapping[str, Any], checks: Mapping[str, Any]) -> None:
        task = read_json(folder / "task.json") or {}
        self._folder = folder
        self._names = max((len(s["name"]) for s in plan.get("steps", ())), default=0)
        self._print(plan_screen(folder, plan, checks, task))
        self._print("")

    def progress(self, what: str, share: float, left_s: float | None) -> None:
        share = min(1.0, max(0.0, share))
        left = "" if left_s is None else f", {time_left(left_s)}"
        known = share >= _LEAST_SHARE  # before the first block of a step is done, nothing is
        text = f"{what}  {100 * share:.0f} %{left}" if known else what
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._show(text)
        elif self._clock() - self._last_line_at >= _QUIET_S:
            self._last_line_at = self._clock()
            self._print(text)

    def tried(self, name: str, family: Family, dev: Score, seconds: float) -> None:
        self._stop()
        task = read_json(self._folder / "task.json") if self._folder is not None else None
        scale = scale_of(task or {})  # not as planned: a judge that turns out to be secondary changes it
        self._print(f"{name:<{self._names}}  {family:<13}  dev {scale.full(dev)}  {duration(seconds)}")

    def skipped(self, name: str, why: str) -> None:
        self._print(f"{name:<{self._names}}  skipped: {why}")

    def _print(self, what: str | Screen) -> None:
        if isinstance(what, str):
            what = printable(clean(what), self._console.encoding)
        with contextlib.suppress(OSError, ValueError):
            self._console.print(what, markup=False, highlight=False, soft_wrap=isinstance(what, str))

    def _show(self, text: str) -> None:
        from rich.live import Live
        from rich.spinner import Spinner
        from rich.text import Text

        line = Text(printable(cut(text, self._console.width - 2), self._console.encoding), no_wrap=True)
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
