"""Constrained decoding: which tokens may come next. Label sets by a tree of token ids, all else by llguidance.

Knows label sets, JSON Schemas and regular expressions; knows nothing of the network. What no grammar can hold is left
out here, and checked once the answer is there (`rung.constraints`).
"""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from rung.constraints import NAMES, loosened, subset_labels
from rung.errors import ConstraintError
from rung.types import Constraint

_MOST_KEPT = 128
_SPELT = '{"a": "b c"}'  # what a tokenizer must give back exactly to write JSON


@dataclass(frozen=True)
class AnswerTokens:
    """What grammars must know of a tokenizer.

    encode: an answer's text -> its ids behind a prompt, without an end token. encode_inside: the ids of a text in the
    middle of an answer. decode: ids -> the text that they add, white space before it included. bytes_of: a token ->
    the bytes that it adds; none for special tokens. lead: white space that an answer's ids begin with. end_id: the end
    token that is trained; stop_ids: all that may end an answer. serialised: the fast tokenizer as JSON, in which no
    text spells a special token; None where there is none.
    """

    encode: Callable[[str], list[int]]
    encode_inside: Callable[[str], list[int]]
    decode: Callable[[Sequence[int]], str]
    bytes_of: Callable[[int], bytes]
    lead: str
    end_id: int
    stop_ids: frozenset[int]
    serialised: Callable[[], str | None]


class Grammars:
    """Compiles constraints for one tokenizer; each sequence gets a matcher of its own. May be used by several threads.

    The compiled ones that were used last are kept: a server's clients may send as many as they like.
    """

    def __init__(self, tokens: AnswerTokens, vocabulary: int) -> None:
        self._tokens = tokens
        self._vocabulary = vocabulary
        self._stops = [tokens.end_id, *sorted(i for i in tokens.stop_ids - {tokens.end_id} if i < vocabulary)]
        self._inner: Any = None
        self._compiled: OrderedDict[str, Any] = OrderedDict()
        self._compiling = threading.Lock()

    def matcher(self, constraint: Constraint) -> Matcher:
        """A fresh matcher. Raises ConstraintError when no grammar can be made of the constraint."""
        key = repr((constraint.kind, constraint.value))
        labels = constraint.kind == "labels"
        with self._compiling:
            if key not in self._compiled:
                self._compiled[key] = self._labels(constraint) if labels else self._grammar(constraint)
            self._compiled.move_to_end(key)
            compiled = self._compiled[key]
            while len(self._compiled) > _MOST_KEPT:
                self._compiled.popitem(last=False)
            if not labels:
                compiled = compiled.deep_copy()
        if labels:
            return _LabelMatcher(compiled, self._vocabulary, self._stops)
        return _GrammarMatcher(compiled, self._vocabulary, self._stops)

    def _labels(self, constraint: Constraint) -> _Node:
        assert isinstance(constraint.value, tuple)
        if not constraint.value:
            raise ConstraintError("labels: there are none. List at least one.")
        root = _Node({})
        for label in constraint.value:
            node = root
            for token in self._tokens.encode(label):
                node = node.next.setdefault(token, _Node({}))
            node.complete = True
        return root

    def _grammar(self, constraint: Constraint) -> Any:
        import llguidance

        if constraint.kind == "json_schema" and self._tokens.decode(self._tokens.encode_inside(_SPELT)) != _SPELT:
            raise ConstraintError("schema: this model's tokenizer loses the spacing of JSON. Use another model.")
        if self._inner is None:
            self._inner = _inner_tokenizer(self._tokens, self._vocabulary, self._stops)
        matcher = llguidance.LLMatcher(self._inner, grammar_of(constraint, self._tokens.lead))
        if matcher.is_error():
            fact = matcher.get_error().strip().splitlines()[0]
            raise ConstraintError(f"{NAMES[constraint.kind]}: no grammar can be made of it ({fact}). Simplify it.")
        return matcher


@dataclass
class _Node:
    """A place in the tree of labels. next: token -> place. complete: a label ends here."""

    next: dict[int, _Node]
    complete: bool = False


_END = _Node({}, complete=True)


