from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from rung.engine import attention, compiled_steps, gpu_kernels
from rung.engine.masked_view import MaskedView
from rung.engine.static_pass import StaticPass, TargetRows
from rung.engine.tree_engine import TreeEngine
from rung.engine.ways import Ways
from rung.errors import Diverged
from rung.testing import tiny_model
from rung.training import captured as room
from rung.training import loop, lora
from rung.training.batches import TokenRow
from rung.training.captured import CapturedGradients, OtherNumbers
from rung.training.loop import train
from rung.training.loss import add_gradients
from rung.types import Progress
from small_networks import small_network
from trained import OPTIONS, same, weights

STEPS = OPTIONS.steps


def rows_of(count: int, *, prompt: int = 30, shared: int = 0) -> list[TokenRow]:
    """Rows of several lengths, whose prompts begin with the same tokens."""
    begin = tuple(3 + i % 90 for i in range(shared))
    return [
        TokenRow(
            str(n), (*begin, *(5 + (7 * n + 3 * i) % 80 for i in range(prompt + 5 * n))), (9 + n, 11, 2)[: 2 + n % 2]
        )
        for n in range(count)
    ]


def with_adapter(name: str, **more: Any) -> tuple[TreeEngine, list[Any]]:
    """An engine of a small network with a random adapter in training, and the adapter's weights."""
    from transformers import AttentionInterface

    AttentionInterface.register(attention.NAME, attention.attention)
    network = small_network(name, **more)
    network.set_attn_implementation(attention.NAME)
    engine = TreeEngine(network, name)
    lora.fresh_adapter(engine, OPTIONS)
    draw = torch.Generator().manual_seed(1)
    trained = [p for p in engine.network.parameters() if p.requires_grad]
    with torch.no_grad():
        for weight in trained:
            weight.copy_(torch.randn(weight.shape, generator=draw) * 0.1)
    return engine, trained


def plainly(engine: TreeEngine, trained: list[Any], batch: list[TokenRow]) -> tuple[float, list[torch.Tensor]]:
    engine.ways = Ways()
    for weight in trained:
        weight.grad = None
    loss, _ = add_gradients(engine, batch, micro_tokens=10_000)
    found = [weight.grad.clone() for weight in trained]
    for weight in trained:
        weight.grad = None
    return float(loss), found


def targets_in(batch: list[TokenRow]) -> int:
    return sum(len(row.target) for row in batch)


# ---- gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True}),
        ("mistral", {"sliding_window": 20}),
        ("gemma2", {}),
        ("granite", {}),
    ],
)
@pytest.mark.parametrize("micro_tokens", [60, 10_000])
def test_recorded_passes_give_the_loss_and_gradients_of_the_plain_way(
    name: str, more: dict[str, Any], micro_tokens: int
) -> None:
    engine, trained = with_adapter(name, **more)
    sizes: list[tuple[int, int]] = []
    for batch in (rows_of(4), rows_of(3), rows_of(4)):
        expected_loss, expected = plainly(engine, trained, batch)
        engine.ways = Ways(fused=True, static=True)
        ours = CapturedGradients(engine, trained, sizes, steps=3)
        found = ours.add(batch, micro_tokens=micro_tokens, factor=1 / targets_in(batch))
        assert found is not None and float(found[0]) == pytest.approx(expected_loss, rel=1e-4)
        for weight, gradient in zip(trained, expected, strict=True):
            assert float((weight.grad - gradient).norm()) <= 1e-4 * float(gradient.norm()) + 1e-8
    assert len(sizes) <= 2


def test_a_prefix_that_several_parts_share_goes_the_plain_way_and_one_part_does_not() -> None:
    engine, trained = with_adapter("llama")
    engine.ways = Ways(fused=True, static=True)
    ours, batch = CapturedGradients(engine, trained, [], steps=3), rows_of(4, shared=60)
    assert ours.add(batch, micro_tokens=50, factor=1.0) is None
    assert ours.add(batch, micro_tokens=1000, factor=1.0) is not None


