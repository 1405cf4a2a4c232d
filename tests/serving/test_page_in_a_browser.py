"""The page in headless Chromium, against a running server. Skipped where playwright or Chromium is missing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from live_server import KEY, Live

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(params=[(1280, 900), (390, 844)], ids=["desktop", "phone"])
def page(browser: Any, live: Live, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page with the key typed, and with what it said to the console, `said`."""
    width, height = request.param
    page = browser.new_page(viewport={"width": width, "height": height})
    page.said = []
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("console", lambda line: page.said.append(line.text) if "Content Security" in line.text else None)
    page.goto(live.url + "/")
    page.wait_for_selector("#problem:not([hidden])")
    assert "asks for an API key" in page.inner_text("#problem")
    page.keyboard.type(KEY)  # the field has the focus
    page.keyboard.press("Tab")
    page.wait_for_selector("#problem", state="hidden")
    yield page
    assert page.said == []
    page.close()


def ask(page: Any, text: str) -> None:
    page.focus("#input")
    page.keyboard.press("Control+A")
    page.keyboard.type(text)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#stop[disabled]")


def test_two_bundles_answer_one_input_beside_each_other(page: Any, live: Live) -> None:
    page.select_option("#left", label="cards")
    page.select_option("#right", label="tuned")
    ask(page, "Which colour has the door?")
    assert [title.inner_text() for title in page.query_selector_all("article h2")] == ["cards", "tuned"]
    assert page.inner_text("#status") == "cards answered, tuned answered."
    for figure in ("in", "cached", "out", "total"):
        assert all(one.inner_text() != "–" for one in page.query_selector_all(f'[data-figure="{figure}"]'))
    sources = page.query_selector_all("article:first-child .sources summary")
    assert sources and sources[0].inner_text().startswith("[1] ")
    sources[0].click()
    assert "Every " in page.inner_text("article:first-child .passage")
    assert page.query_selector_all("article:last-child .sources:not([hidden])") == []
    assert page.evaluate("document.documentElement.scrollWidth") == page.viewport_size["width"]


def test_one_model_may_answer_alone_and_earlier_inputs_come_back(page: Any) -> None:
    page.select_option("#right", value="")
    ask(page, "first <b>input</b>")
    ask(page, "second input")
    assert len(page.query_selector_all("article")) == 1
    earlier = page.query_selector_all("#inputs button")
    assert [one.inner_text() for one in earlier] == ["second input", "first <b>input</b>"]
    earlier[1].click()
    assert page.input_value("#input") == "first <b>input</b>"


def test_a_context_is_offered_where_a_chosen_model_takes_one_and_sent_to_no_other(page: Any, live: Live) -> None:
    page.select_option("#left", label=live.base)
    page.select_option("#right", value="")
    assert not page.is_visible("#context-box")
    page.select_option("#right", label="cards")
    page.click("#context-box summary")
    page.fill("#context", "There is a red door in the house.")
    ask(page, "Which colour has the door?")
    assert page.inner_text("#status") == f"{live.base} answered, cards answered."
    assert "Asked without the context" in page.inner_text("article:first-child .marks")
    assert "without the context" not in page.inner_text("article:last-child")


def test_the_key_stays_in_this_tab(page: Any, live: Live) -> None:
    assert page.evaluate("Object.values(sessionStorage)") == [KEY]
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    assert page.url == live.url + "/"


def test_a_fault_of_the_server_is_a_sentence_in_the_answers_place(page: Any) -> None:
    page.fill("#input", "anything")
    page.click("#key-box summary")
    page.fill("#key", "another key")
    page.keyboard.press("Enter")
    page.wait_for_selector("article .problem:not([hidden])")
    page.wait_for_selector("#stop[disabled]")
    assert "The server does not know this API key." in page.inner_text("article .problem")
    assert page.inner_text("#status").endswith("failed.")
