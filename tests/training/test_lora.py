from __future__ import annotations

import json
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rung.errors import TrainingError, TruncatedAnswer
from rung.engine.adapters import IN_TRAINING
from rung.testing import tiny_model
from rung.training import lora
from rung.training.lora import (
    LoraOptions,
    Progress,
    Row,
    backward,
    batch_indices,
    learning_rate_at,
    mean_loss,
    render_rows,
    steps_per_epoch,
    train,
)
from rung.types import Decoding, Message, Request

END = 2
PAIRS = [("where is my card", "card arrival"), ("lost it", "lost"), ("top up the account", "the top"), ("a", "x y z")]
OPTIONS = LoraOptions(learning_rate=5e-3, steps=6, batch_size=3, rank=4, alpha=8, seed=3)


def turns(text: str) -> tuple[Message, ...]:
    return Message("system", "Answer."), Message("user", text)


def rows_of(model: Any, pairs: list[tuple[str, str]] = PAIRS) -> list[Row]:
    prompts = [model.encode(turns(text)) for text, _ in pairs]
    return render_rows(model, [str(i) for i in range(len(pairs))], prompts, [a for _, a in pairs], max_length=500)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(folder / "adapter_model.safetensors"))


def same(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_the_target_is_the_answer_and_its_end_although_pad_is_the_end_token(tiny: Any) -> None:
    assert tiny.chat.tokenizer.pad_token_id == tiny.chat.end_id == END
    for row, (_, answer) in zip(rows_of(tiny), PAIRS, strict=True):
        assert row.target[-1] == END and row.target.count(END) == 1
        assert tiny.chat.tokenizer.decode(row.target[:-1]) == answer


# ---- loss and gradients ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_adapter() -> Any:
    """A model with a random adapter in training, as `train` sets it up."""
    model = tiny_model()
    lora._fresh_adapter(model, OPTIONS)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.network.named_parameters():
            if p.requires_grad and ".lora_B" in name:
                p.copy_(torch.randn(p.shape, generator=draw) * 0.1)
    return model


def plain_loop(model: Any, folder: Path, batch: list[Row], tmp_path: Path) -> tuple[float, dict[str, torch.Tensor]]:
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


def own_gradients(model: Any, batch: list[Row], micro_tokens: int) -> tuple[float, dict[str, torch.Tensor]]:
    model.network.zero_grad(set_to_none=True)
    loss, _ = backward(model, batch, micro_tokens=micro_tokens)
    named = {n.replace(f".{IN_TRAINING}.", "."): p.grad for n, p in model.network.named_parameters() if p.requires_grad}
    return loss, {n[n.index("layers.") :]: g for n, g in named.items()}


def batches(model: Any) -> dict[str, list[Row]]:
    rows = rows_of(model)
    unlike = Row("u", tuple(model.chat.tokenizer.encode("nothing in common")), rows[0].target)
    return {
        "mixed lengths": rows,
        "one row": rows[:1],
        "no shared beginning": [*rows[:2], unlike],
        "empty answer": [Row("e", rows[0].prompt, (END,)), rows[1]],
    }


@pytest.mark.parametrize("name", ["mixed lengths", "one row", "no shared beginning", "empty answer"])
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
    backward(with_adapter, batch, micro_tokens=40)
    named = [p.grad for p in with_adapter.network.parameters() if p.requires_grad]
    for twice, single in zip(named, once.values(), strict=True):
        torch.testing.assert_close(twice, 2 * single, rtol=1e-4, atol=1e-6)


def test_the_loss_weighs_every_target_token_of_the_batch_alike(with_adapter: Any) -> None:
    rows = rows_of(with_adapter)
    each = [backward(with_adapter, [row], micro_tokens=100)[0] for row in rows]
    tokens = [len(row.target) for row in rows]
    expected = sum(loss * n for loss, n in zip(each, tokens, strict=True)) / sum(tokens)
    for micro_tokens in (1, 50, 1000):
        assert backward(with_adapter, rows, micro_tokens=micro_tokens)[0] == pytest.approx(expected, rel=1e-5)
    assert len(set(tokens)) > 1 and abs(sum(each) / len(each) - expected) > 1e-3, "a mean of means would differ"


def test_the_end_token_is_in_the_loss(with_adapter: Any) -> None:
    row = rows_of(with_adapter)[0]
    answer = Row("r", row.prompt, row.target[:-1])
    end = Row("r", (*row.prompt, *row.target[:-1]), (END,))
    loss = {
        name: backward(with_adapter, [r], micro_tokens=100)[0]
        for name, r in {"both": row, "answer": answer, "end": end}.items()
    }
    n = len(row.target)
    assert loss["both"] * n == pytest.approx(loss["answer"] * (n - 1) + loss["end"], rel=1e-5)
    assert loss["end"] > 0.1


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
    options = LoraOptions(learning_rate=2.0, steps=steps, warmup_share=share)
    rates = [learning_rate_at(step, options) for step in range(steps)]
    expected = [2 * (s + 1) / warmup if s < warmup else 2 * (steps - s) / (steps - warmup) for s in range(steps)]
    assert rates == pytest.approx(expected)
    assert max(rates) == pytest.approx(2.0) and min(rates) > 0


# ---- train ----------------------------------------------------------------------------------


def test_training_leaves_a_peft_folder_and_the_base_as_it_was(tmp_path: Path) -> None:
    model = tiny_model()
    before = {n: p.clone() for n, p in model.network.named_parameters()}
    seen: list[Progress] = []
    folder = train(model, rows_of(model), OPTIONS, tmp_path, on_step=seen.append)
    assert {p.name for p in folder.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    assert not list(tmp_path.glob("*.tmp"))
    assert [p.step for p in seen] == list(range(1, 7)) and seen[-1].steps == 6
    assert all(a.tokens < b.tokens for a, b in pairwise(seen))
    assert any(t.abs().max() > 0 for n, t in weights(folder).items() if "lora_B" in n)
    after = {n.replace(".base_layer", ""): p for n, p in model.network.named_parameters() if ".lora_" not in n}
    assert all(torch.equal(after[n], before[n]) for n in before)
    assert not model.network.training


def test_two_trainings_with_one_seed_are_equal_and_another_seed_differs(tmp_path: Path) -> None:
    first = train(tiny_model(), rows_of(tiny_model()), OPTIONS, tmp_path / "a")
    model = tiny_model()
    train(model, rows_of(model), replace(OPTIONS, seed=9), tmp_path / "c")
    torch.manual_seed(77)  # what happened before in this process does not matter
    assert same(first, train(model, rows_of(model), OPTIONS, tmp_path / "b"))
    assert not same(first, train(model, rows_of(model), replace(OPTIONS, seed=9), tmp_path / "c"))


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("stop", [1, 2, 5])
def test_training_in_two_parts_gives_the_same_adapter_bit_by_bit(tmp_path: Path, stop: int, dropout: float) -> None:
    options = replace(OPTIONS, dropout=dropout)
    whole = train(tiny_model(), rows_of(tiny_model()), options, tmp_path / "whole")
    model = tiny_model()
    part = train(model, rows_of(model), options, tmp_path / "parts", until=stop)
    assert part.name == f"step-{stop}"
    model.generate([Request(turns("x"), Decoding(4, temperature=1.0), adapter=str(part))])
    torch.rand(3)
    assert same(train(model, rows_of(model), options, tmp_path / "parts"), whole)


@pytest.mark.parametrize("checkpoint_every_s", [-1.0, 1e9])
@pytest.mark.parametrize("stop", [1, 3, 6])
def test_a_training_interrupted_at_any_step_goes_on_bit_by_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int, checkpoint_every_s: float
) -> None:
    monkeypatch.setattr(lora, "_CHECKPOINT_EVERY_S", checkpoint_every_s)
    model = tiny_model()
    whole = train(model, rows_of(model), OPTIONS, tmp_path / "whole")

    def interrupt(progress: Progress) -> None:
        if progress.step == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model, rows_of(model), OPTIONS, tmp_path / "torn", on_step=interrupt)
    assert not list((tmp_path / "torn").glob("step-*"))
    steps: list[int] = []
    again = train(model, rows_of(model), OPTIONS, tmp_path / "torn", on_step=lambda p: steps.append(p.step))
    assert same(again, whole)
    assert steps[0] == (stop if checkpoint_every_s < 0 else 1) and steps[-1] == 6


