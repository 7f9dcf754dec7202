"""Checks of data sets on disk: every file is decoded, and skipped files are reported."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image

from tests.drawing import write_people
from training.data.check import check
from training.data.folder import read_folder
from training.data.skipped import Skipped


def test_an_image_that_cannot_be_decoded_fails_the_check(tmp_path: Path) -> None:
    path = next((write_people(tmp_path, [1], images=1) / "visible" / "0001").iterdir())
    path.write_bytes(path.read_bytes()[:300])
    report = check(tmp_path)
    assert not report.ok
    assert any(path.name in problem for problem in report.problems())


def test_skipped_files_are_counted_by_reason(tmp_path: Path) -> None:
    write_people(tmp_path, [1], images=2)
    folder = tmp_path / "visible" / "0001"
    for name in ("Thumbs.db", "notes.txt", "more.txt", ".hidden.png"):
        (folder / name).write_text("no image")
    (folder / "dangling.png").symlink_to("missing.png")
    (folder / "nested").mkdir()
    (tmp_path / "visible" / "@eaDir").mkdir()
    (tmp_path / "visible" / "loose.png").touch()
    (tmp_path / "other").mkdir()
    skipped = Skipped()
    assert len(read_folder(tmp_path, skipped=skipped)) == 4
    assert {reason: len(paths) for reason, paths in skipped.paths.items()} == {
        ".txt files": 2,
        "broken links": 1,
        "files and folders beside visible and infrared": 1,
        "files outside an identity's folder": 1,
        "folders where an image is expected": 1,
        "system files and folders": 3,
    }
    report = check(tmp_path)
    assert report.ok
    assert any("skipped 2 .txt files, such as" in warning for warning in report.warnings())


def test_a_name_that_is_not_utf8_is_read(tmp_path: Path) -> None:
    path = next((write_people(tmp_path, [1], images=1) / "visible" / "0001").iterdir())
    os.rename(path, os.fsencode(path.parent) + b"/stra\xdfe_c1_0.png")  # noqa: PTH104 - a name as bytes
    assert check(tmp_path).ok


def test_files_of_several_types_are_counted_by_type(tmp_path: Path) -> None:
    paths = [*(write_people(tmp_path, [1], images=2) / "infrared" / "0001").iterdir()]
    for path in paths:
        with Image.open(path) as image:
            image.save(path.with_suffix(".tif"))
        path.unlink()
    found = {count.what: count.found for count in check(tmp_path).counts}
    assert found["infrared images"] == found[".tif files"] == found[".png files"] == 2
