"""The nouns. Frozen values that travel between the rooms, and the protocols where users plug in.

Knows nothing about disks, models or numbers libraries: importing it costs next to nothing.
Long because it is the vocabulary of the whole package: one place to look a noun up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn, Protocol, runtime_checkable

from rung.errors import SealedTestError

Family = Literal["baseline", "prompt", "rag", "fine-tune", "rag+fine-tune"]
Choice = Literal["prompt", "rag", "fine-tune", "rag+fine-tune", "none", "undecided", "unfinished"]
ConstraintKind = Literal["labels", "json_schema", "regex"]
SetName = Literal["train", "dev", "test"]
Topic = Literal["decided", "teacher", "judge", "checks", "costs", "not tried"]
"""What a reason of the verdict is about."""

Whitespace = Literal["counts", "folded"]
AnswersBy = Literal["local", "vllm"]
"""What computes the answers of models on this machine: rung's engine, or vLLM. Training is rung's in any case."""
SearchedWith = Literal["input", "conversation", "rewritten"]
Tell = Callable[[str, float], None]
"""(what is being done, share done in [0, 1]). Raises BudgetSpent when the work must end."""

FAMILIES: tuple[Family, ...] = ("prompt", "rag", "fine-tune", "rag+fine-tune")
"""The families that use a language model, cheapest first: what it takes to build, run and change.

