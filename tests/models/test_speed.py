from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from rung.engine.static_pass import StaticPass
from rung.engine.ways import Ways
from rung.models import answers_key, describe, metered, speed_of
from rung.models import speed as speeds
from rung.models.speed import kept_dtype, kept_since, kept_speed, measured_speed, quick_read_speed
from rung.testing import FakeModel, tiny_model
from rung.types import Generation, Speed


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RUNG_CACHE", str(tmp_path))
    return tmp_path


def test_the_speed_of_a_local_model_is_measured_once_a_machine(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    computed = model.computed_tokens
    speed = speed_of(model)
    assert min(speed.read, speed.write, speed.train) > 0 and speed.read > speed.train
    assert model.computed_tokens == computed, "the measurement is no work of a stage"
    (record,) = cache.glob("speed/*.json")
    assert record.name.startswith("tiny-0-float32-")
    monkeypatch.setattr(speeds, "measured_speed", None)
    assert speed_of(tiny_model()) == speed, "read back, not measured again"


def test_of_a_kept_speed_it_is_known_since_when_and_where(cache: Path) -> None:
    model = tiny_model()
    assert kept_since(model) is None and kept_since(FakeModel({})) is None
    speed_of(model)
    kept = kept_since(model)
    assert kept is not None and [kept.file] == list(cache.glob("speed/*.json")) and kept.when.startswith("20")


def test_the_speed_of_the_slower_path_is_kept_apart(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    monkeypatch.setattr(type(model.engine), "path", "padded")
    speed_of(model)
    (record,) = cache.glob("speed/*.json")
    assert record.name.startswith("tiny-0-float32-padded-")


def test_measuring_changes_no_answer_and_no_random_number(tiny: Any) -> None:
    import torch

    from rung.types import Decoding, Message, Request

    requests = [Request((Message("user", text),), Decoding(8, temperature=0.9, seed=1)) for text in ("a", "b")]
    before = [g.text for g in tiny.generate(requests)]
    state = torch.get_rng_state()
    speed_of(tiny)
    assert torch.equal(torch.get_rng_state(), state)
    assert [g.text for g in tiny.generate(requests)] == before


def test_nearly_equal_measurements_are_the_same_speed() -> None:
    a, b = (kept_speed(str(i), "m", lambda r=r: Speed(r, r, r)) for i, r in enumerate((980.0, 1020.0)))
    assert a == b and a.read == pytest.approx(1000, rel=0.13)
    assert kept_speed("0", "another machine", lambda: Speed(5, 5, 5)).read == pytest.approx(5, rel=0.13)


def test_the_first_of_many_concurrent_measurements_stays(cache: Path) -> None:
    def one(i: int) -> Speed:
        return kept_speed(f"key-{i % 10}", "m", lambda: Speed(10.0 * 2**i, 1.0, 1.0))

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(one, range(300)))
    for key in range(10):
        assert len({s.read for s in found[key::10]}) == 1
    assert len(list(cache.glob("speed/*.json"))) == 10 and not list(cache.glob("speed/*.tmp"))


def test_a_speed_measured_on_a_busy_machine_is_replaced_by_a_clearly_faster_one_only() -> None:
    def kept(now: float, quick: float) -> float:
        return kept_speed("k", "m", lambda: Speed(now, 5.0, now), lambda _: quick).read

    first = kept(100.0, 0.0)
    assert kept(1000.0, 1.5 * first) == first, "less than two steps faster may be chance"
    assert kept(120.0, 1000.0) == first, "the whole measurement does not confirm it"
    faster = kept(200.0, 200.0)
    assert faster == pytest.approx(200, rel=0.13)
    assert kept(50.0, 50.0) == faster == kept(50.0, 0.0), "the fastest stays"
    assert kept_speed("k", "m", lambda: Speed(1, 1, 1)).write == pytest.approx(5, rel=0.13)


def test_a_quick_measurement_is_made_where_it_is_cheap_and_counts_for_nothing(tiny: Any) -> None:
    before = tiny.computed_tokens
    assert quick_read_speed(tiny.engine, Speed(1e5, 1.0, 1.0)) > 0
    assert quick_read_speed(tiny.engine, Speed(10.0, 1.0, 1.0)) == 0
    assert tiny.computed_tokens == before


def test_the_type_of_a_cpu_is_timed_once_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from rung.engine import devices

    answers = [torch.bfloat16, torch.float32]
    monkeypatch.setattr(devices, "fastest_dtype", lambda device: answers.pop(0))
    assert kept_dtype("cpu") == kept_dtype("cpu") == torch.bfloat16
    assert kept_dtype("cuda") == torch.float32, "a GPU is not timed"


def test_a_cache_that_cannot_be_written_only_means_measuring_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> Any:
        raise PermissionError("read-only")

    monkeypatch.setattr(speeds, "once_for_all", refused)
    assert kept_speed("k", "m", lambda: Speed(1.0, 1.0, 1.0)) == Speed(1.0, 1.0, 1.0)


def test_any_other_model_is_estimated_from_two_answers_and_always_alike() -> None:
    found = []
    for _ in range(2):
        model = FakeModel(lambda r: "one " * 64, latency_s=0.5)
        found.append(speed_of(model))
        assert len(model.requests) == 2
    assert found[0] == found[1]
    assert found[0].read == pytest.approx(400 / 0.5, rel=0.13) and found[0].write == pytest.approx(64 / 0.5, rel=0.13)
    assert 0 < found[0].train < found[0].read


def test_a_model_that_gives_no_answer_has_a_speed_too() -> None:
    assert min(speed_of(FakeModel({})).__dict__.values()) > 0
    assert min(speed_of(FakeModel({}, context_length=1)).__dict__.values()) > 0

    class Mute(FakeModel):
        def generate(self, requests: Any) -> list[Generation]:
            return [Generation("", 0, 0, 0.0, "error", "mute") for _ in requests]

    assert speed_of(Mute({})) == speeds._UNKNOWN


def test_an_estimate_is_made_once_and_its_answers_are_counted() -> None:
    model = metered(FakeModel(lambda r: "one two"))
    assert model.speed() == speed_of(model) and model.calls == 2


def test_keys_of_answers_are_file_names_that_tell_models_apart() -> None:
    keys = {answers_key(FakeModel({}, name=n, version=v)) for n in ("a/b:c", "a-b-c") for v in ("1", "2")}
    assert len(keys) == 4 and all("/" not in key and ":" not in key for key in keys)
    assert describe(FakeModel({})) == {}


@pytest.mark.parametrize("fails", [False, True])
def test_training_is_timed_in_recorded_passes_where_a_training_has_them(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    monkeypatch.setenv("RUNG_WAYS", "fused,static")
    engine, passes = tiny_model().engine, list[int]()
    right = StaticPass.hidden

    def hidden(given: StaticPass, **how: bool) -> Any:
        passes.append(given.tokens)
        if fails:
            raise RuntimeError("no kernel for it")
        return right(given, **how)

    monkeypatch.setattr(StaticPass, "hidden", hidden)
    assert measured_speed(engine).train > 0
    assert engine.adapters.is_base and set(engine.ways.given_up) == ({"static training"} if fails else set())
    assert len(passes) == 1 if fails else min(passes) >= 32 * 50


def test_a_speed_is_kept_for_the_ways_that_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the name of earlier versions where they are the usual ones of the device."""
    keys = list[str]()

    def kept(key: str, *_: Any) -> Speed:
        keys.append(key)
        return Speed(1, 2, 3)

    monkeypatch.setattr(speeds, "kept_speed", kept)
    for ways in ("", "plain", "fused,static"):
        monkeypatch.setenv("RUNG_WAYS", ways)
        tiny_model().speed()
    usual, plain, fast = keys
    assert usual == plain == tiny_model().answers_key and fast == f"{usual}-fused+static"
    cuda = torch.device("cuda")
    assert speeds.ways_part(Ways(fused=True, static=True, compiled=True), cuda) == ""
    assert speeds.ways_part(Ways(), cuda) == "-plain"
