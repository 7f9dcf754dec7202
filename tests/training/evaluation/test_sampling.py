from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import loadmat, savemat

from models.card import Modality
from tests.training.evaluation.virtual import (
    OFFICIAL,
    VirtualRecord,
    drawn_permutation,
    random_embeddings,
    sysu_records,
)
from training.data import sysu_mm01
from training.evaluation.embeddings import Labelled
from training.evaluation.exclusion import Exclusion, excluded
from training.evaluation.metrics import evaluate
from training.evaluation.protocol import (
    Convention,
    Direction,
    Mode,
    Protocol,
    ProtocolError,
    Sampler,
    custom,
    llcm,
    regdb,
    sysu,
)
from training.evaluation.run import run
from training.evaluation.sampling import Permutation, Trial, trials

needs_official = pytest.mark.skipif(
    not (OFFICIAL / "rand_perm_cam.mat").exists(),
    reason="the published permutation of SYSU-MM01 is not beside the project (shared/data/sysu-mm01-split)",
)
VALIDATION_IDS = [identity for identity in range(334, 434) if identity != 347]
CAMERAS = range(1, 7)

CHECKSUMS = {
    sysu(): "3671 3668 3453 3491 3745 3497 3485 3490 3450 3591",
    sysu(Mode.INDOOR): "1570 1544 1553 1401 1723 1498 1415 1459 1485 1525",
    sysu(shots=10): "35650 35209 35124 35299 35360 35380 35061 35449 35436 35250",
    sysu(Mode.INDOOR, 10): "15508 15164 15114 15148 15270 15140 15111 15174 15232 15235",
    sysu(sampler=Sampler.AGW_SEED): "3649 3566 3469 3639 3419 3482 3705 3545 3586 3453",
    sysu(Mode.INDOOR, 1, Sampler.AGW_SEED): "1647 1568 1722 1681 1458 1487 1600 1482 1529 1376",
}
FIRST_PICKS = {
    sysu(): {
        6: {1: (5, 17, 38), 2: (7, 10, 18), 4: (10, 20, 4), 5: (15, 1, 8)},
        10: {1: (18, 24, 25), 2: (11, 4, 20), 4: (12, 7, 15), 5: (9, 2, 8)},
        17: {4: (12, 14, 12), 5: (14, 16, 10)},
    },
    sysu(sampler=Sampler.AGW_SEED): {
        6: {1: (25, 9, 4), 2: (25, 19, 3), 4: (14, 3, 3), 5: (2, 9, 12)},
        10: {1: (17, 8, 11), 2: (17, 16, 24), 4: (16, 15, 10), 5: (13, 16, 9)},
    },
}


@cache
def official() -> Permutation:
    return sysu_mm01.permutation(OFFICIAL / "rand_perm_cam.mat")


def count(permutation: Permutation, camera: int, identity: int) -> int:
    cell = permutation.get((camera, identity))
    return 0 if cell is None else cell.shape[1]


@cache
def identity_list(name: str) -> list[int]:
    return [int(i) for i in loadmat(OFFICIAL / f"{name}.mat")["id"].ravel()]


@cache
def test_images() -> list[Labelled]:
    return sysu_records(official(), identity_list("test_id"))


test_images.__test__ = False  # type: ignore[attr-defined]


def numbers(records: list[Labelled], rows: NDArray[np.int64]) -> list[int]:
    return [int(records[row].path.stem) for row in rows]


def subset_counts(identities: list[int]) -> tuple[int, int, int]:
    records = sysu_records(official(), identities)
    sides = Counter(record.modality for record in records)
    return len({record.identity for record in records}), sides[Modality.VISIBLE], sides[Modality.INFRARED]


@needs_official
def test_the_permutation_gives_the_published_counts() -> None:
    everyone = sorted({identity for _, identity in official()})
    train, test = identity_list("train_id"), identity_list("test_id")
    left = sorted(set(everyone) - {*train, *VALIDATION_IDS, *test})
    assert len(official()) == 2298
    assert subset_counts(train) == (296, 20_284, 9_929)
    assert subset_counts(VALIDATION_IDS) == (99, 1_974, 1_980)
    assert subset_counts(train + VALIDATION_IDS) == (395, 22_258, 11_909)
    assert subset_counts(test) == (96, 6_775, 3_803)
    assert subset_counts(left) == (22, 1_038, 80)
    assert subset_counts(everyone) == (513, 30_071, 15_792)
    assert (test[:12], test[-1]) == ([6, 10, 17, 21, 24, 25, 27, 28, 31, 34, 36, 37], 333)


