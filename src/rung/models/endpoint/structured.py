"""How an endpoint is held to a constraint, and how its reply is read back.

Endpoints hold a model to a schema in several ways, or not at all. A mode is one of these ways. Whatever the mode,
`Form.read` gives the plain answer: a label, a JSON text of the user's schema, or a text that matches the pattern. A
reply that does not fit raises UnfitReply, and is asked for again with `Form.again`.
Knows bodies and texts, nothing of connections.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from rung.constraints import Loosened, fault_of, fault_of_constraint, loosened
from rung.constraints.schemas import ANY_ORDER
from rung.errors import ConstraintError
from rung.models.endpoint.label_tokens import token_grammar
from rung.models.endpoint.spec import Format
from rung.types import Constraint

Mode = Literal["choice", "tokens", "grammar", "json_schema", "json_object", "none"]
"""choice: vLLM's structured_outputs. tokens, grammar: llama.cpp's grammar of labels, by their tokens or by their texts.
json_schema, json_object: the two kinds of response_format, the second with a schema, as llama.cpp takes it. none:
nothing is sent, and the reply is parsed."""

Server = Literal["vllm", "llama.cpp", "llama-cpp-python"]
"""Servers that are known by their list of models, and that have a way of their own."""

_FENCED = re.compile(r"```[\w-]*\n(.*)\n?```", re.DOTALL)
_EDGES = " \t\r\n\"'`*.:;,!"  # around a label that a model was not held to
_CLASSES = {r"\d": "0-9", r"\w": "A-Za-z0-9_", r"\s": " "}
_NO_PLAIN_REGEX = re.compile(r"\(\?(?!:)|\\[bBAZ1-9]|[*+?}]\+|(?<![\\\[])[\^$]")  # what an automaton may not know
_WRAPPING = 16
_SHOWN = 80  # characters of a wrong reply in a message
_LISTED = 40  # labels that a repeated question names


class UnfitReply(Exception):
    """A reply that does not meet the constraint. The message says why."""


def modes(wanted: Format, server: Server | None, constraint: Constraint) -> tuple[Mode, ...]:
    """The modes to try, best first. The last one is always "none".

    A server's own way comes first where answers are then plain text, as they are with a local model: a label inside
    JSON is another answer, and small models give it worse.
    """
    if wanted == "none":
        return ("none",)
    if wanted != "auto":
        return ("none",) if constraint.kind == "regex" else (wanted, "none")
    if server == "vllm":
        return ("choice", "none") if constraint.kind == "regex" else ("choice", "json_schema", "none")
    if constraint.kind == "regex":
        of_llama: dict[Server | None, Mode] = {"llama.cpp": "json_schema", "llama-cpp-python": "json_object"}
        taken = server in of_llama and plain_pattern(str(constraint.value)) is not None
        return (of_llama[server], "none") if taken else ("none",)
    if server == "llama-cpp-python":  # response_format json_schema is an internal error there
        return ("grammar", "json_object", "none") if constraint.kind == "labels" else ("json_object", "none")
    if server == "llama.cpp" and constraint.kind == "labels":
        return ("tokens", "grammar", "json_schema", "json_object", "none")
    return ("json_schema", "json_object", "none")


@dataclass(frozen=True)
class Form:
    """What answers under one constraint look like."""

    constraint: Constraint

    @cached_property
    def key(self) -> str:
        """A short hash of the constraint, for what is learnt about it."""
        return hashlib.sha256(canonical(self.constraint).encode()).hexdigest()[:12]

    def fields(self, mode: Mode, tokens: Sequence[Sequence[int]] = ()) -> dict[str, Any]:
        """What a request's body gets in this mode. tokens: of each label, for the mode of that name."""
        if mode == "none":
            return {}
        kind, value = self.constraint.kind, self.constraint.value
        if mode == "choice":
            if kind == "labels":
                return {"structured_outputs": {"choice": list(value)}}
            return {"structured_outputs": {"json": self._schema} if kind == "json_schema" else {"regex": self._regex}}
        if mode == "tokens":
            return {"grammar": token_grammar(tokens)}
        if mode == "grammar":
            return {"grammar": "root ::= " + " | ".join(_quoted(str(label)) for label in value)}
        if mode == "json_object":
            return {"response_format": {"type": "json_object", "schema": self._schema}}
        schema = {"name": "answer", "schema": self._schema, "strict": is_strict(self._schema)}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}

    def must_hold(self, mode: Mode) -> bool:
        """Whether an endpoint that takes the fields of this mode claims that every whole reply fits."""
        if self._loosened.checked_after:
            return False
        if mode == "json_schema":
            return self.constraint.kind == "regex" or is_strict(self._schema)
        return mode in ("choice", "tokens", "grammar", "json_object")

    def wrapping(self, mode: Mode) -> int:
        """Tokens that a reply needs around the plain answer: a label or a text inside JSON, however that is spaced."""
        inside = self.constraint.kind != "json_schema" and mode in ("json_schema", "json_object")
        return _WRAPPING if inside else 0

    def may_be_cut(self, text: str, mode: Mode) -> bool:
        """Whether a reply that ran out of tokens may be the first part of one that fits, so that it was heeded."""
        if not text:
            return True
        if not text.strip():  # spaces without end: a model in JSON that wants to write something else
            return mode == "none"
        if self.constraint.kind == "regex":
            return mode != "none" and text.lstrip().startswith('"')
        if self.constraint.kind == "json_schema" or mode in ("json_schema", "json_object"):
            return "{" in text or "[" in text
        return any(label.startswith(text.strip()) for label in self._labels_given)

    def read(self, text: str) -> str:
        """The plain answer in a reply, in whatever mode it was asked for. Raises UnfitReply."""
        bare = text.strip()
        if self.constraint.kind == "regex":
            for tried in (text, bare, _inside_fence(bare), _unquoted(bare)):
                if fault_of(self.constraint, tried) is None:
                    return tried
            raise UnfitReply(f"it does not match the regular expression {self.constraint.value}")
        if self.constraint.kind == "labels":
            return text if text in self.constraint.value else self._label(_inside_fence(bare))
        return self._json(_inside_fence(bare))

    def again(self, unfit: UnfitReply) -> str:
        """A user's turn that asks for the answer once more."""
        kind, value = self.constraint.kind, self.constraint.value
        if kind == "labels":
            few = ", ".join(str(label) for label in value) if len(value) <= _LISTED else "the labels given above"
            return f"Your answer cannot be used: {unfit}. Answer with exactly one of: {few}. Write nothing else."
        if kind == "regex":
            return f"Your answer cannot be used: {unfit}. Answer only with text that matches it. Write nothing else."
        assert isinstance(value, Mapping)
        schema = json.dumps(_without_own_words(value), ensure_ascii=False)
        return f"Your answer cannot be used: {unfit}. Answer only with JSON that meets this schema: {schema}"

    @cached_property
    def _schema(self) -> dict[str, Any]:
        """The JSON Schema that is sent: the user's own, without what no grammar can hold; a string with a pattern; or
        an object with a label."""
        value = self.constraint.value
        if self.constraint.kind == "regex":
            return {
                "type": "string",
                "pattern": f"^({plain_pattern(str(value)) or _bare(value)})$",
            }  # it needs both anchors
        if self.constraint.kind == "json_schema":
            assert isinstance(value, Mapping)
            held = self._loosened
            return _without_own_words(held.value if isinstance(held.value, Mapping) and held.checked_after else value)
        labels = {"type": "string", "enum": list(value)}
        return {"type": "object", "properties": {"label": labels}, "required": ["label"], "additionalProperties": False}

    @cached_property
    def _loosened(self) -> Loosened:
        return loosened(self.constraint)

    @property
    def _regex(self) -> str:
        """The pattern that is sent: the user's own, or as much of it as a grammar can hold."""
        bare = _bare(self.constraint.value)
        return str(self._loosened.value) if _NO_PLAIN_REGEX.search(bare) else bare

    @property
    def _labels_given(self) -> tuple[str, ...]:
        return tuple(map(str, self.constraint.value))

    @cached_property
    def _labels(self) -> dict[str, str]:
        """What a label may be written like -> the label, where that is clear."""
        written: dict[str, set[str]] = {}
        for label in map(str, self.constraint.value):
            written.setdefault(_loose(label), set()).add(label)
        return {loose: next(iter(labels)) for loose, labels in written.items() if len(labels) == 1 and loose}

    def _label(self, text: str) -> str:
        value: object = text
        if text.startswith(("{", '"')):
            try:
                value = json.loads(text)
            except ValueError:
                value = text
        if isinstance(value, Mapping):
            value = value.get("label", next(iter(value.values()), None) if len(value) == 1 else None)
        found = value if isinstance(value, str) else text
        for tried in (text, found):
            if tried in self.constraint.value:
                return tried
        if (label := self._labels.get(_loose(found))) is not None:
            return label
        raise UnfitReply(f"{_short(text)} is none of the labels")

    def _json(self, text: str) -> str:
        fault = fault_of(self.constraint, text)
        if fault is not None:
            raise UnfitReply(fault if fault.startswith("it is not JSON") else f"it does not meet the schema: {fault}")
        return text


