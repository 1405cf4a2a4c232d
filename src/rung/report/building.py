"""The report's sections about how the candidates came about: what was built, prompts, trainings, what was not tried."""

from __future__ import annotations

from collections.abc import Sequence

from rung.decision.figures import more_minutes
from rung.report.markup import Html, element, joined, num, row, section, short, table, wide
from rung.report.plots import curve_plot
from rung.report.reading import Record, RunRecords, Trained
from rung.report.words import count, duration
from rung.strategies.learning_rate import CLEARLY
from rung.types import Candidate, Skipped, kind_of

_MOST_DEMOS = 3


def built_section(run: RunRecords) -> Html:
    """Every candidate with what it is made of, its prompt, and how it was trained."""
    candidates = [c for c in run.decision.candidates if c.family != "baseline"]
    rows = [row(c.name, short(c.family), wide(_made_of(run, c)), num(duration(c.build_seconds))) for c in candidates]
    header = ("Candidate", "Approach", "What it is made of", "Built in")
    order = "cheapest model first, and of it the cheapest approach" if run.several else "cheapest approach first"
    steps = table(f"What was built, {order}.", header, rows, right=header[3:]) if rows else ""
    prompts = [_prompt(name, record) for name, record in run.built.items() if record]
    training = [_training(run, name, trained) for name, trained in run.trained.items()]
    return section("How it was done", steps, *prompts, *training)


def not_tried_section(run: RunRecords) -> Html:
    """Strategies that were not tried, and solutions that were stopped early on dev, each with its reason."""
    timed = any(s.minutes for s in run.decision.skipped)
    rows = []
    for alike in _alike(run.decision.skipped):
        s = alike[0]
        why = s.why.rstrip(".") + ("; it could change the verdict" if s.matters else "")
        cells = [short(s.family), wide(why)]
        if timed:
            cells.append(num(f"about {more_minutes(s.minutes)}" if s.minutes else "–"))
        rows.append(row(_names(run, alike), *cells))
    header = ["Strategy", "Approach", "Why", *(["It would take"] if timed else [])]
    early = [row(one.name, wide(one.why)) for one in run.decision.left_early]
    return section(
        "What was not tried",
        table("Strategies that were not tried.", header, rows, right=header[3:]) if rows else "",
        table("Solutions that are no candidates.", ("Solution", "Why"), early) if early else "",
    )


def _alike(skipped: Sequence[Skipped]) -> list[list[Skipped]]:
    """What was skipped of several models, by approach and reason; an estimated one stands alone."""
    groups: dict[object, list[Skipped]] = {}
    for s in skipped:
        groups.setdefault((s.family, s.why, s.matters, s.minutes and s.name), []).append(s)
    return list(groups.values())


def _names(run: RunRecords, alike: Sequence[Skipped]) -> str:
    """Every name, or the strategy alone where it was skipped of every model."""
    kinds = {kind_of(s.name) for s in alike}
    if run.several and len(kinds) == 1 and {s.model for s in alike} == {m.name for m in run.models}:
        return f"{kinds.pop()}, with every model"
    return ", ".join(s.name for s in alike)


def _made_of(run: RunRecords, candidate: Candidate) -> str:
    """What a solution is made of, from its solution.json."""
    record = run.built.get(candidate.name) or {}
    parts = []
    demos, selection = record.get("demos") or (), record.get("demo_selection")
    if demos and selection:
        number = min(selection["k"], len(demos))
        nearest = selection["kind"] == "nearest"
        parts.append(f"the {number} nearest of {len(demos):,} demos" if nearest else count(number, "fixed demo"))
    if spec := record.get("retriever"):
        parts.append(
            f"{count(spec['k'], 'passage')} by {spec['kind']}, at most {spec['token_budget']:,} tokens of them"
        )
    if constraint := record.get("constraint"):
        parts.append(f"answers held to {_held_to(constraint)}")
    if record.get("adapter"):
        parts.append(_learnt(run.trained.get(candidate.name)))
    shown = "the instruction" if record.get("instruction") else "the input alone"
    said = "; ".join([shown, *parts]) if record else "not recorded"
    return said + (f". Stopped before its end: {candidate.cut}" if candidate.cut else "")


