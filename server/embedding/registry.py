"""Every model of the model directory, loaded once, at start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

from models.card import Precision
from server.embedding.batcher import IMPORTS_NICE, Batcher, Lanes, Priority
from server.embedding.cores import be_patient, give_way, usable_cores
from server.embedding.engine import Engine, ImageLimits
from server.embedding.providers import Gpu
from server.embedding.session import Embedder, ModelRefused, OnnxEmbedder
from server.errors import ModelNotFound

__all__ = ["PREFERRED", "Models", "load_embedders"]

PREFERRED = "mtrl-lite"
"""The default model where the directory has it and the settings name none."""


def load_embedders(
    directory: Path,
    *,
    precision: Precision | Literal["auto"],
    device: str,
    threads: int | None,
    gpu: Gpu | None = None,
    callers: int = 1,
) -> dict[str, OnnxEmbedder]:
    """Load ``NAME/card.json`` and its graph for each NAME in ``directory`` onto one device, by name.

    ``callers``: see :class:`OnnxEmbedder`.

    Raises:
        ModelRefused: the directory holds no model, or one of them is not what it must be.
    """
    folders = sorted(card.parent for card in directory.glob("*/card.json"))
    if not folders:
        raise ModelRefused(f"in {directory}", "no NAME/card.json there; set VIREID_MODEL_DIR to a folder of models")
    embedders = {}
    for folder in folders:
        embedder = OnnxEmbedder(folder, precision, device, threads, gpu, callers)
        if embedder.card.name != folder.name:
            raise ModelRefused(folder.name, f"the folder and its card ({embedder.card.name}) must have one name")
        embedders[folder.name] = embedder
    return embedders


def _decoders(priority: Priority) -> ThreadPoolExecutor:
    """Threads for one priority: for imports half as many as cores, or queries would wait for them to let Python go."""
    imports = priority is Priority.IMPORT
    count = max(1, usable_cores() // 2) if imports else usable_cores()
    return ThreadPoolExecutor(count, f"decode-{priority.name.lower()}", partial(_begin, IMPORTS_NICE if imports else 0))


def _begin(niceness: int) -> None:
    give_way(niceness)
    be_patient()


class Models:
    """Loaded models by name, over one inference thread for each device and pools of decoding threads.

    ``devices`` is what runs on each of them: embedders by name. All have the same models. ``lanes``: see
    :class:`Batcher`.

    ``observe(model, images, seconds)`` is called after each run of a model.

    Raises:
        ModelRefused: the default is none of them, or cannot be told.
    """

    def __init__(
        self,
        devices: Sequence[Mapping[str, Embedder]],
        default: str | None,
        limits: ImageLimits,
        observe: Callable[[str, int, float], None] | None = None,
        *,
        lanes: Lanes | None = None,
    ) -> None:
        embedders = devices[0]
        self.default = _default(embedders, default)
        self._decoders = {priority: _decoders(priority) for priority in Priority}
        self.batcher = Batcher(devices, observe, lanes=lanes)
        self._engines = {
            name: Engine(embedder, self.batcher, self._decoders, limits) for name, embedder in embedders.items()
        }

    def __iter__(self) -> Iterator[Engine]:
        return iter(self._engines.values())

    def get(self, name: str | None = None) -> Engine:
        """The model of that name; the default without one.

        Raises:
            ModelNotFound: no loaded model has that name.
        """
        try:
            return self._engines[name or self.default]
        except KeyError:
            raise ModelNotFound(name or self.default, list(self._engines)) from None

    def of_fingerprint(self, fingerprint: str) -> Engine | None:
        """The loaded model with those weights, whatever its name."""
        return next((engine for engine in self if engine.card.fingerprint == fingerprint), None)

    def close(self) -> None:
        """End every thread; whoever still waits gets ``NotReady``."""
        self.batcher.close()
        for pool in self._decoders.values():
            pool.shutdown(cancel_futures=True)


def _default(embedders: Mapping[str, Embedder], asked: str | None) -> str:
    if asked is None:
        asked = PREFERRED if PREFERRED in embedders or len(embedders) != 1 else next(iter(embedders))
    if asked not in embedders:
        raise ModelRefused(asked, f"not among the loaded ones ({', '.join(embedders)}); VIREID_MODEL names the default")
    return asked
