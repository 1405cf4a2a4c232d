"""One of the processes that train together: loads the model on its card and computes its share of every batch.

torchrun starts it (`launching`). It hears what to do from the process that asked for the training, and ends when that
one is gone. Process 0 tells each step and hears whether to go on.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from rung.errors import OutOfMemory, RungError, first_line
from rung.models.launching import ADDRESS, KEY
from rung.records import from_record
from rung.types import DPO, Progress, TrainingOptions

if TYPE_CHECKING:
    from rung.models.local import LocalModel
    from rung.training.together import Together


class _Stopped(Exception):
    """Passes through the training, which then writes its checkpoint."""


class _Parent:
    """The process that asked for the training."""

    def __init__(self, rank: int) -> None:
        host, _, port = os.environ[ADDRESS].rpartition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._heard: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self.say({"key": os.environ[KEY], "rank": rank})
        threading.Thread(target=self._hear, daemon=True, name="rung-training-hears").start()

    def _hear(self) -> None:
        """In a thread of its own, so that the end of the parent ends this process whatever it waits for."""
        try:
            with self._socket.makefile("rb") as lines:
                for line in lines:
                    self._heard.put(json.loads(line))
        finally:
            os._exit(1)

    def hear(self) -> dict[str, Any]:
        return self._heard.get()

    def say(self, message: Mapping[str, Any]) -> None:
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def on_step(self, progress: Progress) -> None:
        self.say({"step": asdict(progress)})
        if not self.hear()["go"]:
            raise _Stopped


def main() -> None:
    """Until the parent has heard the end and closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to every process of a terminal: the parent decides
    rank = int(os.environ["RANK"])
    parent = _Parent(rank)
    try:
        parent.say(_trained(parent.hear(), parent, rank))
    except (_Stopped, KeyboardInterrupt):  # the second, where process 0 was stopped
        parent.say({"stopped": True})
    except BaseException as error:
        _print_traceback()
        parent.say(_failure(error))
    threading.Event().wait()  # it is the parent's turn, which ends all processes at once


def _failure(error: BaseException) -> dict[str, Any]:
    from rung.engine.out_of_memory import is_out_of_memory

    if isinstance(error, RungError):
        return {"failed": type(error).__name__, "text": str(error)}
    if is_out_of_memory(error):
        text = f"memory ran out in a training on several cards ({first_line(error)}). Close other programs."
        return {"failed": OutOfMemory.__name__, "text": text}
    return {"failed": type(error).__name__, "text": first_line(error)}


def _print_traceback() -> None:
    """Into the log of the training, for whoever looks why it ended."""
    import traceback

    traceback.print_exc()


def _trained(message: Mapping[str, Any], parent: _Parent, rank: int) -> dict[str, Any]:
    import torch

    from rung.models.loading import load_model
    from rung.training.batches import TokenPair, TokenRow
    from rung.training.loss import ANSWERS
    from rung.training.preferences import dpo
    from rung.training.together import Together, join

    device, loaded = torch.device(message["devices"][rank]), message["loaded"]
    if device.type == "cuda":
        torch.cuda.set_device(device)  # before anything else touches a card
    model = load_model(
        loaded["spec"], device=str(device), dtype=getattr(torch, loaded["dtype"]), threads=loaded["threads"]
    )
    model.engine.base, model.engine.base_version = loaded["base"], loaded["base_version"]
    found = [[TokenRow(id, tuple(prompt), tuple(target)) for id, prompt, target in item] for item in message["pairs"]]
    references, preferences = message["references"], message["loss"].get("preferences")
    rows: Any = [row for (row,) in found] if references is None else None
    if rows is None:
        rows = [TokenPair(a, b, reference) for (a, b), reference in zip(found, references, strict=True)]
    parent.say({"loaded": True})
    join(device)
    peers = Together(device)
    peers.meet()
    parent.say({"joined": True})
    loss = ANSWERS if preferences is None else dpo(DPO(**preferences))
    return {"result": str(_train(model, rows, message, parent, peers, loss))}


def _train(
    model: LocalModel, rows: Any, message: Mapping[str, Any], parent: _Parent, peers: Together, loss: Any
) -> Path:
    return model.train_tokens(
        rows,
        from_record(TrainingOptions, message["options"]),
        Path(message["folder"]),
        loss=loss,
        until=message["until"],
        start=Path(message["start"]) if message["start"] is not None else None,
        on_step=parent.on_step if peers.rank == 0 else lambda _: None,
        peers=peers,
    )


if __name__ == "__main__":
    main()
