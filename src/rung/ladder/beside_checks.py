"""What `rung check` says of the files beside the examples, of a budget in dollars and of the engine: what `rung run`
would stop at, and what nothing would use. No model is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rung.errors import DataError, ModelError
from rung.ladder.opening import helpers_of
from rung.types import Example, Finding, ModelSpec, Split, Task

if TYPE_CHECKING:
    from rung.data.fence import Fence

Say = Callable[[str], None]


def findings_beside(task: Task, examples: tuple[Example, ...], split: Split, say: Say) -> tuple[Finding, ...]:
    """Errors of the files beside the examples, as `rung run` raises them. say: hears what was read."""
    from rung.data.fence import fence_of

    fence = fence_of(examples, split)
    found = [finding for read in _readers(task, examples, fence, say) for finding in _faults(read)]
    return (*found, *_unused(task), *_unpriced(task), *_without_vllm(task))


def _readers(task: Task, examples: tuple[Example, ...], fence: Fence, say: Say) -> Iterator[Callable[[], object]]:
    """One call for each key that names files."""
    from rung.data.beside.preferences import read_preferences
    from rung.data.beside.synthetic import read_synthetic
    from rung.data.beside.unlabelled import read_unlabelled
    from rung.data.judged import read_judged

    if task.unlabelled:
        yield lambda: read_unlabelled(task, fence, say)
    if task.synthetic:
        yield lambda: read_synthetic(task, fence, say)
    if task.preferences:
        yield lambda: read_preferences(task, fence, say)
    if task.judged:
        yield lambda: say(f"judged: {len(read_judged(task, examples)):,} answers that people scored.")


def _faults(read: Callable[[], object]) -> list[Finding]:
    """What reading raises, a finding for each row that it names."""
    try:
        read()
    except DataError as error:
        first, *rows = str(error).splitlines()
        if not rows:
            return [Finding("beside", "error", "", first)]
        return [_of_row(line.strip()) for line in rows]
    return []


def _of_row(line: str) -> Finding:
    row, _, fault = line.partition(": ")
    if not fault:  # it counts the rows that are not named
        return Finding("beside", "error", "", f"{line}.")
    return Finding("beside", "error", row, f"{fault.removesuffix('.')}.")


def _unused(task: Task) -> Iterator[Finding]:
    if task.unlabelled and task.teacher is None:
        yield Finding(
            "unused_file",
            "warning",
            "",
            "unlabelled: is not used: the task has no teacher that could answer these inputs. Name one under teacher:, "
            "or delete unlabelled: from task.yaml.",
        )


def _unpriced(task: Task) -> Iterator[Finding]:
    """Models behind an endpoint whose price nobody says, beside a budget in dollars."""
    if task.budget.usd is None:
        return
    named = [(spec.name, spec) for spec in task.models]
    named += [(f"the {role}, {spec.name}", spec) for role, spec in helpers_of(task).items()]
    priced = {spec.spec for _, spec in named if spec.price is not None or not _lacks_price(spec)}
    names = [name for name, spec in named if spec.spec not in priced]
    if names:
        yield Finding(
            "unpriced",
            "error",
            "",
            f"the budget is in dollars, but no price is known of {', '.join(names)}. Add price: "
            "{usd_per_million_in: …, usd_per_million_out: …} to it in task.yaml.",
        )


def _without_vllm(task: Task) -> Iterator[Finding]:
    """vLLM where it is to answer and is not installed. It is not started: memory and drivers are not tried."""
    if task.engine != "vllm":
        return
    from rung.models import vllm_may_answer
    from rung.models.vllm.process import version_of_vllm

    if not any(vllm_may_answer(spec.spec) for spec in (*task.models, *helpers_of(task).values())):
        return
    try:
        version_of_vllm()
    except ModelError as error:
        yield Finding("without_vllm", "error", "", f"engine: {error}")


def _lacks_price(spec: ModelSpec) -> bool:
    """Whether it is an endpoint, and no list of prices knows the model."""
    from rung.models.endpoint.prices import price_of
    from rung.models.endpoint.spec import parse

    if not spec.spec.lstrip().startswith("{"):
        return False
    try:
        endpoint = parse(spec.spec)
    except ModelError:  # a run says what is wrong with it
        return False
    return endpoint.is_loopback or price_of(endpoint.endpoint, endpoint.name) is None
