"""Searching for an instruction: `gepa` decides what is tried next, this adapter tries it and asks for proposals.

A candidate is an instruction and a setting of demos. It is answered on train alone: on a small part, from whose wrong
answers a new instruction is written, and where that is better, on a larger part by which candidates are compared. Dev
sees none of it. A search that was killed is made again with the same seed: the answers of every candidate and every
proposal are on disk, so that it takes the same way and pays for nothing twice.
Source: Agrawal et al., GEPA: reflective prompt evolution can outperform reinforcement learning (2025).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rung.errors import NoGain
from rung.evaluation.sequential import LOOKS, boundary, planned_looks
from rung.evaluation.statistics import compare, units_of
from rung.models.journal import Journal
from rung.records import write_lines
from rung.teaching.feedback import causes_in_words, feedback
from rung.teaching.held_out import held_out, held_out_size, without_demos_of
from rung.teaching.proposing import instruction_in, refused, request_for_instruction
from rung.teaching.search_log import SEARCH_LOG
from rung.trials.choose import fits
from rung.trials.trial import attempt, mean_score
from rung.trials.workshop import Workshop
from rung.types import Example, Prediction, Solution

ACCEPTED = 3
"""Proposals that the calls of a search suffice for where each of them is answered on both parts."""

ASKED = 6
"""Instructions that are proposed at most; most proposals fail on the small part and cost little."""

MINIBATCH, MINIBATCHES, VAL = 8, 3, 32
"""Train examples that a proposal is written from, how many such parts there are, and examples that candidates are
compared on."""

_LEAST = 12  # train examples that can be held out
_EACH_OTHER = 3  # each third proposal changes the demos
_PROPOSALS = "proposals.jsonl"
_INSTRUCTION, _DEMOS = "instruction", "demos"

Candidate = Mapping[str, str]
"""gepa's: the text of each part that is searched. The text of the demos is the name of a setting."""


@dataclass(frozen=True)
class Sizes:
    """How many train examples a search uses. reflected: those that minibatches come from."""

    minibatch: int
    reflected: int
    val: int

    @property
    def calls(self) -> int:
        """Answers that it may ask for: parents and proposals on minibatches, and accepted ones on val."""
        return self.val + ACCEPTED * (2 * self.minibatch + self.val)


