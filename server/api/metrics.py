"""What Prometheus may know. No label holds a gallery, an item, a key or an address."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from server.api.trace import STAGES, Trace
from server.embedding.registry import Models

__all__ = ["Metrics"]

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_IMAGES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The metrics of one app, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        stages = Histogram(
            "vireid_stage_seconds",
            "Seconds a request spent in a stage.",
            ["stage"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._stages = {stage: stages.labels(stage) for stage in STAGES}
        self._total = stages.labels("total")
        self._requests = Counter(
            "vireid_requests", "Requests answered.", ["method", "route", "status"], registry=self._registry
        )
        self._problems = Counter(
            "vireid_problems", "Requests that ended in a problem, by its type.", ["type"], registry=self._registry
        )
        self._batches = Histogram(
            "vireid_batch_images", "Images of a model's batch.", ["model"], buckets=_IMAGES, registry=self._registry
        )
        self._runs = Histogram(
            "vireid_batch_seconds",
            "Seconds a model took for a batch.",
            ["model"],
            buckets=_SECONDS,
            registry=self._registry,
        )

    def request(self, method: str, route: str, status: int, trace: Trace) -> None:
        """Count an answered request; ``route`` is the pattern, not the path."""
        self._requests.labels(method, route, status).inc()
        if trace.problem:
            self._problems.labels(trace.problem).inc()
        for stage, seconds in trace.seconds.items():
            self._stages[stage].observe(seconds)
        self._total.observe(trace.total)

    def batch(self, model: str, images: int, seconds: float) -> None:
        """Count a run of a model."""
        self._batches.labels(model).observe(images)
        self._runs.labels(model).observe(seconds)

    def watch(self, models: Models, in_flight: Callable[[], int], problems: Callable[[], list[str]]) -> None:
        """Add the gauges that are read when somebody asks."""
        loaded = Gauge(
            "vireid_model_info",
            "Loaded models and the execution provider that really runs them.",
            ["model", "fingerprint", "provider"],
            registry=self._registry,
        )
        for engine in models:
            loaded.labels(engine.card.name, engine.card.fingerprint, engine.provider).set(1)
        for name, text, read in (
            ("vireid_images_in_flight", "Images being worked on.", in_flight),
            ("vireid_queue_images", "Images that wait for a model.", lambda: models.batcher.depth),
            ("vireid_ready", "1 when /readyz says so.", lambda: not problems()),
        ):
            Gauge(name, text, registry=self._registry).set_function(read)

    def page(self) -> bytes:
        """The text format."""
        return generate_latest(self._registry)
