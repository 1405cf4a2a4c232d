from __future__ import annotations

from rung.errors import first_line


def test_the_first_line_of_an_error_is_never_empty() -> None:
    assert first_line(ValueError("\n one \n two")) == "one "
    assert first_line(RuntimeError()) == first_line(RuntimeError(" \n")) == "RuntimeError"