def test_no_more_than_a_few_sizes_are_kept() -> None:
    engine, trained = with_adapter("llama")
    engine.ways = Ways(fused=True, static=True)
    sizes: list[tuple[int, int]] = []
    ours = CapturedGradients(engine, trained, sizes, steps=20)
    for prompt in (20, 180, 300, 420, 480, 20):
        ours.add(rows_of(1, prompt=prompt), micro_tokens=1000, factor=1.0)
    assert len(sizes) == len(ours._recorded) == room._MOST_SIZES and sizes[-1][0] == 128


def test_no_step_leaves_a_graph_of_autograd_behind() -> None:
    """Else weights would add their gradients on the stream of an earlier step, which ends a recording."""
    engine, trained = with_adapter("llama")
    nodes = [weight.view_as(weight).grad_fn.next_functions[0][0] for weight in trained]
    for node in nodes:
        node.metadata["old"] = True
    gc.collect()
    gc.disable()
    try:
        plainly(engine, trained, rows_of(3))
        engine.ways = Ways(fused=True, static=True)
        ours = CapturedGradients(engine, trained, [], steps=3)
        for _ in range(2):
            ours.add(rows_of(3), micro_tokens=1000, factor=1.0)
        del nodes, node
        assert not any("old" in w.view_as(w).grad_fn.next_functions[0][0].metadata for w in trained)
    finally:
        gc.enable()


def test_no_gradient_is_copied_into_zeros() -> None:
    """As the backward pass of x[0] would do, in every layer."""
    engine, _ = with_adapter("llama")
    static = StaticPass(engine, (128, 64))
    static.fill(TargetRows.of([(row.prompt, row.target) for row in rows_of(2)]))
    nodes = [static.hidden().grad_fn]
    names = set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in names:
            names.add(node)
            nodes += [following for following, _ in node.next_functions]
    assert len(names) > 10 and not {node.name() for node in names} & {"SelectBackward0", "SliceBackward0"}


def test_a_pass_that_gives_other_numbers_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, trained = with_adapter("llama")
    engine.ways = Ways(fused=True, static=True)
    right = StaticPass.hidden
    monkeypatch.setattr(StaticPass, "hidden", lambda static, **how: right(static, **how) * 1.05)
    with pytest.raises(OtherNumbers, match="its loss is"):
        CapturedGradients(engine, trained, [], steps=3).add(rows_of(2), micro_tokens=1000, factor=1.0)


# ---- whole trainings --------------------------------------------------------------------------------


