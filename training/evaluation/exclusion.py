"""Rules that exclude gallery images from the ranking of a query."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from models.card import Modality
from training.data.records import Record
from training.evaluation.embeddings import Embeddings

__all__ = ["Exclusion", "camera_number", "crosses_visible_cameras", "excluded", "usual_exclusion"]


class Exclusion(StrEnum):
    """Exclusion rule of a protocol."""

    NONE = "none"
    SAME_ID_SAME_CAM = "same_id_same_cam"
    """Gallery images of the query's identity from the query's camera."""
    CAM3_CAM2 = "cam3_cam2"
    """SYSU-MM01: a query of camera 3 ignores all images of camera 2, which is in the same room."""


def camera_number(camera: str) -> int:
    """Return the number at the end of a camera's name.

    Raises:
        ValueError: there is none.

    >>> camera_number("cam3"), camera_number("3")
    (3, 3)
    """
    digits = camera[len(camera.rstrip("0123456789")) :]
    if not digits:
        raise ValueError(f"expected a camera name that ends in its number, found {camera!r}")
    return int(digits)


def usual_exclusion(records: Sequence[Record]) -> Exclusion:
    """Return the rule for crops without a published protocol, such as held-out identities.

    If there are several cameras, a query ignores images of its own identity and camera, since finding a neighbouring
    frame is trivial. The same rule applies to translated infrared, where an image would find its own translation, even
    with a single camera; then no query is valid. Otherwise, with a single camera, every pair counts.
    """
    several_cameras = len({record.camera for record in records}) > 1
    translated = any(record.translated for record in records)
    return Exclusion.SAME_ID_SAME_CAM if several_cameras or translated else Exclusion.NONE


def crosses_visible_cameras(records: Sequence[Record]) -> bool:
    """Return whether an identity was seen in visible light by two cameras."""
    seen = {(r.identity, r.camera) for r in records if r.modality is Modality.VISIBLE}
    return len(seen) > len({identity for identity, _ in seen})


def excluded(rule: Exclusion, query: Embeddings, gallery: Embeddings) -> NDArray[np.bool_] | None:
    """Return a mask ``[Q, G]`` of the pairs that the rule excludes; None if it excludes none."""
    match rule:
        case Exclusion.NONE:
            return None
        case Exclusion.SAME_ID_SAME_CAM:
            identity, camera = _codes(query.identities, gallery.identities), _codes(query.cameras, gallery.cameras)
            mask: NDArray[np.bool_] = identity[0][:, None] == identity[1]
            mask &= camera[0][:, None] == camera[1]
            return mask
        case Exclusion.CAM3_CAM2:
            return _from_camera(query, 3)[:, None] & _from_camera(gallery, 2)


def _codes(first: NDArray[np.str_], second: NDArray[np.str_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    codes = np.unique(np.concatenate((first, second)), return_inverse=True)[1]
    return codes[: len(first)], codes[len(first) :]


def _from_camera(images: Embeddings, number: int) -> NDArray[np.bool_]:
    names, codes = np.unique(images.cameras, return_inverse=True)
    return np.array([camera_number(str(name)) == number for name in names], dtype=np.bool_)[codes]
