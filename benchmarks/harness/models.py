"""The measured models: the light model of the zoo, and a ResNet-50 with random weights.

    python -m benchmarks.harness.models FOLDER

creates that ResNet-50 at 288 × 144, exported and quantised like any model. It runs in a separate process, so that
PyTorch's threads do not affect the measurement.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.harness.machine import ROOT
from models.card import Card, InputSpec, Modality, Precision, TrainingFacts, Variant
from server.hardware.cpu_features import bfloat_is_fast
from vireid.drawing import draw_person

__all__ = ["CACHE", "LIGHT", "file_of", "precisions_of", "resnet50"]

CACHE = ROOT / ".cache" / "benchmarks"
LIGHT = ROOT / "models" / "zoo" / "baseline-lite"
_CALIBRATION = 12
"""People whose crops the ranges of int8 are measured on."""


def resnet50() -> Path:
    """Return the folder of the ResNet-50; create it if it does not exist."""
    folder = CACHE / "models" / "resnet50"
    if not (folder / "card.json").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", __spec__.name, str(folder)], cwd=ROOT, check=True)
    return folder


def precisions_of(folder: Path) -> list[Precision]:
    """Return the model's precisions that this CPU supports."""
    there = {*Card.read(folder / "card.json").precisions} - {Precision.BF16}
    if bfloat_is_fast():
        there.add(Precision.BF16)
    return [precision for precision in (Precision.FP32, Precision.BF16, Precision.INT8) if precision in there]


def file_of(folder: Path, precision: Precision) -> Path:
    """Return the graph file that a precision runs."""
    files = Card.read(folder / "card.json").precisions
    return folder / files[Precision.FP32 if precision is Precision.BF16 else precision].file


def _create(folder: Path) -> None:
    import torch

    from models.registry import build
    from training.checkpoint import fingerprint
    from training.export.fp16 import to_fp16
    from training.export.int8 import Crops, Quantiser
    from training.export.onnx import export, random_crops
    from training.export.precision_variants import write_variant

    torch.manual_seed(0)
    network = build("baseline", "resnet50", 2).eval()
    card = Card(
        name=folder.name,
        method="baseline",
        backbone="resnet50",
        version="random",
        fingerprint=fingerprint(network),
        input=InputSpec(height=288, width=144, resize="bilinear"),
        dimension=network.dimension,
        parameters=network.inference_parameters(),
        precisions={},
        training=TrainingFacts(data=(), command="", commit="", config={}, seed=0, epochs=0, machine=""),
        intended_use="benchmarks",
        limits="random weights",
    )
    with TemporaryDirectory(dir=folder.parent) as scratch:  # complete or absent
        exported = Path(scratch) / folder.name
        export(network, card, exported, random_crops(4, 288, 144))
        images = [
            draw_person(person, modality, size=(288, 144)) for person in range(_CALIBRATION) for modality in Modality
        ]
        crops = Crops(np.stack(images), np.tile([modality.index for modality in Modality], _CALIBRATION))
        exact = (exported / "model.onnx").read_bytes()
        rounded = Quantiser(exact, crops, Path(scratch)).quantise()
        for precision, graph in {Precision.INT8: rounded, Precision.FP16: to_fp16(exact)}.items():
            variant = Variant(file=f"model.{precision}.onnx", sha256=hashlib.sha256(graph).hexdigest())
            write_variant(exported, precision, graph, variant)
        exported.rename(folder)


if __name__ == "__main__":
    _create(Path(sys.argv[1]))
