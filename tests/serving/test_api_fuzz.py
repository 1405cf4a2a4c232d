"""Requests that schemathesis makes from the server's own OpenAPI document: whatever is sent, no answer is a 5xx."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error

from live_server import ADMIN_KEY, Live

REQUESTS = 40  # to each path, of each kind
MOST = {"max_tokens": 2, "max_completion_tokens": 2, "n": 2}  # what is looked for is in the requests, not the answers
WITHOUT_FIELDS = {"/v1/models", "/health", "/ready", "/metrics"}  # nothing in a request can be wrong
NAMES = ("tiny", "tuned", "cards")


def towards_models(context: Any, body: Any) -> Any:
    """A name that is not known is all that the server looks at: half of the names become one that is."""
    if isinstance(body, dict) and isinstance(name := body.get("model"), str):
        if len(name) % 2 == 0:
            body["model"] = NAMES[len(name) // 2 % len(NAMES)]
        for key, most in MOST.items():
            if isinstance(wanted := body.get(key), int) and wanted > most:
                body[key] = most
        if "max_completion_tokens" not in body:
            body.setdefault("max_tokens", 2)
    return body


@pytest.fixture(scope="module")
def operations(live: Live) -> dict[str, Any]:
    """By path."""
    schema = schemathesis.openapi.from_url(f"{live.url}/openapi.json")
    schema.hook("map_body")(towards_models)
    return {found.ok().path: found.ok() for found in schema.get_all_operations()}


def test_every_path_is_in_the_document(operations: dict[str, Any]) -> None:
    asked = {"/v1/chat/completions", "/v1/completions", "/v1/models/{model}"}
    loading = {"/v1/load_lora_adapter", "/v1/unload_lora_adapter"}
    assert set(operations) == asked | loading | WITHOUT_FIELDS


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_no_request_is_a_fault_of_the_server(live: Live, operations: dict[str, Any], mode: GenerationMode) -> None:
    statuses = set()
    for path, operation in operations.items():
        if mode is GenerationMode.NEGATIVE and path in WITHOUT_FIELDS:
            continue

        @settings(
            max_examples=REQUESTS,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def asked(case: Any) -> None:
            response = case.call(headers={"Authorization": f"Bearer {ADMIN_KEY}"}, timeout=30)
            case.validate_response(response, checks=[not_a_server_error])
            statuses.add(response.status_code)

        asked()
    assert 200 in statuses and 400 in statuses, statuses
