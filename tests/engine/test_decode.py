from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from rung.engine.decode import logprobs
from rung.engine.grammar import Matcher
from rung.testing import tiny_model
from rung.types import Constraint, Decoding, Generation, Message, Request

TEXTS = ["", "a", "the card", "What is my answer?", "x" * 40, "1 2 3", "日本", "a longer question about a card"]
LABELS = Constraint("labels", ("card", "card arrival", "card arrival estimate", "the answer", "no"))
DATE = Constraint("regex", r"20[0-9]{2}-(01|02|12)-[0-3][0-9]zzzzzzzz(x|yyy)")
RECORD = Constraint(
    "json_schema",
    {
        "type": "object",
        "properties": {"zzz": {"enum": ["go", "good", "bad"]}, "yyy": {"type": "boolean"}, "qqqq": {"const": "w" * 20}},
        "required": ["zzz", "yyy", "qqqq"],
        "additionalProperties": False,
    },
)
LONG = Constraint("regex", "q{150}(x|y)")


def ask(text: str, constraint: Constraint | None = None, most: int = 90) -> Request:
    return Request((Message("system", "Answer."), Message("user", text)), Decoding(most), constraint)


def said(found: list[Generation]) -> list[tuple[str, int, str]]:
    return [(g.text, g.tokens_out, g.finish) for g in found]