def _learnt(trained: Trained | None) -> str:
    """An adapter, or all weights, and what that means for who serves it."""
    if trained is None:
        return "a LoRA adapter"
    size = f", {trained.bytes / 1e6:,.1f} MB" if trained.bytes else ""
    how = f" (learning rate {trained.learning_rate:g}, epoch {trained.kept:g}{size})"
    if not trained.full:
        return f"a LoRA adapter{how}"
    return f"a whole model of its own{how}; adapters of several tasks can share one base model in a server, this cannot"


def _held_to(constraint: Record) -> str:
    if constraint["kind"] == "labels":
        return count(len(constraint["value"]), "label")
    return {"json_schema": "a JSON Schema", "regex": "a pattern"}.get(constraint["kind"], str(constraint["kind"]))


def _prompt(name: str, record: Record) -> Html:
    """The instruction and the first demos, folded. Where they are chosen for each input, the number that is."""
    turns = [str(record.get("instruction") or "(no instruction: the input alone)")]
    demos, selection = list(record.get("demos") or ()), record.get("demo_selection") or {}
    chosen = bool(selection) and selection["kind"] == "nearest" and selection["k"] < len(demos)
    if chosen:
        turns.append(f"(for each input, the {selection['k']} nearest of {count(len(demos), 'demo')}, such as:)")
    elif selection:
        demos = demos[: selection["k"]]
    turns += [f"{d['input']}\n→ {d['output']}" for d in demos[:_MOST_DEMOS]]
    if len(demos) > _MOST_DEMOS and not chosen:
        turns.append(f"… and {count(len(demos) - _MOST_DEMOS, 'more demo')}")
    return element("details", element("summary", f"The prompt of {name}"), element("pre", "\n\n".join(turns)))


def _training(run: RunRecords, name: str, trained: Trained) -> Html:
    parts: list[str] = [element("h3", f"Training of {name}"), _learning_rates(run, trained)]
    if trained.left_out.get("count"):
        rows = ", ".join(map(str, trained.left_out["rows"]))
        number = count(trained.left_out["count"], "example")
        parts.append(element("p", f"{number} did not fit the model's context and were left out: {rows}."))
    if trained.cut:
        parts.append(element("p", f"Stopped before its end: {trained.cut}."))
    n = run.decision.n_dev
    if len(trained.epochs) == 1:
        (epoch, score), *_ = trained.epochs
        parts.append(element("p", f"Judged once on dev, after epoch {epoch:g}: {run.scale.value(score, n)}."))
    elif trained.epochs:
        caption = (
            f"Dev score by epoch. The checkpoint of epoch {trained.kept:g} was kept: the last one, unless one before "
            "it is clearly better."
        )
        title = "Dev score after each epoch"
        plot = curve_plot(trained.epochs, trained.kept, run.scale, title=title, unit="epoch", n=n)
        parts.append(element("figure", plot, element("figcaption", caption), class_="small"))
    return joined(parts)


def _learning_rates(run: RunRecords, trained: Trained) -> Html:
    if trained.rates:
        column, caption = "Dev score", "Learning rates, each trained to its end; the best on dev is kept."
        figures = {rate: run.scale.value(score, run.decision.n_dev) for rate, score in trained.rates.items()}
    elif trained.sweep:
        column = "Dev loss"
        caption = (
            "Learning rates, each tried on the first part of its schedule. Of the usual ones, the one with the lowest "
            f"dev loss is kept; one outside them only where its loss is more than {100 * (1 - CLEARLY):.0f} % lower "
            "than that of the rate next to it."
        )
        figures = {rate: f"{loss:.3f}" for rate, loss in trained.sweep.items()}
    else:
        usual = "the usual one for such a training, which is too short to try others first"
        source = "taken over from an earlier training of this run" if trained.probed else usual
        source = trained.rate_from or source
        return element("p", f"Learning rate {trained.learning_rate:g}, {source}.")
    rows = [
        row(rate, figures[rate], "kept" if float(rate) == trained.learning_rate else "")
        for rate in sorted(figures, key=float)
    ]
    return element("div", table(caption, ("Learning rate", column, ""), rows), class_="small")
