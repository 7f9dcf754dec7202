from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.card import Modality
from training.data.folder import read_folder
from training.data.images import load
from training.data.person_crops import PERSON, Windows, cut_windows, places
from training.data.records import Record, split_identities

HEIGHT, WIDTH = 96, 120


def write_frames(root: Path, *names: str, flat: Modality | None = None) -> Path:
    """Write frames whose pixels encode their position: red 2 × row, green 2 × column; infrared row + column."""
    rows, columns = np.indices((HEIGHT, WIDTH)).astype(np.uint8)
    for modality in Modality:
        (root / modality).mkdir(parents=True, exist_ok=True)
        for name in names:
            if modality is flat:
                image = np.full((HEIGHT, WIDTH, 3), 77, np.uint8)
            elif modality is Modality.VISIBLE:
                image = np.stack([2 * rows, 2 * columns, 0 * rows], 2)
            else:
                image = np.repeat((rows + columns)[..., None], 3, 2)
            Image.fromarray(image).save(root / modality / f"{name}.png")
    return root


SMOOTH = Windows(contrast=4)


def cut(frames: Path, out: Path, windows: Windows = SMOOTH, seed: int = 0) -> list[Record]:
    cut_windows(frames, out, windows, seed)
    return read_folder(out)


def frame_of(identity: str) -> str:
    return identity.rpartition("-")[0]


def test_every_place_is_an_identity_with_its_crops_in_both_modalities(tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "frames", "a", "b-1")
    places = cut_windows(frames, tmp_path / "out", SMOOTH)
    records = read_folder(tmp_path / "out")
    people = {r.identity for r in records}
    assert len(people) == places == 6
    assert {frame_of(name) for name in people} == {"a", "b-1"}
    for name in people:
        for modality in Modality:
            assert sum(r.identity == name and r.modality is modality for r in records) == SMOOTH.crops
    assert {load(r).shape for r in records} == {(*SMOOTH.size, 3)}


