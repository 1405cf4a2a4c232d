from __future__ import annotations

import inspect
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pages import joined, printed
from rich.cells import cell_len
from rich.console import Console
from run_folders import (
    ALL,
    EVERYTHING,
    FINE_TUNE,
    NONE,
    UNDECIDED,
    UNFINISHED,
    UNTESTED,
    WARNED,
    checks_record,
    plan_record,
    task_record,
    write_run,
)

from rung.data.checks.kinds import KINDS
from rung.errors import RunError
from rung.records import append_lines, read_json, write_json
from rung.report.background import data_section
from rung.report.planned import PLAN_LINES, plan_screen
from rung.report.reading import read_run
from rung.report.terminal import FINAL_LINES, TerminalListener, final_screen
from rung.types import Score

LONG = "a very long explanation of what happened and of what that means for everyone who reads it, " * 12
WIDE = "郵便船の待ち時間についての長い説明。" * 30


def rewrite(folder: Path, **changes: Any) -> None:
    write_json(folder / "decision.json", {**(read_json(folder / "decision.json") or {}), **changes})


# ---- after ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_no_line_is_wider_than_its_screen_and_a_usual_verdict_fits_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("runs/tickets")  # as a user's: a long path takes lines of its own
    folder.mkdir(parents=True)
    write_run(folder, ALL[kind])
    if kind not in ("unfinished", "warned"):  # whose warnings are whole, however many they are
        assert len(printed(final_screen(folder))) <= FINAL_LINES
    for text in (None, LONG, WIDE, "x" * 900):
        if text:
            rewrite(folder, headline=text, warnings=[text] * 2, reasons=[text] * 9, next=[text] * 9)
        for width in (80, 60, 40):
            assert max(map(cell_len, printed(final_screen(folder), width))) <= width


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("width", [100, 80, 50])
def test_no_sentence_is_cut_and_headline_and_warnings_are_whole(tmp_path: Path, kind: str, width: int) -> None:
    write_run(tmp_path, ALL[kind])
    record = read_json(tmp_path / "decision.json") or {}
    lines = printed(final_screen(tmp_path), width)
    said = joined(lines)
    for sentence in (record["headline"], *record["warnings"], record["next"][0]):
        assert sentence in said
    whole = [s for s in (*record["reasons"], *record["next"]) if s in said]
    begun = [line for line in lines if line.startswith("- ")]
    assert len(whole) == len(begun)
    assert "…" not in said.split("Try it:")[0]


def test_warnings_outweigh_the_height_of_the_screen_and_reasons_are_dropped_whole(tmp_path: Path) -> None:
    write_run(tmp_path, WARNED)
    warnings = [f"Warning {i}: {LONG.strip()}" for i in range(5)]
    rewrite(tmp_path, warnings=warnings)
    lines = printed(final_screen(tmp_path))
    assert all(warning in joined(lines) for warning in warnings)
    reasons = (read_json(tmp_path / "decision.json") or {})["reasons"]
    assert f"  {len(reasons)} more reasons in report.html" in lines
    assert not any(reason[:30] in joined(lines) for reason in reasons)


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    write_run(tmp_path)
    rewrite(tmp_path, reasons=[f"Reason {i}." for i in range(20)], next=[f"Step {i}." for i in range(9)])
    lines = printed(final_screen(tmp_path))
    reasons, steps = (sum(line.startswith(start) for line in lines) for start in ("- Reason", "- Step"))
    assert reasons >= 2 and steps >= 2
    assert f"  {20 - reasons} more reasons in report.html" in lines
    assert f"  {9 - steps} more steps in report.html" in lines


def test_checks_of_finalists_that_were_not_made_are_named_at_the_end_however_many_reasons_there_are(
    tmp_path: Path,
) -> None:
    write_run(tmp_path)
    why = "the budget of 16 minutes leaves no time for it"
    unmeasured = [
        f"What rag says where no passage holds the answer was not measured: {why}.",
        f"Whether rag follows planted orders was not measured: {why}.",
        "What lora has forgotten was not measured: the model is gone.",
    ]
    reasons = [f"Reason {i}." for i in range(30)]
    about = ["decided"] * 30 + ["checks"] * 3
    rewrite(tmp_path, reasons=[*reasons, *unmeasured], reasons_about=about)
    lines = printed(final_screen(tmp_path))
    said = joined(lines)
    assert (
        "Not measured: what rag says where no passage holds the answer; whether rag follows planted orders "
        f"({why})." in said
    )
    assert "Not measured: what lora has forgotten (the model is gone)." in said
    shown = sum(line.startswith("- Reason") for line in lines)
    assert f"  {30 - shown} more reasons in report.html" in lines and len(lines) <= FINAL_LINES
    rewrite(tmp_path, reasons=reasons, reasons_about=about[:30])
    assert "Not measured" not in joined(printed(final_screen(tmp_path)))


