"""Encryption at rest: what is encrypted is in no file, and without the right keys the server does not start."""

from __future__ import annotations

import base64
import io
import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import func, select

from server.domain.types import Filter, Gallery, NewItem, VectorType
from server.gallery.live_gallery import LiveGallery
from server.gallery.snapshots import Snapshot
from server.index.exact import ExactIndex
from server.jobs.imports import handler
from server.jobs.upload import Upload, start_upload
from server.storage import encryption_keys, tables
from server.storage.encryption import Encryption, FileCipher, KeysRejected, NotDecrypted, read_keys
from server.storage.sql_store import SqlStore
from server.storage.startup_errors import DatabaseDamaged
from server.storage.transactions import reading
from tests.server.calls import add
from tests.server.conftest import KEYS, Start
from tests.server.gallery.builders import DIMENSION, FINGERPRINT, START, new_items, unit_vectors
from tests.server.image_files import crop
from tests.server.jobs import uploads

OLD, NEW, OTHER = (bytes([number]) * 32 for number in range(3))
GALLERY = Gallery("g", "m", FINGERPRINT, DIMENSION, START, 0, vector_type=VectorType.FLOAT32)
ITEMS = new_items(40)


def everything_under(folder: Path) -> bytes:
    return b"\0".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def secrets_of(items: list[NewItem]) -> list[bytes]:
    return [new.vector.tobytes() for new in items] + [new.thumbnail for new in items if new.thumbnail]


def opened(url: str, keys: Mapping[str, bytes]) -> SqlStore:
    """Open a store and wait until all data is encrypted with its key."""
    store = SqlStore(url, Encryption(keys))
    store.check()
    assert store._background is not None
    store._background.join()
    return store


def contents(store: SqlStore) -> list[tuple[str, bytes, bytes | None]]:
    with store.dump("g") as (_, items):
        return [(new.item.id, new.vector.tobytes(), new.thumbnail) for new in items]


@pytest.fixture
def filled(url: str) -> str:
    """URL of a store with items that are encrypted with the old key."""
    with closing(opened(url, {"old": OLD})) as store:
        store.create_gallery(GALLERY)
        store.put("g", ITEMS)
    return url


def stored_keys(store: SqlStore) -> set[str | None]:
    with reading(store.engine) as connection:
        vectors = connection.scalars(select(tables.vectors.c.vector_key).distinct())
        images = connection.scalars(select(tables.thumbnails.c.image_key).distinct())
        return {*vectors, *images}


def test_no_file_of_the_store_holds_a_vector_or_a_thumbnail(filled: str, tmp_path: Path) -> None:
    held = everything_under(tmp_path)
    assert not [secret for secret in secrets_of(ITEMS) if secret in held]
    assert b"item-000" in held, "metadata is readable"
    with closing(opened(filled, {"old": OLD})) as store:
        expected = [(new.item.id, new.vector.tobytes(), new.thumbnail) for new in ITEMS]
        assert contents(store) == expected
        assert stored_keys(store) == {"old"}
        assert store.vector("g", "item-004")[1].tobytes() == ITEMS[4].vector.tobytes()
        assert store.thumbnail("g", "item-004") == ITEMS[4].thumbnail


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "the key old, which is missing"),
        ({"new": NEW}, "which is missing"),
        ({"old": OTHER}, "is not the key"),
    ],
)
def test_a_missing_or_wrong_key_prevents_the_start_and_changes_nothing(
    filled: str, tmp_path: Path, keys: Mapping[str, bytes], message: str
) -> None:
    before = everything_under(tmp_path)
    with pytest.raises(KeysRejected, match=message):
        SqlStore(filled, Encryption(keys))
    assert everything_under(tmp_path) == before


def test_a_new_key_replaces_the_old_one_in_every_record(filled: str, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "data" / "vireid.db") as connection:
        old = [blob for (blob,) in connection.execute("SELECT vector FROM vectors UNION SELECT image FROM thumbnails")]
    connection.close()
    with closing(opened(filled, {"new": NEW, "old": OLD})) as store:
        assert stored_keys(store) == {"new"}
    with closing(opened(filled, {"new": NEW})) as store:
        assert contents(store) == [(new.item.id, new.vector.tobytes(), new.thumbnail) for new in ITEMS]
    held = everything_under(tmp_path)
    assert not [blob for blob in old if blob in held]
    with pytest.raises(KeysRejected):
        SqlStore(filled, Encryption({"old": OLD}))


