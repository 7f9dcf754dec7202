"""The readers of SYSU-MM01, RegDB and LLCM on synthetic data sets, and the published counts."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.card import Modality
from tests.drawing import draw_person
from tests.training.synthetic_datasets import write_llcm, write_regdb, write_sysu_mm01
from training.data import llcm, regdb, sysu_mm01
from training.data.check import Kind, check, detect
from training.data.records import by_camera

V, R = Modality.VISIBLE, Modality.INFRARED
PUBLISHED_PERMUTATION = Path(__file__).parents[4] / "shared/data/sysu-mm01-split/rand_perm_cam.mat"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with misleading names, for readers that search the whole path."""
    return tmp_path_factory.mktemp("x") / "cameras" / "cam3_c7_" / "visible"


@pytest.fixture(scope="module")
def sysu(home: Path) -> tuple[Path, dict[str, int]]:
    return home / "SYSU", write_sysu_mm01(home / "SYSU", draw_person, size=(24, 12))


@pytest.fixture(scope="module")
def reg(home: Path) -> tuple[Path, dict[str, int]]:
    return home / "RegDB", write_regdb(home / "RegDB", draw_person, size=(24, 12))


@pytest.fixture(scope="module")
def low_light(home: Path) -> tuple[Path, dict[str, int]]:
    return home / "LLCM", write_llcm(home / "LLCM", draw_person, size=(24, 12))


def test_a_complete_copy_has_every_count(
    sysu: tuple[Path, dict[str, int]], reg: tuple[Path, dict[str, int]], low_light: tuple[Path, dict[str, int]]
) -> None:
    for module, (root, counts) in ((sysu_mm01, sysu), (regdb, reg), (llcm, low_light)):
        assert counts.keys() == module.COUNTS.keys()
        report = module.check(root, counts)
        assert report.problems() == []
        assert report.ok
        assert report.stray == ()
        assert {c.what: c.found for c in report.counts} == counts


def test_the_report_of_an_incomplete_copy_has_expected_and_found_counts(sysu: tuple[Path, dict[str, int]]) -> None:
    report = check(sysu[0])
    assert not report.ok
    assert "train identities: expected 296, found 4" in report.problems()
    assert f"test infrared images: expected 3803, found {sysu[1]['test infrared images']}" in report.problems()


def test_published_counts_add_up() -> None:
    c = sysu_mm01.COUNTS
    assert c["train visible images"] + c["val visible images"] == 22_258
    assert c["train infrared images"] + c["val infrared images"] == 11_909
    for modality in Modality:
        cameras = [n for n, kind in sysu_mm01.CAMERAS.items() if kind is modality]
        assert sum(c[f"test images of cam{n}"] for n in cameras) == {V: 6_775, R: 3_803}[modality]
        assert sum(c[f"train+val images of cam{n}"] for n in cameras) == {V: 22_258, R: 11_909}[modality]
    c = llcm.COUNTS
    assert c["train identities"] + c["test identities"] == 1_064
    assert sum(number for what, number in c.items() if what.endswith("images")) == 46_767


def test_sysu_training_includes_the_validation_split_or_not(
    sysu: tuple[Path, dict[str, int]],
) -> None:
    root, counts = sysu
    with_them, without = sysu_mm01.training_records(root), sysu_mm01.training_records(root, 296)
    assert set(without) < set(with_them)
    assert len({r.identity for r in with_them}) == 6
    assert len({r.identity for r in without}) == 4
    assert sum(r.modality is V for r in without) == counts["train visible images"]
    assert sum(r.modality is R for r in with_them) == counts["train infrared images"] + counts["val infrared images"]
    with pytest.raises(ValueError, match="296 or 395"):
        sysu_mm01.training_records(root, 491)  # type: ignore[arg-type]


