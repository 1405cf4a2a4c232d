"""What a strategy may use, and the one way in which it may try a Solution on examples.

Trials are stored in blocks as they are answered: a run that was killed answers no block twice, and
answers the remaining ones in the same batches as it would have.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
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

PILOTED = 150
"""Dev examples that a pilot is judged on: what it cannot mend is to be told from what it mends rarely."""

_SCREENED = "screened.jsonl"
_TURN_TOKENS = 5  # that a chat template puts round a turn

Tell = Callable[[str, float], None]
"""(what is being done, share done in [0, 1])"""


@dataclass(frozen=True)
class Materials:
    """Everything a strategy builds from.

    folder: the solution's own folder, for trials and training. compute_tokens: how many tokens a
    training may put through the network. max_prompt_tokens: the longest prompt worth paying for. exhaustive: every
    variant is answered and trained in full, none is left early. groups: example id -> group, of the split.
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
    exhaustive: bool = False
    groups: Mapping[str, str] = field(default_factory=dict)
    tell: Tell = field(default=lambda what, share: None)

    @property
    def screen(self) -> tuple[Example, ...]:
        """A fixed sample of dev, for choices inside a strategy."""
        return self._sample(SCREEN)

    @property
    def piloted(self) -> tuple[Example, ...]:
        """A fixed sample of dev, for pilots."""
        return self._sample(PILOTED)

    def _sample(self, most: int) -> tuple[Example, ...]:
        if len(self.dev) <= most:
            return self.dev
        return tuple(random.Random(self.task.seed).sample(self.dev, most))

    def solution(self, name: str) -> Solution:
        """The plainest Solution of the task: its instruction and nothing else."""
        return Solution(name, self.task.instruction, self.decoding)


def attempt(
    materials: Materials,
    solution: Solution,
    examples: Sequence[Example],
    path: Path,
    *,
    known: Sequence[Prediction] = (),
) -> list[Prediction]:
    """Scored predictions for the examples, kept in `path` (JSON lines) block by block.

    A prediction with an error scores 0. Blocks already in the file are read, not answered again; nor are
    the examples of `known`, this solution's predictions from elsewhere.
    """
    given = {p.id: p for p in known}
    done = {p.id: p for p in read_predictions(path) if p.id not in given}
    rest = [e for e in examples if e.id not in given]
    blocks = [rest[i : i + BLOCK] for i in range(0, len(rest), BLOCK)]
    whole = [block for block in blocks if all(e.id in done for e in block)]
    if sum(len(block) for block in whole) != len(done) or (given and not done):  # torn by a kill, or new
        done = {e.id: done[e.id] for block in whole for e in block}
        write_text(path, "")
        append_lines(path, (asdict(p) for p in (*given.values(), *done.values())))
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
    return [given.get(e.id) or done[e.id] for e in examples]


def mean_score(predictions: Sequence[Prediction]) -> float:
    return sum(p.score or 0.0 for p in predictions) / len(predictions)


def choose(materials: Materials, variants: Sequence[Solution]) -> Solution:
    """The best variant on the screening sample; of equals, the one with the fewest prompt tokens.

    Successive halving: all answer a third of the sample, the best two (and their equals) the rest.
    The winner's predictions are left for `screened`. Source: Jamieson & Talwalkar (2016).
    """
    (materials.folder / _SCREENED).unlink(missing_ok=True)
    if len(variants) == 1:
        return variants[0]
    first = 0 if materials.exhaustive else len(materials.screen) // 3
    alive = list(variants)
    answered: dict[str, list[Prediction]] = {v.name: [] for v in variants}
    for number, part in enumerate((materials.screen[:first], materials.screen[first:]), 1):
        if not part:
            continue
        for solution in alive:
            path = materials.folder / "trials" / f"{solution.name}-{number}.jsonl"
            answered[solution.name] += attempt(materials, solution, part, path)
        means = {v.name: mean_score(answered[v.name]) for v in alive}
        tokens = {v.name: sum(p.tokens_in for p in answered[v.name]) for v in alive}
        alive.sort(key=lambda v: (-means[v.name], tokens[v.name]))
        alive = [v for v in alive if means[v.name] >= means[alive[min(1, len(alive) - 1)].name]]
    lines = (json.dumps(asdict(p), ensure_ascii=False) + "\n" for p in answered[alive[0].name])
    write_text(materials.folder / _SCREENED, "".join(lines))
    return alive[0]


def screened(folder: Path) -> list[Prediction]:
    """What the solution built in that folder answered while it was chosen."""
    return read_predictions(folder / _SCREENED)


def read_predictions(path: Path) -> list[Prediction]:
    """Predictions as `attempt` leaves them; none where there is no such file."""
    return [_read(record) for record in read_lines(path)]


def affordable(materials: Materials, solution: Solution) -> bool:
    """Whether answering dev, and a test of its size, costs no more than one training may.

    What all prompts begin with is computed once, so only the tokens behind it count: fixed demos cost
    next to nothing, demos and passages chosen for each input cost their length every time.
    """
    from rung.solutions.answer import prepare

    some = [e.query for e in materials.dev[:8]]
    requests, _ = prepare(solution, materials.model, some, retriever=materials.retriever)
    prompts = [r.messages for r in requests]
    shared = 0
    while all(len(p) > shared + 1 and p[shared] == prompts[0][shared] for p in prompts):
        shared += 1
    lengths = [[materials.model.count_tokens(m.content) + _TURN_TOKENS for m in p] for p in prompts]
    if max(sum(turns) for turns in lengths) > materials.max_prompt_tokens:
        return False
    own = sum(sum(turns[shared:]) for turns in lengths) / len(lengths)
    # A token that is trained on costs two that are read: twice as many weights' worth of products.
    return own * 2 * len(materials.dev) <= 2 * materials.compute_tokens


def _read(record: dict[str, object]) -> Prediction:
    return Prediction(**{**record, "passages": tuple(record["passages"])})  # type: ignore[arg-type]
