"""Whether the tree path computes what transformers computes with the same network.

A layer at a time, over a tree, at the far end of the context, in decode steps behind a kept prefix, in the network's
own type, and with an adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from rung.engine import attention
from rung.engine.adapters import IN_TRAINING
from rung.engine.layers import decoder_layers, fused_layers, original_forward, unfuse, unfuse_layers
from rung.engine.out_of_memory import is_out_of_memory
from rung.engine.precision import computing_in, converted
from rung.engine.prefill import Job, SharedPrefixes, prefill
from rung.engine.prefix_tree import grow
from rung.engine.probe import (
    NEGLIGIBLE,
    Reference,
    far_logits,
    is_wrong,
    logits_of,
    reference_of,
    relative_error,
    rounds_alike,
)
from rung.engine.target_modules import adaptable_layers
from rung.engine.tree_answers import decode_step
from rung.engine.tree_engine import TreeEngine
from rung.errors import ModelError, first_line

_MORE_IN_FLOAT32 = 4.0  # times transformers' own rounding error, which may be small by luck
_LAYER_TOLERANCE = 1e-4  # of what a layer adds, in float32
_ROUNDING = 3e-6  # of what stands in the residual stream


class Unfit(Exception):
    """The tree path computes something else. The message says why, as a clause."""


@dataclass(frozen=True)
class _Comparison:
    """found: logits of the engine, (..., V). expected: the same tokens' in a Reference. fact: where they differ."""

    found: torch.Tensor
    expected: Callable[[Reference], torch.Tensor]
    fact: str


@torch.inference_mode()
def check_tree(engine: TreeEngine, reference: Reference) -> None:
    """Raises Unfit unless the engine's logits are the reference's, in float32. Unfuses layers that make them differ.

    Networks that amplify rounding errors are judged by transformers' own error in float32, against float64.
    """
    uncertain = [c for c in _comparisons(engine, reference) if _is_uncertain(c, reference)]
    if not uncertain:
        return
    if engine.device.type != "mps":  # it has no float64
        with as_transformers_wrote_it(engine.network):
            exact = reference_of(engine.network, dtype=torch.float64)
    for c in uncertain:
        theirs = c.expected(reference)
        if engine.device.type == "mps":
            continue
        if not rounds_alike(c.found.double(), theirs.double(), c.expected(exact), times=_MORE_IN_FLOAT32):
            raise Unfit(f"{c.fact}, by {relative_error(c.found, theirs):.1e}")


def _is_uncertain(comparison: _Comparison, reference: Reference) -> bool:
    """Whether only a finer computation can tell. Raises Unfit where logits are wrong."""
    error = relative_error(comparison.found, comparison.expected(reference))
    if is_wrong(error):
        raise Unfit(f"{comparison.fact}, by {error:.1e}")
    return error > NEGLIGIBLE


def _comparisons(engine: TreeEngine, reference: Reference) -> Iterator[_Comparison]:
    """Computed one after the other, in float32: the next one only where the one before was no failure."""
    with _computing_in_float32(engine):
        yield _head(engine, reference)
        near = _tree_logits(engine, reference)
        if not relative_error(near, _near_of(reference)) <= NEGLIGIBLE and fused_layers(engine.network):
            with _layers_compared(engine.network) as wrong:
                _tree_logits(engine, reference)
            for layer in wrong:
                unfuse(layer)
            near = _tree_logits(engine, reference)
        yield _Comparison(near, _near_of, "attention over a tree differs")
        if reference.far is None:
            raise Unfit("its rows cannot stand at any position")
        yield _Comparison(_far(engine, reference), _far_of, "far positions differ")
        if engine.calls != list(range(len(decoder_layers(engine.network)))):
            raise Unfit("its layers do not call attention once each, in order")
        yield from _decode_steps(engine, reference)