@pytest.fixture
def static(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNG_WAYS", "fused,static")


def losses_of(engine: Any, folder: Path, **more: Any) -> tuple[Path, list[float]]:
    seen: list[Progress] = []
    place = train(engine, rows_of(7), OPTIONS, folder, on_step=seen.append, **more)
    assert [progress.step for progress in seen] == list(range(1, STEPS + 1))
    assert all(a.tokens < b.tokens for a, b in pairwise(seen))
    return place, [progress.loss for progress in seen]


def close(a: Path, b: Path) -> None:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    """The adapter and the losses of the plain way."""
    return losses_of(tiny_model().engine, tmp_path_factory.mktemp("plain"))


def test_a_static_training_gives_the_adapter_and_losses_of_a_plain_one(
    tmp_path: Path, plain: tuple[Path, list[float]], static: None
) -> None:
    engine = tiny_model().engine
    folder, losses = losses_of(engine, tmp_path)
    assert engine.ways.static and not engine.ways.given_up and not engine.on_make_room
    assert losses == pytest.approx(plain[1], rel=1e-4)
    close(folder, plain[0])


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_static_training_goes_on_bit_by_bit_where_a_listener_or_a_kill_ended_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, static: None, stop: int
) -> None:
    monkeypatch.setattr(loop, "_CHECKPOINT_EVERY_S", -1.0)
    engine = tiny_model().engine
    whole, _ = losses_of(engine, tmp_path / "whole")

    def interrupt(progress: Progress) -> None:
        if progress.step == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(engine, rows_of(7), OPTIONS, tmp_path / "told", on_step=interrupt)
    assert torch.load(tmp_path / "told" / "checkpoint.pt")["step"] == stop
    assert same(train(engine, rows_of(7), OPTIONS, tmp_path / "told"), whole)

    right, calls = CapturedGradients.add, list[int]()

    def killed(ours: Any, *given: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) > stop:
            raise KeyboardInterrupt
        return right(ours, *given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(CapturedGradients, "add", killed)
        with pytest.raises(KeyboardInterrupt):
            train(engine, rows_of(7), OPTIONS, tmp_path / "torn")
    assert same(train(tiny_model().engine, rows_of(7), OPTIONS, tmp_path / "torn"), whole)


@pytest.mark.parametrize("fails_at", [1, 2, 4])
def test_a_static_way_that_fails_is_given_up_and_the_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: tuple[Path, list[float]], static: None, fails_at: int
) -> None:
    right, calls = StaticPass.hidden, list[int]()

    def failing(given: StaticPass, **how: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == fails_at:
            raise RuntimeError("no kernel for it")
        return right(given, **how)

    monkeypatch.setattr(StaticPass, "hidden", failing)
    engine = tiny_model().engine
    folder, losses = losses_of(engine, tmp_path)
    assert engine.ways.given_up == {"static training": "no kernel for it"} and engine.ways.fused
    assert len(calls) == fails_at
    assert losses == pytest.approx(plain[1], rel=1e-4)
    close(folder, plain[0])


def test_a_static_way_with_other_numbers_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: tuple[Path, list[float]], static: None
) -> None:
    right = StaticPass.hidden
    monkeypatch.setattr(StaticPass, "hidden", lambda given, **how: right(given, **how) * 1.05)
    engine = tiny_model().engine
    folder, _ = losses_of(engine, tmp_path)
    assert "its loss is" in engine.ways.given_up["static training"]
    close(folder, plain[0])


def test_where_the_fused_way_fails_too_the_plain_one_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: tuple[Path, list[float]], static: None
) -> None:
    engine = tiny_model().engine

    def failing(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no attention")

    monkeypatch.setattr(MaskedView, "attend", failing)
    folder, _ = losses_of(engine, tmp_path)
    assert set(engine.ways.given_up) == {"static training", "fused"} and same(folder, plain[0])


def test_static_passes_that_do_not_fit_memory_become_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: tuple[Path, list[float]], static: None
) -> None:
    right, worked = StaticPass.hidden, set[int]()

    def limited(given: StaticPass, **how: Any) -> torch.Tensor:
        if given.tokens > 128:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        worked.add(given.tokens)
        return right(given, **how)

    monkeypatch.setattr(StaticPass, "hidden", limited)
    engine = tiny_model().engine
    _, losses = losses_of(engine, tmp_path)
    assert worked == {128} and not engine.ways.given_up
    assert losses == pytest.approx(plain[1], rel=1e-3)


def test_recorded_passes_of_other_sizes_make_room_before_parts_become_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: tuple[Path, list[float]], static: None
) -> None:
    right, refused = CapturedGradients._record, list[int]()

    def limited(ours: CapturedGradients, size: tuple[int, int], *given: Any, **how: Any) -> Any:
        if any(known != size for known in ours._recorded):
            refused.append(size[0])
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return right(ours, size, *given, **how)

    monkeypatch.setattr(CapturedGradients, "_record", limited)
    folder, losses = losses_of(tiny_model().engine, tmp_path)
    checkpoint = torch.load(folder.parent / "checkpoint.pt")
    assert len(refused) == 1 and checkpoint["micro_tokens"] == OPTIONS.micro_tokens
    assert losses == pytest.approx(plain[1], rel=1e-3)


