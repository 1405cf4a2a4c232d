"""The report's sections about pairs of candidates: differences on the same examples, and when building one pays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rung.decision.evidence import turned
from rung.decision.figures import p_value, rounded_up
from rung.evaluation.statistics import ALPHA
from rung.report.markup import Html, element, num, ranged, row, section, short, table
from rung.report.reading import RunRecords
from rung.report.words import count, dollars
from rung.types import Comparison, kind_of

_MOST_OPEN = 8
"""Pairs of two models that are shown unfolded; those of the choice always are."""

_EXCLUDES = f"An interval excludes 0 exactly where that p is below {ALPHA:g}."
_PLAIN = "with 95 % intervals."


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
    holm = len(among) > 1
    unit = "Differences are in points," if run.scale.right_or_wrong else "Differences are"
    where = " and ".join(sorted({c.set for c in among}))
    said = f"{_which(run, among)} {unit} on the same {where} examples"
    said += f"; p is after Holm's correction for all {len(among):,} pairs. {_EXCLUDES}" if holm else f", {_PLAIN}"
    tables = [element("p", said)]
    for name in [m.name for m in run.models]:
        own = [c for c in among if model[c.a] == model[c.b] == name]
        tables.append(_table(run, own, f"Within {name}", f"Within {name}.", holm, model=name))
    between = [c for c in among if model[c.a] != model[c.b]]
    first = [c for c in between if run.decision.solution in (c.a, c.b)]
    others = [c for c in between if c not in first]
    if len(between) <= _MOST_OPEN or not first:
        first, others = [*first, *others], []
    title = "Between models" + (", with the choice" if others else "")
    tables.append(_table(run, first, title, f"{title}.", holm))
    if others:
        rest = _table(run, others, "Between models, the others", "Between models, the others.", holm)
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


def _pairs(run: RunRecords, comparisons: Sequence[Comparison], title: str, family: str) -> Html:
    """A table whose caption says all. family: for which pairs Holm's correction was made; empty: none was needed."""
    unit = " in points" if run.scale.right_or_wrong else ""
    where = " and ".join(sorted({c.set for c in comparisons}))
    caption = f"{title}: differences{unit} on the same {where} examples"
    caption += f"; p after Holm's correction {family}. {_EXCLUDES}" if family else f", {_PLAIN}"
    return _table(run, comparisons, title, caption, bool(family))


def _table(
    run: RunRecords, comparisons: Sequence[Comparison], title: str, caption: str, holm: bool, *, model: str = ""
) -> Html:
    """holm: whether p was corrected. model: of all pairs of the table, which then are called by their strategies."""
    scale = run.scale
    rows = []
    for c in map(_better_first, comparisons):
        better, other = (kind_of(c.b), kind_of(c.a)) if model else (c.b, c.a)
        verdict = f"{better} is better" if c.p_corrected < ALPHA else "no difference shown"
        difference = ranged(scale.signed(c.difference), f"{scale.signed(c.low)} to {scale.signed(c.high)}")
        rows.append(row(f"{better} against {other}", difference, short(p_value(c.p_corrected)), verdict))
    header = ("Pair", "Difference", "Corrected p" if holm else "p", "In words")
    return table(caption, header, rows, label=title) if rows else Html("")


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
        ends = rounded_up(b.low) + (f" to {rounded_up(b.high)}" if b.high is not None else " or more")
        after = ranged(rounded_up(b.requests), ends)
        rows.append(row(f"{b.fine_tuned} instead of {b.prompt}", after, num(each)))
    caption = (
        "Requests after which a trained candidate, building included, has cost less than the prompt; 95 % intervals. "
        "Building is its machine's time and its API calls, and is paid each time that it is trained anew; what "
        "choosing the prompt cost is not subtracted."
    )
    header = ("Pair", "Pays after requests", "USD per 1,000, both")
    content = table(caption, header, rows, label="Break-even", right=header[2:]) if rows else ""
    return section("When building it pays", content)
