"""The Python files of a user's metric: its own, and the files beside it that it imports.

They are found by reading, not by importing, so that the answer does not depend on what ran before. Imports inside
functions count; what is imported by a computed name is not seen. Imports the standard library only.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from pathlib import Path


def metric_files(name: str, task_dir: Path) -> tuple[Path, ...]:
    """The file of `python:file.py:function`, then the files below its folder that it imports, and those that these do.

    A file that is absent or cannot be parsed is named and not followed. Empty for a metric of another kind.
    """
    if not name.startswith("python:"):
        return ()
    file = Path(os.path.abspath(task_dir / name.removeprefix("python:").rpartition(":")[0]))
    if file.is_symlink():  # Python looks for modules where a file really is
        file = file.resolve()
    found, waiting = {file: None}, [file]
    while waiting:
        path = waiting.pop()
        for other in _imported(path, file.parent):
            if other not in found:
                found[other] = None
                waiting.append(other)
    return (file, *sorted(path for path in found if path != file))


def _imported(path: Path, root: Path) -> Iterator[Path]:
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    folders = (root, *(folder for folder in _added_folders(tree, path.parent) if folder != root))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files_of(alias.name.split("."), folders)
        elif isinstance(node, ast.ImportFrom):
            module = node.module.split(".") if node.module else []
            start = folders
            if node.level:
                start = (path.parents[node.level - 1],) if node.level <= len(path.parents) else ()
            yield from _files_of(module, start)
            for alias in node.names:
                yield from _files_of([*module, alias.name], start)


def _added_folders(tree: ast.AST, folder: Path) -> Iterator[Path]:
    """Folders beside the file whose name stands in it as text, where it may look for modules (sys.path.insert)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and 0 < len(node.value) < 100:
            try:
                named = folder / node.value
                if "\x00" not in node.value and named.is_dir():
                    yield Path(os.path.abspath(named))
            except (OSError, ValueError):
                continue


def _files_of(parts: list[str], folders: tuple[Path, ...]) -> Iterator[Path]:
    """The files that importing a.b.c from one of the folders reads: a/__init__.py, a/b/__init__.py, a/b/c.py."""
    if not parts or parts[0] in sys.stdlib_module_names:
        return
    for folder in folders:
        for i in range(1, len(parts) + 1):
            base = folder.joinpath(*parts[:i])
            for file in (base.with_name(base.name + ".py"), base / "__init__.py"):
                if file.is_file():
                    yield file
