"""Three small tasks to try rung on, one for each verdict, all about one invented company.

Sallow Water Post Boats is a co-operative whose small boats carry people, parcels (in boxes called creels),
bicycles and hens between the landings of a long lake. Every name, price and code was made up for these demos.

    tickets    house codes that a prompt cannot explain and examples teach     expect: fine-tune
    handbook   facts that stand only in documents                              expect: rag, or rag+fine-tune
    reviews    something that the model can do already                         expect: prompt

A demo is a folder with `task.yaml` and its data; `copy_demo` puts one where the user can read and change it.
"""

from __future__ import annotations

import difflib
import os
import tempfile
from importlib import resources
from pathlib import Path

from rung.errors import TaskError

__all__ = ["DEMOS", "copy_demo"]

DEMOS: dict[str, str] = {
    "tickets": "route customer messages to five house queues whose codes only examples explain",
    "handbook": "answer questions whose facts stand only in the company's handbook",
    "reviews": "tell pleased customers from displeased ones, which a prompt is enough for",
}
"""Name -> what the task is, in one line. The first is the default."""


def copy_demo(name: str, to: Path) -> Path:
    """Put the files of the demo `name` into the folder `to` and return the path of its task.yaml.

    The folder is made if need be. Files that are there already with the same content are kept, other files in it
    are left alone, and a file of the same name with other content stops the copy before anything is written.
    """
    if name not in DEMOS:
        nearest = difflib.get_close_matches(name, DEMOS, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]!r}? " if nearest else ""
        raise TaskError(f"there is no demo named {name!r}: {hint}the demos are {', '.join(DEMOS)}")

    files = _files(name)
    try:
        to.mkdir(parents=True, exist_ok=True)
        changed = [f for f, content in files.items() if (to / f).exists() and not _holds(to / f, content)]
        if changed:
            raise TaskError(
                f"{to} already has another {' and another '.join(changed)}, which demo {name!r} would overwrite: "
                "choose another folder, or move that one away"
            )
        for file, content in files.items():
            if not (to / file).exists():
                _write(to / file, content)
    except OSError as error:
        raise TaskError(f"demo {name!r} cannot be copied to {to}: {error}; choose another folder") from error
    return to / "task.yaml"


def _files(name: str) -> dict[str, bytes]:
    """File name -> content, of everything in the demo's folder that is data."""
    folder = resources.files(__name__) / name
    entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    return {e.name: e.read_bytes() for e in entries if e.is_file() and e.name.endswith((".yaml", ".jsonl"))}


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all: half a file would count as changed by the user at the next call."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
