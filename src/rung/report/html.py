"""report.html: one page of one run, without network and scripts, that prints and reads on a phone.

Knows the order of the sections, and the ones that say what the verdict is and what to do. Whatever comes from the
user's files is text and is escaped by `markup`; numbers come from the records as they stand.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from rung.decision.figures import more_minutes
from rung.errors import RunError, fault_text
from rung.records import damage_behind, write_text
from rung.report.background import checks_section, data_section, run_section
from rung.report.building import built_section, not_tried_section
from rung.report.examples import confusion_section, example_section, field_section
from rung.report.injections import injections_section
from rung.report.judging import judge_section
from rung.report.markup import Html, element, items, joined, num, prose, row, section, short, table, wide
from rung.report.models import models_section
from rung.report.pairs import break_even_section, comparisons_section
from rung.report.reading import RunRecords, models_in_words, read_run
from rung.report.scores import causes_section, curve_section, scores_section
from rung.report.search_failures import search_failures_section
from rung.report.searches import searches_section
from rung.report.searching import searched_section
from rung.report.shortening import shortening_section
from rung.report.sources import sources_section
from rung.types import Example, Topic

_BADGES = {"none": "none works"}
_MOST_NAMED = 4
_TOPICS: dict[Topic, str] = {
    "decided": "What decided",
    "teacher": "What the teacher did",
    "judge": "The judge",
    "checks": "Right every time, and made-up answers",
    "costs": "Costs",
    "not tried": "What was not tried, or is no candidate",
}
_FOLDED: Topic = "not tried"
_MOST_OPEN = 3  # sentences about what was not tried
_LONG_HEADLINE = 150  # characters; a longer one is set smaller


def write_report(folder: Path, examples: Mapping[str, Example] | None = None) -> Path:
    """Writes report.html into a run folder that has its verdict, and returns its path.

    examples: id -> example of the opened test, to show inputs and right answers beside the answers;
    with None ids and answers alone are shown.
    Raises RunError when there is no verdict yet, or a record is damaged or of another format.
    """
    run = read_run(folder)
    path = folder / "report.html"
    try:
        page = _page(run, examples or {})
    except (TypeError, ValueError, LookupError, AttributeError) as error:  # it is made of records alone
        damaged = f"{folder}: a record is damaged ({fault_text(error)}). Run the task again in a new folder."
        raise damage_behind(error) or RunError(damaged) from error
    write_text(path, page)
    return path


def _page(run: RunRecords, examples: Mapping[str, Example]) -> str:
    next_ = _next(run)
    sections = [
        _heading(run),
        section("Read this first", items(run.decision.warnings), class_="warnings"),
        *((_missing(run), next_) if run.unfinished else ()),
        _why(run),
        scores_section(run),
        comparisons_section(run),
        shortening_section(run),
        sources_section(run),
        injections_section(run),
        break_even_section(run),
        causes_section(run),
        searches_section(run),
        search_failures_section(run),
        curve_section(run),
        *(() if run.unfinished else (next_,)),
        data_section(run),
        judge_section(run),
        models_section(run),
        built_section(run),
        searched_section(run),
        not_tried_section(run),
        section("Examples from the test", example_section(run, examples)),
        section("Fields of the answers", field_section(run, examples)),
        section("What is confused with what", confusion_section(run, examples)),
        checks_section(run),
        run_section(run),
    ]
    title = element("title", f"{run.task.get('name', run.folder.name)}: {run.decision.choice}")
    style = Html(f"<style>\n{Path(__file__).with_name('report.css').read_text('utf-8')}</style>")
    meta = Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">')
    body = element("body", element("main", joined(sections, "\n")))
    return f'<!doctype html>\n<html lang="en">\n<head>{meta}{title}\n{style}</head>\n{body}\n</html>\n'


def _heading(run: RunRecords) -> Html:
    choice = run.decision.choice
    badge = element("span", _BADGES.get(choice, choice), class_=f"badge {choice}")
    named = [str(run.task.get("name", "")), models_in_words(run.task, _MOST_NAMED), run.metric]
    about = element("p", badge, *(element("span", fact) for fact in named if fact), class_="about")
    headline = run.decision.headline
    long = "long" if len(headline) > _LONG_HEADLINE else ""
    return element("header", about, element("h1", prose(headline), class_=long))


def _why(run: RunRecords) -> Html:
    """The reasons by what they are about; what was not tried is folded."""
    reasons = run.decision.reasons
    about = run.decision.reasons_about
    if len(about) != len(reasons):  # of an older version
        return section("Why", items(reasons))
    parts = []
    for topic, title in _TOPICS.items():
        said = [reason for reason, its in zip(reasons, about, strict=True) if its == topic]
        if said and topic == _FOLDED and len(said) > _MOST_OPEN:
            parts.append(element("details", element("summary", f"{title} ({len(said)})"), items(said)))
        elif said:
            parts.append(joined([element("h3", title), items(said)]))
    return section("Why", *parts, class_="why")


def _missing(run: RunRecords) -> Html:
    """What could change the verdict and was not tried, with its cost."""
    rows = [
        row(s.name, short(s.family), wide(s.why), num(f"about {more_minutes(s.minutes)}" if s.minutes else "–"))
        for s in run.decision.skipped
        if s.matters
    ]
    if not rows:
        return Html("")
    header = ("Strategy", "Approach", "Why it was not tried", "It would take")
    return section("What is missing", table("These could change the verdict.", header, rows, right=header[3:]))


def _next(run: RunRecords) -> Html:
    commands = [f'rung ask {shlex.join(run.asking)} "an input"'] if run.asking else []
    commands.append(f"rung report {shlex.quote(str(run.folder))}")
    ready = "The solution to ship is in winner/ beside this file, ready to use."
    return section(
        "What to do next",
        items(run.decision.next),
        element("pre", element("code", "\n".join(commands))),
        element("p", ready, class_="note") if run.chosen and not run.unfinished else "",
    )
