"""Rows made from phrases, for what the packaged demos lack: clear labels, and answers in sentences."""

from __future__ import annotations

import random
from typing import Any

Row = dict[str, Any]

KINDS: dict[str, tuple[tuple[str, ...], str]] = {
    "refund": (
        ("my money back", "a refund", "the amount that I paid", "the fare of a cancelled trip"),
        "We pay it back within five days. You get a message when it is on its way.",
    ),
    "lost_item": (
        ("a bag that I left on board", "my umbrella", "a lost suitcase", "the keys that I forgot on the seat"),
        "Please call the office of lost things. They keep everything for thirty days.",
    ),
    "timetable": (
        ("the first boat on sundays", "the winter timetable", "when the last boat leaves", "departures on holidays"),
        "The timetable hangs at every landing. You find it on our page as well.",
    ),
    "bicycle": (
        ("bringing my bicycle", "a place for two bikes", "the charge for a tandem", "a bicycle with a trailer"),
        "Bicycles travel on the lower deck. Please be there ten minutes early.",
    ),
    "group_booking": (
        ("a class of thirty pupils", "a reservation for a wedding party", "seats for our club", "a boat for ourselves"),
        "Groups of ten or more write to us two weeks ahead. We then keep seats for them.",
    ),
    "accessibility": (
        ("a ramp for a wheelchair", "help with stepping on board", "a seat near the door", "a place for a guide dog"),
        "The crew helps with boarding at every landing. Just tell them when you arrive.",
    ),
    "app_problem": (
        (
            "the app that crashes at login",
            "a code that never arrives",
            "the screen that stays white",
            "my locked account",
        ),
        "Please install the newest version. If that does not help, we reset the account.",
    ),
    "complaint": (
        ("a rude conductor", "the dirt on the benches", "the noise of the engine", "a delay of two hours"),
        "We are sorry about that. We pass it on to the people in charge.",
    ),
}
FRAMES = (
    "Hello, I write about {}.",
    "I have a question about {}, please.",
    "Who can tell me something about {}?",
    "Twice already have I asked about {}!",
    "It is about {} again",
    "Could somebody look into {}",
    "Nobody at the landing knew anything of {}.",
    "Would you kindly explain the rules for {}?",
)
ASIDES = (
    "My sister travels with me",
    "We came from the north shore",
    "It rained all morning",
    "The crew was friendly, as always",
    "I paid by card at the counter",
    "There was a long queue behind me",
    "My train leaves at seven",
    "I am over seventy and alone",
    "The children were tired and hungry",
    "A neighbour gave me this address",
    "I could not reach anybody by telephone",
    "We plan to return in spring",
    "The heron on the pier watched us",
    "I saw your poster in the library",
    "This happened near the old mill",
    "Our guests arrive from abroad",
)
PEOPLE = ("Amara", "Bjorn", "Chiara", "Dmitri", "Esra", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Kenji", "Lena")
ROWS, MOST_ALIKE = 240, 0.5


def made(name: str) -> tuple[dict[str, Any], list[Row]]:
    """(keys of task.yaml, rows) of "intents", whose answers are labels, or "replies", whose answers are sentences.

    No two rows share half of their words or more, so that none is a near-duplicate of another.
    """
    rng = random.Random(name)
    rows: list[Row] = []
    words: list[set[str]] = []
    while len(rows) < ROWS:
        label = list(KINDS)[len(rows) % len(KINDS)]
        subjects, reply = KINDS[label]
        text = " ".join([rng.choice(FRAMES).format(rng.choice(subjects)), *(f"{a}." for a in rng.sample(ASIDES, 2))])
        own = set(text.casefold().split())
        if any(len(own & other) >= MOST_ALIKE * len(own | other) for other in words):
            continue
        words.append(own)
        output = label if name == "intents" else f"Dear {rng.choice(PEOPLE)}, thank you for writing. {reply}"
        rows.append({"id": f"row-{len(rows)}", "input": text, "output": output})
    keys: dict[str, Any] = {"name": name, "instruction": "Answer the customer.", "model": "smollm2-135m-instruct"}
    return keys | ({"labels": list(KINDS)} if name == "intents" else {}), rows


MADE = ("intents", "replies")
