"""The models of a run: opened, counted, and paid for.

Those that the task compares, and the teacher and the judge, which help to build or to score and are no candidates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rung.errors import OutOfMemory, TaskError
from rung.ladder.ledger import Spent
from rung.ladder.options import Listener
from rung.runs import Files
from rung.types import Constraint, Model, ModelSpec, Price, Task, Trainable

if TYPE_CHECKING:
    from rung.models.metering import Metered
    from rung.models.purse import Purse


@dataclass(frozen=True)
class Opened:
    """The models of a run.

    models: as they were opened, by their names in the task. counted: the same, metered. helpers: "teacher" and "judge",
    metered; one that is compared, too, is the very model that is counted there.
    """

    models: Mapping[str, Model]
    counted: Mapping[str, Metered]
    helpers: Mapping[str, Metered]

    @property
    def everybody(self) -> tuple[Metered, ...]:
        """All of them, each once, whatever it does."""
        return tuple(dict.fromkeys((*self.counted.values(), *self.helpers.values())))


def helpers_of(task: Task) -> dict[str, ModelSpec]:
    """The models that are not compared, by what they do: "teacher" and "judge"."""
    judge = task.judge.model if task.judge is not None else None
    return {role: spec for role, spec in (("teacher", task.teacher), ("judge", judge)) if spec is not None}


def open_models(task: Task, constraint: Constraint | None, listener: Listener) -> Opened:
    """The models, each tried on the constraint, and the teacher and the judge, each counted.

    What is to be known of a model is said. One that is named twice is opened, and counted, once.
    Raises ModelError for a key that an endpoint refuses, though answers and speed of earlier calls are kept.
    """
    from rung.models import open_model, remark_of, remark_on_cards

    opened: dict[str, tuple[str, Model]] = {}  # spec -> its name, and what was opened

    def one(spec: ModelSpec, compared: bool) -> Model:
        if spec.spec in opened:
            return opened[spec.spec][1]
        try:
            model = open_model(spec.spec, engine=task.engine, say=listener.say)
            if (reach := getattr(model, "reach", None)) is not None:
                reach()
        except OutOfMemory as full:
            if not opened:
                raise
            raise OutOfMemory(
                f"{full} All models of a task are loaded at once, and {', '.join(name for name, _ in opened.values())} "
                "came before this one. Serve one of them from an endpoint, or compare fewer in one run."
            ) from full
        opened[spec.spec] = spec.name, model
        if compared and constraint is not None:
            model.check(constraint)
        if compared and (remark := remark_of(model)) is not None:
            listener.say(remark)
        return model

    models = {spec.name: one(spec, compared=True) for spec in task.models}
    helpers = {role: one(spec, compared=False) for role, spec in helpers_of(task).items()}
    said = (remark_on_cards(model, spec) for spec, (_, model) in opened.items())
    for remark in dict.fromkeys(line for line in said if line is not None):
        listener.say(remark)
    return count_models(task, models, helpers)


def count_models(task: Task, models: Mapping[str, Model], helpers: Mapping[str, Model]) -> Opened:
    """Models that are open already, counted. models: by name; helpers: by what they do."""
    from rung.models.metering import metered

    counted: dict[int, Metered] = {}

    def one(spec: ModelSpec, model: Model) -> Metered:
        if id(model) not in counted:
            counted[id(model)] = metered(model, price=token_price(spec.price))
        found = counted[id(model)]
        found.price = found.price or token_price(spec.price)  # it may stand where the model is named again
        return found

    compared = {spec.name: one(spec, models[spec.name]) for spec in task.models}
    helping = {role: one(spec, helpers[role]) for role, spec in helpers_of(task).items()}
    return Opened(dict(models), compared, helping)


def check_prices(task: Task, opened: Opened) -> None:
    """Raises TaskError where a budget in dollars could not be kept, because a model that is paid for has no price."""
    if task.budget.usd is None:
        return
    asked = [(spec.name, spec, opened.counted[spec.name]) for spec in task.models]
    asked += [(f"the {role}, {spec.name}", spec, opened.helpers[role]) for role, spec in helpers_of(task).items()]
    priced = {model for _, spec, model in asked if spec.price is not None or model.price is not None}
    names = [name for name, _, model in asked if model not in priced and not isinstance(model, Trainable)]
    if unpriced := list(dict.fromkeys(names)):
        raise TaskError(
            f"the budget is in dollars, but no price is known of {', '.join(unpriced)}. Add price: "
            "{usd_per_million_in: …, usd_per_million_out: …} to it in task.yaml."
        )
    if not priced:
        raise TaskError(
            "the budget is in dollars, but no model has a price, so dollars cannot be counted. Add price: to task.yaml."
        )


def purse_of(files: Files, task: Task, opened: Opened, before: Spent) -> Purse | None:
    """What dollars for tokens come from, handed to the models; None where nothing is paid by the token."""
    from rung.models.purse import Purse

    models = opened.everybody
    if all(model.price is None for model in models):
        return None
    purse = Purse(files.purse, task.budget.usd, before.usd)
    for model in models:
        model.use_purse(purse)
    return purse


@contextmanager
def closed_on_error(purse: Purse | None) -> Iterator[None]:
    """Within: what raises closes the purse, so that its file keeps no more than was spent."""
    try:
        yield
    except BaseException:
        if purse is not None:
            purse.close()
        raise


def hourly_usd(task: Task) -> float:
    """Dollars an hour of the machine: the dearest that a model of the task names; 0 where none does."""
    named = (*task.models, *helpers_of(task).values())
    return max((spec.price.usd_per_hour or 0.0 for spec in named if spec.price is not None), default=0.0)


def token_price(price: Price | None) -> Price | None:
    """Prices of tokens; the hours of a machine are counted by the ledger."""
    return price if price is not None and price.usd_per_hour is None else None
