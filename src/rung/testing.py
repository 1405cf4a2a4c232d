"""For tests of rung and of what is built on it: a tiny real model, and a fake one that tells the truth.

Neither needs a network. `tiny_model` is a Llama of a few thousand random weights: its answers mean
nothing, but every token, gradient and adapter goes the way of a large one. `FakeModel` computes
nothing: it answers from a function or a table.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.types import Generation, Request

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


class FakeModel:
    """A Model that answers from `answers`.

    answers: a mapping from the last user turn to the answer, or a function of the request. A missing
    entry, or an exception that the function returns or raises, is a Generation with that error. A token is a word;
    an answer longer than max_new_tokens is cut there and finishes with "length".
    requests: all that were asked, in order; calls: how many each call of generate brought.
    """

    def __init__(self, answers: Answers, *, name: str = "fake", latency_s: float = 0.001) -> None:
        self.name = name
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

    def _generation(self, request: Request) -> Generation:
        tokens_in = sum(self.count_tokens(m.content) for m in request.messages)
        found = self._answer(request)
        if isinstance(found, Exception):
            return Generation("", tokens_in, 0, self._latency_s, "error", str(found) or type(found).__name__)
        words = found.split()
        room = request.decoding.max_new_tokens
        if len(words) <= room:
            return Generation(found, tokens_in, len(words), self._latency_s)
        return Generation(" ".join(words[:room]), tokens_in, room, self._latency_s, "length")

    def _answer(self, request: Request) -> str | Exception:
        if callable(self._answers):
            try:
                return self._answers(request)
            except Exception as error:
                return error
        asked = next(m.content for m in reversed(request.messages) if m.role == "user")
        return self._answers.get(asked, KeyError(f"no answer for {asked!r}"))


def tiny_model(seed: int = 0, *, template: str | None = TINY_TEMPLATE) -> LocalModel:
    """A tiny random Llama in float32, loaded as any model is. Equal seeds give equal weights; about 0.1 s."""
    import torch

    from rung.models.local import load_model

    with tempfile.TemporaryDirectory() as folder:
        place = save_tiny_model(Path(folder), seed, template=template)
        model = load_model(str(place), device="cpu", dtype=torch.float32)
    model.name, model.version = "tiny", f"tiny-{seed}"
    return model


def save_tiny_model(folder: Path, seed: int = 0, *, template: str | None = TINY_TEMPLATE) -> Path:
    """Writes the tiny model as a Hugging Face folder (safetensors, config, tokenizer) and returns the folder.

    2 layers, width 32, 4 heads, 2 key-value heads, context of 2,048 tokens. pad, eos and the end of a
    turn are one token, as in many small models. template: None saves a tokenizer without a chat template.
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
        initializer_range=0.3,  # far from uniform, so that the most likely token is never a near tie
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = LlamaForCausalLM(config)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tiny_tokenizer(template: str | None) -> Any:
    """Byte-level BPE: every byte, a few longer tokens, three special ones."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    make: Any = PreTrainedTokenizerFast  # untyped
    vocabulary = [*_SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges: list[tuple[str, str]] = []
    for word in _WORDS:
        text = word.replace(" ", "\u0120")
        for end in range(2, len(text) + 1):
            if text[:end] not in vocabulary:
                vocabulary.append(text[:end])
                merges.append((text[: end - 1], text[end - 1]))
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(vocabulary)}, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _SPECIAL])
    tokenizer = make(
        tokenizer_object=backend,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = template
    return tokenizer


class Silent:
    """A listener that remembers."""

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
