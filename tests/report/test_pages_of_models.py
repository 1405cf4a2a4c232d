"""Screens and pages of runs with several models, some behind endpoints, and of runs that older versions wrote."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from model_folders import FACTS, FINALISTS, MODELS, SCORES, SPEC, models_plan, models_task, write_models_run
from pages import Page, printed
from rich.cells import cell_len
from run_folders import checks_record, plan_record, task_record, write_run

from rung.records import read_json, write_json
from rung.report.html import write_report
from rung.report.planned import PLAN_LINES, plan_screen
from rung.report.reading import models_of
from rung.report.terminal import FINAL_LINES, final_screen
from rung.report.words import dollars


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run of two models on this machine and one endpoint, under a short path."""
    monkeypatch.chdir(tmp_path)
    made = Path("runs/tickets")
    made.mkdir(parents=True)
    return made


def rewrite(folder: Path, name: str, **changes: Any) -> None:
    write_json(folder / name, {**(read_json(folder / name) or {}), **changes})


def plan(names: tuple[str, ...] = MODELS, width: int = 80, *, corpus: bool = False, **changes: Any) -> list[str]:
    screen = plan_screen(
        Path("runs/tickets"), models_plan(names, corpus=corpus), checks_record(), models_task(**changes)
    )
    return printed(screen, width)


# ---- before ---------------------------------------------------------------------------------


def test_the_plan_of_several_models_is_a_table_of_strategies_by_models() -> None:
    lines = plan()
    assert lines[0] == "tickets: label_accuracy, 3 models: smollm2, gemma3-270m, gpt-5-mini"
    assert "strategy     smollm2  gemma3-270m  gpt-5-mini" in lines
    assert "few_shot     1.6 min      1.6 min   0.062 USD" in lines
    assert "lora         2.6 min      2.6 min           –" in lines
    assert "tokens         196 k        196 k        98 k" in lines
    assert "rag, rag_lora  skipped: the task has no corpus" in lines
    assert "lora@gpt-5-mini  skipped: the model cannot be trained from here" in lines
    assert "In all about 21.0 min of a budget of 30 min and 0.42 USD of a budget of 1 USD." in lines


def test_a_table_that_is_too_high_adds_up_experiments_and_one_that_is_too_wide_has_a_line_a_model() -> None:
    high = plan(corpus=True)
    assert "experiments   1.6 min      1.6 min   0.021 USD" in high
    assert "together     12.6 min     12.6 min    0.23 USD" in high
    assert not any(line.startswith(("pilot", "tokens")) for line in high)
    wide = plan(tuple(f"model-with-a-name-{i}" for i in range(5)))
    assert "model                strategies  calls  tokens    about   USD" in wide
    assert "model-with-a-name-0           4    840   196 k  7.3 min     –" in wide
    assert "model-with-a-name-4           3    420    98 k  3.7 min  0.14" in wide


@pytest.mark.parametrize("width", [80, 60, 40])
@pytest.mark.parametrize("number", [2, 3, 12])
@pytest.mark.parametrize("corpus", [True, False])
def test_the_plan_of_any_number_of_models_fits_its_screen(width: int, number: int, corpus: bool) -> None:
    names = tuple(f"a-model-{i}" for i in range(number))
    listed = [{"name": name, "spec": name, "price": None} for name in names]
    lines = plan(names, width, corpus=corpus, models=listed)
    assert len(lines) <= PLAN_LINES
    assert max(map(cell_len, lines)) <= width
    assert any(line.startswith("In all about") for line in lines)


def test_what_is_off_by_default_is_one_line_whatever_it_would_take_with_each_model() -> None:
    made = models_plan()
    for i, step in enumerate(s for s in made["steps"] if s["kind"] == "rag"):
        step["why"] = f"off by default, about {i + 1}.5 min; name it with --only"
    lines = printed(plan_screen(Path("r"), made, {}, models_task()))
    assert "rag  skipped: off by default; name it with --only" in lines


def test_a_colon_in_a_models_name_is_no_list_of_models() -> None:
    lines = printed(plan_screen(Path("r"), plan_record(), {}, task_record() | {"model": "fake:clerk"}))
    assert lines[0] == "tickets: fake:clerk, label_accuracy"


