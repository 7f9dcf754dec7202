"""Evaluation of real pairs by several networks, each on the frames left out of its training, with pooled ranks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.frame_folds import frame_of
from training.data.sources import Folder, Pairs
from training.environment import Environment
from training.evaluation.embeddings import Embeddings
from training.evaluation.evaluator import EvaluationSet, embed, evaluation_set
from training.evaluation.metrics import evaluate
from training.evaluation.model_loader import LoadedModel
from training.evaluation.protocol import Protocol
from training.evaluation.result import Data, Result, data_fingerprint
from training.evaluation.run import Outcome, TrialCounts

__all__ = ["evaluate_pooled"]

_LAST = np.float32(-2)  # below every cosine


def evaluate_pooled(
    models: Sequence[LoadedModel], pairs: Pairs, name: str, cache: Path, command: str, *, misaligned: bool = False
) -> list[Result]:
    """Rank every pair with the network that left out its frame in training, and measure all queries together.

    There are two results for each direction. *All pairs*: a query is ranked among all pairs, also those of frames that
    its network was trained on; these may be easier to distinguish. *Own fold*: a query is ranked only among the pairs
    of left-out frames; chance is larger the smaller the folds are. For a single network that left out all frames both
    are the same, and only one is measured.

    Args:
        models: one for each fold, trained with ``leave_out`` of these pairs.
        name: common name of the networks.
        cache, command, misaligned: see :func:`training.evaluation.evaluator.evaluate_model`.

    Raises:
        ValueError: the frame of a pair was left out by no network or by more than one.
    """
    started = time.monotonic()
    data = evaluation_set(pairs, misaligned=misaligned)
    folds = _folds(models, data)
    vectors = [embed(model, data, cache) for model in models]
    results = []
    for protocol, own_fold in product(data.protocols, (False, True) if len(models) > 1 else (True,)):
        scored = _score(protocol, data, vectors, folds, own_fold)
        first = models[0]
        gallery = "own fold" if own_fold else "all pairs"
        results.append(
            Result.of(
                protocol,
                scored,
                data=Data(
                    name=f"{data.name}, {len(models)} folds of frames, {gallery}" if len(models) > 1 else data.name,
                    sha256=data_fingerprint(data.root, {r.path for r in data.records}),
                    identities=len({r.identity for r in data.records}),
                    train_identities=first.identities,
                ),
                model=first.info.model_copy(
                    update={"name": name, "checkpoints": tuple(c for s in models for c in s.info.checkpoints)}
                ),
                training=first.training,
                preprocessing=first.preprocessing,
                environment=Environment.here(first.device, first.precision),
                command=command,
                seconds=time.monotonic() - started,
            )
        )
    return results


def _folds(models: Sequence[LoadedModel], data: EvaluationSet) -> NDArray[np.int64]:
    """Return the index of the network that evaluates each record: the one that left out the record's frame."""
    all_frames = {frame_of(record.identity) for record in data.records}
    unseen = [
        frozenset().union(
            *(s.leave_out.of(all_frames) for s in model.config.data if isinstance(s, Folder) and s.leave_out)
        )
        for model in models
    ]
    folds = []
    for record in data.records:
        frame = frame_of(record.identity)
        evaluators = [number for number, frames in enumerate(unseen) if frame in frames]
        if len(evaluators) != 1:
            raise ValueError(
                f"frame {frame!r} was left out by {len(evaluators)} of {len(models)} networks: expected exactly one; "
                "train one for each fold of leave_out"
            )
        folds += evaluators
    return np.array(folds)


def _score(
    protocol: Protocol,
    data: EvaluationSet,
    vectors: Sequence[NDArray[np.float32]],
    folds: NDArray[np.int64],
    own_fold: bool,
) -> Outcome:
    images = Embeddings.of(vectors[0], data.records)
    sides = protocol.direction.query, protocol.direction.gallery
    rows, columns = (np.flatnonzero(images.modalities == side.index) for side in sides)
    scores = np.stack([vectors[folds[row]][columns] @ vectors[folds[row]][row] for row in rows])
    query, gallery = images.take(rows), images.take(columns)
    in_fold = folds[rows][:, None] == folds[columns][None]
    if own_fold:
        scores[~in_fold] = _LAST
    metrics = evaluate(query, gallery, protocol.exclusion, protocol.cmc, scores=lambda part: scores[part])
    if own_fold:
        same = query.identities[:, None] == gallery.identities[None]
        metrics = replace(metrics, chance_rank1=float((same.sum(1) / in_fold.sum(1)).mean()))
    return Outcome((metrics,), (TrialCounts.of(metrics, query, gallery),))
