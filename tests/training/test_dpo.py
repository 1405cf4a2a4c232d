"""Direct preference optimisation: loss and gradients against plain torch, and a training that can be killed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import logsigmoid

from rung.engine.adapters import IN_TRAINING
from rung.engine.engine import Engine
from rung.engine.loading_check import checked_engine
from rung.engine.target_modules import adaptable_layers
from rung.errors import OutOfMemory, TrainingError
from rung.testing import tiny_model
from rung.training import loop, preferences
from rung.training.batches import TokenPair, TokenRow
from rung.training.loop import train
from rung.training.loss import add_gradients, backward
from rung.training.preferences import REFERENCE, dpo, log_probabilities, with_reference
from rung.types import DPO, Message, PreferenceRow, Progress, TrainingOptions
from small_networks import plain_copy, small_network
from trained import OPTIONS, same

HOW = DPO(beta=0.3, sft=0.5)
ANSWERS = [
    ("where is my card", "card", "the card is"),
    ("lost it", "x y z", "lost"),
    ("a", "top", "b"),
    ("bb", "c", "dd"),
]


def pairs_of(model: Any, references: tuple[float, ...] = (0.7, -1.2, 0.0, 2.0)) -> list[TokenPair]:
    def row(text: str, answer: str) -> TokenRow:
        asked = (Message("system", "Answer."), Message("user", text))
        return TokenRow(text, tuple(model.encode(asked)), tuple(model.encode_answer(answer)))

    return [
        TokenPair(row(text, chosen), row(text, rejected), reference)
        for (text, chosen, rejected), reference in zip(ANSWERS, references, strict=True)
    ]


def plain_log_probability(network: Any, row: TokenRow) -> torch.Tensor:
    """Of the whole answer, from one unpadded pass of transformers."""
    ids = torch.tensor([[*row.prompt, *row.target]])
    scores = network(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
    places = range(len(row.prompt) - 1, len(row.prompt) + len(row.target) - 1)
    return torch.stack([scores[place, token] for place, token in zip(places, row.target, strict=True)]).sum()


def plain_loss(network: Any, pairs: list[TokenPair], how: DPO) -> torch.Tensor:
    """The formula as Rafailov et al. and Pang et al. write it, a pair at a time."""
    found = []
    for pair in pairs:
        chosen, rejected = (plain_log_probability(network, row) for row in pair.rows)
        margin = (chosen - rejected) - pair.reference
        found.append(-logsigmoid(how.beta * margin) - how.sft * chosen / len(pair.chosen.target))
    return torch.stack(found).mean()


def train_on_pairs(
    engine: Engine,
    pairs: list[TokenPair],
    options: TrainingOptions,
    folder: Path,
    *,
    how: DPO,
    start: Path | None = None,
    on_step: Callable[[Progress], None] = lambda _: None,
    **more: Any,
) -> Path:
    known = with_reference(engine, pairs, options, folder, how=how, start=start, on_step=on_step)
    return train(engine, known, options, folder, loss=dpo(how), start=start, on_step=on_step, **more)


def gradients(network: Any) -> dict[str, torch.Tensor]:
    named = {n: p.grad for n, p in network.named_parameters() if p.requires_grad and p.grad is not None}
    own = re.compile(r"\d.*")  # from the number of the layer on: wrappers add names before it
    return {own.search(n.replace(f".{IN_TRAINING}.", ".").replace(".default.", "."))[0]: g for n, g in named.items()}  # type: ignore[index]


@pytest.mark.parametrize("micro_tokens", [1, 60, 10_000])
@pytest.mark.parametrize("how", [HOW, DPO(beta=0.1, sft=0.0)])
def test_loss_and_gradients_equal_the_formula_in_plain_torch(
    with_adapter: Any, tiny_folder: Path, tmp_path: Path, micro_tokens: int, how: DPO
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model, pairs = with_adapter, pairs_of(with_adapter)
    wrapper = model.engine.adapters.wrapper
    wrapper.save_pretrained(tmp_path, selected_adapters=[IN_TRAINING], save_embedding_layers=False)
    plain = AutoModelForCausalLM.from_pretrained(tiny_folder, attn_implementation="eager")
    plain = PeftModel.from_pretrained(plain, str(tmp_path / IN_TRAINING), is_trainable=True)
    expected = plain_loss(plain, pairs, how)
    expected.backward()
    model.network.zero_grad(set_to_none=True)
    loss, _ = backward(model.engine, pairs, micro_tokens=micro_tokens, loss=dpo(how))
    assert loss == pytest.approx(float(expected.detach()), rel=1e-4)
    found, wanted = gradients(model.network), gradients(plain)
    assert set(found) == set(wanted) and len(found) == 2 * 7 * 2
    for name, gradient in wanted.items():
        assert float((found[name] - gradient).norm() / gradient.norm()) < 1e-3, name


@pytest.mark.parametrize("name", ["bloom", "mamba", "cohere"])
def test_both_engines_compute_the_same_loss_and_gradients(name: str) -> None:
    from peft import LoraConfig, get_peft_model

    network = small_network(name)
    plain, engine = plain_copy(network), checked_engine(network, name)
    prompts = [[(7 * i + k) % 90 + 4 for i in range(length)] for k, length in enumerate((9, 3, 14))]
    pairs = [
        TokenPair(TokenRow("c", tuple(p), (5 + k, 9, 2)), TokenRow("r", tuple(p), (11, 2)), 0.2 * k)
        for k, p in enumerate(prompts)
    ]
    with torch.random.fork_rng(devices=[]):
        targets = adaptable_layers(plain)
        engine.adapters.begin_training(LoraConfig(r=4, lora_alpha=8, target_modules=targets), 3)
        loss, _ = backward(engine, pairs, micro_tokens=30, loss=dpo(HOW))
        torch.manual_seed(3)
        wrapped = get_peft_model(plain, LoraConfig(r=4, lora_alpha=8, target_modules=targets), IN_TRAINING)
        expected = plain_loss(wrapped, pairs, HOW)
        expected.backward()
    assert loss == pytest.approx(float(expected.detach()), rel=1e-4)
    found, wanted = gradients(engine.network), gradients(wrapped)
    moved = {name for name, gradient in wanted.items() if float(gradient.norm()) > 0}
    assert moved and set(found) >= moved
    for name in moved:
        assert float((found[name] - wanted[name]).norm() / wanted[name].norm()) < 1e-3, name


def test_the_loss_is_that_of_trl() -> None:
    """The sigmoid loss with rpo_alpha as TRL writes it, of one pair: TRL weighs all tokens of a batch alike."""
    logits = torch.randn(5, 11, generator=torch.Generator().manual_seed(0))
    pair = TokenPair(TokenRow("c", (1,), (3, 4, 2)), TokenRow("r", (1,), (7, 2)), reference=0.4)
    targets = torch.tensor([3, 4, 2, 7, 2])
    each = logits.log_softmax(-1).gather(1, targets[:, None]).squeeze(1)
    policy_chosen, policy_rejected = each[:3].sum(), each[3:].sum()
    ref_chosen, ref_rejected = 1.4, 1.0
    logratios = policy_chosen - policy_rejected - (ref_chosen - ref_rejected)
    losses = -logsigmoid(0.3 * logratios) + 0.5 * torch.nn.functional.cross_entropy(logits[:3], targets[:3])
    torch.testing.assert_close(dpo(HOW).of(logits, targets, [pair]), losses)


def test_a_training_begins_at_the_loss_of_equal_odds_and_the_margin_grows(tmp_path: Path, plain_network: Any) -> None:
    from peft import PeftModel

    model, seen = tiny_model(), list[Progress]()
    pairs = pairs_of(model)
    start = train(model.engine, [p.rejected for p in pairs], OPTIONS, tmp_path / "sft")
    options = replace(OPTIONS, batch_size=4, steps=12, learning_rate=2e-3)
    folder = tmp_path / "dpo"
    adapter = train_on_pairs(model.engine, pairs, options, folder, how=DPO(0.1, 0.0), start=start, on_step=seen.append)
    assert seen[0].step == 0 and seen[1].loss == pytest.approx(math.log(2), abs=1e-5)
    assert seen[-1].loss < seen[1].loss
    before, after = (log_probabilities(model.engine, pairs, place) for place in (start, adapter))
    assert all(a[0] - a[1] > b[0] - b[1] for a, b in zip(after, before, strict=True)), "each pair's margin"
    (line,) = (json.loads(text) for text in (folder / REFERENCE).read_text("utf-8").splitlines())
    assert list(zip(line["chosen"], line["rejected"], strict=True)) == before
    tuned = PeftModel.from_pretrained(plain_network, str(start)).eval()
    for known, pair in zip(before, pairs, strict=True):
        with torch.inference_mode():
            assert known == pytest.approx([float(plain_log_probability(tuned, r)) for r in pair.rows], abs=1e-3)


def test_the_term_of_the_chosen_answers_makes_these_likelier(tmp_path: Path) -> None:
    model = tiny_model()
    pairs, options = pairs_of(model), replace(OPTIONS, batch_size=4, steps=12, learning_rate=2e-3)
    (plain, both) = (
        train_on_pairs(model.engine, pairs, options, tmp_path / f"{sft}", how=DPO(0.1, sft)) for sft in (0.0, 1.0)
    )
    base, alone, beside = (
        sum(chosen for chosen, _ in log_probabilities(model.engine, pairs, place)) for place in (None, plain, both)
    )
    assert beside > alone and beside > base


@pytest.mark.parametrize("stop", [1, 4])
@pytest.mark.parametrize("checkpoint_every_s", [-1.0, 1e9])
def test_a_training_killed_in_any_step_goes_on_bit_by_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int, checkpoint_every_s: float
) -> None:
    monkeypatch.setattr(loop, "_CHECKPOINT_EVERY_S", checkpoint_every_s)
    model = tiny_model()
    pairs = pairs_of(model)
    start = train(model.engine, [p.chosen for p in pairs], replace(OPTIONS, steps=2), tmp_path / "sft")

    def to(folder: str, **more: Any) -> Path:
        return train_on_pairs(model.engine, pairs, OPTIONS, tmp_path / folder, how=HOW, start=start, **more)

    whole, calls = to("whole"), list[int]()

    def killed(*given: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) > stop:
            raise KeyboardInterrupt
        return add_gradients(*given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "add_gradients", killed)
        with pytest.raises(KeyboardInterrupt):
            to("torn")
    steps: list[int] = []
    assert same(to("torn", on_step=lambda p: steps.append(p.step)), whole)
    assert steps[0] == (stop + 1 if checkpoint_every_s < 0 else 1) and steps[-1] == 6, "no reference is computed twice"


def test_a_reference_that_was_killed_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preferences, "_BLOCK", 1)
    model = tiny_model()
    pairs = pairs_of(model)
    whole = train_on_pairs(model.engine, pairs, OPTIONS, tmp_path / "whole", how=HOW)
    told = iter(range(10))

    def stop(progress: Progress) -> None:
        if next(told) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_on_pairs(model.engine, pairs, OPTIONS, tmp_path / "torn", how=HOW, on_step=stop)
    record = tmp_path / "torn" / REFERENCE
    assert len(record.read_bytes().splitlines()) == 2
    with record.open("ab") as file:
        file.write(b'{"chosen": [1')
    seen: list[int] = []
    again = train_on_pairs(
        model.engine, pairs, OPTIONS, tmp_path / "torn", how=HOW, on_step=lambda p: seen.append(p.step)
    )
    assert seen[:3] == [0, 0, 1] and same(again, whole)


def test_a_folder_belongs_to_its_pairs_and_to_how_they_are_learnt(tmp_path: Path) -> None:
    model = tiny_model()
    pairs = pairs_of(model)
    train_on_pairs(model.engine, pairs, OPTIONS, tmp_path, how=HOW, until=1)
    turned = [TokenPair(pair.rejected, pair.chosen) for pair in pairs]
    for other, how in ((turned, HOW), (pairs, DPO(beta=0.2, sft=0.5))):
        with pytest.raises(TrainingError, match="holds another training"):
            train_on_pairs(model.engine, other, OPTIONS, tmp_path, how=how)
    with pytest.raises(TrainingError, match="holds another training"):
        train(model.engine, [pair.chosen for pair in pairs], OPTIONS, tmp_path)


def test_pairs_that_do_not_fit_in_memory_together_go_through_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rung.training import loss

    model, expected, seen, sizes = tiny_model(), list[float](), list[float](), list[int]()
    pairs, whole, most = pairs_of(model), loss.target_logits, [1]
    train_on_pairs(model.engine, pairs, OPTIONS, tmp_path / "a", how=HOW, on_step=lambda p: expected.append(p.loss))

    def limited(engine: Any, part: Any, *more: Any) -> Any:
        if len(part) > most[0]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        sizes.append(len(part))
        return whole(engine, part, *more)

    for room in (loss, preferences):
        monkeypatch.setattr(room, "target_logits", limited)
    train_on_pairs(model.engine, pairs, OPTIONS, tmp_path / "b", how=HOW, on_step=lambda p: seen.append(p.loss))
    assert set(sizes) == {1} and seen == pytest.approx(expected, rel=1e-3)
    most[0] = 0
    with pytest.raises((OutOfMemory, torch.OutOfMemoryError)):
        train_on_pairs(model.engine, pairs, OPTIONS, tmp_path / "c", how=HOW)


def rows() -> Iterator[PreferenceRow]:
    for text, chosen, rejected in ANSWERS:
        yield PreferenceRow(text, (Message("user", text),), chosen, rejected)


def test_a_model_learns_from_pairs_and_all_weights_may_be_trained(tmp_path: Path) -> None:
    model: Any = tiny_model()
    asked = list(rows())
    options = replace(OPTIONS, batch_size=4)
    adapter = model.prefer(asked, options, tmp_path / "a", how=HOW)
    again = model.prefer(asked, options, tmp_path / "b", how=HOW, until=2)
    assert again.name == "step-2"
    assert same(model.prefer(asked, options, tmp_path / "b", how=HOW), adapter)
    full = model.prefer(asked, replace(options, full=True, learning_rate=1e-3), tmp_path / "f", how=HOW)
    assert (full / "config.json").is_file() and (full / "tokenizer.json").is_file()
