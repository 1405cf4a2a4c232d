"""Texts as vectors: which are alike, which stand alone, and what a classifier can learn from.

Sparse vectors are TF-IDF of words and of characters inside words; dense ones are their principal coordinates (latent
semantic analysis; Deerwester et al., 1990). Neither needs a model. An `Embedder` is the seam for one: whatever makes
rows of numbers from texts can take the place of the dense vectors.
Knows texts alone: nothing of labels, sets and findings. Imports numpy and scikit-learn when called.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rung.types import Example

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float32]

Embedder = Callable[[Sequence[str]], "FloatArray"]
"""Texts -> vectors of length 1, shape (texts, dimensions). Texts without any feature may be rows of zeros."""

MOST_ROWS = 20_000
MOST_CHARACTERS = 3_000_000
"""At most so many texts, and characters of them, become vectors; of more, a fixed random sample. Making them takes
about 5 s on one core at these limits, and 300 MB."""
TEXT_CHARACTERS = 1_000
"""Only the first so many characters of a text are read."""
DIMENSIONS = 100

_EXACT = 1_000  # up to so many texts, all coordinates are computed
_RARE = 1_000  # from so many texts on, what stands in only one of them is no feature
_NOTHING = 1e-6


@dataclass(frozen=True)
class Vectors:
    """The vectors of some examples.

    places: of these examples among those that were given, ascending, shape (n,). sparse: TF-IDF, scipy CSR of shape
    (n, features). dense: shape (n, dimensions). The rows of both have length 1; a text without features is a row of
    zeros.
    """

    places: NDArray[np.intp]
    sparse: Any
    dense: FloatArray


def text_of(example: Example) -> str:
    """What of an example becomes a vector: the first TEXT_CHARACTERS of its input and, behind it, its context."""
    asked = example.input if example.context is None else f"{example.input}\n{example.context}"
    return asked[:TEXT_CHARACTERS]


def vectors_of(examples: Sequence[Example], seed: int = 0) -> Vectors | None:
    """The vectors of the examples, or of a sample of them (MOST_ROWS, MOST_CHARACTERS); None where no text has a word.

    The last result is kept, so that several checks of the same examples compute it once.
    """
    return _vectors(tuple(text_of(e) for e in examples), seed)


def forget() -> None:
    """Frees the vectors that are kept."""
    _vectors.cache_clear()


@lru_cache(maxsize=1)
def _vectors(texts: tuple[str, ...], seed: int) -> Vectors | None:
    import numpy as np

    places = _sample(texts, seed)
    sparse = tfidf([texts[i] for i in places])
    return None if sparse is None else Vectors(np.array(places, dtype=np.intp), sparse, lsa(sparse, seed=seed))


def tfidf(texts: Sequence[str], *, lean: bool = False) -> Any | None:
    """TF-IDF of words (1 and 2) and of characters inside words (3 and 4), rows of length 1; None without any feature.

    Sparse, shape (texts, features). Characters serve scripts without spaces, misspellings and endings. lean: single
    words and 3 characters only, in a third of the time: enough to say whether two texts have anything in common.
    """
    import numpy as np
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    parts = []
    rare = 2 if len(texts) >= _RARE else 1
    words, characters = ((1, 1), (3, 3)) if lean else ((1, 2), (3, 4))
    for how in ({"ngram_range": words}, {"analyzer": "char_wb", "ngram_range": characters}):
        try:
            parts.append(TfidfVectorizer(sublinear_tf=True, min_df=rare, dtype=np.float32, **how).fit_transform(texts))
        except ValueError:  # no text has a word, or none has a character
            continue
    return normalize(hstack(parts, format="csr")) if parts else None


def lsa(sparse: Any, *, dimensions: int = DIMENSIONS, seed: int = 0) -> FloatArray:
    """Principal coordinates of sparse vectors, rows of length 1, shape (rows, at most `dimensions`).

    Up to 1,000 rows all coordinates are kept: distances are then those of the sparse vectors.
    """
    import numpy as np

    n = sparse.shape[0]
    if n <= _EXACT:
        values, axes = np.linalg.eigh((sparse @ sparse.T).toarray().astype(np.float64))  # of the Gram matrix (n, n)
        kept = values > _NOTHING
        return _of_length_1((axes[:, kept] * np.sqrt(values[kept]))[:, ::-1])
    from sklearn.decomposition import TruncatedSVD

    most = min(dimensions, min(sparse.shape) - 1)
    return _of_length_1(TruncatedSVD(most, n_iter=2, random_state=seed % 2**32).fit_transform(sparse))


def embedded(texts: Sequence[str]) -> FloatArray:
    """The built-in `Embedder`: TF-IDF of these texts and its principal coordinates. Zeros where no text has a word."""
    import numpy as np

    sparse = tfidf(texts)
    return np.zeros((len(texts), 1), dtype=np.float32) if sparse is None else lsa(sparse)


def _of_length_1(rows: Any) -> FloatArray:
    import numpy as np

    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    found: FloatArray = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > _NOTHING).astype(np.float32)
    return found


def _sample(texts: Sequence[str], seed: int) -> list[int]:
    """Places of all texts, or of a fixed random sample as large as the limits allow, ascending."""
    if len(texts) <= MOST_ROWS and sum(map(len, texts)) <= MOST_CHARACTERS:
        return list(range(len(texts)))
    places = random.Random(seed).sample(range(len(texts)), min(len(texts), MOST_ROWS))
    ends = itertools.accumulate(len(texts[i]) for i in places)
    return sorted(i for i, end in zip(places, ends, strict=True) if end <= MOST_CHARACTERS)
