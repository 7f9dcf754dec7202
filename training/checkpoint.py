"""Files of a run: the checkpoint it goes on from, and the trained network it gives out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models.baseline import Baseline
from models.card import DataSource
from models.fused import Fused
from models.registry import build
from training.config import TrainingConfig
from training.environment import Environment
from training.methods import build_method

__all__ = ["Trained", "config_differences", "fingerprint", "load_trained", "start_from"]

FREE_TO_CHANGE = frozenset({"workers", "checkpoint_minutes"})
"""Keys of a configuration that change no result, and so may differ when a run goes on."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained network and what is known of it."""

    network: Baseline
    config: TrainingConfig
    labels: dict[str, int]
    """Label of each training identity."""
    held_out: tuple[str, ...]
    """Identities kept out of training."""
    sources: tuple[DataSource, ...]
    epoch: int
    """How many epochs it was trained."""
    metrics: dict[str, float]
    """Of the validation after that epoch; empty without one."""
    command: str
    """What started the run, or went on with it."""
    environment: Environment


def load_trained(path: Path) -> Trained:
    """Read the file that :func:`training.trainer.train` gives out; the network is in evaluation mode on the CPU.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is another kind of file.
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
    """sha256 over name, type, shape and bytes of every tensor that takes part in an embedding."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if not name.startswith(network.training_only):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def start_from(network: Baseline, path: Path) -> None:
    """Give ``network`` the weights of another run's ``model.pt``; parts that only one of them has stay as they are.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is another kind of file, or a part that both have has another shape.
    """
    given = load_trained(path).network.state_dict()
    own = network.state_dict()
    common = given.keys() & own.keys()
    if different := sorted(name for name in common if given[name].shape != own[name].shape):
        raise ValueError(
            f"{path} does not fit: {different[0]} is {list(given[different[0]].shape)} there and "
            f"{list(own[different[0]].shape)} here; backbone, data and validation must be the same"
        )
    network.load_state_dict({name: given[name] for name in common}, strict=False)


def config_differences(stored: Mapping[str, Any], config: TrainingConfig) -> list[str]:
    """Dotted keys, each with both values, in which a stored configuration differs in a way that matters."""
    known = TrainingConfig.model_validate(stored)  # so that former names of keys are no difference
    old, new = _flat(known.model_dump(mode="json")), _flat(config.model_dump(mode="json"))
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
