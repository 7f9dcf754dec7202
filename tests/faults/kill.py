"""kill -9 at random moments: acknowledged writes survive, deletions hold, searches equal brute force.

    python -m tests.faults.kill --rounds 200

Several threads write to a server in its own process, each to its own items: by image and by vector, updates, deletions
by id and by filter, creation and deletion of galleries and aliases, imports as jobs. Meanwhile the server, which
compacts and writes snapshots continuously, is killed, also during its start. The outcome of the write that each thread
had in progress is uncertain: it must be stored completely or not at all, and an accepted import must finish.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from httpx2 import Client, Response, TransportError

from models.card import Modality
from server.domain.types import Vectors
from tests.faults.process import Server
from tests.server.image_files import crop
from tests.server.jobs.uploads import ndjson, tar
from tests.server.stub_model import DIMENSION, write_model

__all__ = ["Figures", "run_rounds"]

SHARED = {"main": "float32", "half": "float16"}
"""Galleries that all threads write to, with their vector types."""

WRITERS = 4
_IDS, _IDENTITIES, _IMAGES = 120, 8, 12
_TOLERANCE = {"float32": 2e-6, "float16": 1e-3}
_PAGE = 1000


class StoredItem(NamedTuple):
    """The expected state of an item. ``version`` determines its image or its vector."""

    version: int
    identity: str

    @property
    def image(self) -> int | None:
        """The number of its image; None if it was added as a vector."""
        return self.version % _IMAGES if self.version % 2 else None


@dataclass(frozen=True)
class WriterState:
    """Everything that one thread has written: items by id of each gallery, and the gallery of its alias."""

    galleries: Mapping[str, Mapping[str, StoredItem]]
    alias: str | None = None

    def with_items(self, gallery: str, items: Mapping[str, StoredItem]) -> WriterState:
        """Return a copy with other items in a gallery."""
        return replace(self, galleries={**self.galleries, gallery: items})


@dataclass(frozen=True)
class Write:
    """A write: ``send`` sends it and checks the response, ``after`` is the state once it is stored."""

    kind: str
    send: Callable[[Client], None]
    after: WriterState


@dataclass
class Figures:
    """Counts over all rounds."""

    rounds: int = 0
    killed_starts: int = 0
    writes: Counter[str] = field(default_factory=Counter)
    uncertain: Counter[str] = field(default_factory=Counter)
    items_checked: int = 0
    with_snapshots: int = 0

    def __str__(self) -> str:
        return (
            f"{self.rounds} rounds, {self.killed_starts} more kills while starting, {self.writes.total()} acknowledged "
            f"writes, none lost: {dict(self.writes)}; uncertain writes {dict(self.uncertain)}; "
            f"{self.items_checked} items checked after restarts; snapshots on disk at {self.with_snapshots} kills"
        )


class Crops:
    """Images with the embeddings and thumbnails that the server computes for them."""

    def __init__(self, client: Client) -> None:
        self.files = [crop(number, Modality.INFRARED) for number in range(_IMAGES)]
        images = [("images", (f"{number}.png", file)) for number, file in enumerate(self.files)]
        answer = client.post("/v1/embeddings", files=images, data={"modality": "infrared"})
        self.vectors = np.array([row["vector"] for row in answer.json()["embeddings"]], np.float32)
        assert client.post("/v1/galleries", json={"name": "reference"}).status_code == 201
        items = json.dumps([{"id": f"{number}", "modality": "infrared"} for number in range(_IMAGES)])
        assert client.post("/v1/galleries/reference/items", files=images, data={"items": items}).status_code == 201
        self.thumbnails = [client.get(f"/v1/galleries/reference/items/{n}/image").content for n in range(_IMAGES)]

    def vector(self, stored_item: StoredItem) -> Vectors:
        return _vector(stored_item.version) if stored_item.image is None else self.vectors[stored_item.image]

    def content(self, stored_item: StoredItem) -> str:
        if stored_item.image is not None:
            return sha256(self.files[stored_item.image]).hexdigest()
        sent = _vector(stored_item.version).astype(np.float64)
        return sha256((sent / np.linalg.norm(sent)).astype("<f4").tobytes()).hexdigest()


class Writer:
    """Sends random writes in one thread until the server is killed."""

    def __init__(self, number: int, crops: Crops, seed: int) -> None:
        self.name, self.crops = f"w{number}", crops
        self.client = Client(timeout=60)
        self.own, self.alias = f"{self.name}-own", f"{self.name}-alias"
        self.draw = random.Random(seed)
        self.state = WriterState({name: {} for name in SHARED})
        self.pending: Write | None = None
        self.acknowledged: Counter[str] = Counter()

    def work(self, url: str) -> None:
        self.client.base_url = url
        while True:
            self.pending = self._next()
            try:
                self.pending.send(self.client)
            except TransportError:
                return
            self.acknowledged[self.pending.kind] += 1
            self.state, self.pending = self.pending.after, None

    def check_recovered(self, found: WriterState) -> str | None:
        """Assert that the state after a restart is an allowed one; return the outcome of the uncertain write."""
        if self.pending is None:
            assert found == self.state, _difference(found, self.state)
            return None
        before, pending = self.state, self.pending
        assert found in (before, pending.after), f"{pending.kind}: {_difference(found, before)}"
        self.state, self.pending = found, None
        return "no difference" if before == pending.after else "done" if found == pending.after else "not done"

    def _next(self) -> Write:
        kinds = {
            self._vectors: 5,
            self._images: 3,
            self._delete: 2,
            self._erase: 2,
            self._update: 2,
            self._create_or_drop: 1,
            self._set_or_remove_alias: 1,
            self._import: 1,
        }
        (kind,) = self.draw.choices(list(kinds), list(kinds.values()))
        return kind()

    def _gallery(self) -> str:
        return self.draw.choice(list(self.state.galleries))

    def _id(self) -> str:
        return f"{self.name}-{self.draw.randrange(_IDS)}"

    def _identity(self) -> str:
        return f"{self.name}-p{self.draw.randrange(_IDENTITIES)}"

    def _new(self, most: int, *, images: bool) -> dict[str, StoredItem]:
        identity = self._identity()
        ids = {self._id() for _ in range(self.draw.randint(1, most))}
        return {id: StoredItem(2 * self.draw.randrange(10**6) + images, identity) for id in sorted(ids)}

    def _put(self, kind: str, gallery: str, new: dict[str, StoredItem], send: Callable[[Client], None]) -> Write:
        return Write(kind, send, self.state.with_items(gallery, {**self.state.galleries[gallery], **new}))

    def _vectors(self) -> Write:
        gallery, new = self._gallery(), self._new(30, images=False)
        rows = [
            {**_fields(id, stored_item), "vector": _vector(stored_item.version).tolist()}
            for id, stored_item in new.items()
        ]
        headers = {"content-type": "application/x-ndjson"}

        def send(client: Client) -> None:
            _expect(client.post(f"/v1/galleries/{gallery}/vectors", content=ndjson(rows), headers=headers), 201)

        return self._put("put vectors", gallery, new, send)

    def _images(self) -> Write:
        gallery, new = self._gallery(), self._new(8, images=True)
        files = [("images", (id, self.crops.files[stored_item.image or 0])) for id, stored_item in new.items()]
        items = json.dumps([_fields(id, stored_item) for id, stored_item in new.items()])

        def send(client: Client) -> None:
            _expect(client.post(f"/v1/galleries/{gallery}/items", files=files, data={"items": items}), 201)

        return self._put("put images", gallery, new, send)

    def _import(self) -> Write:
        gallery, new = self._gallery(), self._new(80, images=True)
        rows = [{**_fields(id, stored_item), "path": f"{id}.png"} for id, stored_item in new.items()]
        files = {f"{id}.png": self.crops.files[stored_item.image or 0] for id, stored_item in new.items()}
        body = tar({"manifest.jsonl": ndjson(rows), **files})
        headers = {"content-type": "application/x-tar"}

        def send(client: Client) -> None:
            answer = client.post(
                f"/v1/galleries/{gallery}/imports", content=body, headers=headers, params={"on_conflict": "replace"}
            )
            _expect(answer, 202)
            while (job := client.get(answer.headers["location"]).json())["state"] in ("queued", "running"):
                time.sleep(0.01)
            assert job["state"] == "succeeded", job

        return self._put("import", gallery, new, send)

    def _delete(self) -> Write:
        gallery, id = self._gallery(), self._id()
        items = self.state.galleries[gallery]

        def send(client: Client) -> None:
            _expect(client.delete(f"/v1/galleries/{gallery}/items/{id}"), 204 if id in items else 404)

        remaining = {other: stored_item for other, stored_item in items.items() if other != id}
        return Write("delete", send, self.state.with_items(gallery, remaining))

    def _erase(self) -> Write:
        gallery, identity = self._gallery(), self._identity()
        items = self.state.galleries[gallery]
        remaining = {id: stored_item for id, stored_item in items.items() if stored_item.identity != identity}

        def send(client: Client) -> None:
            answer = client.delete(f"/v1/galleries/{gallery}/items", params={"identity": identity})
            _expect(answer, 200)
            assert answer.json()["deleted"] == len(items) - len(remaining)

        return Write("erase", send, self.state.with_items(gallery, remaining))

    def _update(self) -> Write:
        gallery, id, identity = self._gallery(), self._id(), self._identity()
        items = self.state.galleries[gallery]

        def send(client: Client) -> None:
            answer = client.patch(f"/v1/galleries/{gallery}/items/{id}", json={"identity": identity})
            _expect(answer, 200 if id in items else 404)

        changed = {**items, id: items[id]._replace(identity=identity)} if id in items else items
        return Write("update", send, self.state.with_items(gallery, changed))

    def _create_or_drop(self) -> Write:
        own = self.own
        if own not in self.state.galleries:
            return Write(
                "create",
                lambda client: _expect(client.post("/v1/galleries", json={"name": own}), 201),
                self.state.with_items(own, {}),
            )
        remaining = {name: items for name, items in self.state.galleries.items() if name != own}
        alias = None if self.state.alias == own else self.state.alias
        return Write(
            "drop", lambda client: _expect(client.delete(f"/v1/galleries/{own}"), 204), WriterState(remaining, alias)
        )

    def _set_or_remove_alias(self) -> Write:
        path = f"/v1/aliases/{self.alias}"
        if self.state.alias is not None and self.draw.random() < 0.3:
            return Write(
                "remove alias", lambda client: _expect(client.delete(path), 204), replace(self.state, alias=None)
            )
        gallery = self._gallery()

        def send(client: Client) -> None:
            _expect(client.put(path, json={"gallery": gallery}), 200)

        return Write("set alias", send, replace(self.state, alias=gallery))


class Checker:
    """Checks a restarted server."""

    def __init__(self, client: Client, crops: Crops, draw: random.Random) -> None:
        self.client, self.crops, self.draw = client, crops, draw

    def wait_for_jobs(self) -> None:
        """Wait until all jobs have ended, and assert that they succeeded."""
        while True:
            jobs = self.client.get("/v1/jobs", params={"limit": _PAGE}).json()["jobs"]
            if all(job["state"] not in ("queued", "running") for job in jobs):
                break
            time.sleep(0.02)
        assert all((job["state"], job["failed"]) == ("succeeded", 0) for job in jobs), jobs

    def writer_states(self, writers: list[Writer]) -> Iterator[WriterState]:
        """Yield the state of each writer as the server reports it."""
        names = [gallery["name"] for gallery in self._pages("/v1/galleries", "galleries")]
        aliases = {pair["alias"]: pair["gallery"] for pair in self.client.get("/v1/aliases").json()["aliases"]}
        assert set(names) <= {*SHARED, "reference", *(writer.own for writer in writers)}
        self.items = {name: self._items(name) for name in names if name != "reference"}
        for writer in writers:
            yield WriterState(
                {
                    name: {id: stored_item for id, stored_item in items.items() if id.startswith(f"{writer.name}-")}
                    for name, items in self.items.items()
                    if name in SHARED or name == writer.own
                },
                aliases.get(writer.alias),
            )

    def check_consistency(self) -> None:
        """Assert that searches, thumbnails and sequence numbers agree with the items."""
        details = self.client.get("/readyz").json()["galleries"]
        assert details.keys() == {*self.items, "reference"}
        assert all(one["store_sequence"] == one["index_sequence"] for one in details.values()), details
        for name, items in self.items.items():
            assert self.client.get(f"/v1/galleries/{name}").json()["items"] == len(items)
            self._check_search(name, items, None)
            self._check_search(
                name, items, {stored_item.identity for stored_item in items.values() if self.draw.random() < 0.3}
            )
            for id in self.draw.sample(sorted(items), min(10, len(items))):
                image = self.client.get(f"/v1/galleries/{name}/items/{id}/image")
                number = items[id].image
                if number is None:
                    assert image.status_code == 404
                else:
                    assert image.content == self.crops.thumbnails[number]

    def _items(self, gallery: str) -> dict[str, StoredItem]:
        found = {}
        for item in self._pages(f"/v1/galleries/{gallery}/items", "items"):
            assert item["id"] not in found
            stored_item = found[item["id"]] = StoredItem(item["attributes"]["version"], item["identity"])
            assert item["content_sha256"] == self.crops.content(stored_item)
        return found

    def _check_search(self, gallery: str, items: Mapping[str, StoredItem], identities: set[str] | None) -> None:
        """Assert that all pages of a search together equal brute force."""
        query = _vector(self.draw.randrange(10**9))
        filter = {"identities": None if identities is None else sorted(identities)}
        options: dict[str, Any] = {"k": 100, "paginate": True, "filter": filter}
        body: dict[str, Any] = {"vector": query.tolist(), "modality": "infrared", "query": options}
        expected = {
            id: float(np.dot(query.astype(np.float64), self.crops.vector(stored_item).astype(np.float64)))
            for id, stored_item in items.items()
            if not identities or stored_item.identity in identities
        }
        found: list[tuple[str, float]] = []
        while True:
            answer = self.client.post(f"/v1/galleries/{gallery}/search", json=body)
            _expect(answer, 200)
            found += [(hit["item"]["id"], hit["score"]) for hit in answer.json()["hits"]]
            assert answer.json()["searched"] == len(expected)
            options["cursor"] = answer.json()["next_cursor"]
            if options["cursor"] is None:
                break
        assert found == sorted(found, key=lambda hit: (-hit[1], hit[0]))
        assert sorted(id for id, _ in found) == sorted(expected)
        tolerance = _TOLERANCE[SHARED.get(gallery, "float32")]
        assert all(abs(score - expected[id]) < tolerance for id, score in found)

    def _pages(self, path: str, name: str) -> Iterator[dict[str, Any]]:
        cursor = None
        while True:
            answer = self.client.get(path, params={"limit": _PAGE} | ({} if cursor is None else {"cursor": cursor}))
            _expect(answer, 200)
            yield from answer.json()[name]
            cursor = answer.json()["next_cursor"]
            if cursor is None:
                return


def run_rounds(folder: Path, count: int, seed: int, *, longest_s: float, report: Callable[[str], object]) -> Figures:
    """Repeat writing (at most ``longest_s`` seconds), killing and checking ``count`` times on one data directory."""
    draw, figures = random.Random(seed), Figures()
    data, models = folder / "data", folder / "zoo"
    write_model(models / "stub")

    def start() -> Server:
        return Server(data, models, folder / "output", frequent_maintenance=True)

    server = start()
    start_s = 1.0
    client = Client(base_url=server.ready(), timeout=60)
    crops = Crops(client)
    for name, kind in SHARED.items():
        _expect(client.post("/v1/galleries", json={"name": name, "vector_type": kind}), 201)
    writers = [Writer(number, crops, draw.randrange(2**32)) for number in range(WRITERS)]
    with ThreadPoolExecutor(WRITERS) as pool:
        while figures.rounds < count:
            working = [pool.submit(writer.work, server.url()) for writer in writers]
            time.sleep(draw.uniform(0.02, longest_s))
            server.kill()
            for one in working:
                one.result()
            figures.with_snapshots += any((data / "index").glob("*/manifest.json"))
            while draw.random() < 0.2:
                server = start()
                time.sleep(draw.uniform(0, start_s))
                server.kill()
                figures.killed_starts += 1
            server, started = start(), time.monotonic()
            client.base_url = server.ready()
            start_s = time.monotonic() - started
            checker = Checker(client, crops, draw)
            checker.wait_for_jobs()
            for writer, found in zip(writers, checker.writer_states(writers), strict=True):
                outcome = writer.check_recovered(found)
                figures.uncertain.update([outcome] if outcome else [])
            checker.check_consistency()
            figures.items_checked += sum(map(len, checker.items.values()))
            figures.rounds += 1
            figures.writes = sum((writer.acknowledged for writer in writers), Counter())
            report(f"seed {seed}: {figures}")
    for used in (client, *(writer.client for writer in writers)):
        used.close()
    assert server.end() == 0
    assert list((data / "jobs").iterdir()) == []
    return figures


def _vector(version: int) -> Vectors:
    vector = np.random.default_rng(version).standard_normal(DIMENSION)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def _fields(id: str, stored_item: StoredItem) -> dict[str, Any]:
    return {
        "id": id,
        "modality": "infrared",
        "identity": stored_item.identity,
        "attributes": {"version": stored_item.version},
    }


def _expect(answer: Response, status: int) -> None:
    assert answer.status_code == status, (answer.request.url, answer.text)


def _difference(found: WriterState, expected: WriterState) -> str:
    lines = [f"alias {found.alias}, not {expected.alias}"] if found.alias != expected.alias else []
    for name in sorted({*found.galleries, *expected.galleries}):
        here, there = found.galleries.get(name), expected.galleries.get(name)
        if here is None or there is None:
            lines += [f"gallery {name}: {'missing' if here is None else 'there'}"] if here != there else []
            continue
        wrong = {id: (here.get(id), there.get(id)) for id in sorted({*here, *there}) if here.get(id) != there.get(id)}
        lines += [f"gallery {name}, found and expected: {wrong}"] if wrong else []
    return "; ".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vireid-kill-") as folder:
        run_rounds(Path(folder), arguments.rounds, arguments.seed, longest_s=1.5, report=_print)


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
