"""The purse: a limit in dollars that no order of calls, kills and new commands passes."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rung.errors import RunError
from rung.models import purse as purses
from rung.models.purse import Purse
from rung.records import read_json, write_json

CENTS = st.integers(0, 30).map(lambda cents: cents / 100)
EPSILON = 1e-9


def on_disk(path: Path) -> float:
    return float((read_json(path) or {"usd": 0.0})["usd"])


def test_what_is_spent_and_reserved_never_passes_the_limit(tmp_path: Path) -> None:
    purse = Purse(tmp_path / "purse.json", 1.0)
    assert purse.reserve(0.6) and not purse.reserve(0.5) and purse.reserve(0.4)
    assert (purse.spent, purse.reserved, purse.left) == (0.0, 1.0, 0.0)
    purse.settle(0.6, 0.1)
    assert (purse.spent, purse.left) == (0.1, 0.5)
    assert not purse.reserve(0.51) and purse.reserve(0.5)


def test_a_tenth_can_be_spent_ten_times_of_one(tmp_path: Path) -> None:
    purse = Purse(tmp_path / "purse.json", 1.0)
    for _ in range(10):
        assert purse.reserve(0.1)
        purse.settle(0.1, 0.1)
    assert purse.spent == 1.0 and purse.left == 0.0 and not purse.reserve(1e-9)


def test_a_clean_end_leaves_exactly_what_was_spent(tmp_path: Path) -> None:
    path = tmp_path / "purse.json"
    purse = Purse(path, 1.0)
    purse.reserve(0.3)
    purse.settle(0.3, 0.0123)
    assert on_disk(path) > 0.0123, "while it is open the file runs ahead"
    purse.close()
    assert on_disk(path) == 0.0123 == Purse(path, 1.0).spent


def test_a_call_that_was_not_settled_counts_as_spent_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "purse.json"
    purse = Purse(path, 1.0)
    purse.reserve(0.3)
    purse.close()
    assert Purse(path, 1.0).spent == 0.3


def test_after_a_kill_the_whole_grant_counts_as_spent(tmp_path: Path) -> None:
    path = tmp_path / "purse.json"
    purse = Purse(path, 1.0)
    purse.reserve(0.3)
    purse.settle(0.3, 0.2)
    again = Purse(path, 1.0)  # the first one was never closed
    assert 0.2 <= again.spent <= 0.2 + 0.02
    assert again.reserve(0.75) and not again.reserve(0.06)


def test_the_file_covers_an_amount_before_it_is_used(tmp_path: Path) -> None:
    path = tmp_path / "purse.json"
    purse = Purse(path, 1.0)
    for _ in range(20):
        assert purse.reserve(0.04)
        assert purse.spent + purse.reserved - EPSILON <= on_disk(path) <= 1.0


def test_a_charge_above_what_was_reserved_is_recorded_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "purse.json"
    purse = Purse(path, 1.0)
    purse.reserve(0.5)
    purse.settle(0.5, 1.25)
    assert purse.spent == 1.25 and on_disk(path) >= 1.25 and purse.left == 0.0 and not purse.reserve(0.0001)
    purse.close()
    assert Purse(path, 1.0).spent == 1.25
    assert Purse(path, 2.0).reserve(0.75), "a larger budget goes on"


def test_an_amount_that_is_kept_back_stays_free_until_it_is_wanted(tmp_path: Path) -> None:
    purse = Purse(tmp_path / "purse.json", 1.0)
    purse.keep_back(0.4)
    assert purse.left == 0.6 and not purse.reserve(0.61) and purse.reserve(0.6)
    purse.keep_back(0.0)
    assert purse.reserve(0.4)


def test_without_a_limit_a_purse_only_counts(tmp_path: Path) -> None:
    path = tmp_path / "purse.json"
    purse = Purse(path, None)
    assert purse.reserve(1e6) and purse.left is None and on_disk(path) >= 1e6
    purse.settle(1e6, 2.0)
    assert 2.0 < Purse(path, None).spent < 2.03, "after a kill it counts a little too much"
    purse.close()
    assert Purse(path, None).spent == 2.0


def test_what_counted_as_spent_too_much_can_be_corrected(tmp_path: Path) -> None:
    """A batch job outlives its process: its reservation counted as spent, and its bill comes later."""
    path = tmp_path / "purse.json"
    Purse(path, 1.0).reserve(0.8)
    purse = Purse(path, 1.0)
    before = purse.spent
    purse.settle(0.0, 0.1 - 0.8)
    assert purse.spent == pytest.approx(before - 0.7) and purse.reserve(0.8)


def test_dollars_spent_before_there_was_a_purse_count_once(tmp_path: Path) -> None:
    path = tmp_path / "purse.json"
    purse = Purse(path, 1.0, spent_before=0.4)
    assert purse.left == 0.6
    purse.close()
    assert Purse(path, 1.0, spent_before=0.7).spent == 0.4, "the file knows it"


def test_a_purse_that_is_not_used_leaves_no_file(tmp_path: Path) -> None:
    Purse(tmp_path / "purse.json", 1.0).close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{}", '{"usd": "much"}', "[1]", '{"usd": -5}', '{"usd": Infinity}'])
def test_a_file_that_says_nothing_is_an_error_that_says_what_to_write(tmp_path: Path, text: str) -> None:
    path = tmp_path / "purse.json"
    path.write_text(text)
    with pytest.raises(RunError, match=r"purse\.json: it does not say what the run has spent\. Write"):
        Purse(path, 1.0)


def test_a_purse_keeps_its_id_until_its_file_is_deleted(tmp_path: Path) -> None:
    path = tmp_path / "purse.json"
    purse = Purse(path, 1.0)
    assert purse.reserve(0.1) and Purse(path, 1.0).id == purse.id, "after a kill"
    purse.close()
    assert Purse(path, 1.0).id == purse.id
    path.unlink()
    assert Purse(path, 1.0).id != purse.id


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_order_of_calls_kills_and_commands_passes_the_limit(tmp_path_factory: pytest.TempPathFactory, data) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.mktemp("purse") / "purse.json"
    limit = data.draw(st.integers(0, 100)) / 100
    purse = Purse(path, limit)
    charged, under_way = 0.0, []  # dollars that the provider took; amounts of calls that are not over
    for step in data.draw(st.lists(st.sampled_from(["reserve", "settle", "kill", "close"]), max_size=40)):
        if step == "reserve":
            amount = data.draw(CENTS)
            if purse.reserve(amount):
                under_way.append(amount)
        elif step == "settle" and under_way:
            amount = under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
            actual = amount * data.draw(st.sampled_from([0.0, 0.3, 1.0]))
            purse.settle(amount, actual)
            charged += actual
        elif step in ("kill", "close"):
            charged += sum(under_way)  # the worst: whatever was under way is charged
            under_way = []
            if step == "close":
                known = purse.spent + purse.reserved
                purse.close()
                assert on_disk(path) == pytest.approx(known)
            purse = Purse(path, limit)
        assert purse.spent >= charged - EPSILON
        assert purse.spent + purse.reserved <= limit + EPSILON and charged + sum(under_way) <= limit + EPSILON
        assert on_disk(path) >= min(purse.spent + purse.reserved, limit) - EPSILON


def test_threads_share_a_purse(tmp_path: Path) -> None:
    purse = Purse(tmp_path / "purse.json", 1.0)
    taken: list[float] = []

    def spend() -> None:
        for _ in range(200):
            if purse.reserve(0.01):
                purse.settle(0.01, 0.005)
                taken.append(0.005)

    threads = [threading.Thread(target=spend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert purse.spent == pytest.approx(sum(taken)) and purse.spent <= 1.0 and len(taken) >= 196


def test_many_small_calls_need_few_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = []
    monkeypatch.setattr(purses, "write_json", lambda path, record: (writes.append(record), write_json(path, record)))
    purse = Purse(tmp_path / "purse.json", 1.0)
    started = time.process_time()
    for _ in range(25):  # 200 calls at once, 25 times
        assert all(purse.reserve(0.001) for _ in range(200))
        for _ in range(200):
            purse.settle(0.001, 0.0001)
    assert purse.spent == pytest.approx(0.5)
    assert len(writes) < 25 * 2 + 15
    assert time.process_time() - started < 1.0
