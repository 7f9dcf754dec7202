"""The int8, fp16 and bf16 variants of an exported model: written, compared with fp32, and recorded in its card."""

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
"""Number of training crops for measuring the ranges of activations, half of them of each modality."""
LAYERS_IN_FLOAT = (0, 1, 2, 4, 8, 16)
"""Numbers of the most sensitive layers that are tried in float, until the loss is acceptable."""


@dataclass(frozen=True, slots=True)
class _Measured:
    """Embeddings of the crops of every set, and their metrics: means over all queries of all protocols."""

    vectors: tuple[Vectors, ...]
    rank1: float
    mean_ap: float


def add_variant(
    folder: Path,
    precision: Precision,
    cache: Path,
    on: Sequence[EvaluationSet] = (),
    say: Callable[[str], None] = lambda _: None,
    in_float: Sequence[str] = (),
) -> Variant:
    """Write the file of a precision to the folder of an exported model and record it, with its loss, in the card.

    The file of bf16 is the fp32 file, which is run in another mode.

    The loss is measured on the held-out identities of the training, or on the sets ``on``. For int8 an increasing
    number of the most sensitive layers is left in float until the loss is acceptable (:attr:`Variant.accepted`); if it
    never is, the best file is written. ``cache``: folder for decoded crops. ``say`` is called with progress messages.
    ``in_float``: parts of the network that int8 leaves in float from the beginning, such as ``trunk.stages.0``.

    Raises:
        OSError: the model or its training data are missing.
        ValueError: the precision is fp32, the graph is not an exported one, there is no data to evaluate on, or
            ``in_float`` names no part.
    """
    if in_float and precision is not Precision.INT8:
        raise ValueError(f"parts in float are for int8: {precision} has none")
    if precision is Precision.FP32:
        raise ValueError("a model is exported in fp32 already: expected int8, fp16 or bf16")
    exported = Card.read(folder / "card.json").precisions[Precision.FP32]
    model = load_model(folder)
    sets = tuple(on) or tuple(held_out_sets(model.config))
    if not sets:
        raise ValueError(f"{folder} has no held-out identities: name a data set with --on")
    exact = _measure(model, sets, cache)
    best: tuple[bytes, Variant] | None = None
    for graph, layers in _candidates(folder, precision, model, cache, in_float):
        measured = _measure(replace(model, embed=graph_embedder(graph, precision)), sets, cache)
        variant = Variant(
            file=exported.file if precision is Precision.BF16 else f"model.{precision}.onnx",
            sha256=hashlib.sha256(graph).hexdigest(),
            weights=exported.weights if precision is Precision.BF16 else "float32",
            rank1_change=measured.rank1 - exact.rank1,
            map_change=measured.mean_ap - exact.mean_ap,
            cosine=_mean_cosine(exact.vectors, measured.vectors),
            in_float=tuple(layers),
        )
        say(
            f"{precision} with {len(layers)} layers in float: Rank-1 {variant.rank1_change:+.4f}, "
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
    """Write the file, then the card that refers to it."""
    card = Card.read(folder / "card.json")
    write_atomically(folder / variant.file, graph)
    card.model_copy(update={"precisions": card.precisions | {precision: variant}}).write(folder / "card.json")


def _candidates(
    folder: Path, precision: Precision, model: LoadedModel, cache: Path, in_float: Sequence[str]
) -> Iterator[tuple[bytes, Sequence[str]]]:
    """Yield graphs and their layers in float, the fastest first."""
    exported = (folder / Card.read(folder / "card.json").precisions[Precision.FP32].file).read_bytes()
    if precision is Precision.BF16:
        yield exported, ()
        return
    if precision is Precision.FP16:
        yield to_fp16(exported), ()
        return
    with TemporaryDirectory() as scratch:
        quantiser = Quantiser(exported, _calibration_crops(model, cache), Path(scratch))
        fixed = [layer for part in in_float for layer in quantiser.layers_of(part)]
        yield quantiser.quantise(in_float=fixed), fixed
        sensitive = [layer for layer in quantiser.most_sensitive() if layer not in fixed]
        for count in LAYERS_IN_FLOAT[1:]:
            chosen = [*fixed, *sensitive[:count]]
            yield quantiser.quantise(in_float=chosen), chosen


def _calibration_crops(model: LoadedModel, cache: Path) -> Crops:
    """Return training crops, evenly spread over the identities, visible and infrared alternating."""
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
