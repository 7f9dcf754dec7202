"""Augmented views of cached crops, and the batches made of them."""

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
    """One picture on its way into a batch."""

    image: Pixels
    identity: int
    stream: Stream
    source: int
    """Place of the draw in its epoch: v and t of one draw share it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """B pictures and what each of them is. No order is promised: use the labels."""

    images: Tensor
    """uint8 RGB ``[B, H, W, 3]``."""
    identities: Tensor
    """Labels, int64 ``[B]``."""
    modalities: Tensor
    """Stem of each picture, int64 ``[B]``: 0 visible, 1 infrared."""
    roles: Tensor
    """int64 ``[B]``: 0 V, 1 R, 2 T (``Role``)."""
    pairs: Tensor
    """int64 ``[B]``: a transition picture and its visible source share a value ≥ 0; -1 for all others."""
    targets: Tensor | None = None
    """Embeddings that the network at the start of the run gave the crops, ``[B, D]``, for a method that retains them;
    rows of zeros where it gave none."""

    def __len__(self) -> int:
        return len(self.identities)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory; ``DataLoader`` calls this when asked to pin."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(tensor) for name, tensor in tensors.items() if tensor is not None})


class TrainingCrops(Dataset[list[View]]):
    """The augmented views of a drawn record.

    A visible record gives one view for each of ``visible_streams``, an infrared one a single view of the stream
    r; the infrared picture of a translated record is translated from its visible file first. Each view draws its
    own crop and flip, except t, which takes those of v. What is drawn follows from (seed, epoch, place, row)
    alone: the number of workers changes nothing.

    Raises:
        ValueError: ``visible_streams`` is empty, holds the stream r, or holds t without v; or a record's identity
            has no label.
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
            raise ValueError(f"expected streams made of visible pictures, got {[*visible_streams]}")
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
    """What is judged: (uint8 RGB ``[H, W, 3]``, modality index) of record ``index``, without augmentation.

    Imitated infrared is translated by file name. With ``misaligned`` every infrared picture is mirrored and cut
    by file name (``mirror_and_recrop``), the form in which real aligned pairs count.
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
    """One batch of the views of all draws."""
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
    """Loader that yields a ``Batch`` for each batch of the sampler; it leaves torch's global generator alone."""
    return DataLoader(
        crops,
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
        generator=torch.Generator().manual_seed(crops.seed),
    )
