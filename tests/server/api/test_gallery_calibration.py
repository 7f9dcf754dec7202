"""Calibration of a gallery on its own items, over HTTP."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from tests.server.stub_model import DIMENSION


def add(client: TestClient, gallery: str, items: list[dict[str, Any]], seed: int = 0) -> None:
    vectors = np.random.default_rng(seed).normal(size=(len(items), DIMENSION))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    entries = [{**item, "vector": vector.tolist()} for item, vector in zip(items, vectors, strict=True)]
    answer = client.post(f"/v1/galleries/{gallery}/vectors", json={"items": entries})
    assert answer.status_code == 201, answer.text


def labelled(count: int, modality: str) -> list[dict[str, Any]]:
    return [
        {"id": f"{modality}-{n}", "modality": modality, "identity": f"p{n // 2}", "camera": f"c{n % 2}"}
        for n in range(count)
    ]


def calibrate(client: TestClient, gallery: str, **body: Any) -> dict[str, Any]:
    answer = client.post(f"/v1/galleries/{gallery}/calibrations", json=body)
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"].startswith("/v1/jobs/")
    deadline = time.monotonic() + 60
    while (job := client.get(answer.headers["Location"]).json())["state"] in ("queued", "running"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    found: dict[str, Any] = job
    return found


def listed(client: TestClient, gallery: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"/v1/galleries/{gallery}/calibrations").json()["calibrations"]
    return found


def by_item(client: TestClient, gallery: str, item: str, **query: Any) -> Any:
    return client.post(f"/v1/galleries/{gallery}/search", json={"item_id": item, "query": query}).json()


def test_searches_use_the_newest_calibration_of_the_gallery(client: TestClient, gallery: str) -> None:
    add(client, gallery, labelled(40, "visible") + labelled(40, "infrared"))
    assert by_item(client, gallery, "visible-0")["calibration"]["source"] == "model"
    for version in (1, 2):
        assert calibrate(client, gallery)["state"] == "succeeded"
        used = by_item(client, gallery, "visible-0", filter={"modality": "infrared"})["calibration"]
        assert (used["source"], used["version"], used["real"]) == ("gallery", version, True)
        assert (used["identities"], used["impostor_pairs"], used["interval"]) == (20, 40 * 38, 0.95)
    found = listed(client, gallery)
    assert [(one["version"], one["used"]) for one in found] == [(2, True)] * 4 + [(1, False)] * 4
    assert {one["impostor_pairs"] for one in found if one["query"] == one["gallery"]} == {40 * 38 // 2}
    actions = client.get("/v1/audit").json()["entries"]
    assert any(entry["action"] == "job.create" and entry["detail"]["kind"] == "calibrate" for entry in actions)


def test_calibrations_are_deleted_with_their_gallery(client: TestClient, gallery: str) -> None:
    add(client, gallery, labelled(40, "visible"))
    calibrate(client, gallery)
    assert client.delete(f"/v1/galleries/{gallery}").status_code == 204
    assert client.post("/v1/galleries", json={"name": gallery}).status_code == 201
    add(client, gallery, labelled(4, "visible"))
    assert listed(client, gallery) == []
    assert by_item(client, gallery, "visible-0")["calibration"]["source"] == "model"


def test_items_of_disjoint_cameras_need_no_labels(client: TestClient, gallery: str) -> None:
    items = [{"id": f"i{n}", "modality": "infrared", "camera": f"c{n % 3}"} for n in range(30)]
    add(client, gallery, items)
    assert calibrate(client, gallery)["state"] == "failed"
    assert calibrate(client, gallery, disjoint_cameras=[["c0", "c1"]])["state"] == "succeeded"
    (one,) = listed(client, gallery)
    assert (one["method"], one["impostor_pairs"], one["identities"]) == ("disjoint cameras", 100, None)
    assert one["smallest_rate"] == 0.01


def test_simultaneous_items_of_one_camera_need_no_labels(client: TestClient, gallery: str) -> None:
    def times(modality: str) -> list[dict[str, Any]]:
        return [
            {
                "id": f"{modality}{n}",
                "modality": modality,
                "camera": f"c{n % 2}",
                "captured_at": f"2026-11-21T08:30:{n // 6:02d}Z",
            }
            for n in range(60)
        ]

    add(client, gallery, times("visible") + times("infrared"))
    assert calibrate(client, gallery, simultaneous=True)["state"] == "succeeded"
    found = listed(client, gallery)  # no pairs across modalities: two sensors of a camera see the same person
    assert {(one["query"], one["gallery"]) for one in found} == {("visible",) * 2, ("infrared",) * 2}
    assert {one["impostor_pairs"] for one in found} == {10 * 2 * 3}


def test_drawings_are_never_calibrated_on(client: TestClient, gallery: str) -> None:
    add(client, gallery, [{**item, "attributes": {"source": "drawn"}} for item in labelled(40, "visible")])
    job = calibrate(client, gallery)
    assert job["state"] == "failed"
    assert "known to be of different people" in job["error"]


@pytest.mark.parametrize("body", [{"disjoint_cameras": [["c1"]]}, {"simultaneous": "maybe"}, {"cameras": []}])
def test_invalid_rules_are_refused(client: TestClient, gallery: str, body: dict[str, Any]) -> None:
    assert client.post(f"/v1/galleries/{gallery}/calibrations", json=body).status_code == 422
