"""The report's sections about numbers: scores and costs, causes, the learning curve. Pairs stand in `pairs`."""

from __future__ import annotations

from rung.decision import cause_evidence, cause_words
from rung.decision.figures import PERCENT, rounded_up
from rung.report.markup import Html, element, joined, num, ranged, row, scored, section, short, table, wide
from rung.report.plots import curve_plot, interval_plot
from rung.report.reading import RunRecords
from rung.report.words import count, dollars, duration
from rung.types import Candidate, Score, kind_of

_WHOLE_NAME = 20  # characters of a model's name that are not broken
_TAGS = {"undecided": "ship meanwhile", "unfinished": "use meanwhile"}


def scores_section(run: RunRecords) -> Html:
    """A plot of all scores, and the table of candidates and baselines."""
    candidates = run.decision.candidates
    if not candidates:
        return Html("")
    floor = (run.decision.floor, run.floor) if run.baselines else None
    plot = interval_plot(candidates, run.scale, chosen=run.decision.solution, floor=floor)
    tested = any(c.test is not None for c in candidates)
    words = f"Scores: {run.metric}. " if run.metric else ""
    words += "Filled dots: the sealed test. Open dots: dev." if tested else "Open dots: dev. The test is sealed."
    words += " Lines: 95 % intervals."
    if floor is not None:
        words += " Dashed line: the floor, the best score of a baseline that looks at no input."
    figure = element("figure", plot, element("figcaption", words))
    return section("Scores and costs", figure, _candidates(run, tested))


def _candidates(run: RunRecords, tested: bool) -> Html:
    candidates = run.decision.candidates
    priced = any(c.cost_per_1k_usd is not None for c in candidates if c.family != "baseline")
    failed = any(c.failed_calls or c.unscored for c in candidates)
    # What decides stands first: on a phone the columns to the right are out of sight.
    header = ["Candidate", *(["Model"] if run.several else []), *(["Test"] if tested else []), "Dev", "Approach"]
    repeats = _repeats(run)
    header += [f"Right {repeats} of {repeats}"] if repeats else []
    header += [*(["USD per 1,000"] if priced else []), *_cost_columns(run), *(["Failed"] if failed else [])]
    rows = []
    for c in candidates:
        chosen, baseline = c.name == run.decision.solution, c.family == "baseline"
        tag = element("span", _TAGS.get(run.decision.choice, "chosen"), class_="tag")
        cells = [_model_cell(c.model)] if run.several else []
        cells += [*([_scored(run, c.test)] if tested else []), _scored(run, c.dev), short(c.family)]
        cells += [_scored(run, c.pass_k)] if repeats else []
        if priced:
            cells.append(num("–" if c.cost_per_1k_usd is None else dollars(c.cost_per_1k_usd)))
        cells += [num("–" if baseline else text) for text in _cost_columns(run, c).values()]
        if failed:
            cells.append(num(f"{c.failed_calls:,} / {c.unscored:,}"))
        name = kind_of(c.name) if run.several else c.name
        rows.append(
            row(
                joined([name, tag], " ") if chosen else name,
                *cells,
                class_="chosen" if chosen else "baseline" if baseline else "",
            )
        )
    right = ("USD per 1,000", *_cost_columns(run), "Failed")
    return table(_caption(run, tested, failed), header, rows, label="Candidates", right=right)


def _repeats(run: RunRecords) -> int:
    """How often test inputs were answered by candidates near the top; 0 where they were answered once."""
    return max((c.repeats for c in run.decision.candidates), default=0)


def _model_cell(name: str) -> Html:
    return short(name or "–") if len(name) <= _WHOLE_NAME else element("td", name)


def _cost_columns(run: RunRecords, c: Candidate | None = None) -> dict[str, str]:
    """Header -> the cell of a candidate. Latencies are left out where none was measured. None: empty cells."""
    everything = run.decision.candidates
    columns = {"Tokens in / out": "" if c is None else f"{c.tokens_in:,.0f} / {c.tokens_out:,.1f}"}
    if any(one.first_token_s_p50 is not None for one in everything):
        columns["First token p50 / p95"] = "" if c is None else _timed(c.first_token_s_p50, c.first_token_s_p95)
    if any(one.latency_s_p50 is not None for one in everything):
        columns["Latency p50 / p95"] = "" if c is None else _timed(c.latency_s_p50, c.latency_s_p95)
    return {**columns, "Built in": "" if c is None else duration(c.build_seconds)}


