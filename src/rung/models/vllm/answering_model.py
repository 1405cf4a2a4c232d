"""A local model whose answers come from vLLM, and that rung's own engine trains.

The network is loaded into this process only for what vLLM does not do: training, losses, and requests that it cannot
take. Where memory does not hold both, one makes room for the other. Knows which of the two does what; the process is
`child`'s, the memory `share`'s. Long because it has all that a model on this machine can do.
"""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from rung.engine.devices import best_device, device_name
from rung.engine.memory import free_bytes, give_back, total_bytes
from rung.engine.ways import ways_of
from rung.errors import DOES_NOT_FIT, ModelError, OutOfMemory, first_line
from rung.models.four_bit import split_spec
from rung.models.places import remember
from rung.models.sizes import training_bytes
from rung.models.speed import kept_dtype, kept_speed, timed_speed, ways_part
from rung.models.thinking import THOUGHT_TOKENS
from rung.models.vllm.adapters import why_not
from rung.models.vllm.base import BaseFolder
from rung.models.vllm.child import VllmChild, is_its_fault
from rung.models.vllm.process import flags_key, has_gpu, version_of_vllm
from rung.models.vllm.share import ROWS, VllmShare, share_of
from rung.models.vllm.starts import keep_start, start_seconds
from rung.training.whole import bytes_of_weight
from rung.types import (
    DPO,
    Constraint,
    Generation,
    Model,
    PreferenceRow,
    Price,
    Progress,
    Request,
    Speed,
    TrainingOptions,
    TrainingRow,
)

if TYPE_CHECKING:
    from rung.models.card_worker import Ahead
    from rung.models.cards import Cards
    from rung.models.local import LocalModel

T = TypeVar("T")
_FREED_S = 10.0  # that a GPU may take to have the memory of a process that ended
_TIMED, _TIMED_ON_HOST = (64, 400), (4, 64)  # requests of a measurement, and words of each, with a GPU and without


def open_answered_by_vllm(spec: str, say: Callable[[str], None] = lambda _: None) -> Model:
    """The local model of this spec with vLLM before it. Nothing of it is started, and no weights are read.

    A model in rung's 4 bits, which vLLM does not know, is opened as ever, and `say` hears why.
    Raises ModelError where there is no vLLM, with how to name its Python; DownloadError.
    """
    if split_spec(spec)[1]:
        from rung.models import open_model

        say(f"{spec}: vLLM knows no base in rung's 4 bits; rung's own engine answers with it.")
        return open_model(spec, say=say)
    version = version_of_vllm()  # before anything is fetched
    return VllmModel(BaseFolder.of(spec, say=say), version, say)


