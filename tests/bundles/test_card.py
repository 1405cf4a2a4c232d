"""The model card, read back by the hub's own client."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from bundle_runs import DEV, write_run
from rung.bundles.packing import pack
from rung.decision.record import decision_record
from rung.records import read_json, write_json
from rung.types import Candidate, Decision, Score


def card_in(
    tmp_path: Path,
    model: str = "smollm2-135m-instruct",
    *,
    decided: bool = True,
    finalists: Mapping[str, Any] | None = None,
    examples: bool = True,
    **task: Any,
) -> ModelCard:
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
    if finalists is not None:
        write_json(run / "finalists.json", finalists)
    (tmp_path / "out").mkdir()
    pack(run, "zero_shot", tmp_path / "out", dev=DEV, examples=examples)
    return ModelCard.load(tmp_path / "out" / "README.md")


def test_the_hub_reads_the_figures_of_the_test_and_of_dev(tmp_path: Path) -> None:
    card = card_in(tmp_path, license="cc-by-4.0")
    data = card.data
    assert data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct" and data.pipeline_tag == "text-generation"
    assert (data.license, data.license_name) == ("other", "apache-2.0 (base), cc-by-4.0 (data)")
    test, dev = data.eval_results
    assert (test.dataset_split, test.metric_type, test.metric_value) == ("test", "exact_match", 0.8)
    assert "0.6 to 0.9, n = 30" in test.metric_name and dev.metric_value == 0.9
    assert "held back until the end; opened once" in card.text and "seen: the run chose by it" in card.text
    assert "- Few examples." in card.text


def test_a_prompt_is_no_adapter_and_an_unknown_licence_is_said(tmp_path: Path) -> None:
    card = card_in(tmp_path)
    assert card.data.library_name is None and "base_model_relation" not in card.data.to_dict()
    assert card.data.license == "unknown" and "Data of the task: unknown" in card.text


def test_a_solution_of_an_unfinished_run_says_that_the_test_did_not_judge_it(tmp_path: Path) -> None:
    card = card_in(tmp_path, decided=False)
    assert card.text.strip().splitlines()[2].startswith("**It was not judged on the sealed test.**")
    assert [r.dataset_split for r in card.data.eval_results] == ["validation"]


def test_a_test_that_earlier_runs_had_seen_is_not_called_fresh(tmp_path: Path) -> None:
    card = card_in(tmp_path, finalists={"seen_before": {"examples": 12, "verdicts": 2}})
    assert "seen before: 12 of them were in the tests of 2 earlier runs" in card.text
    assert "12 of its examples were in earlier tests" in card.data.eval_results[0].metric_name
    fresh = card_in(tmp_path / "fresh", finalists={"seen_before": {"examples": 0, "verdicts": 0}})
    assert "in no test of the runs beside it; opened once" in fresh.text


def test_the_card_says_only_what_the_bundle_holds(tmp_path: Path) -> None:
    with_rows, without = card_in(tmp_path / "a"), card_in(tmp_path / "b", examples=False)
    assert "Of the data it holds examples in `parity.jsonl`. Check" in with_rows.text
    assert "rung drift ." in with_rows.text and "rung check-bundle .   #" in with_rows.text
    assert "It holds no example of the data and no passage. Check" in without.text
    assert "rung drift" not in without.text and "rung check-bundle . --examples FILE" in without.text


def test_the_card_says_where_vllm_gave_the_recorded_answers(tmp_path: Path) -> None:
    card = card_in(tmp_path, engine="vllm")
    assert "the recorded answers are vLLM's" in card.text
    assert read_json(tmp_path / "out" / "bundle.json")["engine"] == "vllm"  # type: ignore[index]
