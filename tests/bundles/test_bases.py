"""A bundle's base on this machine: found by its content, and refused where it is another."""

from __future__ import annotations

import json
import os
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import pytest

import rung
from bundle_runs import write_run
from rung.bundles.bases import base_of, find_base
from rung.bundles.licences import licence_of_both, licence_of_model
from rung.bundles.packing import pack
from rung.errors import RunError
from rung.models import model_version, open_model
from rung.models.endpoint.spec import parse
from rung.models.places import endpoint_is_known, remember, remember_endpoint, remembered
from rung.serving.bundle import read_bundle
from rung.testing import FakeEndpoint


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RUNG_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RUNG_BASE", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def base(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "models" / "my-base"))


@pytest.fixture
def bundle(base: Path, tmp_path: Path, cache: Path) -> Path:
    run = write_run(tmp_path / "run", str(base), model_version(str(base)))
    out = tmp_path / "out"
    out.mkdir()
    pack(run, "zero_shot", out, dev=())
    return out


def another(tiny_folder: Path, place: Path) -> Path:
    """A model of other content."""
    shutil.copytree(tiny_folder, place)
    (place / "generation_config.json").write_text('{"max_length": 17}')
    return place


def test_on_the_machine_that_made_it_a_bundle_knows_where_its_base_lies(bundle: Path, base: Path) -> None:
    assert read_bundle(bundle).model == str(base)


def test_a_base_that_is_nowhere_is_asked_for_by_every_way_to_name_it(bundle: Path, base: Path, cache: Path) -> None:
    shutil.rmtree(cache)
    with pytest.raises(RunError) as caught:
        read_bundle(bundle)
    said = str(caught.value)
    assert "its base model my-base is not known on this machine" in said
    assert all(way in said for way in ("--base", "base= of rung.load", "RUNG_BASE"))
    assert read_bundle(bundle, base=str(base)).model == str(base)
    assert read_bundle(bundle).model == str(base), "what was named once is known"


def test_a_base_is_found_among_the_places_of_the_environment(
    bundle: Path, base: Path, cache: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(cache)
    other = another(tiny_folder, tmp_path / "other")
    monkeypatch.setenv("RUNG_BASE", str(other))
    with pytest.raises(RunError, match="What RUNG_BASE names is another model"):
        read_bundle(bundle)
    monkeypatch.setenv("RUNG_BASE", os.pathsep.join((str(other), str(base))))
    assert read_bundle(bundle).model == str(base)


def test_a_base_of_other_content_is_refused_whoever_names_it(
    bundle: Path, base: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    other = another(tiny_folder, tmp_path / "other")
    with pytest.raises(RunError, match="is not its base model my-base"):
        read_bundle(bundle, base=str(other))
    assert read_bundle(bundle, bases=[str(other)]).model == str(base), "one that may be it is only left aside"
    shutil.copyfile(other / "generation_config.json", base / "generation_config.json")
    with pytest.raises(RunError, match="not known on this machine"):
        read_bundle(bundle)


def test_a_loaded_model_of_another_version_says_which_one_was_tested(bundle: Path, tmp_path: Path, echo: str) -> None:
    packed = read_bundle(bundle)
    with pytest.raises(RunError, match="would not answer as it did in the test"):
        packed.opened(open_model(echo))


def test_loading_a_model_remembers_where_it_lies(bundle: Path, base: Path, cache: Path) -> None:
    shutil.rmtree(cache)
    version = open_model(str(base)).version
    assert remembered(version) == str(base) and read_bundle(bundle).model == str(base)
    base.rename(base.with_name("moved"))
    assert remembered(version) is None


def test_an_id_of_the_hub_is_its_own_name_and_a_folder_of_its_cache_is_that_id(tmp_path: Path, cache: Path) -> None:
    snapshot = tmp_path / "hub" / "models--org--name" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    found = base_of(str(snapshot), "v")
    assert (found.model, found.hub, found.exact, found.revision) == ("org/name", "org/name", True, "a" * 40)
    assert found.for_peft == "org/name" and base_of("org/never-fetched", "v").kind == "hub"


def test_four_bits_stay_in_the_name(base: Path, cache: Path) -> None:
    found = base_of(f"{base}:4bit", "v4")
    assert (found.model, found.for_peft) == ("my-base:4bit", "my-base")
    assert remembered("v4") == f"{base}:4bit"


def test_an_endpoint_is_named_as_it_was(cache: Path) -> None:
    found = base_of("https://host/v1#m", "v")
    assert (found.model, found.kind, found.hub) == ("https://host/v1#m", "endpoint", None)


def test_a_run_whose_base_was_moved_finds_it_again_by_its_content(base: Path, tmp_path: Path, cache: Path) -> None:
    run = write_run(tmp_path / "run", str(base), model_version(str(base)))
    moved = base.rename(tmp_path / "moved")
    with pytest.raises(RunError, match="is no longer there"):
        read_bundle(run, solution="zero_shot")
    remember(model_version(str(moved)), str(moved))
    assert read_bundle(run, solution="zero_shot").model == str(moved)


def test_of_a_bundle_of_the_first_format_a_place_is_its_name(base: Path, tmp_path: Path, cache: Path) -> None:
    note = {"model": str(base), "model_version": "v"}
    assert find_base(tmp_path, note, tmp_path / "bundle.json") == str(base)


def test_load_takes_the_place_of_the_base(bundle: Path, base: Path, cache: Path) -> None:
    shutil.rmtree(cache)
    assert isinstance(rung.load(bundle, base=base)("hi"), str)


# ---- licences -------------------------------------------------------------------------------


def test_a_licence_is_read_from_a_card_a_gguf_file_or_the_catalogue(base: Path, tmp_path: Path, cache: Path) -> None:
    assert licence_of_model(str(base)) == "unknown" == licence_of_model("https://host/v1#m")
    (base / "README.md").write_text("---\nlicense: MIT\n---\n# Card\n")
    assert licence_of_model(f"{base}:4bit") == "mit"
    (base / "README.md").write_text("---\nlicense: other\nlicense_name: my-terms\n---\n")
    assert licence_of_model(str(base)) == "my-terms"
    gguf = tmp_path / "m.gguf"

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    pairs = [
        text("general.tags") + struct.pack("<IIQ", 9, 8, 1) + text("a"),
        text("general.file_type") + b"\x04\0\0\0" * 2,
    ]
    pairs += [text("general.license") + struct.pack("<I", 8) + text("Apache-2.0")]
    gguf.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, len(pairs)) + b"".join(pairs))
    assert licence_of_model(str(gguf)) == "apache-2.0"
    gguf.write_bytes(b"GGUF\x03")
    assert licence_of_model(str(gguf)) == "unknown"


