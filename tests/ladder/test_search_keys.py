"""Names under `retrieval` that nothing bears stop before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from rung.data.task_file import read_task
from rung.errors import TaskError
from rung.ladder.checking import check_task
from rung.ladder.search_keys import check_search_keys
from small_task import write_task

MODEL = Path("smollm2-135m-instruct")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"kinds": ["dens"]}, 'names "dens", which is no kind of search. Did you mean "dense"? The kinds are bm25, '),
        ({"embedders": ["nonsense"]}, 'names "nonsense": there is no such embedder. Write minilm, model2vec:NAME, '),
        ({"embedders": ["minlm"]}, 'Did you mean "minilm"?'),
        ({"embedders": ["model2vec"]}, "it names no model. Write model2vec:NAME."),
        ({"embedders": [""]}, 'names "": there is no such embedder.'),
        ({"rerankers": [""]}, 'names "": there is no such reranker.'),
        ({"embedders": ["./absent"]}, "there is no such folder"),
        ({"rerankers": ["foo"]}, 'names "foo": there is no such reranker. Write model, or OWNER/NAME or a folder'),
        ({"rerankers": ["modle"]}, 'Did you mean "model"?'),
        ({"stem": "klingon"}, 'is "klingon", for which there is no stemmer. Write one of arabic, '),
        ({"stem": "englisch"}, 'Did you mean "english"?'),
    ],
)
def test_a_misspelt_name_stops_the_check_of_a_task(tmp_path: Path, keys: dict[str, object], said: str) -> None:
    task = write_task(tmp_path, MODEL, corpus=True, retrieval=keys)
    with pytest.raises(TaskError) as caught:
        check_task(task)
    assert str(caught.value).startswith(f'task.yaml: "retrieval.{next(iter(keys))}" ') and said in str(caught.value)


def test_all_misspelt_names_are_in_one_message(tmp_path: Path) -> None:
    task = write_task(tmp_path, MODEL, corpus=True, retrieval={"kinds": ["a", "bm25"], "rerankers": ["b"]})
    with pytest.raises(TaskError) as caught:
        check_search_keys(read_task(task))
    assert [line.split(",")[0].split(": ")[1] for line in str(caught.value).splitlines()] == [
        '"retrieval.kinds" names "a"',
        '"retrieval.rerankers" names "b"',
    ]


def test_a_name_that_lacks_its_model_is_not_proposed_again(tmp_path: Path) -> None:
    task = write_task(tmp_path, MODEL, corpus=True, retrieval={"embedders": ["model2vec"]})
    with pytest.raises(TaskError) as caught:
        check_search_keys(read_task(task))
    assert "Did you mean" not in str(caught.value)


def test_names_of_the_hub_folders_and_what_is_only_not_installed_pass(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    keys = {
        "kinds": ["bm25", "dense", "fused", "lancedb"],
        "embedders": ["minilm", "intfloat/e5-small-v2", "./mine", "fastembed:BAAI/bge-small-en-v1.5"],
        "rerankers": ["model", "cross-encoder/ms-marco-MiniLM-L6-v2", "./mine"],
        "stem": "",
    }
    check_search_keys(read_task(write_task(tmp_path, MODEL, corpus=True, retrieval=keys)))