def test_sysu_records_come_from_path_components(sysu: tuple[Path, dict[str, int]]) -> None:
    root, _ = sysu
    for modality in Modality:
        for record in sysu_mm01.evaluation_records(root, modality):
            assert record.path.relative_to(root).parts[:2] == (f"cam{record.camera}", record.identity)
            assert record.modality is modality is sysu_mm01.CAMERAS[record.camera]


def test_sysu_records_are_grouped_by_camera(sysu: tuple[Path, dict[str, int]]) -> None:
    root, counts = sysu
    gallery = by_camera(sysu_mm01.evaluation_records(root, V))
    assert list(gallery) == ["1", "2", "4", "5"]
    for camera, pool in gallery.items():
        assert len(pool) == counts[f"test images of cam{camera}"]
        assert {r.camera for r in pool} == {camera}
    queries = sysu_mm01.evaluation_records(root, R)
    assert {r.camera for r in queries} == {"3", "6"}
    assert len(queries) == counts["test infrared images"]


def test_sysu_validation_people_are_only_in_cameras_3_4_and_5(sysu: tuple[Path, dict[str, int]]) -> None:
    records = [r for m in Modality for r in sysu_mm01.evaluation_records(sysu[0], m, sysu_mm01.Split.VALIDATION)]
    assert {r.camera for r in records} == {"3", "4", "5"}


def test_the_synthetic_permutation_has_the_published_form(sysu: tuple[Path, dict[str, int]]) -> None:
    root, counts = sysu
    cells = sysu_mm01.permutation(root / "exp" / "rand_perm_cam.mat")
    assert len(cells) == counts["camera and identity cells as in rand_perm_cam.mat"]
    for (camera, identity), rows in cells.items():
        files = sorted((root / f"cam{camera}" / f"{identity:04d}").iterdir())
        assert rows.shape == (10, len(files))


def test_the_permutation_survives_arithmetic_beyond_8_bits(sysu: tuple[Path, dict[str, int]]) -> None:
    rows = next(iter(sysu_mm01.permutation(sysu[0] / "exp" / "rand_perm_cam.mat").values()))
    assert rows.dtype == np.int64
    assert (rows + 1_000 > 1_000).all()


@pytest.mark.skipif(not PUBLISHED_PERMUTATION.exists(), reason="the published permutation is not on this machine")
def test_the_published_permutation_has_the_known_cells() -> None:
    cells = sysu_mm01.permutation(PUBLISHED_PERMUTATION)
    assert len(cells) == 2_298 == sysu_mm01.COUNTS["camera and identity cells as in rand_perm_cam.mat"]
    assert len({identity for _, identity in cells}) == 513
    assert {rows.dtype for rows in cells.values()} == {np.dtype(np.int64)}
    images = Counter(dict.fromkeys(range(1, 7), 0))
    for (camera, _), rows in cells.items():
        images[camera] += rows.shape[1]
    assert sum(images[c] for c in (1, 2, 4, 5)) == sysu_mm01.COUNTS["all visible images"]
    assert sum(images[c] for c in (3, 6)) == sysu_mm01.COUNTS["all infrared images"]
    first = {key: cells[key][:3, 0].tolist() for key in ((1, 6), (2, 6), (4, 10), (5, 17))}
    assert first == {(1, 6): [5, 17, 38], (2, 6): [7, 10, 18], (4, 10): [12, 7, 15], (5, 17): [14, 16, 10]}


@pytest.mark.skipif(not PUBLISHED_PERMUTATION.exists(), reason="the published permutation is not on this machine")
def test_the_published_permutation_confirms_every_count() -> None:
    from scipy.io import loadmat

    def listed(name: str) -> set[int]:
        return {int(n) for n in loadmat(PUBLISHED_PERMUTATION.with_name(name))["id"].ravel()}

    splits = {"train": listed("train_id.mat"), "val": {*range(334, 434)} - {347}, "test": listed("test_id.mat")}
    cells = sysu_mm01.permutation(PUBLISHED_PERMUTATION)
    found = Counter({f"{split} identities": len(people) for split, people in splits.items()})
    found["camera and identity cells as in rand_perm_cam.mat"] = len(cells)
    for (camera, identity), rows in cells.items():
        modality = "infrared" if camera in (3, 6) else "visible"
        found[f"all {modality} images"] += rows.shape[1]
        for split, people in splits.items():
            if identity in people:
                part = "test" if split == "test" else "train+val"
                found[f"{split} {modality} images"] += rows.shape[1]
                found[f"{part} images of cam{camera}"] += rows.shape[1]
                found[f"{part} identities of cam{camera}"] += 1
    assert found == sysu_mm01.COUNTS


