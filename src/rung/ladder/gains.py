"""What each remaining strategy can be expected to bring, by what the experiments showed: numbers in, order out.

A gain is a difference of dev means against the best solution so far. Strategies are tried by expected gain per token
that they are planned to compute; one is skipped only when the upper end of what it could fix does not matter.
Where no experiment speaks about a strategy, half of what is still wrong is expected of it, and all of it is possible.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rung.decision.figures import PERCENT
from rung.evaluation.statistics import MARGIN
from rung.types import Family

LEAST_SHOWN = 6
"""So many examples must change, all for the better, before the exact McNemar test can show it (2 x 0.5^6 < 0.05)."""

_UNKNOWN = 0.5
_STATABLE = 0.5  # of what examples or a lenient reading fix, words are taken to fix so much
_RULE_OF_THREE = 3.0  # none in n: at most 3/n, with 95 % confidence (Hanley & Lippman-Hand 1983)
_MATTERS = 0.1


@dataclass(frozen=True)
class Gain:
    """Expected gain over the best so far, and the upper end of it. why: the experiment that says so."""

    mean: float
    high: float
    why: str


@dataclass(frozen=True)
class Way:
    """A strategy that could be tried next, as its record says it.

    cost: planned tokens. doublings: of the train examples, by the rows that it adds to them. replaces: a family that it
    is to equal at a lower cost.
    """

    name: str
    family: Family
    cost: float = 1.0
    cures: frozenset[str] = frozenset()
    imitates: bool = False
    doublings: float = 1.0
    replaces: Family | None = None


@dataclass(frozen=True)
class Known:
    """What is known when the next step is chosen. Scores are dev means.

    best: the best so far, and base: of the solution that was diagnosed. diagnosis, pilot: their records, where there
    are any. value: how a score is written. built: family -> the best of it. teacher: mean of the teacher and the upper
    end of its interval; None where it was not measured. curve: the learning curve through the pilots and the whole
    training, where that is built; only what imitates reads it. leader: the name of the best. gap: how a difference of
    scores is written.
    """

    best: float
    base: float
    diagnosis: Mapping[str, Any] | None = None
    pilot: Mapping[str, Any] | None = None
    built: Mapping[Family, float] = field(default_factory=dict)
    value: Callable[[float], str] = "{:.2f}".format
    teacher: tuple[float, float] | None = None
    curve: Mapping[str, Any] | None = None
    leader: str = ""
    gap: Callable[[float], str] = "{:.2f}".format

    @property
    def lead(self) -> float:
        """Of the best over the base."""
        return self.best - self.base


def what_matters(rates: bool, test: int) -> float:
    """The least gain worth finding: the margin, or for right and wrong what that many test examples can show at all.

    Ten points matter even where the test is too small to show them.
    """
    return max(MARGIN, min(_MATTERS, LEAST_SHOWN / test)) if rates and test else MARGIN


def too_little(gain: Gain, matters: float, rates: bool, test: int, gap: Callable[[float], str]) -> str:
    """Why a gain below what matters is not worth finding. matters: of `what_matters`, as its other arguments are."""
    said = f"it could gain {gap(gain.high)} on dev at most ({gain.why})"
    if gain.high <= 0:
        return said
    if matters <= MARGIN:
        return f"{said}, less than the {gap(matters)} that matter"
    what = "that a test of" if LEAST_SHOWN / test <= _MATTERS else "that count beside a test of only"
    shows = f"{what} {test:,} examples" + (" can show at all" if what.startswith("that a") else "")
    return f"{said}, less than the {gap(matters)} {shows}"


def expected_gain(way: Way, known: Known) -> Gain:
    """What a strategy can be expected to bring."""
    room = max(0.0, 1.0 - known.best)
    if way.replaces is not None and way.replaces in known.built:
        return _of_replacing(known, way.replaces)
    if room <= 0:
        return Gain(0.0, 0.0, "nothing is left to gain")
    unknown = Gain(_UNKNOWN * room, room, "no experiment speaks about it")
    if way.imitates:
        return _of_a_teacher(known, room, way.doublings) or unknown
    if way.cures:
        return _of_words(known, room, way.cures) or unknown
    if way.family == "rag":
        return _of_knowledge(known, room) or unknown
    if way.family == "fine-tune":
        return _of_behaviour(known, room) or unknown
    if way.family == "rag+fine-tune":
        return _of_both(known, room) or unknown
    return unknown


def order(ways: Sequence[Way], known: Known) -> list[tuple[str, Gain]]:
    """Strategies by expected gain per cost, best first. ways: in the ladder's order."""
    gains = {way.name: expected_gain(way, known) for way in ways}
    costs = {way.name: max(1.0, way.cost) for way in ways}
    ranked = sorted(gains, key=lambda name: -gains[name].mean / costs[name])  # stable: equals in the ladder's order
    return [(name, gains[name]) for name in ranked]


def head_room(diagnosis: Mapping[str, Any], cures: frozenset[str]) -> tuple[float, float]:
    """(share, upper end) of the failures of the diagnosed prompt that these causes hold, by the experiments.

    What only two changes together rescued counts where both causes are among them. Where nothing was rescued at all,
    the upper end is that of none in so many.
    """
    rows = [c for c in diagnosis["causes"] if c["cause"] in cures]
    rows += [c for c in diagnosis["combinations"] if set(c["causes"]) <= cures]
    none = min(1.0, _RULE_OF_THREE / max(1, diagnosis["failed"]))
    return min(1.0, sum(c["share"] for c in rows)), min(1.0, max(none, sum(c["high"] for c in rows)))


