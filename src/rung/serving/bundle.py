"""A bundle: a run's winner in a folder, opened and asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rung.errors import RunError
from rung.records import read_json
from rung.serving.sources import ShownPassage, sources_of
from rung.types import Document, Model, Prediction, Query, Retriever, RetrieverSpec, Solution, model_of


@dataclass(frozen=True)
class Bundle:
    """A solution with its model loaded and its passages indexed.

    instruction: of the task, as its examples were read with it; a solution may have another one, or none. passages:
    those that are searched. abstain: the answer that says that there is none, where the task names one.
    """

    solution: Solution
    model: Model
    retriever: Retriever | None
    instruction: str = ""
    passages: Sequence[Document] = ()
    abstain: str | None = None

    def answer(self, inputs: Sequence[str | Query]) -> list[Prediction]:
        """One prediction an input, in order. A Query brings a context, an instruction of its own or earlier turns."""
        from rung.solutions.answer import answer

        queries = [Query(str(i), asked) if isinstance(asked, str) else asked for i, asked in enumerate(inputs)]
        return answer(self.solution, self.model, queries, retriever=self.retriever)

    def sources(self, prediction: Prediction) -> tuple[ShownPassage, ...]:
        """The passages that this bundle gave the answer with, by their numbers; `cited` says which of them it names."""
        return sources_of(prediction, self._by_id, refuses=self.refuses(prediction))

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


@dataclass(frozen=True)
class Packed:
    """A solution in its folder, read and not yet opened: no model is loaded.

    place: the folder. model: what `open_model` takes. model_version: of the model that it was made with. note: all
    that its bundle.json, or the run, says. file: where that stands.
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

    def opened(self, model: Model) -> Bundle:
        """With its model, and its passages indexed. Raises RunError where the model is another version."""
        from rung.cache import cache_folder
        from rung.retrieval import open_index
        from rung.solutions.store import load_passages

        if model.version != self.model_version:
            raise RunError(
                f"{self.place}: was made with another version of {self.model} "
                f"({self.model_version}, here {model.version}). "
                "Run the task again with this model."
            )
        index: Retriever | None = None
        passages: Sequence[Document] = ()
        if (spec := self.solution.retriever) is not None:
            _check_search(self.place, spec)
            passages = load_passages(self.place)
            index = open_index(spec, passages, cache_folder() / "indexes")
        return Bundle(self.solution, model, index, self.instruction, passages, self.abstain)


def read_bundle(folder: Path, *, solution: str | None = None) -> Packed:
    """What a run folder (its winner, or the solution named) or a bundle folder holds. Loads no model.

    Raises RunError when there is nothing to open.
    """
    from rung.solutions.store import load_solution

    place, note, file = _find(folder, solution)
    loaded = load_solution(place)
    _check_base(place, note["model"], file)
    return Packed(place, loaded, note["model"], note["model_version"], note, file)


def open_bundle(folder: Path, *, solution: str | None = None, say: Callable[[str], None] = lambda _: None) -> Bundle:
    """Opens a run folder (its winner, or the solution named), or a bundle folder by itself.

    Raises RunError when there is nothing to open, or the model has changed since.
    """
    from rung.models import open_model

    packed = read_bundle(folder, solution=solution)
    return packed.opened(open_model(packed.model, say=say))


def _check_base(place: Path, model: str, file: Path) -> None:
    """Raises RunError where the model was a folder or file that is there no more. file: what names it."""
    base = Path(model.removesuffix(":4bit"))
    if base.is_absolute() and not base.exists():
        raise RunError(
            f"{place}: its base model {base} is no longer there. Put it back; or, where it lies elsewhere now, write "
            f'its new place as "model" into {file}. Its version is checked.'
        )


def _check_search(place: Path, spec: RetrieverSpec) -> None:
    """Raises RunError where an embedder or a reranker was a folder that is there no more."""
    for key, name in (("embedder", spec.embedder), ("reranker", spec.reranker)):
        folder = Path(name)
        if folder.is_absolute() and not folder.exists():
            raise RunError(
                f"{place}: its {key} {folder} is no longer there. Put it back; or, where it lies elsewhere now, write "
                f'its new place as "{key}" into {place / "solution.json"}.'
            )


def _note_of(place: Path, task: Mapping[str, Any]) -> dict[str, Any]:
    """The model of a run's solution, its version, and what the task says. task: task.json, as this version or an older
    one wrote it.

    Raises RunError where the run names the model no more.
    """
    if "models" not in task:
        return {"model": task["model"], "model_version": task["model_version"]}
    own, versions = model_of(place.name), task["model_versions"]
    for spec in task["models"]:
        if spec["name"] == own or (not own and versions[spec["name"]] == task["home"]):
            version = versions[spec["name"]]
            said = {key: task.get(key) for key in ("instruction", "abstain")}
            return {"model": spec["spec"], "model_version": version, **said}
    raise RunError(
        f"{place}: the run no longer names the model of this solution{f', {own}' if own else ''}. Name it again in "
        "task.yaml, and run it with --again."
    )


def _find(folder: Path, solution: str | None) -> tuple[Path, dict[str, Any], Path]:
    """The solution's folder, what is noted of its model, and the file that notes it."""
    if not folder.is_dir():
        raise RunError(f"{folder}: there is no such folder. Name a run folder, as runs/NAME.")
    if solution is None and (note := read_json(folder / "bundle.json")):
        return folder, note, folder / "bundle.json"
    task = read_json(folder / "task.json")
    if task is None:
        raise RunError(f"{folder}: neither a run folder nor a bundle. Name a folder that rung run wrote, as runs/NAME.")
    if solution is not None:
        place = folder / "solutions" / solution
        if not (place / "solution.json").is_file():
            made = sorted(p.parent.name for p in (folder / "solutions").glob("*/solution.json"))
            raise RunError(f"{folder}: no solution {solution!r} here; there are {', '.join(made) or 'none yet'}.")
        return place, _note_of(place, task), folder / "task.json"
    if note := read_json(folder / "winner" / "bundle.json"):
        return folder / "winner", note, folder / "winner" / "bundle.json"
    decision = read_json(folder / "decision.json")
    if decision is None or decision["choice"] == "unfinished":
        raise RunError(
            f"{folder}: not finished, so there is no winner yet. Give the same rung run command again, or choose a "
            "solution with --solution."
        )
    raise RunError(
        f"{folder}: the verdict is {decision['choice']!r}, so there is no winner. Choose one with --solution."
    )
