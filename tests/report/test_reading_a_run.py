"""What a reader needs beside the scores: reasons by topic, what was spent and on what, and lines that do not break."""

from __future__ import annotations

import io
import re
from pathlib import Path

from pages import Page, joined, printed
from rich.console import Console
from run_folders import FINE_TUNE, GRADED, NONE, checks_record, plan_record, task_record, write_run

from rung.records import append_lines, read_json, write_json
from rung.report.html import write_report
from rung.report.planned import PLAN_LINES, plan_screen
from rung.report.terminal import TerminalListener, final_screen
from rung.types import Score

TEACHER = {
    "name": "big",
    "spec": '{"endpoint": "https://api.example.com/v1", "name": "big-1"}',
    "price": {"usd_per_million_in": 0.5, "usd_per_million_out": 2.0},
}


def page_of(folder: Path) -> Page:
    return Page(write_report(folder, None))


def changed(folder: Path, name: str, **changes: object) -> None:
    write_json(folder / name, {**(read_json(folder / name) or {}), **changes})


def test_reasons_stand_by_topic_and_what_was_not_tried_is_folded(tmp_path: Path) -> None:
    write_run(tmp_path)
    reasons = ["It is better.", "The teacher reaches 97 %.", *(f"s{i} was not tried: no corpus." for i in range(9))]
    changed(tmp_path, "decision.json", reasons=reasons, reasons_about=["decided", "teacher", *["not tried"] * 9])
    why = page_of(tmp_path).source.split("<h2>Why</h2>")[1].split("<h2>")[0]
    open_, folded = why.split("<details>")
    assert "<h3>What decided</h3>" in open_ and "<h3>What the teacher did</h3>" in open_
    assert "was not tried" not in open_ and folded.count("was not tried: no corpus") == 9
    changed(tmp_path, "decision.json", reasons_about=[])  # as an older version wrote it
    assert "<details>" not in page_of(tmp_path).source.split("<h2>Why</h2>")[1].split("<h2>")[0]


def test_each_reason_of_a_verdict_says_what_it_is_about(tmp_path: Path) -> None:
    write_run(tmp_path, NONE)
    record = read_json(tmp_path / "decision.json") or {}
    assert len(record["reasons_about"]) == len(record["reasons"]) and record["reasons_about"][0] == "decided"
    order = ["decided", "teacher", "judge", "checks", "costs", "not tried"]
    assert sorted(record["reasons_about"], key=order.index) == record["reasons_about"]


def test_chart_and_table_name_the_metric_and_the_one_in_the_place_of_a_secondary_judge(tmp_path: Path) -> None:
    write_run(tmp_path, GRADED)
    scores = page_of(tmp_path).section("Scores and costs")
    assert scores.count(str((read_json(tmp_path / "task.json") or {})["metric"])) == 2
    changed(tmp_path, "task.json", metric="judge", scored_by="rouge_l")
    scores = page_of(tmp_path).section("Scores and costs")
    assert scores.count("rouge_l") == 2 and "judge" not in scores


def test_the_line_of_the_floor_does_not_run_through_a_name(tmp_path: Path) -> None:
    write_run(tmp_path)
    source = page_of(tmp_path).source
    lines = [
        (float(a), float(b)) for a, b in re.findall(r'y1="([\d.]+)" x2="[\d.%]+" y2="([\d.]+)" class="floor"', source)
    ]
    names = [float(y) for y in re.findall(r'y="([\d.]+)" class="name ', source)]
    assert len(lines) == len(names) + 1
    assert not [y for y in names for top, bottom in lines if top < y + 3 and bottom > y - 10]


def test_no_line_breaks_within_an_option(tmp_path: Path) -> None:
    write_run(tmp_path)
    changed(tmp_path, "decision.json", next=["Give it again with --again, or `rung run --only lora`."])
    source = page_of(tmp_path).source
    assert '<span class="option">--again</span>,' in source
    assert '<code>rung run <span class="option">--only</span> lora</code>' in source


