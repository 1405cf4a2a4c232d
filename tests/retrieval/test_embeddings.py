from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hashed_embedder import Hashed
from rung.errors import BudgetSpent
from rung.retrieval import embeddings
from rung.retrieval.embeddings import Embeddings

TEXTS = [f"text number {i} " + "word " * (i % 7) for i in range(60)]


def silent(what: str, share: float) -> None:
    pass


def vectors(kept: Embeddings, texts: list[str]) -> Any:
    return np.stack([kept.block(block)[row] for block, row in kept.rows(texts)]).astype(np.float32)


@pytest.mark.parametrize("on_disk", [True, False])
def test_what_is_kept_is_what_the_embedder_gave_to_half_precision(tmp_path: Path, on_disk: bool) -> None:
    kept = Embeddings(Hashed(), tmp_path if on_disk else None)
    kept.add(TEXTS, silent)
    np.testing.assert_allclose(vectors(kept, TEXTS), Hashed().embed(TEXTS), atol=1e-3)


def test_only_what_is_new_is_embedded_and_each_text_once(tmp_path: Path) -> None:
    embedder = Hashed()
    Embeddings(embedder, tmp_path).add(TEXTS[:40], silent)
    again = Embeddings(embedder, tmp_path)
    assert set(again.missing(TEXTS)) == set(TEXTS[40:])
    again.add([*TEXTS, *TEXTS], silent)
    assert sorted(embedder.texts) == sorted(TEXTS)
    np.testing.assert_allclose(vectors(again, TEXTS), Hashed().embed(TEXTS), atol=1e-3)


@pytest.mark.parametrize("other", [Hashed(version="2"), Hashed(dimensions=32)], ids=["version", "dimensions"])
def test_another_version_of_an_embedder_has_embeddings_of_its_own(tmp_path: Path, other: Hashed) -> None:
    Embeddings(Hashed(), tmp_path).add(TEXTS[:5], silent)
    assert len(Embeddings(other, tmp_path).missing(TEXTS[:5])) == 5


def test_short_texts_come_first_and_progress_is_told_up_to_the_end(tmp_path: Path) -> None:
    embedder, told = Hashed(), []
    Embeddings(embedder, tmp_path).add(TEXTS, lambda what, share: told.append((what, share)))
    assert [len(t) for t in embedder.texts] == sorted(len(t) for t in TEXTS)
    shares = [share for _, share in told]
    assert shares == sorted(shares) and len(shares) > 2 and shares[-1] == 1.0


def test_what_was_embedded_before_a_stop_is_kept(tmp_path: Path) -> None:
    embedder = Hashed()

    def stop(what: str, share: float) -> None:
        if share > 0.3:
            raise BudgetSpent("enough")

    with pytest.raises(BudgetSpent):
        Embeddings(embedder, tmp_path).add(TEXTS, stop)
    done = list(embedder.texts)
    assert 0 < len(done) < len(TEXTS)
    Embeddings(embedder, tmp_path).add(TEXTS, silent)
    assert sorted(embedder.texts) == sorted(TEXTS)


def test_a_torn_block_and_scratch_files_are_embedded_anew(tmp_path: Path) -> None:
    Embeddings(Hashed(), tmp_path).add(TEXTS, silent)
    (block,) = tmp_path.rglob("*.block")
    block.write_bytes(block.read_bytes()[:-7])
    block.with_name("x.block.1-2.tmp").write_bytes(b"half")
    kept = Embeddings(Hashed(), tmp_path)
    kept.add(TEXTS, silent)
    np.testing.assert_allclose(vectors(kept, TEXTS), Hashed().embed(TEXTS), atol=1e-3)


def test_a_folder_that_cannot_be_written_means_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    kept = Embeddings(Hashed(), tmp_path / "file")
    kept.add(TEXTS, silent)
    np.testing.assert_allclose(vectors(kept, TEXTS), Hashed().embed(TEXTS), atol=1e-3)


def test_many_small_blocks_become_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "_MOST_FILES", 5)
    kept = Embeddings(Hashed(), tmp_path)
    for text in TEXTS:
        kept.add([text], silent)
    assert len(list(tmp_path.rglob("*.block"))) <= 6
    for one in (kept, Embeddings(Hashed(), tmp_path)):
        assert one.missing(TEXTS) == []
        np.testing.assert_allclose(vectors(one, TEXTS), Hashed().embed(TEXTS), atol=1e-3)


def _add(folder: Path, texts: list[str], queue: Any) -> None:
    embedder = Hashed()
    Embeddings(embedder, folder).add(texts, silent)
    queue.put(len(embedder.texts))


def test_two_processes_embed_a_text_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    started = [context.Process(target=_add, args=(tmp_path, TEXTS, queue)) for _ in range(2)]
    for process in started:
        process.start()
    embedded = [queue.get(timeout=60) for _ in started]
    for process in started:
        process.join()
    assert sum(embedded) == len(TEXTS)
    assert Embeddings(Hashed(), tmp_path).missing(TEXTS) == []
