"""The shape of the code: sizes that a reader can hold in mind, one name for one thing, strategies named in one room."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from rung.strategies import STRATEGIES

PACKAGE = Path(__file__).parent.parent / "src" / "rung"
FILES = sorted(PACKAGE.rglob("*.py"))
MODULE_LINES = 400
FUNCTION_LINES = 60
REASON = "Long because"
"""Begins the sentence, in a docstring, that says why a module or function is longer."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def functions(tree: ast.Module) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_module_of_over_400_lines_says_why(path: Path) -> None:
    text = path.read_text("utf-8")
    lines = len(text.splitlines())
    assert lines <= MODULE_LINES or REASON in (ast.get_docstring(ast.parse(text)) or ""), f"{lines} lines"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_function_of_over_60_lines_says_why(path: Path) -> None:
    for function in functions(ast.parse(path.read_text("utf-8"))):
        lines = (function.end_lineno or 0) - function.lineno + 1
        assert lines <= FUNCTION_LINES or REASON in (ast.get_docstring(function) or ""), f"{function.name}: {lines}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_names_of_strategies_stand_in_the_strategies_room_alone(path: Path) -> None:
    if path.parent.name == "strategies":
        return
    names = set(STRATEGIES) - {"rag"}  # which is also the name of a family
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert node.value not in names, f"line {node.lineno} names the strategy {node.value!r}"


def test_one_name_means_one_public_class() -> None:
    classes = Counter(
        node.name
        for path in FILES
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in classes.items() if count > 1] == []


def test_only_one_module_asks_whether_a_stage_is_done() -> None:
    """Stages of a run ask `resume`; whoever tests for files by himself in the ladder forgets the rule."""
    for path in (PACKAGE / "ladder").glob("*.py"):
        text = path.read_text("utf-8")
        assert ".is_file()" not in text, f"{path.name}: use rung.resume"


def test_no_two_test_files_bear_one_name() -> None:
    """They are no packages, so pytest refuses to collect a second file of the same name."""
    names = Counter(path.name for path in Path(__file__).parent.rglob("test_*.py"))
    assert [name for name, times in names.items() if times > 1] == []


def test_no_room_gives_a_function_the_name_of_one_of_its_modules() -> None:
    """Once the module is imported, it stands in the function's place."""
    for room in PACKAGE.rglob("__init__.py"):
        modules = {path.stem for path in room.parent.glob("*.py")}
        tree = ast.parse(room.read_text("utf-8"))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        assert not modules & functions, room