def check(constraint: Constraint) -> None:
    """Raises ConstraintError when a reply could not be held against the constraint."""
    if (fault := fault_of_constraint(constraint)) is not None:
        raise ConstraintError(fault)
    loosened(constraint)


def canonical(constraint: Constraint | None) -> str:
    """A constraint as a text that is equal for equal constraints."""
    return json.dumps(None if constraint is None else [constraint.kind, constraint.value], default=dict)


def is_strict(schema: Any) -> bool:
    """Whether a schema is one that OpenAI takes as strict: an object, whose objects all require all of their keys.

    Source: "Structured model outputs" in OpenAI's guides, "Supported schemas".
    """
    return isinstance(schema, Mapping) and schema.get("type") == "object" and _closed(schema)


def _closed(schema: Any) -> bool:
    if isinstance(schema, Mapping):
        if "object" in (kinds := schema.get("type"), *(kinds if isinstance(kinds, list) else ())):
            keys = set(schema.get("properties", {}))
            if schema.get("additionalProperties") is not False or set(schema.get("required", ())) != keys:
                return False
        return all(_closed(part) for part in schema.values())
    return all(map(_closed, schema)) if isinstance(schema, list) else True


def _inside_fence(text: str) -> str:
    """The text inside a code fence, where it is all in one."""
    fenced = _FENCED.fullmatch(text)
    return fenced[1].strip() if fenced else text


