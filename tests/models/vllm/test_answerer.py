"""vLLM behind rung, against a small fake that speaks what rung uses of it; and against the real one where it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue

import pytest

from rung.engine import shared_card
from rung.errors import Busy, ModelError
from rung.models import model_version, open_model
from rung.models.local import LocalModel
from rung.models.streaming import Answerer, Ask, Piece, Ticket, Whole
from rung.models.vllm import process
from rung.models.vllm.answerer import Vllm, start_vllm
from rung.models.vllm.call import lark_of
from rung.models.vllm.process import PYTHON, VllmFlags, python_with_vllm
from rung.types import Constraint, Decoding, Generation, Message, Request
from vllm_faked import Place, adapter_folder
from vllm_faked import fake as fake

ANSWER = "red green blue, and more"


class Heard(Whole):
    """A Hearer that keeps what it was told, and may do something at the first piece."""

    def __init__(self, at_first: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.pieces: list[Piece] = []
        self._at_first = at_first

    def piece(self, piece: Piece) -> None:
        self.pieces.append(piece)
        if len(self.pieces) == 1:
            self._at_first()

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)


@pytest.fixture(scope="module")
def local(tiny_folder: Path) -> LocalModel:
    model = open_model(str(tiny_folder))
    assert isinstance(model, LocalModel)
    return model


@pytest.fixture
def answering(fake: Place, local: LocalModel, tiny_folder: Path) -> Iterator[Vllm]:
    fake.plan(answers={"base": local.chat.encode_answer(ANSWER), "mine": local.chat.encode_answer("mine")})
    answerer = opened(tiny_folder)
    yield answerer
    answerer.close()


def opened(folder: Path, adapters: tuple[Path, ...] = ()) -> Vllm:
    return start_vllm(str(folder), "tiny", adapters, python=sys.executable)


def request(text: str = "colours?", *, adapter: Path | None = None, constraint: Constraint | None = None) -> Request:
    return Request((Message("user", text),), Decoding(64), constraint, str(adapter) if adapter else None)


def told(answerer: Answerer, ask: Ask) -> tuple[Generation, Heard]:
    heard = Heard()
    answerer.submit(ask, heard)
    return heard.wait(), heard


# ---- answers --------------------------------------------------------------------------------


def test_prompts_go_out_as_the_ids_of_the_local_engine_and_answers_come_back_as_its_text(
    answering: Vllm, fake: Place, local: LocalModel
) -> None:
    generation, heard = told(answering, Ask(request()))
    assert generation.text == heard.text == ANSWER
    assert (generation.finish, generation.error) == ("stop", None)
    assert len(heard.pieces) > 1
    body = fake.asked()[0]
    assert body["prompt"] == local.encode(request().messages)
    assert set(body["stop_token_ids"]) == {i for i in local.chat.stop_ids if i < local.engine.vocabulary}
    assert (body["max_tokens"], body["temperature"], body["model"]) == (64, 0.0, "base")
    assert generation.tokens_in == len(body["prompt"]) and generation.tokens_cached == 2
    assert generation.tokens_out == len(local.encode_answer(ANSWER))


def test_the_model_is_the_local_one_in_all_that_a_bundle_checks(answering: Vllm, local: LocalModel) -> None:
    model = answering.model
    assert (model.version, model.context_length) == (local.version, local.context_length)
    assert model.count_tokens(ANSWER) == local.count_tokens(ANSWER)
    assert model.generate([request(), request("again")])[1].text == ANSWER


def test_a_stop_text_ends_the_answer_before_it(answering: Vllm) -> None:
    generation, heard = told(answering, Ask(request(), stop=("blue",)))
    assert generation.text == heard.text == "red green "
    assert generation.finish == "stop"


def test_log_probabilities_are_told_with_the_tokens(answering: Vllm, fake: Place, local: LocalModel) -> None:
    generation, heard = told(answering, Ask(request(), logprobs=1))
    tokens = [token for piece in heard.pieces for token in piece.tokens]
    assert b"".join(token.bytes for token in tokens).decode() == generation.text
    assert {token.logprob for token in tokens} == {-0.25}
    assert [len(token.top) for token in tokens] == [1] * (len(local.encode_answer(ANSWER)) - 1)
    assert fake.asked()[0]["logprobs"] == 1


def test_a_text_is_continued_as_it_is(answering: Vllm, fake: Place, local: LocalModel) -> None:
    generation, _ = told(answering, Ask(request(), text="Once upon"))
    assert generation.text == ANSWER
    assert fake.asked()[0]["prompt"] == local.chat.encode_text("Once upon")


def test_a_prompt_that_does_not_fit_is_refused_before_vllm_is_asked(answering: Vllm, fake: Place) -> None:
    generation, _ = told(answering, Ask(request("word " * 5000)))
    assert generation.error is not None and "does not fit the context" in generation.error
    assert fake.asked() == []


def test_whoever_leaves_ends_the_request_in_vllm(answering: Vllm, fake: Place, local: LocalModel) -> None:
    fake.plan(answers={"base": local.chat.encode_answer(ANSWER * 20)}, delay_s=0.05)
    tickets: SimpleQueue[Ticket] = SimpleQueue()  # the first piece may come before `submit` returns
    heard = Heard(lambda: tickets.get(timeout=30).cancel())
    tickets.put(answering.submit(Ask(request()), heard))
    generation = heard.wait()
    assert (generation.finish, generation.error) == ("error", "nobody listens any more")
    assert generation.text == heard.text
    until = time.monotonic() + 5
    while not any("left" in one for one in fake.seen) and time.monotonic() < until:
        time.sleep(0.02)
    assert {"left": "base"} in fake.seen
    assert answering.load().running == answering.load().waiting == 0


def test_labels_go_out_as_the_ids_that_training_teaches(local: LocalModel) -> None:
    tokens = local.chat.answer_tokens()
    lark = lark_of(Constraint("labels", ("red", "green")), tokens, tokens.end_id)
    written = [" ".join(f"<[{i}]>" for i in local.encode_answer(label)[:-1]) for label in ("red", "green")]
    assert lark == f"start: {written[0]} | {written[1]}"


def test_a_grammar_ends_by_the_models_own_token_where_vllm_knows_another(local: LocalModel) -> None:
    import llguidance

    tokens = local.chat.answer_tokens()
    for constraint in (
        Constraint("labels", ("red", "green")),
        Constraint("regex", r"[a-z]+/[0-9]{2}"),
        Constraint("json_schema", {"type": "object", "properties": {"a": {"type": "integer"}}}),
    ):
        for eos in (tokens.end_id, None):
            lark = lark_of(constraint, tokens, eos)
            assert ("answer_to_end" in lark) == (eos is None)
            # As vLLM hands it on. Ids are checked with a tokenizer, which it has and this test does not need.
            checked = "".join(c for c in llguidance.grammar_from("grammar", lark))
            assert constraint.kind == "labels" or eos is None or not llguidance.LLMatcher.validate_grammar(checked)


def test_a_constraint_goes_to_vllm_as_a_grammar(answering: Vllm, fake: Place) -> None:
    generation, _ = told(answering, Ask(request(constraint=Constraint("regex", "[a-z ,]+"))))
    assert generation.error is None
    assert fake.asked()[0]["structured_outputs"]["grammar"].startswith("start: ")


def test_grammars_of_many_clients_do_not_pile_up(answering: Vllm, fake: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rung.models.vllm.answerer._MOST_LARKS", 2)
    for least in range(5):
        told(answering, Ask(request(constraint=Constraint("regex", f"[a-z ,]{{{least},}}"))))
    assert len({one["structured_outputs"]["grammar"] for one in fake.asked()}) == 5 and len(answering._larks) <= 2


# ---- adapters -------------------------------------------------------------------------------


def test_adapters_are_loaded_as_they_are_held_and_never_twice_under_one_name(
    answering: Vllm, fake: Place, tmp_path: Path
) -> None:
    mine = adapter_folder(tmp_path / "mine")
    unheld, _ = told(answering, Ask(request(adapter=mine)))
    assert unheld.error == "adapter mine is not loaded"
    for _ in range(2):
        answering.hold(mine)
    assert told(answering, Ask(request(adapter=mine)))[0].text == "mine"
    answering.release(mine)
    assert told(answering, Ask(request(adapter=mine)))[0].text == "mine"  # it was held twice
    answering.release(mine)
    answering.hold(mine)  # its files may be others now: kept beginnings of prompts must not serve them
    assert told(answering, Ask(request(adapter=mine)))[0].text == "mine"
    assert [one["lora_name"] for one in fake.asked("/v1/load_lora_adapter")] == ["adapter-1", "adapter-2"]
    assert [one["lora_name"] for one in fake.asked("/v1/unload_lora_adapter")] == ["adapter-1"]


def test_an_adapter_that_does_not_fit_is_refused_with_the_reason(answering: Vllm, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="vLLM does not load it: rank 64 is above max_lora_rank"):
        answering.hold(adapter_folder(tmp_path / "unfit"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"no adapter_config\.json"):
        answering.hold(tmp_path / "empty")


# ---- the process ----------------------------------------------------------------------------


def test_vllm_is_started_with_flags_that_follow_from_the_base_and_its_adapters(
    fake: Place, tiny_folder: Path, tmp_path: Path, local: LocalModel
) -> None:
    fake.plan(answers={})
    answerer = opened(tiny_folder, (adapter_folder(tmp_path / "a", 40),))
    answerer.close()
    words = fake.seen[0]["words"]
    flags = dict(pairwise(words))
    assert (flags["--model"], flags["--host"]) == (str(tiny_folder), "127.0.0.1")
    assert (flags["--max-model-len"], flags["--max-lora-rank"]) == (str(local.context_length), "64")
    assert "--enable-lora" in words and fake.seen[0]["environment"]["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
    key = fake.seen[0]["environment"]["VLLM_API_KEY"]
    assert len(key) > 20 and not any(key in word for word in words)


def test_a_vllm_that_does_not_start_is_told_with_the_last_lines_of_its_log(fake: Place, tiny_folder: Path) -> None:
    fake.plan(fails="no kernel image is available")
    with pytest.raises(ModelError) as caught:
        opened(tiny_folder)
    assert "vLLM did not start" in str(caught.value)
    assert "RuntimeError: no kernel image is available" in str(caught.value)


def test_a_vllm_that_ends_is_an_error_of_each_request_and_not_a_wait(answering: Vllm) -> None:
    child = answering._process._child
    assert child is not None
    child.kill()
    child.wait()
    with pytest.raises(ModelError, match="vLLM has ended; the server's log says why"):
        told(answering, Ask(request()))


def test_the_context_is_that_of_vllm_where_a_flag_made_it_shorter(fake: Place, tiny_folder: Path) -> None:
    fake.plan(answers={}, max_model_len=40)
    answerer = opened(tiny_folder)
    assert answerer.model.context_length == 40
    answerer.close()


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_vllm_ends_with_a_server_that_is_killed(fake: Place, tiny_folder: Path) -> None:
    fake.plan(answers={})
    program = (
        "import sys, time\nfrom rung.models.vllm.process import VllmFlags, VllmProcess\n"
        "from pathlib import Path\n"
        f"process = VllmProcess(VllmFlags(Path({str(tiny_folder)!r}), 'base', 64), python=sys.executable)\n"
        "process.wait_until_ready()\nprint(process._child.pid, flush=True)\ntime.sleep(60)\n"
    )
    server = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    child = int(server.stdout.readline())
    server.kill()
    server.wait()
    server.stdout.close()
    until = time.monotonic() + 10
    while _lives(child) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _lives(child)


def _lives(process: int) -> bool:
    try:
        os.kill(process, signal.SIGCONT)
        return "zombie" not in Path(f"/proc/{process}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_a_missing_vllm_says_how_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PYTHON, raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install vllm.*RUNG_VLLM_PYTHON"):
        python_with_vllm()
    with pytest.raises(ModelError, match="there is no such program"):
        python_with_vllm("/nowhere/python")


def test_a_folder_of_vllms_name_is_no_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PYTHON, raising=False)
    (tmp_path / "vllm").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match="vLLM is not installed here"):
        python_with_vllm()


def test_ranks_beyond_what_vllm_takes_are_refused() -> None:
    assert [VllmFlags(Path("."), "base", 64, rank=rank).most_rank for rank in (0, 16, 17, 100, 300)] == [
        16, 16, 32, 128, 320,
    ]  # fmt: skip
    with pytest.raises(ModelError, match="vLLM takes 512 at most"):
        _ = VllmFlags(Path("."), "base", 64, rank=600).most_rank


def test_vllm_is_started_without_the_settings_that_rung_made_for_its_own_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    assert process._environment("key")["PYTORCH_ALLOC_CONF"] == "expandable_segments:True", "the user's own stays"
    monkeypatch.setattr(shared_card, "_set_here", {"PYTORCH_ALLOC_CONF"})
    assert "PYTORCH_ALLOC_CONF" not in process._environment("key")


def test_a_base_in_4_bits_is_not_vllms_to_serve(tiny_folder: Path) -> None:
    with pytest.raises(ModelError, match="4 bits"):
        start_vllm(f"{tiny_folder}:4bit", "tiny")


@pytest.mark.skipif(not os.environ.get(PYTHON), reason=f"{PYTHON} names no Python that has vLLM")
def test_the_real_vllm_answers_as_the_local_engine_does(embedded_folder: Path) -> None:
    import torch

    from rung.models.loading import load_model

    local = load_model(str(embedded_folder), dtype=torch.float32)  # as vLLM computes without a GPU
    asks = [request(f"What is the capital of {place}?") for place in ("France", "Japan", "Peru")]
    labels = [request("Is the sky red? yes or no", constraint=Constraint("labels", ("yes", "no")))]
    answerer = start_vllm(str(embedded_folder), "base")
    try:
        assert [g.text for g in answerer.generate(asks + labels)] == [g.text for g in local.generate(asks + labels)]
    finally:
        answerer.close()
    assert model_version(str(embedded_folder)) == answerer.model.version
    with pytest.raises(Busy):
        answerer.submit(Ask(asks[0]), Heard())
