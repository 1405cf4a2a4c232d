"""What a bundle says against its solution comes from the run's records."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rung.bundles.caveats import Caveat, caveats_of, seen_before, without_paths
from rung.decision.evidence import Invention, Skills
from rung.decision.judging import JudgeCheck, judge_record
from rung.decision.warnings import lost_in_words, read_seen, seen_in_words
from rung.records import write_json
from rung.runs import Files
from rung.types import (
    Candidate,
    Citing,
    Comparison,
    Decision,
    Decoding,
    Injected,
    LeftEarly,
    RetrieverSpec,
    Score,
    SearchFailure,
    Solution,
)

HALF = Score(0.5, 0.4, 0.6, 50)
ALL = Score(0.98, 0.9, 1.0, 50)
RAG_LORA = Solution("rag_lora", "Answer.", Decoding(4), retriever=RetrieverSpec("bm25", 1, 60), adapter="adapter")
LOST = Skills("rag_lora", -0.2, -0.3, -0.1, 242, True)


def candidate(name: str, **more: Any) -> Candidate:
    return Candidate(name, "rag+fine-tune", HALF, HALF, 9, 2, 0.1, 0.2, None, 1, 0, **more)


def verdict(*warnings: str, solution: str = "rag_lora", **more: Any) -> Decision:
    decision = Decision(
        choice="rag+fine-tune",
        solution=solution,
        headline="",
        reasons=(),
        next=(),
        candidates=(candidate("zero_shot"), candidate("rag_lora")),
        comparisons=(),
        diagnosis=(),
        minimum_detectable_difference=0.1,
        test_reads=1,
        warnings=warnings,
    )
    return replace(decision, **more)


def found(
    run: Path, decision: Decision | None, solution: Solution = RAG_LORA, abstain: str | None = None, **named: Any
) -> dict[str, Caveat]:
    """By what they are about; the last of each."""
    if named:
        write_json(run / "finalists.json", named)
    caveats = caveats_of(Files(run), solution, decision, abstain=abstain, right_or_wrong=True)
    return {caveat.about: caveat for caveat in caveats}


def test_what_the_finalists_were_asked_is_told_with_its_figures(tmp_path: Path) -> None:
    injected = Injected("rag_lora", "passages", True, Score(0.1, 0.02, 0.3, 30))
    failure = SearchFailure("rag_lora", "unused", 1.0, 0.6, 1.0, 7, 7)
    citing = Citing("rag_lora", "dev", HALF, HALF, None, 0)
    decision = verdict(injections=(injected,), search_failures=(failure,), citing=(citing,))
    invention = Invention("rag_lora", False, ALL)
    told = found(tmp_path, decision, invention=[asdict(invention)], skills=[asdict(LOST)])
    assert "makes up an answer to 98 % (90–100) of 50 dev questions" in told["making up"].said
    assert "names no answer that says that there is none" in told["making up"].said
    assert told["orders"].figures == asdict(injected) and "followed 3 of 30 orders" in told["orders"].said
    assert "lost general skills" in told["skills"].said and told["skills"].figures == asdict(LOST)
    assert "is wrong on dev (7 answers)" in told["search"].said and "names sources in 50 %" in told["sources"].said
    assert "not known" not in told
    assert "`abstain`" not in found(tmp_path, decision, abstain="none")["making up"].said


def test_a_solution_that_was_not_asked_says_what_is_not_known(tmp_path: Path) -> None:
    said = found(tmp_path, verdict())["not known"].said
    assert all(part in said for part in ("no passage holds the answer", "follows orders", "has forgotten"))
    assert found(tmp_path, None) == {}


def test_what_reads_no_passages_is_not_blamed_for_answering_without_them(tmp_path: Path) -> None:
    zero_shot = Solution("zero_shot", "Answer.", Decoding(4))
    told = found(tmp_path, verdict(), zero_shot, invention=[asdict(Invention("zero_shot", False, ALL))])
    assert "making up" not in told


def test_a_warning_of_the_verdict_takes_the_place_of_the_same_sentence(tmp_path: Path) -> None:
    warning = f"{lost_in_words(LOST)} Use it for this task alone."
    caveats = caveats_of(Files(tmp_path), RAG_LORA, verdict(warning), abstain=None, right_or_wrong=True)
    assert [c.said for c in caveats if c.about != "not known"] == [warning]
    write_json(tmp_path / "finalists.json", {"skills": [asdict(LOST)]})
    caveats = caveats_of(Files(tmp_path), RAG_LORA, verdict(warning), abstain=None, right_or_wrong=True)
    assert [(c.about, c.said) for c in caveats if c.about != "not known"] == [("skills", warning)]


def test_warnings_of_others_are_left_out_and_no_run_or_path_is_named(tmp_path: Path) -> None:
    seen = seen_in_words(161, 161, ["before", "/home/ada/runs/x"])
    failed = "rag_lora: the metric failed first with: no /home/ada/metric.py."
    told = verdict("zero_shot lost general skills.", "zero_shot is better than rag_lora.", seen, failed)
    caveats = caveats_of(Files(tmp_path), RAG_LORA, told, abstain=None, right_or_wrong=True)
    assert [c.said for c in caveats if c.about == "verdict"] == [
        "zero_shot is better than rag_lora.",
        "rag_lora: the metric failed first with: no metric.py.",
    ]
    assert without_paths("at https://a.b/c/d and/or e") == "at https://a.b/c/d and/or e"


def test_a_solution_that_is_not_shipped_says_so_and_has_the_notes_of_the_run(tmp_path: Path) -> None:
    compared = Comparison("zero_shot", "rag_lora", "test", -0.3, -0.4, -0.2, 0.001, 0.001, 50)
    decision = verdict("Of the winner.", solution="zero_shot", comparisons=(compared,))
    write_json(tmp_path / "finalists.json", {"notes": ["3 rows of train stand in the test."]})
    caveats = caveats_of(Files(tmp_path), RAG_LORA, decision, abstain=None, right_or_wrong=True)
    assert [c.said for c in caveats if c.about == "verdict"] == [
        "The verdict of the run ships zero_shot and not rag_lora. On the sealed test, zero_shot minus rag_lora is 30 "
        "points (20 to 40).",
        "3 rows of train stand in the test.",
    ]


def test_faults_of_answering_building_and_judging_are_told(tmp_path: Path) -> None:
    one = candidate("rag_lora", failed_calls=3, cut="the time was over")
    check = JudgeCheck("gpt", "graded", 1, "exact_match")
    write_json(tmp_path / "judge.json", judge_record(check))
    decision = verdict(candidates=(one,), left_early=(LeftEarly("rag_lora", "rag was ahead", False),))
    caveats = caveats_of(Files(tmp_path), RAG_LORA, decision, abstain=None, right_or_wrong=True)
    said = [c.said for c in caveats]
    assert "never held against people" in said[0] and "rag_lora was stopped early on dev: rag was ahead." in said
    assert "rag_lora was stopped before it was built to its end: the time was over." in said
    assert any("no usable answer to 3 of the inputs" in s for s in said)


def test_how_often_the_test_was_seen_comes_from_the_record_and_of_older_runs_from_the_verdict(tmp_path: Path) -> None:
    sentence = seen_in_words(1234, 2000, ["a", "b", "c", "d"])
    assert read_seen(sentence) == (1234, 4) and read_seen(seen_in_words(1, 9, ["a"])) == (1, 1)
    assert read_seen("Few examples.") is None
    assert seen_before(Files(tmp_path), verdict()) is None
    assert seen_before(Files(tmp_path), verdict(sentence)) == {"examples": 1234, "verdicts": 4}
    write_json(tmp_path / "finalists.json", {"seen_before": {"examples": 0, "verdicts": 0}})
    assert seen_before(Files(tmp_path), verdict(sentence)) == {"examples": 0, "verdicts": 0}
