"""The registry of strategies: one record each. Plan, ladder, decision and help texts read it and name no strategy.

A strategy is a function from a Workshop to the best Solution of its kind that it can build, choosing on dev. None of
them can reach the test set: it is not in the workshop. Which one to try, and when to stop, is the ladder's business.
A new strategy is one function and one call of `register_strategy`, from inside the package or from outside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from rung.types import FAMILIES, Family, Price

Need = Literal[
    "corpus",
    "trainable",
    "constraint",
    "teacher",
    "unlabelled",
    "synthetic",
    "preferences",
    "trainable by pairs",
    "proposer",
    "instruction search",
]
"""What a task, a model or this machine must have. synthetic: a teacher, or synthetic rows that were reviewed. trainable
by pairs: of answers, of which one is preferred. proposer: a teacher, or a model that can write instructions itself.
instruction search: the library that drives it."""


@dataclass(frozen=True)
class Texts:
    """Token counts of a task, per example unless said otherwise: what the costs of strategies are computed from.

    own: of a prompt behind its instruction. answer: of a right answer. room: an answer may have. instruction: of the
    task. forms: of the answer's form in words (labels, schema or pattern), 0 without. passage: of one passage.
    train, dev, screen: numbers of examples. training_tokens: what one training may put through the network. thought:
    that the model writes before an answer, at most, where it cannot be asked not to think; with an adapter it does not.
    unlabelled, preferences, synthetic: numbers of such rows. rewrites, judges: the model may write what passages are
    searched with; it may order them.
    """

    own: float
    answer: float
    room: int
    instruction: float
    forms: float
    passage: float
    train: int
    dev: int
    screen: int
    training_tokens: int
    thought: int = 0
    unlabelled: int = 0
    preferences: int = 0
    synthetic: int = 0
    rewrites: bool = False
    judges: bool = False


@dataclass(frozen=True)
class Cost:
    """What building and answering dev is expected to take. calls: answers. Tokens read, written and trained on.

    sent: tokens of all prompts as an endpoint charges them, where `read` counts a shared prefix once a block.
    """

    calls: int = 0
    read: float = 0.0
    written: float = 0.0
    trained: float = 0.0
    sent: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.calls + other.calls,
            self.read + other.read,
            self.written + other.written,
            self.trained + other.trained,
            self.sent + other.sent,
        )

    def usd(self, price: Price | None) -> float:
        """Dollars for these tokens; 0 without a price of tokens. No prompt is taken to be in a provider's cache."""
        return price.tokens_usd(self.sent, self.written) if price is not None else 0.0

    @property
    def tokens(self) -> int:
        return int(self.read + self.written + self.trained)


@dataclass(frozen=True)
class Strategy:
    """A way to build a solution.

    name: in files, on the command line and in tables. family: the rung of the ladder. needs: what a task or a model
    must have. about: one line for help texts. cost: of building it and answering dev. build: Workshop -> Solution.
    cheap: it is tried before retrieval, whatever it costs to find out. repair: (Workshop, Solution) -> Solution, which
    trains the built one on so that it keeps general skills. repair_cost: of that, dev included. pilot: (Workshop,
    number of examples) -> Solution, a short training that is an experiment. asked_for: it is tried only where it is
    named. learns: what it builds depends on the train examples, so that it is built again when these change.

    taught: of that cost, what the teacher is asked (the model itself where the task has no teacher); `cost` leaves it
    out. cures: causes of wrong answers that it can fix; where they are named, it is tried after the diagnosis, and only
    where these causes hold enough of what fails. imitates: it learns the teacher's answers, and is tried only where the
    teacher is ahead. proves: it has to show its gain on dev over the best of its family that was built before it
    (`dev_answers.unproven` in the ladder). grows: how many rows it adds to train; None: as many as train has. replaces:
    a family whose best it has learnt from; it is a candidate only where dev shows it no further below that than the
    margin. Functions may be named as "module:attribute", so that nothing loads early.
    """

    name: str
    family: Family
    about: str
    cost: Callable[[Texts], Cost] | str
    build: Callable[..., Any] | str
    needs: frozenset[Need] = frozenset()
    cheap: bool = False
    repair: Callable[..., Any] | str | None = None
    repair_cost: Callable[[Texts], Cost] | str | None = None
    pilot: Callable[..., Any] | str | None = None
    asked_for: bool = False
    learns: bool = True
    taught: Callable[[Texts], Cost] | str | None = None
    cures: frozenset[str] = frozenset()
    imitates: bool = False
    proves: bool = False
    grows: Callable[[Texts], int] | str | None = None
    replaces: Family | None = None


