"""The names under `retrieval` in a task, checked before anything is spent: a misspelt one would be tried in vain.

Says nothing of what is only not installed, which a run leaves out and tells, nor of a name of the hub, which cannot be
looked up offline.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rung.data.rows import nearest
from rung.errors import TaskError
from rung.types import THE_MODEL, Task


def check_search_keys(task: Task) -> None:
    """Raises TaskError for names of kinds, embedders, rerankers and stemmers that are known nowhere, all in one."""
    if wrong := [f"{task.path.name}: {text}" for text in _wrong(task)]:
        raise TaskError("\n".join(wrong))


def _wrong(task: Task) -> Iterator[str]:
    from rung.retrieval import INDEXES
    from rung.retrieval.embedders import EMBEDDERS, misnamed, not_to_be_found
    from rung.retrieval.stemming import languages

    keys = task.retrieval
    for kind in keys.kinds:
        if kind not in INDEXES:
            what = f"which is no kind of search.{_meant(kind, INDEXES)} The kinds are {', '.join(INDEXES)}."
            yield f'"retrieval.kinds" names "{kind}", {what}'
    for name in keys.embedders:
        if (why := misnamed(name)) is not None:
            yield f'"retrieval.embedders" names "{name}": {why}.{_meant(name, EMBEDDERS)}'
    for name in keys.rerankers:
        if name != THE_MODEL and (why := not_to_be_found(name, "reranker")) is not None:
            what = f"{why}. Write {THE_MODEL}, or OWNER/NAME or a folder of a cross-encoder"
            yield f'"retrieval.rerankers" names "{name}": {what}.{_meant(name, [THE_MODEL])}'
    if keys.stem and keys.stem not in (known := languages()):
        what = f'for which there is no stemmer.{_meant(keys.stem, known)} Write one of {", ".join(known)}, or stem: ""'
        yield f'"retrieval.stem" is "{keys.stem}", {what} for none.'


def _meant(name: str, known: Iterable[str]) -> str:
    guess = nearest(name, known)
    return f' Did you mean "{guess}"?' if guess and guess != name else ""
