from __future__ import annotations

import numpy as np
import pytest

from tests.training.evaluation.oracle import (
    cam3_ignores_cam2,
    evaluate_by_loops,
    exact_scores,
    images,
    never,
    random_case,
    same_identity_and_camera,
)
from training.evaluation.embeddings import Embeddings
from training.evaluation.exclusion import Exclusion
from training.evaluation.metrics import Cmc, Metrics, average_precision, cmc_curve, evaluate, inverse_negative_penalty
from training.evaluation.ranking import Ranking, rank

RULES = {
    Exclusion.NONE: never,
    Exclusion.SAME_ID_SAME_CAM: same_identity_and_camera,
    Exclusion.CAM3_CAM2: cam3_ignores_cam2,
}


def labelled(vectors: object, identities: str, cameras: str | None = None) -> Embeddings:
    """Embeddings with one-letter identities and one-digit cameras."""
    return Embeddings(
        np.asarray(vectors, np.float32),
        np.array(list(identities)),
        np.array([f"cam{c}" for c in cameras or "1" * len(identities)]),
        np.zeros(len(identities), dtype=np.int64),
    )


def falling(identities: str, cameras: str | None = None) -> Embeddings:
    """A gallery that a query of vector [1] ranks in the given order."""
    return labelled(-np.arange(len(identities), dtype=np.float32)[:, None], identities, cameras)


@pytest.mark.parametrize("exclusion", Exclusion)
@pytest.mark.parametrize("cmc", Cmc)
def test_the_evaluator_equals_plain_loops_on_random_cases(exclusion: Exclusion, cmc: Cmc) -> None:
    seen = {"invalid": 0, "none valid": 0, "tied": 0}
    for seed in range(200):
        query, gallery = random_case(seed)
        scores = exact_scores(query, gallery)
        expected = evaluate_by_loops(
            scores, images(query), images(gallery), RULES[exclusion], cmc is Cmc.DISTINCT, max_rank=20
        )
        valid = len(expected.precision)
        seen["invalid"] += valid < len(query)
        seen["tied"] += any(len(set(row)) < len(row) for row in scores)
        if not valid:
            seen["none valid"] += 1
            with pytest.raises(ValueError, match="has a positive"):
                evaluate(query, gallery, exclusion, cmc)
            continue
        metrics = evaluate(query, gallery, exclusion, cmc, chunk=1 + seed % 5)
        assert metrics.cmc == tuple(expected.cmc), f"seed {seed}"
        assert metrics.mean_ap == pytest.approx(np.mean(expected.precision), rel=1e-14), f"seed {seed}"
        assert metrics.mean_inp == pytest.approx(np.mean(expected.penalty), rel=1e-14), f"seed {seed}"
        assert metrics.chance_rank1 == pytest.approx(np.mean(expected.chance), rel=1e-14), f"seed {seed}"
        assert (metrics.queries, metrics.valid_queries) == (len(query), valid), f"seed {seed}"
    assert min(seen.values()) > 4, f"the cases are too tame: {seen}"


@pytest.mark.parametrize("cmc", Cmc)
@pytest.mark.parametrize(("queries", "size", "cases"), [(12, 40, 60), (150, 2500, 1)])
def test_scores_with_a_few_ties_rank_like_plain_loops(cmc: Cmc, queries: int, size: int, cases: int) -> None:
    for seed in range(cases):
        rng = np.random.default_rng(seed)
        query, gallery = random_embeddings(queries, seed, dimension=1), random_embeddings(size, seed + 1, dimension=1)
        scores = rng.standard_normal((queries, size)).astype(np.float32)
        for row in range(0, queries, 2):  # every other query is free of ties
            one, other = rng.integers(0, size, (2, 10))
            scores[row, one] = scores[row, other]
        expected = evaluate_by_loops(
            scores.tolist(), images(query), images(gallery), cam3_ignores_cam2, cmc is Cmc.DISTINCT, max_rank=20
        )
        metrics = evaluate(query, gallery, Exclusion.CAM3_CAM2, cmc, scores=scores.__getitem__)
        assert metrics.cmc == pytest.approx(expected.cmc, rel=1e-14), f"seed {seed}"
        assert metrics.mean_ap == pytest.approx(np.mean(expected.precision), rel=1e-13), f"seed {seed}"
        assert metrics.mean_inp == pytest.approx(np.mean(expected.penalty), rel=1e-13), f"seed {seed}"


