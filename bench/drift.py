"""How often `rung drift` cries drift without any, and how often it finds what is planted.

    python bench/drift.py [TASK …] [--times N] [--tested N] [--requests N] [--embedder NAME] [--json FILE]

Without TASK, on made messages of a shop: topics with words of their own, in sentences of varying length. A TASK is a
folder with a task.yaml whose answers are labels: tested inputs and requests are drawn from its rows, a new topic is a
label that no tested input has. Planted: a tenth of the requests of a new topic; a tenth in another language; all twice
as long; a tenth with a new label as answer. Prints for each the share of the files in which drift is shown, beside
requests drawn like the tested inputs ("nothing").
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from rung.retrieval.embedders import Embedder, open_embedder
from rung.serving.watching.drift import drift, least_requests
from rung.serving.watching.requests import KnownInputs, RequestFile
from rung.types import Query

Row = tuple[str, str]  # text, label
Draw = Callable[[random.Random, int, bool], list[Row]]  # rows; whether they are of the new topic

GERMAN = "ich habe eine frage zu meiner bestellung und das paket ist noch nicht da wann kommt es bitte an"
OPENINGS = ("Hello,", "Hi there,", "Good morning,", "", "", "", "Please help:", "Quick question:")
ENDINGS = ("Thanks.", "", "", "Please answer soon.", "Kind regards", "What should I do?", "Can you help?")
TOPICS = {
    "delivery": "parcel courier arrives late address tracking van doorstep shipment driver depot",
    "refund": "money refund returned bank transfer amount paid back credited pending deposit",
    "account": "password login email reset username locked profile verify code sign",
    "product": "size colour material fits wash cotton sleeve jacket zip lining",
    "invoice": "invoice tax number company billing printed copy total receipt vat",
    "cancel": "cancel order stop change mistake twice basket before dispatched undo",
    "voucher": "voucher coupon discount expired gift card balance redeem campaign percent",
    "repair": "broken crack repair warranty screen battery replace faulty noise technician",
    "newsletter": "subscription solar panel roof inverter kilowatt grid meter installation voltage",
}
FILLER = "the my a with for this that when still about from it was very not yet since last week today now again"


def made(rng: random.Random, n: int, new: bool) -> list[Row]:
    names = ["newsletter"] if new else [name for name in TOPICS if name != "newsletter"]
    rows = []
    for _ in range(n):
        topic = rng.choice(names)
        words = rng.choices(TOPICS[topic].split(), k=rng.randint(3, 9)) + rng.choices(
            FILLER.split(), k=rng.randint(4, 14)
        )
        rng.shuffle(words)
        rows.append((f"{rng.choice(OPENINGS)} {' '.join(words)}. {rng.choice(ENDINGS)} {rng.randint(1, 9999)}", topic))
    return rows


def of_task(folder: Path) -> Draw:
    from rung.data.examples import read_examples
    from rung.data.task_file import read_task

    examples = read_examples(read_task(folder / "task.yaml"))
    labels = sorted({e.output for e in examples})

    def draw(rng: random.Random, n: int, new: bool) -> list[Row]:
        rows = [(e.query.text, e.output) for e in examples if (e.output == labels[0]) is new]
        return rng.sample(rows, min(n, len(rows)))

    return draw


def planted(kind: str, tested: list[Row], rows: list[Row], draw: Draw, rng: random.Random) -> list[Row]:
    """Requests with a shift in them. rows: drawn like the tested inputs."""
    tenth = len(rows) // 10
    if kind == "new topic":
        return [*rows[tenth:], *((text, rows[0][1]) for text, _ in draw(rng, tenth, True))]
    if kind == "language":
        texts = [" ".join(rng.choices(GERMAN.split(), k=rng.randint(8, 16))) for _ in range(tenth)]
        return [*rows[tenth:], *((text, rows[0][1]) for text in texts)]
    if kind == "twice as long":
        return [(f"{text} {other}", label) for (text, label), (other, _) in zip(rows, reversed(rows), strict=True)]
    if kind == "new label":
        return [(text, "something new" if i < tenth else label) for i, (text, label) in enumerate(rows)]
    return rows


KINDS = ("nothing", "new topic", "language", "twice as long", "new label")


def measure(
    draw: Draw, sizes: tuple[int, int], times: int, embedder: Embedder | None = None
) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for kind in KINDS:
        shown, looks = 0, dict[str, int]()
        for seed in range(times):
            rng = random.Random(f"{kind} {seed}")
            rows = draw(rng, sum(sizes), False)
            rng.shuffle(rows)
            tested, rest = rows[: sizes[0]], rows[sizes[0] :]
            result = drift(*files(tested, planted(kind, tested, rest, draw, rng)), embedder=embedder, seed=seed)
            shown += result.outcome == "drift"
            for look in result.looks:
                looks[look.name] = looks.get(look.name, 0) + look.differs
        found[kind] = {"shown": shown / times, "looks": {name: n / times for name, n in looks.items() if n}}
    return found


def files(tested: Sequence[Row], requests: Sequence[Row]) -> tuple[KnownInputs, RequestFile]:
    inputs, answers = zip(*tested, strict=True)
    asked, said = zip(*requests, strict=True)
    queries = [tuple(Query(str(i), text) for i, text in enumerate(texts)) for texts in (inputs, asked)]
    return KnownInputs(queries[0], answers), RequestFile(queries[1], said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", type=Path)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--tested", type=int, default=200)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--embedder")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    embedder = open_embedder(options.embedder) if options.embedder else None
    record = {}
    draws: dict[str, Draw] = {p.name: of_task(p) for p in options.tasks} or {"made": made}
    for name, draw in draws.items():
        record[name] = measure(draw, (options.tested, options.requests), options.times, embedder)
        least = least_requests(options.tested, 7)
        print(f"{name}: {options.tested} tested, {options.requests} requests (at least {least} asked for)")
        for kind, found in record[name].items():
            print(f"  {kind:<15}{found['shown']:>6.1%}   {found['looks']}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
