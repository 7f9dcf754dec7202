"""API keys: a secret is shown once, verified by its hash, and invalid after deletion."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from server.domain.errors import ApiKeyNotFound, ApiKeyRejected, LastAdminKey, Unauthorized
from server.domain.types import Gallery
from server.storage import tables
from server.storage.api_keys import ApiKeys, Scope
from server.storage.sql_store import SqlStore
from server.storage.transactions import writing


@pytest.fixture
def store(database_url: str) -> Iterator[SqlStore]:
    made = SqlStore(database_url)
    for name in ("door", "yard"):
        made.create_gallery(Gallery(name, "m", "f", 4, datetime.now(UTC), 0))
    yield made
    made.close()


@pytest.fixture
def keys(store: SqlStore) -> ApiKeys:
    return ApiKeys(store.engine)


def test_a_secret_is_verified_to_its_key(keys: ApiKeys) -> None:
    key, secret = keys.create("Kiosk 名", [Scope.SEARCH, Scope.WRITE], ["yard", "door"])
    assert key.name == "Kiosk 名"
    assert key.scopes == frozenset({Scope.SEARCH, Scope.WRITE})
    assert key.galleries == frozenset({"door", "yard"})
    assert datetime.now(UTC) - key.created_at < timedelta(minutes=1)
    assert keys.verify(secret) == key
    assert keys.list() == [key]


def test_a_key_without_a_list_of_galleries_is_for_all(keys: ApiKeys) -> None:
    key, secret = keys.create("all", [Scope.ADMIN], None)
    assert key.galleries is None
    assert keys.verify(secret).galleries is None


def test_secrets_are_long_random_and_different(keys: ApiKeys) -> None:
    secrets = {keys.create("same name", [Scope.SEARCH], None)[1] for _ in range(20)}
    assert len(secrets) == 20
    assert all(secret.startswith("vireid_") and len(secret) == len("vireid_") + 43 for secret in secrets)


def test_the_database_holds_only_the_hash_of_a_secret(sql_store: SqlStore, tmp_path: Path) -> None:
    _, secret = ApiKeys(sql_store.engine).create("k", [Scope.SEARCH], None)
    stored = b"".join(path.read_bytes() for path in (tmp_path / "data").iterdir())
    assert secret.encode() not in stored
    assert secret.removeprefix("vireid_").encode() not in stored
    assert hashlib.sha256(secret.encode()).hexdigest().encode() in stored


@pytest.mark.parametrize("wrong", ["", "vireid_", "vireid_" + "A" * 43, "x" * 100_000, "\ud800", "' OR 1=1 --", "ü"])
def test_any_other_secret_is_refused(keys: ApiKeys, wrong: str) -> None:
    _, secret = keys.create("k", [Scope.SEARCH], None)
    for attempt in (wrong, secret[:-1], secret + "A", secret.upper(), " " + secret):
        with pytest.raises(Unauthorized):
            keys.verify(attempt)


def test_a_deleted_key_stops_working_at_once_and_others_keep_working(keys: ApiKeys) -> None:
    deleted, deleted_secret = keys.create("gone", [Scope.SEARCH], None)
    kept, kept_secret = keys.create("kept", [Scope.SEARCH], None)
    keys.delete(deleted.id)
    with pytest.raises(Unauthorized):
        keys.verify(deleted_secret)
    assert keys.verify(kept_secret) == kept
    assert keys.list() == [kept]
    with pytest.raises(ApiKeyNotFound) as raised:
        keys.delete(deleted.id)
    assert raised.value.key == deleted.id


def test_keys_are_listed_oldest_first_and_survive_a_restart(keys: ApiKeys, store: SqlStore, database_url: str) -> None:
    made = [keys.create(f"k{n}", [Scope.SEARCH], None) for n in range(4)]
    store.close()
    again = SqlStore(database_url)
    assert ApiKeys(again.engine).list() == [key for key, _ in made]
    assert [ApiKeys(again.engine).verify(secret) for _, secret in made] == [key for key, _ in made]
    again.close()


def test_any_admin_tells_whether_an_admin_key_exists(keys: ApiKeys) -> None:
    assert not keys.any_admin()
    keys.create("no admin", [Scope.SEARCH, Scope.WRITE], None)
    assert not keys.any_admin()
    key, _ = keys.create("admin", [Scope.ADMIN], None)
    assert keys.any_admin()
    second, _ = keys.create("second", [Scope.ADMIN], None)
    keys.delete(key.id)
    assert keys.any_admin()
    with pytest.raises(LastAdminKey):
        keys.delete(second.id)
    assert keys.any_admin()


def test_admin_key_of_one_gallery_is_not_the_last_admin(keys: ApiKeys) -> None:
    limited, _ = keys.create("limited", [Scope.ADMIN], ["door"])
    assert not keys.any_admin()
    full, _ = keys.create("full", [Scope.ADMIN], None)
    with pytest.raises(LastAdminKey):
        keys.delete(full.id)
    keys.delete(limited.id)


def test_expired_key_is_rejected_and_is_no_admin(keys: ApiKeys, store: SqlStore) -> None:
    soon = datetime.now(UTC) + timedelta(minutes=1)
    key, secret = keys.create("brief", [Scope.ADMIN], None, expires_at=soon)
    assert keys.verify(secret).expires_at == soon
    with writing(store.engine) as connection:
        connection.execute(update(tables.api_keys).values(expires_at=datetime.now(UTC)))
    with pytest.raises(Unauthorized):
        keys.verify(secret)
    assert not keys.any_admin()
    with pytest.raises(ApiKeyRejected):
        keys.create("past", [Scope.SEARCH], None, expires_at=datetime.now(UTC))
    keys.delete(key.id)


def test_key_is_bound_to_the_gallery_and_not_to_its_name(keys: ApiKeys, store: SqlStore) -> None:
    _, secret = keys.create("k", [Scope.SEARCH], ["door", "yard"])
    store.delete_gallery("door")
    assert keys.verify(secret).galleries == {"yard"}
    store.create_gallery(Gallery("door", "m", "f", 4, datetime.now(UTC), 0))
    assert keys.verify(secret).galleries == {"yard"}
    store.delete_gallery("yard")
    assert keys.verify(secret).galleries == frozenset()


def test_rotated_key_accepts_both_secrets_during_the_overlap(keys: ApiKeys, store: SqlStore) -> None:
    key, old = keys.create("k", [Scope.SEARCH], None)
    rotated, new = keys.rotate(key.id, timedelta(hours=1))
    assert (rotated.id, rotated.expires_at) == (key.id, None)
    assert keys.verify(old).id == keys.verify(new).id == key.id
    with writing(store.engine) as connection:
        connection.execute(update(tables.api_keys).values(previous_expires_at=datetime.now(UTC)))
    assert keys.verify(new).id == key.id
    with pytest.raises(Unauthorized):
        keys.verify(old)
    _, newest = keys.rotate(key.id, timedelta())
    with pytest.raises(Unauthorized):
        keys.verify(new)
    assert keys.verify(newest).id == key.id
    with pytest.raises(ApiKeyNotFound):
        keys.rotate("key_absent", timedelta())


def test_last_use_is_written_once_in_several_minutes(keys: ApiKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    _, secret = keys.create("k", [Scope.SEARCH], None)
    assert keys.list()[0].last_used_at is None
    keys.verify(secret)
    used = keys.list()[0].last_used_at
    assert used is not None
    assert abs(datetime.now(UTC) - used) < timedelta(minutes=1)
    writes: list[object] = []
    monkeypatch.setattr("server.storage.api_keys.writing", lambda engine: writes.append(engine))
    for _ in range(50):
        keys.verify(secret)
    assert writes == []


@pytest.mark.parametrize(
    ("scopes", "galleries", "reason"),
    [
        ([], None, "at least one scope"),
        ([Scope.SEARCH], [], "at least one"),
        ([Scope.SEARCH], ["door", "attic", "cellar"], "no gallery attic, cellar"),
    ],
)
def test_a_key_without_scopes_or_galleries_is_rejected(
    keys: ApiKeys, scopes: list[Scope], galleries: list[str] | None, reason: str
) -> None:
    with pytest.raises(ApiKeyRejected) as raised:
        keys.create("k", scopes, galleries)
    assert reason in raised.value.reason
    assert keys.list() == []
