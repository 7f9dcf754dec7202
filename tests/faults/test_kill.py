"""kill -9 at random moments: what was acknowledged is there, what was deleted stays away, searches equal brute force.

The child does random writes and notes each one in a file before it asks for it and after it was acknowledged. The write
in flight when it dies is the only one in doubt: it must be there whole or not at all.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from models.card import Modality
from server.errors import ItemNotFound
from server.gallery.flat import FaissFlat
from server.gallery.service import Galleries
from server.gallery.store import SqlStore
from server.gallery.types import Filter, Fusion, Item, NewItem, Vectors

# A server of forks with everything imported: a child starts in milliseconds.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload([__name__])

DIMENSION = 64
ROUNDS = 6
START_ROUNDS = 3

Operation = dict[str, Any]
Model = dict[str, tuple[int, str]]
"""Of each item its version, which decides vector and thumbnail, and its identity."""


def _vector(id: str, version: int) -> Vectors:
    vector = np.random.default_rng([int(id), version]).standard_normal(DIMENSION)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def _thumbnail(id: str, version: int) -> bytes:
    return f"{id} {version} ".encode() * 200


def _new_item(id: str, version: int, identity: str) -> NewItem:
    return NewItem(Item(id, Modality.INFRARED, identity), _vector(id, version), _thumbnail(id, version))


def _draw(generator: random.Random) -> Operation:
    id = str(generator.randrange(80))
    identity = f"p{generator.randrange(10)}"
    kind = generator.choices(["put", "delete", "erase", "update"], [6, 2, 1, 1])[0]
    if kind == "put":
        ids = [str(generator.randrange(80)) for _ in range(generator.randint(1, 12))]
        versions = [generator.randrange(1_000_000) for _ in ids]
        return {"kind": kind, "ids": ids, "versions": versions, "identity": identity}
    return {"kind": kind, "id": id, "identity": identity}


def _perform(galleries: Galleries, operation: Operation) -> None:
    identity = operation["identity"]
    if operation["kind"] == "put":
        pairs = zip(operation["ids"], operation["versions"], strict=True)
        galleries.put("g", [_new_item(id, version, identity) for id, version in pairs], fingerprint="f")
    elif operation["kind"] == "erase":
        galleries.delete_items("g", Filter(identities=frozenset({identity})))
    elif operation["kind"] == "update":
        galleries.update_item("g", operation["id"], {"identity": identity})
    else:
        galleries.delete_item("g", operation["id"])


def _after(model: Model, operation: Operation) -> Model:
    after, identity = dict(model), operation["identity"]
    if operation["kind"] == "put":
        after |= {id: (version, identity) for id, version in zip(operation["ids"], operation["versions"], strict=True)}
    elif operation["kind"] == "erase":
        after = {id: held for id, held in model.items() if held[1] != identity}
    elif operation["id"] in model:
        if operation["kind"] == "update":
            after[operation["id"]] = (model[operation["id"]][0], identity)
        else:
            del after[operation["id"]]
    return after


def _work(directory: Path, log: Path, seed: int) -> None:
    """Write until killed. ``seed`` decides what, the parent when it ends."""
    with log.open("w", buffering=1) as notes:  # each line reaches the file at once
        notes.write("opening\n")
        galleries = Galleries(SqlStore(f"sqlite:///{directory}/vireid.db"), FaissFlat)
        if not galleries.list(limit=1):
            galleries.create("g", model="m", fingerprint="f", dimension=DIMENSION)
        notes.write("ready\n")
        generator = random.Random(seed)
        while True:
            operation = _draw(generator)
            notes.write(json.dumps(operation) + "\n")
            try:
                _perform(galleries, operation)
            except ItemNotFound:
                notes.write("refused\n")
            else:
                notes.write("done\n")


def _run_and_kill(directory: Path, log: Path, seed: int, word: str, delay: float) -> list[str]:
    """Start a child, wait for a word, then for ``delay`` seconds, kill it; its complete lines."""
    log.touch()
    process = _PROCESSES.Process(target=_work, args=(directory, log, seed))
    process.start()
    while word not in log.read_text().splitlines():
        assert process.is_alive(), "the child did not start"
        time.sleep(0.001)
    time.sleep(delay)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    return [line for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]


def _replay(model: Model, lines: list[str]) -> tuple[Model, Operation | None, int]:
    """The model after all acknowledged operations, the one in flight, and how many were acknowledged."""
    pending: Operation | None = None
    acknowledged = 0
    for line in lines:
        if line.startswith("{"):
            pending = json.loads(line)
        elif line == "done\n":
            assert pending is not None
            model, pending, acknowledged = _after(model, pending), None, acknowledged + 1
        elif line == "refused\n":
            pending = None
    return model, pending, acknowledged


def _contents(galleries: Galleries, store: SqlStore) -> Model:
    """What the store holds, each item checked to be whole."""
    held: Model = {}
    with store.load("g") as (_, chunks):
        for chunk in chunks:
            for item, vector in zip(chunk.items, chunk.vectors, strict=True):
                thumbnail = galleries.thumbnail("g", item.id)
                version = int(thumbnail.split()[1])
                assert item.identity is not None
                assert thumbnail == _thumbnail(item.id, version)
                np.testing.assert_array_equal(vector, _vector(item.id, version))
                held[item.id] = (version, item.identity)
    assert galleries.get("g").items == len(held)
    return held


def _check_searches(galleries: Galleries, held: Model, generator: random.Random) -> None:
    query = _vector("1000", generator.randrange(1_000_000))
    for identities in (None, frozenset({"p1", "p2", "p3"})):
        result = galleries.search(
            "g",
            query[None],
            fingerprint="f",
            k=1000,
            where=Filter(identities=identities),
            fusion=Fusion.MEAN,
            group=False,
            min_score=None,
        )
        scores = {
            id: float(np.float32(np.dot(query.astype(np.float64), _vector(id, version).astype(np.float64))))
            for id, (version, identity) in held.items()
            if identities is None or identity in identities
        }
        assert [hit.item.id for hit in result.hits] == sorted(scores, key=lambda id: (-scores[id], id))
        np.testing.assert_allclose([hit.score for hit in result.hits], sorted(scores.values(), reverse=True), atol=1e-7)


def test_every_acknowledged_write_survives_kill_9_and_nothing_deleted_comes_back(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201
    generator = random.Random(seed)
    directory = tmp_path / "data"
    model: Model = {}
    total = 0
    for number in range(ROUNDS):
        delay = generator.uniform(0.02, 0.6)
        lines = _run_and_kill(directory, tmp_path / f"round-{number}", generator.randrange(2**32), "ready", delay)
        model, pending, acknowledged = _replay(model, lines)
        total += acknowledged
        store = SqlStore(f"sqlite:///{directory}/vireid.db")
        galleries = Galleries(store, FaissFlat)
        held = _contents(galleries, store)
        assert held in ([model] if pending is None else [model, _after(model, pending)])
        model = held
        ((in_store, in_memory),) = galleries.progress().values()
        assert in_store == in_memory
        _check_searches(galleries, held, generator)
        galleries.close()
    assert total > ROUNDS


def test_a_server_killed_while_it_opens_its_data_opens_it_the_next_time(tmp_path: Path) -> None:
    generator = random.Random(7)
    for number in range(START_ROUNDS):
        directory = tmp_path / f"data-{number}"
        _run_and_kill(directory, tmp_path / f"start-{number}", number, "opening", generator.uniform(0, 0.15))
        store = SqlStore(f"sqlite:///{directory}/vireid.db")
        assert Galleries(store, FaissFlat).list(limit=10) == store.galleries()
        store.close()
