"""Candidates that use no language model: what must be beaten before a model is worth anything.

`most_frequent` and `chance` look at no input: the better of them is the floor. `tfidf_linear` (few distinct answers)
and `nearest_neighbour` (other tasks) learn from the examples alone: where one of them is as good as the best solution,
no language model is needed. They are scored on the same examples and compared in pairs like any candidate.
Knows nothing about models and solutions. Imports numpy and scikit-learn when called.
"""

from __future__ import annotations

import itertools
import random
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rung.evaluation.scorer import Scorer
from rung.text import normal_form, visible_lines
from rung.types import Answer, Example, Prediction, Query

if TYPE_CHECKING:
    import numpy as np

MOST_FREQUENT, CHANCE = "most_frequent", "chance"
FLOORS = (MOST_FREQUENT, CHANCE)
"""The baselines that look at no input."""

_MOST_ROWS = 20_000
_MOST_CHARACTERS = 3_000_000
_MOST_CHARACTERS_TIMES_ANSWERS = 100_000_000
"""At most so many training rows, characters of them, and characters times distinct answers of a classifier are learnt
from. At these limits learning takes about half a minute on one core and 1 GB."""

_TEXT_CHARACTERS = 2_000
"""Only the first so many characters of an input are read."""

_REPEATED = 0.9
"""Answers are label-like when at least this share of the training rows has an answer that another row has too."""

_BATCH = 512  # inputs compared with all training rows at once
_TOLERANCE = 1e-2  # of the classifier's fit; a smaller one takes longer and answers alike
_RARE = 1_000  # from so many texts on, what stands in only one of them is no feature


def baselines(
    train: Sequence[Example],
    asked: Sequence[Example],
    scorer: Scorer,
    *,
    labels: Sequence[str] = (),
    seed: int = 0,
) -> dict[str, list[Prediction]]:
    """Scored answers of each baseline that applies, in the order of `asked`.

    train: what may be learnt from. asked: the examples to answer, n >= 1. labels: the closed set of answers, if any.
    - most_frequent: always the most frequent training answer; of equally frequent ones the first.
    - chance: a blind guess among the labels. The score is the mean over all labels, and the text is empty. None where
      no answer is one of the labels: a set of labels is not guessed.
    - tfidf_linear: a linear support vector classifier over TF-IDF of words and characters, with labels or label-like
      answers (`label_like`). Deterministic.
    - nearest_neighbour: the answer of the training input with the highest TF-IDF cosine; for all other tasks.
    Without training examples only chance is left; a metric that asks a model is not asked for chance.
    """
    if not asked:
        raise ValueError("no examples to score")
    answers: dict[str, list[Prediction]] = {}
    forms = {normal_form(label) for label in labels}
    closed = any(normal_form(e.output) in forms for e in (*train, *asked))
    if train:
        frequent = most_frequent([e.output for e in train])
        answers[MOST_FREQUENT] = _scored(asked, [frequent] * len(asked), scorer)
    if closed and not scorer.metric.needs_judge:
        answers[CHANCE] = _chance(asked, labels, scorer)
    if train:
        classifies = closed or label_like(train)
        rows = _sample(train, len({visible_lines(e.output) for e in train}) if classifies else 1, seed)
        vectors = _vectors([_text(e.query) for e in rows], [_text(e.query) for e in asked])
        if vectors is not None:  # there are words to learn from
            outputs = _alike([e.output for e in rows])
            if classifies:
                answers["tfidf_linear"] = _scored(asked, _linear(outputs, *vectors, seed), scorer)
            else:
                answers["nearest_neighbour"] = _scored(asked, _nearest(outputs, *vectors), scorer)
    return answers


def label_like(train: Sequence[Example]) -> bool:
    """Whether the answers are labels in all but name: at least two of them, and nearly every answer is repeated."""
    counts = Counter(normal_form(e.output) for e in train)
    return len(counts) > 1 and sum(n for n in counts.values() if n > 1) >= _REPEATED * len(train)


# ---- answers ----------------------------------------------------------------------------------


def _alike(outputs: Sequence[str]) -> list[str]:
    """The outputs, each replaced by the first that looks the same; space in front counts, as in code."""
    first: dict[str, str] = {}
    return [first.setdefault(visible_lines(output), output.rstrip()) for output in outputs]