def test_a_step_already_passed_is_not_given_later_weights(tmp_path: Path) -> None:
    model = tiny_model()
    early = train(model, rows_of(model), OPTIONS, tmp_path / "a", until=2)
    train(model, rows_of(model), OPTIONS, tmp_path / "b", until=4)
    assert same(train(model, rows_of(model), OPTIONS, tmp_path / "b", until=2), early)
    assert same(
        train(model, rows_of(model), OPTIONS, tmp_path / "b"), train(model, rows_of(model), OPTIONS, tmp_path / "a")
    )


def test_a_finished_training_is_not_done_again(tmp_path: Path) -> None:
    model = tiny_model()
    done = train(model, rows_of(model), OPTIONS, tmp_path, until=2)
    seen: list[Progress] = []
    assert train(model, rows_of(model), OPTIONS, tmp_path, until=2, on_step=seen.append) == done and seen == []


@pytest.mark.parametrize("change", ["options", "number of rows", "content of a row"])
def test_a_folder_of_another_training_is_refused(tmp_path: Path, change: str) -> None:
    model = tiny_model()
    rows, options = rows_of(model), OPTIONS
    train(model, rows, options, tmp_path, until=1)
    if change == "options":
        options = replace(OPTIONS, learning_rate=1.0)
    elif change == "number of rows":
        rows = rows[:-1]
    else:
        rows = [*rows[:-1], replace(rows[-1], target=(5, 6, END))]
    with pytest.raises(TrainingError, match="another training"):
        train(model, rows, options, tmp_path, until=2)