def sizes(there: int) -> Sizes:
    """Of a search with so many examples that can be held out. Raises NoGain where they are too few."""
    if there < _LEAST:
        fact = f"beside those that prompts show, {there} train examples are left to search an instruction with"
        raise NoGain(f"{fact}, and {_LEAST} are needed")
    val = min(VAL, there * 3 // 5)
    minibatch = min(MINIBATCH, (there - val) // 2)
    return Sizes(minibatch, minibatch * min(MINIBATCHES, (there - val) // minibatch), val)


def planned_calls(train: int) -> int:
    """Answers that a search with so many train examples may ask for; 0 where it would refuse them as too few."""
    there = held_out_size(train)
    return sizes(there).calls if there >= _LEAST else 0


def search(workshop: Workshop, start: Solution, settings: Sequence[Solution]) -> Solution:
    """The best candidate on val, the start itself where nothing was better. `search_log` reads what was tried.

    settings: the start with other demos, each with its instruction. Raises NoGain for too few train examples, and what
    the models raise.
    """
    from gepa.api import optimize

    adapter = _Adapter(workshop, start, settings)
    run: Any = optimize
    result = run(
        seed_candidate={_INSTRUCTION: start.instruction, _DEMOS: _setting_of(start)},
        trainset=list(adapter.reflected),
        valset=list(adapter.val),
        adapter=adapter,
        reflection_minibatch_size=adapter.sizes.minibatch,
        module_selector=adapter.part_to_change,
        stop_callbacks=[adapter.is_over],
        logger=_Silent(),
        track_best_outputs=False,
        seed=workshop.inputs.task.seed,
    )
    if adapter.failed is not None:
        raise adapter.failed
    return adapter.end(result.candidates[result.best_idx])


class _Silent:
    """gepa's logger; the log of a search is its records."""

    def log(self, message: str) -> None: ...


class _Adapter:
    """gepa's GEPAAdapter, and what it needs to know of the search while it runs.

    val, reflected: parts of train. failed: what a model raised while it was asked for a proposal; gepa would go on.
    """

    def __init__(self, workshop: Workshop, start: Solution, settings: Sequence[Solution]) -> None:
        inputs = workshop.inputs
        self.workshop, self.start = workshop, start
        rows = held_out(inputs, VAL + MINIBATCH * MINIBATCHES)
        self.sizes = sizes(len(rows))
        self.val = rows[: self.sizes.val]
        self.reflected = rows[self.sizes.val : self.sizes.val + self.sizes.reflected]
        self.settings = {_setting_of(s): s for s in (*settings, start)}
        self._hiding = {name: without_demos_of(s, rows, inputs) for name, s in self.settings.items()}
        self._scores: dict[tuple[str, str], float] = {}  # (candidate, example) -> score
        self._on_val: dict[str, list[float]] = {}  # of candidates that answered all of it
        self._journal = Journal(workshop.tools.teacher or workshop.tools.model, workshop.folder / _PROPOSALS)
        self._asked = 0
        self._log: list[dict[str, Any]] = []
        self._records: dict[str, dict[str, Any]] = {}
        self.failed: Exception | None = None
        self._add({_INSTRUCTION: start.instruction, _DEMOS: _setting_of(start)}, None, None)

    # ---- what gepa calls -------------------------------------------------------------------

    def evaluate(self, batch: list[Example], candidate: Candidate, capture_traces: bool = False) -> Any:
        """Scored answers of a candidate, as gepa's EvaluationBatch. On val it is left early where it is far behind."""
        from gepa.core.adapter import EvaluationBatch

        whole = [e.id for e in batch] == [e.id for e in self.val]
        answers = self._answers_to_val(candidate) if whole else self._answers(candidate, batch)
        scores = [p.score or 0.0 for p in answers]
        return EvaluationBatch([p.text for p in answers], scores, list(zip(batch, answers, strict=True)))

    def make_reflective_dataset(
        self, candidate: Candidate, evaluated: Any, parts: list[str]
    ) -> dict[str, list[dict[str, Any]]]:
        """The answers that a new text is written from; `propose_new_texts` puts them in words."""
        return {part: [{"example": e, "answer": a} for e, a in evaluated.trajectories] for part in parts}

    def propose_new_texts(
        self, candidate: Candidate, shown: Mapping[str, Sequence[Mapping[str, Any]]], parts: list[str]
    ) -> dict[str, str]:
        """A new text for the one part; none where what was proposed is refused, or the asking failed."""
        (part,) = parts
        try:
            if part == _DEMOS:
                changed, reason = {**candidate, _DEMOS: self._untried(candidate)[0]}, None
            else:
                changed, reason = self._proposed(candidate, shown[part])
            if reason is None and not fits(self.workshop, self._solution(changed)):
                reason = f"the prompt would be longer than {self.workshop.limits.prompt_tokens:,} tokens"
        except Exception as error:  # gepa would note it and go on
            self.failed = error
            return {}
        record = self._add(changed, candidate, part, reason)
        if reason is None:
            ids = [row["example"].id for row in shown[part]]
            record["minibatch"] = {"n": len(ids), "before": self._mean(candidate, ids), "after": None}
        return {} if reason is not None else {part: changed[part]}

    def part_to_change(self, state: Any, answers: Any, scores: Any, place: int, candidate: Candidate) -> list[str]:
        """The instruction; each third time the demos, as long as a setting is untried with this instruction."""
        turn = len(self._log) % _EACH_OTHER == 0
        return [_DEMOS] if turn and self._untried(candidate) else [_INSTRUCTION]

    def is_over(self, state: Any) -> bool:
        """Whether the calls, the proposals or the time are spent, or nothing is left to gain."""
        needed = 2 * self.sizes.minibatch + self.sizes.val
        left = self.workshop.limits.seconds_left()
        late = left is not None and left <= 0
        tried = len(self._log) - 1
        self.workshop.note_cut(
            "instruction search", f"the time was up after {tried} proposals of an instruction search" if late else None
        )
        perfect = max(map(_mean, self._on_val.values()), default=0.0) >= 1.0
        spent = len(self._scores) + needed > self.sizes.calls or self._asked >= ASKED
        idle = state.i >= ASKED * _EACH_OTHER  # minibatches without a wrong answer bring no proposal
        return bool(late or perfect or spent or idle or self.failed)

    # ---- answers ---------------------------------------------------------------------------

    def _answers(self, candidate: Candidate, examples: Sequence[Example]) -> list[Prediction]:
        key = _key(candidate)
        solution = replace(self._hiding[candidate[_DEMOS]], name="a prompt", instruction=candidate[_INSTRUCTION])
        part = hashlib.sha256("\n".join(e.id for e in examples).encode()).hexdigest()[:8]
        path = self.workshop.folder / "trials" / f"search-{key}-{part}.jsonl"
        answers = attempt(self.workshop, solution, examples, path)
        self._scores |= {(key, a.id): a.score or 0.0 for a in answers}
        record = self._records[key]
        if record["minibatch"] is not None and record["minibatch"]["after"] is None:
            record["minibatch"]["after"] = mean_score(answers)
            self._write()
        return answers

    def _answers_to_val(self, candidate: Candidate) -> list[Prediction]:
        """One a val example. Where an interim look shows another candidate ahead, the rest counts as wrong."""
        record, answers, left = self._records[_key(candidate)], list[Prediction](), None
        rival = max(self._on_val.values(), key=_mean, default=None)
        n = len(self.val)
        looks = planned_looks(n) if rival is not None and not self.workshop.limits.exhaustive else [n]
        for look, end in enumerate(looks, 1):
            answers += self._answers(candidate, self.val[len(answers) : end])
            if rival is not None and end < n and self._is_behind(answers, rival, boundary(look, LOOKS)):
                left = f"after {end} of {n} examples another was clearly ahead"
                break
        else:
            self._on_val[_key(candidate)] = [a.score or 0.0 for a in answers]
        record["accepted"] = record["number"] > 0
        record["val"] = {"n": len(answers), "score": mean_score(answers), "left": left}
        self._write()
        return [*answers, *(Prediction(e.id, "", 0, 0, 0.0, score=0.0) for e in self.val[len(answers) :])]

    def _is_behind(self, answers: Sequence[Prediction], rival: Sequence[float], level: float) -> bool:
        inputs = self.workshop.inputs
        groups = units_of([a.id for a in answers], inputs.groups)
        ours, theirs = [a.score or 0.0 for a in answers], list(rival[: len(answers)])
        found = compare("rival", "candidate", theirs, ours, "train", groups=groups, seed=inputs.task.seed)
        return found.difference < 0 and found.p < level

    # ---- proposals -------------------------------------------------------------------------

    def _proposed(self, candidate: Candidate, shown: Sequence[Mapping[str, Any]]) -> tuple[dict[str, str], str | None]:
        """The candidate with a new instruction, and why that is refused; None where it can be tried."""
        workshop, model = self.workshop, self._journal.model
        metric, labels = workshop.tools.scorer.metric, workshop.inputs.task.labels
        wrong_first = sorted(shown, key=lambda row: (row["answer"].score or 0.0) >= 1.0)  # stable
        cases = [
            (r["example"], r["answer"].text, feedback(r["example"], r["answer"], metric, labels)) for r in wrong_first
        ]
        causes = causes_in_words(workshop.diagnosis)
        self._asked += 1
        request = request_for_instruction(model, candidate[_INSTRUCTION], cases, causes, self._asked)
        (reply,) = self._journal.generate([request], workshop.tools.tell, "asking for a better instruction")
        text = instruction_in(reply)
        known = [r[_INSTRUCTION] for r in self._log if r["refused"] is None]
        return {**candidate, _INSTRUCTION: text}, refused(reply, text, (*self.val, *self.reflected), known)

    def _untried(self, candidate: Candidate) -> list[str]:
        """Settings of demos that this instruction was not tried with."""
        same = [r for r in self._log if r[_INSTRUCTION] == candidate[_INSTRUCTION]]
        tried = {r[_DEMOS] for r in same if r["refused"] is None or r["changed"] == _DEMOS}
        return [name for name in self.settings if name not in tried]

    # ---- the log and the end ---------------------------------------------------------------

    def _add(
        self, candidate: Candidate, parent: Candidate | None, part: str | None, reason: str | None = None
    ) -> dict[str, Any]:
        record: dict[str, Any] = {
            "number": len(self._log),
            "changed": part,
            "parent": self._records[_key(parent)]["number"] if parent is not None else None,
            **candidate,
            "minibatch": None,
            "val": None,
            "refused": reason,
            "accepted": False,
            "kept": False,
        }
        self._log.append(record)
        if reason is None:
            self._records[_key(candidate)] = record
        self._write()
        return record

    def _write(self) -> None:
        write_lines(self.workshop.folder / SEARCH_LOG, self._log)

    def _mean(self, candidate: Candidate, ids: Sequence[str]) -> float:
        return _mean([self._scores[_key(candidate), i] for i in ids])

    def _solution(self, candidate: Candidate) -> Solution:
        return replace(self.settings[candidate[_DEMOS]], instruction=candidate[_INSTRUCTION])

    def end(self, candidate: Candidate) -> Solution:
        """Notes which candidate is kept, and returns it with all of its demos."""
        self._records[_key(candidate)]["kept"] = True
        self._write()
        return self._solution(candidate)


def _setting_of(solution: Solution) -> str:
    """The name of its setting of demos."""
    selection = solution.demo_selection
    return f"{selection.kind}-{selection.k}" if selection is not None and solution.demos else "none"


def _key(candidate: Candidate) -> str:
    said = f"{candidate[_DEMOS]}\n{candidate[_INSTRUCTION]}"
    return hashlib.sha256(said.encode(errors="replace")).hexdigest()[:16]


def _mean(scores: Sequence[float]) -> float:
    return sum(scores) / len(scores)
