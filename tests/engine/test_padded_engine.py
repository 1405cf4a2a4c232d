from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import pytest
import torch

from rung.engine import loading_check
from rung.engine.adapters import IN_TRAINING
from rung.engine.decode import Job, decode, logprobs
from rung.engine.engine import Engine
from rung.engine.loading_check import checked_engine
from rung.engine.padded_answers import Choice
from rung.engine.padded_engine import PaddedEngine
from rung.engine.probe import relative_error
from rung.engine.target_modules import adaptable_layers
from rung.training.batches import TokenRow
from rung.training.loss import backward
from small_networks import VOCABULARY, plain_answer, plain_copy, small_network

PADDED = ["mamba", "jamba", "falcon_h1", "lfm2", "qwen3_next", "gpt_neo", "bloom", "falcon", "diffllama"]
TREE = ["granite", "cohere", "gemma2", "opt"]


def prompts() -> list[list[int]]:
    """Of different lengths; three share a beginning."""
    begin = [(7 * i) % 90 + 4 for i in range(12)]
    own = [[(11 * i + 5 * k) % 90 + 4 for i in range(length)] for k, length in enumerate((9, 2, 5))]
    return [begin + own[0], begin + own[1], own[2], begin + own[2], [4, 5]]


def answers(engine: Engine, jobs: list[Job], stops: tuple[int, ...] = ()) -> list[list[int] | None]:
    found = dict(pair for batch in decode(engine, jobs, stops) for pair in batch)
    return [found[i] for i in range(len(jobs))]


@pytest.mark.parametrize("name", PADDED + TREE)
def test_a_batch_of_unequal_prompts_is_answered_as_transformers_answers_each(name: str) -> None:
    network = small_network(name)
    plain = plain_copy(network)
    engine = checked_engine(network, name)
    assert engine.path == ("padded" if name in PADDED else "tree"), engine.reason
    jobs = [Job(prompt, most) for prompt, most in zip(prompts(), (10, 7, 10, 3, 10), strict=True)]
    assert answers(engine, jobs) == [plain_answer(plain, job.prompt, job.most) for job in jobs]


def test_padding_in_front_that_is_no_number_in_half_precision_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small_network("jamba", dtype=torch.bfloat16)
    own = type(network).forward

    def overflowing(self: Any, *given: Any, attention_mask: Any = None, **more: Any) -> Any:
        out = own(self, *given, attention_mask=attention_mask, **more)
        if attention_mask is not None and self.get_output_embeddings().weight.dtype == torch.bfloat16:
            out.logits[attention_mask[:, 0] == 0] = float("nan")
        return out

    monkeypatch.setattr(type(network), "forward", functools.wraps(own)(overflowing))
    engine = checked_engine(network, "jamba")
    assert isinstance(engine, PaddedEngine) and engine.batches and not engine.pads_left


@pytest.mark.parametrize("name", ["jamba", "rwkv"])
def test_memory_that_runs_out_in_the_middle_of_answers_changes_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = checked_engine(small_network(name), name)
    jobs = [Job(prompt, 5 + i, temperature=i % 2, seed=i) for i, prompt in enumerate(prompts() * 2)]
    expected = answers(engine, jobs)
    whole, failed = Choice.processor, list[int]()

    def limited(self: Any, ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        if len(logits) > 1 and len(self.answers[0]) == 2:
            failed.append(len(logits))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, ids, logits)

    monkeypatch.setattr(Choice, "processor", limited)
    assert answers(engine, jobs) == expected
    assert bool(failed) == engine.batches


def test_prompts_of_one_length_are_answered_alone_where_transformers_mixes_their_states() -> None:
    network = small_network("rwkv")
    plain, engine = plain_copy(network), checked_engine(network, "rwkv")
    jobs = [Job([(7 * i + 5 * k * k) % 90 + 4 for i in range(9)], 5) for k in range(3)]
    assert answers(engine, jobs) == [plain_answer(plain, job.prompt, job.most) for job in jobs]


