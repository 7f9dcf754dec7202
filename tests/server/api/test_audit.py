"""The audit log over HTTP: hash chain, case references, searches that must be recorded."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import pytest
from fastapi.testclient import TestClient

from models.card import Modality
from server.domain.errors import StorageFull
from server.gallery.maintenance import _expire
from server.storage.startup_errors import DatabaseDamaged
from server.storage.transactions import reading
from tests.server.calls import add_people, check_problem, search
from tests.server.conftest import Start
from tests.server.image_files import crop


def _newest(client: TestClient, action: str) -> dict[str, Any]:
    entries: list[dict[str, Any]] = client.get("/v1/audit").json()["entries"]
    return next(entry for entry in entries if entry["action"] == action)


def test_a_search_is_recorded_with_its_case_and_hits(client: TestClient, gallery: str) -> None:
    add_people(client, gallery, [1, 2], Modality.INFRARED)
    headers = {"X-Case-Reference": "2026/17 \u00e9".encode(), "X-Reason": b"missing person"}
    client.headers.update(headers)  # type: ignore[arg-type]
    try:
        answer = search(client, gallery, [crop(1)], k=2).json()
    finally:
        for name in headers:
            del client.headers[name]
    entry = _newest(client, "search")
    assert (entry["case_reference"], entry["reason"]) == ("2026/17 \u00e9", "missing person")
    expected = [[hit["item"]["id"], round(hit["score"], 6)] for hit in answer["hits"]]
    assert entry["detail"]["found"] == expected
    assert len(expected) == 2


def test_the_chain_is_verified(client: TestClient, gallery: str) -> None:
    search(client, gallery, [crop(1)])
    first = client.get("/v1/audit/verify").json()
    assert (first["valid"], first["problem"]) == (True, None)
    noted = {"number": first["last"], "digest": first["digest"]}
    search(client, gallery, [crop(1)])
    second = client.get("/v1/audit/verify", params=noted).json()
    assert (second["valid"], second["last"]) == (True, first["last"] + 1)
    other = client.get("/v1/audit/verify", params={**noted, "digest": "0" * 64}).json()
    assert other["problem"] == f"entry {first['last']} has another digest"
    for params in ({"number": 1}, {"digest": "0" * 64}, {"number": 1, "digest": "x"}, {"number": 2**63}):
        check_problem(client.get("/v1/audit/verify", params=params), 422, "invalid-request")


def test_searches_are_refused_if_they_cannot_be_recorded(
    client: TestClient, gallery: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object) -> None:
        raise StorageFull

    add_people(client, gallery, [1], Modality.INFRARED)
    monkeypatch.setattr("server.storage.audit_log._append", full)
    check_problem(search(client, gallery, [crop(1)]), 503, "not-ready")
    check_problem(client.post(f"/v1/galleries/{gallery}/search", json={"item_id": "p1"}), 503, "not-ready")
    body = {"searches": [{"item_id": "p1"}]}
    check_problem(client.post(f"/v1/galleries/{gallery}/searches", json=body), 503, "not-ready")


def test_a_case_reference_can_be_made_compulsory(start: Start) -> None:
    with start(audit_case_required=True) as client:
        client.post("/v1/galleries", json={"name": "g"})
        add_people(client, "g", [1], Modality.INFRARED)
        for path, body in (("search", {"item_id": "p1"}), ("searches", {"searches": [{"item_id": "p1"}]})):
            address = f"/v1/galleries/g/{path}"
            problem = check_problem(client.post(address, json=body), 422, "invalid-request")
            assert problem["errors"][0]["field"] == "X-Case-Reference"
            assert client.post(address, json=body, headers={"X-Case-Reference": "C-1"}).status_code == 200


@pytest.mark.parametrize("value", [b"x" * 257, b"a\x01b", "a\u2028b".encode()])
def test_invalid_case_references_are_rejected(client: TestClient, value: bytes) -> None:
    for name in ("X-Case-Reference", "X-Reason"):
        answer = client.get("/v1/limits", headers={name: value})  # type: ignore[dict-item]
        assert check_problem(answer, 422, "invalid-request")["errors"][0]["field"] == name


def test_entries_hold_no_vector(client: TestClient, gallery: str) -> None:
    add_people(client, gallery, [1], Modality.INFRARED)
    details = client.get(f"/v1/galleries/{gallery}").json()
    vector = [1.0] + [0.0] * (details["dimension"] - 1)
    body = {"vector": vector, "modality": "visible", "fingerprint": details["fingerprint"]}
    assert client.post(f"/v1/galleries/{gallery}/search", json=body).status_code == 200
    detail = _newest(client, "search")["detail"]
    assert len(detail["vector_sha256"]) == 64
    assert len(json.dumps(detail)) < 500


def test_retention_deletes_nothing_after_a_jump_of_the_clock(start: Start) -> None:
    with start() as client:
        client.post("/v1/galleries", json={"name": "g", "retention_days": 30})
        add_people(client, "g", [1], Modality.INFRARED)
        assert client.get("/v1/retention").json() == {"stopped": False, "reason": None}
        state = client.app.state.service  # type: ignore[attr-defined]
        later = datetime.now(UTC) + timedelta(days=60)
        state.clock._now = lambda: later
        assert client.get("/v1/retention").json()["stopped"] is True
        assert client.post("/v1/retention/confirm").json() == {"stopped": False, "reason": None}
        assert _newest(client, "clock.confirmed")["key_id"] is None


def test_a_server_started_with_its_clock_ahead_erases_nothing(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    with start() as client:
        client.post("/v1/galleries", json={"name": "g", "retention_days": 30})
        add_people(client, "g", [1], Modality.INFRARED)

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(days=60)

    monkeypatch.setattr("server.gallery.maintenance.datetime", Ahead)
    monkeypatch.setattr("server.gallery.retention_clock.datetime", Ahead)
    with start() as client:
        state = client.app.state.service  # type: ignore[attr-defined]
        _expire(state.galleries.erasure, state.audit, None, state.clock)
        assert client.get("/v1/galleries/g").json()["items"] == 1
        client.post("/v1/retention/confirm")
        _expire(state.galleries.erasure, state.audit, None, state.clock)
        assert client.get("/v1/galleries/g").json()["items"] == 0


def test_a_damaged_page_or_a_full_disk_makes_the_server_not_ready(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start() as client:
        assert client.get("/readyz").status_code == 200
        monkeypatch.setattr("server.storage.health._LEAST_FREE_BYTES", 2**62)
        problem = check_problem(client.get("/readyz"), 503, "not-ready")
        assert problem["facts"]["reasons"] == ["the disk of the data directory is full"]
        monkeypatch.undo()
        assert client.get("/readyz").status_code == 200
        engine = client.app.state.service.audit._engine  # type: ignore[attr-defined]
        broken = sqlite3.DatabaseError("malformed")
        broken.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        with pytest.raises(DatabaseDamaged), reading(engine):
            raise broken
        problem = check_problem(client.get("/readyz"), 503, "not-ready")
        assert problem["facts"]["reasons"] == ["the database is damaged; restore a backup"]
