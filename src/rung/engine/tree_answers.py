"""Answers and log-probabilities on the tree path: prompts share their prefixes, rows leave when their answer ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch

from rung.engine.answering import BatchAnswers
from rung.engine.batch import Answered, Batch, in_parts
from rung.engine.gpu_kernels import on_device
from rung.engine.kv_cache import RowCache
from rung.engine.prefill import Job, SharedPrefixes, batches, prefill
from rung.engine.prefix_tree import common_prefix_length, grow
from rung.engine.static_decode import static_decoder
from rung.engine.tree_engine import TreeEngine
from rung.engine.ways import ANSWERS

_LOGITS_ROWS = 256  # tokens whose logits are held at once


def tree_batches(engine: TreeEngine, jobs: Sequence[Job], stop_ids: set[int]) -> Iterator[Batch]:
    """The jobs in batches, each as large as the limits allow when it is cut."""
    for places, shared in batches(engine, jobs):
        lengths = {i: len(shared.own_part(jobs[i])) for i in places}
        yield Batch(places, lengths, partial(_answer_batch, engine, jobs, shared, stop_ids))


@torch.inference_mode()
def _answer_batch(
    engine: TreeEngine, jobs: Sequence[Job], shared: SharedPrefixes, stop_ids: set[int], batch: list[int]
) -> Answered:
    """Its KV cache is freed before the prefill of the next batch."""
    cache, last, order = prefill(engine, jobs, batch, shared)
    answers = _answer(engine, [jobs[i] for i in order], cache, last, shared, stop_ids)
    return list(zip(order, answers, strict=True))


def _answer(
    engine: TreeEngine, jobs: list[Job], cache: RowCache, last: torch.Tensor, shared: SharedPrefixes, stop_ids: set[int]
) -> list[list[int]]:
    """Tokens of each row's answer. last: final hidden states of the prompts' last tokens, (B, C).

    Where a grammar allows one continuation only, its tokens are taken over without a decode step for each.
    """
    state = BatchAnswers(jobs, stop_ids)

    def plain(rows: RowCache, new: Sequence[Sequence[int]]) -> torch.Tensor:
        return decode_step(engine, rows, shared, [jobs[place] for place in state.active], new)

    decoder = static_decoder(engine) if engine.ways.takes("static", ANSWERS) else None
    while True:
        with engine.adapters.output_of(jobs[state.active[0]].adapter):  # whole weights answer in batches of their own
            state.choose(engine.logits(last))
        before, going = len(state.active), state.leave()
        if not going:
            break
        if len(going) < before:
            cache.keep_rows(going)
        if decoder is not None and engine.ways.takes("static", ANSWERS):
            left = decoder.answer(state, cache, plain)
            if left is None:
                break
            cache, decoder = left, None
        last = plain(cache, state.new)
        state.read()
    if engine.static_decoder is not None:
        engine.static_decoder.learn(state)
    return state.answers


def decode_step(
    engine: TreeEngine,
    cache: RowCache,
    shared: SharedPrefixes,
    jobs: Sequence[Job],
    new: Sequence[Sequence[int]],
) -> torch.Tensor:
    """As `TreeEngine.read`, with the adapter of each row's job."""
    families = [shared.family(job) for job, tokens in zip(jobs, new, strict=True) for _ in tokens]
    with shared.applied(engine, families):
        return engine.read(cache, new)


# ---- log-probabilities of given answers -----------------------------------------------------------


def tree_logprobs(
    engine: TreeEngine, adapter: str | None, rows: Sequence[tuple[list[int], list[int]]]
) -> list[list[float]]:
    """As `decode.logprobs`, with prompts and answers in one tree."""
    kinds = [engine.is_long(len(prompt) + len(answer)) for prompt, answer in rows]
    if len(set(kinds)) > 1:  # long and short rows share nothing
        apart: dict[int, list[float]] = {}
        for kind in (False, True):
            places = [i for i, long in enumerate(kinds) if long == kind]
            apart.update(zip(places, tree_logprobs(engine, adapter, [rows[i] for i in places]), strict=True))
        return [apart[i] for i in range(len(rows))]
    shared = SharedPrefixes(engine, [adapter] * len(rows), [prompt for prompt, _ in rows], long=kinds[0])
    known = shared.length_of(adapter)
    whole = [prompt[known:] + answer[:-1] for prompt, answer in rows]
    order = sorted(range(len(rows)), key=lambda i: (whole[i], i))
    found: list[list[float]] = [[] for _ in rows]
    most = engine.most_tokens(known)
    in_parts(
        engine,
        order,
        lambda places, limit: _next_part(whole, places, min(limit, most)),
        lambda chosen: _score(engine, adapter, rows, whole, chosen, known, shared, found),
    )
    return found


def _next_part(whole: list[list[int]], order: list[int], limit: int) -> tuple[list[int], int]:
    """The first rows of `order` that bring at most `limit` tokens, at least one row; and the tokens they bring."""
    part, tokens = 0, 0
    while part < len(order):
        own = whole[order[part]]
        shared = common_prefix_length([whole[order[part - 1]], own]) if part else 0
        if part and tokens + len(own) - shared > limit:
            break
        tokens += len(own) - shared
        part += 1
    return order[:part], tokens


@torch.inference_mode()
def _score(
    engine: TreeEngine,
    adapter: str | None,
    rows: Sequence[tuple[list[int], list[int]]],
    whole: list[list[int]],
    chosen: list[int],
    known: int,
    shared: SharedPrefixes,
    found: list[list[float]],
) -> None:
    """Fills `found` for the chosen rows. known: tokens of the shared prefix."""
    tree = grow([whole[i] for i in chosen])
    wanted: dict[int, list[tuple[int, int, int]]] = {}  # packed place -> (row, number in its answer, token)
    for row, i in enumerate(chosen):
        prompt, answer = rows[i]
        first = len(prompt) - known - 1
        found[i] = [0.0] * len(answer)
        for number, place in enumerate(tree.places(row, first, first + len(answer))):
            wanted.setdefault(place, []).append((i, number, answer[number]))
    places = list(wanted)
    with engine.adapters.using(adapter):
        hidden = engine.hidden_of(tree, shared.in_order, wanted=places, long=shared.long)
    for start in range(0, len(places), _LOGITS_ROWS):
        chances = torch.log_softmax(engine.logits(hidden[start : start + _LOGITS_ROWS]), -1)
        asked = [(at, *one) for at, place in enumerate(places[start : start + _LOGITS_ROWS]) for one in wanted[place]]
        taken = on_device(torch.tensor([(at, token) for at, _, _, token in asked]), engine.device)
        # Read in one transfer: on a GPU each number by itself would be a wait.
        for (_, i, number, _), chance in zip(asked, chances[taken[:, 0], taken[:, 1]].tolist(), strict=True):
            found[i][number] = chance