REPAIRED = "{}_replay"
"""Name of a solution that was trained on so that it keeps general skills."""

SHORTENED = "{}_short"
"""Name of a fine-tuned solution whose prompt was shortened to what it has not learnt."""

STRATEGIES: dict[str, Strategy] = {}
"""Name -> strategy, in the order in which the ladder has them: cheapest family first."""


def register_strategy(strategy: Strategy) -> None:
    """Adds a strategy, behind the others of its family. One of the same name is replaced."""
    STRATEGIES.pop(strategy.name, None)
    STRATEGIES[strategy.name] = strategy
    ordered = sorted(STRATEGIES.values(), key=lambda s: FAMILIES.index(s.family))  # stable
    STRATEGIES.clear()
    STRATEGIES.update({s.name: s for s in ordered})


def strategy_of(kind: str) -> Strategy | None:
    """The strategy that a solution comes from, repaired and shortened ones too: lora of lora_replay_short."""
    while kind not in STRATEGIES:
        before = begun_from(kind)
        if before is None:
            return None
        kind = before
    return STRATEGIES[kind]


def long_form(name: str) -> str | None:
    """The candidate whose prompt the one of that name shortens; None where it shortens none."""
    kind, at, model = name.partition("@")
    long = _before(kind, SHORTENED)
    return f"{long}{at}{model}" if long else None


def begun_from(name: str) -> str | None:
    """The candidate that the one of that name was made from, by a repair or a shorter prompt; None where from none."""
    kind, at, model = name.partition("@")
    before = _before(kind, SHORTENED) or _before(kind, REPAIRED)
    return f"{before}{at}{model}" if before else None


def _before(kind: str, pattern: str) -> str | None:
    before = kind.removesuffix(pattern.format(""))
    return before if before != kind and kind not in STRATEGIES else None


def function_of(where: Callable[..., Any] | str) -> Callable[..., Any]:
    """The function itself, imported now if it is named."""
    if not isinstance(where, str):
        return where
    module, _, attribute = where.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), attribute)
    return found


_HERE = "rung.strategies"

