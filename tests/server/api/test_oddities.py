"""An import of an archive with every known oddity: no crop is lost, and every ignored entry is reported."""

from __future__ import annotations

import io
import zipfile

from fastapi.testclient import TestClient

from models.crop_files import apart_id, id_of, relative_path
from tests.server.api.test_imports import ZIP, run
from tests.server.jobs.oddities import CROPS, FAILURES, IGNORED, oddity_archive


def test_every_member_of_an_odd_archive_is_stored_or_named(client: TestClient, gallery: str) -> None:
    body, images = oddity_archive()
    options = {"on_conflict": "keep", "timezone": "Europe/Berlin"}
    job = run(client, gallery, body, ZIP, **options)
    failures = client.get(f"/v1/jobs/{job['id']}/failures").json()["failures"]
    assert {failure["name"]: failure["error"]["detail"] for failure in failures} == FAILURES
    ignored = {one["reason"]: one["count"] for one in job["ignored_by_reason"]}
    assert ignored == {reason: len(names) for reason, names in IGNORED.items()}
    assert (job["state"], job["done"], job["skipped"]) == ("succeeded", len(CROPS) + len(images), 0)
    items = {item["id"]: item for item in client.get(f"/v1/galleries/{gallery}/items?limit=100").json()["items"]}
    for path, (identity, moment) in CROPS.items():
        item = items.pop(id_of(path))
        assert (item["identity"], item["captured_at"]) == (identity, moment), path
    *others, first, second = [id_of(relative_path(path)) for path in images]
    assert first == second
    assert len(items) == len(images)
    kept = items.keys() - {*others, first}
    assert kept == {apart_id(first, items[next(iter(kept))]["content_sha256"])}
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        members = sum(not member.is_dir() for member in archive.infolist())
    columns, rows, manifests = 1, 1, 1
    assert members - manifests == job["done"] + job["failed"] - rows + job["ignored"] - columns
    again = run(client, gallery, body, ZIP, **options)
    assert (again["done"], again["skipped"]) == (0, job["done"])
