from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, partialmethod
from typing import Any

import pytest
import torch

from rung.engine import adapter_held, adapter_mix, adapters, layers, loading_check, tree_check
from rung.engine.attention import TreeView
from rung.engine.decode import Job, decode
from rung.engine.layers import fused_layers
from rung.engine.loading_check import checked_engine
from rung.engine.masked_view import MaskedView
from rung.engine.precision import computing_in, extra_bytes
from rung.engine.prefix_tree import grow
from rung.engine.probe import has_windows, reference_of, relative_error, rounds_alike, shrunk_windows
from rung.engine.tree_engine import TreeEngine
from rung.errors import ModelError
from small_networks import plain_answer, plain_copy, small_network


def state_of(network: Any) -> list[tuple[str, torch.dtype, torch.Tensor]]:
    return [(name, t.dtype, t.clone()) for name, t in network.state_dict().items()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["mistral", "mamba", "gemma2"])
def test_the_check_leaves_weights_modes_and_settings_as_they_were(name: str, dtype: torch.dtype) -> None:
    network = small_network(name, dtype=dtype)
    config, before = network.config.to_dict(), state_of(network)
    said: list[str] = []
    engine = checked_engine(network, name, say=said.append)
    assert all(
        key == now and kind == t.dtype and torch.equal(value, t)
        for (key, kind, value), (now, t) in zip(before, network.state_dict().items(), strict=True)
    )
    after = network.config.to_dict()
    assert {k: v for k, v in after.items() if "attn_impl" not in k} == {
        k: v for k, v in config.items() if "attn_impl" not in k
    }
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    assert engine.computed_tokens == 0 and engine.dtype == dtype
    if name == "mamba":
        assert said == ["mamba runs as transformers computes it, slower: its layers keep a state."]
        assert (engine.path, engine.reason, engine.fused) == ("padded", "its layers keep a state", (0, 0))
    else:
        assert said == [] and (engine.path, engine.reason, engine.fused[1]) == ("tree", "", 2)


# ---- what is wrong is not used ------------------------------------------------------------------


VIEWS: tuple[Any, ...] = (TreeView, MaskedView)


def wrap_attention(patch: pytest.MonkeyPatch, views: Sequence[Any], change: Callable[..., Any]) -> None:
    """change: gets the view's own method, and then what that gets."""
    for view in views:
        patch.setattr(view, "attend", partialmethod(partial(_changed, change, view.attend)))


def _changed(change: Callable[..., Any], attend: Any, view: Any, *given: Any, **more: Any) -> Any:
    return change(partial(attend, view), *given, **more)


def wrong_scaling(patch: pytest.MonkeyPatch, views: Sequence[Any] = VIEWS) -> None:
    wrap_attention(patch, views, lambda own, n, q, k, v, s, **more: own(n, q, k, v, 1.05 * s, **more))


def wrong_windows(patch: pytest.MonkeyPatch, views: Sequence[Any] = VIEWS) -> None:
    wrap_attention(patch, views, lambda own, *given, **more: own(*given, **{**more, "window": None}))


def wrong_positions(patch: pytest.MonkeyPatch) -> None:
    """Wrong beyond 300 only."""
    forward = TreeEngine.forward
    patch.setattr(
        TreeEngine, "forward", lambda self, ids, at, view: forward(self, ids, [min(p, 300) for p in at], view)
    )


def wrong_decode_steps(patch: pytest.MonkeyPatch) -> None:
    from rung.engine.kv_cache import RowCache

    hold = RowCache.hold
    patch.setattr(RowCache, "hold", lambda self, n, key, value, *at: hold(self, n, key, 0.9 * value, *at))


def failing(patch: pytest.MonkeyPatch, views: Sequence[Any] = VIEWS) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise IndexError("list index out of range")

    wrap_attention(patch, views, fails)


