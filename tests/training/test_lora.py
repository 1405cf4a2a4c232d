from __future__ import annotations

import gc
import json
import weakref
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from rung.engine import training_memory
from rung.engine.adapters import IN_TRAINING
from rung.errors import Diverged, OutOfMemory, TrainingError
from rung.testing import tiny_model
from rung.training import batches as batches_room
from rung.training import loop, lora
from rung.training.batches import TokenRow, batch_indices, learning_rate_at, steps_per_epoch
from rung.training.loop import train
from rung.training.loss import add_gradients, backward, mean_loss
from rung.types import Decoding, Message, Progress, Request, TrainingOptions
from trained import OPTIONS, same, weights

END = 2
PAIRS = [("where is my card", "card arrival"), ("lost it", "lost"), ("top up the account", "the top"), ("a", "x y z")]


def turns(text: str) -> tuple[Message, ...]:
    return Message("system", "Answer."), Message("user", text)


def rows_of(model: Any, pairs: list[tuple[str, str]] = PAIRS) -> list[TokenRow]:
    return [
        TokenRow(str(i), tuple(model.encode(turns(text))), tuple(model.encode_answer(answer)))
        for i, (text, answer) in enumerate(pairs)
    ]


def test_the_target_is_the_answer_and_its_end_although_pad_is_the_end_token(tiny: Any) -> None:
    assert tiny.chat.tokenizer.pad_token_id == tiny.chat.end_id == END
    for row, (_, answer) in zip(rows_of(tiny), PAIRS, strict=True):
        assert row.target[-1] == END and row.target.count(END) == 1
        assert tiny.chat.tokenizer.decode(row.target[:-1]) == answer


# ---- loss and gradients ---------------------------------------------------------------------


