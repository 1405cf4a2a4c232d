"""A metric from a user's own file, `python:file.py:function`.

The function takes a prediction (str) and its accepted answers (list of str) and returns a number in [0, 1]. It may
raise: `ScoringFailed` then carries the place in the user's file. Imports the standard library only.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from rung.errors import MetricError
from rung.evaluation.scorer import ScoringFailed


def load_function(name: str, task_dir: Path) -> Callable[[str, Sequence[str]], float]:
    """The function that `python:file.py:function` names, with the file relative to task_dir.

    Raises MetricError when the file or function does not exist or the file cannot be imported. The returned function
    raises ScoringFailed when the user's raises or returns anything but a number in [0, 1].
    """
    file, _, attribute = name.removeprefix("python:").rpartition(":")
    if not file or not attribute:
        raise MetricError(f'metric: "{name}" is not of the form python:file.py:function.')
    path = (task_dir / file).resolve()
    if not path.is_file():
        raise MetricError(f"metric: there is no file {path}. The path is relative to task.yaml.")
    module = _import_file(path)
    function = getattr(module, attribute, None)
    if not callable(function):
        own = [k for k, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module.__name__]
        raise MetricError(f'{path}: no function "{attribute}"; functions there are {", ".join(own) or "none"}.')

    def user_metric(prediction: str, references: Sequence[str]) -> float:
        accepted = list(references)
        case = f"for the prediction {_short(prediction)} and the references {_short(accepted)}"
        try:
            value = function(prediction, accepted)
        except Exception as error:
            raise ScoringFailed(f"{_place(path, error)}: {attribute} failed {case}: {_fact(error)}") from error
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if isinstance(value, str) or not 0.0 <= number <= 1.0:
            raise ScoringFailed(
                f"{path}: {attribute} returned {_short(value)} {case}; it must return a number in [0, 1]"
            )
        return number

    return user_metric


def _import_file(path: Path) -> ModuleType:
    name = f"rung_user_metric_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise MetricError(f"{path}: not a Python file; its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise MetricError(f"{_place(path, error)}: the file cannot be imported: {_fact(error)}.") from error
    return module


def _place(path: Path, error: BaseException) -> str:
    """The user's file, with the last of its lines on the way to the error."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{path}, line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path}, line {lines[-1]}" if lines else str(path)


def _fact(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _short(value: object, width: int = 200) -> str:
    text = repr(value)
    return text if len(text) <= width else text[: width - 1] + "…"