def test_another_matlab_file_is_rejected(tmp_path: Path) -> None:
    from scipy.io import savemat

    savemat(tmp_path / "other.mat", {"id": np.arange(3)})
    with pytest.raises(ValueError, match="rand_perm_cam"):
        sysu_mm01.permutation(tmp_path / "other.mat")


@pytest.mark.parametrize("trial", regdb.TRIALS)
def test_a_regdb_trial_splits_the_people_in_half(reg: tuple[Path, dict[str, int]], trial: int) -> None:
    root, _ = reg
    learnt = regdb.training_records(root, trial)
    evaluated = {m: regdb.evaluation_records(root, trial, m) for m in Modality}
    people = {r.identity for r in learnt}
    assert len(people) == 3
    for modality, records in evaluated.items():
        assert {r.modality for r in records} == {modality}
        assert {r.identity for r in records} == {"1", "2", "3", "4", "5", "6"} - people
        assert Counter(r.modality for r in learnt)[modality] == len(records) == 9


def test_regdb_trials_differ_and_unknown_ones_are_rejected(reg: tuple[Path, dict[str, int]]) -> None:
    trials = {tuple(sorted({r.identity for r in regdb.training_records(reg[0], t)})) for t in regdb.TRIALS}
    assert len(trials) > 1
    for trial in (0, 11):
        with pytest.raises(ValueError, match=f"got {trial}"):
            regdb.training_records(reg[0], trial)


def test_llcm_cameras_come_from_folders_and_names(low_light: tuple[Path, dict[str, int]]) -> None:
    root, counts = low_light
    for record in llcm.training_records(root):
        assert f"_c{record.camera:0>2}_" in record.path.name
        assert record.path.name.startswith(record.identity)
    for modality in Modality:
        records = llcm.evaluation_records(root, modality)
        assert len(records) == counts[f"test {modality} images"]
        assert set(by_camera(records)) <= set(llcm.CAMERAS[modality])
        for record in records:
            assert record.path.parts[-3] == f"cam{record.camera}"
    assert "3" not in by_camera(llcm.evaluation_records(root, R))


@pytest.mark.parametrize(
    ("kind", "lost"),
    [
        (Kind.SYSU_MM01, "exp/val_id.txt"),
        (Kind.SYSU_MM01, "exp/rand_perm_cam.mat"),
        (Kind.SYSU_MM01, "cam3"),
        (Kind.REGDB, "idx/test_thermal_7.txt"),
        (Kind.REGDB, "Visible/3/male_back_v_00003_2.bmp"),
        (Kind.REGDB, "Thermal"),
        (Kind.LLCM, "idx/test_id.txt"),
        (Kind.LLCM, "idx/train_nir.txt"),
        (Kind.LLCM, "test_nir/cam9"),
    ],
)
def test_missing_files_and_folders_are_named(
    kind: Kind,
    lost: str,
    sysu: tuple[Path, dict[str, int]],
    reg: tuple[Path, dict[str, int]],
    low_light: tuple[Path, dict[str, int]],
    tmp_path: Path,
) -> None:
    root = {Kind.SYSU_MM01: sysu, Kind.REGDB: reg, Kind.LLCM: low_light}[kind][0]
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    missing = copy / lost
    shutil.rmtree(missing) if missing.is_dir() else missing.unlink()
    report = check(copy, kind)
    assert not report.ok
    assert report.problem is not None
    assert report.problem.startswith(f"{missing}: missing")