def test_an_interrupted_replacement_continues_at_the_next_start(filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encryption_keys, "_BATCH", 7)
    with closing(SqlStore(filled, Encryption({"new": NEW, "old": OLD}))) as store:
        store._closing.set()
        encryption_keys.reencrypt(store.engine, store._closing)
        assert stored_keys(store) == {"new", "old"}
        assert len(contents(store)) == len(ITEMS)
    with pytest.raises(KeysRejected):
        SqlStore(filled, Encryption({"new": NEW}))
    with closing(opened(filled, {"new": NEW, "old": OLD})) as store:
        assert stored_keys(store) == {"new"}


def test_data_of_a_server_without_keys_is_encrypted_when_there_is_one(url: str, tmp_path: Path) -> None:
    with closing(opened(url, {})) as store:
        store.create_gallery(GALLERY)
        store.put("g", ITEMS)
    assert ITEMS[0].vector.tobytes() in everything_under(tmp_path)
    with closing(opened(url, {"new": NEW})) as store:
        assert stored_keys(store) == {"new"}
        assert len(contents(store)) == len(ITEMS)
    held = everything_under(tmp_path)
    assert not [secret for secret in secrets_of(ITEMS) if secret in held]


def test_a_record_that_was_moved_to_another_row_is_damage(filled: str, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "data" / "vireid.db") as connection:
        (blob, checksum) = connection.execute("SELECT vector, crc32 FROM vectors WHERE row = 1").fetchone()
        connection.execute("UPDATE vectors SET vector = ?, crc32 = ? WHERE row = 2", (blob, checksum))
    connection.close()
    with closing(SqlStore(filled, Encryption({"old": OLD}))) as store:
        with pytest.raises(DatabaseDamaged), store.load("g") as loaded:
            list(loaded.chunks)
        with pytest.raises(DatabaseDamaged):
            store.vector("g", ITEMS[1].item.id)


