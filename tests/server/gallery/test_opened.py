"""The memory of a gallery follows the store change by change, or is given up."""

from __future__ import annotations

import logging
from threading import Event, Thread

import numpy as np
import pytest

from server.errors import GalleryNotFound, NotReady
from server.gallery.flat import FaissFlat
from server.gallery.live import LiveGallery
from server.gallery.opened import Change, Opened
from server.gallery.types import Gallery
from tests.server.gallery.making import DIMENSION, FINGERPRINT, START, new_items, unit_vectors

GALLERY = Gallery("g", "m", FINGERPRINT, DIMENSION, START, items=0)


def _live(changes: int = 0) -> LiveGallery:
    live = LiveGallery(FaissFlat(DIMENSION))
    for sequence in range(1, changes + 1):
        _put(sequence)(live)
    return live


def _put(sequence: int) -> Change:
    item = new_items(sequence + 1)[sequence].item
    return lambda live: live.put([item], np.array([sequence]), unit_vectors(1, seed=sequence), sequence)


def _ids(opened: Opened) -> list[str]:
    return list(opened.ready().view().ids)


def test_a_missing_change_takes_the_memory_away(caplog: pytest.LogCaptureFixture) -> None:
    opened = Opened(GALLERY, _live())
    opened.apply(1, _put(1))
    assert _ids(opened) == ["item-001"]
    with caplog.at_level(logging.CRITICAL):
        opened.apply(3, _put(3))
    with pytest.raises(NotReady, match="could not be loaded"):
        opened.ready()
    assert opened.reached(3, 0) == -1


def test_a_change_that_fails_takes_the_memory_away(caplog: pytest.LogCaptureFixture) -> None:
    opened = Opened(GALLERY, _live())
    with caplog.at_level(logging.CRITICAL):
        opened.apply(1, lambda live: live.delete(["nothing"], 1))
    assert opened.live is None


def test_a_new_memory_is_given_what_it_has_missed_and_nothing_twice() -> None:
    opened = Opened(GALLERY, _live(2))

    def make() -> LiveGallery:
        opened.apply(3, _put(3))
        made = _live(3)  # loaded from a store that had that change already
        opened.apply(4, _put(4))
        return made

    opened.replace(make)
    opened.apply(5, _put(5))
    assert _ids(opened) == [f"item-00{n}" for n in range(1, 6)]


def test_a_new_memory_that_fails_leaves_the_old_one() -> None:
    opened = Opened(GALLERY, _live(1))
    with pytest.raises(ZeroDivisionError):
        opened.replace(lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    opened.replace(lambda: None)
    opened.apply(2, _put(2))
    assert _ids(opened) == ["item-001", "item-002"]


def test_a_deletion_waits_for_writers_and_holds_up_others() -> None:
    opened = Opened(GALLERY, _live())
    inside, go_on, deleted, refused = Event(), Event(), Event(), Event()

    def write() -> None:
        with opened.writing():
            inside.set()
            assert go_on.wait(10)
            assert not deleted.is_set()

    def delete() -> None:
        with opened.deleting():
            deleted.set()
            opened.gone()

    def write_later() -> None:
        with pytest.raises(GalleryNotFound), opened.writing():
            pass
        refused.set()

    threads = [Thread(target=one) for one in (write, delete, write_later)]
    threads[0].start()
    assert inside.wait(10)
    threads[1].start()
    while not opened._deleting:
        pass
    threads[2].start()
    assert not deleted.is_set()
    go_on.set()
    for thread in threads:
        thread.join()
    assert deleted.is_set()
    assert refused.is_set()


def test_a_deletion_that_fails_lets_writers_in_again() -> None:
    opened = Opened(GALLERY, _live())
    with pytest.raises(ZeroDivisionError), opened.deleting():
        _ = 1 / 0
    with opened.writing():
        opened.apply(1, _put(1))
    assert _ids(opened) == ["item-001"]
