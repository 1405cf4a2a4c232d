"""The report's sections about numbers: scores and costs, comparisons, causes, the learning curve."""

from __future__ import annotations

from collections.abc import Sequence

from rung.decision import cause_evidence, cause_words
from rung.decision.evidence import turned
from rung.decision.figures import PERCENT, p_value, rounded_up
from rung.evaluation.statistics import ALPHA
from rung.report.markup import Html, element, joined, num, row, section, short, table, wide
from rung.report.plots import curve_plot, interval_plot
from rung.report.reading import RunRecords
from rung.report.words import duration
from rung.types import Candidate, Comparison, Score

_TAGS = {"undecided": "ship meanwhile", "unfinished": "use meanwhile"}


def scores_section(run: RunRecords) -> Html:
    """A plot of all scores, and the table of candidates and baselines."""
    candidates = run.decision.candidates
    if not candidates:
        return Html("")
    floor = (run.decision.floor, run.floor) if run.baselines else None
    plot = interval_plot(candidates, run.scale, chosen=run.decision.solution, floor=floor)
    tested = any(c.test is not None for c in candidates)
    words = "Filled dots: the sealed test. Open dots: dev." if tested else "Open dots: dev. The test is sealed."
    words += " Lines: 95 % intervals."
    if floor is not None:
        words += " Dashed line: the floor, the best score of a baseline that looks at no input."
    figure = element("figure", plot, element("figcaption", words))
    return section("Scores and costs", figure, _candidates(run, tested))


def _candidates(run: RunRecords, tested: bool) -> Html:
    candidates = run.decision.candidates
    priced = any(c.cost_per_1k_usd is not None for c in candidates)
    failed = any(c.failed_calls or c.unscored for c in candidates)
    timed = any(c.latency_s_p50 is not None for c in candidates)
    # What decides stands first: on a phone the columns to the right are out of sight.
    header = ["Candidate", *(["Test"] if tested else []), "Dev", "Approach", "Tokens in / out"]
    header += [*(["Latency p50 / p95"] if timed else []), "Built in", *(["USD per 1,000"] if priced else [])]
    header += ["Failed"] if failed else []
    rows = []
    for c in candidates:
        chosen = c.name == run.decision.solution
        tag = element("span", _TAGS.get(run.decision.choice, "chosen"), class_="tag")
        cells = [*([_scored(run, c.test)] if tested else []), _scored(run, c.dev), short(c.family)]
        cells += [num(text) for text in _costs(c, timed)]
        if priced:
            cells.append(num("–" if c.cost_per_1k_usd is None else f"{c.cost_per_1k_usd:,.2f}"))
        if failed:
            cells.append(num(f"{c.failed_calls:,} / {c.unscored:,}"))
        name = joined([c.name, tag], " ") if chosen else c.name
        rows.append(row(name, *cells, class_="chosen" if chosen else "baseline" if c.family == "baseline" else ""))
    right = ("Tokens in / out", "Latency p50 / p95", "Built in", "USD per 1,000", "Failed")
    return table(_caption(run, tested, failed), header, rows, label="Candidates", right=right)


def _costs(c: Candidate, timed: bool) -> list[str]:
    """Tokens, latency where any was timed, and building time. A baseline has none of these."""
    if c.family == "baseline":
        return ["–"] * (3 if timed else 2)
    latency = "–" if c.latency_s_p50 is None else f"{duration(c.latency_s_p50)} / {duration(c.latency_s_p95)}"
    tokens = f"{c.tokens_in:,.0f} / {c.tokens_out:,.1f}"
    return [tokens, *([latency] if timed else []), duration(c.build_seconds)]


def _caption(run: RunRecords, tested: bool, failed: bool) -> str:
    said = "Scores with 95 % intervals; tokens are means per request."
    if any(c.latency_s_p50 is not None for c in run.decision.candidates):
        said += " Latencies are of one request at a time."
    if run.baselines:
        said += " Baselines use no language model."
    if len(run.decision.frontier) > 1:
        said += f" Best for their cost: {', '.join(run.decision.frontier)}. Each of the others costs at least as much"
        said += " as one of these and scores no higher."
    if tested and any(c.test is None for c in run.decision.candidates):
        said += " A dash under Test: only the best of each approach on dev answers the test."
    if failed:
        said += " Failed: answers that the model did not give / answers that could not be scored. Both"
        said += " count as 0."
    return said


