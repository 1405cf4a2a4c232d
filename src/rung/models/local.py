"""The local engine: one base network, adapters on demand, answers in batches behind a shared beginning.

Requests are grouped by adapter; the beginning all of a group share is computed once; rows of similar
length share a batch; finished rows leave it; logits are computed for the next token only. Batches
depend on the list of requests alone, so the same list gives the same texts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from rung.errors import ModelError
from rung.models import attention
from rung.models.attention import Beginning, RowCache, causal_mask, common_beginning, packed_mask, parts_by_length
from rung.models.catalogue import Say, ensure_model, fingerprint
from rung.models.chat import ChatFormat
from rung.models.grammar import Grammars, Matcher
from rung.types import Constraint, Generation, Message, Request

_CACHE_BYTES = {"cpu": 400 << 20, "cuda": 24 << 30}  # keys and values of the rows of one batch
_PROMPT_TOKENS = {"cpu": 2048, "cuda": 32768}  # of prompts, that go through the network at once
_MAX_ROWS = {"cpu": 64, "cuda": 512}
_KEPT_BEGINNINGS = 4
_NO_ADAPTER = "none"


class LocalModel:
    """A causal language model in this process. Load with `load_model`."""

    def __init__(self, network: Any, tokenizer: Any, *, name: str, version: str) -> None:
        self.name = name
        self.version = version
        self.network = network.eval()
        self.chat = ChatFormat(tokenizer)
        self.device = next(network.parameters()).device
        self.dtype = next(network.parameters()).dtype
        config = network.config.get_text_config()
        self.context_length = _context_length(config)
        self.vocabulary = int(network.get_output_embeddings().weight.shape[0])
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self._cache_bytes_per_token = 2 * config.num_hidden_layers * heads * width * self.dtype.itemsize
        self._grammars: Grammars | None = None
        self._peft: Any = None
        self._adapters: dict[str, str] = {}
        self._adapters_named = 0
        self._beginnings: dict[tuple[str | None, tuple[int, ...]], Beginning] = {}
        self.shares_beginnings = self._check_shared_beginning()

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

    # ---- answering -------------------------------------------------------------------------

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """One Generation a request, in order. A prompt too long for the context is a Generation with an error."""
        prompts: list[list[int]] = []
        results: list[Generation | None] = [None] * len(requests)
        for i, request in enumerate(requests):
            try:
                prompts.append(self.chat.encode(request.messages))
            except Exception as error:  # templates refuse turns by raising whatever they like
                prompts.append([])
                results[i] = Generation("", 0, 0, 0.0, "error", f"the chat template refused the turns ({error})")
        for adapter in dict.fromkeys(r.adapter for r in requests):
            places = []
            for i, request in enumerate(requests):
                if request.adapter != adapter or results[i] is not None:
                    continue
                if len(prompts[i]) + request.decoding.max_new_tokens > self.context_length:
                    fact = f"prompt of {len(prompts[i])} tokens does not fit the context of {self.context_length}"
                    results[i] = Generation("", len(prompts[i]), 0, 0.0, "error", fact)
                else:
                    places.append(i)
            if places:
                with self.using(adapter), torch.inference_mode():
                    self._generate_group(requests, prompts, places, results)
        return [r for r in results if r is not None]

    def _generate_group(
        self,
        requests: Sequence[Request],
        prompts: list[list[int]],
        places: list[int],
        results: list[Generation | None],
    ) -> None:
        shared = common_beginning([prompts[i] for i in places]) if self.shares_beginnings else 0
        beginning = self._beginning(requests[places[0]].adapter, prompts[places[0]][:shared]) if shared else None
        by_length = sorted(places, key=lambda i: (len(prompts[i]), i))
        while by_length:
            rows = self._next_batch(requests, prompts, by_length, shared)
            del by_length[: len(rows)]
            started = time.perf_counter()
            matchers = [self._matcher(requests[i]) for i in rows]
            outputs = self._decode(
                beginning, [prompts[i][shared:] for i in rows], [requests[i] for i in rows], matchers
            )
            taken = time.perf_counter() - started
            for i, ids in zip(rows, outputs, strict=True):
                stopped = bool(ids) and ids[-1] in self.chat.stop_ids
                text = self.chat.decode(ids[:-1] if stopped else ids)
                finish = "stop" if stopped else "length"
                results[i] = Generation(text, len(prompts[i]), len(ids), taken, finish)  # type: ignore[arg-type]

    def _next_batch(
        self, requests: Sequence[Request], prompts: list[list[int]], by_length: list[int], shared: int
    ) -> list[int]:
        room = _CACHE_BYTES.get(self.device.type, 400 << 20) // self._cache_bytes_per_token
        rows: list[int] = []
        longest = new = 0
        for i in by_length:
            longest = max(longest, len(prompts[i]) - shared)
            new = max(new, requests[i].decoding.max_new_tokens)
            count = len(rows) + 1
            if rows and (count > _MAX_ROWS.get(self.device.type, 64) or count * (longest + new) > room):
                break
            rows.append(i)
        return rows

    def _decode(
        self,
        beginning: Beginning | None,
        own: list[list[int]],
        requests: list[Request],
        matchers: list[Matcher | None],
    ) -> list[list[int]]:
        """Token ids of each row's answer, the end token included when it came. own: shortest first."""
        lengths = torch.tensor([len(row) for row in own], device=self.device)
        width = int(lengths.max())
        most = max(r.decoding.max_new_tokens for r in requests)
        cache = RowCache(len(own), width, width + most)
        last = self._prompts(beginning, own, cache)  # (B, C)
        offset = len(beginning.ids) if beginning is not None else 0
        generators = [_generator(r) for r in requests]
        outputs: list[list[int]] = [[] for _ in own]
        active = list(range(len(own)))  # rows of the batch -> places in `own`
        columns = torch.arange(width + most, device=self.device)
        for step in range(most):
            logits = self.network.get_output_embeddings()(last).float()  # (B, V)
            chosen = []
            for row, place in enumerate(active):
                chosen.append(_choose(logits[row], requests[place], matchers[place], generators[place]))
                outputs[place].append(chosen[-1])
            keep = [
                row
                for row, place in enumerate(active)
                if chosen[row] not in self.chat.stop_ids and step + 1 < requests[place].decoding.max_new_tokens
            ]
            if not keep:
                break
            if len(keep) < len(active):
                rows = torch.tensor(keep, device=self.device)
                cache.keep_rows(rows)
                lengths = lengths[rows]
                active = [active[row] for row in keep]
                chosen = [chosen[row] for row in keep]
            # A row sees its own prompt and everything decoded since, but not its padding.
            now = columns[: width + step + 1]
            hide = (now[None, :] >= lengths[:, None]) & (now[None, :] < width)
            mask = torch.zeros(hide.shape, dtype=self.dtype, device=self.device)
            mask = mask.masked_fill_(hide, torch.finfo(self.dtype).min)[:, None, None, :]
            last = self._forward(
                torch.tensor(chosen, device=self.device)[:, None],
                positions=(offset + lengths + step)[:, None],
                mask=mask,
                cache=cache,
                beginning=beginning,
            )[:, -1]
        return outputs

    def _prompts(self, beginning: Beginning | None, own: list[list[int]], cache: RowCache) -> torch.Tensor:
        """Fills the cache with the rows' prompts; final hidden states of their last tokens, (B, C)."""
        last = []
        for part in parts_by_length([len(row) for row in own], _PROMPT_TOKENS.get(self.device.type, 2048)):
            rows = own[part[0] : part[-1] + 1]
            cache.write_prompts(slice(part[0], part[-1] + 1))
            lengths = torch.tensor([len(row) for row in rows], device=self.device)
            hidden = self._own_tokens(beginning, rows, lengths, cache)  # (rows, longest, C)
            last.append(hidden[torch.arange(len(rows), device=self.device), lengths - 1])
        cache.write_prompts(None)
        return torch.cat(last)

    def _own_tokens(
        self, beginning: Beginning | None, own: list[list[int]], lengths: torch.Tensor, cache: RowCache | None
    ) -> torch.Tensor:
        """Final hidden states of right-padded rows behind a beginning, (B, width, C)."""
        width = int(lengths.max())
        ids = torch.tensor([row + [0] * (width - len(row)) for row in own], device=self.device)
        offset = len(beginning.ids) if beginning is not None else 0
        positions = (torch.arange(width, device=self.device) + offset).expand(len(own), -1)
        return self._forward(
            ids, positions=positions, mask=causal_mask(lengths, width, self.dtype), cache=cache, beginning=beginning
        )

    def compute_beginning(self, ids: Sequence[int]) -> Beginning:
        """Keys and values of a beginning, with gradients when gradients are on."""
        beginning = Beginning(tuple(ids))
        tokens = torch.tensor([list(ids)], device=self.device)
        positions = torch.arange(len(ids), device=self.device)[None]
        lengths = torch.tensor([len(ids)], device=self.device)
        mask = causal_mask(lengths, len(ids), self.dtype)
        self._forward(tokens, positions=positions, mask=mask, cache=beginning, beginning=None)
        return beginning

    def hidden_after(self, beginning: Beginning | None, own: list[list[int]]) -> torch.Tensor:
        """Final hidden states of rows behind a beginning, (B, longest, C), right-padded; for training."""
        lengths = torch.tensor([len(row) for row in own], device=self.device)
        return self._own_tokens(beginning, own, lengths, None)

    def hidden_packed(
        self, own: list[list[int]], *, before: Sequence[int] = (), beginning: Beginning | None = None
    ) -> torch.Tensor:
        """Final hidden states of rows packed into one, (T, C), those of `before` first; for training.

        before: tokens that every row begins with. beginning: such tokens, computed earlier. No padding anywhere.
        """
        offset = len(beginning.ids) if beginning is not None else 0
        ids = [*before, *(token for row in own for token in row)]
        places = [*range(len(before)), *(len(before) + i for row in own for i in range(len(row)))]
        hidden = self._forward(
            torch.tensor([ids], device=self.device),
            positions=torch.tensor([places], device=self.device) + offset,
            mask=packed_mask(len(before), [len(row) for row in own], self.dtype, self.device),
            cache=None,
            beginning=beginning,
        )
        return hidden[0]

    def _forward(
        self,
        ids: torch.Tensor,
        *,
        positions: torch.Tensor,
        mask: torch.Tensor | None,
        cache: RowCache | Beginning | None,
        beginning: Beginning | None,
    ) -> torch.Tensor:
        out = self.network.get_decoder()(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=False,
            beginning=beginning,
        )
        hidden: torch.Tensor = out.last_hidden_state
        return hidden

    def _beginning(self, adapter: str | None, ids: list[int]) -> Beginning:
        key = (adapter, tuple(ids))
        if key not in self._beginnings:
            while len(self._beginnings) >= _KEPT_BEGINNINGS:
                del self._beginnings[next(iter(self._beginnings))]
            self._beginnings[key] = self.compute_beginning(ids)
        return self._beginnings[key]

    def check_constraint(self, constraint: Constraint) -> None:
        """Raises ConstraintError when no grammar can be made of it."""
        self._grammar_of().matcher(constraint)

    def _grammar_of(self) -> Grammars:
        if self._grammars is None:
            self._grammars = Grammars(self.chat.tokenizer, self.vocabulary, self.chat.end_id)
        return self._grammars

    def _matcher(self, request: Request) -> Matcher | None:
        if request.constraint is None:
            return None
        return self._grammar_of().matcher(request.constraint)

    def _check_shared_beginning(self) -> bool:
        """Whether this architecture gives the same hidden states behind a beginning as without one.

        Sliding windows, capped attention scores and the like do not; such a network answers without sharing.
        """
        ids = [(7 * i) % min(self.vocabulary, 1000) for i in range(24)]
        with torch.inference_mode():
            whole = self.hidden_after(None, [ids])[0, 16:].float()
            try:
                split = self.hidden_after(self.compute_beginning(ids[:16]), [ids[16:]])[0].float()
            except (TypeError, AttributeError, AssertionError, IndexError):
                return False
        tolerance = 1e-3 if self.dtype == torch.float32 else 5e-2
        return bool((whole - split).abs().max() <= tolerance * whole.abs().max())

    # ---- adapters --------------------------------------------------------------------------

    @contextmanager
    def using(self, adapter: str | None) -> Iterator[None]:
        """Within: the network with this adapter folder applied (None: the base network)."""
        if adapter is None:
            if self._peft is None:
                yield
            else:
                with self._peft.disable_adapter():
                    yield
            return
        self.network_with_adapters().set_adapter(self._loaded(adapter), inference_mode=True)
        yield

    def _loaded(self, folder: str) -> str:
        if folder not in self._adapters:
            check_adapter(Path(folder))
            name = f"a{self._adapters_named}"  # never used twice: PEFT would load into the weights already there
            self._adapters_named += 1
            try:
                self.network_with_adapters().load_adapter(folder, adapter_name=name, is_trainable=False)
            except Exception as error:  # wrong shapes, torn files: each library raises its own kinds
                if name in self._peft.peft_config:
                    self.drop_adapter(name)
                fact = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                raise ModelError(f"adapter {folder}: it does not fit {self.name} ({fact}).") from error
            self._adapters[folder] = name
        return self._adapters[folder]

    def network_with_adapters(self) -> Any:
        """The PEFT wrapper round the base network, made at first use."""
        if self._peft is None:
            from peft import LoraConfig, PeftModel

            # PEFT's wrapper is made with an adapter; this one stays untrained, that is zero, at rank 1.
            config = LoraConfig(r=1, target_modules="all-linear")
            self._peft = PeftModel(self.network, config, adapter_name=_NO_ADAPTER)
            self._peft.requires_grad_(False)
        return self._peft

    def drop_adapter(self, name: str) -> None:
        """Frees the weights of a named adapter; the network is left without one."""
        self._peft.set_adapter(_NO_ADAPTER, inference_mode=True)
        self._peft.delete_adapter(name)

    def forget_adapter(self, folder: str) -> None:
        """Frees an adapter's weights and what was computed with it; a folder rewritten on disk is read afresh."""
        if name := self._adapters.pop(folder, None):
            self.drop_adapter(name)
        self._beginnings = {k: v for k, v in self._beginnings.items() if k[0] != folder}


