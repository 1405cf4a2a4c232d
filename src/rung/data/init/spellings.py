"""Answers that are one label in several spellings, and those that differ only in case and are two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from rung.data.folding import TO_LATIN
from rung.text import normal_form, visible

_COMMON = 0.1
_COMMON_ROWS = 3


@dataclass(frozen=True)
class Spellings:
    """Labels in their plainest spelling -> rows. case_counts: labels that differ only in case are kept apart."""

    counts: Counter[str]
    notes: tuple[str, ...]
    case_counts: bool = False


def spellings(counts: Mapping[str, int], *, case: bool = True) -> Spellings:
    """The labels among answers: those with one normal form are one, unless case tells classes apart (us and US).

    case: False where the metric leaves case aside, so that it tells nothing apart.
    """
    groups: dict[str, Counter[str]] = {}
    for text, n in counts.items():
        groups.setdefault(normal_form(text), Counter())[text.strip()] += n
    apart = [group for group in groups.values() if case and len(group) > 1 and _told_apart_by_case(group)]
    notes: list[str] = []
    if apart:
        pairs = ", ".join(" and ".join(f'"{s}"' for s in sorted(group)[:2]) for group in apart[:3])
        notes.append(
            f"{pairs} differ only in case and are both common: two labels, and the metric counts case. "
            "If they mean the same, keep one and write metric: label_accuracy."
        )
        groups = {}
        for text, n in counts.items():
            groups.setdefault(visible(text), Counter())[text.strip()] += n
    merged = [_plainest_first(group) for group in groups.values() if len(group) > 1]
    if merged:
        shown = "; ".join(
            f"{_shown(group[0][0])} is also written {', '.join(f'{_shown(s)} ({n})' for s, n in group[1:4])}"
            for group in merged[:3]
        )
        notes.append(f"Spellings that count as one label: {shown}{'; …' if len(merged) > 3 else ''}.")
    labels = Counter({_plainest(group): group.total() for group in groups.values()})
    alike: dict[str, str] = {}
    for label in labels:
        twin = alike.setdefault(normal_form(label).translate(TO_LATIN), label)
        if twin != label and not apart:
            notes.append(f"{_shown(twin)} and {label!a} look alike, but are two labels: letters of two scripts.")
    return Spellings(labels, tuple(notes), bool(apart))


def _plainest_first(group: Counter[str]) -> list[tuple[str, int]]:
    """The spellings with their rows, the plainest first."""
    first = _plainest(group)
    return sorted(group.most_common(), key=lambda pair: pair[0] != first)


def _plainest(group: Counter[str]) -> str:
    """The most frequent spelling of those that hold nothing odd, or of all."""
    plain = Counter({text: n for text, n in group.items() if visible(text) == text})
    return (plain or group).most_common(1)[0][0]


def _told_apart_by_case(group: Counter[str]) -> bool:
    """Whether small and capital letters are two classes: both spellings are common, one all small, one all capital."""
    forms: Counter[str] = Counter()
    for text, n in group.items():
        forms[visible(text)] += n
    common = [t for t, n in forms.items() if n >= max(_COMMON_ROWS, _COMMON * forms.total())]
    return any(t.islower() for t in common) and any(t.isupper() for t in common)


def _shown(text: str) -> str:
    """A label in quotes; with escapes where it holds what nobody sees."""
    return f'"{text[:40]}"' if text.isprintable() and visible(text) == text else ascii(text[:40])
