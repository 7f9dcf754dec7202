"""Requests as HTTP clients send them: unusual forms, compressed bodies and unescaped times."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest
from fastapi.testclient import TestClient

from tests.server.calls import add, check_problem
from tests.server.image_files import crop

FORM = "multipart/form-data; boundary=x"
JSON = "application/json"


def form(*parts: tuple[bytes, bytes]) -> bytes:
    """Return a form of parts, each a header and a content."""
    return b"".join(b"--x\r\n" + header + b"\r\n\r\n" + content + b"\r\n" for header, content in parts) + b"--x--\r\n"


def disposition(parameters: bytes, *others: bytes) -> bytes:
    return b"\r\n".join([b"Content-Disposition: form-data; " + parameters, *others])


@pytest.mark.parametrize(
    "header",
    [
        disposition(b'name="images"', b"Content-Type: image/png"),
        disposition(b"name=\"images\"; filename*=UTF-8''a.png", b"Content-Type: image/png"),
        disposition(b"name=\"images\"; filename*=UTF-8''%e2%82%ac.png"),
        disposition(b'name="images"', b"Content-Type: application/octet-stream"),
        disposition(b'name="images"'),
        disposition(b'name="images"; filename=""'),
        disposition(b"name=images; filename=a.png"),
        disposition('name="images"; filename="caf\xe9.png"'.encode("latin-1")),
        disposition('name="images"; filename="café.png"'.encode()),
        b'content-disposition: form-data; NAME="images"; FILENAME="a.png"\r\ncontent-type: image/png',
        disposition(b'name="images"; filename="C:\\\\crops\\\\a.png"'),
        disposition(b'name="images"; filename="a.png"', b"Content-Transfer-Encoding: binary"),
    ],
    ids=lambda header: ascii(header.partition(b"; ")[2]),
)
def test_image_parts_are_accepted_as_clients_send_them(client: TestClient, header: bytes) -> None:
    answer = client.post("/v1/embeddings", content=form((header, crop(1))), headers={"Content-Type": FORM})
    assert answer.status_code == 200, answer.text


def test_text_sent_as_an_image_is_refused_by_name(client: TestClient) -> None:
    body = form((disposition(b'name="images"'), b"iVBORw0KGgo="))
    answer = client.post("/v1/embeddings", content=body, headers={"Content-Type": FORM})
    assert "must be a file" in check_problem(answer, 422, "invalid-request")["detail"]


@pytest.mark.parametrize(
    ("content_type", "body", "cause"),
    [
        ("multipart/form-data", form(), "boundary; let the HTTP client set the header"),
        ('multipart/form-data; boundary=""', form(), "has no boundary"),
        ("multipart/form-data; boundary=other", form(), "boundary"),
        (FORM, b"", "its last boundary is missing"),
        (FORM, form((disposition(b'name="images"; filename="a"'), crop(1)))[:-9], "its last boundary is missing"),
        (FORM, b"--x\nContent-Disposition: form-data; name=a\n\nb\n--x--\n", "on a line of its own"),
        (FORM, form((b"Content-Type: text/plain", b"a")), "no Content-Disposition: form-data header"),
        (FORM, form((b"no header", b"a")), "malformed headers"),
        (FORM, form((disposition(b"name=a", b"Content-Length: 9"), b"a")), "Content-Length that is not its length"),
        (FORM, form((disposition(b"name=a; b=" + b"c" * 5000), b"a")), "too many or too long headers"),
        (FORM, form((disposition(b'name="modality"'), b"\xff")), "field modality is not UTF-8 text"),
    ],
)
def test_malformed_form_is_refused_with_its_cause(
    client: TestClient, content_type: str, body: bytes, cause: str
) -> None:
    answer = client.post("/v1/embeddings", content=body, headers={"Content-Type": content_type})
    assert cause in check_problem(answer, 400, "malformed")["detail"]


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("deflate", zlib.compress),
        ("identity", bytes),
        ("gzip", lambda data: gzip.compress(data[:5]) + gzip.compress(data[5:])),
    ],
)
def test_compressed_bodies_are_decoded(client: TestClient, gallery: str, encoding: str, compress: object) -> None:
    body = compress(json.dumps({"name": f"{gallery}-2"}).encode())  # type: ignore[operator]
    answer = client.post("/v1/galleries", content=body, headers={"Content-Type": JSON, "Content-Encoding": encoding})
    assert answer.status_code == 201, answer.text
    client.delete(f"/v1/galleries/{gallery}-2")
    image = form((disposition(b'name="images"; filename="a"'), crop(1)))
    answer = client.post(
        "/v1/embeddings",
        content=compress(image),
        headers={"Content-Type": FORM, "Content-Encoding": encoding},  # type: ignore[operator]
    )
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip"])
def test_unsupported_encoding_is_refused_by_name(client: TestClient, encoding: str) -> None:
    answer = client.post("/v1/galleries", content=b"x", headers={"Content-Type": JSON, "Content-Encoding": encoding})
    assert encoding in check_problem(answer, 415, "content-encoding-unsupported")["detail"]
    assert answer.headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (b'{"name": "g"}', "not valid gzip"),
        (gzip.compress(b'{"name": "g"}')[:-4], "incomplete"),
        (b"", "incomplete"),
        (gzip.compress(b'{"name": "g"}') + b"rubbish", "not valid gzip"),
    ],
    ids=["not gzip", "cut off", "empty", "trailing bytes"],
)
def test_damaged_compression_is_refused_with_its_cause(client: TestClient, body: bytes, cause: str) -> None:
    answer = client.post("/v1/galleries", content=body, headers={"Content-Type": JSON, "Content-Encoding": "gzip"})
    assert cause in check_problem(answer, 400, "malformed")["detail"]


def test_limit_of_the_body_counts_decoded_bytes(client: TestClient) -> None:
    bomb = gzip.compress(bytes(200 << 20), 1)
    assert len(bomb) < 1 << 20
    answer = client.post("/v1/galleries", content=bomb, headers={"Content-Type": JSON, "Content-Encoding": "gzip"})
    check_problem(answer, 413, "body-too-large")


@pytest.mark.parametrize(
    "time",
    ["2026-11-20T22:00:00+02:00", "2026-11-20T22:00:00.5+02:00", "2026-11-20T22:00:00%2B02:00", "2026-11-20T22:00:00Z"],
)
def test_unescaped_plus_in_a_time_is_accepted(client: TestClient, gallery: str, time: str) -> None:
    item = {"id": "a", "modality": "auto", "captured_at": "2026-11-20T20:30:00Z"}
    add(client, gallery, [crop(1)], [item])
    url = f"/v1/galleries/{gallery}/items?captured_from={time}"
    found = client.get(url)
    assert found.status_code == 200, found.text
    assert len(found.json()["items"]) == (0 if time.endswith("Z") else 1)
    assert client.get(f"/v1/galleries/{gallery}/items?captured_from=2026-11-20+22:00").status_code == 422
