"""PostgreSQL: one server per database, lost connections, honest receipts, no password in messages."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from server.domain.errors import DatabaseUnavailable, NotReady
from server.domain.types import Filter
from server.gallery.galleries import Galleries
from server.gallery.snapshots import SnapshotDirectory
from server.index.exact import ExactIndex
from server.jobs.table import JobTable
from server.jobs.types import Job, JobState
from server.storage import postgresql as module
from server.storage.postgresql import database_identity
from server.storage.sql_store import SqlStore
from server.storage.startup_errors import DatabaseInUse, DatabaseUnreachable, DatabaseUnsuitable
from server.storage.tables import metadata
from server.storage.transactions import COMMITTER, GroupCommitter, reading, writing
from tests.postgresql import PASSWORD, PrivatePostgresql
from tests.server.gallery.builders import DIMENSION, FINGERPRINT, START, new_item, new_items, search, unit_vectors
from tests.server.storage.test_store import contents, gallery


@pytest.fixture
def url(postgresql: PrivatePostgresql) -> str:
    return postgresql.new_database()


@pytest.fixture
def store(url: str) -> Iterator[SqlStore]:
    with closing(SqlStore(url)) as opened:
        opened.create_gallery(gallery())
        yield opened


def _end_connections(server: PrivatePostgresql, url: str, application: str = "vireid%") -> None:
    database = make_url(url).database
    server.execute(
        f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        f"WHERE datname = '{database}' AND application_name LIKE '{application}'"
    )


def test_migrations_create_the_schema_of_tables(store: SqlStore) -> None:
    def of_the_schema(_object: object, name: str | None, *_: object) -> bool:
        return name != "vireid_server"

    with reading(store.engine) as connection:
        context = MigrationContext.configure(connection, opts={"include_object": of_the_schema})
        assert compare_metadata(context, metadata) == []


def test_a_second_server_on_the_same_database_is_refused(
    url: str, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE_S", 0.2)
    with pytest.raises(DatabaseInUse, match=r"in use by a server on 127\.0\.0\.1, connected since .* one server at a"):
        SqlStore(url)
    store.put("g", new_items(2))
    assert store.gallery("g").items == 2


def test_servers_on_different_databases_do_not_disturb_each_other(
    store: SqlStore, postgresql: PrivatePostgresql
) -> None:
    with closing(SqlStore(postgresql.new_database())) as other:
        other.create_gallery(gallery("other"))
        store.put("g", new_items(2))
    assert [one.name for one in store.galleries()] == ["g"]


def test_a_start_waits_for_the_lock_of_a_server_that_ends(url: str, store: SqlStore) -> None:
    ending = threading.Timer(0.3, store.close)
    ending.start()
    with closing(SqlStore(url)) as opened:
        assert [one.name for one in opened.galleries()] == ["g"]
    ending.join()


def test_a_server_that_was_replaced_writes_and_reads_nothing_any_more(
    url: str, store: SqlStore, postgresql: PrivatePostgresql
) -> None:
    store.put("g", new_items(1))
    _end_connections(postgresql, url, "vireid lock")  # as a network that lost only this connection
    with closing(SqlStore(url)) as successor:
        before = contents(successor, "g")
        for use in (lambda: store.put("g", new_items(3)), lambda: store.galleries(), lambda: store.gallery("g")):
            with pytest.raises(DatabaseUnavailable):
                use()
        with pytest.raises(DatabaseUnavailable, match="another server has taken over the database; restart this one"):
            store.galleries()
        assert contents(successor, "g") == before
    with pytest.raises(DatabaseUnavailable, match="another server has taken over"):  # its memory is out of date
        store.galleries()


def test_a_server_goes_on_when_lost_connections_can_be_made_again(
    url: str, store: SqlStore, postgresql: PrivatePostgresql
) -> None:
    for number in range(3):
        _end_connections(postgresql, url)
        store.put("g", new_items(number + 1))
        assert store.gallery("g").items == number + 1


def test_a_write_whose_connection_is_lost_fails_with_those_that_share_its_commit(
    url: str, store: SqlStore, postgresql: PrivatePostgresql
) -> None:
    inside, others = threading.Event(), 4

    def first() -> None:
        with writing(store.engine) as connection:
            connection.execute(text("INSERT INTO aliases (name, gallery) SELECT 'a', number FROM galleries"))
            inside.set()
            while store.engine.get_execution_options()[COMMITTER]._waiting < others:
                pass
            _end_connections(postgresql, url)

    with ThreadPoolExecutor(others + 1) as pool:
        failing = pool.submit(first)
        assert inside.wait(10)
        waiting = [pool.submit(store.put, "g", [new_item(f"i{n}", unit_vectors(1)[0])]) for n in range(others)]
    assert isinstance(failing.exception(), DatabaseUnavailable)
    assert {type(one.exception()) for one in waiting} <= {DatabaseUnavailable, type(None)}
    stored = {item.id for item in store.items("g", Filter(), limit=10)}
    assert stored == {f"i{n}" for n, one in enumerate(waiting) if one.exception() is None}
    assert store.aliases() == {}
    store.put("g", new_items(1))


def test_searches_return_by_themselves_after_a_restart_of_postgresql_under_writes(tmp_path: Path) -> None:
    server = PrivatePostgresql()
    try:
        galleries = Galleries(SqlStore(server.new_database()), ExactIndex)
        galleries.catalog.create("g", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
        vectors = unit_vectors(40)
        stored, halted = [], threading.Event()

        def write() -> None:
            for number, vector in enumerate(vectors):
                item = new_item(f"i{number}", vector)
                if number == 20:
                    server.halt("immediate")
                    halted.set()
                try:
                    galleries.writer.put("g", [item], fingerprint=FINGERPRINT)
                    stored.append(item.item.id)
                except NotReady:
                    assert halted.is_set()

        write()
        assert len(stored) == 20
        with pytest.raises(NotReady):
            search(galleries, "g", vectors[0])
        server.start()
        handle = galleries.handles.by_name["g"]
        assert handle.wait_for_sequence(20, 0) == -1
        with handle._condition:
            assert handle._condition.wait_for(lambda: handle.live is not None, 30)
        assert {hit.item.id for hit in search(galleries, "g", vectors[0], k=100).hits} == set(stored)
        galleries.writer.put("g", [new_item("last", vectors[0])], fingerprint=FINGERPRINT)
        assert search(galleries, "g", vectors[0], k=100).searched == 21
        galleries.close()
    finally:
        server.stop()


def test_two_tables_never_start_the_same_job(url: str, store: SqlStore) -> None:
    other = create_engine(url, execution_options={COMMITTER: GroupCommitter()})
    here, there = JobTable(store.engine), JobTable(other)
    for number in range(30):
        job = Job(f"{number}", "import", "g", JobState.QUEUED, {}, None, None, 0, 0, 0, None, None, START)
        here.add(job)
        with ThreadPoolExecutor(2) as pool:
            started = list(pool.map(lambda table, id=job.id: table.start(id), (here, there)))
        assert sum(one is not None for one in started) == 1
    other.dispose()


def test_a_receipt_says_what_the_server_cannot_know(store: SqlStore) -> None:
    galleries = Galleries(store, ExactIndex)
    galleries.writer.put("g", new_items(3), fingerprint=FINGERPRINT)
    left = galleries.erasure.erase("g", Filter()).detail["left"]
    assert left == {"store": 0, "memory": 0, "snapshot": 0, "log": None, "replicas": None, "backups": None, "jobs": 0}


def test_a_snapshot_of_another_database_is_not_used(postgresql: PrivatePostgresql, tmp_path: Path) -> None:
    """Two databases give the same sequence number to other content, as after a point-in-time recovery."""
    for number in range(2):
        store = SqlStore(postgresql.new_database())
        identity = database_identity(store.engine)
        store.create_gallery(gallery())
        store.put("g", [new_item("i", unit_vectors(2)[number])])
        galleries = Galleries(store, ExactIndex, SnapshotDirectory(tmp_path / "index", least=1, database=identity))
        hits = search(galleries, "g", unit_vectors(2)[number]).hits
        assert hits[0].score == pytest.approx(1)
        galleries.close()
        assert any((tmp_path / "index").glob("*/manifest.json"))


def test_the_password_is_in_no_message_and_no_log(
    url: str, postgresql: PrivatePostgresql, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = make_url(url).set(password="another-secret")
    closed = make_url(url).set(port=1)
    missing = make_url(url).set(database="missing")
    for unusable in (wrong, closed, missing):
        with pytest.raises(DatabaseUnreachable, match=r"cannot be reached: .*Check VIREID_DATABASE_URL") as raised:
            SqlStore(unusable.render_as_string(hide_password=False))
        assert "secret" not in repr(raised.value)
        assert PASSWORD not in repr(raised.value)
    with closing(SqlStore(url)) as store:
        _end_connections(postgresql, url)
        store.galleries()
    assert "secret" not in caplog.text
    assert PASSWORD not in caplog.text


def test_a_database_with_another_encoding_is_refused(postgresql: PrivatePostgresql) -> None:
    postgresql.execute(
        "CREATE DATABASE latin OWNER vireid ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )
    url = make_url(postgresql.new_database()).set(database="latin")
    with pytest.raises(DatabaseUnsuitable, match="its encoding is LATIN1, expected UTF8"):
        SqlStore(url.render_as_string(hide_password=False))


def test_commits_are_durable_where_the_database_defaults_to_asynchronous_ones(
    url: str, postgresql: PrivatePostgresql
) -> None:
    postgresql.execute(f"ALTER DATABASE {make_url(url).database} SET synchronous_commit = off")
    with closing(SqlStore(url)) as store, writing(store.engine) as connection:
        assert connection.execute(text("SHOW synchronous_commit")).scalar_one() == "on"
