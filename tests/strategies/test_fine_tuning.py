"""Fine-tuning: how long a training is, what is kept of it, and what the budget does to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rung.errors import BudgetSpent, Diverged, ModelError, TrainingError
from rung.records import read_json
from rung.resume import record_of
from rung.retrieval.library import SearchedBy
from rung.solutions.answer import BLOCK
from rung.strategies.course import LEAST_STEPS, Lengths, epoch_of, interim_looks_of, probe_steps, steps_of
from rung.strategies.fine_tuning import lora, pilot, rag_lora
from rung.strategies.fit import Checkpoint, kept_of
from rung.strategies.learning_rate import OF_ADAPTERS, search
from rung.strategies.training_rows import training_rows
from rung.testing import FakeModel, FakeTrainable
from rung.trials.trial import attempt, mean_score, read_predictions
from rung.trials.workshop import Workshop, cut_of
from rung.types import Request, RetrieverSpec
from workshops import COLOURS, INSTRUCTION, Note, Trainee, example, workshop_of

LEARNING_RATES = OF_ADAPTERS.grid


def asked(request: Request) -> int:
    return int(request.messages[-1].content.split()[-1])


def learns(request: Request, note: Note) -> str:
    """More right answers the longer it was trained."""
    return COLOURS[asked(request) % 3] if note is not None and asked(request) % 5 < note["step"] // 25 else "?"


def shop_of(model: Any, folder: Path, **more: Any) -> Workshop:
    return workshop_of(model, folder, **{"limits": {"training_tokens": 20_000}, **more})


def history(shop: Workshop) -> dict[str, Any]:
    return record_of(shop.folder / "training" / "history.json")


# ---- the whole way --------------------------------------------------------------------------


def test_what_training_can_teach_is_right_on_dev(tmp_path: Path) -> None:
    model = FakeTrainable(lambda _: "?", taught=lambda request: COLOURS[asked(request) % 3])
    shop = shop_of(model, tmp_path)
    lora(shop)
    assert mean_score(read_predictions(shop.folder / "predictions.dev.jsonl")) == 1.0


@pytest.mark.parametrize("build", [lora, rag_lora], ids=lambda b: b.__name__)
def test_a_real_network_is_trained_through_the_same_protocol(
    tiny: Any, tmp_path: Path, build: Callable[[Workshop], Any]
) -> None:
    shop = workshop_of(tiny, tmp_path, limits={"training_tokens": 2_500})
    solution = build(shop)
    assert (Path(solution.adapter) / "adapter_model.safetensors").is_file()
    assert history(shop)["steps"] == record_of(shop.folder / "training" / "course.json")["steps"]
    assert len(read_predictions(shop.folder / "predictions.dev.jsonl")) == len(shop.inputs.dev)


# ---- how long -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("examples", "tokens", "steps"),
    [
        (5_000, 10**9, 4 * 625),  # four epochs are wanted
        (100, 10**9, 120),  # small data are gone through more often
        (5_000, 150 * 900, 150),  # fewer steps than an epoch are affordable
        (5_000, 900, LEAST_STEPS),
    ],
)
def test_the_compute_budget_bounds_a_training_even_below_an_epoch(examples: int, tokens: int, steps: int) -> None:
    assert steps_of(examples, Lengths(shared=100, own=100), tokens) == steps


def test_prompts_are_made_for_no_more_examples_than_the_steps_can_visit(tmp_path: Path) -> None:
    model = Trainee(learns)
    shop = shop_of(model, tmp_path, train=1_000, limits={"training_tokens": 2_000})
    lora(shop)
    course = record_of(shop.folder / "training" / "course.json")
    assert course["steps"] < epoch_of(1_000) and course["examples"] == 8 * course["steps"] < 1_000
    assert {len(t["rows"]) for t in model.trainings} == {course["examples"]}
    assert history(shop)["epochs"][-1]["epoch"] == round(course["steps"] / 125, 2), "the share of train it has seen"


def test_a_course_is_read_back_so_that_another_budget_changes_no_options_midway(tmp_path: Path) -> None:
    stops = {"at": 0.2}

    def tell(what: str, share: float) -> None:
        if what.startswith("training") and share >= stops["at"]:
            raise BudgetSpent("the budget is spent")

    model = Trainee(learns)
    shop = shop_of(model, tmp_path, limits={"training_tokens": 5_000}, tools={"tell": tell})
    with pytest.raises(BudgetSpent):
        lora(shop)
    steps = record_of(shop.folder / "training" / "course.json")["steps"]
    richer = replace(shop, limits=replace(shop.limits, training_tokens=round(1.4 * shop.limits.training_tokens)))
    stops["at"] = 10**9
    model.trainings.clear()
    assert lora(richer).adapter is not None
    assert {t["options"].steps for t in model.trainings} == {steps}
    assert "cut" not in history(shop)


def killed_at(step: int, folder: Path, build: Any = lora, **limits: Any) -> Workshop:
    """A workshop where a training was killed at that step of the chosen rate."""

    def tell(what: str, share: float) -> None:
        steps = record_of(folder / "solution" / "training" / "course.json").get("steps", 1)
        if what.startswith("training") and share * steps >= step:
            raise KeyboardInterrupt

    shop = shop_of(Trainee(learns), folder, limits=limits, tools={"tell": tell})
    with pytest.raises(KeyboardInterrupt):
        build(shop)
    return replace(shop, tools=replace(shop.tools, tell=lambda what, share: None))


@pytest.mark.parametrize("build", [lora, lambda shop: pilot(shop, 18)], ids=["lora", "pilot"])
def test_a_training_that_little_time_cut_short_starts_over_when_there_is_more(
    tmp_path: Path, build: Callable[[Workshop], Any]
) -> None:
    shop = killed_at(3, tmp_path, build, training_tokens=600, planned_tokens=20_000)
    record = shop.folder / "training" / "course.json"
    assert record_of(record)["steps"] == 8 and list((shop.folder / "training").glob("lr-*"))
    whole = replace(shop, limits=replace(shop.limits, training_tokens=20_000))
    assert build(whole).adapter is not None
    assert record_of(record)["steps"] == record_of(record)["wanted"] == 120
    assert history(shop)["steps"] == (120 if build is lora else 60) and "cut" not in history(shop)


def test_answers_of_a_torn_interim_look_do_not_pass_into_another_course(tmp_path: Path) -> None:
    shop = killed_at(3, tmp_path, training_tokens=600, planned_tokens=20_000)
    shop = replace(shop, inputs=replace(shop.inputs, dev=tuple(example(i) for i in range(36, 36 + BLOCK + 10))))
    torn = shop.folder / "trials" / "lr-0.001-step-40.jsonl"  # step 40 is an interim look of the longer course, too
    other = attempt(shop, shop.solution("other"), shop.inputs.dev[:BLOCK], torn)
    lora(replace(shop, limits=replace(shop.limits, training_tokens=20_000), learning_rate=1e-3))
    answered = read_predictions(torn)
    assert [p.id for p in answered] == [e.id for e in shop.inputs.dev]
    assert mean_score(answered[:BLOCK]) > mean_score(other) == 0.0


def test_a_kill_while_a_training_starts_over_leaves_one_that_still_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rung.strategies import course

    shop = killed_at(3, tmp_path, training_tokens=600, planned_tokens=20_000)
    whole = replace(shop, limits=replace(shop.limits, training_tokens=20_000))

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(course, "write_json", killed)
        lora(whole)
    assert lora(whole).adapter is not None and history(shop)["steps"] == 120


def test_a_training_whose_interim_look_is_answered_is_not_started_over(tmp_path: Path) -> None:
    shop = killed_at(40, tmp_path, training_tokens=4_000)
    steps = record_of(shop.folder / "training" / "course.json")["steps"]
    assert 40 < steps < 60 and list((shop.folder / "trials").glob("lr-*"))
    lora(replace(shop, limits=replace(shop.limits, training_tokens=20_000)))
    assert history(shop)["steps"] == steps


def test_a_kill_changes_nothing_where_the_budget_is_the_same(tmp_path: Path) -> None:
    undisturbed = shop_of(Trainee(learns), tmp_path / "undisturbed", limits={"training_tokens": 4_000})
    lora(undisturbed)
    shop = killed_at(6, tmp_path / "killed", training_tokens=4_000)
    less_time = replace(shop, limits=replace(shop.limits, training_tokens=2_000, planned_tokens=4_000))
    lora(less_time)
    assert history(shop) == history(undisturbed)


@pytest.mark.parametrize("build", [lora, lambda shop: pilot(shop, 18)], ids=["lora", "pilot"])
def test_a_training_that_the_clock_shortened_says_so(tmp_path: Path, build: Callable[[Workshop], Any]) -> None:
    shop = shop_of(Trainee(learns), tmp_path, limits={"training_tokens": 600, "planned_tokens": 20_000})
    build(shop)
    steps = "8 of 120" if build is lora else "12 of 60"
    assert cut_of(shop.folder) == f"the budget had time for {steps} training steps" == history(shop)["cut"]
    assert "stopped_at" not in history(shop)


def test_a_training_that_is_short_by_the_plan_is_whole(tmp_path: Path) -> None:
    shop = shop_of(Trainee(learns), tmp_path, limits={"training_tokens": 600})
    lora(shop)
    assert cut_of(shop.folder) is None and "cut" not in history(shop)


def test_a_short_training_that_answers_all_of_dev_lacks_nothing(tmp_path: Path) -> None:
    def right(request: Request, note: Note) -> str:
        return COLOURS[asked(request) % 3]

    shop = shop_of(Trainee(right), tmp_path, limits={"training_tokens": 600, "planned_tokens": 20_000})
    lora(shop)
    assert cut_of(shop.folder) is None


def test_a_budget_that_ends_a_shortened_training_leaves_both_facts(tmp_path: Path) -> None:
    limits = {"training_tokens": 4_000, "planned_tokens": 20_000}
    tell = stopping(lambda what, share: what.startswith("training") and share >= 0.9)
    shop = shop_of(Trainee(learns), tmp_path, limits=limits, tools={"tell": tell})
    lora(shop)
    cut = cut_of(shop.folder) or ""
    assert "of 120 training steps; training was stopped by the budget after step" in cut


def test_under_a_time_limit_a_training_has_at_least_two_interim_looks() -> None:
    assert interim_looks_of(100, 800) == 1
    assert interim_looks_of(100, 800, timed=True) == 2
    assert interim_looks_of(8, 800, timed=True) == 1
    assert interim_looks_of(400, 800, timed=True) == 3


# ---- rows -----------------------------------------------------------------------------------


def test_rows_that_are_too_long_are_left_out_counted_and_named(tmp_path: Path) -> None:
    said: list[str] = []
    model = Trainee(learns, context_length=40)
    shop = shop_of(model, tmp_path, train=100, tools={"tell": lambda what, share: said.append(what)})
    long = replace(example(7), input="what colour is " + "very " * 40 + "thing 7", row="examples.jsonl, line 8")
    shop = replace(shop, inputs=replace(shop.inputs, train=(*shop.inputs.train[:99], long)))
    assert lora(shop).adapter is not None
    assert history(shop)["left_out"] == {"count": 1, "rows": ["examples.jsonl, line 8"]}
    assert any("1 of 100" in what and "examples.jsonl, line 8" in what for what in said)


def test_above_thirty_per_cent_of_long_rows_nothing_is_trained(tmp_path: Path) -> None:
    model = Trainee(learns, context_length=40)
    shop = shop_of(model, tmp_path, train=100)
    long = [replace(example(i), input=f"{'very ' * 40} {i}", row=f"line {i}") for i in range(31)]
    shop = replace(shop, inputs=replace(shop.inputs, train=(*shop.inputs.train[31:], *long)))
    with pytest.raises(TrainingError, match=r"31 of 100 .* more than 30 %: line 0, .* and 26 more"):
        lora(shop)
    assert not model.trainings


def test_a_model_that_cannot_be_trained_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="fake cannot be trained"):
        lora(shop_of(FakeModel(lambda _: "red"), tmp_path))


def test_fine_tuning_keeps_the_plain_instruction(tmp_path: Path) -> None:
    assert lora(shop_of(Trainee(learns), tmp_path, labels=COLOURS)).instruction == INSTRUCTION


def test_training_prompts_show_the_gold_passage_of_their_own_example(tmp_path: Path) -> None:
    """Two examples have one input and mark different passages."""
    shop = shop_of(Trainee(), tmp_path)
    pair = (replace(example(1), gold_ids=("p1",)), replace(example(1), id="other", gold_ids=("p4",)))
    solution = replace(shop.solution("x"), retriever=RetrieverSpec("bm25", 3, 600))
    first, second = training_rows(shop, solution, pair)
    assert "Thing 1 is green." in first.messages[-1].content and "Thing 4 is green." in second.messages[-1].content
    for one, row in zip(shop.inputs.train, training_rows(shop, solution, shop.inputs.train), strict=True):
        shown = row.messages[-1].content.split("\n\n")[0].splitlines()
        assert len(shown) == 3 and f"Thing {one.gold_ids[0][1:]} is {one.output}." in shown, "with wrong ones"


def test_the_gold_passage_stays_where_the_budget_has_room_for_fewer(tmp_path: Path) -> None:
    shop = shop_of(Trainee(), tmp_path)
    solution = replace(shop.solution("x"), retriever=RetrieverSpec("bm25", 3, 9))  # room for two of four words
    for one, row in zip(shop.inputs.train, training_rows(shop, solution, shop.inputs.train), strict=True):
        shown = row.messages[-1].content.split("\n\n")[0].splitlines()
        assert len(shown) == 2 and f"Thing {one.gold_ids[0][1:]} is {one.output}." in shown


def test_rag_lora_trains_with_the_passages_that_rag_chose(tmp_path: Path) -> None:
    shop = shop_of(Trainee(learns), tmp_path)
    chosen = replace(shop.solution("rag"), retriever=RetrieverSpec("bm25", 5, 600))
    solution = rag_lora(replace(shop, best_rag=chosen))
    assert solution.retriever == RetrieverSpec("bm25", 5, 600) and solution.family == "rag+fine-tune"


def test_a_label_that_stands_in_a_passage_does_not_make_it_the_gold_one(tmp_path: Path) -> None:
    shop = shop_of(Trainee(), tmp_path, labels=COLOURS)
    solution = replace(shop.solution("x"), retriever=RetrieverSpec("bm25", 1, 600))

    def shown(example_: Any, **how: Any) -> str:
        return training_rows(shop, solution, [example_], **how)[0].messages[-1].content

    unmarked = replace(example(1), input="what of thing 2, thing 2 or thing 1", gold_ids=())
    assert shown(unmarked) == shown(unmarked, gold=False), "as the search ranks them"
    assert "Thing 7 is green." in shown(replace(unmarked, gold_ids=("p7",))), "a mark counts"


# ---- the learning rate ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("best", "tried"),
    [
        (1e-3, [2e-3, 1e-3, 5e-4]),
        (5e-4, [2e-3, 1e-3, 5e-4, 2.5e-4]),
        (1.25e-4, [2e-3, 1e-3, 5e-4, 2.5e-4, 1.25e-4, 6.25e-5]),
        (1e-9, [2e-3, 1e-3, 5e-4, 2.5e-4, 1.25e-4, 6.25e-5]),
        (2e-3, [2e-3, 1e-3, 4e-3]),
        (4e-3, [2e-3, 1e-3, 4e-3, 8e-3]),
        (1.0, [2e-3, 1e-3, 4e-3, 8e-3]),
    ],
)
def test_the_grid_is_left_while_the_best_rate_is_at_its_edge(tmp_path: Path, best: float, tried: list[float]) -> None:
    from math import log2

    probed: list[float] = []

    def loss_of(rate: float) -> float:
        probed.append(rate)
        return 1.0 + abs(log2(rate / best))

    chosen = search(loss_of, tmp_path / "sweep.json")
    assert probed == tried and chosen == min(tried, key=lambda r: abs(log2(r / best)))
    assert OF_ADAPTERS.least <= chosen <= OF_ADAPTERS.most
    assert search(loss_of, tmp_path / "sweep.json") == chosen and probed == tried, "read back"


@pytest.mark.parametrize(
    ("losses", "chosen"),
    [
        ({5e-4: 0.9, 1e-3: 0.60, 2e-3: 0.50, 4e-3: 0.498}, 2e-3),
        ({1e-3: 0.60, 2e-3: 0.50, 4e-3: 0.47, 8e-3: 0.468}, 4e-3),
        ({2e-3: 0.60, 1e-3: 0.55, 5e-4: 0.50, 2.5e-4: 0.498}, 5e-4),
        ({2e-3: 0.60, 1e-3: 0.55, 5e-4: 0.50, 2.5e-4: 0.40, 1.25e-4: 0.399}, 2.5e-4),
        ({2e-3: 0.502, 1e-3: 0.501, 5e-4: 0.500, 2.5e-4: 0.6}, 5e-4),
        ({2e-3: float("nan"), 1e-3: 0.5, 5e-4: 0.6}, 1e-3),
        ({2e-3: 0.5, 1e-3: 0.6, 4e-3: float("nan")}, 2e-3),
        ({2e-3: float("inf"), 1e-3: float("nan"), 5e-4: float("nan"), 2.5e-4: 0.7, 1.25e-4: 0.699}, 2.5e-4),
    ],
)
def test_outside_the_grid_a_rate_is_chosen_only_where_it_is_clearly_better(
    tmp_path: Path, losses: dict[float, float], chosen: float
) -> None:
    assert search(losses.__getitem__, tmp_path / "sweep.json") == chosen
    assert search(losses.__getitem__, tmp_path / "sweep.json") == chosen, "read back"
    assert "NaN" not in (tmp_path / "sweep.json").read_text()


def test_where_every_loss_is_no_number_the_search_diverges(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="at every learning rate"):
        search(lambda rate: float("nan"), tmp_path / "sweep.json")


def probes_of(shop: Workshop) -> dict[str, float]:
    found: dict[str, float] = record_of(shop.folder / "training" / "sweep.json").get("dev_loss", {})
    return found


@pytest.mark.parametrize(
    ("tokens", "probes", "probed"),
    [(600, [], False), (2_300, ["0.002", "0.001", "0.0005"], True), (4_000, 6, True)],
    ids=["8 steps", "30 steps", "50 steps"],
)
def test_short_trainings_spend_little_on_probes(tmp_path: Path, tokens: int, probes: Any, probed: bool) -> None:
    model = Trainee(learns, loss_of=lambda note: 1 + note["rate"])  # the lowest rate always looks best
    shop = shop_of(model, tmp_path, limits={"training_tokens": tokens})
    lora(shop)
    tried = list(probes_of(shop))
    assert (tried == probes) if isinstance(probes, list) else (len(tried) > 3)
    assert history(shop)["probed"] is probed
    if not probed:
        assert {t["options"].learning_rate for t in model.trainings} == {1e-3}, "the middle of the grid"


def test_probes_are_counted_by_the_steps_that_they_take() -> None:
    assert [probe_steps(n) for n in (8, 15, 16, 39, 40, 120, 1_000)] == [0, 0, 4, 4, 4, 7, 60]


def test_a_rate_from_earlier_in_the_run_is_kept_inside_the_grid_and_probed_anew_outside(tmp_path: Path) -> None:
    inside = replace(
        shop_of(Trainee(learns), tmp_path / "in"), learning_rate=5e-4, learning_rate_from="as chosen for x"
    )
    lora(inside)
    assert history(inside)["rate_from"] == "as chosen for x"
    assert not probes_of(inside) and history(inside)["learning_rate"] == 5e-4 and history(inside)["probed"]
    for number, rate in enumerate((1.25e-4, 4e-3)):
        outside = replace(shop_of(Trainee(learns), tmp_path / str(number)), learning_rate=rate)
        lora(outside)
        assert probes_of(outside) and history(outside)["learning_rate"] in LEARNING_RATES
        assert "rate_from" not in history(outside)


def test_rates_are_compared_on_prompts_as_answering_shows_them(tmp_path: Path) -> None:
    scored: list[str] = []

    class Watched(Trainee):
        def loss(self, rows: Any, adapter: Any) -> float:
            scored.extend(row.messages[-1].content for row in rows)
            return super().loss(rows, adapter)

    shop = shop_of(Watched(learns), tmp_path)
    retriever = shop.retriever_of(replace(shop.solution("x"), retriever=RetrieverSpec("bm25", 3, 600)))
    assert retriever is not None
    constant = Constant(retriever.search([example(0).query], 3)[0])
    blind = replace(shop.inputs, library=SearchedBy(shop.inputs.passages, constant))
    rag_lora(replace(shop, inputs=blind))
    dev = {f"Thing {e.id[1:]} is {e.output}." for e in shop.inputs.dev}
    assert scored and not any(line in dev for text in scored for line in text.splitlines())


class Constant:
    """An index that finds the same passages for every query."""

    def __init__(self, passages: Any) -> None:
        self.passages = passages

    def search(self, queries: Any, k: int) -> list[list[Any]]:
        return [list(self.passages[:k]) for _ in queries]


def test_a_killed_search_asks_for_no_probe_twice(tmp_path: Path) -> None:
    probed: list[float] = []

    def loss_of(rate: float) -> float:
        if len(probed) == 2:
            probed.append(0.0)
            raise KeyboardInterrupt
        probed.append(rate)
        return rate

    with pytest.raises(KeyboardInterrupt):
        search(loss_of, tmp_path / "sweep.json")
    search(loss_of, tmp_path / "sweep.json")
    assert probed == [2e-3, 1e-3, 0.0, 5e-4, 2.5e-4, 1.25e-4, 6.25e-5]


def test_a_learning_rate_that_diverges_is_passed_over(tmp_path: Path) -> None:
    shop = shop_of(Trainee(learns, diverging={2e-3}), tmp_path)
    assert lora(shop).adapter is not None
    sweep = read_json(shop.folder / "training" / "sweep.json") or {}
    assert sweep["dev_loss"]["0.002"] is None and sweep["chosen"] in LEARNING_RATES[:-1]


def test_a_training_that_diverges_at_once_is_tried_at_half_the_rate(tmp_path: Path) -> None:
    shop = replace(shop_of(Trainee(learns, diverging={1e-3}), tmp_path), learning_rate=1e-3)
    lora(shop)
    assert history(shop)["learning_rate"] == 5e-4
    with pytest.raises(Diverged, match="diverged"):
        lora(replace(shop_of(Trainee(diverging={1e-3, 5e-4, 2.5e-4}), tmp_path / "b"), learning_rate=1e-3))


def test_where_everything_is_tried_every_learning_rate_is_trained_but_for_a_pilot(tmp_path: Path) -> None:
    shop = shop_of(Trainee(learns), tmp_path, limits={"training_tokens": 20_000, "exhaustive": True})
    lora(shop)
    assert set(history(shop)["rates"]) == {f"{rate:g}" for rate in LEARNING_RATES}
    small = shop.within(tmp_path / "pilot")
    pilot(small, 12)
    assert len({p.name.split("-step")[0] for p in (small.folder / "trials").glob("lr-*")}) == 1


# ---- what is kept ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "kept"),
    [((50, 70, 69), 2), ((50, 90, 60), 1), ((70, 50, 69), 2), ((60, 60, 60), 2), ((80,), 0)],
    ids=["within chance", "clearly better", "the first by chance", "equal", "only one"],
)
def test_of_several_checkpoints_the_last_is_kept_within_a_standard_error(right: tuple[int, ...], kept: int) -> None:
    checkpoints = [
        Checkpoint(number, Path(str(number)), [float((i * 37 + 11 * number) % 100 < n) for i in range(100)])
        for number, n in enumerate(right)
    ]
    assert kept_of(checkpoints).step == kept


def test_the_answers_of_the_kept_checkpoint_are_the_solutions_own(tmp_path: Path) -> None:
    shop = shop_of(Trainee(learns), tmp_path)
    solution = lora(shop)
    record = history(shop)
    answered = read_predictions(shop.folder / "predictions.dev.jsonl")
    assert [p.id for p in answered] == [e.id for e in shop.inputs.dev]
    assert next(e["dev"] for e in record["epochs"] if e["epoch"] == record["kept"]) == mean_score(answered)
    assert Path(solution.adapter or "") == shop.folder / "adapter"
    before = len(shop.tools.model.requests)  # type: ignore[attr-defined]
    assert lora(shop) == solution
    assert len(shop.tools.model.requests) == before  # type: ignore[attr-defined]


def test_rows_known_by_heart_end_a_training_that_gets_no_better(tmp_path: Path) -> None:
    model = Trainee(lambda request, note: "red", loss_of=lambda note: 0.001)
    shop = shop_of(model, tmp_path)
    lora(shop)
    assert len(history(shop)["epochs"]) == 2, "of three"


def test_a_pilot_sees_part_of_train_and_is_judged_once(tmp_path: Path) -> None:
    model = Trainee(learns)
    shop = shop_of(model, tmp_path)
    solution = pilot(shop, 12)
    assert solution.name == "pilot-12" and Path(solution.adapter or "").is_dir()
    assert {len(t["rows"]) for t in model.trainings} == {12}
    steps = record_of(shop.folder / "training" / "course.json")["steps"]
    assert model.trainings[-1]["options"].steps == max(12, round(steps / 3))
    answered = read_predictions(shop.folder / "predictions.dev.jsonl")
    assert [p.id for p in answered] == [e.id for e in shop.inputs.piloted]


# ---- the budget -----------------------------------------------------------------------------


def stopping(when: Callable[[str, float], bool]) -> Callable[[str, float], None]:
    def tell(what: str, share: float) -> None:
        if when(what, share):
            raise BudgetSpent("the budget is spent")

    return tell


@pytest.mark.parametrize(
    ("when", "after"),
    [
        (lambda what, share: what.startswith("training") and share >= 0.5, 0.5),
        (lambda what, share: what.startswith("training") and share > 0.9, 0.9),
    ],
    ids=["after one interim look", "after two"],
)
def test_when_the_budget_ends_a_training_its_checkpoints_count(
    tmp_path: Path, when: Callable[[str, float], bool], after: float
) -> None:
    shop = shop_of(Trainee(learns), tmp_path, tools={"tell": stopping(when)})
    solution = lora(shop)
    record = history(shop)
    steps = record["steps"]
    looks = 1 if after == 0.5 else 2
    assert len(record["epochs"]) == looks and record["kept"] == record["epochs"][-1]["epoch"]
    assert record["cut"] == f"training was stopped by the budget after step {record['stopped_at']} of {steps}"
    assert after * steps <= record["stopped_at"] < steps and cut_of(shop.folder) == record["cut"]
    note = read_json(Path(solution.adapter or "") / "note.json") or {}
    assert note["step"] == round(looks * steps / 3)


def test_a_training_that_the_budget_ends_before_its_first_look_is_judged_where_it_stands(tmp_path: Path) -> None:
    early = stopping(lambda what, share: what.startswith("training") and share > 0.27)
    shop = shop_of(Trainee(learns), tmp_path, tools={"tell": early})
    solution = lora(shop)
    record = history(shop)
    assert len(record["epochs"]) == 1 and record["stopped_at"] < record["steps"] / 3
    note = read_json(Path(solution.adapter or "") / "note.json") or {}
    assert note["step"] == record["stopped_at"]
    assert len((shop.folder / "predictions.dev.jsonl").read_text().splitlines()) == len(shop.inputs.dev)


def test_a_budget_that_ends_while_dev_is_answered_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    model = Trainee(learns)
    count = 0

    def tell(what: str, share: float) -> None:
        nonlocal count
        count += what.startswith("answering")
        if count == 2:
            raise BudgetSpent("the budget is spent")

    shop = shop_of(model, tmp_path, tools={"tell": tell})
    lora(shop)
    assert len(history(shop)["epochs"]) == 1
    assert history(shop)["cut"] == "the budget ended while dev was answered after step 80 of 120"


def test_where_every_rate_is_trained_one_that_came_to_its_end_counts_whole(tmp_path: Path) -> None:
    rates: list[str] = []

    def learns_at_the_lowest(request: Request, note: Note) -> str:
        return learns(request, note) if note is not None and note["rate"] == min(LEARNING_RATES) else "?"

    def tell(what: str, share: float) -> None:
        rates.append(what)
        if sum(w.startswith("training") for w in rates) > 1.5 * 120:
            raise BudgetSpent("the budget is spent")

    limits = {"training_tokens": 20_000, "exhaustive": True}
    shop = shop_of(Trainee(learns_at_the_lowest), tmp_path, limits=limits, tools={"tell": tell})
    lora(shop)
    record = history(shop)
    assert record["learning_rate"] == min(LEARNING_RATES) and record["kept"] == record["epochs"][-1]["epoch"]
    assert "after step 61 of 120" in record["cut"] and "stopped_at" not in record


def test_a_budget_that_ends_before_the_first_interim_look_goes_up_and_the_checkpoint_stays(tmp_path: Path) -> None:
    model = Trainee(learns)
    early = stopping(lambda what, share: what.startswith("training") and share >= 0.2)
    shop = shop_of(model, tmp_path, tools={"tell": early})
    with pytest.raises(BudgetSpent):
        lora(shop)
    assert not (shop.folder / "adapter").exists() and cut_of(shop.folder) is None
    checkpoints = (shop.folder / "training").glob("lr-*/checkpoint.json")
    assert max((read_json(path) or {})["step"] for path in checkpoints) == 0.2 * 120
    undisturbed = lora(replace(shop, tools=replace(shop.tools, tell=lambda what, share: None)))
    assert undisturbed.adapter is not None and "cut" not in history(shop)


def test_an_error_of_the_model_is_no_end_of_the_budget(tmp_path: Path) -> None:
    class Broken(Trainee):
        def train(self, *args: Any, **more: Any) -> Path:
            raise ModelError("the GPU is gone")

    with pytest.raises(ModelError, match="gone"):
        lora(shop_of(Broken(), tmp_path))


@pytest.mark.parametrize(
    ("steps", "epoch", "told"), [(20, 26, True), (30, 26, False), (60, 400, False), (20, 20, False)]
)
def test_a_training_that_is_planned_shorter_than_a_pass_over_few_examples_says_so(
    steps: int, epoch: int, told: bool
) -> None:
    from rung.strategies.course import Course

    short = Course(steps, 1, (), steps * 8, epoch, wanted=steps).shortened
    assert (short is not None) is told and (not told or "a new run with more --minutes" in str(short))
