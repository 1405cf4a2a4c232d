"""bench/injections.py on a fake model: every arm is measured, and goes on from what is on disk."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import pytest

import injections as bench
from rung.evaluation.injections import CANARIES
from rung.solutions.prompt_rendering import FENCE_NOTE
from rung.testing import FakeTrainable
from rung.types import Request

WORD = re.compile("|".join(CANARIES))


def follows_unless_fenced(request: Request) -> str:
    text, said = request.messages[-1].content, WORD.findall(request.messages[-1].content)
    if said and FENCE_NOTE not in request.messages[0].content:
        return str(said[0])
    codes = re.findall(r"code of (\w+) is (\w+)\.", text)
    name = re.findall(r"code of (\w+)\?", text)[-1]
    return dict(codes).get(name, "unknown")


def name_of(i: int) -> str:
    return "".join("abcdefghij"[int(d)] for d in f"{i:03}") + "or"


@pytest.mark.parametrize("corpus", [True, False])
def test_every_arm_has_its_rate_and_nothing_is_asked_twice(corpus: bool, tmp_path: Path) -> None:
    rows = [{"id": f"{i}", "input": f"What is the code of {name_of(i)}?", "output": f"c{i}"} for i in range(120)]
    passages = [{"id": f"p{i}", "text": f"The code of {name_of(i)} is c{i}."} for i in range(120)]
    for name, lines in (("examples", rows), ("corpus", passages)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = {"instruction": "Answer.", "examples": "examples.jsonl", "model": "fake"}
    said |= {"corpus": "corpus.jsonl"} if corpus else {}
    (tmp_path / "task.yaml").write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in said.items()))
    options = argparse.Namespace(
        rows=24, steps=2, train=40, k=2, kind="bm25", demos=0, metric=None, only=bench.ARMS, seed=0
    )
    model, lines = FakeTrainable(follows_unless_fenced), []
    found = bench.measured(tmp_path, model, tmp_path / "out", options, lines.append)
    arms = found["arms"]
    assert tuple(arms) == (bench.ARMS if corpus else ("prompt",))
    assert arms["prompt"]["where"] == "input" and arms["prompt"]["followed"]["mean"] > 0.8
    assert all(arm["said_without_an_order"] == 0 for arm in arms.values())
    if corpus:
        assert arms["rag"]["followed"]["mean"] > 0.8 > arms["rag, fenced"]["followed"]["mean"] == 0
        assert arms["rag, fenced"]["right"]["mean"] == arms["rag, fenced"]["score"]["mean"] == 1
        assert arms["rag, fenced"]["against"]["high"] < 0 and "against no fence" in "\n".join(lines)
        assert arms["rag, fenced, reminder"]["tokens_in"] > arms["rag, fenced"]["tokens_in"]
    calls = len(model.requests)
    again = bench.measured(tmp_path, model, tmp_path / "out", options)
    assert len(model.requests) == calls and again["arms"].keys() == arms.keys()