def load_model(
    spec: str, *, device: str | None = None, threads: int | None = None, say: Say = lambda _: None
) -> LocalModel:
    """The model of that name, on a GPU when there is one.

    spec: as for `ensure_model`. device: "cpu" or "cuda"; None chooses. threads: CPU threads; None: as torch chooses.
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
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    AttentionInterface.register(attention.NAME, attention.shared_beginning_attention)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        network = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, use_safetensors=True, attn_implementation=attention.NAME
        )
    except Exception as error:  # torn files, unknown architectures: each library raises its own kinds
        fact = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"model {spec}: {folder} cannot be loaded ({fact}).") from error
    placed: Any = network  # transformers types `to` as taking no argument
    return LocalModel(placed.to(device), tokenizer, name=spec, version=fingerprint(folder))


def _context_length(config: Any) -> int:
    """The positions the model knows; with a sliding window, the window, within which it attends to everything."""
    positions = int(getattr(config, "max_position_embeddings", 0) or 4096)
    window = getattr(config, "sliding_window", None)
    slides = "sliding_attention" in (getattr(config, "layer_types", None) or ["sliding_attention"])
    return min(positions, int(window)) if window and slides else positions


def check_adapter(folder: Path) -> None:
    """Raises ModelError unless the folder holds a PEFT adapter in safetensors; pickles are never read."""
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / name).is_file():
            raise ModelError(f"adapter {folder}: no {name} in this folder.")


def _generator(request: Request) -> torch.Generator | None:
    if request.decoding.temperature <= 0:
        return None
    return torch.Generator().manual_seed(request.decoding.seed)


def _choose(logits: torch.Tensor, request: Request, matcher: Matcher | None, generator: torch.Generator | None) -> int:
    """The next token of one row. logits: (V,)."""
    if matcher is not None:
        allowed = torch.from_numpy(matcher.allowed()).to(logits.device)
        logits = logits.masked_fill(~allowed, float("-inf"))
    if generator is None:
        token = int(logits.argmax())
    else:
        weights = torch.softmax(logits.cpu() / request.decoding.temperature, dim=-1)
        token = int(torch.multinomial(weights, 1, generator=generator))
    if matcher is not None:
        matcher.consume(token)
    return token
