"""Constrained decoding: which tokens may come next, by llguidance.

Knows label sets, JSON Schemas and regular expressions; knows nothing of the network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rung.errors import ConstraintError
from rung.types import Constraint


class Grammars:
    """Compiles constraints for one tokenizer; each sequence gets a matcher of its own."""

    def __init__(self, tokenizer: Any, vocabulary: int, end_id: int) -> None:
        import llguidance.hf

        self._vocabulary = vocabulary
        self._end_id = end_id
        self._tokenizer = llguidance.hf.from_tokenizer(tokenizer, n_vocab=vocabulary, eos_token=end_id)
        self._compiled: dict[str, Any] = {}

    def matcher(self, constraint: Constraint) -> Matcher:
        """A fresh matcher. Raises ConstraintError when no grammar can be made of the constraint."""
        import llguidance

        key = repr((constraint.kind, constraint.value))
        if key not in self._compiled:
            matcher = llguidance.LLMatcher(self._tokenizer, _grammar(constraint))
            if matcher.is_error():
                fact = matcher.get_error().strip().splitlines()[0]
                raise ConstraintError(f"{_where(constraint)}: no grammar can be made of it ({fact}). Simplify it.")
            self._compiled[key] = matcher
        return Matcher(self._compiled[key].deep_copy(), self._vocabulary, self._end_id)


class Matcher:
    """One sequence under a constraint."""

    def __init__(self, inner: Any, vocabulary: int, end_id: int) -> None:
        self._inner = inner
        self._vocabulary = vocabulary
        self._end_id = end_id

    def copy(self) -> Matcher:
        """A matcher in the same state, which goes its own way from here."""
        return Matcher(self._inner.deep_copy(), self._vocabulary, self._end_id)

    def allowed(self) -> npt.NDArray[np.bool_]:
        """Which tokens may come next, shape (vocabulary,). Only the end token once the answer is complete."""
        if self._inner.is_stopped():
            only_end = np.zeros(self._vocabulary, dtype=np.bool_)
            only_end[self._end_id] = True
            return only_end
        bits = np.frombuffer(self._inner.compute_bitmask(), dtype=np.uint8)
        return np.unpackbits(bits, bitorder="little")[: self._vocabulary].astype(np.bool_)

    def forced(self) -> list[int]:
        """The only tokens that can come next, which it consumes; the end token when the answer can only end."""
        if not self._inner.is_stopped():
            tokens = [int(token) for token in self._inner.compute_ff_tokens()]
            if tokens:
                self._inner.consume_tokens(tokens)
        else:
            tokens = []
        return [*tokens, self._end_id] if self._inner.is_stopped() else tokens

    def consume(self, token: int) -> None:
        if not self._inner.is_stopped():
            self._inner.consume_token(token)


def _grammar(constraint: Constraint) -> str:
    import llguidance

    if constraint.kind == "labels":
        assert isinstance(constraint.value, tuple)
        if not constraint.value:
            raise ConstraintError("labels: there are none. List at least one.")
        return "start: " + " | ".join(json.dumps(label, ensure_ascii=False) for label in constraint.value)
    # Where a schema says nothing about white space, objects are written without any.
    try:
        if constraint.kind == "regex":
            assert isinstance(constraint.value, str)
            return str(llguidance.LLMatcher.grammar_from_regex(constraint.value))
        assert isinstance(constraint.value, Mapping)
        return str(
            llguidance.LLMatcher.grammar_from_json_schema(
                json.dumps(dict(constraint.value)), defaults={"whitespace_flexible": False}
            )
        )
    except ValueError as error:
        raise ConstraintError(f"{_where(constraint)}: no grammar can be made of it ({error}). Simplify it.") from None


def _where(constraint: Constraint) -> str:
    return {"labels": "labels", "json_schema": "schema", "regex": "pattern"}[constraint.kind]
