"""For tests of rung and of what is built on it: fake models that tell the truth, and a tiny real one.

None needs a network. `FakeModel` computes nothing: it answers from a function or a table. `FakeTrainable` also learns:
its adapters are tables of what it was trained on. Both run without torch. `tiny_model` is a Llama of a few thousand
random weights: its answers mean nothing, but every token, gradient and adapter takes the same path as in a large one.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import struct
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.errors import DOES_NOT_FIT, ConstraintError, Diverged, ModelError, TrainingError, TruncatedAnswer
from rung.records import read_json, write_json
from rung.resume import folder_once
from rung.types import (
    DPO,
    Constraint,
    Generation,
    Message,
    PreferenceRow,
    Price,
    Progress,
    Request,
    TrainingOptions,
    TrainingRow,
)

if TYPE_CHECKING:
    from rung.models.local import LocalModel

TINY_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""ChatML, without a default system turn."""

_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_WORDS = ("the", "ing", "user", "system", "assistant", "answer", " the", " card", " a")  # longer tokens, to have some

Answers = Mapping[str, str] | Callable[[Request], str | Exception]

_LEARNT_LOSS, _UNKNOWN_LOSS = 0.1, 2.0  # per answer token, of a FakeTrainable
_HIGHEST_RATE = 1.0  # a FakeTrainable diverges above it


class FakeModel:
    """A complete Model that answers from `answers`: the same requests always give the same texts.

    answers: a mapping from the last user turn to the answer, or a function of the request. A missing entry, or an
    exception that the function returns or raises, is a Generation with that error. A token is a word. An answer longer
    than max_new_tokens, or than the context allows, is cut there and finishes with "length".
    The constraint of a request is not enforced: the function sees it.
    requests: all that were asked, in order. calls: the number of requests of each call of generate.
    """

    def __init__(
        self,
        answers: Answers,
        *,
        name: str = "fake",
        version: str = "1",
        context_length: int = 8192,
        price: Price | None = None,
        latency_s: float = 0.001,
    ) -> None:
        self.name = name
        self.version = version
        self.context_length = context_length
        self.price = price
        self.requests: list[Request] = []
        self.calls: list[int] = []
        self._answers = answers
        self._latency_s = latency_s

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """One Generation a request, in order."""
        self.requests += requests
        self.calls.append(len(requests))
        return [self._generation(request) for request in requests]

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def check(self, constraint: Constraint) -> None:
        """Raises ConstraintError for an empty set of labels and for a pattern that is no regular expression."""
        if not constraint.value:
            raise ConstraintError(f"{constraint.kind}: there is nothing in it.")
        if constraint.kind == "regex":
            try:
                re.compile(str(constraint.value))
            except re.error as error:
                raise ConstraintError(f"pattern: no grammar can be made of it ({error}).") from None

    def _generation(self, request: Request) -> Generation:
        tokens_in = sum(self.count_tokens(m.content) for m in request.messages)
        room = min(request.decoding.max_new_tokens, self.context_length - tokens_in)
        if room < 1:
            fact = f"prompt of {tokens_in} tokens {DOES_NOT_FIT} of {self.context_length}"
            return Generation("", tokens_in, 0, 0.0, "error", fact)
        found = self._answer(request)
        if isinstance(found, Exception):
            return Generation("", tokens_in, 0, self._latency_s, "error", str(found) or type(found).__name__)
        words = found.split()
        if len(words) <= room:
            return Generation(found, tokens_in, len(words), self._latency_s)
        return Generation(" ".join(words[:room]), tokens_in, room, self._latency_s, "length")

    def _answer(self, request: Request) -> str | Exception:
        return _from(self._answers, request)