def test_an_answer_ends_by_any_stop_token_while_others_go_on() -> None:
    network = small_network("mamba")
    plain, engine = plain_copy(network), checked_engine(network, "mamba")
    whole = [plain_answer(plain, prompt, 8) for prompt in prompts()]
    stops = (whole[0][3], whole[1][5])
    expected = []
    for answer in whole:
        ends = [i for i, token in enumerate(answer) if token in stops]
        expected.append(answer[: ends[0] + 1] if ends else answer)
    assert answers(engine, [Job(prompt, 8) for prompt in prompts()], stops) == expected
    assert len({len(answer) for answer in expected}) > 1


@pytest.mark.parametrize("left", [False, True])
def test_answers_do_not_depend_on_how_prompts_are_padded_or_cut_into_batches(left: bool) -> None:
    network = small_network("jamba")
    engine = checked_engine(network, "jamba")
    assert isinstance(engine, PaddedEngine) and engine.pads_left
    jobs = [Job(prompt, 6, temperature=i % 2, seed=i) for i, prompt in enumerate(prompts())]
    expected = [answers(engine, [job])[0] for job in jobs]
    engine.pads_left = left
    assert answers(engine, jobs) == expected
    engine.limits = replace(engine.limits, rows=2)
    assert answers(engine, jobs) == expected


def test_nothing_of_the_networks_own_generation_settings_is_inherited() -> None:
    network = small_network("lfm2")
    plain = plain_copy(network)
    engine = checked_engine(network, "lfm2")
    own = network.generation_config
    own.repetition_penalty, own.suppress_tokens, own.max_length = 5.0, list(range(50)), 3
    jobs = [Job(prompt, 8) for prompt in prompts()]
    assert answers(engine, jobs) == [plain_answer(plain, job.prompt, 8) for job in jobs]
    assert network.generation_config is own


@pytest.mark.parametrize("name", ["mamba", "bloom", "qwen3_next"])
def test_logprobs_equal_those_of_each_row_alone(name: str) -> None:
    network = small_network(name)
    plain, engine = plain_copy(network), checked_engine(network, name)
    rows = [(prompt, answer) for prompt in prompts() for answer in ([5, 6, 7], [8], [])]
    for found, (prompt, answer) in zip(logprobs(engine, None, rows), rows, strict=True):
        with torch.no_grad():
            chances = torch.log_softmax(plain(torch.tensor([prompt + answer])).logits[0], -1)
        places = range(len(prompt) - 1, len(prompt) - 1 + len(answer))
        expected = [float(chances[place, token]) for place, token in zip(places, answer, strict=True)]
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


# ---- training ---------------------------------------------------------------------------------


def plain_loss(network: Any, rows: list[TokenRow]) -> torch.Tensor:
    """Mean loss per target token, a row at a time."""
    losses = []
    for row in rows:
        ids = [*row.prompt, *row.target[:-1]]
        logits = network(input_ids=torch.tensor([ids])).logits[0, len(row.prompt) - 1 :]
        losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(row.target), reduction="sum"))
    return torch.stack(losses).sum() / sum(len(row.target) for row in rows)


def steps(network: Any, loss: Any) -> list[float]:
    """The losses of three steps of AdamW on what can be trained."""
    network.train()
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.0)
    losses = []
    for _ in range(3):
        optimiser.zero_grad()
        losses.append(loss())
        optimiser.step()
    return losses


