"""Writes that share a commit: they fail separately, and all are on disk before any returns."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import IntegrityError

from server.domain.errors import StorageFull
from server.domain.types import Filter
from server.storage.sql_store import SqlStore
from server.storage.transactions import COMMITTER, WRITES, after_commit, reading, writing
from tests.server.gallery.builders import new_item, unit_vectors
from tests.server.storage.test_store import gallery


@pytest.fixture
def commits(sql_store: SqlStore) -> list[object]:
    """Grows by one with each commit of writes."""
    seen: list[object] = []
    _at_commit(sql_store, lambda: seen.append(None))
    return seen


def _at_commit(store: SqlStore, call: Callable[[], None]) -> None:
    """Have something called just before writes are committed."""

    def called(connection: Connection) -> None:
        if connection.get_execution_options().get(WRITES):
            call()

    event.listen(store.engine, "commit", called)


def _noted(store: SqlStore) -> list[str]:
    with reading(store.engine) as connection:
        return list(connection.scalars(text("SELECT action FROM audit ORDER BY number")))


def _note(store: SqlStore, action: str) -> None:
    with writing(store.engine) as connection:
        connection.execute(text("INSERT INTO audit (at, action, detail) VALUES (0, :action, '{}')"), {"action": action})


@contextmanager
def _queued(store: SqlStore, works: Sequence[Callable[[], object]]) -> Iterator[list[Future[object]]]:
    """The works in threads of their own, in a queue behind a first write, which ends when this is left."""
    inside, go_on = Event(), Event()

    def first() -> None:
        with writing(store.engine) as connection:
            connection.execute(text("INSERT INTO audit (at, action, detail) VALUES (0, 'first', '{}')"))
            inside.set()
            assert go_on.wait(10)

    writer = store.engine.get_execution_options()[COMMITTER]
    with ThreadPoolExecutor(len(works) + 1) as pool:
        running: list[Future[object]] = [pool.submit(first)]
        assert inside.wait(10)
        for number, work in enumerate(works, 1):
            running.append(pool.submit(work))
            while writer._waiting < number:
                pass
        yield running
        go_on.set()


def test_waiting_writes_share_one_commit(sql_store: SqlStore, commits: list[object]) -> None:
    works = [lambda number=number: _note(sql_store, f"{number}") for number in range(5)]
    with _queued(sql_store, works):
        pass
    assert len(commits) == 1
    assert sorted(_noted(sql_store)) == ["0", "1", "2", "3", "4", "first"]


def test_no_writer_returns_and_no_reader_sees_a_write_before_the_commit(sql_store: SqlStore) -> None:
    seen: list[tuple[bool, list[str]]] = []
    running: list[Future[object]] = []
    _at_commit(sql_store, lambda: seen.append((any(one.done() for one in running), _noted(sql_store))))
    with _queued(sql_store, [lambda: _note(sql_store, "second")]) as queued:
        running += queued
    assert seen == [(False, [])]
    assert _noted(sql_store) == ["first", "second"]


def test_a_failed_write_does_not_affect_others_of_its_group(sql_store: SqlStore, commits: list[object]) -> None:
    def broken() -> None:
        _note(sql_store, "kept")
        with writing(sql_store.engine) as connection:
            connection.execute(text("INSERT INTO audit (at, action, detail) VALUES (0, 'undone', '{}')"))
            connection.execute(text("INSERT INTO audit (number) VALUES (1)"))

    works = [lambda: _note(sql_store, "before"), broken, lambda: _note(sql_store, "after")]
    with _queued(sql_store, works) as running:
        pass
    assert [type(one.exception()) for one in running] == [type(None), type(None), IntegrityError, type(None)]
    assert sorted(_noted(sql_store)) == ["after", "before", "first", "kept"]


def test_the_last_write_commits_for_the_others_even_if_it_fails(sql_store: SqlStore) -> None:
    def fails() -> None:
        with writing(sql_store.engine):
            raise OSError("mine")

    with _queued(sql_store, [fails]) as running:
        pass
    assert [str(one.exception()) for one in running] == ["None", "mine"]
    assert _noted(sql_store) == ["first"]


def test_a_failed_commit_fails_the_writes_that_share_it_and_no_later_ones(sql_store: SqlStore) -> None:
    full = [True]

    def no_room() -> None:
        if full:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error

    _at_commit(sql_store, no_room)
    with _queued(sql_store, [lambda: _note(sql_store, "second")]) as running:
        pass
    assert [type(one.exception()) for one in running] == [StorageFull, StorageFull]
    full.clear()
    _note(sql_store, "third")
    assert _noted(sql_store) == ["third"]


def test_a_lost_transaction_fails_all_writes_that_share_it(sql_store: SqlStore) -> None:
    def lost() -> None:
        with writing(sql_store.engine) as connection:
            connection.exec_driver_sql("ROLLBACK")  # as SQLite does by itself on some errors
            raise OSError("cause")

    with _queued(sql_store, [lost]) as running:
        pass
    assert [str(one.exception()) for one in running] == ["cause", "cause"]
    assert _noted(sql_store) == []
    _note(sql_store, "later")
    assert _noted(sql_store) == ["later"]


def test_callbacks_run_after_the_commit_in_the_order_of_the_writes_before_any_writer_goes_on(
    sql_store: SqlStore,
) -> None:
    called: list[tuple[str, list[str], bool]] = []
    running: list[Future[object]] = []

    def work(name: str) -> None:
        with writing(sql_store.engine) as connection:
            connection.execute(text("INSERT INTO audit (at, action, detail) VALUES (0, :name, '{}')"), {"name": name})
            order.append(name)
            after_commit(
                sql_store.engine,
                lambda: called.append((name, _noted(sql_store), any(one.done() for one in running))),
            )

    order: list[str] = []
    works = [lambda number=number: work(f"{number}") for number in range(4)]
    with _queued(sql_store, works) as queued:
        running += queued
    everything = ["first", *order]
    assert called == [(name, everything, False) for name in order]


def test_a_failing_callback_raises_in_its_caller_and_the_write_stands(sql_store: SqlStore) -> None:
    def broken() -> None:
        with writing(sql_store.engine) as connection:
            connection.execute(text("INSERT INTO audit (at, action, detail) VALUES (0, 'stands', '{}')"))
            after_commit(sql_store.engine, lambda: exec("1 / 0"))

    with _queued(sql_store, [broken, lambda: _note(sql_store, "other")]) as running:
        pass
    assert [type(one.exception()) for one in running] == [type(None), ZeroDivisionError, type(None)]
    assert sorted(_noted(sql_store)) == ["first", "other", "stands"]


def test_the_callback_of_a_failed_write_is_not_called(sql_store: SqlStore) -> None:
    called: list[int] = []

    def fails() -> None:
        with writing(sql_store.engine):
            after_commit(sql_store.engine, lambda: called.append(1))
            raise OSError("no")

    with pytest.raises(OSError, match="no"):
        fails()
    _note(sql_store, "next")
    assert not called


def test_after_commit_outside_a_write_is_an_error(sql_store: SqlStore) -> None:
    with pytest.raises(RuntimeError, match="outside of a write"):
        after_commit(sql_store.engine, lambda: None)


def test_the_last_reader_empties_the_write_ahead_log(sql_store: SqlStore, url: str) -> None:
    sql_store.create_gallery(gallery())
    sql_store.put("g", [new_item("secret", unit_vectors(1)[0], identity="Jane Doe")])
    with reading(sql_store.engine) as connection:
        connection.execute(text("SELECT count(*) FROM items")).scalar_one()
        sql_store.delete_item("g", "secret")
        assert not sql_store.scrub()
    folder = Path(url.removeprefix("sqlite:///")).parent
    assert not any(b"Jane Doe" in path.read_bytes() for path in folder.iterdir())


def test_callbacks_of_concurrent_writers_follow_the_sequence_numbers(
    sql_store: SqlStore, commits: list[object]
) -> None:
    sql_store.create_gallery(gallery())
    vectors = unit_vectors(64)
    callback_sequences: list[int] = []

    def work(writer: int) -> None:
        for n in range(writer * 8, writer * 8 + 8):
            put = sql_store.put(
                "g", [new_item(f"{n}", vectors[n])], lambda put: callback_sequences.append(put.sequence)
            )
            assert put.sequence in callback_sequences
            if n % 4 == 0:
                sql_store.delete_item("g", f"{n}", lambda deleted: callback_sequences.append(deleted.sequence))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(interval / 100)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
    finally:
        sys.setswitchinterval(interval)
    assert callback_sequences == list(range(1, 81))
    assert len(commits) < 81
    assert {item.id for item in sql_store.items("g", Filter(), limit=100)} == {f"{n}" for n in range(64) if n % 4}


def test_a_write_blocked_by_another_connection_leaves_the_queue_intact(sql_store: SqlStore, url: str) -> None:
    """BEGIN itself fails; no writer may be left waiting."""

    def at_once(connection: sqlite3.Connection, *_: Any) -> None:
        connection.execute("PRAGMA busy_timeout=0")

    event.listen(sql_store.engine, "checkout", at_once)
    other = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Exception, match="locked"):
        _note(sql_store, "kept out")
    other.execute("ROLLBACK")
    other.close()
    _note(sql_store, "let in")
    assert _noted(sql_store) == ["let in"]
