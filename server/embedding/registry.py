"""The models of the model directory, loaded once at start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

from models.card import Precision
from models.cores import usable_cores
from server.domain.errors import ModelNotFound
from server.embedding.batcher import IMPORT_NICENESS, Batcher, CpuLanes, Priority
from server.embedding.engine import Engine, ImageLimits
from server.embedding.isolation import IsolatedDecoders
from server.embedding.providers import Gpu
from server.embedding.session import Embedder, ModelRefused, OnnxEmbedder
from server.hardware.cpu import lower_priority, schedule_as_batch

__all__ = ["PREFERRED", "Models", "load_embedders"]

PREFERRED = "baseline"
"""The default model if the directory contains it and the settings name none."""


def load_embedders(
    directory: Path,
    *,
    precision: Precision | Literal["auto"],
    device: str,
    threads: int | None,
    gpu: Gpu | None = None,
    callers: int = 1,
) -> dict[str, OnnxEmbedder]:
    """Load ``NAME/card.json`` and its graph for each NAME in ``directory`` onto one device; returns them by name.

    ``callers``: see :class:`OnnxEmbedder`.

    Raises:
        ModelRefused: the directory holds no model, or an invalid one.
    """
    folders = sorted(card.parent for card in directory.glob("*/card.json"))
    if not folders:
        raise ModelRefused(f"in {directory}", "it has no NAME/card.json; set VIREID_MODEL_DIR to a folder of models")
    embedders = {}
    for folder in folders:
        embedder = OnnxEmbedder(folder, precision, device, threads, gpu, callers)
        if embedder.card.name != folder.name:
            raise ModelRefused(folder.name, f"the folder and its card ({embedder.card.name}) must have the same name")
        embedders[folder.name] = embedder
    return embedders


def _decoders(priority: Priority) -> ThreadPoolExecutor:
    """Create the decoding threads of one priority.

    Imports have half as many as there are cores; with more, queries would wait for the interpreter lock.
    """
    imports = priority is Priority.IMPORT
    count = max(1, usable_cores() // 2) if imports else usable_cores()
    name = f"decode-{priority.name.lower()}"
    return ThreadPoolExecutor(count, name, partial(_set_scheduling, IMPORT_NICENESS if imports else 0))


def _set_scheduling(niceness: int) -> None:
    lower_priority(niceness)
    schedule_as_batch()


class Models:
    """The loaded models by name, with shared inference threads and decoding threads.

    ``devices`` has one mapping of embedders by name per device, all with the same models. ``lanes`` and ``observe``:
    see :class:`Batcher`.

    Raises:
        ModelRefused: the default model is not loaded, or is ambiguous.
    """

    def __init__(
        self,
        devices: Sequence[Mapping[str, Embedder]],
        default: str | None,
        limits: ImageLimits,
        observe: Callable[[str, int, float], None] | None = None,
        *,
        lanes: CpuLanes | None = None,
    ) -> None:
        embedders = devices[0]
        self.default = _default(embedders, default)
        self._decoders = {priority: _decoders(priority) for priority in Priority}
        self._isolated = IsolatedDecoders(usable_cores())
        self.batcher = Batcher(devices, observe, lanes=lanes)
        self._engines = {
            name: Engine(embedder, self.batcher, self._decoders, self._isolated, limits)
            for name, embedder in embedders.items()
        }

    def __iter__(self) -> Iterator[Engine]:
        return iter(self._engines.values())

    def get(self, name: str | None = None) -> Engine:
        """Return the model of that name, or the default model.

        Raises:
            ModelNotFound: no loaded model has that name.
        """
        try:
            return self._engines[name or self.default]
        except KeyError:
            raise ModelNotFound(name or self.default, list(self._engines)) from None

    def of_fingerprint(self, fingerprint: str) -> Engine | None:
        """Return the loaded model with those weights, whatever its name; None if there is none."""
        return next((engine for engine in self if engine.card.fingerprint == fingerprint), None)

    @property
    def decoding(self) -> int:
        """Number of images of queries that isolated decoders hold."""
        return self._isolated.waiting

    def problems(self) -> list[str]:
        """Return the reasons why images cannot be embedded; empty if they can."""
        return self.batcher.problems() + self._isolated.problems()

    def close(self) -> None:
        """Stop all threads; pending calls fail with ``NotReady``."""
        self._isolated.close()
        self.batcher.close()
        for pool in self._decoders.values():
            pool.shutdown(cancel_futures=True)


def _default(embedders: Mapping[str, Embedder], requested: str | None) -> str:
    name = requested
    if name is None:
        name = PREFERRED if PREFERRED in embedders or len(embedders) != 1 else next(iter(embedders))
    if name not in embedders:
        raise ModelRefused(name, f"not among the loaded ones ({', '.join(embedders)}); VIREID_MODEL names the default")
    return name
