"""The table of bench/gpu.py: each measured figure beside its peer or its limit, its target, and whether that is met.

Knows nothing of torch. What was measured is {"KIND/SIZE/MEASURE": {"value": …} or {"error": …} or {"skipped": …}}.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Found = Mapping[str, Mapping[str, Any]]

TIMES, FASTER, SHARE, AT_MOST_TIMES, AT_MOST, ALL = "times", "faster", "share", "at_most_times", "at_most", "all"
"""How two figures are compared: a rate over a peer's; a peer's seconds over ours; a share of a limit; ours over what is
compared, where less is better; ours alone, where less is better; a count that is to be whole."""

PEFT, LIGER, VLLM, GENERATE = "transformers + PEFT", "Liger", "vLLM", "generate"


@dataclass(frozen=True)
class Line:
    """One comparison. ours, theirs: "KIND/SIZE/MEASURE:KEY". bound: the target; None where there is none.

    against: name of the peer or the limit. unit: of ours. scale: what ours and theirs are multiplied with to be told.
    """

    part: str
    size: str
    ours: str
    unit: str
    against: str
    theirs: str
    how: str
    bound: float | None = None


def lines(sizes: Sequence[str], *, judged: bool) -> list[Line]:
    """All comparisons for these sizes. judged: whether targets apply, which they do to real shapes on a GPU."""
    found: list[Line] = []
    for size in sizes:
        found += _training(size, judged)
        found += _answering(size, judged)
    run = "135m" if judged else "tiny"
    if run in sizes:
        found += [
            Line("a whole run", run, f"run/{run}/whole_run:seconds", "s", "", "", AT_MOST, 60.0 if judged else None),
            Line(
                "runs side by side",
                run,
                f"run/{run}/side_by_side:ended",
                "ended",
                "all of",
                f"run/{run}/side_by_side:runs",
                ALL,
                1.0 if judged else None,
            ),
        ]
    if "8b" in sizes:
        place = "four_bit/8b/four_bit"
        found.append(
            Line(
                "training in 4 bits, batch 8, 2,048 tokens",
                "8b",
                f"{place}:peak_gb",
                "GB",
                "",
                "",
                AT_MOST,
                24.0 if judged else None,
            )
        )
    return found


def _training(size: str, judged: bool) -> list[Line]:
    large = size in ("1.7b", "8b")
    found = []
    for batch in (32, 8):
        part, ours, rate = f"training, batch {batch}", f"rung/{size}/training_{batch}", "examples/s"
        bounds = (5.0, 3.0 if large else None, 0.4 if large else None) if judged and batch == 32 else (None,) * 3
        theirs = f"transformers/{size}"
        found += [
            Line(
                part,
                size,
                f"{ours}:examples_per_s",
                rate,
                PEFT,
                f"{theirs}/training_{batch}:examples_per_s",
                TIMES,
                bounds[0],
            ),
            Line(
                part,
                size,
                f"{ours}:examples_per_s",
                rate,
                LIGER,
                f"{theirs}/liger_{batch}:examples_per_s",
                TIMES,
                bounds[1],
            ),
            Line(
                part, size, f"{ours}:tflops", "TFLOP/s", "matrix rate", "limits//matrix:matrix_tflops", SHARE, bounds[2]
            ),
        ]
    return found


def _answering(size: str, judged: bool) -> list[Line]:
    part, ours = "prompts that share a prefix", f"rung/{size}/prompts:seconds"
    alone = ("one request, a token", size, f"rung/{size}/request:ms_per_token", "ms")
    found = [
        Line(part, size, ours, "s", GENERATE, f"transformers/{size}/prompts:seconds", FASTER, 5.0 if judged else None),
        Line(part, size, ours, "s", VLLM, f"vllm/{size}/prompts:seconds", FASTER, 0.8 if judged else None),
        Line(
            *alone,
            "reading the weights",
            f"rung/{size}/request:read_ms",
            AT_MOST_TIMES,
            3.0 if judged and size != "135m" else None,
        ),
        Line(*alone, GENERATE, f"transformers/{size}/request:ms_per_token", FASTER),
        Line(*alone, VLLM, f"vllm/{size}/request:ms_per_token", FASTER),
        Line(
            "4 adapters in one batch",
            size,
            f"rung/{size}/adapters:mixed_s",
            "s",
            "the base",
            f"rung/{size}/adapters:base_s",
            AT_MOST_TIMES,
            1.2 if judged else None,
        ),
        Line(
            "64 requests, one after the other" if judged else "requests, one after the other",
            size,
            f"rung/{size}/served:seconds",
            "s",
            "one batch",
            f"rung/{size}/served:batch_s",
            AT_MOST_TIMES,
        ),
    ]
    return [line for line in found if line.against != VLLM or size == "1.7b"]


def with_limits(found: dict[str, dict[str, Any]]) -> None:
    """Adds to each request the time that reading the weights takes at the measured bandwidth."""
    bandwidth, _ = value(found, "limits//bandwidth:bandwidth_gb_s")
    for name, entry in found.items():
        if name.endswith("/request") and bandwidth and "read_bytes" in entry.get("value", {}):
            entry["value"]["read_ms"] = entry["value"]["read_bytes"] / bandwidth / 1e6


def value(found: Found, place: str) -> tuple[float | None, str]:
    """The figure at "KIND/SIZE/MEASURE:KEY"; or None, and why there is none."""
    name, _, key = place.partition(":")
    entry = found.get(name)
    if entry is None:
        return None, "it was not asked for"
    if "value" in entry:
        figure = entry["value"].get(key)
        if figure is None:
            return None, f"{name} has no {key} here, or other work on the machine disturbed its clock"
        return float(figure), ""
    return None, str(entry.get("error") or entry.get("skipped") or "it ended without saying anything")


def table(found: Found, all_lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Each comparison with its figures.

    part, size, ours, unit, against, theirs: what is compared. reached: the ratio or share, or the figure itself.
    target: in words, or None. met: "yes", "no", "not measured" or "not judged". why: what kept it from being measured.
    """
    rows = []
    for line in all_lines:
        ours, why = value(found, line.ours)
        theirs, why_theirs = value(found, line.theirs) if line.theirs else (None, "")
        reached = _reached(line, ours, theirs)
        if line.bound is None:
            met = "not judged" if reached is not None else "not measured"
        elif reached is None:
            met = "not measured"
        else:
            low = line.how in (AT_MOST, AT_MOST_TIMES)
            met = "yes" if (reached <= line.bound if low else reached >= line.bound) else "no"
        rows.append(
            {
                "part": line.part,
                "size": line.size,
                "ours": ours,
                "unit": line.unit,
                "against": line.against,
                "theirs": theirs,
                "reached": reached,
                "how": line.how,
                "target": target_of(line),
                "met": met,
                "why": (why or why_theirs) if reached is None else "",
            }
        )
    return rows


