from __future__ import annotations

import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.card import Modality
from training.data.cache import CropCache
from training.data.folder import read_folder
from training.data.images import load
from training.data.records import Record, with_translations

SIZE = (48, 24)


def test_a_cached_crop_equals_the_decoded_one(people_records: list[Record], tmp_path: Path) -> None:
    records = [
        *people_records,
        *with_translations([replace(r, identity="visible-only") for r in people_records if r.modality.index == 0]),
    ]
    cache = CropCache.open(records, tmp_path, SIZE, "lanczos")
    for record in reversed(records):
        assert (cache[record] == load(record, SIZE, "lanczos")).all()


def test_a_translation_shares_the_entry_of_its_source(people: Path, tmp_path: Path) -> None:
    records = with_translations(read_folder(people / "visible", Modality.VISIBLE))
    cache = CropCache.open(records, tmp_path, SIZE)
    assert len(np.load(cache.folder / "images.npy", mmap_mode="r")) == len(records) // 2


def test_cached_crops_cannot_be_written(people_records: list[Record], tmp_path: Path) -> None:
    crop = CropCache.open(people_records, tmp_path, SIZE)[people_records[0]]
    with pytest.raises(ValueError, match="read-only"):
        crop[0, 0] = 0


def test_a_second_opening_decodes_nothing(people_records: list[Record], tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    first = CropCache.open(people_records, tmp_path, SIZE, on_progress=lambda *c: calls.append(c))
    assert calls == [(n + 1, 60) for n in range(60)]
    again = CropCache.open(people_records[::-1], tmp_path, SIZE, on_progress=lambda *c: calls.append(c))
    assert len(calls) == 60
    assert again.folder == first.folder
    assert (again[people_records[7]] == first[people_records[7]]).all()


def test_size_filter_and_changed_files_make_another_cache(people: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(people, copy)
    records = read_folder(copy)
    caches = tmp_path / "caches"
    folders = {CropCache.open(records, caches, SIZE).folder}
    folders.add(CropCache.open(records, caches, (24, 12)).folder)
    folders.add(CropCache.open(records, caches, SIZE, "bicubic").folder)
    folders.add(CropCache.open(records[1:], caches, SIZE).folder)
    os.utime(records[5].path, ns=(1, 1))
    folders.add(CropCache.open(records, caches, SIZE).folder)
    assert len(folders) == 5
    assert set(caches.iterdir()) == folders


def test_a_moved_data_set_keeps_its_cache(people: Path, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    shutil.copytree(people, here)
    first = CropCache.open(read_folder(here), tmp_path / "caches", SIZE)
    here.rename(there)
    assert CropCache.open(read_folder(there), tmp_path / "caches", SIZE).folder == first.folder


def test_a_broken_image_is_named_and_leaves_no_cache(people: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(people, copy)
    records = read_folder(copy)
    records[17].path.write_bytes(b"broken")
    with pytest.raises(ValueError, match=records[17].path.name):
        CropCache.open(records, tmp_path / "caches", SIZE)
    assert not list((tmp_path / "caches").iterdir())


def test_a_pickled_cache_does_not_contain_its_array(people_records: list[Record], tmp_path: Path) -> None:
    cache = CropCache.open(people_records, tmp_path, SIZE)
    crop = cache[people_records[3]]
    packed = pickle.dumps(cache)
    assert len(packed) < 20_000
    assert (pickle.loads(packed)[people_records[3]] == crop).all()


def test_no_record_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no record"):
        CropCache.open([], tmp_path, SIZE)
