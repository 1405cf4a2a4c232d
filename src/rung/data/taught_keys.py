"""`teacher:` and `judge:` of task.yaml: models that help to build or to score, and are not compared.

Knows how they are written down; opens neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

from pydantic import ValidationInfo

from rung.data.key_values import WrongKey
from rung.data.metric_names import JUDGE, KNOWN_METRICS
from rung.data.model_keys import ENDPOINT_KEYS, LOCAL_KEYS, ModelEntry, named_model, refuse_secret_key, unknown_key
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
    "repeats": "Write repeats: 10, how often a candidate near the top answers each test input: 2 to 100 times.",
    "abstain": "Write abstain: followed by the answer that is right where the documents hold none.",
}
_OWN_KEYS = ("rubric", "mode", "samples", "fallback")
_MOST_SAMPLES = 20
_MOST_SHOWN = 60  # characters of a wrong value


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
    return named_model(value, info, _TEACHER_HINT)


def judge(value: Any, info: ValidationInfo) -> JudgeEntry:
    """The model that judges, and how. Raises ValueError, WrongKey."""
    if not isinstance(value, Mapping):
        raise ValueError(f"is {kind_of(value)}, but must be a mapping. {_JUDGE_HINT}")
    own = {key: value[key] for key in _OWN_KEYS if key in value}
    rest = {key: given for key, given in value.items() if key not in _OWN_KEYS}
    for key in rest:
        refuse_secret_key(key)
        if key not in (*LOCAL_KEYS, *ENDPOINT_KEYS):
            raise WrongKey(_unknown(str(key)), str(key))
    if not rest:
        raise ValueError(f"names no model. {_JUDGE_HINT}")
    if "rubric" not in own:
        raise ValueError(f"has no rubric: say what a good answer is. {_JUDGE_HINT}")
    rubric, mode, samples = own["rubric"], own.get("mode", "graded"), own.get("samples", 1)
    fallback = own.get("fallback", "token_f1")
    if not isinstance(rubric, str):
        raise WrongKey(f"is {kind_of(rubric)}, but must be text that says what a good answer is.", "rubric")
    if not rubric.strip():
        raise WrongKey("is empty. Say what a good answer is.", "rubric")
    _refuse_other("mode", mode, get_args(JudgeMode))
    _refuse_other("fallback", fallback, tuple(KNOWN_METRICS))
    if isinstance(samples, bool) or not isinstance(samples, int) or not 1 <= samples <= _MOST_SAMPLES:
        raise WrongKey(f"is {_shown(samples)}, but must be a whole number from 1 to {_MOST_SAMPLES}.", "samples")
    return JudgeEntry(
        named_model(rest, info, _JUDGE_HINT), rubric.strip(), cast(JudgeMode, mode), samples, str(fallback)
    )


def _unknown(key: str) -> str:
    """What to say of a key of a judge that does not exist."""
    if key == "model":
        return "is an unknown key: what names the model stands beside the rubric. Write name: and endpoint: there."
    return unknown_key(key, (*_OWN_KEYS, *dict.fromkeys((*ENDPOINT_KEYS, *LOCAL_KEYS))))


def _refuse_other(key: str, value: object, known: Sequence[str]) -> None:
    """Raises WrongKey where the value is none of the known ones."""
    if value in known:
        return
    guess = nearest(value, known) if isinstance(value, str) else None
    hint = f'Did you mean "{guess}"?' if guess else f"Use one of {', '.join(known)}."
    raise WrongKey(f"is {_shown(value)}. {hint}", key)


def _shown(value: object) -> str:
    """A value in a message: a number or a short text as it is, else its kind."""
    if isinstance(value, str) and 0 < len(value) <= _MOST_SHOWN:
        return f'"{value}"'
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else kind_of(value)


def to_teacher(entry: ModelEntry | None) -> ModelSpec | None:
    """The teacher of validated keys."""
    return None if entry is None else ModelSpec(entry.name, entry.spec, entry.price)


def to_judge(entry: JudgeEntry | None, metric: str, *, judged: bool) -> JudgeSpec | None:
    """The judge of validated keys. Raises ValueError where the keys about it contradict each other."""
    if metric == JUDGE and entry is None:
        raise ValueError(f"metric is judge, but no judge is named. {_JUDGE_HINT}")
    if entry is None:
        if judged:
            raise ValueError(f"judged names scored answers, but there is no judge to hold against them. {_JUDGE_HINT}")
        return None
    if metric != JUDGE:
        raise ValueError(f"judge is named, but the metric is {metric}. Write metric: judge, or delete judge.")
    spec = ModelSpec(entry.model.name, entry.model.spec, entry.model.price)
    return JudgeSpec(spec, entry.rubric, entry.mode, entry.samples, entry.fallback)
