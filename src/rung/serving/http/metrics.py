"""Figures of the server in Prometheus's text format, in a registry of its own."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rung.serving.http.logs import RequestRecord
from rung.serving.http.security import ADMIN_PATHS
from rung.serving.service import ModelService

_MOST_LABELS = 256
"""Names of models that are told apart; beyond them they are "other", as are names that no model has."""
_OTHER = "other"
_ADAPTERS = "(adapters)"
"""Of requests that load and unload adapters; no model can be called so."""
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class ServerMetrics:
    """What `/metrics` tells."""

    def __init__(self, service: ModelService) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry = CollectorRegistry()
        self._labels: set[str] = set()
        self._requests = Counter("rung_requests", "Requests that were ended.", ["model", "status"], registry=registry)
        self._tokens = Counter(
            "rung_tokens", "Tokens read (in), of these not computed anew (cached), and written (out).",
            ["model", "kind"], registry=registry,
        )  # fmt: skip
        self._latency = Histogram(
            "rung_request_seconds", "Seconds from a request to the end of its answer.",
            ["model"], buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._first = Histogram(
            "rung_first_token_seconds", "Seconds from a request to the first piece of its answer.",
            ["model"], buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        registry.register(_Loads(service))

    def count(self, record: RequestRecord) -> None:
        """A request that ended."""
        model = self._label(record)
        self._requests.labels(model, str(record.status)).inc()
        kinds = {"in": record.tokens_in, "cached": record.tokens_cached, "out": record.tokens_out}
        for kind, number in kinds.items():
            if number:
                self._tokens.labels(model, kind).inc(number)
        if record.status == 200 and record.known:
            self._latency.labels(model).observe(record.elapsed_s)
        if record.first_s is not None:
            self._first.labels(model).observe(record.first_s)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def _label(self, record: RequestRecord) -> str:
        if record.path in ADMIN_PATHS:
            return _ADAPTERS
        if record.model is None:
            return ""
        if record.known and (record.model in self._labels or len(self._labels) < _MOST_LABELS):
            self._labels.add(record.model)
            return record.model
        return _OTHER


class _Loads(Collector):
    """What the bases have to do, asked when it is told."""

    def __init__(self, service: ModelService) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        loads = self._service.load()
        figures = {
            "rung_requests_running": ("Requests that are being answered.", {b: x.running for b, x in loads.items()}),
            "rung_requests_waiting": ("Requests in the queue.", {b: x.waiting for b, x in loads.items()}),
            "rung_adapters_held": ("Adapters in memory.", {b: x.adapters for b, x in loads.items()}),
        }
        for name, (what, values) in figures.items():
            family = GaugeMetricFamily(name, what, labels=["base"])
            for base, value in values.items():
                family.add_metric([base], value)
            yield family
        labels = ["base", "dtype", "device", "ways"]
        computing = GaugeMetricFamily("rung_computing", "What bases are computed with: always 1.", labels=labels)
        for base, record in self._service.computing().items():
            ways = ",".join(record["ways"]) or "plain"
            computing.add_metric([base, record["dtype"], record["device"], ways], 1.0)
        yield computing
        yield GaugeMetricFamily("rung_ready", "1 while requests are taken.", value=float(self._service.ready))
        names = float(len(self._service.models()))
        yield GaugeMetricFamily("rung_models", "Names that answer.", value=names)
