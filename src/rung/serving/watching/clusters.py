"""Requests that are far from all tested inputs, put together where they are near each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rung.serving.watching.looks import Neighbours

LEAST = 3
"""Requests of a cluster."""
EXAMPLES = 3


@dataclass(frozen=True)
class NewCluster:
    """Requests unlike what was tested, and like each other. examples: the most typical ones first."""

    size: int
    examples: tuple[str, ...]


def new_clusters(
    near: Neighbours, requests: NDArray[np.bool_], texts: Sequence[str], bar: float
) -> tuple[NewCluster, ...]:
    """Connected groups of far requests, each within `bar` of another one, the largest first. requests: shape (texts,).

    bar: the least cosine of two requests that belong together.
    """
    import numpy as np
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    places = np.flatnonzero(near.far(requests) & requests)
    if len(places) < LEAST:
        return ()
    alike = near.alike[np.ix_(places, places)]
    number, of = connected_components(csr_matrix(alike >= bar), directed=False)
    found = []
    for cluster in range(number):
        own = np.flatnonzero(of == cluster)
        if len(own) >= LEAST:
            typical = own[np.argsort(-alike[np.ix_(own, own)].sum(axis=1), kind="stable")]
            found.append(NewCluster(len(own), tuple(texts[places[i]] for i in typical[:EXAMPLES])))
    return tuple(sorted(found, key=lambda one: -one.size))