def test_one_priced_model_has_dollars_beside_its_minutes() -> None:
    made = plan_record()
    made["steps"][0]["usd"], made["usd"] = 0.0042, 0.42
    task = task_record() | {"budget": {"minutes": None, "calls": 2000, "usd": 1.0}}
    lines = printed(plan_screen(Path("r"), {**made, "calls": 1230}, {}, task))
    assert "strategy     family     calls  tokens    about     USD" in lines
    assert "zero_shot    prompt        60    14 k  0.5 min  0.0042" in lines
    assert "In all about 6.7 min, 1,230 calls of a budget of 2000 calls and 0.42 USD of a budget of 1 USD." in " ".join(
        lines
    )


@pytest.mark.parametrize(
    "usd, text",
    [(0, "0"), (12_500, "12,500"), (12.4, "12.40"), (0.42, "0.42"), (0.0031, "0.0031"), (9e-6, "0.0000090")],
)
def test_dollars_have_two_figures_at_least(usd: float, text: str) -> None:
    assert dollars(usd) == text


# ---- after ----------------------------------------------------------------------------------


def test_the_final_screen_has_models_and_prices_in_columns(folder: Path) -> None:
    write_models_run(folder)
    lines = printed(final_screen(folder))
    assert "  strategy      model         dev  test (95 %)      p50  built in  USD/1,000" in lines
    assert "→ lora          smollm2      81 %  80 % (74–86)  0.48 s   3.1 min     0.0021" in lines
    assert "  few_shot      gpt-5-mini   83 %  82 % (77–87)   1.5 s      21 s      0.084" in lines
    assert len(lines) <= FINAL_LINES


@pytest.mark.parametrize("width", [120, 80, 60, 40])
def test_no_line_of_several_models_is_wider_than_its_screen(folder: Path, width: int) -> None:
    write_models_run(folder)
    lines = printed(final_screen(folder), width)
    assert max(map(cell_len, lines)) <= width
    assert any(re.search(r"→ lora(@smollm2)? +.*80 % \(74–86\)", line) for line in lines)


def test_a_short_table_holds_the_best_of_each_model(folder: Path) -> None:
    write_models_run(folder)
    record = read_json(folder / "decision.json") or {}
    of = {c["name"]: c for c in record["candidates"]}
    more = [of["few_shot@smollm2"] | {"name": f"few_shot_{i}@smollm2"} for i in range(9)]
    worst = of["few_shot@gemma3-270m"]["test"]
    for name in ("lora@gemma3-270m", "few_shot@gpt-5-mini"):
        of[name]["test"] = worst | {"mean": 0.01, "low": 0.0, "high": 0.02}
    rewrite(folder, "decision.json", candidates=[*more, *record["candidates"]])
    lines = printed(final_screen(folder))
    assert {"smollm2", "gemma3-270m", "gpt-5-mini"} <= {word for line in lines for word in line.split()}


def test_long_names_of_models_that_begin_alike_are_told_apart_on_both_screens(folder: Path) -> None:
    write_models_run(folder)
    long = {"smollm2": "Llama-3.1-8B-Instruct-Turbo-Free", "gemma3-270m": "Llama-3.1-8B-Instruct-Turbo"}
    for file in ("decision.json", "task.json"):
        text = json.dumps(read_json(folder / file))
        for name, longer in long.items():
            text = text.replace(f"@{name}", f"@{longer}").replace(f'"{name}"', f'"{longer}"')
        write_json(folder / file, json.loads(text))
    lines = printed(final_screen(folder))
    assert any("→ lora          Llama-3.1…rbo-Free" in line for line in lines)
    assert any("  lora          Llama-3.1…ct-Turbo" in line for line in lines)
    lines = plan((*long.values(), "gpt-5-mini"), 60)
    assert [line.split()[0] for line in lines if line.startswith("Llama")] == [
        "Llama-3.1…rbo-Free",
        "Llama-3.1…ct-Turbo",
    ]
    assert max(map(cell_len, lines)) <= 60 and any(line.rstrip().endswith("USD") for line in lines)