class VllmModel:
    """Model, Preferring and Measured. base: the model's files. say: hears before anything slow, and what vLLM does not
    answer."""

    price: Price | None = None

    def __init__(self, base: BaseFolder, vllm_version: str, say: Callable[[str], None] = lambda _: None) -> None:
        self._base, self._say = base, say
        self._rows = base.rows()
        self.name, self.version, self.context_length = base.spec, base.version, self._rows.context_length
        self.vllm_version = vllm_version
        self.device = torch.device(_device())
        self._dtype = kept_dtype("cuda") if self.device.type == "cuda" else torch.float32
        dtype = None if has_gpu() and self.device.type == "cpu" else str(self._dtype).removeprefix("torch.")
        where = f"{dtype or 'auto'}-{'gpu' if has_gpu() else 'cpu'}"
        self.answers_key = f"{self.version[:16]}-vllm-{self.vllm_version}-{where}{flags_key()}"
        """As of a local model; what vLLM answers is never taken for what rung's own engine does, nor the other way."""
        own = weakref.ref(self)

        def room(rank: int) -> VllmShare:
            model = own()
            assert model is not None  # it asks
            return model._room(rank)

        self._child = VllmChild(base, dtype=dtype, room=room, say=say, on_start=partial(keep_start, self.answers_key))
        weakref.finalize(self, self._child.end)
        self._network: LocalModel | None = None
        self._computed = 0  # tokens, by vLLM and by networks that were let go
        self._former: list[dict[str, Any]] = []  # what networks that were let go computed with
        self._refused: dict[Path, str] = {}  # adapters that vLLM does not take
        self._said: set[str] = set()
        self._answered, self._answered_here = 0, 0
        self._speed: Speed | None = None
        remember(self.version, self.name)

    # ---- text --------------------------------------------------------------------------------

    def count_tokens(self, text: str) -> int:
        return self._rows.count_tokens(text)

    def check(self, constraint: Constraint) -> None:
        """Raises ConstraintError when no grammar can be made of it."""
        self._rows.check(constraint)

    # ---- answering ---------------------------------------------------------------------------

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """As a local model, but computed by vLLM. What that cannot take is answered by rung's own engine, and said.

        Raises ModelError where vLLM does not start, or dies twice; OutOfMemory where there is no room for it.
        """
        answers: dict[int, Generation] = {}
        there = [i for i, request in enumerate(requests) if self._takes(request)]
        if there:
            asked = [requests[i] for i in there]
            found = zip(there, asked, self._child.answer(asked), strict=True)
            answers = {i: g for i, request, g in found if not self._is_for_here(request, g)}
            self._computed += sum(g.tokens_in - g.tokens_cached + g.tokens_out for g in answers.values())
        self._answered += len(answers)
        here = [i for i in range(len(requests)) if i not in answers]
        if here:
            self._answered_here += len(here)
            found_here = self._here(lambda network: network.generate([requests[i] for i in here]))
            answers |= dict(zip(here, found_here, strict=True))
        return [replace(answers[i], tokens_cached=0) for i in range(len(requests))]  # as the local engine tells it

    def reach(self) -> None:
        """Starts vLLM, so that no strategy of a run has to count that as its own. Raises as `generate`."""
        self._child.start()

    @property
    def start_s(self) -> float:
        """Seconds that vLLM takes to start: as the newest start here took, else an assumption."""
        return start_seconds(self.answers_key)

    def try_out(self) -> float:
        """Seconds of one answer by vLLM, which is started for it; rung's own engine gives none. Raises ModelError."""
        return self._child.try_out()

    @property
    def block(self) -> int:
        """Answers that are best asked for at once."""
        return ROWS

    def _takes(self, request: Request) -> bool:
        """Whether vLLM holds the adapter of this request; it is loaded where it can be."""
        if request.adapter is None:
            return True
        adapter = Path(request.adapter)
        if adapter not in self._refused:
            why = why_not(adapter)
            if why is None:
                try:
                    self._child.hold(adapter)
                except OutOfMemory:
                    raise
                except ModelError as error:
                    if not self._child.running:
                        raise
                    why = first_line(error).rstrip(".")
            if why is None:
                return True
            self._refused[adapter] = why
        self._remark(f"{adapter.name} is answered by rung's own engine: {self._refused[adapter]}.")
        return False

    def _is_for_here(self, request: Request, generation: Generation) -> bool:
        """Whether rung's own engine can do better: vLLM refused, failed, or holds a shorter context."""
        if is_its_fault(generation):
            self._remark(f"rung's own engine answers what vLLM does not: {first_line(ModelError(generation.error))}.")
            return True
        context = self._child.context_length
        if context is None or context >= self.context_length:
            return False
        cut = generation.finish == "length" and generation.tokens_out < request.decoding.max_new_tokens
        if cut or DOES_NOT_FIT in (generation.error or ""):
            self._remark(f"vLLM has memory for {context:,} tokens a request; rung's own engine answers longer ones.")
            return True
        return False

    def _remark(self, text: str) -> None:
        """Says it once."""
        if text not in self._said:
            self._said.add(text)
            self._say(text)

    # ---- training, and what else the network computes here ------------------------------------

    def train(
        self,
        rows: Sequence[TrainingRow],
        options: TrainingOptions,
        folder: Path,
        *,
        until: int | None = None,
        start: Path | None = None,
        on_step: Callable[[Progress], None] = lambda _: None,
    ) -> Path:
        """As in `types.Trainable`, by rung's own engine. vLLM ends before where memory does not hold both."""
        trained = self._here(
            lambda network: network.train(rows, options, folder, until=until, start=start, on_step=on_step),
            room=self._training_bytes(options),
        )
        self._rows.forget_rows()
        self._child.release(trained)
        return trained

    def prefer(
        self,
        rows: Sequence[PreferenceRow],
        options: TrainingOptions,
        folder: Path,
        *,
        how: DPO,
        until: int | None = None,
        start: Path | None = None,
        on_step: Callable[[Progress], None] = lambda _: None,
    ) -> Path:
        """As in `types.Preferring`; as `train`."""
        trained = self._here(
            lambda network: network.prefer(rows, options, folder, how=how, until=until, start=start, on_step=on_step),
            room=self._training_bytes(options),
        )
        self._rows.forget_rows()
        self._child.release(trained)
        return trained

    def too_long(self, rows: Sequence[TrainingRow]) -> list[TrainingRow]:
        """The rows whose prompt and answer together exceed the context."""
        return self._rows.too_long(rows)

    def loss(self, rows: Sequence[TrainingRow], adapter: Path | None) -> float:
        """As in `types.Trainable`."""
        return self._here(lambda network: network.loss(rows, adapter))

    def row_losses(self, rows: Sequence[TrainingRow], adapter: Path | None) -> list[float]:
        """As a local model."""
        return self._here(lambda network: network.row_losses(rows, adapter))

    def release(self, adapter: Path) -> None:
        """As in `types.Trainable`: vLLM reads the folder afresh, too."""
        self._refused.pop(adapter, None)
        self._child.release(adapter)
        if self._network is not None:
            self._network.release(adapter)

    @property
    def cards(self) -> Cards | None:
        """As a local model, whose trainings may run on other cards."""
        return self._here(lambda network: network.cards)

    def ahead(self, jobs: Sequence[Ahead], say: Callable[[str], None]) -> AbstractContextManager[None]:
        """As a local model."""
        return self._here(lambda network: network.ahead(jobs, say))

    def close_cards(self) -> None:
        """As a local model."""
        if self._network is not None:
            self._network.close_cards()

    # ---- memory ------------------------------------------------------------------------------

    def _here(self, work: Callable[[LocalModel], T], *, room: int = 0) -> T:
        """What the network in this process computes. room: bytes that it takes beside its weights, about.

        Where memory is short while vLLM runs, that ends, and the work is done again: a training goes on from its newest
        checkpoint. Raises OutOfMemory where it is short without vLLM.
        """
        for last in (False, True):
            try:
                network = self._loaded()
                if room and self._child.running:
                    give_back(self.device)
                    if free_bytes(self.device) < room:
                        self._end_child(room)
                return work(network)
            except OutOfMemory:
                if last or not self._child.running:
                    raise
            self._end_child(room or self._base.weight_bytes(self._dtype.itemsize))
        raise AssertionError("unreachable")

    def _loaded(self) -> LocalModel:
        if self._network is None:
            from rung.models.loading import load_model

            self._network = load_model(self._base.spec, say=self._say)
        return self._network

    def _end_child(self, wanted: int) -> None:
        """Ends vLLM, and waits a little until so many bytes are free."""
        self._say("memory does not hold vLLM and the network side by side: vLLM ends until the next question …")
        self._child.end()
        until = time.monotonic() + _FREED_S
        while free_bytes(self.device) < wanted and self.device.type == "cuda" and time.monotonic() < until:
            time.sleep(0.2)
        give_back(self.device)

    def _room(self, rank: int) -> VllmShare:
        """What vLLM starts with. The network in this process makes room where there is too little."""
        total = total_bytes(self.device) if self.device.type == "cuda" else None
        shape, itemsize = self._base.shape, self._dtype.itemsize
        reserve = training_bytes(shape, itemsize) if shape is not None else 0
        if self._network is None:
            reserve += self._base.weight_bytes(itemsize)
        give_back(self.device)
        for last in (False, True):
            try:
                free = free_bytes(self.device)
                return share_of(
                    self._base, itemsize, self.context_length, rank, free=free, total=total, reserve=reserve
                )
            except OutOfMemory:
                if last or self._network is None:
                    raise
                self._let_go()
        raise AssertionError("unreachable")

    def _let_go(self) -> None:
        """Frees the network in this process; it is loaded again when it is needed."""
        assert self._network is not None
        self._computed += self._network.computed_tokens
        self._former = self._computed_with()
        self._network = None
        gc.collect()
        give_back(self.device)

    def _training_bytes(self, options: TrainingOptions) -> int:
        shape = self._base.shape
        if options.full:
            return int(self._base.parameters * bytes_of_weight(self._dtype.itemsize))
        return training_bytes(shape, self._dtype.itemsize) if shape is not None else 0

    def close(self) -> None:
        """Ends vLLM. A process that ends does so by itself."""
        self._child.end()

    # ---- what it knows of its own computing ----------------------------------------------------

    @property
    def computed_tokens(self) -> int:
        """Tokens computed so far, by vLLM and here; what vLLM had in its cache is not counted."""
        return self._computed + (self._network.computed_tokens if self._network is not None else 0)

    def speed(self) -> Speed:
        """Tokens per second on this machine, reading and writing by vLLM: measured at first use, then kept."""
        if self._speed is None:
            self._speed = kept_speed(*self.timed_as, self._measured_speed)
        return self._speed

    @property
    def timed_as(self) -> tuple[str, str]:
        """As of a local model."""
        key = self.answers_key + ways_part(ways_of(self.device), self.device)  # by which the network trains
        return key, f"{device_name(self.device)} {torch.get_num_threads()}"

    def _measured_speed(self) -> Speed:
        train = self._here(lambda network: network.speed()).train
        rows, words = _TIMED if has_gpu() else _TIMED_ON_HOST
        return replace(timed_speed(self._child.answer, rows, words), train=train)

    def describe(self) -> dict[str, Any]:
        """Device, type and threads, and what computes answers."""
        return {
            "device": self.device.type,
            "device_name": device_name(self.device),
            "dtype": str(self._dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "answers": f"vLLM {self.vllm_version}",
        }

    def facts(self) -> dict[str, Any]:
        """What the record of a run keeps of it. answered, answered_here: by vLLM, and by rung's own engine."""
        counts = {"vllm": self._answered, "local": self._answered_here}
        found = {"engine": "vllm", "vllm": self.vllm_version, "answered_by": {k: v for k, v in counts.items() if v}}
        computed = self._computed_with()
        return {**found, **({"computed": computed} if computed else {})}

    def _computed_with(self) -> list[dict[str, Any]]:
        """As a local model's `computed`, of all networks that were here."""
        now = self._network.facts().get("computed", []) if self._network is not None else []
        return self._former + [one for one in now if one not in self._former]

    @property
    def remark(self) -> str | None:
        """What its user should know of it before it is put to work."""
        return f"{self.name}: vLLM {self.vllm_version} answers, and rung's own engine trains."

    @property
    def thought_tokens(self) -> int:
        """As a local model."""
        return THOUGHT_TOKENS if self._rows.chat.thought is not None else 0

    @property
    def parameters(self) -> int:
        """Number of weights of the base."""
        return self._base.parameters


def _device() -> str:
    """Where vLLM computes, and the network beside it."""
    return "cuda" if has_gpu() and best_device() == "cuda" else "cpu"
