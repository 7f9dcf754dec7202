"""Direct calls to the NVIDIA driver for what FAISS and ONNX Runtime do not expose."""

from __future__ import annotations

import ctypes
import math
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["free_memory", "page_locked", "start_cuda"]

_Number = TypeVar("_Number", bound=np.generic)


def start_cuda() -> None:
    """Initialise CUDA in this process.

    Raises:
        RuntimeError: there is no driver, or it reports an error.
    """
    _call("cuInit", 0)


def free_memory(gpu: int) -> int:
    """Return the free bytes of a GPU's memory.

    Raises:
        RuntimeError: there is no driver, or it reports an error.
    """
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    with _current(gpu):
        _call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    return free.value


def page_locked(gpu: int, shape: tuple[int, ...], kind: type[_Number]) -> NDArray[_Number]:
    """Return zeros in page-locked host memory, which GPUs access directly; it is freed with the last view.

    Raises:
        RuntimeError: there is no driver, or it reports an error.
    """
    size, address = math.prod(shape) * np.dtype(kind).itemsize, ctypes.c_void_p()
    with _current(gpu):
        _call("cuMemHostAlloc", ctypes.byref(address), ctypes.c_size_t(size), 0)
    memory = (ctypes.c_ubyte * size).from_address(address.value or 0)
    weakref.finalize(memory, _free, gpu, address).atexit = False
    array = np.ctypeslib.as_array(memory).view(kind).reshape(shape)
    array.fill(0)
    return array


def _free(gpu: int, address: ctypes.c_void_p) -> None:
    with _current(gpu):
        _call("cuMemFreeHost", address)


@contextmanager
def _current(gpu: int) -> Iterator[None]:
    """Make a GPU's context current in this thread for the duration of the block."""
    _call("cuCtxPushCurrent_v2", _context(gpu))
    try:
        yield
    finally:
        _call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))


@cache
def _context(gpu: int) -> ctypes.c_void_p:
    """Return the process's shared context on a GPU. It is never released, because page-locked memory depends on it."""
    start_cuda()
    device, context = ctypes.c_int(), ctypes.c_void_p()
    _call("cuDeviceGet", ctypes.byref(device), gpu)
    _call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    return context


def _call(function: str, *arguments: Any) -> None:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise RuntimeError(f"no driver for NVIDIA GPUs: {error}") from error
    if status := getattr(driver, function)(*arguments):
        raise RuntimeError(f"the driver for NVIDIA GPUs rejected {function}: error {status}")