def test_where_the_attention_that_torch_prefers_fails_another_one_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: tuple[Path, list[float]], static: None
) -> None:
    monkeypatch.setattr(room, "_OFTEN", 1)
    right, tried = gpu_kernels.masked_attention, list[bool]()

    def failing(*given: Any, often: bool = False) -> torch.Tensor:
        tried.append(often)
        if often:
            raise RuntimeError("No execution plans support the graph.")
        return right(*given)

    monkeypatch.setattr(gpu_kernels, "masked_attention", failing)
    engine = tiny_model().engine
    _, losses = losses_of(engine, tmp_path)
    assert tried.count(True) == 1 and not engine.ways.given_up
    assert losses == pytest.approx(plain[1], rel=1e-4)


@pytest.mark.parametrize(("layers", "queries", "steps", "expected"), [(32, 4096, 80, True), (30, 576, 400, False)])
def test_plans_of_attention_are_made_where_a_training_is_long_enough_for_its_size(
    layers: int, queries: int, steps: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "shape_of_engine", lambda engine: SimpleNamespace(layers=layers, queries=queries))
    assert room.attends_often(None, steps) is expected


def test_nothing_of_a_step_that_diverged_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, static: None
) -> None:
    monkeypatch.setattr(loop, "_CHECKPOINT_EVERY_S", -1.0)
    right, calls = CapturedGradients.add, list[int]()

    def overflowing(ours: Any, *given: Any, **more: Any) -> Any:
        found = right(ours, *given, **more)
        calls.append(1)
        if len(calls) == 3:
            ours._weights[0].grad = torch.full_like(ours._weights[0], float("inf"))
        return found

    monkeypatch.setattr(CapturedGradients, "add", overflowing)
    with pytest.raises(Diverged, match="norm of the gradient is inf at step 3"):
        train(tiny_model().engine, rows_of(7), OPTIONS, tmp_path)
    checkpoint = torch.load(tmp_path / "checkpoint.pt")
    assert checkpoint["step"] == 2 and all(p.isfinite().all() for p in checkpoint["parameters"])


def test_a_checkpoint_knows_no_sizes_of_the_gradients_that_are_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, static: None
) -> None:
    monkeypatch.setattr(loop, "_CHECKPOINT_EVERY_S", -1.0)
    right, rows = loop.save, [*rows_of(4), *rows_of(4, prompt=200)]
    kept: dict[str, list[list[tuple[int, int]]]] = {"ahead": [], "not ahead": []}
    for name, found in kept.items():

        def noted(folder: Path, *given: Any, found: list[Any] = found) -> None:
            right(folder, *given)
            found.append(torch.load(folder / "checkpoint.pt")["sizes"])

        monkeypatch.setattr(loop, "save", noted)
        train(tiny_model().engine, rows, OPTIONS, tmp_path / name)
        monkeypatch.setattr(loop, "_goes_ahead", lambda engine: False)
    assert kept["ahead"] == kept["not ahead"] and len({str(sizes) for sizes in kept["ahead"]}) > 1


def test_dropout_full_fine_tuning_and_other_losses_go_the_plain_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, static: None
) -> None:
    monkeypatch.setattr(StaticPass, "hidden", lambda given, **how: pytest.fail("a static pass"))
    engine = tiny_model().engine
    for i, options in enumerate((replace(OPTIONS, dropout=0.1), replace(OPTIONS, full=True, learning_rate=1e-3))):
        train(engine, rows_of(7), options, tmp_path / str(i))


@pytest.mark.parametrize(
    ("device", "fitting", "expected"),
    [("cpu", 50_000, 64), ("cuda", 50_000, 4096 - 30), ("cuda", 1000, 800 - 30), ("cuda", 60, 64), ("cuda", None, 64)],
)
def test_on_a_gpu_tokens_at_once_follow_from_memory_up_to_a_mask_that_is_written_out(
    monkeypatch: pytest.MonkeyPatch, device: str, fitting: int | None, expected: int
) -> None:
    monkeypatch.setattr(loop, "tokens_at_once", lambda engine, **_: fitting)
    monkeypatch.setattr(loop, "can_fuse", lambda engine: True)
    engine = SimpleNamespace(device=torch.device(device))
    job: Any = SimpleNamespace(engine=engine, rows=rows_of(3, shared=30), options=replace(OPTIONS, micro_tokens=64))
    found = loop._tokens_at_once(job, checkpointing=False)
    assert found == expected