@needs_official
@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("trainval", "4721/194 5753/195 7909/392 5811/382 5973/390 4000/200"),
        ("val", "0/0 0/0 1980/99 990/99 984/96 0/0"),
        ("test", "1374/56 1565/56 1883/93 1918/94 1918/95 1920/96"),
    ],
)
def test_the_permutation_gives_the_published_counts_per_camera(split: str, expected: str) -> None:
    identities = {
        "trainval": identity_list("train_id") + VALIDATION_IDS,
        "val": VALIDATION_IDS,
        "test": identity_list("test_id"),
    }[split]
    counts = [[count(official(), camera, identity) for identity in identities] for camera in CAMERAS]
    assert " ".join(f"{sum(cell)}/{np.count_nonzero(cell)}" for cell in counts) == expected


@needs_official
def test_every_training_identity_has_both_modalities_and_ten_shots_always_exist() -> None:
    for identity in identity_list("train_id") + VALIDATION_IDS:
        visible, infrared = (sum(count(official(), c, identity) for c in side) for side in ((1, 2, 4, 5), (3, 6)))
        assert visible >= 10
        assert infrared >= 20
    gallery = [count(official(), camera, i) for camera in (1, 2, 4, 5) for i in identity_list("test_id")]
    assert min(images for images in gallery if images) == 13


@needs_official
@pytest.mark.parametrize("protocol", CHECKSUMS, ids=lambda protocol: protocol.id)
def test_the_drawn_galleries_have_the_published_checksums(protocol: Protocol) -> None:
    drawn = list(trials(protocol, test_images(), official()))
    assert " ".join(str(sum(numbers(test_images(), trial.gallery))) for trial in drawn) == CHECKSUMS[protocol]


@needs_official
@pytest.mark.parametrize("protocol", FIRST_PICKS, ids=lambda protocol: protocol.id)
def test_the_first_picks_are_the_published_ones(protocol: Protocol) -> None:
    drawn = list(trials(protocol, test_images(), official()))[:3]
    for identity, cameras in FIRST_PICKS[protocol].items():
        for camera in (1, 2, 4, 5):
            picks = tuple(
                int(test_images()[row].path.stem)
                for trial in drawn
                for row in trial.gallery
                if test_images()[row].path.parent == Path(f"cam{camera}/{identity:04d}")
            )
            assert picks == cameras.get(camera, ())


@needs_official
@pytest.mark.parametrize(
    ("mode", "single", "multiple", "valid", "identities", "seen", "positives", "chance"),
    [
        (Mode.ALL, 301, 3010, 3803, 96, (245, 301), {1: 80, 2: 1535, 3: 1088, 4: 1100}, 1.04),
        (Mode.INDOOR, 112, 1120, 2208, 56, (56, 112), {0: 1595, 1: 1088, 2: 1120}, 1.79),
    ],
)
def test_sysu_trials_have_the_published_structure(
    mode: Mode,
    single: int,
    multiple: int,
    valid: int,
    identities: int,
    seen: tuple[int, int],
    positives: dict[int, int],
    chance: float,
) -> None:
    images = random_embeddings(test_images(), seed=0)
    trial = next(trials(sysu(mode), test_images(), official()))
    assert (len(trial.query), len(trial.gallery)) == (3803, single)
    assert len(next(trials(sysu(mode, 10), test_images(), official())).gallery) == multiple

    query, gallery = images.take(trial.query), images.take(trial.gallery)
    kept = ~mask_of(excluded(Exclusion.CAM3_CAM2, query, gallery))
    for camera, expected in zip(("3", "6"), seen, strict=True):
        assert set(kept[query.cameras == camera].sum(axis=1)) == {expected}
    found = (kept & (query.identities[:, None] == gallery.identities)).sum(axis=1)
    assert Counter(found.tolist()) == positives
    if mode is Mode.INDOOR:
        assert Counter(query.cameras[found == 0].tolist()) == {"3": 795, "6": 800}
        assert [len(set(query.identities[(found > 0) & (query.cameras == c)])) for c in ("3", "6")] == [54, 56]

    metrics = evaluate(query, gallery, Exclusion.CAM3_CAM2)
    assert (metrics.queries, metrics.valid_queries, metrics.gallery_identities) == (3803, valid, identities)
    assert round(100 * metrics.chance_rank1, 2) == chance


def mask_of(
    mask: np.ndarray[tuple[int, int], np.dtype[np.bool_]] | None,
) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    assert mask is not None
    return mask


