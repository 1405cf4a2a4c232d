from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rung.engine import layers
from rung.engine.adapters import IN_TRAINING
from rung.engine.layers import unfuse_layers
from rung.engine.prefix_tree import common_prefix_length, grow
from rung.engine.ways import Ways
from rung.models.loading import load_model
from rung.models.local import LocalModel
from rung.testing import save_tiny_model, tiny_model
from rung.types import Decoding, Message, Request

TEXTS = ["", "a", "the card", "What is my answer?", "x" * 40, "日本", "the card again"]
ADAPTERS: dict[str, dict[str, Any]] = {
    "plain": {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"},
    "rsLoRA": {"r": 5, "lora_alpha": 4, "target_modules": "all-linear", "use_rslora": True},
    "attention only": {"r": 3, "lora_alpha": 6, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]},
    "two projections": {"r": 2, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    "feed-forward only": {"r": 3, "lora_alpha": 6, "target_modules": ["up_proj", "down_proj"]},
    "last layer only": {"r": 3, "lora_alpha": 6, "target_modules": ["k_proj", "gate_proj"], "layers_to_transform": [1]},
    "ranks that differ": {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "rank_pattern": {"q_proj": 2}},
    "DoRA": {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "use_dora": True},
}


def rows_of(model: Any) -> list[list[int]]:
    return [model.encode([Message("system", "Answer."), Message("user", text)]) for text in TEXTS]


def fused(model: Any) -> int:
    """How many layers run fused."""
    return sum(
        type(module).__name__.endswith("DecoderLayer") and "forward" in vars(module)
        for module in model.network.modules()
    )


def tree_logits(model: Any, rows: list[list[int]], known: int = 0) -> list[torch.Tensor]:
    """(len - known, V) of each row. known: so many tokens of every row are computed first, as a prefix."""
    prefix = model.engine.compute(rows[0][:known]) if known else None
    tree = grow([row[known:] for row in rows])
    logits = model.engine.logits(model.engine.hidden_of(tree, [prefix]))
    return [logits[tree.places(i, 0, len(row) - known)] for i, row in enumerate(rows)]


def plain_network(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    network: Any = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    return network.eval()


def assert_logits_equal_plain_ones(model: Any, folder: Path) -> None:
    network, rows = plain_network(folder), rows_of(model)
    with torch.no_grad():
        for ours, row in zip(tree_logits(model, rows), rows, strict=True):
            theirs = network(torch.tensor([row])).logits[0]
            assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


def assert_answers_equal_plain_ones(model: LocalModel, folder: Path) -> None:
    network, rows = plain_network(folder), rows_of(model)
    requests = [Request((Message("system", "Answer."), Message("user", text)), Decoding(20)) for text in TEXTS]
    end = model.chat.end_id
    for found, row in zip(model.generate(requests), rows, strict=True):
        ids = torch.tensor([row])
        answer = network.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=20,
            do_sample=False,
            eos_token_id=end,
            pad_token_id=end,
        )[0, len(row) :].tolist()
        assert found.tokens_out == len(answer)
        assert found.text == model.chat.decode(answer[:-1] if answer[-1] == end else answer)


# ---- fused and not --------------------------------------------------------------------------


def in_training(config: dict[str, Any]) -> Any:
    """A model with a random adapter in training."""
    from peft import LoraConfig

    model = tiny_model()
    with torch.random.fork_rng(devices=[]):
        model.engine.adapters.begin_training(LoraConfig(**config), seed=1)
        with torch.no_grad():
            for name, p in model.network.named_parameters():
                if IN_TRAINING in name and ".lora_B" in name:
                    p.normal_(std=0.1)
    return model


def gradients(model: Any, known: int) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    """Logits of a tree of rows, and gradients of a loss on all of them."""
    rows = rows_of(model)
    logits = tree_logits(model, rows, known)
    draw = torch.Generator().manual_seed(2)
    weights = [torch.randn(len(row), generator=draw) for row in logits]
    loss = torch.stack([(torch.log_softmax(r, -1)[:, 5] * w).sum() for r, w in zip(logits, weights, strict=True)]).sum()
    trained = {name: p for name, p in model.network.named_parameters() if p.requires_grad}
    return logits, dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True))


