"""Paths to adapter folders that nobody else has, so that files which were rewritten are read afresh while the old
weights still answer. What is said of such a folder names the place that was asked for, never this path."""

from __future__ import annotations

import re
import shutil
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import count
from pathlib import Path
from tempfile import mkdtemp

from rung.errors import RungError


class OwnPaths:
    """Links in a folder that goes with this object. Where there are no links, a path is the folder's own."""

    def __init__(self) -> None:
        self._numbers = count()

    @contextmanager
    def path(self, folder: Path, shown: str) -> Iterator[Path]:
        """A new path to the folder. It goes again where the block fails, and a RungError of the block then says
        `shown` in its place."""
        own = self.links / f"{next(self._numbers)}-{folder.name}"
        try:
            own.symlink_to(folder, target_is_directory=True)
        except OSError:
            own = folder
        try:
            with told_as(own, shown):
                yield own
        except BaseException:
            if own is not folder:
                own.unlink(missing_ok=True)
            raise

    @cached_property
    def links(self) -> Path:
        """The folder of the links."""
        folder = Path(mkdtemp(prefix="rung-adapters-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder


@contextmanager
def told_as(folder: Path, shown: str) -> Iterator[None]:
    """A RungError of the block says `shown` where it names the folder: its path, or its last name as an adapter's."""
    named = re.compile(rf"{re.escape(str(folder))}(?![\w.-])|(?<=^adapter ){re.escape(folder.name)}(?=:)")
    try:
        yield
    except RungError as error:
        error.args = tuple(named.sub(lambda _: shown, a) if isinstance(a, str) else a for a in error.args)
        raise
