"""The rooms: imports go downwards, and what is heavy is imported late."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "rung"
ROWS = [
    {"__main__"},
    {"cli"},
    {"api"},
    {"ladder", "report", "serving"},
    {"bundles"},  # what the ladder writes and serving reads
    {"strategies", "diagnosis", "decision"},
    {"teaching"},  # what a stronger model does: strategies and commands ask for it
    {"trials"},  # a solution answered and scored: what strategies and diagnosis have in common
    {"solutions", "evaluation"},
    {"testing"},
    {"models"},
    {"training"},  # below models, because training is what a trainable model does
    {"engine", "data", "retrieval", "demos"},
    {"runs"},
    {"resume"},
    {"constraints"},  # what a schema or pattern means: to checks of data, grammars and endpoints alike
    {"records", "text", "cache", "interrupts"},
    {"types"},
    {"errors", "__init__"},
]
HEAVY = {
    "torch",
    "transformers",
    "peft",
    "scipy",
    "statsmodels",
    "bm25s",
    "llguidance",
    "jsonschema",
    "pandas",
    "pydantic",
    "sklearn",
    "gepa",
}
# Pages and the demos need only what lies in records; the fakes are built from the models room.
EXCEPTIONS = {("testing", "models"), ("__init__", "api")}  # the second for type checkers alone


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ["rung", *path.relative_to(PACKAGE).with_suffix("").parts]
        found.append((".".join(p for p in parts if p != "__init__") if len(parts) > 2 else ".".join(parts), path))
    return found


def imports(path: Path) -> list[tuple[str, bool]]:
    """(imported module, whether at module level)."""
    tree = ast.parse(path.read_text("utf-8"))
    top = {id(node) for node in tree.body}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "rung" else [node.module]
            found += [(name, id(node) in top) for name in names]
    return found


def row(name: str) -> int:
    for number, rooms in enumerate(ROWS):
        if name in rooms:
            return number
    raise AssertionError(f"room {name!r} stands in no row; give it one in ROWS")


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda x: str(x) if isinstance(x, str) else "")
def test_imports_go_downwards_and_never_sideways(module: str, path: Path) -> None:
    here = room(module)
    for target, _ in imports(path):
        if target.split(".")[0] != "rung" or target == "rung.__version__":
            continue
        there = room(target)
        if there == here or (here, there) in EXCEPTIONS:
            continue
        assert row(there) > row(here), f"{module} imports {target}: {there} is not below {here}"


def test_only_the_ladder_opens_the_sealed_test() -> None:
    openers = {room(m) for m, path in modules() if "open_test" in path.read_text("utf-8")}
    assert openers <= {"ladder", "evaluation", "types"}
    breakers = [m for m, path in modules() if "_SealedTest__examples" in path.read_text("utf-8")]
    assert breakers == ["rung.evaluation.sealed"]


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; sys.argv = ['rung', '--help']\nfrom rung.cli.main import main\n"
    code += "try:\n main()\nexcept SystemExit: pass\n"
    code += f"bad = {sorted(HEAVY)} and [m for m in {sorted(HEAVY)} if m in sys.modules]\nassert not bad, bad"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_types_and_decision_import_no_numbers_library() -> None:
    code = "import sys, rung.types, rung.decision, rung.runs\nassert not {'numpy', 'torch', 'scipy'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
