"""Adapters that must not be loaded, sent to a server that runs: each is refused with a reason that tells no secret."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from live_server import Live


def copied(live: Live, name: str) -> Path:
    folder = live.adapters / name
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(live.adapters / "first", folder))


def reconfigured(folder: Path, **fields: object) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def refused(live: Live, path: str, *, name: str = "bad") -> str:
    """The reason, in small letters. The name answers no request afterwards."""
    status, reply = live.load(name, path)
    assert 400 <= status < 500, (status, reply)
    assert name not in {model["id"] for model in live.ask("/v1/models")[1]["data"]}
    message: str = reply["error"]["message"]
    return message.lower()


@pytest.fixture(autouse=True)
def lives_on(live: Live) -> object:
    before = live.chat("tuned")["choices"]
    yield
    assert live.chat("tuned")["choices"] == before


def test_a_good_adapter_comes_answers_and_goes(live: Live) -> None:
    base = live.chat("tiny", max_tokens=8)["choices"]
    status, reply = live.load("mine", "first")
    assert status == 200, reply
    assert live.chat("mine", max_tokens=8)["choices"] != base
    assert live.load("mine", "second")[0] == 400  # the name is taken
    assert live.unload("mine")[0] == 200
    assert live.ask("/v1/chat/completions", {"model": "mine", "messages": []})[0] in (400, 404)
    assert live.unload("mine")[0] == 404
    assert live.unload("tiny")[0] == 400


@pytest.mark.parametrize("path", ["..", "../tuned", "first/../../tuned/adapter", "/etc", "/", ".", "", "~", "first\0"])
def test_a_path_out_of_the_folder_is_refused(live: Live, path: str) -> None:
    reason = refused(live, path)
    assert str(live.adapters.parent) not in reason


def test_a_folder_that_is_not_there_is_refused(live: Live) -> None:
    assert "nowhere" in refused(live, "nowhere")
    refused(live, "a" * 5_000)


def test_links_that_lead_out_are_refused(live: Live) -> None:
    elsewhere = live.adapters.parent / "elsewhere"
    if not elsewhere.exists():
        shutil.copytree(live.adapters / "first", elsewhere)
        (live.adapters / "linked").symlink_to(elsewhere)
    refused(live, "linked")
    weights = copied(live, "linked-file") / "adapter_model.safetensors"
    weights.unlink()
    weights.symlink_to(elsewhere / "adapter_model.safetensors")
    assert "link" in refused(live, "linked-file")
    loop = live.adapters / "loop"
    if not loop.is_symlink():
        loop.symlink_to(loop)
    refused(live, "loop")


def test_pickles_are_never_read(live: Live) -> None:
    folder = copied(live, "pickled")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    assert "safetensors" in refused(live, "pickled")


def header(folder: Path, change: Callable[[dict[str, dict[str, object]]], int]) -> None:
    """Rewrites the header of the weights. change: gets it, and returns the bytes of data that are behind it."""
    file = folder / "adapter_model.safetensors"
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    tensors = json.loads(content[8 : 8 + length])
    size = change(tensors)
    text = json.dumps(tensors).encode()
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text + content[8 + length :])
        out.truncate(8 + len(text) + size)  # a hole: it takes no room on the disk


def test_a_rank_of_a_gigabyte_is_refused_unread(live: Live) -> None:
    folder = copied(live, "huge")

    def grow(tensors: dict[str, dict[str, object]]) -> int:
        place = 0
        for name, tensor in tensors.items():
            if name == "__metadata__":
                continue
            rows, columns = tensor["shape"]  # type: ignore[misc]
            rows, columns = (1 << 17, columns) if ".lora_A." in name else (rows, 1 << 17)
            size = 4 * rows * columns
            tensor |= {"shape": [rows, columns], "data_offsets": [place, place + size]}
            place += size
        return place

    header(folder, grow)
    reconfigured(folder, r=1 << 17)
    assert "rank" in refused(live, "huge")


def test_a_rank_that_the_weights_do_not_have_is_refused(live: Live) -> None:
    folder = copied(live, "lying")
    reconfigured(folder, r=4)
    refused(live, "lying")


def test_an_adapter_of_another_base_is_refused(live: Live) -> None:
    folder = copied(live, "foreign")

    def narrow(tensors: dict[str, dict[str, object]]) -> int:
        place = 0
        for name, tensor in tensors.items():
            if name == "__metadata__":
                continue
            rows, columns = tensor["shape"]  # type: ignore[misc]
            rows, columns = (rows, columns // 2) if ".lora_A." in name else (rows // 2, columns)
            tensor |= {"shape": [rows, columns], "data_offsets": [place, place + 4 * rows * columns]}
            place += 4 * rows * columns
        return place

    header(folder, narrow)
    refused(live, "foreign")


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 7, struct.pack("<Q", 1 << 62) + b"{}", b"\x05\0\0\0\0\0\0\0{{{{{"], ids=repr
)
def test_weights_that_are_no_safetensors_are_refused(live: Live, content: bytes) -> None:
    (copied(live, "broken") / "adapter_model.safetensors").write_bytes(content)
    refused(live, "broken")


@pytest.mark.parametrize(
    "fields",
    [
        {"r": -1},
        {"r": "many"},
        {"peft_type": "POEM"},
        {"target_modules": ["no_such_layer"]},
        {"lora_alpha": "x"},
        {"bias": "all"},
        {"init_lora_weights": "pissa"},
    ],
    ids=str,
)
def test_a_config_that_does_not_fit_is_refused(live: Live, fields: dict[str, object]) -> None:
    reconfigured(copied(live, "odd"), **fields)
    refused(live, "odd")


@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": "(" * 50},
        {"auto_mapping": {"base_model_class": "system", "parent_library": "os"}},
        {"lora_runtime_config": {"ephemeral_gpu_offload": "/etc/passwd"}},
        {"runtime": "__import__('os').system('false')"},
    ],
    ids=str,
)
def test_what_a_config_says_beside_is_not_followed(live: Live, fields: dict[str, object]) -> None:
    first = live.load("plain", "first"), live.chat("plain", max_tokens=8)["choices"], live.unload("plain")
    reconfigured(copied(live, "odd"), **fields)
    status, reply = live.load("odd", "odd")
    if status == 200:
        assert live.chat("odd", max_tokens=8)["choices"] == first[1]
        assert live.unload("odd")[0] == 200
    else:
        assert 400 <= status < 500 and reply["error"]["message"], reply


def scaled(folder: Path, by: float) -> None:
    from safetensors.numpy import load_file, save_file

    file = folder / "adapter_model.safetensors"
    save_file({name: (tensor * by).astype(tensor.dtype) for name, tensor in load_file(file).items()}, file)


@pytest.mark.parametrize("by", [float("nan"), float("inf"), 1e36, 1e-40], ids=str)
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_weights_that_are_no_use_do_not_reach_the_answers_of_others(live: Live, by: float) -> None:
    scaled(copied(live, "wild"), by)
    before = live.chat("tuned", max_tokens=12)["choices"]
    status, reply = live.load("wild", "wild")
    if status != 200:
        assert status == 400 and reply["error"]["message"], reply
        return
    asked = {"messages": [{"role": "user", "content": "Which colour?"}], "max_tokens": 12}
    with ThreadPoolExecutor(8) as pool:
        names = ["wild", "tuned"] * 4
        replies = list(
            pool.map(
                lambda i: live.ask("/v1/chat/completions", {**asked, "model": names[i], "temperature": i % 4 // 2}),
                range(8),
            )
        )
    assert live.unload("wild")[0] == 200
    assert [reply[0] for reply in replies] == [200] * 8
    greedy = [reply[1]["choices"] for i, reply in enumerate(replies) if names[i] == "tuned" and i % 4 < 2]
    assert greedy == [before] * len(greedy)


@pytest.mark.parametrize(
    "name",
    ["", " ", "a b", "a\nb", "../a", "a/b/c", "/a", "a\0", "\u202ea", "\u0430dmin", "a" * 65, "-a", ".a", "a'b", "<a>"],
)
def test_a_name_with_odd_characters_is_refused(live: Live, name: str) -> None:
    status, reply = live.load(name, "first")
    assert status == 400 and reply["error"]["param"] == "lora_name", reply
