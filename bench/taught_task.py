"""A task on which a teacher helps, for the bench and the tests of what a teacher does: no model computes anything.

An input names a thing among other words; the right answer is the thing's colour. The pupil knows a third of the things.
Another third it answers in a sentence, unless its instruction says the secret words. It knows any thing that a worked
example in its prompt shows; and, under an adapter, whatever colour the rows said that it was trained on, be it wrong.
So better words help it, rows about more things help it, wrong rows harm it, and each can be seen.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rung.testing import FakeTrainable, ScriptedTeacher
from rung.types import Request

COLOURS = ("red", "green", "blue")
_FIRST, _SECOND = "bar cam dol fen gul hem jor kip lun mox", "ta ro ni vex dal gor"
_OTHER = (
    "after again always before behind below between bright clean cold corner crowd early empty evening far few first "
    "garden glass good great half heavy here high hour just kitchen large last late left light little long many "
    "market maybe morning near never new next night often old once other over people place quick quiet rain right "
    "river road room same shop short side slow small soft some soon square still stone street strong summer table "
    "tall there thick thin third today under until upper warm water week well white wide window winter wood yard "
    "young"
)
THINGS = tuple(a + b for a in _FIRST.split() for b in _SECOND.split())
WORDS = _OTHER.split()
INSTRUCTION = "Say the colour of the thing."
SECRET = "one bare word"
INSTRUCTIONS = (
    f"Say the colour of the thing that is named, as {SECRET}.",
    "Say the colour that comes to your mind first.",
)
RULES = (f"An answer is {SECRET}.", "The thing is named among other words.")


def thing_in(text: str) -> str | None:
    words = set(text.split())
    return next((thing for thing in THINGS if thing in words), None)


def colour_of(text: str) -> str:
    """The right answer to an input, and to any change of it that leaves the thing's name."""
    thing = thing_in(text.lower())
    return COLOURS[THINGS.index(thing) % 3] if thing is not None else "none"


def input_about(chance: random.Random, thing: str) -> str:
    words = chance.sample(WORDS, 9)
    return " ".join([*words[:4], "the", thing, *words[4:]])


def rows_of(count: int, seed: int, things: Sequence[str] = THINGS) -> list[dict[str, str]]:
    """Examples about these things, in turn."""
    chance = random.Random(seed)
    texts = [input_about(chance, things[i % len(things)]) for i in range(count)]
    return [{"id": f"{seed}-{i}", "input": text, "output": colour_of(text)} for i, text in enumerate(texts)]


# ---- the pupil ----------------------------------------------------------------------------------


class Pupil(FakeTrainable):
    """The model that is taught. What it learns from a row holds for all inputs about the row's thing."""

    def __init__(self, name: str) -> None:
        super().__init__(without_training, name=name, version="1")

    def _answer(self, request: Request) -> str | Exception:
        thing = thing_in(request.messages[-1].content)
        if request.adapter is not None and thing is not None:
            table = self._adapter(request.adapter)["table"]
            said = [answer for asked, answer in table.items() if thing_in(asked) == thing]
            if said:
                return max(sorted(set(said)), key=said.count)
        return super()._answer(request)


def without_training(request: Request) -> str:
    """What it answers from its instruction and its demos."""
    thing = thing_in(request.messages[-1].content)
    if thing is None:
        return "none"
    place = THINGS.index(thing)
    pairs = zip(request.messages, request.messages[1:], strict=False)
    shown = any(m.role == "user" and n.role == "assistant" and thing_in(m.content) == thing for m, n in pairs)
    if shown or place // 3 % 3 == 0:
        return COLOURS[place % 3]
    if place // 3 % 3 == 1:
        terse = SECRET in request.messages[0].content
        return COLOURS[place % 3] if terse else f"The colour of it is {COLOURS[place % 3]}."
    return COLOURS[(place + 1) % 3]


def register() -> Callable[[], None]:
    """Makes `model: pupil:NAME` known. Returns what takes it back."""
    import rung
    from rung.models import OPENERS

    before = OPENERS.copy()
    rung.register_model("pupil:", lambda spec, say: Pupil(spec))

    def back() -> None:
        OPENERS[:] = before

    return back


# ---- the teacher and the task -------------------------------------------------------------------


def makes(chance: random.Random, wanted: str | None) -> tuple[str, str]:
    """A new input, and its right answer."""
    things = [t for i, t in enumerate(THINGS) if wanted is None or COLOURS[i % 3] == wanted]
    text = input_about(chance, chance.choice(things))
    return text, colour_of(text)


def rewords(chance: random.Random, text: str) -> str:
    return input_about(chance, thing_in(text.lower()) or THINGS[0])


def teacher_of(folder: Path, **more: Any) -> ScriptedTeacher:
    """A teacher that knows every input of the task in the folder. more: as ScriptedTeacher takes it."""
    rows = [
        json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text("utf-8").splitlines()
    ]
    known = {row["input"]: colour_of(row["input"]) for row in rows if "input" in row}
    return ScriptedTeacher(known, makes, rewords, labels=COLOURS, instructions=INSTRUCTIONS, rules=RULES, **more)


def write(folder: Path, *, train: int = 48, dev: int = 60, test: int = 60, unlabelled: int = 0, **keys: Any) -> Path:
    """Writes the task and returns task.yaml. Train knows half of the things; dev, test and unlabelled all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    half = THINGS[::2]
    sets = {"train": rows_of(train, 1, half), "dev": rows_of(dev, 2), "test": rows_of(test, 3)}
    for name, rows in sets.items():
        write_lines(folder / f"{name}.jsonl", rows)
    if unlabelled:
        inputs = [{"id": row["id"], "input": row["input"]} for row in rows_of(unlabelled, 4)]
        write_lines(folder / "unlabelled.jsonl", inputs)
        keys["unlabelled"] = "unlabelled.jsonl"
    own = {
        "instruction": INSTRUCTION,
        "examples": {name: f"{name}.jsonl" for name in sets},
        "metric": "label_accuracy",
        "labels": list(COLOURS),
        "model": "pupil:one",
    }
    (folder / "task.yaml").write_text(json.dumps({**own, **keys}, indent=1) + "\n", "utf-8")  # JSON is YAML
    return folder / "task.yaml"


def rewrite(folder: Path, **keys: Any) -> Path:
    """The task with other keys; None takes one out."""
    own = {**json.loads((folder / "task.yaml").read_text("utf-8")), **keys}
    kept = {key: value for key, value in own.items() if value is not None}
    (folder / "task.yaml").write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    return folder / "task.yaml"


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
