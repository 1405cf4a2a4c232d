"""Answers to many who ask at once equal those of one list, token by token, whoever comes and goes beside them."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from plain_adapters import write_adapter
from rung.engine import continuous as engine_rows
from rung.engine.cohorts import AllCohorts
from rung.engine.out_of_memory import is_out_of_memory
from rung.errors import Busy, ModelError, Unanswerable
from rung.models.continuous import Continuous
from rung.models.loading import load_model
from rung.models.streaming import Ask, Piece, Whole
from rung.testing import tiny_model
from rung.testing.fakes import byte_level_bpe, save_tiny_model
from rung.types import Constraint, Decoding, Message, Request

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "the", "cat", "sat", "on", "a", "mat"]
FLAT = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"], "additionalProperties": False}


class Listener(Whole):
    """Hears an answer in pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.tokens, self.first = "", list[Any](), threading.Event()
        self.told: tuple[int, int] | None = None

    def begun(self, tokens_in: int, tokens_cached: int) -> None:
        self.told = (tokens_in, tokens_cached)

    def piece(self, piece: Piece) -> None:
        self.text += piece.text
        self.tokens += piece.tokens
        self.first.set()


def requests(n: int, seed: int = 0, **decoding: Any) -> list[Request]:
    rng = random.Random(seed)
    found = []
    for i in range(n):
        text = " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 30)))
        turns = (Message("system", "You answer in few words. " * 6), Message("user", text))
        found.append(Request(turns, Decoding(rng.randint(1, 24), seed=i, **decoding)))
    return found


def asked(answerer: Continuous, asks: list[Ask], pause_s: float = 0.002) -> list[Listener]:
    heard = []
    for ask in asks:
        heard.append(Listener())
        answerer.submit(ask, heard[-1])
        time.sleep(pause_s)
    return heard


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model(3)


