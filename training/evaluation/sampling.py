"""Queries and gallery of every trial of a protocol, as indices of records."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.card import Modality
from training.evaluation.embeddings import Labelled
from training.evaluation.exclusion import camera_number
from training.evaluation.protocol import Dataset, Mode, Protocol, ProtocolError, Sampler

__all__ = ["Permutation", "Trial", "trials"]

Rows = NDArray[np.int64]

Permutation = Mapping[tuple[int, int], NDArray[np.int64]]
"""(camera, identity) → int64 ``[10, n]``, for each trial a permutation of the image numbers 1…n; cells without images
are omitted. ``training.data.sysu_mm01.permutation`` reads the published one."""

_SYSU_GALLERY_CAMERAS = {Mode.ALL: (1, 2, 4, 5), Mode.INDOOR: (1, 2)}
_SYSU_QUERY_CAMERAS = (3, 6)


@dataclass(frozen=True, eq=False, slots=True)
class Trial:
    """Queries and gallery of a trial: indices of records, int64 ``[Q]`` and ``[G]``."""

    number: int
    query: Rows
    gallery: Rows


def trials(protocol: Protocol, records: Sequence[Labelled], permutation: Permutation | None = None) -> Iterator[Trial]:
    """Draw every trial of the protocol from the records of the test split.

    Args:
        protocol: the protocol.
        records: test images of both modalities (for RegDB: of the protocol's split), in any order. SYSU-MM01 files
            are numbered ``0001.jpg`` …; identities of SYSU-MM01 and LLCM are numbers.
        permutation: the published one, required for the sampler ``official_perm``; if given, the number of files in
            every gallery folder must agree with it, since a stray file changes the draws of ``agw_seed``.

    Raises:
        ProtocolError: a side is empty, the permutation is missing, or it does not agree with the files.
    """
    query, gallery = _sides(protocol, records)
    if not len(query) or not len(gallery):
        raise ProtocolError(f"{protocol.id}: expected images on both sides, found {len(query)} and {len(gallery)}")
    if protocol.gallery_sampler is Sampler.FULL:
        for number in protocol.trials:
            yield Trial(number, query, gallery)
        return
    cells = _cells(records, gallery)
    if protocol.dataset is Dataset.SYSU:
        _check_counts(cells, records, permutation)
    for number in protocol.trials:
        drawn = _draw(protocol, number, cells, records, permutation)
        yield Trial(number, drawn, query) if protocol.swapped else Trial(number, query, drawn)


def _sides(protocol: Protocol, records: Sequence[Labelled]) -> tuple[Rows, Rows]:
    """Return the rows of possible queries, and the rows that the gallery is drawn from."""
    query = _of_modality(records, protocol.direction.query)
    gallery = _of_modality(records, protocol.direction.gallery)
    if protocol.mode is None:
        return query, gallery
    cameras = _SYSU_GALLERY_CAMERAS[protocol.mode]
    return _of_cameras(records, query, _SYSU_QUERY_CAMERAS), _of_cameras(records, gallery, cameras)


def _of_modality(records: Sequence[Labelled], modality: Modality) -> Rows:
    return np.array([row for row, record in enumerate(records) if record.modality is modality], dtype=np.int64)


def _of_cameras(records: Sequence[Labelled], rows: Rows, cameras: tuple[int, ...]) -> Rows:
    return np.array([row for row in rows if camera_number(records[row].camera) in cameras], dtype=np.int64)


Cells = dict[tuple[int, int], list[int]]
"""(identity, camera) → rows sorted by file name; the keys are in ascending order."""


def _cells(records: Sequence[Labelled], rows: Rows) -> Cells:
    cells: Cells = {}
    for row in sorted(rows.tolist(), key=lambda row: records[row].path.name):
        cells.setdefault((int(records[row].identity), camera_number(records[row].camera)), []).append(row)
    return dict(sorted(cells.items()))


def _check_counts(cells: Cells, records: Sequence[Labelled], permutation: Permutation | None) -> None:
    if permutation is None:
        return
    for (identity, camera), rows in cells.items():
        cell = permutation.get((camera, identity))
        expected = 0 if cell is None else cell.shape[1]
        if expected != len(rows):
            folder = records[rows[0]].path.parent
            raise ProtocolError(f"expected {expected} images, found {len(rows)} in {folder}")


def _draw(
    protocol: Protocol, number: int, cells: Cells, records: Sequence[Labelled], permutation: Permutation | None
) -> Rows:
    if protocol.gallery_sampler is not Sampler.OFFICIAL_PERM:
        generator = random.Random(number)  # noqa: S311 - reproduces the published draws
        return np.array([generator.choice(rows) for rows in cells.values()], dtype=np.int64)
    if permutation is None:
        raise ProtocolError(f"{protocol.id}: expected the permutation of exp/rand_perm_cam.mat, found none")
    drawn = []
    for (identity, camera), rows in cells.items():
        numbered = {int(records[row].path.stem): row for row in rows}
        images = permutation[camera, identity][number, : protocol.shots].tolist()
        if len(images) != protocol.shots or not numbered.keys() >= set(images):
            folder = records[rows[0]].path.parent
            raise ProtocolError(f"expected {protocol.shots} images numbered {images} in {folder}, found {len(rows)}")
        drawn += [numbered[image] for image in images]
    return np.array(drawn, dtype=np.int64)
