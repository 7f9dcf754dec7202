"""Data sets of augmented and plain crops, and batches of augmented views."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from models.card import Modality
from training.data.augmentation import Augmentation, Geometry, Stream
from training.data.cache import CropCache
from training.data.images import Pixels
from training.data.misalignment import mirror_and_recrop
from training.data.records import Record
from training.data.sampler import BalancedSampler, Draw
from training.data.translator import Translator, require_translator, translate_by_name

__all__ = ["Batch", "PlainCrops", "TrainingCrops", "View", "batches", "collate"]


class View(NamedTuple):
    """One augmented image of a batch."""

    image: Pixels
    identity: int
    stream: Stream
    source: int
    """Position of the draw in its epoch: v and t of one draw share it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """B images and their labels, in any order."""

    images: Tensor
    """uint8 RGB ``[B, H, W, 3]``."""
    identities: Tensor
    """Labels, int64 ``[B]``."""
    modalities: Tensor
    """Modality whose stem each image uses, int64 ``[B]``: 0 visible, 1 infrared."""
    roles: Tensor
    """int64 ``[B]``: 0 V, 1 R, 2 T (``Role``)."""
    pairs: Tensor
    """int64 ``[B]``: a transition image and its visible source share a value ≥ 0; -1 for all others."""
    targets: Tensor | None = None
    """Embeddings of the crops by the network at the start of the run, ``[B, D]``, for a method with ``needs_targets``;
    rows of zeros for crops without one."""

    def __len__(self) -> int:
        return len(self.identities)

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory; ``DataLoader`` calls this with ``pin_memory``."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(tensor) for name, tensor in tensors.items() if tensor is not None})


class TrainingCrops(Dataset[list[View]]):
    """The augmented views of the drawn records.

    A visible record has one view for each of ``visible_streams``, an infrared one a single view in stream r; the
    infrared image of a translated record is first translated from its visible file. Each view has a random crop and
    flip, except t, which uses those of v. Random numbers depend only on (seed, epoch, place, row), not on the number of
    workers.

    Raises:
        ValueError: ``visible_streams`` is empty, contains stream r, or t without v; or an identity has no label.
    """

    def __init__(
        self,
        records: Sequence[Record],
        cache: CropCache,
        labels: dict[str, int],
        *,
        seed: int,
        augmentation: Augmentation | None = None,
        visible_streams: Sequence[Stream] = (Stream.VISIBLE, Stream.EXCHANGED),
    ) -> None:
        if not visible_streams or Stream.INFRARED in visible_streams:
            raise ValueError(f"expected streams made of visible images, got {[*visible_streams]}")
        if Stream.TRANSITION in visible_streams and Stream.VISIBLE not in visible_streams:
            raise ValueError("the transition stream needs the visible stream beside it")
        if unknown := sorted({r.identity for r in records} - labels.keys()):
            raise ValueError(f"{len(unknown)} identities without a label, first {unknown[0]!r}")
        self.records = tuple(records)
        self.cache = cache
        self.labels = labels
        self.seed = seed
        self.augmentation = augmentation or Augmentation()
        # v before t: t takes v's geometry
        self.visible_streams = tuple(sorted(visible_streams, key=list(Stream).index))

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, draw: Draw) -> list[View]:
        record = self.records[draw.row]
        rng = np.random.default_rng((self.seed, draw.epoch, draw.place, draw.row))
        image = self.cache[record]
        if record.translated:
            image = require_translator(self.augmentation.training_translator or self.augmentation.translator)(
                image, rng
            )
        streams = self.visible_streams if record.modality is Modality.VISIBLE else (Stream.INFRARED,)
        geometries: dict[Stream, Geometry] = {}
        views = []
        for stream in streams:
            if stream is Stream.TRANSITION:
                geometry = geometries[Stream.VISIBLE]
            else:
                geometry = geometries[stream] = self.augmentation.draw_geometry(image.shape, rng)
            pixels = self.augmentation.view(image, stream, geometry, rng)
            views.append(View(pixels, self.labels[record.identity], stream, draw.place))
        return views


class PlainCrops(Dataset[tuple[Pixels, int]]):
    """Crops for evaluation, without augmentation: (uint8 RGB ``[H, W, 3]``, modality index) of record ``index``.

    Infrared images that do not exist are translated from visible ones, seeded by file name. With ``misaligned`` every
    infrared image is mirrored and cut (``mirror_and_recrop``), as is done for aligned pairs.
    """

    def __init__(
        self,
        records: Sequence[Record],
        cache: CropCache,
        *,
        misaligned: bool = False,
        translator: Translator | None = None,
    ) -> None:
        self.records = tuple(records)
        self.cache = cache
        self.misaligned = misaligned
        self.translator = translator

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[Pixels, int]:
        record = self.records[index]
        image = np.array(self.cache[record])
        if record.translated:
            image = translate_by_name(image, record.path.name, require_translator(self.translator))
        if self.misaligned and record.modality is Modality.INFRARED:
            image = mirror_and_recrop(image, record.path.name)
        return image, record.modality.index


def collate(draws: Sequence[Sequence[View]]) -> Batch:
    """Join the views of all draws to one batch."""
    views = [view for draw in draws for view in draw]
    paired = {view.source for view in views if view.stream is Stream.TRANSITION}
    pairs = [
        view.source if view.source in paired and view.stream in (Stream.VISIBLE, Stream.TRANSITION) else -1
        for view in views
    ]
    return Batch(
        images=torch.from_numpy(np.stack([view.image for view in views])),
        identities=torch.tensor([view.identity for view in views]),
        modalities=torch.tensor([view.stream.stem.index for view in views]),
        roles=torch.tensor([int(view.stream.role) for view in views]),
        pairs=torch.tensor(pairs),
    )


def batches(
    crops: TrainingCrops, sampler: BalancedSampler, *, workers: int, pin_memory: bool = False
) -> DataLoader[list[View]]:
    """Return a loader that yields a ``Batch`` for each batch of the sampler, without using torch's global generator."""
    return DataLoader(
        crops,
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
        generator=torch.Generator().manual_seed(crops.seed),
    )
