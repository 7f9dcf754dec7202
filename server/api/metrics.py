"""Metrics for Prometheus. No label holds a gallery, an item, the secret of a key or an address."""

from __future__ import annotations

from collections.abc import Callable, Mapping

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
        stages = self._histogram("stage_seconds", "Seconds per stage of a request.", ["stage"], _SECONDS)
        self._stages = {stage: stages.labels(stage) for stage in STAGES}
        self._total = stages.labels("total")
        self._requests = self._counter("requests", "Answered requests.", ["method", "route", "status"])
        self._problems = self._counter("problems", "Requests that ended in a problem, by its type.", ["type"])
        self._admissions = self._counter(
            "key_requests", "Requests by the id of their API key, and whether they were admitted.", ["key", "admitted"]
        )
        self._searches = self._counter(
            "searches", "Searches by what their rates were measured on: real, translated or none.", ["calibration"]
        )
        self._jobs = self._counter("jobs_ended", "Jobs that have ended.", ["kind", "state"])
        self._batches = self._histogram("batch_images", "Images per batch of a model.", ["model"], _IMAGES)
        self._runs = self._histogram("batch_seconds", "Seconds per batch of a model.", ["model"], _SECONDS)

    def request(self, method: str, route: str, status: int, trace: Trace, key: str | None) -> None:
        """Count a request; ``route`` is the pattern of its path, ``key`` the id of the caller's API key."""
        self._requests.labels(method, route, status).inc()
        if trace.problem:
            self._problems.labels(trace.problem).inc()
        if key is not None:
            self._admissions.labels(key, "no" if status == 429 else "yes").inc()
        for stage, seconds in trace.seconds.items():
            self._stages[stage].observe(seconds)
        self._total.observe(trace.total)

    def batch(self, model: str, images: int, seconds: float) -> None:
        """Count a batch of a model."""
        self._batches.labels(model).observe(images)
        self._runs.labels(model).observe(seconds)

    def search(self, real: bool | None) -> None:
        """Count a search; ``real``: whether its calibration is one of real crops, None if it has none."""
        self._searches.labels("none" if real is None else "real" if real else "translated").inc()

    def job(self, kind: str, state: str) -> None:
        """Count a job that has ended."""
        self._jobs.labels(kind, state).inc()

    def watch(self, models: Models, read: Mapping[str, tuple[str, Callable[[], float]]]) -> None:
        """Add the gauges whose values are read on each scrape: ``read`` has description and function by name."""
        loaded = Gauge(
            "vireid_model_info",
            "Loaded models and the execution providers that run them.",
            ["model", "fingerprint", "provider"],
            registry=self._registry,
        )
        for engine in models:
            loaded.labels(engine.card.name, engine.card.fingerprint, engine.provider).set(1)
        own: Mapping[str, tuple[str, Callable[[], float]]] = {
            "queue_images": ("Images that are waiting for a model.", lambda: models.batcher.depth),
            "decoding_images": (
                "Images of queries in isolated decoders, waiting or being decoded.",
                lambda: models.decoding,
            ),
        }
        for name, (text, function) in {**own, **read}.items():
            Gauge(f"vireid_{name}", text, registry=self._registry).set_function(function)

    def page(self) -> bytes:
        """Return the metrics in the text format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, text: str, labels: list[str]) -> Counter:
        return Counter(f"vireid_{name}", text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, labels: list[str], buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"vireid_{name}", text, labels, buckets=buckets, registry=self._registry)