@torch.inference_mode()
def check_rounding(engine: TreeEngine, reference: Reference) -> None:
    """Raises Unfit where the engine rounds more than transformers does, in the network's own type.

    Errors are random in size: a failure counts when other rows fail too.
    """
    if engine.dtype == torch.float32:
        return
    if _rounds_alike(engine, reference):
        return
    with as_transformers_wrote_it(engine.network):
        other = reference_of(engine.network, number=1)
    if not _rounds_alike(engine, other):
        raise Unfit("its rounding errors would be larger")


def check_adapter(engine: TreeEngine) -> bool:
    """Compares a random adapter under the engine with PEFT's own layers; gives up what differs.

    First the fused layers, then the fused step of adapters, then that adapters are read without PEFT; attention in one
    kernel where all that did not help. Raises ModelError where even PEFT's own layers compute something else. Where
    memory does not suffice for the comparison, fused layers and step are given up. Returns whether memory sufficed.
    """
    compared = True
    try:
        try:
            engine.retried(lambda: _compare_adapter(engine))
        except Exception as error:
            if is_out_of_memory(error) or not engine.ways.fused:
                raise
            engine.ways.give_up("fused", f"adapters could not be checked in it ({first_line(error)})")
            engine.retried(lambda: _compare_adapter(engine))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        compared = False
        unfuse_layers(engine.network)
        engine.adapters.unfuse()
    engine.fused = (len(fused_layers(engine.network)), engine.fused[1])
    engine.clear_prefix_cache()
    return compared


def _compare_adapter(engine: TreeEngine) -> None:
    with _random_adapter(engine), torch.inference_mode():
        exact, theirs = _plainly(engine)
        for give_up in (lambda: None, lambda: unfuse_layers(engine.network), engine.adapters.unfuse):
            give_up()
            found = _all_logits(engine, exact)
            expected = _all_of(exact)
            error = relative_error(found, expected)
            if error <= NEGLIGIBLE or (theirs is not None and rounds_alike(found, theirs, expected)):
                break
        else:
            raise ModelError(f"model {engine.name}: adapters would compute something else than in PEFT ({error:.1e}).")
        if not engine.adapters.plain and not _reads_alike(engine, exact, theirs):
            engine.adapters.reads = False


def _reads_alike(engine: TreeEngine, exact: Reference, theirs: torch.Tensor | None) -> bool:
    """Whether the adapter that is applied gives PEFT's logits when it is read from its folder, alone and in a mix."""
    adapters = engine.adapters
    with TemporaryDirectory() as place:
        folders = [str(Path(place, name, IN_TRAINING)) for name in ("a", "b")]
        try:
            for folder in folders:
                adapters.wrapper.save_pretrained(
                    str(Path(folder).parent), selected_adapters=[IN_TRAINING], save_embedding_layers=False
                )
                if not adapters.hold(folder):
                    return True  # PEFT loads such adapters of this network
            with adapters.using(folders[0]):
                alone = _all_logits(engine, exact)
            with adapters.mixed(folders, [token % 2 for token in range(len(grow(_rows(exact)).ids))]):
                mixed = _tree_logits(engine, exact)
        except Exception as error:  # layers that get other tokens than the pass has, keys of an unknown form
            if is_out_of_memory(error):
                raise
            return False
        finally:
            for folder in folders:
                adapters.forget(folder)
    for found, expected in ((alone, _all_of(exact)), (mixed, _near_of(exact))):
        close = relative_error(found, expected) <= NEGLIGIBLE
        if not close and (theirs is None or not rounds_alike(found, theirs[: len(found)], expected)):
            return False
    return True


# ---- the engine's logits on a probe ---------------------------------------------------------------


def _rows(reference: Reference) -> list[list[int]]:
    """The probe's rows, cut to different lengths."""
    return [row[: len(row) - 2 * k] for k, row in enumerate(reference.probe.rows.tolist())]


