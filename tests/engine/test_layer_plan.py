"""Layers of many families in fused steps, beside the layers as transformers wrote them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rung.engine import attention
from rung.engine.adapters import IN_TRAINING
from rung.engine.checkpointing import checkpointing
from rung.engine.layers import (
    decoder_layers,
    fuse_layers,
    fused_layers,
    is_fused,
    original_forward,
    unfuse,
    unfuse_layers,
)
from rung.engine.prefix_tree import grow
from rung.engine.tree_engine import TreeEngine

# PEFT prepares patterns for experts that no adapter is to reach.
pytestmark = pytest.mark.filterwarnings("ignore:The following \\w+_pattern keys")

ROWS = [[5, 6, 7, 8, 9, 10, 11, 12], [5, 6, 7, 8, 20, 21], [5, 6, 7, 8, 9, 3], [40, 41]]
HALF_ROTATED = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
EXPERTS = {
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
FUSED: dict[str, dict[str, Any]] = {
    "Llama": {"attention_bias": True, "mlp_bias": True},
    "Qwen2": {},
    "Mistral": {"sliding_window": 5},
    "Qwen3": {"head_dim": 16},
    "Gemma": {"head_dim": 16},
    "Gemma2": {"head_dim": 16, "sliding_window": 5, "attn_logit_softcapping": 3.0, "query_pre_attn_scalar": 9},
    "Gemma3": {"head_dim": 16, "sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]},
    "Granite": {"residual_multiplier": 0.3, "attention_multiplier": 0.2},
    "SmolLM3": {"no_rope_layers": [1, 0]},
    "Olmo2": {},
    "Olmo3": {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]},
    "Phi3": {"rope_parameters": HALF_ROTATED, "sliding_window": 5},
    "SeedOss": {"head_dim": 16},
    "Exaone4": {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]},
    "Glm4": {"head_dim": 16, "rope_parameters": HALF_ROTATED},
    "Ernie4_5": {"head_dim": 16},
    "Helium": {"head_dim": 8},
    "Arcee": {},
    "Mixtral": EXPERTS,
    "Qwen2Moe": EXPERTS,
    "Qwen3Moe": {**EXPERTS, "head_dim": 16, "mlp_only_layers": [1]},
}
NOT_FUSED: dict[str, dict[str, Any]] = {
    "Cohere": {},  # attention and feed-forward network side by side, neighbouring columns rotated
    "DiffLlama": {},
    "GPTNeoX": {},
    "HunYuanDenseV1": {"head_dim": 8},  # norms behind the rotation
    "Ministral3": {},  # queries scaled by position
    "Olmo": {},  # norms without weights
    "Olmoe": {**EXPERTS, "clip_qkv": 2.0},
    "StableLm": {},
}


def network_of(kind: str, dtype: torch.dtype = torch.float32, **more: Any) -> Any:
    """A tiny random network of a kind, with random biases and norms, computed by transformers."""
    import transformers

    sizes: dict[str, Any] = {
        "vocab_size": 97,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "initializer_range": 0.3,
        "tie_word_embeddings": False,
    }
    given = {**sizes, **(FUSED | NOT_FUSED)[kind], **more}
    config = getattr(transformers, f"{kind}{'Text' if kind == 'Gemma3' else ''}Config")(**given)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(3)
        network = getattr(transformers, f"{kind}ForCausalLM")(config)
        for name, p in network.named_parameters():
            if name.endswith("bias") or "norm" in name:
                p.add_(torch.randn(p.shape) * 0.3)
    network.set_attn_implementation("eager")
    return network.to(dtype).eval()


def engine_of(network: Any) -> TreeEngine:
    from transformers import AttentionInterface

    AttentionInterface.register(attention.NAME, attention.attention)
    network.set_attn_implementation(attention.NAME)
    return TreeEngine(network, "tiny")


def hidden_of(engine: Any) -> list[torch.Tensor]:
    """Final hidden states of each row, (len, C), computed in a tree."""
    tree = grow(ROWS)
    hidden = engine.hidden_of(tree)
    return [hidden[tree.places(i, 0, len(row))] for i, row in enumerate(ROWS)]


def plain_hidden_of(network: Any) -> list[torch.Tensor]:
    with torch.no_grad():
        return [network.get_decoder()(torch.tensor([row])).last_hidden_state[0] for row in ROWS]


def assert_close(ours: list[torch.Tensor], theirs: list[torch.Tensor], tolerance: float = 1e-4) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).norm() <= tolerance * b.norm()


def begin_training(engine: Any, **config: Any) -> None:
    from peft import LoraConfig

    with torch.random.fork_rng(devices=[]):
        engine.adapters.begin_training(LoraConfig(**{"r": 4, "target_modules": "all-linear", **config}), seed=1)
        with torch.no_grad():
            for name, p in engine.network.named_parameters():
                if IN_TRAINING in name and ".lora_B" in name:
                    p.normal_(std=0.1)


def gradients(engine: Any) -> dict[str, torch.Tensor]:
    trained = {name: p for name, p in engine.network.named_parameters() if p.requires_grad}
    draw = torch.Generator().manual_seed(2)
    loss = torch.stack([(h * torch.randn(h.shape, generator=draw)).sum() for h in hidden_of(engine)]).sum()
    return dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True))


# ---- families ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FUSED)
def test_fused_layers_of_a_family_give_the_states_and_gradients_of_transformers_own(kind: str) -> None:
    network = network_of(kind)
    plain = plain_hidden_of(network)
    engine = engine_of(network)
    assert len(fused_layers(network)) == 2
    with torch.no_grad():
        assert_close(hidden_of(engine), plain)
    begin_training(engine)
    ours, our_gradients = hidden_of(engine), gradients(engine)
    unfuse_layers(network)
    assert not fused_layers(network)
    theirs, their_gradients = hidden_of(engine), gradients(engine)
    assert_close(ours, theirs)
    assert any(g.norm() > 0 for g in their_gradients.values())
    for name, expected in their_gradients.items():
        assert (our_gradients[name] - expected).norm() <= 1e-4 * expected.norm(), name


@pytest.mark.parametrize("kind", NOT_FUSED)
def test_layers_of_another_kind_run_as_transformers_wrote_them(kind: str) -> None:
    network = network_of(kind)
    plain = plain_hidden_of(network)
    engine = engine_of(network)
    assert not fused_layers(network) and not engine.narrows
    with torch.no_grad():
        assert_close(hidden_of(engine), plain)


def test_a_network_whose_layers_are_not_found_runs_as_transformers_wrote_it() -> None:
    network = network_of("Qwen3")
    network.config.num_hidden_layers = 3  # one more than it has
    plain = plain_hidden_of(network)
    engine = engine_of(network)
    assert decoder_layers(network) == [] and not engine.narrows
    with torch.no_grad():
        assert_close(hidden_of(engine), plain)


def test_a_layer_that_computes_one_number_otherwise_is_not_fused() -> None:
    network = network_of("Qwen3")
    first = decoder_layers(network)[0]

    class Damped(type(first)):  # type: ignore[misc]
        def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            return super().forward(hidden_states, *args, **kwargs) - 0.1 * hidden_states

    first.__class__ = Damped
    plain = plain_hidden_of(network)
    engine = engine_of(network)
    assert [is_fused(layer) for layer in decoder_layers(network)] == [False, True]
    with torch.no_grad():
        assert_close(hidden_of(engine), plain)


@pytest.mark.parametrize("kind", ["Qwen3", "Gemma3", "Granite", "Phi3", "Mixtral", "Olmo3", "Ernie4_5"])
def test_in_bfloat16_fused_layers_are_found_too_and_round_no_more_than_transformers(kind: str) -> None:
    network = network_of(kind, torch.bfloat16)
    half = plain_hidden_of(network)
    exact = plain_hidden_of(network.float())
    engine = engine_of(network.to(torch.bfloat16))
    assert len(fused_layers(network)) == 2 and all(p.dtype == torch.bfloat16 for p in network.parameters())
    with torch.no_grad():
        ours = hidden_of(engine)
    error, their_error = ((torch.cat(h).float() - torch.cat(exact)).norm() for h in (ours, half))
    assert error < 1.1 * their_error
    begin_training(engine)
    assert all(g.isfinite().all() for g in gradients(engine).values())


# ---- some layers fused, others not --------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("unfused", [0, 1])
def test_fused_layers_and_others_stand_side_by_side(unfused: int, dtype: torch.dtype) -> None:
    engine = engine_of(network_of("Qwen3", dtype))
    with torch.no_grad():
        expected = [h.float() for h in hidden_of(engine)]
        layers = decoder_layers(engine.network)
        unfuse(layers[unfused])
        assert [is_fused(layer) for layer in layers] == [unfused == 1, unfused == 0]
        assert_close([h.float() for h in hidden_of(engine)], expected, 1e-4 if dtype == torch.float32 else 0.03)


@pytest.mark.parametrize("kind", ["Qwen3", "Phi3", "Mixtral"])
def test_only_the_wanted_tokens_come_back_whether_the_last_layer_is_fused_or_not(kind: str) -> None:
    engine, tree, wanted = engine_of(network_of(kind)), grow(ROWS), [3, 0, 9]
    first, last = decoder_layers(engine.network)
    with torch.no_grad():
        expected = engine.hidden_of(tree)[wanted]
        assert engine.narrows
        assert_close([engine.hidden_of(tree, wanted=wanted)], [expected])
        unfuse(first)
        assert engine.narrows
        assert_close([engine.hidden_of(tree, wanted=wanted)], [expected])
        unfuse(last)
        assert not engine.narrows
        assert_close([engine.hidden_of(tree, wanted=wanted)], [expected])


def test_checkpointed_layers_stay_fused_and_give_the_same_gradients() -> None:
    engine, tree, wanted = engine_of(network_of("Gemma3")), grow(ROWS), [3, 0, 9]
    begin_training(engine)
    expected = gradients(engine)
    with checkpointing(engine.network):
        assert engine.narrows and len(fused_layers(engine.network)) == 2
        found = gradients(engine)
        assert len(engine.hidden_of(tree, wanted=wanted)) == len(wanted)
    assert_close(list(found.values()), list(expected.values()))


def test_a_fused_layer_and_its_original_give_the_same_under_an_adapter(tmp_path: Path) -> None:
    engine = engine_of(network_of("Qwen3"))
    folder = saved_adapter(engine, tmp_path / "a", rank=4)
    with torch.no_grad(), engine.adapters.using(folder):
        expected = hidden_of(engine)
        for layer in decoder_layers(engine.network):
            layer.forward = original_forward(layer)  # what the engine stored for the fused layer is of no use to it
            assert original_forward(layer) == layer.forward
        assert_close(hidden_of(engine), expected)


def test_layers_whose_norm_is_exchanged_or_trained_use_the_new_one() -> None:
    engine = engine_of(network_of("Gemma3"))
    norm = decoder_layers(engine.network)[0].self_attn.q_norm
    before = hidden_of(engine)
    norm.weight.requires_grad_(True)
    hidden_of(engine)[0].sum().backward()
    assert norm.weight.grad.norm() > 0
    decoder_layers(engine.network)[0].self_attn.q_norm = torch.nn.Identity()
    found = hidden_of(engine)
    unfuse_layers(engine.network)
    with torch.no_grad():
        assert_close(found, hidden_of(engine))
    assert (found[0] - before[0]).norm() > 0.01 * before[0].norm()


# ---- adapters ---------------------------------------------------------------------------------


def saved_adapter(engine: Any, folder: Path, rank: int, **config: Any) -> str:
    begin_training(engine, r=rank, lora_alpha=2 * rank, **config)
    engine.adapters.wrapper.save_pretrained(str(folder), selected_adapters=[IN_TRAINING], save_embedding_layers=False)
    engine.adapters.end_training()
    return str(folder / IN_TRAINING)


@pytest.mark.parametrize("kind", ["Qwen3", "Gemma3", "Phi3", "Glm4", "Mixtral", "Qwen2Moe"])
def test_several_adapters_in_one_batch_give_what_each_gives_alone(kind: str, tmp_path: Path) -> None:
    engine = engine_of(network_of(kind))
    # With all-linear, PEFT gives the experts of a Mixtral other ranks, so that the adapter is not mixable.
    more = {"target_modules": ["q_proj", "v_proj", "o_proj"]} if kind == "Mixtral" else {}
    folders = [saved_adapter(engine, tmp_path / str(rank), rank, **more) for rank in (2, 3)]
    assert all(engine.adapters.mixable(folder) for folder in folders)
    alone = []
    with torch.no_grad():
        for folder in (*folders, None):
            with engine.adapters.using(folder):
                alone.append(engine.hidden_of(grow([ROWS[0]])))
        rows = [ROWS[0]] * 3
        tree = grow(rows, families=range(3))
        of_tokens = [node.family for node in tree.nodes for _ in range(node.length)]
        wanted = [tree.places(i, len(row) - 1, len(row))[0] for i, row in enumerate(rows)]
        with engine.adapters.mixed([*folders, None], of_tokens):
            found = engine.hidden_of(tree, [None] * 3, wanted=wanted)
    assert_close(list(found), [hidden[-1] for hidden in alone])
    assert (found[0] - found[2]).norm() > 0.01 * found[2].norm()


def test_a_network_of_other_linear_layers_runs_unfused_with_adapters(tmp_path: Path) -> None:
    class Quantised(torch.nn.Linear):
        """Stands for the linear layers of 4-bit networks, whose weights only they can multiply."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 1.5

    network = network_of("Qwen3")
    for module in network.get_decoder().modules():
        if type(module) is torch.nn.Linear:
            module.__class__ = Quantised
    plain = plain_hidden_of(network)
    engine = engine_of(network)
    assert fuse_layers(network, engine.adapters) == []
    with torch.no_grad():
        assert_close(hidden_of(engine), plain)
    begin_training(engine)
    found = gradients(engine)
    assert found and all(g.norm() > 0 for g in found.values())
