from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pages import Page
from run_folders import (
    ALL,
    EVERYTHING,
    FINE_TUNE,
    GRADED,
    NONE,
    ONLY_ONE,
    UNDECIDED,
    UNFINISHED,
    WARNED,
    Case,
    write_run,
)

from rung.errors import RunError
from rung.records import read_json, read_lines, write_json, write_text
from rung.report import html
from rung.report.building import _prompt
from rung.report.html import write_report

HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)>\x1b[2J'


@pytest.fixture
def page(tmp_path: Path) -> Callable[..., Page]:
    def make(case: Case = FINE_TUNE, *, joined: bool = True, **words: str) -> Page:
        examples = write_run(tmp_path, case, **words)
        return Page(write_report(tmp_path, examples if joined else None))

    return make


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("kind", ALL)
def test_every_kind_of_verdict_makes_a_whole_page(page: Callable[..., Page], kind: str, joined: bool) -> None:
    made = page(ALL[kind], joined=joined)
    assert made.open == []
    assert [tag for tag, _ in made.tags].count("h1") == 1
    assert "nan" not in made.text().lower().split()


def test_the_verdict_comes_first_and_the_sections_follow_in_order(page: Callable[..., Page], tmp_path: Path) -> None:
    made = page()
    headline = (read_json(tmp_path / "decision.json") or {})["headline"]
    assert made.text("h1").startswith("Fine-tune: lora answers")
    assert made.text("h1") == " ".join(headline.split())
    titles = [text for tag, text in made.texts if tag == "h2"]
    assert titles == [
        "Why",
        "Scores and costs",
        "Compared pair by pair",
        "What to do next",
        "What the data can show",
        "How it was done",
        "What was not tried",
        "Examples from the test",
        "What is confused with what",
        "Data checks",
        "The run",
    ]


@pytest.mark.parametrize("case", [FINE_TUNE, GRADED], ids=["labels", "graded"])
def test_what_stands_in_the_users_data_is_never_markup(page: Callable[..., Page], case: Case) -> None:
    made = page(replace(case, name=HOSTILE.replace("/", "|")), input=HOSTILE, label=HOSTILE, row=HOSTILE, why=HOSTILE)
    assert {tag for tag, _ in made.tags}.isdisjoint({"script", "img", "a", "link", "iframe"})
    assert not [name for _, attributes in made.tags for name in attributes if name.startswith("on")]
    assert "\x1b" not in made.source
    assert made.text("span").count("<script>alert(1)</script>") >= 10
    assert "<script>" in made.text("title", "dd", "li")


def test_names_of_solutions_are_escaped_in_tables_and_figures(page: Callable[..., Page], tmp_path: Path) -> None:
    page()
    record = (tmp_path / "decision.json").read_text("utf-8")
    write_text(tmp_path / "decision.json", record.replace('"lora"', json.dumps('<b onclick="x">')))
    made = Page(write_report(tmp_path))
    assert "b" not in {tag for tag, _ in made.tags}
    assert '<b onclick="x">' in made.text("text")


def test_the_page_fetches_nothing_and_runs_nothing(page: Callable[..., Page]) -> None:
    made = page()
    assert not re.search(r"https?:|url\(|@import|<script|javascript:", made.source)
    assert not [a for _, a in made.tags if {"src", "href", "srcset"} & a.keys()]


def test_scores_are_shown_as_recorded_and_not_counted_again(page: Callable[..., Page], tmp_path: Path) -> None:
    page()
    record = read_json(tmp_path / "decision.json") or {}
    record["candidates"][-1]["test"]["mean"] = 0.777
    write_json(tmp_path / "decision.json", record)
    assert "78 % (70–89)" in Page(write_report(tmp_path)).text("text")


def test_figures_give_their_numbers_to_those_who_cannot_see_them(page: Callable[..., Page]) -> None:
    figures = [a for tag, a in page().tags if tag == "svg"]
    assert [a["role"] for a in figures] == ["img", "img"]
    assert "lora: test 82 % (70–89), dev 80 % (68–88)" in figures[0]["aria-label"]
    assert "floor 10 %" in figures[0]["aria-label"]
    assert "epoch 3: 80 % (kept)" in figures[1]["aria-label"]


def test_the_floor_is_written_alike_wherever_it_stands(page: Callable[..., Page]) -> None:
    thousand = page(replace(FINE_TUNE, n=1000, floor=1 / 3, right={"few_shot": 0.5, "lora": 0.8}, untested=()))
    figures = [attributes for tag, attributes in thousand.tags if tag == "svg"]
    assert "floor 33.3 %" in figures[0]["aria-label"] and "floor 33.3 %" in thousand.source
    assert "33.3 %, the best score" in thousand.section("What the data can show")
    assert "33 %" not in thousand.text()


def test_every_table_has_a_caption_and_named_rows_and_columns(page: Callable[..., Page]) -> None:
    tags = page(EVERYTHING).tags
    names = [tag for tag, _ in tags]
    assert names.count("table") == names.count("caption") > 5
    assert {a.get("scope") for tag, a in tags if tag == "th"} == {"row", "col"}


def test_a_strategy_that_was_not_tried_says_why_from_its_field(page: Callable[..., Page], tmp_path: Path) -> None:
    assert "rag rag the task has no corpus" in page().section("What was not tried")
    assert "lora fine-tune left out by --only" in page(ONLY_ONE).section("What was not tried")
    record = read_json(tmp_path / "decision.json") or {}
    write_json(tmp_path / "decision.json", record | {"reasons": ["lora was not tried: something else."]})
    assert "something else" not in Page(write_report(tmp_path)).section("What was not tried")


def test_an_unfinished_run_shows_first_what_is_missing_and_what_to_do(page: Callable[..., Page]) -> None:
    made = page(UNFINISHED)
    titles = [text for tag, text in made.texts if tag == "h2"]
    assert titles[:5] == ["Read this first", "What is missing", "What to do next", "Why", "Scores and costs"]
    missing = made.section("What is missing")
    assert "rag rag about 3.8 more minutes would pass the budget of 9 about 4 more minutes" in missing
    assert "lora fine-tune its loss stopped being a number –" in missing
    assert "rag_lora" not in missing and "rag_lora" in made.section("What was not tried")
    assert "zero_shot after 30 of 60 dev examples few_shot was ahead" in made.section("What was not tried")
    scores = made.section("Scores and costs")
    assert "The test is sealed." in scores and "use meanwhile" in scores and " Test " not in scores
    assert "never: it is still sealed" in made.section("What the data can show")


def test_warnings_stand_before_the_reasons_and_are_whole(page: Callable[..., Page], tmp_path: Path) -> None:
    made = page(WARNED)
    record = read_json(tmp_path / "decision.json") or {}
    assert len(record["warnings"]) == 4
    shown = made.section("Read this first").replace("&#x27;", "'")
    for warning in record["warnings"]:
        assert " ".join(warning.replace(" %", "\N{NO-BREAK SPACE}%").split()) in shown.replace(
            "\N{NO-BREAK SPACE}", " "
        )
    titles = [text for tag, text in made.texts if tag == "h2"]
    assert titles.index("Read this first") < titles.index("Why")


def test_baselines_are_rows_of_the_table_and_compared_in_a_table_of_their_own(page: Callable[..., Page]) -> None:
    made = page()
    assert "most_frequent 10 % 5–20 10 % 5–20 baseline – – –" in made.section("Scores and costs")
    compared = made.section("Compared pair by pair")
    assert "Candidates with baselines: differences in points on the same test examples" in compared
    assert "lora against most_frequent" in compared and "lora is better" in compared


def test_failed_calls_and_unscored_answers_stand_beside_every_candidate(page: Callable[..., Page]) -> None:
    scores = page(UNFINISHED).section("Scores and costs")
    assert "Failed" in scores and "3 / 2" in scores
    assert "Failed" not in page().section("Scores and costs")


def test_how_often_a_candidate_is_right_every_time_has_a_column_where_samples_were_drawn(
    page: Callable[..., Page], tmp_path: Path
) -> None:
    assert "Right 4 of 4" not in page().section("Scores and costs")
    record = read_json(tmp_path / "decision.json") or {}
    share = {"mean": 0.5, "low": 0.38, "high": 0.62, "n": 60}
    for candidate in record["candidates"]:
        if candidate["name"] == "lora":
            candidate |= {"repeats": 4, "pass_1": share, "pass_k": share}
    write_json(tmp_path / "decision.json", record)
    scores = Page(write_report(tmp_path, None)).section("Scores and costs")
    assert "Approach Right 4 of 4" in scores and "fine-tune 50 % 38–62" in scores
    assert "to which all of 4 sampled answers are right" in scores


def test_what_was_built_is_said_from_the_solutions_own_record(page: Callable[..., Page]) -> None:
    how = page(EVERYTHING).section("How it was done")
    assert "the 4 nearest of 4 demos; answers held to 8 labels" in how
    assert "3 passages by bm25, at most 600 tokens of them" in how
    assert "a LoRA adapter (learning rate 0.001, epoch 3)" in how
    assert "0.001 1.107 kept" in how
    assert "Learning rate 0.001, taken over from an earlier training of this run." in how


@pytest.mark.parametrize(("kind", "k"), [("nearest", 4), ("nearest", 40), ("fixed", 4)])
def test_a_folded_prompt_says_which_demos_a_request_gets(kind: str, k: int) -> None:
    demos = [{"input": f"text {i}", "output": "a"} for i in range(28)]
    said = str(_prompt("few_shot", {"instruction": "Sort.", "demos": demos, "demo_selection": {"kind": kind, "k": k}}))
    assert ("for each input, the 4 nearest of 28 demos, such as:" in said) == (k == 4 and kind == "nearest")
    assert ("… and 25 more demos" in said) == (k == 40) and ("… and 1 more demo<" in said) == (kind == "fixed")


def test_a_known_score_has_no_interval_and_costs_are_told_in_plain_words(
    page: Callable[..., Page], tmp_path: Path
) -> None:
    page(EVERYTHING)
    record = read_json(tmp_path / "decision.json") or {}
    base = next(c for c in record["candidates"] if c["name"] == "most_frequent")
    base["dev"] |= {"mean": 0.125, "low": 0.125, "high": 0.125}
    record["frontier"] = ["zero_shot", "lora"]
    write_json(tmp_path / "decision.json", record)
    scores = Page(write_report(tmp_path)).section("Scores and costs")
    assert "12 % known" in scores
    assert "Best for their cost: zero_shot, lora. Each of the others costs at least as much as one of these" in scores


def test_a_table_that_goes_on_beyond_the_edge_shows_a_shadow_there(page: Callable[..., Page], tmp_path: Path) -> None:
    page()
    style = (tmp_path / "report.html").read_text("utf-8").partition("</style>")[0]
    rule = style[style.index(".scroll {") :].partition("}")[0]
    assert "overflow-x: auto" in rule and rule.count("local") == 2 and rule.count("scroll") >= 2


def test_where_a_learning_rate_comes_from_is_said(page: Callable[..., Page], tmp_path: Path) -> None:
    how = page(EVERYTHING).section("How it was done")
    assert "only where its loss is more than 1 % lower than that of the rate next to it" in how
    history = tmp_path / "solutions" / "rag_lora" / "training" / "history.json"
    for facts, words in (
        ({"rate_from": "as chosen for lora"}, "Learning rate 0.001, as chosen for lora."),
        (
            {"probed": False, "rate_from": ""},
            "Learning rate 0.001, the usual one for such a training, which is too short to try",
        ),
    ):
        write_json(history, {**(read_json(history) or {}), **facts})
        assert words in Page(write_report(tmp_path)).section("How it was done")


def test_of_rates_trained_to_their_end_the_best_scores_are_shown(page: Callable[..., Page], tmp_path: Path) -> None:
    page(EVERYTHING)
    history = tmp_path / "solutions" / "lora" / "training" / "history.json"
    write_json(history, {**(read_json(history) or {}), "rates": {"0.0005": 0.71, "0.001": 0.8, "0.002": 0.64}})
    how = Page(write_report(tmp_path)).section("How it was done")
    assert "0.0005 71 % 0.001 80 % kept 0.002 64 %" in how and "1.107" not in how


def test_comparisons_are_shown_from_the_side_of_the_better_candidate(page: Callable[..., Page], tmp_path: Path) -> None:
    page(EVERYTHING)
    record = read_json(tmp_path / "decision.json") or {}
    one = next(c for c in record["comparisons"] if (c["a"], c["b"]) == ("rag", "rag_lora"))
    one |= {"a": "rag_lora", "b": "rag", "difference": -one["difference"], "low": -one["high"], "high": -one["low"]}
    write_json(tmp_path / "decision.json", record)
    compared = Page(write_report(tmp_path)).section("Compared pair by pair")
    assert "rag_lora against rag +45 +19 to +65 p &lt; 0.001 rag_lora is better" in compared
    assert "p after Holm&#x27;s correction for all pairs of this table" in compared


def test_a_difference_that_is_not_shown_is_not_called_one(page: Callable[..., Page]) -> None:
    assert "lora against few_shot +8.3 -11 to +26 p = 0.47 no difference shown" in page(UNDECIDED).section(
        "Compared pair by pair"
    )


def test_undecided_marks_what_to_ship_meanwhile(page: Callable[..., Page]) -> None:
    assert "ship meanwhile" in page(UNDECIDED).section("Scores and costs")


def test_without_a_winner_nothing_is_marked_and_the_best_can_still_be_asked(page: Callable[..., Page]) -> None:
    made = page(NONE)
    assert not [a for tag, a in made.tags if tag == "tr" and a.get("class") == "chosen"]
    assert "--solution lora" in made.section("What to do next")
    assert "winner/" not in made.section("What to do next")


def test_examples_show_where_the_winner_and_the_best_prompt_differ(page: Callable[..., Page], tmp_path: Path) -> None:
    shown = page().section("Examples from the test")
    scores = {
        name: {p["id"]: p["score"] for p in read_lines(tmp_path / "solutions" / name / "predictions.test.jsonl")}
        for name in ("lora", "few_shot")
    }
    better = sum(scores["lora"][i] > scores["few_shot"][i] for i in scores["lora"])
    worse = sum(scores["lora"][i] < scores["few_shot"][i] for i in scores["lora"])
    both = sum(scores["lora"][i] == scores["few_shot"][i] == 0 for i in scores["lora"])
    assert f"does better than few_shot on {better} and worse on {worse}; on {both} both are equally wrong" in shown
    assert f"12 of these {better + worse + both}." in shown
    assert shown.count("✓") == 8 and shown.count("✗") == 16
    assert "Thrush Point" in shown


def test_without_examples_ids_and_answers_alone_are_shown(page: Callable[..., Page]) -> None:
    made = page(joined=False)
    shown = made.section("Examples from the test")
    assert "Thrush Point" not in shown and "Expected" not in shown
    assert re.search(r"tickets-\d{3} ✓ \S+ ✗ \S+", shown)
    assert "What is confused with what" not in made.source


def test_confusions_count_the_wrong_answers_by_pair(page: Callable[..., Page], tmp_path: Path) -> None:
    shown = page().section("What is confused with what")
    wrong = [p for p in read_lines(tmp_path / "solutions" / "lora" / "predictions.test.jsonl") if p["score"] < 1]
    pairs = re.findall(r"([a-z]+-\d) ([a-z]+-\d) (\d+)", shown)
    assert sum(int(times) for _, _, times in pairs) == len(wrong)
    assert [int(times) for *_, times in pairs] == sorted((int(times) for *_, times in pairs), reverse=True)


def test_the_fields_of_json_answers_are_counted_for_every_tested_candidate(tmp_path: Path) -> None:
    examples = write_run(tmp_path, replace(FINE_TUNE, metric="json_match", labels=()))
    gold = json.dumps({"place": "quay", "date": "May"})
    examples = {i: replace(e, output=gold, references=(gold,)) for i, e in examples.items()}
    for name, text in (("few_shot", "no object"), ("lora", json.dumps({"place": "quay", "more": 1}))):
        path = tmp_path / "solutions" / name / "predictions.test.jsonl"
        write_text(path, "".join(json.dumps({**p, "text": text}) + "\n" for p in read_lines(path)))
    shown = Page(write_report(tmp_path, examples)).section("Fields of the answers")
    assert "Field few_shot lora" in shown
    assert "place 0 % of 60 100 % of 60" in shown and "date 0 % of 60 0 % of 60" in shown
    assert "more – 0 % of 60" in shown


def test_an_answer_that_failed_or_could_not_be_scored_says_why(page: Callable[..., Page], tmp_path: Path) -> None:
    page()
    path = tmp_path / "solutions" / "lora" / "predictions.test.jsonl"
    lines = read_lines(path)
    wrong = [line for line in lines if line["score"] == 0]
    for line in wrong[1:]:
        line |= {"metric_error": "ValueError: no number"}
    wrong[0] |= {"error": "timed out", "text": ""}
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
    shown = Page(write_report(tmp_path)).section("Examples from the test")
    assert "no answer: timed out" in shown and "(not scored: ValueError: no number)" in shown


def test_many_findings_are_folded_and_few_are_open(page: Callable[..., Page], tmp_path: Path) -> None:
    assert "details" not in page().source.split("Data checks")[1]
    (tmp_path / "more").mkdir()
    write_run(tmp_path / "more", replace(FINE_TUNE, findings=60))
    made = Page(write_report(tmp_path / "more"))
    shown = made.section("Data checks")
    assert "60 warnings." in shown and "Nearly the same inputs" in shown
    assert "The first 40 are shown; all are in checks.json." in shown


def test_findings_stand_below_each_other_on_a_phone_each_with_its_name(page: Callable[..., Page]) -> None:
    checks = page().source.split("<h2>Data checks</h2>")[1].split("<h2>")[0]
    assert checks.count('<table class="stacked">') == 2
    for name in ("Kind", "Severity", "Finding", "What to do"):
        assert f'<td data-label="{name}"' in checks


@pytest.mark.parametrize("number, folded", [(3, False), (40, True)])
def test_the_hashes_of_many_files_are_folded(tmp_path: Path, number: int, folded: bool) -> None:
    write_run(tmp_path)
    path = tmp_path / "task.json"
    write_json(path, {**(read_json(path) or {}), "data": {f"docs/{i}.md": "ab12" for i in range(number)}})
    made = Page(write_report(tmp_path))
    run = made.source.split("<h2>The run</h2>")[1]
    assert ("<summary>SHA-256 of 40 data files</summary>" in run) is folded
    assert made.open == [] and f"docs/{number - 1}.md" in run


def test_a_run_that_left_only_its_verdict_still_has_a_page(page: Callable[..., Page], tmp_path: Path) -> None:
    page()
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.name != "decision.json":
            path.unlink()
    made = Page(write_report(tmp_path))
    assert made.open == [] and "82 % (70–89)" in made.text("text").replace("0.82 (0.70–0.89)", "82 % (70–89)")


def test_the_same_records_give_the_same_bytes(page: Callable[..., Page], tmp_path: Path) -> None:
    first = page(joined=False).source
    assert write_report(tmp_path).read_text("utf-8") == first


def test_causes_stand_with_the_experiment_that_says_so_and_the_curve_below(
    page: Callable[..., Page], tmp_path: Path
) -> None:
    page(FINE_TUNE)
    folder = next(p.parent for p in tmp_path.rglob("decision.json"))
    record = read_json(folder / "decision.json") or {}
    cause = {"cause": "knowledge+format", "share": 0.4, "low": 0.2, "high": 0.6, "evidence": "gold passages"}
    write_json(folder / "decision.json", {**record, "diagnosis": [{**cause, "fixed": True}]})
    points = [{"examples": 0, "mean": 0.1}, {"examples": 50, "mean": 0.4}, {"examples": 200, "mean": 0.6}]
    more = {"examples": 3412, "mean": 0.05, "low": 0.0, "high": 0.1}
    write_json(folder / "curve.json", {"points": points, "screen": 48, "more": more})
    write_report(folder, {})
    shown = Page(folder / "report.html")
    causes = shown.section("Why answers are wrong")
    assert "missing knowledge and answers in the wrong form 40 % 20–60 % gold passages" in causes
    assert '<tr><th scope="row">missing knowledge and answers in the wrong form</th>' in shown.source
    grown = shown.section("What more examples would bring")
    assert "on 48 dev examples. About 3,500 more would add 5 points (0 to 10)" in grown


def test_without_a_verdict_there_is_no_page(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run folder"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["decision.json", "task.json", "solutions/lora/training/history.json"])
def test_a_damaged_record_is_named_and_not_shown(page: Callable[..., Page], tmp_path: Path, name: str) -> None:
    page()
    write_text(tmp_path / name, "{")
    with pytest.raises(RunError, match="damaged"):
        write_report(tmp_path)


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_words_stand_out_from_what_is_behind_them(scheme: str) -> None:
    """WCAG 2.2, 1.4.3: a contrast of 4.5 to 1."""
    css = Path(html.__file__).with_name("report.css").read_text("utf-8")
    block = re.findall(r":root \{(.*?)\}", css, re.S)[["light", "dark", "print"].index(scheme)]
    colours = dict(re.findall(r"--(\w+): (#\w{6})", block))

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for front in ("text", "muted", "accent", "good", "bad", "unsure"):
        for behind in ("page", "soft", "chosen"):
            low, high = sorted((luminance(colours[front]), luminance(colours[behind])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (front, behind)


def test_the_room_loads_nothing_heavy() -> None:
    heavy = "{'rich', 'numpy', 'scipy', 'torch', 'transformers'}"
    code = f"import sys, rung.report.html, rung.report.terminal; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_a_command_between_backticks_is_set_as_code_and_a_lone_backtick_stays(
    page: Callable[..., Page], tmp_path: Path
) -> None:
    page()
    record = read_json(tmp_path / "decision.json") or {}
    write_json(tmp_path / "decision.json", record | {"next": ["Then `rung run <task>`.", "A lone ` sign."]})
    source = Page(write_report(tmp_path)).source
    assert "<code>rung run &lt;task&gt;</code>." in source and "A lone ` sign." in source
