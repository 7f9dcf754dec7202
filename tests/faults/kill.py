"""kill -9 at random moments: what was acknowledged is there, what was deleted stays away, searches equal brute force.

    python -m tests.faults.kill --rounds 200

A real server in a process of its own is written to by several threads at once, each on items of its own: by image and
by vector, updates, deletes one by one and by filter, galleries and aliases that come and go, imports as jobs. It is
killed meanwhile, or while it starts; it compacts and writes snapshots all the time. The one write that each thread had
under way is in doubt: it must be there whole or not at all, and an import that was accepted must come to its end.
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
from server.gallery.types import Vectors
from tests.faults.process import Server
from tests.server.jobs.uploads import ndjson, tar
from tests.server.pictures import crop
from tests.server.standin import DIMENSION, write_model

__all__ = ["Figures", "rounds"]

SHARED = {"main": "float32", "half": "float16"}
"""Galleries that all threads write to, with the type of their vectors."""

WRITERS = 4
_IDS, _IDENTITIES, _IMAGES = 120, 8, 12
_TOLERANCE = {"float32": 2e-6, "float16": 1e-3}
_PAGE = 1000


class Held(NamedTuple):
    """What is known of an item. ``version`` decides whether it comes from an image, and which image or vector."""

    version: int
    identity: str

    @property
    def image(self) -> int | None:
        """Number of the image; None: a vector."""
        return self.version % _IMAGES if self.version % 2 else None


@dataclass(frozen=True)
class World:
    """All that one thread has written: of each gallery its items by id, and what its alias stands for."""

    galleries: Mapping[str, Mapping[str, Held]]
    alias: str | None = None

    def having(self, gallery: str, items: Mapping[str, Held]) -> World:
        """With other items in a gallery."""
        return replace(self, galleries={**self.galleries, gallery: items})


@dataclass(frozen=True)
class Write:
    """A write: ``send`` asks for it and checks the answer, ``after`` is the world once it is done."""

    kind: str
    send: Callable[[Client], None]
    after: World


@dataclass
class Figures:
    """What the rounds have seen."""

    rounds: int = 0
    killed_starts: int = 0
    writes: Counter[str] = field(default_factory=Counter)
    doubtful: Counter[str] = field(default_factory=Counter)
    items_checked: int = 0
    with_snapshots: int = 0

    def __str__(self) -> str:
        return (
            f"{self.rounds} rounds, {self.killed_starts} more kills while starting, {self.writes.total()} acknowledged "
            f"writes, none lost, none undone: {dict(self.writes)}; in doubt {dict(self.doubtful)}; "
            f"{self.items_checked} items looked at after restarts; snapshots on the disk at {self.with_snapshots} kills"
        )


class Crops:
    """Images, and what the server makes of them."""

    def __init__(self, client: Client) -> None:
        self.files = [crop(number, Modality.INFRARED) for number in range(_IMAGES)]
        images = [("images", (f"{number}.png", file)) for number, file in enumerate(self.files)]
        answer = client.post("/v1/embeddings", files=images, data={"modality": "infrared"})
        self.vectors = np.array([row["vector"] for row in answer.json()["embeddings"]], np.float32)
        assert client.post("/v1/galleries", json={"name": "reference"}).status_code == 201
        items = json.dumps([{"id": f"{number}", "modality": "infrared"} for number in range(_IMAGES)])
        assert client.post("/v1/galleries/reference/items", files=images, data={"items": items}).status_code == 201
        self.thumbnails = [client.get(f"/v1/galleries/reference/items/{n}/image").content for n in range(_IMAGES)]

    def vector(self, held: Held) -> Vectors:
        return _vector(held.version) if held.image is None else self.vectors[held.image]

    def content(self, held: Held) -> str:
        if held.image is not None:
            return sha256(self.files[held.image]).hexdigest()
        sent = _vector(held.version).astype(np.float64)
        return sha256((sent / np.linalg.norm(sent)).astype("<f4").tobytes()).hexdigest()


class Writer:
    """One thread's writes, until the server is gone."""

    def __init__(self, number: int, crops: Crops, seed: int) -> None:
        self.name, self.crops = f"w{number}", crops
        self.client = Client(timeout=60)
        self.own, self.alias = f"{self.name}-own", f"{self.name}-alias"
        self.draw = random.Random(seed)
        self.world = World({name: {} for name in SHARED})
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
            self.world, self.pending = self.pending.after, None

    def settle(self, found: World) -> str | None:
        """Take what was found as what there is, if it is that; what became of the write in doubt."""
        if self.pending is None:
            assert found == self.world, _difference(found, self.world)
            return None
        before, pending = self.world, self.pending
        assert found in (before, pending.after), f"{pending.kind}: {_difference(found, before)}"
        self.world, self.pending = found, None
        return "no difference" if before == pending.after else "done" if found == pending.after else "not done"

    def _next(self) -> Write:
        kinds = {
            self._vectors: 5,
            self._images: 3,
            self._delete: 2,
            self._erase: 2,
            self._update: 2,
            self._create_or_drop: 1,
            self._point: 1,
            self._import: 1,
        }
        (kind,) = self.draw.choices(list(kinds), list(kinds.values()))
        return kind()

    def _gallery(self) -> str:
        return self.draw.choice(list(self.world.galleries))

    def _id(self) -> str:
        return f"{self.name}-{self.draw.randrange(_IDS)}"

    def _identity(self) -> str:
        return f"{self.name}-p{self.draw.randrange(_IDENTITIES)}"

    def _new(self, most: int, *, images: bool) -> dict[str, Held]:
        identity = self._identity()
        ids = {self._id() for _ in range(self.draw.randint(1, most))}
        return {id: Held(2 * self.draw.randrange(10**6) + images, identity) for id in sorted(ids)}

    def _put(self, kind: str, gallery: str, new: dict[str, Held], send: Callable[[Client], None]) -> Write:
        return Write(kind, send, self.world.having(gallery, {**self.world.galleries[gallery], **new}))

    def _vectors(self) -> Write:
        gallery, new = self._gallery(), self._new(30, images=False)
        rows = [{**_fields(id, held), "vector": _vector(held.version).tolist()} for id, held in new.items()]
        headers = {"content-type": "application/x-ndjson"}

        def send(client: Client) -> None:
            _expect(client.post(f"/v1/galleries/{gallery}/vectors", content=ndjson(rows), headers=headers), 201)

        return self._put("put vectors", gallery, new, send)

    def _images(self) -> Write:
        gallery, new = self._gallery(), self._new(8, images=True)
        files = [("images", (id, self.crops.files[held.image or 0])) for id, held in new.items()]
        items = json.dumps([_fields(id, held) for id, held in new.items()])

        def send(client: Client) -> None:
            _expect(client.post(f"/v1/galleries/{gallery}/items", files=files, data={"items": items}), 201)

        return self._put("put images", gallery, new, send)

    def _import(self) -> Write:
        gallery, new = self._gallery(), self._new(80, images=True)
        rows = [{**_fields(id, held), "path": f"{id}.png"} for id, held in new.items()]
        files = {f"{id}.png": self.crops.files[held.image or 0] for id, held in new.items()}
        body = tar({"manifest.jsonl": ndjson(rows), **files})
        headers = {"content-type": "application/x-tar"}

        def send(client: Client) -> None:
            answer = client.post(f"/v1/galleries/{gallery}/imports", content=body, headers=headers)
            _expect(answer, 202)
            while (job := client.get(answer.headers["location"]).json())["state"] in ("queued", "running"):
                time.sleep(0.01)
            assert job["state"] == "succeeded", job

        return self._put("import", gallery, new, send)

    def _delete(self) -> Write:
        gallery, id = self._gallery(), self._id()
        items = self.world.galleries[gallery]

        def send(client: Client) -> None:
            _expect(client.delete(f"/v1/galleries/{gallery}/items/{id}"), 204 if id in items else 404)

        left = {other: held for other, held in items.items() if other != id}
        return Write("delete", send, self.world.having(gallery, left))

    def _erase(self) -> Write:
        gallery, identity = self._gallery(), self._identity()
        items = self.world.galleries[gallery]
        left = {id: held for id, held in items.items() if held.identity != identity}

        def send(client: Client) -> None:
            answer = client.delete(f"/v1/galleries/{gallery}/items", params={"identity": identity})
            _expect(answer, 200)
            assert answer.json()["deleted"] == len(items) - len(left)

        return Write("erase", send, self.world.having(gallery, left))

    def _update(self) -> Write:
        gallery, id, identity = self._gallery(), self._id(), self._identity()
        items = self.world.galleries[gallery]

        def send(client: Client) -> None:
            answer = client.patch(f"/v1/galleries/{gallery}/items/{id}", json={"identity": identity})
            _expect(answer, 200 if id in items else 404)

        changed = {**items, id: items[id]._replace(identity=identity)} if id in items else items
        return Write("update", send, self.world.having(gallery, changed))

    def _create_or_drop(self) -> Write:
        own = self.own
        if own not in self.world.galleries:
            return Write(
                "create",
                lambda client: _expect(client.post("/v1/galleries", json={"name": own}), 201),
                self.world.having(own, {}),
            )
        left = {name: items for name, items in self.world.galleries.items() if name != own}
        alias = None if self.world.alias == own else self.world.alias
        return Write("drop", lambda client: _expect(client.delete(f"/v1/galleries/{own}"), 204), World(left, alias))

    def _point(self) -> Write:
        path = f"/v1/aliases/{self.alias}"
        if self.world.alias is not None and self.draw.random() < 0.3:
            return Write(
                "remove alias", lambda client: _expect(client.delete(path), 204), replace(self.world, alias=None)
            )
        gallery = self._gallery()

        def send(client: Client) -> None:
            _expect(client.put(path, json={"gallery": gallery}), 200)

        return Write("set alias", send, replace(self.world, alias=gallery))


