"""Ways to look at two samples of texts, each a permutation test that the second is drawn like the first.

Every statistic is computed in one way for the samples as they are and for the same texts dealt out anew, so that its
p-value is exact whatever the statistic: the share of the deals whose statistic is at least as large, those as they are
among them. Alternatives are one-sided: a statistic is large where the second sample differs.
Source: Phipson & Smyth, Permutation p-values should never be zero (2010).
Knows texts and numbers; nothing of bundles, files and what is told.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Deals = NDArray[np.bool_]
    Numbers = NDArray[np.float64]

DEALS = 999
"""Ways to deal the texts out, the first one as they are. The least p-value is one in so many."""
NEIGHBOURS = 20
_LISTED = 50  # nearest texts of each text that are looked through for the nearest tested one
_FAR = 0.05  # share of the tested texts that stand as far from the others as a far request
_AT_ONCE = 200  # deals
_RIDGE = 1.0

Statistic = Callable[["Deals"], "Numbers"]
"""Deals, shape (deals, texts), True for a request -> a statistic for each deal, shape (deals,)."""
Pairs = Callable[["NDArray[np.bool_]"], float]
"""Which texts are requests, shape (texts,) -> a share of pairs."""
Scores = Callable[["NDArray[np.bool_]"], "NDArray[np.float32]"]
"""Which texts are requests -> how much like a request each is, both of shape (texts,)."""


def deals_of(tested: int, requests: int, seed: int) -> Deals:
    """The samples as they are, and dealt out anew with the same sizes. Shape (DEALS, tested + requests)."""
    import numpy as np

    first = np.arange(tested + requests) >= tested
    rng = np.random.default_rng(seed)
    return np.stack([first, *(rng.permutation(first) for _ in range(DEALS - 1))])


def p_value(statistic: Statistic, deals: Deals) -> float:
    """Share of the deals whose statistic is no smaller than that of the first one. In [1 / deals, 1]."""
    return p_and_chance(statistic, deals)[0]


def p_and_chance(statistic: Statistic, deals: Deals) -> tuple[float, float]:
    """(as `p_value`, the mean of the statistic over all deals: what chance gives)."""
    import numpy as np

    parts = [statistic(deals[start : start + _AT_ONCE]) for start in range(0, len(deals), _AT_ONCE)]
    found = np.concatenate(parts)
    p = float(np.mean(found >= found[0] - 1e-6 * max(1.0, abs(found[0]))))  # sums are rounded
    return p, float(found.mean())


class Neighbours:
    """Which texts are near which. alike: cosines, shape (texts, texts), of both samples together."""

    def __init__(self, alike: NDArray[np.float32]) -> None:
        import numpy as np

        n = len(alike)
        self.alike = alike
        # of equally near texts a random one comes first: their places say which sample they are of
        noise = np.random.default_rng(0).random((n, n), np.float32) * 1e-6
        np.fill_diagonal(noise, -2.0)
        listed = min(_LISTED, n - 1)
        order = np.argpartition(-(self.alike + noise), listed - 1, axis=1)[:, :listed]
        scores = np.take_along_axis(self.alike + noise, order, axis=1)
        self.order = np.take_along_axis(order, np.argsort(-scores, axis=1), axis=1)  # (n, listed)
        self.near = np.take_along_axis(self.alike, self.order, axis=1)

    def crowds(self, deals: Deals) -> Numbers:
        """How much more than their share requests are among the nearest texts of a request: squares, the mean of."""
        import numpy as np

        found = []
        for requests in deals:
            beyond = requests[self.order[requests, :NEIGHBOURS]].mean(axis=1) - requests.mean()
            found.append((np.maximum(0.0, beyond) ** 2).mean())
        return np.array(found)

    def nearest_tested(self, requests: NDArray[np.bool_]) -> NDArray[np.float32]:
        """How near the nearest other tested text is to each text, shape (texts,). requests: shape (texts,)."""
        import numpy as np

        tested = ~requests[self.order]
        first = np.where(tested.any(axis=1), tested.argmax(axis=1), self.order.shape[1] - 1)
        return np.take_along_axis(self.near, first[:, None], axis=1)[:, 0]

    def far(self, requests: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which texts are farther from the nearest tested one than nearly all tested texts are from each other."""
        import numpy as np

        nearest = self.nearest_tested(requests)
        return nearest <= np.quantile(nearest[~requests], _FAR, method="lower")

    def far_requests(self, deals: Deals) -> Numbers:
        """By how much the share of requests that are far exceeds that of the tested texts that are."""
        import numpy as np

        found = []
        for requests in deals:
            far = self.far(requests)
            found.append(far[requests].mean() - far[~requests].mean())
        return np.array(found)


def by_words(texts: Sequence[str]) -> NDArray[np.float32]:
    """Cosines of TF-IDF over words and characters, shape (texts, texts)."""
    import numpy as np

    from rung.data.vectors import TEXT_CHARACTERS, tfidf

    vectors = tfidf([text[:TEXT_CHARACTERS] for text in texts])
    found: NDArray[np.float32] = (
        np.zeros((len(texts), len(texts)), np.float32) if vectors is None else (vectors @ vectors.T).toarray()
    )
    return found


