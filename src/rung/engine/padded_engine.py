"""The exact path: padded batches through the network as transformers wrote it, with its own cache of whatever kind.

For networks whose layers keep states, convolve, or attend in ways that the tree path does not know. Slower, since
nothing that rows share is computed once. Adapters are PEFT's own layers. Knows nothing of text or files.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from rung.engine.engine import Engine

Rows = Sequence[tuple[Sequence[int], Sequence[int]]]
"""(prompt, target) ids."""

_MOST_PADDED = 1.5  # tokens computed at most, as a multiple of the real ones
_SMALL = 256  # tokens; for so few, starting another pass costs more than padding


class PaddedEngine(Engine):
    """A network that computes with transformers' attention. name: for messages.

    `padded_check` finds out how it may be padded. Until then rows of different lengths are never computed together, and
    prompts are answered one at a time.
    """

    path = "padded"

    def __init__(self, network: Any, name: str) -> None:
        super().__init__(network, name)
        self.adapters.plain = True
        self.pads_left = False
        """Whether prompts of different lengths, padded in front, are answered as each by itself."""
        self.batches = False
        """Whether prompts of one length are answered together as each by itself. RWKV's in transformers are not."""
        self.pads_right = False
        """Whether rows of different lengths, padded behind, have the logits of each by itself."""
        self.keeps = False
        """Whether the network computes logits at given places only."""
        self.caches = True
        """Whether `generate` keeps what it computed of earlier tokens."""
        self._turn = _turn(network.config.get_text_config(decoder=True))
        known = [self._turn, _positions(network.config.get_text_config(decoder=True))]
        self.reach = min((length for length in known if length), default=None)
        """Tokens of a row, fillers included, up to which others of its pass do not depend on it; None: no bound."""
        self.filler = _filler(network.config.get_text_config(decoder=True), self.vocabulary)
        """Token that stands where a row has none."""
        self.accepted = set(inspect.signature(network.forward).parameters)
        """Names of the arguments that the network's forward takes."""

    def scores(self, rows: Rows, prefix: Any = None) -> tuple[torch.Tensor, int]:
        assert prefix is None, "this path shares no prefixes"
        found: list[torch.Tensor] = [torch.empty(0)] * len(rows)
        computed = 0
        for part in self.parts([len(prompt) + len(target) - 1 for prompt, target in rows]):
            logits, tokens = self._part_scores([rows[i] for i in part])
            computed += tokens
            for i, own in zip(part, logits, strict=True):
                found[i] = own
        return torch.cat(found), computed

    def _part_scores(self, rows: Rows) -> tuple[list[torch.Tensor], int]:
        """Logits (t, V) of each row's target tokens, from one pass; and the number of tokens that it computed."""
        whole = [[*prompt, *target[:-1]] for prompt, target in rows]
        # The last prompt token predicts the first target token.
        wanted = [range(len(prompt) - 1, len(prompt) - 1 + len(target)) for prompt, target in rows]
        places = sorted({place for own in wanted for place in own})
        ids, mask = self.padded(whole, left=False)
        self.computed_tokens += ids.numel()
        if self.keeps:
            logits = self.forward(ids, mask, logits_to_keep=torch.tensor(places, device=self.device))
        else:
            logits = self.forward(ids, mask)[:, places]
        first = {place: i for i, place in enumerate(places)}
        return [logits[i, [first[place] for place in own]].float() for i, own in enumerate(wanted)], ids.numel()

    def forward(self, ids: torch.Tensor, mask: torch.Tensor | None, **more: Any) -> torch.Tensor:
        """The network's own logits, (B, L, V). ids, mask: (B, L)."""
        given = {"attention_mask": mask, "use_cache": False, **more}
        accepted = {name: value for name, value in given.items() if name in self.accepted and value is not None}
        logits: torch.Tensor = self.network(input_ids=ids, **accepted).logits
        return logits

    def generate(self, prompts: Sequence[Sequence[int]], choice: Any, most: int) -> None:
        """Has transformers compute answers of at most so many tokens to prompts, padded in front.

        choice: a LogitsProcessor that leaves one token a row, and a StoppingCriteria in one.
        """
        from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

        ids, mask = self.padded(prompts, left=True)
        config = GenerationConfig(
            max_new_tokens=most,
            do_sample=False,
            num_beams=1,
            use_cache=self.caches,
            pad_token_id=self.filler,
            eos_token_id=None,
        )
        with self._generation_config(config):
            found = self.network.generate(
                ids,
                generation_config=config,
                logits_processor=LogitsProcessorList([choice.processor]),
                stopping_criteria=StoppingCriteriaList([choice.ended]),
                **({"attention_mask": mask} if mask is not None else {}),
            )
        steps = found.shape[1] - ids.shape[1]
        each = 1 if self.caches else ids.shape[1] + steps // 2
        self.computed_tokens += ids.numel() + (steps - 1) * each * len(prompts)

    @contextmanager
    def _generation_config(self, config: Any) -> Iterator[None]:
        """Within: transformers finds no other settings to inherit, such as penalties or forced tokens."""
        own, self.network.generation_config = self.network.generation_config, config
        try:
            yield
        finally:
            self.network.generation_config = own

    def padded(self, rows: Sequence[Sequence[int]], *, left: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Ids and mask of rows, (B, L) each. The mask is None where the network takes none."""
        longest = max(len(row) for row in rows)
        fill = [[self.filler] * (longest - len(row)) for row in rows]
        ids = [more + list(row) if left else list(row) + more for row, more in zip(rows, fill, strict=True)]
        real = [[1] * len(row) for row in rows]
        none = [[0] * len(more) for more in fill]
        mask = [n + r if left else r + n for r, n in zip(real, none, strict=True)]
        takes = "attention_mask" in self.accepted
        return torch.tensor(ids, device=self.device), torch.tensor(mask, device=self.device) if takes else None

    def parts(self, lengths: Sequence[int]) -> list[list[int]]:
        """Places of rows that are computed in one pass, given their lengths: padding may add half as many tokens."""
        found: list[list[int]] = []
        real = 0
        for place in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
            length = lengths[place]
            joins = False
            if found:
                last = found[-1]
                padded = (len(last) + 1) * length
                equal = lengths[last[0]] == length
                fits = padded <= max(_MOST_PADDED * (real + length), _SMALL)
                joins = equal or (self.pads_right and fits and not self.is_beyond(length))
            if joins:
                found[-1].append(place)
                real += length
            else:
                found.append([place])
                real = length
        return found

    def is_beyond(self, length: int) -> bool:
        """Whether a row of that length makes the network turn positions otherwise, for every row of its pass."""
        return self._turn is not None and length > self._turn


def _turn(config: Any) -> int | None:
    """Length from which the rotation of all tokens of a pass changes; None where it does not depend on lengths."""
    known = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    if not isinstance(known, dict):
        return None
    for kind in [known, *(value for value in known.values() if isinstance(value, dict))]:
        if kind.get("rope_type", kind.get("type")) in ("longrope", "su", "dynamic"):
            original = kind.get("original_max_position_embeddings")
            original = original or getattr(config, "original_max_position_embeddings", None)
            return original or getattr(config, "max_position_embeddings", None)
    return None


def _positions(config: Any) -> int | None:
    """Number of positions that the network knows; None where it does not say."""
    names = ("max_position_embeddings", "max_seq_len", "seq_length")
    return next((n for name in names if isinstance(n := getattr(config, name, None), int) and n > 0), None)


def _filler(config: Any, vocabulary: int) -> int:
    """The padding token: some networks read from it where padding is. Any other token where there is none."""
    names = ("pad_token_id", "eos_token_id", "bos_token_id")
    values = [getattr(config, name, None) for name in names]
    known = [value[0] if isinstance(value, list) and value else value for value in values]
    return next((int(token) for token in known if isinstance(token, int) and 0 <= token < vocabulary), 0)
