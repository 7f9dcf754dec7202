from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from models.card import Modality
from tests.drawing import draw_person
from training.config import TrainingConfig
from training.data.frame_folds import fold_of, frame_of, frames_of_pairs
from training.data.sources import Folder, LeftOut, Source
from training.data.training_data import TrainingData

FRAMES = [f"{n:05d}{light}" for n in range(12) for light in "DN"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two windows of each of 24 frames, and pairs cut from half of the frames."""
    root = tmp_path_factory.mktemp("frames")
    for modality in Modality:
        for frame in FRAMES:
            for place in range(2):
                folder = root / "windows" / modality / f"{frame}-{place}"
                folder.mkdir(parents=True)
                Image.fromarray(draw_person(place, modality, size=(16, 8))).save(folder / "x_c1.png")
        (root / "pairs" / modality).mkdir(parents=True)
        for frame in FRAMES[::2]:
            Image.fromarray(draw_person(0, modality, size=(16, 8))).save(root / "pairs" / modality / f"{frame}_3.png")
    return root


def read(data: Path, **leave_out: object) -> TrainingData:
    windows: dict[str, object] = {"kind": "folder", "root": data / "windows", "group_pattern": r"(.+)-\d+"}
    sources: list[dict[str, object]] = [
        windows | {"name": "a", "leave_out": {"pairs": data / "pairs", **leave_out}},
        windows | {"name": "b"},
    ]
    config = TrainingConfig.model_validate({"data": sources, "validation": {"share": 0}})
    return config.read_data()


def frames(found: TrainingData, source: str) -> set[str]:
    return {r.identity.split("/")[1].rpartition("-")[0] for r in found.train if r.identity.startswith(f"{source}/")}


def test_left_out_frames_of_the_pairs_are_not_read(data: Path) -> None:
    found = read(data)
    assert frames(found, "a") == set(FRAMES[1::2])
    assert frames(found, "b") == set(FRAMES)
    assert found.sources[0].identities == 2 * len(FRAMES[1::2])


def test_folds_leave_out_every_frame_of_a_pair_exactly_once(data: Path) -> None:
    out = [set(FRAMES) - frames(read(data, fold=k, folds=3), "a") for k in range(3)]
    assert all(out)
    assert sum(map(len, out)) == len(set.union(*out)) == 12
    assert set.union(*out) == set(FRAMES[::2])
    assert frames_of_pairs(data / "pairs", 1, 3) == out[1] == {f for f in FRAMES[::2] if fold_of(f, 3) == 1}


def test_the_frame_comes_from_the_name_of_the_pair() -> None:
    assert frame_of("00036N_3") == "00036N"
    assert frame_of("a_b_10") == "a_b"
    assert frame_of("x7y", r"x(\d)y") == "7"
    with pytest.raises(ValueError, match="'00036N': its name does not match"):
        frame_of("00036N")


def test_leave_out_without_a_matching_frame_is_an_error(data: Path) -> None:
    windows = {"kind": "folder", "root": data / "windows", "name": "a", "group_pattern": r"(.+)"}
    config = {"data": [windows | {"leave_out": {"pairs": data / "pairs"}}], "validation": {"share": 0}}
    with pytest.raises(ValueError, match="a: no identity belongs to a frame to leave out; check that group_pattern"):
        TrainingConfig.model_validate(config).read_data()


def test_invalid_leave_out_settings_are_rejected(data: Path) -> None:
    with pytest.raises(ValueError, match="leave_out needs a group_pattern"):
        Folder(kind="folder", root=data, name="a", leave_out=LeftOut(pairs=data / "pairs"))
    with pytest.raises(ValueError, match="expected a fold below 2, found 2"):
        LeftOut(pairs=data, fold=2, folds=2)


def shares(*per_batch: int | None) -> TrainingConfig:
    data = [{"kind": "pairs", "root": "x", "name": str(n), "per_batch": k} for n, k in enumerate(per_batch)]
    return TrainingConfig.model_validate({"data": data, "batch": {"identities": 8}})


def test_shares_of_a_batch_must_be_given_for_all_data_sets_and_add_up() -> None:
    sources: tuple[Source, ...] = shares(5, 3).data
    assert [source.per_batch for source in sources] == [5, 3]
    assert [source.per_batch for source in shares(None, None).data] == [None, None]
    with pytest.raises(ValueError, match=r"one for each of 2 data sets, with the sum 8 .* found \[5\]"):
        shares(5, None)
    with pytest.raises(ValueError, match=r"found \[5, 4\]"):
        shares(5, 4)


def test_pools_contain_the_identities_of_their_source_with_their_frames(data: Path) -> None:
    windows = {"kind": "folder", "root": data / "windows", "group_pattern": r"(.+)-\d+"}
    sources = [windows | {"name": "a", "per_batch": 5}, windows | {"name": "b", "per_batch": 3}]
    config = {"data": sources, "validation": {"share": 0.3}, "batch": {"identities": 8}}
    found = TrainingConfig.model_validate(config).read_data()
    assert [pool.identities for pool in found.pools] == [5, 3]
    for pool, name in zip(found.pools, "ab", strict=True):
        own = {r.identity for r in found.train if r.identity.startswith(f"{name}/")}
        assert dict(pool.groups) == {identity: identity.rpartition("-")[0] for identity in own}
    together = read(data).pools
    assert [pool.identities for pool in together] == [8]
    assert together[0].groups.keys() == {r.identity for r in read(data).train}


def test_sources_of_the_same_frames_hold_out_the_same_ones(data: Path) -> None:
    windows = {"kind": "folder", "root": data / "windows", "group_pattern": r"(.+)-\d+"}

    def held_out_records(**changes: object) -> tuple[set[str], set[str]]:
        sources = [windows | {"name": "a"}, windows | {"name": "b"} | changes]
        found = TrainingConfig.model_validate({"data": sources, "validation": {"share": 0.4}}).read_data()
        one, other = ({r.identity.split("/")[1] for r in part.records} for part in found.held_out)
        return one, other

    separate, together = held_out_records(), held_out_records(split_as="a")
    assert separate[0] != separate[1]
    assert together == (separate[0], separate[0])


def test_split_as_with_an_unknown_source_is_rejected() -> None:
    data = [{"kind": "pairs", "root": "x", "name": "x", "split_as": "y"}]
    with pytest.raises(ValueError, match=r"x: split_as 'y' is none of the data sets \['x'\]"):
        TrainingConfig.model_validate({"data": data})
    with pytest.raises(ValueError, match="x: images needs per_batch"):
        TrainingConfig.model_validate({"data": [{"kind": "pairs", "root": "x", "name": "x", "images": 2}]})


def test_aligned_windows_are_validated_with_infrared_mirrored_and_recropped(data: Path) -> None:
    windows = {"kind": "folder", "root": data / "windows", "group_pattern": r"(.+)-\d+"}
    sources = [windows | {"name": "a", "aligned": True}, windows | {"name": "b"}]
    found = TrainingConfig.model_validate({"data": sources, "validation": {"share": 0.3}}).read_data()
    assert [(part.name, part.misaligned) for part in found.held_out] == [("a", True), ("b", False)]
