"""Full fine-tuning: a folder that transformers loads, and a base that stays as it was."""

from __future__ import annotations

import json
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from rung.engine.whole_weights import is_whole, weights_of
from rung.errors import Diverged, ModelError, OutOfMemory, TrainingError
from rung.models import open_model
from rung.models.loading import load_model
from rung.models.local import LocalModel
from rung.testing import save_tiny_model, tiny_model
from rung.training import loop, loss, whole
from rung.training.batches import TokenRow
from rung.training.loop import train
from rung.training.loss import mean_loss
from rung.types import Decoding, Message, Progress, Request, TrainingOptions, TrainingRow
from trained import same, weights

OPTIONS = TrainingOptions(learning_rate=1e-3, steps=6, batch_size=3, seed=3, full=True)
PAIRS = [("where is my card", "card arrival"), ("lost it", "lost"), ("top up the account", "the top"), ("a", "x y z")]


def turns(text: str) -> tuple[Message, ...]:
    return Message("system", "Answer."), Message("user", text)


def rows_of(model: Any) -> list[TokenRow]:
    return [
        TokenRow(str(i), tuple(model.encode(turns(text))), tuple(model.encode_answer(answer)))
        for i, (text, answer) in enumerate(PAIRS)
    ]


def asked(adapter: Path | None) -> list[Request]:
    return [Request(turns(text), Decoding(6), adapter=str(adapter) if adapter else None) for text, _ in PAIRS]


def copies(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in weights_of(model.network).items()}


def is_as_before(model: Any, before: dict[str, torch.Tensor]) -> bool:
    now = weights_of(model.network)
    return now.keys() == before.keys() and all(
        torch.equal(p, before[name]) and not p.requires_grad and p.grad is None for name, p in now.items()
    )