class Checker:
    """Looks at a restarted server."""

    def __init__(self, client: Client, crops: Crops, draw: random.Random) -> None:
        self.client, self.crops, self.draw = client, crops, draw

    def jobs_end(self) -> None:
        """Every job that was accepted, and with success."""
        while True:
            jobs = self.client.get("/v1/jobs", params={"limit": _PAGE}).json()["jobs"]
            if all(job["state"] not in ("queued", "running") for job in jobs):
                break
            time.sleep(0.02)
        assert all((job["state"], job["failed"]) == ("succeeded", 0) for job in jobs), jobs

    def worlds(self, writers: list[Writer]) -> Iterator[World]:
        """What there is of each writer."""
        names = [gallery["name"] for gallery in self._pages("/v1/galleries", "galleries")]
        aliases = {pair["alias"]: pair["gallery"] for pair in self.client.get("/v1/aliases").json()["aliases"]}
        assert set(names) <= {*SHARED, "reference", *(writer.own for writer in writers)}
        self.held = {name: self._items(name) for name in names if name != "reference"}
        for writer in writers:
            yield World(
                {
                    name: {id: held for id, held in items.items() if id.startswith(f"{writer.name}-")}
                    for name, items in self.held.items()
                    if name in SHARED or name == writer.own
                },
                aliases.get(writer.alias),
            )

    def agrees(self) -> None:
        """Searches, thumbnails and sequences with the items."""
        facts = self.client.get("/readyz").json()["galleries"]
        assert facts.keys() == {*self.held, "reference"}
        assert all(one["store_sequence"] == one["index_sequence"] for one in facts.values()), facts
        for name, items in self.held.items():
            assert self.client.get(f"/v1/galleries/{name}").json()["items"] == len(items)
            self._searches(name, items, None)
            self._searches(name, items, {held.identity for held in items.values() if self.draw.random() < 0.3})
            for id in self.draw.sample(sorted(items), min(10, len(items))):
                image = self.client.get(f"/v1/galleries/{name}/items/{id}/image")
                number = items[id].image
                if number is None:
                    assert image.status_code == 404
                else:
                    assert image.content == self.crops.thumbnails[number]

    def _items(self, gallery: str) -> dict[str, Held]:
        found = {}
        for item in self._pages(f"/v1/galleries/{gallery}/items", "items"):
            assert item["id"] not in found
            held = found[item["id"]] = Held(item["attributes"]["version"], item["identity"])
            assert item["content_sha256"] == self.crops.content(held)
        return found

    def _searches(self, gallery: str, items: Mapping[str, Held], identities: set[str] | None) -> None:
        """All pages of a search equal brute force."""
        query = _vector(self.draw.randrange(10**9))
        asked = {"k": 100, "filter": {"identities": None if identities is None else sorted(identities)}}
        body: dict[str, Any] = {"vector": query.tolist(), "modality": "infrared", "query": asked}
        expected = {
            id: float(np.dot(query.astype(np.float64), self.crops.vector(held).astype(np.float64)))
            for id, held in items.items()
            if not identities or held.identity in identities
        }
        found: list[tuple[str, float]] = []
        while True:
            answer = self.client.post(f"/v1/galleries/{gallery}/search", json=body)
            _expect(answer, 200)
            found += [(hit["item"]["id"], hit["score"]) for hit in answer.json()["hits"]]
            assert answer.json()["searched"] == len(expected)
            asked["cursor"] = answer.json()["next_cursor"]
            if asked["cursor"] is None:
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