def _timed(p50: float | None, p95: float | None) -> str:
    """0.31 s / 0.52 s; a dash where it was not measured."""
    return "–" if p50 is None else f"{duration(p50)} / {duration(p95)}"


def _caption(run: RunRecords, tested: bool, failed: bool) -> str:
    said = f"Scores ({run.metric})" if run.metric else "Scores"
    said += " with 95 % intervals; tokens are means per request."
    if any(c.latency_s_p50 is not None for c in run.decision.candidates):
        said += _timing(run)
    if run.baselines:
        said += " Baselines use no language model."
    if len(run.decision.frontier) > 1:
        unpriced = any(c.test and c.cost_per_1k_usd is None and c.model for c in run.decision.candidates)
        order = " (a later model counts as the dearer one)" if run.several and unpriced else ""
        said += f" Best for their cost{order}: {', '.join(run.decision.frontier)}. Each of the others costs at least as"
        said += " much as one of these and scores no higher."
    if tested and any(c.test is None for c in run.decision.candidates):
        whose = "of each approach and model" if run.several else "of each approach"
        beside = ", and the same with a shorter prompt," if _shortened(run) else ""
        said += f" A dash under Test: it was not tested. Only the candidate {whose} that is best on dev{beside} was."
        said += " What did not prove its gain on dev is no candidate." if _unproven(run) else ""
    if repeats := _repeats(run):
        said += f" Right {repeats} of {repeats}: the share of test inputs to which all of {repeats} sampled answers are"
        said += " right, of candidates near the top."
    if failed:
        said += " Failed: answers that the model did not give or that break their constraint / answers that"
        said += " could not be scored. All count as 0."
    return said


def _unproven(run: RunRecords) -> bool:
    return any(left.unproven for left in run.decision.left_early)


def _shortened(run: RunRecords) -> bool:
    return any(record.get("taken") is not None for record in run.shortened.values())


def _timing(run: RunRecords) -> str:
    """How many requests were in flight while latencies were measured, by model where that differs, and what failed."""
    by_number: dict[int, dict[str, None]] = {}
    for c in run.decision.candidates:
        if c.name in run.latency:
            by_number.setdefault(int(run.latency[c.name].get("concurrency", 1)), {})[c.model] = None
    failed = sum(int(record.get("failed", 0)) for record in run.latency.values())
    ending = f" {count(failed, 'request')} that should be timed brought no answer." if failed else ""
    words = {n: "of one request at a time" if n == 1 else f"with {n:,} requests at once" for n in sorted(by_number)}
    if set(by_number) <= {1}:
        return f" Latencies are of one request at a time.{ending}"
    if len(words) == 1:
        return f" Latencies are {next(iter(words.values()))}, as a client sees them.{ending}"
    said = "; ".join(f"{words[n]} for {', '.join(by_number[n])}" for n in words)
    return f" Latencies are {said}, as a client sees them.{ending}"


def _scored(run: RunRecords, score: Score | None) -> Html:
    if score is not None and score.low == score.high == score.mean:
        return ranged(run.scale.value(score.mean, score.n), "known")
    return scored(run.scale, score)


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
    whose = f"what {run.diagnosed}" if run.several and run.diagnosed else "what the best prompt"
    caption = (
        f"The share of {whose} gets wrong on dev that each cause explains, the leading one first. What "
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
    tuned = f" {run.curve['model']}" if run.several and run.curve.get("model") else ""
    caption = (
        f"Dev score after fine-tuning{tuned} on so many examples, on {run.curve['screen']:,} dev examples. "
        f"About {rounded_up(more['examples'])} more would add {gain}. That assumes that the next doubling adds "
        "something between nothing and what the last one added."
    )
    title = "Dev score by number of training examples"
    plot = curve_plot(points, points[-1][0], scale, title=title, unit="examples", n=run.curve["screen"])
    return section(
        "What more examples would bring", element("figure", plot, element("figcaption", caption), class_="small")
    )