def test_signs_of_several_models_are_plain_where_the_terminal_has_no_more(folder: Path) -> None:
    write_models_run(folder)
    screens = (
        final_screen(folder),
        plan_screen(Path("runs/tickets"), models_plan(), checks_record(), models_task()),
    )
    for screen in screens:
        assert "?" not in "".join(printed(screen, encoding="ascii"))


# ---- the page -------------------------------------------------------------------------------


def page(folder: Path) -> Page:
    return Page(write_report(folder, write_models_run(folder)))


def test_the_scores_have_a_column_of_models_and_say_how_latency_was_measured(folder: Path) -> None:
    made = page(folder)
    assert made.open == []
    scores = made.section("Scores and costs")
    assert "Candidate Model Test Dev Approach USD per 1,000 Tokens in / out" in scores
    assert "lora chosen smollm2 80 % 74–86 81 % 76–86 fine-tune 0.0021" in scores
    said = "Latencies are of one request at a time for smollm2, gemma3-270m; with 8 requests at once for gpt-5-mini"
    assert said in scores
    assert "Only the candidate of each approach and model that is best on dev was." in scores
    rewrite(folder, "solutions/few_shot@gpt-5-mini/latency.json", failed=2)
    assert "2 requests that should be timed brought no answer." in Page(write_report(folder)).section(
        "Scores and costs"
    )


def test_a_value_of_the_plot_stands_below_a_name_that_leaves_no_room_beside_it_on_a_phone(folder: Path) -> None:
    def texts(name: str) -> list[dict[str, str]]:
        """Attributes of the name's text and of its value's."""
        write_models_run(folder)
        record = read_json(folder / "decision.json") or {}
        ours = [{**c, "name": name} for c in record["candidates"] if c["name"] == "constrained@gpt-5-mini"]
        tested = [c for c in record["candidates"] if c["test"]]
        rewrite(folder, "decision.json", candidates=[*ours, *tested])
        made = Page(write_report(folder))
        plotted = [a for tag, a in made.tags if tag == "text" and a["class"].split()[0] in ("name", "value")]
        shown = [text for tag, text in made.texts if tag == "text"]
        assert max(map(len, shown)) <= 40, "a phone's screen holds so much"
        return plotted[:2]

    beside, below = texts("constrained@tiny"), texts("constrained@smollm2-135m-instruct")
    assert beside[0]["y"] == beside[1]["y"] and beside[1]["text-anchor"] == "end"
    assert float(below[1]["y"]) > float(below[0]["y"]) + 13 and below[1]["text-anchor"] == "start"
    assert below[1]["x"] == below[0]["x"]
    texts("constrained@a-very-long-name-of-a-model-that-was-tuned-in-4bit")
    assert "constrained@a-very-l…t-was-tuned-in-4bit" in Page(folder / "report.html").text("text")


def test_pairs_stand_by_model_and_the_page_says_that_they_were_named_before(folder: Path) -> None:
    compared = page(folder).section("Compared pair by pair")
    assert "The pairs were named before the test was opened: every finalist with each of those that dev does not" in (
        compared
    )
    assert "p is after Holm&#x27;s correction for all 9 pairs." in compared
    within, _, between = compared.partition("Between models.")
    assert "Within smollm2." in within and "lora against few_shot +38" in within
    assert "few_shot@gpt-5-mini against lora@smollm2 +2 -3.5 to +7.5 p = 0.84 no difference shown" in between
    assert "few_shot@smollm2 against few_shot@gemma3-270m" not in compared  # neither may be the best


def test_many_pairs_between_models_show_the_choice_first_and_fold_the_others(folder: Path) -> None:
    write_models_run(folder)
    record = read_json(folder / "decision.json") or {}
    between = [c for c in record["comparisons"] if c["a"] == "few_shot@smollm2" and "gpt" in c["b"]]
    rewrite(folder, "decision.json", comparisons=[*record["comparisons"], *between * 3])
    compared = Page(write_report(folder)).section("Compared pair by pair")
    assert "Between models, with the choice." in compared and "more pairs between models" in compared