def test_a_renumbered_image_disagrees_with_the_permutation(sysu: tuple[Path, dict[str, int]], tmp_path: Path) -> None:
    root, counts = tmp_path / "copy", sysu[1]
    shutil.copytree(sysu[0], root)
    cell = root / "cam4" / "0002"
    (cell / "0001.jpg").rename(cell / "0099.jpg")
    cells = "camera and identity cells as in rand_perm_cam.mat"
    assert sysu_mm01.check(root, counts).problems() == [f"{cells}: expected {counts[cells]}, found {counts[cells] - 1}"]


def test_stray_files_are_reported_and_ignored(sysu: tuple[Path, dict[str, int]], tmp_path: Path) -> None:
    root, counts = tmp_path / "copy", sysu[1]
    shutil.copytree(sysu[0], root)
    stray = sorted([root / "cam1" / "0002" / "Thumbs.db", root / "cam6" / "0002" / "0001 (copy).jpg"])
    for file in stray:
        file.write_bytes(b"")
    report = sysu_mm01.check(root, counts)
    assert report.ok
    assert [*report.stray] == stray


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("exp/test_id.txt", "6,ten,17", "'ten'"),
        ("exp/test_id.txt", "6,6", "listed twice"),
        ("exp/rand_perm_cam.mat", "no matlab", "rand_perm_cam.mat"),
    ],
)
def test_a_malformed_file_is_reported_as_the_problem(
    sysu: tuple[Path, dict[str, int]], tmp_path: Path, file: str, content: str, message: str
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(sysu[0], root)
    (root / file).write_text(content)
    report = sysu_mm01.check(root)
    assert report.problem is not None
    assert file in report.problem
    assert message in report.problem


def test_a_malformed_image_list_is_named_with_its_line(reg: tuple[Path, dict[str, int]], tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(reg[0], root)
    index = root / "idx" / "train_visible_1.txt"
    index.write_text(index.read_text() + "Visible/1/x.bmp\n")
    with pytest.raises(ValueError, match=r"train_visible_1\.txt, line 10"):
        regdb.training_records(root, 1)


def test_the_kind_is_detected_from_the_folders(
    sysu: tuple[Path, dict[str, int]],
    reg: tuple[Path, dict[str, int]],
    low_light: tuple[Path, dict[str, int]],
    people: Path,
) -> None:
    assert detect(sysu[0]) is Kind.SYSU_MM01
    assert detect(reg[0]) is Kind.REGDB
    assert detect(low_light[0]) is Kind.LLCM
    assert detect(people) is Kind.FOLDER
    assert detect(people / "visible") is Kind.SINGLE_MODALITY


def test_own_folders_and_manifests_are_counted(people: Path, tmp_path: Path) -> None:
    def counts(path: Path) -> dict[str, int]:
        report = check(path)
        assert report.ok
        return {c.what: c.found for c in report.counts}

    both = {
        "identities": 6,
        "cameras": 4,
        "visible images": 30,
        "infrared images": 30,
        "identities with both modalities": 6,
    }
    assert counts(people) == both
    assert counts(people / "infrared") == {"identities": 6, "cameras": 2, "images": 30}
    Image.new("RGB", (4, 8)).save(tmp_path / "a.png")
    (tmp_path / "m.csv").write_text("path,identity,modality,camera\na.png,7,visible,1\n")
    assert counts(tmp_path / "m.csv")["visible images"] == 1


def test_a_wrong_manifest_kind_or_path_is_reported(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,identity,modality,camera\na.png,7,visible,1\n")
    assert "'a.png' is not a file" in check(tmp_path / "m.csv").problems()[0]
    assert not check(tmp_path).ok
    with pytest.raises(FileNotFoundError, match="nowhere"):
        check(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="'market'"):
        check(tmp_path, "market")
