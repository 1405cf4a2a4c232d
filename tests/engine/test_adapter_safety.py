"""What is refused before any weight of an adapter is read."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file

from rung.engine.adapter_folder import MOST_RANK, check_adapter
from rung.engine.adapter_header import read_header
from rung.engine.adapters import Adapters
from rung.errors import ModelError

LAYER = "model.layers.0.self_attn.q_proj"


class Network(torch.nn.Module):
    """One linear layer behind names of transformers' networks."""

    def __init__(self) -> None:
        super().__init__()
        layer = torch.nn.Module()
        layer.add_module("self_attn", torch.nn.ModuleDict({"q_proj": torch.nn.Linear(6, 10)}))
        self.model = torch.nn.Module()
        self.model.add_module("layers", torch.nn.ModuleList([layer]))

    def get_output_embeddings(self) -> None:
        return None


def write(folder: Path, tensors: dict[str, torch.Tensor] | None = None, **config: Any) -> Path:
    """A good adapter of rank 4, but for what is given."""
    folder.mkdir(exist_ok=True)
    given = tensors if tensors is not None else {"A": torch.ones(4, 6), "B": torch.ones(10, 4)}
    named = {f"base_model.model.{LAYER}.lora_{k}.weight" if len(k) == 1 else k: v for k, v in given.items()}
    save_file(named, folder / "adapter_model.safetensors")
    known = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], **config}
    (folder / "adapter_config.json").write_text(json.dumps(known))
    return folder


def adapters() -> Adapters:
    return Adapters(Network(), "small")