def _near_of(reference: Reference) -> torch.Tensor:
    """Of all rows in order, (T, V)."""
    return torch.cat([reference.near[k, : len(row)] for k, row in enumerate(_rows(reference))])


def _far_of(reference: Reference) -> torch.Tensor:
    """Of the far row, (t, V)."""
    assert reference.far is not None
    return reference.far[0]


def _tree_logits(engine: TreeEngine, reference: Reference) -> torch.Tensor:
    """Logits of all rows in order, (T, V), from one tree."""
    rows = _rows(reference)
    tree = grow(rows)
    places = [place for i, row in enumerate(rows) for place in tree.places(i, 0, len(row))]
    return _logits(engine, engine.hidden_of(tree)[places])


def _far(engine: TreeEngine, reference: Reference) -> torch.Tensor:
    """Logits of the far row, (t, V)."""
    ids, start = reference.probe.far[0].tolist(), reference.probe.start
    with _shifted(engine, start):
        return _logits(engine, engine.hidden_of(grow([ids]), long=engine.is_long(start + len(ids))))


@contextmanager
def _shifted(engine: TreeEngine, start: int) -> Iterator[None]:
    """Within: tokens stand so many positions further on."""
    whole = engine.forward
    vars(engine)["forward"] = lambda ids, positions, view: whole(ids, [start + place for place in positions], view)
    try:
        yield
    finally:
        del vars(engine)["forward"]


def _decode_steps(engine: TreeEngine, reference: Reference) -> Iterator[_Comparison]:
    """Prefill, then two decode steps of a batch behind a kept prefix; in the second, one row brings two tokens."""
    rows = reference.probe.rows.tolist()
    firsts = [len(rows[0]) - 4 + k for k in range(3)]  # tokens of each prompt, which is prefilled
    jobs = [Job(row[:first], 4) for row, first in zip(rows, firsts, strict=True)]
    long = engine.is_long(len(rows[0]) + 4)
    shared = SharedPrefixes(engine, [None] * 3, [job.prompt for job in jobs], long=long)
    cache, last, order = prefill(engine, jobs, list(range(3)), shared)
    known = [firsts[i] for i in order]
    for counts in ([0, 0, 0], [1, 1, 1], [2 if i == 0 else 1 for i in order]):
        if any(counts):
            pairs = list(zip(order, known, counts, strict=True))
            new = [rows[i][first : first + count] for i, first, count in pairs]
            last = decode_step(engine, cache, shared, [jobs[i] for i in order], new)
            known = [first + count for first, count in zip(known, counts, strict=True)]
        places = (torch.tensor(order), torch.tensor([first - 1 for first in known]))
        fact = "answers behind a kept prefix differ"
        yield _Comparison(_logits(engine, last), partial(_at, places), fact)
    engine.clear_prefix_cache()


def _at(places: tuple[torch.Tensor, torch.Tensor], reference: Reference) -> torch.Tensor:
    """places: rows and tokens, (B,) each."""
    return reference.near[places]


def _logits(engine: TreeEngine, hidden: torch.Tensor) -> torch.Tensor:
    output = engine.network.get_output_embeddings() if engine.head_alone and engine.dtype == torch.float32 else None
    with converted(output, torch.float32):
        return engine.logits(hidden)


def _head(engine: TreeEngine, reference: Reference) -> _Comparison:
    """Finds out whether logits are the output layer's alone, or need the network's own forward."""
    if reference.hidden is None:
        raise Unfit("its decoder gives no hidden states")
    hidden, expected = reference.hidden[0], reference.near[0]
    if not engine.head_alone or relative_error(_logits(engine, hidden), expected) > NEGLIGIBLE:
        engine.head_alone = False
    return _Comparison(
        _logits(engine, hidden), lambda given: given.near[0], "its logits need more than its last hidden states"
    )


@contextmanager
def _computing_in_float32(engine: TreeEngine) -> Iterator[None]:
    own, engine.dtype = engine.dtype, torch.float32
    try:
        with computing_in(engine.network, torch.float32):
            yield
    finally:
        engine.dtype = own


