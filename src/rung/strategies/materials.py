"""What a strategy may use, and the one way in which it may try a Solution on examples.

Trials are stored in blocks as they are answered: a run that was killed answers no block twice, and
answers the remaining ones in the same batches as it would have.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rung.records import append_lines, read_lines, write_text
from rung.solutions.answer import BLOCK, answer
from rung.types import Constraint, Decoding, Document, Example, Metric, Prediction, Retriever, Solution, Task

if TYPE_CHECKING:
    from rung.models.local import LocalModel

SCREEN = 48
"""Dev examples that a choice inside a strategy looks at."""

Tell = Callable[[str, float], None]
"""(what is being done, share done in [0, 1])"""


@dataclass(frozen=True)
class Materials:
    """Everything a strategy builds from.

    folder: the solution's own folder, for trials and training. compute_tokens: how many tokens a
    training may put through the network. max_prompt_tokens: the longest prompt worth paying for.
    """

    task: Task
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    model: LocalModel
    metric: Metric
    folder: Path
    decoding: Decoding
    constraint: Constraint | None
    passages: tuple[Document, ...] = ()
    retriever: Retriever | None = None
    compute_tokens: int = 160_000
    max_prompt_tokens: int = 2_000
    learning_rate: float | None = None
    shown_passages: int | None = None
    tell: Tell = field(default=lambda what, share: None)

    @property
    def screen(self) -> tuple[Example, ...]:
        """A fixed sample of dev, for choices inside a strategy."""
        if len(self.dev) <= SCREEN:
            return self.dev
        return tuple(random.Random(self.task.seed).sample(self.dev, SCREEN))

    def solution(self, name: str) -> Solution:
        """The plainest Solution of the task: its instruction and nothing else."""
        return Solution(name, self.task.instruction, self.decoding)


def attempt(materials: Materials, solution: Solution, examples: Sequence[Example], path: Path) -> list[Prediction]:
    """Scored predictions for the examples, kept in `path` (JSON lines) block by block.

    A prediction with an error scores 0. Blocks already in the file are read, not answered again.
    """
    done = {p.id: p for p in (_read(record) for record in read_lines(path))}
    blocks = [examples[i : i + BLOCK] for i in range(0, len(examples), BLOCK)]
    whole = [block for block in blocks if all(e.id in done for e in block)]
    if sum(len(block) for block in whole) != len(done):  # a block torn by a kill: answered again as a whole
        done = {e.id: done[e.id] for block in whole for e in block}
        write_text(path, "")
        append_lines(path, (asdict(p) for p in done.values()))
    for number, block in enumerate(blocks):
        if block in whole:
            continue
        materials.tell(f"answering {solution.name}", number / len(blocks))
        predictions = answer(solution, materials.model, [e.query for e in block], retriever=materials.retriever)
        scored = [
            replace(p, score=0.0 if p.error else float(materials.metric(p.text, e.references)))
            for p, e in zip(predictions, block, strict=True)
        ]
        append_lines(path, (asdict(p) for p in scored))
        done.update((p.id, p) for p in scored)
    return [done[e.id] for e in examples]


def mean_score(predictions: Sequence[Prediction]) -> float:
    return sum(p.score or 0.0 for p in predictions) / len(predictions)


def choose(materials: Materials, *ways: Sequence[Solution]) -> Solution:
    """The best variant on the screening sample; of equals, the one with the fewest prompt tokens.

    ways: lists of variants, each in order of growing cost; a way is left when a step along it gains nothing.
    """
    if sum(len(way) for way in ways) == 1:
        return next(way[0] for way in ways if way)
    tried: list[tuple[float, int, int, Solution]] = []
    for way in ways:
        before = -1.0
        for solution in way:
            path = materials.folder / "trials" / f"{solution.name}.jsonl"
            predictions = attempt(materials, solution, materials.screen, path)
            score = mean_score(predictions)
            tried.append((-score, sum(p.tokens_in for p in predictions), len(tried), solution))
            if score <= before:
                break
            before = score
    return min(tried, key=lambda t: t[:3])[3]


def prompt_tokens(materials: Materials, solution: Solution, examples: Sequence[Example]) -> float:
    """Mean prompt length over a few examples, in tokens; nothing is answered."""
    from rung.solutions.answer import prepare

    some = [e.query for e in examples[:8]]
    requests, _ = prepare(solution, materials.model, some, retriever=materials.retriever)
    return sum(len(materials.model.encode(r.messages)) for r in requests) / len(requests)


def _read(record: dict[str, object]) -> Prediction:
    return Prediction(**{**record, "passages": tuple(record["passages"])})  # type: ignore[arg-type]
