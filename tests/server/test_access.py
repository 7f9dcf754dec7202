"""API keys: shown once, checked by their hash, gone when deleted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from server.access import Keys, Scope
from server.errors import BadKey, KeyNotFound, Unauthorized
from server.gallery.store import SqlStore
from server.gallery.types import Gallery


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    made = SqlStore(f"sqlite:///{tmp_path}/vireid.db")
    for name in ("door", "yard"):
        made.create_gallery(Gallery(name, "m", "f", 4, datetime.now(UTC), 0))
    yield made
    made.close()


@pytest.fixture
def keys(store: SqlStore) -> Keys:
    return Keys(store.engine)


def test_a_secret_opens_what_its_key_says(keys: Keys) -> None:
    key, secret = keys.create("Kiosk 名", [Scope.SEARCH, Scope.WRITE], ["yard", "door"])
    assert key.name == "Kiosk 名"
    assert key.scopes == frozenset({Scope.SEARCH, Scope.WRITE})
    assert key.galleries == frozenset({"door", "yard"})
    assert datetime.now(UTC) - key.created_at < timedelta(minutes=1)
    assert keys.verify(secret) == key
    assert keys.list() == [key]


def test_a_key_without_a_list_of_galleries_is_for_all(keys: Keys) -> None:
    key, secret = keys.create("all", [Scope.ADMIN], None)
    assert key.galleries is None
    assert keys.verify(secret).galleries is None


def test_secrets_are_long_random_and_different(keys: Keys) -> None:
    secrets = {keys.create("same name", [Scope.SEARCH], None)[1] for _ in range(20)}
    assert len(secrets) == 20
    assert all(secret.startswith("vireid_") and len(secret) == len("vireid_") + 43 for secret in secrets)


def test_the_database_holds_only_the_hash_of_a_secret(keys: Keys, tmp_path: Path) -> None:
    _, secret = keys.create("k", [Scope.SEARCH], None)
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert secret.encode() not in stored
    assert secret.removeprefix("vireid_").encode() not in stored
    assert hashlib.sha256(secret.encode()).hexdigest().encode() in stored


@pytest.mark.parametrize("wrong", ["", "vireid_", "vireid_" + "A" * 43, "x" * 100_000, "\ud800", "' OR 1=1 --", "ü"])
def test_any_other_secret_is_refused(keys: Keys, wrong: str) -> None:
    _, secret = keys.create("k", [Scope.SEARCH], None)
    for attempt in (wrong, secret[:-1], secret + "A", secret.upper(), " " + secret):
        with pytest.raises(Unauthorized):
            keys.verify(attempt)


def test_a_deleted_key_stops_working_at_once_and_the_others_go_on(keys: Keys) -> None:
    gone, gone_secret = keys.create("gone", [Scope.SEARCH], None)
    kept, kept_secret = keys.create("kept", [Scope.SEARCH], None)
    keys.delete(gone.id)
    with pytest.raises(Unauthorized):
        keys.verify(gone_secret)
    assert keys.verify(kept_secret) == kept
    assert keys.list() == [kept]
    with pytest.raises(KeyNotFound) as raised:
        keys.delete(gone.id)
    assert raised.value.key == gone.id


def test_keys_are_listed_oldest_first_and_survive_a_restart(keys: Keys, store: SqlStore, tmp_path: Path) -> None:
    made = [keys.create(f"k{n}", [Scope.SEARCH], None) for n in range(4)]
    store.close()
    again = SqlStore(f"sqlite:///{tmp_path}/vireid.db")
    assert Keys(again.engine).list() == [key for key, _ in made]
    assert [Keys(again.engine).verify(secret) for _, secret in made] == [key for key, _ in made]
    again.close()


def test_whether_there_is_an_admin_is_known(keys: Keys) -> None:
    assert not keys.any_admin()
    keys.create("no admin", [Scope.SEARCH, Scope.WRITE], None)
    assert not keys.any_admin()
    key, _ = keys.create("admin", [Scope.ADMIN], None)
    assert keys.any_admin()
    keys.delete(key.id)
    assert not keys.any_admin()


@pytest.mark.parametrize(
    ("scopes", "galleries", "reason"),
    [
        ([], None, "at least one scope"),
        ([Scope.SEARCH], [], "at least one"),
        ([Scope.SEARCH], ["door", "attic", "cellar"], "no gallery attic, cellar"),
    ],
)
def test_a_key_that_opens_nothing_is_not_made(
    keys: Keys, scopes: list[Scope], galleries: list[str] | None, reason: str
) -> None:
    with pytest.raises(BadKey) as raised:
        keys.create("k", scopes, galleries)
    assert reason in raised.value.reason
    assert keys.list() == []
