from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rung.models import identity
from rung.models.identity import STAMP, content_version, file_sha256, version_of
from rung.testing import save_tiny_model

LONG_AGO = (1_000_000_000, 1_000_000_000)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RUNG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(identity, "_LARGE", 1000)  # the tiny model's weights count as large
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = save_tiny_model(tmp_path / "model")
    for path in place.iterdir():
        os.utime(path, LONG_AGO)
    return place


def test_touching_copying_and_moving_leave_a_models_version(folder: Path, tmp_path: Path) -> None:
    version = version_of(folder)
    for path in folder.iterdir():
        os.utime(path)
    assert version_of(folder) == version
    copy = shutil.copytree(folder, tmp_path / "elsewhere" / "copy", copy_function=shutil.copyfile)
    assert version_of(copy) == version
    assert version_of(folder.rename(tmp_path / "moved")) == version
    assert len(version) == 16


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "generation_config.json"])
def test_one_changed_byte_gives_another_version(folder: Path, name: str) -> None:
    version = version_of(folder)
    content = bytearray((folder / name).read_bytes())
    content[-2] ^= 1
    (folder / name).write_bytes(content)
    assert version_of(folder) != version


def test_a_chat_template_belongs_to_the_version_and_a_note_does_not(folder: Path) -> None:
    version = version_of(folder)
    (folder / "README.md").write_text("notes")
    (folder / "training_args.json").write_text("{}")
    assert version_of(folder) == version
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert version_of(folder) != version


@pytest.mark.parametrize("name", ["spiece.model", "qwen.tiktoken", "tekken.json"])
def test_every_kind_of_tokenizer_belongs_to_the_version(folder: Path, name: str) -> None:
    before = version_of(folder)
    (folder / name).write_text("{}")
    assert version_of(folder) != before


def test_a_large_file_is_hashed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version, hashed = version_of(folder), list[str]()
    whole = identity._digest
    monkeypatch.setattr(identity, "_digest", lambda path: hashed.append(path.name) or whole(path))
    assert version_of(folder) == version
    assert "model.safetensors" not in hashed
    os.utime(folder / "model.safetensors", (2_000, 2_000))
    assert version_of(folder) == version
    assert hashed.count("model.safetensors") == 1


def test_a_file_that_was_just_written_is_not_remembered(folder: Path, cache: Path) -> None:
    os.utime(folder / "model.safetensors")
    file_sha256(folder / "model.safetensors")
    assert not list(cache.glob("hashes/*"))


def test_a_damaged_record_is_made_again(folder: Path, cache: Path) -> None:
    digest = file_sha256(folder / "model.safetensors")
    (record,) = cache.glob("hashes/*.json")
    for content in ("", "{", "[]", "{}"):
        record.write_text(content)
        assert file_sha256(folder / "model.safetensors") == digest
    assert json.loads(record.read_text())["sha256"] == digest


def test_in_the_hubs_cache_a_large_files_name_is_its_hash(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    blobs.mkdir(), snapshot.mkdir(parents=True)
    (blobs / ("ab" * 32)).write_bytes(b"weights")
    (blobs / ("cd" * 20)).write_bytes(b"{}")  # small files have git's names there
    (snapshot / "model.safetensors").symlink_to(blobs / ("ab" * 32))
    (snapshot / "config.json").symlink_to(blobs / ("cd" * 20))
    assert file_sha256(snapshot / "model.safetensors") == "ab" * 32
    assert file_sha256(snapshot / "config.json") == file_sha256_of(b"{}")


def file_sha256_of(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


def test_a_converted_folder_has_its_sources_version_until_its_files_change(
    folder: Path, cache: Path, tmp_path: Path
) -> None:
    stamp = {"source": "x.gguf", "source_sha256": "ef" * 32, "content": content_version(folder)}
    (folder / STAMP).write_text(json.dumps(stamp))
    inside = shutil.copytree(folder, cache / "models" / "x")
    assert version_of(folder) == version_of(inside) == "ef" * 8
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    assert version_of(folder) == content_version(folder) != "ef" * 8


def test_another_conversion_of_the_same_source_is_another_version(cache: Path) -> None:
    versions = []
    for conversion in ({}, {"format": 1}, {"format": 2}, {"format": 3}):
        place = cache / "models" / f"x{len(versions)}"
        place.mkdir(parents=True)
        (place / STAMP).write_text(json.dumps({"source_sha256": "ef" * 32, **conversion}))
        versions.append(version_of(place))
    assert versions[0] == versions[1] == "ef" * 8
    assert len(set(versions)) == 3 and {len(v) for v in versions} == {16}


def test_the_embedded_model_keeps_its_version(cache: Path) -> None:
    from rung.models.catalogue import CATALOGUE, DEFAULT_MODEL, _catalogue_folder

    place = _catalogue_folder(CATALOGUE[DEFAULT_MODEL])
    place.mkdir(parents=True)
    (place / STAMP).write_text(json.dumps({"source_sha256": CATALOGUE[DEFAULT_MODEL].sha256}))  # of an older rung
    assert version_of(place) == "b179c9523d0e6a0f"


def test_three_hundred_concurrent_writers_do_not_disturb_each_other(folder: Path, cache: Path) -> None:
    """Threads and processes hash the same file while its record is missing, so that all of them write it."""
    weights = folder / "model.safetensors"
    digest = file_sha256(weights)
    (record,) = cache.glob("hashes/*.json")

    def hashed(_: int) -> str:
        record.unlink(missing_ok=True)
        return file_sha256(weights)

    script = (
        "import sys; from pathlib import Path; from rung.models import identity\n"
        "identity._LARGE = 1000\n"
        "record, weights = Path(sys.argv[1]), Path(sys.argv[2])\n"
        "for _ in range(75):\n"
        "    record.unlink(missing_ok=True)\n"
        "    assert identity.file_sha256(weights) == sys.argv[3]\n"
    )
    command = [sys.executable, "-c", script, str(record), str(weights), digest]
    others = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(hashed, range(150))) == {digest}
    for other in others:
        assert other.communicate()[1] == "" and other.returncode == 0
    assert {p.suffix for p in record.parent.iterdir()} <= {".json"}, "no scratch file stays"