def test_when_a_small_model_pays_beside_a_large_one_is_a_table(folder: Path) -> None:
    pays = page(folder).section("When building it pays")
    assert "lora@smollm2 instead of few_shot@gpt-5-mini 61,000 48,000 to 90,000 0.0021 / 0.084" in pays
    assert "lora@gemma3-270m instead of few_shot@gpt-5-mini 88,000 70,000 or more" in pays


def test_the_section_of_models_says_how_each_ran_and_what_an_endpoint_served(folder: Path) -> None:
    models = page(folder).section("Models")
    for said in (
        "smollm2 How it ran on this machine, cpu, float32, from smollm2-135m-instruct Price 0.08 USD per hour",
        "gpt-5-mini How it ran at the endpoint api.openai.com",
        "Served model gpt-5-mini-2026-08-07 (1,180 answers), gpt-5-mini-2026-11-20 (24 answers)",
        "Fingerprint fp_3a1 (1,180 answers), fp_7c2 (24 answers)",
        "held to a JSON Schema by the server (1,196 answers), asked for in words, checked here (8 answers)",
        "0.25 USD per million input tokens, 0.025 per million cached ones, 2 per million output tokens",
        "from genai-prices 0.2.3, as of 2026-11-09",
        "Paid 0.091 USD for 1,204 answers",
        "Answers kept from earlier calls 312",
        "37 failed requests: 429 (31 times), closed (4 times), 500 (2 times)",
        "Ends on 2027-06-30",
    ):
        assert said in models


def test_facts_of_an_endpoint_may_be_missing_or_hostile(folder: Path) -> None:
    write_models_run(folder)
    hostile = "<script>alert(1)</script>\x1b[2J"
    facts = {key: None for key in FACTS} | {"served": {hostile: 3}, "price_note": hostile}
    write_json(folder / "models.json", {"gpt-5-mini": facts})
    made = Page(write_report(folder))
    assert "script" not in {tag for tag, _ in made.tags} and "\x1b" not in made.source
    assert "Price not known" in made.section("Models")


def test_the_text_of_a_spec_is_shown_nowhere(folder: Path) -> None:
    source = page(folder).source
    shown = "\n".join([*printed(final_screen(folder), 200), *plan(width=200), source.replace("&quot;", '"'), source])
    assert "reasoning_effort" in SPEC and "reasoning_effort" not in shown
    assert '"endpoint"' not in shown


def test_a_spec_with_keys_of_a_newer_version_is_not_shown_either(folder: Path) -> None:
    write_models_run(folder)
    spec = json.dumps({"endpoint": "https://host.example/v1", "name": "m", "one_day": "secret-looking"})
    models = [*models_task()["models"][:2], {"name": "gpt-5-mini", "spec": spec, "price": None}]
    rewrite(folder, "task.json", models=models)
    made = Page(write_report(folder))
    assert "secret-looking" not in made.source
    assert "How it ran at an endpoint" in made.section("Models")


def test_causes_and_the_learning_curve_say_which_model_they_are_of(folder: Path) -> None:
    made = page(folder)
    assert "The share of what few_shot@gpt-5-mini gets wrong on dev" in made.section("Why answers are wrong")
    assert "Dev score after fine-tuning smollm2 on so many examples" in made.section("What more examples would bring")


def test_where_a_price_is_missing_the_page_says_that_a_later_model_counts_as_dearer(folder: Path) -> None:
    write_models_run(folder)
    said = "Best for their cost (a later model counts as the dearer one): "
    assert said not in Page(write_report(folder)).section("Scores and costs")
    record = read_json(folder / "decision.json") or {}
    candidates = [c | ({"cost_per_1k_usd": None} if "gpt" in c["name"] else {}) for c in record["candidates"]]
    rewrite(folder, "decision.json", candidates=candidates)
    assert said in Page(write_report(folder)).section("Scores and costs")


def test_what_was_skipped_with_every_model_is_one_line(folder: Path) -> None:
    skipped = page(folder).section("What was not tried")
    assert "rag, with every model rag the task has no corpus" in skipped
    assert "lora@gpt-5-mini fine-tune the model cannot be trained from here" in skipped


