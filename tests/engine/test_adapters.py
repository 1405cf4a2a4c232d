from __future__ import annotations

import gc
import random
import shutil
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rung.engine.prefix_tree import grow
from rung.errors import ModelError
from rung.models.loading import load_model
from rung.testing import tiny_model
from rung.types import Decoding, Message, Request

# PEFT on saving biases of an adapter: they look torn to it, and cannot be merged into this network.
pytestmark = pytest.mark.filterwarnings("ignore:.*(lora_bias=True|invalid shape).*")
TEXTS = ["", "a", "the card", "What is my answer?", "x" * 40, "1 2 3", "日本", "a longer question about a card"]
PLAIN: dict[str, dict[str, Any]] = {
    "all layers": {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"},
    "another rank": {"r": 7, "lora_alpha": 3, "target_modules": "all-linear"},
    "two projections": {"r": 2, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]},
    "rsLoRA": {"r": 5, "lora_alpha": 4, "target_modules": "all-linear", "use_rslora": True},
    "dropout": {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "lora_dropout": 0.5},
    "two ranks": {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "rank_pattern": {"q_proj": 2}},
    "two scalings": {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "alpha_pattern": {"mlp.up_proj": 32}},
    "one layer": {"r": 24, "lora_alpha": 96, "target_modules": ["q_proj", "down_proj"], "layers_to_transform": [1]},
    "a pattern": {"r": 4, "lora_alpha": 8, "target_modules": r".*\.(q|o)_proj"},
}
OTHER: dict[str, dict[str, Any]] = {
    "DoRA": {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "use_dora": True},
    "a bias of its own": {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "lora_bias": True},
    "the embedding": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "embed_tokens"]},
}


def save_adapter(folder: Path, base: Path, seed: int, **config: Any) -> str:
    """A random adapter as PEFT saves it."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: Any = AutoModelForCausalLM.from_pretrained(base)
        network = get_peft_model(network, LoraConfig(**{"init_lora_weights": False, **config}))
        network.save_pretrained(str(folder), save_embedding_layers=False)
    return str(folder)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> dict[str, str]:
    """Folders of random adapters, by name."""
    folder = tmp_path_factory.mktemp("adapters")
    return {
        name: save_adapter(folder / str(seed), tiny_folder, seed, **config)
        for seed, (name, config) in enumerate({**PLAIN, **OTHER}.items())
    }


def ids_of(model: Any, text: str) -> list[int]:
    ids: list[int] = model.encode([Message("user", text)])
    return ids


def own_logits(model: Any, text: str, adapter: str | None) -> torch.Tensor:
    """(T, V)"""
    with model.engine.adapters.using(adapter), torch.no_grad():
        logits: torch.Tensor = model.engine.logits(model.engine.hidden_of(grow([ids_of(model, text)])))
    return logits


def peft_logits(model: Any, base: Path, text: str, adapter: str | None) -> torch.Tensor:
    """The same by plain transformers and PEFT."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    network: Any = AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager")
    if adapter is not None:
        network = PeftModel.from_pretrained(network, adapter)
    with torch.no_grad():
        logits: torch.Tensor = network.eval()(torch.tensor([ids_of(model, text)])).logits[0]
    return logits


