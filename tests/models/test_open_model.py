from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rung import models
from rung.errors import ModelError
from rung.models import OPENERS, model_version, open_model, register_model
from rung.models.loading import load_model
from rung.testing import FakeModel
from rung.types import Decoding, Measured, Message, Model, Request, Trainable

HELLO = Request((Message("user", "hi"),), Decoding(4))


@pytest.fixture(autouse=True)
def openers() -> Iterator[None]:
    before = list(OPENERS)
    yield
    OPENERS[:] = before
    models._opened.clear()


def test_a_model_of_another_kind_is_one_function_and_one_registration() -> None:
    opened: list[str] = []

    def open_fake(spec: str, say: Any) -> Model:
        opened.append(spec)
        say("opening")
        return FakeModel({"hi": "hello"}, name=spec, version="7")

    said: list[str] = []
    register_model("fake:", open_fake)
    model = open_model("fake:one", say=said.append)
    assert model.generate([HELLO])[0].text == "hello"
    assert opened == ["fake:one"] and said == ["opening"]
    assert model_version("fake:two") == "7", "without a function of its own the opened model says its version"


def test_a_model_that_was_opened_for_its_version_is_not_opened_again() -> None:
    opened: list[str] = []

    def open_fake(spec: str, say: Any) -> Model:
        opened.append(spec)
        return FakeModel({}, name=spec, version="7")

    opener = register_model("fake:", open_fake)
    assert model_version("fake:a") == model_version("fake:a") == "7"
    first, second = open_model("fake:a"), open_model("fake:a")
    assert opened == ["fake:a", "fake:a"] and first is not second
    model_version("fake:a"), model_version("fake:b")
    assert list(models._opened) == [(opener, "fake:b")], "one model waits at most"
    OPENERS.remove(opener)
    register_model("fake:", lambda spec, say: FakeModel({}, name=spec, version="8"))
    assert open_model("fake:b").version == "8"


def test_an_opener_may_say_a_version_without_opening() -> None:
    def never(spec: str, say: Any) -> Model:
        raise AssertionError("opened")

    opener = register_model(lambda spec: spec.endswith("!"), never, lambda spec, say: spec.upper())
    assert model_version("x!") == "X!"
    OPENERS.remove(opener)
    with pytest.raises(ModelError):
        model_version("x!")


def test_any_other_spec_is_a_local_model(tiny_folder: Path) -> None:
    model = open_model(str(tiny_folder))
    assert isinstance(model, Trainable) and isinstance(model, Measured)
    assert model.version == model_version(str(tiny_folder))


def test_a_version_is_found_without_loading_the_network(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import rung.models.loading

    monkeypatch.setattr(rung.models.loading, "load_model", None)
    assert len(model_version(str(tiny_folder))) == 16


@pytest.mark.parametrize("variable", ["RUNG_CARDS", "RUNG_WAYS"])
def test_variables_are_checked_before_a_local_model_is_opened(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "nonsense")
    for ask in (open_model, partial(open_model, engine="vllm"), load_model):
        with pytest.raises(ModelError, match=f"environment variable {variable}: 'nonsense' is no"):
            ask(str(tiny_folder))


def test_the_room_exports_what_the_others_use() -> None:
    for name in ("metered", "speed_of", "answers_key", "describe", "Metered"):
        assert callable(getattr(models, name))
