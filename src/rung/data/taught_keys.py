"""`teacher:` and `judge:` of task.yaml: models that help to build or to score, and are not compared.

Knows how they are written down; opens neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast, get_args

from pydantic import ValidationInfo

from rung.data.key_values import WrongKey
from rung.data.metric_names import KNOWN_METRICS
from rung.data.model_keys import ENDPOINT_KEYS, LOCAL_KEYS, ModelEntry, one_model
from rung.data.rows import kind_of, nearest
from rung.types import JudgeMode, JudgeSpec, ModelSpec

_TEACHER_HINT = "Write teacher: {endpoint: https://host/v1, name: …}, a folder or a GGUF file: a stronger model."
_JUDGE_HINT = "Write judge: {endpoint: https://host/v1, name: …, rubric: what a good answer is}."
TAUGHT_HINTS = {
    "teacher": _TEACHER_HINT,
    "judge": _JUDGE_HINT,
    "judged": "Write judged: scores.jsonl, a file of answers that people scored.",
    "unlabelled": "Write unlabelled: inputs.jsonl, a file of inputs without answers.",
    "synthetic": "Write synthetic: synthetic.jsonl, a file that rung synth wrote and somebody has reviewed.",
    "preferences": "Write preferences: pairs.jsonl, a file with a chosen and a rejected answer to each input.",
    "repeats": "Write repeats: 10, how often a candidate near the top answers each test input.",
    "abstain": "Write abstain: followed by the answer that is right where the documents hold none.",
}
_OWN_KEYS = ("rubric", "mode", "samples", "fallback")
_MOST_SAMPLES = 20


@dataclass(frozen=True)
class JudgeEntry:
    """A judge as a task names it."""

    model: ModelEntry
    rubric: str
    mode: JudgeMode
    samples: int
    fallback: str


def teacher(value: Any, info: ValidationInfo) -> ModelEntry:
    """The model that teaches. Raises ValueError, WrongKey."""
    return one_model(value, info)


def judge(value: Any, info: ValidationInfo) -> JudgeEntry:
    """The model that judges, and how. Raises ValueError, WrongKey."""
    if not isinstance(value, Mapping):
        raise ValueError(f"is {kind_of(value)}, but must be a mapping. {_JUDGE_HINT}")
    own = {key: value[key] for key in _OWN_KEYS if key in value}
    rest = {key: given for key, given in value.items() if key not in _OWN_KEYS}
    for key in rest:
        if key not in (*LOCAL_KEYS, *ENDPOINT_KEYS) and nearest(str(key), _OWN_KEYS):
            raise WrongKey(f'is an unknown key. Did you mean "{nearest(str(key), _OWN_KEYS)}"?', str(key))
    if not rest:
        raise ValueError(f"names no model. {_JUDGE_HINT}")
    rubric = own.get("rubric")
    if not isinstance(rubric, str) or not rubric.strip():
        raise ValueError(f"has no rubric: say what a good answer is. {_JUDGE_HINT}")
    mode, samples, fallback = own.get("mode", "graded"), own.get("samples", 1), own.get("fallback", "token_f1")
    if mode not in get_args(JudgeMode):
        raise WrongKey(f"is {mode!r}. Use one of {', '.join(get_args(JudgeMode))}.", "mode")
    if isinstance(samples, bool) or not isinstance(samples, int) or not 1 <= samples <= _MOST_SAMPLES:
        raise WrongKey(f"is {samples!r}, but must be a whole number from 1 to {_MOST_SAMPLES}.", "samples")
    if fallback not in KNOWN_METRICS:
        raise WrongKey(f"is {fallback!r}. Use one of {', '.join(KNOWN_METRICS)}.", "fallback")
    model = one_model(rest.get("name") if set(rest) == {"name"} else rest, info)
    return JudgeEntry(model, rubric.strip(), cast(JudgeMode, mode), samples, fallback)


def to_teacher(entry: ModelEntry | None) -> ModelSpec | None:
    return None if entry is None else ModelSpec(entry.name, entry.spec, entry.price)


def to_judge(entry: JudgeEntry | None, metric: str, *, judged: bool) -> JudgeSpec | None:
    """The judge of validated keys. Raises ValueError where the keys about it contradict each other."""
    if metric == "judge" and entry is None:
        raise ValueError(f"metric is judge, but no judge is named. {_JUDGE_HINT}")
    if entry is None:
        if judged:
            raise ValueError(f"judged names scored answers, but there is no judge to hold against them. {_JUDGE_HINT}")
        return None
    if metric != "judge":
        raise ValueError(f"judge is named, but the metric is {metric}. Write metric: judge, or delete judge.")
    spec = ModelSpec(entry.model.name, entry.model.spec, entry.model.price)
    return JudgeSpec(spec, entry.rubric, entry.mode, entry.samples, entry.fallback)