@pytest.fixture(scope="module")
def adapters(model: Any, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("adapters")
    return [str(write_adapter(folder / f"a{i}", model.network, i, rank=4 if i % 2 else 2)) for i in range(5)]


@pytest.fixture
def answerer(model: Any) -> Iterator[Continuous]:
    before = model.engine.limits
    one = Continuous(model, slots=3)
    yield one
    one.close()
    model.engine.limits = before


def test_answers_of_requests_that_come_one_after_another_equal_those_of_one_list(
    model: Any, answerer: Continuous
) -> None:
    given = [
        *requests(24),
        *requests(6, 1, temperature=1.0),
        *(replace(r, constraint=Constraint("labels", ("yes", "no", "may be so"))) for r in requests(6, 2)),
        *(replace(r, constraint=Constraint("json_schema", FLAT), decoding=Decoding(40)) for r in requests(4, 3)),
    ]
    for expected, heard in zip(model.generate(given), asked(answerer, [Ask(r) for r in given]), strict=True):
        got = heard.wait()
        assert (got.text, got.finish, got.tokens_in, got.tokens_out) == (
            expected.text,
            expected.finish,
            expected.tokens_in,
            expected.tokens_out,
        )
        assert heard.text == got.text and heard.told == (got.tokens_in, got.tokens_cached)
    assert answerer.load().running == answerer.load().waiting == 0


def test_more_adapters_than_slots_are_all_answered_right(model: Any, answerer: Continuous, adapters: list[str]) -> None:
    given = [replace(r, adapter=[None, *adapters][i % 6]) for i, r in enumerate(requests(36, 4))]
    for folder in adapters:
        answerer.hold(Path(folder))
    heard = asked(answerer, [Ask(r) for r in given], 0.0)
    got = [one.wait().text for one in heard]
    assert got == [g.text for g in model.generate(given)]
    assert len({g for g, r in zip(got, given, strict=True) if r.adapter}) > 6, "adapters change answers"


def test_an_adapter_that_is_let_go_is_read_afresh(model: Any, answerer: Continuous, tmp_path: Path) -> None:
    request = replace(requests(1, 5)[0], decoding=Decoding(12))
    answers = []
    folder = tmp_path / "a"
    for seed in (11, 12):
        write_adapter(tmp_path / f"{seed}", model.network, seed).rename(folder)
        answerer.hold(folder)
        answers.append(answerer.generate([replace(request, adapter=str(folder))])[0].text)
        answerer.release(folder)
        answerer.generate([request])  # the engine has let go of it once it answers what came later
        folder.rename(tmp_path / f"old{seed}")
    assert answers[0] != answers[1]


def test_prompts_that_begin_alike_are_read_from_the_cache(answerer: Continuous) -> None:
    same = replace(requests(1, 6)[0], decoding=Decoding(2))
    cached = [answerer.generate([same])[0].tokens_cached for _ in range(3)]
    assert cached[0] == 0 and cached[2] >= 32


def test_a_long_prompt_is_read_in_parts_and_answered_as_in_one(
    model: Any, answerer: Continuous, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_rows, "_JOINING", 64)
    long = [replace(r, messages=(Message("user", "word " * 150 + str(i)),)) for i, r in enumerate(requests(3, 7))]
    given = [*requests(4, 8), *long]
    assert [g.text for g in answerer.generate(given)] == [g.text for g in model.generate(given)]


def test_what_is_not_listened_to_any_more_ends(answerer: Continuous) -> None:
    heard = Listener()
    request = replace(requests(1, 9)[0], decoding=Decoding(100_000, temperature=1.0))
    ticket = answerer.submit(Ask(request), heard)
    heard.first.wait(10)
    ticket.cancel()
    assert heard.wait().error == "nobody listens any more"
    deadline = time.monotonic() + 10
    while answerer.load().running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert answerer.load().running == 0


def test_an_answer_ends_before_a_stop_text_and_no_part_of_it_is_told(model: Any, answerer: Continuous) -> None:
    request = replace(requests(1, 10)[0], decoding=Decoding(24))
    whole = model.generate([request])[0].text
    stop = whole[4:7]
    (heard,) = asked(answerer, [Ask(request, stop=(stop,))])
    got = heard.wait()
    assert got.text == heard.text == whole[: whole.index(stop)] and got.finish == "stop"


def test_log_probabilities_are_of_the_tokens_of_the_answer(answerer: Continuous) -> None:
    request = replace(requests(1, 11)[0], decoding=Decoding(8))
    (heard,) = asked(answerer, [Ask(request, logprobs=3)])
    got = heard.wait()
    assert len(heard.tokens) in (got.tokens_out, got.tokens_out - 1)
    assert all(token.logprob <= 0 and len(token.top) == 3 for token in heard.tokens)
    assert all(token.top[0].logprob == token.logprob for token in heard.tokens), "the likeliest one is chosen"
    with pytest.raises(Unanswerable):
        answerer.submit(Ask(request, logprobs=1000), Listener())


def test_a_grammar_chooses_the_same_with_log_probabilities(answerer: Continuous) -> None:
    request = replace(requests(1, 12)[0], constraint=Constraint("json_schema", FLAT), decoding=Decoding(40))
    plain, told = (asked(answerer, [Ask(request, logprobs=n)])[0].wait().text for n in (None, 1))
    assert plain == told


def test_a_text_is_continued_without_turns(answerer: Continuous) -> None:
    (heard,) = asked(answerer, [Ask(Request((), Decoding(6)), text="the cat sat")])
    got = heard.wait()
    assert got.error is None and got.tokens_in < 10 and got.text == heard.text


def test_a_prompt_that_does_not_fit_is_an_answer_with_an_error(model: Any, answerer: Continuous) -> None:
    (heard,) = asked(answerer, [Ask(Request((Message("user", "word " * model.context_length),), Decoding(4)))])
    assert "does not fit the context" in str(heard.wait().error)


def test_too_many_that_wait_are_refused(model: Any) -> None:
    answerer = Continuous(model, most_waiting=2)
    try:
        with pytest.raises(Busy):
            for request in requests(200, 13):
                answerer.submit(Ask(replace(request, decoding=Decoding(200))), Listener())
    finally:
        answerer.close()
    with pytest.raises(Busy):
        answerer.submit(Ask(requests(1)[0]), Listener())


def test_where_memory_runs_out_fewer_rows_run_and_all_answers_are_the_same(
    model: Any, answerer: Continuous, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = requests(12, 14)
    forward = model.engine.forward

    def limited(ids: Any, positions: Any, view: Any) -> Any:
        if isinstance(view, AllCohorts) and len(ids) > 5:
            error = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
            assert is_out_of_memory(error)
            raise error
        return forward(ids, positions, view)

    expected = [g.text for g in model.generate(given)]
    monkeypatch.setattr(model.engine, "forward", limited)
    assert [g.text for g in answerer.generate(given)] == expected


def test_where_memory_runs_out_as_tokens_are_chosen_all_answers_are_the_same(
    model: Any, answerer: Continuous, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = requests(12, 20)
    logits = model.engine.logits

    def limited(hidden: Any) -> Any:
        if len(hidden) > 5:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
        return logits(hidden)

    expected = [g.text for g in model.generate(given)]
    monkeypatch.setattr(model.engine, "logits", limited)
    assert [g.text for g in answerer.generate(given)] == expected


def test_an_adapter_with_which_the_network_computes_no_numbers_is_refused(
    model: Any, answerer: Continuous, tmp_path: Path
) -> None:
    wild = write_adapter(tmp_path / "wild", model.network, 40, size=1e18)
    with pytest.raises(ModelError, match=r"adapter wild: with it, .* computes no numbers"):
        answerer.hold(wild)
    assert not answerer.load().adapters
    answerer.hold(write_adapter(tmp_path / "tame", model.network, 41))
    assert answerer.load().adapters == 1


@pytest.mark.parametrize("when", ["waiting", "running"])
def test_an_adapter_whose_files_are_gone_ends_its_own_requests_only(
    model: Any, answerer: Continuous, tmp_path: Path, when: str
) -> None:
    folder = write_adapter(tmp_path / "secret" / "gone", model.network, 30)
    given = [replace(r, decoding=Decoding(400)) for r in requests(3, 21)]
    expected = [g.text for g in model.generate(given)]
    heard = asked(answerer, [Ask(r) for r in given], 0.0)
    lost = replace(requests(1, 22)[0], adapter=str(folder), decoding=Decoding(400))
    if when == "running":
        (ended,) = asked(answerer, [Ask(lost)], 0.0)
        ended.first.wait(10)
    shutil.rmtree(folder)
    model.engine.adapters.held.drop()
    if when == "waiting":
        (ended,) = asked(answerer, [Ask(lost)], 0.0)
    error = str(ended.wait().error)
    assert "adapter gone" in error and str(tmp_path) not in error
    assert [one.wait().text for one in heard] == expected


def test_an_adapter_that_changes_the_network_is_loaded_by_the_thread_that_computes(
    model: Any, answerer: Continuous, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    adapters = model.engine.adapters
    monkeypatch.setattr(adapters, "on_first_use", lambda: threads.append(threading.current_thread().name))
    monkeypatch.setattr(adapters, "hold", lambda _: False)
    monkeypatch.setattr(adapters, "mixable", lambda _: threads.append(threading.current_thread().name))
    answerer.hold(Path("anything"))
    assert threads == ["engine", "engine"], "the check of adapters, then this one"

    def unfit(_: str) -> bool:
        raise ModelError("it does not fit")

    monkeypatch.setattr(adapters, "mixable", unfit)
    with pytest.raises(ModelError, match="does not fit"):
        answerer.hold(Path("anything"))
    assert answerer.load().adapters == 1


def test_a_fault_of_the_engine_ends_what_runs_and_not_what_comes_later(
    model: Any, answerer: Continuous, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise ValueError("a defect")

    request = requests(1, 15)[0]
    with monkeypatch.context() as patch:
        patch.setattr(model.engine, "forward", broken)
        assert "a defect" in str(answerer.generate([request])[0].error)
        patch.setattr(engine_rows.Running, "close", broken)  # as where a card has failed
        assert "a defect" in str(answerer.generate([request])[0].error)
    assert answerer.generate([request])[0].error is None


def test_the_bytes_of_tokens_are_those_of_the_text_also_where_characters_are_torn() -> None:
    tokenizer_bytes = byte_level_bpe(["<|end|>"], ["the", "cat"])
    from rung.models.text_tokens import TextTokens

    tokens = TextTokens(tokenizer_bytes, "", (), (), ())
    for text in ("the cat – naïve 日本語 👍", "\x00\x7f \n"):
        assert b"".join(tokens.bytes_of(i) for i in tokens.encode(text)) == text.encode()


def test_a_text_to_continue_may_hold_characters_of_private_use(answerer: Continuous) -> None:
    (heard,) = asked(answerer, [Ask(Request((), Decoding(6)), text="a \U000f0000 card \U000ffffd\U00100000")])
    assert heard.wait().error is None


def test_whole_weights_answer_beside_the_base_as_each_does_alone(tmp_path: Path) -> None:
    folders = [save_tiny_model(tmp_path / f"{seed}", seed) for seed in (3, 8)]
    base, other = (load_model(str(folder), dtype=torch.float32) for folder in folders)
    plain = requests(10, 16)
    expected = [base.generate(plain), other.generate(plain)]
    answerer = Continuous(base)
    try:
        got = answerer.generate([replace(r, adapter=[None, str(folders[1])][i % 2]) for i, r in enumerate(plain)])
    finally:
        answerer.close()
    assert [g.text for g in got] == [expected[i % 2][i].text for i in range(10)]
