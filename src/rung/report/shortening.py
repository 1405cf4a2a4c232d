"""The report's section about shorter prompts: each length with its tokens and its score on dev."""

from __future__ import annotations

from rung.records import from_record
from rung.report.markup import Html, element, joined, num, ranged, row, scored, section, short, table
from rung.report.reading import Record, RunRecords
from rung.types import Score


def shortening_section(run: RunRecords) -> Html:
    """A table for each fine-tuned candidate whose prompt was shortened."""
    return section("Shorter prompts", *(_lengths(run, name, record) for name, record in run.shortened.items()))


def _lengths(run: RunRecords, name: str, record: Record) -> Html:
    """name: what the solution with the shorter prompt is called, whether or not there is one."""
    scale, taken = run.scale, record.get("taken")
    rows = []
    for place, length in enumerate(record["lengths"]):
        score, versus = from_record(Score, length["score"]), length["versus"]
        said = length["length"] + (", trained on with it" if length["trained"] else "")
        tag = element("span", name, class_="tag")
        where = f"{score.n:,} of dev" if length["set"] == "screen" else "dev"
        difference = short("–")
        if versus is not None:
            interval = f"{scale.signed(versus['low'])} to {scale.signed(versus['high'])}"
            difference = ranged(scale.signed(versus["difference"]), interval)
        first = joined([said, tag], " ") if place == taken else said
        tokens = num(f"{length['tokens_in']:,.0f}")
        class_ = "chosen" if place == taken else ""
        rows.append(row(first, tokens, scored(scale, score), difference, short(where), class_=class_))
    unit = " in points" if scale.right_or_wrong else ""
    margin = scale.gap(run.decision.margin)
    caption = (
        f"The prompt of {record['from']} made shorter: input tokens of a request, scores on dev with 95 % intervals, "
        f"and differences{unit} from the prompt as it is on the same examples. The shortest within {margin} is taken; "
        "one that a part of dev shows to be further below is not answered on the rest."
    )
    if record.get("not_trained"):
        caption += f" The adapter was not trained on with the input alone: {record['not_trained']}."
    header = ("Prompt", "Tokens", "Score", "Difference", "On")
    return table(caption, header, rows, label=f"Shorter prompts of {record['from']}", right=header[1:2])