def centre(record: Record) -> float:
    """Row + column at the middle of the crop."""
    image = load(record).astype(float)
    middle = image[SMOOTH.size[0] // 2, SMOOTH.size[1] // 2]
    return float(middle[:2].sum() / 2 if record.modality is Modality.VISIBLE else middle[0])


def test_the_crops_of_a_place_show_that_place_but_are_not_aligned(tmp_path: Path) -> None:
    records = cut(write_frames(tmp_path / "frames", "a", "b"), tmp_path / "out")
    for name in {r.identity for r in records}:
        centres = [centre(r) for r in records if r.identity == name]
        assert len({round(value, 1) for value in centres}) > 1
        # both edges of a window of at most 0.8 of the height may move by the jitter, in rows and columns
        assert max(centres) - min(centres) <= 2 * SMOOTH.jitter * 0.8 * HEIGHT * 1.5 + 4


def test_without_jitter_both_modalities_show_the_same_pixels(tmp_path: Path) -> None:
    still = Windows(contrast=4, jitter=0, crops=1)
    records = cut(write_frames(tmp_path / "frames", "a", "b"), tmp_path / "out", still)
    crops = {(r.identity, r.modality): load(r).astype(float) for r in records}
    for (name, modality), crop in crops.items():
        if modality is Modality.VISIBLE:
            assert abs(crop[..., :2].sum(2) / 2 - crops[name, Modality.INFRARED][..., 0]).max() <= 2


def test_windows_of_a_frame_depend_only_on_the_seed_and_its_name(tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "frames", "a")
    one = [load(r) for r in cut(frames, tmp_path / "one", seed=1)]
    other = [load(r) for r in cut(frames, tmp_path / "other", seed=2)]
    write_frames(tmp_path / "frames", "0-before-a", "z")
    again = [load(r) for r in cut(frames, tmp_path / "again", seed=1) if frame_of(r.identity) == "a"]
    assert len(one) == len(again)
    assert all((x == y).all() for x, y in zip(one, again, strict=True))
    assert any((x != y).any() for x, y in zip(one, other, strict=True))


@pytest.mark.parametrize("flat", Modality)
def test_frames_without_texture_are_rejected(tmp_path: Path, flat: Modality) -> None:
    with pytest.raises(ValueError, match="no window in its frames"):
        cut_windows(write_frames(tmp_path / "frames", "a", flat=flat), tmp_path / "out", SMOOTH)


def test_an_existing_output_folder_is_not_changed(tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "frames", "a")
    cut_windows(frames, tmp_path / "out", SMOOTH)
    before = sorted((tmp_path / "out").rglob("*"))
    with pytest.raises(FileExistsError, match="already exists"):
        cut_windows(frames, tmp_path / "out", SMOOTH, seed=1)
    assert sorted((tmp_path / "out").rglob("*")) == before


def test_places_of_a_frame_are_on_the_same_side_of_a_split(tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "frames", *(f"{n:03d}" for n in range(12)))
    train, held_out = split_identities(cut(frames, tmp_path / "out"), 0.5, 1, group_of=frame_of)
    sides = [{frame_of(r.identity) for r in side} for side in (train, held_out)]
    assert all(sides)
    assert not sides[0] & sides[1]


def test_frames_of_unequal_size_are_rejected(tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "frames", "a")
    Image.new("L", (9, 9)).save(frames / "infrared" / "a.png")
    with pytest.raises(ValueError, match="a: expected images of one size"):
        cut_windows(frames, tmp_path / "out")


def write_label(frames: Path, name: str, *boxes: tuple[int, int, int, int]) -> None:
    label = np.zeros((HEIGHT, WIDTH), np.uint8)
    label[:2, :] = PERSON + 1
    for left, top, right, bottom in boxes:
        label[top:bottom, left:right] = PERSON
    (frames / "label").mkdir(exist_ok=True)
    Image.fromarray(label).save(frames / "label" / f"{name}.png")


def test_labelled_people_precede_drawn_places(tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "frames", "a", "b")
    people = [(10, 20, 25, 60), (100, 2, 120, 30)]
    too_low, too_thin = (50, 50, 55, 60), (60, 5, 62, 60)
    write_label(frames, "a", *people, too_low, too_thin)
    write_label(frames, "b")
    found = list(places(frames, Windows(contrast=4, people=True, per_frame=2)))
    in_a = [place for place in found if place.frame == "a"]
    assert {place.box for place in in_a[:2]} == set(people)
    assert [place.number for place in in_a] == [0, 1, 2, 3]
    assert not {too_low, too_thin} & {place.box for place in in_a}
    assert len([place for place in found if place.frame == "b"]) == 2
    inside = next(place for place in found if place.box == people[0])
    pixels = inside.crop(Modality.VISIBLE, inside.box, (40, 15))
    assert abs(pixels[..., 0].astype(int) - 2 * np.arange(20, 60)[:, None]).max() <= 2
    assert abs(pixels[..., 1].astype(int) - 2 * np.arange(10, 25)).max() <= 2


def test_only_people_are_cut_without_drawn_windows(tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "frames", "a")
    write_label(frames, "a", (10, 20, 25, 60))
    assert [place.box for place in places(frames, Windows(people=True, per_frame=0))] == [(10, 20, 25, 60)]
    with pytest.raises(ValueError, match="per_frame 0: expected at least 1, or 0 with people"):
        Windows(per_frame=0)


def test_excluded_frames_are_skipped_and_a_missing_label_is_an_error(tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "frames", "a", "b")
    assert {place.frame for place in places(frames, SMOOTH, include=lambda name: name == "b")} == {"b"}
    with pytest.raises(FileNotFoundError, match=r"a\.png: missing; it marks the people of the frame"):
        list(places(frames, Windows(people=True)))


def test_a_crop_beyond_the_frame_ends_at_its_edge(tmp_path: Path) -> None:
    place = next(places(write_frames(tmp_path / "frames", "a"), SMOOTH))
    whole = place.crop(Modality.INFRARED, (-30, -20, WIDTH + 9, HEIGHT + 50), (HEIGHT, WIDTH))
    assert (whole[..., 0] == np.add.outer(np.arange(HEIGHT), np.arange(WIDTH))).all()


def test_a_margin_is_added_to_the_boxes_of_people_only(tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "frames", "f")
    label = np.zeros((HEIGHT, WIDTH), np.uint8)
    label[30:70, 40:60] = PERSON
    (frames / "label").mkdir()
    Image.fromarray(label).save(frames / "label" / "f.png")
    tight, wide = (
        [*places(frames, Windows(per_frame=1, people=True, contrast=4, margin=margin))] for margin in (0.0, 0.05)
    )
    assert tight[0].box == (40, 30, 60, 70)
    assert wide[0].box == pytest.approx((38, 28, 62, 72))
    assert not wide[1].person
