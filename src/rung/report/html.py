"""report.html: one page of one run, without network and scripts, that prints and reads on a phone.

Knows the order of the sections and their words. Whatever comes from the user's files is text and is
escaped by `markup`; numbers come from the records as they stand.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from rung.decision import ALPHA, cause_told
from rung.records import write_text
from rung.report.examples import confusion_section, example_section, field_section
from rung.report.figures import curve_plot, interval_plot
from rung.report.markup import Html, element, joined, row, table
from rung.report.reading import Record, Run, Trained, read_run
from rung.report.words import count, duration, p_value, tied
from rung.types import Candidate, Comparison, Example, Score

_BADGES = {"none": "none works", "undecided": "undecided"}
_MOST_FINDINGS = 40


def write_report(folder: Path, examples: Mapping[str, Example] | None = None) -> Path:
    """Writes report.html into a run folder that has its verdict, and returns its path.

    examples: id -> example of the opened test, to show inputs and right answers beside the answers;
    with None ids and answers alone are shown.
    Raises RunError when there is no verdict yet or a record is damaged.
    """
    run = read_run(folder)
    path = folder / "report.html"
    write_text(path, _page(run, examples or {}))
    return path


def _page(run: Run, examples: Mapping[str, Example]) -> str:
    sections = [
        _heading(run),
        _section("Why", _list(run.decision.reasons)),
        _scores(run),
        _comparisons(run),
        _causes(run),
        _next(run),
        _what_the_data_show(run),
        _how(run),
        _section("Examples from the test", example_section(run, examples)),
        _section("Fields of the answers", field_section(run, examples)),
        _section("What is confused with what", confusion_section(run, examples)),
        _checks(run),
        _facts(run),
    ]
    title = element("title", f"{run.task.get('name', run.folder.name)}: {run.decision.choice}")
    style = Html(f"<style>\n{Path(__file__).with_name('report.css').read_text('utf-8')}</style>")
    meta = Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">')
    body = element("body", element("main", joined(sections, "\n")))
    return f'<!doctype html>\n<html lang="en">\n<head>{meta}{title}\n{style}</head>\n{body}\n</html>\n'


def _section(title: str, *content: str) -> Html:
    """Nothing when there is nothing to show."""
    return element("section", element("h2", title), *content) if any(content) else Html("")


def _list(items: tuple[str, ...] | list[str]) -> Html:
    return element("ul", *(element("li", tied(item)) for item in items)) if items else Html("")


def _num(text: str) -> Html:
    return element("td", text, class_="num")


def _facts_list(pairs: Mapping[str, str]) -> Html:
    return element(
        "dl", *(joined([element("dt", name), element("dd", value)]) for name, value in pairs.items() if value)
    )


# ---- the verdict ----------------------------------------------------------------------------


def _heading(run: Run) -> Html:
    choice = run.decision.choice
    badge = element("span", _BADGES.get(choice, choice), class_=f"badge {choice}")
    facts = [str(run.task.get(key, "")) for key in ("name", "model", "metric")]
    about = element("p", badge, *(element("span", fact) for fact in facts if fact), class_="about")
    return element("header", about, element("h1", tied(run.decision.headline)))


def _scores(run: Run) -> Html:
    candidates = run.decision.candidates
    if not candidates:
        return Html("")
    plot = interval_plot(candidates, run.scale, chosen=run.decision.solution, floor=run.floor)
    words = "Filled dots: the sealed test. Open dots: dev. Lines: 95 % intervals."
    if run.floor is not None:
        words += " Dashed: the floor, a score that needs no model."
    figure = element("figure", plot, element("figcaption", words))
    return _section("Scores and costs", figure, _candidates(run), _failed_calls(run))


def _candidates(run: Run) -> Html:
    priced = any(c.cost_per_1k_usd is not None for c in run.decision.candidates)
    header = ["Candidate", "Approach", "Dev", "Test", "Tokens in / out", "Latency p50 / p95", "Built in"]
    rows = []
    for c in run.decision.candidates:
        mark = c.name == run.decision.solution
        tag = "ship meanwhile" if run.decision.choice == "undecided" else "chosen"
        name = joined([c.name, element("span", tag, class_="tag")], " ") if mark else c.name
        latency = "–" if c.latency_s_p50 is None else f"{duration(c.latency_s_p50)} / {duration(c.latency_s_p95)}"
        tokens = f"{c.tokens_in:,.0f} / {c.tokens_out:,.1f}"
        cells = [element("td", c.family, class_="short"), _scored(run, c.dev), _scored(run, c.test)]
        cells += [_num(tokens), _num(latency), _num(duration(c.build_seconds))]
        if priced:
            cells.append(_num("–" if c.cost_per_1k_usd is None else f"{c.cost_per_1k_usd:,.2f}"))
        rows.append(row(name, *cells, class_="chosen" if mark else ""))
    caption = "Scores with 95 % intervals; tokens are means per request, latencies are of one request at a time."
    if len(run.decision.frontier) > 1:
        caption += f" No other is as good at no more cost: {', '.join(run.decision.frontier)}."
    if any(c.test is None for c in run.decision.candidates):
        caption += " A dash under Test: not named for the test, which only the best of each approach on dev enters."
    return table(
        caption,
        header + (["USD per 1,000"] if priced else []),
        rows,
        label="Candidates",
        right=[*header[4:], "USD per 1,000"],
    )


def _scored(run: Run, score: Score | None) -> Html:
    if score is None:
        return element("td", "–")
    scale = run.scale
    interval = element("span", scale.interval(score), class_="range")
    return element("td", joined([scale.value(score.mean, score.n), interval], " "), class_="short")


def _failed_calls(run: Run) -> Html:
    """A failed call scores nothing and is never left out, so it is told."""
    failed = []
    for (name, which), lines in run.predictions.items():
        errors = sum(1 for line in lines if line.get("error"))
        if errors:
            failed.append(f"{name}: {errors} of {len(lines)} on {which}")
    return element("p", f"Failed calls, scored as 0: {'; '.join(failed)}.", class_="note") if failed else Html("")


def _comparisons(run: Run) -> Html:
    comparisons = [_better_first(c) for c in run.decision.comparisons]
    if not comparisons:
        return Html("")
    alike = all(c.set == "test" for c in comparisons)
    rows = []
    for c in comparisons:
        shown = c.p_corrected < ALPHA
        verdict = f"{c.b} is better" if shown else "no difference shown"
        scale = run.scale
        interval = element("span", f"{scale.signed(c.low)} to {scale.signed(c.high)}", class_="range")
        difference = joined([scale.signed(c.difference), interval], " ")
        cells = (element("td", difference, class_="short"), element("td", p_value(c.p_corrected), class_="short"))
        rows.append(row(f"{c.b} against {c.a}", *cells, verdict, *([] if alike else [element("td", c.set)])))
    unit = " in points" if run.scale.rates else ""
    examples = "the same test examples" if alike else "the same examples"
    caption = f"Differences{unit} on {examples}, with 95 % intervals"
    corrected = len(comparisons) > 1
    caption += f"; p after Holm's correction for all {len(comparisons)} comparisons." if corrected else "."
    header = ("Pair", "Difference", "Corrected p" if corrected else "p", "In words", *(() if alike else ("Set",)))
    return _section("Compared pair by pair", table(caption, header, rows, label="Comparisons"))


def _better_first(c: Comparison) -> Comparison:
    """The same comparison told from the side of the higher score."""
    if c.difference >= 0:
        return c
    return Comparison(c.b, c.a, c.set, -c.difference, -c.high, -c.low, c.p, c.p_corrected, c.n)


def _causes(run: Run) -> Html:
    rows = [
        row(
            cause_told(d.cause),
            f"{100 * d.share:.0f} %",
            f"{100 * d.low:.0f}–{100 * d.high:.0f} %",
            element("td", d.evidence, class_="wide"),
        )
        for d in run.decision.diagnosis
    ]
    if not rows:
        return _curve(run)
    caption = (
        "The share of what the best prompt gets wrong on dev that each cause explains, the leading one first; chance "
        "and what was broken are subtracted."
    )
    told = table(caption, ("Cause", "Share", "95 % interval", "What says so"), rows, label="Causes")
    return joined([_section("Why answers are wrong", told), _curve(run)])


def _curve(run: Run) -> Html:
    """How much more examples help: pilots and the whole training on the same dev examples."""
    points = [(float(p["examples"]), float(p["mean"])) for p in run.curve.get("points", ()) if p["examples"]]
    if len(points) < 2:
        return Html("")
    scale, more = run.scale, run.curve["more"]
    low, high = (scale.signed(more[end]).removeprefix("+") for end in ("low", "high"))
    caption = (
        f"Dev score after fine-tuning on so many examples, on {run.curve['screen']} dev examples. "
        f"{more['examples']:,} more would add {scale.gap(more['mean'])} ({low} to {high}), if a doubling "
        "brings between nothing and what the last one brought."
    )
    title = "Dev score by number of training examples"
    plot = curve_plot(points, points[-1][0], scale, title=title, unit="examples")
    return _section(
        "What more examples would bring", element("figure", plot, element("figcaption", caption), class_="small")
    )


def _next(run: Run) -> Html:
    place = shlex.quote(str(run.folder))
    shown = run.shown
    commands = []
    if shown is not None:
        other = "" if run.chosen else f" --solution {shlex.quote(shown.name)}"
        commands.append(f'rung ask {place}{other} "an input"')
    commands.append(f"rung report {place}")
    ready = "The solution to ship is in winner/ beside this file, ready to use." if run.chosen else ""
    return _section(
        "What to do next",
        _list(run.decision.next),
        element("pre", element("code", "\n".join(commands))),
        element("p", ready, class_="note") if ready else "",
    )


# ---- what it rests on -----------------------------------------------------------------------


def _what_the_data_show(run: Run) -> Html:
    sizes = run.plan.get("sizes", {})
    scale = run.scale
    reads = {r.get("read"): r for r in run.test_reads if not r.get("continues")}
    opened = [
        f"{_minute(str(r.get('time', '')))}, for {', '.join(r.get('solutions', ()))}: {r.get('why', '')}"
        for r in reads.values()
    ]
    dev = run.plan.get("minimum_detectable_difference", {}).get("dev")
    test = run.decision.minimum_detectable_difference
    return _section(
        "What the data can show",
        _facts_list(
            {
                "Examples": ", ".join(f"{name} {n:,}" for name, n in sizes.items()),
                "Smallest difference, test": f"{scale.gap(test)} between two candidates, at 80 % power",
                "Smallest difference, dev": "" if dev is None else f"{scale.detectable(dev)}, at 80 % power",
                "Floor": "" if run.floor is None else f"{scale.value(run.floor)}, which needs no model",
                "Test opened": f"{count(run.decision.test_reads, 'time')}"
                + (f" ({'; '.join(opened)})" if opened else ""),
            }
        ),
    )


def _how(run: Run) -> Html:
    families = {s["name"]: s["family"] for s in run.plan.get("steps", ())}
    tried = {c.name: c for c in run.decision.candidates}
    families |= {name: c.family for name, c in tried.items()}
    rows = []
    for name, family in families.items():
        if name in tried:
            what, built = _built(run, tried[name]), duration(tried[name].build_seconds)
        else:
            what, built = f"not tried: {run.why_not_tried(name)}", "–"
        rows.append(row(name, element("td", family, class_="short"), element("td", what, class_="wide"), _num(built)))
    steps = table(
        "The steps of the ladder, cheapest first.",
        ("Step", "Approach", "What was built", "Built in"),
        rows,
        right=("Built in",),
    )
    prompts = [_prompt(name, record) for name, record in run.built.items() if record]
    training = [_training(run, name, trained) for name, trained in run.trained.items()]
    return _section("How it was done", steps, *prompts, *training)


def _built(run: Run, candidate: Candidate) -> str:
    """What a solution is made of, from its solution.json."""
    record = run.built.get(candidate.name) or {}
    parts = []
    demos, selection = record.get("demos") or (), record.get("demo_selection")
    if demos and selection:
        nearest = selection["kind"] == "nearest"
        shown = min(selection["k"], len(demos))
        parts.append(f"the {shown} nearest of {len(demos)} demos" if nearest else count(shown, "fixed demo"))
    if spec := record.get("retriever"):
        parts.append(f"{count(spec['k'], 'passage')} found by {spec['kind']}, at most {spec['token_budget']} tokens")
    if constraint := record.get("constraint"):
        parts.append(f"answers held to {_held_to(constraint)}")
    if record.get("adapter"):
        trained = run.trained.get(candidate.name)
        kept = f" (learning rate {trained.learning_rate:g}, epoch {trained.kept:g})" if trained else ""
        parts.append(f"a LoRA adapter{kept}")
    return "; ".join(["the instruction", *parts]) if record else "not recorded"


def _held_to(constraint: Record) -> str:
    if constraint["kind"] == "labels":
        return count(len(constraint["value"]), "label")
    return {"json_schema": "a JSON Schema", "regex": "a pattern"}.get(constraint["kind"], str(constraint["kind"]))


def _prompt(name: str, record: Record) -> Html:
    """The instruction and the first demos, folded."""
    turns = [str(record.get("instruction", ""))]
    demos = list(record.get("demos") or ())
    turns += [f"{d['input']}\n→ {d['output']}" for d in demos[:3]]
    if len(demos) > 3:
        turns.append(f"… and {len(demos) - 3} more demos")
    return element("details", element("summary", f"The prompt of {name}"), element("pre", "\n\n".join(turns)))


def _training(run: Run, name: str, trained: Trained) -> Html:
    parts: list[str] = [element("h3", f"Training of {name}")]
    if trained.rates or trained.sweep:
        if trained.rates:
            found = {rate: run.scale.value(score) for rate, score in trained.rates.items()}
            caption, column = "Learning rates, each trained to its end; the best on dev is kept.", "Dev score"
        else:
            found = {rate: f"{loss:.3f}" for rate, loss in trained.sweep.items()}
            caption = "Learning rates, each tried on the first part of its schedule; the lowest dev loss goes on."
            column = "Dev loss"
        rates = sorted(found, key=float)
        rows = [row(rate, found[rate], "kept" if float(rate) == trained.learning_rate else "") for rate in rates]
        parts.append(element("div", table(caption, ("Learning rate", column, ""), rows), class_="small"))
    else:
        parts.append(element("p", f"Learning rate {trained.learning_rate:g}, taken over from an earlier step."))
    if len(trained.epochs) == 1:
        (epoch, score), *_ = trained.epochs
        parts.append(element("p", f"Looked at once, after epoch {epoch:g}: {run.scale.value(score)} on dev."))
    elif trained.epochs:
        caption = (
            f"Dev score on the way. Epoch {trained.kept:g} was kept: the last, unless one before it is clearly better."
        )
        title = "Dev score after each epoch"
        plot = curve_plot(trained.epochs, trained.kept, run.scale, title=title, unit="epoch")
        parts.append(element("figure", plot, element("figcaption", caption), class_="small"))
    return joined(parts)


def _checks(run: Run) -> Html:
    if not run.findings:
        return _section("Data checks", element("p", "The checks found nothing to report."))
    order = {"error": 0, "warning": 1, "note": 2}
    findings = sorted(run.findings, key=lambda f: order.get(f["severity"], 3))
    tally = Counter(f["severity"] for f in findings)
    told = ", ".join(count(tally[kind], kind) for kind in order if tally[kind])
    rows = [
        row(f["row"] or "all examples", f["severity"], element("td", f["message"], class_="wide"))
        for f in findings[:_MOST_FINDINGS]
    ]
    more = len(findings) - len(rows)
    caption = told + (f". The first {len(rows)} are shown; all are in checks.json." if more else ".")
    content = table(caption, ("Row", "Severity", "What was found"), rows, label="Data checks")
    if len(rows) > 8:
        content = element("details", element("summary", f"{told}: show"), content)
    return _section("Data checks", content)


def _facts(run: Run) -> Html:
    task = run.task
    times = {e["event"]: str(e["time"]) for e in reversed(run.events) if "time" in e}
    starts = sum(e["event"] == "started" for e in run.events)
    again = f", continued {count(starts - 1, 'time')}" if starts > 1 else ""
    ended = next((str(e["time"]) for e in reversed(run.events) if e["event"] == "decided"), "")
    facts = {
        "Folder": str(run.folder),
        "Task file": str(task.get("path", "")),
        "Begun": _minute(times.get("started", "")) + again,
        "Decided": _minute(ended),
        "Model": " ".join(str(task[k]) for k in ("model", "model_version") if task.get(k)),
        "Seed": str(task.get("seed", "")),
        "Budget": _pairs({k: v for k, v in (task.get("budget") or {}).items() if v is not None}),
        "Target": "" if task.get("target") is None else run.scale.value(task["target"]),
        "Versions": _pairs(task.get("versions") or {}),
        "Machine": _pairs(task.get("machine") or {}),
        "Run identity": str(task.get("identity", "")),
    }
    hashes = [row(name, element("td", element("code", str(value)))) for name, value in (task.get("data") or {}).items()]
    files = table("SHA-256 of the data files.", ("File", "Hash"), hashes) if hashes else ""
    record = json.dumps(task.get("schema"), indent=1, ensure_ascii=False) if task.get("schema") else ""
    schema = (
        element("details", element("summary", "The schema of the answers"), element("pre", record)) if record else ""
    )
    return _section("The run", _facts_list(facts), files, schema)


def _pairs(values: Record) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _minute(time: str) -> str:
    """2026-11-23 18:04 UTC"""
    return f"{time[:10]} {time[11:16]} UTC" if time else ""
