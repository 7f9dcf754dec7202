"""A gallery handle applies every change of the store to memory, or invalidates the memory."""

from __future__ import annotations

import logging
from threading import Event, Thread

import numpy as np
import pytest

from server.domain.errors import GalleryNotFound, NotReady
from server.domain.types import Gallery
from server.gallery.handle import GalleryHandle
from server.gallery.live_gallery import GalleryChange, LiveGallery
from server.index.exact import ExactIndex
from server.storage.protocol import ItemChunk
from tests.server.gallery.builders import DIMENSION, FINGERPRINT, START, new_items, unit_vectors

GALLERY = Gallery("g", "m", FINGERPRINT, DIMENSION, START, items=0)


def _live(changes: int = 0) -> LiveGallery:
    live = LiveGallery(ExactIndex(DIMENSION))
    for sequence in range(1, changes + 1):
        live.apply(_put(sequence))
    return live


def _put(sequence: int) -> GalleryChange:
    item = new_items(sequence + 1)[sequence].item
    return GalleryChange(sequence, put=ItemChunk(np.array([sequence]), [item], unit_vectors(1, seed=sequence)))


def _ids(handle: GalleryHandle) -> list[str]:
    return list(handle.ready().view().ids)


def test_a_missing_change_invalidates_the_memory(caplog: pytest.LogCaptureFixture) -> None:
    handle = GalleryHandle(GALLERY, _live())
    handle.apply(_put(1))
    assert _ids(handle) == ["item-001"]
    with caplog.at_level(logging.CRITICAL):
        handle.apply(_put(3))
    with pytest.raises(NotReady, match="could not be loaded"):
        handle.ready()
    assert handle.wait_for_sequence(3, 0) == -1


def test_a_failed_change_invalidates_the_memory(caplog: pytest.LogCaptureFixture) -> None:
    handle = GalleryHandle(GALLERY, _live())
    with caplog.at_level(logging.CRITICAL):
        handle.apply(GalleryChange(1, deleted=["nothing"]))
    assert handle.live is None


def test_a_replaced_memory_receives_missed_changes_exactly_once() -> None:
    handle = GalleryHandle(GALLERY, _live(2))

    def make() -> LiveGallery:
        handle.apply(_put(3))
        made = _live(3)  # loaded from a store that had that change already
        handle.apply(_put(4))
        return made

    handle.replace(make)
    handle.apply(_put(5))
    assert _ids(handle) == [f"item-00{n}" for n in range(1, 6)]


def test_a_failed_replacement_keeps_the_old_memory() -> None:
    handle = GalleryHandle(GALLERY, _live(1))
    with pytest.raises(ZeroDivisionError):
        handle.replace(lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    handle.replace(lambda: None)
    handle.apply(_put(2))
    assert _ids(handle) == ["item-001", "item-002"]


def test_a_gallery_deletion_waits_for_writers_and_blocks_new_ones() -> None:
    handle = GalleryHandle(GALLERY, _live())
    inside, go_on, deleted, refused = Event(), Event(), Event(), Event()

    def write() -> None:
        with handle.writing():
            inside.set()
            assert go_on.wait(10)
            assert not deleted.is_set()

    def delete() -> None:
        with handle.exclusive():
            deleted.set()
            handle.mark_deleted()

    def write_later() -> None:
        with pytest.raises(GalleryNotFound), handle.writing():
            pass
        refused.set()

    threads = [Thread(target=one) for one in (write, delete, write_later)]
    threads[0].start()
    assert inside.wait(10)
    threads[1].start()
    while not handle._deleting:
        pass
    threads[2].start()
    assert not deleted.is_set()
    go_on.set()
    for thread in threads:
        thread.join()
    assert deleted.is_set()
    assert refused.is_set()


def test_writers_continue_after_a_failed_deletion() -> None:
    handle = GalleryHandle(GALLERY, _live())
    with pytest.raises(ZeroDivisionError), handle.exclusive():
        _ = 1 / 0
    with handle.writing():
        handle.apply(_put(1))
    assert _ids(handle) == ["item-001"]