def most_frequent(outputs: Sequence[str]) -> str:
    """The most frequent of one or more answers; of equally frequent ones the first."""
    return Counter(_alike(outputs)).most_common(1)[0][0]


def _chance(asked: Sequence[Example], labels: Sequence[str], scorer: Scorer) -> list[Prediction]:
    sums = [0.0] * len(asked)
    for label in labels:
        for place, outcome in enumerate(scorer.score([Answer(e.query, label, e.references) for e in asked])):
            sums[place] += outcome.score
    return [_prediction(e, "", total / len(labels)) for e, total in zip(asked, sums, strict=True)]


def _linear(outputs: Sequence[str], known: Any, asked: Any, seed: int) -> list[str]:
    """known, asked: TF-IDF vectors, sparse, shape (rows, features)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    if len(set(outputs)) < 2:
        return [outputs[0]] * asked.shape[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # nearly converged is good enough for a baseline
        model = LinearSVC(tol=_TOLERANCE, random_state=seed % 2**32).fit(known, list(outputs))
    return [str(answer) for answer in model.predict(asked)]


def _nearest(outputs: Sequence[str], known: Any, asked: Any) -> list[str]:
    """As `_linear`. Of equally near inputs the first; where none has a feature in common, the most frequent answer."""
    frequent = most_frequent(outputs)
    answers: list[str] = []
    for start in range(0, asked.shape[0], _BATCH):
        cosines: np.ndarray = (asked[start : start + _BATCH] @ known.T).toarray()  # (batch, rows)
        nearest = cosines.argmax(axis=1)
        answers += [outputs[place] if row[place] > 0 else frequent for row, place in zip(cosines, nearest, strict=True)]
    return answers


# ---- features ---------------------------------------------------------------------------------


def _text(query: Query) -> str:
    return query.text[:_TEXT_CHARACTERS]


def _sample(train: Sequence[Example], answers: int, seed: int) -> list[Example]:
    """All rows, or a fixed random sample of as many as the limits allow. answers: how many a classifier tells apart."""
    room = min(_MOST_CHARACTERS, _MOST_CHARACTERS_TIMES_ANSWERS // answers)
    if len(train) <= _MOST_ROWS and sum(len(_text(e.query)) for e in train) <= room:
        return list(train)
    rows = random.Random(seed).sample(list(train), min(len(train), _MOST_ROWS))
    ends = itertools.accumulate(len(_text(e.query)) for e in rows)
    return [row for row, end in zip(rows, ends, strict=True) if end <= room] or rows[:1]


def _vectors(known: Sequence[str], asked: Sequence[str]) -> tuple[Any, Any] | None:
    """TF-IDF of words (1 and 2) and of characters inside words (2 to 5), rows of length 1; None without any feature.

    Both are sparse, shape (texts, features). Characters serve scripts without spaces, misspellings and endings.
    """
    import numpy as np
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    parts = []
    rare = 2 if len(known) >= _RARE else 1
    for how in ({"ngram_range": (1, 2)}, {"analyzer": "char_wb", "ngram_range": (2, 5)}):
        vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=rare, dtype=np.float32, **how)
        try:
            parts.append((vectorizer.fit_transform(known), vectorizer.transform(asked)))
        except ValueError:  # no text has a word, or none has a character
            continue
    if not parts:
        return None
    first, second = (normalize(hstack(side, format="csr")) for side in zip(*parts, strict=True))
    return first, second


# ---- scores -----------------------------------------------------------------------------------


def _scored(asked: Sequence[Example], texts: Sequence[str], scorer: Scorer) -> list[Prediction]:
    answers = [Answer(e.query, text, e.references) for e, text in zip(asked, texts, strict=True)]
    outcomes = scorer.score(answers)
    return [
        _prediction(e, text, outcome.score, outcome.error)
        for e, text, outcome in zip(asked, texts, outcomes, strict=True)
    ]


def _prediction(example: Example, text: str, score: float, error: str | None = None) -> Prediction:
    return Prediction(example.id, text, 0, 0, 0.0, score=score, metric_error=error)