def test_answers_of_the_best_of_each_model_stand_side_by_side_and_equal_ones_once(folder: Path) -> None:
    made = page(folder)
    shown = made.section("Examples from the test")
    assert "lora@smollm2 does better than few_shot@gpt-5-mini on" in shown
    assert re.search(r"✓ [a-z]+-\d lora@smollm2, lora@gemma3-270m ✗ [a-z]+-\d few_shot@gpt-5-mini", shown)
    assert "few_shot@smollm2" not in shown  # a finalist, but not the best of its model
    labels = {a.get("data-label") for tag, a in made.tags if tag == "td"}
    assert {"Expected", "Answers"} <= labels  # on a phone they stand before each cell


def test_first_token_latency_has_a_column_where_it_was_measured(folder: Path) -> None:
    scores = page(folder).section("Scores and costs")
    assert "First token p50 / p95 Latency p50 / p95" in scores and "0.31 s / 0.62 s 1.5 s" in scores
    record = read_json(folder / "decision.json") or {}
    for candidate in record["candidates"]:
        candidate["first_token_s_p50"] = None
    rewrite(folder, "decision.json", candidates=record["candidates"])
    assert "First token" not in Page(write_report(folder)).section("Scores and costs")


def test_an_unfinished_run_of_several_models_shows_dev_alone(folder: Path) -> None:
    write_models_run(folder)
    record = read_json(folder / "decision.json") or {}
    on_dev = [c | {"test": None} for c in record["candidates"]]
    kept = [
        {"name": "lora@gemma3-270m", "family": "fine-tune", "reason": "budget", "why": "3 more minutes", "minutes": 3.0}
    ]
    missing = [kept[0] | {"matters": True, "begun": False, "model": "gemma3-270m"}]
    changes = {"choice": "unfinished", "candidates": on_dev, "comparisons": [], "skipped": missing, "break_even": []}
    rewrite(folder, "decision.json", **changes)
    made = Page(write_report(folder))
    assert "lora@gemma3-270m fine-tune 3 more minutes about 3 more minutes" in made.section("What is missing")
    assert "lora use meanwhile smollm2 81 % 76–86 fine-tune" in made.section("Scores and costs")
    assert "When building it pays" not in made.source and "Compared pair by pair" not in made.source
    assert "→ lora         smollm2      81 % (76–86)" in "\n".join(printed(final_screen(folder)))


# ---- older runs -----------------------------------------------------------------------------


def test_a_run_of_an_older_version_is_still_shown(tmp_path: Path) -> None:
    """decision.json of format 2 names no model; task.json names one."""
    examples = write_run(tmp_path)
    record = read_json(tmp_path / "decision.json") or {}
    for part in (*record["candidates"], *record["skipped"]):
        for new in ("model", "first_token_s_p50", "first_token_s_p95"):
            part.pop(new, None)
    record.pop("models", None)
    write_json(tmp_path / "decision.json", record | {"format": 2})
    made = Page(write_report(tmp_path, examples))
    assert "smollm2-135m-instruct" in made.section("The run")
    assert "<h2>Models</h2>" not in made.source and "Candidate Test Dev" in made.section("Scores and costs")
    assert "→ lora           fine-tune  80 %  82 % (70–89)      98  0.68 s   1.9 min" in printed(final_screen(tmp_path))


def test_models_are_read_from_older_and_newer_tasks() -> None:
    assert [m.name for m in models_of({"model": "smollm2"})] == ["smollm2"]
    local, _, remote = models_of(models_task(), {"gpt-5-mini": FACTS})
    assert (local.host, local.called) == ("", "smollm2-135m-instruct")
    assert (remote.host, remote.called, remote.local) == ("api.openai.com", "gpt-5-mini", False)
    near = models_of({"models": [{"name": "m", "spec": "http://127.0.0.1:8000/v1#m", "price": None}]})[0]
    assert near.local and near.host == "127.0.0.1"
    assert models_of({}) == ()


def test_finalists_of_the_written_run_are_those_with_a_test_score() -> None:
    assert set(FINALISTS) == {name for name, (_, test, _) in SCORES.items() if test is not None}