def told_apart(alike: NDArray[np.float32]) -> tuple[Statistic, Pairs, Scores]:
    """How well a classifier that has not seen a text tells which sample it is of: (the correlation, for a test; the
    share of pairs of a request and a tested input in which the request gets the higher score; the scores).

    Ridge regression on the cosines, each text left out in turn. Left-out predictions have a closed form that is linear
    in the labels, so that all deals are one product of matrices.
    Sources: Lopez-Paz & Oquab, Revisiting classifier two-sample tests (2017); for the form, Cawley & Talbot (2003).
    """
    import numpy as np

    hat = alike @ np.linalg.inv(alike + _RIDGE * np.eye(len(alike), dtype=np.float32))
    own = np.diag(hat)[:, None]

    def scores(deals: Deals) -> tuple[Any, Any]:  # (texts, deals) each
        centred = deals.T.astype(np.float32) - deals.mean(axis=1, dtype=np.float32)
        return (hat @ centred - own * centred) / (1 - own), centred

    def statistic(deals: Deals) -> Numbers:
        score, centred = scores(deals)
        found: Numbers = (score * centred).sum(axis=0) / np.sqrt((score**2).sum(axis=0) + 1e-9)
        return found

    def score_of(requests: NDArray[np.bool_]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = scores(requests[None, :])[0][:, 0]
        return found

    def pairs(requests: NDArray[np.bool_]) -> float:
        from scipy.stats import rankdata

        score = score_of(requests)
        n, m = int(requests.sum()), int((~requests).sum())
        return float((rankdata(score)[requests].sum() - n * (n + 1) / 2) / (n * m))

    return statistic, pairs, score_of


def unknown_words(texts: Sequence[str]) -> Statistic:
    """The mean share of a request's words that no tested text has. Words count once in a text."""
    import numpy as np
    from scipy.sparse import csr_matrix

    from rung.text import units

    places: dict[str, int] = {}
    rows = [sorted({places.setdefault(word, len(places)) for word in units(text)}) for text in texts]
    ends = np.cumsum([0, *map(len, rows)])
    columns = np.array([place for row in rows for place in row], dtype=np.int32)
    held = csr_matrix((np.ones(len(columns), np.float32), columns, ends), shape=(len(texts), max(1, len(places))))
    number = np.maximum(1, np.diff(ends))[:, None]

    def statistic(deals: Deals) -> Numbers:
        known = (held.T @ (~deals.T).astype(np.float32)) > 0  # (words, deals)
        shares = (held @ (~known).astype(np.float32)) / number  # (texts, deals)
        found: Numbers = (shares * deals.T).sum(axis=0) / deals.sum(axis=1)
        return found

    return statistic


def distance(values: Sequence[float]) -> Statistic:
    """The largest distance between two distribution functions (Kolmogorov and Smirnov)."""
    import numpy as np

    order = np.argsort(values, kind="stable")
    sorted_ = np.asarray(values)[order]
    last = np.append(sorted_[1:] != sorted_[:-1], True)  # of equal values, the last one counts

    def statistic(deals: Deals) -> Numbers:
        dealt = deals[:, order]
        requests = np.cumsum(dealt, axis=1) / dealt.sum(axis=1, keepdims=True)
        tested = np.cumsum(~dealt, axis=1) / (~dealt).sum(axis=1, keepdims=True)
        found: Numbers = np.abs(requests - tested)[:, last].max(axis=1)
        return found

    return statistic


def shares_differ(kinds: Sequence[Hashable]) -> Statistic:
    """Pearson's chi-square of a table of kinds by sample."""
    import numpy as np

    is_of = _is_of(kinds)
    totals = is_of.sum(axis=1)[:, None]

    def statistic(deals: Deals) -> Numbers:
        counts = is_of @ deals.T.astype(np.float32)  # (kinds, deals)
        expected = totals * (deals.sum(axis=1) / deals.shape[1])[None, :]
        rest = totals - expected
        found: Numbers = ((counts - expected) ** 2 * (1 / expected + 1 / rest)).sum(axis=0)
        return found

    return statistic


def unseen(kinds: Sequence[Hashable]) -> Statistic:
    """The share of requests whose kind no tested text is of."""
    import numpy as np

    is_of = _is_of(kinds)

    def statistic(deals: Deals) -> Numbers:
        requests = deals.T.astype(np.float32)  # (texts, deals)
        counts, known = is_of @ requests, (is_of @ (1 - requests)) > 0  # (kinds, deals)
        found: Numbers = (counts * ~known).sum(axis=0) / deals.sum(axis=1)
        return found

    return statistic


def _is_of(kinds: Sequence[Hashable]) -> Any:
    """1 where a text is of a kind, shape (kinds, texts)."""
    import numpy as np

    names = {kind: place for place, kind in enumerate(dict.fromkeys(kinds))}
    found = np.zeros((len(names), len(kinds)), np.float32)
    found[[names[kind] for kind in kinds], np.arange(len(kinds))] = 1
    return found


# ---- what a text is -------------------------------------------------------------------------


def script(text: str) -> str:
    """The script of most letters; empty where there are none."""
    scripts = Counter(unicodedata.name(c, "").split(" ")[0].lower() for c in text[:2_000] if c.isalpha())
    return scripts.most_common(1)[0][0] if scripts else ""


def oddity(text: str) -> str:
    """What is odd about a text, in words; empty for an ordinary one."""
    said = text.strip()
    if not said:
        return "empty"
    if any(unicodedata.category(c) in ("Cc", "Cn", "Co") and c not in "\n\r\t\f" for c in said) or "\ufffd" in said:
        return "characters that are no text"
    if not any(c.isalpha() for c in said):
        return "no letters"
    words = said.split()
    if len(words) >= 20 and len(set(words)) <= len(words) // 5:
        return "the same words again and again"
    return ""