@pytest.mark.parametrize("micro_tokens", [20, 1000])
@pytest.mark.parametrize("name", ["mamba", "jamba", "bloom", "cohere"])
def test_losses_of_training_steps_equal_those_of_a_plain_peft_loop(name: str, micro_tokens: int) -> None:
    from peft import LoraConfig, get_peft_model

    network = small_network(name)
    plain, engine = plain_copy(network), checked_engine(network, name)
    rows = [TokenRow(str(k), tuple(prompt), (5 + k, 9, 2)) for k, prompt in enumerate(prompts())]
    with torch.random.fork_rng(devices=[]):
        targets = adaptable_layers(plain)
        engine.adapters.begin_training(LoraConfig(r=4, lora_alpha=8, target_modules=targets), 3)
        found = steps(engine.network, lambda: backward(engine, rows, micro_tokens=micro_tokens)[0])
        torch.manual_seed(3)
        wrapped = get_peft_model(plain, LoraConfig(r=4, lora_alpha=8, target_modules=targets), IN_TRAINING)

        def step() -> float:
            loss = plain_loss(wrapped, rows)
            loss.backward()
            return loss.item()

        expected = steps(wrapped, step)
    assert found == pytest.approx(expected, rel=1e-4)
    assert found[2] < found[0]


def test_layers_that_peft_refuses_are_not_adapted() -> None:
    assert adaptable_layers(small_network("llama")) == "all-linear"
    names = adaptable_layers(small_network("mamba"))
    assert isinstance(names, list) and "in_proj" in names and "out_proj" not in names and "lm_head" not in names
    assert checked_engine(small_network("mamba"), "mamba").adapters.trainable


def test_rows_of_very_different_lengths_are_not_padded_to_the_longest() -> None:
    engine = checked_engine(small_network("mamba"), "mamba")
    assert isinstance(engine, PaddedEngine)
    rows = [([5] * 400, [7])] + [([6] * n, [7, 8]) for n in range(20, 30)]
    logits, computed = engine.scores(rows)
    assert logits.shape == (21, VOCABULARY)
    assert computed < 1.5 * sum(len(prompt) + len(target) - 1 for prompt, target in rows)


# ---- how far rows reach -----------------------------------------------------------------------


def long_and_short() -> list[Job]:
    """The long prompt's answer ends early; the short one's goes on until the long row would have 110 tokens."""
    return [Job([(7 * i) % 90 + 4 for i in range(60)], 4), Job([9, 8, 7], 50)]


def turning(kind: str, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, "factor": 4.0, **more}}


LONGROPE = turning(
    "longrope", short_factor=[1.0] * 4, long_factor=[4.0] * 4, original_max_position_embeddings=64
)  # fmt: skip


@pytest.mark.parametrize("own", [{"max_position_embeddings": 64}, LONGROPE], ids=["learned positions", "longrope"])
def test_a_row_that_has_ended_does_not_run_on_beyond_its_positions(
    own: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading_check, "why_not_packed", lambda _: "it is a test")
    network = small_network("llama" if own is LONGROPE else "opt", **own)
    plain, engine = plain_copy(network), checked_engine(network, "far")
    assert isinstance(engine, PaddedEngine) and engine.pads_left and engine.reach == 64
    jobs = long_and_short()
    assert answers(engine, jobs) == [plain_answer(plain, job.prompt, job.most) for job in jobs]


def test_rows_whose_lengths_set_the_rotation_are_not_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading_check, "why_not_packed", lambda _: "it is a test")
    network = small_network("llama", max_position_embeddings=32, **turning("dynamic"))
    plain, engine = plain_copy(network), checked_engine(network, "dynamic")
    rows = [([(7 * i) % 90 + 4 for i in range(length)], [7]) for length in (40, 50)]
    found, _ = engine.scores(rows)
    for logits, (prompt, _) in zip(found, rows, strict=True):
        with torch.no_grad():
            assert relative_error(logits[None], plain_copy(plain)(torch.tensor([prompt])).logits[0, -1:]) < 1e-4


def test_scores_scaled_by_the_place_in_a_padded_row_are_noticed_however_far_the_scaling_begins() -> None:
    """Llama 4 counts padding in front as positions there."""
    from transformers import AutoModelForCausalLM, Llama4TextConfig

    from small_architectures import small_config

    config = small_config(Llama4TextConfig, {"floor_scale": 8192}, 64)
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    engine = checked_engine(network, "llama4")
    assert isinstance(engine, PaddedEngine) and not engine.pads_left
    assert config.floor_scale == 8192