def _scored(run: RunRecords, score: Score | None) -> Html:
    if score is None:
        return element("td", "–")
    scale, known = run.scale, score.low == score.high == score.mean
    interval = element("span", "known" if known else scale.interval(score), class_="range")
    return short(joined([scale.value(score.mean, score.n), interval], " "))


# ---- comparisons ------------------------------------------------------------------------------


def comparisons_section(run: RunRecords) -> Html:
    """Candidates with each other, and candidates with baselines: two questions, two tables."""
    bases = run.baselines
    among = [c for c in run.decision.comparisons if not {c.a, c.b} & bases]
    against = [c for c in run.decision.comparisons if {c.a, c.b} & bases]
    return section(
        "Compared pair by pair",
        _pairs(run, among, "Candidates"),
        _pairs(run, against, "Candidates with baselines", "for each baseline by itself"),
    )


def _pairs(
    run: RunRecords, comparisons: Sequence[Comparison], title: str, family: str = "for all pairs of this table"
) -> Html:
    if not comparisons:
        return Html("")
    scale = run.scale
    rows = []
    for c in map(_better_first, comparisons):
        verdict = f"{c.b} is better" if c.p_corrected < ALPHA else "no difference shown"
        interval = element("span", f"{scale.signed(c.low)} to {scale.signed(c.high)}", class_="range")
        difference = joined([scale.signed(c.difference), interval], " ")
        rows.append(row(f"{c.b} against {c.a}", short(difference), short(p_value(c.p_corrected)), verdict))
    unit = " in points" if scale.right_or_wrong else ""
    where = " and ".join(sorted({c.set for c in comparisons}))
    caption = f"{title}: differences{unit} on the same {where} examples"
    if len(comparisons) > 1:
        caption += (
            f"; p after Holm's correction {family}. An interval excludes 0 exactly where that p is below {ALPHA:g}."
        )
    else:
        caption += ", with 95 % intervals."
    header = ("Pair", "Difference", "Corrected p" if len(comparisons) > 1 else "p", "In words")
    return table(caption, header, rows, label=title)


def _better_first(c: Comparison) -> Comparison:
    """The same comparison seen from the side of the higher score."""
    return c if c.difference >= 0 else turned(c)


# ---- causes -----------------------------------------------------------------------------------


def causes_section(run: RunRecords) -> Html:
    """Why the best prompt's answers are wrong."""
    causes = run.decision.diagnosis
    rows = [
        row(
            cause_words(d.cause),
            PERCENT.value(d.share),
            short(f"{PERCENT.bare(d.low)}–{PERCENT.bare(d.high)} %"),
            wide(cause_evidence(d, causes)),
        )
        for d in causes
    ]
    if not rows:
        return Html("")
    caption = (
        "The share of what the best prompt gets wrong on dev that each cause explains, the leading one first. What "
        "chance alone would fix, and what the experiment broke, is subtracted."
    )
    header = ("Cause", "Share", "95 % interval", "What says so")
    return section("Why answers are wrong", table(caption, header, rows, label="Causes"))


def curve_section(run: RunRecords) -> Html:
    """How much more examples help: pilots and the whole training on the same dev examples."""
    points = [(float(p["examples"]), float(p["mean"])) for p in run.curve.get("points", ()) if p["examples"]]
    if len(points) < 2:
        return Html("")
    scale, more = run.scale, run.curve["more"]
    gain = f"{scale.gap(more['mean'])} ({scale.ends(more['low'], more['high'])})"
    caption = (
        f"Dev score after fine-tuning on so many examples, on {run.curve['screen']:,} dev examples. "
        f"About {rounded_up(more['examples'])} more would add {gain}. That assumes that the next doubling adds "
        "something between nothing and what the last one added."
    )
    title = "Dev score by number of training examples"
    plot = curve_plot(points, points[-1][0], scale, title=title, unit="examples", n=run.curve["screen"])
    return section(
        "What more examples would bring", element("figure", plot, element("figcaption", caption), class_="small")
    )
