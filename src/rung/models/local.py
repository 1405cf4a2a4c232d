"""A model in this process: messages in, texts and usage out; examples in, an adapter out. `engine` runs the network."""

from __future__ import annotations

import math
import shutil
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rung.engine.adapters import check_adapter as check_adapter
from rung.engine.decode import decode, logprobs
from rung.engine.devices import device_name
from rung.engine.engine import Engine
from rung.engine.out_of_memory import is_out_of_memory
from rung.engine.shared_card import give_back_surplus
from rung.errors import (
    ModelError,
    OutOfMemory,
    first_line,
)
from rung.models.answering import AnswerRow, write_answers
from rung.models.card_worker import Ahead
from rung.models.cards import Cards, other_cards
from rung.models.chat_template import ChatFormat
from rung.models.computing import computed_with
from rung.models.context_length import context_length
from rung.models.identity import BESIDE_WEIGHTS
from rung.models.launching import train_on_cards
from rung.models.request_rows import RequestRows, held_to
from rung.models.thinking import THOUGHT_TOKENS
from rung.training.batches import TokenPair, TokenRow
from rung.training.loop import train as train_rows
from rung.training.loss import ANSWERS, Loss, mean_loss, row_losses
from rung.training.preferences import dpo, with_reference
from rung.training.together import Alone, Peers
from rung.types import (
    DPO,
    Generation,
    Message,
    PreferenceRow,
    Price,
    Progress,
    Request,
    Speed,
    TrainingOptions,
    TrainingRow,
)

_TRIED = list(range(3, 19))  # any tokens
_TRIMMED_FROM = 8  # requests; after fewer of them, handing memory back would cost more than it brings