@pytest.mark.parametrize(
    ("identity", "distinct_rank", "image_rank", "precision", "penalty"),
    [("A", 1, 1, (1 + 2 / 3) / 2, 2 / 3), ("B", 2, 2, 1 / 2, 1 / 2), ("C", 3, 4, 1 / 4, 1 / 4)],
)
def test_the_hand_computed_ranking_a_b_a_c(
    identity: str, distinct_rank: int, image_rank: int, precision: float, penalty: float
) -> None:
    query, gallery = labelled([[1]], identity), falling("ABAC")
    for cmc, first in ((Cmc.DISTINCT, distinct_rank), (Cmc.IMAGE, image_rank)):
        metrics = evaluate(query, gallery, cmc=cmc, max_rank=5)
        assert metrics.cmc == tuple(float(k >= first) for k in range(1, 6))
        assert metrics.mean_ap == precision
        assert metrics.mean_inp == penalty


def test_a_cam2_image_counts_for_a_cam6_query_and_not_for_a_cam3_query() -> None:
    gallery = falling("ABA", "214")
    for camera, rank1 in (("6", 1.0), ("3", 0.0)):
        query = labelled([[1]], "A", camera)
        assert evaluate(query, gallery, Exclusion.CAM3_CAM2).rank1 == rank1


def test_a_cam3_query_ignores_cam2_images_of_every_identity() -> None:
    query, gallery = labelled([[1]], "A", "3"), falling("BA", "21")
    assert evaluate(query, gallery, Exclusion.CAM3_CAM2).rank1 == 1.0


def test_same_id_same_cam_excludes_only_images_with_both_equal() -> None:
    query = labelled([[1]], "A", "1")
    gallery = falling("AABB", "1212")  # same and other identity × same and other camera
    metrics = evaluate(query, gallery, Exclusion.SAME_ID_SAME_CAM)
    assert metrics.chance_rank1 == 1 / 3  # only the first image is left out
    assert metrics.rank1 == 1.0
    assert evaluate(labelled([[1]], "B", "1"), gallery, Exclusion.SAME_ID_SAME_CAM).mean_ap == 1 / 3


def test_queries_without_positives_are_not_counted() -> None:
    query = labelled([[1], [1], [1]], "AXB")
    metrics = evaluate(query, falling("AB"))
    assert (metrics.rank1, metrics.cmc[1], metrics.mean_ap) == (0.5, 1.0, 0.75)
    assert (metrics.queries, metrics.valid_queries) == (3, 2)


def test_equal_scores_are_ranked_by_gallery_index() -> None:
    gallery = labelled(np.ones((4, 3)), "BCAA")
    metrics = evaluate(labelled(np.ones((1, 3)), "A"), gallery, cmc=Cmc.IMAGE, max_rank=4)
    assert metrics.cmc == (0.0, 0.0, 1.0, 1.0)
    assert metrics.mean_ap == (1 / 3 + 2 / 4) / 2


def test_positive_and_negative_zero_scores_tie() -> None:
    ranking = rank(np.array([[-0.0, 0.0, -0.0]], np.float32), np.array(["A"]), np.array(list("BCA")))
    assert ranking.place.tolist() == [3]


def random_embeddings(count: int, seed: int, people: int = 30, dimension: int = 96) -> Embeddings:
    rng = np.random.default_rng(seed)
    return Embeddings(
        rng.standard_normal((count, dimension)).astype(np.float32),
        rng.integers(0, people, count).astype(np.str_),
        rng.choice(["cam1", "cam2", "cam3"], count),
        np.zeros(count, dtype=np.int64),
    )


@pytest.mark.parametrize("chunk", [1, 7, 64, 199, None])
def test_the_result_is_bit_identical_for_every_chunk_size(chunk: int | None) -> None:
    query, gallery = random_embeddings(200, seed=1), random_embeddings(333, seed=2)
    whole = evaluate(query, gallery, Exclusion.CAM3_CAM2, chunk=200)
    assert evaluate(query, gallery, Exclusion.CAM3_CAM2, chunk=chunk) == whole


def test_the_order_of_the_gallery_does_not_matter_without_ties() -> None:
    query, gallery = random_embeddings(100, seed=3), random_embeddings(250, seed=4)
    shuffled = gallery.take(np.random.default_rng(5).permutation(250))
    assert evaluate(query, shuffled) == evaluate(query, gallery)


@pytest.mark.parametrize("factor", [0.25, 3.0, 1000.0])
def test_a_positive_scaling_of_the_scores_does_not_matter(factor: float) -> None:
    query, gallery = random_embeddings(50, seed=6), random_embeddings(120, seed=7)
    scores = query.vectors @ gallery.vectors.T

    def scaled(rows: slice) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        return scores[rows] * np.float32(factor)

    assert evaluate(query, gallery, scores=scaled) == evaluate(query, gallery, scores=lambda rows: scores[rows])


