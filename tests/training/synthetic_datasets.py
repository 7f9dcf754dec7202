"""Small synthetic data sets with the published layouts, for tests and for trying a configuration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from models.card import Modality
from training.data import llcm, regdb, sysu_mm01
from training.data.images import Pixels

__all__ = ["DrawPerson", "write_llcm", "write_regdb", "write_sysu_mm01"]


class DrawPerson(Protocol):
    """Draws a synthetic person."""

    def __call__(
        self, identity: int, modality: Modality, *, seed: int = 0, size: tuple[int, int] = (128, 64)
    ) -> Pixels:
        """uint8 RGB ``[H, W, 3]`` of shape ``size``; another seed gives another image of the same person."""
        ...


def write_sysu_mm01(
    root: Path,
    draw: DrawPerson,
    *,
    train: int = 4,
    validation: int = 2,
    test: int = 4,
    size: tuple[int, int] = (64, 32),
) -> dict[str, int]:
    """Draw SYSU-MM01's folders, identity lists and gallery permutation; returns the counts ``check`` should find.

    As in the real one: identity numbers have gaps, half of the people are never seen in cameras 1, 2 or 3, the
    validation people are seen in cameras 3, 4 and 5 only, and one person belongs to no split. Every cell holds
    10 to 12 images, so that ten shots exist.
    """
    rng = np.random.default_rng(train + validation + test)
    numbers = [3 * n + 2 for n in range(train + validation + test + 1)]
    splits = {
        "train": numbers[:train],
        "val": numbers[train : train + validation],
        "test": numbers[train + validation : -1],
    }
    (root / "exp").mkdir(parents=True)
    for split, listed in splits.items():
        (root / "exp" / f"{split}_id.txt").write_text(",".join(map(str, listed)) + "\n")
    available = sorted(n for listed in splits.values() for n in listed)
    (root / "exp" / "available_id.txt").write_text(",".join(map(str, available)) + "\n")

    split_of = {number: split for split, listed in splits.items() for number in listed}
    cells = {
        (camera, number): int(rng.integers(10, 13))
        for place, number in enumerate(numbers)
        for camera in _sysu_cameras(split_of.get(number), place)
    }
    found = Counter(dict.fromkeys(sysu_mm01.COUNTS, 0))
    for (camera, number), images in cells.items():
        modality = sysu_mm01.CAMERAS[str(camera)]
        for n in range(1, images + 1):
            file = root / f"cam{camera}" / f"{number:04d}" / f"{n:04d}.jpg"
            _save(file, draw(number, modality, seed=100 * camera + n, size=size))
        found[f"all {modality} images"] += images
        if number in split_of:
            part = "test" if split_of[number] == "test" else "train+val"
            found[f"{split_of[number]} {modality} images"] += images
            found[f"{part} images of cam{camera}"] += images
            found[f"{part} identities of cam{camera}"] += 1
    _save_permutation(root / "exp" / "rand_perm_cam.mat", cells, rng)
    found.update({f"{split} identities": len(listed) for split, listed in splits.items()})
    found["camera and identity cells as in rand_perm_cam.mat"] = len(cells)
    return dict(found)


def write_regdb(
    root: Path, draw: DrawPerson, *, people: int = 6, images: int = 3, size: tuple[int, int] = (64, 32)
) -> dict[str, int]:
    """Draw RegDB's folders and its ten splits into halves; returns the counts ``check`` should find.

    Raises:
        ValueError: ``people`` is odd.
    """
    if people % 2:
        raise ValueError(f"a trial splits the people into halves, got {people}")
    rng = np.random.default_rng(people)
    files: dict[tuple[Modality, int], list[Path]] = {}
    for modality, top, letter in ((Modality.VISIBLE, "Visible", "v"), (Modality.INFRARED, "Thermal", "t")):
        for person in range(1, people + 1):
            files[modality, person] = [
                Path(top, str(person), f"male_back_{letter}_{person:05d}_{n}.bmp") for n in range(1, images + 1)
            ]
            for n, file in enumerate(files[modality, person]):
                _save(root / file, draw(person, modality, seed=n, size=size))
    (root / "idx").mkdir()
    for trial in regdb.TRIALS:
        order = [int(n) + 1 for n in rng.permutation(people)]
        for part, chosen in (("train", order[: people // 2]), ("test", order[people // 2 :])):
            for modality, word in ((Modality.VISIBLE, "visible"), (Modality.INFRARED, "thermal")):
                _write_list(
                    root / "idx" / f"{part}_{word}_{trial}.txt",
                    ((file, label) for label, p in enumerate(sorted(chosen)) for file in files[modality, p]),
                )
    half = people // 2
    found = {key: half if key.endswith("identities") else half * images for key in regdb.COUNTS}
    return found | {
        "identities": people,
        "visible images": people * images,
        "infrared images": people * images,
        "identities in train and test of one trial": 0,
    }


def write_llcm(
    root: Path,
    draw: DrawPerson,
    *,
    train: int = 4,
    test: int = 4,
    images: int = 2,
    size: tuple[int, int] = (64, 32),
) -> dict[str, int]:
    """Draw LLCM's folders and lists, ``images`` a camera; returns the counts ``check`` should find.

    As in the real one, infrared images have no camera 3, and not every camera sees everyone.
    """
    numbers = [5 * n + 1 for n in range(train + test)]
    (root / "idx").mkdir(parents=True)
    (root / "idx" / "test_id.txt").write_text(",".join(map(str, numbers[train:])) + "\n")
    found = dict.fromkeys(llcm.COUNTS, 0)
    found |= {"train identities": train, "test identities": test}
    for modality, word in ((Modality.VISIBLE, "vis"), (Modality.INFRARED, "nir")):
        for camera in llcm.CAMERAS[modality]:
            (root / f"test_{word}" / f"cam{camera}").mkdir(parents=True)
        listed = []
        for place, number in enumerate(numbers):
            for camera in llcm.CAMERAS[modality][place % 3 :: 3]:
                for n in range(images):
                    name = f"{number:04d}_c{camera:0>2}_s{100 * place}_f{n}_{word}.jpg"
                    part = "train" if place < train else "test"
                    top = Path(word) if part == "train" else Path(f"test_{word}", f"cam{camera}")
                    file = top / f"{number:04d}" / name
                    _save(root / file, draw(number, modality, seed=10 * int(camera) + n, size=size))
                    found[f"{part} {modality} images"] += 1
                    listed.append((part, file, place if part == "train" else place - train))
        for part in ("train", "test"):
            lines = ((file, label) for kind, file, label in listed if kind == part)
            _write_list(root / "idx" / f"{part}_{word}.txt", lines)
    return found


def _sysu_cameras(split: str | None, place: int) -> Iterator[int]:
    if split == "val":
        yield from (3, 4, 5)
    elif place % 2:
        yield from (4, 5, 6)
    else:
        yield from range(1, 7)


def _save(file: Path, image: Pixels) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(file)


def _write_list(file: Path, lines: Iterable[tuple[Path, int]]) -> None:
    file.write_text("".join(f"{image.as_posix()} {label}\n" for image, label in lines))


def _save_permutation(file: Path, cells: dict[tuple[int, int], int], rng: np.random.Generator) -> None:
    """Write 8-bit permutations in nested object arrays ``[6, 1]`` of ``[identities, 1]`` of ``[10, n]``."""
    from scipy.io import savemat

    last = max(number for _, number in cells)
    cameras = np.empty((6, 1), object)
    for camera in range(1, 7):
        people = np.empty((last, 1), object)
        for number in range(1, last + 1):
            images = cells.get((camera, number), 0)
            rows = [rng.permutation(images) + 1 for _ in range(10)]
            people[number - 1, 0] = np.array(rows, np.uint8).reshape(10, images)
        cameras[camera - 1, 0] = people
    savemat(file, {"rand_perm_cam": cameras})