@needs_official
def test_the_validation_split_has_only_all_search() -> None:
    records = sysu_records(official(), VALIDATION_IDS)
    trial = next(trials(sysu(), records, official()))
    images = random_embeddings(records, seed=1)
    metrics = evaluate(images.take(trial.query), images.take(trial.gallery), Exclusion.CAM3_CAM2)
    assert (metrics.queries, metrics.valid_queries, metrics.gallery) == (1980, 1980, 195)
    with pytest.raises(ProtocolError, match="found 1980 and 0"):
        next(trials(sysu(Mode.INDOOR), records, official()))


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("shots", [1, 10])
def test_official_draws_follow_the_rows_of_a_drawn_permutation(mode: Mode, shots: int) -> None:
    permutation = drawn_permutation(seed=3, identities=[2, 5, 11])
    records = sysu_records(permutation, [2, 11])
    cameras = (1, 2, 4, 5) if mode is Mode.ALL else (1, 2)
    protocol = sysu(mode, 10 if shots == 10 else 1)
    for trial in trials(protocol, records, permutation):
        expected = {
            f"cam{camera}/{identity:04d}/{number:04d}.jpg"
            for camera in cameras
            for identity in (2, 11)
            if (camera, identity) in permutation
            for number in permutation[camera, identity][trial.number][:shots]
        }
        assert {record.path.as_posix() for record in (records[row] for row in trial.gallery)} == expected
        assert all(records[row].modality is Modality.INFRARED for row in trial.query)
        assert len(trial.query) == sum(r.modality is Modality.INFRARED for r in records)


@pytest.mark.parametrize("sampler", [Sampler.OFFICIAL_PERM, Sampler.AGW_SEED])
def test_draws_do_not_depend_on_the_order_of_the_records(sampler: Sampler) -> None:
    permutation = drawn_permutation(seed=4, identities=[1, 10, 9])
    records = sysu_records(permutation, [1, 9, 10])
    shuffled = [records[i] for i in np.random.default_rng(0).permutation(len(records))]
    for one, other in zip(
        trials(sysu(sampler=sampler), records, permutation),
        trials(sysu(sampler=sampler), shuffled, permutation),
        strict=True,
    ):
        assert [records[r] for r in one.gallery] == [shuffled[r] for r in other.gallery]


def test_a_stray_file_is_named_before_it_changes_a_draw() -> None:
    permutation = drawn_permutation(seed=5, identities=[1, 2])
    records = sysu_records(permutation, [1, 2])
    stray = VirtualRecord(Path("cam4/0001/0099.jpg"), "0001", "4", Modality.VISIBLE)
    images = permutation[4, 1].shape[1]
    for sampler in (Sampler.OFFICIAL_PERM, Sampler.AGW_SEED):
        with pytest.raises(ProtocolError, match=f"expected {images} images, found {images + 1} in cam4/0001"):
            next(trials(sysu(sampler=sampler), [*records, stray], permutation))


def test_official_draws_without_the_permutation_are_rejected() -> None:
    records = sysu_records(drawn_permutation(seed=6, identities=[1]), [1])
    with pytest.raises(ProtocolError, match=r"rand_perm_cam\.mat"):
        next(trials(sysu(), records))


def test_eight_bit_entries_do_not_overflow(tmp_path: Path) -> None:
    people = np.empty((2, 1), dtype=object)
    people[0, 0] = np.stack([np.arange(200, 0, -1)] * 10).astype(np.uint8)
    people[1, 0] = np.zeros((10, 0), dtype=np.uint8)
    cameras = np.empty((1, 1), dtype=object)
    cameras[0, 0] = people
    savemat(tmp_path / "rand_perm_cam.mat", {"rand_perm_cam": cameras})
    permutation = sysu_mm01.permutation(tmp_path / "rand_perm_cam.mat")
    assert list(permutation) == [(1, 1)]
    assert permutation[1, 1][0, :2].sum() == 399


def llcm_records() -> list[Labelled]:
    """Two people; infrared without camera 3, as in the data set."""
    layout: dict[Modality, dict[tuple[int, int], int]] = {
        Modality.VISIBLE: {(11, 1): 3, (11, 3): 2, (12, 1): 4},
        Modality.INFRARED: {(11, 1): 2, (11, 4): 5, (12, 4): 3},
    }
    return [
        VirtualRecord(
            Path(f"test_{modality}/cam{camera}/{identity:04d}/{n}.jpg"), f"{identity:04d}", str(camera), modality
        )
        for modality, cells in layout.items()
        for (identity, camera), images in cells.items()
        for n in range(images)
    ]


