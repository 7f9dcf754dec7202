"""A tiny network and methods, which the tests register."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, ClassVar

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F

from models.baseline import Baseline, Output
from tests.drawing import write_people
from training.config import TrainingConfig
from training.data.augmentation import Stream
from training.data.cache import CropCache
from training.data.dataset import Batch, TrainingCrops, collate
from training.data.folder import read_folder
from training.data.records import label_of
from training.data.sampler import BalancedSampler
from training.losses import CrossEntropy
from training.methods import Method
from training.methods.baseline import Baseline as BaselineMethod
from training.trainer import train

SIZE = (32, 16)


class Toy(Baseline):
    """Two linear layers on coarse pixels, no batch norm. ``toy-dropout`` as backbone adds dropout."""

    def __init__(self, backbone: str, identities: int, weights: str | Path | None = None) -> None:
        nn.Module.__init__(self)
        self.trunk = nn.Linear(24, 12)  # type: ignore[assignment]
        self.dropout = nn.Dropout(0.3 if backbone == "toy-dropout" else 0.0)
        self.classifier = nn.Linear(12, identities)

    @property
    def dimension(self) -> int:
        return 12

    def forward(self, image: Tensor, modality: Tensor) -> Output:
        pixels = image.permute(0, 3, 1, 2).float() / 255 - 0.5 * modality.view(-1, 1, 1, 1)
        coarse = F.adaptive_avg_pool2d(pixels, (4, 2)).flatten(1)
        pooled = self.dropout(self.trunk(coarse))
        return Output(pooled, pooled, self.classifier(pooled))

    def embed(self, image: Tensor, modality: Tensor) -> Tensor:
        return F.normalize(self(image, modality).pooled.float(), dim=1)


class Classification(Method):
    """Only cross-entropy, whose mean over two batches is that of the joint batch."""

    streams: ClassVar[frozenset[Stream]] = frozenset({Stream.VISIBLE})

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        return {"id": CrossEntropy()(output.logits, batch.identities, batch.modalities)}


class Interrupted(Exception):
    """Represents any failure of a process."""


class Fragile(BaselineMethod):
    """The baseline until its ``fails_at``-th batch, which raises; from ``nan_at`` on its loss is NaN."""

    fails_at: ClassVar[int | None] = None
    nan_at: ClassVar[int | None] = None
    seen: ClassVar[int] = 0

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        Fragile.seen += 1
        if Fragile.seen == Fragile.fails_at:
            raise Interrupted
        terms = super().forward(output, batch)
        if Fragile.seen == Fragile.nan_at:
            terms["wrt"] = terms["wrt"] * torch.nan
        return terms


def toy_config(root: Path, **changes: Any) -> TrainingConfig:
    """Two epochs of a few batches of four draws, no validation."""
    values: dict[str, Any] = {
        "method": "toy",
        "backbone": "toy",
        "data": [{"kind": "folder", "root": root, "name": "drawn"}],
        "input": {"height": SIZE[0], "width": SIZE[1]},
        "batch": {"identities": 2, "images": 1},
        "schedule": {"kind": "steps", "warmup_epochs": 1, "milestones": [2]},
        "epochs": 2,
        "validation": {"share": 0, "every": 1},
        "workers": 0,
        "seed": 3,
    }
    return TrainingConfig.model_validate(values | changes)


def run(config: TrainingConfig, out: Path, **options: Any) -> Path:
    """Run ``train`` without output."""
    return train(config, out, console=Console(file=io.StringIO()), **options)


def run_on_people(root: Path) -> Path:
    """The run, under ``root``, of a barely trained network on drawn people, some of them held out."""
    config = toy_config(
        write_people(root / "people", range(12), images=2, size=(48, 24)),
        method="baseline",
        backbone="test_resnet",
        input={"height": 48, "width": 24},
        schedule={"kind": "cosine", "warmup_epochs": 0},
        batch={"identities": 2, "images": 2},
        epochs=1,
        validation={"share": 0.4, "seed": 1},
    )
    return run(config, root / "run", cache=root / "cache").parent


def drawn_batches(config: TrainingConfig, cache: Path, world_size: int = 1) -> list[list[list[Batch]]]:
    """The batches of the configuration by epoch, step and rank, computed without the trainer."""
    records = read_folder(config.data[0].root)
    size = (config.input.height, config.input.width)
    crops = TrainingCrops(
        records,
        CropCache.open(records, cache, size, config.input.resize),
        label_of(records),
        seed=config.seed,
        augmentation=config.augmentation.build(),
        visible_streams=[stream for stream in config.batch.streams if stream is not Stream.INFRARED],
    )
    epochs = []
    for epoch in range(config.epochs):
        shares = []
        for rank in range(world_size):
            sampler = BalancedSampler(
                records,
                config.batch.identities,
                config.batch.images,
                seed=config.seed,
                rank=rank,
                world_size=world_size,
            )
            sampler.set_epoch(epoch)
            shares.append([collate([crops[draw] for draw in draws]) for draws in sampler])
        epochs.append([list(of_ranks) for of_ranks in zip(*shares, strict=True)])
    return epochs


def joined(batches: list[Batch]) -> Batch:
    """Join the rows of all batches."""
    names = ("images", "identities", "modalities", "roles", "pairs")
    return Batch(*(torch.cat([getattr(batch, name) for batch in batches]) for name in names))
