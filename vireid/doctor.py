"""Looks at this machine, its settings, models and data, and says what stands in the way of a server."""

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
from vireid.client import ApiError, Client, ClientError

if TYPE_CHECKING:
    from server.embedding.session import OnnxEmbedder
    from server.settings import Settings

__all__ = ["Check", "Status", "examine", "faults"]

_DISK_NEEDED, _DISK_WANTED = 200 * 2**20, 2 * 2**30
_MEMORY_WANTED = 2**30
IDENTITY = base64.b64decode("CAg6LwoQCgF4EgF5IghJZGVudGl0eRIBaVoLCgF4EgYKBAgBEgBiCwoBeRIGCgQIARIAQgQKABAN")
"""The smallest ONNX graph: one number in, the same out. Tells which provider really runs."""


class Status(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, what was found, and what to do about it."""

    name: str
    status: Status
    found: str
    advice: str = ""


def examine() -> Iterator[Check]:
    """Every check, in an order in which the first failure is the one to mend first. Changes nothing."""
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
        for fault in faults(error):
            yield Check("settings", Status.FAIL, fault, "correct or unset it in the environment")
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


def faults(error: ValidationError) -> list[str]:
    """What is wrong with the settings, each in one line with the name of its variable."""
    from server.settings import PREFIX

    return [
        "".join(f"{PREFIX}{name}: ".upper() for name in fault["loc"][:1]) + fault["msg"].removeprefix("Value error, ")
        for fault in error.errors()
    ]


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
    wanted = one_device(each_device(settings.device)[0], compiled).provider
    if wanted in compiled and wanted != CPU:
        onnxruntime.preload_dlls()
    session = onnxruntime.InferenceSession(
        IDENTITY, providers=[n for n in dict.fromkeys((wanted, CPU)) if n in compiled]
    )
    actual = session.get_providers()[0]
    found = f"{onnxruntime.__version__}; compiled in: {', '.join(map(_short, compiled))}; runs on {_short(actual)}"
    if wanted == actual:
        return Check("onnxruntime", Status.OK, found)
    if settings.device == "auto":
        advice = "CUDA is compiled in but does not start: check the driver; VIREID_DEVICE=cuda refuses to start without"
        return Check("onnxruntime", Status.WARN, found, advice)
    advice = "install vireid[gpu] and a driver of the CUDA 13 generation, or set VIREID_DEVICE=cpu"
    return Check("onnxruntime", Status.FAIL, found, advice)


def _short(provider: str) -> str:
    return provider.removesuffix("ExecutionProvider")


def _faiss() -> Check:
    import faiss

    from server.gallery.flat import FaissFlat
    from server.gallery.index import FilterIgnored, check_filter

    try:
        check_filter(FaissFlat)
    except FilterIgnored as error:
        return Check("faiss", Status.FAIL, str(error), "install the build of faiss that vireid asks for")
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
            found = f"its card calls it {embedder.card.name}"
            yield Check(f"model {folder.name}", Status.FAIL, found, "give folder and card one name")
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
    """The loaded precision was checked by loading it; the files of the others are checked here."""
    card, name = embedder.card, f"model {folder.name}"
    for precision, variant in card.precisions.items():
        try:
            digest = hashlib.sha256((folder / variant.file).read_bytes()).hexdigest()
        except OSError as error:
            return Check(name, Status.FAIL, f"{variant.file}: {error.strerror}", "export or copy it again")
        if digest != variant.sha256:
            found = f"{variant.file} ({precision}) is not the file that the card names"
            return Check(name, Status.FAIL, found, "export or copy it again")
    files = ", ".join(card.precisions)
    provider = _short(embedder.provider)
    return Check(name, Status.OK, f"{files} sound; {embedder.precision} loaded on {provider} in {seconds:.1f} s")


def _data(settings: Settings) -> Iterator[Check]:
    from server.gallery.lock import DirectoryLock
    from server.gallery.refused import DirectoryLocked

    folder = settings.data_dir
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    writable = _writable(place)
    if not place.is_dir() or not writable:
        found = f"{place} cannot be written" if place.is_dir() else f"{place} is no folder"
        yield Check("data directory", Status.FAIL, found, "set VIREID_DATA_DIR to a folder of your own")
        return
    made = str(folder) if folder.exists() else f"{folder}, made at the first start"
    yield Check("data directory", Status.OK, made)
    yield _disk(place)
    database = folder / "vireid.db"
    if not database.exists():
        yield Check("database", Status.OK, "none yet")
        return
    try:
        with DirectoryLock(folder):
            yield _database(database)
    except DirectoryLocked as error:
        found = f"in use by process {error.pid}" if error.pid else "in use"
        yield Check("database", Status.OK, f"{found}, a running server; not looked into")


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
        return Check("disk", Status.FAIL, found, "make room, or set VIREID_DATA_DIR elsewhere")
    if free < _DISK_WANTED:
        return Check("disk", Status.WARN, found, "writes are refused when it is full")
    return Check("disk", Status.OK, found)


def _database(path: Path) -> Check:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            (finding,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if finding != "ok":
                return Check("database", Status.FAIL, finding, "keep a copy, then restore a backup")
            (galleries,) = connection.execute("SELECT count(*) FROM galleries").fetchone()
            (items,) = connection.execute("SELECT count(*) FROM items").fetchone()
    except sqlite3.Error as error:
        return Check("database", Status.FAIL, str(error), "keep a copy, then restore a backup")
    return Check("database", Status.OK, f"sound; {galleries} galleries, {items:,} items, {path.stat().st_size:,} bytes")


def _port(settings: Settings) -> Check:
    from vireid.hosting import listen

    place = f"{settings.host}:{settings.port}"
    try:
        listen(settings.host, settings.port).close()
    except OSError as error:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        if settings.port and _answers(f"http://{host}:{settings.port}"):
            return Check("port", Status.OK, f"a vireid server answers at {place}")
        advice = "set VIREID_HOST and VIREID_PORT to a free address"
        return Check("port", Status.FAIL, f"{place}: {error.strerror}", advice)
    return Check("port", Status.OK, f"{place} is free")


def _answers(url: str) -> bool:
    try:
        with Client(url, timeout=2) as client:
            return bool(client.ready().version)
    except ApiError as error:  # not ready, and says so
        return error.problem.type.startswith("urn:vireid:")
    except ClientError:
        return False


def _processor(settings: Settings) -> Check:
    from server.embedding.cores import usable_cores
    from server.embedding.processor import has_bfloat_tiles, vnni_flags

    found = f"{usable_cores()} of {os.cpu_count()} cores"
    fast = vnni_flags() | ({"amx_bf16"} if has_bfloat_tiles() else set())
    if fast or platform.machine() != "x86_64":
        return Check("processor", Status.OK, f"{found}{'; ' if fast else ''}{', '.join(sorted(fast))}")
    found += "; no VNNI: int8 is slower here, and less exact"
    if settings.precision is Precision.INT8:
        return Check("processor", Status.WARN, found, "set VIREID_PRECISION=fp32")
    return Check("processor", Status.OK, found)


def _memory() -> Check:
    sources: tuple[Callable[[], int], ...] = (_free_of_machine, _free_of_container)
    free = []
    for source in sources:
        try:
            free.append(source())
        except (OSError, ValueError, StopIteration):  # not this system, or no limit
            continue
    if not free:
        return Check("memory", Status.OK, "unknown on this system")
    found = f"{min(free) / 2**30:,.1f} GiB free"
    if min(free) < _MEMORY_WANTED:
        return Check("memory", Status.WARN, found, "a model needs some hundred MiB, a million items 2 to 8 GiB")
    return Check("memory", Status.OK, found)


def _free_of_machine() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable:")))


def _free_of_container(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    return int((cgroup / "memory.max").read_text()) - int((cgroup / "memory.current").read_text())
