"""Spans of requests for OpenTelemetry: off without an endpoint, without personal data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from server.api.spans import Spans, open_spans
from tests.server.calls import add, search
from tests.server.image_files import crop

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def exported(client: TestClient) -> Iterator[InMemorySpanExporter]:
    exporter, state = InMemorySpanExporter(), client.app.state  # type: ignore[attr-defined]
    service = state.service
    state.service = replace(service, spans=Spans(SimpleSpanProcessor(exporter)))
    yield exporter
    state.service = service


def test_no_endpoint_means_no_spans(client: TestClient) -> None:
    assert open_spans(None) is None
    assert client.app.state.service.spans is None  # type: ignore[attr-defined]


def test_a_search_is_a_span_of_the_callers_trace_with_its_stages(
    client: TestClient, gallery: str, exported: InMemorySpanExporter
) -> None:
    add(client, gallery, [crop(1)], [{"id": "a", "modality": "visible"}])
    client.headers["traceparent"] = f"00-{TRACE}-{PARENT}-01"
    try:
        assert search(client, gallery, [crop(1)], "visible").status_code == 200
    finally:
        del client.headers["traceparent"]
    span = exported.get_finished_spans()[-1]
    attributes = dict(span.attributes or {})
    assert span.name == "POST /v1/galleries/{gallery}/search"
    assert (attributes["http.response.status_code"], attributes["vireid.embed_ms"] > 0) == (200, True)  # type: ignore[operator]
    assert span.parent is not None
    assert (f"{span.parent.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)
    assert span.end_time is not None
    assert span.start_time is not None
    assert span.end_time > span.start_time
    assert gallery not in str(attributes)


def test_a_refused_request_is_not_an_error_of_the_server(client: TestClient, exported: InMemorySpanExporter) -> None:
    client.get("/v1/galleries/nowhere")
    (span,) = exported.get_finished_spans()
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes or {})["http.response.status_code"] == 404