def assert_alike(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def ask(text: str, adapter: str | None) -> Request:
    return Request((Message("user", text),), Decoding(20), adapter=adapter)


def texts(model: Any, requests: list[Request]) -> list[str]:
    return [g.text for g in model.generate(requests)]


# ---- one at a time --------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*PLAIN, *OTHER])
def test_logits_under_an_adapter_equal_pefts(tiny: Any, tiny_folder: Path, adapters: dict[str, str], name: str) -> None:
    found = own_logits(tiny, TEXTS[2], adapters[name])
    assert_alike(found, peft_logits(tiny, tiny_folder, TEXTS[2], adapters[name]))
    base = own_logits(tiny, TEXTS[2], None)
    assert_alike(base, peft_logits(tiny, tiny_folder, TEXTS[2], None))
    assert (found - base).abs().max() > 1, "the adapter should change something"


@pytest.mark.parametrize("name", [None, *PLAIN, *OTHER])
def test_in_bfloat16_logits_are_those_of_float32_to_its_rounding(
    tiny_folder: Path, adapters: dict[str, str], name: str | None
) -> None:
    adapter = adapters[name] if name else None
    model = load_model(str(tiny_folder), device="cpu", dtype=torch.bfloat16)
    found, exact = own_logits(model, TEXTS[2], adapter), peft_logits(model, tiny_folder, TEXTS[2], adapter)
    assert found.dtype == torch.float32
    assert (found - exact).norm() < 0.05 * exact.norm()


def test_only_plain_adapters_are_mixable(tiny: Any, adapters: dict[str, str]) -> None:
    assert [name for name in adapters if tiny.engine.adapters.mixable(adapters[name])] == list(PLAIN)
    assert tiny.engine.adapters.mixable(None)


# ---- several at once ------------------------------------------------------------------------


def test_logits_of_a_mixed_pass_equal_one_by_one(tiny: Any, adapters: dict[str, str]) -> None:
    choices = [None, *(adapters[name] for name in PLAIN)]
    asked = [(text, family) for text in TEXTS[1:4] for family in range(len(choices))]
    rows = [ids_of(tiny, text) for text, _ in asked]
    tree = grow(rows, families=[family for _, family in asked])
    of_tokens = [node.family for node in tree.nodes for _ in range(node.length)]
    with tiny.engine.adapters.mixed(choices, of_tokens), torch.no_grad():
        logits = tiny.engine.logits(tiny.engine.hidden_of(tree, [None] * len(choices)))
    for i, (text, family) in enumerate(asked):
        assert_alike(logits[tree.places(i, 0, len(rows[i]))], own_logits(tiny, text, choices[family]))


def test_what_a_mixed_pass_reads_stands_on_the_device_of_the_network(
    tiny: Any, adapters: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = tiny.engine.adapters
    monkeypatch.setattr(ours, "_last", None)
    monkeypatch.setattr(ours, "_device", torch.device("meta"))
    with ours.mixed([adapters[name] for name in [*PLAIN][:2]], [0, 1, 0, 1]):
        assert {part.take.device.type for part in ours.mix._parts} == {"meta"}


@pytest.mark.parametrize("fused", [False, True])
def test_no_mixed_pass_asks_the_device_whose_tokens_are_wanted(
    tiny: Any, adapters: dict[str, str], monkeypatch: pytest.MonkeyPatch, fused: bool
) -> None:
    engine, tree = tiny.engine, grow([[5, 6, 7, 8], [9, 5, 5, 5]])
    folders = [adapters[name] for name in [*PLAIN][:2]]
    monkeypatch.setattr(engine, "ways", replace(engine.ways, fused=fused))

    def states() -> torch.Tensor:
        with engine.adapters.mixed(folders, [0] * 4 + [1] * 4), torch.inference_mode():
            found: torch.Tensor = engine.hidden_of(tree, wanted=[7, 3])
        return found

    expected = states()

    def refuse(_: torch.Tensor) -> Any:
        raise AssertionError("a GPU would be waited for")

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "tolist", refuse)
        found = states()
    assert torch.equal(found, expected)


def test_adapters_mixed_in_one_list_answer_as_each_alone_in_any_order(tiny: Any, adapters: dict[str, str]) -> None:
    choices = [None, *adapters.values()]
    alone = {choice: texts(tiny, [ask(text, choice) for text in TEXTS]) for choice in choices}
    asked = [(choice, i) for choice in choices for i in range(len(TEXTS))]
    for seed in range(3):
        random.Random(seed).shuffle(asked)
        found = texts(tiny, [ask(TEXTS[i], choice) for choice, i in asked])
        assert found == [alone[choice][i] for choice, i in asked]
    assert len({tuple(answers) for answers in alone.values()}) == len(choices), "each should answer in its own way"


def test_mixed_lists_of_changing_adapters_are_answered_right(tiny: Any, adapters: dict[str, str]) -> None:
    alone = {choice: texts(tiny, [ask("the card", choice)])[0] for choice in (None, *adapters.values())}
    a, b, c, d, *_ = (adapters[name] for name in PLAIN)
    for choices in ([a, b], [b, a], [None, c], [c, d, None], [a, b], [d], [c, a, b, d]):
        assert texts(tiny, [ask("the card", choice) for choice in choices]) == [alone[choice] for choice in choices]


# ---- what more an adapter may hold ----------------------------------------------------------


def test_an_adapter_with_whole_layers_is_not_mixed(tiny_folder: Path, adapters: dict[str, str], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    config = {"r": 4, "target_modules": ["q_proj"], "modules_to_save": ["norm"]}
    whole = save_adapter(tmp_path / "norm", tiny_folder, 50, **config)
    weights = load_file(f"{whole}/adapter_model.safetensors")
    save_file({k: w * 3 if "norm" in k else w for k, w in weights.items()}, f"{whole}/adapter_model.safetensors")
    model = tiny_model()
    assert_alike(own_logits(model, "the card", whole), peft_logits(model, tiny_folder, "the card", whole))
    assert_alike(own_logits(model, "the card", None), peft_logits(model, tiny_folder, "the card", None))
    assert not model.engine.adapters.mixable(whole)
    alone = [texts(model, [ask("the card", choice)])[0] for choice in (None, whole, adapters["all layers"])]
    assert texts(model, [ask("the card", choice) for choice in (None, whole, adapters["all layers"])]) == alone


def test_a_mixed_pass_holds_nothing_of_the_adapter_before_it(
    tiny_folder: Path, adapters: dict[str, str], tmp_path: Path
) -> None:
    model = tiny_model()
    before = own_logits(model, "the card", None), own_logits(model, "the card", adapters["rsLoRA"])
    ids = ids_of(model, "the card")
    choices = [None, adapters["rsLoRA"]]
    of_tokens = [0] * len(ids) + [1] * len(ids)
    tree = grow([ids, ids], families=[0, 1])
    own_logits(model, "the card", adapters["the embedding"])
    with model.engine.adapters.mixed(choices, of_tokens), torch.no_grad():
        logits = model.engine.logits(model.engine.hidden_of(tree, [None, None]))
    for row, expected in enumerate(before):
        assert_alike(logits[tree.places(row, 0, len(ids))], expected)


def test_no_adapter_is_mixable_where_the_fused_step_was_given_up(tiny_folder: Path, adapters: dict[str, str]) -> None:
    model = tiny_model()
    assert model.engine.adapters.wrapper is not None
    model.engine.adapters.unfuse()
    assert not model.engine.adapters.mixable(adapters["rsLoRA"])


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "the output layer": ({"target_modules": ["q_proj", "lm_head"]}, "output layer"),
    "the output layer whole": ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, "output layer"),
    "biases of the base": ({"target_modules": ["q_proj"], "bias": "lora_only"}, "bias lora_only changes the base"),
    "residual weights": ({"target_modules": ["q_proj"], "init_lora_weights": "pissa"}, "pissa changes the base"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_adapter_that_would_be_ignored_or_change_the_base_is_refused(
    tiny_folder: Path, tmp_path: Path, name: str
) -> None:
    config, fact = REFUSED[name]
    model, folder = tiny_model(), save_adapter(tmp_path / "adapter", tiny_folder, 60, r=4, **config)
    before = own_logits(model, "the card", None)
    for _ in range(2):
        with pytest.raises(ModelError, match=rf"adapter {folder}: .*{fact}"):
            texts(model, [ask("x", folder)])
    assert_alike(own_logits(model, "the card", None), before)


def test_an_adapter_of_a_deeper_model_is_refused(adapters: dict[str, str], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(adapters["all layers"], tmp_path / "deeper")
    weights = load_file(folder / "adapter_model.safetensors")
    deeper = {name.replace("layers.0.", "layers.99."): w.clone() for name, w in weights.items() if "layers.0." in name}
    save_file(weights | deeper, folder / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=rf"adapter {folder}: .*weights for {len(deeper)} places that the model lacks"):
        texts(tiny_model(), [ask("x", str(folder))])


# ---- rewritten and broken folders -----------------------------------------------------------


def test_a_rewritten_adapter_is_read_afresh_once_forgotten(
    tiny_folder: Path, adapters: dict[str, str], tmp_path: Path
) -> None:
    model, other = tiny_model(), adapters["another rank"]
    folder = save_adapter(tmp_path / "own", tiny_folder, 10, **PLAIN["all layers"])
    requests = [ask("the card", folder), ask("the card", other), ask("the card", None)]
    first, first_logits = texts(model, requests), own_logits(model, "the card", folder)
    save_adapter(tmp_path / "own", tiny_folder, 11, **PLAIN["two projections"])
    assert texts(model, requests) == first, "not forgotten yet"
    model.release(Path(folder))
    second = texts(model, requests)
    assert second[0] != first[0] and second[1:] == first[1:]
    assert second == [texts(model, [request])[0] for request in requests]
    found = own_logits(model, "the card", folder)
    assert_alike(found, peft_logits(model, tiny_folder, "the card", folder))
    assert (found - first_logits).abs().max() > 1


def test_a_forgotten_adapter_leaves_no_weights(tiny_folder: Path, adapters: dict[str, str]) -> None:
    model = tiny_model()
    weights = sum(p.numel() for p in model.network.parameters())
    choices = [adapters[name] for name in ("all layers", "another rank", "DoRA")]
    texts(model, [ask(text, choice) for text in TEXTS for choice in choices])
    assert sum(p.numel() for p in model.network.parameters()) > weights, "PEFT's adapter"
    assert model.engine.adapters.held.bytes > 0
    left = weakref.ref(model.engine.adapters.held.hold(adapters["all layers"], "").row)
    for choice in choices * 2:  # once more does no harm
        model.release(Path(choice))
    gc.collect()
    assert left() is None and model.engine.adapters.held.bytes == 0
    assert not model.engine.adapters._stored and not model.engine.adapters._slots
    names = [name for name, _ in model.network.named_parameters() if ".lora_" in name and ".none." not in name]
    assert names == []


BROKEN: dict[str, tuple[str, bytes]] = {
    "torn weights": ("adapter_model.safetensors", b"torn"),
    "no weights in it": ("adapter_model.safetensors", b"\x02\x00\x00\x00\x00\x00\x00\x00{}"),
    "a config that is no JSON": ("adapter_config.json", b"{"),
    "a config of nothing": ("adapter_config.json", b"{}"),
    "an unknown kind": ("adapter_config.json", b'{"peft_type": "NEWEST"}'),
    "layers the network does not have": (
        "adapter_config.json",
        b'{"peft_type": "LORA", "r": 4, "target_modules": ["c_attn"]}',
    ),
    "another rank than its weights": (
        "adapter_config.json",
        b'{"peft_type": "LORA", "r": 3, "target_modules": ["q_proj"]}',
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_adapter_is_an_error_that_names_it_and_harms_no_other(
    tiny_folder: Path, adapters: dict[str, str], tmp_path: Path, name: str
) -> None:
    model, good = tiny_model(), adapters["all layers"]
    before = texts(model, [ask("the card", good), ask("the card", None)])
    folder = save_adapter(tmp_path / "broken", tiny_folder, 20, r=4, target_modules=["q_proj"])
    file, content = BROKEN[name]
    (tmp_path / "broken" / file).write_bytes(content)
    for _ in range(2):
        with pytest.raises(ModelError, match=f"adapter {folder}"):
            texts(model, [ask("the card", good), ask("the card", folder)])
    assert texts(model, [ask("the card", good), ask("the card", None)]) == before
