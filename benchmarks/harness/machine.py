"""Description of the machine and software that produced the figures."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.cores import usable_cores

__all__ = ["ROOT", "available_bytes", "describe", "read_bandwidth"]

ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = (
    *("onnxruntime", "onnxruntime-gpu", "faiss-cpu", "faiss-gpu-cuvs"),  # the environment has one of each pair
    *("numpy", "pillow", "fastapi", "uvicorn"),
)
_PROBE = 2**30  # bytes: larger than any cache, and equal to the vectors of the compared search


def describe() -> dict[str, Any]:
    """Return processor, memory, versions, commit, date and load."""
    return {
        "processor": _processor(),
        "cores": usable_cores(),
        "memory_gib": round(_meminfo("MemTotal") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "packages": _versions(),
        "commit": _commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "load_before": round(os.getloadavg()[0], 1),
    }


def available_bytes() -> int:
    """Return the memory available to a new process."""
    return _meminfo("MemAvailable")


def read_bandwidth(seconds: float = 0.5) -> float:
    """Return the bytes per second that all cores together read from memory, the better of two methods.

    The methods are ``memchr`` for an absent byte and NumPy's sum of 64-bit numbers; which is faster depends on the
    processor. Neither writes to memory or holds the interpreter lock.

    Raises:
        RuntimeError: a method did not read everything.
    """
    cores = usable_cores()
    parts = np.array_split(np.ones(_PROBE // 8, np.uint64), cores)
    memchr = ctypes.CDLL(None).memchr
    memchr.argtypes, memchr.restype = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t), ctypes.c_void_p

    def search(part: NDArray[np.uint64]) -> bool:
        return memchr(part.ctypes.data, 2, part.nbytes) is None

    def add(part: NDArray[np.uint64]) -> bool:
        return int(np.add.reduce(part)) == len(part)

    best, end = 0.0, time.perf_counter() + seconds
    with ThreadPoolExecutor(cores) as pool:
        while time.perf_counter() < end:
            for way in (search, add):
                started = time.perf_counter()
                if not all(pool.map(way, parts)):
                    raise RuntimeError(f"the probe's {way.__name__} has not seen all of it")
                best = max(best, _PROBE / (time.perf_counter() - started))
    return best


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    fields = dict(line.split("\t", 1) for line in lines if "\t" in line)
    name = fields.get("model name", platform.machine()).strip("\t: ")
    flags = fields.get("flags", "").split()
    return f"{name}, {'AVX-512 VNNI' if 'avx512_vnni' in flags else 'no AVX-512 VNNI'}"


def _meminfo(name: str) -> int:
    lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _commit() -> str:
    """Return the commit, and whether the working tree differs from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    short = git("rev-parse", "--short", "HEAD") or "unknown"
    return f"{short}, with changes" if git("status", "--porcelain", "--untracked-files=no") else short
