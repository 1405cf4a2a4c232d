"""What strategies choose on dev, and what they leave alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rung.errors import Diverged
from rung.evaluation.metrics import load_metric
from rung.records import read_json
from rung.retrieval.bm25 import BM25
from rung.solutions.prompt_rendering import passage_text, within_budget
from rung.strategies import fine_tuning
from rung.trials.workshop import Materials, attempt, choose, mean_score, read_predictions, screened
from rung.strategies.prompting import covering, few_shot
from rung.strategies.retrieving import gold_passage, rag
from rung.testing import FakeModel
from rung.types import Decoding, Document, Example, Request, RetrieverSpec, Task

COLOURS = ("red", "green", "blue")


def example(i: int) -> Example:
    return Example(f"e{i}", f"what colour is thing {i}", COLOURS[i % 3], (COLOURS[i % 3],), gold_ids=(f"p{i}",))


PASSAGES = tuple(Document(f"p{i}", f"Thing {i} is {COLOURS[i % 3]}.") for i in range(60))


@pytest.fixture
def materials(tmp_path: Path, tiny: Any) -> Materials:
    rows = tuple(example(i) for i in range(60))
    task = Task("t", tmp_path / "task.yaml", "Say the colour.", (), "exact_match", "tiny")
    return Materials(
        task=task,
        train=rows[:36],
        dev=rows[36:],
        model=tiny,
        metric=load_metric("exact_match", tmp_path),
        folder=tmp_path / "solution",
        decoding=Decoding(8),
        constraint=None,
        passages=PASSAGES,
        retriever=BM25(PASSAGES),
    )


def with_fake(materials: Materials, answers: Any) -> Materials:
    model: Any = FakeModel(answers)
    model.encode = lambda messages: [0] * sum(len(m.content.split()) for m in messages)
    return replace(materials, model=model)


def test_demos_cover_the_answers_before_they_repeat(materials: Materials) -> None:
    ordered = covering(materials.train, seed=0)
    assert {d.output for d in ordered[:3]} == set(COLOURS) and len(ordered) == 36


def test_the_number_of_demos_that_answers_best_on_dev_is_chosen(materials: Materials) -> None:
    def answers(request: Request) -> str:
        shown = sum(m.role == "assistant" for m in request.messages)
        number = int(request.messages[-1].content.split()[-1])
        return COLOURS[number % 3] if shown == 8 and number % 4 else "?"

    solution = few_shot(with_fake(materials, answers))
    assert solution.demo_selection is not None and solution.demo_selection.k == 8


def test_only_the_best_two_and_their_equals_answer_the_whole_screen(materials: Materials) -> None:
    shown = {4: "red", 8: "red", 16: "green"}
    number = {4: 1, 8: 2, 16: 0}

    def answers(request: Request) -> str:
        demos = sum(m.role == "assistant" for m in request.messages)
        asked = int(request.messages[-1].content.split()[-1])
        return COLOURS[asked % 3] if asked % 3 < number[demos] else shown[demos] + "?"

    asked = with_fake(materials, answers)
    few_shot(asked)
    rounds = {p.stem for p in (materials.folder / "trials").iterdir()}
    assert {name for name in rounds if name.endswith("-1")} == {
        "fixed-4-1", "fixed-8-1", "fixed-16-1", "nearest-4-1", "nearest-8-1"
    }  # fmt: skip
    assert {name for name in rounds if name.endswith("-2")} == {"fixed-8-2", "nearest-8-2"}
    chosen = screened(materials.folder)
    assert [p.id for p in chosen] == [e.id for e in materials.screen]
    assert mean_score(attempt(asked, asked.solution("few_shot"), asked.dev, materials.folder / "p", known=chosen)) > 0.5


def test_of_equal_variants_the_one_with_the_shortest_prompt_is_chosen(materials: Materials) -> None:
    asked = with_fake(materials, lambda _: "red")
    long = replace(asked.solution("long"), instruction="Say the colour. " * 20)
    assert choose(asked, [long, asked.solution("short")]).name == "short"


def test_rag_chooses_demos_that_show_passages_where_only_those_help(materials: Materials) -> None:
    def answers(request: Request) -> str:
        demos = [m for m in request.messages[:-1] if m.role == "user"]
        number = int(request.messages[-1].content.split()[-1])
        helped = (
            demos and all("Thing" in m.content for m in demos) and f"Thing {number} is" in request.messages[-1].content
        )
        return COLOURS[number % 3] if helped else "?"

    solution = rag(with_fake(materials, answers))
    assert len(solution.demos) == 4 and "Thing" in solution.demos[0].input
    assert solution.retriever is not None and solution.retriever.k == 1, "one passage is enough and shortest"


def test_answers_are_stored_in_whole_blocks_and_never_asked_twice(materials: Materials, tmp_path: Path) -> None:
    asked = with_fake(materials, lambda _: "red")
    path = tmp_path / "p.jsonl"
    first = attempt(asked, asked.solution("a"), asked.dev, path)
    model: Any = asked.model
    before = len(model.requests)
    assert attempt(asked, asked.solution("a"), asked.dev, path) == first and len(model.requests) == before
    path.write_bytes(path.read_bytes()[:-20])  # torn: the block is answered again, once
    assert attempt(asked, asked.solution("a"), asked.dev, path) == first and len(model.requests) == 2 * before


def test_a_failed_answer_scores_zero_and_keeps_its_error(materials: Materials, tmp_path: Path) -> None:
    asked = with_fake(materials, lambda _: ValueError("no room"))
    predictions = attempt(asked, asked.solution("a"), asked.dev, tmp_path / "p.jsonl")
    assert all(p.score == 0.0 and p.error == "no room" for p in predictions)


def test_the_gold_passage_is_the_marked_one_that_holds_the_answer() -> None:
    by_id = {p.id: p for p in PASSAGES}
    assert gold_passage(example(7), by_id, PASSAGES[:3]) == PASSAGES[7]
    unmarked = replace(example(7), gold_ids=())
    assert gold_passage(unmarked, by_id, PASSAGES[:3]) == PASSAGES[1], "the best-ranked one that contains the answer"


def test_training_with_passages_shows_the_gold_one_and_wrong_ones(materials: Materials) -> None:
    retriever = fine_tuning._WithGold(materials, materials.train, RetrieverSpec("bm25", 3, 600))
    rows = retriever.search([e.input for e in materials.train], 3)
    for one, row in zip(materials.train, rows, strict=True):
        assert len(row) == 3 and one.gold_ids[0] in {p.id for p in row}


def test_the_gold_passage_stays_where_the_budget_has_room_for_fewer(materials: Materials) -> None:
    count = materials.model.count_tokens
    lengths = [count(passage_text(p)) for p in materials.passages]
    narrow = RetrieverSpec("bm25", 3, 3 * min(lengths) - 1)  # room for two
    assert max(lengths) * 2 <= narrow.token_budget
    retriever = fine_tuning._WithGold(materials, materials.train, narrow)
    for one, row in zip(materials.train, retriever.search([e.input for e in materials.train], 3), strict=True):
        shown = within_budget(narrow, row, count)
        assert len(shown) == 2 and one.gold_ids[0] in {p.id for p in shown}


def test_a_learning_rate_that_diverges_is_passed_over(materials: Materials, monkeypatch: pytest.MonkeyPatch) -> None:
    import rung.training.lora as training

    real = training.train

    def train(model: Any, rows: Any, options: Any, folder: Path, **more: Any) -> Path:
        if options.learning_rate == max(fine_tuning.LEARNING_RATES):
            raise Diverged("the loss is nan")
        return real(model, rows, options, folder, **more)

    monkeypatch.setattr(training, "train", train)
    solution = fine_tuning.lora(replace(materials, compute_tokens=3_000))
    sweep = read_json(materials.folder / "training" / "sweep.json") or {}
    assert solution.adapter is not None
    assert sweep["dev_loss"][f"{max(fine_tuning.LEARNING_RATES):g}"] is None
    assert sweep["chosen"] in sorted(fine_tuning.LEARNING_RATES)[:-1]


@pytest.mark.parametrize(("losses", "tried"), [((2.0, 1.0, 0.5), 2), ((0.5, 1.0, 2.0), 3), ((2.0, 1.0, 1.5), 3)])
def test_learning_rates_are_tried_from_the_highest_while_the_loss_falls(
    materials: Materials, monkeypatch: pytest.MonkeyPatch, losses: tuple[float, ...], tried: int
) -> None:
    import rung.training.lora as training

    by_rate = dict(zip(sorted(fine_tuning.LEARNING_RATES), losses, strict=True))
    monkeypatch.setattr(training, "train", lambda *args, **more: args[3])
    monkeypatch.setattr(training, "mean_loss", lambda _, rows, adapter: by_rate[float(adapter.name[3:])])
    work = materials.folder / "training"
    course = fine_tuning._Course(10, 1, materials.dev)
    rate = fine_tuning._sweep(materials, materials.solution("a"), [], course, work)
    assert by_rate[rate] == min(losses)
    assert len((read_json(work / "sweep.json") or {})["dev_loss"]) == tried
    assert fine_tuning._sweep(materials, materials.solution("a"), [], course, work) == rate, "as kept"


def test_where_everything_is_tried_every_learning_rate_is_trained_but_for_a_pilot(materials: Materials) -> None:
    everything = replace(materials, compute_tokens=3_000, exhaustive=True)
    fine_tuning.lora(everything)
    trials = {p.name.split("-step")[0] for p in (materials.folder / "trials").glob("lr-*")}
    assert trials == {f"lr-{rate:g}" for rate in fine_tuning.LEARNING_RATES}
    pilot = materials.folder.parent / "pilot"
    fine_tuning.pilot(replace(everything, folder=pilot), 12)
    assert len(list((pilot / "trials").glob("lr-*"))) == 1


def test_what_the_base_model_answers_for_replay_is_asked_once(
    materials: Materials, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RUNG_CACHE", str(tmp_path / "cache"))
    asked: list[int] = []
    real = materials.model.generate

    def generate(requests: list[Request]) -> Any:
        asked.append(len(requests))
        return real(requests)

    monkeypatch.setattr(materials.model, "generate", generate)
    first = fine_tuning._own_answers(materials.model, ["Name a colour.", "Name a day."])
    assert fine_tuning._own_answers(materials.model, ["Name a colour.", "Name a day."]) == first
    assert asked == [2] and len(first) == 2
    fine_tuning._own_answers(materials.model, ["Name a town."])
    assert asked == [2, 1], "other prompts are kept apart"


def test_lora_keeps_the_last_adapter_unless_an_earlier_one_is_clearly_better(materials: Materials) -> None:
    fine_tuning.lora(replace(materials, compute_tokens=20_000))
    history = read_json(materials.folder / "training" / "history.json") or {}
    assert history["kept"] in {look["epoch"] for look in history["epochs"]}
    answered = mean_score(read_predictions(materials.folder / "predictions.dev.jsonl"))
    assert next(look["dev"] for look in history["epochs"] if look["epoch"] == history["kept"]) == answered


@pytest.mark.parametrize(
    ("right", "kept"),
    [((50, 70, 69), 2), ((50, 90, 60), 1), ((70, 50, 69), 2), ((60, 60, 60), 2), ((80,), 0)],
    ids=["within chance", "clearly better", "the first by chance", "equal", "looked at once"],
)
def test_of_several_looks_the_last_is_kept_within_a_standard_error(right: tuple[int, ...], kept: int) -> None:
    looks = [
        fine_tuning._Look(number, Path(str(number)), [float((i * 37 + 11 * number) % 100 < n) for i in range(100)])
        for number, n in enumerate(right)
    ]
    assert fine_tuning._kept(looks).step == kept


def test_a_pilot_sees_part_of_train_and_is_judged_on_the_screen(materials: Materials) -> None:
    solution = fine_tuning.pilot(replace(materials, compute_tokens=20_000), 12)
    assert solution.name == "pilot-12" and Path(solution.adapter or "").is_dir()
    training = read_json(next((materials.folder / "training").glob("lr-*/training.json"))) or {}
    assert training["rows"] == 12
    answered = read_predictions(materials.folder / "predictions.dev.jsonl")
    assert [p.id for p in answered] == [e.id for e in materials.screen]


def test_replay_goes_on_from_the_adapter_and_shows_general_prompts_beside_the_task(
    materials: Materials, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rung.training import lora

    few = replace(materials, compute_tokens=3_000)
    tuned = fine_tuning.lora(few)
    seen: list[Any] = []
    real = lora.train

    def watched(model: Any, rows: Any, options: Any, *args: Any, **kwargs: Any) -> Path:
        seen.append((rows, options, kwargs["start"]))
        return real(model, rows, options, *args, **kwargs)

    monkeypatch.setattr(lora, "train", watched)
    rate = fine_tuning.LEARNING_RATES[1]
    again = fine_tuning.replayed(replace(few, folder=few.folder.parent / "replay", learning_rate=rate), tuned)
    rows, options, start = seen[0]
    general = sum(row.id.startswith("replay") for row in rows)
    assert len(rows) == 2 * general and options.learning_rate < rate
    assert str(start) == tuned.adapter != again.adapter


def test_replay_prompts_are_none_of_the_suite(materials: Materials) -> None:
    from rung.evaluation.skills import suite

    def words(text: str) -> frozenset[str]:
        return frozenset("".join(c if c.isalnum() else " " for c in text.casefold()).split())

    asked = [words(skill.prompt) for skill in suite()]
    for prompt in fine_tuning.replay_prompts():
        mine = words(prompt)
        assert all(len(mine & other) < 0.6 * len(mine | other) for other in asked), prompt
    assert len(fine_tuning.replay_prompts()) >= 60
