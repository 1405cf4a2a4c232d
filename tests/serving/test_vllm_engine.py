"""vLLM behind a server: who answers with which base."""

from __future__ import annotations

from rung.serving.engines.endpoint import Proxied
from rung.serving.engines.vllm import open_vllm
from rung.testing import FakeEndpoint


def test_an_endpoint_needs_no_vllm() -> None:
    with FakeEndpoint() as endpoint:
        answerer = open_vllm(endpoint.spec(), "far")
        assert isinstance(answerer, Proxied)
        answerer.close()