class LocalModel(RequestRows):
    """A causal language model in this process: Model, Preferring and Measured. Load it with `loading.load_model`.

    folder: where its files lie; None, or one that is gone: the tokenizer is saved anew where it must be.
    """

    price: Price | None = None

    def __init__(self, engine: Engine, tokenizer: Any, *, name: str, version: str, folder: Path | None = None) -> None:
        self.name = name
        self.version = version
        self.folder = folder
        self.engine = engine
        self.network = engine.network
        chat = ChatFormat(tokenizer, getattr(self.network, "generation_config", None))
        length = context_length(self.network.config.get_text_config(), tokenizer)
        super().__init__(chat, length, engine.vocabulary)
        self._speed: Speed | None = None
        self._cards: Cards | None = None
        self.trained_on = 1
        """Number of cards that trained one adapter together; the most so far."""
        device, dtype = engine.device.type, str(engine.dtype).removeprefix("torch.")
        self.answers_key = f"{version[:16]}-{dtype}" + (f"-{device}" if device != "cpu" else "")
        """A file name for whatever depends on its answers: the version, the type and the device decide them."""

    # ---- text ------------------------------------------------------------------------------

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a rendered prompt, in training and in answering."""
        return self.chat.encode(messages)

    def encode_answer(self, text: str) -> list[int]:
        """Ids of an answer with its end token."""
        return self.chat.encode_answer(text)

    # ---- answering -------------------------------------------------------------------------

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """One Generation a request, in order. An answer has the room that its prompt leaves, at most what was asked.

        A prompt that does not fit the context is a Generation with an error. So is a request for which memory does not
        suffice even by itself; raises OutOfMemory when that is true of all of several. An answer that breaks what no
        grammar could hold of its constraint has an error beside its text. A model that always thinks does so before it
        answers, without an adapter: its thought is cut out, and counts as tokens written.
        """
        asked = [self.asked(request) for request in requests]
        rows = [row for row in asked if isinstance(row, AnswerRow)]
        prompts = [len(row.job.prompt) for row in rows]
        with self._memory_errors():
            write_answers(rows, self.chat, self.context_length, partial(decode, self.engine))
        if len(rows) > 1 and all(row.ids is None for row in rows):
            raise OutOfMemory(
                f"model {self.name}: memory does not suffice for any of {len(rows)} requests, even one at a time. "
                "Close other programs, use a smaller model, or shorten the prompts."
            )
        if len(requests) >= _TRIMMED_FROM:
            give_back_surplus(self.engine.device)
        answered = iter(map(self.generation, rows, prompts))
        generations = [next(answered) if isinstance(row, AnswerRow) else row for row in asked]
        return [held_to(one, request.constraint) for one, request in zip(generations, requests, strict=True)]

    # ---- training --------------------------------------------------------------------------

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
        """As in `types.Trainable`. The adapter is a PEFT folder, folder/step-N; all weights are a whole model.

        Where there are several cards and it pays, they train it together (`launching`).
        """
        if (done := self._trained_ahead(folder, options, until, on_step)) is not None:
            return done
        with self._training():
            return self._on_cards_or_here(self.encode_rows(rows), options, folder, ANSWERS, until, start, on_step)

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
        """As in `types.Preferring`."""
        if (done := self._trained_ahead(folder, options, until, on_step)) is not None:
            return done
        answers = [TrainingRow(row.name, row.messages, text) for row in rows for text in (row.chosen, row.rejected)]
        with self._training():
            encoded = iter(self.encode_rows(answers))
            pairs = [TokenPair(chosen, rejected) for chosen, rejected in zip(encoded, encoded, strict=True)]
            known = with_reference(self.engine, pairs, options, folder, how=how, start=start, on_step=on_step)
            return self._on_cards_or_here(known, options, folder, dpo(how), until, start, on_step)

    def _on_cards_or_here(
        self,
        rows: Sequence[TokenRow] | Sequence[TokenPair],
        options: TrainingOptions,
        folder: Path,
        loss: Loss,
        until: int | None,
        start: Path | None,
        on_step: Callable[[Progress], None],
    ) -> Path:
        how: dict[str, Any] = {"loss": loss, "until": until, "start": start, "on_step": on_step}
        apart = self._cards is not None and self._cards.busy  # the other cards train something else
        found = train_on_cards(self, rows, options, folder, **how) if not apart else None
        return found if found is not None else self.train_tokens(rows, options, folder, **how)

    @property
    def cards(self) -> Cards | None:
        """The processes on the other cards that this run may use, started when they are needed; None: there are none.

        A card is "cuda:1", say; on the CPU, RUNG_CARDS asks for processes.
        """
        if self._cards is None and (names := other_cards(self.engine.device)):
            dtype = str(self.engine.dtype).removeprefix("torch.")
            self._cards = Cards(names, self.name, self.version, dtype, torch.get_num_threads())
            weakref.finalize(self, self._cards.close)
        return self._cards

    def ahead(self, jobs: Sequence[Ahead], say: Callable[[str], None]) -> AbstractContextManager[None]:
        """Within: other cards do these trainings, and `train` and `prefer` wait for what they have begun.

        With one card, nothing. say: hears what went wrong there.
        """
        cards = self.cards if jobs else None
        return cards.ahead(jobs, say) if cards is not None else nullcontext()

    def _trained_ahead(
        self, folder: Path, options: TrainingOptions, until: int | None, on_step: Callable[[Progress], None]
    ) -> Path | None:
        return self._cards.take(folder, until or options.steps, on_step) if self._cards is not None else None

    def start_cards(self) -> None:
        """Has the other cards load the model, so that they are ready when something is to be trained."""
        if self.cards is not None:
            self.cards.start()

    def close_cards(self) -> None:
        """Ends what stands by on the other cards for trainings side by side, and holds their memory."""
        if self._cards is not None:
            self._cards.close()

    def train_tokens(
        self,
        rows: Sequence[TokenRow] | Sequence[TokenPair],
        options: TrainingOptions,
        folder: Path,
        *,
        loss: Loss = ANSWERS,
        until: int | None = None,
        start: Path | None = None,
        on_step: Callable[[Progress], None] = lambda _: None,
        peers: Peers | None = None,
    ) -> Path:
        """Trains in this process on rows of token ids (`encode_rows`); the arguments are those of `loop.train`.

        peers: the processes that train this together, each of which calls this with the same arguments; None: this one
        alone.
        """
        return train_rows(
            self.engine,
            rows,  # type: ignore[type-var]
            options,
            folder,
            loss=loss,
            until=until,
            start=start,
            on_step=on_step,
            beside=self._save_tokenizer,
            peers=peers or Alone(),
        )

    @contextmanager
    def _training(self) -> Iterator[None]:
        """Within: a training, after which what was kept for it is let go."""
        try:
            with self._memory_errors():
                yield
        finally:
            self.forget_rows()
            give_back_surplus(self.engine.device)

    def _save_tokenizer(self, folder: Path) -> None:
        """Writes tokenizer, chat template and generation config: the very files of this model where they are there."""
        source = self.folder
        files = [path for name in BESIDE_WEIGHTS for path in source.glob(name)] if source is not None else []
        if source is None or not files:
            self.chat.tokenizer.save_pretrained(folder)
            return
        for path in files:
            place = folder / path.relative_to(source)
            place.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, place)

    def loss(self, rows: Sequence[TrainingRow], adapter: Path | None) -> float:
        """Mean loss per answer token, end token included. adapter None: the base network."""
        with self._memory_errors():
            return mean_loss(self.engine, self.encode_rows(rows), adapter)

    def row_losses(self, rows: Sequence[TrainingRow], adapter: Path | None) -> list[float]:
        """As `loss`, of each row by itself, in order: what given answers are compared by."""
        with self._memory_errors():
            return row_losses(self.engine, self.encode_rows(rows), adapter)

    def release(self, adapter: Path) -> None:
        """Frees an adapter's weights and what was computed with it; a folder rewritten on disk is then read afresh."""
        self.engine.forget_adapter(str(adapter))

    def check_fits(self, adapter: Path, change: Callable[[Callable[[], bool]], bool] = lambda work: work()) -> None:
        """Raises ModelError unless the adapter folder fits this network, and computes numbers with it where it shares
        passes with others; its weights stay loaded.

        May be called from any thread where `change` does its work in the thread that computes.
        """
        with self._memory_errors():
            held = self.engine.adapters.hold(str(adapter))
            mixable = held or change(partial(self.engine.adapters.mixable, str(adapter)))
            if mixable and not change(partial(self._computes_numbers, str(adapter))):
                raise ModelError(
                    f"adapter {adapter.name}: with it, {self.name} computes no numbers, because its weights are too "
                    "large or its training diverged. Train it again, at a lower learning rate."
                )

    def _computes_numbers(self, adapter: str) -> bool:
        """Whether answers with an adapter have probabilities. Others that share a pass with it might get none either:
        what one row must not see is added to its scores as minus infinity, and no number absorbs one that is none."""
        (found,) = logprobs(self.engine, adapter, [(_TRIED[:-4], _TRIED[-4:])])
        if not all(map(math.isfinite, found)):
            self.engine.forget_adapter(adapter)
            return False
        return True

    # ---- what it knows of its own computing --------------------------------------------------

    @property
    def computed_tokens(self) -> int:
        """Tokens that went through the network so far: a shared prefix once, a trained token twice.

        Those that other cards computed are among them.
        """
        return self.engine.computed_tokens + (self._cards.computed_tokens if self._cards is not None else 0)

    def speed(self) -> Speed:
        """Tokens per second on this machine: measured at first use, then read from the cache folder."""
        from rung.models.speed import kept_speed, measured_speed, quick_read_speed

        if self._speed is None:
            self._speed = kept_speed(
                *self.timed_as,
                lambda: measured_speed(self.engine),
                lambda kept: quick_read_speed(self.engine, kept),
            )
        return self._speed

    @property
    def timed_as(self) -> tuple[str, str]:
        """What its speed is kept by: its computing, and the machine."""
        from rung.models.speed import ways_part

        path = "" if self.engine.path == "tree" else f"-{self.engine.path}"
        path += ways_part(self.engine.ways, self.engine.device)
        return self.answers_key + path, f"{device_name(self.engine.device)} {torch.get_num_threads()}"

    def describe(self) -> dict[str, Any]:
        """Device, type and threads that it computes with."""
        return {
            "device": self.engine.device.type,
            "device_name": device_name(self.engine.device),
            "dtype": str(self.engine.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
        }

    def facts(self) -> dict[str, Any]:
        """What the record of a run keeps of it: `computed`, where it is not one process on the CPU in the plain way."""
        beside = self._cards.trained if self._cards is not None else 0
        computed = computed_with(self.engine, max(self.trained_on, 1 + beside))
        return {"computed": computed} if computed else {}

    @property
    def remark(self) -> str | None:
        """What its user should know before it is put to work, in a sentence."""
        if self.engine.path == "tree":
            return None
        return f"{self.name} runs as transformers computes it, slower: {self.engine.reason}."

    @property
    def thought_tokens(self) -> int:
        """Room for a thought before each answer without an adapter; 0 where the model can be asked not to think."""
        return THOUGHT_TOKENS if self.chat.thought is not None else 0

    @property
    def parameters(self) -> int:
        """Number of weights of the base network, without adapters."""
        return int(sum(p.numel() for n, p in self.network.named_parameters() if ".lora_" not in n))

    @contextmanager
    def _memory_errors(self) -> Iterator[None]:
        """Within: what torch raises when memory runs out becomes OutOfMemory."""
        try:
            yield
        except OutOfMemory:
            raise
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            fact = first_line(error)
            raise OutOfMemory(f"model {self.name}: memory ran out ({fact}). Close other programs.") from error
