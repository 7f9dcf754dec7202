from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.card import Modality
from tests.drawing import draw_person, write_people
from training.data.folder import read_folder, read_pairs
from training.data.images import load


def test_every_drawn_image_becomes_a_record(people: Path) -> None:
    records = read_folder(people)
    assert len(records) == 6 * 5 * 2
    first = records[0]
    assert (first.identity, first.camera, first.modality) == ("0001", "1", Modality.VISIBLE)
    assert {r.camera for r in records if r.modality is Modality.INFRARED} == {"3", "4"}
    assert records == read_folder(people)
    assert [r.path for r in records[:30]] == sorted(r.path for r in records[:30])


def test_other_files_are_ignored(tmp_path: Path) -> None:
    write_people(tmp_path, [1], images=2)
    folder = tmp_path / "visible" / "0001"
    for name in ("Thumbs.db", "notes.txt", ".hidden.png"):
        (folder / name).write_text("no image")
    (tmp_path / "visible" / ".cache").mkdir()
    assert len(read_folder(tmp_path)) == 4


def test_a_folder_of_one_modality_is_read_as_that_modality(tmp_path: Path) -> None:
    write_people(tmp_path, [1, 2], images=2, modalities=[Modality.VISIBLE])
    records = read_folder(tmp_path / "visible", Modality.VISIBLE)
    assert [r.identity for r in records] == ["0001", "0001", "0002", "0002"]
    assert {r.modality for r in records} == {Modality.VISIBLE}


def test_the_camera_comes_from_the_pattern_and_is_0_without_a_match(people: Path) -> None:
    assert {r.camera for r in read_folder(people, camera_pattern=r"_(\d)$")} == {"0", "1", "2", "3", "4"}
    assert {r.camera for r in read_folder(people, camera_pattern=r"_camera(\d)")} == {"0"}


def test_camera_names_in_the_root_path_are_ignored(tmp_path: Path) -> None:
    records = read_folder(write_people(tmp_path / "_c9_cameras", [1], images=1))
    assert [r.camera for r in records] == ["1", "3"]


@pytest.mark.parametrize("pattern", ["_c(", "_c[0-9]"])
def test_a_camera_pattern_must_have_a_group(people: Path, pattern: str) -> None:
    with pytest.raises(ValueError, match="camera pattern"):
        read_folder(people, camera_pattern=pattern)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="'visible' or 'infrared'"):
        read_folder(tmp_path)
    with pytest.raises(ValueError, match="no image"):
        read_folder(tmp_path, Modality.VISIBLE)


def test_each_pair_is_an_identity(tmp_path: Path) -> None:
    from PIL import Image

    for modality in Modality:
        (tmp_path / modality).mkdir()
        for name in ("b_2", "a_1"):
            Image.fromarray(draw_person(1, modality)).save(tmp_path / modality / f"{name}.png")
    records = read_pairs(tmp_path)
    assert [(r.identity, r.camera, r.modality.value) for r in records] == [
        ("a_1", "1", "visible"),
        ("b_2", "1", "visible"),
        ("a_1", "2", "infrared"),
        ("b_2", "2", "infrared"),
    ]
    (tmp_path / "infrared" / "a_1.png").unlink()
    with pytest.raises(ValueError, match="first a_1"):
        read_pairs(tmp_path)


def test_infrared_is_grey_and_a_translation_keeps_its_colours(people: Path) -> None:
    from dataclasses import replace

    visible = read_folder(people)[0]
    colours = load(visible, (48, 24))
    assert colours.shape == (48, 24, 3)
    grey = load(replace(visible, modality=Modality.INFRARED))
    assert (grey[..., 0] == grey[..., 1]).all()
    assert (grey[..., 0] == grey[..., 2]).all()
    translated = replace(visible, modality=Modality.INFRARED, translated=True)
    assert (load(translated, (48, 24)) == colours).all()
    assert (colours[..., 0] != colours[..., 1]).any()


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff\xe0 broken"])
def test_a_broken_image_is_named(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "visible" / "0001"
    folder.mkdir(parents=True)
    (folder / "broken.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.jpg"):
        load(read_folder(tmp_path)[0])


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    path = next((write_people(tmp_path, [1], images=1) / "visible" / "0001").iterdir())
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=path.name):
        load(read_folder(tmp_path)[0])


def test_a_16_bit_image_is_stretched_not_clipped(tmp_path: Path) -> None:
    (tmp_path / "infrared" / "1").mkdir(parents=True)
    raw = np.linspace(3000, 3100, 32).astype(np.uint16).reshape(8, 4)
    Image.fromarray(raw).save(tmp_path / "infrared" / "1" / "deep.png")
    (record,) = read_folder(tmp_path)
    image = load(record)
    assert (image.min(), image.max()) == (0, 255)
    assert len(np.unique(image)) > 25