class FakeTrainable(FakeModel):
    """A FakeModel that adapters can be trained for. What it has learnt is exact, and stands in the adapter's folder.

    After s of the options' steps it has learnt min(1, s x batch_size / rows) of its rows, in an order drawn from the
    seed: under the adapter it gives their answers to their last user turns. To any other input it gives the answer of
    `taught` for the same share of inputs, and answers the rest as without an adapter. Of pairs it learns the chosen
    answers, in the same way.

    taught: what training can teach beyond its rows, as `answers`; None: nothing.
    Rates above 1 diverge. The loss per answer token is 0.1 where a row has been learnt, else 2.0.
    """

    def __init__(self, answers: Answers, *, taught: Answers | None = None, **more: Any) -> None:
        super().__init__(answers, **more)
        self._taught: Answers = taught if taught is not None else {}
        self._loaded: dict[str, dict[str, Any]] = {}

    def train(
        self,
        rows: Sequence[TrainingRow],
        options: TrainingOptions,
        folder: Path,
        *,
        until: int | None = None,
        start: Path | None = None,
        on_step: Callable[[Progress], None] = lambda _: None,
        **claimed: Any,
    ) -> Path:
        """As in `types.Trainable`; a checkpoint is a number of steps. claimed: what the folder's claim says beyond it.

        Raises TrainingError and Diverged.
        """
        until = options.steps if until is None else min(until, options.steps)
        result = folder / f"step-{until}"
        if (result / "adapter_config.json").is_file():
            return result
        self._refuse_long(rows)
        self._claim(folder, rows, {"options": asdict(options), **claimed}, start)
        if options.learning_rate > _HIGHEST_RATE:
            raise Diverged(f"training in {folder}: the loss is nan at step 1. Use a lower learning rate.")
        done = int((read_json(folder / "checkpoint.json") or {"step": 0})["step"])
        tokens = sum(self._length(row) for row in rows) // max(1, len(rows)) * options.batch_size
        for step in range(done + 1 if done <= until else 1, until + 1):
            share = self._share(len(rows), options, step)
            loss = share * _LEARNT_LOSS + (1 - share) * _UNKNOWN_LOSS
            try:
                on_step(Progress(step, options.steps, loss, step * tokens, step * self._latency_s))
            except BaseException:
                write_json(folder / "checkpoint.json", {"step": max(step, done)})
                raise
        write_json(folder / "checkpoint.json", {"step": max(until, done)})
        return folder_once(result, lambda scratch: self._save(scratch, rows, options, until, start))

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
        self._refuse_long([TrainingRow(row.name, row.messages, row.rejected) for row in rows])
        chosen = [TrainingRow(row.name, row.messages, row.chosen) for row in rows]
        claimed = {"preferences": asdict(how), "rejected": [row.rejected for row in rows]}
        if not (folder / "training.json").is_file():
            on_step(Progress(0, options.steps, 0.0, 0, 0.0))
        return self.train(chosen, options, folder, until=until, start=start, on_step=on_step, **claimed)

    def too_long(self, rows: Sequence[TrainingRow]) -> list[TrainingRow]:
        return [row for row in rows if self._length(row) > self.context_length]

    def loss(self, rows: Sequence[TrainingRow], adapter: Path | None) -> float:
        """Mean over the answers' tokens: an answer counts as learnt where it is the answer under the adapter."""
        self._refuse_long(rows)
        tokens = [self.count_tokens(row.answer) + 1 for row in rows]
        losses = [_LEARNT_LOSS if self._knows(row, adapter) else _UNKNOWN_LOSS for row in rows]
        return sum(n * loss for n, loss in zip(tokens, losses, strict=True)) / sum(tokens)

    def release(self, adapter: Path) -> None:
        self._loaded.pop(str(adapter), None)

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """One Generation a request, in order. Raises ModelError when an adapter's folder holds none of its adapters."""
        for folder in {request.adapter for request in requests if request.adapter is not None}:
            self._adapter(folder)
        return super().generate(requests)

    def _answer(self, request: Request) -> str | Exception:
        if request.adapter is not None:
            adapter, asked = self._adapter(request.adapter), _last_user(request.messages)
            if asked in adapter["table"]:
                return str(adapter["table"][asked])
            if _place_of(asked) < adapter["share"]:
                taught = _from(self._taught, request)
                if not isinstance(taught, Exception):
                    return taught
        return super()._answer(request)

    def _knows(self, row: TrainingRow, adapter: Path | None) -> bool:
        return adapter is not None and self._adapter(str(adapter))["table"].get(_last_user(row.messages)) == row.answer

    def _length(self, row: TrainingRow) -> int:
        return sum(self.count_tokens(m.content) for m in row.messages) + self.count_tokens(row.answer) + 1

    def _refuse_long(self, rows: Sequence[TrainingRow]) -> None:
        if long := self.too_long(rows):
            raise TruncatedAnswer(f"{len(long)} of {len(rows)} training rows do not fit, {long[0].name} first.")

    @staticmethod
    def _share(rows: int, options: TrainingOptions, step: int) -> float:
        return min(1.0, step * options.batch_size / max(1, rows))

    @staticmethod
    def _claim(folder: Path, rows: Sequence[TrainingRow], said: Mapping[str, Any], start: Path | None) -> None:
        """The folder belongs to these rows and first weights, and to what is said beside them."""
        content = repr([(row.messages, row.answer) for row in rows])
        begins = (start / "adapter_model.safetensors").read_bytes() if start is not None else b""
        claim = {
            **said,
            "rows_sha256": hashlib.sha256(content.encode()).hexdigest(),
            "start_sha256": hashlib.sha256(begins).hexdigest(),
        }
        written = read_json(folder / "training.json")
        if written is None:
            write_json(folder / "training.json", claim)
        elif written != claim:
            raise TrainingError(f"{folder}: holds another training. Name another folder or remove it.")

    def _save(
        self, folder: Path, rows: Sequence[TrainingRow], options: TrainingOptions, step: int, start: Path | None
    ) -> None:
        share = self._share(len(rows), options, step)
        order = random.Random(options.seed).sample(range(len(rows)), len(rows))
        learnt = [rows[i] for i in order[: round(share * len(rows))]]
        table = dict(self._adapter(str(start))["table"]) if start is not None else {}
        table.update((_last_user(row.messages), row.answer) for row in learnt)
        known = self._adapter(str(start))["share"] if start is not None else 0.0
        content = json.dumps({"table": table, "share": max(share, known)}, ensure_ascii=False).encode()
        header = json.dumps({"learnt": {"dtype": "U8", "shape": [len(content)], "data_offsets": [0, len(content)]}})
        (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header.encode() + content)
        write_json(folder / "adapter_config.json", {"base_model_name_or_path": self.name, "peft_type": "FAKE"})

    def _adapter(self, folder: str) -> dict[str, Any]:
        """What an adapter has learnt, read at first use."""
        if folder not in self._loaded:
            try:
                written = (Path(folder) / "adapter_model.safetensors").read_bytes()
                self._loaded[folder] = json.loads(written[8 + struct.unpack("<Q", written[:8])[0] :])
            except (OSError, ValueError, struct.error) as error:
                raise ModelError(f"adapter {folder}: it is none of {self.name} ({error}).") from error
        return self._loaded[folder]


