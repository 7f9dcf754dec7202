"""Calls to the NVIDIA driver, checked with a fake driver."""
# ruff: noqa: N802

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from server.hardware import cuda

GPU, CONTEXT, FREE = 3, 77, 2**33


class Driver:
    """A fake ``libcuda.so.1`` with host memory; it checks that calls happen in the right context."""

    def __init__(self) -> None:
        self.started, self.current, self.status = False, 0, 0
        self.allocated: dict[int, Any] = {}

    def cuInit(self, flags: int) -> int:
        self.started = True
        return self.status

    def cuDeviceGet(self, device: Any, number: int) -> int:
        assert self.started
        device._obj.value = number
        return 0

    def cuDevicePrimaryCtxRetain(self, context: Any, device: ctypes.c_int) -> int:
        assert device.value == GPU
        context._obj.value = CONTEXT
        return 0

    def cuCtxPushCurrent_v2(self, context: ctypes.c_void_p) -> int:
        assert context.value == CONTEXT
        self.current += 1
        return 0

    def cuCtxPopCurrent_v2(self, context: Any) -> int:
        self.current -= 1
        return 0

    def cuMemGetInfo_v2(self, free: Any, total: Any) -> int:
        assert self.current == 1
        free._obj.value, total._obj.value = FREE, 2 * FREE
        return self.status

    def cuMemHostAlloc(self, address: Any, size: ctypes.c_size_t, flags: int) -> int:
        assert self.current == 1
        memory = ctypes.create_string_buffer(b"\xff" * size.value, size.value)
        address._obj.value = ctypes.addressof(memory)
        self.allocated[ctypes.addressof(memory)] = memory
        return 0

    def cuMemFreeHost(self, address: ctypes.c_void_p) -> int:
        assert self.current == 1
        del self.allocated[address.value or 0]
        return 0


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    driver = Driver()
    cuda._context.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    yield driver
    assert driver.current == 0
    cuda._context.cache_clear()


def test_free_memory_is_read_from_the_driver(driver: Driver) -> None:
    assert cuda.free_memory(GPU) == FREE


def test_page_locked_memory_is_zeroed_and_freed_with_its_last_view(driver: Driver) -> None:
    array = cuda.page_locked(GPU, (4, 3, 2), np.int64)
    np.testing.assert_array_equal(array, np.zeros((4, 3, 2), np.int64), strict=True)
    ((address, memory),) = driver.allocated.items()
    assert (array.ctypes.data, array.nbytes) == (address, len(memory))
    assert array.flags.c_contiguous
    array[1] = 5
    view = array[1:2]
    del array
    assert driver.allocated
    assert (view == 5).all()
    del view
    assert not driver.allocated


def test_driver_errors_are_reported(driver: Driver) -> None:
    driver.status = 2
    with pytest.raises(RuntimeError, match="rejected cuInit: error 2"):
        cuda.free_memory(GPU)
    driver.status = 0
    cuda.start_cuda()
    cuda.free_memory(GPU)
    driver.status = 999
    with pytest.raises(RuntimeError, match="rejected cuMemGetInfo_v2: error 999"):
        cuda.free_memory(GPU)


def test_missing_driver_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(RuntimeError, match=r"no driver for NVIDIA GPUs: libcuda\.so\.1"):
        cuda.start_cuda()
