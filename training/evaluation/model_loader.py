"""Loading of a network for evaluation: a run's ``model.pt``, or an exported model with its card."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from models.card import WORDING, Card, InputSpec, Precision, TrainingFacts
from training.checkpoint import Trained, fingerprint, load_trained
from training.config import TrainingConfig
from training.evaluation.embedder import Embed, graph_embedder, network_embedder
from training.evaluation.result import ModelInfo, Preprocessing, needs_wording

__all__ = ["LoadedModel", "load_model", "training_metadata"]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A network that embeds, and its description for results."""

    embed: Embed
    info: ModelInfo
    training: TrainingFacts
    config: TrainingConfig
    preprocessing: Preprocessing
    precision: str
    device: str
    identities: int | None
    """Number of identities it was trained on; None if unknown."""


def load_model(path: Path, precision: Precision = Precision.FP32) -> LoadedModel:
    """Load the ``model.pt`` in a run's folder, or the ``card.json`` and graph of an exported model.

    Raises:
        FileNotFoundError: the folder contains neither.
        ValueError: the exported model does not have the precision, or its file does not match the card.
    """
    if (path / "card.json").is_file():
        return _exported(path, precision)
    if (path / "model.pt").is_file():
        return _trained(path)
    raise FileNotFoundError(f"{path}: expected a run with model.pt, or an exported model with card.json")


def training_metadata(trained: Trained) -> TrainingFacts:
    """Return the training metadata of a run's network for its card."""
    return TrainingFacts(
        data=trained.sources,
        command=trained.command,
        commit=trained.environment.commit or "unknown",
        config=trained.config.model_dump(mode="json"),
        seed=trained.config.seed,
        epochs=trained.epoch,
        machine=f"{trained.environment.platform}, {trained.environment.device}",
    )


def _trained(run: Path) -> LoadedModel:
    trained = load_trained(run / "model.pt")
    network, size = trained.network, trained.config.input
    device: Literal["cuda", "cpu"] = "cuda" if torch.cuda.is_available() else "cpu"
    network.to(device)

    method = trained.config.method
    return LoadedModel(
        embed=network_embedder(network),
        info=ModelInfo(
            name=run.name,
            method=method,
            backbone=trained.config.backbone,
            parameters=network.inference_parameters(),
            dimension=network.dimension,
            checkpoints=(fingerprint(network),),
            epoch=trained.epoch,
            wording=WORDING if needs_wording(run.name, method) else "",
        ),
        training=training_metadata(trained),
        config=trained.config,
        preprocessing=_preprocessing(InputSpec(**size.model_dump()), network.trunk.mean, network.trunk.std),
        precision="fp32",
        device=device,
        identities=len(trained.labels),
    )


def _exported(folder: Path, precision: Precision) -> LoadedModel:
    card = Card.read(folder / "card.json")
    if precision not in card.precisions:
        raise ValueError(f"{folder}: expected one of {[p.value for p in card.precisions]}, found {precision}")
    variant = card.precisions[precision]
    content = (folder / variant.file).read_bytes()
    if hashlib.sha256(content).hexdigest() != variant.sha256:
        raise ValueError(f"{folder / variant.file}: does not match card.json (sha256 differs)")
    return LoadedModel(
        embed=graph_embedder(content, precision),
        info=ModelInfo(
            name=card.name,
            method=card.method,
            backbone=card.backbone,
            parameters=card.parameters,
            dimension=card.dimension,
            checkpoints=(card.fingerprint,),
            epoch=card.training.epochs,
            wording=card.wording,
        ),
        training=card.training,
        config=TrainingConfig.model_validate(card.training.config),
        preprocessing=_preprocessing(card.input, torch.zeros(3), torch.ones(3)),  # the graph normalises
        precision=precision.value,
        device="cpu",
        identities=None,
    )


def _preprocessing(spec: InputSpec, mean: torch.Tensor, std: torch.Tensor) -> Preprocessing:
    values = {"mean": tuple(mean.flatten().tolist()), "std": tuple(std.flatten().tolist())}
    return Preprocessing.model_validate(spec.model_dump() | values)
