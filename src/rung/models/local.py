"""A model in this process: messages in, texts and usage out. What runs it is in `engine` and `decode`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from rung.errors import ModelError
from rung.engine import attention
from rung.engine.adapters import check_adapter as check_adapter
from rung.models.catalogue import Say, ensure_model, fingerprint
from rung.models.chat_template import ChatFormat
from rung.engine.decode import Job, decode, logprobs
from rung.engine.engine import Engine
from rung.engine.grammar import Grammars, Matcher
from rung.engine.layers import unfuse_layers
from rung.engine.prefix_tree import grow
from rung.types import Constraint, Generation, Message, Request


class LocalModel:
    """A causal language model in this process. Load with `load_model`."""

    def __init__(self, engine: Engine, tokenizer: Any, *, name: str, version: str) -> None:
        self.name = name
        self.version = version
        self.engine = engine
        self.network = engine.network
        self.device = self.engine.device
        self.chat = ChatFormat(tokenizer)
        self.context_length = _context_length(self.network.config.get_text_config())
        self.answered = 0
        """Requests that were answered so far, failed ones among them."""
        self._grammars: Grammars | None = None

    # ---- text ------------------------------------------------------------------------------

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a rendered prompt; training and answering both come through here."""
        return self.chat.encode(messages)

    def encode_answer(self, text: str) -> list[int]:
        """Ids of an answer with its end token."""
        return self.chat.encode_answer(text)

    def count_tokens(self, text: str) -> int:
        return self.chat.count(text)

    @property
    def parameters(self) -> int:
        """Weights of the base network, adapters not counted."""
        return int(sum(p.numel() for n, p in self.network.named_parameters() if ".lora_" not in n))

    @property
    def computed_parameters(self) -> int:
        """Weights that every token passes through: the base network without its embedding."""
        return self.parameters - int(self.network.get_input_embeddings().weight.numel())

    @property
    def answers_as(self) -> str:
        """A file name for what is kept of its answers: its files and the type that it computes in decide them."""
        return f"{self.version[:16]}-{str(self.engine.dtype).removeprefix('torch.')}"

    # ---- answering -------------------------------------------------------------------------

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """One Generation a request, in order. A prompt too long for the context is a Generation with an error.

        An answer has the room that its prompt leaves, at most what was asked for.
        """
        self.answered += len(requests)
        results: list[Generation | None] = [None] * len(requests)
        jobs: list[Job] = []
        places: list[int] = []
        for i, request in enumerate(requests):
            decoding = request.decoding
            try:
                prompt = self.chat.encode(request.messages)
            except Exception as error:  # templates refuse turns by raising whatever they like
                results[i] = Generation("", 0, 0, 0.0, "error", f"the chat template refused the turns ({error})")
                continue
            room = min(decoding.max_new_tokens, self.context_length - len(prompt))
            if room < 1:
                fact = f"prompt of {len(prompt)} tokens does not fit the context of {self.context_length}"
                results[i] = Generation("", len(prompt), 0, 0.0, "error", fact)
                continue
            matcher = self._matcher(request)
            jobs.append(Job(prompt, room, decoding.temperature, decoding.seed, matcher, request.adapter))
            places.append(i)
        started = time.perf_counter()
        for answers in decode(self.engine, jobs, self.chat.stop_ids):
            taken = time.perf_counter() - started
            for job, ids in answers:
                stopped = bool(ids) and ids[-1] in self.chat.stop_ids
                text = self.chat.decode(ids[:-1] if stopped else ids)
                results[places[job]] = Generation(
                    text, len(jobs[job].prompt), len(ids), taken, "stop" if stopped else "length"
                )
            started = time.perf_counter()
        return [r for r in results if r is not None]

    def logprobs(
        self, messages: Sequence[Message], answers: Sequence[str], *, adapter: str | None = None
    ) -> list[list[float]]:
        """Log-probability of each token of each answer, the end token last. All answers are scored in one pass."""
        prompt = self.encode(messages)
        return logprobs(self.engine, adapter, [(prompt, self.encode_answer(answer)) for answer in answers])

    def check_constraint(self, constraint: Constraint) -> None:
        """Raises ConstraintError when no grammar can be made of it."""
        self._grammar_of().matcher(constraint)

    def _grammar_of(self) -> Grammars:
        if self._grammars is None:
            self._grammars = Grammars(self.chat.tokenizer, self.engine.vocabulary, self.chat.end_id)
        return self._grammars

    def _matcher(self, request: Request) -> Matcher | None:
        if request.constraint is None:
            return None
        return self._grammar_of().matcher(request.constraint)

    # ---- adapters --------------------------------------------------------------------------

    def using(self, adapter: str | None) -> AbstractContextManager[None]:
        """Within: the network with this adapter folder applied (None: the base network)."""
        return self.engine.adapters.using(adapter)

    def forget_adapter(self, folder: str) -> None:
        """Frees an adapter's weights and what was computed with it; a folder rewritten on disk is read afresh."""
        self.engine.forget_adapter(folder)