for _strategy in (
    Strategy(
        "zero_shot",
        "prompt",
        "the instruction alone, with or without the answer's form in words",
        f"{_HERE}.prompting:cost_of_zero_shot",
        f"{_HERE}.prompting:zero_shot",
        cheap=True,
        learns=False,
    ),
    Strategy(
        "constrained",
        "prompt",
        "the same, and answers that cannot leave the labels, schema or pattern",
        f"{_HERE}.prompting:cost_of_constrained",
        f"{_HERE}.prompting:constrained",
        needs=frozenset({"constraint"}),
        cheap=True,
        learns=False,
    ),
    Strategy(
        "few_shot",
        "prompt",
        "worked examples in the prompt, fixed or nearest to the input",
        f"{_HERE}.prompting:cost_of_few_shot",
        f"{_HERE}.prompting:few_shot",
    ),
    Strategy(
        "stated_rules",
        "prompt",
        "the best prompt with house rules that were induced from the train examples",
        f"{_HERE}.searching:cost_of_stated_rules",
        f"{_HERE}.searching:stated_rules",
        needs=frozenset({"proposer"}),
        taught=f"{_HERE}.searching:taught_stated_rules",
        cures=frozenset({"convention", "format"}),
        proves=True,
    ),
    Strategy(
        "optimised_prompt",
        "prompt",
        "the best prompt with an instruction that a search rewrote from wrong answers to train examples",
        f"{_HERE}.searching:cost_of_optimised_prompt",
        f"{_HERE}.searching:optimised_prompt",
        needs=frozenset({"instruction search", "proposer"}),
        taught=f"{_HERE}.searching:taught_optimised_prompt",
        cures=frozenset({"format", "convention"}),
        proves=True,
    ),
    Strategy(
        "rag",
        "rag",
        "passages that are found for the input, in the prompt",
        f"{_HERE}.retrieving:cost_of_rag",
        f"{_HERE}.retrieving:rag",
        needs=frozenset({"corpus"}),
    ),
    Strategy(
        "lora",
        "fine-tune",
        "a LoRA adapter trained on the train examples",
        f"{_HERE}.fine_tuning:cost_of_lora",
        f"{_HERE}.fine_tuning:lora",
        needs=frozenset({"trainable"}),
        repair=f"{_HERE}.replay:replayed",
        repair_cost=f"{_HERE}.fine_tuning:cost_of_lora_repair",
        pilot=f"{_HERE}.fine_tuning:pilot",
    ),
    Strategy(
        "synth_lora",
        "fine-tune",
        "a LoRA adapter trained on train and on synthetic rows, which a teacher wrote",
        f"{_HERE}.synthesising:cost_of_synth_lora",
        f"{_HERE}.synthesising:synth_lora",
        needs=frozenset({"trainable", "synthetic"}),
        repair=f"{_HERE}.replay:replayed",
        repair_cost=f"{_HERE}.fine_tuning:cost_of_lora_repair",
        taught=f"{_HERE}.synthesising:taught_of_synth_lora",
        grows=f"{_HERE}.synthesising:rows_of_synth_lora",
        imitates=True,
        proves=True,
    ),
    Strategy(
        "distilled_lora",
        "fine-tune",
        "a LoRA adapter trained on train and on the teacher's answers to unlabelled inputs",
        f"{_HERE}.distilling:cost_of_distilled_lora",
        f"{_HERE}.distilling:distilled_lora",
        needs=frozenset({"trainable", "teacher", "unlabelled"}),
        repair=f"{_HERE}.replay:replayed",
        repair_cost=f"{_HERE}.fine_tuning:cost_of_lora_repair",
        taught=f"{_HERE}.distilling:taught_of_distilled_lora",
        grows=f"{_HERE}.distilling:rows_of_distilled_lora",
        imitates=True,
        proves=True,
    ),
    Strategy(
        "rag_distilled",
        "fine-tune",
        "a LoRA adapter that learns what retrieval answers to unlabelled inputs, without passages; off unless named",
        f"{_HERE}.distilling:cost_of_rag_distilled",
        f"{_HERE}.distilling:rag_distilled",
        needs=frozenset({"corpus", "trainable", "unlabelled"}),
        repair=f"{_HERE}.replay:replayed",
        repair_cost=f"{_HERE}.fine_tuning:cost_of_lora_repair",
        asked_for=True,
        proves=True,
        replaces="rag",
    ),
    Strategy(
        "dpo",
        "fine-tune",
        "the best fine-tuned solution trained on with pairs of answers, of which one is preferred",
        f"{_HERE}.preferring:cost_of_dpo",
        f"{_HERE}.preferring:dpo",
        needs=frozenset({"trainable", "preferences", "trainable by pairs"}),
        proves=True,
    ),
    Strategy(
        "full",
        "fine-tune",
        "all weights of the model trained on the train examples; off unless it is named",
        f"{_HERE}.fine_tuning:cost_of_full",
        f"{_HERE}.fine_tuning:full",
        needs=frozenset({"trainable"}),
        repair=f"{_HERE}.replay:replayed",
        repair_cost=f"{_HERE}.fine_tuning:cost_of_full_repair",
        asked_for=True,
    ),
    Strategy(
        "rag_lora",
        "rag+fine-tune",
        "a LoRA adapter trained to read retrieved passages",
        f"{_HERE}.fine_tuning:cost_of_rag_lora",
        f"{_HERE}.fine_tuning:rag_lora",
        needs=frozenset({"corpus", "trainable"}),
        repair=f"{_HERE}.replay:replayed",
        repair_cost=f"{_HERE}.fine_tuning:cost_of_rag_lora_repair",
    ),
):
    register_strategy(_strategy)
