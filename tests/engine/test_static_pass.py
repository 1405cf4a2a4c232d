from __future__ import annotations

import pytest

from rung.engine.static_pass import NO_TARGET, StaticPass, TargetRows, can_be_static, size_for
from rung.engine.tree_engine import TreeEngine
from rung.engine.ways import Ways
from rung.testing import tiny_model

ROWS = [((5, 6, 7, 8, 9, 10), (11, 12)), ((5, 6, 7, 8, 9, 13, 14), (15, 2)), ((20, 21), (22,))]


def rows_of(tokens: int, targets: int) -> TargetRows:
    return TargetRows.of([(tuple(range(tokens - targets + 1)), tuple(range(targets)))])


def static_engine() -> TreeEngine:
    engine = tiny_model().engine
    engine.ways = Ways(fused=True, static=True)
    return engine


def test_rows_of_many_lengths_take_few_sizes() -> None:
    known: list[tuple[int, int]] = []
    for tokens in range(900, 1300, 7):
        size = size_for(rows_of(tokens, 40 + tokens % 20), known)
        assert size[0] >= tokens and size[1] >= 40 + tokens % 20 and size[0] % 128 == 0
        if size not in known:
            known.append(size)
    assert len(known) <= 4
    assert size_for(rows_of(300, 10), known)[0] < 400, "a size much too large is not taken"
    assert size_for(rows_of(1000, 40), []) == (1024, 64)


def test_padding_has_no_target_and_stands_behind_the_rows() -> None:
    engine, rows = static_engine(), TargetRows.of(ROWS)
    static = StaticPass(engine, (128, 64))
    static.fill(rows)
    assert static.targets.tolist()[: len(rows.targets)] == [11, 12, 15, 2, 22]
    assert set(static.targets.tolist()[len(rows.targets) :]) == {NO_TARGET}
    assert static.hidden().shape == (64, 32)


def test_a_static_pass_gives_the_hidden_states_of_a_plain_one() -> None:
    engine, rows = static_engine(), TargetRows.of(ROWS)
    static = StaticPass(engine, (128, 64))
    for given in (ROWS, ROWS[1:], ROWS):  # what an earlier batch left in the tensors does not matter
        rows = TargetRows.of(given)
        static.fill(rows)
        expected = engine.hidden_of(rows.tree, wanted=rows.places)
        assert (static.hidden()[: len(expected)] - expected).norm() < 1e-4 * expected.norm()


def test_what_stands_in_padding_changes_nothing() -> None:
    engine, rows = static_engine(), TargetRows.of(ROWS)
    static = StaticPass(engine, (128, 64))
    static.fill(rows)
    before = static.hidden()[: len(rows.places)]
    static._ids[rows.tokens :] = 17
    static._positions[rows.tokens :] = 900
    assert static.hidden()[: len(rows.places)].equal(before)


@pytest.mark.parametrize("ways", [Ways(), Ways(fused=True), Ways(static=True)])
def test_passes_are_static_only_with_one_fused_attention_a_layer(ways: Ways) -> None:
    engine = static_engine()
    assert can_be_static(engine)
    engine.ways = ways
    assert not can_be_static(engine)


def test_rotations_for_which_python_waits_are_not_static() -> None:
    engine = static_engine()
    engine.network.get_decoder().rotary_emb.rope_type = "dynamic"
    assert not can_be_static(engine)
