"""Errors of the server and of the web framework are problems."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import APIRouter
from fastapi.testclient import TestClient

import server.api.errors
from server.api.errors import PROBLEMS, problem_type_of
from server.domain.errors import ImageRejected, Overloaded, ServiceError
from tests.server.calls import check_problem, search
from tests.server.conftest import Start
from tests.server.image_files import crop


def subclasses(cls: type[ServiceError]) -> Iterator[type[ServiceError]]:
    for child in cls.__subclasses__():
        yield child
        yield from subclasses(child)


def test_every_error_has_its_own_problem_type() -> None:
    assert {cls for cls in subclasses(ServiceError) if cls.__module__.startswith("server.")} == PROBLEMS.keys()
    slugs = [kind.slug for kind in PROBLEMS.values()]
    assert len(set(slugs)) == len(slugs)


def test_subclass_uses_the_problem_type_of_its_parent() -> None:
    class Blurred(ImageRejected):
        pass

    assert problem_type_of(Blurred("too blurred")) is PROBLEMS[ImageRejected]


def test_framework_errors_with_a_type_of_the_server_have_the_same_meaning() -> None:
    ours = {kind.slug: kind.status for kind in PROBLEMS.values()}
    for status, (slug, _, _) in server.api.errors.FRAMEWORK_PROBLEMS.items():
        assert ours.get(slug, status) == status


def test_errors_of_the_framework_are_problems(client: TestClient, gallery: str) -> None:
    url = f"/v1/galleries/{gallery}"
    check_problem(client.get("/nothing/here"), 404, "not-found")
    check_problem(client.get("/v1/nothing"), 404, "not-found")
    check_problem(client.get("/redoc"), 404, "not-found")
    wrong_method = client.put(url)
    check_problem(wrong_method, 405, "method-not-allowed")
    assert wrong_method.headers["allow"]
    check_problem(client.get(url + "/items?limit=0"), 422, "invalid-request")
    check_problem(client.get("/v1/galleries/no%20spaces"), 422, "invalid-request")
    for path in ("/v1/galleries?limt=5", "/v1/keys?limt=5", "/v1/audit?limt=5"):
        check_problem(client.get(path), 422, "invalid-request")
    as_text = {"Content-Type": "text/plain"}
    for path in ("/search", "/items", "/vectors"):
        check_problem(client.post(url + path, content=b"x", headers=as_text), 415, "body-type-unsupported")
    check_problem(
        client.post("/v1/galleries", content=b"{", headers={"Content-Type": "application/json"}), 422, "invalid-request"
    )
    broken = {"Content-Type": "multipart/form-data"}
    check_problem(client.post(url + "/items", content=b"--x", headers=broken), 400, "malformed")
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    head = b'--x\r\nContent-Disposition: form-data; name="modality"\r\n\r\n'
    for body in (
        b"",
        b"--y\r\n",
        head,
        head + b"visible",
        head + b"\xff\r\n--x--",
        b"--x\r\nno header\r\n\r\n\r\n--x--",
    ):
        check_problem(client.post(url + "/items", content=body, headers=form), 400, "malformed")
    problem = check_problem(client.post(url + "/items", content=b"--x--", headers=form), 422, "invalid-request")
    assert {error["field"] for error in problem["errors"]} == {"images", "items"}
    text = b'--x\r\nContent-Disposition: form-data; name="images"\r\n\r\na\r\n--x--'
    problem = check_problem(client.post("/v1/embeddings", content=text, headers=form), 422, "invalid-request")
    assert [(error["field"], error["detail"]) for error in problem["errors"]] == [("images[0]", "must be a file")]


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_form_is_parsed_from_chunks_of_any_size(client: TestClient, size: int) -> None:
    form = {"Content-Type": 'multipart/form-data; boundary="a b"'}
    head = b'--a b\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n'
    body = (
        (head % (b"images", b'; filename=""'))
        + crop(1)
        + b"\r\n"
        + (head % (b"modality", b""))
        + b"infrared\r\n--a b--"
    )
    pieces = (body[start : start + size] for start in range(0, len(body), size))
    answer = client.post("/v1/embeddings", content=pieces, headers=form).json()
    assert [row["modality"] for row in answer["embeddings"]] == ["infrared"]


def test_missing_or_unknown_field_is_named(client: TestClient) -> None:
    problem = check_problem(client.post("/v1/galleries", json={"nmae": "g"}), 422, "invalid-request")
    assert {(error["field"], error["detail"]) for error in problem["errors"]} == {
        ("name", "is required"),
        ("nmae", "is not a known field"),
    }


@pytest.fixture
def small(start: Start) -> Iterator[TestClient]:
    with start(max_body_bytes=20_000) as client:
        yield client


def test_body_over_the_limit_is_413_with_or_without_content_length(small: TestClient) -> None:
    json = {"Content-Type": "application/json"}
    large = b'{"name": "' + b"g" * 20_000 + b'"}'
    check_problem(small.post("/v1/galleries", content=large, headers=json), 413, "body-too-large")
    chunks = iter([large[:15_000], large[15_000:]])
    check_problem(small.post("/v1/galleries", content=chunks, headers=json), 413, "body-too-large")
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    part = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
    endless = iter([part, *[b"0" * 5_000] * 10])
    check_problem(small.post("/v1/embeddings", content=endless, headers=form), 413, "body-too-large")
    assert small.get("/readyz").status_code == 200


def test_unexpected_error_is_a_500_with_only_its_request_id(start: Start, caplog: Any) -> None:
    router = APIRouter()

    @router.get("/boom")
    def boom() -> None:
        raise RuntimeError("secret of the house")

    with start() as client:
        client.app.include_router(router)  # type: ignore[attr-defined]
        answer = client.get("/boom", headers={"X-Request-Id": "trace-me"})
    problem = check_problem(answer, 500, "internal")
    assert "secret" not in answer.text
    assert problem["request_id"] == "trace-me"
    logged = next(record for record in caplog.records if record.exc_info)
    assert (logged.request_id, "secret of the house" in str(logged.exc_info[1])) == ("trace-me", True)


def test_unsafe_request_id_is_replaced(client: TestClient) -> None:
    for given in ("a" * 129, "a b", "<script>"):
        assert client.get("/healthz", headers={"X-Request-Id": given}).headers["x-request-id"] != given


def test_too_many_images_in_flight_are_answered_429_until_permits_are_released(start: Start) -> None:
    with start(max_in_flight=3, max_images=3) as client:
        client.post("/v1/galleries", json={"name": "g"})
        admission = client.app.state.service.admission  # type: ignore[attr-defined]
        with admission.admit([b"", b""]):
            for answer in (
                search(client, "g", [crop(1)] * 2),
                client.post("/v1/embeddings", files=[("images", crop(1))] * 2),
                client.post("/v1/compare", files=[("images", crop(1))] * 2),
            ):
                check_problem(answer, 429, "overloaded")
                assert int(answer.headers["retry-after"]) >= 1
            assert search(client, "g", [crop(1)]).status_code == 200
        assert admission.in_flight == 0
        assert search(client, "g", [crop(1)] * 3).status_code == 200
        search(client, "g", [b"bad"] * 3)
        assert admission.in_flight == 0


def test_retry_after_header_is_set() -> None:
    assert problem_type_of(Overloaded(7)).headers(Overloaded(7)) == {"Retry-After": "7"}
