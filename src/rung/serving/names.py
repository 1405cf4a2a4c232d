"""Names that clients give, and places that they name."""

from __future__ import annotations

import re
from pathlib import Path

from rung.errors import Unanswerable

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}(?:/[A-Za-z0-9][A-Za-z0-9._@-]{0,63})?")


def check_name(name: str) -> None:
    """Raises Unanswerable unless it is letters, digits and . _ @ - , with one slash at most, as hub ids have one."""
    if not _NAME.fullmatch(name):
        raise Unanswerable(
            f"{name[:80]!r} is not a name for a model. Use letters, digits and . _ @ - (and one slash at most), from a "
            "letter or digit on, and at most 64 characters.",
            "lora_name",
        )


def plain_name(text: str) -> str:
    """What `check_name` allows of a text; empty where that is nothing."""
    kept = re.sub(r"[^A-Za-z0-9._@/-]+", "-", text).split("/")[-2:]
    return "/".join(part.strip("-._@")[:64] for part in kept).strip("/")


def confined(root: Path | None, given: str) -> Path:
    """The folder that a client names, inside `root` also when links are followed. given: relative to it, or absolute.

    Raises Unanswerable; the message does not tell what lies elsewhere.
    """
    if root is None:
        raise Unanswerable("this server loads no adapters. Start it with --adapters FOLDER.", "lora_path")
    elsewhere = Unanswerable("lora_path must name a folder inside the server's folder of adapters.", "lora_path")
    if "\0" in given or not given.strip():
        raise elsewhere
    try:
        folder = (root / given).resolve()
        if root not in folder.parents:
            raise elsewhere
        if not folder.is_dir():
            raise Unanswerable(f"there is no folder {folder.relative_to(root)} among the adapters.", "lora_path")
        for path in folder.rglob("*"):
            if path.is_symlink() and root not in path.resolve().parents:
                raise Unanswerable(f"{path.relative_to(root)} is a link that leads out of the folder.", "lora_path")
    except (OSError, RuntimeError) as error:  # a loop of links, a name that is too long
        raise elsewhere from error
    return folder
