from __future__ import annotations

from rung.report.words import count, duration, shortened, thousands, tied, time_left


def test_durations_carry_a_unit_that_fits_their_size() -> None:
    written = ["0.08 s", "1.0 s", "9.9 s", "38 s", "3.2 min", "1.7 h", "–"]
    assert [duration(s) for s in (0.083, 0.996, 9.9, 38.2, 192, 6000, None)] == written


def test_time_left_is_an_estimate_in_words() -> None:
    written = ["less than a minute left", "about 3 min left", "about 2.0 h left"]
    assert [time_left(s) for s in (0, 170, 7200)] == written


def test_large_counts_are_written_in_thousands_and_millions() -> None:
    assert [thousands(n) for n in (950, 12_300, 999_600)] == ["950", "12 k", "1.0 M"]
    assert [count(n, "warning") for n in (1, 1200)] == ["1 warning", "1,200 warnings"]


def test_a_shortened_text_ends_at_a_word_and_never_exceeds_its_width() -> None:
    assert shortened("a customer, late again", 20) == "a customer, late…"
    assert shortened("x" * 30, 10) == "x" * 9 + "…"
    assert shortened("short", 5) == "short"


def test_a_line_never_breaks_before_a_percent_sign_or_within_a_p_value() -> None:
    assert tied("20 % with p = 0.47 or p < 0.001").split(" ") == [
        "20\N{NO-BREAK SPACE}%",
        "with",
        "p\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}0.47",
        "or",
        "p\N{NO-BREAK SPACE}<\N{NO-BREAK SPACE}0.001",
    ]