def test_an_unfinished_run_says_how_to_go_on_and_how_to_finish(tmp_path: Path) -> None:
    write_run(tmp_path, UNFINISHED)
    said = joined(printed(final_screen(tmp_path)))
    assert said.startswith(
        "Unfinished: rag and lora could change the verdict and were not tried. About 4 more minutes:"
    )
    assert "! rag (retrieval) was not tried:" in said
    assert "Go on from here with about 4 more minutes: `rung run task.yaml" in said and "--finish" in said
    assert "test (95 %)" not in said and "--solution few_shot" in said


def test_baselines_stand_in_the_table(tmp_path: Path) -> None:
    write_run(tmp_path)
    lines = printed(final_screen(tmp_path))
    assert "  most_frequent  baseline   10 %  10 % (5–20)        –       –         –" in lines


@pytest.mark.parametrize("width", [80, 60])
def test_the_headline_stands_first_then_why_the_candidates_and_what_to_do(tmp_path: Path, width: int) -> None:
    write_run(tmp_path / "r")
    lines = printed(final_screen(tmp_path / "r"), width)
    assert lines[0].startswith("Fine-tune: lora answers 82 %")
    text = "\n".join(lines)
    order = ["- lora minus few_shot", "  candidate", "→ lora", "- Ship lora.", "Try it:", "Report:"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)


def test_a_plain_run_says_two_to_four_reasons_and_every_number_of_its_candidates(tmp_path: Path) -> None:
    write_run(tmp_path)
    lines = printed(final_screen(tmp_path))
    assert 2 <= len([line for line in lines[: lines.index("")] if line.startswith("- ")]) <= 4
    assert "→ lora           fine-tune  80 %  82 % (70–89)      98  0.68 s   1.9 min" in lines


def test_a_narrow_screen_drops_columns_and_keeps_the_test_score(tmp_path: Path) -> None:
    write_run(tmp_path, EVERYTHING)
    wide, narrow = printed(final_screen(tmp_path)), printed(final_screen(tmp_path), 36)
    assert any("family" in line for line in wide) and not any("family" in line for line in narrow)
    assert any(re.match(r"→ rag_lora +90 % \(80–95\)", line) for line in narrow)


def test_of_many_candidates_the_chosen_one_always_stands_in_the_table(tmp_path: Path) -> None:
    names = {f"prompt_{i}": 0.3 for i in range(9)}
    write_run(tmp_path, replace(FINE_TUNE, right={**names, "lora": 0.9}, untested=tuple(list(names)[1:])))
    lines = printed(final_screen(tmp_path))
    assert any(line.startswith("→ lora") for line in lines)
    assert "  and 6 more, in the report" in lines


def test_reasons_keep_the_order_of_the_record_whatever_their_words(tmp_path: Path) -> None:
    write_run(tmp_path)
    rewrite(tmp_path, reasons=["rag was not tried: no corpus.", "lora minus few_shot: 40 points."])
    lines = printed(final_screen(tmp_path))
    assert lines.index("- rag was not tried: no corpus.") < lines.index("- lora minus few_shot: 40 points.")


def test_without_a_winner_the_best_can_be_tried_and_without_scores_nothing(tmp_path: Path) -> None:
    write_run(tmp_path / "none", NONE)
    write_run(tmp_path / "untested", UNTESTED)
    assert any("--solution lora" in line for line in printed(final_screen(tmp_path / "none"), 200))
    assert not any("rung ask" in line for line in printed(final_screen(tmp_path / "untested"), 200))


def test_a_percent_sign_stays_on_the_line_of_its_number(tmp_path: Path) -> None:
    write_run(tmp_path, UNDECIDED)
    for width in range(40, 100):
        assert not [line for line in printed(final_screen(tmp_path), width) if line.lstrip().startswith("%")]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
def test_a_terminal_without_unicode_gets_plain_signs(tmp_path: Path, encoding: str) -> None:
    write_run(tmp_path)
    rewrite(tmp_path, reasons=[WIDE])
    lines = printed(final_screen(tmp_path), encoding=encoding)
    assert "> lora           fine-tune  80 %  82 % (70-89)      98  0.68 s   1.9 min" in lines


