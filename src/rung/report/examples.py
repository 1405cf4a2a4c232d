"""The report's sections about single test examples: where two candidates differ, what is confused with what,
and which fields of a JSON answer are right.

Joins predictions with the examples that are handed in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest

from rung.report.markup import Html, element, joined, num, row, table
from rung.report.reading import Record, RunRecords
from rung.report.words import count, shortened
from rung.types import Candidate, Example

MOST_EXAMPLES = 12
MOST_BESIDE = 5  # answers to one example
MOST_CONFUSIONS = 10
MOST_FIELDS = 12
_MOST_CHARACTERS = 400


def example_section(run: RunRecords, examples: Mapping[str, Example]) -> Html:
    """Up to twelve test examples: where the winner and the best prompt differ, then where the winner is wrong.

    Of several models, the answers of the best of each stand beside the winner's.
    """
    winner = run.shown
    if winner is None or not run.predictions.get((winner.name, "test")):
        return Html("")
    rival = _rival(run, winner)
    answers, others = _by_id(run, winner.name), _by_id(run, rival.name if rival else "")
    kinds = _kinds(answers, others)
    picked = [i for turn in zip_longest(*kinds) for i in turn if i is not None][:MOST_EXAMPLES]
    if not picked:
        return element("p", f"{winner.name} is right on every test example; there is nothing to look into.")
    known = bool(examples)
    beside = {name: _by_id(run, name) for name in _side_by_side(run, winner, rival)}
    together = len(beside) > 2
    header = ["Example", *(("Expected",) if known else ())]
    header += ["Answers"] if together else [f"Answer of {name}" for name in beside]
    rows = []
    for i in (i for kind in kinds for i in kind if i in set(picked)):
        example = examples.get(i)
        said = {name: own.get(i) for name, own in beside.items()}
        cells = [_short(example.output if example else "")] if known else []
        cells += [_answers(run, said)] if together else [_answer(run, p) for p in said.values()]
        first = element("span", _short(example.input), class_="text") if example else i
        rows.append(row(first, *(element("td", cell, class_="text") for cell in cells), labels=header[1:]))
    shown = table(_caption(rows, kinds), header, rows, class_="stacked")
    return joined([element("p", _tally(winner, rival, answers, kinds)), shown])


def confusion_section(run: RunRecords, examples: Mapping[str, Example]) -> Html:
    """The most frequent (expected, answered) pairs of the winner's wrong test answers, for tasks with labels."""
    winner = run.shown
    if winner is None or not examples or not (run.task.get("labels") or run.task.get("metric") == "label_accuracy"):
        return Html("")
    wrong = [p for p in run.predictions.get((winner.name, "test"), ()) if _score(p) < 1 and p["id"] in examples]
    pairs = Counter((examples[p["id"]].output, p["text"]) for p in wrong)
    rows = [
        row(_short(expected, 80), _short(answered, 80) or "(nothing)", num(str(n)))
        for (expected, answered), n in sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:MOST_CONFUSIONS]
    ]
    if not rows:
        return Html("")
    caption = f"The wrong test answers of {winner.name}, most frequent pairs first."
    return element("div", table(caption, ("Expected", "Answered", "Times"), rows, right=("Times",)), class_="small")


def field_section(run: RunRecords, examples: Mapping[str, Example]) -> Html:
    """How often each top-level field of a JSON answer is right on the test, for every tested candidate.

    Of several models, for those alone whose answers are set side by side.
    """
    if not examples or run.task.get("metric") != "json_match":
        return Html("")
    tested = [c.name for c in run.decision.candidates if run.predictions.get((c.name, "test"))]
    if run.several and run.shown is not None:
        tested = [name for name in tested if name in _side_by_side(run, run.shown, _rival(run, run.shown))]
    unordered = bool(run.task.get("unordered"))
    shares = {name: _fields(run.predictions[name, "test"], examples, unordered) for name in tested}
    names = Counter(field for fields in shares.values() for field, scores in fields.items() for _ in scores)
    rows = [
        row(_short(field, 80), *(_share(run, shares[name].get(field, ())) for name in tested))
        for field, _ in names.most_common(MOST_FIELDS)
    ]
    if not rows:
        return Html("")
    caption = "The share of test examples whose field is right, where it is expected or given; the most frequent first."
    return table(caption, ("Field", *tested), rows, label="Fields", right=tested)


def _fields(predictions: Sequence[Record], examples: Mapping[str, Example], unordered: bool) -> dict[str, list[float]]:
    """Field -> its score in every example where it is expected or given."""
    from rung.evaluation.metrics import json_fields

    by_field: dict[str, list[float]] = {}
    for p in predictions:
        if p["id"] in examples:
            references = examples[p["id"]].references
            for field, score in json_fields(str(p["text"]), references, unordered=unordered).items():
                by_field.setdefault(field, []).append(score)
    return by_field


