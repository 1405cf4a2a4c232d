"""A base's folder as vLLM is started with it: prompts and memory follow from tokenizer, configuration and headers.

No weights are read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rung.errors import ModelError
from rung.models.catalogue import ensure_model
from rung.models.four_bit import split_spec
from rung.models.identity import version_of
from rung.models.request_rows import RequestRows
from rung.models.sizes import Shape, shape_of
from rung.models.weights import network_bytes, parameters_of, read_weights


def refuse_four_bit(spec: str, name: str) -> None:
    """Raises ModelError for a base that rung keeps in 4 bits."""
    if split_spec(spec)[1]:
        raise ModelError(f"{name}: vLLM serves no base in rung's 4 bits. Leave out --engine vllm.")


@dataclass(frozen=True)
class BaseFolder:
    """A local model's files. spec: as `open_model` takes it. version: of their content."""

    spec: str
    folder: Path
    version: str

    @classmethod
    def of(cls, spec: str, *, say: Callable[[str], None] = lambda _: None) -> BaseFolder:
        """Fetches the model where it must. Raises ModelError."""
        folder = ensure_model(spec, say=say)
        return cls(spec, folder, version_of(folder))

    @cached_property
    def config(self) -> Any:
        """Of transformers. Raises ModelError where it is no causal language model that transformers knows."""
        from rung.models.kinds import read_config

        return read_config(self.spec, self.folder)

    def rows(self) -> RequestRows:
        """Prompts and texts of the base, with a tokenizer of their own. Raises ModelError."""
        from transformers import AutoTokenizer, GenerationConfig
        from transformers.utils import logging

        from rung.models.chat_template import ChatFormat
        from rung.models.context_length import context_length

        transformers_log: Any = logging  # untyped
        transformers_log.set_verbosity_error()
        config, folder = self.config, self.folder
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            has_own = (folder / "generation_config.json").is_file()
            ends = GenerationConfig.from_pretrained(folder) if has_own else GenerationConfig.from_model_config(config)
        except Exception as error:  # transformers and tokenizers raise anything
            raise ModelError(
                f"model {self.spec}: its tokenizer cannot be read ({error}). Copy or download it again."
            ) from error
        text = config.get_text_config()
        return RequestRows(ChatFormat(tokenizer, ends), context_length(text, tokenizer), int(text.vocab_size))

    @cached_property
    def parameters(self) -> int:
        """Number of its weights."""
        return parameters_of(read_weights(self.folder))

    def weight_bytes(self, itemsize: int) -> int:
        """Memory of its weights in floats of so many bytes; what is quantised in the files stays so."""
        return network_bytes(read_weights(self.folder), itemsize)

    @cached_property
    def shape(self) -> Shape | None:
        """Measurements of its network; None where config.json does not name them as most decoders do."""
        return shape_of(self.config.to_dict())