def plain_loop(
    model: Any, folder: Path, batch: list[TokenRow], tmp_path: Path
) -> tuple[float, dict[str, torch.Tensor]]:
    """Ordinary transformers + PEFT: padded batch, labels -100 outside the targets, the library's own loss."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model.engine.adapters.wrapper.save_pretrained(
        tmp_path, selected_adapters=[IN_TRAINING], save_embedding_layers=False
    )
    network = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    network = PeftModel.from_pretrained(network, str(tmp_path / IN_TRAINING), is_trainable=True)
    width = max(len(r.prompt) + len(r.target) for r in batch)
    ids = torch.full((len(batch), width), END)
    labels = torch.full((len(batch), width), -100)
    seen = torch.zeros(len(batch), width, dtype=torch.long)
    for i, row in enumerate(batch):
        whole = [*row.prompt, *row.target]
        ids[i, : len(whole)] = torch.tensor(whole)
        labels[i, len(row.prompt) : len(whole)] = torch.tensor(row.target)
        seen[i, : len(whole)] = 1
    loss = network(input_ids=ids, attention_mask=seen, labels=labels).loss
    loss.backward()
    found = {n.replace(".default.", "."): p.grad for n, p in network.named_parameters() if p.requires_grad}
    return loss.item(), {n[n.index("layers.") :]: g for n, g in found.items()}


def own_gradients(model: Any, batch: list[TokenRow], micro_tokens: int) -> tuple[float, dict[str, torch.Tensor]]:
    model.network.zero_grad(set_to_none=True)
    loss, _ = backward(model.engine, batch, micro_tokens=micro_tokens)
    named = {n.replace(f".{IN_TRAINING}.", "."): p.grad for n, p in model.network.named_parameters() if p.requires_grad}
    return loss, {n[n.index("layers.") :]: g for n, g in named.items()}


def batches(model: Any) -> dict[str, list[TokenRow]]:
    rows = rows_of(model)
    unlike = TokenRow("u", tuple(model.chat.tokenizer.encode("nothing in common")), rows[0].target)
    return {
        "mixed lengths": rows,
        "one row": rows[:1],
        "no shared prefix": [*rows[:2], unlike],
        "empty answer": [TokenRow("e", rows[0].prompt, (END,)), rows[1]],
    }


@pytest.mark.parametrize("name", ["mixed lengths", "one row", "no shared prefix", "empty answer"])
@pytest.mark.parametrize("micro_tokens", [1, 40, 10_000])
def test_loss_and_gradients_equal_the_plain_loops(
    with_adapter: Any, tiny_folder: Path, tmp_path: Path, name: str, micro_tokens: int
) -> None:
    batch = batches(with_adapter)[name]
    expected_loss, expected = plain_loop(with_adapter, tiny_folder, batch, tmp_path)
    loss, found = own_gradients(with_adapter, batch, micro_tokens)
    assert loss == pytest.approx(expected_loss, rel=1e-4)
    assert set(found) == set(expected) and len(found) == 2 * 7 * 2  # A and B of 7 linear layers in 2 blocks
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0
        assert float((found[name] - gradient).norm() / gradient.norm()) < 1e-4, name


def test_gradients_add_to_what_is_there(with_adapter: Any) -> None:
    batch = rows_of(with_adapter)
    _, once = own_gradients(with_adapter, batch, 40)
    once = {n: g.clone() for n, g in once.items()}
    backward(with_adapter.engine, batch, micro_tokens=40)
    named = [p.grad for p in with_adapter.network.parameters() if p.requires_grad]
    for twice, single in zip(named, once.values(), strict=True):
        torch.testing.assert_close(twice, 2 * single, rtol=1e-4, atol=1e-6)


def test_the_loss_weighs_every_target_token_of_the_batch_alike(with_adapter: Any) -> None:
    rows = rows_of(with_adapter)
    each = [backward(with_adapter.engine, [row], micro_tokens=100)[0] for row in rows]
    tokens = [len(row.target) for row in rows]
    expected = sum(loss * n for loss, n in zip(each, tokens, strict=True)) / sum(tokens)
    for micro_tokens in (1, 50, 1000):
        assert backward(with_adapter.engine, rows, micro_tokens=micro_tokens)[0] == pytest.approx(expected, rel=1e-5)
    assert len(set(tokens)) > 1 and abs(sum(each) / len(each) - expected) > 1e-3, "a mean of means would differ"


def test_the_end_token_is_in_the_loss(with_adapter: Any) -> None:
    row = rows_of(with_adapter)[0]
    answer = TokenRow("r", row.prompt, row.target[:-1])
    end = TokenRow("r", (*row.prompt, *row.target[:-1]), (END,))
    loss = {
        name: backward(with_adapter.engine, [r], micro_tokens=100)[0]
        for name, r in {"both": row, "answer": answer, "end": end}.items()
    }
    n = len(row.target)
    assert loss["both"] * n == pytest.approx(loss["answer"] * (n - 1) + loss["end"], rel=1e-5)
    assert loss["end"] > 0.1


def test_a_permutation_is_drawn_once_an_epoch_and_not_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    monkeypatch.setattr(torch, "randperm", lambda n, **_: drawn.append(n) or torch.arange(n))
    batches_room._order.cache_clear()
    assert [len(batch_indices(1000, 8, step, seed=1)) for step in range(250)] == [8] * 250
    batches_room._order.cache_clear()
    assert drawn == [1000, 1000]


# ---- order and rate -------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 2, 7, 16, 17, 33])
@pytest.mark.parametrize("size", [1, 3, 16])
def test_every_row_comes_once_an_epoch_in_batches_of_nearly_equal_size(rows: int, size: int) -> None:
    per_epoch = steps_per_epoch(rows, size)
    orders = []
    for epoch in range(3):
        cut = [batch_indices(rows, size, epoch * per_epoch + i, seed=4) for i in range(per_epoch)]
        assert sorted(chain(*cut)) == list(range(rows))
        lengths = [len(batch) for batch in cut]
        assert max(lengths) <= size and max(lengths) - min(lengths) <= 1
        orders.append(list(chain(*cut)))
    if rows > 6:
        assert orders[0] != orders[1] != orders[2]
        assert list(chain(*(batch_indices(rows, size, i, seed=5) for i in range(per_epoch)))) != orders[0]


@pytest.mark.parametrize(
    ("steps", "share", "warmup"), [(100, 0.06, 6), (10, 0.06, 1), (1, 0.06, 1), (40, 0.5, 20), (8, 0.0, 1)]
)
def test_the_learning_rate_rises_then_falls_linearly(steps: int, share: float, warmup: int) -> None:
    options = TrainingOptions(learning_rate=2.0, steps=steps, warmup_share=share)
    rates = [learning_rate_at(step, options) for step in range(steps)]
    expected = [2 * (s + 1) / warmup if s < warmup else 2 * (steps - s) / (steps - warmup) for s in range(steps)]
    assert rates == pytest.approx(expected)
    assert max(rates) == pytest.approx(2.0) and min(rates) > 0


# ---- train ----------------------------------------------------------------------------------


def test_training_leaves_a_peft_folder_and_the_base_as_it_was(tmp_path: Path) -> None:
    model = tiny_model()
    before = {n: p.clone() for n, p in model.network.named_parameters()}
    seen: list[Progress] = []
    folder = train(model.engine, rows_of(model), OPTIONS, tmp_path, on_step=seen.append)
    assert {p.name for p in folder.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    assert not list(tmp_path.glob("*.tmp"))
    assert [p.step for p in seen] == list(range(1, 7)) and seen[-1].steps == 6
    assert all(a.tokens < b.tokens for a, b in pairwise(seen))
    assert any(t.abs().max() > 0 for n, t in weights(folder).items() if "lora_B" in n)
    after = {n.replace(".base_layer", ""): p for n, p in model.network.named_parameters() if ".lora_" not in n}
    assert all(torch.equal(after[n], before[n]) for n in before)
    assert not model.network.training


def test_two_trainings_with_one_seed_are_equal_and_another_seed_differs(tmp_path: Path) -> None:
    first = train(tiny_model().engine, rows_of(tiny_model()), OPTIONS, tmp_path / "a")
    model = tiny_model()
    train(model.engine, rows_of(model), replace(OPTIONS, seed=9), tmp_path / "c")
    torch.manual_seed(77)  # what happened before in this process does not matter
    assert same(first, train(model.engine, rows_of(model), OPTIONS, tmp_path / "b"))
    assert not same(first, train(model.engine, rows_of(model), replace(OPTIONS, seed=9), tmp_path / "c"))


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("stop", [1, 2, 5])
def test_training_in_two_parts_gives_the_same_adapter_bit_by_bit(tmp_path: Path, stop: int, dropout: float) -> None:
    options = replace(OPTIONS, dropout=dropout)
    whole = train(tiny_model().engine, rows_of(tiny_model()), options, tmp_path / "whole")
    model = tiny_model()
    part = train(model.engine, rows_of(model), options, tmp_path / "parts", until=stop)
    assert part.name == f"step-{stop}"
    model.generate([Request(turns("x"), Decoding(4, temperature=1.0), adapter=str(part))])
    torch.rand(3)
    assert same(train(model.engine, rows_of(model), options, tmp_path / "parts"), whole)


@pytest.mark.parametrize("stop", [1, 3, 6])
def test_what_a_listener_raises_ends_a_training_after_a_checkpoint(tmp_path: Path, stop: int) -> None:
    model = tiny_model()
    whole = train(model.engine, rows_of(model), OPTIONS, tmp_path / "whole")

    def interrupt(progress: Progress) -> None:
        if progress.step == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model.engine, rows_of(model), OPTIONS, tmp_path / "torn", on_step=interrupt)
    assert not list((tmp_path / "torn").glob("step-*"))
    steps: list[int] = []
    again = train(model.engine, rows_of(model), OPTIONS, tmp_path / "torn", on_step=lambda p: steps.append(p.step))
    assert same(again, whole)
    assert steps == list(range(stop + 1, 7)), "no step is trained twice"


@pytest.mark.parametrize("checkpoint_every_s", [-1.0, 1e9])
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_training_killed_in_any_step_goes_on_bit_by_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int, checkpoint_every_s: float
) -> None:
    monkeypatch.setattr(loop, "_CHECKPOINT_EVERY_S", checkpoint_every_s)
    model = tiny_model()
    whole = train(model.engine, rows_of(model), OPTIONS, tmp_path / "whole")
    calls: list[int] = []

    def killed(*given: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) > stop:
            raise KeyboardInterrupt
        return add_gradients(*given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "add_gradients", killed)
        with pytest.raises(KeyboardInterrupt):
            train(model.engine, rows_of(model), OPTIONS, tmp_path / "torn")
    steps: list[int] = []
    again = train(model.engine, rows_of(model), OPTIONS, tmp_path / "torn", on_step=lambda p: steps.append(p.step))
    assert same(again, whole)
    assert steps[0] == (stop + 1 if checkpoint_every_s < 0 else 1) and steps[-1] == 6


# ---- out of memory --------------------------------------------------------------------------


def too_little_memory(monkeypatch: pytest.MonkeyPatch, rows: int, error: Exception) -> list[int]:
    """Every pass of more than so many rows raises. Returns the numbers of rows of the passes that worked."""
    from rung.training import loss

    sizes: list[int] = []
    whole = loss.summed_loss

    def limited(engine: Any, part: Any, *more: Any) -> Any:
        if len(part) > rows:
            raise error
        sizes.append(len(part))
        return whole(engine, part, *more)

    monkeypatch.setattr(loss, "summed_loss", limited)
    return sizes


ALLOCATORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    MemoryError(),
]


@pytest.mark.parametrize("error", ALLOCATORS, ids=lambda e: type(e).__name__ + str(e)[:4])
def test_a_training_that_runs_out_of_memory_goes_on_in_smaller_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    model, seen, expected = tiny_model(), list[float](), list[float]()
    whole = train(model.engine, rows_of(model), OPTIONS, tmp_path / "a", on_step=lambda p: expected.append(p.loss))
    sizes = too_little_memory(monkeypatch, 1, error)
    small = train(model.engine, rows_of(model), OPTIONS, tmp_path / "b", on_step=lambda p: seen.append(p.loss))
    assert set(sizes) == {1}
    assert seen == pytest.approx(expected, rel=1e-3)
    for name, weight in weights(whole).items():
        torch.testing.assert_close(weights(small)[name], weight, rtol=1e-2, atol=1e-3)


def test_memory_that_does_not_suffice_for_one_row_ends_a_training_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model()
    with monkeypatch.context() as patch:
        too_little_memory(patch, 0, ALLOCATORS[0])
        with pytest.raises(OutOfMemory, match="one row at a time"):
            train(model.engine, rows_of(model), OPTIONS, tmp_path)
    assert train(model.engine, rows_of(model), OPTIONS, tmp_path).is_dir(), "with more memory it goes on"


def too_little_memory_without_checkpointing(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, int]]:
    """Every pass raises that keeps what its layers computed. Returns (checkpointed, rows) of each pass."""
    from rung.engine.checkpointing import layers_of
    from rung.training import loss

    passes: list[tuple[bool, int]] = []
    whole = loss.summed_loss

    def limited(engine: Any, part: Any, *more: Any) -> Any:
        forward = vars(layers_of(engine.network)[0]).get("forward")
        passes.append((getattr(getattr(forward, "func", None), "__module__", "").endswith("checkpointing"), len(part)))
        if not passes[-1][0]:
            raise ALLOCATORS[0]
        return whole(engine, part, *more)

    monkeypatch.setattr(loss, "summed_loss", limited)
    return passes


@pytest.mark.parametrize("full", [False, True])
def test_where_one_row_does_not_fit_layers_are_computed_again_and_a_continued_training_goes_on_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    model, expected, seen = tiny_model(), list[float](), list[float]()
    options = replace(OPTIONS, learning_rate=1e-3, full=full)
    train(model.engine, rows_of(model), options, tmp_path / "a", on_step=lambda p: expected.append(p.loss))
    passes = too_little_memory_without_checkpointing(monkeypatch)
    whole = train(model.engine, rows_of(model), options, tmp_path / "b", on_step=lambda p: seen.append(p.loss))
    assert seen == pytest.approx(expected, rel=1e-3)
    first = passes.index((True, 2))
    assert (False, 1) in passes[:first], "one row at a time was tried before"
    assert all(checkpointed and rows > 1 for checkpointed, rows in passes[first:]), "in parts as large as at first"
    train(model.engine, rows_of(model), options, tmp_path / "parts", until=2)
    passes.clear()
    again = train(model.engine, rows_of(model), options, tmp_path / "parts")
    assert passes and all(checkpointed for checkpointed, _ in passes)
    name = "model.safetensors" if full else "adapter_model.safetensors"
    assert (again / name).read_bytes() == (whole / name).read_bytes()


def test_rows_that_cannot_fit_are_known_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = too_little_memory_without_checkpointing(monkeypatch)
    monkeypatch.setattr(training_memory, "free_bytes", lambda device: 10_000)
    model = tiny_model()
    train(model.engine, rows_of(model), OPTIONS, tmp_path)
    assert all(checkpointed for checkpointed, _ in passes)


@pytest.mark.parametrize("full", [False, True])
def test_memory_that_runs_out_within_a_step_of_the_optimiser_repeats_what_came_since_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    options = replace(OPTIONS, learning_rate=1e-3, full=full)
    model = tiny_model()
    whole = train(model.engine, rows_of(model), options, tmp_path / "whole")
    step, calls, failing = torch.optim.AdamW.step, [0], {4}

    def limited(optimiser: Any, *more: Any) -> Any:
        calls[0] += 1
        found = step(optimiser, *more)
        if calls[0] in failing:
            raise ALLOCATORS[2]  # some weights are a step ahead by then
        return found

    monkeypatch.setattr(torch.optim.AdamW, "step", limited)
    again = train(model.engine, rows_of(model), options, tmp_path / "again")
    name = "model.safetensors" if full else "adapter_model.safetensors"
    assert (again / name).read_bytes() == (whole / name).read_bytes() and calls[0] > 7
    failing |= set(range(1_000))
    with pytest.raises(RuntimeError, match="out of memory"):
        train(model.engine, rows_of(model), options, tmp_path / "never")


def test_a_training_of_an_older_version_goes_on(tmp_path: Path) -> None:
    model = tiny_model()
    whole = train(model.engine, rows_of(model), OPTIONS, tmp_path / "whole")
    train(model.engine, rows_of(model), OPTIONS, tmp_path / "old", until=2)
    claim = json.loads((tmp_path / "old" / "training.json").read_text())
    del claim["options"]["full"]
    (tmp_path / "old" / "training.json").write_text(json.dumps(claim))
    checkpoint = torch.load(tmp_path / "old" / "checkpoint.pt", weights_only=True)
    del checkpoint["checkpointing"]
    checkpoint["rng"] = checkpoint["rng"][0]
    torch.save(checkpoint, tmp_path / "old" / "checkpoint.pt")
    assert same(train(model.engine, rows_of(model), OPTIONS, tmp_path / "old"), whole)


def test_a_network_that_peft_cannot_adapt_is_named_with_the_fact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model()
    with monkeypatch.context() as patch:
        patch.setattr(lora, "adaptable_layers", lambda network: [])
        with pytest.raises(TrainingError, match="no linear layers"):
            train(model.engine, rows_of(model), OPTIONS, tmp_path)
        patch.setattr(lora, "adaptable_layers", lambda network: ["nowhere"])
        with pytest.raises(TrainingError, match=r"PEFT cannot adapt it \(.*nowhere"):
            train(model.engine, rows_of(model), OPTIONS, tmp_path)
    assert train(model.engine, rows_of(model), OPTIONS, tmp_path).is_dir()


def test_an_adapter_names_what_its_base_is_loaded_from(tmp_path: Path) -> None:
    model = tiny_model()
    model.engine.base = "somebody/model"
    folder = train(model.engine, rows_of(model), OPTIONS, tmp_path, until=1)
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "somebody/model"


def test_a_configuration_that_does_not_say_its_depth_has_adapters_in_all_layers() -> None:
    model = tiny_model()
    model.network.config.num_hidden_layers = 0
    learner = lora.begin(model.engine, replace(OPTIONS, layers=0.5), None)
    assert len(learner.weights) == 2 * 7 * 2


def test_making_an_adapter_warns_of_nothing(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        model = tiny_model()
        train(model.engine, rows_of(model), OPTIONS, tmp_path, until=1)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("where", ["adapter", "optimiser"])
def test_memory_that_runs_out_before_the_first_step_is_freed_and_the_training_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, times: int
) -> None:
    from peft.tuners.lora.layer import LoraLayer

    whole = train(tiny_model().engine, rows_of(tiny_model()), OPTIONS, tmp_path / "whole")
    model = tiny_model()
    left, calls = [times], [0]

    def failing(work: Any) -> Any:
        def limited(*given: Any, **named: Any) -> Any:
            calls[0] += 1
            if left[0] and (where == "optimiser" or (IN_TRAINING in given and calls[0] > 5)):  # midway in the layers
                left[0], calls[0] = left[0] - 1, 0
                raise ALLOCATORS[0]
            return work(*given, **named)

        return limited

    with monkeypatch.context() as patch:
        if where == "adapter":
            _ = model.engine.adapters.wrapper
            calls[0] = 0
            patch.setattr(LoraLayer, "update_layer", failing(LoraLayer.update_layer))
        else:
            patch.setattr(torch.optim.AdamW, "step", failing(torch.optim.AdamW.step))
        if times == 1:
            assert same(train(model.engine, rows_of(model), OPTIONS, tmp_path / "parts"), whole)
        else:
            with pytest.raises(torch.OutOfMemoryError):
                train(model.engine, rows_of(model), OPTIONS, tmp_path / "parts")
    assert left == [0]
    assert same(train(model.engine, rows_of(model), OPTIONS, tmp_path / "parts"), whole)
    assert not model.network.training


def test_a_loss_is_the_same_with_less_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    expected = mean_loss(model.engine, rows_of(model), None)
    too_little_memory(monkeypatch, 1, ALLOCATORS[0])
    assert mean_loss(model.engine, rows_of(model), None) == pytest.approx(expected, rel=1e-5)


def test_a_step_already_passed_is_not_given_later_weights(tmp_path: Path) -> None:
    model = tiny_model()
    early = train(model.engine, rows_of(model), OPTIONS, tmp_path / "a", until=2)
    train(model.engine, rows_of(model), OPTIONS, tmp_path / "b", until=4)
    assert same(train(model.engine, rows_of(model), OPTIONS, tmp_path / "b", until=2), early)
    assert same(
        train(model.engine, rows_of(model), OPTIONS, tmp_path / "b"),
        train(model.engine, rows_of(model), OPTIONS, tmp_path / "a"),
    )


def test_a_finished_training_is_not_done_again(tmp_path: Path) -> None:
    model = tiny_model()
    done = train(model.engine, rows_of(model), OPTIONS, tmp_path, until=2)
    seen: list[Progress] = []
    assert train(model.engine, rows_of(model), OPTIONS, tmp_path, until=2, on_step=seen.append) == done and seen == []


@pytest.mark.parametrize("change", ["options", "number of rows", "content of a row"])
def test_a_folder_of_another_training_is_refused(tmp_path: Path, change: str) -> None:
    model = tiny_model()
    rows, options = rows_of(model), OPTIONS
    train(model.engine, rows, options, tmp_path, until=1)
    if change == "options":
        options = replace(OPTIONS, learning_rate=1.0)
    elif change == "number of rows":
        rows = rows[:-1]
    else:
        rows = [*rows[:-1], replace(rows[-1], target=(5, 6, END))]
    with pytest.raises(TrainingError, match="another training"):
        train(model.engine, rows, options, tmp_path, until=2)


def test_a_loss_that_is_no_number_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    model = tiny_model()
    _ = model.engine.adapters.wrapper  # which checks adapters when it is made
    with torch.no_grad():
        model.network.get_output_embeddings().weight[5] = float("nan")
    with pytest.raises(Diverged, match="lower learning rate"):
        train(model.engine, rows_of(model), OPTIONS, tmp_path)
    assert not list(tmp_path.glob("step-*"))
    assert not model.network.training


def test_saving_an_adapter_asks_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import peft.utils.save_and_load as save

    def asked(*_: Any, **__: Any) -> bool:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(save, "check_file_exists_on_hf_hub", asked)
    model = tiny_model()
    train(model.engine, rows_of(model), OPTIONS, tmp_path, until=1)


def test_four_examples_are_learnt_by_heart_and_end_where_they_should(tmp_path: Path) -> None:
    model = tiny_model()
    rows = rows_of(model)
    options = TrainingOptions(learning_rate=1e-2, steps=80, batch_size=4, rank=16, alpha=32)
    seen: list[Progress] = []
    folder = train(model.engine, rows, options, tmp_path, on_step=seen.append)
    # The output layer is not trained, and a random one of width 32 cannot be surer than this.
    assert seen[-1].loss < 0.2 and seen[0].loss > 5
    found = model.generate([Request(turns(text), Decoding(20), adapter=str(folder)) for text, _ in PAIRS])
    assert [(g.text, g.finish) for g in found] == [(answer, "stop") for _, answer in PAIRS]
    assert mean_loss(model.engine, rows, folder) == pytest.approx(seen[-1].loss, abs=0.02)


@pytest.mark.parametrize(
    ("kind", "named"),
    [({"rslora": True}, "use_rslora"), ({"dora": True}, "use_dora"), ({"layers": 0.5}, "layers_to_transform")],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else x,
)
def test_other_kinds_of_adapters_learn_and_say_what_they_are(
    kind: dict[str, Any], named: str, tiny: Any, tmp_path: Path
) -> None:
    rows = rows_of(tiny)
    options = replace(OPTIONS, learning_rate=1e-2, steps=12, batch_size=4, **kind)
    seen: list[Progress] = []
    folder = train(tiny.engine, rows, options, tmp_path, on_step=seen.append)
    assert seen[-1].loss < 0.9 * seen[0].loss
    assert mean_loss(tiny.engine, rows, folder) < mean_loss(tiny.engine, rows, None)
    assert json.loads((folder / "adapter_config.json").read_text())[named]
    layers = {int(name.split(".layers.")[1].split(".")[0]) for name in weights(folder)}
    depth = tiny.network.config.num_hidden_layers
    assert layers == set(range(depth // 2 if "layers" in kind else 0, depth))


def test_every_weight_trained_has_the_gradient_of_the_plain_loop(plain_network: Any) -> None:
    """The step serves full fine-tuning too: shared prefixes and packed rows change no gradient."""
    model = tiny_model()
    rows = rows_of(model)
    model.network.requires_grad_(True)
    loss, _ = backward(model.engine, rows, micro_tokens=64)
    plain = plain_network.train()
    total = sum(len(row.target) for row in rows)
    expected = 0.0
    for row in rows:
        ids = torch.tensor([[*row.prompt, *row.target]])
        logits = plain(ids).logits[0, len(row.prompt) - 1 : -1]
        part = torch.nn.functional.cross_entropy(logits, torch.tensor(row.target), reduction="sum") / total
        part.backward()
        expected += part.item()
    assert loss == pytest.approx(expected, rel=1e-5)
    found = {name: p.grad for name, p in model.network.named_parameters()}
    for name, p in plain.named_parameters():
        assert torch.allclose(found[name], p.grad, rtol=1e-4, atol=1e-6), name


def test_an_error_that_is_kept_keeps_no_memory_of_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, alive = tiny_model(), list[weakref.ref[Any]]()
    begin = torch.optim.AdamW.__init__

    def watched(optimiser: Any, *given: Any, **more: Any) -> None:
        alive.append(weakref.ref(optimiser))
        begin(optimiser, *given, **more)

    def stops(progress: Progress) -> None:
        raise RuntimeError("the budget is spent")

    monkeypatch.setattr(torch.optim.AdamW, "__init__", watched)
    with pytest.raises(RuntimeError, match="budget") as kept:
        train(model.engine, rows_of(model), OPTIONS, tmp_path, on_step=stops)
    gc.collect()
    assert kept.value.__traceback__ is not None and [ref() for ref in alive] == [None]


@pytest.mark.parametrize("change", ["torn", "empty", "other weights"])
def test_a_checkpoint_that_cannot_be_used_is_begun_again(tmp_path: Path, change: str) -> None:
    model = tiny_model()
    whole = train(model.engine, rows_of(model), OPTIONS, tmp_path / "whole")
    train(model.engine, rows_of(model), OPTIONS, tmp_path / "parts", until=2)
    path = tmp_path / "parts" / "checkpoint.pt"
    if change == "other weights":
        content = torch.load(path, weights_only=True)
        del content["parameters"][-1]
        torch.save(content, path)
    else:
        path.write_bytes(path.read_bytes()[: 5_000 if change == "torn" else 0])
    seen: list[Progress] = []
    assert same(train(model.engine, rows_of(model), OPTIONS, tmp_path / "parts", on_step=seen.append), whole)
    assert seen[0].step == 1


def test_a_checkpoint_that_a_full_disk_cuts_leaves_the_one_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model()
    train(model.engine, rows_of(model), OPTIONS, tmp_path, until=2)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def full_disk(content: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="no space"):
        train(model.engine, rows_of(model), OPTIONS, tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before and not list(tmp_path.glob("*.tmp"))


def test_a_gradient_that_is_no_number_ends_a_training_before_it_spoils_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflowing(engine: Any, *given: Any, **more: Any) -> Any:
        found = add_gradients(engine, *given, **more)
        next(p for p in engine.network.parameters() if p.grad is not None).grad.fill_(float("inf"))
        return found

    model = tiny_model()
    monkeypatch.setattr(loop, "add_gradients", overflowing)
    with pytest.raises(Diverged, match="norm of the gradient is"):
        train(model.engine, rows_of(model), replace(OPTIONS, steps=1), tmp_path)
    assert not list(tmp_path.glob("step-*"))
