"""Metrics of text: the same text, the same label, words in common.

A prediction and its accepted answers in, a number in [0, 1] out; of several references the best one counts. No
prediction raises. Imports the standard library only.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """1.0 when the prediction is one of the references, else 0.0.

    Ignored: space around the text, how long a run of inner space is, and how accents are encoded (Unicode NFC).
    Case and punctuation count, because a house format is often exactly that.
    """
    return float(plain_text(prediction) in map(plain_text, references))


def label_accuracy(prediction: str, references: Sequence[str]) -> float:
    """1.0 when the prediction names one of the reference labels, else 0.0.

    Ignored, on both sides: case, space, quotes around the label and full stops at its end. Every other sign counts,
    so the labels "refund" and "refund?" differ; a label made of quotes and stops only ("." or "''") keeps them.
    """
    return float(_label(prediction) in map(_label, references))


def token_f1(prediction: str, references: Sequence[str]) -> float:
    """Harmonic mean of token precision and recall, after lower case and without punctuation and articles.

    Source: Rajpurkar et al., SQuAD (2016), the official evaluate-v1.1.py. It departs in one case: where nothing is
    left of either text (the answer "A" is an article), v1.1 gives 0; here the whole texts are compared instead.
    """
    return max((_token_f1(prediction, reference) for reference in references), default=0.0)


def rouge_l(prediction: str, references: Sequence[str]) -> float:
    """F-measure of the longest common subsequence of tokens, without stemming.

    Source: Lin, ROUGE (2004), as Google's rouge-score computes `rougeL`; equal to it on ASCII text. It departs
    beyond ASCII: rouge-score drops every character outside a-z and 0-9, here letters of every script make tokens.
    """
    return max((_rouge_l(prediction, reference) for reference in references), default=0.0)


_QUOTES = {'"': '"', "'": "'", "`": "`", "“": "”", "„": "“", "‘": "’", "«": "»"}


def plain_text(text: str) -> str:
    """Accents encoded alike (NFC), no space around the text, single spaces inside."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _label(text: str) -> str:
    plain = plain_text(text).casefold()
    label, before = plain, ""
    while label != before:
        before = label
        label = label.strip().removesuffix(".")
        if len(label) > 1 and _QUOTES.get(label[0]) == label[-1]:
            label = label[1:-1]
    return label or plain


def _squad_tokens(text: str) -> list[str]:
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def _token_f1(prediction: str, reference: str) -> float:
    predicted, expected = _squad_tokens(prediction), _squad_tokens(reference)
    if not predicted and not expected:
        return float(plain_text(prediction).casefold() == plain_text(reference).casefold())
    return _f1((Counter(predicted) & Counter(expected)).total(), len(predicted), len(expected))


def _rouge_l(prediction: str, reference: str) -> float:
    predicted, expected = (re.findall(r"[^\W_]+", plain_text(text).lower()) for text in (prediction, reference))
    return _f1(_lcs_length(predicted, expected), len(predicted), len(expected))


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