def _reached(line: Line, ours: float | None, theirs: float | None) -> float | None:
    if ours is None or (line.theirs and not theirs):
        return None
    if line.how == AT_MOST or theirs is None:
        return ours
    if line.how == FASTER:
        return theirs / ours if ours > 0 else None
    return ours / theirs


def target_of(line: Line) -> str | None:
    """The target in words; None where there is none."""
    if line.bound is None:
        return None
    if line.how == ALL:
        return "all end"
    if line.how == AT_MOST:
        return f"at most {line.bound:g} {line.unit}"
    if line.how == SHARE:
        return f"at least {line.bound:.0%}"
    return f"at {'most' if line.how == AT_MOST_TIMES else 'least'} {line.bound:g} x"


def shown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table as text."""
    head = ("part", "size", "ours", "against", "theirs", "reached", "target", "met")
    cells = [head]
    for row in rows:
        reached = row["reached"]
        if reached is None:
            said = "–"
        elif row["how"] == SHARE:
            said = f"{reached:.1%}"
        elif row["how"] in (AT_MOST, ALL):
            said = f"{reached:.3g}"
        else:
            said = f"{reached:.2f} x"
        cells.append(
            (
                row["part"],
                row["size"],
                f"{_short(row['ours'])} {row['unit']}" if row["ours"] is not None else "–",
                row["against"] or "–",
                _short(row["theirs"]),
                said,
                row["target"] or "–",
                row["met"],
            )
        )
    widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells)


def _short(figure: float | None) -> str:
    return "–" if figure is None else f"{figure:.4g}"


def unequal(found: Found) -> list[str]:
    """Names of the checks of equality that failed, in whatever way. One that was skipped has not."""
    checks = [(name, entry) for name, entry in found.items() if name.rpartition("/")[2].startswith("equality")]
    return [name for name, entry in checks if "error" in entry or not entry.get("value", {"equal": True})["equal"]]


def reasons(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why figures are missing, each reason once."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row["why"]:
            found.setdefault(row["why"], []).append(f"{row['part']} ({row['size']}, {row['against'] or 'alone'})")
    return [f"{'; '.join(dict.fromkeys(places))}: {why}" for why, places in found.items()]
