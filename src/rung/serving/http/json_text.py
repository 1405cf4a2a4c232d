"""JSON as it goes over the wire."""

from __future__ import annotations

import json
from collections.abc import Mapping


def json_bytes(value: Mapping[str, object]) -> bytes:
    """UTF-8, in one line. Halves of surrogate pairs, which are no characters, become "?"."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")
