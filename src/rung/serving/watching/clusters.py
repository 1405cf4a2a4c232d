"""Requests unlike all tested inputs, put together where they are near each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEAST = 3
"""Requests of a cluster."""
EXAMPLES = 3


@dataclass(frozen=True)
class NewCluster:
    """Requests unlike what was tested, and like each other. examples: the most typical ones first."""

    size: int
    examples: tuple[str, ...]


def new_clusters(
    alike: NDArray[np.float32], new: NDArray[np.bool_], texts: Sequence[str], bar: float
) -> tuple[NewCluster, ...]:
    """Connected groups of new requests, each within `bar` of another one, the largest first.

    alike: cosines, shape (texts, texts). new: which texts are new requests, shape (texts,). bar: the least cosine of
    two that belong together.
    """
    import numpy as np
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    places = np.flatnonzero(new)
    if len(places) < LEAST:
        return ()
    alike = alike[np.ix_(places, places)]
    number, of = connected_components(csr_matrix(alike >= bar), directed=False)
    found = []
    for cluster in range(number):
        own = np.flatnonzero(of == cluster)
        if len(own) >= LEAST:
            typical = own[np.argsort(-alike[np.ix_(own, own)].sum(axis=1), kind="stable")]
            found.append(NewCluster(len(own), tuple(texts[places[i]] for i in typical[:EXAMPLES])))
    return tuple(sorted(found, key=lambda one: -one.size))
