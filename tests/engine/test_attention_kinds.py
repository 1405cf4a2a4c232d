"""Windows, caps, sinks and narrow values on the tree path, against transformers' eager attention row by row."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

from rung.engine import attention, attention_kernels
from rung.engine.kv_cache import cache_bytes
from rung.engine.prefill import Job, SharedPrefixes, batches, prefill
from rung.engine.prefix_tree import grow
from rung.engine.tree_answers import decode_step
from rung.engine.tree_engine import TreeEngine

WINDOW = 7
SIZES: dict[str, Any] = {
    "vocab_size": 120,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.3,  # large enough that every key matters
}
_LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 16,
    "n_shared_experts": 1,
}
_SHARING = {
    "num_hidden_layers": 6,
    "head_dim": 8,
    "layer_types": ["sliding_attention", "full_attention"] * 3,
    "num_kv_shared_layers": 2,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 120,
}
_SCALED = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 32.0,
    "original_max_position_embeddings": 16,
    "llama_4_scaling_beta": 0.5,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "windows in all layers": ("Mistral", {"sliding_window": WINDOW}),
    "windows in some layers": ("Qwen2", {"sliding_window": WINDOW, "use_sliding_window": True, "max_window_layers": 1}),
    "windows and caps": (
        "Gemma2",
        {"sliding_window": WINDOW, "head_dim": 8, "attn_logit_softcapping": 2.0, "final_logit_softcapping": None},
    ),
    "windows and two rotations": ("Gemma3Text", {"sliding_window": WINDOW, "head_dim": 8, "num_hidden_layers": 6}),
    "windows and sinks": (
        "GptOss",
        {"sliding_window": WINDOW, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "values narrower than keys": ("DeepseekV3", {**_LATENT, "v_head_dim": 6}),
    "values wider than keys": ("DeepseekV3", {**_LATENT, "v_head_dim": 16}),
    "layers that read others' keys": (
        "Gemma3nText",
        {**_SHARING, "sliding_window": WINDOW, "laurel_rank": 4, "activation_sparsity_pattern": [0.0] * 6},
    ),
    "heads of two widths": ("Gemma4Text", {**_SHARING, "sliding_window": WINDOW, "global_head_dim": 16}),
    "queries scaled by position": ("Ministral3", {"head_dim": 8, "sliding_window": None, "rope_parameters": _SCALED}),
}


def ids(n: int, seed: int) -> list[int]:
    return [int(i) for i in torch.randint(3, 120, (n,), generator=torch.Generator().manual_seed(seed))]


SHARED = ids(45, 0)
ROWS = [SHARED + ids(n, n) for n in (3, 11, 1, 6)] + [SHARED + ids(40, 70) + ids(n, n + 50) for n in (9, 2, 30)]


def both(kind: str, **more: Any) -> tuple[Any, TreeEngine]:
    """A tiny random network as transformers computes it, and an engine with the same weights."""
    import transformers

    name, sizes = KINDS[kind]
    make: Callable[..., Any] | None = getattr(transformers, f"{name}Config", None)
    if make is None:
        pytest.skip(f"this transformers has no {name}")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.manual_seed(0)
    config = make(**{**SIZES, **sizes, **more})
    plain = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    for parameter_name, parameter in plain.named_parameters():
        if "sinks" in parameter_name:
            parameter.data = torch.randn_like(parameter)
    return plain, engine_of(plain)


def engine_of(plain: Any) -> TreeEngine:
    from transformers import AttentionInterface

    AttentionInterface.register(attention.NAME, attention.attention)
    network = copy.deepcopy(plain)
    network.set_attn_implementation(attention.NAME)
    engine = TreeEngine(network, "tiny")
    engine.head_alone = getattr(network.config, "final_logit_softcapping", None) is None
    return engine


@pytest.fixture(params=["flash blocks", "blocks written out in pieces"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "flash blocks":
        monkeypatch.setattr(attention, "_MOST_SCORES", 100)
        for module in (attention, attention_kernels):
            monkeypatch.setattr(module, "is_flash", lambda query: False)


def tree_logits(engine: TreeEngine, rows: list[list[int]], known: int) -> list[torch.Tensor]:
    """known: so many tokens of every row are computed first, as a prefix."""
    prefix = engine.compute(rows[0][:known]) if known else None
    tree = grow([row[known:] for row in rows])
    logits = engine.logits(engine.hidden_of(tree, [prefix]))
    return [logits[tree.places(i, 0, len(row) - known)] for i, row in enumerate(rows)]


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_gradients_equal_a_plain_forward(kind: str) -> None:
    plain, engine = both(kind)
    for known in (0, 45):
        found = {}
        for which, network in {"ours": engine.network, "plain": plain}.items():
            network.requires_grad_(True)
            if which == "ours":
                logits = tree_logits(engine, ROWS, known)
            else:
                logits = [network(torch.tensor([row])).logits[0, known:] for row in ROWS]
            loss = sum(torch.log_softmax(part, -1)[:, 7 * i].sum() for i, part in enumerate(logits))
            assert isinstance(loss, torch.Tensor)
            parameters = {name: p for name, p in network.named_parameters() if "experts" not in name}
            grads = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            found[which] = logits, dict(zip(parameters, grads, strict=True))
        assert engine.calls == list(range(plain.config.num_hidden_layers))
        for ours, theirs in zip(found["ours"][0], found["plain"][0], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        for name, grad in found["plain"][1].items():
            if grad is not None:
                error = (found["ours"][1][name] - grad).abs().max() / grad.abs().max().clamp(min=1e-6)
                assert error < 1e-3, (known, name, float(error))


@pytest.mark.parametrize("kind", KINDS)
def test_decode_steps_behind_shared_prefixes_equal_a_plain_forward(kind: str) -> None:
    plain, engine = both(kind)
    jobs = [Job(row, 12) for row in ROWS]
    with torch.inference_mode():
        ((batch, shared),) = batches(engine, jobs)
        cache, last, order = prefill(engine, jobs, batch, shared)
        have = [list(jobs[i].prompt) for i in order]
        active = list(range(len(order)))
        for step in range(4):
            for logits, row in zip(engine.logits(last), active, strict=True):
                theirs = plain(torch.tensor([have[row]])).logits[0, -1]
                torch.testing.assert_close(logits, theirs, rtol=1e-4, atol=1e-4)
            if step == 2:
                kept = [0, 2, 3, 5]  # the others leave the batch
                cache.keep_rows(kept)
                active = [active[i] for i in kept]
            new = [ids(1 + (row + step) % 3, 10 * row + step) for row in active]
            for row, tokens in zip(active, new, strict=True):
                have[row] += tokens
            last = decode_step(engine, cache, shared, [jobs[order[row]] for row in active], new)


def test_tokens_within_the_window_are_computed_without_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    _, engine = both("windows in all layers", sliding_window=200)

    def refuse(*_: Any) -> None:
        raise AssertionError("no row is longer than the window")

    monkeypatch.setattr(attention, "windowed", refuse)
    with torch.no_grad():
        tree_logits(engine, ROWS, 45)


@pytest.mark.parametrize(
    ("given", "fact"),
    [
        ({"position_bias": torch.zeros(1)}, "position_bias"),
        ({"is_causal": False}, "later tokens"),
        ({"dropout": 0.1}, "at random"),
        ({"attention_mask": torch.zeros(1, 1, 2, 2)}, "mask"),
        ({"sliding_window": 0}, "window of 0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_attention_that_is_not_known_is_refused(given: dict[str, Any], fact: str) -> None:
    layer = torch.nn.Identity()
    rows = [torch.zeros(1, 2, 2, 4)] * 3
    with pytest.raises(RuntimeError, match="no numbers"):
        attention.attention(layer, *rows)
    layer.layer_idx = 0  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match=fact):
        attention.attention(layer, *rows, **given)


@pytest.mark.parametrize("kind", KINDS)
def test_the_bytes_of_a_token_are_those_that_are_kept(kind: str) -> None:
    _, engine = both(kind)
    with torch.no_grad():
        assert cache_bytes(engine.network.config, torch.float32) == engine.compute([5]).bytes


def test_a_config_without_sizes_gets_a_guess() -> None:
    assert cache_bytes(object(), torch.float32) > 0


# ---- rows whose rotation depends on their length ------------------------------------------------------

SWITCH = 24


@pytest.fixture(scope="module")
def longrope() -> tuple[Any, TreeEngine]:
    factors = {"short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 4.0, 8.0]}
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": SWITCH, **factors}
    KINDS["longrope"] = ("Phi3", {"original_max_position_embeddings": SWITCH, "rope_scaling": rope})
    try:
        return both("longrope")
    finally:
        del KINDS["longrope"]


def test_long_and_short_rows_are_scored_as_each_alone(longrope: tuple[Any, TreeEngine]) -> None:
    plain, engine = longrope
    assert engine.rope_switch == SWITCH and engine.is_long(SWITCH + 1) and not engine.is_long(SWITCH)
    begin = SHARED[:9]
    rows = [(begin + ids(a, a), ids(b, 30 + b)) for a, b in ((3, 2), (30, 4), (12, 3), (10, 9), (1, 1))]
    with torch.no_grad():
        logits, computed = engine.scores(rows)
        theirs = [plain(torch.tensor([p + t])).logits[0, len(p) - 1 : -1] for p, t in rows]
    torch.testing.assert_close(logits, torch.cat(theirs), rtol=1e-4, atol=1e-4)
    assert computed < sum(len(p) + len(t) for p, t in rows)


def test_a_short_rows_answer_does_not_depend_on_long_ones_in_its_list(longrope: tuple[Any, TreeEngine]) -> None:
    plain, engine = longrope
    engine.clear_prefix_cache()
    jobs = [Job(SHARED[:9] + ids(n, n), 6) for n in (3, 30, 5, 10, 11)]  # the last two grow long
    parts = list(batches(engine, jobs))
    assert [(sorted(part), shared.long) for part, shared in parts] == [([0, 2], False), ([1, 3, 4], True)]
    with torch.inference_mode():
        for part, shared in parts:
            cache, last, order = prefill(engine, jobs, part, shared)
            have = [list(jobs[i].prompt) for i in order]
            for step in range(3):
                for logits, row in zip(engine.logits(last), have, strict=True):
                    alike = [*row, *ids(SWITCH, 1)] if shared.long else row  # reaches beyond the switch, if long
                    theirs = plain(torch.tensor([alike])).logits[0, len(row) - 1]
                    torch.testing.assert_close(logits, theirs, rtol=1e-4, atol=1e-4)
                new = [[40 + step]] * len(have)
                have = [[*row, 40 + step] for row in have]
                last = decode_step(engine, cache, shared, [jobs[i] for i in order], new)


def test_prefixes_of_long_and_short_rows_are_cached_apart(longrope: tuple[Any, TreeEngine]) -> None:
    _, engine = longrope
    engine.clear_prefix_cache()
    short, long = engine.prefix(None, SHARED[:9]), engine.prefix(None, SHARED[:9], long=True)
    assert not torch.equal(short.layers[0][0], long.layers[0][0])
    assert torch.equal(short.layers[0][0], engine.prefix(None, SHARED[:9]).layers[0][0])


def test_models_without_longrope_have_no_long_rows() -> None:
    _, engine = both("windows in all layers")
    assert engine.rope_switch is None and not engine.is_long(10**9)
    assert SharedPrefixes(engine, [None], [SHARED]).long is False
