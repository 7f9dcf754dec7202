"""Evaluation of a network on labelled crops: choose protocols, embed every image once, measure each protocol."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.card import Calibration, Modality
from training.config import TrainingConfig
from training.data import llcm, regdb, sysu_mm01
from training.data.cache import CropCache
from training.data.dataset import PlainCrops
from training.data.records import Record
from training.data.sources import LLCM, Folder, Manifest, Pairs, RegDB, Source, SysuMM01
from training.data.training_data import read_source
from training.data.translator import Translator
from training.environment import Environment
from training.evaluation import protocol as protocols
from training.evaluation.embedder import embed_crops
from training.evaluation.embeddings import Embeddings
from training.evaluation.exclusion import Exclusion, crosses_visible_cameras, usual_exclusion
from training.evaluation.model_loader import LoadedModel
from training.evaluation.protocol import Dataset, Direction, Mode, Protocol, check_training, custom
from training.evaluation.rerank import KReciprocal
from training.evaluation.result import Data, Result, data_fingerprint
from training.evaluation.run import measure_open_set, run
from training.evaluation.sampling import Permutation
from training.evaluation.verification import PeopleCounts, calibrate, count_pairs
from training.translation.channel import ChannelTranslation

__all__ = [
    "EvaluationSet",
    "calibrations",
    "embed",
    "evaluate_model",
    "evaluation_set",
    "grey_sets",
    "held_out_sets",
    "open_crops",
]


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """Labelled crops of both modalities and the protocols for their evaluation."""

    name: str
    root: Path
    records: tuple[Record, ...]
    protocols: tuple[Protocol, ...]
    permutation: Permutation | None = None
    misaligned: bool = False
    """Whether infrared crops are mirrored and cut, so that aligned pairs cannot be matched by their outline."""
    translator: Translator = field(default_factory=ChannelTranslation)
    """Translates visible crops for translated records."""


def held_out_sets(config: TrainingConfig) -> list[EvaluationSet]:
    """Return an evaluation set of the held-out identities of each data set of a configuration, in both directions."""
    return [
        EvaluationSet(
            name=f"{part.name}, held-out identities" + (", mirrored and re-cropped" if part.misaligned else ""),
            root=source.root,
            records=part.records,
            protocols=_both_ways(part.records),
            misaligned=part.misaligned,
            translator=config.augmentation.translator.build(),
        )
        for part in config.read_data().held_out
        for source in config.data
        if source.name == part.name
    ]


def grey_sets(config: TrainingConfig) -> list[EvaluationSet]:
    """Visible queries, grey gallery, across cameras: held-out identities of the data sets whose infrared is translated.

    Grey is luma, without the gamma and the stretch of a translation. It goes through the infrared stem and stands for
    near infrared at its easiest: what a network that knows people by visible crops should be able to match.
    """
    grey = ChannelTranslation(luma=1, gamma=(1, 1), percentiles=None)
    across = (custom(Direction.VIS_TO_IR, Exclusion.SAME_ID_SAME_CAM),)
    return [
        replace(data, name=f"{data.name}, grey", protocols=across, translator=grey)
        for data in held_out_sets(config)
        if any(record.translated for record in data.records) and crosses_visible_cameras(data.records)
    ]


def evaluation_set(source: Source, *, misaligned: bool = False, presets: Sequence[str] = ()) -> EvaluationSet:
    """Read the test split of a published data set, or all of a folder, a manifest or pairs.

    ``presets``: ids of the protocols for the evaluation; none: the usual ones of the data set.

    Raises:
        OSError: a part of the data set is missing.
        ValueError: it is malformed, or has no such preset.
    """
    data = _test_part(source, misaligned)
    return replace(data, protocols=tuple(_preset(name, source) for name in presets)) if presets else data


def _preset(name: str, source: Source) -> Protocol:
    rules = {SysuMM01: Dataset.SYSU, RegDB: Dataset.REGDB, LLCM: Dataset.LLCM}.get(type(source), Dataset.CUSTOM)
    fitting = {key: preset for key, preset in protocols.presets().items() if preset.dataset is rules}
    if name not in fitting:
        raise ValueError(f"unknown preset {name!r} for {source.kind}: expected one of {', '.join(sorted(fitting))}")
    return fitting[name].changed(train_ids=source.identities) if isinstance(source, SysuMM01) else fitting[name]


def _test_part(source: Source, misaligned: bool) -> EvaluationSet:
    match source:
        case SysuMM01():
            records = [r for m in Modality for r in sysu_mm01.evaluation_records(source.root, m)]
            chosen = tuple(protocols.sysu(mode, train_ids=source.identities) for mode in Mode)
            cells = sysu_mm01.permutation(source.root / "exp" / "rand_perm_cam.mat")
            return EvaluationSet(source.name, source.root, tuple(records), chosen, cells)
        case RegDB():
            records = [r for m in Modality for r in regdb.evaluation_records(source.root, source.trial, m)]
            chosen = tuple(protocols.regdb(direction, source.trial) for direction in protocols.CROSS_MODALITY)
        case LLCM():
            records = [r for m in Modality for r in llcm.evaluation_records(source.root, m)]
            chosen = tuple(protocols.llcm(direction) for direction in protocols.CROSS_MODALITY)
        case Folder() | Manifest() | Pairs():
            records = read_source(source)
            chosen = _both_ways(records)
    name = f"{source.name}, mirrored and re-cropped" if misaligned else source.name
    return EvaluationSet(name, source.root, tuple(records), chosen, misaligned=misaligned)


def open_crops(model: LoadedModel, data: EvaluationSet, cache: Path) -> PlainCrops:
    """Open the crops of a set in the input size of the model, with the indices of its records."""
    size = model.preprocessing
    opened = CropCache.open(data.records, cache, (size.height, size.width), size.resize)
    return PlainCrops(data.records, opened, misaligned=data.misaligned, translator=data.translator)


def embed(model: LoadedModel, data: EvaluationSet, cache: Path, *, mirrored: bool = False) -> NDArray[np.float32]:
    """Embed every crop of a set or its mirror image: unit vectors float32 ``[N, D]``."""
    return embed_crops(model.embed, open_crops(model, data, cache), mirrored=mirrored)


def evaluate_model(
    model: LoadedModel,
    data: EvaluationSet,
    cache: Path,
    command: str,
    *,
    flip: bool = False,
    rerank: KReciprocal | None = None,
) -> list[Result]:
    """Measure every protocol of the set; every image is embedded once, through the stem of its modality.

    Args:
        cache: folder for decoded crops.
        command: command line, stored in the results.
        flip: average the vectors of each image and of its mirror image.
        rerank: k-reciprocal re-ranking, which gives a separate result beside the plain one.

    Raises:
        ProtocolError: the network was trained on another split than the protocol requires.
        ValueError: a trial has no valid query.
    """
    for protocol in data.protocols:
        check_training(protocol, _split_trained_on(model.config, protocol))
    started = time.monotonic()
    vectors = embed(model, data, cache)
    mirrored = embed(model, data, cache, mirrored=True) if flip else None
    results = []
    for protocol, method in product(data.protocols, (None, rerank) if rerank else (None,)):
        variant = protocol.changed(flip=flip, rerank=method.model_dump() if method else None)
        outcome = run(variant, data.records, vectors, mirrored=mirrored, permutation=data.permutation)
        open_set = None
        if method is None:
            open_set = measure_open_set(variant, data.records, vectors, mirrored=mirrored, permutation=data.permutation)
        results.append(
            Result.of(
                variant,
                outcome,
                data=_describe(model, data),
                model=model.info,
                training=model.training,
                preprocessing=model.preprocessing,
                environment=Environment.here(model.device, model.precision),
                command=command,
                seconds=time.monotonic() - started,
                open_set=open_set,
            )
        )
    return results


def calibrations(model: LoadedModel, data: EvaluationSet, cache: Path) -> list[Calibration]:
    """Calibrate the scores of each modality pair on the impostor pairs of the set.

    Raises:
        ValueError: a modality is missing, or there are too few pairs.
    """
    images = Embeddings.of(embed(model, data, cache), data.records)
    sides = {m: images.take(np.flatnonzero(images.modalities == m.index)) for m in Modality}
    translated = {record.modality for record in data.records if record.translated}
    return [
        calibrate(
            count_pairs(sides[query], sides[gallery]).impostor,
            query,
            gallery,
            data.name,
            real=translated.isdisjoint((query, gallery)),
            people=PeopleCounts(sides[query], sides[gallery]),
        )
        for query, gallery in product(Modality, Modality)
    ]


def _both_ways(records: Sequence[Record]) -> tuple[Protocol, ...]:
    """Return protocols in both directions, and across visible cameras if an identity was seen by two."""
    exclusion = usual_exclusion(records)
    both = tuple(custom(direction, exclusion) for direction in protocols.CROSS_MODALITY)
    if not crosses_visible_cameras(records):
        return both
    return (*both, custom(Direction.VIS_TO_VIS, Exclusion.SAME_ID_SAME_CAM))


def _describe(model: LoadedModel, data: EvaluationSet) -> Data:
    return Data(
        name=data.name,
        sha256=data_fingerprint(data.root, {r.path for r in data.records}),
        identities=len({r.identity for r in data.records}),
        train_identities=model.identities,
    )


def _split_trained_on(config: TrainingConfig, protocol: Protocol) -> int | None:
    """Return the RegDB trial or the number of SYSU-MM01 identities trained on; for other data, that of the protocol."""
    for source in config.data:
        if isinstance(source, SysuMM01) and protocol.dataset is Dataset.SYSU:
            return source.identities
        if isinstance(source, RegDB) and protocol.dataset is Dataset.REGDB:
            return source.trial
    return protocol.train_ids
