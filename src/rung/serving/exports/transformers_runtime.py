"""The runtime of transformers folders: an export's own files, asked as anybody asks a transformers model.

The one thing of rung's own is the grammar, where the bundle holds answers to labels, a schema or a pattern: it stands
in for the library of constrained decoding that a user brings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rung.errors import ExportError, first_line
from rung.models.chat_template import ChatFormat
from rung.serving.exports.export import NamedCheck, NoRuntime, ParityAsk, sent


class TransformersRuntime:
    """A network that `load` gives, with the tokenizer and the generation config in `folder`."""

    holds = True

    def __init__(self, network: Any, folder: Path, name: str) -> None:
        from transformers import AutoTokenizer, GenerationConfig

        self.name = name
        self._network = network.eval()
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        self._config = GenerationConfig.from_pretrained(folder, local_files_only=True)
        self._chat = ChatFormat(self._tokenizer, self._config)
        self._grammars: Any = None

    def answers(self, asks: Sequence[ParityAsk]) -> list[str]:
        return [self._answer(ask) for ask in asks]

    def checks(self, asks: Sequence[ParityAsk]) -> Sequence[NamedCheck]:
        return ()

    def close(self) -> None:
        self._network = None

    def _answer(self, ask: ParityAsk) -> str:
        import torch

        encoded = self._tokenizer.apply_chat_template(
            sent(ask.request.messages), add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        length = encoded["input_ids"].shape[1]
        held: dict[str, Any] = {}
        if ask.request.constraint is not None:
            held["logits_processor"] = [self._processor(ask, length)]
        with torch.no_grad():
            written = self._network.generate(
                **{k: v.to(self._network.device) for k, v in encoded.items()},
                generation_config=self._config,
                max_new_tokens=ask.request.decoding.max_new_tokens,
                **held,
            )
        text: str = self._tokenizer.decode(written[0, length:], skip_special_tokens=True)
        return text

    def _processor(self, ask: ParityAsk, length: int) -> Callable[[Any, Any], Any]:
        """Lets through what the constraint allows next. length: of the prompt."""
        import torch

        from rung.engine.grammar import Grammars

        if self._grammars is None:
            self._grammars = Grammars(self._chat.answer_tokens(), self._network.get_output_embeddings().weight.shape[0])
        assert ask.request.constraint is not None
        matcher = self._grammars.matcher(ask.request.constraint)
        seen = length

        def allow(ids: Any, scores: Any) -> Any:
            nonlocal seen
            for token in ids[0, seen:].tolist():
                matcher.consume(token)
            seen = ids.shape[1]
            allowed = torch.from_numpy(matcher.allowed()).to(scores.device)
            return scores.masked_fill(~allowed[: scores.shape[1]], -torch.inf)

        return allow


def opened(load: Callable[[Any], Any], folder: Path, name: str, base: Path) -> TransformersRuntime | NoRuntime:
    """load: dtype -> the network. name: of the package, "PEFT". base: whose weights tell the memory that it takes:
    float32 where that suffices, so that rounding does not decide near ties.

    NoRuntime where memory does not suffice. Raises ExportError for what cannot be loaded: an outsider cannot, either.
    """
    import torch
    import transformers

    quiet()
    try:
        network = load(dtype_that_fits(base))
        kind = str(network.dtype).removeprefix("torch.")
        return TransformersRuntime(network, folder, f"{name} with transformers {transformers.__version__} in {kind}")
    except (MemoryError, torch.OutOfMemoryError) as error:
        return NoRuntime(f"{name} has not enough memory here to load it ({first_line(error)})")
    except Exception as error:  # of many kinds
        raise ExportError(f"{name} cannot load what was written ({first_line(error)}).") from error


def dtype_that_fits(base: Path) -> Any:
    """float32 where memory suffices for the weights of this folder, else "auto": the type that they are stored in."""
    import torch

    from rung.engine.memory import free_host_bytes
    from rung.models.weights import network_bytes, read_weights

    wanted = 1.3 * network_bytes(read_weights(base), 4, unpacked=True)
    return torch.float32 if wanted < free_host_bytes() else "auto"


def quiet() -> None:
    """transformers says no more than errors, and draws no bars."""
    from transformers.utils import logging

    library: Any = logging  # untyped
    library.set_verbosity_error()
    library.disable_progress_bar()