def test_a_loss_that_is_no_number_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.network.get_output_embeddings().weight[5] = float("nan")
    with pytest.raises(TrainingError, match="lower learning rate"):
        train(model, rows_of(model), OPTIONS, tmp_path)
    assert not list(tmp_path.glob("step-*"))
    assert not model.network.training


def test_saving_an_adapter_asks_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import peft.utils.save_and_load as save

    def asked(*_: Any, **__: Any) -> bool:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(save, "check_file_exists_on_hf_hub", asked)
    model = tiny_model()
    train(model, rows_of(model), OPTIONS, tmp_path, until=1)


def test_rows_whose_answer_would_be_cut_are_named(tiny: Any) -> None:
    prompts = [[5] * n for n in (10, 99, 50, 100, 200)]
    ids = [f"examples.jsonl, line {i}" for i in range(1, 6)]
    with pytest.raises(TruncatedAnswer) as caught:
        render_rows(tiny, ids, prompts, ["x"] * 5, max_length=100)
    message = str(caught.value)
    assert message.startswith("3 of 5 training examples do not fit 100 tokens")
    assert [i for i in range(1, 6) if f"line {i} (" in message] == [2, 4, 5]
    assert len(render_rows(tiny, ids[:1], [[5] * 98], ["x"], max_length=100)) == 1


def test_four_examples_are_learnt_by_heart_and_end_where_they_should(tmp_path: Path) -> None:
    model = tiny_model()
    rows = rows_of(model)
    options = LoraOptions(learning_rate=1e-2, steps=80, batch_size=4, rank=16, alpha=32)
    seen: list[Progress] = []
    folder = train(model, rows, options, tmp_path, on_step=seen.append)
    # The output layer is not trained, and a random one of width 32 cannot be surer than this.
    assert seen[-1].loss < 0.2 and seen[0].loss > 5
    found = model.generate([Request(turns(text), Decoding(20), adapter=str(folder)) for text, _ in PAIRS])
    assert [(g.text, g.finish) for g in found] == [(answer, "stop") for _, answer in PAIRS]
    assert mean_loss(model, rows, folder) == pytest.approx(seen[-1].loss, abs=0.02)


@pytest.mark.parametrize(
    ("kind", "told"),
    [({"rslora": True}, "use_rslora"), ({"dora": True}, "use_dora"), ({"layers": 0.5}, "layers_to_transform")],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else x,
)
def test_other_kinds_of_adapters_learn_and_say_what_they_are(
    kind: dict[str, Any], told: str, tiny: Any, tmp_path: Path
) -> None:
    rows = rows_of(tiny)
    options = replace(OPTIONS, learning_rate=1e-2, steps=12, batch_size=4, **kind)
    seen: list[Progress] = []
    folder = train(tiny, rows, options, tmp_path, on_step=seen.append)
    assert seen[-1].loss < 0.9 * seen[0].loss
    assert mean_loss(tiny, rows, folder) < mean_loss(tiny, rows, None)
    assert json.loads((folder / "adapter_config.json").read_text())[told]
    layers = {int(name.split(".layers.")[1].split(".")[0]) for name in weights(folder)}
    depth = tiny.network.config.num_hidden_layers
    assert layers == set(range(depth // 2 if "layers" in kind else 0, depth))


def test_every_weight_trained_has_the_gradient_of_the_plain_loop(plain_network: Any) -> None:
    """The step serves full fine-tuning too: shared beginnings and packed rows change no gradient."""
    model = tiny_model()
    rows = rows_of(model)
    model.network.requires_grad_(True)
    loss, _ = backward(model, rows, micro_tokens=64)
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
