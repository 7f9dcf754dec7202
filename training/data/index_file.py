"""Readers for the text files of published data sets: lists of images and of identities."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

__all__ = ["first_missing", "read_identities", "read_image_list", "stray_files"]


def read_identities(file: Path) -> list[int]:
    """Read the identity numbers of a file with one comma-separated line.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it contains anything but positive numbers, or a number twice.
    """
    parts = [part.strip() for part in _text(file).replace("\n", ",").split(",") if part.strip()]
    if wrong := [part for part in parts if not part.isdecimal() or int(part) == 0]:
        raise ValueError(f"{file}: expected comma-separated identity numbers, found {wrong[0]!r}")
    numbers = [int(part) for part in parts]
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"{file}: {len(numbers) - len(set(numbers))} identities are listed twice")
    return numbers


def read_image_list(file: Path, root: Path) -> list[Path]:
    """Read the images of a file with lines ``relative/path label``, in its order, as paths below ``root``.

    The label is not used: the folder of an image names its identity.

    Raises:
        FileNotFoundError: the file or a listed image does not exist.
        ValueError: a line has another form, or the file is empty.
    """
    images = []
    for number, line in enumerate(_text(file).splitlines(), 1):
        if not line.strip():
            continue
        relative, _, label = line.strip().rpartition(" ")
        if not relative or not label.isdecimal():
            raise ValueError(f"{file}, line {number}: expected 'path label', found {line!r}")
        image = root / relative.strip()
        if not image.is_file():
            raise FileNotFoundError(f"{image}: missing, listed in {file.name}, line {number}")
        images.append(image)
    if not images:
        raise ValueError(f"{file}: lists no image")
    return images


def first_missing(paths: Iterable[Path]) -> str | None:
    """Return a message about the first path that does not exist; None if all do."""
    return next((f"{path}: missing" for path in paths if not path.exists()), None)


def stray_files(folders: Iterable[Path], known: Iterable[Path]) -> tuple[Path, ...]:
    """Return the files below the folders that are not among the known ones, sorted."""
    expected = set(known)
    return tuple(
        sorted(path for folder in folders for path in folder.rglob("*") if path.is_file() and path not in expected)
    )


def _text(file: Path) -> str:
    if not file.is_file():
        raise FileNotFoundError(f"{file}: missing")
    return file.read_text("utf-8-sig")