def _of_words(known: Known, room: float, cures: frozenset[str]) -> Gain | None:
    """Words cannot fix what a constraint, a lenient reading and the nearest examples leave wrong."""
    if known.diagnosis is None or not known.diagnosis["failed"]:
        return None
    share, high = head_room(known.diagnosis, cures)
    missing = 1.0 - known.base
    mean = max(0.0, _STATABLE * share * missing - known.lead)
    top = min(room, max(0.0, high * missing - known.lead))
    causes = " and ".join(sorted(cures))
    why = f"its causes, {causes}, hold {PERCENT.value(share)} of the failures, at most {PERCENT.value(high)}"
    if known.lead > 0 and known.leader:
        why += f" or {known.gap(high * missing)}, of which {known.leader} has gained {known.gap(known.lead)} since"
    return Gain(mean, top, why)


def _of_a_teacher(known: Known, room: float, doublings: float) -> Gain | None:
    """Whoever learns a teacher's answers is taken to come as far as it; more examples help as the curve says."""
    more = _of_more(known, room, doublings)
    if known.teacher is None:
        return more
    mean, high = (max(0.0, x - known.best) for x in known.teacher)
    if more is not None and more.high < high:
        return Gain(min(mean, more.mean), more.high, more.why)
    why = f"the teacher reaches {known.value(known.teacher[0])} on dev, the best so far {known.value(known.best)}"
    return Gain(min(mean, more.mean) if more is not None else mean, min(room, high), why)


def _of_replacing(known: Known, family: Family) -> Gain:
    """What is to equal a dearer family gains over what costs less than that one, and is tried behind all others."""
    others = {f: score for f, score in known.built.items() if f in ("prompt", "fine-tune") and f != family}
    lead = max(0.0, known.built[family] - max(others.values(), default=0.0))
    return Gain(0.0, lead, f"so far {family} is ahead by that, and it is to equal it")


def _of_more(known: Known, room: float, doublings: float) -> Gain | None:
    """What so many doublings of the training examples would bring, by the learning curve.

    Errors fall by no larger a factor with each doubling, so that several bring at most as many times what one brings.
    """
    curve = known.curve or known.pilot
    if curve is None or len(curve["points"]) < 2:
        return None
    more, expected = curve["more"], curve["expected"]
    ahead = {"mean": 0.0, "high": 0.0}
    if "fine-tune" not in known.built:
        ahead = {key: expected[key] - known.best for key in ahead}
    mean, high = (max(0.0, ahead[key] + doublings * more[key]) for key in ("mean", "high"))
    times = "twice" if doublings == 1.0 else f"{2**doublings:.1f} times"
    why = f"{times} as many training examples would bring that, by the learning curve"
    return Gain(min(room, mean), min(room, high), why)


def _of_knowledge(known: Known, room: float) -> Gain | None:
    """Gold passages in the prompt are the most that a search could find, so what they fix bounds retrieval."""
    passages = _by_passages(known)
    if passages is None and _passages_harm(known):
        return Gain(0.0, 0.0, "gold passages break most right answers")
    if passages is None:
        return None
    mean, high = (max(0.0, x - known.lead) for x in passages)
    return Gain(mean, min(room, high), "what gold passages fix")


def _passages_harm(known: Known) -> bool:
    """Whether gold passages in the prompt broke most of the right answers."""
    tried = (known.diagnosis or {}).get("interventions", {})
    return any(tried.get(name, {}).get("harmful") for name in ("knowledge", "retrieval"))


def _by_passages(known: Known) -> tuple[float, float] | None:
    """(mean, upper end) of what gold passages bring the base on dev; None where none were tried."""
    record = known.diagnosis
    if record is None or record["poor"]:
        return None
    rows = [c for c in record["causes"] if c["cause"] in ("knowledge", "retrieval") and c["net_of_placebo"]]
    if not rows:
        return None
    # Wrong answers whose passage is not known could not be tried: each of them might be fixed by it.
    untried = 1.0 - max(c["tried"] for c in rows) / record["failed"]
    # A form that gold passages alone do not bring may be learnt: what they rescue read leniently counts as well.
    rows += [c for c in record["combinations"] if set(c["causes"]) & {"knowledge", "retrieval"}]
    missing = 1.0 - known.base
    return sum(c["share"] for c in rows) * missing, min(1.0, sum(c["high"] for c in rows) + untried) * missing


def _of_behaviour(known: Known, room: float) -> Gain | None:
    if known.pilot is None:
        return None
    expected, points = known.pilot["expected"], known.pilot["points"]
    # One point is no curve: it says nothing of what more examples bring.
    high = expected["high"] - known.best if len(points) > 1 else room
    mean = expected["mean"] - known.best
    why = f"a pilot on {points[-1]['examples']} examples reached {known.value(points[-1]['mean'])} on dev"
    return Gain(max(0.0, mean), min(room, max(0.0, high)), why)


def _of_both(known: Known, room: float) -> Gain | None:
    """Retrieval and fine-tuning together fix at most what each could fix, one beside the other.

    Where fine-tuning is built, passages may still add all that they fix: it need not have fixed the same examples.
    """
    passages = _by_passages(known)
    if passages is None:
        return None
    behaviour = _of_behaviour(known, room)
    means = [
        0.0,
        passages[0] - known.lead,
        behaviour.mean if behaviour else 0.0,
        _UNKNOWN * room if "rag" in known.built else 0.0,
    ]
    mean = max(means)
    if "fine-tune" in known.built:
        high = min(room, max(0.0, passages[1]))  # passages may break more than they fix
        return Gain(min(mean, high), high, "what gold passages fix beside fine-tuning")
    return Gain(mean, room, "what passages and training fix beside each other")
