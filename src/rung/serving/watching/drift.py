"""Are requests still like the inputs that were tested? Several looks, one level for all of them together.

Each look is a permutation test (`looks`); Holm's correction keeps the chance that any of them cries drift on requests
drawn like the tested inputs at 5 %. Texts count once, and are taken as drawn one by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from rung.serving.watching.clusters import NewCluster
from rung.types import Query

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rung.retrieval.embedders import Embedder
    from rung.serving.watching.looks import Deals, Pairs, Scores, Statistic
    from rung.serving.watching.requests import KnownInputs, RequestFile

LEVEL = 0.05
"""Of all looks together."""
POWER = 0.8
NEW_SHARE = 0.1
"""Of requests, which a file should be large enough to show: requests of a kind that no tested input is of."""
MOST = 1_500
"""Texts of either sample that are compared; of more, a fixed random sample."""
LEAST = 5
"""Requests that are looked at, and tested inputs."""
_MOST_REQUESTS = 100_000
_MOST_KINDS = 50  # of answers that are labels
_SHOWN = 5  # kinds in a sentence

Outcome = Literal["drift", "no drift shown", "too few"]


@dataclass(frozen=True)
class Look:
    """One way to look. p: that requests are drawn like the tested inputs; corrected: by Holm for all looks.
    said: what differs, or does not, in numbers. figures: these numbers, for programs."""

    name: str
    p: float
    corrected: float
    said: str
    figures: Mapping[str, Any]

    @property
    def differs(self) -> bool:
        return self.corrected <= LEVEL


@dataclass(frozen=True)
class Drift:
    """tested, requests: texts that were compared. repeated: requests that stand there again. themselves: texts of
    requests that are tested inputs. least: requests that show
    a NEW_SHARE of a new kind with POWER; None where there are too few tested inputs for any number. not_looked_at:
    look -> why."""

    outcome: Outcome
    headline: str
    looks: tuple[Look, ...]
    clusters: tuple[NewCluster, ...]
    tested: int
    requests: int
    repeated: int
    unreadable: tuple[str, ...]
    least: int | None
    themselves: int = 0
    not_looked_at: Mapping[str, str] = field(default_factory=dict)


def drift(known: KnownInputs, asked: RequestFile, *, embedder: Embedder | None = None, seed: int = 0) -> Drift:
    """Compares requests with what was tested. Takes seconds; needs no model. Deterministic for one seed.

    embedder: compares by meaning, too. It finds new topics that share their words with tested ones.
    """
    from rung.data.sampling import sample_of
    from rung.text import normal_form

    inputs, once = _once(known.inputs), _once(asked.inputs)
    tested = sample_of(inputs, MOST, seed)
    requests = sample_of(once, MOST, seed)
    forms = {normal_form(query.text) for query in inputs}
    themselves = sum(normal_form(query.text) in forms for query in requests)
    repeated = len(asked.inputs) - len(once)
    looks: tuple[Look, ...] = ()
    clusters: tuple[NewCluster, ...] = ()
    left: dict[str, str] = {}
    if len(tested) >= LEAST and len(requests) >= LEAST:
        found = _Compared(tested, requests, seed)
        views = [found.far(), found.topics(), found.words(), found.lengths(), found.scripts(), found.languages()]
        views += [found.meaning(embedder)] if embedder is not None else []
        views += [found.forms(len(asked.unreadable)), *_answers(known, asked, seed)]
        left = {view.name: view.why_not for view in views if view.why_not}
        looks = _corrected([view for view in views if not view.why_not])
        clusters = found.clusters()
        if any(look.differs for look in looks):
            clusters = clusters or found.clusters_told_apart()
    least = least_requests(len(tested), max(1, len(looks)))
    differing = [look.name for look in looks if look.differs]
    outcome: Outcome = "no drift shown"
    if differing:
        outcome = "drift"
    elif least is None or len(requests) < least:
        outcome = "too few"
    headline = _headline(outcome, differing, len(requests), len(tested), least)
    return Drift(
        outcome,
        headline,
        looks,
        clusters,
        tested=len(tested),
        requests=len(requests),
        repeated=repeated,
        unreadable=asked.unreadable,
        least=least,
        themselves=themselves,
        not_looked_at=left,
    )


def least_requests(tested: int, looks: int) -> int | None:
    """The number of requests from which on NEW_SHARE of them, of a kind that no tested input is of, are shown with
    POWER; None where no number suffices.

    Fisher's exact test at the level that Holm's correction leaves a first look: x of m requests and none of the tested
    inputs has p = C(m, x) / C(m + tested, x).
    """
    from scipy.stats import binom

    for requests in (*range(LEAST, 200), *range(200, 2_000, 10), *range(2_000, 20_001, 100)):
        p, needed = 1.0, 0
        while p > LEVEL / looks and needed < requests:
            p *= (requests - needed) / (requests + tested - needed)
            needed += 1
        if p <= LEVEL / looks and float(binom.sf(needed - 1, requests, NEW_SHARE)) >= POWER:
            return int(requests)
    return None


@dataclass(frozen=True)
class _View:
    """A look before its correction. why_not: why nothing was looked at; empty where it was."""

    name: str
    p: float = 1.0
    said: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)
    why_not: str = ""


class _Compared:
    """Two samples of texts, and the looks at them."""

    def __init__(self, tested: Sequence[Query], requests: Sequence[Query], seed: int) -> None:
        from rung.serving.watching.looks import Neighbours, by_words, deals_of

        self.queries = (*tested, *requests)
        self.texts = tuple(query.text for query in self.queries)
        self.seed = seed
        self.deals = deals_of(len(tested), len(requests), seed)
        self.near = Neighbours(by_words(self.texts))

    @property
    def _requests(self) -> NDArray[np.bool_]:
        first: NDArray[np.bool_] = self.deals[0]
        return first

    def far(self) -> _View:
        far, requests = self.near.far(self._requests), self._requests
        number, share, usual = int(far[requests].sum()), float(far[requests].mean()), float(far[~requests].mean())
        said = (
            f"{number:,} requests ({_percent(share)}) are as far from every tested input as {_percent(usual)} of the "
            "tested inputs are from each other"
        )
        return self._view("new clusters", self.near.far_requests, said, {"far": share, "far_tested": usual})

    def topics(self) -> _View:
        statistic, pairs, _ = self._told_apart
        share = pairs(self._requests)
        said = (
            f"a classifier by words tells a request from a tested input in {_percent(share)} of pairs, 50 % by chance"
        )
        return self._view("topics", statistic, said, {"pairs": share})

    def meaning(self, embedder: Embedder) -> _View:
        import numpy as np

        from rung.data.vectors import TEXT_CHARACTERS
        from rung.serving.watching.looks import Neighbours, p_and_chance

        vectors = np.asarray(embedder.embed([text[:TEXT_CHARACTERS] for text in self.texts]), np.float32)
        near = Neighbours(vectors @ vectors.T)
        p, chance = p_and_chance(near.crowds, self.deals)
        found = float(near.crowds(self.deals[:1])[0])
        said = f"requests crowd together {found / max(chance, 1e-9):.2f} times as much as by chance, by {embedder.name}"
        return _View("meaning", p, said, {"crowded": found, "by_chance": chance})

    def words(self) -> _View:
        from rung.serving.watching.looks import p_and_chance, unknown_words

        statistic = unknown_words(self.texts)
        share, (p, chance) = float(statistic(self.deals[:1])[0]), p_and_chance(statistic, self.deals)
        said = f"{_percent(share)} of the words of a request stand in no tested input, {_percent(chance)} by chance"
        return _View("words", p, said, {"unknown": share, "by_chance": chance})

    def lengths(self) -> _View:
        import numpy as np

        from rung.serving.watching.looks import distance

        lengths = np.array([len(text) for text in self.texts])
        tested, requests = lengths[~self._requests], lengths[self._requests]
        beyond = float((requests > tested.max()).mean())
        before, now = _quantiles(tested), _quantiles(requests)
        said = (
            f"half of the requests have up to {now['p50']:,} characters, of the tested inputs up to "
            f"{before['p50']:,}; {_percent(beyond)} are longer than the longest tested one"
        )
        figures = {"tested": before, "requests": now, "beyond_longest": beyond}
        return self._view("lengths", distance(lengths.tolist()), said, figures)

    def scripts(self) -> _View:
        from rung.serving.watching.looks import script

        return _kinds("scripts", [script(text) or "no letters" for text in self.texts], self.deals)

    def languages(self) -> _View:
        """Of the texts whose language is sure, dealt out among themselves."""
        from rung.retrieval.languages import language_of
        from rung.serving.watching.looks import deals_of

        found = [language_of(text) for text in self.texts]
        sure = [
            sum(bool(k) for k, r in zip(found, self._requests, strict=True) if bool(r) is asked)
            for asked in (False, True)
        ]
        of = f"{sure[1]:,} requests and {sure[0]:,} tested inputs"
        if min(sure) < LEAST:
            return _View("languages", why_not=f"the language is sure of {of} only")
        view = _kinds("languages", [kind for kind in found if kind], deals_of(sure[0], sure[1], self.seed))
        return replace(view, said=f"{view.said}, of {of} whose language is sure") if view.said else view

    def forms(self, unreadable: int) -> _View:
        """Which parts requests have, and what is odd about them."""
        from rung.serving.watching.looks import oddity

        view = _kinds(
            "forms", [oddity(text) or _parts(q) for q, text in zip(self.queries, self.texts, strict=True)], self.deals
        )
        if unreadable:
            rows = "1 row" if unreadable == 1 else f"{unreadable:,} rows"
            said = f"{view.said or view.why_not}; {rows} of the file cannot be read"
            return _View(view.name, view.p, said, view.figures, view.why_not and said)
        return view

    def clusters(self) -> tuple[NewCluster, ...]:
        """Of requests that are far from every tested input."""
        return self._clusters(self.near.far(self._requests))

    def clusters_told_apart(self) -> tuple[NewCluster, ...]:
        """Of requests that the classifier takes for one more surely than nearly all tested inputs. Where tested inputs
        have hardly a word in common, none is far from them, and these are what is new."""
        import numpy as np

        scores = self._told_apart[2](self._requests)
        return self._clusters(scores > np.quantile(scores[~self._requests], 1 - LEVEL))

    @cached_property
    def _told_apart(self) -> tuple[Statistic, Pairs, Scores]:
        from rung.serving.watching.looks import told_apart

        return told_apart(self.near.alike)

    def _clusters(self, new: NDArray[np.bool_]) -> tuple[NewCluster, ...]:
        import numpy as np

        from rung.serving.watching.clusters import new_clusters

        nearest = self.near.nearest_tested(self._requests)
        bar = max(0.05, float(np.median(nearest[~self._requests])))
        return new_clusters(self.near.alike, new & self._requests, self.texts, bar)

    def _view(self, name: str, statistic: Statistic, said: str, figures: Mapping[str, Any]) -> _View:
        from rung.serving.watching.looks import p_value

        return _View(name, p_value(statistic, self.deals), said, figures)


def _kinds(name: str, kinds: Sequence[str], deals: Deals) -> _View:
    """A look at which kinds there are, and how often."""
    from rung.serving.watching.looks import p_value, shares_differ

    if len(set(kinds)) == 1:
        return _View(name, why_not=f"all texts are alike in it: {kinds[0]}")
    parts = [Counter(k for k, r in zip(kinds, deals[0], strict=True) if bool(r) is asked) for asked in (False, True)]
    tested, requests = ({kind: n / part.total() for kind, n in part.most_common()} for part in parts)
    order = sorted({*tested, *requests}, key=lambda k: -abs(requests.get(k, 0) - tested.get(k, 0)))
    some = [f"{k} {_percent(requests.get(k, 0))} (tested {_percent(tested.get(k, 0))})" for k in order[:_SHOWN]]
    new = [kind for kind in requests if kind not in tested]
    figures = {"tested": tested, "requests": requests, "new": new}
    return _View(name, p_value(shares_differ(kinds), deals), ", ".join(some), figures)


def _answers(known: KnownInputs, asked: RequestFile, seed: int) -> list[_View]:
    """Where answers are labels, which there are and how often, and those never seen; else the lengths of answers."""
    import numpy as np

    from rung.data.sampling import sample_of
    from rung.serving.watching.looks import deals_of, distance, p_value, unseen
    from rung.text import normal_form

    name = "answers"
    if not asked.answers:
        why_not = "the requests have no answers; --answers reads them, --answer lets the bundle answer"
        return [_View(name, why_not=why_not)]
    if len(known.answers) < LEAST or len(asked.answers) < LEAST:
        return [_View(name, why_not="there are too few answers to compare")]
    tested, requests = sample_of(known.answers, MOST, seed), sample_of(asked.answers, MOST, seed)
    deals = deals_of(len(tested), len(requests), seed)
    declared = {normal_form(label): label for label in known.labels}
    said = [declared.get(form := normal_form(answer), form) for answer in (*tested, *requests)]
    kinds = len(set(said[: len(tested)]))
    if declared or (kinds <= _MOST_KINDS and 3 * kinds <= len(tested)):
        view = _kinds(name, said, deals)
        new = [label for label in view.figures.get("new", ()) if label not in known.labels]
        p = p_value(unseen(["" if label in known.labels else label for label in said]), deals)
        share = sum(label in new for label in said[len(tested) :]) / len(requests)
        text = f"{_percent(share)} of the answers are none that was seen before"
        text += f": {', '.join(new[:_SHOWN])}" if new else ""
        return [view, _View("new labels", p, text, {"share": share, "labels": new}, view.why_not)]
    lengths = np.array([len(answer) for answer in (*tested, *requests)])
    before, now = _quantiles(lengths[: len(tested)]), _quantiles(lengths[len(tested) :])
    text = f"half have up to {now['p50']:,} characters, those on tested inputs {before['p50']:,}"
    return [_View(name, p_value(distance(lengths.tolist()), deals), text, {"tested": before, "requests": now})]


def _corrected(views: Sequence[_View]) -> tuple[Look, ...]:
    from rung.evaluation.statistics import holm

    corrected = holm([view.p for view in views])
    return tuple(Look(v.name, v.p, c, v.said, v.figures) for v, c in zip(views, corrected, strict=True))


def _once(queries: Sequence[Query]) -> list[Query]:
    """Each text once, the first of each, in order."""
    from rung.text import normal_form

    found: dict[str, Query] = {}
    for query in queries[:_MOST_REQUESTS]:
        found.setdefault(normal_form(query.text), query)
    return list(found.values())


def _parts(query: Query) -> str:
    named = (("context", query.context), ("an instruction", query.instruction), ("earlier turns", query.turns))
    return " and ".join(["an input", *(name for name, part in named if part)])


def _quantiles(values: Any) -> dict[str, int]:
    import numpy as np

    return {f"p{q}": int(np.percentile(values, q)) for q in (5, 50, 95, 100)}


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 or share == 0 else f"{100 * share:.1f} %"


def _headline(outcome: Outcome, differing: Sequence[str], requests: int, tested: int, least: int | None) -> str:
    compared = f"{requests:,} requests, {tested:,} tested inputs"
    if outcome == "drift":
        return f"Drift: requests differ from what was tested in {', '.join(differing)} ({compared})."
    if outcome == "no drift shown":
        return f"No drift shown ({compared})."
    if least is None:
        return (
            f"Too few tested inputs to tell ({compared}): however many requests there are, so few inputs cannot show "
            "that a tenth of the requests are of a new kind."
        )
    return f"Too few requests to tell ({requests:,}; at least {least:,}), beside {tested:,} tested inputs."
