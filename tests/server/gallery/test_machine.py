"""A state machine over the galleries with restarts, against a dictionary."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from server.errors import GalleryExists, GalleryNotFound, ItemNotFound
from server.gallery.flat import FaissFlat
from server.gallery.service import Galleries
from server.gallery.store import SqlStore
from server.gallery.types import Filter, Fusion, Item, NewItem
from tests.server.gallery import making
from tests.server.gallery.making import DIMENSION, FINGERPRINT, expected_hits, found, passes, search

_VECTORS = making.unit_vectors(12)

names = st.sampled_from(["g", "h"])
puts = st.lists(
    st.builds(
        NewItem, making.items_strategy, st.sampled_from(list(_VECTORS)), st.none() | st.sampled_from([b"one", b"two"])
    ),
    min_size=1,
    max_size=6,
)
changes = st.fixed_dictionaries(
    {},
    optional={
        "identity": st.none() | making.identities,
        "camera": st.none() | making.cameras,
        "captured_at": st.none() | making.times,
        "attributes": making.attributes,
    },
)


class GalleriesMachine(RuleBasedStateMachine):
    """What the model says is what the galleries answer, whatever came before."""

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.model: dict[str, dict[str, NewItem]] = {}
        self.sequences: dict[str, int] = {}
        self.open()

    def open(self) -> None:
        self.galleries = Galleries(SqlStore(f"sqlite:///{self.directory}/vireid.db"), FaissFlat)

    def teardown(self) -> None:
        self.galleries.close()
        shutil.rmtree(self.directory)

    @rule(name=names)
    def create(self, name: str) -> None:
        options = {"model": "m", "fingerprint": FINGERPRINT, "dimension": DIMENSION}
        if name in self.model:
            with pytest.raises(GalleryExists):
                self.galleries.create(name, **options)  # type: ignore[arg-type]
            return
        self.galleries.create(name, **options)  # type: ignore[arg-type]
        self.model[name], self.sequences[name] = {}, 0

    @rule(name=names)
    def delete(self, name: str) -> None:
        if name not in self.model:
            with pytest.raises(GalleryNotFound):
                self.galleries.delete(name)
            return
        self.galleries.delete(name)
        del self.model[name], self.sequences[name]

    @precondition(lambda self: self.model)
    @rule(data=st.data(), items=puts)
    def put(self, data: st.DataObject, items: list[NewItem]) -> None:
        name = self.draw_gallery(data)
        statuses = self.galleries.put(name, items, fingerprint=FINGERPRINT)
        for new, status in zip(items, statuses, strict=True):
            assert status == ("updated" if new.item.id in self.model[name] else "added")
            self.model[name][new.item.id] = new
        self.sequences[name] += 1

    @precondition(lambda self: self.model)
    @rule(data=st.data(), id=making.ids, changes=changes)
    def update_item(self, data: st.DataObject, id: str, changes: dict[str, object]) -> None:
        name = self.draw_gallery(data)
        if id not in self.model[name]:
            with pytest.raises(ItemNotFound):
                self.galleries.update_item(name, id, changes)
            return
        old = self.model[name][id]
        item = replace(old.item, **changes)  # type: ignore[arg-type]
        assert self.galleries.update_item(name, id, changes) == item
        self.model[name][id] = replace(old, item=item)
        self.sequences[name] += 1

    @precondition(lambda self: self.model)
    @rule(data=st.data(), id=making.ids)
    def delete_item(self, data: st.DataObject, id: str) -> None:
        name = self.draw_gallery(data)
        if id not in self.model[name]:
            with pytest.raises(ItemNotFound):
                self.galleries.delete_item(name, id)
            return
        self.galleries.delete_item(name, id)
        del self.model[name][id]
        self.sequences[name] += 1

    @precondition(lambda self: self.model)
    @rule(data=st.data(), where=making.filters)
    def delete_items(self, data: st.DataObject, where: Filter) -> None:
        name = self.draw_gallery(data)
        gone = [id for id, new in self.model[name].items() if passes(new.item, where)]
        assert self.galleries.delete_items(name, where) == len(gone)
        for id in gone:
            del self.model[name][id]
        self.sequences[name] += bool(gone)

    @precondition(lambda self: self.model)
    @rule(
        data=st.data(),
        where=making.filters,
        queries=st.lists(st.integers(0, 11), min_size=1, max_size=3),
        k=st.sampled_from([1, 3, 50]),
        exclude=st.none() | making.ids,
    )
    def search(self, data: st.DataObject, where: Filter, queries: list[int], k: int, exclude: str | None) -> None:
        name = self.draw_gallery(data)
        result = search(self.galleries, name, _VECTORS[queries], k=k, where=where, fusion=Fusion.MAX, exclude=exclude)
        items = [new for id, new in self.model[name].items() if id != exclude]
        expected = expected_hits(items, _VECTORS[queries], where)
        assert found(result) == expected[:k]
        assert result.searched == len(expected)
        assert [hit.item for hit in result.hits] == [self.model[name][hit.item.id].item for hit in result.hits]

    @rule()
    def restart(self) -> None:
        self.galleries.close()
        self.open()

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        assert [one.name for one in self.galleries.list(limit=10)] == sorted(self.model)
        assert self.galleries.progress() == {name: (number, number) for name, number in self.sequences.items()}
        for name, items in self.model.items():
            assert self.galleries.get(name).items == len(items)
            held: list[Item] = self.galleries.items(name, Filter(), limit=100)
            assert held == [items[id].item for id in sorted(items)]
            for id, new in items.items():
                assert self.galleries.vector(name, id)[1].tobytes() == new.vector.tobytes()

    def draw_gallery(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.model)))


TestGalleries = GalleriesMachine.TestCase
TestGalleries.settings = settings(
    max_examples=5,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
