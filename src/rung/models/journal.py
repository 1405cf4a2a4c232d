"""Answers of a model that is paid for, kept by request: the same requests bring the same answers, and cost nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rung.errors import may_pass
from rung.records import append_lines, but, from_record, read_lines
from rung.types import Generation, Model, Request, Tell

_BLOCK = 64  # requests asked at once, of a model that names no size of its own


class Journal:
    """A model whose answers are kept in a file of JSON lines, one {key, …fields of Generation} each.

    The key is a hash of the model's version and the whole request, so that another seed is another request. A failure
    that may pass is asked again. Requests that are alike within one call are asked once.
    """

    def __init__(self, model: Model, path: Path) -> None:
        self.model = model
        self._path = path
        self._known = {str(line["key"]): from_record(Generation, but(line, "key")) for line in read_lines(path)}

    def generate(
        self, requests: Sequence[Request], tell: Tell = lambda what, share: None, what: str = ""
    ) -> list[Generation]:
        """One Generation a request, in order. tell, what: who hears of progress, and of what; it may end the work.

        Raises BudgetSpent and ModelError as the model does; what was answered before is kept.
        """
        keys = [self._key(request) for request in requests]
        wanted = {k: r for k, r in zip(keys, requests, strict=True) if not self._is_known(k)}
        missing = list(wanted.items())
        size = getattr(self.model, "block", None) or _BLOCK
        for start in range(0, len(missing), size):
            tell(what or f"asking {self.model.name}", start / len(missing))
            part = missing[start : start + size]
            answers = self.model.generate([request for _, request in part])
            lines = [{"key": key, **asdict(answer)} for (key, _), answer in zip(part, answers, strict=True)]
            append_lines(self._path, lines)
            self._known |= {key: answer for (key, _), answer in zip(part, answers, strict=True)}
        return [self._known[key] for key in keys]

    def _is_known(self, key: str) -> bool:
        return key in self._known and not may_pass(self._known[key].error)

    def _key(self, request: Request) -> str:
        said = json.dumps([self.model.version, asdict(request)], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(said.encode(errors="replace")).hexdigest()[:32]
