from __future__ import annotations

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path

import pytest

from rung.errors import RunError
from rung.solutions.store import load_passages, load_solution, save_solution
from rung.types import Constraint, Decoding, Demo, DemoSelection, Document, RetrieverSpec, Solution

PLAIN = Solution("plain", "Answer „it“ \u2028 now.", Decoding(32))
FULL = replace(
    PLAIN,
    name="full",
    decoding=Decoding(7, 0.3, 11),
    demos=(Demo("in\n1", "out 1"), Demo('"q" \\ 😀', "")),
    demo_selection=DemoSelection("nearest", 2),
    retriever=RetrieverSpec("bm25", 3, 500),
)
PASSAGES = (Document("a", "Text\nwith lines"), Document("b#1", "größe \u2028 😀", title="T"))


def adapter_in(folder: Path) -> str:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    return str(folder)


def test_the_full_solution_of_these_tests_fills_every_field(tmp_path: Path) -> None:
    filled = replace(FULL, adapter="x", constraint=Constraint("regex", "a"))
    assert all(getattr(filled, f.name) not in (None, ()) for f in fields(Solution))


@pytest.mark.parametrize("solution", [PLAIN, FULL], ids=["plain", "full"])
@pytest.mark.parametrize(
    "constraint",
    [
        None,
        Constraint("labels", ("a", 'b "c"', "ü")),
        Constraint("json_schema", {"type": "object", "properties": {"a": {"enum": [1, None, "x"]}}}),
        Constraint("regex", r"\d+\s\"[^\\]"),
    ],
)
def test_a_solution_is_read_back_as_it_was(tmp_path: Path, solution: Solution, constraint: Constraint | None) -> None:
    solution = replace(solution, constraint=constraint)
    assert save_solution(solution, tmp_path / "s", passages=PASSAGES) == solution
    assert load_solution(tmp_path / "s") == solution
    assert load_passages(tmp_path / "s") == (PASSAGES if solution.retriever else ())


def test_the_adapter_comes_into_the_folder_and_moves_with_it(tmp_path: Path) -> None:
    source = adapter_in(tmp_path / "training" / "step-3")
    saved = save_solution(replace(FULL, adapter=source), tmp_path / "s", passages=PASSAGES)
    assert saved.adapter == str(tmp_path / "s" / "adapter")
    shutil.rmtree(tmp_path / "training")
    shutil.move(tmp_path / "s", tmp_path / "elsewhere")
    moved = load_solution(tmp_path / "elsewhere")
    assert moved == replace(FULL, adapter=str(tmp_path / "elsewhere" / "adapter"))
    assert moved.adapter is not None and (Path(moved.adapter) / "adapter_model.safetensors").read_bytes() == b"weights"
    assert load_passages(tmp_path / "elsewhere") == PASSAGES
    assert str(tmp_path) not in (tmp_path / "elsewhere" / "solution.json").read_text("utf-8")


def test_saving_again_into_its_own_folder_keeps_the_adapter(tmp_path: Path) -> None:
    source = adapter_in(tmp_path / "s" / "adapter")
    saved = save_solution(replace(PLAIN, adapter=source), tmp_path / "s")
    assert save_solution(saved, tmp_path / "s") == saved == load_solution(tmp_path / "s")


def test_the_file_names_the_family_for_other_readers(tmp_path: Path) -> None:
    save_solution(FULL, tmp_path)
    assert json.loads((tmp_path / "solution.json").read_text("utf-8"))["family"] == "rag"


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"name": "x"}', "null", "[" * 100_000])
def test_a_folder_without_a_whole_solution_is_an_error_that_names_it(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "solution.json").write_text(content)
    with pytest.raises(RunError, match=tmp_path.name):
        load_solution(tmp_path)


@pytest.mark.parametrize("adapter", ["../../elsewhere", "/etc", "adapter/../../x", 5])
def test_an_adapter_that_is_not_in_the_folder_is_refused(tmp_path: Path, adapter: object) -> None:
    save_solution(replace(PLAIN, adapter=adapter_in(tmp_path / "a")), tmp_path / "s")
    file = tmp_path / "s" / "solution.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "adapter": adapter}))
    with pytest.raises(RunError, match="not a solution"):
        load_solution(tmp_path / "s")


def test_a_kind_of_index_that_this_version_does_not_know_is_kept(tmp_path: Path) -> None:
    solution = replace(PLAIN, retriever=RetrieverSpec("someones-own", 2, 50))
    save_solution(solution, tmp_path, passages=PASSAGES)
    assert load_solution(tmp_path) == solution


@pytest.mark.parametrize("torn", ["passages", "adapter", "solution"])
def test_a_kill_while_saving_leaves_no_folder_that_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: str
) -> None:
    """The folder holds an older solution; the kill comes while its passages, adapter or solution.json are replaced."""
    from rung.solutions import store

    folder = tmp_path / "s"
    save_solution(replace(FULL, adapter=adapter_in(tmp_path / "old")), folder, passages=PASSAGES)
    new = replace(FULL, name="new", adapter=adapter_in(tmp_path / "new"))

    def killed(*args: object, **more: object) -> None:
        if torn == "adapter":
            Path(str(args[1]), "adapter_config.json").write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if torn == "adapter":
            patched.setattr(shutil, "copytree", killed)
        else:
            patched.setattr(store, "put_passages" if torn == "passages" else "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            save_solution(new, folder, passages=PASSAGES)
    with pytest.raises(RunError, match=r"no solution\.json"):
        load_solution(folder)
    saved = save_solution(new, folder, passages=PASSAGES)
    assert load_solution(folder) == saved
    assert (folder / "adapter" / "adapter_config.json").read_text() == "{}"
    assert sorted(p.name for p in folder.iterdir()) == ["adapter", "index", "solution.json"]


def test_solutions_of_one_run_share_the_file_of_their_passages(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for name in ("solutions/a", "solutions/b", "winner.1-2.tmp"):
        save_solution(FULL, run / name, passages=PASSAGES)
    save_solution(FULL, run / "solutions" / "other", passages=PASSAGES[:1])
    files = [run / name / "index" / "passages.jsonl" for name in ("solutions/a", "solutions/b", "winner.1-2.tmp")]
    assert len({file.stat().st_ino for file in files}) == 1
    assert load_passages(run / "solutions" / "other") == PASSAGES[:1]
    # Each folder stays whole whatever becomes of the others.
    save_solution(FULL, run / "solutions" / "a", passages=PASSAGES[1:])
    assert load_passages(run / "solutions" / "a") == PASSAGES[1:]
    shutil.move(run / "solutions" / "b", tmp_path / "moved")
    shutil.rmtree(run / "solutions")
    assert load_passages(tmp_path / "moved") == load_passages(run / "winner.1-2.tmp") == PASSAGES


def test_passages_that_differ_only_beside_their_text_are_not_shared(tmp_path: Path) -> None:
    paged = tuple(replace(p, page=2, source="here") for p in PASSAGES)
    save_solution(FULL, tmp_path / "a", passages=PASSAGES)
    save_solution(FULL, tmp_path / "b", passages=paged)
    assert load_passages(tmp_path / "b") == paged and load_passages(tmp_path / "a") == PASSAGES


def test_a_disk_without_links_gets_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refused)
    for name in ("a", "b"):
        save_solution(FULL, tmp_path / name, passages=PASSAGES)
    assert load_passages(tmp_path / "b") == PASSAGES
