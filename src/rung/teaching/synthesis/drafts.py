"""Drafts: new inputs as a teacher writes them, each with where it comes from. No answer is asked for yet."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate, cycle, islice
from pathlib import Path

from rung.data.lengths import of_usual_length
from rung.errors import came
from rung.models.constraining import enforced
from rung.models.journal import Journal
from rung.models.metering import charged_usd
from rung.records import write_lines
from rung.retrieval.chunk import document_id
from rung.teaching.synthesis.aims import Aim, aims_of, in_turns, spread
from rung.teaching.synthesis.counts import KINDS, WRITTEN, Counts, Kind
from rung.teaching.synthesis.prompts import ROOM, STYLES, inputs_in, new_inputs, other_words, questions, reply_form
from rung.trials.workshop import Inputs
from rung.types import Decoding, Document, Example, Generation, Message, Model, Query, Request, Tell

PROMPTS = "prompts.jsonl"
"""Beside the journal: {prompt, messages} of every request for new inputs."""

_SHOWN = 5  # train inputs in a request
_TEMPERATURE = 1.0
_SAID = 60  # characters of an answer that a request for a paraphrase says
_MEASURED = 200  # train inputs whose tokens are counted
_LONGER = 1.5  # times a usual input: what a new one may have


@dataclass(frozen=True)
class DraftInput:
    """A new input. answer: what the teacher's votes must agree with; None: whatever they agree on.

    like: the train row whose answer it must have, for a paraphrase. passage: that answers it. prompt: hash of the
    request that it was written in. sources: ids of train rows or passages. usd: its part of what that request cost.
    """

    query: Query
    kind: Kind
    answer: str | None
    prompt: str
    sources: tuple[str, ...]
    usd: float
    like: Example | None = None
    passage: Document | None = None


@dataclass(frozen=True)
class _Order:
    """One request for new inputs, and what they will be. base: whose context they share."""

    messages: tuple[Message, ...]
    kind: Kind
    sources: tuple[str, ...]
    answer: str | None = None
    base: Query | None = None
    like: Example | None = None
    passage: Document | None = None


def written(
    inputs: Inputs, teacher: Model, counts: Counts, wrong: Mapping[str, int], journal: Path, tell: Tell, seed: int
) -> list[DraftInput]:
    """The new inputs of counts.written requests, in turns over kinds and aims. wrong: as in `aims_of`.

    What was asked stands in PROMPTS, beside the journal.
    """
    most = teacher.context_length
    by_kind = [list(_orders(inputs, kind, counts.writings(kind), wrong, seed, most)) for kind in counts.wanted]
    orders = [by_kind[place].pop(0) for place in in_turns([len(some) for some in by_kind])]
    ask = _asking(inputs, teacher, counts, seed)
    requests = [ask(order, number) for number, order in enumerate(orders)]
    write_lines(journal.with_name(PROMPTS), ({"prompt": hash_of(o.messages), **_said(o)} for o in orders))
    replies = Journal(teacher, journal).generate(requests, tell, f"{teacher.name} writes new inputs")
    return [draft for order, reply in zip(orders, replies, strict=True) for draft in _drafts(order, reply, teacher)]


def samples_of_requests(inputs: Inputs, teacher: Model, counts: Counts, seed: int) -> list[Request]:
    """A request of each kind, by which tokens are estimated before anything is asked."""
    kinds = [kind for kind, rows in counts.wanted.items() if rows]
    firsts = [next(_orders(inputs, kind, 1, {}, seed, teacher.context_length), None) for kind in kinds]
    ask = _asking(inputs, teacher, counts, seed)
    return [ask(order, 0) for order in firsts if order is not None]


def hash_of(messages: Sequence[Message]) -> str:
    """16 hexadecimal digits that name a prompt."""
    said = json.dumps([asdict(m) for m in messages], ensure_ascii=False)
    return hashlib.sha256(said.encode(errors="replace")).hexdigest()[:16]


def _said(order: _Order) -> dict[str, object]:
    return {"messages": [asdict(message) for message in order.messages]}


# ---- what is asked --------------------------------------------------------------------------


def _orders(inputs: Inputs, kind: Kind, count: int, wrong: Mapping[str, int], seed: int, most: int) -> Iterator[_Order]:
    """At most so many requests of a kind; none where there is nothing to make them from.

    most: characters of the inputs that a request shows, about a third of what the context holds.
    """
    rng = random.Random(f"{seed} {kind}")
    rows = of_usual_length(inputs.train)
    if kind in ("document", "unanswerable"):
        yield from _about_passages(inputs, rows, kind, count, rng, most)
        return
    aims = aims_of(inputs.task, rows, wrong, seed)
    if kind == "paraphrase":
        aims = [aim for aim in aims if aim.rows]
    places = in_turns(spread(count, aims))
    left: dict[int, Iterator[Example]] = {}
    for number, place in enumerate(places):
        aim, style = aims[place], STYLES[number % len(STYLES)]
        if kind == "paraphrase":
            row = next(left.setdefault(place, cycle(rng.sample(aim.rows, len(aim.rows)))))
            yield _paraphrase(inputs, row, style)
        else:
            yield _new(inputs, aim, style, rng, most)


def _new(inputs: Inputs, aim: Aim, style: str, rng: random.Random, most: int) -> _Order:
    task = inputs.task
    first = rng.choice(aim.rows) if aim.rows else None
    base = first.query if first is not None and _has_more(first.query) else None
    alike = [e for e in aim.rows if base is None or _without_input(e.query) == _without_input(base)]
    shown = _some(alike, rng, most)
    note = task.label_notes.get(aim.answer or "")
    answer = f"{aim.answer} ({note})" if note else aim.answer
    texts = [example.input for example in shown]
    messages = new_inputs(task.instruction, base, texts, answer, WRITTEN["new"], style)
    return _Order(messages, "new", tuple(e.id for e in shown), aim.answer, base)


def _paraphrase(inputs: Inputs, row: Example, style: str) -> _Order:
    said = row.output if row.output.strip() and len(row.output) <= _SAID else None
    messages = other_words(inputs.task.instruction, row.query, said, WRITTEN["paraphrase"], style)
    return _Order(messages, "paraphrase", (row.id,), row.output, row.query, like=row)


def _about_passages(
    inputs: Inputs, rows: Sequence[Example], kind: Kind, count: int, rng: random.Random, most: int
) -> Iterator[_Order]:
    """Passages that no train row marks come first: nothing is known of them yet."""
    if not inputs.passages:
        return
    marked = {name for row in inputs.train for name in row.gold_ids}
    known = {p.id for p in inputs.passages if marked & {p.id, document_id(p.id)}}
    mixed = sorted(rng.sample(inputs.passages, len(inputs.passages)), key=lambda p: p.id in known)  # stable
    for passage in islice(cycle(mixed), count):
        shown = [row.input for row in _some(rows, rng, most)]
        answered = kind == "document"
        messages = questions(inputs.task.instruction, passage, shown, WRITTEN[kind], answered=answered)
        answer = None if answered else inputs.task.abstain
        yield _Order(messages, kind, (passage.id,), answer, passage=passage if answered else None)


def _has_more(query: Query) -> bool:
    return bool(query.context or query.instruction or query.turns)


def _without_input(query: Query) -> Query:
    return replace(query, id="", input="")


def _some(rows: Sequence[Example], rng: random.Random, most: int) -> list[Example]:
    """A few rows at random whose inputs have no more characters than that together, one at least."""
    drawn = rng.sample(list(rows), min(_SHOWN, len(rows)))
    ends = list(accumulate(len(row.input) for row in drawn))
    return [row for row, end in zip(drawn, ends, strict=True) if end <= most] or drawn[:1]


def _asking(inputs: Inputs, teacher: Model, counts: Counts, seed: int) -> Callable[[_Order, int], Request]:
    """(an order, its number, which gives it a seed of its own) -> the request."""
    lengths = sorted(teacher.count_tokens(e.input) for e in inputs.train[:_MEASURED])
    usual = lengths[(len(lengths) * 9 - 1) // 10] if lengths else 0
    rooms = {
        kind: min(ROOM + round(WRITTEN[kind] * (_LONGER * usual + 8)), teacher.context_length // 2) for kind in KINDS
    }
    forms = {kind: enforced(teacher, reply_form(WRITTEN[kind])) for kind in counts.wanted}

    def ask(order: _Order, number: int) -> Request:
        decoding = Decoding(rooms[order.kind], temperature=_TEMPERATURE, seed=seed + number)
        return Request(order.messages, decoding, forms[order.kind])

    return ask


# ---- what comes back ------------------------------------------------------------------------


def _drafts(order: _Order, reply: Generation, teacher: Model) -> Iterator[DraftInput]:
    """The inputs of a reply. One that was cut off holds those before the cut."""
    texts = inputs_in(reply.text) if came(reply.error) or reply.finish == "length" else []
    texts = texts[: WRITTEN[order.kind]]
    usd = charged_usd(reply, teacher.price) / len(texts) if texts else 0.0
    prompt = hash_of(order.messages)
    for text in texts:
        query = replace(order.base or Query("", ""), id="", input=text)
        query = replace(query, id=_id_of(order.kind, query))
        yield DraftInput(query, order.kind, order.answer, prompt, order.sources, usd, order.like, order.passage)


def _id_of(kind: Kind, query: Query) -> str:
    """The same for the same input, whenever it is written."""
    return f"syn-{kind}-{hashlib.sha256(query.text.encode(errors='replace')).hexdigest()[:12]}"
