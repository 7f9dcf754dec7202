"""The checks of ``vireid doctor``: machine, settings, models and data, each with what to do about a finding."""

from __future__ import annotations

import base64
import hashlib
import os
import platform
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from models.card import Precision
from vireid.cli.local_server import setting_errors
from vireid.client import ApiError, Client, ClientError

if TYPE_CHECKING:
    from server.embedding.session import OnnxEmbedder
    from server.settings import Settings

__all__ = ["Check", "Status", "run_checks"]

_DISK_NEEDED, _DISK_RECOMMENDED = 200 * 2**20, 2 * 2**30
_MEMORY_RECOMMENDED = 2**30
IDENTITY_GRAPH = base64.b64decode("CAg6LwoQCgF4EgF5IghJZGVudGl0eRIBaVoLCgF4EgYKBAgBEgBiCwoBeRIGCgQIARIAQgQKABAN")
"""A minimal ONNX graph that returns its input; a session with it shows which provider really runs."""


class Status(StrEnum):
    """Result of a check."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """What was checked, what was found, and what to do about it."""

    name: str
    status: Status
    found: str
    advice: str = ""


def run_checks() -> Iterator[Check]:
    """Yield every check, in the order in which failures should be fixed. Changes nothing."""
    yield Check("Python", Status.OK, f"{platform.python_version()}, {platform.system()} {platform.machine()}")
    installed = _installed()
    yield installed
    yield _training()
    if installed.status is Status.FAIL:
        return
    from server.settings import PREFIX, Settings

    try:
        settings = Settings()
    except ValidationError as error:
        for line in setting_errors(error):
            yield Check("settings", Status.FAIL, line, "correct or unset it in the environment")
        return
    changed = ", ".join(sorted(f"{PREFIX}{name}".upper() for name in settings.model_fields_set))
    yield Check("settings", Status.OK, changed or "all at their defaults")
    yield _onnxruntime(settings)
    yield _faiss()
    yield from _models(settings)
    yield from _data(settings)
    yield _port(settings)
    yield _processor(settings)
    yield _memory()


def _installed() -> Check:
    try:
        import server.app  # noqa: F401 - whether it can be imported is the question
    except ImportError as error:
        missing = f"{error.name} cannot be imported" if error.name else str(error)
        return Check("server", Status.FAIL, missing, "install vireid[cpu] or vireid[gpu]")
    return Check("server", Status.OK, f"vireid {version('vireid')}")


def _training() -> Check:
    try:
        return Check("training", Status.OK, f"torch {version('torch')}")
    except PackageNotFoundError:
        return Check("training", Status.OK, "not installed", "only to train or export: install vireid[training]")


def _onnxruntime(settings: Settings) -> Check:
    import onnxruntime

    from server.embedding.providers import CPU, each_device, one_device

    compiled = onnxruntime.get_available_providers()
    requested = one_device(each_device(settings.device)[0], compiled).provider
    if requested in compiled and requested != CPU:
        onnxruntime.preload_dlls()
    session = onnxruntime.InferenceSession(
        IDENTITY_GRAPH, providers=[n for n in dict.fromkeys((requested, CPU)) if n in compiled]
    )
    actual = session.get_providers()[0]
    found = f"{onnxruntime.__version__}; compiled in: {', '.join(map(_short, compiled))}; runs on {_short(actual)}"
    if requested == actual:
        return Check("onnxruntime", Status.OK, found)
    if settings.device == "auto":
        advice = "CUDA is compiled in but does not start: check the driver, or set VIREID_DEVICE=cpu"
        return Check("onnxruntime", Status.WARN, found, advice)
    advice = "install vireid[gpu] and a driver for CUDA 13, or set VIREID_DEVICE=cpu"
    return Check("onnxruntime", Status.FAIL, found, advice)


def _short(provider: str) -> str:
    return provider.removesuffix("ExecutionProvider")


def _faiss() -> Check:
    import faiss

    from server.index.exact import ExactIndex
    from server.index.protocol import FilterIgnored, check_filter

    try:
        check_filter(ExactIndex)
    except FilterIgnored as error:
        return Check("faiss", Status.FAIL, str(error), "install the build of faiss that vireid requires")
    return Check("faiss", Status.OK, f"{faiss.__version__}; obeys filters; {faiss.get_compile_options().strip()}")


def _models(settings: Settings) -> Iterator[Check]:
    from server.embedding.engine import ImageLimits
    from server.embedding.providers import Gpu, each_device
    from server.embedding.registry import Models
    from server.embedding.session import ModelRefused, OnnxEmbedder

    loaded: dict[str, OnnxEmbedder] = {}
    folders = sorted(card.parent for card in settings.model_dir.glob("*/card.json"))
    for folder in folders:
        started = time.monotonic()
        try:
            device = each_device(settings.device)[0]
            embedder = OnnxEmbedder(folder, settings.precision, device, settings.threads, Gpu(settings.gpu_memory))
        except ModelRefused as error:
            yield Check(f"model {folder.name}", Status.FAIL, error.reason, "export or copy it again")
            continue
        if embedder.card.name != folder.name:
            found = f"its card has the name {embedder.card.name}"
            yield Check(f"model {folder.name}", Status.FAIL, found, "rename the folder, or export with --name")
            continue
        loaded[folder.name] = embedder
        yield _variants(folder, embedder, time.monotonic() - started)
    if not folders:
        found = f"no NAME/card.json in {settings.model_dir}"
        yield Check("models", Status.FAIL, found, "set VIREID_MODEL_DIR to a folder of models")
    elif loaded:
        limits = ImageLimits(settings.max_image_bytes, settings.max_pixels)
        try:
            with closing(Models([dict(loaded)], settings.model, limits)) as models:
                yield Check("default model", Status.OK, models.default)
        except ModelRefused as error:
            yield Check("default model", Status.FAIL, str(error), "set VIREID_MODEL")


def _variants(folder: Path, embedder: OnnxEmbedder, seconds: float) -> Check:
    """Check the files of the precisions that are not loaded; loading has checked the other."""
    card, name = embedder.card, f"model {folder.name}"
    for precision, variant in card.precisions.items():
        try:
            digest = hashlib.sha256((folder / variant.file).read_bytes()).hexdigest()
        except OSError as error:
            return Check(name, Status.FAIL, f"{variant.file}: {error.strerror}", "export or copy it again")
        if digest != variant.sha256:
            found = f"{variant.file} ({precision}) differs from the file that the card names"
            return Check(name, Status.FAIL, found, "export or copy it again")
    files = ", ".join(card.precisions)
    provider = _short(embedder.provider)
    return Check(name, Status.OK, f"{files} intact; {embedder.precision} loaded on {provider} in {seconds:.1f} s")


def _data(settings: Settings) -> Iterator[Check]:
    from server.storage.directory_lock import DirectoryLock
    from server.storage.startup_errors import DirectoryLocked

    folder = settings.data_dir
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    writable = _writable(existing)
    if not existing.is_dir() or not writable:
        found = f"{existing} cannot be written to" if existing.is_dir() else f"{existing} is not a folder"
        yield Check("data directory", Status.FAIL, found, "set VIREID_DATA_DIR to a folder that you may write to")
        return
    found = str(folder) if folder.exists() else f"{folder}, will be created at the first start"
    yield Check("data directory", Status.OK, found)
    yield _disk(existing)
    database = folder / "vireid.db"
    if not database.exists():
        yield Check("database", Status.OK, "none yet")
        return
    try:
        with DirectoryLock(folder):
            yield _database(database)
    except DirectoryLocked as error:
        found = f"in use by process {error.pid}" if error.pid else "in use"
        yield Check("database", Status.OK, f"{found}, a running server; not opened")


def _writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    found = f"{free / 2**30:,.1f} GiB free"
    if free < _DISK_NEEDED:
        return Check("disk", Status.FAIL, found, "free some space, or set VIREID_DATA_DIR to another disk")
    if free < _DISK_RECOMMENDED:
        return Check("disk", Status.WARN, found, "the server refuses writes when it is full")
    return Check("disk", Status.OK, found)


def _database(path: Path) -> Check:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            (finding,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if finding != "ok":
                return Check("database", Status.FAIL, finding, "copy it, then restore a backup")
            (galleries,) = connection.execute("SELECT count(*) FROM galleries").fetchone()
            (items,) = connection.execute("SELECT count(*) FROM items").fetchone()
    except sqlite3.Error as error:
        return Check("database", Status.FAIL, str(error), "copy it, then restore a backup")
    return Check(
        "database", Status.OK, f"intact; {galleries} galleries, {items:,} items, {path.stat().st_size:,} bytes"
    )


def _port(settings: Settings) -> Check:
    from server.runner import bind

    address = f"{settings.host}:{settings.port}"
    try:
        bind(settings.host, settings.port).close()
    except OSError as error:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        if settings.port and _answers(f"http://{host}:{settings.port}"):
            return Check("port", Status.OK, f"a vireid server answers at {address}")
        advice = "set VIREID_HOST and VIREID_PORT to a free address"
        return Check("port", Status.FAIL, f"{address}: {error.strerror}", advice)
    return Check("port", Status.OK, f"{address} is free")


def _answers(url: str) -> bool:
    try:
        with Client(url, timeout=2) as client:
            return bool(client.ready().version)
    except ApiError as error:  # not ready, but a vireid server
        return error.problem.type.startswith("/problems/")
    except ClientError:
        return False


def _processor(settings: Settings) -> Check:
    from models.cores import usable_cores
    from server.hardware.cpu_features import has_bfloat_tiles, vnni_flags

    found = f"{usable_cores()} of {os.cpu_count()} cores"
    fast = vnni_flags() | ({"amx_bf16"} if has_bfloat_tiles() else set())
    if fast or platform.machine() != "x86_64":
        return Check("processor", Status.OK, f"{found}{'; ' if fast else ''}{', '.join(sorted(fast))}")
    found += "; no VNNI: int8 is slower and less accurate here"
    if settings.precision is Precision.INT8:
        return Check("processor", Status.WARN, found, "set VIREID_PRECISION=fp32")
    return Check("processor", Status.OK, found)


def _memory() -> Check:
    sources: tuple[Callable[[], int], ...] = (_free_on_machine, _free_in_container)
    free = []
    for source in sources:
        try:
            free.append(source())
        except (OSError, ValueError, StopIteration):  # another system, or no limit
            continue
    if not free:
        return Check("memory", Status.OK, "unknown on this system")
    found = f"{min(free) / 2**30:,.1f} GiB free"
    if min(free) < _MEMORY_RECOMMENDED:
        return Check("memory", Status.WARN, found, "a model needs some hundred MiB, a million items 2 to 8 GiB")
    return Check("memory", Status.OK, found)


def _free_on_machine() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable:")))


def _free_in_container(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    return int((cgroup / "memory.max").read_text()) - int((cgroup / "memory.current").read_text())
