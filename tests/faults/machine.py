"""A state machine test of the whole HTTP API of galleries, with restarts, compared with a dictionary.

python -m tests.faults.machine --steps 10000
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from fastapi.testclient import TestClient
from httpx2 import Response
from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from models.card import Modality
from server.domain.timestamps import from_microseconds, to_microseconds
from server.domain.types import CropWarning, Filter, Item, Vectors, VectorType
from server.gallery.galleries import Galleries
from server.settings import Settings
from tests.faults.fast_maintenance import fast_maintenance
from tests.server.conftest import serving
from tests.server.gallery import builders
from tests.server.gallery.builders import passes, score
from tests.server.image_files import crop, encode
from tests.server.jobs.uploads import ndjson
from tests.server.stub_model import DIMENSION, write_model

__all__ = ["GalleriesMachine", "run"]

_VECTORS = builders.unit_vectors(10, DIMENSION)
_DARK = encode(np.full((64, 32, 3), 9, np.uint8))
_IMAGES = [crop(1, Modality.INFRARED), crop(2, Modality.INFRARED), crop(3), _DARK]
_TOLERANCE = 2e-6

names = st.sampled_from(["g", "h", "latest"])
aliases = st.sampled_from(["latest", "now", "g"])
new_items = st.lists(builders.items_strategy, min_size=1, max_size=6, unique_by=lambda item: item.id)
changes = st.fixed_dictionaries(
    {},
    optional={
        "identity": st.none() | builders.identities,
        "camera": st.none() | builders.cameras,
        "captured_at": st.none() | builders.times,
        "attributes": builders.attributes,
    },
)
selections = st.builds(
    Filter,
    modality=st.none() | builders.modalities,
    cameras=st.none() | st.frozensets(builders.cameras),
    identities=st.none() | st.frozensets(builders.identities),
    captured_from=st.none() | builders.times,
    captured_to=st.none() | builders.times,
    warnings=st.none() | builders.warnings,
)


@dataclass(frozen=True)
class StoredItem:
    """An item, its vector as stored, and its thumbnail."""

    item: Item
    vector: Vectors
    thumbnail: bytes | None = None


@dataclass
class Gallery:
    """The expected state of a gallery: its items by id and its sequence number."""

    vector_type: VectorType
    thumbnails: bool
    items: dict[str, StoredItem] = field(default_factory=dict)
    sequence: int = 0

    def stored(self, vector: Vectors) -> Vectors:
        return vector.astype(self.vector_type.dtype).astype(np.float32)


class GalleriesMachine(RuleBasedStateMachine):
    """Compares the server's responses with a model, after any sequence of requests and restarts."""

    steps: ClassVar[int] = 0
    """Number of executed rules of all machines."""

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="vireid-machine-"))
        write_model(self.directory / "zoo" / "stub")
        self.galleries: dict[str, Gallery] = {}
        self.aliases: dict[str, str] = {}
        self.open()
        images = [("images", (f"{number}.png", image)) for number, image in enumerate(_IMAGES)]
        answer = self.client.post("/v1/embeddings", files=images, data={"modality": "infrared"}).json()
        self.embedded = np.array([row["vector"] for row in answer["embeddings"]], np.float32)

    def open(self) -> None:
        self.stack = ExitStack()
        self.stack.enter_context(fast_maintenance())
        chosen = Settings(
            data_dir=self.directory / "data", model_dir=self.directory / "zoo", device="cpu", threads=1, auth="off"
        )
        self.client: TestClient = self.stack.enter_context(serving(chosen))

    @property
    def internals(self) -> Galleries:
        """The galleries below the API, for data that the API does not return."""
        found: Galleries = self.client.app.state.service.galleries  # type: ignore[attr-defined]
        return found

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.stack.close()
            shutil.rmtree(self.directory)

    # Galleries and aliases

    @rule(name=names, vector_type=st.sampled_from(VectorType), thumbnails=st.booleans())
    def create(self, name: str, vector_type: VectorType, thumbnails: bool) -> None:
        body = {"name": name, "vector_type": vector_type, "thumbnails": thumbnails}
        answer = self.client.post("/v1/galleries", json=body)
        if name in self.galleries or name in self.aliases:
            self.expect(answer, 409)
            return
        self.expect(answer, 201)
        self.galleries[name] = Gallery(vector_type, thumbnails)

    @rule(name=names | aliases, sure=st.integers(0, 3))
    def delete(self, name: str, sure: int) -> None:
        if name in self.galleries and sure:  # seldom, so that galleries grow
            return
        self.expect(self.client.delete(f"/v1/galleries/{name}"), 204 if name in self.galleries else 404)
        self.galleries.pop(name, None)
        self.aliases = {alias: gallery for alias, gallery in self.aliases.items() if gallery != name}

    @rule(alias=aliases, name=names)
    def set_alias(self, alias: str, name: str) -> None:
        answer = self.client.put(f"/v1/aliases/{alias}", json={"gallery": name})
        if name not in self.galleries:
            self.expect(answer, 404)
        elif alias in self.galleries:
            self.expect(answer, 409)
        else:
            self.expect(answer, 200)
            self.aliases[alias] = name

    @rule(alias=aliases)
    def remove_alias(self, alias: str) -> None:
        self.expect(self.client.delete(f"/v1/aliases/{alias}"), 204 if self.aliases.pop(alias, None) else 404)

    # Items

    @precondition(lambda self: self.galleries)
    @rule(
        data=st.data(), items=new_items, numbers=st.lists(st.integers(0, 9), min_size=6, max_size=6), bad=st.booleans()
    )
    def put_vectors(self, data: st.DataObject, items: list[Item], numbers: list[int], bad: bool) -> None:
        path, gallery = self.draw_gallery(data)
        rows = [
            {**_as_json(item), "modality": item.modality, "vector": _VECTORS[number].tolist()}
            for item, number in zip(items, numbers, strict=False)
        ]
        broken = [{"id": "broken", "modality": "infrared", "vector": [1.0]}] if bad else []
        answer = self.client.post(
            f"{path}/vectors", content=ndjson(rows + broken), headers={"content-type": "application/x-ndjson"}
        )
        new = []
        for item, number in zip(items, numbers, strict=False):
            sent = _VECTORS[number].astype(np.float64)
            vector = (sent / np.linalg.norm(sent)).astype(np.float32)
            content = sha256(vector.astype("<f4").tobytes()).hexdigest()
            new.append(StoredItem(replace(item, warnings=frozenset(), content=content), gallery.stored(vector)))
        self.check_put(answer, gallery, new, failed=len(broken))

    @precondition(lambda self: self.galleries)
    @rule(
        data=st.data(), items=new_items, numbers=st.lists(st.integers(0, 3), min_size=6, max_size=6), bad=st.booleans()
    )
    def put_images(self, data: st.DataObject, items: list[Item], numbers: list[int], bad: bool) -> None:
        path, gallery = self.draw_gallery(data)
        numbers = numbers[: len(items)]
        files = [("images", (item.id, _IMAGES[number])) for item, number in zip(items, numbers, strict=True)]
        fields = [{**_as_json(item), "modality": item.modality} for item in items]
        if bad:
            files.append(("images", ("bad.png", b"no image" * 99)))
            fields.append({"id": "broken", "modality": "auto"})
        answer = self.client.post(f"{path}/items", files=files, data={"items": json.dumps(fields)})
        new = []
        for item, number in zip(items, numbers, strict=True):
            _, vector = self.internals.query.vector(self.named_gallery(path), item.id)
            thumbnail = (
                self.internals.query.thumbnail(self.named_gallery(path), item.id) if gallery.thumbnails else None
            )
            if item.modality is Modality.INFRARED:
                assert np.allclose(vector, gallery.stored(self.embedded[number]), atol=1e-3)
            warned = frozenset({CropWarning.TOO_DARK, CropWarning.BLURRED} if number == 3 else ())
            content = sha256(_IMAGES[number]).hexdigest()
            new.append(StoredItem(replace(item, warnings=warned, content=content), vector, thumbnail))
        self.check_put(answer, gallery, new, failed=int(bad))

    def check_put(self, answer: Response, gallery: Gallery, new: list[StoredItem], *, failed: int) -> None:
        self.expect(answer, 207 if failed else 201)
        body = answer.json()
        statuses = ["updated" if stored_item.item.id in gallery.items else "added" for stored_item in new] + [
            "failed"
        ] * failed
        assert [one["status"] for one in body["items"]] == statuses
        assert (body["added"], body["updated"], body["failed"]) == tuple(
            statuses.count(status) for status in ("added", "updated", "failed")
        )
        gallery.items |= {stored_item.item.id: stored_item for stored_item in new}
        gallery.sequence += 1

    @precondition(lambda self: self.galleries)
    @rule(data=st.data(), id=builders.ids, changes=changes)
    def change(self, data: st.DataObject, id: str, changes: dict[str, Any]) -> None:
        path, gallery = self.draw_gallery(data)
        fields = {
            name: value.isoformat() if name == "captured_at" and value else value for name, value in changes.items()
        }
        answer = self.client.patch(f"{path}/items/{id}", json=fields)
        if id not in gallery.items:
            self.expect(answer, 404)
            return
        self.expect(answer, 200)
        old = gallery.items[id]
        gallery.items[id] = replace(old, item=replace(old.item, **changes))
        assert _matches(answer.json(), gallery.items[id].item)
        gallery.sequence += 1

    @precondition(lambda self: self.galleries)
    @rule(data=st.data(), id=builders.ids)
    def delete_item(self, data: st.DataObject, id: str) -> None:
        path, gallery = self.draw_gallery(data)
        self.expect(self.client.delete(f"{path}/items/{id}"), 204 if id in gallery.items else 404)
        gallery.sequence += gallery.items.pop(id, None) is not None

    @precondition(lambda self: self.galleries)
    @rule(data=st.data(), where=selections)
    def delete_items(self, data: st.DataObject, where: Filter) -> None:
        path, gallery = self.draw_gallery(data)
        parameters = _query_parameters(where)
        answer = self.client.delete(f"{path}/items", params=parameters)
        if not parameters:
            self.expect(answer, 422)
            return
        self.expect(answer, 200)
        removed = [id for id, stored_item in gallery.items.items() if passes(stored_item.item, where)]
        assert answer.json()["deleted"] == len(removed)
        for id in removed:
            del gallery.items[id]
        gallery.sequence += bool(removed)

    # Reads and searches

    @precondition(lambda self: self.galleries)
    @rule(data=st.data(), where=selections, limit=st.sampled_from([1, 4, 1000]))
    def list_items(self, data: st.DataObject, where: Filter, limit: int) -> None:
        path, gallery = self.draw_gallery(data)
        found = self.pages(f"{path}/items", "items", {**_query_parameters(where), "limit": limit})
        expected = [gallery.items[id].item for id in sorted(gallery.items) if passes(gallery.items[id].item, where)]
        assert len(found) == len(expected)
        assert all(map(_matches, found, expected))

    @precondition(lambda self: self.galleries)
    @rule(
        data=st.data(),
        where=builders.filters,
        number=st.integers(0, 9),
        stored=st.none() | builders.ids,
        k=st.sampled_from([1, 3, 50]),
        least=st.none() | st.integers(0, 20),
        group=st.booleans(),
        batch=st.booleans(),
    )
    def search(
        self,
        data: st.DataObject,
        where: Filter,
        number: int,
        stored: str | None,
        k: int,
        least: int | None,
        group: bool,
        batch: bool,
    ) -> None:
        path, gallery = self.draw_gallery(data)
        query: dict[str, Any] = {"k": k, "filter": _search_filter(where)}
        query |= {"group_by": "identity"} if group else {"paginate": True}
        body: dict[str, Any] = {"query": query}
        if stored in gallery.items:
            body["item_id"], vector = stored, gallery.items[stored].vector
        else:
            stored, vector = None, _VECTORS[number]
            body |= {"vector": vector.tolist(), "modality": "visible"}
            exact = vector.astype(np.float64)
            vector = (exact / np.linalg.norm(exact)).astype(np.float32)
        ranking = sorted(
            (
                (score(vector, stored_item.vector), id)
                for id, stored_item in gallery.items.items()
                if id != stored and passes(stored_item.item, where)
            ),
            key=lambda hit: (-hit[0], hit[1]),
        )
        if least is not None and least < len(ranking):  # as good as one of the hits, which still counts
            query["min_score"] = ranking[least][0]
        hits = [hit for hit in ranking if hit[0] >= query.get("min_score", -2)]
        if group:
            answer = self.answer(path, body, batch)
            self.check_hits(gallery, answer["hits"], hits[:k])
            self.check_groups(gallery, answer["groups"], hits, k)
            return
        found: list[dict[str, Any]] = []
        while True:
            answer = self.answer(path, body, batch)
            assert answer["searched"] == len(ranking)
            assert len(answer["hits"]) <= k
            found += answer["hits"]
            query["cursor"] = answer["next_cursor"]
            if query["cursor"] is None:
                break
        self.check_hits(gallery, found, hits)

    def answer(self, path: str, body: dict[str, Any], batch: bool) -> dict[str, Any]:
        if not batch:
            answer = self.client.post(f"{path}/search", json=body)
            self.expect(answer, 200)
            alone: dict[str, Any] = answer.json()
            return alone
        answer = self.client.post(f"{path}/searches", json={"searches": [body, {"item_id": "missing"}, body]})
        self.expect(answer, 200)
        first, missing, second = answer.json()["answers"]
        assert first["answer"] == second["answer"]
        assert missing["error"]["status"] == 404
        one: dict[str, Any] = first["answer"]
        return one

    def check_hits(self, gallery: Gallery, found: list[dict[str, Any]], hits: list[tuple[float, str]]) -> None:
        assert [(hit["score"], hit["item"]["id"]) for hit in found] == hits
        assert [hit["rank"] for hit in found] == list(range(1, len(hits) + 1))
        assert all(_matches(hit["item"], gallery.items[hit["item"]["id"]].item) for hit in found)

    def check_groups(
        self, gallery: Gallery, found: list[dict[str, Any]], hits: list[tuple[float, str]], k: int
    ) -> None:
        groups: dict[object, list[tuple[float, str]]] = {}
        for hit in hits:
            identity = gallery.items[hit[1]].item.identity
            groups.setdefault((identity,) if identity is not None else hit[1], []).append(hit)
        expected = list(groups.values())[:k]
        assert [[(hit["score"], hit["item"]["id"]) for hit in group["hits"]] for group in found] == expected
        assert [group["score"] for group in found] == [group[0][0] for group in expected]

    @precondition(lambda self: self.galleries)
    @rule(
        data=st.data(),
        images=st.lists(st.integers(0, 3), min_size=1, max_size=3),
        fusion=st.sampled_from(["mean", "max"]),
    )
    def search_by_images(self, data: st.DataObject, images: list[int], fusion: str) -> None:
        path, gallery = self.draw_gallery(data)
        files = [("images", (f"{number}", _IMAGES[number])) for number in images]
        query = json.dumps({"k": 1000, "fusion": fusion})
        answer = self.client.post(f"{path}/search", files=files, data={"modality": "infrared", "query": query})
        self.expect(answer, 200)
        queries = self.embedded[images]
        if fusion == "mean":
            mean = queries.astype(np.float64).mean(axis=0)
            queries = (mean / np.linalg.norm(mean)).astype(np.float32)[np.newaxis]
        found = {hit["item"]["id"]: hit["score"] for hit in answer.json()["hits"]}
        assert found.keys() == gallery.items.keys()
        for id, stored_item in gallery.items.items():
            assert abs(found[id] - max(score(one, stored_item.vector) for one in queries)) < _TOLERANCE

    @precondition(lambda self: self.galleries)
    @rule(data=st.data(), id=builders.ids)
    def get_item(self, data: st.DataObject, id: str) -> None:
        path, gallery = self.draw_gallery(data)
        item, image = self.client.get(f"{path}/items/{id}"), self.client.get(f"{path}/items/{id}/image")
        stored_item = gallery.items.get(id)
        self.expect(item, 200 if stored_item else 404)
        if stored_item:
            assert _matches(item.json(), stored_item.item)
        self.expect(image, 200 if stored_item and stored_item.thumbnail else 404)
        if stored_item and stored_item.thumbnail:
            assert image.content == stored_item.thumbnail

    # Restarts and maintenance

    @rule()
    def restart(self) -> None:
        self.stack.close()
        self.open()

    @rule()
    def maintain(self) -> None:
        self.internals.maintenance.run()

    @invariant()
    def server_equals_model(self) -> None:
        type(self).steps += 1
        listed = self.pages("/v1/galleries", "galleries", {"limit": 1})
        assert [one["name"] for one in listed] == sorted(self.galleries)
        assert self.client.get("/v1/aliases").json()["aliases"] == [
            {"alias": alias, "gallery": self.aliases[alias]} for alias in sorted(self.aliases)
        ]
        ready = self.client.get("/readyz")
        self.expect(ready, 200)
        assert ready.json()["galleries"] == {
            name: {
                "store_sequence": gallery.sequence,
                "index_sequence": gallery.sequence,
                "index": "exact",
                "recall": None,
            }
            for name, gallery in self.galleries.items()
        }
        for one in listed:
            gallery = self.galleries[one["name"]]
            assert (one["items"], one["vector_type"], one["thumbnails"]) == (
                len(gallery.items),
                gallery.vector_type,
                gallery.thumbnails,
            )
            found = self.client.get(f"/v1/galleries/{one['name']}/items").json()["items"]
            assert len(found) == len(gallery.items)
            assert all(map(_matches, found, (gallery.items[id].item for id in sorted(gallery.items))))

    def draw_gallery(self, data: st.DataObject) -> tuple[str, Gallery]:
        """Draw a gallery; return its path, by its name or an alias, and its expected state."""
        name = data.draw(st.sampled_from(sorted({*self.galleries, *self.aliases})))
        return f"/v1/galleries/{name}", self.galleries[self.aliases.get(name, name)]

    def named_gallery(self, path: str) -> str:
        name = path.rpartition("/")[2]
        return self.aliases.get(name, name)

    def pages(self, path: str, name: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            answer = self.client.get(path, params=parameters)
            self.expect(answer, 200)
            found += answer.json()[name]
            parameters = {**parameters, "cursor": answer.json()["next_cursor"]}
            if parameters["cursor"] is None:
                return found
            assert len(answer.json()[name]) == parameters["limit"]

    def expect(self, answer: Response, status: int) -> None:
        assert answer.status_code == status, (str(answer.request.url), answer.text)


def _as_json(item: Item) -> dict[str, Any]:
    """Return the fields of an item as JSON, without its modality."""
    captured = item.captured_at and item.captured_at.isoformat()
    fields = {"id": item.id, "identity": item.identity, "camera": item.camera, "captured_at": captured}
    return {**fields, "attributes": dict(item.attributes)}


def _matches(fields: dict[str, Any], item: Item) -> bool:
    """Return whether a response describes this item, with attributes of the same types, in any order."""
    captured = item.captured_at and from_microseconds(to_microseconds(item.captured_at)).isoformat().replace(
        "+00:00", "Z"
    )
    expected = {**_as_json(item), "captured_at": captured, "modality": item.modality, "warnings": sorted(item.warnings)}
    if "content_sha256" in fields:
        expected["content_sha256"] = item.content
    attributes = [
        repr(sorted(one["attributes"].items())) for one in (fields, expected)
    ]  # 1, 1.0 and true are not alike
    return fields == expected and attributes[0] == attributes[1]


def _query_parameters(where: Filter) -> dict[str, Any]:
    """Return the filter of a list or a deletion as URL parameters."""
    parameters = {
        "identity": sorted(where.identities or ()),
        "camera": sorted(where.cameras or ()),
        "modality": where.modality,
        "captured_from": where.captured_from and where.captured_from.isoformat(),
        "captured_to": where.captured_to and where.captured_to.isoformat(),
        "warning": sorted(where.warnings or ()),
    }
    return {name: value for name, value in parameters.items() if value}


def _search_filter(where: Filter) -> dict[str, Any]:
    """Return the filter of a search as JSON."""
    sets = ("cameras", "exclude_cameras", "identities", "exclude_identities", "warnings", "exclude_warnings")
    listed = {name: None if getattr(where, name) is None else sorted(getattr(where, name)) for name in sets}
    return listed | {
        "modality": where.modality,
        "captured_from": where.captured_from and where.captured_from.isoformat(),
        "captured_to": where.captured_to and where.captured_to.isoformat(),
        "attributes": dict(where.attributes),
        "exclude_attributes": dict(where.exclude_attributes),
    }


def run(examples: int, steps: int, number: int) -> None:
    """Run ``examples`` machines of ``steps`` steps each; ``number`` is their seed."""
    run_state_machine_as_test(
        seed(number)(GalleriesMachine),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            verbosity=Verbosity.normal,
            suppress_health_check=list(HealthCheck),
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    arguments = parser.parse_args()
    number = arguments.seed
    while GalleriesMachine.steps < arguments.steps:
        run(examples=20, steps=50, number=number)
        print(f"seed {number}: {GalleriesMachine.steps} steps so far, all as the model says", flush=True)  # noqa: T201
        number += 1


if __name__ == "__main__":
    main()