@pytest.mark.parametrize("ways", ["plain", "fused"])
@pytest.mark.parametrize("poison", [wrong_scaling, wrong_windows, wrong_positions, wrong_decode_steps, failing])
def test_a_wrong_tree_path_is_not_taken(poison: Any, ways: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNG_WAYS", ways)
    assert checked_engine(small_network("mistral"), "mistral").path == "tree"
    poison(monkeypatch)
    network = small_network("mistral")
    engine = checked_engine(network, "mistral")
    assert engine.path == "padded" and engine.reason
    assert fused_layers(network) == [] and network.config._attn_implementation == "sdpa"
    row = list(range(4, 30))
    with torch.no_grad():
        expected = small_network("mistral")(torch.tensor([row])).logits[0, -2:]
        found, _ = engine.scores([(row[:-1], row[-1:] * 2)])
    assert relative_error(found[:1], expected[:1]) < 1e-5


@pytest.mark.parametrize("poison", [wrong_scaling, wrong_windows, failing])
def test_where_attention_in_one_kernel_is_wrong_the_tree_path_is_taken_without_it(
    poison: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNG_WAYS", "fused")
    right = checked_engine(small_network("mistral"), "mistral")
    assert right.path == "tree" and right.ways.fused
    poison(monkeypatch, [MaskedView])
    engine = checked_engine(small_network("mistral"), "mistral")
    assert engine.path == "tree" and engine.fused == (2, 2) and not engine.ways.fused
    assert set(engine.ways.given_up) == {"fused"} and engine.ways.given_up["fused"]
    row = list(range(4, 30))
    with torch.no_grad():
        expected = small_network("mistral")(torch.tensor([row])).logits[0, -2:]
        found, _ = engine.scores([(row[:-1], row[-1:] * 2)])
    assert relative_error(found[:1], expected[:1]) < 1e-4


def test_where_an_adapter_fails_in_attention_in_one_kernel_it_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNG_WAYS", "fused")
    engine = checked_engine(small_network("llama"), "llama")
    assert engine.ways.fused
    failing(monkeypatch, [MaskedView])
    assert engine.adapters.trainable
    assert engine.fused == (2, 2) and not engine.adapters.plain and "out of range" in engine.ways.given_up["fused"]


def test_a_way_that_does_not_exist_is_named_to_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNG_WAYS", "fused,fast")
    with pytest.raises(ModelError, match=r"RUNG_WAYS: 'fast' is no way to compute.*unset the variable"):
        checked_engine(small_network("llama"), "llama")


@pytest.mark.parametrize("times", [1, 2])
def test_a_check_that_runs_out_of_memory_is_tried_again_and_then_left_out(
    times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, left, said = loading_check.check_rounding, [True] * times, list[str]()

    def full(*given: Any) -> None:
        if left:
            left.pop()
            raise torch.OutOfMemoryError("CUDA out of memory")
        whole(*given)

    monkeypatch.setattr(loading_check, "check_rounding", full)
    network = small_network("llama", dtype=torch.bfloat16)
    plain, before = plain_copy(network), state_of(network)
    engine = checked_engine(network, "llama", say=said.append)
    if times == 1:
        assert engine.path == "tree" and engine.fused == (2, 2) and said == []
        return
    assert engine.path == "padded" and len(said) == 1 and "too little memory to check" in said[0]
    assert fused_layers(network) == [] and network.config._attn_implementation == "eager"
    assert all(torch.equal(value, now) for (*_, value), now in zip(before, network.state_dict().values(), strict=True))
    jobs = [Job(list(range(4, 4 + length)), 5) for length in (3, 9, 9)]
    found = dict(pair for batch in decode(engine, jobs, ()) for pair in batch)
    assert [found[i] for i in range(3)] == [plain_answer(plain, job.prompt, 5) for job in jobs]


def test_a_check_that_the_machines_memory_does_not_hold_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small_network("llama", dtype=torch.bfloat16)
    layer = sum(p.numel() for p in network.model.layers[0].parameters())
    assert extra_bytes(network, torch.float32) == 4 * (layer + network.lm_head.weight.numel())
    monkeypatch.setattr(loading_check, "free_bytes", lambda _: 4 * layer)
    assert checked_engine(network, "llama").path == "padded"
    assert checked_engine(small_network("llama"), "llama").path == "tree", "nothing need be converted"


def test_a_network_that_computes_in_its_own_type_only_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    network, said = small_network("llama", dtype=torch.bfloat16), list[str]()
    norm = type(network.model.norm)
    own = norm.forward

    def packed(self: Any, hidden: torch.Tensor) -> torch.Tensor:
        """A kernel for one type."""
        if hidden.dtype != torch.bfloat16:
            raise RuntimeError("expected scalar type BFloat16 but found Float")
        out: torch.Tensor = own(self, hidden)
        return out

    monkeypatch.setattr(norm, "forward", packed)
    plain, engine = plain_copy(network), checked_engine(network, "llama", say=said.append)
    assert engine.path == "padded" and "in its own type only" in said[0]
    row = list(range(4, 30))
    found, _ = engine.scores([(row[:-1], row[-1:])])
    with torch.no_grad():
        assert torch.equal(found, plain(torch.tensor([row[:-1]])).logits[0, -1:].float())


def test_only_a_network_that_transformers_cannot_compute_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small_network("llama")
    network.model.norm.weight.data = torch.ones(7)
    with pytest.raises(ModelError, match="model llama: transformers cannot compute it"):
        checked_engine(network, "llama")


def test_a_network_whose_rows_cannot_stand_at_far_positions_is_left_to_transformers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = small_network("llama")
    own = type(network).forward

    def near_only(self: Any, *given: Any, position_ids: Any = None, **more: Any) -> Any:
        """Keys are looked up by position."""
        if position_ids is not None and int(position_ids.max()) > 100:
            raise IndexError("index 254 is out of bounds")
        return own(self, *given, position_ids=position_ids, **more)

    monkeypatch.setattr(type(network), "forward", near_only)
    assert checked_engine(network, "llama").path == "padded"


def test_only_the_layers_whose_fused_form_is_wrong_are_left_unfused(monkeypatch: pytest.MonkeyPatch) -> None:
    forward, wrong = layers._forward, small_network("llama", num_hidden_layers=4)

    def poisoned(layer: Any, *given: Any, **more: Any) -> torch.Tensor:
        out: torch.Tensor = forward(layer, *given, **more)
        return out * 1.001 if layer is wrong.model.layers[2] else out

    monkeypatch.setattr(layers, "_forward", poisoned)
    engine = checked_engine(wrong, "llama")
    assert engine.path == "tree" and engine.fused == (3, 4)
    assert fused_layers(wrong) == [layer for i, layer in enumerate(wrong.model.layers) if i != 2]


# ---- windows ----------------------------------------------------------------------------------


def test_windows_are_shrunk_for_the_check_and_come_back() -> None:
    network = small_network("mistral")
    assert has_windows(network) and not has_windows(small_network("llama"))
    whole = reference_of(network).near
    with shrunk_windows(network):
        assert network.config.sliding_window == 8
        assert relative_error(reference_of(network).near, whole) > 1e-2
    assert network.config.sliding_window == 100
    assert relative_error(reference_of(network).near, whole) == 0


def test_fused_layers_have_the_networks_own_windows_after_the_check() -> None:
    network = small_network("mistral")
    plain, engine = plain_copy(network), checked_engine(network, "mistral")
    assert isinstance(engine, TreeEngine) and engine.fused == (2, 2)
    row = [(7 * i) % 90 + 4 for i in range(130)]
    with torch.no_grad():
        found = engine.logits(engine.hidden_of(grow([row])))
        assert relative_error(found, plain(torch.tensor([row])).logits[0]) < 1e-4


def test_windows_that_cannot_be_tried_are_left_to_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small_network("mistral")
    own = type(network.model).forward

    def fixed(self: Any, *given: Any, **more: Any) -> Any:
        """Reads a window that no attribute changes."""
        self.config.sliding_window = 100
        for layer in self.layers:
            layer.self_attn.sliding_window = 100
        return own(self, *given, **more)

    monkeypatch.setattr(type(network.model), "forward", fixed)
    engine = checked_engine(network, "mistral")
    assert (engine.path, engine.reason) == ("padded", "its windows cannot be tried at loading")


# ---- half precision ---------------------------------------------------------------------------


def deep(dtype: torch.dtype) -> Any:
    """Llama-3-8B's depth and ratios."""
    return small_network(
        "llama",
        dtype=dtype,
        hidden_size=256,
        intermediate_size=896,
        num_hidden_layers=32,
        num_attention_heads=8,
        num_key_value_heads=2,
        vocab_size=512,
        initializer_range=0.02,
    )


def test_32_layers_in_bfloat16_take_the_tree_path_and_round_no_more_than_transformers() -> None:
    network = deep(torch.bfloat16)
    plain, engine = plain_copy(network), checked_engine(network, "deep")
    assert engine.path == "tree" and engine.fused == (32, 32)
    assert isinstance(engine, TreeEngine)
    row = [(7 * i) % 500 + 4 for i in range(50)]
    with torch.no_grad():
        exact = plain_copy(plain).float()(torch.tensor([row])).logits[0]
        theirs = plain(torch.tensor([row])).logits[0]
        ours = engine.logits(engine.hidden_of(grow([row])))
    assert (ours - exact).norm() <= 1.2 * (theirs.float() - exact).norm()


def test_errors_in_half_precision_are_judged_by_transformers_own() -> None:
    torch.manual_seed(0)
    exact, noise, more = torch.randn(40, 100), torch.randn(40, 100), torch.randn(40, 100)
    assert rounds_alike(exact + 0.05 * noise, exact + 0.05 * more, exact)
    assert not rounds_alike(exact + 0.10 * noise, exact + 0.05 * more, exact)
    flipped = exact + 0.05 * noise
    flipped[:3] += 5.0  # other experts, by chance
    assert rounds_alike(flipped, exact + 0.05 * more, exact)
    assert not rounds_alike(exact + float("nan"), exact + 0.05 * more, exact)


def test_an_engine_that_rounds_more_than_transformers_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def coarse(own: Any, n: int, q: torch.Tensor, *given: Any, **more: Any) -> Any:
        out = own(n, q, *given, **more)
        return out if q.dtype == torch.float32 else (out * 1.03).to(out.dtype)

    wrap_attention(monkeypatch, VIEWS, coarse)
    engine = checked_engine(small_network("llama", dtype=torch.bfloat16), "llama")
    assert engine.path == "padded" and "rounding" in engine.reason


@pytest.mark.parametrize("name", ["llama", "mamba", "gemma2"])
def test_a_network_in_half_precision_computes_in_float32_as_a_converted_copy(name: str) -> None:
    network = small_network(name, dtype=torch.bfloat16)
    copy = plain_copy(network).float()
    row = torch.tensor([[5, 6, 7, 8, 9]])
    with torch.no_grad(), computing_in(network, torch.float32):
        found = network(row).logits
    with torch.no_grad():
        # Buffers that are rounded when a copy is made in half precision stay rounded.
        assert relative_error(found, copy(row).logits) < 1e-5
    assert network.dtype == torch.bfloat16


# ---- adapters ---------------------------------------------------------------------------------


def test_adapters_are_checked_once_when_the_first_one_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    check = tree_check.check_adapter
    monkeypatch.setattr(loading_check, "check_adapter", lambda engine: (calls.append(engine), check(engine)))
    engine = checked_engine(small_network("llama"), "llama")
    assert calls == []
    counted = engine.computed_tokens
    assert engine.adapters.trainable and engine.adapters.trainable
    assert engine.computed_tokens == counted, "what checks is no part of a stage's work"
    assert calls == [engine] and fused_layers(engine.network) != []
    assert not any("in_training" in name for name, _ in engine.network.named_parameters())


def test_adapters_that_the_fused_steps_compute_wrongly_are_computed_as_peft_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    together = adapters.Adapters.together

    def wrong(self: Any, group: Any) -> Any:
        found = together(self, group)
        return found and [adapters.replace(f, scaling=1.5 * f.scaling) for f in found]

    engine = checked_engine(small_network("llama"), "llama")
    monkeypatch.setattr(adapters.Adapters, "together", wrong)
    assert engine.adapters.wrapper is not None
    assert fused_layers(engine.network) == [] and engine.adapters.plain


def test_adapters_that_are_read_wrongly_without_peft_are_loaded_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    read = adapter_held.read_plain

    def wrong(*given: Any) -> Any:
        found = read(*given)
        found.row.mul_(1.2)
        return found

    engine = checked_engine(small_network("llama"), "llama")
    monkeypatch.setattr(adapter_held, "read_plain", wrong)
    engine.adapters.check()
    assert not engine.adapters.reads and not engine.adapters.plain and fused_layers(engine.network) != []
    assert engine.adapters.held.bytes == 0


def test_adapters_whose_tokens_are_mixed_up_are_loaded_by_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = adapter_mix.AdapterMix._gathered

    def wrong(self: Any, *given: Any) -> Any:
        found = whole(self, *given)
        found.back.copy_(found.back.roll(1))
        return found

    engine = checked_engine(small_network("llama"), "llama")
    monkeypatch.setattr(adapter_mix.AdapterMix, "_gathered", wrong)
    engine.adapters.check()
    assert not engine.adapters.reads


def test_adapters_that_are_wrong_in_every_way_are_never_used(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = checked_engine(small_network("llama"), "llama")
    monkeypatch.setattr(tree_check, "relative_error", lambda *_: 1.0)
    for _ in range(2):
        assert not engine.adapters.trainable
        with pytest.raises(ModelError, match="something else than in PEFT"):
            engine.adapters.begin_training(None, 0)


@pytest.mark.parametrize("times", [1, 2])
def test_adapters_whose_check_runs_out_of_memory_are_computed_in_the_surest_way(
    times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, left = tree_check._plainly, [True] * times

    def full(engine: Any) -> Any:
        if left:
            left.pop()
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(engine)

    engine = checked_engine(small_network("llama"), "llama")
    monkeypatch.setattr(tree_check, "_plainly", full)
    assert engine.adapters.trainable and left == []
    assert engine.adapters.plain == (times == 2)
    assert engine.fused == ((0, 2) if times == 2 else (2, 2))


def test_an_embedding_is_not_converted_for_the_few_rows_that_are_looked_up() -> None:
    network = small_network("llama", dtype=torch.bfloat16, tie_word_embeddings=False)
    seen: list[tuple[torch.dtype, torch.dtype]] = []
    embedding = network.get_input_embeddings()
    with computing_in(network, torch.float32):
        hook = embedding.register_forward_hook(lambda m, _, out: seen.append((m.weight.dtype, out.dtype)))
        network(torch.tensor([[5, 6]]))
    hook.remove()
    assert seen == [(torch.bfloat16, torch.float32)]