def test_random_subsets_of_gallery_and_queries_are_evaluated() -> None:
    query, gallery = random_embeddings(40, seed=8), random_embeddings(90, seed=9)
    rng = np.random.default_rng(10)
    for _ in range(20):
        q, g = rng.permutation(40)[: rng.integers(5, 40)], rng.permutation(90)[: rng.integers(20, 90)]
        metrics = evaluate(query.take(q), gallery.take(g), Exclusion.SAME_ID_SAME_CAM)
        assert list(metrics.cmc) == sorted(metrics.cmc)


def test_evaluation_is_repeatable_and_does_not_change_its_inputs() -> None:
    query, gallery = random_embeddings(30, seed=11), random_embeddings(60, seed=12)
    before = [a.copy() for e in (query, gallery) for a in (e.vectors, e.identities, e.cameras, e.modalities)]
    for embeddings in (query, gallery):
        for array in (embeddings.vectors, embeddings.identities, embeddings.cameras, embeddings.modalities):
            array.setflags(write=False)
    first = evaluate(query, gallery, Exclusion.CAM3_CAM2)
    assert evaluate(query, gallery, Exclusion.CAM3_CAM2) == first
    after = [a for e in (query, gallery) for a in (e.vectors, e.identities, e.cameras, e.modalities)]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_curve_stays_at_its_last_value_when_the_gallery_is_small() -> None:
    metrics = evaluate(labelled([[1], [1]], "AB"), falling("AB"), max_rank=50)
    assert metrics.cmc == (0.5, *[1.0] * 49)
    assert set(metrics.values()) >= {"rank1", "rank20", "map", "minp", "chance_rank1"}


def test_perfect_and_random_rankings_have_the_expected_metrics() -> None:
    shape = random_embeddings(300, seed=13)
    everyone = Embeddings(shape.vectors, np.arange(300).astype(np.str_), shape.cameras, shape.modalities)
    perfect = evaluate(everyone, everyone)
    assert (perfect.rank1, perfect.mean_ap) == (1.0, 1.0)
    query = random_embeddings(4000, seed=14)
    metrics = evaluate(query, random_embeddings(400, seed=15))
    assert metrics.rank1 == pytest.approx(metrics.chance_rank1, abs=4 * (metrics.chance_rank1 / 4000) ** 0.5)


@pytest.mark.parametrize(
    ("query", "place", "identity_place", "kept", "message"),
    [
        ([1, 0], [1, 1], [1, 1], [2, 2], "sorted"),
        ([0, 0], [2, 2], [1], [3], "strictly increasing"),
        ([0, 0], [3, 2], [1], [3], "strictly increasing"),
        ([0], [4], [1], [3], "between 1"),
        ([0], [0], [1], [3], "between 1"),
        ([1], [1], [1], [3], r"0\.\.0"),
        ([0], [1], [0], [3], "if and only if"),
        ([0], [1], [4], [3], "within"),
        ([0], [1, 2], [1], [3], "lengths"),
    ],
)
def test_inconsistent_places_of_a_ranking_are_rejected(
    query: list[int], place: list[int], identity_place: list[int], kept: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Ranking(*(np.array(column, dtype=np.int64) for column in (query, place, identity_place, kept)))


def test_per_query_metrics_are_nan_without_a_positive() -> None:
    ranking = rank(np.array([[1, 2], [1, 2]], np.float32), np.array(["A", "X"]), np.array(["A", "B"]))
    assert average_precision(ranking).tolist() == pytest.approx([0.5, np.nan], nan_ok=True)
    assert inverse_negative_penalty(ranking).tolist() == pytest.approx([0.5, np.nan], nan_ok=True)
    assert np.isnan(cmc_curve(np.zeros(3, dtype=np.int64), 5)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_rejected(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        rank(np.array([[1, bad]], np.float32), np.array(["A"]), np.array(["A", "B"]))


def test_the_error_for_wrong_input_shows_what_was_found() -> None:
    query, gallery = labelled([[1, 0]], "A"), labelled([[1]], "A")
    with pytest.raises(ValueError, match=r"\(1, 2\) and \(1, 1\)"):
        evaluate(query, gallery)
    with pytest.raises(ValueError, match="max_rank"):
        evaluate(query, query, max_rank=0)
    with pytest.raises(ValueError, match="float64"):
        Embeddings(np.ones((1, 1)), query.identities, query.cameras, query.modalities)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not finite"):
        labelled([[np.nan]], "A")
    with pytest.raises(ValueError, match="2 identities"):
        labelled([[1], [1]], "A")


def test_metrics_have_their_result_names() -> None:
    assert hash(Metrics((1.0,), 1.0, 1.0, 0.5, 1, 1, 1, 1))
