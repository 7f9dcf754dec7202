"""Decoding in processes: same results, and limits that are enforced from outside."""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.card import Modality
from server.domain.errors import ImageRejected, ImageTooLarge, ImageTypeUnsupported, NotReady
from server.embedding import isolation
from server.embedding.batcher import Priority
from server.embedding.decode import Pixels, decode_image
from server.embedding.isolation import IsolatedDecoders
from tests.drawing import draw_person
from tests.server.image_files import TEXT, encode, giant_png, truncated

PERSON = draw_person(7, Modality.VISIBLE, size=(96, 48))
LIMIT = 25_000_000
KINDS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")


@pytest.fixture
def decoders() -> Iterator[IsolatedDecoders]:
    decoders = IsolatedDecoders(2)
    yield decoders
    decoders.close()


def submit(
    decoders: IsolatedDecoders, data: bytes, priority: Priority = Priority.QUERY, limit: int = LIMIT
) -> Future[Pixels]:
    return decoders.submit(data, priority, max_pixels=limit, percentiles=(1.0, 99.0))


def processes(decoders: IsolatedDecoders) -> list[int]:
    return [worker._process.pid for worker in decoders._workers._by_thread.values() if worker._process]


def running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_results_are_those_of_decoding_in_this_process(decoders: IsolatedDecoders) -> None:
    files = [encode(PERSON, kind) for kind in KINDS]
    files += [
        encode(Image.fromarray(PERSON[..., 0].astype(np.uint16) * 9)),
        encode(np.tile(PERSON, (20, 40, 1)), "WEBP"),
    ]
    for priority in Priority:
        for file, future in [(file, submit(decoders, file, priority)) for file in files]:
            np.testing.assert_array_equal(future.result(60), decode_image(file, max_pixels=LIMIT))


@pytest.mark.parametrize(
    ("data", "error"),
    [(truncated(), ImageRejected), (giant_png(12_000, 8_000), ImageTooLarge), (TEXT, ImageTypeUnsupported)],
)
def test_errors_keep_type_and_reason(decoders: IsolatedDecoders, data: bytes, error: type[ImageRejected]) -> None:
    with pytest.raises(ImageRejected) as expected:
        decode_image(data, max_pixels=LIMIT)
    with pytest.raises(ImageRejected) as found:
        submit(decoders, data).result(60)
    assert (type(found.value), found.value.reason) == (error, expected.value.reason)


def test_decoding_that_takes_too_long_is_ended_and_the_next_image_is_decoded(
    decoders: IsolatedDecoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(decoders, encode(PERSON)).result(60)
    before = processes(decoders)
    with monkeypatch.context() as patch:
        patch.setattr(isolation, "time_limit", lambda _: 0.001)
        slow = encode(
            np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), np.uint8), "WEBP", lossless=True, method=0
        )
        for _ in range(3):
            with pytest.raises(ImageRejected, match="takes longer than"):
                submit(decoders, slow).result(60)
    np.testing.assert_array_equal(submit(decoders, encode(PERSON)).result(60), PERSON)
    assert any(not running(pid) for pid in before) or not set(before) & set(processes(decoders))


def test_time_limit_grows_with_the_pixels() -> None:
    assert isolation.time_limit(0) == 4
    assert isolation.time_limit(LIMIT) == 14


def test_killed_process_fails_its_image_and_is_replaced(decoders: IsolatedDecoders) -> None:
    for _ in range(3):
        submit(decoders, encode(PERSON)).result(60)
        for pid in processes(decoders):
            os.kill(pid, signal.SIGKILL)
        for _ in range(2):  # one for each process of small images
            error = submit(decoders, encode(PERSON)).exception(60)
            assert error is None or isinstance(error, ImageRejected)
        np.testing.assert_array_equal(submit(decoders, encode(PERSON)).result(60), PERSON)


def test_memory_of_decoding_is_limited(decoders: IsolatedDecoders) -> None:
    out = io.BytesIO()
    Image.new("F", (8_900, 8_900)).save(out, "TIFF", compression="tiff_adobe_deflate")
    with pytest.raises(ImageRejected, match="too much memory"):
        submit(decoders, out.getvalue(), limit=80_000_000).result(120)
    np.testing.assert_array_equal(submit(decoders, encode(PERSON)).result(60), PERSON)


def test_large_images_do_not_delay_small_ones(decoders: IsolatedDecoders) -> None:
    submit(decoders, encode(PERSON)).result(60)
    large = encode(np.tile(PERSON, (40, 80, 1)), "WEBP", quality=10, method=0)
    futures = [submit(decoders, large) for _ in range(4)]
    np.testing.assert_array_equal(submit(decoders, encode(PERSON)).result(60), PERSON)
    assert not futures[-1].done()
    assert all(future.result(60).shape == (3840, 3840, 3) for future in futures)


def test_stalled_decoding_is_reported_until_it_ends(
    decoders: IsolatedDecoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert decoders.problems() == []
    monkeypatch.setattr(isolation, "STALL_S", 0.0)
    waiting = submit(decoders, encode(PERSON))  # a process has to start
    imported = submit(decoders, encode(PERSON), Priority.IMPORT)
    time.sleep(0.01)
    (problem,) = decoders.problems()
    assert problem.startswith("image decoding is stalled: 1 images wait, none was decoded for")
    waiting.result(60)
    imported.result(60)
    assert decoders.problems() == []


def test_close_ends_processes_and_fails_pending_images() -> None:
    decoders = IsolatedDecoders(2)
    submit(decoders, encode(PERSON)).result(60)
    pids = processes(decoders)
    large = encode(np.tile(PERSON, (40, 80, 1)), "WEBP", quality=10, method=0)
    pending = [submit(decoders, large) for _ in range(6)]
    time.sleep(0.3)
    started = time.monotonic()
    decoders.close()
    assert time.monotonic() - started < 5
    assert not any(map(running, pids))
    for future in pending[-3:]:
        assert future.cancelled() or isinstance(future.exception(5), NotReady)


def test_failure_to_start_a_process_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    decoders = IsolatedDecoders(2)
    with monkeypatch.context() as patch:
        patch.setattr(isolation.sys, "executable", "/nonexistent/python")
        with pytest.raises(NotReady):
            submit(decoders, encode(PERSON)).result(60)
        assert decoders.problems() == ["the processes that decode images cannot be started: FileNotFoundError"]
    submit(decoders, encode(PERSON)).result(60)
    assert decoders.problems() == []
    decoders.close()


def test_processes_get_no_secrets_and_no_signals_of_the_terminal(
    decoders: IsolatedDecoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIREID_SECRET", "secret")
    submit(decoders, encode(PERSON)).result(60)
    (pid, *_) = processes(decoders)
    assert b"secret" not in Path(f"/proc/{pid}/environ").read_bytes()
    assert os.getpgid(pid) != os.getpgid(0)


def test_processes_are_replaced_after_many_images(decoders: IsolatedDecoders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "_IMAGES_PER_PROCESS", 2)
    seen = set()
    for _ in range(6):
        submit(decoders, encode(PERSON)).result(60)
        seen |= set(processes(decoders))
    assert len(processes(decoders)) <= 2
    assert all(not running(pid) for pid in seen - set(processes(decoders)))