def plain_pattern(pattern: str) -> str | None:
    r"""The pattern as llama.cpp's grammars take it: \d, \w and \s as sets. None where more is in it.

    llama.cpp lets any string through, without a word, where it does not know a part of a pattern.
    """
    inside, found = False, []
    for part in re.findall(r"\\?.", _bare(pattern), re.DOTALL):
        if part in _CLASSES:
            found.append(_CLASSES[part] if inside else f"[{_CLASSES[part]}]")
            continue
        if len(part) == 2 and part[1].isalnum():
            return None
        inside = part == "[" or (inside and part != "]")
        found.append(part)
    written = "".join(found)
    return None if re.search(r"\(\?(?!:)|[*+?}][?+]|[\^$]", re.sub(r"\\.|\[\^", "", written)) else written


def _without_own_words(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema without the keywords that llguidance and rung add."""
    return {name: part for name, part in schema.items() if name not in ("x-guidance", ANY_ORDER)}


def _bare(pattern: object) -> str:
    """A pattern without anchors at its ends, which change nothing where the whole text is to match."""
    text = str(pattern).removeprefix("^")
    escapes = len(text) - 1 - len(text[:-1].rstrip("\\"))
    return text[:-1] if text.endswith("$") and escapes % 2 == 0 else text


def _unquoted(text: str) -> str:
    """What a JSON string holds; any other text as it is."""
    try:
        value = json.loads(text) if text.startswith('"') else text
    except ValueError:
        return text
    return value if isinstance(value, str) else text


def _loose(label: str) -> str:
    return label.strip(_EDGES).casefold()


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def _quoted(label: str) -> str:
    """A label as a literal of llama.cpp's grammars (GBNF)."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return '"' + "".join(escapes.get(character, character) for character in label) + '"'


def told(messages: Sequence[Mapping[str, str]], reply: str, turn: str) -> list[Mapping[str, str]]:
    """The turns that ask again: those that were sent, the reply, and what is wrong with it."""
    return [*messages, {"role": "assistant", "content": reply}, {"role": "user", "content": turn}]
