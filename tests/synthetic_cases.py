"""A teacher that writes and answers from a table, for tests of synthetic rows. Things have a colour."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rung.data.fence import fence_of
from rung.teaching.synthesis.prompts import WRITER
from rung.testing import FakeModel
from rung.trials.workshop import Inputs, Tools, Workshop
from rung.types import Constraint, Example, Request, SealedTest, Split

COLOURS = ("red", "green", "blue")
THINGS = {"door": "red", "boat": "green", "lamp": "blue", "card": "red", "stone": "green", "chair": "blue"}
_WORDS = re.findall(
    r"\w+",
    "garden kitchen harbour winter market uncle yellow broken music school painter river copper velvet morning corner "
    "station forest village letter pocket window engine silver island dinner summer ticket bridge castle",
)

Answers = Callable[[str, Request], str]


def colour_of(text: str) -> str:
    thing = next((word for word in re.findall(r"\w+", text.lower())[::-1] if word in THINGS), "")
    return THINGS.get(thing, "red")


def new_text(seed: int, answer: str | None = None) -> str:
    """A sentence about a thing, other words for each seed."""
    rng = random.Random(f"{seed} {answer}")
    things = [thing for thing, colour in THINGS.items() if answer in (None, colour)]
    return f"{' '.join(rng.sample(_WORDS, 6))} {rng.choice(things)}"


def asked_of(request: Request) -> str:
    return request.messages[-1].content


def is_writing(request: Request) -> bool:
    return request.messages[0].content == WRITER


def written_by_table(request: Request) -> str:
    """As many new inputs as are asked for, with the answer that they are asked for."""
    asked, seed = asked_of(request), request.decoding.seed
    count = int(re.findall(r"(?:Write|in) (\d+) (?:new|other)", asked)[0])
    wanted = re.search(r"right answer is (\w+)\. They must", asked)
    if reworded := re.search(r"Input:\n(.*)\n\nWrite this input", asked, re.DOTALL):
        answer: str | None = colour_of(reworded[1])
    else:
        answer = wanted[1] if wanted else None
    return json.dumps({"inputs": [new_text(seed * 10 + i, answer) for i in range(count)]})


def scripted(
    answers: Answers = lambda text, request: colour_of(text),
    writes: Callable[[Request], str] = written_by_table,
    **more: Any,
) -> FakeModel:
    """answers: (the input, the request) -> the answer. writes: a request for new inputs -> the reply."""
    return FakeModel(
        lambda request: writes(request) if is_writing(request) else answers(asked_of(request), request),
        name="scripted",
        **more,
    )


def train_rows(count: int = 30) -> tuple[Example, ...]:
    things = list(THINGS)
    texts = [f"what about the {things[i % 6]} that {_WORDS[i]} and {_WORDS[-i]} made" for i in range(count)]
    return tuple(Example(f"e{i}", t, colour_of(t), (colour_of(t),)) for i, t in enumerate(texts))


def shop_of(teacher: FakeModel, folder: Path, **inputs: Any) -> Workshop:
    """A workshop of 30 train rows with three labels, inside a fence. inputs: what differs, of Inputs and of Task."""
    from rung.evaluation.metrics import METRICS
    from rung.evaluation.scorer import Scorer
    from rung.trials.trial import InOrder
    from rung.trials.workshop import Limits
    from rung.types import Decoding, ModelSpec, Task

    task = Task(
        "t",
        folder / "task.yaml",
        "Say the colour.",
        (),
        "label_accuracy",
        (ModelSpec("fake", "fake"),),
        labels=inputs.pop("labels", COLOURS),
        abstain=inputs.pop("abstain", None),
        teacher=ModelSpec("scripted", "scripted"),
    )
    train = inputs.pop("train", train_rows())
    sealed = inputs.pop("sealed", ())
    split = Split(tuple(train), (), SealedTest(sealed), {})
    constraint = Constraint("labels", task.labels) if task.labels else None
    found = Inputs(task, train, (), constraint, fence=fence_of((*train, *sealed), split), **inputs)
    metric = METRICS["label_accuracy" if task.labels else "exact_match"]
    tools = Tools(teacher, Scorer(metric), InOrder(), teacher=teacher)
    return Workshop(found, tools, Limits(), folder, Decoding(8))
