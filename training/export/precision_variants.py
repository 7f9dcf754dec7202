"""The int8 and fp16 files of an exported model: made, measured against fp32 on kept-out people, put into its card."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from models.card import Card, Modality, Precision, Variant
from training.data.cache import CropCache
from training.data.dataset import PlainCrops
from training.data.records import Record
from training.evaluation.embedder import graph_embedder
from training.evaluation.embeddings import Vectors
from training.evaluation.evaluator import EvaluationSet, embed, held_out_sets
from training.evaluation.model_loader import LoadedModel, load_model
from training.evaluation.run import run
from training.export.fp16 import to_fp16
from training.export.int8 import Crops, Quantiser
from training.files import write_atomically

__all__ = ["add_variant", "write_variant"]

CALIBRATION = 128
"""Training crops that the ranges of activations are measured on, half of them of each modality."""
LAYERS_IN_FLOAT = (0, 1, 2, 4, 8, 16)
"""How many of the most sensitive layers are tried in float, until the loss is small enough."""


@dataclass(frozen=True, slots=True)
class _Measured:
    """Vectors of the crops of every set, and how well they rank: means over all queries of all protocols."""

    vectors: tuple[Vectors, ...]
    rank1: float
    mean_ap: float


def add_variant(
    folder: Path,
    precision: Precision,
    cache: Path,
    on: Sequence[EvaluationSet] = (),
    say: Callable[[str], None] = lambda _: None,
) -> Variant:
    """Make the file of that precision in the folder of an exported model and enter it, with its loss, in the card.

    For bf16 that is the fp32 file, which is run in another way.

    The loss is measured on the identities that the model's training kept out, or on the sets ``on``. Of int8 the most
    sensitive layers are left in float, more of them until the loss can be accepted (:attr:`Variant.accepted`); if it
    never can, the best file found is written. ``cache``: folder for decoded crops. ``say`` is told what goes on.

    Raises:
        OSError: the model, or the data that it was trained on, is not there.
        ValueError: fp32 is asked for, the graph is not an exported one, or there is nothing to judge on.
    """
    if precision is Precision.FP32:
        raise ValueError("fp32 is what a model is exported in: expected int8, fp16 or bf16")
    exported = Card.read(folder / "card.json").precisions[Precision.FP32]
    model = load_model(folder)
    sets = tuple(on) or tuple(held_out_sets(model.config))
    if not sets:
        raise ValueError(f"{folder} kept no identities out of training: name a data set with --on")
    exact = _measure(model, sets, cache)
    best: tuple[bytes, Variant] | None = None
    for graph, in_float in _candidates(folder, precision, model, cache):
        measured = _measure(replace(model, embed=graph_embedder(graph, precision)), sets, cache)
        variant = Variant(
            file=exported.file if precision is Precision.BF16 else f"model.{precision}.onnx",
            sha256=hashlib.sha256(graph).hexdigest(),
            weights=exported.weights if precision is Precision.BF16 else "float32",
            rank1_change=measured.rank1 - exact.rank1,
            map_change=measured.mean_ap - exact.mean_ap,
            cosine=_mean_cosine(exact.vectors, measured.vectors),
            in_float=tuple(in_float),
        )
        say(
            f"{precision} with {len(in_float)} layers in float: Rank-1 {variant.rank1_change:+.4f}, "
            f"mAP {variant.map_change:+.4f}, mean cosine with fp32 {variant.cosine:.4f}"
        )
        if best is None or variant.loss < best[1].loss:
            best = graph, variant
        if variant.accepted:
            break
    assert best is not None  # noqa: S101 - there is a first candidate
    write_variant(folder, precision, *best)
    return best[1]


def write_variant(folder: Path, precision: Precision, graph: bytes, variant: Variant) -> None:
    """Write the file, and then the card that names it."""
    card = Card.read(folder / "card.json")
    write_atomically(folder / variant.file, graph)
    card.model_copy(update={"precisions": card.precisions | {precision: variant}}).write(folder / "card.json")


def _candidates(
    folder: Path, precision: Precision, model: LoadedModel, cache: Path
) -> Iterator[tuple[bytes, Sequence[str]]]:
    """Graphs and their layers in float, the fastest first."""
    exported = (folder / Card.read(folder / "card.json").precisions[Precision.FP32].file).read_bytes()
    if precision is Precision.BF16:
        yield exported, ()
        return
    if precision is Precision.FP16:
        yield to_fp16(exported), ()
        return
    with TemporaryDirectory() as scratch:
        quantiser = Quantiser(exported, _calibration_crops(model, cache), Path(scratch))
        yield quantiser.quantise(), ()
        sensitive = quantiser.most_sensitive()
        for count in LAYERS_IN_FLOAT[1:]:
            yield quantiser.quantise(in_float=sensitive[:count]), sensitive[:count]


def _calibration_crops(model: LoadedModel, cache: Path) -> Crops:
    """Training crops, drawn evenly over the identities, visible and infrared in turn."""
    records = model.config.read_data().train
    sides = [_evenly([r for r in records if r.modality is modality], CALIBRATION // 2) for modality in Modality]
    chosen = [record for pair in zip(*sides, strict=False) for record in pair]
    size = model.preprocessing
    opened = CropCache.open(chosen, cache, (size.height, size.width), size.resize)
    crops = PlainCrops(chosen, opened, translator=model.config.augmentation.translator.build())
    images, modalities = zip(*(crops[i] for i in range(len(crops))), strict=True)
    return Crops(np.stack(images), np.array(modalities, np.int64))


def _evenly(records: Sequence[Record], count: int) -> list[Record]:
    ordered = sorted(records, key=lambda record: (record.identity, record.path.name))
    places: NDArray[np.int64] = np.linspace(0, len(ordered) - 1, min(count, len(ordered))).round().astype(np.int64)
    return [ordered[place] for place in places]


def _measure(model: LoadedModel, sets: Sequence[EvaluationSet], cache: Path) -> _Measured:
    vectors = tuple(embed(model, data, cache) for data in sets)
    found = [
        metrics
        for data, of_set in zip(sets, vectors, strict=True)
        for protocol in data.protocols
        for metrics in run(protocol, data.records, of_set, permutation=data.permutation).metrics
    ]
    weights = [metrics.valid_queries for metrics in found]
    return _Measured(
        vectors,
        rank1=float(np.average([metrics.rank1 for metrics in found], weights=weights)),
        mean_ap=float(np.average([metrics.mean_ap for metrics in found], weights=weights)),
    )


def _mean_cosine(exact: Sequence[Vectors], others: Sequence[Vectors]) -> float:
    return float((np.concatenate(exact) * np.concatenate(others)).sum(1).mean())
