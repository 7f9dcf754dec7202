"""The engine without HTTP: results per image, failures and cancellation."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from hashlib import sha256
from threading import Event
from typing import Any

import numpy as np
import pytest

from models.card import Modality
from server.domain.errors import ImageRejected, ImageTypeUnsupported, NotReady
from server.domain.types import CropWarning
from server.embedding.batcher import Batcher, Priority
from server.embedding.decode import Pixels
from server.embedding.engine import Detail, Embedding, Engine, ImageLimits
from server.embedding.isolation import IsolatedDecoders
from tests.drawing import draw_person
from tests.server.embedding.test_batcher import Gate
from tests.server.image_files import TEXT, crop, encode

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
def engine(gate: Gate, batcher: Batcher, pool: ThreadPoolExecutor, isolated: IsolatedDecoders) -> Engine:
    return Engine(gate, batcher, dict.fromkeys(Priority, pool), isolated, LIMITS)


@pytest.fixture(scope="module")
def isolated() -> Iterator[IsolatedDecoders]:
    decoders = IsolatedDecoders(2)
    yield decoders
    decoders.close()


def test_results_are_in_order_with_exactly_the_requested_details(gate: Gate, engine: Engine) -> None:
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
    (plain, _, _), (detailed, _, dark) = bare.results, full.results
    assert isinstance(plain, Embedding)
    assert isinstance(detailed, Embedding)
    assert isinstance(dark, Embedding)
    assert (plain.thumbnail, plain.warnings, plain.content) == (None, frozenset(), None)
    assert detailed.content == sha256(uploads[0]).hexdigest()
    assert detailed.thumbnail is not None
    assert CropWarning.TOO_DARK in dark.warnings
    np.testing.assert_array_equal(plain.vector, detailed.vector)


def test_empty_call_completes_immediately(engine: Engine) -> None:
    assert engine.submit([], [], Priority.QUERY).result(0).results == ()


def test_cancelled_call_drops_images_that_have_not_reached_the_model(
    gate: Gate, engine: Engine, batcher: Batcher, pool: ThreadPoolExecutor
) -> None:
    first = engine.submit([crop(1)], [None], Priority.QUERY)
    gate.entered.acquire()
    decoded = engine.submit([crop(2)], [None], Priority.QUERY)
    pool.submit(lambda: None).result(5)  # the only decoding thread has finished the image
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


def test_pending_calls_fail_when_batcher_or_decoders_end(
    gate: Gate, engine: Engine, batcher: Batcher, isolated: IsolatedDecoders
) -> None:
    with ThreadPoolExecutor(1) as pool:
        go = Event()
        pool.submit(go.wait)
        undecoded = Engine(gate, batcher, dict.fromkeys(Priority, pool), isolated, LIMITS).submit(
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


def test_unexpected_error_fails_the_call(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> object:
        raise ZeroDivisionError

    monkeypatch.setattr("server.embedding.engine.resize", broken)
    with pytest.raises(ZeroDivisionError):
        engine.submit([crop(1)], [None], Priority.QUERY).result(5)


def test_files_that_may_take_long_are_decoded_in_processes_and_simple_ones_are_not(
    gate: Gate, engine: Engine, isolated: IsolatedDecoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.go.release(100)
    sent: list[bytes] = []
    submit = isolated.submit

    def record(data: bytes, *arguments: Any, **limits: Any) -> Future[Pixels]:
        sent.append(data)
        return submit(data, *arguments, **limits)

    monkeypatch.setattr(isolated, "submit", record)
    person = draw_person(3, Modality.VISIBLE, size=(64, 32))
    simple = [encode(person), encode(person, "JPEG"), encode(person, "JPEG", subsampling="4:4:4")]
    others = [encode(person, kind) for kind in ("WEBP", "BMP", "TIFF", "GIF", "AVIF")]
    others += [encode(person, "JPEG", progressive=True)]
    outcome = engine.submit([*simple, *others], [None] * 9, Priority.QUERY, Detail).result(60)
    assert [type(result) for result in outcome.results] == [Embedding] * 9
    assert sent == others


def test_slow_image_does_not_delay_simple_ones(
    gate: Gate, engine: Engine, isolated: IsolatedDecoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.go.release(100)
    slow: Future[Pixels] = Future()
    monkeypatch.setattr(isolated, "submit", lambda *_, **__: slow)
    waiting = engine.submit([encode(draw_person(1, Modality.VISIBLE), "WEBP")], [None], Priority.QUERY)
    for identity in range(4):
        assert engine.submit([crop(identity)], [None], Priority.QUERY).result(5).results
    assert not waiting.done()
    slow.set_exception(ImageRejected("decoding the image takes longer than 3 s"))
    assert [type(result) for result in waiting.result(5).results] == [ImageRejected]
