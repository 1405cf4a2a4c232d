"""What other tools flag in the same rows: trainjudge's audit, modelbrew-cleaner, wana's check.

They are asked in a virtual environment of their own (`pip install trainjudge modelbrew-cleaner wana`), as a user would,
with the rows in a shape that each reads. A flag counts for a fault where its code is one of those listed here.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from planting import Planted, Row

PEERS = ("trainjudge", "modelbrew-cleaner", "wana")
Flags = list[tuple[str, tuple[str, ...]]]

CODES: dict[str, str] = {
    "duplicates": r"^duplicate of|duplicate_(exact|near|conversation)",
    "conflicts": r"conflict|label_error|contradict",
    "leakage": r"EXACT|NEAR",
    "wrong_labels": r"label_error|outlier_label|conflict",
    "wrong_answers": r"label_error|incoherent",
    "identifiers": r"sensitive|pii_(ssn|phone|password|ip|iban|email|credit_card|api_key)|opsec_network",
    "broken_json": r"malformed|json|tool_call|invalid",
    "behaviour": r"low_quality|refusal|placeholder|slop|repetitive|unfinished|lazy",
    "poison": r"injection|jailbreak|invisible|encoding",
    "form": r"markdown|html|whitespace|inconsistent|outlier|boilerplate",
}
"""Fault -> regular expression of the codes that count as finding it."""

_MODELBREW = """
import json, sys
from modelbrew_cleaner import clean_file
print(json.dumps([[row.row_index, [issue.code for issue in row.issues]] for row in clean_file(sys.argv[1])]))
"""


def asked(venv: Path, folder: Path, planted: Planted, fault: str) -> dict[str, Flags]:
    """Peer -> its flags of the fault, each as ("*", ids of rows). A peer that fails or reads nothing is left out."""
    ids = [str(row["id"]) for row in planted.rows]
    prompts, alpaca = folder / "peers.jsonl", folder / "alpaca.jsonl"
    _write(prompts, planted.rows, ("prompt", "completion"))
    _write(alpaca, planted.rows, ("instruction", "output"))
    found = {}
    if planted.test is None:
        found["trainjudge"] = _trainjudge(venv, prompts, CODES[fault])
        found["modelbrew-cleaner"] = _modelbrew(venv, alpaca, CODES[fault])
    else:
        test = folder / "alpaca-test.jsonl"
        _write(test, planted.test, ("instruction", "output"))
        found["wana"] = _wana(venv, alpaca, test, folder / "wana")
    return {
        peer: [("*", (ids[n],)) for n in sorted(set(places)) if n < len(ids)]
        for peer, places in found.items()
        if places is not None
    }


def _write(path: Path, rows: Sequence[Row], names: tuple[str, str]) -> None:
    lines = [json.dumps({names[0]: r["input"], names[1]: str(r["output"])}, ensure_ascii=False) for r in rows]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def _trainjudge(venv: Path, path: Path, codes: str) -> list[int] | None:
    said = _said([str(venv / "bin" / "trainjudge"), "audit", str(path), "--json"])
    if said is None:
        return None
    report = json.loads(said)
    places = [
        i["line"] - 1 for i in report["issues"] if re.search(codes, f"{i['status']}") or re.search(codes, i["reason"])
    ]
    if re.search(codes, "sensitive"):
        places += [line - 1 for lines in report["sensitive_data"].values() for line in lines]
    return places


def _modelbrew(venv: Path, path: Path, codes: str) -> list[int] | None:
    said = _said([str(venv / "bin" / "python"), "-c", _MODELBREW, str(path)])
    if said is None:
        return None
    return [place for place, own in json.loads(said.splitlines()[-1]) if any(re.search(codes, c) for c in own)]


def _wana(venv: Path, train: Path, test: Path, out: Path) -> list[int] | None:
    if _said([str(venv / "bin" / "wana"), "check", str(train), "--eval", str(test), "-o", str(out)]) is None:
        return None
    hits = json.loads((out / "contamination.json").read_text("utf-8"))["hits"]
    return [int(hit["train_id"].rsplit(":", 1)[1]) - 1 for hit in hits]


def _said(command: list[str]) -> str | None:
    """What a command prints; None where it says nothing, or does not end in five minutes."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout or None
