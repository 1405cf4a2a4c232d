"""Answers to many prompts, and log-probabilities of given answers, on either path.

When memory runs out, a batch is answered in halves, down to one row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from rung.engine.batch import Answered as Answered
from rung.engine.batch import Batch
from rung.engine.engine import Engine
from rung.engine.out_of_memory import is_out_of_memory
from rung.engine.padded_answers import padded_batches, padded_logprobs
from rung.engine.padded_engine import PaddedEngine
from rung.engine.prefill import Job as Job
from rung.engine.prefill import counted_bytes
from rung.engine.tree_answers import tree_batches, tree_logprobs
from rung.engine.tree_engine import TreeEngine


def decode(engine: Engine, jobs: Sequence[Job], stop_ids: Collection[int]) -> Iterator[Answered]:
    """Answers batch after batch. An answer's tokens include its end token where it ended by one.

    When memory runs out, the batch is answered in halves, and later batches are smaller until enough of them worked.
    One row that does not fit beside what other processes hold of a GPU is tried again for a few seconds.
    """
    for batch in _batches(engine, jobs, set(stop_ids)):
        parts, worked, failed = [batch.places], list[list[int]](), list[list[int]]()
        while parts:
            part = parts.pop(0)
            answered = _in_memory(batch, part)
            if answered is not None:
                worked.append(part)
                yield answered
                continue
            engine.make_room()
            if len(part) == 1 and engine.waits_for_others():
                parts.insert(0, part)
                continue
            failed.append(part)
            if len(part) == 1:
                yield [(part[0], None)]
            else:
                parts[:0] = [part[: len(part) // 2], part[len(part) // 2 :]]
        _adapt_limits(engine, jobs, batch, worked, failed)


def logprobs(engine: Engine, adapter: str | None, rows: Sequence[tuple[list[int], list[int]]]) -> list[list[float]]:
    """Log-probability of each token of each answer, given its prompt. rows: (prompt, answer) ids.

    On the tree path, rows with one prompt share it, and answers with a common prefix share that too: all labels of a
    set are scored in one pass over their tree. When memory runs out, fewer tokens go through the network at once.
    """
    if not rows:
        return []
    if isinstance(engine, TreeEngine):
        return tree_logprobs(engine, adapter, rows)
    assert isinstance(engine, PaddedEngine)
    return padded_logprobs(engine, adapter, rows)


def _batches(engine: Engine, jobs: Sequence[Job], stop_ids: set[int]) -> Iterator[Batch]:
    if isinstance(engine, TreeEngine):
        return tree_batches(engine, jobs, stop_ids)
    assert isinstance(engine, PaddedEngine)
    return padded_batches(engine, jobs, stop_ids)


def _in_memory(batch: Batch, part: list[int]) -> Answered | None:
    """The answers of a part; None when memory ran out. On return the failed pass holds no memory any more."""
    try:
        return batch.answer(part)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    return None


def _adapt_limits(
    engine: Engine, jobs: Sequence[Job], batch: Batch, worked: list[list[int]], failed: list[list[int]]
) -> None:
    """Lowers the limits after a batch that did not fit: in rows where they cut it, else in bytes; or raises them again.

    worked, failed: parts of the batch. Later batches are as small as the largest part that worked or half the smallest
    that failed, whichever is more. A row that does not fit even alone explains the failure of every part with it, so
    that these parts say nothing of the limits.
    """

    def needs(part: list[int]) -> int:
        """Bytes that the limits count for the KV cache of these rows."""
        longest = max(batch.lengths[i] for i in part) + max(jobs[i].most for i in part)
        return len(part) * longest * counted_bytes(engine)

    alone = {part[0] for part in failed if len(part) == 1}
    too_large = [part for part in failed if alone.isdisjoint(part)]
    if not failed:
        (whole,) = worked
        engine.limits = engine.shortage.after_success(engine.limits, len(whole), needs(whole))
    elif too_large and worked:
        largest, smallest = max(worked, key=len), min(too_large, key=needs)
        by_rows = len(max(too_large, key=len)) >= engine.limits.rows
        rows = max(len(largest), len(smallest) // 2) if by_rows else engine.limits.rows
        engine.limits = engine.shortage.lowered(engine.limits, rows, max(needs(largest), needs(smallest) // 2))
