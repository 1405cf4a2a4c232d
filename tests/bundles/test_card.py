"""The model card, read back by the hub's own client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from bundle_runs import DEV, write_run
from rung.bundles.packing import pack
from rung.decision.record import decision_record
from rung.records import write_json
from rung.types import Candidate, Decision, Score


def card_in(tmp_path: Path, model: str = "smollm2-135m-instruct", *, decided: bool = True, **task: Any) -> ModelCard:
    run = write_run(tmp_path / "run", model, "1", **task)
    if decided:
        dev, test = Score(0.9, 0.7, 0.98, 20), Score(0.8, 0.6, 0.9, 30)
        tried = Candidate("zero_shot", "prompt", dev, test, 9, 2, 0.1, 0.2, None, 1, 0)
        decision = Decision(
            choice="prompt",
            solution="zero_shot",
            headline="Prompt: zero_shot answers 80 % right.",
            warnings=("Few examples.",),
            candidates=(tried,),
            reasons=(),
            next=(),
            comparisons=(),
            diagnosis=(),
            minimum_detectable_difference=0.1,
            test_reads=1,
            floor=0.1,
        )
        write_json(run / "decision.json", decision_record(decision))
    (tmp_path / "out").mkdir()
    pack(run, "zero_shot", tmp_path / "out", dev=DEV)
    return ModelCard.load(tmp_path / "out" / "README.md")


def test_the_hub_reads_the_figures_of_the_test_and_of_dev(tmp_path: Path) -> None:
    card = card_in(tmp_path, license="cc-by-4.0")
    data = card.data
    assert data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct" and data.pipeline_tag == "text-generation"
    assert (data.license, data.license_name) == ("other", "apache-2.0 (base), cc-by-4.0 (data)")
    test, dev = data.eval_results
    assert (test.dataset_split, test.metric_type, test.metric_value) == ("test", "exact_match", 0.8)
    assert "0.6 to 0.9, n = 30" in test.metric_name and dev.metric_value == 0.9
    assert "not seen before; opened once" in card.text and "seen: the run chose by it" in card.text
    assert "- Few examples." in card.text


def test_a_prompt_is_no_adapter_and_an_unknown_licence_is_said(tmp_path: Path) -> None:
    card = card_in(tmp_path)
    assert card.data.library_name is None and "base_model_relation" not in card.data.to_dict()
    assert card.data.license == "unknown" and "Data of the task: unknown" in card.text


def test_a_solution_of_an_unfinished_run_says_that_the_test_did_not_judge_it(tmp_path: Path) -> None:
    card = card_in(tmp_path, decided=False)
    assert "It was not judged on the sealed test." in card.text
    assert [r.dataset_split for r in card.data.eval_results] == ["validation"]