@pytest.mark.parametrize("known", [0, 9])
@pytest.mark.parametrize("name", ADAPTERS)
def test_fused_layers_give_the_logits_and_gradients_of_unfused_ones(name: str, known: int) -> None:
    model = in_training(ADAPTERS[name])
    assert fused(model) == 2 and known < common_prefix_length(rows_of(model))
    ours, our_gradients = gradients(model, known)
    unfuse_layers(model.network)
    assert fused(model) == 0
    theirs, their_gradients = gradients(model, known)
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() < 1e-4 * b.abs().max()
    assert all(".lora_" in parameter for parameter in their_gradients)
    for parameter, expected in their_gradients.items():
        assert expected.norm() > 0
        assert (our_gradients[parameter] - expected).norm() < 1e-4 * expected.norm(), parameter


def test_weights_of_the_base_are_trained_by_the_layers_as_transformers_wrote_them(tiny_folder: Path) -> None:
    found = []
    for network in ((model := tiny_model()).network, plain_network(tiny_folder)):
        network.requires_grad_(True)
        rows = rows_of(model)
        logits = (
            tree_logits(model, rows[3:4])[0] if network is model.network else network(torch.tensor(rows[3:4])).logits[0]
        )
        loss = torch.log_softmax(logits, -1)[:, 5].sum()
        found.append(torch.autograd.grad(loss, list(network.parameters())))
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).norm() < 1e-4 * theirs.norm()


# ---- other networks -------------------------------------------------------------------------


def save_network(folder: Path, kind: str, **config: Any) -> Path:
    """A tiny random network of another kind, with random biases and norms, and the tiny model's tokenizer."""
    import transformers

    save_tiny_model(folder)
    sizes = {
        "vocab_size": len(transformers.AutoTokenizer.from_pretrained(folder)),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "initializer_range": 0.3,
        "tie_word_embeddings": False,
    }
    made = getattr(transformers, f"{kind}Config")(**{**sizes, **config})
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(3)
        network = getattr(transformers, f"{kind}ForCausalLM")(made)
        for name, p in network.named_parameters():
            if name.endswith("bias") or "norm" in name:
                p.add_(torch.randn(p.shape) * 0.3)
    network.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["Llama", "Qwen2", "Mistral"])
def test_networks_of_the_llama_kind_run_fused_and_equal_transformers(tmp_path: Path, kind: str) -> None:
    folder = save_network(tmp_path, kind)
    model = load_model(str(folder), device="cpu", dtype=torch.float32)
    assert fused(model) == 2
    assert not any(p.requires_grad for p in model.network.parameters()), "layers that are trained are not fused"
    assert any(n.endswith("q_proj.bias") for n, _ in model.network.named_parameters()) == (kind == "Qwen2")
    assert_logits_equal_plain_ones(model, folder)
    assert_answers_equal_plain_ones(model, folder)


@pytest.mark.embedded
def test_in_bfloat16_the_embedded_model_runs_fused_and_nearer_to_float32_than_transformers(
    embedded_folder: Path,
) -> None:
    # transformers rounds what runs through the layers too: its logits alone would speak against the fused layers.
    from transformers import AutoModelForCausalLM

    model = load_model(str(embedded_folder), device="cpu", dtype=torch.bfloat16)
    assert fused(model) == 30
    assert {p.dtype for p in model.network.parameters()} == {torch.bfloat16}, "the check left its float32 weights"
    row = rows_of(model)[3]
    half = AutoModelForCausalLM.from_pretrained(embedded_folder, dtype=torch.bfloat16, attn_implementation="eager")
    with torch.no_grad():
        exact = plain_network(embedded_folder).float()(torch.tensor([row])).logits[0]
        theirs = half.eval()(torch.tensor([row])).logits[0].float()
        ours = tree_logits(model, [row])[0]
    assert (ours - exact).norm() < 0.7 * (theirs - exact).norm()


