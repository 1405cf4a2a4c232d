"""A metric from a user's own file, `python:file.py:function`.

The function takes a prediction (str) and its accepted answers (list of str) and returns a number in [0, 1]. It may
raise: `ScoringFailed` then carries the place in the user's file. It may import the files beside its own; where an
installed package or Python itself has the same name, that is imported, as anywhere else. What it prints is dropped,
because it is called thousands of times. Imports the standard library only.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib
import importlib.util
import inspect
import math
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from rung.errors import MetricError
from rung.evaluation.metric_files import metric_files
from rung.evaluation.scorer import NoScore, ScoringFailed


def load_function(name: str, task_dir: Path) -> Callable[[str, Sequence[str]], float]:
    """The function that `python:file.py:function` names, with the file relative to task_dir.

    Raises MetricError when the file or function does not exist, the file cannot be imported, or the function cannot be
    called with a prediction and its references. The returned function raises ScoringFailed when the user's raises, and
    NoScore when it returns anything but a number in [0, 1].
    """
    file, _, attribute = name.removeprefix("python:").rpartition(":")
    if not file or not attribute:
        raise MetricError(f'metric: "{name}" is not of the form python:file.py:function.')
    path = (task_dir / file).resolve()
    if not path.is_file():
        raise MetricError(f"metric: there is no file {path}. The path is relative to task.yaml.")
    beside = _Beside(metric_files(name, task_dir))
    module = _import_file(path, beside)
    function = getattr(module, attribute, None)
    if not callable(function):
        own = [k for k, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module.__name__]
        raise MetricError(f'{path}: no function "{attribute}"; functions there are {", ".join(own) or "none"}.')
    _check_callable(function, path, attribute)

    def user_metric(prediction: str, references: Sequence[str]) -> float:
        def case() -> str:
            return f"for the prediction {_short(prediction)} and the references {_short(list(references))}"

        beside.enter()
        try:
            value = function(prediction, list(references))
        except Exception as error:
            raise ScoringFailed(f"{_place(path, error)}: {attribute} failed {case()}: {_fact(error)}") from error
        number = _number(value)
        if not 0.0 <= number <= 1.0:
            raise NoScore(f"{path}: {attribute} returned {_short(value)} {case()}; it must return a number in [0, 1]")
        return number

    return user_metric


def _check_callable(function: Callable[..., Any], path: Path, attribute: str) -> None:
    """Raises MetricError when the function is asynchronous, a generator, or takes other arguments."""
    called = f"A metric is called with two arguments: write def {attribute}(prediction, references)"
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise MetricError(f"{path}: {attribute} is async, but a metric returns its score at once. {called}, no async.")
    if inspect.isgeneratorfunction(function):
        raise MetricError(f"{path}: {attribute} yields, but a metric returns one number. {called} and return it.")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # one written in C may have none
        return
    try:
        signature.bind("prediction", ["reference"])
    except TypeError as error:
        raise MetricError(
            f"{path}: {attribute}{signature} cannot be called: {error}. {called}; prediction is the answer (str), "
            "references are the accepted answers (list of str)."
        ) from error


def _number(value: Any) -> float:
    """The number that a metric returned, also as a bool or as the only item of an array; NaN for anything else."""
    if isinstance(value, str | bytes):
        return math.nan
    try:
        return float(value.item() if callable(getattr(value, "item", None)) else value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return math.nan


# ---- importing --------------------------------------------------------------------------------


def _import_file(path: Path, beside: _Beside) -> ModuleType:
    name = f"rung_user_metric_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise MetricError(f"{path}: not a Python file; its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    vars(module)["print"] = _print_to_files
    sys.modules[name] = module  # dataclasses and pickling look their module up
    writes_bytecode = sys.dont_write_bytecode
    try:
        beside.enter()
        # Bytecode is told from its source by size and second: an edit that keeps both would not be seen.
        sys.dont_write_bytecode = True
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        if clash := beside.clash():
            raise MetricError(f"{path}: {clash}") from error
        raise MetricError(f"{_place(path, error)}: the file cannot be imported: {_fact(error)}.") from error
    finally:
        sys.dont_write_bytecode = writes_bytecode
    if clash := beside.clash():
        raise MetricError(f"{path}: {clash}")
    for helper in beside.imported().values():
        vars(helper).setdefault("print", _print_to_files)
    return module


class _Beside:
    """The files beside a metric as modules. Two metrics may have helpers of one name: one metric's are known at a time.

    files: the metric's own first, then those that it imports.
    """

    _active: _Beside | None = None
    _lock = threading.RLock()

    def __init__(self, files: Sequence[Path]) -> None:
        self.folder = files[0].resolve().parent
        self._files = frozenset(file.resolve() for file in files[1:])
        self._modules: dict[str, ModuleType] = {}
        self._before: frozenset[str] = frozenset()

    def enter(self) -> None:
        """Makes the helpers of this metric those that an import finds."""
        if _Beside._active is self:
            return
        with _Beside._lock:
            before = _Beside._active
            if before is not None:
                before._modules = before.imported()
                for name in before._modules:
                    del sys.modules[name]
            self._before = frozenset(sys.modules)
            sys.modules.update(self._modules)
            if _finder not in sys.meta_path:
                sys.meta_path.append(_finder)
            importlib.invalidate_caches()
            _finder.folder = self.folder
            _Beside._active = self

    def imported(self) -> dict[str, ModuleType]:
        """The modules that were imported from the files, and the folders that these lie in, by name."""
        new = {name: module for name, module in list(sys.modules.items()) if name not in self._before}
        return {name: module for name, module in new.items() if self._holds(module)}

    def _holds(self, module: ModuleType) -> bool:
        file = _file_of(module)
        if file is not None:
            return file in self._files
        folders = [Path(folder).resolve() for folder in getattr(module, "__path__", ())]
        return any(folder in path.parents for folder in folders for path in self._files)

    def clash(self) -> str | None:
        """Says which of the files was not imported because another module has its name; None where all is well."""
        for file in sorted(self._files):
            top = file.parent if file.name == "__init__.py" else file
            module = sys.modules.get(top.stem)
            if top.parent == self.folder and module is not None and _file_of(module) != file:
                where = getattr(module, "__file__", None) or "Python itself"
                return (
                    f'"import {top.stem}" does not mean {file} but {where}, which has the same name. '
                    "Give the file another name."
                )
        return None


class _Finder(MetaPathFinder):
    """Finds the modules beside the metric that is called, after all other ways to find one."""

    folder: Path | None = None

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if path is not None or self.folder is None:
            return None
        spec = PathFinder.find_spec(fullname, [str(self.folder)])
        if spec is not None and spec.loader is None:  # any folder would do as a package
            return spec if any((self.folder / fullname).glob("*.py")) else None
        return spec


_finder = _Finder()


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if isinstance(file, str) else None


def _print_to_files(*values: object, file: Any = None, **how: Any) -> None:
    """`print` of a metric: nothing for the screen, where the state of the run stands."""
    if file is not None and file not in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        builtins.print(*values, file=file, **how)


# ---- messages ---------------------------------------------------------------------------------


def _place(path: Path, error: BaseException) -> str:
    """The user's file, with the last of its lines on the way to the error."""
    if isinstance(error, SyntaxError) and error.filename is not None and Path(error.filename).is_file():
        return f"{error.filename}, line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path}, line {lines[-1]}" if lines else str(path)


def _fact(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _short(value: object, width: int = 200) -> str:
    text = repr(value)
    return text if len(text) <= width else text[: width - 1] + "…"
