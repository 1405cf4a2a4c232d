"""What vLLM takes of a card, by need and by what is free."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rung.errors import OutOfMemory
from rung.models.sizes import Shape
from rung.models.vllm.process import VllmFlags
from rung.models.vllm.share import HOST_CACHE, share_of

GB = 10**9
SHAPE = Shape(36, 4096, 12288, 32, 8, 128, 151_936, tied=False)  # of a Qwen3 8B
EACH = 36 * 2 * 8 * 128 * 2  # bytes of a token in its KV cache, in bfloat16
BASE: Any = SimpleNamespace(spec="some", shape=SHAPE, weight_bytes=lambda itemsize: SHAPE.parameters * itemsize)


def share(free: float, *, total: float | None = 80, context: int = 40_960, **more: Any) -> Any:
    room = None if total is None else int(total * GB)
    return share_of(BASE, 2, context, 16, free=int(free * GB), total=room, **more)


def test_vllm_takes_what_its_weights_and_a_cache_need_and_no_more() -> None:
    first, larger = share(78), share(78, total=141)
    assert first.bytes == larger.bytes and larger.share < first.share
    assert SHAPE.parameters * 2 + EACH * 128 * 1024 < first.bytes < SHAPE.parameters * 2 + EACH * 128 * 1024 + 5 * GB
    assert first.share == pytest.approx(first.bytes / (80 * GB)) and first.context == 40_960


def test_scores_of_a_large_vocabulary_have_room_beside_the_cache() -> None:
    large: Any = SimpleNamespace(spec="some", shape=replace(SHAPE, vocabulary=262_144), weight_bytes=BASE.weight_bytes)
    more = share_of(large, 2, 40_960, 16, free=78 * GB, total=80 * GB)
    assert more.bytes - share(78).bytes == 256 * (262_144 - 151_936) * 16 and more.context == 40_960


def test_a_training_keeps_its_room_where_vllm_can_do_with_less() -> None:
    little = share(40, reserve=18 * GB)
    assert little.bytes <= 40 * GB - 18 * GB and little.context < 40_960
    assert share(40).bytes > little.bytes
    assert share(24, reserve=18 * GB).context >= 4096, "it takes what it needs; training then waits until it ends"


def test_a_card_without_room_for_a_small_cache_is_an_error_that_says_what_is_needed() -> None:
    with pytest.raises(OutOfMemory, match=r"vLLM needs 2\d GB .* 12 GB are free on the GPU"):
        share(12)


def test_without_a_gpu_the_cache_is_what_vllm_is_told() -> None:
    host = share(64, total=None)
    assert host.share is None and host.context == HOST_CACHE // EACH
    assert share(64, total=None, context=2048).context == 2048


def test_a_network_of_unknown_shape_gets_a_cache_of_some_size() -> None:
    unknown: Any = SimpleNamespace(spec="some", shape=None, weight_bytes=lambda itemsize: GB)
    found = share_of(unknown, 2, 4096, 16, free=70 * GB, total=80 * GB)
    assert found.context == 4096 and GB < found.bytes < 20 * GB


def test_flags_of_a_run_say_type_share_and_rows_on_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = VllmFlags(Path("m"), "base", 64, dtype="bfloat16", share=0.4567, rows=256)
    monkeypatch.setattr("rung.models.vllm.process.has_gpu", lambda: True)
    on_gpu = flags.words(1)
    assert on_gpu[on_gpu.index("--gpu-memory-utilization") + 1] == "0.457"
    assert on_gpu[on_gpu.index("--dtype") + 1] == "bfloat16" and on_gpu[on_gpu.index("--max-num-seqs") + 1] == "256"
    monkeypatch.setattr("rung.models.vllm.process.has_gpu", lambda: False)
    words = flags.words(1)
    assert "--gpu-memory-utilization" not in words and words[words.index("--dtype") + 1] == "float32"