def _share(run: RunRecords, scores: Sequence[float]) -> Html:
    return num(f"{run.scale.value(sum(scores) / len(scores), len(scores))} of {len(scores):,}" if scores else "–")


def _rival(run: RunRecords, winner: Candidate) -> Candidate | None:
    """What the winner is set beside: the best tested prompt; where it is that itself, the best of another model."""
    tested = [c for c in run.decision.candidates if run.predictions.get((c.name, "test")) and c.family != "baseline"]
    prompts = [c for c in tested if c.family == "prompt"]
    best = max(prompts, key=lambda c: c.test.mean if c.test else 0.0, default=None)
    if best is not None and best.name == winner.name:
        strangers = [c for c in tested if c.model != winner.model]
        best = max(strangers, key=lambda c: c.test.mean if c.test else 0.0, default=None)
    return best


def _side_by_side(run: RunRecords, winner: Candidate, rival: Candidate | None) -> list[str]:
    """Names of those whose answers are shown: the winner, its rival, and the best of each model."""
    names = [winner.name, *([rival.name] if rival else [])]
    if run.several:
        names += [c.name for c in run.best_of_models() if run.predictions.get((c.name, "test"))]
    return list(dict.fromkeys(names))[:MOST_BESIDE]


def _by_id(run: RunRecords, name: str) -> dict[str, Record]:
    return {p["id"]: p for p in run.predictions.get((name, "test"), ())}


def _kinds(answers: Mapping[str, Record], others: Mapping[str, Record]) -> tuple[list[str], list[str], list[str]]:
    """Ids where the winner is better, where it is worse, and the rest where it is not wholly right."""
    better, worse, both = [], [], []
    for i, p in answers.items():
        other = _score(others[i]) if i in others else _score(p)
        if _score(p) > other:
            better.append(i)
        elif _score(p) < other:
            worse.append(i)
        elif _score(p) < 1:
            both.append(i)
    return better, worse, both


def _tally(
    winner: Candidate, rival: Candidate | None, answers: Mapping[str, Record], kinds: Sequence[Sequence[str]]
) -> str:
    better, worse, both = map(len, kinds)
    n = count(len(answers), "test example")
    if rival is None:
        if both == len(answers):
            return f"Of {n}, {winner.name} gets none wholly right."
        return f"Of {n}, {winner.name} does not get {both} wholly right."
    return (
        f"Of {n}, {winner.name} does better than {rival.name} on {better} and worse on {worse}; "
        f"on {both} both are equally wrong."
    )


def _caption(rows: Sequence[Html], kinds: Sequence[Sequence[str]]) -> str:
    total = sum(map(len, kinds))
    return "All of these." if len(rows) == total else f"{len(rows)} of these {total}."


def _answers(run: RunRecords, said: Mapping[str, Record | None]) -> Html:
    """Several answers to one example; equal ones are shown once, with the names of all that gave them."""
    whose: dict[Html, list[str]] = {}
    for name, prediction in said.items():
        whose.setdefault(_answer(run, prediction), []).append(name)
    return joined(
        element("div", answer, element("span", ", ".join(names), class_="whose"), class_="answer")
        for answer, names in whose.items()
    )


def _answer(run: RunRecords, prediction: Record | None) -> Html:
    if prediction is None:
        return Html("–")
    score = _score(prediction)
    if run.scale.right_or_wrong:
        right = score >= 1
        mark = element(
            "span",
            "✓" if right else "✗",
            class_="good" if right else "bad",
            role="img",
            aria_label="right" if right else "wrong",
        )
    else:
        mark = element("span", run.scale.value(score), class_="range")
    text = _short(str(prediction["text"])) or "(nothing)"
    if prediction.get("error"):
        text = f"no answer: {prediction['error']}"
    elif prediction.get("metric_error"):
        text += f" (not scored: {prediction['metric_error']})"
    return joined([mark, text, _sources(prediction)], " ")


def _sources(prediction: Record) -> str:
    """The ids of the passages that an answer names; empty where it names none."""
    named, bad = [str(i) for i in prediction.get("citations") or ()], int(prediction.get("bad_citations") or 0)
    parts = [*named, *([count(bad, "number") + " of no passage"] if bad else [])]
    return element("span", f"Sources: {', '.join(parts)}", class_="whose") if parts else ""


def _score(prediction: Record) -> float:
    return float(prediction.get("score") or 0.0)


def _short(text: str, width: int = _MOST_CHARACTERS) -> str:
    return shortened(text.strip(), width)
