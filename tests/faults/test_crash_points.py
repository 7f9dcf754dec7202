"""A crash at any write, fsync or rename of the store: it opens and holds every acknowledged write and no half of one.

All points are enumerated by ``make test-slow``; ``make test`` tries every n-th. Deleted data is in no file afterwards.
"""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, Select, Table, select

from models.card import Modality
from server.domain.errors import StartupError
from server.domain.types import Erasure, Filter, Gallery, NewItem, Reembedding, VectorType
from server.gallery import snapshots
from server.gallery.live_gallery import LiveGallery
from server.gallery.snapshots import Snapshot
from server.index.exact import ExactIndex
from server.jobs.table import JobTable
from server.jobs.types import Job, JobState
from server.storage import connect, tables
from server.storage.api_keys import ApiKeys, Scope
from server.storage.audit_log import AuditLog
from server.storage.calibrations import CalibrationTable
from server.storage.encryption import Encryption
from server.storage.sql_store import SqlStore
from server.storage.transactions import reading
from tests.faults.disk_log import Crash, DiskLog, Event, recorded, replay
from tests.fixtures.make import FOLDER as VERSIONS
from tests.server.gallery.builders import DIMENSION, FINGERPRINT, START, new_items, unit_vectors
from tests.server.stub_model import card

State = dict[str, list[Any]]
FILE = "vireid.db"
STEP = 17
"""The short form tries one of so many points."""


@dataclass
class Recording:
    """A log of the disk, and the state of the store after each acknowledged write; number 0 is the first state."""

    events: Sequence[Event]
    states: list[State]
    erasable: list[bytes]
    """Vectors and thumbnails as stored, all different."""
    encryption: Encryption = field(default_factory=Encryption)

    def acknowledged(self, point: int) -> int:
        """Return the number of the last write acknowledged before a point; -1 before the store was first open."""
        return max((event.number for event in self.events[:point] if event.kind == "acknowledge"), default=-1)


def test_some_crash_points_lose_no_write(tmp_path: Path) -> None:
    recording = record_writes(tmp_path / "recorded")
    assert check_all(recording, tmp_path / "recovered", STEP) > 30


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("keys", [{}, {"key": bytes(32)}], ids=["plain", "encrypted"])
def test_all_crash_points_lose_no_write(tmp_path: Path, keys: Mapping[str, bytes]) -> None:
    recording = record_writes(tmp_path / "recorded", Encryption(keys))
    assert check_all(recording, tmp_path / "recovered", 1) > 500


def test_writes_without_fsync_are_found_to_be_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "_PRAGMAS", (*connect._PRAGMAS, "synchronous=OFF"))
    recording = record_writes(tmp_path / "recorded")
    with pytest.raises((AssertionError, StartupError)):
        check_all(recording, tmp_path / "recovered", STEP)