def test_a_good_adapter_is_held_and_its_bytes_counted(tmp_path: Path) -> None:
    found = adapters()
    assert found.hold(str(write(tmp_path / "a"))) and found.held.bytes == 4 * 8 * 16  # rank 4 fills 8 rows
    found.forget(str(tmp_path / "a"))
    assert found.held.bytes == 0


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a rank that would take a gigabyte": ({"r": 1_000_000_000}, "its rank is 1,000,000,000, and ranks up to 512"),
    "such a rank for one layer": ({"rank_pattern": {"q_proj": 1 << 30}}, "its rank is 1,073,741,824"),
    "a rank of nothing": ({"r": 0}, "its rank is 0, and must be"),
    "a rank in words": ({"r": "four"}, "its rank is four, and must be"),
    "a rank that is true": ({"r": True}, "its rank is True, and must be"),
    "another kind": ({"peft_type": "IA3"}, "its peft_type is IA3, and only LORA is loaded"),
    "an alpha that is no number": ({"lora_alpha": "much"}, "its alpha or rank is much"),
    "an alpha without end": ({"lora_alpha": float("inf")}, "its alpha or rank is inf"),
    "biases of the base": ({"bias": "all"}, "bias all changes the base"),
    "another rank than its weights": ({"r": 3}, r"q_proj.lora_A is \(4, 6\) and not \(3, 6\)"),
    "layers that it has no weights for": ({"layers_to_transform": [3]}, "weights for 1 layers that its configuration"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_configuration_that_asks_for_too_much_or_does_not_fit_is_refused(tmp_path: Path, name: str) -> None:
    config, fact = REFUSED[name]
    folder = write(tmp_path / "a", **config)
    with pytest.raises(ModelError, match=f"adapter {folder}: .*{fact}") as caught:
        adapters().hold(str(folder))
    assert "\n" not in str(caught.value)


ZEROS = torch.zeros
TENSORS: dict[str, tuple[dict[str, torch.Tensor], str]] = {
    "a rank over the bound": ({"A": ZEROS(1024, 6), "B": ZEROS(10, 1024)}, "its rank is 1,024"),
    "another input": ({"A": ZEROS(4, 7), "B": ZEROS(10, 4)}, r"lora_A is \(4, 7\) and not \(4, 6\)"),
    "another output": ({"A": ZEROS(4, 6), "B": ZEROS(11, 4)}, r"lora_B is \(11, 4\) and not \(10, 4\)"),
    "one factor": ({"A": ZEROS(4, 6)}, "its weights lack 1 of its layers"),
    "not a number": ({"A": torch.full((4, 6), float("nan")), "B": ZEROS(10, 4)}, "not finite"),
    "infinity": ({"A": ZEROS(4, 6), "B": torch.full((10, 4), -float("inf"))}, "not finite"),
    "numbers too large once scaled": ({"A": ZEROS(4, 6), "B": torch.full((10, 4), 3e38)}, "not finite"),
    "whole numbers": ({"A": ZEROS(4, 6, dtype=torch.int8), "B": ZEROS(10, 4)}, "has the type I8"),
    "weights of the base": (
        {f"base_model.model.{LAYER}.base_layer.weight": ZEROS(10, 6)},
        "may be a weight of the base",
    ),
    "a foreign key": ({"A": ZEROS(4, 6), "B": ZEROS(10, 4), "note": ZEROS(1)}, "it holds note, which is no part"),
    "a deeper layer": (
        {f"base_model.model.{LAYER.replace('0', '9')}.lora_A.weight": ZEROS(4, 6)},
        "weights for 1 places that the model lacks",
    ),
    "nothing": ({}, "its weights lack 1 of its layers"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, name: str) -> None:
    tensors, fact = TENSORS[name]
    folder = write(tmp_path / "a", tensors)
    with pytest.raises(ModelError, match=f"adapter {folder}: .*{fact}"):
        adapters().hold(str(folder))


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt"])
def test_a_pickle_is_refused_and_never_opened(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "a")
    (folder / "adapter_model.safetensors").unlink()
    (folder / name).write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(ModelError, match=rf"its weights are a pickle \({name}\), which can run any code"):
        check_adapter(folder)


def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    (folder / "base.json").write_text(json.dumps({"model": "other", "base": "x/other", "version": "1234"}))
    found = adapters()
    assert found.hold(str(folder)), "the version of the base is not known"
    found.forget(str(folder))
    found.base_version = "1234"
    assert found.hold(str(folder))
    found.forget(str(folder))
    found.base_version = "5678"
    with pytest.raises(ModelError, match="it was trained on other, version 1234, and the base here has version 5678"):
        found.hold(str(folder))


def test_files_that_are_too_long_are_refused_unread(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    with (folder / "adapter_config.json").open("ab") as file:
        file.truncate(9 << 20)
    with pytest.raises(ModelError, match=r"adapter_config.json has 9,437,184 bytes, and may have"):
        check_adapter(folder)
    folder = write(tmp_path / "b")
    with (folder / "adapter_model.safetensors").open("r+b") as file:
        file.write(struct.pack("<Q", 40 << 20))
        file.truncate(50 << 20)
    with pytest.raises(ModelError, match=r"the header of adapter_model.safetensors has 41,943,040 bytes"):
        check_adapter(folder)


def test_a_rewritten_folder_that_was_dropped_from_memory_is_not_read_unnoticed(tmp_path: Path) -> None:
    found, folder = adapters(), write(tmp_path / "a")
    assert found.hold(str(folder))
    found.held.drop()
    assert found.hold(str(folder)), "the same files"
    write(folder, {"A": torch.zeros(4, 6), "B": torch.ones(10, 4)})
    assert found.hold(str(folder)), "still in memory"
    found.held.drop()
    with pytest.raises(ModelError, match="its files have changed since it was loaded"):
        found.hold(str(folder))
    found.forget(str(folder))
    assert found.hold(str(folder))


# ---- headers ----------------------------------------------------------------------------------


GOOD = save({"a": torch.ones(2, 3), "b": torch.zeros(0, 3), "c": torch.ones(4, dtype=torch.bfloat16)}, {"k": "v"})


def with_header(header: Any, content: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def test_a_header_gives_names_and_shapes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(GOOD)
    found = read_header(tmp_path / "x")
    assert {name: (t.kind, t.shape) for name, t in found.items()} == {
        "a": ("F32", (2, 3)),
        "b": ("F32", (0, 3)),
        "c": ("BF16", (4,)),
    }


BAD: dict[str, bytes] = {
    "nothing": b"",
    "too short": b"\x08\x00",
    "a header longer than the file": struct.pack("<Q", 1 << 60) + b"{}",
    "a name twice": with_header(
        b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}',
        b"",
    ),
    "two tensors at one place": with_header(
        {n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "ab"}, b"\0" * 4
    ),
    "a shape larger than its bytes": with_header(
        {"a": {"dtype": "F32", "shape": [1 << 40, 1 << 20], "data_offsets": [0, 4]}}, b"\0" * 4
    ),
    "a hole": with_header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"\0" * 8),
    "more behind the last one": with_header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 8),
    "less than it names": with_header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 4),
    "a negative size": with_header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"\0" * 4),
    "a list": with_header([1], b""),
    "no places": with_header({"a": {"dtype": "F32", "shape": [1]}}, b"\0" * 4),
    "very deep": with_header(b"[" * 100_000 + b"]" * 100_000, b""),
    "no UTF-8": with_header(b'{"\xff": 1}', b""),
}


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_header_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "x").write_bytes(BAD[name])
    with pytest.raises(ValueError, match="x"):
        read_header(tmp_path / "x")


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, len(GOOD) - 1), value=st.integers(0, 255), cut=st.integers(0, 8))
def test_whatever_byte_is_changed_the_header_is_read_as_safetensors_does_or_refused(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int, cut: int
) -> None:
    content = bytearray(GOOD)
    content[place] = value
    path = tmp_path_factory.mktemp("header") / "x"
    path.write_bytes(content[: len(content) - cut])
    try:
        found = read_header(path)
    except ValueError:
        return
    theirs = load_file(path)
    assert {name: tensor.shape for name, tensor in found.items()} == {n: tuple(t.shape) for n, t in theirs.items()}


@settings(max_examples=100, deadline=None)
@given(
    config=st.dictionaries(
        st.sampled_from(["r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules", "use_dora", "bias"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
            max_leaves=4,
        ),
    )
)
def test_no_configuration_does_more_than_fit_be_refused_or_be_pefts(
    tmp_path_factory: pytest.TempPathFactory, config: dict[str, Any]
) -> None:
    folder = write(tmp_path_factory.mktemp("config") / "a", **config)
    found = adapters()
    try:
        held = found.hold(str(folder))
    except ModelError as error:
        assert "\n" not in str(error)
    else:
        assert held or found.held.bytes == 0
    shutil.rmtree(folder)


def test_the_bound_of_ranks_is_loaded_itself(tmp_path: Path) -> None:
    tensors = {"A": torch.zeros(MOST_RANK, 6), "B": torch.zeros(10, MOST_RANK)}
    assert adapters().hold(str(write(tmp_path / "a", tensors, r=MOST_RANK)))
