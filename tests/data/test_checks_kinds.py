from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import rung
from rung.data.checks import kinds
from rung.data.checks.kinds import KINDS, kind_of_check, measured, rank

SOURCE = Path(rung.__file__).parent
_MAKERS = ("Finding", "finding", "SeenRow", "Sensitive", "_Rule", "Mended")


def constants(tree: ast.Module) -> dict[str, str]:
    """Names of texts at the top of a module."""
    return {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def names_of_checks() -> Iterator[tuple[str, str]]:
    """(module, check) of each place in the package that makes a finding under a name that can be read."""
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        known = constants(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _MAKERS and node.args:
                place = 2 if node.func.id == "Mended" else 0
                first = node.args[place] if len(node.args) > place else None
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    yield path.stem, first.value
                elif isinstance(first, ast.Name) and first.id in known:
                    yield path.stem, known[first.id]


def test_every_finding_that_the_package_makes_has_a_kind() -> None:
    found = set(names_of_checks())
    assert len(found) > 40
    assert sorted((module, check) for module, check in found if check not in KINDS) == []


def test_a_kind_says_what_it_is_and_what_to_do() -> None:
    for check, kind in KINDS.items():
        assert kind.title and kind.todo.endswith((".", ".`")), check
        assert len(kind.title) <= 60, check


def test_the_docs_name_every_kind_of_finding() -> None:
    docs = (SOURCE.parent.parent / "docs" / "data.md").read_text("utf-8")
    table = set(re.findall(r"^\| `(\w+)` \|", docs.split("## Checks")[1].split("\n## ")[0], re.MULTILINE))
    assert table == set(KINDS)


def test_errors_come_first_then_warnings_and_leakage_first_among_equals() -> None:
    pairs = [("casing", "note"), ("email", "warning"), ("leakage", "warning"), ("one_answer", "error")]
    assert sorted(pairs, key=lambda p: rank(*p)) == [pairs[3], pairs[2], pairs[1], pairs[0]]
    assert kind_of_check("of_a_later_version").title == "Of a later version"


def test_how_sure_a_check_is_is_read_from_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(0 <= (m.recall or 0) <= 1 and 0 <= (m.precision or 0) <= 1 for m in measured().values())
    (tmp_path / "measured.json").write_text(json.dumps({"email": {"recall": 0.97, "precision": 0.95}}))
    monkeypatch.setattr(kinds, "files", lambda package: tmp_path)
    monkeypatch.setattr(kinds, "measured", kinds.measured.__wrapped__)
    assert kinds.measured()["email"] == kinds.Sureness(0.97, 0.95)


def test_kinds_of_labels_that_are_one_to_the_metric_are_an_error_that_names_both() -> None:
    from rung.data.checks import check_examples
    from rung.types import Example, ModelSpec, Task

    def found(outputs: list[str], metric: str) -> dict[str, tuple[str, str]]:
        rows = [Example(str(i), f"text {i} {o}", o, (o,), row=f"line {i}") for i, o in enumerate(outputs)]
        task = Task(
            "t", Path("/t/task.yaml"), "Answer.", (Path("/e"),), metric, (ModelSpec("m", "m"),), labels=("a", "b")
        )
        return {f.check: (f.severity, f.message) for f in check_examples(rows, task)}

    severity, message = found(["us"] * 5 + ["US"] * 4, "label_accuracy")["label_spelling"]
    assert severity == "error" and '"us" (5 rows) and "US" (4 rows)' in message and "metric: exact_match" in message
    assert found(["us"] * 5 + ["US"] * 4, "exact_match")["label_case"][0] == "warning"
    severity, message = found(["money back"] * 5 + ["money\u00a0back"] * 4, "exact_match")["label_spelling"]
    assert severity == "error" and "U+00A0 (no-break space)" in message
    severity, message = found(["card"] * 5 + ["cаrd"] * 4, "label_accuracy")["label_lookalike"]
    assert severity == "warning" and "U+0430 (cyrillic small letter a)" in message


def test_a_finding_that_counts_others_is_not_counted_itself() -> None:
    from rung.data.findings import KEPT, bounded
    from rung.types import Finding

    head = Finding("leakage", "warning", "", "300 rows", count=0)
    found = bounded([head, *(Finding("leakage", "warning", f"line {i}", "m") for i in range(300))])
    assert len(found) == KEPT + 2 and sum(f.count for f in found) == 300
    assert found[0] == head and found[-1].count == 100 and "300 in all" in found[-1].message
