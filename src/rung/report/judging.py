"""The report's section about the judge: how far it agrees with people, and what it prefers beside the rubric.

Reads judge.json. Decides nothing.
"""

from __future__ import annotations

from rung.decision.figures import Scale
from rung.decision.judging import JudgeCheck, agreed, biases_in_words, judge_from_record
from rung.evaluation.judge.agreement import LEAST_KAPPA
from rung.evaluation.judge.biases import Bias
from rung.records import read_json
from rung.report.markup import Html, facts, items, num, row, section, table
from rung.report.reading import RunRecords
from rung.report.words import count

_SCALE = Scale(False)
_MODES = {"graded": "each answer from 1 to 5", "pairwise": "each answer against the reference, in both orders"}


def judge_section(run: RunRecords) -> Html:
    """Empty for a run that no judge scores."""
    record = read_json(run.folder / "judge.json")
    if record is None:
        return Html("")
    check = judge_from_record(record)
    counts = "its scores count" if check.primary else f"secondary: the scores are those of {check.fallback}"
    pairs = {
        "Judge": check.name,
        "How it judges": f"{_MODES[check.mode]}, {count(check.samples, 'sample')}",
        "Agreement with people": agreed(check)
        if check.agreement
        else "never measured: no answers were given (judged:)",
        "The rule": f"kappa of at least {LEAST_KAPPA:.2f}, quadratically weighted, fixed before the run: {counts}",
        "Means of the scored answers": _means(check),
        "Replies that could not be read": str(check.unread) if check.agreement else "",
    }
    rows = [_row("Filler behind the answer", check.length, "padded minus plain")]
    if check.mode == "pairwise":
        rows.append(_row("Standing first", check.position, "as A minus as B"))
    rows.append(_row("Its own family", check.family, "judge minus person, own minus others"))
    header = ("What it may prefer", "Difference", "95 % interval", "Answers", "How it is measured")
    caption = "What the judge prefers beside the rubric, measured on this task before the climb."
    measured = table(caption, header, rows, right=header[1:4])
    return section("The judge", facts(pairs), measured, items(biases_in_words(check)))


def _means(check: JudgeCheck) -> str:
    if check.people is None or check.judge is None:
        return ""
    return f"people {_SCALE.value(check.people)}, judge {_SCALE.value(check.judge)}"


def _row(what: str, bias: Bias | None, how: str) -> Html:
    if bias is None:
        return row(what, num("not measured"), num("–"), num("–"), how)
    ends = _SCALE.ends(bias.low, bias.high)
    return row(what, num(_SCALE.signed(bias.difference)), num(ends), num(str(bias.n)), how)