def _from(answers: Answers, request: Request) -> str | Exception:
    if callable(answers):
        try:
            return answers(request)
        except Exception as error:
            return error
    asked = _last_user(request.messages)
    return answers.get(asked, KeyError(f"no answer for {asked!r}"))


def _last_user(messages: Sequence[Message]) -> str:
    return next(m.content for m in reversed(messages) if m.role == "user")


def _place_of(text: str) -> float:
    """A fixed place in [0, 1) for a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def tiny_model(seed: int = 0, *, template: str | None = TINY_TEMPLATE) -> LocalModel:
    """A tiny random Llama in float32, loaded like any model. Equal seeds give equal weights. Takes about 0.1 s."""
    import torch

    from rung.models.loading import load_model

    with tempfile.TemporaryDirectory() as folder:
        place = save_tiny_model(Path(folder), seed, template=template)
        model = load_model(str(place), device="cpu", dtype=torch.float32)
    model.name, model.version, model.answers_key = "tiny", f"tiny-{seed}", f"tiny-{seed}-float32"
    return model


def save_tiny_model(folder: Path, seed: int = 0, *, template: str | None = TINY_TEMPLATE) -> Path:
    """Writes the tiny model as a Hugging Face folder (safetensors, config, tokenizer) and returns the folder.

    2 layers, width 32, 4 heads, 2 key-value heads, context of 2,048 tokens. The padding token, the end of
    text and the end of a turn are one token, as in many small models. template: None saves a tokenizer without one.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging as hf_logging

    hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    tokenizer = _tiny_tokenizer(template)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        initializer_range=0.3,  # large enough that the two likeliest tokens are never nearly equal
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = LlamaForCausalLM(config)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def byte_level_bpe(special: Sequence[str], words: Sequence[str], **names: str) -> Any:
    """A small tokenizer of transformers: special tokens, every byte, and the words with all of their beginnings.

    names: the tokens with a role, such as eos_token.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    make: Any = PreTrainedTokenizerFast  # untyped
    vocabulary = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges: list[tuple[str, str]] = []
    for word in words:
        text = word.replace(" ", "\u0120")
        for end in range(2, len(text) + 1):
            if text[:end] not in vocabulary:
                vocabulary.append(text[:end])
                merges.append((text[: end - 1], text[end - 1]))
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(vocabulary)}, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return make(tokenizer_object=backend, clean_up_tokenization_spaces=False, **names)


def _tiny_tokenizer(template: str | None) -> Any:
    tokenizer = byte_level_bpe(
        _SPECIAL,
        _WORDS,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
    )
    tokenizer.chat_template = template
    return tokenizer


class Silent:
    """A listener that prints nothing and remembers what it heard."""

    def __init__(self) -> None:
        self.skips: dict[str, str] = {}
        self.tries: list[str] = []
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def planned(self, *_: object) -> None: ...
    def progress(self, *_: object) -> None: ...

    def tried(self, name: str, *_: object) -> None:
        self.tries.append(name)

    def skipped(self, name: str, why: str) -> None:
        self.skips[name] = why
