"""Guarantees of the SQL store beyond the protocol: durability, erasure, refusal of damaged data."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, event, text

from server.domain.errors import GalleryNotFound, ItemNotFound, StorageFull
from server.domain.types import Filter
from server.gallery.galleries import Galleries
from server.index.exact import ExactIndex
from server.storage.sql_store import SqlStore
from server.storage.startup_errors import DatabaseDamaged, DatabaseMissing, DatabaseTooNew, DirectoryLocked
from server.storage.tables import metadata
from server.storage.transactions import WRITES, reading, writing
from tests.server.gallery.builders import new_item, new_items, unit_vectors
from tests.server.storage.test_store import contents, gallery


def _file(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def _filled(url: str, count: int = 40) -> SqlStore:
    store = SqlStore(url)
    store.create_gallery(gallery())
    store.put("g", new_items(count))
    return store


def _limit(store: SqlStore, pages: int) -> None:
    """SQLite itself reports a full disk from then on, at once and in the middle of a transaction."""

    def limited(connection: sqlite3.Connection, *_: Any) -> None:
        connection.execute(f"PRAGMA max_page_count={pages}")

    event.listen(store.engine, "checkout", limited)


def test_contents_survive_closing_and_opening(url: str) -> None:
    store = _filled(url)
    before = contents(store, "g")
    store.close()
    store = SqlStore(url)
    assert contents(store, "g") == before
    assert store.gallery("g").items == 40
    store.close()


def test_rows_are_never_reused(sql_store: SqlStore) -> None:
    sql_store.create_gallery(gallery())
    rows = []
    for _ in range(3):
        sql_store.put("g", new_items(1))
        with reading(sql_store.engine) as connection:
            rows.append(connection.execute(text("SELECT row FROM items")).scalar_one())
        sql_store.delete_items("g", Filter())
    assert rows == sorted(set(rows))


@pytest.mark.parametrize(
    ("pragma", "value"),
    [
        ("temp_store", 2),
        ("journal_mode", "wal"),
        ("synchronous", 2),
        ("foreign_keys", 1),
        ("secure_delete", 1),
        ("busy_timeout", 10000),
    ],
)
def test_every_connection_has_the_settings_that_durability_needs(
    sql_store: SqlStore, pragma: str, value: object
) -> None:
    with (
        reading(sql_store.engine) as one,
        reading(sql_store.engine) as two,
        writing(sql_store.engine) as three,
    ):
        assert [c.exec_driver_sql(f"PRAGMA {pragma}").scalar_one() for c in (one, two, three)] == [value] * 3


def test_a_reader_sees_a_consistent_snapshot_during_writes(sql_store: SqlStore) -> None:
    sql_store.create_gallery(gallery())
    sql_store.put("g", new_items(3))
    with sql_store.load("g") as loaded:
        sql_store.put("g", new_items(5))
        sql_store.delete_item("g", "item-000")
        assert (loaded.sequence, sum(len(chunk.items) for chunk in loaded.chunks)) == (1, 3)


@pytest.mark.parametrize(
    "erase",
    [
        lambda store: store.delete_item("g", "secret"),
        lambda store: store.delete_items("g", Filter(identities=frozenset({"Jane Doe"}))),
        lambda store: store.delete_gallery("g"),
    ],
)
def test_no_file_holds_deleted_data(url: str, erase: Callable[[SqlStore], object]) -> None:
    store = _filled(url)
    vector = unit_vectors(1, seed=99)[0]
    thumbnail = b"the image of a person " * 400
    store.put("g", [new_item("secret", vector, identity="Jane Doe", thumbnail=thumbnail)])
    traces = [vector.tobytes(), thumbnail[:48], b"Jane Doe"]

    def held() -> list[bool]:
        files = b"".join(path.read_bytes() for path in _file(url).parent.iterdir())
        return [trace in files for trace in traces]

    assert held() == [True, True, True]
    erase(store)
    assert held() == [False, False, False]
    store.close()


def test_an_interrupted_gallery_deletion_is_hidden_and_finished_at_the_next_start(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = _filled(url)
    store.create_gallery(gallery("other"))
    store.put("other", new_items(3))
    store.set_alias("latest", "g")

    def crash(self: SqlStore, number: int, step: int | None) -> None:
        raise OSError("crash")

    with monkeypatch.context() as patch:
        patch.setattr(SqlStore, "_empty", crash)
        with pytest.raises(OSError, match="crash"):
            store.delete_gallery("g")
        assert [one.name for one in store.galleries()] == list(store.sequence_numbers()) == ["other"]
        assert store.aliases() == {}
        for name in ("g", "~1"):
            with pytest.raises(GalleryNotFound):
                store.gallery(name)
        store.create_gallery(gallery())
        assert contents(store, "g") == (0, {})
        store.close()
    assert b"thumbnail 0 1" in _file(url).read_bytes()

    store = SqlStore(url)
    store.check()
    assert store._background is not None
    store._background.join()
    assert b"thumbnail 0 10" not in b"".join(path.read_bytes() for path in _file(url).parent.iterdir())
    with reading(store.engine) as connection:
        assert connection.execute(text("SELECT name FROM galleries ORDER BY name")).scalars().all() == ["g", "other"]
        assert connection.execute(text("SELECT count(*) FROM items")).scalar_one() == 3
    store.close()


def test_writes_continue_while_a_large_gallery_is_deleted(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.storage.sql_galleries._BATCH", 10)
    store = _filled(url, count=45)
    seen: list[int] = []

    def count(connection: Connection) -> None:
        if connection.get_execution_options().get(WRITES):
            seen.append(connection.execute(text("SELECT count(*) FROM items")).scalar_one())

    event.listen(store.engine, "commit", count)
    store.delete_gallery("g")
    assert seen == [45, 35, 25, 15, 5, 0]
    store.close()


def test_data_that_a_reader_kept_in_the_log_is_erased_by_the_next_write(url: str) -> None:
    store = _filled(url)
    store.put("g", [new_item("secret", unit_vectors(1)[0], identity="Jane Doe")])
    with reading(store.engine) as connection:
        connection.execute(text("SELECT count(*) FROM items")).scalar_one()
        store.delete_item("g", "secret")
    store.update_gallery("g", {"description": "anything"})
    assert not any(b"Jane Doe" in path.read_bytes() for path in _file(url).parent.iterdir())
    store.close()


def test_a_full_disk_is_reported_and_nothing_of_the_write_is_stored(url: str) -> None:
    store = _filled(url)
    before = contents(store, "g")
    with reading(store.engine) as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    _limit(store, pages + 2)
    big = [new_item(f"big-{n}", vector, thumbnail=bytes(30_000)) for n, vector in enumerate(unit_vectors(20))]
    with pytest.raises(StorageFull):
        store.put("g", big)
    assert contents(store, "g") == before
    assert store.gallery("g").items == 40
    store.close()

    store = SqlStore(url)  # there is room again
    store.put("g", big)
    assert len(contents(store, "g")[1]) == 60
    store.close()


def test_a_full_disk_leaves_searches_in_step_with_the_store(url: str) -> None:
    store = SqlStore(url)
    galleries = Galleries(store, ExactIndex)
    galleries.catalog.create("g", model="m", fingerprint="f", dimension=8)
    galleries.writer.put("g", new_items(10), fingerprint="f")
    _limit(store, 1)  # SQLite takes the present size instead of less
    big = [new_item(f"big-{n}", vector, thumbnail=bytes(30_000)) for n, vector in enumerate(unit_vectors(20))]
    with pytest.raises(StorageFull):
        galleries.writer.put("g", big, fingerprint="f")
    assert galleries.loader.progress() == {"g": (1, 1)}
    galleries.close()


def test_migrations_create_the_schema_of_tables(sql_store: SqlStore) -> None:
    with reading(sql_store.engine) as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_a_database_newer_than_the_program_is_refused_and_not_changed(url: str) -> None:
    _filled(url).close()
    with closing(sqlite3.connect(_file(url))) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    before = _file(url).read_bytes()
    with pytest.raises(DatabaseTooNew, match=r"version 9999.*up to 0006"):
        SqlStore(url)
    assert _file(url).read_bytes() == before


def test_a_second_store_over_the_same_directory_is_refused(url: str, sql_store: SqlStore) -> None:
    with pytest.raises(DirectoryLocked, match="in use by process"):
        SqlStore(url)
    with pytest.raises(DirectoryLocked):
        SqlStore(url.replace("vireid.db", "other.db"))


def test_a_refused_database_leaves_the_directory_free(url: str) -> None:
    _filled(url).close()
    sound = _file(url).read_bytes()
    _file(url).write_bytes(b"not a database" * 1000)
    with pytest.raises(DatabaseDamaged):
        SqlStore(url)
    _file(url).write_bytes(sound)
    SqlStore(url).close()


@pytest.mark.parametrize("part", ["header", "middle", "end cut off", "text file"])
def test_a_broken_database_file_is_refused_with_advice(url: str, part: str) -> None:
    _filled(url, count=900).close()
    data = bytearray(_file(url).read_bytes())
    page = 16384
    assert len(data) > 6 * page
    if part == "header":
        data[:64] = bytes(64)
    elif part == "middle":
        for start in range(page, len(data), page):
            data[start : start + 200] = b"\xff" * 200
    elif part == "end cut off":
        del data[len(data) // 2 :]
    else:
        data[:] = b"hello\n" * 9999
    _file(url).write_bytes(data)
    with pytest.raises(DatabaseDamaged, match="restore a backup") as raised, closing(SqlStore(url)) as store:
        store.check()
    assert str(_file(url)) in str(raised.value)


@pytest.mark.parametrize("garbage", ["zeros", "noise", "another page"])
def test_an_overwritten_database_page_is_detected_unless_it_was_empty(url: str, garbage: str) -> None:
    store = _filled(url, count=300)
    store.delete_items("g", Filter(cameras=frozenset({"c1"})))  # leaves pages that hold nothing
    before = contents(store, "g"), _thumbnails(store)
    assert len(before[1]) > 100
    store.close()
    sound, page = _file(url).read_bytes(), 16384
    noticed = 0
    for start in range(0, len(sound), page):
        other = {
            "zeros": bytes(page),
            "noise": random.Random(start).randbytes(page),
            "another page": sound[start - page : start] if start else sound[page : 2 * page],
        }[garbage]
        _file(url).write_bytes(sound[:start] + other + sound[start + page :])
        try:
            with closing(SqlStore(url)) as store:
                store.check()
                assert (contents(store, "g"), _thumbnails(store)) == before
        except DatabaseDamaged:
            noticed += 1
    assert noticed >= 5


def _thumbnails(store: SqlStore) -> dict[str, bytes]:
    found = {}
    for item in store.items("g", Filter(), limit=1000):
        with suppress(ItemNotFound):
            found[item.id] = store.thumbnail("g", item.id)
    return found


@pytest.mark.parametrize("kind", ["empty", "another program's", "another alembic user's"])
def test_a_file_that_is_not_a_database_of_vireid_is_refused(url: str, kind: str) -> None:
    _filled(url).close()
    _file(url).unlink()
    with closing(sqlite3.connect(_file(url))) as connection:
        if kind != "empty":
            connection.execute("CREATE TABLE holidays (day TEXT)")
        if kind == "another alembic user's":
            connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.commit()
    _file(url).touch()
    with pytest.raises(DatabaseDamaged, match="it is empty" if kind == "empty" else "no tables of vireid"):
        SqlStore(url)
    if kind == "empty":
        assert _file(url).stat().st_size == 0


@pytest.mark.parametrize("left", ["vireid.db-wal", "vireid.db-shm", "index", "jobs", "RESERVE"])
def test_a_directory_whose_database_is_missing_is_refused(url: str, left: str) -> None:
    folder = _file(url).parent
    if left in ("index", "jobs"):
        (folder / left).mkdir(parents=True)
    else:
        folder.mkdir()
        (folder / left).touch()
    with pytest.raises(DatabaseMissing, match=f"holds {left}.*Put the database back"):
        SqlStore(url)
    assert not _file(url).exists()


@pytest.mark.parametrize("there", ["nothing", "LOCK", "an unfinished database", "files of others"])
def test_a_directory_without_vireid_files_gets_a_new_database(url: str, there: str) -> None:
    folder = _file(url).parent
    folder.mkdir()
    if there == "LOCK":
        (folder / "LOCK").write_text("17\n")
    elif there == "an unfinished database":
        (folder / "vireid.db.new").write_bytes(b"cut off")
    elif there == "files of others":
        (folder / "lost+found").mkdir()
    with closing(SqlStore(url)) as store:
        assert store.galleries() == []
    assert not (folder / "vireid.db.new").exists()


def test_a_single_flipped_bit_in_a_vector_is_refused(url: str) -> None:
    store = _filled(url)
    vector = store.vector("g", "item-020")[1].tobytes()
    store.close()
    data = bytearray(_file(url).read_bytes())
    assert data.count(vector) == 1
    data[data.index(vector) + 5] ^= 1
    _file(url).write_bytes(data)
    store = SqlStore(url)
    with pytest.raises(DatabaseDamaged, match="item-020"):
        Galleries(store, ExactIndex)
    with pytest.raises(DatabaseDamaged, match="item-020"):
        store.vector("g", "item-020")
    store.close()


@pytest.mark.parametrize("statement", ["DELETE FROM items WHERE id = 'item-003'", "DELETE FROM vectors WHERE row = 3"])
def test_missing_rows_are_refused(url: str, statement: str) -> None:
    _filled(url).close()
    with closing(sqlite3.connect(_file(url))) as connection:
        connection.execute(statement)
        connection.commit()
    store = SqlStore(url)
    with pytest.raises(DatabaseDamaged):
        Galleries(store, ExactIndex)
    store.close()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="does not last"):
        SqlStore(url)