def test_no_file_of_a_server_holds_vectors_crops_or_thumbnails(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []
    plain = handler.stored_upload

    def look(folder: Path, encryption: Encryption) -> Upload:
        seen.append(everything_under(tmp_path / "data"))
        return plain(folder, encryption)

    monkeypatch.setattr(handler, "stored_upload", look)
    rows = uploads.vector_rows(30)
    crops = {f"{number}.png": crop(number) for number in range(3)}
    with start(encryption_keys=KEYS) as client:
        galleries = client.app.state.service.galleries  # type: ignore[attr-defined]
        client.post("/v1/galleries", json={"name": "g"})
        assert add(client, "g", [crop(9)], [{"id": "a", "modality": "visible"}]).status_code == 201
        assert client.post("/v1/galleries/g/vectors", json={"items": rows[:5]}).status_code == 201
        bodies = {"x-ndjson": uploads.ndjson(rows), "gzip": uploads.targz(crops), "zip": uploads.zipped(crops)}
        for kind, body in bodies.items():
            headers = {"content-type": f"application/{kind}"}
            job = client.post("/v1/galleries/g/imports", content=body, headers=headers, params={"modality": "visible"})
            assert '"succeeded"' in client.get(f"{job.headers['location']}/events").text
        vectors = [galleries.query.vector("g", row["id"])[1].tobytes() for row in rows]
        thumbnails = [client.get(f"/v1/galleries/g/items/{id}/image").content for id in ("a", "0.png", "1.png")]
        galleries.handles.snapshots.least = 1
        galleries.maintenance.write_outdated_snapshots()
        snapshots = list((tmp_path / "data" / "index").rglob("vectors-*"))
        everything = b"\0".join([*seen, everything_under(tmp_path / "data")])
    assert len(seen) == 3
    assert snapshots
    secrets = [*vectors, *thumbnails, *crops.values(), str(rows[7]["vector"][3]).encode()]
    assert all(secrets)
    assert not [secret for secret in secrets if secret in everything]
    with start(encryption_keys=KEYS) as client:
        found = client.post("/v1/galleries/g/search", json={"item_id": rows[0]["id"]}).json()
        assert found["searched"] == len(rows) + len(crops)


def test_a_snapshot_under_another_key_or_none_is_removed(tmp_path: Path) -> None:
    folder, gallery = tmp_path / "s", GALLERY
    for keys in ({}, {"old": OLD}):
        live = LiveGallery(ExactIndex(DIMENSION, VectorType.FLOAT32))
        vectors = unit_vectors(20)
        live.put([new.item for new in new_items(20)], np.arange(20), vectors, 1)
        Snapshot(folder, gallery, Encryption(keys)).write(live.view)
        build = lambda: ExactIndex(DIMENSION, VectorType.FLOAT32)  # noqa: E731
        back = Snapshot(folder, gallery, Encryption(keys)).read(build, lambda _rows: None)
        assert back is not None
        assert back.view().index.vectors(np.arange(20)).tobytes() == vectors.tobytes()
        assert (vectors[3].tobytes() in everything_under(folder)) == (not keys)
        assert Snapshot(folder, gallery, Encryption({"new": NEW})).read(build, lambda _rows: None) is None
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize("keys", [None, {"k": OLD}])
def test_an_upload_is_read_at_any_place(tmp_path: Path, keys: Mapping[str, bytes] | None) -> None:
    content, path, encryption = os.urandom(300_001), tmp_path / "body", Encryption(keys)
    with path.open("wb") as file:
        write = start_upload(file, encryption)
        for start in range(0, len(content), 70_001):
            write(content[start : start + 70_001])
    assert (content[:64] in path.read_bytes()) == (keys is None)
    upload = Upload.at(path, encryption)
    assert upload.size == len(content)
    with upload.open() as file:
        assert file.read() == content
        for place in (0, 1, 15, 16, 17, 131_071, 299_999):
            assert file.seek(place) == place
            assert file.read(40) == content[place : place + 40]
            assert file.tell() == min(place + 40, len(content))
        assert file.seek(-8, io.SEEK_END) == len(content) - 8
        assert file.read() == content[-8:]
    if keys:
        with pytest.raises(NotDecrypted):
            Upload.at(path, Encryption({"other": OTHER}))


def test_equal_records_and_files_are_encrypted_differently() -> None:
    encryption = Encryption({"k": OLD})
    assert len({encryption.seal(b"same", "items:1") for _ in range(100)}) == 100
    assert len({encryption.new_salt() for _ in range(100)}) == 100
    for place, sealed in (("items:2", encryption.seal(b"x", "items:1")), ("items:1", b""), ("items:1", b"x" * 40)):
        with pytest.raises(NotDecrypted):
            encryption.open("k", sealed, place)
    one, other = (bytearray(32) for _ in range(2))
    FileCipher(OLD).apply_into(memoryview(one))
    FileCipher(NEW).apply_into(memoryview(other))
    assert one != other != bytearray(32)


@pytest.mark.parametrize(
    "text", ["", "\n", "nokey", "id:short", f"{'x' * 17}:{'A' * 43}=", "id:" + "A" * 44, f"a:{'A' * 43}= a:{'A' * 43}="]
)
def test_malformed_keys_are_refused_without_showing_them(text: str) -> None:
    with pytest.raises(KeysRejected) as caught:
        read_keys(text)
    assert "AAA" not in str(caught.value)


def test_keys_come_from_a_file_or_a_variable(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"k2:{base64.b64encode(NEW).decode()}\n{KEYS}\n")
    with start(encryption_key_file=file) as client:
        assert client.app.state.service.encryption.key == "k2"  # type: ignore[attr-defined]
    with pytest.raises(KeysRejected, match="the key k2, which is missing"), start(encryption_keys=KEYS):
        pass
    with pytest.raises(KeysRejected, match="cannot be read"), start(encryption_key_file=tmp_path / "missing"):
        pass
    with pytest.raises(ValueError, match="not both"):
        start(encryption_keys=KEYS, encryption_key_file=file)


def test_filters_and_counts_need_no_key(filled: str) -> None:
    with closing(opened(filled, {"old": OLD})) as store:
        assert len(store.items("g", Filter(), limit=100)) == len(ITEMS)
        with reading(store.engine) as connection:
            assert connection.scalar(select(func.count()).select_from(tables.vectors)) == len(ITEMS)