class Replayed:
    """What a CUDA graph does to tensors: results stand in the same memory each time, and Python's attributes stay as
    they are."""

    replays = True
    weights: ClassVar[list[Any]] = []

    def __init__(self, work: Any, device: torch.device, memory: Any, *, before: Any) -> None:
        self._work, self._before = work, before
        before()
        self._result = work()
        self._gradients = [weight.grad for weight in self.weights]

    def __call__(self) -> torch.Tensor:
        known = [weight.grad for weight in self.weights]
        self._before()
        self._result.copy_(self._work())
        for weight, kept, before in zip(self.weights, self._gradients, known, strict=True):
            kept.copy_(weight.grad)
            weight.grad = before
        return self._result


@pytest.mark.parametrize("micro_tokens", [40, 10_000])
def test_what_a_replay_overwrites_is_read_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, static: None, micro_tokens: int
) -> None:
    options = replace(OPTIONS, micro_tokens=micro_tokens)
    expected = train(tiny_model().engine, rows_of(7), options, tmp_path / "plain")
    made = CapturedGradients.__init__

    def noted(ours: Any, engine: Any, weights: Any, *more: Any, **how: Any) -> None:
        Replayed.weights = list(weights)
        made(ours, engine, weights, *more, **how)

    monkeypatch.setattr(CapturedGradients, "__init__", noted)
    monkeypatch.setattr(room, "Captured", Replayed)
    monkeypatch.setattr(loop, "_CHECKPOINT_EVERY_S", -1.0)
    engine = tiny_model().engine
    found = train(engine, rows_of(7), options, tmp_path / "replayed")
    assert not engine.ways.given_up and Replayed.weights
    close(found, expected)
    train(engine, rows_of(7), options, tmp_path / "parts", until=2)
    assert same(train(engine, rows_of(7), options, tmp_path / "parts"), found)


# ---- compiled steps -----------------------------------------------------------------------------------


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch, static: None) -> Any:
    """An engine for which compiling always pays, after two steps."""
    monkeypatch.setattr(room, "_COMPILING_S", 0.0)
    monkeypatch.setattr(room, "_TIMED", 1)
    engine = tiny_model().engine
    engine.ways.compiled = True
    return engine


@pytest.mark.parametrize("faster", [False, True])
def test_compiled_steps_are_tried_once_and_kept_where_they_are_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cheap: Any, plain: tuple[Path, list[float]], faster: bool
) -> None:
    taken: list[bool] = []

    @contextmanager
    def recorded(on: bool = True) -> Iterator[None]:
        taken.append(on)
        yield

    monkeypatch.setattr(compiled_steps, "taken", recorded)
    seconds = iter([2.0, 1.0 if faster else 3.0] * 5)
    monkeypatch.setattr(CapturedGradients, "_seconds", lambda *_: next(seconds))
    folder, _ = losses_of(cheap, tmp_path)
    close(folder, plain[0])
    assert True in taken and taken[-1] is faster and not cheap.ways.given_up


def test_compiled_steps_that_fail_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cheap: Any, plain: tuple[Path, list[float]]
) -> None:
    @contextmanager
    def failing(on: bool = True) -> Iterator[None]:
        if on:
            raise RuntimeError("no compiler")
        yield

    monkeypatch.setattr(compiled_steps, "taken", failing)
    folder, _ = losses_of(cheap, tmp_path)
    close(folder, plain[0])
    assert cheap.ways.given_up == {"compiled training": "no compiler"} and cheap.ways.static
