"""Judge a network on labelled crops: choose the protocols, embed every image once, measure each protocol."""

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

__all__ = ["EvaluationSet", "calibrations", "embed", "evaluate_model", "evaluation_set", "held_out_sets", "open_crops"]


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """Labelled crops of both modalities and the protocols they are judged by."""

    name: str
    root: Path
    records: tuple[Record, ...]
    protocols: tuple[Protocol, ...]
    permutation: Permutation | None = None
    misaligned: bool = False
    """Infrared crops are mirrored and cut, so that aligned pairs do not give themselves away by their outline."""
    translator: Translator = field(default_factory=ChannelTranslation)
    """Makes the infrared crops that are translated."""


def held_out_sets(config: TrainingConfig) -> list[EvaluationSet]:
    """The identities that the configuration keeps out of training, a set for each data set, both directions."""
    return [
        EvaluationSet(
            name=f"{part.name}, kept-out identities" + (", mirrored and re-cropped" if part.misaligned else ""),
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


def evaluation_set(source: Source, *, misaligned: bool = False, presets: Sequence[str] = ()) -> EvaluationSet:
    """The test part of a published data set, or all of a folder, manifest or pairs.

    ``presets``: ids of the protocols to judge by; none: the usual ones of the data set.

    Raises:
        OSError: a part of the data set is missing.
        ValueError: it is not as it should be, or has no such preset.
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
    """The crops of a set as the model takes them: (uint8 ``[H, W, 3]``, modality index) by row of its records."""
    size = model.preprocessing
    opened = CropCache.open(data.records, cache, (size.height, size.width), size.resize)
    return PlainCrops(data.records, opened, misaligned=data.misaligned, translator=data.translator)


def embed(model: LoadedModel, data: EvaluationSet, cache: Path, *, mirrored: bool = False) -> NDArray[np.float32]:
    """Unit vectors float32 ``[N, D]`` of every crop of a set, or of their mirror images."""
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
    """Measure every protocol of the set; every image is embedded once, through the stem of its own modality.

    Args:
        cache: folder for decoded crops.
        command: how it was asked for, kept in the results.
        flip: average each vector with that of the mirror image.
        rerank: k-reciprocal re-ranking, a result of its own beside the plain one.

    Raises:
        ProtocolError: the network was trained on another split than the protocol says.
        ValueError: a trial has no valid query.
    """
    for protocol in data.protocols:
        check_training(protocol, _split_trained_on(model.config, protocol))
    started = time.monotonic()
    vectors = embed(model, data, cache)
    mirrored = embed(model, data, cache, mirrored=True) if flip else None
    results = []
    for protocol, method in product(data.protocols, (None, rerank) if rerank else (None,)):
        asked = protocol.changed(flip=flip, rerank=method.model_dump() if method else None)
        outcome = run(asked, data.records, vectors, mirrored=mirrored, permutation=data.permutation)
        open_set = None
        if method is None:
            open_set = measure_open_set(asked, data.records, vectors, mirrored=mirrored, permutation=data.permutation)
        results.append(
            Result.of(
                asked,
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
    """What a score means, for each pair of modalities: impostor scores among the set's identities.

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
    """All against all in both directions, and across visible cameras where people were seen by two."""
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
    """The RegDB trial or the number of SYSU-MM01 identities trained on; a network of other data has seen neither."""
    for source in config.data:
        if isinstance(source, SysuMM01) and protocol.dataset is Dataset.SYSU:
            return source.identities
        if isinstance(source, RegDB) and protocol.dataset is Dataset.REGDB:
            return source.trial
    return protocol.train_ids
