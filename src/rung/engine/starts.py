"""What prompts begin with alike: found by hashes of whole blocks of tokens."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import islice


class Starts:
    """What prompts begin with alike, for each adapter, in whole blocks of tokens. Remembers the latest blocks only."""

    BLOCK = 32
    MOST = 65_536  # blocks

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str | None, int], None] = OrderedDict()

    def known(self, adapter: str | None, prompt: Sequence[int]) -> int:
        """How many of its first tokens an earlier prompt began with, whole blocks; at least one token is left."""
        known = 0
        for length, key in self._blocks(adapter, prompt):
            if key not in self._seen:
                break
            known = length
        return known

    def add(self, adapter: str | None, prompt: Sequence[int]) -> None:
        for _, key in self._blocks(adapter, prompt):
            self._seen[key] = None
            self._seen.move_to_end(key)
        for key in list(islice(self._seen, max(0, len(self._seen) - self.MOST))):
            del self._seen[key]

    def forget(self, adapter: str) -> None:
        self._seen = OrderedDict((key, None) for key in self._seen if key[0] != adapter)

    def _blocks(self, adapter: str | None, prompt: Sequence[int]) -> Iterator[tuple[int, tuple[str | None, int]]]:
        chain = 0
        for start in range(0, len(prompt) - self.BLOCK, self.BLOCK):
            chain = hash((chain, tuple(prompt[start : start + self.BLOCK])))
            yield start + self.BLOCK, (adapter, chain)
