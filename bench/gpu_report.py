"""What bench/gpu.py prints: a line for each measure; at the end the device, equality, the table, what is missing."""

from __future__ import annotations

from typing import Any

from gpu_table import reasons, shown, value

_LIMITS = ("matrix:matrix_tflops", "bandwidth:bandwidth_gb_s")


def short(said: dict[str, Any]) -> str:
    """One line of what was measured."""
    for kind in ("error", "skipped"):
        if kind in said:
            return f"{kind}: {said[kind]}"
    figures = [
        f"{key} {figure:.4g}" if isinstance(figure, float) else f"{key} {figure}"
        for key, figure in said["value"].items()
        if figure is not None and figure != {} and figure != []
    ]
    return ", ".join(figures)


def equality(found: dict[str, Any]) -> str:
    """What a check of equality found, in a line."""
    static = ""
    if "static_loss_differs" in found:
        static = (
            f"recorded passes by {found['static_loss_differs']:.1e}, {found['static_norm_differs']:.1e} and "
            f"{found['static_gradients_differ']:.1e}; "
        )
    return (
        f"{'equal' if found['equal'] else 'NOT EQUAL'} in {found['dtype']}; the loss differs by "
        f"{found['loss_differs']:.1e}, "
        f"the gradients' norm by {found['norm_differs']:.1e}, gradients by {found['gradients_differ']:.1e}; {static}"
        f"{found['same_answers']} of {found['answers']} answers are the same, {found['nearly_as_likely']} part at a tie"
    )


def report(summary: dict[str, Any]) -> str:
    """What is printed at the end: the device, its limits, equality, ways given up, the table, and what is missing."""
    device, found = summary["device"], summary["measures"]
    made = summary["made_of"] or {}
    text = [""]
    if summary["ended"] is not None:
        text.append(f"Ended early: {summary['ended']}")
    if device is not None:
        versions = [f"{name} {device[name]}" for name in ("torch", "transformers", "peft")]
        text.append(", ".join([device["name"], *versions]))
    matrix, bandwidth = (value(found, f"limits//{what}")[0] for what in _LIMITS)
    if matrix and bandwidth:
        text.append(f"measured limits: {matrix:.4g} TFLOP/s of matrix products, {bandwidth:.4g} GB/s")
    text.append(f"rows: {made.get('rows')}; whole runs: task {made.get('task')}, model {made.get('model')}")
    text += ["", shown(summary["table"]), ""]
    for name, entry in found.items():
        if name.rpartition("/")[2].startswith("equality") and "value" in entry:
            text.append(f"{name}: {equality(entry['value'])}")
        for way, why in entry.get("value", {}).get("given_up", {}).items():
            text.append(f"{name}: the way {way} was given up: {why}")
    text += [f"Equality failed or could not be checked: {name}" for name in summary["unequal"]]
    text += [f"not measured: {line}" for line in reasons(summary["table"])]
    text.append(f"all together: {summary['seconds']:.0f} s")
    return "\n".join(text)