def tied_model(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The tiny model with one weight for the embeddings and the output layer."""
    from transformers import AutoModelForCausalLM

    save_tiny_model(folder)
    network = AutoModelForCausalLM.from_pretrained(folder)
    network.config.tie_word_embeddings = True
    network.tie_weights()
    network.save_pretrained(folder)
    return load_model(str(folder), device="cpu", dtype=dtype)


# ---- what is learnt -------------------------------------------------------------------------


def test_the_result_is_a_folder_that_transformers_loads_and_answers_the_same(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = tiny_model()
    before, plain = copies(model), [g.text for g in model.generate(asked(None))]
    folder = train(model.engine, rows_of(model), replace(OPTIONS, steps=30), tmp_path)
    assert is_whole(folder) and not list(tmp_path.glob("*.tmp")) and not model.network.training
    assert is_as_before(model, before)
    network = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.tensor([model.encode(turns("lost it"))])
    with torch.inference_mode():
        expected = network(ids).logits[0, -1]
        with model.engine.adapters.using(str(folder)):
            found = model.engine.scores([(ids[0].tolist(), [5])])[0][0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    tuned = [g.text for g in model.generate(asked(folder))]
    assert tuned != plain and [g.text for g in model.generate(asked(None))] == plain
    mixed = model.generate([asked(folder)[0], asked(None)[0], asked(folder)[1]])
    assert [g.text for g in mixed] == [tuned[0], plain[0], tuned[1]]
    assert is_as_before(model, before)
    assert mean_loss(model.engine, rows_of(model), folder) < 0.8 * mean_loss(model.engine, rows_of(model), None)


def test_the_result_is_a_model_by_itself_for_rung_and_for_any_other_program(tiny_folder: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    model = load_model(str(tiny_folder), device="cpu", dtype=torch.float32)
    rows = [TrainingRow(str(i), turns(text), answer) for i, (text, answer) in enumerate(PAIRS)]
    folder = model.train(rows, replace(OPTIONS, steps=30), tmp_path / "full")
    record = json.loads((folder / "base.json").read_text())
    assert record == {"model": str(tiny_folder), "base": str(tiny_folder), "version": model.version}
    again = load_model(str(folder), device="cpu", dtype=torch.float32)
    assert [g.text for g in again.generate(asked(None))] == [g.text for g in model.generate(asked(folder))]
    chat = [{"role": m.role, "content": m.content} for m in turns("lost it")]
    written = AutoTokenizer.from_pretrained(folder).apply_chat_template(chat, add_generation_prompt=True)
    assert written["input_ids"] == model.encode(turns("lost it"))


def test_a_tokenizer_whose_files_are_gone_is_saved_anew(tmp_path: Path) -> None:
    model = tiny_model()  # its folder lived as long as it was read
    row = TrainingRow("a", turns("lost it"), "lost")
    again = open_model(str(model.train([row], replace(OPTIONS, steps=1), tmp_path / "full")))
    assert isinstance(again, LocalModel) and again.encode(turns("lost it")) == model.encode(turns("lost it"))


def test_every_weight_moves_and_beside_an_adapter_it_moves_the_same_way(tmp_path: Path) -> None:
    model = tiny_model()
    alone = train(model.engine, rows_of(model), OPTIONS, tmp_path / "a")
    base = copies(model)
    assert all(not torch.equal(tensor, base[name]) for name, tensor in weights(alone).items())
    adapter = train(model.engine, rows_of(model), replace(OPTIONS, full=False, rank=4), tmp_path / "adapter")
    expected = [g.text for g in model.generate(asked(adapter))]
    other = train(model.engine, rows_of(model), OPTIONS, tmp_path / "b")  # PEFT has wrapped the layers now
    assert weights(other).keys() == weights(alone).keys()
    for name, tensor in weights(alone).items():
        torch.testing.assert_close(weights(other)[name], tensor, rtol=1e-3, atol=1e-5)
    assert [g.text for g in model.generate(asked(adapter))] == expected
    assert is_as_before(model, base)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tied_weights_stay_tied_and_half_precision_learns_too(tmp_path: Path, dtype: torch.dtype) -> None:
    model = tied_model(tmp_path / "model", dtype)
    before = copies(model)
    seen: list[Progress] = []
    options = replace(OPTIONS, learning_rate=3e-4, steps=20, batch_size=4)
    folder = train(model.engine, rows_of(model), options, tmp_path / "t", on_step=seen.append)
    assert seen[-1].loss < 0.97 * seen[0].loss
    assert "lm_head.weight" not in weights(folder) and {t.dtype for t in weights(folder).values()} == {dtype}
    assert model.network.lm_head.weight is model.network.model.embed_tokens.weight
    with model.engine.adapters.using(str(folder)):
        assert torch.equal(model.network.lm_head.weight, weights(folder)["model.embed_tokens.weight"])
    assert is_as_before(model, before)


def test_steps_smaller_than_half_precision_can_tell_add_up(tmp_path: Path) -> None:
    model = tied_model(tmp_path / "model", torch.bfloat16)
    options = replace(OPTIONS, learning_rate=2e-5, steps=40, warmup_share=0.0)
    early = weights(train(model.engine, rows_of(model), options, tmp_path / "t", until=1))
    late = weights(train(model.engine, rows_of(model), options, tmp_path / "t"))
    base = weights(tmp_path / "model")
    name = "model.layers.0.self_attn.q_proj.weight"
    moved = [(w[name] != base[name].to(torch.bfloat16)).float().mean().item() for w in (early, late)]
    assert moved[0] < 0.5 * moved[1]


# ---- continuing -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_in_two_parts_gives_the_same_weights_bit_by_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    model = tied_model(tmp_path / "model", dtype)
    whole_run = train(model.engine, rows_of(model), OPTIONS, tmp_path / "whole")
    part = train(model.engine, rows_of(model), OPTIONS, tmp_path / "parts", until=2)
    model.generate(asked(part))
    torch.rand(3)
    assert same(train(model.engine, rows_of(model), OPTIONS, tmp_path / "parts"), whole_run)


def test_a_training_goes_on_from_the_weights_of_another_folder(tmp_path: Path) -> None:
    model = tiny_model()
    first = train(model.engine, rows_of(model), replace(OPTIONS, steps=30), tmp_path / "a")
    expected, seen = mean_loss(model.engine, rows_of(model), first), list[Progress]()
    options = replace(OPTIONS, batch_size=4)
    train(model.engine, rows_of(model), options, tmp_path / "b", start=first, on_step=seen.append)
    assert seen[0].loss == pytest.approx(expected, rel=1e-4)
    with pytest.raises(TrainingError, match="another training"):
        train(model.engine, rows_of(model), options, tmp_path / "b", until=1)


def fails(error: BaseException) -> Any:
    def on_step(progress: Progress) -> None:
        if progress.step == 2:
            raise error

    return on_step


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a listener"), torch.OutOfMemoryError("CUDA")])
def test_the_base_is_put_back_bit_by_bit_whatever_ends_a_training(tmp_path: Path, error: BaseException) -> None:
    model = tiny_model()
    before, plain = copies(model), [g.text for g in model.generate(asked(None))]
    with pytest.raises(type(error)):
        train(model.engine, rows_of(model), OPTIONS, tmp_path, on_step=fails(error))
    assert is_as_before(model, before) and not model.network.training
    assert [g.text for g in model.generate(asked(None))] == plain
    expected = train(model.engine, rows_of(model), OPTIONS, tmp_path / "again")
    assert same(train(model.engine, rows_of(model), OPTIONS, tmp_path), expected)


def test_the_base_is_put_back_where_memory_or_the_loss_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    before = copies(model)

    def full_memory(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(loss, "summed_loss", full_memory)
        with pytest.raises(OutOfMemory, match="one row at a time"):
            train(model.engine, rows_of(model), OPTIONS, tmp_path / "a")
    assert is_as_before(model, before)
    with pytest.raises(Diverged):
        train(model.engine, rows_of(model), replace(OPTIONS, learning_rate=1e30, max_grad_norm=1e30), tmp_path / "b")
    assert is_as_before(model, before)


# ---- what does not fit ----------------------------------------------------------------------


def test_what_is_needed_is_computed_beforehand_and_told_with_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model()
    numbers = sum(p.numel() for p in model.network.parameters())
    assert whole.bytes_needed(model.engine) == 16 * numbers and whole.bytes_written(model.engine) == 28 * numbers
    before = copies(model)
    with monkeypatch.context() as patch:
        patch.setattr(whole, "free_bytes", lambda device: 16 * numbers - 1)
        with pytest.raises(OutOfMemory, match=r"needs \d+\.\d GB of memory .* \d+\.\d GB are free"):
            train(model.engine, rows_of(model), OPTIONS, tmp_path)
        patch.setattr(whole, "free_bytes", lambda device: 16 * numbers)
        patch.setattr(whole.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 0}))
        with pytest.raises(TrainingError, match="GB of disk"):
            train(model.engine, rows_of(model), OPTIONS, tmp_path)
    assert is_as_before(model, before)
    train(model.engine, rows_of(model), OPTIONS, tmp_path / "parts", until=1)
    with monkeypatch.context() as patch:  # one of the two checkpoints is on disk already
        patch.setattr(whole.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 16 * numbers}))
        assert train(model.engine, rows_of(model), OPTIONS, tmp_path / "parts", until=2).is_dir()
    assert train(model.engine, rows_of(model), OPTIONS, tmp_path).is_dir()


def test_weights_in_few_bits_cannot_be_trained(tmp_path: Path) -> None:
    model = tiny_model()
    layer = model.network.model.layers[0].mlp.up_proj
    layer.weight = torch.nn.Parameter(layer.weight.to(torch.uint8), requires_grad=False)
    with pytest.raises(TrainingError, match="few bits"):
        train(model.engine, rows_of(model), OPTIONS, tmp_path)


@pytest.mark.parametrize("change", ["shape", "missing", "more", "torn", "empty"])
def test_weights_that_are_not_the_networks_own_are_refused(tmp_path: Path, change: str) -> None:
    model = tiny_model()
    before = copies(model)
    folder = train(model.engine, rows_of(model), OPTIONS, tmp_path, until=1)
    given = weights(folder)
    name = "model.layers.1.mlp.up_proj.weight"
    if change == "shape":
        given[name] = given[name][:-1].contiguous()
    elif change == "missing":
        del given[name]
    elif change == "more":
        given["model.layers.2.mlp.up_proj.weight"] = given[name].clone()
    if change == "torn":
        (folder / "model.safetensors").write_bytes(b"torn")
    elif change == "empty":
        (folder / "model.safetensors").unlink()
    else:
        save_file(given, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="weights "):
        model.generate(asked(folder))
    assert is_as_before(model, before)


def test_checkpoints_of_all_weights_are_written_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    keep = loop.save

    def counted(folder: Path, parameters: Any, optimiser: Any, state: Any, *more: Any) -> None:
        written.append(state.step)
        keep(folder, parameters, optimiser, state, *more)

    clock = iter(range(0, 100_000, 30))
    monkeypatch.setattr(loop, "save", counted)
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(clock)))
    model = tiny_model()
    train(model.engine, rows_of(model), replace(OPTIONS, full=False, rank=4), tmp_path / "a")
    often, written[:] = list(written), []
    train(model.engine, rows_of(model), OPTIONS, tmp_path / "b")
    assert often == [1, 2, 3, 4, 5, 6] and written[-1] == 6 and len(written) <= 3


def test_at_its_end_the_weights_stay_and_the_optimisers_memory_goes(tmp_path: Path) -> None:
    model = tiny_model()
    train(model.engine, rows_of(model), OPTIONS, tmp_path, until=2)
    assert (tmp_path / "checkpoint.pt").is_file()
    train(model.engine, rows_of(model), OPTIONS, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-2", "step-6", "training.json"]


def test_weights_that_stand_by_are_freed_when_memory_is_needed(tmp_path: Path) -> None:
    model = tiny_model()
    before = copies(model)
    folder = train(model.engine, rows_of(model), OPTIONS, tmp_path / "a", until=1)
    expected = [g.text for g in model.generate(asked(folder))]
    standing = weakref.ref(model.engine.adapters.whole._loaded[0][1])
    with model.engine.adapters.using(str(folder)):
        model.engine.make_room()
        assert not is_as_before(model, before), "what is in use stays"
    assert is_as_before(model, before) and standing() is not None
    model.engine.make_room()
    assert standing() is None
    assert [g.text for g in model.generate(asked(folder))] == expected