A "baseline" uses none. It is scored and compared like the others, but it is never the choice.
"""


# ---- what the user brings -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Example:
    """One input with its accepted answers.

    id: unique within the task. output: the answer to learn from. references: all accepted answers,
    `output` among them. group: examples of one group stay in one set. context: text that belongs to
    the input. gold_ids: ids of the passages that hold the answer. row: where it stood, for messages
    ("examples.jsonl, line 7"). instruction: what this row asks for, where rows ask for different things; the
    instruction of the task is then the preface. turns: of a conversation, those before the input, oldest first.
    gold_found: gold_ids were found by a search for the answer's words, and say nothing of how good a search is.
    """

    id: str
    input: str
    output: str
    references: tuple[str, ...]
    group: str | None = None
    context: str | None = None
    gold_ids: tuple[str, ...] = ()
    row: str = ""
    instruction: str | None = None
    turns: tuple[Message, ...] = ()
    gold_found: bool = False

    @property
    def query(self) -> Query:
        """What a solution may see of it: everything but the answers."""
        return Query(self.id, self.input, self.context, self.instruction, self.turns)


@dataclass(frozen=True, slots=True)
class Query:
    """An input to answer, without its answers."""

    id: str
    input: str
    context: str | None = None
    instruction: str | None = None
    turns: tuple[Message, ...] = ()

    @property
    def asked(self) -> str:
        """The last thing that the model is asked, as it reads it: instruction of the row, context, input."""
        if self.context is None and self.instruction is None:
            return self.input
        return "\n\n".join(part for part in (self.instruction, self.context, self.input) if part)

    @property
    def text(self) -> str:
        """All that the model reads of it, in one text: what is asked, in a conversation each turn under its role."""
        if not self.turns:
            return self.asked
        return "\n".join(f"{turn.role}: {turn.content}" for turn in (*self.turns, Message("user", self.asked)))

    def answered(self, output: str, *, row: str = "") -> Example:
        """The example with this input and that answer; its `query` is this one."""
        return Example(
            self.id,
            self.input,
            output,
            (output,),
            context=self.context,
            row=row,
            instruction=self.instruction,
            turns=self.turns,
        )


@dataclass(frozen=True)
class Document:
    """One document or passage of the corpus.

    Pages of a document are parted by form feeds. title: of a passage, with the headings that it stands under
    ("Handbook › Leave › Sick leave"). markdown: lines that begin with # are headings, lines of pipes are tables. page:
    that a passage begins on, from 1; None where the document has no pages. source: where a reader finds it, where its
    id does not say so. last_page: that it ends on, where that is another one.
    """

    id: str
    text: str
    title: str | None = None
    markdown: bool = False
    page: int | None = None
    source: str | None = None
    last_page: int | None = None


@dataclass(frozen=True, slots=True)
class Preference:
    """Two answers to one input, of which a person prefers one. row: where it stood, for messages."""

    query: Query
    chosen: str
    rejected: str
    row: str = ""


@dataclass(frozen=True)
class Budget:
    """What a run may spend: minutes, answers asked of the model, dollars. None: no limit that the user set."""

    minutes: float | None = None
    calls: int | None = None
    usd: float | None = None


@dataclass(frozen=True)
class Price:
    """What computing costs: a machine by the hour, or tokens by the million. None: not given.

    usd_per_million_cached: of input tokens that the requests begin with alike; None: as other input tokens.
    usd_per_million_cache_written: of input tokens that a provider keeps for later ones; None: as other input tokens.
    """

    usd_per_hour: float | None = None
    usd_per_million_in: float | None = None
    usd_per_million_out: float | None = None
    usd_per_million_cached: float | None = None
    usd_per_million_cache_written: float | None = None

    def tokens_usd(
        self, tokens_in: float, tokens_out: float, tokens_cached: float = 0, tokens_cache_written: float = 0
    ) -> float:
        """Dollars for tokens; those without a price count 0. The cached and the cache-written ones are of tokens_in."""
        fresh = self.usd_per_million_in or 0.0
        cached, written = self.usd_per_million_cached, self.usd_per_million_cache_written
        usd = (tokens_in - tokens_cached - tokens_cache_written) * fresh
        usd += tokens_cached * (fresh if cached is None else cached)
        usd += tokens_cache_written * (fresh if written is None else written)
        return (usd + tokens_out * (self.usd_per_million_out or 0.0)) / 1e6


@dataclass(frozen=True)
class ModelSpec:
    """A model of a task.

    name: short, unique in the task, and fit for a folder's name; candidates are called by it. spec: what
    `rung.models.open_model` takes; it holds no secret. price: as the task gives it.
    """

    name: str
    spec: str
    price: Price | None = None


JudgeMode = Literal["graded", "pairwise"]


@dataclass(frozen=True)
class JudgeSpec:
    """A model that scores answers, for `metric: judge`.

    rubric: what a good answer is, in words. mode: each answer is graded by itself, or set beside the reference.
    samples: gradings of each answer, whose mean is its score. fallback: the metric that counts where the judge does not
    agree with people.
    """

    model: ModelSpec
    rubric: str
    mode: JudgeMode = "graded"
    samples: int = 1
    fallback: str = "token_f1"

    @property
    def calls_each(self) -> int:
        """Requests for the score of one answer; one whose reply cannot be read is asked once more."""
        return self.samples * (2 if self.mode == "pairwise" else 1)


@dataclass(frozen=True)
class SearchKeys:
    """How passages may be found, as the task says it; what it leaves open is tried.

    kinds: of index; empty: all that are here. embedders, rerankers: by name; empty: what is installed, and none. stem:
    a language; None: recognised; empty: none. tokens: sizes of passages; empty: a few. rewrite: whether the model may
    write what is searched with; None: tried where the input is a conversation.
    """

    kinds: tuple[str, ...] = ()
    embedders: tuple[str, ...] = ()
    rerankers: tuple[str, ...] = ()
    stem: str | None = None
    tokens: tuple[int, ...] = ()
    rewrite: bool | None = None


@dataclass(frozen=True)
class Task:
    """task.yaml as resolved: absolute paths, every default filled in.

    examples: one or more files, or a mapping of set names to files where the user made the split.
    fields: names of the columns that hold input, output, …, where they differ from the standard ones.
    schema: the parsed JSON Schema, not its path. pattern: a regular expression that answers match. fields may name
    several columns for input (joined under their names) and for output (one column for each label).
    shape: how rows become examples, by its name in `rung.data.shapes`; None: recognised. multi_label: an answer is a
    JSON array of labels. whitespace: whether the space inside answers counts; None: as the answers of train show.
    unordered: the order of lists in JSON answers does not count. tolerance: of numbers, as a share of the right one.
    train_size: so many examples of train are picked; None: all. empty_answers: an answer may be empty.
    ignore: checks whose warnings and notes are not told.
    label_notes: label -> one line that says what it means, where task.yaml gives one. models: at least one, cheapest
    first. concurrency: requests that will be in flight at once when the winner serves; latency is measured so.
    teacher: a stronger model, which proposes instructions and writes and answers examples. judge: what `metric: judge`
    asks. judged: answers that people scored, to hold the judge against. unlabelled: inputs without answers, for the
    teacher. synthetic: rows that were written by a model and reviewed, which only train. preferences: pairs of answers,
    chosen and rejected. repeats: how often a candidate near the top answers each test input, to see whether it is
    right every time; 0: once. abstain: the answer that is right where the documents do not hold one. cite: answers name
    the passages that they rest on. retrieval: how passages may be found. license: of the data, in the hub's words; None
    where the task does not say it. engine: what computes the answers of models on this machine.
    """

    name: str
    path: Path
    instruction: str
    examples: tuple[Path, ...] | Mapping[SetName, tuple[Path, ...]]
    metric: str
    models: tuple[ModelSpec, ...]
    labels: tuple[str, ...] | None = None
    label_notes: Mapping[str, str] = field(default_factory=dict)
    schema: Mapping[str, object] | None = None
    pattern: str | None = None
    corpus: Path | None = None
    fields: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    shape: str | None = None
    multi_label: bool = False
    whitespace: Whitespace | None = None
    unordered: bool = False
    tolerance: float | None = None
    train_size: int | None = None
    empty_answers: bool = False
    ignore: tuple[str, ...] = ()
    target: float | None = None
    budget: Budget = Budget()
    concurrency: int = 1
    seed: int = 0
    teacher: ModelSpec | None = None
    judge: JudgeSpec | None = None
    judged: tuple[Path, ...] = ()
    unlabelled: tuple[Path, ...] = ()
    synthetic: tuple[Path, ...] = ()
    preferences: tuple[Path, ...] = ()
    repeats: int = 0
    abstain: str | None = None
    cite: bool = False
    retrieval: SearchKeys = SearchKeys()
    license: str | None = None
    engine: AnswersBy = "local"

    @property
    def example_files(self) -> tuple[Path, ...]:
        """All files of examples, in order; where the user made the split, set by set."""
        if isinstance(self.examples, tuple):
            return self.examples
        return tuple(path for paths in self.examples.values() for path in paths)


@dataclass(frozen=True)
class Finding:
    """What a data check found in one row (or in the whole, with row ""). count: so many findings it stands for."""

    check: str
    severity: Literal["error", "warning", "note"]
    row: str
    message: str
    ids: tuple[str, ...] = ()
    count: int = 1


# ---- the split and its seal -----------------------------------------------------------------


class SealedTest:
    """The test examples, sealed: their number and ids can be seen, nothing else.

    Only `rung.evaluation.sealed.open_test` breaks the seal, and it logs that before it returns.
    Iterating, indexing, printing and pickling reveal nothing; a test pins who imports the opener.
    """

    __slots__ = ("__examples", "ids")

    def __init__(self, examples: Sequence[Example]) -> None:
        self.__examples = tuple(examples)
        self.ids: tuple[str, ...] = tuple(e.id for e in examples)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"SealedTest({len(self)} examples)"

    def __iter__(self) -> Iterator[NoReturn]:
        raise SealedTestError("the test set is sealed: only the final evaluation opens it, once")

    def __getitem__(self, index: object) -> NoReturn:
        raise SealedTestError("the test set is sealed: only the final evaluation opens it, once")

    def __reduce__(self) -> NoReturn:
        raise SealedTestError("the test set is sealed and cannot be copied out")

    def __getstate__(self) -> NoReturn:
        raise SealedTestError("the test set is sealed and cannot be copied out")


@dataclass(frozen=True)
class Split:
    """Train and dev to build with, and the sealed test.

    groups: example id -> the group it was kept with. capped: set that was cut to its cap -> examples before.
    unused: ids in no set, because the user put them in a set that was cut. test_digests: test id -> digest of its
    input and context, by which a later run knows it again. row_digests: id -> digest of all that the row says.
    """

    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: SealedTest
    groups: Mapping[str, str]
    capped: Mapping[SetName, int] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    test_digests: Mapping[str, str] = field(default_factory=dict)
    row_digests: Mapping[str, str] = field(default_factory=dict)


# ---- a Solution is data ---------------------------------------------------------------------


@dataclass(frozen=True)
class Demo:
    """One worked example inside a prompt."""

    input: str
    output: str


@dataclass(frozen=True)
class DemoSelection:
    """Which demos a prompt shows. fixed: all of them, in order. nearest: the k most similar to the input (BM25)."""

    kind: Literal["fixed", "nearest"]
    k: int


THE_MODEL = "model"
"""Name of the reranker that is the model which answers."""


@dataclass(frozen=True)
class RetrieverSpec:
    """How passages are cut, found and shown.

    kind: a name in `rung.retrieval.INDEXES`. k: at most so many passages. token_budget: at most so many tokens of them.
    tokens: of the model, that a passage has at most; 0: about `retrieval.chunk.MAX_WORDS` words. overlap: tokens that a
    passage repeats of the one before it. stem: the language whose endings a lexical search leaves out; empty: none.
    embedder: of a dense search, by its name in `rung.retrieval.embedders`. reranker: what orders the first hits anew:
    "model" (the one that answers), or the name of a cross-encoder; empty: nothing. query: what is searched with: the
    input, the whole conversation, or what the model makes of it. fenced: passages stand between marks, and the prompt
    says that they are data.
    """

    kind: str
    k: int
    token_budget: int
    tokens: int = 0
    overlap: int = 0
    stem: str = ""
    embedder: str = ""
    reranker: str = ""
    query: SearchedWith = "input"
    fenced: bool = False

    @property
    def cross_encoder(self) -> str:
        """The reranker where an index has it; empty where there is none, or the model orders the hits."""
        return "" if self.reranker == THE_MODEL else self.reranker


@dataclass(frozen=True)
class Constraint:
    """What an answer may look like. value: labels (a sequence), a JSON Schema (a mapping) or a pattern (a string)."""

    kind: ConstraintKind
    value: tuple[str, ...] | Mapping[str, object] | str


@dataclass(frozen=True)
class Decoding:
    """temperature 0 is greedy. max_new_tokens bounds the answer. keep_space: the space it begins with is part of it."""

    max_new_tokens: int
    temperature: float = 0.0
    seed: int = 0
    keep_space: bool = False


@dataclass(frozen=True)
class Solution:
    """Everything that can answer an input, as data.

    adapter: a PEFT folder (absolute path in memory, relative to the solution's folder on disk). model: the name of the
    task's model that answers; empty where an older version of rung wrote the record. cite: the answer names the
    passages that it rests on, by their numbers.
    """

    name: str
    instruction: str
    decoding: Decoding
    demos: tuple[Demo, ...] = ()
    demo_selection: DemoSelection | None = None
    retriever: RetrieverSpec | None = None
    adapter: str | None = None
    constraint: Constraint | None = None
    model: str = ""
    cite: bool = False

    @property
    def family(self) -> Family:
        """The rung of the ladder it stands on; which fields are filled decides."""
        if self.adapter is not None:
            return "rag+fine-tune" if self.retriever is not None else "fine-tune"
        return "rag" if self.retriever is not None else "prompt"


# ---- models ---------------------------------------------------------------------------------

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One chat turn. A system turn without text says that there is no instruction, not even a chat template's own."""

    role: Role
    content: str


@dataclass(frozen=True)
class Request:
    """One thing to answer: chat turns, and how. adapter: a PEFT folder or None for the base model."""

    messages: tuple[Message, ...]
    decoding: Decoding
    constraint: Constraint | None = None
    adapter: str | None = None


@dataclass(frozen=True)
class Generation:
    """One answer.

    error: why there is none (text is then empty), or how it breaks its constraint (its text stays); it scores as a
    failure and is counted. tokens_cached: of tokens_in, those that the provider read from its cache. first_token_s:
    seconds to the first token, where the answer was streamed. usd: what this answer was charged, 0 for one that was
    kept from an earlier call; None: its tokens at the model's price.
    """

    text: str
    tokens_in: int
    tokens_out: int
    latency_s: float
    finish: Literal["stop", "length", "error"] = "stop"
    error: str | None = None
    tokens_cached: int = 0
    first_token_s: float | None = None
    usd: float | None = None


@dataclass(frozen=True)
class TrainingRow:
    """One example to train on: chat turns that end where the answer begins, and the answer. name: for messages."""

    name: str
    messages: tuple[Message, ...]
    answer: str


@dataclass(frozen=True)
class PreferenceRow:
    """Two answers to one prompt to train on: chat turns that end where the answers begin. name: for messages."""

    name: str
    messages: tuple[Message, ...]
    chosen: str
    rejected: str


@dataclass(frozen=True)
class DPO:
    """How pairs of answers are learnt from, by direct preference optimisation.

    beta: how dear it is to leave the reference. sft: weight of the loss of the chosen answers beside it.
    """

    beta: float = 0.1
    sft: float = 1.0


@dataclass(frozen=True)
class TrainingOptions:
    """How to train a LoRA adapter, or all weights.

    rank, alpha: of the update B A x alpha / rank, on all linear layers but the output layer.
    rslora: alpha / sqrt(rank) instead. dora: directions and lengths apart, by PEFT's own, slower layers.
    layers: the share of the decoder's layers that get an adapter, from the top; the gradient stops below them.
    steps: optimiser steps the learning-rate schedule is made for (warm-up, then linear to zero).
    batch_size: examples a step. micro_tokens: at most so many own tokens go through the network at once.
    full: all weights are trained and there is no adapter, so that what describes one means nothing.
    """

    learning_rate: float
    steps: int
    batch_size: int = 8
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    rslora: bool = False
    dora: bool = False
    layers: float = 1.0
    warmup_share: float = 0.06
    max_grad_norm: float = 1.0
    weight_decay: float = 0.0
    micro_tokens: int = 1024
    seed: int = 0
    full: bool = False


@dataclass(frozen=True)
class Progress:
    """How far a training has come. loss: mean per target token over the last step; tokens: computed so far."""

    step: int
    steps: int
    loss: float
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Speed:
    """Tokens per second of a model on this machine: prompt tokens read, answer tokens written, tokens trained on."""

    read: float
    write: float
    train: float


class Model(Protocol):
    """Messages in, text and usage out; knows nothing of tasks and metrics.

    - version: changes whenever the answers may change; equal wherever the same weights are.
    - context_length: tokens of prompt and answer together.
    - price: what computing costs with it, None where the task says it or nobody knows.
    - `generate` returns one Generation per request, in order, and never raises for one bad request. The same requests
      in the same order give the same texts. What ends in ModelError concerns all requests.
    - `check` raises ConstraintError when the model cannot be held to the constraint.
    """

    name: str
    version: str
    context_length: int
    price: Price | None

    def generate(self, requests: Sequence[Request]) -> list[Generation]: ...

    def count_tokens(self, text: str) -> int: ...

    def check(self, constraint: Constraint) -> None: ...


@runtime_checkable
class Trainable(Model, Protocol):
    """A model that adapters can be trained for.

    - `train` trains up to step `until` (None: all steps of the options) and returns the adapter's folder, inside
      `folder`. It continues from the newest checkpoint in `folder`, as if it had never stopped. start: an adapter
      folder whose weights are the first ones. on_step is called after every step; what it raises ends the training,
      after a checkpoint. Raises TrainingError; Diverged when the loss stops being a number.
    - `too_long` names the rows that do not fit the context whole; `train` and `loss` take none of these.
    - `loss` is the mean loss per answer token, end token included. adapter None: the base model.
    - `release` frees an adapter's memory; a folder rewritten on disk is then read afresh.
    """

    def train(
        self,
        rows: Sequence[TrainingRow],
        options: TrainingOptions,
        folder: Path,
        *,
        until: int | None = None,
        start: Path | None = None,
        on_step: Callable[[Progress], None] = ...,
    ) -> Path: ...

    def too_long(self, rows: Sequence[TrainingRow]) -> list[TrainingRow]: ...

    def loss(self, rows: Sequence[TrainingRow], adapter: Path | None) -> float: ...

    def release(self, adapter: Path) -> None: ...


@runtime_checkable
class Preferring(Trainable, Protocol):
    """A Trainable that also learns from pairs of answers, of which one is preferred.

    - `prefer` is as `train`, with rows of pairs and how they are learnt from. What the adapter in `start` (None: the
      base model) says of the answers is the reference, which is computed once and kept in `folder`. on_step hears of
      step 0 while that is computed. batch_size counts pairs. No answer may be longer than fits, as in `too_long`.
    """

    def prefer(
        self,
        rows: Sequence[PreferenceRow],
        options: TrainingOptions,
        folder: Path,
        *,
        how: DPO,
        until: int | None = None,
        start: Path | None = None,
        on_step: Callable[[Progress], None] = ...,
    ) -> Path: ...


@runtime_checkable
class Measured(Protocol):
    """What a model may know of its own computing; `rung.models` estimates it for any other.

    computed_tokens: put through the network so far, a shared prefix once, a trained token twice. `speed` is timed on
    this machine. `answers_key` names the model and the arithmetic: equal keys give equal answers. `describe`: hardware
    and versions, for the record.
    """

    answers_key: str

    @property
    def computed_tokens(self) -> int: ...

    def speed(self) -> Speed: ...

    def describe(self) -> dict[str, Any]: ...


class Retriever(Protocol):
    """Ranked passages for queries, best first, at most k each; ties broken by position in the corpus."""

    def search(self, queries: Sequence[Query], k: int) -> list[list[Document]]: ...


# ---- what comes out -------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """An answer to score: what was asked, the text that came, and the accepted answers."""

    query: Query
    text: str
    references: tuple[str, ...]


@dataclass(frozen=True)
class MetricInfo:
    """A metric, and what a run must know of it.

    score: answers in, one score in [0, 1] each out, in order; higher is better. A call that raises is made again for
    each answer alone, and one that raises by itself scores 0, is counted and shown.
    right_or_wrong: every score is 0 or 1. whole_answer: one wrong word makes an answer wrong.
    needs_judge: it asks a model.
    """

    name: str
    score: Callable[[Sequence[Answer]], Sequence[float]]
    right_or_wrong: bool = False
    whole_answer: bool = False
    needs_judge: bool = False


@dataclass(frozen=True)
class Outcome:
    """The score of one answer. error: why the metric could not score it (score is then 0)."""

    score: float
    error: str | None = None


@dataclass(frozen=True)
class Prediction:
    """A solution's answer to one example. score is None until it is scored.

    error: why the model gave no answer, or how its answer breaks its constraint. metric_error: why the metric could not
    score it. The score is then 0. finish: as of its Generation; "length" where there was no room for the rest.
    passages: ids of those that its prompt showed, best first. citations: ids of those that it names as its sources;
    text is then without them. bad_citations: numbers that it names and that no passage of its prompt has.
    """

    id: str
    text: str
    tokens_in: int
    tokens_out: int
    latency_s: float
    passages: tuple[str, ...] = ()
    error: str | None = None
    score: float | None = None
    metric_error: str | None = None
    tokens_cached: int = 0
    finish: Literal["stop", "length", "error"] = "stop"
    citations: tuple[str, ...] = ()
    bad_citations: int = 0


@dataclass(frozen=True)
class Score:
    """A mean with its 95 % interval over n examples."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Comparison:
    """score(b) - score(a) on the same examples, with an interval by the test that gives p.

    p_corrected: after Holm. level: the interval's confidence; 0.95 before Holm, afterwards the level at which the
    interval excludes zero exactly when p_corrected < 0.05. standard_error: of the difference, as observed.
    """

    a: str
    b: str
    set: SetName
    difference: float
    low: float
    high: float
    p: float
    p_corrected: float
    n: int
    level: float = 0.95
    standard_error: float = 0.0


@dataclass(frozen=True)
class Candidate:
    """A solution with what it scored and costs. Tokens are means per request.

    tokens_cached: of the input tokens, those that all requests begin with, or that an endpoint read from its cache.
    Latencies are those that a client sees with as many requests at once as the task names; first_token: until the
    first token of a streamed reply. None where they were not measured; cost_per_1k_usd is None without a price.
    build_seconds, build_usd: of a repaired candidate, with those of the one that it was trained on from. failed_calls:
    answers that the model did not give, or that break their constraint; unscored: answers that the metric could not
    score; both count as 0. unscored_why: why the metric could not score the first of them on dev. cut: why its building
    was stopped before its end, None where it was not. model: by its name in the task; empty for baselines.
    repeats: samples of each test input, 0 where there were none. pass_1, pass_k: share of test inputs that a sample
    answers right, and that all of `repeats` samples do.
    """

    name: str
    family: Family
    dev: Score
    test: Score | None
    tokens_in: float
    tokens_out: float
    latency_s_p50: float | None
    latency_s_p95: float | None
    cost_per_1k_usd: float | None
    build_seconds: float
    build_usd: float
    tokens_cached: float = 0.0
    failed_calls: int = 0
    unscored: int = 0
    unscored_why: str | None = None
    cut: str | None = None
    model: str = ""
    first_token_s_p50: float | None = None
    first_token_s_p95: float | None = None
    repeats: int = 0
    pass_1: Score | None = None
    pass_k: Score | None = None


def candidate_name(kind: str, model: str) -> str:
    """What a solution of a model is called in a run of several. kind: the strategy, or the repair of one."""
    return f"{kind}@{model}"


def kind_of(name: str) -> str:
    """The strategy, or the repair of one, that a candidate's name tells."""
    return name.partition("@")[0]


def model_of(name: str) -> str:
    """The model that a candidate's name tells; empty where it is called by its strategy alone."""
    return name.partition("@")[2]


SkipReason = Literal["plan", "gain", "target", "budget", "memory", "fault"]
"""plan: it does not apply. gain: it could not gain what matters. target: enough was reached. The others kept it out."""


@dataclass(frozen=True)
class Skipped:
    """A strategy that was not tried.

    why: a sentence part without a full stop. minutes: what it would have cost, where it was estimated. matters:
    whether it was kept from being tried although it could have changed the verdict. begun: it was under way when it
    was given up. model: the name of the task's model that it would have used.
    """

    name: str
    family: Family
    reason: SkipReason
    why: str
    minutes: float | None = None
    matters: bool = False
    begun: bool = False
    model: str = ""


@dataclass(frozen=True)
class LeftEarly:
    """A solution that is no candidate for the test: an interim look showed it behind on dev. Or, where it is unproven,
    dev does not show the gain that it had to prove."""

    name: str
    why: str
    unproven: bool = False


@dataclass(frozen=True)
class Diagnosis:
    """A cause and the share of wrong answers it explains.

    evidence: the experiment that says so, in a few words. fixed: whether that experiment fixed them; otherwise
    nothing did, and the cause is what is left by elimination.
    """

    cause: str
    share: float
    low: float
    high: float
    evidence: str = ""
    fixed: bool = True


@dataclass(frozen=True)
class SearchFailure:
    """A cause why a solution that retrieves is wrong, and what one experiment mends of it; see `diagnosis`.

    share: of its wrong answers on dev, with the 95 % interval; n of `wrong`. experiment: what was changed; empty where
    nothing was tried. tried, rescued: how many of them were asked again with that, and came out right. by_chance: so
    many came out right by the placebo. net: (rescued - by_chance) / tried, with its interval. right, broken: right
    answers that were asked again, and came out wrong; broken_by_chance: by the placebo.
    """

    solution: str
    cause: str
    share: float
    low: float
    high: float
    n: int
    wrong: int
    experiment: str = ""
    tried: int = 0
    rescued: int = 0
    by_chance: int = 0
    net: float = 0.0
    net_low: float = 0.0
    net_high: float = 0.0
    right: int = 0
    broken: int = 0
    broken_by_chance: int = 0


@dataclass(frozen=True)
class BreakEven:
    """Number of requests after which the fine-tuned candidate, build cost included, has cost less than the prompt.

    fine_tuned, prompt: names of the two candidates. saving_per_1k_usd: dollars that the fine-tuned one saves on 1,000
    requests. low, high: 95 % interval of `requests`; high is None where the saving itself may be zero.
    """

    fine_tuned: str
    prompt: str
    saving_per_1k_usd: float
    requests: float
    low: float
    high: float | None


@dataclass(frozen=True)
class Injected:
    """How often a finalist follows orders that were planted in what it reads, on dev.

    where: they stood in its passages, or behind the input where it reads none. fenced: its passages stand between
    marks. followed: share of the answers that do what is ordered. by_kind, by_place: (name, followed, asked), the most
    followed first; places are passages alone. right: the score of these answers; before: of the same rows without an
    order; None where a judge would have to be asked.
    """

    candidate: str
    where: Literal["passages", "input"]
    fenced: bool
    followed: Score
    by_kind: tuple[tuple[str, int, int], ...] = ()
    by_place: tuple[tuple[str, int, int], ...] = ()
    right: Score | None = None
    before: Score | None = None


@dataclass(frozen=True)
class Citing:
    """How a candidate names the sources of its answers to a set; answers that say that there is none do not count.

    cites: share of the answers that name anything. holds: of all that is named, the share of passages that hold an
    accepted answer or are marked; supports: of those that hold what was answered. A number that no passage has counts
    as named; bad: how many there are. None where nothing is named.
    """

    candidate: str
    set: SetName
    cites: Score
    holds: Score | None
    supports: Score | None
    bad: int


@dataclass(frozen=True)
class Refusing:
    """How often a candidate is wrong to answer, and wrong to refuse, on dev.

    given: the questions without an answer are rows of the task; else dev questions whose passages were taken out.
    made_up: share of these for which an answer is made up. refused: share of the answerable rows that get none; None
    where none were looked at.
    """

    candidate: str
    given: bool
    made_up: Score
    refused: Score | None


@dataclass(frozen=True)
class SearchWay:
    """A way to find passages, measured on train questions of which a passage that holds the answer is known.

    way: its name. stage: "way" (at the cutting that is tried first, or the best one), or "size" (sizes of passages).
    recall_1, recall_5, ndcg, mrr: see `evaluation.ranking`. shown: share of questions of which such a passage stands in
    a prompt. build_s: seconds until it could be searched. query_ms: a mean. chosen: the best solution that retrieves
    searches so. known: how these passages are known, and for how many questions none is; empty in older records.
    """

    way: str
    stage: Literal["way", "size"]
    n: int
    recall_1: Score
    recall_5: Score
    ndcg: Score
    mrr: Score
    shown: Score
    build_s: float
    query_ms: float
    chosen: bool = False
    known: str = ""


@dataclass(frozen=True)
class Decision:
    """The verdict, as decision.json holds it.

    solution: the candidate to ship, also meanwhile while undecided or unfinished; None where there is none.
    warnings: what a reader must not miss; they stand first and are never cut. reasons, next: in order of weight.
    comparisons: of finalists with each other and with the baselines. floor: the score of the best baseline that needs
    no data but the answers themselves. models: names of the models that were compared, cheapest first. skipped: every
    strategy that was not tried; those that matter are what an unfinished run lacks. test_reads: how often the sealed
    test was opened. break_even: with a price only. frontier: tested candidates that no other beats in score without
    costing more. reasons_about: what each reason is about, in their order; empty where an older version wrote them.
    searches: the ways to find passages as they were measured. searches_not_tried: sentences about the others.
    search_failures: why solutions that retrieve are wrong on dev, a row for each solution and cause. injections: of
    finalists that were asked with orders planted in what they read. citing: of candidates that name their sources, on
    dev and on the test. refusing: of finalists that were asked what cannot be answered.
    """

    choice: Choice
    solution: str | None
    headline: str
    reasons: tuple[str, ...]
    next: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    comparisons: tuple[Comparison, ...]
    diagnosis: tuple[Diagnosis, ...]
    minimum_detectable_difference: float
    test_reads: int
    break_even: tuple[BreakEven, ...] = ()
    frontier: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    left_early: tuple[LeftEarly, ...] = ()
    floor: float = 0.0
    n_dev: int = 0
    n_test: int = 0
    margin: float = 0.02
    models: tuple[str, ...] = ()
    reasons_about: tuple[Topic, ...] = ()
    search_failures: tuple[SearchFailure, ...] = ()
    searches: tuple[SearchWay, ...] = ()
    searches_not_tried: tuple[str, ...] = ()
    injections: tuple[Injected, ...] = ()
    citing: tuple[Citing, ...] = ()
    refusing: tuple[Refusing, ...] = ()
    format: int = 4