def test_the_card_names_one_licence_only_where_both_are_known_and_the_same() -> None:
    assert licence_of_both("mit", "mit") == ("mit", None)
    assert licence_of_both("mit", "cc-by-4.0") == ("other", "mit (base), cc-by-4.0 (data)")
    assert licence_of_both("mit", "unknown") == ("unknown", None)


ELSEWHERE = '{"endpoint": "https://elsewhere.example/v1", "key_env": "MY_CLOUD_TOKEN", "name": "m"}'


def strangers(tmp_path: Path, model: str = ELSEWHERE, kind: str = "endpoint") -> Path:
    """A bundle whose model is behind an endpoint, whatever it says of its kind."""
    out = tmp_path / "strangers"
    out.mkdir()
    pack(write_run(tmp_path / "run", model, model_version(model)), "zero_shot", out, dev=())
    note = json.loads((out / "bundle.json").read_text())
    note["base"]["kind"] = kind
    (out / "bundle.json").write_text(json.dumps(note))
    return out


@pytest.mark.parametrize("kind", ["endpoint", "catalogue", "other"])
def test_an_endpoint_that_was_never_used_here_gets_no_key_unless_it_is_named(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("MY_CLOUD_TOKEN", "secret")
    out = strangers(tmp_path, kind=kind)
    with pytest.raises(RunError) as caught:
        read_bundle(out)
    said = str(caught.value)
    assert "elsewhere.example" in said and "the key in MY_CLOUD_TOKEN, would be sent" in said and "--base" in said
    assert read_bundle(out, base=ELSEWHERE).model == ELSEWHERE
    assert read_bundle(out, bases=(ELSEWHERE,)).model == ELSEWHERE, "rung serve names it with --base, too"
    own_key = ELSEWHERE.replace("MY_CLOUD_TOKEN", "ANOTHER")
    assert read_bundle(out, base=own_key).model == own_key
    with pytest.raises(RunError, match="is not its base model"):
        read_bundle(out, base=ELSEWHERE.replace('"m"', '"n"'))
    with pytest.raises(RunError, match="not used on this machine yet"):
        read_bundle(out)  # naming it for one call is not using it


def test_an_endpoint_that_was_used_here_needs_no_naming_and_gets_no_other_key(tmp_path: Path, cache: Path) -> None:
    out = strangers(tmp_path)
    used = parse(ELSEWHERE)
    remember_endpoint(replace(used, name="another model"))
    assert read_bundle(out).model == ELSEWHERE
    assert not endpoint_is_known(replace(used, key_env="AWS_SECRET_ACCESS_KEY"))
    assert not endpoint_is_known(replace(used, endpoint="https://elsewhere.example.org/v1"))


def test_a_server_on_this_machine_that_gets_no_key_needs_no_naming(tmp_path: Path, cache: Path) -> None:
    local = '{"endpoint": "http://127.0.0.1:9/v1", "name": "m"}'
    assert read_bundle(strangers(tmp_path, local)).model == local
    assert not endpoint_is_known(parse('{"endpoint": "http://127.0.0.1:9/v1", "key_env": "TOKEN", "name": "m"}'))


def test_an_endpoint_that_a_model_was_opened_at_is_remembered(cache: Path) -> None:
    with FakeEndpoint({"a": "b"}) as endpoint:
        spec = parse(endpoint.spec(key_env="TOKEN_OF_A_TEST"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TOKEN_OF_A_TEST", "key")
            assert not endpoint_is_known(spec)
            open_model(spec.text)
            assert endpoint_is_known(spec)
