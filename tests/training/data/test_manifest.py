from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import pytest

from models.card import Modality
from training.data.manifest import COLUMNS, read_manifest
from training.data.records import Record


def write_manifest(manifest: Path, records: Iterable[Record]) -> None:
    with manifest.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(COLUMNS)
        for record in records:
            path = record.path.relative_to(manifest.parent).as_posix()
            lines.writerow((path, record.identity, record.modality.value, record.camera))


def test_a_manifest_is_read_as_written(people: Path, people_records: list[Record]) -> None:
    write_manifest(people / "manifest.csv", people_records)
    assert read_manifest(people / "manifest.csv") == people_records


def test_further_columns_and_an_empty_camera_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "m.csv").write_text("camera,note,modality,identity,path\n,x,infrared,7,a.png\n")
    assert read_manifest(tmp_path / "m.csv") == [Record(tmp_path / "a.png", "7", "0", Modality.INFRARED)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.png,7,thermal,1", r"line 3: modality 'thermal' is not one of visible, infrared"),
        ("b.png,7,visible,1", r"line 3: 'b\.png' is not a file"),
        ("a.png,,visible,1", r"line 3: identity is empty"),
        (",7,visible,1", r"line 3: path is empty"),
        ("ok.png,7,visible,1", r"line 3: 'ok\.png' is already listed on line 2"),
        ("a.png", r"line 3: identity is empty"),
    ],
)
def test_a_wrong_line_is_named_with_its_value(tmp_path: Path, line: str, message: str) -> None:
    for name in ("ok.png", "a.png"):
        (tmp_path / name).touch()
    (tmp_path / "m.csv").write_text(f"path,identity,modality,camera\nok.png,7,visible,1\n{line}\n")
    with pytest.raises(ValueError, match=message):
        read_manifest(tmp_path / "m.csv")


def test_missing_columns_and_lines_are_named(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,identity\n")
    with pytest.raises(ValueError, match="missing modality, camera"):
        read_manifest(tmp_path / "m.csv")
    (tmp_path / "m.csv").write_text("path,identity,modality,camera\n")
    with pytest.raises(ValueError, match="no line"):
        read_manifest(tmp_path / "m.csv")


def test_the_range_of_a_frame_is_read_from_its_columns(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").touch()
    (tmp_path / "m.csv").write_text(
        "path,identity,modality,camera,range_low,range_high\na.png,7,infrared,1,7000,9000.5\nb.png,7,infrared,1,,\n"
    )
    assert [record.levels for record in read_manifest(tmp_path / "m.csv")] == [(7000, 9000.5), None]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("7000,", "expected two numbers"),
        ("x,9", "expected two numbers"),
        ("9,9", "range_low 9 is not below"),
        ("nan,9", "range_low nan is not below"),
    ],
)
def test_a_wrong_range_is_named_with_its_line(tmp_path: Path, values: str, message: str) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "m.csv").write_text(
        f"path,identity,modality,camera,range_low,range_high\na.png,7,infrared,1,{values}\n"
    )
    with pytest.raises(ValueError, match=f"line 2: {message}"):
        read_manifest(tmp_path / "m.csv")
