"""The report's sections about pairs of candidates: differences on the same examples, and when building one pays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rung.decision.evidence import turned
from rung.decision.figures import p_value, rounded_up
from rung.evaluation.statistics import ALPHA
from rung.report.markup import Html, element, joined, num, row, section, short, table
from rung.report.reading import RunRecords, strategy_of
from rung.report.words import count, dollars
from rung.types import Comparison

_MOST_OPEN = 8
"""Pairs of two models that are shown unfolded; those of the choice always are."""


def comparisons_section(run: RunRecords) -> Html:
    """Candidates with each other, and candidates with baselines: two questions, each with tables of its own."""
    bases = run.baselines
    among = [c for c in run.decision.comparisons if not {c.a, c.b} & bases]
    against = [c for c in run.decision.comparisons if {c.a, c.b} & bases]
    whole = "for all pairs of this table" if len(among) > 1 else ""
    family = "for each baseline by itself" if len(against) > 1 else ""
    return section(
        "Compared pair by pair",
        *(_by_model(run, among) if run.several else [_pairs(run, among, "Candidates", whole)]),
        _pairs(run, against, "Candidates with baselines", family),
    )


def _by_model(run: RunRecords, among: Sequence[Comparison]) -> list[Html]:
    """Of several models: the pairs within each, then those between models, the choice's first."""
    if not among:
        return []
    model = {c.name: c.model for c in run.decision.candidates}
    family = f"for all {len(among):,} pairs of candidates" if len(among) > 1 else ""
    tables = [element("p", _which(run, among))]
    for name in [m.name for m in run.models]:
        own = [c for c in among if model[c.a] == model[c.b] == name]
        tables.append(_pairs(run, own, f"Within {name}", family, model=name))
    between = [c for c in among if model[c.a] != model[c.b]]
    first = [c for c in between if run.decision.solution in (c.a, c.b)]
    others = [c for c in between if c not in first]
    if len(between) <= _MOST_OPEN or not first:
        first, others = between, []
    tables.append(_pairs(run, first, "Between models" + (", with the choice" if others else ""), family))
    if others:
        rest = _pairs(run, others, "Between models, the others", family)
        tables.append(element("details", element("summary", f"{count(len(others), 'more pair')} between models"), rest))
    return tables


def _which(run: RunRecords, among: Sequence[Comparison]) -> str:
    """Which pairs were compared, and that this was settled before the test was opened."""
    tested = [c for c in run.decision.candidates if c.test is not None and c.family != "baseline"]
    if not tested:
        return "The pairs were compared on dev."
    everything = len(among) >= len(tested) * (len(tested) - 1) // 2
    said = "The pairs were named before the test was opened: "
    if everything:
        return said + "every finalist with every other."
    if run.contenders:
        named = ", ".join(run.contenders)
        return f"{said}every finalist with each of those that dev does not show to be worse than the best ({named})."
    return said + "those in which at least one may be the best, by dev alone."


def _pairs(run: RunRecords, comparisons: Sequence[Comparison], title: str, family: str, *, model: str = "") -> Html:
    """family: for which pairs Holm's correction was made; empty: none was needed. model: of all pairs of the table."""
    if not comparisons:
        return Html("")
    scale = run.scale
    rows = []
    for c in map(_better_first, comparisons):
        better, other = strategy_of(c.b, model), strategy_of(c.a, model)
        verdict = f"{better} is better" if c.p_corrected < ALPHA else "no difference shown"
        interval = element("span", f"{scale.signed(c.low)} to {scale.signed(c.high)}", class_="range")
        difference = joined([scale.signed(c.difference), interval], " ")
        rows.append(row(f"{better} against {other}", short(difference), short(p_value(c.p_corrected)), verdict))
    unit = " in points" if scale.right_or_wrong else ""
    where = " and ".join(sorted({c.set for c in comparisons}))
    caption = f"{title}: differences{unit} on the same {where} examples"
    if family:
        caption += (
            f"; p after Holm's correction {family}. An interval excludes 0 exactly where that p is below {ALPHA:g}."
        )
    else:
        caption += ", with 95 % intervals."
    header = ("Pair", "Difference", "Corrected p" if family else "p", "In words")
    return table(caption, header, rows, label=title)


def _better_first(c: Comparison) -> Comparison:
    """The same comparison seen from the side of the higher score."""
    return c if c.difference >= 0 else turned(c)


# ---- break-even -------------------------------------------------------------------------------


def break_even_section(run: RunRecords) -> Html:
    """After how many requests a trained candidate has cost less than a prompt, of its own model or another."""
    costs: Mapping[str, float | None] = {c.name: c.cost_per_1k_usd for c in run.decision.candidates}
    rows = []
    for b in run.decision.break_even:
        price = [costs.get(name) for name in (b.fine_tuned, b.prompt)]
        each = " / ".join("–" if usd is None else dollars(usd) for usd in price)
        end = rounded_up(b.high) if b.high is not None else "no number"
        after = joined([rounded_up(b.requests), element("span", f"{rounded_up(b.low)} to {end}", class_="range")], " ")
        rows.append(row(f"{b.fine_tuned} instead of {b.prompt}", short(after), num(each)))
    caption = (
        "Requests after which a trained candidate, building included, has cost less than the prompt; 95 % intervals. "
        "It pays once for every time that it is trained anew."
    )
    header = ("Pair", "Pays after requests", "USD per 1,000, both")
    content = table(caption, header, rows, label="Break-even", right=header[2:]) if rows else ""
    return section("When building it pays", content)
