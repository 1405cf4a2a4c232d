"""The page at the server's root: files and the headers that they go out with. Knows nothing of the server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

PAGE_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""Of every file of the page: a browser runs no script and loads nothing but these files, whatever a model writes."""

_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.svg": ("page.svg", "image/svg+xml"),
}


def page_files() -> Mapping[str, tuple[str, bytes]]:
    """Path -> (content type, content). They hold no secret, and need no key."""
    folder = Path(__file__).parent
    return {path: (kind, (folder / name).read_bytes()) for path, (name, kind) in _FILES.items()}
