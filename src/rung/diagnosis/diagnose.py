"""The experiment: wrong answers, and some right ones, answered again under each intervention, and summed up.

Rescue by chance is subtracted twice: a placebo (the same prompt, sampled) answers the same examples, and what an
intervention breaks among the right answers, beyond the placebo, is taken off what it rescues; whoever throws a coin
again rescues as much as he breaks. A cause's share is that net effect with its interval. Every answer is kept in the
folder as it comes, so that a run that was killed goes on and ends in the same record.
Source: Pearl, Causality (2009), ch. 3, for changing one thing and holding the rest; Bland & Altman, Regression
towards the mean (1994), for why examples that were chosen because they failed need a placebo.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rung.diagnosis import interventions as change
from rung.diagnosis.lenient import (
    Yardstick,
    bare,
    common_words,
    derivable,
    is_json,
    reads_right,
    stated,
    vote,
    yardstick,
)
from rung.trials.workshop import Materials, attempt
from rung.types import Diagnosis, Example, Metric, Prediction, Solution

GRADED = frozenset({"token_f1", "rouge_l"})
HALF = 0.5
"""From here a graded answer counts as right."""

POOR = 0.05
"""Below this share of right dev answers there may be nothing to intervene on."""

SPREAD = 3
"""So many different answers among the samples, none of them right, are called a high spread."""

ANSWERED_AGAIN = ("constrained", "convention", "knowledge", "reasoning")

Outcome = dict[str, bool]
"""Example id -> whether it came out right; an example that could not be tried is missing."""


def diagnose(
    materials: Materials, base: Solution, predictions: Sequence[Prediction], folder: Path, *, most: int = 20
) -> dict[str, Any]:
    """What mends the base's wrong dev answers, as a record of plain values (diagnosis.json).

    base: the best prompt or rag solution. predictions: its scored answers to dev. folder: where the answers are kept.
    most: at most so many failed examples are answered again, and half as many right ones. An answer is right at
    score 1, for graded metrics at a half. Calls that failed are counted and not diagnosed.

    Shares are of the sampled failed examples, net of the placebo where something was answered again. An example may
    have several causes; `unresolved` are those that nothing rescued. `poor` says that too little was right, and too
    little mended, for the rest to mean much.
    """
    run = _Run.of(materials, base, predictions, folder, most)
    answers = run.answer_all()
    by_name = run.outcomes(answers)
    found = [c for c in (*run.rescues(by_name), *run.listed(answers, by_name)) if c is not None]
    rescued = {name: sum(outcome.get(e.id, False) for e in run.failed) for name, outcome in by_name.items()}
    mended = any(c["low"] > 0 for c in found if c["net_of_placebo"])
    poor = run.right_share < POOR and not rescued["placebo"] and not rescued["lenient"] and not mended
    unresolved = [e.id for e in run.failed if not any(o.get(e.id, False) for o in by_name.values())]
    return {
        "base": base.name,
        "dev": {"n": len(predictions), "right": run.right_share, "right_from": run.by.right, "errors": run.errors},
        "failed": len(run.failed),
        "succeeded": len(run.succeeded),
        "poor": bool(run.failed) and poor,
        "interventions": run.interventions(by_name),
        "causes": sorted(found, key=lambda c: -c["share"]),
        "unresolved": {**run.rate(unresolved), "ids": unresolved},
        "combinations": run.combinations(answers, by_name),
        "label_noise": run.conflicts,
        "derivable": run.rate(e.id for e in run.failed if derivable(e, run.common)),
        "examples": [run.row(e, answers, by_name, found) for e in (*run.failed, *run.succeeded)],
    }


def causes(record: Mapping[str, Any], *, proven: bool = False) -> tuple[Diagnosis, ...]:
    """The causes that explain something, largest share first; a pair that rescues only together is "knowledge+format".

    What stays unresolved is no cause and not among them. proven: only those whose evidence is rescue, and label noise.
    """
    pairs = [
        {**pair, "cause": "+".join(pair["causes"]), "evidence": "mended by both at once"}
        for pair in record["combinations"]
    ]
    single = [c for c in record["causes"] if not proven or c["net_of_placebo"] or c["cause"] == "label noise"]
    return tuple(
        Diagnosis(c["cause"], c["share"], max(0.0, c["low"]), min(1.0, c["high"]), c["evidence"])
        for c in sorted([*single, *pairs], key=lambda c: -c["share"])
        if c["share"] > 0
    )


@dataclass(frozen=True)
class _Run:
    """One diagnosis: what is asked again, and how its answers are judged.

    old: the base's answers. conflicts: rows for a person to look at. common: words of the answers' form. skipped:
    intervention -> why it cannot be made. texts: passage id -> text.
    """

    materials: Materials
    base: Solution
    folder: Path
    by: Yardstick
    old: dict[str, Prediction]
    failed: tuple[Example, ...]
    succeeded: tuple[Example, ...]
    right_share: float
    errors: int
    conflicts: list[dict[str, Any]]
    common: frozenset[str]
    solutions: dict[str, Solution]
    skipped: dict[str, str]
    texts: dict[str, str]

    @classmethod
    def of(
        cls, materials: Materials, base: Solution, predictions: Sequence[Prediction], folder: Path, most: int
    ) -> _Run:
        old = {p.id: p for p in predictions}
        right = right_from(materials.task.metric, predictions)
        answered = [e for e in materials.dev if e.id in old and old[e.id].error is None]
        good = [e for e in answered if (old[e.id].score or 0.0) >= right]
        bad = [e for e in answered if (old[e.id].score or 0.0) < right]
        by = yardstick(materials.metric, right, materials.task.labels, materials.train)
        solutions: dict[str, Solution] = {"placebo": change.placebo(base)}
        skipped = {}
        for name, made in {
            "constrained": change.constrained(base, materials),
            "convention": change.convention(base, materials),
            "knowledge": change.informed(base, materials),
            "reasoning": change.thinking(base),
        }.items():
            if isinstance(made, Solution):
                solutions[name] = made
            else:
                skipped[name] = made.why
        solutions |= {s.name: s for s in change.samples(base)}
        return cls(
            materials=materials,
            base=base,
            folder=folder,
            by=by,
            old=old,
            failed=_drawn(bad, most, materials.task.seed),
            succeeded=_drawn(good, most // 2, materials.task.seed),
            right_share=len(good) / len(predictions) if predictions else 0.0,
            errors=sum(p.error is not None for p in predictions),
            conflicts=conflicting(materials, by) if bad else [],
            common=common_words(materials.train),
            solutions=solutions,
            skipped=skipped,
            texts={p.id: p.text for p in materials.passages},
        )

    # ---- answering -------------------------------------------------------------------------

    def answer_all(self) -> dict[str, dict[str, Prediction]]:
        """Intervention -> example id -> its scored answer. Nothing is answered where nothing failed."""
        model = change.OwnSeeds(self.materials.model, self.base.decoding.seed)
        return {name: self._answer(name, model) for name in self.solutions} if self.failed else {}

    def _answer(self, name: str, model: Any) -> dict[str, Prediction]:
        asked: Sequence[Example] = (*self.failed, *self.succeeded)
        materials = replace(self.materials, model=model)
        if name == "knowledge":
            gold = change.gold_passages(self.materials, asked)
            asked = [e for e in asked if e.id in gold]
            materials = replace(materials, retriever=change.GoldRetriever(gold, asked))
        if name == "reasoning":
            materials = replace(materials, metric=_of_stated(self.materials.metric))
        solution = replace(self.solutions[name], name=f"{self.base.name} again ({name})")
        predictions = attempt(materials, solution, asked, self.folder / f"{name}.jsonl") if asked else []
        return {p.id: p for p in predictions}

    # ---- outcomes --------------------------------------------------------------------------

    def outcomes(self, answers: Mapping[str, Mapping[str, Prediction]]) -> dict[str, Outcome]:
        """Intervention -> which examples came out right, failed and succeeded ones alike."""
        found: dict[str, Outcome] = {"lenient": {e.id: self._leniently(e, self.old) for e in self.failed}}
        for name in ("placebo", *ANSWERED_AGAIN):
            found[name] = {i: (p.score or 0.0) >= self.by.right for i, p in answers.get(name, {}).items()}
        # An answer that had the shape already cannot be mended by a constraint on the shape.
        shaped = {e.id for e in self.failed if self._has_shape(e)}
        found["constrained"] = {i: ok for i, ok in found["constrained"].items() if i not in shaped}
        found["inconsistency"] = {}
        if answers:
            for example in (*self.failed, *self.succeeded):
                found["inconsistency"][example.id] = self._by_majority(self._drawn_answers(example, answers))
        return found

    def _leniently(self, example: Example, answers: Mapping[str, Prediction]) -> bool:
        prediction = answers.get(example.id)
        if prediction is None:
            return False
        shown = "\n".join(self.texts.get(i, "") for i in prediction.passages)
        return reads_right(prediction.text, example, self.by, shown=shown)

    def _has_shape(self, example: Example) -> bool:
        allowed, text = self.materials.constraint, self.old[example.id].text
        if allowed is None:
            return False
        if isinstance(allowed.value, str):
            return re.fullmatch(allowed.value, text) is not None
        if isinstance(allowed.value, tuple):
            return bare(text) in map(bare, allowed.value)
        return is_json(text)

    def _drawn_answers(self, example: Example, answers: Mapping[str, Mapping[str, Prediction]]) -> list[Prediction]:
        return [answers[s.name][example.id] for s in change.samples(self.base)]

    def _by_majority(self, drawn: Sequence[Prediction]) -> bool:
        """Whether the answer with the most votes is right. One vote is no majority; of equals, the first drawn."""
        numeric = self.materials.task.metric == "numeric_match"
        votes = [(vote(p.text, numeric=numeric), p) for p in drawn if p.error is None]
        ranked = Counter(key for key, _ in votes).most_common(1)
        if not ranked or ranked[0][1] < 2:
            return False
        return any((p.score or 0.0) >= self.by.right for key, p in votes if key == ranked[0][0])

    # ---- causes ----------------------------------------------------------------------------

    def rescues(self, by_name: Mapping[str, Outcome]) -> list[dict[str, Any] | None]:
        """The causes whose evidence is rescue."""
        if not self.failed:
            return []
        placebo, lenient, forced = by_name["placebo"], by_name["lenient"], by_name["constrained"]
        shape = {e.id: lenient[e.id] or forced.get(e.id, False) for e in self.failed}
        # A lenient reading answers nothing again: there is no chance in it to subtract.
        chance = {i: placebo[i] and not lenient[i] and i in forced for i in shape}
        kind = "retrieval" if self.base.retriever is not None else "knowledge"
        told = "the gold passages in the place of the retrieved ones" if kind == "retrieval" else "the gold passages"
        return [
            self._cause("format", {**forced, **shape}, chance, "reading leniently, or a constraint"),
            self._cause("inconsistency", by_name["inconsistency"], placebo, f"the majority of {change.SAMPLES}"),
            self._cause("convention", by_name["convention"], placebo, "the nearest gold demos"),
            self._cause(kind, by_name["knowledge"], placebo, told),
            self._cause("reasoning", by_name["reasoning"], placebo, "thinking first"),
        ]

    def _cause(self, cause: str, outcome: Outcome, chance: Outcome, told: str) -> dict[str, Any] | None:
        """The net share of all failed examples; one that could not be tried counts as not rescued.

        outcome, chance: of failed examples and of right ones, of which those that came out wrong are taken off.
        """
        tried = [e for e in self.failed if e.id in outcome]
        if not tried:
            return None
        ids = [e.id for e in tried if outcome[e.id]]
        net = self._less_broken(self._net(set(ids), {e.id for e in tried if chance[e.id]}), outcome, chance)
        told = f"mended by {told}"
        return {"cause": cause, **net, "tried": len(tried), "evidence": told, "net_of_placebo": True, "ids": ids}

    def listed(
        self, answers: Mapping[str, Mapping[str, Prediction]], by_name: Mapping[str, Outcome]
    ) -> list[dict[str, Any] | None]:
        """The causes whose evidence is seen, not tried: conflicting rows, and spread where there is no corpus."""
        if not self.failed:
            return []
        noisy = {i for pair in self.conflicts for i in pair["ids"]}
        found = [("label noise", noisy, "nearly the same input has another answer")]
        if "knowledge" in self.skipped:
            told = "the samples disagree and none is right: a sign of missing knowledge, no proof"
            found.append(("knowledge", set(self._guesses(answers, by_name)), told))
        rows: list[dict[str, Any] | None] = []
        for cause, members, told in found:
            ids = [e.id for e in self.failed if e.id in members]
            rate = self.rate(ids)
            rows.append(
                {"cause": cause, **rate, "tried": len(self.failed), "evidence": told, "net_of_placebo": False}
                | {"ids": ids}
            )
        return rows

    def _guesses(
        self, answers: Mapping[str, Mapping[str, Prediction]], by_name: Mapping[str, Outcome]
    ) -> Iterable[str]:
        """Failed examples that nothing rescued, whose answer the input does not hold and whose samples disagree."""
        for example in self.failed:
            drawn = self._drawn_answers(example, answers)
            right = any((p.score or 0.0) >= self.by.right for p in drawn)
            rescued = any(outcome.get(example.id, False) for outcome in by_name.values())
            if right or rescued or self.by.labels or derivable(example, self.common):
                continue
            if len({bare(p.text) for p in drawn if p.error is None}) >= SPREAD:
                yield example.id

    def combinations(
        self, answers: Mapping[str, Mapping[str, Prediction]], by_name: Mapping[str, Outcome]
    ) -> list[dict[str, Any]]:
        """Pairs that rescue where neither alone does: the intervention's answer is right only when read leniently.

        Net of what a lenient reading of the placebo's answer finds.
        """
        rows = []
        for name in ("knowledge", "convention", "reasoning"):
            if name not in answers:
                continue
            left = [e for e in self.failed if e.id in answers[name] and not by_name[name][e.id]]
            left = [e for e in left if not by_name["lenient"][e.id]]
            ids = [e.id for e in left if self._leniently(e, answers[name])]
            chance = {e.id for e in left if self._leniently(e, answers["placebo"])}
            pair = ["retrieval" if name == "knowledge" and self.base.retriever is not None else name, "format"]
            rows.append({"causes": pair, **self._net(set(ids), chance), "ids": ids})
        return [row for row in rows if row["ids"]]

    # ---- numbers ---------------------------------------------------------------------------

    def _net(self, rescued: set[str], by_chance: set[str]) -> dict[str, Any]:
        """The paired difference over the failed examples, with its 95 % interval."""
        from rung.evaluation.statistics import compare

        a = [float(e.id in by_chance) for e in self.failed]
        b = [float(e.id in rescued) for e in self.failed]
        net = compare(
            "placebo", "rescued", a, b, "dev", groups=self._groups(self.failed), seed=self.materials.task.seed
        )
        return {"share": net.difference, "low": net.low, "high": net.high}

    def _less_broken(self, net: dict[str, Any], outcome: Outcome, chance: Outcome) -> dict[str, Any]:
        """The net share less what was broken beyond chance, in failed examples' worth.

        The interval of the difference of two independent estimates is put together from theirs.
        Source: Zou & Donner, Construction of confidence limits about effect measures (2008).
        """
        from rung.evaluation.statistics import compare

        tried = [e for e in self.succeeded if e.id in outcome]
        if not tried or self.right_share >= 1.0:
            return net
        by_chance = [float(not chance.get(e.id, True)) for e in tried]
        broken = [float(not outcome[e.id]) for e in tried]
        lost = compare(
            "placebo", "broken", by_chance, broken, "dev", groups=self._groups(tried), seed=self.materials.task.seed
        )
        # Of right answers that could not be tried none is broken, as of such wrong ones none is mended.
        odds = self.right_share / (1.0 - self.right_share) * len(tried) / len(self.succeeded)
        taken, low, high = (odds * max(0.0, x) for x in (lost.difference, lost.low, lost.high))
        share = net["share"] - taken
        below = math.hypot(net["share"] - net["low"], high - taken)
        above = math.hypot(net["high"] - net["share"], taken - low)
        return {"share": share, "low": share - below, "high": share + above}

    def _groups(self, examples: Sequence[Example]) -> list[str] | None:
        from rung.evaluation.statistics import units_of

        return units_of([e.id for e in examples], self.materials.groups)

    def rate(self, ids: Iterable[str]) -> dict[str, Any]:
        """The share of the failed examples, with its 95 % interval."""
        from rung.evaluation.statistics import score

        if not self.failed:
            return {"share": 0.0, "low": 0.0, "high": 1.0}
        members = set(ids)
        values = [float(e.id in members) for e in self.failed]
        found = score(values, groups=self._groups(self.failed), seed=self.materials.task.seed)
        return {"share": found.mean, "low": found.low, "high": found.high}

    # ---- the record ------------------------------------------------------------------------

    def interventions(self, by_name: Mapping[str, Outcome]) -> dict[str, dict[str, Any]]:
        """How often each rescued a wrong answer, and how often it broke a right one; None where none was tried."""
        rows: dict[str, dict[str, Any]] = {}
        for name, outcome in by_name.items():
            rescued = [outcome[e.id] for e in self.failed if e.id in outcome]
            broken = [not outcome[e.id] for e in self.succeeded if e.id in outcome]
            rows[name] = {
                "failed": len(rescued),
                "rescued": sum(rescued),
                "rescue_rate": sum(rescued) / len(rescued) if rescued else None,
                "succeeded": len(broken),
                "broken": sum(broken),
                "break_rate": sum(broken) / len(broken) if broken else None,
            }
        return rows | {name: {"skipped": why} for name, why in self.skipped.items()}

    def row(
        self,
        example: Example,
        answers: Mapping[str, Mapping[str, Prediction]],
        by_name: Mapping[str, Outcome],
        found: Sequence[Mapping[str, Any]],
    ) -> dict[str, Any]:
        """One example: what it was answered, what each intervention made of it, and its causes."""
        drawn = self._drawn_answers(example, answers) if answers else []
        return {
            "id": example.id,
            "failed": example in self.failed,
            "answer": self.old[example.id].text,
            "outcomes": {name: outcome[example.id] for name, outcome in by_name.items() if example.id in outcome},
            "gold_passages": list(answers["knowledge"][example.id].passages)
            if example.id in answers.get("knowledge", {})
            else [],
            "causes": [c["cause"] for c in found if example.id in c["ids"]],
            "samples_right": sum((p.score or 0.0) >= self.by.right for p in drawn) / max(1, len(drawn)),
            "samples_distinct": len({bare(p.text) for p in drawn}),
        }


# ---- what counts as right, and as the same ---------------------------------------------------


def right_from(metric: str, predictions: Sequence[Prediction]) -> float:
    """The score from which an answer is right: 1, or a half where the metric grades."""
    graded = metric in GRADED or any(p.score not in (None, 0.0, 1.0) for p in predictions)
    return HALF if graded else 1.0


def conflicting(materials: Materials, by: Yardstick) -> list[dict[str, Any]]:
    """Pairs of train and dev examples with nearly the same input, each of whose answers is wrong for the other.

    Nearly the same: as the data checks have it, which leave one template filled in twice alone, or the same words
    in another order.
    """
    from rung.data.checks import check_examples

    rows = {e.id: e for e in (*materials.train, *materials.dev)}
    pairs = [f.ids for f in check_examples(tuple(rows.values()), materials.task) if f.check == "conflicting_answers"]
    bags: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for example in rows.values():
        words = f"{example.context or ''} {example.input}".casefold().split()
        bags[tuple(sorted(words))].append(example.id)
    pairs += [(ids[0], other) for ids in bags.values() for other in ids[1:]]
    found = []
    for a, b in dict.fromkeys(tuple(pair) for pair in pairs):
        one, two = rows[a], rows[b]
        agree = max(by.metric(one.output, two.references), by.metric(two.output, one.references))
        if agree < by.right:
            found.append(
                {"ids": [a, b], "rows": [one.row, two.row], "input": two.input, "outputs": [one.output, two.output]}
            )
    return found


def _of_stated(metric: Metric) -> Metric:
    """The metric, of what follows the last "Answer:"."""
    return lambda text, references: metric(stated(text), references)


def _drawn(examples: Sequence[Example], most: int, seed: int) -> tuple[Example, ...]:
    """A fixed sample, in dev's order."""
    if len(examples) <= most:
        return tuple(examples)
    places = sorted(random.Random(seed).sample(range(len(examples)), most))
    return tuple(examples[i] for i in places)
