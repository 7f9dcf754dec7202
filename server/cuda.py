"""What NVIDIA's driver is asked itself: FAISS and ONNX Runtime do not pass it on."""

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
    """Start CUDA in this process.

    Raises:
        RuntimeError: there is no driver, or it refuses.
    """
    _call("cuInit", 0)


def free_memory(gpu: int) -> int:
    """Bytes of a GPU's memory that nobody has taken.

    Raises:
        RuntimeError: there is no driver, or it refuses.
    """
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    with _current(gpu):
        _call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    return free.value


def page_locked(gpu: int, shape: tuple[int, ...], kind: type[_Number]) -> NDArray[_Number]:
    """Zeros in the host's memory, at a place where GPUs read and write themselves; freed with its last view.

    Raises:
        RuntimeError: there is no driver, or it refuses.
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
    """Have this thread's calls be about a GPU."""
    _call("cuCtxPushCurrent_v2", _context(gpu))
    try:
        yield
    finally:
        _call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))


@cache
def _context(gpu: int) -> ctypes.c_void_p:
    """The context that all of this process share on a GPU, held to the end: page-locked memory goes with it."""
    start_cuda()
    device, context = ctypes.c_int(), ctypes.c_void_p()
    _call("cuDeviceGet", ctypes.byref(device), gpu)
    _call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    return context


def _call(function: str, *arguments: Any) -> None:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise RuntimeError(f"there is no driver for NVIDIA GPUs: {error}") from error
    if status := getattr(driver, function)(*arguments):
        raise RuntimeError(f"the driver for NVIDIA GPUs refuses {function}: error {status}")
