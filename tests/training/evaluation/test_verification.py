from __future__ import annotations

import math

import numpy as np
import pytest

from models.card import Modality
from training.evaluation.embeddings import Embeddings
from training.evaluation.exclusion import Exclusion
from training.evaluation.verification import (
    Identification,
    PairCounts,
    PeopleCounts,
    ScoreCounts,
    calibrate,
    count_pairs,
    identify,
    verify,
)

STEP = 2.0**-20


def counted(scores: object) -> ScoreCounts:
    return ScoreCounts.empty().plus(np.asarray(scores, np.float32))


def people(count: int, seed: int, identities: int = 8) -> Embeddings:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).standard_normal((identities, 16))
    who = rng.integers(0, identities, count)
    vectors = centres[who] + rng.standard_normal((count, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cameras = rng.choice(["cam1", "cam2", "cam3"], count)
    return Embeddings(vectors.astype(np.float32), who.astype(np.str_), cameras, np.zeros(count, dtype=np.int64))


def test_fnmr_at_fmr_in_closed_form() -> None:
    impostor = np.arange(1000) / 1024  # 0 … 999 of 1024, each once
    genuine = np.arange(500, 1000) / 1024
    pairs = PairCounts(counted(genuine), counted(impostor))
    result = verify(pairs, 0.01)
    # ten impostors may reach the threshold: the smallest one is just above the eleventh highest score, 989
    assert result.threshold == 989 / 1024 + STEP
    assert result.fmr == 0.01
    assert result.fnmr == 490 / 500
    assert (result.genuine_pairs, result.impostor_pairs) == (500, 1000)


def test_the_threshold_is_above_tied_impostor_scores() -> None:
    impostor = np.array([0.5] * 990 + [0.75] * 20 + [0.25] * 990)
    result = verify(PairCounts(counted([0.75, 0.8]), counted(impostor)), 0.005)
    assert result.threshold == 0.75 + STEP
    assert result.fmr == 0.0
    assert result.fnmr == 0.5


@pytest.mark.parametrize(("impostors", "known"), [(999, False), (1000, True)])
def test_too_few_impostor_pairs_give_none_instead_of_a_rate(impostors: int, known: bool) -> None:
    pairs = PairCounts(counted([0.9]), counted(np.linspace(-1, 1, impostors)))
    result = verify(pairs, 0.01)
    assert (result.threshold is not None) == (result.fnmr is not None) == (result.fmr is not None) == known
    assert verify(pairs, 1e-4).fnmr is None


def test_a_given_threshold_is_used() -> None:
    pairs = PairCounts(counted([0.2, 0.4, 0.6, 0.8]), counted(np.linspace(-1, 1, 2001)))
    result = verify(pairs, 0.01, threshold=0.5)
    assert (result.threshold, result.fnmr) == (0.5, 0.5)
    assert result.fmr == pytest.approx(501 / 2001)


@pytest.mark.parametrize("exclusion", Exclusion)
@pytest.mark.parametrize("seed", range(5))
def test_pairs_and_thresholds_equal_plain_loops(exclusion: Exclusion, seed: int) -> None:
    query, gallery = people(60, seed), people(80, seed + 50)
    genuine: list[float] = []
    impostor: list[float] = []
    for q in range(60):
        for g in range(80):
            same = query.identities[q] == gallery.identities[g]
            cameras = (query.cameras[q], gallery.cameras[g])
            if exclusion is Exclusion.CAM3_CAM2 and cameras == ("cam3", "cam2"):
                continue
            if exclusion is Exclusion.SAME_ID_SAME_CAM and same and cameras[0] == cameras[1]:
                continue
            score = float(np.dot(query.vectors[q].astype(np.float64), gallery.vectors[g]))
            (genuine if same else impostor).append(score)
    pairs = count_pairs(query, gallery, exclusion)
    assert (pairs.genuine.total, pairs.impostor.total) == (len(genuine), len(impostor))
    for rate in (0.5, 0.1, 0.01):
        result = verify(pairs, rate)
        threshold, fmr, fnmr = result.threshold, result.fmr, result.fnmr
        assert threshold is not None
        assert fmr is not None
        assert fnmr is not None
        near = sum(abs(score - threshold) < 1e-6 for score in impostor + genuine)  # the float32 score may differ
        assert fmr <= rate
        assert abs(fmr * len(impostor) - sum(score >= threshold for score in impostor)) <= near
        assert abs(fnmr * len(genuine) - sum(score < threshold for score in genuine)) <= near
        assert sum(score >= threshold - 2 * STEP for score in impostor) > rate * len(impostor)


@pytest.mark.parametrize("exclusion", [Exclusion.NONE, Exclusion.SAME_ID_SAME_CAM])
def test_two_images_of_one_set_are_one_pair(exclusion: Exclusion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.evaluation.verification._ELEMENTS", 15 * 40)  # three blocks of rows
    crops = people(40, 1)
    genuine: list[float] = []
    impostor: list[float] = []
    for i in range(40):
        for j in range(i + 1, 40):
            same = crops.identities[i] == crops.identities[j]
            if exclusion is Exclusion.SAME_ID_SAME_CAM and same and crops.cameras[i] == crops.cameras[j]:
                continue
            (genuine if same else impostor).append(float(np.dot(crops.vectors[i], crops.vectors[j])))
    pairs = count_pairs(crops, crops, exclusion)
    assert (pairs.genuine.total, pairs.impostor.total) == (len(genuine), len(impostor))
    card = calibrate(pairs.impostor, Modality.VISIBLE, Modality.VISIBLE, "drawn")
    assert card.smallest_rate == 1 / len(impostor)
    assert card.rates[-1] == pytest.approx(card.smallest_rate)  # so many pairs do show it
    for rate in (0.5, 0.1):
        found = sum(score >= pairs.impostor.threshold(rate) for score in impostor)
        assert found / len(impostor) == pytest.approx(rate, abs=2 / len(impostor))


def test_identification_counts_the_right_identity_above_the_threshold() -> None:
    angles = np.linspace(0, 1, 200)
    unmated = np.stack([np.cos(1.2 + angles / 10), np.sin(1.2 + angles / 10)], axis=1)  # scores below 0.37
    mated = np.array([[1.0, 0.0], [0.8, 0.6], [0.2, math.sqrt(0.96)], [0.6, -0.8]])
    query = Embeddings(
        np.concatenate((mated, unmated)).astype(np.float32),
        np.array(["A", "A", "A", "B"] + ["X"] * 200),
        np.full(204, "1"),
        np.zeros(204, dtype=np.int64),
    )
    gallery = Embeddings(
        np.array([[1, 0], [-1, 0]], np.float32), np.array(["A", "B"]), np.full(2, "2"), np.zeros(2, dtype=np.int64)
    )
    result = identify(query, gallery, Exclusion.NONE, 0.1)
    # the third A scores 0.2, below every unmated probe; B's best match is A
    assert (result.mated_probes, result.unmated_probes) == (4, 200)
    assert result.tpir == 0.5
    assert result.fpir == 0.1
    assert result.threshold == pytest.approx(math.cos(1.2 + angles[20] / 10), abs=1e-5)
    assert identify(query, gallery, Exclusion.NONE, 0.01).tpir is None


def test_a_probe_without_any_gallery_is_unmated_and_never_a_false_positive() -> None:
    def images(identities: str, camera: str) -> Embeddings:
        count = len(identities)
        vectors = np.ones((count, 1), np.float32)
        return Embeddings(vectors, np.array(list(identities)), np.full(count, camera), np.zeros(count, dtype=np.int64))

    query = images("X" * 100, "cam3")
    known = images("A", "cam6")
    both = Embeddings(
        *(
            np.concatenate((getattr(query, name), getattr(known, name)))
            for name in ("vectors", "identities", "cameras", "modalities")
        )
    )
    result = identify(both, images("A", "cam2"), Exclusion.CAM3_CAM2, 0.1)
    assert (result.mated_probes, result.unmated_probes) == (1, 100)
    assert (result.tpir, result.fpir) == (1.0, 0.0)


@pytest.mark.parametrize("count", [200, 5000, 300_000])
def test_calibration_gives_the_share_of_impostors_at_a_score(count: int) -> None:
    scores = np.random.default_rng(count).normal(0.1, 0.15, count).clip(-1, 1).astype(np.float32)
    card = calibrate(counted(scores), Modality.VISIBLE, Modality.INFRARED, "drawn")
    assert card.impostor_pairs == count
    assert 20 < len(card.rates) <= 64
    assert card.rates[0] == 1.0
    assert card.rates[-1] == pytest.approx(1 / count)
    for rate, score in zip(card.rates, card.scores, strict=True):
        assert rate == pytest.approx((scores >= score).mean())
    for score in np.linspace(-0.2, 0.5, 15):
        share = (scores >= score).mean()
        assert card.false_match_rate(float(score)) == pytest.approx(share, rel=0.25, abs=2 / count)
    for rate in (1e-2, 1e-3, 1e-4):
        threshold = card.thresholds[str(rate)]
        if rate * count < 10:
            assert threshold is None
        else:
            assert threshold is not None
            assert (scores >= threshold).mean() <= rate < (scores >= threshold - 2 * STEP).mean()


def test_calibration_needs_different_scores() -> None:
    with pytest.raises(ValueError, match="found 0"):
        calibrate(counted([]), Modality.VISIBLE, Modality.INFRARED, "drawn")
    with pytest.raises(ValueError, match=r"expected different scores .* 100 impostor pairs with one"):
        calibrate(counted([0.5] * 100), Modality.VISIBLE, Modality.INFRARED, "drawn")


def test_scores_outside_the_range_of_cosines_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"-3\.0 to 0\.5"):
        counted([0.5, -3])
    assert counted([1 + 1e-6, -1 - 1e-6]).total == 2


def test_intervals_over_people_contain_the_rate_and_are_wider_than_over_pairs() -> None:
    crops = people(120, 3, identities=12)
    counts = count_pairs(crops, crops).impostor
    measured = calibrate(
        counts, Modality.VISIBLE, Modality.VISIBLE, "drawn", real=True, people=PeopleCounts(crops, crops)
    )
    assert (measured.identities, measured.real, len(measured.intervals)) == (12, True, len(measured.rates))
    for rate, (low, high) in zip(measured.rates, measured.intervals, strict=True):
        assert 0 <= low <= high <= 1
        if 0.01 < rate < 0.9:
            assert low < rate < high
            over_pairs = 4 * (rate * (1 - rate) / measured.impostor_pairs) ** 0.5
            assert high - low > over_pairs


def test_an_interval_holds_the_rate_of_all_people_more_often_than_that_of_other_people() -> None:
    """A rate measured on other people varies itself: it may lie outside while the interval is right."""
    everyone = drawn_people(2000, seed=0)
    scores = everyone[0].vectors @ everyone[1].vectors.T
    threshold = float(np.quantile(scores[~np.eye(2000, dtype=bool)], 0.9))
    true, other = 0, 0
    for seed in range(1, 101):
        here, there = drawn_people(60, seed), drawn_people(60, 1000 + seed)
        ((low, high),) = PeopleCounts(*here).intervals((threshold,), resamples=200, seed=seed)
        cosines = there[0].vectors @ there[1].vectors.T
        true += low <= 0.1 <= high
        other += low <= float((cosines[~np.eye(60, dtype=bool)] >= threshold).mean()) <= high
    assert 90 <= true <= 100
    assert 72 <= other < true


def drawn_people(count: int, seed: int) -> tuple[Embeddings, Embeddings]:
    """A crop in each modality of people who differ in how much they look like everyone."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((count, 24))
    centres[:, 0] += 1.5 + 1.2 * rng.standard_normal(count)
    sides = []
    for modality in Modality:
        vectors = centres + 0.7 * rng.standard_normal((count, 24))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        sides.append(
            Embeddings(
                vectors.astype(np.float32),
                np.arange(count).astype(np.str_),
                np.full(count, "1"),
                np.full(count, modality.index),
            )
        )
    return sides[0], sides[1]


def test_the_interval_of_one_person_against_another_is_that_of_their_pairs() -> None:
    """With equal scores of all impostors, every resample has the same rate."""
    vectors = np.tile(np.array([[1.0, 0.0]], np.float32), (6, 1))
    crops = Embeddings(vectors, np.array(list("aabbcc")), np.array(["1"] * 6), np.zeros(6, np.int64))
    assert PeopleCounts(crops, crops).intervals((0.5, 1.5)) == ((1.0, 1.0), (0.0, 0.0))


def test_the_former_names_of_target_rates_are_read() -> None:
    counts = {"mated_probes": 1, "unmated_probes": 0}
    stored = {"asked_fpir": 0.1, "threshold": None, "fpir": None, "tpir": None, **counts}
    assert Identification.model_validate(stored).target_fpir == 0.1
    assert "asked_fpir" not in Identification.model_validate(stored).model_dump()
