"""Processes that train together on the CPU, forked from the test's own so that nothing is imported again."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

_SECONDS = 120.0


def in_processes(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What work(rank) returns in each of so many processes of one gloo group. Raises what any of them raised."""
    fork = multiprocessing.get_context("fork")
    torch.set_num_threads(1)  # libgomp does not survive a fork with threads of its own
    with tempfile.TemporaryDirectory() as folder:
        pipes = [fork.Pipe(duplex=False) for _ in range(count)]
        processes = [
            fork.Process(target=_run, args=(work, rank, count, Path(folder), pipe[1]))
            for rank, pipe in enumerate(pipes)
        ]
        for process in processes:
            process.start()
        results = []
        try:
            for heard, _ in pipes:
                assert heard.poll(_SECONDS), "a process does not answer"
                results.append(heard.recv())
        finally:
            for process in processes:
                process.kill()
                process.join()
    if faults := [result for result in results if isinstance(result, str) and result.startswith("Traceback")]:
        raise AssertionError("\n".join(faults))
    return results


def _run(work: Callable[[int], Any], rank: int, count: int, folder: Path, said: Any) -> None:
    import torch.distributed as dist

    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/group", rank=rank, world_size=count, timeout=timedelta(seconds=60)
        )
        result = work(rank)
    except BaseException:
        result = traceback.format_exc()
    with contextlib.suppress(OSError):
        said.send(result)
    os._exit(0)
