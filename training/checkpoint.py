"""Files of a run: its checkpoint for resuming, and the trained network."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.baseline import Baseline
from models.card import Card, DataSource, Precision
from models.fused import Fused
from models.graph_weights import read_weights
from models.registry import build
from training.config import TrainingConfig
from training.environment import Environment
from training.methods import build_method

__all__ = ["Trained", "config_differences", "fingerprint", "load_trained", "start_from"]

FREE_TO_CHANGE = frozenset({"workers", "checkpoint_minutes"})
"""Configuration keys that do not affect results, so they may differ when a run is resumed."""
_SHARED = frozenset({"trunk", "pool", "neck"})
"""Parts that every network has."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained network and its metadata."""

    network: Baseline
    config: TrainingConfig
    labels: dict[str, int]
    """Label of each training identity."""
    held_out: tuple[str, ...]
    """Identities that were held out of training."""
    sources: tuple[DataSource, ...]
    epoch: int
    """Number of epochs of training."""
    metrics: dict[str, float]
    """Metrics of the validation after that epoch; empty without validation."""
    command: str
    """Command that started or last resumed the run."""
    environment: Environment


def load_trained(path: Path) -> Trained:
    """Read a network written by :func:`training.trainer.train`, in evaluation mode on the CPU.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not such a file.
    """
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or "network" not in state or "metrics" not in state:
        raise ValueError(f"{path}: not a trained network; expected the model.pt of a run")
    config = TrainingConfig.model_validate(state["config"])
    structure = build_method(config.method, config.options).structure()
    classes = len(state["network"]["classifier.weight"])
    network = build(config.method, config.backbone, classes, **structure)
    network.load_state_dict(state["network"])
    return Trained(
        network=network.eval(),
        config=config,
        labels=state["labels"],
        held_out=tuple(state["held_out"]),
        sources=tuple(DataSource.model_validate(source) for source in state["sources"]),
        epoch=state["epoch"],
        metrics=state["metrics"],
        command=state["command"],
        environment=Environment.model_validate(state["environment"]),
    )


def fingerprint(network: Baseline | Fused) -> str:
    """Return the sha256 over name, type, shape and bytes of every tensor that an embedding uses."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if not name.startswith(network.training_only):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def start_from(network: Baseline, path: Path) -> None:
    """Give ``network`` the weights of another; parts that only one of them has stay as they are.

    ``path``: ``model.pt`` of another run, or the folder of an exported model.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is another kind of file, a part that both have has another shape, or an exported graph does not
            name all weights of trunk and head.
    """
    own = network.state_dict()
    stored = _exported_weights(path, own) if path.is_dir() else load_trained(path).network.state_dict()
    common = stored.keys() & own.keys()
    if different := sorted(name for name in common if stored[name].shape != own[name].shape):
        raise ValueError(
            f"{path} does not fit: {different[0]} is {list(stored[different[0]].shape)} there and "
            f"{list(own[different[0]].shape)} here; backbone, data and validation must be the same"
        )
    network.load_state_dict({name: stored[name] for name in common}, strict=False)


def _exported_weights(folder: Path, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    file = folder / Card.read(folder / "card.json").precisions[Precision.FP32].file
    given = read_weights(file)
    if missing := sorted(name for name in own if name.split(".")[0] in _SHARED and name not in given):
        raise ValueError(
            f"{file}: {len(missing)} weights are not there by name, first {missing[0]}: expected a graph of an OSNet "
            "as `vireid export` writes it (it folds the batch norms of other backbones); start from the model.pt of "
            "its run"
        )
    return {name: given[name].reshape(tensor.shape) for name, tensor in own.items() if name in given}


def config_differences(stored: Mapping[str, Any], config: TrainingConfig) -> list[str]:
    """Return the dotted keys, with both values, in which a stored configuration differs and that affect results."""
    current = TrainingConfig.model_validate(stored)  # replaces former names of keys
    old, new = _flat(current.model_dump(mode="json")), _flat(config.model_dump(mode="json"))
    return [
        f"{key}: {old.get(key)!r} before, {new.get(key)!r} now"
        for key in sorted(old.keys() | new.keys())
        if key not in FREE_TO_CHANGE and old.get(key) != new.get(key)
    ]


def _flat(tree: Any, key: str = "") -> dict[str, Any]:
    parts = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list) else None
    if parts is None:
        return {key: tree}
    return {k: v for name, part in parts for k, v in _flat(part, f"{key}.{name}" if key else str(name)).items()}
