"""Metrics of text: the same text, the same label, words in common.

A prediction and its accepted answers in, a number in [0, 1] out; of several references the best one counts. No
prediction raises. What is equal is what a reader sees as equal (`rung.text.visible`). Scripts without spaces (Chinese,
Japanese, Thai, …) are compared character by character. An empty answer is right where the reference is empty.
Imports the standard library only.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

from rung.text import normal_form, pieces, units, visible, visible_lines


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """1.0 when the prediction is one of the references, else 0.0.

    Ignored: space around the text, how long a run of inner space is, how characters are encoded (Unicode NFKC), and
    characters that show nothing. Case and punctuation count, because a house format is often exactly that.
    """
    return float(visible(prediction) in map(visible, references))


def exact_match_with_space(prediction: str, references: Sequence[str]) -> float:
    """As `exact_match`, but space in front of the text and inside it counts, and so do its lines: for code and verse.

    Space at the end of a line and empty lines at the end of the text still do not count.
    """
    return float(visible_lines(prediction) in map(visible_lines, references))


def label_accuracy(prediction: str, references: Sequence[str]) -> float:
    """1.0 when the prediction names one of the reference labels, else 0.0.

    Ignored, on both sides: what `exact_match` ignores, case, quotes around the label and full stops of any script at
    its end. Every other sign counts, so the labels "refund" and "refund?" differ; a label made of quotes and stops
    only ("." or "''") keeps them.
    """
    return float(label_form(prediction) in map(label_form, references))


def token_f1(prediction: str, references: Sequence[str]) -> float:
    """Harmonic mean of token precision and recall, after lower case and without punctuation and articles.

    Source: Rajpurkar et al., SQuAD (2016), the official evaluate-v1.1.py; equal to it on ASCII text. It departs in two
    cases. Where nothing is left of either text (the answer "A" is an article), v1.1 gives 0; here the whole texts are
    compared. Beyond ASCII, punctuation of every script is taken off and each character of a script without spaces is
    a token (Lewis et al., MLQA, 2020, "mixed segmentation").
    """
    return max((_token_f1(prediction, reference) for reference in references), default=0.0)


def rouge_l(prediction: str, references: Sequence[str]) -> float:
    """F-measure of the longest common subsequence of tokens, without stemming.

    Source: Lin, ROUGE (2004), as Google's rouge-score computes `rougeL`; equal to it on ASCII text. It departs
    beyond ASCII: rouge-score drops every character outside a-z and 0-9; here words of every script are tokens, and
    so is each character of a script without spaces. Where neither text has a token, the whole texts are compared.
    """
    return max((_rouge_l(prediction, reference) for reference in references), default=0.0)


_QUOTES = {
    '"': '"',
    "'": "'",
    "`": "`",
    "“": "”",
    "„": "“”",
    "”": "”",
    "‘": "’",
    "‚": "‘’",
    "’": "’",
    "«": "»",
    "»": "«",
    "‹": "›",
    "›": "‹",
    "「": "」",
    "『": "』",
    "〝": "〞〟",
}
"""Opening quotation mark -> the marks that close it."""
_STOPS = ".。।۔።։"
"""Full stops of Latin, Chinese and Japanese, Hindi, Urdu, Amharic and Armenian."""


def label_form(text: str) -> str:
    """What makes two labels one: the normal form, without quotes around it and full stops at its end."""
    plain = normal_form(text)
    label, before = plain, ""
    while label != before:
        before = label
        label = label.strip()
        if label.endswith(tuple(_STOPS)):
            label = label[:-1]
        if len(label) > 1 and label[-1] in _QUOTES.get(label[0], ""):
            label = label[1:-1]
    return label or plain


def _squad_tokens(text: str) -> list[str]:
    if text.isascii():
        bare = "".join(c for c in text.lower() if c not in string.punctuation)
        return re.sub(r"\b(a|an|the)\b", " ", bare).split()
    bare = "".join(
        c for c in visible(text).lower() if c not in string.punctuation and unicodedata.category(c)[0] != "P"
    )
    bare = re.sub(r"\b(a|an|the)\b", " ", bare)
    return [bare[start:end] for start, end in pieces(bare)]


def _token_f1(prediction: str, reference: str) -> float:
    predicted, expected = _squad_tokens(prediction), _squad_tokens(reference)
    if not predicted and not expected:
        return float(normal_form(prediction) == normal_form(reference))
    return _f1((Counter(predicted) & Counter(expected)).total(), len(predicted), len(expected))


def _rouge_l(prediction: str, reference: str) -> float:
    predicted, expected = _rouge_tokens(prediction), _rouge_tokens(reference)
    if not predicted and not expected:
        return float(normal_form(prediction) == normal_form(reference))
    return _f1(_lcs_length(predicted, expected), len(predicted), len(expected))


def _rouge_tokens(text: str) -> list[str]:
    return units(visible(text).replace("_", " "))


def _f1(common: int, predicted: int, expected: int) -> float:
    return 2 * common / (predicted + expected) if common else 0.0


def _lcs_length(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence; one bit a token of `a`, so long texts stay cheap.

    Source: Hyyrö, Bit-parallel LCS-length computation revisited (2004).
    """
    where: dict[str, int] = {}
    for i, token in enumerate(a):
        where[token] = where.get(token, 0) | 1 << i
    full = (1 << len(a)) - 1
    row = full
    for token in b:
        hit = row & where.get(token, 0)
        row = ((row + hit) | (row - hit)) & full
    return len(a) - row.bit_count()
