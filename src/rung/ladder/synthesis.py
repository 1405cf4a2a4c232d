"""What `rung synth` does with a task: splits it as a run does, says what will be asked, and writes the rows.

The output is written once, whole, when all is done. Until then the teacher's answers lie in a folder beside it, so that
the same command continues. The sealed test is inside the fence and nowhere else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rung.errors import DataError, NoGain, TaskError
from rung.ladder.checking import CheckedData, check_task, refuse
from rung.ladder.opening import token_price
from rung.records import write_json, write_lines
from rung.runs import held
from rung.types import Model, Request, Tell

if TYPE_CHECKING:
    from rung.models.metering import Metered
    from rung.teaching.synthesis import Counts, Kind, Synthesis, SynthesisOptions
    from rung.trials.workshop import Workshop

Say = Callable[[str], None]

ROWS = 500
PLAN, PURSE = "plan.json", "purse.json"
_SAMPLED = 16  # train rows by which tokens are estimated
_LEAST_ROOM = 16  # tokens of an answer


@dataclass(frozen=True)
class SynthOptions:
    """What may be chosen. rows: that are wanted. out: the file; None: synthetic.jsonl beside the task. kinds: of rows;
    empty: all that the task can have. seed: another one writes other rows; None: the task's. bar: the least score of
    the teacher on known rows; None: 0.6. usd: the most that may be spent, all commands together; None: no limit.
    force: an output that is there is replaced.
    """

    rows: int = ROWS
    out: Path | None = None
    kinds: tuple[str, ...] = ()
    seed: int | None = None
    bar: float | None = None
    usd: float | None = None
    force: bool = False


@dataclass(frozen=True)
class SynthPlan:
    """What will be asked of the teacher at most: requests, and tokens as they are estimated with the longest of the
    prompts that are compared. usd: None without a price.

    wanted: kind -> rows. limit_usd: the most that may be spent; None: no limit.
    """

    teacher: str
    wanted: Mapping[str, int]
    calls: int
    tokens_in: int
    tokens_out: int
    usd: float | None
    limit_usd: float | None = None

    @property
    def lines(self) -> list[str]:
        """For a screen."""
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in self.wanted.items() if n)
        price = "no price is known of it" if self.usd is None else f"up to about {self.usd:.2f} USD"
        limit = self.limit_usd
        tight = limit is not None and self.usd is not None and self.usd > limit
        more = f" --usd {limit:g} may not suffice; the same command with more then continues." if tight else ""
        return [
            f"Rows that are wanted: {sum(self.wanted.values()):,} ({kinds}).",
            f"{self.teacher} will be asked at most {self.calls:,} times: up to about {self.tokens_in:,} tokens in and "
            f"{self.tokens_out:,} out, {price}. It is less where a short prompt serves.{more}",
        ]


@dataclass(frozen=True)
class Prepared:
    """A synthesis that is ready to begin. `write` does it; nothing was asked yet."""

    plan: SynthPlan
    out: Path
    folder: Path
    _teacher: Metered
    _workshop: Callable[[Tell], Workshop]
    _counts: Counts
    _options: SynthesisOptions

    def write(self, tell: Tell) -> Synthesis:
        """Asks the teacher, or goes on where an earlier command stopped, and writes the rows as JSON lines.

        Raises NoGain where the teacher is below the bar, BudgetSpent, ModelError; DataError where no row is left;
        RunError where another command works in the same folder, or nothing can be written there.
        """
        with held(self.folder):
            found = self._found(tell)
            if not found.rows:
                reasons = ", ".join(f"{n} {reason}" for reason, n in Counter(found.rejected).most_common())
                why = reasons or "nothing was written"
                raise DataError(f"{self.plan.teacher} wrote no row that can be used ({why}). Name a stronger teacher.")
            write_lines(self.out, (row.record for row in found.rows))
        return found

    def _found(self, tell: Tell) -> Synthesis:
        from rung.models.purse import Purse
        from rung.teaching.synthesis import synthesise

        workshop = self._workshop(tell)
        write_json(self.folder / PLAN, asdict(self.plan))
        purse = Purse(self.folder / PURSE, self.plan.limit_usd)
        if self._teacher.price is not None:
            self._teacher.use_purse(purse)
        try:
            found = synthesise(workshop, self._counts, self._options)
            # Answers that a command paid for and was interrupted before it noted them stand in the rows with no cost.
            return replace(found, usd=max(found.usd, purse.spent))
        except NoGain as weak:
            raise NoGain(f"{weak}. Name a stronger teacher, or lower the bar with --bar.") from None
        finally:
            purse.close()


def prepare(task_path: Path, options: SynthOptions, say: Say) -> Prepared:
    """Reads and splits the task, opens its teacher, and plans. Asks the teacher nothing.

    Raises TaskError, DataError or ModelError for what the user can correct.
    """
    from rung.teaching.synthesis import BAR, SynthesisOptions

    checked = check_task(task_path, say, beside=False)  # what it writes may be one of these files
    refuse(checked, strict=False)
    out = (options.out or checked.task.path.parent / "synthetic.jsonl").absolute()
    _check_options(checked, options, out)
    teacher = _teacher(checked, say)
    folder = out.with_name(f"{out.stem}.work")
    counts = _counts(checked, options)
    seed = checked.task.seed if options.seed is None else options.seed

    def workshop(tell: Tell) -> Workshop:
        return _workshop(checked, teacher, folder, tell)

    plan = replace(_plan(workshop(lambda what, share: None), counts, seed), limit_usd=options.usd)
    if options.usd is not None and plan.usd is None:
        raise TaskError(
            "--usd limits dollars, but no price of the teacher is known. Add price: to teacher: in task.yaml."
        )
    chosen = SynthesisOptions(bar=BAR if options.bar is None else options.bar, seed=seed)
    return Prepared(plan, out, folder, teacher, workshop, counts, chosen)


def _check_options(checked: CheckedData, options: SynthOptions, out: Path) -> None:
    from rung.teaching.synthesis import KINDS, MOST_ROWS

    task = checked.task
    if task.teacher is None:
        raise TaskError(
            f"{task.path}: the task has no teacher. Write teacher: {{endpoint: https://host/v1, name: …}}, a folder or "
            "a GGUF file: a model that is stronger than those of the task."
        )
    if not 1 <= options.rows <= MOST_ROWS:
        raise TaskError(f"--n {options.rows}: write a number of rows from 1 to {MOST_ROWS:,}.")
    for kind in options.kinds:
        if kind not in KINDS:
            raise TaskError(f"--kind {kind}: there is no such kind. The kinds are {', '.join(KINDS)}.")
        if kind in ("document", "unanswerable") and not checked.documents:
            raise TaskError(f"--kind {kind}: the task has no corpus to ask questions about. Add corpus: to task.yaml.")
        if kind == "unanswerable" and task.abstain is None:
            raise TaskError("--kind unanswerable: write abstain: in task.yaml, the answer where documents hold none.")
    if out.suffix.lower() not in (".jsonl", ".ndjson"):
        raise DataError(f"{out}: rows are written as JSONL. Give it a name that ends in .jsonl.")
    own = (*task.example_files, *task.unlabelled, *task.preferences, *task.judged, task.path)
    if out.resolve() in {path.resolve() for path in own}:
        raise DataError(f"{out}: the task reads it for something else. Name another file with --out.")
    if out.exists() and not options.force:
        raise DataError(f"{out}: is there already, with its reviews. Use --force to replace it, or --out for another.")


def _counts(checked: CheckedData, options: SynthOptions) -> Counts:
    from rung.data.constraint import form_in_words
    from rung.teaching.synthesis import KINDS, counts_of, kinds_for

    assert checked.split is not None
    task, train = checked.task, checked.split.train
    documents = bool(checked.documents)
    every = kinds_for(documents=documents, abstains=documents and task.abstain is not None)
    kinds: tuple[Kind, ...] = tuple(k for k in KINDS if k in options.kinds) or every
    return counts_of(options.rows, kinds, len(train), forms=form_in_words(task, train) is not None)


def _teacher(checked: CheckedData, say: Say) -> Metered:
    from rung.models import metered, open_model

    spec = checked.task.teacher
    assert spec is not None
    return metered(open_model(spec.spec, engine=checked.task.engine, say=say), price=token_price(spec.price))


def _workshop(checked: CheckedData, teacher: Model, folder: Path, tell: Tell) -> Workshop:
    """A workshop without dev: nothing in it is chosen on dev, and nobody is shown it."""
    from rung.cache import cache_folder
    from rung.data.fence import fence_of
    from rung.data.lengths import of_usual_length
    from rung.evaluation.scorer import Scorer
    from rung.models.speed import count_error
    from rung.retrieval.library import Library
    from rung.trials.trial import InOrder
    from rung.trials.workshop import Inputs, Limits, Tools, Workshop
    from rung.types import Decoding

    split, task = checked.split, checked.task
    assert split is not None
    inputs = Inputs(
        task=task,
        train=split.train,
        dev=(),
        constraint=checked.constraint,
        library=Library(checked.documents, count_tokens=teacher.count_tokens, folder=cache_folder() / "indexes"),
        groups=split.groups,
        fence=fence_of(checked.read.examples, split),
    )
    longest = max(teacher.count_tokens(e.output) for e in of_usual_length(split.train)) + 1
    room = min(round(longest * count_error(teacher) * 1.25) + 4, teacher.context_length)
    decoding = Decoding(max(_LEAST_ROOM, room), seed=task.seed, keep_space=task.whitespace == "counts")
    tools = Tools(teacher, Scorer(checked.read.metric), InOrder(), tell, teacher=teacher)
    return Workshop(inputs, tools, Limits(), folder, decoding)


def _plan(workshop: Workshop, counts: Counts, seed: int) -> SynthPlan:
    """Tokens are counted on a few requests of each sort, with the dearest of the prompts that are compared."""
    from rung.models.speed import thought_tokens
    from rung.solutions.answer import requests_for
    from rung.teaching.answering import VOTES
    from rung.teaching.synthesis.counts import WRITTEN
    from rung.teaching.synthesis.drafts import samples_of_requests
    from rung.teaching.synthesis.knowing import held_rows, settings

    teacher, train = workshop.tools.model, workshop.inputs.train
    asking = settings(workshop, held_rows(workshop, counts))
    some = [e.query for e in train[:_SAMPLED]]
    each = [
        _mean_tokens(requests_for(s, teacher, some, retriever=workshop.retriever_of(s))[0], teacher) for s in asking
    ]
    writing = samples_of_requests(workshop.inputs, teacher, counts, seed)
    answer = sum(teacher.count_tokens(e.output) + 1 for e in train[:_SAMPLED]) / len(some) + thought_tokens(teacher)
    asked = sum(teacher.count_tokens(e.input) + 4 for e in train[:_SAMPLED]) / len(some)
    known, voted = VOTES * counts.known, VOTES * counts.voted
    tokens_in = known * sum(each) + voted * max(each) + counts.written * _mean_tokens(writing, teacher)
    drafts = sum(counts.writings(kind) * WRITTEN[kind] for kind in counts.wanted)
    tokens_out = (counts.measured + voted) * answer + drafts * asked + counts.written * thought_tokens(teacher)
    usd = teacher.price.tokens_usd(tokens_in, tokens_out) if teacher.price is not None else None
    wanted = {str(kind): rows for kind, rows in counts.wanted.items()}
    return SynthPlan(teacher.name, wanted, counts.calls, round(tokens_in), round(tokens_out), usd)


def _mean_tokens(requests: list[Request], model: Model) -> float:
    return sum(model.count_tokens(m.content) for r in requests for m in r.messages) / max(1, len(requests))
