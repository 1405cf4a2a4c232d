"""What an export is: a bundle as files of another tool, and who answers in that tool's own runtime.

Knows no format, no command line and no statistics. Importing it costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rung.errors import ExportError
from rung.models.four_bit import split_spec
from rung.models.places import is_endpoint
from rung.serving.bundle import Packed
from rung.serving.names import plain_name
from rung.types import Document, Message, MetricInfo, Query, Request, Solution

if TYPE_CHECKING:
    from rung.models.chat_template import ChatFormat

HERE = "{folder}"
"""Stands in notes for the folder of the export, which gets its last name after the parity test."""


@dataclass(frozen=True)
class ExportOptions:
    """What a user chose. merged: adapter and base as one file or folder. quantise: a type of llama.cpp, as "q8_0".
    runtime_python: a Python whose packages hold the runtime, where this one's do not."""

    merged: bool = False
    quantise: str | None = None
    runtime_python: Path | None = None


@dataclass(frozen=True)
class ParityAsk:
    """An input that the bundle has answered, and what an export is asked.

    request: as the bundle sent it; its messages are rendered (instruction, demos, passages, input), its adapter is the
    bundle's. passages: of the prompt, best first. text: the bundle's answer. score: of that answer by the task's
    metric, None where it is not known. references: accepted answers, empty where there are none.
    """

    query: Query
    request: Request
    passages: tuple[Document, ...]
    text: str
    score: float | None = None
    references: tuple[str, ...] = ()


@dataclass
class ExportSource:
    """What is exported. given: the folder that the user named, a bundle or a run. asks: inputs for the parity test.
    reference: where their answers come from, in words ("recorded on dev"). metric: None where none can be loaded.
    again: the same asks, answered anew by the bundle in float32; None where its model computes elsewhere."""

    packed: Packed
    given: Path
    asks: Sequence[ParityAsk] = ()
    reference: str = ""
    metric: MetricInfo | None = None
    again: Callable[[Sequence[ParityAsk]], Sequence[ParityAsk]] | None = None
    say: Callable[[str], None] = field(default=lambda _: None)

    @cached_property
    def base(self) -> Path:
        """The folder of the base model: safetensors, tokenizer, config. Raises ExportError where the model is an
        endpoint's, else what `ensure_model` raises; ModelError where it is another version than the bundle's."""
        from rung.models.catalogue import ensure_model
        from rung.models.identity import version_of

        name = split_spec(self.packed.model)[0]
        if is_endpoint(name):
            raise ExportError(
                f"{self.packed.place}: its model answers at an endpoint, so there are no weights to export. "
                "Choose an export of the prompt: rung export --list names them."
            )
        folder = ensure_model(name, say=self.say)
        if not self.four_bit and (found := version_of(folder)) != self.packed.model_version:
            raise ExportError(
                f"{self.packed.place}: was made with another version of {name} ({self.packed.model_version}, here "
                f"{found}). Run the task again with this model, or name the right one."
            )
        return folder

    @property
    def name(self) -> str:
        """What the bundle is asked by: the task's name, as rung serve writes it."""
        solution = self.packed.solution.name
        return plain_name(str(self.packed.note.get("task") or solution)) or plain_name(solution) or "bundle"

    @cached_property
    def chat(self) -> ChatFormat:
        """The chat format of the base, as the bundle uses it. Raises as `base` does."""
        from rung.serving.exports.tokenizer_files import chat_of

        return chat_of(self.base)

    @property
    def four_bit(self) -> bool:
        """Whether the bundle keeps its base in 4 bits. Exports of weights hold it whole, and count as quantised."""
        return split_spec(self.packed.model)[1]

    @property
    def weight_notes(self) -> tuple[str, ...]:
        """What users of exported weights must know of them."""
        whole = "The bundle was made with its base in 4 bits; these weights are whole, so answers may differ."
        return (whole,) if self.four_bit else ()

    @property
    def adapter(self) -> Path | None:
        """The folder of the adapter, or of whole weights; None without either."""
        return Path(self.packed.solution.adapter) if self.packed.solution.adapter is not None else None

    @property
    def factors(self) -> Path | None:
        """The folder of the adapter; None of whole weights, and without either."""
        folder = self.adapter
        return folder if folder is not None and (folder / "adapter_config.json").is_file() else None


@dataclass(frozen=True)
class NamedCheck:
    """One thing that was checked by itself, such as "end token"; one that is not `ok` fails the export."""

    name: str
    ok: bool
    fact: str


@dataclass(frozen=True)
class Exported:
    """What was written. files: inside the folder, the important one first. notes: lines for the user, such as the
    commands that use it; HERE in them stands for the folder. quantised: the weights are less exact than the base's.
    checks: what needs no runtime, such as that rows read back are the rows written. untested: why such a check could
    not be made, in a sentence part; None where it was."""

    files: tuple[str, ...]
    notes: tuple[str, ...] = ()
    quantised: bool = False
    checks: tuple[NamedCheck, ...] = ()
    untested: str | None = None


class ExportRuntime(Protocol):
    """Who answers with what was written, as an outsider would: the export's own files alone, in its own program.

    - name: of the program with its version, for the record.
    - `answers` gives one raw text an ask, in order, greedy, with the ask's `decoding.max_new_tokens`; it may read
      `ask.query`, `ask.request.messages` and `ask.request.constraint`, and nothing else of it.
    - `checks` are named checks that need the runtime; empty where there are none.
    - holds: whether it holds answers to the bundle's constraint; where not, differences are told with that.
    - `close` frees what it took.
    """

    name: str
    holds: bool

    def answers(self, asks: Sequence[ParityAsk]) -> list[str]: ...

    def checks(self, asks: Sequence[ParityAsk]) -> Sequence[NamedCheck]: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class NoRuntime:
    """Why nothing can be asked here, in a sentence, and what to install or give so that it can."""

    reason: str


Write = Callable[[ExportSource, Path, ExportOptions], Exported]
Open = Callable[[ExportSource, Path, ExportOptions], ExportRuntime | NoRuntime]


@dataclass(frozen=True)
class Export:
    """A target of `rung export --to`.

    about: one line. write: fills the empty folder; raises ExportError where the bundle cannot be written so. runtime:
    who answers from that folder; None where there is nothing that answers, such as training data. heeds: names of the
    ExportOptions that change something. rows: inputs that it writes down, however few its parity test is to have.
    """

    name: str
    about: str
    write: Write
    runtime: Open | None = None
    heeds: tuple[str, ...] = ()
    rows: int = 0


def spoken(turns: Sequence[Message]) -> list[Message]:
    """The turns that an outsider sends: as rendered, without a system turn that has no text."""
    return [m for m in turns if m.role != "system" or m.content]


def sent(turns: Sequence[Message]) -> list[dict[str, str]]:
    """As `spoken`, in the form in which chats are sent."""
    return [{"role": m.role, "content": m.content} for m in spoken(turns)]


def answer_text(solution: Solution, text: str) -> str:
    """A raw text without the white space around it that is no part of the answer."""
    return text.rstrip() if solution.decoding.keep_space else text.strip()
