"""Metrics for Prometheus. No label holds a gallery, an item, an API key or an address."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from server.api.trace import STAGES, Trace
from server.embedding.registry import Models

__all__ = ["Metrics"]

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_IMAGES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The metrics of one app, in their own registry."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        stages = Histogram(
            "vireid_stage_seconds",
            "Seconds per stage of a request.",
            ["stage"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._stages = {stage: stages.labels(stage) for stage in STAGES}
        self._total = stages.labels("total")
        self._requests = Counter(
            "vireid_requests", "Answered requests.", ["method", "route", "status"], registry=self._registry
        )
        self._problems = Counter(
            "vireid_problems", "Requests that ended in a problem, by its type.", ["type"], registry=self._registry
        )
        self._batches = Histogram(
            "vireid_batch_images", "Images per batch of a model.", ["model"], buckets=_IMAGES, registry=self._registry
        )
        self._runs = Histogram(
            "vireid_batch_seconds",
            "Seconds per batch of a model.",
            ["model"],
            buckets=_SECONDS,
            registry=self._registry,
        )

    def request(self, method: str, route: str, status: int, trace: Trace) -> None:
        """Count a request; ``route`` is the pattern of its path."""
        self._requests.labels(method, route, status).inc()
        if trace.problem:
            self._problems.labels(trace.problem).inc()
        for stage, seconds in trace.seconds.items():
            self._stages[stage].observe(seconds)
        self._total.observe(trace.total)

    def batch(self, model: str, images: int, seconds: float) -> None:
        """Count a batch of a model."""
        self._batches.labels(model).observe(images)
        self._runs.labels(model).observe(seconds)

    def watch(self, models: Models, in_flight: Callable[[], int], problems: Callable[[], list[str]]) -> None:
        """Add the gauges whose values are read on each scrape."""
        loaded = Gauge(
            "vireid_model_info",
            "Loaded models and the execution providers that run them.",
            ["model", "fingerprint", "provider"],
            registry=self._registry,
        )
        for engine in models:
            loaded.labels(engine.card.name, engine.card.fingerprint, engine.provider).set(1)
        for name, text, read in (
            ("vireid_images_in_flight", "Images in flight.", in_flight),
            ("vireid_queue_images", "Images that are waiting for a model.", lambda: models.batcher.depth),
            ("vireid_ready", "1 when the server is ready, see /readyz.", lambda: not problems()),
        ):
            Gauge(name, text, registry=self._registry).set_function(read)

    def page(self) -> bytes:
        """Return the metrics in the text format."""
        return generate_latest(self._registry)