@pytest.mark.parametrize("version", ["v0001", "v0002"])
@pytest.mark.parametrize("step", [STEP, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_crash_during_a_migration_loses_nothing(tmp_path: Path, version: str, step: int) -> None:
    folder = tmp_path / "old"
    with tarfile.open(VERSIONS / version / "data.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    for path in folder.rglob("*-wal"):
        assert not path.stat().st_size
    before = [Event("create", FILE), Event("write", FILE, 0, (folder / FILE).read_bytes()), Event("sync", FILE)]
    with recorded(folder) as log, closing(SqlStore(f"sqlite:///{folder / FILE}")) as store:
        log.acknowledge(0)
        states = [dump(store.engine)]
    recording = Recording([*before, *log.events], states, [])
    assert check_all(recording, tmp_path / "recovered", step, first=len(before)) > 3


def record_writes(folder: Path, encryption: Encryption | None = None) -> Recording:
    """Create a store, run every kind of write once, and close it."""
    states: list[State] = []
    encryption = encryption or Encryption()
    with recorded(folder) as log, closing(SqlStore(f"sqlite:///{folder / FILE}", encryption)) as store:
        log.acknowledge(0)
        states.append(dump(store.engine))
        for number, write in enumerate(writes(store), 1):
            write()
            log.acknowledge(number)
            states.append(dump(store.engine))
    return Recording(log.events, states, erasable_bytes(states), encryption)


def writes(store: SqlStore) -> Iterator[Callable[[], object]]:
    """Yield one write after the other; each is atomic."""
    gallery = Gallery("door", "m", FINGERPRINT, DIMENSION, START, 0, vector_type=VectorType.FLOAT32)
    keys, audit, jobs = ApiKeys(store.engine), AuditLog(store.engine), JobTable(store.engine)
    items = new_items(40, seed=3)
    yield lambda: store.create_gallery(gallery)
    yield lambda: store.create_gallery(replace(gallery, name="gate", vector_type=VectorType.FLOAT16))
    yield lambda: store.put("door", items[:1])
    yield lambda: store.put("door", items)
    yield lambda: store.put("gate", new_items(12, seed=4, prefix="gate"))
    yield lambda: store.put("door", new_items(8, seed=5))  # replaces items
    yield lambda: store.update_item("door", "item-009", {"identity": "p99", "attributes": {"site": "east"}})
    yield lambda: store.update_gallery("gate", {"retention_days": 7, "description": "the gate"})
    yield lambda: store.set_alias("latest", "door")
    yield lambda: store.set_alias("latest", "gate")
    yield lambda: store.delete_item("door", "item-012")
    yield lambda: store.delete_items("door", Filter(modality=Modality.VISIBLE))
    yield lambda: store.record_erasure(Erasure("era_1", "door", datetime.now(UTC), None, {"items": 20}))
    yield lambda: keys.create("reader", [Scope.SEARCH], ["door"])
    yield lambda: keys.create("admin", [Scope.ADMIN], None)
    yield lambda: keys.rotate(keys.list()[0].id, timedelta(days=1))
    yield lambda: keys.delete(next(key.id for key in keys.list() if key.name == "reader"))
    yield lambda: audit.record("key_1", "search", "door", {"hits": [1, 2, 3]})
    yield lambda: audit.record(None, "gallery.create", "gate", {})
    yield lambda: CalibrationTable(store.engine).record(store.gallery("door"), "m", card("m").calibrations)
    yield from import_steps(store, jobs)
    yield lambda: store.begin_reembedding("gate", Reembedding("job_2", "n", "e" * 64, DIMENSION))
    rows = [pending.row for pending in store.pending_reembedding("gate", limit=100)]
    yield lambda: store.store_reembedded("gate", dict(zip(rows, unit_vectors(len(rows), seed=8), strict=True)))
    yield lambda: store.switch_model("gate")
    yield lambda: store.rename_gallery("gate", "portal")
    yield lambda: store.remove_alias("latest")
    yield lambda: store.delete_stored_before("door", datetime.now(UTC) + timedelta(days=1))
    yield lambda: store.delete_gallery("portal")


def import_steps(store: SqlStore, jobs: JobTable) -> Iterator[Callable[[], object]]:
    job = Job(
        id="job_1", kind="import", gallery="door", state=JobState.QUEUED, parameters={"format": "tar"}, cursor=None,
        total=None, done=0, failed=0, skipped=0, error=None, key_id=None, created_at=datetime.now(UTC),
    )  # fmt: skip
    failures = [("a.png", {"status": 422, "detail": "It is damaged."})]
    yield lambda: jobs.add(job)
    yield lambda: jobs.start("job_1")
    yield lambda: store.put("door", new_items(10, seed=6, prefix="imported"))
    yield lambda: jobs.advance(
        "job_1", [10, 512], done=10, skipped=0, failed=1, failures=failures, run_s=1.0, report={"failed": {}}
    )
    yield lambda: jobs.end_uncleanly("job_1")
    yield lambda: jobs.end("job_1", JobState.CANCELLED)


def dump(engine: Engine) -> State:
    """Return all rows of all tables, but for the checks of encryption keys, which differ each time."""
    with reading(engine) as connection:
        return {
            table.name: list(map(tuple, connection.execute(_rows(table)))) for table in tables.metadata.sorted_tables
        }


def _rows(table: Table) -> Select[Any]:
    columns = [column for column in table.columns if column is not tables.encryption_keys.c.check]
    return select(*columns).order_by(*table.primary_key)


def erasable_bytes(states: Sequence[State]) -> list[bytes]:
    held = {row[1] for state in states for table in ("vectors", "other_vectors", "thumbnails") for row in state[table]}
    return sorted(held)


def check_all(recording: Recording, folder: Path, step: int, first: int = 0) -> int:
    """Check a crash at every ``step``-th point, in each way; return how many different disks were checked."""
    seen: set[tuple[int, int]] = set()
    for point in range(first, len(recording.events) + 1, step):
        expected = recording.acknowledged(point)
        for crash in Crash:
            files = replay(recording.events[:point], crash, seed=point)
            disk = hash(tuple(sorted(files.items())))
            if (disk, expected) not in seen:
                seen.add((disk, expected))
                try:
                    check_recovery(recording, files, folder, expected)
                except BaseException as error:
                    error.add_note(
                        f"{crash} at point {point} of {len(recording.events)}: {recording.events[point - 1]}"
                    )
                    raise
    return len(seen)


def check_recovery(recording: Recording, files: dict[str, bytes], folder: Path, acknowledged: int) -> None:
    """Assert that the store opens, and that it is in the last acknowledged state or that of the write in progress."""
    shutil.rmtree(folder, ignore_errors=True)
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    with closing(SqlStore(f"sqlite:///{folder / FILE}", recording.encryption)) as store:
        store.check()
        assert store._background is not None
        store._background.join()
        found = dump(store.engine)
        assert AuditLog(store.engine).verify().problem is None
    allowed = recording.states[max(0, acknowledged) : acknowledged + 2]
    assert found in allowed, difference(found, allowed[0])
    held = b"\0".join(erasable_bytes([found]))
    everything = b"\0".join(path.read_bytes() for path in folder.iterdir() if path.name != "RESERVE")
    assert not [one for one in recording.erasable if one not in held and one in everything]


def difference(found: State, expected: State) -> str:
    return "; ".join(
        f"{name}: {len(found[name])} rows, expected {len(expected[name])}"
        for name in expected
        if found[name] != expected[name]
    )


def test_crash_during_a_snapshot_leaves_a_complete_one_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an erasure is acknowledged, no file holds what it deleted."""
    monkeypatch.setattr(snapshots, "_ROWS", 5)
    gallery = Gallery("g", "m", FINGERPRINT, DIMENSION, START, 0)
    folder = tmp_path / "recorded"
    with recorded(folder) as log:
        contents, deleted = record_snapshots(log, folder / "s", gallery)
    acknowledged = 0
    for point in range(len(log.events) + 1):
        acknowledged = max(
            [acknowledged, *(event.number for event in log.events[:point] if event.kind == "acknowledge")]
        )
        for crash in Crash:
            files = replay(log.events[:point], crash, seed=point)
            check_snapshot(tmp_path / "recovered", gallery, files, contents)
            if acknowledged >= 4:
                assert not [one for one in deleted if one in b"".join(files.values())], (point, crash)
    assert len(log.events) > 30


def record_snapshots(log: DiskLog, folder: Path, gallery: Gallery) -> tuple[dict[int, bytes], list[bytes]]:
    """Write, extend, erase and write a snapshot; return the vectors by sequence number, and those of deleted items."""
    live, snapshot = LiveGallery(ExactIndex(DIMENSION, gallery.vector_type)), Snapshot(folder, gallery)
    contents: dict[int, bytes] = {}

    def put(items: Sequence[NewItem]) -> None:
        sequence = live.sequence + 1
        rows = np.arange(len(items)) + 1000 * sequence
        live.put([new.item for new in items], rows, np.stack([new.vector for new in items]), sequence)

    steps: list[Callable[[], object]] = [
        lambda: put(new_items(12)),
        lambda: put(new_items(6, seed=2, prefix="more")),
        lambda: live.delete(["item-001", "more-003"], live.sequence + 1),
        lambda: put(new_items(2, seed=3, prefix="last")),
    ]
    for number, step in enumerate(steps):
        step()
        view = live.view()
        contents[live.sequence] = view.index.vectors(np.flatnonzero(view.alive)).tobytes()
        if number == 2:
            snapshot.erase(view)
            log.acknowledge(4)
        snapshot.write(live.view)
        log.acknowledge(number + 1 if number < 2 else number + 3)
    deleted = [new_items(12)[1].vector, new_items(6, seed=2, prefix="more")[3].vector]
    return contents, [vector.tobytes() for vector in deleted]


def check_snapshot(folder: Path, gallery: Gallery, files: dict[str, bytes], contents: dict[int, bytes]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    back = Snapshot(folder / "s", gallery).read(lambda: ExactIndex(DIMENSION, gallery.vector_type), lambda _rows: None)
    if back is not None:
        view = back.view()
        assert view.index.vectors(np.flatnonzero(view.alive)).tobytes() == contents[back.sequence]