def rounds(folder: Path, count: int, seed: int, *, longest_s: float, tell: Callable[[str], object]) -> Figures:
    """So many rounds of writing, killing and looking, over one data directory in ``folder``; each writes at most
    ``longest_s`` seconds."""
    draw, figures = random.Random(seed), Figures()
    data, models = folder / "data", folder / "zoo"
    write_model(models / "standin")

    def start() -> Server:
        return Server(data, models, folder / "output", in_a_hurry=True)

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
            checker.jobs_end()
            for writer, found in zip(writers, checker.worlds(writers), strict=True):
                outcome = writer.settle(found)
                figures.doubtful.update([outcome] if outcome else [])
            checker.agrees()
            figures.items_checked += sum(map(len, checker.held.values()))
            figures.rounds += 1
            figures.writes = sum((writer.acknowledged for writer in writers), Counter())
            tell(f"seed {seed}: {figures}")
    for used in (client, *(writer.client for writer in writers)):
        used.close()
    assert server.end() == 0
    assert list((data / "jobs").iterdir()) == []
    return figures


def _vector(version: int) -> Vectors:
    vector = np.random.default_rng(version).standard_normal(DIMENSION)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def _fields(id: str, held: Held) -> dict[str, Any]:
    return {"id": id, "modality": "infrared", "identity": held.identity, "attributes": {"version": held.version}}


def _expect(answer: Response, status: int) -> None:
    assert answer.status_code == status, (answer.request.url, answer.text)


def _difference(found: World, expected: World) -> str:
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
        rounds(Path(folder), arguments.rounds, arguments.seed, longest_s=1.5, tell=lambda line: print(line, flush=True))  # noqa: T201


if __name__ == "__main__":
    main()
