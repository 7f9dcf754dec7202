"""OpenTelemetry: one span for each request, where a collector is configured."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from server.api.trace import Trace
from server.domain.errors import StartupError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

__all__ = ["Spans", "open_spans"]


class Spans:
    """Gives a span of each request to ``processor``. It holds route, status and stages: no gallery, item or query."""

    def __init__(self, processor: SpanProcessor) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider

        self._provider = TracerProvider(resource=Resource.create({"service.name": "vireid"}))
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("vireid")

    def record(self, method: str, route: str, status: int, trace: Trace, headers: Mapping[str, str]) -> None:
        """Record a request that ends now, as part of the trace that ``traceparent`` among its headers names."""
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind, StatusCode

        end = time.time_ns()
        attributes: dict[str, str | int | float] = {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
            "vireid.request_id": trace.request_id,
            **{f"vireid.{stage}_ms": milliseconds for stage, milliseconds in trace.milliseconds().items()},
        }
        span = self._tracer.start_span(
            f"{method} {route}",
            context=extract(headers),
            kind=SpanKind.SERVER,
            attributes=attributes,
            start_time=end - int(1e9 * trace.total),
        )
        if status >= 500:
            span.set_status(StatusCode.ERROR, trace.problem)
        span.end(end)

    def close(self) -> None:
        """Send what is left, and stop."""
        self._provider.shutdown()


def open_spans(endpoint: str | None) -> Spans | None:
    """Return spans that are sent to a collector, by OTLP over HTTP; None without one.

    Raises:
        StartupError: the packages are not installed.
    """
    if endpoint is None:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise StartupError(f"VIREID_OTLP_ENDPOINT needs vireid[tracing]: {error.name} is not installed") from None
    return Spans(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
