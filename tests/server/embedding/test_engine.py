"""From files to vectors without HTTP: each image by itself, everybody answered, nothing done for who has left."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from hashlib import sha256
from threading import Event

import numpy as np
import pytest

from models.card import Modality
from server.embedding.batcher import Batcher, Priority
from server.embedding.engine import Detail, Embedding, Engine, ImageLimits
from server.errors import ImageTypeUnsupported, NotReady
from server.gallery.types import CropWarning
from tests.server.embedding.test_batcher import Gate
from tests.server.pictures import TEXT, crop, encode

LIMITS = ImageLimits(10**6, 10**6)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def batcher(gate: Gate) -> Iterator[Batcher]:
    batcher = Batcher([{"gate": gate}])
    yield batcher
    gate.go.release(100)
    batcher.close()


@pytest.fixture
def engine(gate: Gate, batcher: Batcher, pool: ThreadPoolExecutor) -> Engine:
    return Engine(gate, batcher, dict.fromkeys(Priority, pool), LIMITS)


def test_results_come_in_order_with_the_details_that_were_wanted_and_no_others(gate: Gate, engine: Engine) -> None:
    gate.go.release(100)
    black = encode(np.zeros((64, 32, 3), np.uint8))
    uploads, modalities = [crop(1), TEXT, black], [None, None, Modality.INFRARED]
    bare = engine.submit(uploads, modalities, Priority.QUERY).result(5)
    full = engine.submit(uploads, modalities, Priority.QUERY, Detail).result(5)
    for outcome in (bare, full):
        assert [type(result) for result in outcome.results] == [Embedding, ImageTypeUnsupported, Embedding]
        assert [result.modality for result in outcome.results if isinstance(result, Embedding)] == [
            Modality.VISIBLE,
            Modality.INFRARED,
        ]
        assert min(outcome.decode_s, outcome.queue_s, outcome.embed_s) > 0
    (plain, _, _), (told, _, dark) = bare.results, full.results
    assert isinstance(plain, Embedding)
    assert isinstance(told, Embedding)
    assert isinstance(dark, Embedding)
    assert (plain.thumbnail, plain.warnings, plain.content) == (None, frozenset(), None)
    assert told.content == sha256(uploads[0]).hexdigest()
    assert told.thumbnail is not None
    assert CropWarning.TOO_DARK in dark.warnings
    np.testing.assert_array_equal(plain.vector, told.vector)


def test_no_images_are_done_at_once(engine: Engine) -> None:
    assert engine.submit([], [], Priority.QUERY).result(0).results == ()


def test_who_leaves_takes_back_what_the_model_has_not_begun(
    gate: Gate, engine: Engine, batcher: Batcher, pool: ThreadPoolExecutor
) -> None:
    first = engine.submit([crop(1)], [None], Priority.QUERY)
    gate.entered.acquire()
    decoded = engine.submit([crop(2)], [None], Priority.QUERY)
    pool.submit(lambda: None).result(5)  # the only decoding thread has come to its end
    assert batcher.depth == 1
    go = Event()
    pool.submit(go.wait)
    undecoded = engine.submit([crop(3)], [None], Priority.QUERY)
    for call in (decoded, undecoded):
        assert call.cancel()
    go.set()
    pool.submit(lambda: None).result(5)
    last = engine.submit([crop(4)], [None], Priority.QUERY)
    gate.go.release(100)
    assert len(first.result(5).results) == len(last.result(5).results) == 1
    assert len(gate.batches) == 2
    with pytest.raises(CancelledError):
        decoded.result(0)


def test_an_end_of_the_model_or_of_the_decoders_answers_who_waits(gate: Gate, engine: Engine, batcher: Batcher) -> None:
    with ThreadPoolExecutor(1) as pool:
        go = Event()
        pool.submit(go.wait)
        undecoded = Engine(gate, batcher, dict.fromkeys(Priority, pool), LIMITS).submit(
            [crop(1)], [None], Priority.QUERY
        )
        pool.shutdown(wait=False, cancel_futures=True)
        go.set()
        with pytest.raises(NotReady):
            undecoded.result(5)
    gate.go.release(100)
    batcher.close()
    with pytest.raises(NotReady):
        engine.submit([crop(1), crop(2)], [None, None], Priority.QUERY).result(5)


def test_what_nobody_foresaw_fails_the_call(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> object:
        raise ZeroDivisionError

    monkeypatch.setattr("server.embedding.engine.resize", broken)
    with pytest.raises(ZeroDivisionError):
        engine.submit([crop(1)], [None], Priority.QUERY).result(5)