def test_when_piped_there_are_no_escape_codes_and_none_come_from_the_data(tmp_path: Path) -> None:
    write_run(tmp_path)
    rewrite(tmp_path, headline="red \x1b[31mand\x07 bell", reasons=["\x1b]0;title\x07"])
    assert not [c for line in printed(final_screen(tmp_path)) for c in line if not c.isprintable()]


def test_square_brackets_in_the_data_are_words_and_not_styles(tmp_path: Path) -> None:
    write_run(tmp_path)
    rewrite(tmp_path, headline="[bold]kept[/bold] [/nonsense]")
    assert printed(final_screen(tmp_path))[0] == "[bold]kept[/bold] [/nonsense]"


def test_without_a_verdict_there_is_no_screen(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run folder"):
        final_screen(tmp_path)


# ---- before ---------------------------------------------------------------------------------


def test_the_plan_says_what_the_data_can_show_and_what_is_going_to_be_spent() -> None:
    lines = printed(plan_screen(Path("runs/tickets"), plan_record(), checks_record(), task_record()))
    assert lines[0] == "tickets: smollm2-135m-instruct, label_accuracy"
    assert "The smallest difference the test can show (80 % power): 17 points." in lines
    assert "few_shot     prompt       180    42 k  1.6 min" in lines
    assert "rag, rag_lora  skipped: the task has no corpus" in lines
    assert "In all about 6.7 min of a budget of 30 min." in lines
    lines = printed(plan_screen(Path("r"), {**plan_record(), "start_s": 80.0}, checks_record(), task_record()))
    started = "6.7 min of a budget of 30 min, and 1.3 min for the start of vLLM, which the budget does not count."
    assert started in " ".join(lines)
    assert lines[-3:-1] == ["Data checks: 3 warnings.", "  Nearly the same inputs: 3."]
    assert lines[-1].startswith("All of them, and what to do: rung check ")


def test_the_plan_names_all_kinds_of_findings_leakage_first_and_what_to_do_about_it() -> None:
    found = [{"check": "email", "severity": "warning", "row": f"e.jsonl, line {i}", "message": "m"} for i in range(7)]
    found += [
        {"check": "leakage", "severity": "warning", "row": f"test.jsonl, line {i}", "message": "m"} for i in (1, 2)
    ]
    found += [{"check": "casing", "severity": "note", "row": "e.jsonl, line 3", "message": "m"}]
    found += [{"check": "casing", "severity": "note", "row": "", "message": "800 more", "count": 800}]
    lines = printed(plan_screen(Path("runs/t"), plan_record(), {"findings": found}, task_record()))
    start = lines.index("Data checks: 9 warnings and 801 notes.")
    shown = joined(lines[start:])
    assert "! Test rows that stand in train: 2. The test is not clean" in shown
    assert "E-mail addresses: 7; Answers in other casing: 801." in shown
    assert len(lines) - start <= 6 and "rung check" in lines[-1]


def test_many_kinds_of_findings_take_six_lines_and_the_others_are_counted() -> None:
    found = [{"check": c, "severity": "warning", "row": "e.jsonl, line 1", "message": LONG} for c in KINDS]
    lines = printed(plan_screen(Path("runs/t"), plan_record(), {"findings": found}, task_record()))
    start = next(i for i, line in enumerate(lines) if line.startswith("Data checks: "))
    assert len(lines) - start <= 6 and "more kinds." in joined(lines) and "rung check" in lines[-1]


def test_the_caps_of_dev_and_test_are_said() -> None:
    plan = {**plan_record(), "sizes": {"train": 7000, "dev": 1000, "test": 2000}, "capped": {"dev": 2500, "test": 2500}}
    lines = printed(plan_screen(Path("r"), plan, {"findings": []}, task_record()))
    assert (
        "Examples: train 7,000, dev 1,000 of 2,500, test 2,000 of 2,500; the rest trains (the test stays sealed until "
        "the end)." in joined(lines)
    )


def test_a_test_that_was_opened_before_is_not_called_sealed(tmp_path: Path) -> None:

    from rung.records import append_lines

    read = {"time": "2026-11-27T07:19:07+00:00", "read": 1, "solutions": ["few_shot", "lora"], "digest": "d"}
    append_lines(tmp_path / "test_reads.jsonl", [read])
    shown = joined(printed(plan_screen(tmp_path, plan_record(), {"findings": []}, task_record())))
    assert "(the test was opened on 2026-11-27 for few_shot, lora; now it stays shut until the end)" in shown
    append_lines(tmp_path / "test_reads.jsonl", [{**read, "read": 2, "solutions": ["rag"]}])
    shown = joined(printed(plan_screen(tmp_path, plan_record(), {"findings": []}, task_record())))
    assert "was opened 2 times, last on 2026-11-27 for rag;" in shown


def test_the_report_says_when_the_test_was_opened_again_for_the_same(tmp_path: Path) -> None:
    write_run(tmp_path)
    read = {"time": "2026-11-24T07:27:15+00:00", "read": 1, "solutions": [], "continues": True}
    append_lines(tmp_path / "test_reads.jsonl", [read])
    assert "; again for the same at 2026-11-24 07:27 UTC" in str(data_section(read_run(tmp_path)))


def test_strategies_that_are_left_out_for_one_reason_share_a_line_and_one_that_is_off_is_seen() -> None:
    names = ("zero_shot", "constrained", "few_shot", "rag", "lora", "full", "rag_lora")
    off = "off by default, about 12.3 min; name it with --only"
    why = {"rag": "the task has no corpus", "rag_lora": "the task has no corpus", "full": off}
    step = {"family": "prompt", "calls": 1, "tokens": 1, "seconds": 1.0}
    steps = [{**step, "name": n, "applies": n not in why, "why": why.get(n, "")} for n in names]
    made = [{**step, "name": n, "applies": True, "why": ""} for n in ("diagnosis", "pilot")]
    lines = printed(plan_screen(Path("r"), {**plan_record(), "steps": steps, "experiments": made}, {}, task_record()))
    assert "rag, rag_lora  skipped: the task has no corpus" in lines
    assert f"full         skipped: {off}" in lines
    assert sum("rag" in line for line in lines) == 1


def test_a_reason_that_does_not_fit_beside_many_names_is_wrapped_and_not_cut() -> None:
    names = ("constrained", "few_shot", "nearest_of_many_examples", "lora", "another_strategy_of_the_user")
    step = {"family": "prompt", "calls": 1, "tokens": 1, "seconds": 1.0}
    steps = [{**step, "name": n, "applies": False, "why": "left out by --only"} for n in names]
    steps.append({**step, "name": "zero_shot", "applies": True, "why": ""})
    lines = printed(plan_screen(Path("r"), {**plan_record(), "steps": steps}, {}, task_record()))
    assert f"skipped: left out by --only: {', '.join(names)}" in joined(lines)
    assert max(map(cell_len, lines)) <= 80


def test_the_difference_is_written_on_the_metrics_own_scale() -> None:
    task = {**task_record(), "metric": "token_f1", "right_or_wrong": False}
    lines = printed(plan_screen(Path("r"), plan_record(), {"findings": []}, task))
    said = "The smallest difference the test can show (80 % power): 0.17 at most (graded scores often show less)."
    assert said in joined(lines)
    assert lines[-1] == "Data checks: no warnings."


@pytest.mark.parametrize("width", [80, 60, 40])
def test_the_plan_outgrows_its_screen_only_by_steps_that_take_a_noticeable_part(width: int) -> None:
    plan, checks = plan_record(EVERYTHING), checks_record(40)
    plan["steps"] = [{**step, "name": f"{step['name']}_{i}", "why": LONG} for step in plan["steps"] for i in range(4)]
    plan["steps"] += [{**step, "applies": False, "name": "left_" + step["name"]} for step in plan["steps"]]
    checks["findings"][0]["message"] = LONG
    task = {**task_record(), "name": LONG, "model": WIDE}
    lines = printed(plan_screen(Path("runs") / ("long-" * 20), plan, checks, task), width)
    header = next(i for i, line in enumerate(lines) if line.startswith("strategy"))
    rows = lines[header + 1 : lines.index("", header)]
    seconds = [step["seconds"] for step in plan["steps"] if step["applies"]]
    shown = sum(s >= 0.02 * sum(seconds) for s in seconds)
    rest = joined(rows[shown:])
    assert rest.startswith("and ") and rest.endswith(" skipped, in plan.json") and rest.count("and ") == 2
    assert len(lines) - len(rows) + 4 <= PLAN_LINES
    assert max(map(cell_len, lines)) <= width
    assert any(line.startswith("In all about") for line in lines)


def test_no_large_step_of_the_plan_is_hidden_and_the_small_rest_is_summed_up() -> None:
    minutes = {"zero_shot": 0.1, "few_shot": 0.4, "rag": 6.3, "lora": 1.7, "rag_lora": 3.9}
    after = {"search": 0.6, "diagnosis": 0.6, "pilot": 0.4, "skills": 6.3, "shortening": 17.9, "consistency": 2.4}
    step = {"family": "prompt", "calls": 1, "tokens": 1, "applies": True, "why": ""}
    made, tried = ([{**step, "name": n, "seconds": 60 * m} for n, m in own.items()] for own in (minutes, after))
    left = [{**step, "name": n, "seconds": 0.0, "applies": False, "why": "no teacher"} for n in ("dpo", "stated_rules")]
    plan = {**plan_record(), "steps": [*made, *left], "experiments": tried, "seconds": 2436.0}
    lines = printed(plan_screen(Path("r"), plan, {}, task_record()))
    start = next(i for i, line in enumerate(lines) if line.startswith("strategy")) + 1
    end = next(i for i, line in enumerate(lines) if line.startswith("and "))
    shown = [line.split()[0] for line in lines[start:end]]
    assert set(shown) >= {"rag", "lora", "rag_lora", "skills", "shortening", "consistency"}
    assert shown == [name for name in (*minutes, *after) if name in shown]
    hidden = [name for name in (*minutes, *after) if name not in shown]
    rest = sum({**minutes, **after}[name] for name in hidden)
    assert lines[end] == f"and {len(hidden)} more, {rest:.1f} min, and 2 skipped, in plan.json"
    assert len(lines) <= PLAN_LINES


def test_a_plan_by_dollars_shows_the_dearest_steps_however_fast_they_are() -> None:
    step = {"family": "prompt", "calls": 1, "tokens": 1, "applies": True, "why": "", "seconds": 60.0, "usd": 0.01}
    steps = [{**step, "name": f"slow_{i}"} for i in range(12)] + [{**step, "name": "dear", "seconds": 1.0, "usd": 2.0}]
    steps += [{**step, "name": "small", "seconds": 1.0, "usd": 0.01}]
    lines = printed(plan_screen(Path("r"), {**plan_record(), "steps": steps, "usd": 2.13}, {}, task_record()))
    assert any(line.startswith("dear ") for line in lines)
    assert "and 1 more, 0.0 min, 0.010 USD, in plan.json" in lines


# ---- meanwhile ------------------------------------------------------------------------------


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_listener_is_what_the_ladder_asks_for() -> None:
    from rung.ladder.options import Listener

    for name in ("say", "planned", "progress", "tried", "skipped"):
        wanted = inspect.signature(getattr(Listener, name)).parameters
        assert list(inspect.signature(getattr(TerminalListener, name)).parameters) == list(wanted)


def test_where_there_is_no_terminal_progress_is_shown_at_most_every_ten_seconds(tmp_path: Path) -> None:
    out, clock = io.StringIO(), Clock()
    with TerminalListener(Console(file=out, width=80), clock=clock) as listener:
        for _ in range(25):
            listener.progress("answering few_shot", 0.4, 170)
            clock.now += 1
    assert out.getvalue() == "answering few_shot  40 %, about 3 min left\n" * 3


def test_what_is_finished_is_one_line_each(tmp_path: Path) -> None:
    out = io.StringIO()
    write_json(tmp_path / "task.json", task_record())
    with TerminalListener(Console(file=out, width=80)) as listener:
        listener.planned(tmp_path, plan_record(), checks_record())
        listener.say("fetching [the] model")
        listener.tried("few_shot", "prompt", Score(0.42, 0.33, 0.51, 120), 38.2)
        listener.skipped("rag", "the task has no corpus")
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("tickets: ")
    assert lines[-3:] == [
        "fetching [the] model",
        "few_shot     prompt         dev 42 % (33–51)  38 s",
        "rag          skipped: the task has no corpus",
    ]


@pytest.mark.parametrize("ending", [None, RuntimeError, KeyboardInterrupt])
def test_the_live_line_is_gone_whatever_ends_the_run(ending: type[BaseException] | None) -> None:
    out = io.StringIO()
    console = Console(file=out, width=60, force_terminal=True, legacy_windows=False, _environ={"TERM": "xterm"})
    listener = TerminalListener(console)
    try:
        with listener:
            listener.progress("training lora, epoch 1 of 4", 0.25, 30)
            listener.progress("training lora, epoch 2 of 4", 0.5, None)
            if ending:
                raise ending
    except (RuntimeError, KeyboardInterrupt):
        pass
    shown = out.getvalue()
    assert "training lora, epoch 1 of 4  25 %, less than a minute left" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1  # the cursor is back
    assert shown.endswith("\x1b[2K")  # and the line erased


def test_a_console_that_has_gone_does_not_stop_the_run() -> None:
    out = io.StringIO()
    listener = TerminalListener(Console(file=out, width=60), clock=lambda: 0.0)
    out.close()
    with listener:
        listener.say("nobody reads this")
        listener.progress("answering", 0.5, 3.0)
        listener.tried("lora", "fine-tune", Score(0.5, 0.4, 0.6, 10), 1.0)
