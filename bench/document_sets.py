"""Writes three tasks with documents of other kinds: a staff handbook, a product catalogue, a support site.

    python bench/document_sets.py FOLDER [--seed 0]

Each is a folder with task.yaml, examples.jsonl whose rows mark their documents, and docs/ with real files. The same
seed writes the same bytes. Reading them takes the extra `documents`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from set_catalogue import catalogue
from set_handbook import handbook
from set_support import support

SETS = {"handbook": handbook, "catalogue": catalogue, "support": support}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for path in written(options.folder, options.seed):
        print(path)


def written(folder: Path, seed: int = 0) -> list[Path]:
    """The folders of the tasks."""
    return [make(seed).write(folder / name) for name, make in SETS.items()]


if __name__ == "__main__":
    main()
