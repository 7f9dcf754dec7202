"""Summary of a gallery and of the items that pass a filter."""

from __future__ import annotations

from fastapi.testclient import TestClient

from models.card import Modality
from tests.server.calls import add_people, check_problem


def test_summary_counts_items_by_modality_and_camera(client: TestClient, gallery: str) -> None:
    path = f"/v1/galleries/{gallery}/summary"
    empty = client.get(path).json()
    assert (empty["items"], empty["cameras"], empty["identities"], empty["captured_last"]) == (0, {}, 0, None)
    add_people(client, gallery, [1, 2], Modality.VISIBLE, camera="c2", captured_at="2026-11-21T08:00:00Z")
    add_people(client, gallery, [3], Modality.INFRARED, camera="c1", captured_at="2026-11-21T09:30:00Z")
    add_people(client, gallery, [4], Modality.INFRARED)
    client.patch(f"/v1/galleries/{gallery}/items/p4", json={"identity": None})
    assert client.get(path).json() == {
        "items": 4,
        "modalities": {"visible": 2, "infrared": 2},
        "cameras": {"c1": 1, "c2": 2},
        "identities": 3,
        "unlabelled": 1,
        "captured_first": "2026-11-21T08:00:00Z",
        "captured_last": "2026-11-21T09:30:00Z",
    }


def test_summary_counts_what_a_deletion_by_the_same_filter_removes(client: TestClient, gallery: str) -> None:
    add_people(client, gallery, [1, 2, 3], Modality.INFRARED)
    options = {"params": {"identities": ["p1", "p2"]}}
    assert client.get(f"/v1/galleries/{gallery}/summary", **options).json()["items"] == 2
    assert client.delete(f"/v1/galleries/{gallery}/items", **options).json()["deleted"] == 2
    assert client.get(f"/v1/galleries/{gallery}/summary", **options).json()["items"] == 0


def test_summary_of_an_unknown_gallery_is_refused(client: TestClient) -> None:
    check_problem(client.get("/v1/galleries/absent/summary"), 404, "gallery-not-found")
