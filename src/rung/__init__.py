"""rung: prompt, retrieve or fine-tune? An answer by experiment, on your own task.

What is named in `__all__` is the public interface. It is imported when it is first used, so that `import rung` costs
next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "Run": "rung.api",
    "run": "rung.api",
    "check": "rung.api",
    "load": "rung.api",
    "bundle": "rung.api",
    "synth": "rung.api",
    "RunOptions": "rung.ladder.options",
    "Listener": "rung.ladder.options",
    "Decision": "rung.types",
    "Candidate": "rung.types",
    "Prediction": "rung.types",
    "Query": "rung.types",
    "Message": "rung.types",
    "Model": "rung.types",
    "Trainable": "rung.types",
    "Preferring": "rung.types",
    "Retriever": "rung.types",
    "MetricInfo": "rung.types",
    "Solution": "rung.types",
    "Strategy": "rung.strategies.registry",
    "Workshop": "rung.trials.workshop",
    "Intervention": "rung.diagnosis.interventions",
    "Executor": "rung.trials.trial",
    "register_model": "rung.models",
    "register_strategy": "rung.strategies.registry",
    "register_metric": "rung.evaluation.metrics",
    "register_index": "rung.retrieval",
    "register_intervention": "rung.diagnosis.interventions",
    "RungError": "rung.errors",
    "TaskError": "rung.errors",
    "DataError": "rung.errors",
    "SealedTestError": "rung.errors",
    "ModelError": "rung.errors",
    "OutOfMemory": "rung.errors",
    "DownloadError": "rung.errors",
    "ConstraintError": "rung.errors",
    "TrainingError": "rung.errors",
    "MetricError": "rung.errors",
    "RunError": "rung.errors",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'rung' has no attribute {name!r}")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from rung.api import Run as Run
    from rung.api import bundle as bundle
    from rung.api import load as load
    from rung.api import run as run
    from rung.api import synth as synth