@contextmanager
def _layers_compared(network: Any) -> Iterator[list[Any]]:
    """Within: each fused layer also runs as transformers wrote it, on the same input. Yields those that differ."""
    wrong: list[Any] = []

    def compare(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: torch.Tensor) -> None:
        expected = original_forward(layer)(*args, **kwargs)
        expected = expected[0] if isinstance(expected, tuple) else expected
        given = args[0] if args else kwargs["hidden_states"]
        allowed = _LAYER_TOLERANCE * (expected - given).norm(dim=-1) + _ROUNDING * expected.norm(dim=-1)
        if out.shape != expected.shape or not bool(((out - expected).norm(dim=-1) <= allowed).all()):
            wrong.append(layer)

    # Called before the hooks that restore a layer's weights, so that both run on the same ones.
    layers = fused_layers(network)
    hooks = [layer.register_forward_hook(compare, with_kwargs=True, prepend=True) for layer in layers]
    try:
        yield wrong
    finally:
        for hook in hooks:
            hook.remove()


# ---- in the network's own type, and with an adapter -----------------------------------------------


def _rounds_alike(engine: TreeEngine, reference: Reference) -> bool:
    theirs = _theirs(engine, reference)
    return rounds_alike(_all_logits(engine, reference), theirs, _all_of(reference))


def _all_logits(engine: TreeEngine, reference: Reference) -> torch.Tensor:
    """The engine's logits of all rows and of the far one, (T, V)."""
    return torch.cat([_tree_logits(engine, reference), _far(engine, reference)])


def _all_of(reference: Reference) -> torch.Tensor:
    return torch.cat([_near_of(reference), _far_of(reference)])


def _theirs(engine: TreeEngine, reference: Reference) -> torch.Tensor:
    """Logits of transformers' own forward in the network's own type, (T, V)."""
    network = engine.network
    with as_transformers_wrote_it(network):
        far = far_logits(network, reference.probe)
        near = logits_of(network, reference.probe.rows)
    assert far is not None
    rows = [near[k, : len(row)] for k, row in enumerate(_rows(reference))]
    return torch.cat([*rows, far[0]])


@contextmanager
def as_transformers_wrote_it(network: Any) -> Iterator[None]:
    """Within: transformers' own layers with its own attention, and PEFT's own adapters."""
    ours = [(m, f) for m in network.modules() if _is_ours(f := vars(m).get("forward"))]
    network.set_attn_implementation("eager")
    for module, _ in ours:
        del vars(module)["forward"]
    try:
        yield
    finally:
        for module, forward in ours:
            vars(module)["forward"] = forward
        network.set_attn_implementation(attention.NAME)


def _is_ours(forward: Any) -> bool:
    return str(getattr(getattr(forward, "func", None), "__module__", "")).startswith("rung.")


def _plainly(engine: TreeEngine) -> tuple[Reference, torch.Tensor | None]:
    """PEFT's logits with the adapter that is applied: in float32, and in the network's own type where it is another."""
    with as_transformers_wrote_it(engine.network):
        exact = reference_of(engine.network)
    return exact, _theirs(engine, exact) if engine.dtype != torch.float32 else None


@contextmanager
def _random_adapter(engine: TreeEngine) -> Iterator[None]:
    """Within: an adapter with random factors is applied. The random state of the caller stays."""
    from peft import LoraConfig

    devices = [engine.device] if engine.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        config = LoraConfig(r=2, lora_alpha=4, target_modules=adaptable_layers(engine.network))
        engine.adapters.begin_training(config, 0)
        try:
            with torch.no_grad():
                for name, parameter in engine.network.named_parameters():
                    if parameter.requires_grad and ".lora_B." in name:
                        parameter.normal_(std=0.02)
            yield
        finally:
            engine.adapters.end_training()