@pytest.mark.parametrize("tied", [True, False])
def test_in_half_precision_the_check_leaves_weights_and_hooks_as_they_were(tmp_path: Path, tied: bool) -> None:
    folder = save_network(tmp_path, "Llama", tie_word_embeddings=tied)
    model = load_model(str(folder), device="cpu", dtype=torch.bfloat16)
    assert fused(model) == 2
    for name, weight in plain_network(folder).to(torch.bfloat16).state_dict().items():
        assert torch.equal(model.network.state_dict()[name], weight)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.network.modules())


def test_biases_in_all_projections_and_tied_embeddings_are_computed_too(tmp_path: Path) -> None:
    folder = save_network(tmp_path, "Llama", attention_bias=True, mlp_bias=True, tie_word_embeddings=True)
    model = load_model(str(folder), device="cpu", dtype=torch.float32)
    assert fused(model) == 2
    assert_logits_equal_plain_ones(model, folder)
    assert_answers_equal_plain_ones(model, folder)


def test_an_adapter_over_biases_equals_pefts(tmp_path: Path) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model

    folder = save_network(tmp_path / "network", "Qwen2")
    model = load_model(str(folder), device="cpu", dtype=torch.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
        get_peft_model(plain_network(folder), config).save_pretrained(str(tmp_path / "a"), save_embedding_layers=False)
    network, row = PeftModel.from_pretrained(plain_network(folder), str(tmp_path / "a")).eval(), rows_of(model)[3]
    with torch.no_grad(), model.engine.adapters.using(str(tmp_path / "a")):
        theirs = network(torch.tensor([row])).logits[0]
        assert (tree_logits(model, [row])[0] - theirs).abs().max() < 1e-4 * theirs.abs().max()


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("Qwen3", {"head_dim": 8}),
        ("Phi3", {}),
        ("Gemma2", {"head_dim": 8, "attn_logit_softcapping": 1.0, "sliding_window": 16}),
    ],
)
def test_networks_with_other_parts_load_fused_and_answer_as_transformers(
    kind: str, config: dict[str, Any], tmp_path: Path
) -> None:
    folder = save_network(tmp_path, kind, **config)
    model = load_model(str(folder), device="cpu", dtype=torch.float32)
    assert fused(model) == 2
    assert_logits_equal_plain_ones(model, folder)
    assert_answers_equal_plain_ones(model, folder)


@pytest.mark.parametrize("plain", [False, True])
def test_a_prefix_computes_nothing_behind_its_last_keys(monkeypatch: pytest.MonkeyPatch, plain: bool) -> None:
    """Kernels of experts and of few bits need not take no rows."""
    engine: Any = tiny_model(3).engine
    tokens: list[int] = []
    right = layers.leave

    def leave(plan: Any, layer: Any, x: torch.Tensor, *more: Any) -> torch.Tensor:
        tokens.append(len(x))
        return right(plan, layer, x, *more)

    monkeypatch.setattr(layers, "leave", leave)
    monkeypatch.setattr(engine, "ways", Ways(fused=not plain))
    ids = [5, 6, 7, 8, 9, 10]
    with torch.no_grad():
        prefix = engine.compute(ids)
    assert tokens == [len(ids)] * (len(prefix.layers) - 1)
    kept: list[Any] = []
    with torch.no_grad():
        engine.hidden_of(grow([ids]), kept=kept)
    assert all(
        torch.equal(a, b)
        for ours, theirs in zip(prefix.layers, kept, strict=True)
        for a, b in zip(ours, theirs, strict=True)
    )