def test_what_was_spent_is_said_with_what_it_was_for(tmp_path: Path) -> None:
    write_run(tmp_path)
    assert "Spent" not in joined(printed(final_screen(tmp_path))), "nothing has a price"
    changed(tmp_path, "task.json", teacher=TEACHER)
    write_json(tmp_path / "purse.json", {"usd": 0.5, "id": "x"})
    write_json(tmp_path / "clock.json", {"seconds": 1068.0})
    write_json(tmp_path / "models.json", {"teacher": {"usd": 0.3, "calls": 7}})
    said = "0.50 USD (0.30 USD on the teacher big, 0.20 USD on calls of commands that were stopped, at most)"
    assert f"Spent: {said}." in joined(printed(final_screen(tmp_path)))
    run = page_of(tmp_path).section("The run")
    assert f"Dollars spent {said}" in run and "Time spent 17.8 min" in run
    assert "Teacher big (big-1), at the endpoint api.example.com" in run


def test_hours_of_the_machine_are_dollars_too(tmp_path: Path) -> None:
    write_run(tmp_path)
    task = read_json(tmp_path / "task.json") or {}
    name = str((task.get("models") or [{"name": task.get("model")}])[0]["name"])
    changed(tmp_path, "task.json", models=[{"name": name, "spec": name, "price": {"usd_per_hour": 2.0}}])
    write_json(tmp_path / "clock.json", {"seconds": 1800.0})
    assert "Spent: 1.00 USD (1.00 USD on the machine)." in joined(printed(final_screen(tmp_path)))


def test_files_that_teach_stand_with_their_hashes(tmp_path: Path) -> None:
    write_run(tmp_path)
    taught = {"unlabelled": {"more.jsonl": "ab12"}, "preferences": {"pairs.jsonl": "cd34"}, "teacher": "v1"}
    changed(tmp_path, "task.json", taught=taught, judged_hashes={"scores.jsonl": "ef56"})
    run = page_of(tmp_path).section("The run")
    for said in ("more.jsonl (unlabelled) ab12", "pairs.jsonl (preferences) cd34", "scores.jsonl (judged) ef56"):
        assert said in run


def test_each_smallest_difference_says_how_many_pairs_are_compared(tmp_path: Path) -> None:
    write_run(tmp_path)
    changed(tmp_path, "plan.json", comparisons=3)
    shown = page_of(tmp_path).section("What the data can show")
    assert "where 3 pairs are compared, at 80 % power" in shown
    assert re.search(r"between two candidates where (1 pair is|\d+ pairs are) compared, at 80 % power", shown)
    plan = {**plan_record(), "comparisons": 3}
    lines = printed(plan_screen(tmp_path, plan, {"findings": []}, task_record()))
    assert "power): 17 points where 3 pairs are compared." in joined(lines)


def test_a_plan_beyond_the_budget_says_what_will_be_left_out(tmp_path: Path) -> None:
    task = {**task_record(), "budget": {"minutes": 5}}
    lines = printed(plan_screen(tmp_path, plan_record(), checks_record(), task))
    assert "of a budget of 5 min. That is more than the budget: what is dearest comes last" in joined(lines)
    assert "rung check" in lines[-1] and len(lines) <= PLAN_LINES
    assert "more than the budget" not in joined(printed(plan_screen(tmp_path, plan_record(), {}, task_record())))


def test_the_plan_of_a_continued_run_says_what_is_done(tmp_path: Path) -> None:
    append_lines(
        tmp_path / "events.jsonl", [{"event": "built", "solution": "zero_shot", "stage": "solutions/zero_shot"}]
    )
    write_json(tmp_path / "clock.json", {"seconds": 319.0})
    lines = joined(printed(plan_screen(tmp_path, plan_record(), checks_record(), task_record())))
    assert "This is the plan of the whole run; earlier commands took 5.3 min and built zero_shot." in lines


def test_progress_of_which_nothing_is_known_has_no_percentage() -> None:
    out = io.StringIO()
    with TerminalListener(Console(file=out, width=80)) as listener:
        listener._last_line_at = -100.0
        listener.progress("answering few_shot", 0.0, None)
    assert out.getvalue() == "answering few_shot\n"


def test_scores_are_written_as_the_metric_in_the_place_of_a_secondary_judge_has_them(tmp_path: Path) -> None:
    out = io.StringIO()
    write_json(tmp_path / "task.json", {**task_record(), "metric": "judge", "right_or_wrong": False})
    with TerminalListener(Console(file=out, width=80)) as listener:
        listener.planned(tmp_path, plan_record(FINE_TUNE), checks_record())
        changed(tmp_path, "task.json", scored_by="exact_match", right_or_wrong=True)
        listener.tried("few_shot", "prompt", Score(0.42, 0.33, 0.51, 120), 38.2)
    assert "dev 42 % (33–51)" in out.getvalue()
