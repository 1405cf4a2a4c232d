"""The page at the server's root: plain files that a strict policy lets run."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from rung.serving.http.page import PAGE_HEADERS, page_files


class _Read(HTMLParser):
    """Every element with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def elements() -> list[tuple[str, dict[str, str | None]]]:
    read = _Read()
    read.feed(page_files()["/"][1].decode())
    return read.elements


def test_the_page_is_four_files_of_known_types() -> None:
    assert {path: kind for path, (kind, _) in page_files().items()} == {
        "/": "text/html; charset=utf-8",
        "/page.css": "text/css; charset=utf-8",
        "/page.js": "text/javascript; charset=utf-8",
        "/page.svg": "image/svg+xml",
    }


def test_the_page_names_nothing_outside_the_server() -> None:
    for path, (_, content) in page_files().items():
        text = content.decode().replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"https?:|//[a-z]+\.|@import|url\(|wss?:", text), path


def test_whatever_the_page_loads_is_served_beside_it(elements: list[tuple[str, dict[str, str | None]]]) -> None:
    loaded = {value for _, attrs in elements for key, value in attrs.items() if key in ("src", "href")}
    assert {f"/{name}" for name in loaded} == set(page_files()) - {"/"}


def test_the_page_has_no_script_or_style_that_its_policy_forbids(
    elements: list[tuple[str, dict[str, str | None]]],
) -> None:
    for tag, attrs in elements:
        assert tag != "style" and "style" not in attrs and not any(key.startswith("on") for key in attrs)
        assert tag != "script" or attrs.get("src")
    script = page_files()["/page.js"][1].decode()
    for way_to_write_html_or_to_run_text in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert way_to_write_html_or_to_run_text not in script
    assert "style." not in script and "setAttribute('style" not in script
    policy = PAGE_HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';") and "unsafe" not in policy


def test_the_key_goes_into_a_header_and_never_into_an_address_or_lasting_storage() -> None:
    script = page_files()["/page.js"][1].decode()
    assert "headers.Authorization = `Bearer ${" in script
    assert not re.search(r"localStorage|document\.cookie|location|history\.(push|replace)", script)


def test_every_field_has_a_label_and_changing_text_is_announced(
    elements: list[tuple[str, dict[str, str | None]]],
) -> None:
    labelled = {attrs["for"] for tag, attrs in elements if tag == "label"}
    assert {attrs["id"] for tag, attrs in elements if tag in ("select", "textarea", "input")} == labelled
    assert any(attrs.get("aria-live") == "polite" for _, attrs in elements)
    assert {"status", "alert"} <= {attrs.get("role") for _, attrs in elements}
    assert ("html", {"lang": "en"}) in elements
    style = page_files()["/page.css"][1].decode()
    for wanted in (
        ":focus-visible",
        "prefers-color-scheme: dark",
        "prefers-reduced-motion: reduce",
        "max-width: 720px",
    ):
        assert wanted in style
