"""Outcomes: which examples came out right under each change, when read leniently, and by the samples' majority."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from rung.diagnosis.experiment import Answers, Experiment
from rung.diagnosis.interventions import FORMAT, INCONSISTENCY, LENIENT
from rung.diagnosis.lenient import bare, reads_right, vote
from rung.diagnosis.placebo import PLACEBO, samples
from rung.diagnosis.shares import Outcome
from rung.types import Example, Prediction


@dataclass(frozen=True)
class Outcomes:
    """What came out of one experiment."""

    experiment: Experiment
    answers: Answers

    @cached_property
    def by_name(self) -> dict[str, Outcome]:
        """Lenient reading, placebo, each change that was tried, inconsistency -> which examples came out right."""
        failed = self.experiment.sampled.failed
        found: dict[str, Outcome] = {LENIENT: {e.id: self.leniently(e, self.experiment.old) for e in failed}}
        for name in (PLACEBO, *self.experiment.changes):
            found[name] = {i: self.is_right(p) for i, p in self.answers.get(name, {}).items()}
        asked = self.experiment.asked if self.answers else ()
        found[INCONSISTENCY] = {e.id: self._by_majority(self.drawn(e)) for e in asked}
        return found

    @cached_property
    def harmful(self) -> frozenset[str]:
        """Changes that break most of the right answers. They are evidence for nothing."""
        sampled, placebo = self.experiment.sampled, self.by_name[PLACEBO]
        changes = (*self.experiment.changes, INCONSISTENCY)
        return frozenset(n for n in changes if sampled.is_harmful(self.by_name[n], placebo))

    @property
    def telling(self) -> dict[str, Outcome]:
        """The outcomes that say something about causes: all but the harmful ones."""
        return {name: outcome for name, outcome in self.by_name.items() if name not in self.harmful}

    @cached_property
    def together(self) -> dict[str, dict[str, bool]]:
        """Change -> failed examples whose changed answer is right only when it is read leniently.

        Neither the change nor the lenient reading fixes these alone. Changes for the format itself are not among them.
        The value of an example says whether a lenient reading fixes the changed answer, in those where it could.
        """
        found = {}
        lenient = self.by_name[LENIENT]
        for name, change in self.experiment.changes.items():
            if name in self.harmful or change.intervention.cause == FORMAT:
                continue
            outcome = self.by_name[name]
            rest = [e for e in self.experiment.sampled.failed if not outcome.get(e.id, True) and not lenient[e.id]]
            found[name] = {e.id: self.leniently(e, self.answers[name]) for e in rest}
        return found

    @property
    def unresolved(self) -> list[str]:
        """Failed examples that nothing rescued: no change, no reading, no sample, and no two of them together."""
        single, joint = self.telling.values(), self.together.values()
        return [
            e.id
            for e in self.experiment.sampled.failed
            if not any(outcome.get(e.id, False) for outcome in (*single, *joint))
        ]

    def is_right(self, prediction: Prediction) -> bool:
        return (prediction.score or 0.0) >= self.experiment.by.right

    def leniently(self, example: Example, answers: Mapping[str, Prediction]) -> bool:
        """Whether the example's answer among these is right when read leniently."""
        prediction = answers.get(example.id)
        if prediction is None:
            return False
        passages = "\n".join(self._texts.get(i, "") for i in prediction.passages)
        return reads_right(prediction.text, example, self.experiment.by, passages=passages)

    def drawn(self, example: Example) -> list[Prediction]:
        """The samples' answers to the example; none where nothing was answered again."""
        names = [s.name for s in samples(self.experiment.base)] if self.answers else []
        return [self.answers[name][example.id] for name in names]

    def distinct(self, example: Example) -> int:
        """How many different answers the samples gave."""
        return len({bare(p.text) for p in self.drawn(example) if p.error is None})

    @cached_property
    def _texts(self) -> dict[str, str]:
        """Of the passages that answers may rest on, as the diagnosed solution or the gold passages cut them."""
        shop = self.experiment.workshop
        return {p.id: p.text for p in shop.inputs.library.passages(shop.passages_spec(1))}

    def _by_majority(self, drawn: Sequence[Prediction]) -> bool:
        """Whether the answer with the most votes is right. One vote is no majority; of equals, the first drawn."""
        votes = [(vote(p.text, numeric=self.experiment.by.numeric), p) for p in drawn if p.error is None]
        ranked = Counter(key for key, _ in votes).most_common(1)
        if not ranked or ranked[0][1] < 2:
            return False
        return any(self.is_right(p) for key, p in votes if key == ranked[0][0])
