"""Answers that are probably wrong, surest first: by what a classifier or the nearest examples say of each row.

Where the answers are labels: probabilities from logistic regression on the row's vector, learnt from other rows alone
(cross-validated, groups kept whole), and cleanlab's ranking by the probability of the row's own label. Where they are
not: the answers of a row's nearest neighbours, where these agree with each other and the row does not agree with them;
and, where answers repeat words of their inputs, answers that have no more in common with their own input than with
those of other rows.

How many rows are listed follows from the surplus: calibrated probabilities say how many rows have so improbable a
label although all labels are right; what is beyond that number is wrong. Weak classifiers leave no surplus, so that
they list next to nothing, where cleanlab's own count lists their errors. `bench/checks.py` measures both.
Sources: Northcutt, Jiang & Chuang, Confident learning (2021), section 4.2, for the ranking; Storey, A direct approach
to false discovery rates (2002), for expected against observed counts; Guo et al., On calibration of modern neural
networks (2017), for the temperature.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rung.data.checks.material import Material
from rung.data.vectors import TEXT_CHARACTERS, text_of, tfidf, vectors_of
from rung.text import normal_form
from rung.types import Example, Finding

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.intp]

CHECK = "likely_wrong_label"
UNLIKE_NEIGHBOURS = "unlike_neighbours"
OTHER_ANSWER = "answer_of_another"
LEAST_ROWS = 40
"""Fewer rows teach a classifier too little to accuse anybody."""
MOST_LABELS = 200

_LEAST_OF_LABEL = 3  # groups of rows that hold a label that is learnt: those of one group are in one fold
_LEAST_RIGHT = 0.6  # share of rows that a classifier gives their own labels; a worse one accuses nobody
_REPEATED = 0.9
_FOLDS = 5
_TOLERANCE, _STEPS = 1e-4, 40  # of the fit; with many labels a tolerance of 1e-2 ends it before its first step
_REGULARISATION = 10.0  # scikit-learn's C; 1 and 100 rank alike
_SURE, _LIKELY = 0.5, 0.2  # share of the rows listed so far that is wrong
_BY_CHANCE, _LEAST_LISTED = 0.003, 3
_NEIGHBOURS = 5
_BATCH = 512
_NEAR, _AGREE, _UNLIKE = 0.4, 0.5, 0.1  # cosines: of inputs, of neighbours' answers, of the row's answer with theirs
_REPEATING = 0.8  # share of the answers that are more like their own input than 95 % of the others are
_FEW = 0.01  # share of rows up to which answers that repeat nothing are exceptions
_OTHERS = 5  # other inputs that each answer is compared with


def wrong_labels(material: Material) -> Iterator[Finding]:
    """`likely_wrong_label` for labels; for other answers `unlike_neighbours` and `answer_of_another`."""
    examples, task = material.examples, material.task
    if len(examples) < LEAST_ROWS or task.metric in ("numeric_match", "numeric_error"):
        return
    if labelled(examples, bool(task.labels)):
        yield from _by_classifier(material)
    elif vectors := vectors_of(examples, task.seed):
        rows = [examples[i] for i in vectors.places]
        yield from _by_neighbours(rows, vectors.dense)
        yield from _by_input(rows, task.seed)


def labelled(examples: Sequence[Example], closed: bool) -> bool:
    """Whether the answers are labels: a closed set, or at most MOST_LABELS answers that nearly all are repeated."""
    counts = Counter(normal_form(e.output) for e in examples)
    repeated = sum(n for n in counts.values() if n >= _LEAST_OF_LABEL)
    return 2 <= len(counts) <= MOST_LABELS and (closed or repeated >= _REPEATED * len(examples))


# ---- labels -----------------------------------------------------------------------------------


def _by_classifier(material: Material) -> Iterator[Finding]:
    import numpy as np

    vectors = vectors_of(material.examples, material.task.seed)
    if vectors is None:
        return
    answers = [normal_form(material.examples[i].output) for i in vectors.places]
    ids = [material.examples[i].id for i in vectors.places]
    held = Counter(a for a, _ in {(a, material.groups.get(i, i)) for a, i in zip(answers, ids, strict=True)})
    learnt = sorted(a for a, groups in held.items() if groups >= _LEAST_OF_LABEL)
    number = {a: n for n, a in enumerate(learnt)}
    rows = np.array([n for n, a in enumerate(answers) if a in number], dtype=np.intp)
    if len(number) < 2 or len(rows) < LEAST_ROWS:
        return
    given = np.array([number[answers[n]] for n in rows], dtype=np.intp)
    places = vectors.places[rows]
    groups = [material.groups.get(material.examples[i].id, material.examples[i].id) for i in places]
    folds = _folds(given, groups)
    probabilities = _temperate(out_of_sample(vectors.dense[rows], given, folds, material.task.seed), given)
    if (probabilities.argmax(axis=1) == given).mean() < _LEAST_RIGHT:
        return
    written = _spellings(material.examples, answers, vectors.places)
    names = [written[a] for a in number]
    for place, sure in suspects(probabilities, given):
        example, p = material.examples[places[place]], probabilities[place]
        message = (
            f'A classifier says "{names[int(p.argmax())]}" ({100 * p.max():.0f} %), not this label '
            f"({100 * p[given[place]]:.1f} %)."
        )
        yield Finding(CHECK, "warning" if sure else "note", example.row, message, (example.id,))


def _spellings(examples: Sequence[Example], answers: Sequence[str], places: IntArray) -> dict[str, str]:
    """Normal form of a label -> how the first row writes it."""
    written: dict[str, str] = {}
    for answer, place in zip(answers, places, strict=True):
        written.setdefault(answer, examples[place].output.strip())
    return written


def _folds(given: IntArray, groups: Sequence[str]) -> IntArray:
    """The fold of each row, shape (n,): groups are dealt out whole, one label after the other, in their order."""
    import numpy as np

    first: dict[str, int] = {}
    for place, group in enumerate(groups):
        first.setdefault(group, place)
    dealt = sorted(first, key=lambda group: (given[first[group]], first[group]))
    fold = {group: turn % _FOLDS for turn, group in enumerate(dealt)}
    return np.array([fold[group] for group in groups], dtype=np.intp)


def out_of_sample(vectors: Any, given: IntArray, folds: IntArray, seed: int = 0) -> FloatArray:
    """Log-probabilities of each label for each row, from a classifier that has not seen the row's fold.

    vectors: shape (n, dimensions). given: labels as numbers from 0, shape (n,). folds: shape (n,). Returns shape
    (n, labels). Labels that the other folds do not hold get the least probability.
    """
    import numpy as np
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    least = 1e-9
    found = np.full((len(given), int(given.max()) + 1), least)
    for fold in np.unique(folds):
        own, other = folds == fold, folds != fold
        labels = np.unique(given[other])
        if len(labels) < 2:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # nearly converged ranks alike
            model = LogisticRegression(C=_REGULARISATION, tol=_TOLERANCE, max_iter=_STEPS, random_state=seed % 2**32)
            model.fit(vectors[other], given[other])
        found[np.ix_(own, labels)] = np.maximum(model.predict_proba(vectors[own]), least)
    logs: FloatArray = np.log(found)
    return logs


def _temperate(logs: FloatArray, given: IntArray) -> FloatArray:
    """Probabilities from log-probabilities, sharpened or flattened by the temperature with the least Brier score.

    The Brier score is bounded, so that a few wrong labels do not bend the calibration; a likelihood would.
    """
    import numpy as np
    from scipy.optimize import minimize_scalar
    from scipy.special import softmax

    rows = np.arange(len(given))

    def brier(log_scale: float) -> float:
        p = softmax(np.exp(log_scale) * logs, axis=1)
        return float(((p**2).sum(axis=1) - 2 * p[rows, given]).mean())

    best = minimize_scalar(brier, bounds=(-3.0, 3.0), method="bounded", options={"xatol": 0.01})
    probabilities: FloatArray = softmax(np.exp(best.x) * logs, axis=1)
    return probabilities


def suspects(probabilities: FloatArray, given: IntArray) -> Iterator[tuple[int, bool]]:
    """(place, whether at least half of those up to here are wrong) of rows that may be wrong, by cleanlab's ranking.

    probabilities: calibrated, out of sample, shape (n, labels). given: shape (n,). Of the first O rows with
    probabilities of their own labels up to t, E are expected where no label is wrong: the sum of all probabilities up
    to t, over all rows and labels. The share of them that is wrong is 1 - E / O. The list ends where that falls below a
    fifth, or where O is no longer improbable by chance (Poisson, mean E), and is at least twice as long as its surer
    part: the order is surer than the counts.
    """
    import numpy as np
    from cleanlab.rank import get_label_quality_scores
    from scipy.stats import poisson

    own = get_label_quality_scores(given, probabilities, method="self_confidence")
    order = np.argsort(own, kind="stable")
    all_of_them = np.sort(probabilities, axis=None)
    below = np.concatenate([[0.0], np.cumsum(all_of_them)])
    expected = below[np.searchsorted(all_of_them, own[order], side="right")]
    observed = np.arange(1, len(order) + 1)
    wrong = 1 - expected / observed
    real = (poisson.sf(observed - 1, expected) <= _BY_CHANCE) & (observed >= _LEAST_LISTED)
    doubted = probabilities.argmax(axis=1)[order] != given[order]

    def ends(share: float) -> int:
        reached = np.nonzero((wrong >= share) & real & doubted)[0]
        return int(reached[-1]) + 1 if len(reached) else 0

    sure = ends(_SURE)
    for place in range(max(ends(_LIKELY), min(2 * sure, len(order)))):
        if doubted[place]:
            yield int(order[place]), place < sure


# ---- other answers ----------------------------------------------------------------------------


def _by_neighbours(rows: Sequence[Example], dense: Any) -> Iterator[Finding]:
    """Rows whose answer is unlike those of their nearest inputs, where these agree; most alike inputs first."""
    import numpy as np

    answers = tfidf([e.output[:TEXT_CHARACTERS] for e in rows], lean=True)
    if answers is None:
        return
    found: list[tuple[float, int]] = []
    for start in range(0, len(rows), _BATCH):
        nearest, cosines = _nearest(dense, start)
        close = cosines >= _NEAR
        near = [own[is_close] for own, is_close in zip(nearest, close, strict=True)]
        asked = [n for n, own in enumerate(near) if len(own) >= _NEIGHBOURS - 2]
        for row in _unlike(answers, start, near, asked):
            theirs = answers[near[row]]
            agree = (theirs @ theirs.T).toarray()[np.triu_indices(len(near[row]), 1)]
            if np.median(agree) >= _AGREE:
                found.append((float(cosines[row][close[row]].mean()), start + row))
    message = "The most similar inputs have answers that are like each other, and unlike this one."
    for _, place in sorted(found, key=lambda item: (-item[0], item[1])):
        yield Finding(UNLIKE_NEIGHBOURS, "note", rows[place].row, message, (rows[place].id,))


def _by_input(rows: Sequence[Example], seed: int) -> Iterator[Finding]:
    """Rows whose answer is as unlike their input as answers of other rows are, where answers repeat their inputs.

    Answers of several rows ("unknown", "{}") belong to no input, and are not looked at.
    """
    import numpy as np

    n = len(rows)
    both = tfidf([text_of(e) for e in rows] + [e.output[:TEXT_CHARACTERS] for e in rows], lean=True)
    if both is None:
        return
    inputs, answers = both[:n], both[n:]
    own = np.asarray(inputs.multiply(answers).sum(axis=1)).ravel()
    shifts = np.random.default_rng(seed).integers(1, n, _OTHERS)
    others = [np.asarray(inputs.multiply(answers[np.roll(np.arange(n), s)]).sum(axis=1)).ravel() for s in shifts]
    usual, most = np.quantile(np.concatenate(others), [0.75, 0.95])
    if (own > most).mean() < _REPEATING:
        return
    times = Counter(normal_form(e.output) for e in rows)
    apart = [
        place
        for place in np.nonzero(own <= usual)[0].tolist()
        if times[normal_form(rows[place].output)] < _LEAST_OF_LABEL
    ]
    elsewhere = set(_at_home_elsewhere(inputs, answers, apart, float(np.median(own))))
    strange = len(apart) - len(elsewhere) <= max(_LEAST_LISTED, _FEW * n)
    for place in apart:
        if place in elsewhere or strange:
            fits = "the input of another row better" if place in elsewhere else "its input no better than others do"
            yield Finding(OTHER_ANSWER, "note", rows[place].row, f"The answer fits {fits}.", (rows[place].id,))


def _at_home_elsewhere(inputs: Any, answers: Any, places: Sequence[int], usual: float) -> Iterator[int]:
    """Those of the places whose answer is as like another input as half of the answers are like their own."""
    for start in range(0, len(places), _BATCH):
        batch = list(places[start : start + _BATCH])
        most = (answers[batch] @ inputs.T).max(axis=1).toarray().ravel()
        yield from (place for place, alike in zip(batch, most, strict=True) if alike >= usual)


def _unlike(answers: Any, start: int, near: Sequence[IntArray], asked: Sequence[int]) -> list[int]:
    """Those of the asked rows of a batch whose answer is unlike the answer of each of their neighbours."""
    import numpy as np

    if not asked:
        return []
    own = np.repeat([start + row for row in asked], [len(near[row]) for row in asked])
    others = np.concatenate([near[row] for row in asked])
    alike = np.asarray(answers[own].multiply(answers[others]).sum(axis=1)).ravel()
    ends = np.cumsum([0, *(len(near[row]) for row in asked)])
    return [row for row, first, last in zip(asked, ends, ends[1:], strict=False) if alike[first:last].max() <= _UNLIKE]


def _nearest(dense: Any, start: int) -> tuple[IntArray, FloatArray]:
    """The _NEIGHBOURS nearest other rows of a batch of rows, nearest first, and their cosines; shape (batch, k)."""
    import numpy as np

    cosines = dense[start : start + _BATCH] @ dense.T  # (batch, rows)
    rows = np.arange(len(cosines))
    cosines[rows, start + rows] = -1.0
    k = min(_NEIGHBOURS, cosines.shape[1] - 1)
    nearest = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(cosines, nearest, axis=1), axis=1)
    nearest = np.take_along_axis(nearest, order, axis=1)
    return nearest, np.take_along_axis(cosines, nearest, axis=1)
