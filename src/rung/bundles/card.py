"""The model card of a bundle, in the form that the Hugging Face hub reads: front matter in YAML, then Markdown.

Source: the Hub's model card guide, and the fields that `huggingface_hub.ModelCardData` reads back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from rung.bundles.licences import UNKNOWN, licence_of_both
from rung.bundles.recorded import RECORDED
from rung.decision.figures import Scale
from rung.types import Score, Solution

_HUB_METRICS = {
    "label_accuracy": "accuracy",
    "token_f1": "f1",
    "label_set_f1": "f1",
    "rouge_l": "rouge",
    "exact_match": "exact_match",
}
"""Name of a metric -> what the hub calls it."""

_WHAT = {
    "prompt": "It is a prompt: the base model is used as it is.",
    "rag": "It searches documents and shows the passages to the base model, which is used as it is.",
    "fine-tune": "It is an adapter, trained on the examples of the task, over the base model.",
    "rag+fine-tune": "It searches documents and shows the passages to the base model with an adapter, which was "
    "trained on the examples of the task.",
}


def card_of(note: Mapping[str, Any], solution: Solution, *, recorded: bool) -> str:
    """README.md. note: bundle.json without its files. recorded: whether the bundle holds recorded answers."""
    matter = yaml.safe_dump(_front_matter(note), sort_keys=False, allow_unicode=True, width=1000)
    parts = [
        f"# {note['task']}",
        *_unjudged(note),
        *_purpose(note, solution),
        "## How it was made",
        *_making(note, solution),
        "## How it was tested",
        *_testing(note),
        *_caveats(note),
        "## How to use it",
        *_using(note, solution, recorded),
        "## Limits",
        *_limits(solution, recorded),
        "## Licences",
        *_licences(note, solution, recorded),
    ]
    return f"---\n{matter}---\n\n" + "\n\n".join(parts) + "\n"


def _front_matter(note: Mapping[str, Any]) -> dict[str, Any]:
    hub, trained = note["base"]["hub"], note["trained"]
    license, name = licence_of_both(note["licenses"]["base"], note["licenses"]["data"])
    found: dict[str, Any] = {}
    if hub is not None:
        found["base_model"] = hub
        if trained is not None:
            found["base_model_relation"] = "adapter" if trained == "adapter" else "finetune"
    if trained is not None:
        found["library_name"] = "peft" if trained == "adapter" else "transformers"
    found |= {"pipeline_tag": "text-generation", "license": license}
    if name is not None:
        found["license_name"] = name
    found["tags"] = ["rung", note["family"]]
    metric = _metric(note)
    found["metrics"] = [_HUB_METRICS.get(metric, metric)]
    results = [_result(note, kind) for kind in ("test", "dev") if note["figures"][kind] is not None]
    if results:
        found["model-index"] = [{"name": note["task"], "results": results}]
    return found


def _result(note: Mapping[str, Any], kind: str) -> dict[str, Any]:
    figure, metric = note["figures"][kind], _metric(note)
    which = "sealed test, opened once the solution stood" if kind == "test" else "dev, which the run chose by"
    if kind == "test" and figure["seen"]:
        which += f"; {figure['seen_before']['examples']:,} of its examples were in earlier tests"
    interval = f"95 % interval {figure['low']:.4g} to {figure['high']:.4g}, n = {figure['n']}"
    return {
        "task": {"type": "text-generation"},
        "dataset": {"name": note["task"], "type": note["task"], "split": "test" if kind == "test" else "validation"},
        "metrics": [
            {
                "type": _HUB_METRICS.get(metric, metric),
                "name": f"{metric} on {which} ({interval})",
                "value": round(figure["mean"], 6),
            }
        ],
    }


def _unjudged(note: Mapping[str, Any]) -> list[str]:
    """Said before all else."""
    if note["figures"]["test"] is not None:
        return []
    return ["**It was not judged on the sealed test.** What it reaches on inputs of no example is not known."]


def _purpose(note: Mapping[str, Any], solution: Solution) -> list[str]:
    said = note.get("instruction") or solution.instruction
    quoted = "\n".join(f"> {line}" for line in said.splitlines()) or "> (no instruction)"
    return [
        "It answers inputs of one task. What the task asks for:",
        quoted,
        _WHAT[note["family"]],
    ]


def _making(note: Mapping[str, Any], solution: Solution) -> list[str]:
    base = note["base"]
    facts = [f"Solution `{note['solution']}` of a run of rung {note['rung']}."]
    named = f"`{note['model']}`" if base["kind"] != "endpoint" else "a model behind an API (see `bundle.json`)"
    what = f"Its base is {named}, content `{note['model_version']}`"
    if base["kind"] == "hub" and base["revision"]:
        what += f", revision `{base['revision']}`"
    facts.append(f"{what}. On another content it is refused, because it would answer otherwise than in the test.")
    if note.get("engine") == "vllm":
        facts.append(
            "In the run vLLM answered with it, so that the recorded answers are vLLM's. rung's own engine may answer a "
            "few inputs otherwise, where rounding decides. With `--engine vllm`, `rung ask` and `rung serve` let vLLM "
            "answer."
        )
    if base["hub"] is not None and not base["exact"]:
        facts.append(
            f"These weights were made from a smaller, quantised file of `{base['hub']}`: with the weights of the hub "
            "answers can differ."
        )
    if solution.retriever is not None:
        spec = solution.retriever
        passages = "one passage" if spec.k == 1 else f"up to {spec.k} passages"
        facts.append(f"It shows {passages} of those in `index/`, found by {spec.kind}.")
    if solution.demos:
        demos = "one worked example" if len(solution.demos) == 1 else f"{len(solution.demos)} worked examples"
        facts.append(f"Its prompt holds {demos} from the train examples.")
    if solution.constraint is not None:
        facts.append(f"Answers are held to the task's {_CONSTRAINTS[solution.constraint.kind]} while they are written.")
    return [" ".join(facts)]


_CONSTRAINTS = {"labels": "labels", "json_schema": "JSON Schema", "regex": "pattern"}


def _testing(note: Mapping[str, Any]) -> list[str]:
    figures, scale = note["figures"], Scale(bool(note["metric"]["right_or_wrong"]))
    rows = []
    if (test := figures["test"]) is not None:
        rows.append(("sealed test", test, _looked_at(test)))
    if (dev := figures["dev"]) is not None:
        rows.append(("dev", dev, "seen: the run chose by it"))
    found = [f"Scores by `{_metric(note)}`, with 95 % intervals."]
    if note["metric"]["judged"]:
        found.append("The run was scored by a judge, a model that is not in the bundle.")
    if rows:
        lines = ["| set | score | examples | |", "|---|---|---|---|"]
        lines += [f"| {name} | {scale.full(_score(f))} | {f['n']} | {seen} |" for name, f, seen in rows]
        found.append("\n".join(lines))
    if figures["floor"] is not None:
        found.append(f"A baseline that looks at no input reaches {scale.value(figures['floor'])}.")
    if note.get("headline"):
        found.append(f"The verdict of the run: {note['headline']}")
    return found


def _looked_at(test: Mapping[str, Any]) -> str:
    """How fresh the sealed test was."""
    times = "once" if test["opened"] <= 1 else f"{test['opened']} times"
    opened, seen = f"opened {times}", test["seen_before"]
    if seen is None:
        return f"held back until the end; {opened}"
    if not seen["examples"]:
        return f"held back until the end, and in no test of the runs beside it; {opened}"
    one = "the test of an earlier run" if seen["verdicts"] == 1 else f"the tests of {seen['verdicts']:,} earlier runs"
    number = f"{seen['examples']:,} of them" if seen["examples"] < test["n"] else "all of them"
    return f"seen before: {number} were in {one}, and what was chosen since then may be tuned to them; {opened} here"


def _caveats(note: Mapping[str, Any]) -> list[str]:
    """What the run found out that speaks against it, and what it did not measure."""
    if not note["caveats"]:
        return []
    return ["## Beside the scores", "\n".join(f"- {caveat['said']}" for caveat in note["caveats"])]


def _using(note: Mapping[str, Any], solution: Solution, recorded: bool) -> list[str]:
    check = "rung check-bundle .   # does it still answer as it was recorded?"
    if not recorded:
        check = "rung check-bundle . --examples FILE   # how well does it answer rows like the task's?"
    found = [
        "With rung, in the folder that holds this file:",
        '```python\nimport rung\n\nanswer = rung.load(".")\nprint(answer("an input"))\n```',
        f'```sh\nrung ask . "an input"\nrung serve .          # an OpenAI-compatible server\n{check}\n```',
    ]
    if note["base"]["kind"] in ("folder", "file"):
        found.append(
            f"The base `{note['model']}` is not in the bundle. Say where it lies with `--base PATH`, `base=` of "
            "`rung.load`, or the environment variable `RUNG_BASE`; its content is checked."
        )
    if solution.adapter is not None:
        asked = "the recorded examples" if recorded else "the inputs of `--parity FILE`, which the bundle answers first"
        found.append(
            "For PEFT, vLLM, llama.cpp and other programs: `rung export . --to peft` (or `merged`, `gguf`, `ollama`, "
            f"`vllm`). It writes the place of the base on your machine, and asks the result {asked}."
        )
    return found


def _limits(solution: Solution, recorded: bool) -> list[str]:
    drift = " `rung drift . requests.jsonl` says how far requests are from them." if recorded else ""
    found = [
        f"The scores hold for inputs like the examples of the run.{drift}",
        "It was made for this one task; other requests were not tested.",
    ]
    if solution.retriever is not None:
        found.append("It knows what its passages say. Documents that changed later are not in it.")
    return ["\n".join(f"- {line}" for line in found)]


def _licences(note: Mapping[str, Any], solution: Solution, recorded: bool) -> list[str]:
    base, data = note["licenses"]["base"], note["licenses"]["data"]
    lines = [f"- Base model: {_licence(base)}", f"- Data of the task: {_licence(data)}"]
    held = [f"examples in `{RECORDED}`"] if recorded else []
    held += ["worked examples in `solution.json`"] if solution.demos else []
    held += ["passages in `index/`"] if solution.retriever is not None else []
    said = f"Of the data it holds {', '.join(held)}." if held else "It holds no example of the data and no passage."
    if note["trained"] is not None:
        said += " Its weights in `adapter/` were trained on examples of the data."
    return ["\n".join(lines), f"{said} Check both licences before you pass the bundle on."]


def _licence(name: str) -> str:
    return "unknown" if name == UNKNOWN else f"`{name}`"


def _metric(note: Mapping[str, Any]) -> str:
    return str(note["metric"]["name"]).rpartition(":")[2]


def _score(figure: Mapping[str, Any]) -> Score:
    return Score(figure["mean"], figure["low"], figure["high"], figure["n"])
