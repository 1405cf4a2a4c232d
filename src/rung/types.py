"""The nouns. Frozen values that travel between the rooms, and the protocols where users plug in.

Knows nothing about disks, models or numbers libraries: importing it costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NoReturn, Protocol

from rung.errors import SealedTestError

Family = Literal["prompt", "rag", "fine-tune", "rag+fine-tune"]
Choice = Literal["prompt", "rag", "fine-tune", "rag+fine-tune", "none", "undecided"]
ConstraintKind = Literal["labels", "json_schema", "regex"]
SetName = Literal["train", "dev", "test"]

FAMILIES: tuple[Family, ...] = ("prompt", "rag", "fine-tune", "rag+fine-tune")
"""Cheapest first: what it takes to build, run and change."""


# ---- what the user brings -------------------------------------------------------------------


@dataclass(frozen=True)
class Example:
    """One input with its accepted answers.

    id: unique within the task. output: the answer to learn from. references: all accepted answers,
    `output` among them. group: examples of one group stay in one set. context: text that belongs to
    the input. gold_ids: ids of the passages that hold the answer. row: where it stood, for messages
    ("examples.jsonl, line 7").
    """

    id: str
    input: str
    output: str
    references: tuple[str, ...]
    group: str | None = None
    context: str | None = None
    gold_ids: tuple[str, ...] = ()
    row: str = ""

    @property
    def query(self) -> Query:
        """What a solution may see of it: everything but the answers."""
        return Query(self.id, self.input, self.context)


@dataclass(frozen=True)
class Query:
    """An input to answer, without its answers."""

    id: str
    input: str
    context: str | None = None


@dataclass(frozen=True)
class Document:
    """One document or passage of the corpus."""

    id: str
    text: str
    title: str | None = None


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
    """

    usd_per_hour: float | None = None
    usd_per_million_in: float | None = None
    usd_per_million_out: float | None = None
    usd_per_million_cached: float | None = None


@dataclass(frozen=True)
class Task:
    """task.yaml as resolved: absolute paths, every default filled in.

    examples: one or more files, or a mapping of set names to files where the user made the split.
    fields: names of the columns that hold input, output, …, where they differ from the standard ones.
    schema: the parsed JSON Schema, not its path. pattern: a regular expression that answers match.
    """

    name: str
    path: Path
    instruction: str
    examples: tuple[Path, ...] | Mapping[SetName, tuple[Path, ...]]
    metric: str
    model: str
    labels: tuple[str, ...] | None = None
    schema: Mapping[str, object] | None = None
    pattern: str | None = None
    corpus: Path | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    target: float | None = None
    budget: Budget = Budget()
    price: Price | None = None
    seed: int = 0


@dataclass(frozen=True)
class Finding:
    """What a data check found in one row (or in the whole, with row "")."""

    check: str
    severity: Literal["error", "warning", "note"]
    row: str
    message: str
    ids: tuple[str, ...] = ()


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
    """Train and dev to build with, and the sealed test. groups: example id -> the group it was kept with."""

    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: SealedTest
    groups: Mapping[str, str]


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


@dataclass(frozen=True)
class RetrieverSpec:
    """How passages are found. kind: bm25. k: at most so many passages; token_budget: at most so many tokens of them."""

    kind: Literal["bm25"]
    k: int
    token_budget: int


@dataclass(frozen=True)
class Constraint:
    """What an answer may look like. value: labels (a sequence), a JSON Schema (a mapping) or a pattern (a string)."""

    kind: ConstraintKind
    value: tuple[str, ...] | Mapping[str, object] | str


@dataclass(frozen=True)
class Decoding:
    """temperature 0 is greedy. max_new_tokens bounds the answer."""

    max_new_tokens: int
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Solution:
    """Everything that can answer an input, as data. adapter: a PEFT folder (absolute path in memory,
    relative to the solution's folder on disk)."""

    name: str
    instruction: str
    decoding: Decoding
    demos: tuple[Demo, ...] = ()
    demo_selection: DemoSelection | None = None
    retriever: RetrieverSpec | None = None
    adapter: str | None = None
    constraint: Constraint | None = None

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
    """One chat turn."""

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
    """One answer. error: why there is none (text is then empty); it scores as a failure and is counted."""

    text: str
    tokens_in: int
    tokens_out: int
    latency_s: float
    finish: Literal["stop", "length", "error"] = "stop"
    error: str | None = None


class Model(Protocol):
    """Messages in, text and usage out; knows nothing of tasks and metrics.

    `generate` returns one Generation per request, in order, and never raises for one bad request.
    The same requests in the same order give the same texts.
    """

    name: str

    def generate(self, requests: Sequence[Request]) -> list[Generation]: ...

    def count_tokens(self, text: str) -> int: ...


class Retriever(Protocol):
    """Ranked passages for queries, best first, at most k each; ties broken by position in the corpus."""

    def search(self, queries: Sequence[str], k: int) -> list[list[Document]]: ...


# ---- what comes out -------------------------------------------------------------------------

Metric = Callable[[str, Sequence[str]], float]
"""(prediction, accepted answers) -> score in [0, 1], higher is better. Never raises for one bad prediction."""


@dataclass(frozen=True)
class Prediction:
    """A solution's answer to one example. score is None until it is scored."""

    id: str
    text: str
    tokens_in: int
    tokens_out: int
    latency_s: float
    passages: tuple[str, ...] = ()
    error: str | None = None
    score: float | None = None


@dataclass(frozen=True)
class Score:
    """A mean with its 95 % interval over n examples."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Comparison:
    """score(b) - score(a) on the same examples, with its 95 % interval. p_corrected: after Holm."""

    a: str
    b: str
    set: SetName
    difference: float
    low: float
    high: float
    p: float
    p_corrected: float
    n: int


@dataclass(frozen=True)
class Candidate:
    """A solution with what it scored and costs. Tokens are means per request.

    tokens_cached: of the input tokens, those that all requests begin with. Latencies are of one request at a time,
    None where they were not measured; cost_per_1k_usd is None without a price.
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


@dataclass(frozen=True)
class Diagnosis:
    """A cause and the share of wrong answers it explains.

    evidence: the experiment that says so, in a few words. mended: whether that experiment mended them; otherwise
    nothing did, and the cause is what is left by elimination.
    """

    cause: str
    share: float
    low: float
    high: float
    evidence: str = ""
    mended: bool = True


@dataclass(frozen=True)
class BreakEven:
    """From how many requests on `dear_to_build` is the cheaper of two, its building paid for; 95 % interval.

    saving_per_1k_usd: what it saves on 1,000 requests. high is None where the saving itself may be nothing.
    """

    dear_to_build: str
    dear_to_run: str
    saving_per_1k_usd: float
    requests: float
    low: float
    high: float | None


@dataclass(frozen=True)
class Decision:
    """The verdict, as decision.json holds it. solution: the candidate to ship, also meanwhile while undecided.

    frontier: tested candidates that no other beats in score without costing more.
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