@contextmanager
def counted(model: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The tokens of each forward pass within."""
    passes: list[int] = []
    forward = model.engine.forward

    def counting(ids: Any, *args: Any) -> torch.Tensor:
        passes.append(len(ids))
        hidden: torch.Tensor = forward(ids, *args)
        return hidden

    with monkeypatch.context() as patch:
        patch.setattr(model.engine, "forward", counting)
        yield passes


# ---- log-probabilities ----------------------------------------------------------------------


def plain_logprobs(network: Any, prompt: list[int], answer: list[int]) -> list[float]:
    """Token by token, each behind a prompt of its own."""
    found = []
    for i, token in enumerate(answer):
        with torch.no_grad():
            logits = network(torch.tensor([prompt + answer[:i]])).logits[0, -1]
        found.append(float(torch.log_softmax(logits, -1)[token]))
    return found


@pytest.mark.parametrize("limit", [1, 9, 4096])
def test_logprobs_of_answers_equal_plain_ones_token_by_token(
    tiny: Any, plain_network: Any, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(tiny.engine, "limits", replace(tiny.engine.limits, scored_tokens=limit))
    turns = ask("the card").messages
    answers = ["card", "card arrival", "card arrival", "", "card arrival estimate", "no", "日本", "the answer is long"]
    rows = [(tiny.encode(turns), tiny.encode_answer(answer)) for answer in answers]
    for found, row in zip(logprobs(tiny.engine, None, rows), rows, strict=True):
        expected = plain_logprobs(plain_network, *row)
        assert len(found) == len(expected) and found == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert logprobs(tiny.engine, None, []) == []


@pytest.mark.parametrize("limit", [1, 20, 4096])
def test_logprobs_behind_several_prompts_equal_plain_ones(
    tiny: Any, plain_network: Any, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(tiny.engine, "limits", replace(tiny.engine.limits, scored_tokens=limit))
    long = tiny.encode(ask("the card has not arrived").messages)
    prompts = [long, long[:-3], long[:20], [7], [8, 9], tiny.encode(ask("a").messages), long]
    rows = [(prompt, tiny.encode_answer(answer)) for prompt in prompts for answer in ("", "card", "card arrival")]
    for found, (prompt, answer) in zip(logprobs(tiny.engine, None, rows), rows, strict=True):
        assert found == pytest.approx(plain_logprobs(plain_network, prompt, answer), rel=1e-4, abs=1e-4)


def test_answers_are_scored_in_passes_no_longer_than_the_limit(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = tiny.encode(ask("passes").messages)
    rows = [(prompt, tiny.encode_answer(f"{i} the answer")) for i in range(12)]
    logprobs(tiny.engine, None, rows)  # the prompt is known from here on
    with counted(tiny, monkeypatch) as whole:
        logprobs(tiny.engine, None, rows)
    monkeypatch.setattr(tiny.engine, "limits", replace(tiny.engine.limits, scored_tokens=20))
    with counted(tiny, monkeypatch) as parts:
        logprobs(tiny.engine, None, rows)
    assert len(whole) == 1 < len(parts) and max(parts) <= 20 < whole[0]


# ---- forced tokens --------------------------------------------------------------------------


# These rules are written in letters that the tokenizer cuts in one way only, so that asking for each token and
# taking what is forced come to the same tokens.
@pytest.mark.parametrize("constraint", [LABELS, DATE, RECORD, LONG], ids=["labels", "regex", "json", "long"])
def test_forced_tokens_give_the_answers_of_asking_for_each_in_fewer_passes(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, constraint: Constraint
) -> None:
    requests = [ask(text, constraint, most=200) for text in TEXTS]
    monkeypatch.setattr(tiny.engine.ways, "static", False)  # whose passes are of one token a row
    with counted(tiny, monkeypatch) as taken:
        found = tiny.generate(requests)
    monkeypatch.setattr(Matcher, "forced", lambda self: [])
    with counted(tiny, monkeypatch) as asked:
        expected = tiny.generate(requests)
    assert [(g.text, g.finish) for g in found] == [(g.text, g.finish) for g in expected]
    assert all(g.finish == "stop" for g in found)
    assert len(taken) < 0.7 * len(asked)


def test_constrained_answers_keep_their_rules(tiny: Any) -> None:
    kinds = [LABELS, DATE, RECORD, LONG, None]
    requests = [ask(text, kind, most=200) for text in TEXTS for kind in kinds]
    found = [g.text for g in tiny.generate(requests)]
    assert set(found[0::5]) <= set(LABELS.value)
    assert all(re.fullmatch(str(DATE.value), text) for text in found[1::5])
    assert all(json.loads(text)["qqqq"] == "w" * 20 for text in found[2::5])
    assert all(re.fullmatch(str(LONG.value), text) for text in found[3::5])


@pytest.mark.parametrize("constraint", [LABELS, DATE, RECORD, LONG], ids=["labels", "regex", "json", "long"])
def test_forced_tokens_never_pass_max_new_tokens(tiny: Any, constraint: Constraint) -> None:
    (whole,) = tiny.generate([ask("the card", constraint, most=200)])
    limits = [most for most in range(1, whole.tokens_out + 3) if most < 45 or most > whole.tokens_out - 3]
    for most, found in zip(limits, tiny.generate([ask("the card", constraint, most) for most in limits]), strict=True):
        assert found.tokens_out == min(most, whole.tokens_out)
        assert found.finish == ("stop" if most >= whole.tokens_out else "length")
        assert whole.text.startswith(found.text)


# ---- batches --------------------------------------------------------------------------------


def test_rows_of_very_different_answer_lengths_answer_as_each_alone(tiny: Any) -> None:
    kinds = [(None, 1), (LONG, 200), (LABELS, 40), (None, 120), (LONG, 60), (RECORD, 90), (None, 2), (DATE, 50)]
    requests = [ask(text, kind, most) for text in TEXTS[:4] for kind, most in kinds]
    alone = [said(tiny.generate([request]))[0] for request in requests]
    assert said(tiny.generate(requests)) == alone
    assert max(n for _, n, _ in alone) > 100 * min(n for _, n, _ in alone)


def test_answers_do_not_depend_on_how_a_list_is_cut_into_batches(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [ask(text, LABELS if i % 3 == 0 else None, most=30) for i, text in enumerate(TEXTS * 2)]
    whole = said(tiny.generate(requests))
    for size in (1, 3):
        lists = [requests[i : i + size] for i in range(0, len(requests), size)]
        assert [answer for part in lists for answer in said(tiny.generate(part))] == whole
        monkeypatch.setattr(tiny.engine, "limits", replace(tiny.engine.limits, rows=size))
        assert said(tiny.generate(requests)) == whole
        monkeypatch.undo()


# ---- the prefix cache ---------------------------------------------------------------


def lists_of_requests() -> dict[str, list[Request]]:
    begin = "Once there was a card that did not arrive. "
    other = "Twice there was a card that did not arrive. "
    return {
        "first": [ask(begin + text) for text in TEXTS],
        "the same": [ask(begin + text) for text in TEXTS],
        "longer": [ask(begin * 2 + text) for text in TEXTS],
        "one of them": [ask(begin + TEXTS[2])],
        "shorter": [ask(begin[:20] + text) for text in TEXTS],
        "another early on": [ask(other + text) for text in TEXTS],
        "another system turn": [Request((Message("system", "No."), *r.messages[1:]), r.decoding) for r in [ask(begin)]],
        "the first again": [ask(begin + text) for text in TEXTS],
    }


@pytest.mark.parametrize("prefix_bytes", [256 << 20, 40_000, 1])
def test_a_cached_prefix_changes_no_answer_and_stays_within_its_memory(
    monkeypatch: pytest.MonkeyPatch, prefix_bytes: int
) -> None:
    model = tiny_model()
    monkeypatch.setattr(model.engine, "limits", replace(model.engine.limits, prefix_bytes=prefix_bytes))
    for name, requests in lists_of_requests().items():
        assert said(model.generate(requests)) == said(tiny_model().generate(requests)), name
        assert sum(prefix.bytes for prefix in model.engine._prefixes.values()) <= prefix_bytes
    storages = {
        x.untyped_storage().data_ptr(): x.untyped_storage().nbytes()
        for b in model.engine._prefixes.values()
        for layer in b.layers
        for x in layer
    }
    assert sum(storages.values()) <= prefix_bytes


def test_a_cached_prefix_is_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = tiny_model(), {}
    for name, requests in lists_of_requests().items():
        with counted(model, monkeypatch) as passes:
            model.generate([Request(r.messages, Decoding(1)) for r in requests])
        tokens[name] = sum(passes)
    begin = len(model.chat.tokenizer.encode("Once there was a card that did not arrive. "))
    assert tokens["first"] - tokens["the same"] > begin
    assert tokens["the first again"] == tokens["the same"] < tokens["longer"] < tokens["first"] + 5


def test_a_prefix_used_last_is_dropped_last(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    rows = [[i] * 10 for i in (5, 6, 7)]
    size = model.engine.prefix(None, rows[0]).bytes
    monkeypatch.setattr(model.engine, "limits", replace(model.engine.limits, prefix_bytes=2 * size))
    model.engine.prefix(None, rows[1])
    model.engine.prefix(None, rows[0])
    model.engine.prefix(None, rows[2])
    assert [ids for _, ids in model.engine._prefixes] == [tuple(rows[0]), tuple(rows[2])]


def test_prefixes_that_nobody_asked_for_lately_are_dropped_beyond_a_few_times_the_largest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model()
    limits = replace(model.engine.limits, prefix_calls=8, prefix_bytes=1 << 30)
    monkeypatch.setattr(model.engine, "limits", limits)
    rows = [[i] * 10 for i in range(5, 5 + 20)]
    for ids in rows:
        model.engine.prefix(None, ids)
    assert [ids for _, ids in model.engine._prefixes] == [tuple(ids) for ids in rows[-8:]]
    model.engine.prefix(None, [4] * 100)
    for _ in range(8):
        model.engine.prefix(None, [4] * 100)
    model.engine.prefix(None, [3] * 10)
    assert len(model.engine._prefixes) == 10, "beside a large one, small ones are left where they are"