def described(records: list[Labelled], trial: Trial) -> tuple[Counter[Modality], int, Counter[Modality], int]:
    sides = [[records[row] for row in rows] for rows in (trial.query, trial.gallery)]
    return tuple(value for side in sides for value in (Counter(r.modality for r in side), len(side)))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("direction", "convention", "count", "query", "gallery"),
    [
        (Direction.VIS_TO_IR, Convention.PAPER, 10, (Modality.VISIBLE, 9), (Modality.INFRARED, 3)),
        (Direction.IR_TO_VIS, Convention.PAPER, 10, (Modality.INFRARED, 10), (Modality.VISIBLE, 3)),
        (Direction.VIS_TO_IR, Convention.DEEN_RELEASE, 10, (Modality.INFRARED, 3), (Modality.VISIBLE, 9)),
        (Direction.IR_TO_VIS, Convention.DEEN_RELEASE, 10, (Modality.INFRARED, 10), (Modality.VISIBLE, 3)),
        (Direction.VIS_TO_IR, Convention.IDKL_FULL, 1, (Modality.VISIBLE, 9), (Modality.INFRARED, 10)),
        (Direction.IR_TO_VIS, Convention.IDKL_FULL, 1, (Modality.INFRARED, 10), (Modality.VISIBLE, 9)),
    ],
)
def test_llcm_conventions_determine_queries_and_gallery(
    direction: Direction,
    convention: Convention,
    count: int,
    query: tuple[Modality, int],
    gallery: tuple[Modality, int],
) -> None:
    records = llcm_records()
    drawn = list(trials(llcm(direction, convention), records))
    assert len(drawn) == count
    for trial in drawn:
        assert described(records, trial) == ({query[0]: query[1]}, query[1], {gallery[0]: gallery[1]}, gallery[1])


def test_both_llcm_conventions_draw_the_same_images() -> None:
    records = llcm_records()
    paper, deen = (
        list(trials(llcm(Direction.VIS_TO_IR, convention), records))
        for convention in (Convention.PAPER, Convention.DEEN_RELEASE)
    )
    assert all(np.array_equal(a.gallery, b.query) for a, b in zip(paper, deen, strict=True))
    assert len({tuple(trial.gallery) for trial in paper}) > 1


@pytest.mark.parametrize(
    ("convention", "rank1", "mean_ap", "valid"),
    [
        # visible queries at 0° (own camera excluded: no positive), 35°, 24° (r2 first for both) and 32°
        (Convention.PAPER, 1 / 3, (1 / 2 + 1 / 2 + 1) / 3, 3),
        # r1 ranks 24°, 32° and 35°; r2 ranks 32° first
        (Convention.DEEN_RELEASE, 1.0, (1 + (1 + 2 / 3) / 2) / 2, 2),
        # as in the paper, but the query at 0° finds r1
        (Convention.IDKL_FULL, 1 / 2, (1 + 1 / 2 + 1 / 2 + 1) / 4, 4),
    ],
)
def test_llcm_conventions_give_three_hand_computed_results(
    convention: Convention, rank1: float, mean_ap: float, valid: int
) -> None:
    angles = {
        (1, 1, Modality.VISIBLE): 0,
        (1, 2, Modality.VISIBLE): 35,
        (1, 3, Modality.VISIBLE): 24,
        (2, 1, Modality.VISIBLE): 32,
        (1, 1, Modality.INFRARED): 10,
        (2, 2, Modality.INFRARED): 30,
    }
    records: list[Labelled] = [
        VirtualRecord(Path("0.jpg"), f"{identity:04d}", str(camera), modality) for identity, camera, modality in angles
    ]
    radians = np.radians(list(angles.values()))
    vectors = np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)
    for metrics in run(llcm(Direction.VIS_TO_IR, convention), records, vectors).metrics:
        assert metrics.valid_queries == valid
        assert metrics.rank1 == pytest.approx(rank1)
        assert metrics.mean_ap == pytest.approx(mean_ap)


@pytest.mark.parametrize("protocol", [regdb(Direction.VIS_TO_IR, 1), custom(Direction.VIS_TO_IR)], ids=lambda p: p.id)
def test_full_galleries_contain_every_image_of_the_other_modality(protocol: Protocol) -> None:
    records = llcm_records()
    (trial,) = trials(protocol, records)
    assert described(records, trial) == ({Modality.VISIBLE: 9}, 9, {Modality.INFRARED: 10}, 10)


def test_a_missing_modality_is_named() -> None:
    visible = [record for record in llcm_records() if record.modality is Modality.VISIBLE]
    empty: list[Callable[[], object]] = [
        lambda: next(trials(custom(Direction.VIS_TO_IR), visible)),
        lambda: next(trials(custom(Direction.IR_TO_VIS), [])),
    ]
    for draw, found in zip(empty, ("9 and 0", "0 and 0"), strict=True):
        with pytest.raises(ProtocolError, match=found):
            draw()