class Matcher(ABC):
    """One sequence under a constraint. stops: all end tokens; the first one is trained."""

    def __init__(self, vocabulary: int, stops: Sequence[int]) -> None:
        self._vocabulary = vocabulary
        self._stops = stops

    def allowed(self) -> npt.NDArray[np.bool_]:
        """Which tokens may come next, shape (vocabulary,). Only end tokens once the answer is complete."""
        return self._tokens(self._stops) if self._ended() else self._next()

    def packed(self) -> npt.NDArray[np.uint8]:
        """As `allowed`, eight tokens a byte, the first one in the lowest bit."""
        return self._bits(self._stops) if self._ended() else self._next_bits()

    def forced(self) -> list[int]:
        """The only tokens that can come next, which it consumes; the end token when the answer can only end."""
        tokens = [] if self._ended() else self._follow()
        return [*tokens, self._stops[0]] if self._ended() else tokens

    @abstractmethod
    def copy(self) -> Matcher:
        """A matcher in the same state, which goes its own way from here."""

    @abstractmethod
    def consume(self, token: int) -> None:
        """The sequence goes on with this token."""

    @abstractmethod
    def _ended(self) -> bool:
        """Whether nothing but an end token can come."""

    @abstractmethod
    def _next(self) -> npt.NDArray[np.bool_]:
        """Which tokens may come next, while not ended."""

    @abstractmethod
    def _follow(self) -> list[int]:
        """Consumes and returns the tokens that can only follow, while not ended."""

    def _next_bits(self) -> npt.NDArray[np.uint8]:
        """`packed` while not ended."""
        return np.packbits(self._next(), bitorder="little")

    def _bits(self, ids: Iterable[int]) -> npt.NDArray[np.uint8]:
        chosen = np.zeros(-(-self._vocabulary // 8), dtype=np.uint8)
        for token in ids:
            chosen[token >> 3] |= 1 << (token & 7)
        return chosen

    def _tokens(self, ids: Iterable[int]) -> npt.NDArray[np.bool_]:
        chosen = np.zeros(self._vocabulary, dtype=np.bool_)
        chosen[list(ids)] = True
        return chosen


def pack(matchers: Sequence[Matcher], into: npt.NDArray[np.uint8]) -> None:
    """Writes what `Matcher.packed` says of each matcher to its row. into: (n, 4 × words); no matcher comes twice.

    Grammars are asked on several cores: one after the other, hundreds of rows would take longer than a step of a GPU.
    """
    asked: list[tuple[Any, int]] = []
    for row, matcher in enumerate(matchers):
        if isinstance(matcher, _GrammarMatcher) and (inner := matcher.going) is not None:
            asked.append((inner, row))
        else:
            bits = matcher.packed()
            into[row, : len(bits)] = bits
    if asked:
        _executor().unsafe_compute_mask_ptr(asked, into.ctypes.data, into.shape[1], len(into))


@cache
def _executor() -> Any:
    import llguidance

    return llguidance.LLExecutor()


class _LabelMatcher(Matcher):
    """One sequence that must become a label, in the very ids that training teaches for it."""

    def __init__(self, node: _Node, vocabulary: int, stops: Sequence[int]) -> None:
        super().__init__(vocabulary, stops)
        self._node = node

    def copy(self) -> Matcher:
        return _LabelMatcher(self._node, self._vocabulary, self._stops)

    def consume(self, token: int) -> None:
        self._node = self._node.next.get(token, _END)

    def _ended(self) -> bool:
        return not self._node.next

    def _next(self) -> npt.NDArray[np.bool_]:
        return self._tokens(self._allowed_ids)

    def _next_bits(self) -> npt.NDArray[np.uint8]:
        return self._bits(self._allowed_ids)

    @property
    def _allowed_ids(self) -> list[int]:
        return [*self._node.next, *(self._stops if self._node.complete else ())]

    def _follow(self) -> list[int]:
        tokens: list[int] = []
        while not self._node.complete and len(self._node.next) == 1:
            tokens += self._node.next
            self.consume(tokens[-1])
        return tokens


class _GrammarMatcher(Matcher):
    """One sequence under a grammar of llguidance."""

    def __init__(self, inner: Any, vocabulary: int, stops: Sequence[int]) -> None:
        super().__init__(vocabulary, stops)
        self._inner = inner

    def copy(self) -> Matcher:
        return _GrammarMatcher(self._inner.deep_copy(), self._vocabulary, self._stops)

    def consume(self, token: int) -> None:
        if not self._inner.is_stopped():
            self._inner.consume_token(token)

    def _ended(self) -> bool:
        return bool(self._inner.is_stopped())

    @property
    def going(self) -> Any:
        """llguidance's matcher; None once nothing but an end token can come."""
        return None if self._ended() else self._inner

    def _next(self) -> npt.NDArray[np.bool_]:
        bits = np.frombuffer(self._inner.compute_bitmask(), dtype=np.uint8)
        return np.unpackbits(bits, bitorder="little")[: self._vocabulary].astype(np.bool_)

    def _next_bits(self) -> npt.NDArray[np.uint8]:
        return np.frombuffer(self._inner.compute_bitmask(), dtype=np.uint8)[: -(-self._vocabulary // 8)]

    def _follow(self) -> list[int]:
        tokens = [int(token) for token in self._inner.compute_ff_tokens()]
        if tokens:
            self._inner.consume_tokens(tokens)
        return tokens


class _Spelt:
    """A tokenizer as llguidance wraps it, for those whose tokens it cannot read as bytes by itself."""

    def __init__(self, tokens: AnswerTokens, vocabulary: int) -> None:
        self.eos_token_id, self.bos_token_id = tokens.end_id, None
        self.tokens = [tokens.bytes_of(i) for i in range(vocabulary)]
        self.special_token_ids = [i for i, content in enumerate(self.tokens) if not content or i in tokens.stop_ids]
        for i in self.special_token_ids:
            self.tokens[i] = f"<{i}>".encode()
        self._encode = tokens.encode_inside

    def __call__(self, text: str | bytes) -> list[int]:
        return self._encode(text.decode(errors="replace") if isinstance(text, bytes) else text)


def reads_by_itself(tokens: AnswerTokens, vocabulary: int) -> bool:
    """Whether llguidance reads the serialised tokenizer as it is."""
    return _own_reading(tokens, vocabulary, [tokens.end_id]) is not None


def _inner_tokenizer(tokens: AnswerTokens, vocabulary: int, stops: Sequence[int]) -> Any:
    """llguidance's own reading of the tokenizer where it can read the decoder, else one by what tokens decode to."""
    import llguidance

    if (own := _own_reading(tokens, vocabulary, stops)) is not None:
        return own
    wrapped = llguidance.TokenizerWrapper(_Spelt(tokens, vocabulary))
    return llguidance.LLTokenizer(wrapped, n_vocab=vocabulary, eos_token=list(stops))


def _own_reading(tokens: AnswerTokens, vocabulary: int, stops: Sequence[int]) -> Any:
    import llguidance

    if (serialised := tokens.serialised()) is not None:
        try:
            inner = llguidance.LLTokenizer(serialised, n_vocab=vocabulary, eos_token=list(stops))
            if inner.decode_bytes(tokens.encode_inside(_SPELT)) == _SPELT.encode():
                return inner
        except ValueError:  # a decoder that it does not know, as Unigram and WordPiece have
            pass
    return None


def grammar_of(constraint: Constraint, lead: str) -> str:
    """The constraint for llguidance, as far as a grammar can hold it. lead: white space before the answer."""
    import llguidance

    # Where a schema says nothing about white space, objects are written without any.
    held = loosened(constraint).value
    try:
        if isinstance(held, str):
            before = "".join(f"\\x{{{ord(character):x}}}" for character in lead)
            return str(llguidance.LLMatcher.grammar_from_regex(f"{before}(?:{held})" if lead else held))
        assert isinstance(constraint.value, Mapping)
        if (choices := subset_labels(constraint.value)) is not None:
            return _subsets(choices, constraint.value, lead)
        grammar = str(
            llguidance.LLMatcher.grammar_from_json_schema(json.dumps(held), defaults={"whitespace_flexible": False})
        )
        if not lead:
            return grammar
        return f"start: {json.dumps(lead)} %json {json.dumps(json.loads(grammar)['grammars'][0]['json_schema'])}"
    except ValueError as error:
        raise ConstraintError(
            f"{NAMES[constraint.kind]}: no grammar can be made of it ({error}). Simplify it."
        ) from None


def _subsets(choices: Sequence[str], schema: Mapping[str, Any], lead: str) -> str:
    """A grammar of JSON arrays of distinct choices in their order, in llguidance's Lark.

    Rule a_i is a list that begins with choice i or a later one, b_i what may follow choice i - 1. So the grammar grows
    with the number of choices and not with that of their subsets: 200 of them compile in 0.02 s.
    """
    options = schema.get("x-guidance")
    separator = options.get("item_separator", ", ") if isinstance(options, Mapping) else ", "
    quoted = [_literal(json.dumps(choice, ensure_ascii=False)) for choice in choices]
    last = len(quoted) - 1
    may_be_empty = "" if schema.get("minItems") else "?"
    rules = [f'start: {_literal(lead)} "[" a0{may_be_empty} "]"' if lead else f'start: "[" a0{may_be_empty} "]"']
    for i, choice in enumerate(quoted):
        rules.append(f"a{i}: {choice} b{i + 1}" + (f" | a{i + 1}" if i < last else ""))
        rules.append(f'b{i + 1}: ""' + (f" | {_literal(separator)} a{i + 1}" if i < last else ""))
    return "\n".join(rules)


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