def load_model(
    spec: str,
    *,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    threads: int | None = None,
    say: Say = lambda _: None,
) -> LocalModel:
    """The model of that name, on a GPU when there is one.

    spec: as for `ensure_model`. device: "cpu" or "cuda"; None chooses. dtype: to compute in; None: the fastest.
    threads: CPU threads; None: as torch chooses.
    Raises ModelError or DownloadError.
    """
    from transformers import AttentionInterface, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as hf_logging

    folder = ensure_model(spec, say=say)
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    if threads is not None:
        torch.set_num_threads(threads)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or fastest_dtype(device)
    AttentionInterface.register(attention.NAME, attention.attention)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        network = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, use_safetensors=True, attn_implementation="eager"
        )
    except Exception as error:  # torn files, unknown architectures: each library raises its own kinds
        fact = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"model {spec}: {folder} cannot be loaded ({fact}).") from error
    placed: Any = network  # transformers types `to` as taking no argument
    engine = _engine(placed.to(device).eval(), spec)
    return LocalModel(engine, tokenizer, name=spec, version=fingerprint(folder))


_PROBE_SHAPE = (64, 576, 1536)  # tokens x a small model's projection
_PROBES = 12
_CLEARLY_FASTER = 1.5  # what bfloat16 must be for its coarser rounding to pay; far from the noise of a timing


def fastest_dtype(device: str) -> torch.dtype:
    """The type to compute in: bfloat16 where the machine has matrix units for it, else float32 (float16 on old GPUs).

    A CPU is asked by matrix products of a few milliseconds: without such units bfloat16 is several times slower.
    """
    if device != "cpu":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    whole, half = _product_seconds(torch.float32, torch.bfloat16)
    return torch.bfloat16 if half * _CLEARLY_FASTER < whole else torch.float32


def _product_seconds(*dtypes: torch.dtype) -> list[float]:
    """The best time of a matrix product in each type, taken in turn, so that other work on the machine meets all."""
    rows, inner, columns = _PROBE_SHAPE
    pairs = [(torch.ones(rows, inner, dtype=t), torch.ones(inner, columns, dtype=t)) for t in dtypes]
    best = [float("inf")] * len(dtypes)
    for _ in range(_PROBES):
        for place, (a, b) in enumerate(pairs):
            started = time.perf_counter()
            _ = a @ b
            best[place] = min(best[place], time.perf_counter() - started)
    return best


def _engine(network: Any, spec: str) -> Engine:
    """An engine that computes what transformers computes with this network, to rounding.

    Layers whose fused form does not are left as they are; where attention itself is of another kind
    (capped or windowed scores, sinks), raises ModelError. In half precision fused layers round less than
    transformers' own, so they may come as near to what it computes in float32 instead.
    """
    ids = [(7 * i) % min(network.config.get_text_config().vocab_size, 1000) for i in range(24)]
    given = torch.tensor([ids], device=next(network.parameters()).device)
    with torch.inference_mode():
        expected = [network(given).logits[0].float()]
        if network.dtype != torch.float32:
            with _in_float32(network):
                expected.append(network(given).logits[0])
    network.set_attn_implementation(attention.NAME)
    engine = Engine(network, spec)
    tree = grow([ids[:20], ids])  # a shared node and one below it
    tolerance = 1e-3 if engine.dtype == torch.float32 else 5e-2
    fact = "its attention is of a kind that is not known here"
    for fused in (True, False):
        if not fused:
            unfuse_layers(network)
            engine.narrows = False
        try:
            with torch.inference_mode():
                found = engine.logits(engine.hidden_of(tree))
        except (TypeError, AttributeError, IndexError, RuntimeError) as error:
            fact = str(error).strip().splitlines()[0]
            continue
        if any(bool((logits - found).abs().max() <= tolerance * logits.abs().max()) for logits in expected):
            return engine
    raise ModelError(
        f"model {spec}: this engine cannot compute it ({fact}). "
        "Models of the Llama, Mistral, Qwen and SmolLM kinds work."
    )


@contextmanager
def _in_float32(network: Any) -> Iterator[None]:
    """Within: the network computes in float32. Weights are converted as they are used: no second copy need fit."""
    given: dict[torch.nn.Parameter, torch.Tensor] = {}

    def convert(module: torch.nn.Module, _: Any) -> None:
        for parameter in module.parameters(recurse=False):
            given.setdefault(parameter, parameter.data)
            parameter.data = parameter.data.float()

    def restore(module: torch.nn.Module, *_: Any) -> None:
        for parameter in module.parameters(recurse=False):
            parameter.data = given.pop(parameter, parameter.data)

    modules = [m for m in network.modules() if next(m.parameters(recurse=False), None) is not None]
    hooks = [hook for m in modules for hook in (m.register_forward_pre_hook(convert), m.register_forward_hook(restore))]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for parameter, data in given.items():
            parameter.data = data


def _context_length(config: Any) -> int:
    """The positions the model knows; with a sliding window, the window, within which it attends to everything."""
    positions = int(getattr(config, "max_position_embeddings", 0) or 4096)
    window = getattr(config, "sliding_window", None)
    slides = "sliding_attention" in (getattr(config, "layer_types", None) or ["sliding_attention"])
    return min(positions, int(window)) if window and slides else positions
