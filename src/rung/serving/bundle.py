"""A bundle: a run's winner in a folder, opened and asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rung.bundles.bases import find_base, find_folder, other_base
from rung.bundles.files import NOTE, check_files
from rung.bundles.packing import FORMAT, note_of_run
from rung.bundles.recorded import RecordedExample, read_recorded
from rung.errors import DamagedRecord, RunError
from rung.records import read_json
from rung.resume import record_of, recorded
from rung.runs import Files
from rung.serving.sources import ShownPassage, sources_of
from rung.types import AnswersBy, Document, Model, Prediction, Query, Retriever, RetrieverSpec, Solution


@dataclass(frozen=True)
class Bundle:
    """A solution with its model loaded and its passages indexed.

    instruction: of the task, as its examples were read with it; a solution may have another one, or none. passages:
    those that are searched. abstain: the answer that says that there is none, where the task names one. tested_with: as
    Packed has it.
    """

    solution: Solution
    model: Model
    retriever: Retriever | None
    instruction: str = ""
    passages: Sequence[Document] = ()
    abstain: str | None = None
    tested_with: frozenset[str] | None = None

    def answer(self, inputs: Sequence[str | Query]) -> list[Prediction]:
        """One prediction an input, in order. A Query brings a context, an instruction of its own or earlier turns."""
        from rung.solutions.answer import answer

        queries = [Query(str(i), asked) if isinstance(asked, str) else asked for i, asked in enumerate(inputs)]
        return answer(self.solution, self.model, queries, retriever=self.retriever)

    def sources(self, prediction: Prediction) -> tuple[ShownPassage, ...]:
        """The passages that this bundle gave the answer with, by their numbers; `cited` says which of them it names."""
        return sources_of(prediction, self._by_id, refuses=self.refuses(prediction))

    def notes(self, asked: Sequence[Query]) -> list[str]:
        """A sentence for each part that the inputs bring and that no input had which this was tested with."""
        if self.tested_with is None:
            return []
        found = [part for part in _PARTS if part not in self.tested_with and any(getattr(q, part) for q in asked)]
        return [
            f"{part}: no input that this solution was tested with has {_PARTS[part]} of its own. The model is shown "
            "it, and how well it answers then was not measured."
            for part in found
        ]

    def refuses(self, prediction: Prediction) -> bool:
        """Whether the answer says that there is none. Where answers are held to a form, only the task's `abstain` says
        so; where the task names none, only a solution that reads passages is heard."""
        from rung.evaluation.abstention import says_nothing
        from rung.text import normal_form

        if prediction.error is not None or (self.abstain is None and self.solution.retriever is None):
            return False
        if self.solution.constraint is not None:
            return self.abstain is not None and normal_form(prediction.text) == normal_form(self.abstain)
        return says_nothing(prediction.text, self.abstain)

    @cached_property
    def _by_id(self) -> Mapping[str, Document]:
        from rung.retrieval.passages import by_id

        return by_id(self.passages)


_PARTS = {"context": "a context", "instruction": "an instruction"}
"""Of an input, beside its text."""


@dataclass(frozen=True)
class Packed:
    """A solution in its folder, read and not yet opened: no model is loaded.

    place: the folder. model: what `open_model` takes on this machine. model_version: of the model that it was made
    with. note: all that its bundle.json, or the run, says. file: where that stands.
    """

    place: Path
    solution: Solution
    model: str
    model_version: str
    note: Mapping[str, Any]
    file: Path

    @property
    def instruction(self) -> str:
        """Of the task; empty where it has none."""
        return self.note.get("instruction") or ""

    @property
    def abstain(self) -> str | None:
        said: str | None = self.note.get("abstain")
        return said

    @cached_property
    def recorded(self) -> list[RecordedExample]:
        """Dev examples with what the run answered; none in a bundle without examples, and none of a run's solution
        that is no bundle. Raises RunError where they cannot be read."""
        return read_recorded(self.place)

    @cached_property
    def tested_with(self) -> frozenset[str] | None:
        """Which of "context" and "instruction" its examples come with; None where it holds none, and nothing is known.

        A run's solution was tested with the examples of the run's winner. Raises RunError as `recorded` does.
        """
        recorded = self.recorded
        if not recorded and self.place.parent.name == "solutions":
            with suppress(RunError):
                recorded = read_recorded(Files(self.place.parent.parent).winner)
        if not recorded:
            return None
        return frozenset(part for part in _PARTS if any(getattr(answer.query, part) for answer in recorded))

    @property
    def takes_context(self) -> bool:
        """Whether inputs may come with a context: they may where none is known that this was tested with."""
        return self.tested_with is None or "context" in self.tested_with

    def opened(self, model: Model) -> Bundle:
        """With its model, and its passages indexed. Raises RunError where the model is another version."""
        from rung.cache import cache_folder
        from rung.retrieval import open_index
        from rung.solutions.store import load_passages

        if model.version != self.model_version:
            raise other_base(self.place, self.note, model.version)
        index: Retriever | None = None
        passages: Sequence[Document] = ()
        if (spec := self.solution.retriever) is not None:
            passages = load_passages(self.place)
            index = open_index(spec, passages, cache_folder() / "indexes")
        return Bundle(self.solution, model, index, self.instruction, passages, self.abstain, self.tested_with)


def read_bundle(
    folder: Path, *, solution: str | None = None, base: str | None = None, bases: Sequence[str] = ()
) -> Packed:
    """What a run folder (its winner, or the solution named) or a bundle folder holds. Loads no model.

    base: where its base model lies, where that is not known here. bases: specs of models of which one may be it; others
    are left aside. Both are compared by content. Every file of a bundle is compared with its hash.
    Raises RunError when there is nothing to open, a file is missing or changed, or the base is not found or another.
    """
    from rung.solutions.store import load_solution

    place, note, file = _find(folder, solution)
    _check(place, note)
    loaded = load_solution(place)
    if loaded.retriever is not None:
        loaded = replace(loaded, retriever=_found_search(place, loaded.retriever, note.get("search") or {}))
    model = find_base(place, note, file, base=base, bases=bases)
    return Packed(place, loaded, model, note["model_version"], note, file)


def open_bundle(
    folder: Path,
    *,
    solution: str | None = None,
    base: str | None = None,
    engine: AnswersBy = "local",
    say: Callable[[str], None] = lambda _: None,
) -> Bundle:
    """Opens a run folder (its winner, or the solution named), or a bundle folder by itself. base: as `read_bundle`.
    engine: what computes the answers of a local model.

    Raises RunError when there is nothing to open, or the model has changed since.
    """
    from rung.models import open_model

    packed = read_bundle(folder, solution=solution, base=base)
    return packed.opened(open_model(packed.model, engine=engine, say=say))


def _found_search(place: Path, spec: RetrieverSpec, search: Mapping[str, Mapping[str, str]]) -> RetrieverSpec:
    """The spec with an embedder and a reranker that are folders where these lie on this machine.

    search: what bundle.json says of them. Raises RunError where one is not there.
    """
    for key in ("embedder", "reranker"):
        kind, colon, name = getattr(spec, key).rpartition(":")
        if (known := search.get(key)) is not None or (Path(name).is_absolute() and not Path(name).exists()):
            found = find_folder(place, key, name, known["version"] if known is not None else None)
            spec = replace(spec, **{key: f"{kind}{colon}{found}"})  # type: ignore[arg-type]
    return spec


def checked_note(folder: Path) -> dict[str, Any] | None:
    """What the bundle.json of a folder says; None where there is none.

    Raises RunError where it is damaged, or of a newer rung, or where a file that it lists is missing or changed.
    """
    if (note := _note(folder)) is not None:
        _check(folder, note)
    return note


def _check(folder: Path, note: Mapping[str, Any]) -> None:
    if (written := note.get("format", 1)) > FORMAT:
        raise RunError(
            f"{folder / NOTE}: is of format {written}, and this rung reads formats 1 to {FORMAT}. Install a newer one."
        )
    if written > 1:
        check_files(folder, note.get("files"))


def _note(folder: Path) -> dict[str, Any] | None:
    """As `checked_note`, before its format and its files are looked at."""
    file = folder / NOTE
    try:
        note = read_json(file)
        if note is not None and not (isinstance(note["model"], str) and isinstance(note["model_version"], str)):
            raise ValueError("it names no model")
        if note is not None and not all(isinstance(note.get(key) or {}, dict) for key in ("base", "search")):
            raise ValueError("base and search are no objects")
        if note is not None and not isinstance(note.get("format", 1), int):
            raise ValueError(f"its format is {note['format']!r}")
    except (DamagedRecord, ValueError) as error:
        fact = error.fact if isinstance(error, DamagedRecord) else error
        raise RunError(f"{file}: cannot be read as a bundle ({fact}). Copy the bundle again.") from None
    return note


_NAME_ONE = "Name the folder of a bundle, or a run folder as runs/NAME."


def check_folder(folder: Path) -> None:
    """Raises RunError unless it is a folder."""
    if not folder.is_dir():
        fact = "is a file" if folder.exists() else "there is no such folder"
        raise RunError(f"{folder}: {fact}. {_NAME_ONE}")


def _find(folder: Path, solution: str | None) -> tuple[Path, dict[str, Any], Path]:
    """The solution's folder, what is noted of its model, and the file that notes it."""
    check_folder(folder)
    if note := _note(folder):
        own = note.get("solution") or record_of(folder / "solution.json").get("name")
        if solution not in (None, own):
            raise RunError(
                f"{folder}: is a bundle, which holds one solution ({own}) and no {solution!r}. Name the run folder "
                "that has it, or choose no solution."
            )
        return folder, note, folder / NOTE
    task = recorded(folder / "task.json")
    if task is None:
        raise RunError(f"{folder}: neither a bundle nor a run folder. {_NAME_ONE}")
    if solution is not None:
        built = Files(folder).built
        if solution not in built:  # a path to elsewhere is no name
            raise RunError(f"{folder}: no solution {solution!r} here; there are {', '.join(built) or 'none yet'}.")
        place = folder / "solutions" / solution
        return place, note_of_run(place, task), folder / "task.json"
    if note := _note(folder / "winner"):
        return folder / "winner", note, folder / "winner" / NOTE
    decision = recorded(folder / "decision.json")
    if decision is None or decision["choice"] == "unfinished":
        raise RunError(
            f"{folder}: not finished, so there is no winner yet. Give the same rung run command again, or choose a "
            "solution with --solution."
        )
    raise RunError(
        f"{folder}: the verdict is {decision['choice']!r}, so there is no winner. Choose one with --solution."
    )
