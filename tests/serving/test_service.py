"""Names that answer: bundles, adapters and bases, while adapters come and go."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from plain_adapters import write_adapter
from rung.bundles.recorded import RecordedExample, write_recorded
from rung.errors import Busy, ModelError, RunError, Unanswerable, UnknownModel
from rung.models import model_version
from rung.models.continuous import Continuous
from rung.models.loading import load_model
from rung.models.one_by_one import OneByOne
from rung.records import write_json
from rung.serving.bundle import read_bundle
from rung.serving.events import Begun, Done, ModelCall, Piece
from rung.serving.service import ModelService, ServiceLimits
from rung.solutions.store import save_solution
from rung.testing import FakeModel
from rung.types import Constraint, Decoding, Demo, Document, Example, Message, Query, RetrieverSpec, Solution

PASSAGES = [Document(f"p{i}", f"The code of {town} is {i}.") for i, town in enumerate(("Oslo", "Rome", "Bern"))]


def user(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


async def heard(service: ModelService, call: ModelCall) -> tuple[list[Any], Done]:
    events = [event async for event in service.answer(call)]
    assert isinstance(events[0], Begun) and isinstance(events[-1], Done)
    assert "".join(e.text for e in events if isinstance(e, Piece)) == events[-1].text
    return events, events[-1]


def said(service: ModelService, call: ModelCall) -> str:
    return asyncio.run(heard(service, call))[1].text


def pack(folder: Path, solution: Solution, base: Path, **note: Any) -> Path:
    save_solution(solution, folder, passages=PASSAGES)
    write_json(folder / "bundle.json", {"model": str(base), "model_version": model_version(str(base)), **note})
    return folder


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> Any:
    return load_model(str(tiny_folder), dtype=torch.float32)  # in bfloat16 near ties depend on the batch


@pytest.fixture
def answerer(model: Any) -> Iterator[Continuous]:
    one = Continuous(model, slots=2)
    yield one
    one.close()


@pytest.fixture
def bundles(tmp_path: Path, tiny_folder: Path, model: Any) -> dict[str, Path]:
    adapter = write_adapter(tmp_path / "lora", model.network, 1)
    plain = Solution("few_shot", "Say it again.", Decoding(12), demos=(Demo("a", "b"),))
    return {
        "plain": pack(tmp_path / "b1", plain, tiny_folder),
        "tuned": pack(tmp_path / "b2", replace(plain, name="lora", adapter=str(adapter)), tiny_folder),
        "held": pack(tmp_path / "b3", replace(plain, constraint=Constraint("labels", ("yes", "no"))), tiny_folder),
        "cites": pack(
            tmp_path / "b4", replace(plain, retriever=RetrieverSpec("bm25", 2, 60, fenced=True), cite=True), tiny_folder
        ),
    }


def test_bundles_of_one_base_answer_together_as_each_does_alone(
    answerer: Continuous, bundles: dict[str, Path], model: Any
) -> None:
    service = ModelService({"tiny": answerer})
    inputs = [f"tell me: which code has {town}, {i}" for i, town in enumerate(("Oslo", "Rome", "Bern", "Oslo"))]
    alone = {
        name: [p.text for p in read_bundle(folder).opened(model).answer(inputs)] for name, folder in bundles.items()
    }
    for name, folder in bundles.items():
        service.add(name, read_bundle(folder), "tiny")

    async def all_at_once() -> list[tuple[list[Any], Done]]:
        calls = [ModelCall(name, user(text)) for text in inputs for name in bundles]
        return list(await asyncio.gather(*(heard(service, call) for call in calls)))

    answered = iter(asyncio.run(all_at_once()))
    for i in range(len(inputs)):
        for name in bundles:
            assert next(answered)[1].text == alone[name][i], name
    assert {served.parent for served in service.models() if served.kind == "bundle"} == {"tiny"}


def test_a_conversation_is_the_input_with_its_turns_and_its_own_instruction(
    answerer: Continuous, bundles: dict[str, Path], model: Any
) -> None:
    service = ModelService({"tiny": answerer})
    service.add("plain", read_bundle(bundles["plain"]), "tiny")
    turns = (Message("user", "one"), Message("assistant", "two"), Message("user", "three"))
    bundle = read_bundle(bundles["plain"]).opened(model)
    own = bundle.answer([Query("0", "three", instruction="Shout.", turns=turns[:2])])[0].text
    assert said(service, ModelCall("plain", (Message("system", "Shout."), *turns))) == own
    plain = bundle.answer([Query("0", "three", turns=turns[:2])])[0].text
    assert said(service, ModelCall("plain", (Message("system", "Say it again."), *turns))) == plain
    with pytest.raises(Unanswerable):
        said(service, ModelCall("plain", turns[:2]))


def test_the_sources_of_an_answer_are_told_with_it(answerer: Continuous, bundles: dict[str, Path]) -> None:
    service = ModelService({"tiny": answerer})
    service.add("cites", read_bundle(bundles["cites"]), "tiny")
    done = asyncio.run(heard(service, ModelCall("cites", user("the code of Rome"))))[1]
    assert done.sources[-1].id == "p1" and done.sources[-1].number == len(done.sources)


def test_what_the_client_asks_for_takes_the_place_of_what_was_tested(
    answerer: Continuous, bundles: dict[str, Path]
) -> None:
    service = ModelService({"tiny": answerer}, limits=ServiceLimits(most_tokens=5))
    service.add("plain", read_bundle(bundles["plain"]), "tiny")
    assert asyncio.run(heard(service, ModelCall("plain", user("x"), max_tokens=3)))[1].tokens_out <= 3
    assert asyncio.run(heard(service, ModelCall("plain", user("x"), max_tokens=300)))[1].tokens_out <= 5
    labels = Constraint("labels", ("up", "down"))
    assert said(service, ModelCall("plain", user("x"), constraint=labels)) in ("up", "down")
    sampled = {said(service, ModelCall("plain", user("x"), temperature=2.0, seed=i)) for i in range(4)}
    assert len(sampled) > 1


def test_a_form_that_a_client_demands_has_room_of_its_own_and_is_told_where_a_cut_answer_does_not_meet_it(
    answerer: Continuous, bundles: dict[str, Path]
) -> None:
    long = Constraint("regex", "[ab]{40}")  # longer than the 12 tokens that the bundle was tested with
    service = ModelService({"tiny": answerer})
    for name in ("plain", "held"):
        service.add(name, read_bundle(bundles[name]), "tiny")
        done = asyncio.run(heard(service, ModelCall(name, user("x"), constraint=long)))[1]
        assert (len(done.text), done.finish, done.fault) == (40, "stop", None)
    for name in ("plain", "held", "tiny"):
        cut = asyncio.run(heard(service, ModelCall(name, user("x"), constraint=long, max_tokens=3)))[1]
        assert cut.finish == "length" and cut.fault is not None and "breaks pattern" in cut.fault
    plain = asyncio.run(heard(service, ModelCall("plain", user("x"), max_tokens=3)))[1]
    assert plain.finish == "length" and plain.fault is None


def test_the_room_of_a_form_is_bounded_by_the_service_and_the_context(
    answerer: Continuous, bundles: dict[str, Path]
) -> None:
    free = ModelCall("plain", user("x"), constraint=Constraint("regex", "(?s).*"))
    for most, expected in ((None, 1024), (20, 20)):
        service = ModelService({"tiny": answerer}, limits=ServiceLimits(most_tokens=most))
        service.add("plain", read_bundle(bundles["plain"]), "tiny")
        entry = service._entry("plain")
        assert service._prepare(entry, free)[0].request.decoding.max_new_tokens == expected
        own = replace(free, max_tokens=2000)
        assert service._prepare(entry, own)[0].request.decoding.max_new_tokens == (most or 2000)
        assert service._prepare(entry, replace(free, constraint=None))[0].request.decoding.max_new_tokens == 12


def test_a_context_is_taken_only_where_the_examples_of_a_bundle_have_one(
    answerer: Continuous, bundles: dict[str, Path]
) -> None:
    row = Example("1", "x", "y", ("y",))
    service = ModelService({"tiny": answerer})
    for name, example in (("plain", row), ("held", replace(row, context="of a nurse")), ("cites", None)):
        if example is not None:
            write_recorded(bundles[name], [RecordedExample(example, "y")])
        service.add(name, read_bundle(bundles[name]), "tiny")
    assert [m.name for m in service.models() if m.takes_context] == ["held", "cites"]
    for name in ("plain", "tiny"):
        with pytest.raises(Unanswerable) as caught:
            said(service, ModelCall(name, user("x"), context="of a nurse"))
        assert caught.value.param == "rung.context"
        said(service, ModelCall(name, user("x"), context="", max_tokens=2))
    assert said(service, ModelCall("held", user("x"), context="of a nurse")) in ("yes", "no")


def test_the_base_answers_chats_as_they_are_and_continues_texts(answerer: Continuous, model: Any) -> None:
    service = ModelService({"tiny": answerer})
    from rung.types import Request

    expected = model.generate([Request(user("hello there"), Decoding(6, keep_space=True))])[0].text
    assert said(service, ModelCall("tiny", user("hello there"), max_tokens=6)) == expected
    assert asyncio.run(heard(service, ModelCall("tiny", prompt="hello", max_tokens=4)))[1].tokens_out <= 4


def test_adapters_come_and_go_while_others_answer_and_no_request_is_dropped(
    answerer: Continuous, tmp_path: Path, model: Any
) -> None:
    for i in range(4):
        write_adapter(tmp_path / "adapters" / f"a{i}", model.network, i)
    service = ModelService({"tiny": answerer}, adapters=tmp_path / "adapters")
    call = ModelCall("", user("the same for all"), max_tokens=16)

    async def expected() -> dict[str, str]:
        found = {}
        for i in range(4):
            await service.load_adapter(f"x{i}", f"a{i}")
            found[f"a{i}"] = (await heard(service, replace(call, model=f"x{i}")))[1].text
            await service.unload_adapter(f"x{i}")
        return found

    async def churn() -> None:
        for round_ in range(12):
            folder = f"a{round_ % 4}"
            name = f"hot{round_}"
            await service.load_adapter(name, folder)
            answers = [asyncio.ensure_future(heard(service, replace(call, model=name))) for _ in range(3)]
            await asyncio.sleep(0)
            leaving = asyncio.ensure_future(service.unload_adapter(name))
            for _, done in await asyncio.gather(*answers):
                assert done.text == texts[folder]
            await leaving
            with pytest.raises(UnknownModel):
                service.model(name)

    texts = asyncio.run(expected())
    assert len(set(texts.values())) == 4

    async def both() -> None:
        await asyncio.gather(churn(), *(heard(service, replace(call, model="tiny")) for _ in range(10)))

    asyncio.run(both())
    assert answerer.load().adapters == 0 and [m.name for m in service.models()] == ["tiny"]


def test_an_adapter_that_was_rewritten_in_its_place_is_read_afresh_while_the_old_one_answers(
    answerer: Continuous, tmp_path: Path, model: Any
) -> None:
    folder = write_adapter(tmp_path / "adapters" / "a", model.network, 1)
    service = ModelService({"tiny": answerer}, adapters=tmp_path / "adapters")
    call = ModelCall("hot", user("the same for all"), max_tokens=16)

    async def twice() -> list[str]:
        await service.load_adapter("hot", "a")
        first = await heard(service, call)
        folder.rename(tmp_path / "old")
        write_adapter(folder, model.network, 2)
        running = asyncio.ensure_future(heard(service, call))
        await asyncio.sleep(0)
        await service.load_adapter("hot", "a", in_place=True)
        return [first[1].text, (await running)[1].text, (await heard(service, call))[1].text]

    old, meanwhile, new = asyncio.run(twice())
    assert old == meanwhile != new and answerer.load().adapters == 1


def test_two_names_for_one_adapter_are_let_go_of_one_by_one(answerer: Continuous, tmp_path: Path, model: Any) -> None:
    write_adapter(tmp_path / "adapters" / "a", model.network, 1)
    service = ModelService({"tiny": answerer}, adapters=tmp_path / "adapters")

    async def both() -> None:
        for name in ("one", "two"):
            await service.load_adapter(name, "a")
        await service.unload_adapter("one")
        await heard(service, ModelCall("two", user("x")))
        await service.unload_adapter("two")

    asyncio.run(both())
    assert answerer.load().adapters == 0


@pytest.mark.parametrize("path", ["..", "../secret", "/etc", "a/../../secret", ".", "", "\0", "nowhere", "x" * 5000])
def test_only_folders_among_the_adapters_are_loaded(answerer: Continuous, tmp_path: Path, path: str) -> None:
    (tmp_path / "adapters").mkdir()
    (tmp_path / "secret").mkdir()
    service = ModelService({"tiny": answerer}, adapters=tmp_path / "adapters")
    with pytest.raises(Unanswerable) as caught:
        asyncio.run(service.load_adapter("a", path))
    assert str(tmp_path) not in str(caught.value)


def test_links_that_lead_out_of_the_adapters_are_refused(answerer: Continuous, tmp_path: Path, model: Any) -> None:
    outside = write_adapter(tmp_path / "outside", model.network, 1)
    inside = write_adapter(tmp_path / "adapters" / "inside", model.network, 1)
    (tmp_path / "adapters" / "link").symlink_to(outside)
    (inside / "adapter_model.safetensors").unlink()
    (inside / "adapter_model.safetensors").symlink_to(outside / "adapter_model.safetensors")
    service = ModelService({"tiny": answerer}, adapters=tmp_path / "adapters")
    for path in ("link", "inside"):
        with pytest.raises(Unanswerable):
            asyncio.run(service.load_adapter("a", path))


@pytest.mark.parametrize("name", ["", "../a", "a b", "a\n", "x" * 200, "a/b/c", ".hidden", "é", "tiny"])
def test_names_are_plain_and_free(answerer: Continuous, tmp_path: Path, model: Any, name: str) -> None:
    write_adapter(tmp_path / "adapters" / "a", model.network, 1)
    service = ModelService({"tiny": answerer}, adapters=tmp_path / "adapters")
    with pytest.raises(Unanswerable):
        asyncio.run(service.load_adapter(name, "a"))


def test_an_adapter_of_another_shape_and_a_pickled_one_are_refused(
    answerer: Continuous, tmp_path: Path, model: Any
) -> None:
    from safetensors.torch import load_file, save_file

    folder = write_adapter(tmp_path / "adapters" / "a", model.network, 1)
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({name: t[:, :-1].contiguous() for name, t in tensors.items()}, folder / "adapter_model.safetensors")
    pickled = write_adapter(tmp_path / "adapters" / "b", model.network, 1)
    (pickled / "adapter_model.safetensors").unlink()
    torch.save(tensors, pickled / "adapter_model.bin")
    service = ModelService({"tiny": answerer}, adapters=tmp_path / "adapters")
    for path in "ab":
        with pytest.raises(ModelError):
            asyncio.run(service.load_adapter("hot", path))
    assert [m.name for m in service.models()] == ["tiny"]


def test_a_bundle_of_another_base_is_refused(answerer: Continuous, tmp_path: Path, tiny_folder: Path) -> None:
    folder = pack(tmp_path / "b", Solution("zero_shot", "", Decoding(4)), tiny_folder)
    write_json(folder / "bundle.json", {"model": str(tiny_folder), "model_version": "another"})
    with pytest.raises(RunError):
        ModelService({"tiny": answerer}).add("b", read_bundle(folder), "tiny")


def test_an_unknown_name_and_a_prompt_that_does_not_fit_are_told_before_anything_else(answerer: Continuous) -> None:
    service = ModelService({"tiny": answerer})
    with pytest.raises(UnknownModel):
        said(service, ModelCall("nobody", user("x")))
    with pytest.raises(Unanswerable):
        said(service, ModelCall("tiny", user("word " * 5000)))


def test_a_service_that_ends_lets_what_runs_end_and_takes_nothing_new(answerer: Continuous) -> None:
    service = ModelService({"tiny": answerer})
    call = ModelCall("tiny", user("x"), max_tokens=40, temperature=1.0)

    async def ending() -> None:
        running = asyncio.ensure_future(heard(service, call))
        await asyncio.sleep(0.02)
        closing = asyncio.ensure_future(service.close(10.0))
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await heard(service, call)
        assert (await running)[1].tokens_out > 0
        await closing

    asyncio.run(ending())


@pytest.mark.parametrize("whole_answers", [False, True])
def test_passages_are_judged_as_in_the_run(
    answerer: Continuous, tmp_path: Path, tiny_folder: Path, model: Any, whole_answers: bool
) -> None:
    solution = Solution("rag", "Answer.", Decoding(4), retriever=RetrieverSpec("bm25", 1, 100, reranker="model"))
    packed = read_bundle(pack(tmp_path / "b", solution, tiny_folder))
    inputs = [f"the code of {town} {i}" for i in range(3) for town in ("Oslo", "Rome", "Bern")]
    alone = [prediction.passages for prediction in packed.opened(model).answer(inputs)]
    service = ModelService({"tiny": OneByOne(model, together=8) if whole_answers else answerer})
    service.add("b", packed, "tiny")

    async def all_at_once() -> list[tuple[str, ...]]:
        done = await asyncio.gather(*(heard(service, ModelCall("b", user(text))) for text in inputs))
        return [tuple(source.id for source in one[1].sources) for one in done]

    assert asyncio.run(all_at_once()) == alone


class Stuck:
    """A search that does not end until it may."""

    def __init__(self) -> None:
        self.may, self.begun = threading.Event(), threading.Semaphore(0)

    def search(self, queries: Any, k: int) -> list[list[Document]]:
        self.begun.release()
        self.may.wait(20)
        return [PASSAGES[:k] for _ in queries]


def searching(tmp_path: Path, answerer: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[ModelService, Stuck]:
    stuck, fake = Stuck(), answerer.model
    monkeypatch.setattr("rung.retrieval.open_index", lambda *_: stuck)
    save_solution(
        Solution("rag", "", Decoding(4), retriever=RetrieverSpec("bm25", 1, 100)), tmp_path / "b", passages=PASSAGES
    )
    write_json(tmp_path / "b" / "bundle.json", {"model": fake.name, "model_version": fake.version})
    service = ModelService({"fake": answerer}, limits=ServiceLimits(threads=2))
    service.add("slow", read_bundle(tmp_path / "b"), "fake")
    return service, stuck


def test_searches_that_take_long_keep_no_other_request_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service, stuck = searching(tmp_path, OneByOne(FakeModel(lambda _: "yes"), at_once=2), monkeypatch)

    async def both() -> None:
        slow = [asyncio.ensure_future(heard(service, ModelCall("slow", user(f"{i}")))) for i in range(4)]
        await asyncio.to_thread(stuck.begun.acquire, timeout=10)
        assert (await asyncio.wait_for(heard(service, ModelCall("fake", user("x"))), 5))[1].text == "yes"
        assert not any(one.done() for one in slow)
        stuck.may.set()
        await asyncio.gather(*slow)

    asyncio.run(both())
    asyncio.run(service.close(1.0))


def test_who_goes_while_a_search_runs_asks_nothing_of_the_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    service, stuck = searching(tmp_path, OneByOne(FakeModel(lambda r: asked.append(r) or "yes")), monkeypatch)

    async def leaving() -> None:
        going = asyncio.ensure_future(heard(service, ModelCall("slow", user("x"))))
        await asyncio.to_thread(stuck.begun.acquire, timeout=10)
        going.cancel()
        await asyncio.gather(going, return_exceptions=True)
        stuck.may.set()
        await heard(service, ModelCall("slow", user("another")))

    asyncio.run(leaving())
    asyncio.run(service.close(1.0))
    assert len(asked) == 1


def test_an_adapter_that_is_refused_leaves_nothing_behind(answerer: Continuous, tmp_path: Path) -> None:
    (tmp_path / "adapters" / "empty").mkdir(parents=True)
    service = ModelService({"tiny": answerer}, adapters=tmp_path / "adapters")
    with pytest.raises(ModelError):
        asyncio.run(service.load_adapter("hot", "empty"))
    assert not list(service._own.links.iterdir()) and answerer.load().adapters == 0


def test_what_is_said_of_an_adapter_names_what_was_asked_for(
    answerer: Continuous, bundles: dict[str, Path], tmp_path: Path, model: Any
) -> None:
    folder = write_adapter(tmp_path / "adapters" / "sub" / "odd", model.network, 1)
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({n: t * float("nan") for n, t in tensors.items()}, folder / "adapter_model.safetensors")
    (tmp_path / "adapters" / "empty").mkdir()
    service = ModelService({"tiny": answerer}, adapters=tmp_path / "adapters")
    said = []
    for path in ("sub/odd", str(folder), "empty"):
        with pytest.raises(ModelError) as caught:
            asyncio.run(service.load_adapter("hot", path))
        said.append(str(caught.value))
    assert said[0].startswith("adapter hot (sub/odd): it holds numbers that are not finite")
    assert said[1].startswith(f"adapter hot ({folder}): it holds") and "does not fit" not in said[0]
    assert said[2].startswith("adapter hot (empty): no adapter_config.json")
    (bundles["tuned"] / "parity.jsonl").write_text('{"id": "0"}\n')
    service = ModelService({"tiny": answerer}, adapters=tmp_path)
    with pytest.raises(RunError) as refused:
        asyncio.run(service.load_adapter("hot", "b2"))
    assert str(tmp_path) not in str(refused.value) and "b2/parity.jsonl" in str(refused.value)


def test_a_service_says_what_its_bases_are_computed_with(answerer: Continuous) -> None:
    service = ModelService({"tiny": answerer, "fake": OneByOne(FakeModel(lambda _: "yes"))})
    assert set(service.computing()) == {"tiny"}
    found = service.computing()["tiny"]
    assert (found["dtype"], found["device"], found["ways"]) == (
        "float32",
        "cpu",
        list(answerer.model.engine.ways.taken),
    )


def test_what_was_named_at_the_start_stays(answerer: Continuous, bundles: dict[str, Path], tmp_path: Path) -> None:
    service = ModelService({"tiny": answerer}, adapters=tmp_path)
    service.add("mine", read_bundle(bundles["tuned"]), "tiny")
    for name in ("mine", "tiny"):
        with pytest.raises(Unanswerable, match="named when the server started"):
            asyncio.run(service.unload_adapter(name))
        with pytest.raises(Unanswerable, match="named when the server started"):
            asyncio.run(service.load_adapter(name, "b2", in_place=True))
    assert [served.name for served in service.models()] == ["tiny", "mine"]


def test_a_bundle_that_is_refused_leaves_nothing_behind(
    answerer: Continuous, bundles: dict[str, Path], tmp_path: Path
) -> None:
    (bundles["tuned"] / "parity.jsonl").write_text('{"id": "0"}\n')
    service = ModelService({"tiny": answerer}, adapters=tmp_path)
    with pytest.raises(RunError, match="no recorded answers can be read"):
        asyncio.run(service.load_adapter("hot", "b2"))
    assert not list(service._own.links.iterdir()) and answerer.load().adapters == 0


def test_top_p_says_nothing_of_the_likeliest_token(tmp_path: Path) -> None:
    service = ModelService({"fake": OneByOne(FakeModel(lambda _: "yes"))})
    assert said(service, ModelCall("fake", user("x"), top_p=0.9)) == "yes"
    with pytest.raises(Unanswerable):
        said(service, ModelCall("fake", user("x"), top_p=0.9, temperature=1.0))
    asyncio.run(service.close(1.0))


def test_who_stops_listening_ends_the_answer(answerer: Continuous) -> None:
    service = ModelService({"tiny": answerer})

    async def leaving() -> None:
        events = service.answer(ModelCall("tiny", user("x"), temperature=1.0))
        async for event in events:
            if isinstance(event, Piece):
                break
        await events.aclose()  # type: ignore[attr-defined]
        for _ in range(500):
            if not answerer.load().running:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("it goes on")

    asyncio.run(leaving())


def test_a_model_that_gives_whole_answers_serves_bundles_too(tmp_path: Path) -> None:
    fake = FakeModel(lambda request: f" {request.messages[-1].content.upper()} ")
    save_solution(Solution("zero_shot", "", Decoding(12)), tmp_path / "b")
    write_json(tmp_path / "b" / "bundle.json", {"model": fake.name, "model_version": fake.version})
    answerer = OneByOne(fake, at_once=4)
    service = ModelService({"fake": answerer})
    service.add("loud", read_bundle(tmp_path / "b"), "fake")

    async def many() -> list[str]:
        calls: list[Coroutine[Any, Any, Any]] = [heard(service, ModelCall("loud", user(f"say {i}"))) for i in range(20)]
        return [done.text for _, done in await asyncio.gather(*calls)]

    assert asyncio.run(many()) == [f"SAY {i}" for i in range(20)]
    with pytest.raises(Unanswerable):
        said(service, ModelCall("loud", user("x"), logprobs=1))
    asyncio.run(service.close(1.0))
