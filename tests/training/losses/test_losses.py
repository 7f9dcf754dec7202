"""Every loss against plain loops in float64, and on degenerate batches."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from training.losses import CrossEntropy, Loss, Triplet, WeightedTriplet
from training.losses.pairs import masked_softmax, pair_masks, pairwise_distances

METRIC_LOSSES = [Triplet(), WeightedTriplet()]
ALL_LOSSES = [*METRIC_LOSSES, CrossEntropy()]


def batch(identities: int, images: int, dim: int, seed: int = 0, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Float64 rows of ``identities`` x 2 modalities x ``images``, in random order."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(identities).repeat_interleave(2 * images)
    modalities = torch.arange(2).repeat_interleave(images).repeat(identities)
    order = torch.randperm(len(labels), generator=generator)
    rows = torch.randn(len(labels), dim, generator=generator, dtype=torch.float64)
    return scale * rows, labels[order], modalities[order]


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).square().sum().sqrt())


def anchors(rows: Tensor, identities: Tensor) -> list[tuple[list[float], list[float]]]:
    """Distances to positives and to negatives of each anchor that has both."""
    found = []
    for i in range(len(rows)):
        others = [j for j in range(len(rows)) if j != i]
        positives = [distance(rows[i], rows[j]) for j in others if identities[j] == identities[i]]
        negatives = [distance(rows[i], rows[j]) for j in others if identities[j] != identities[i]]
        if positives and negatives:
            found.append((positives, negatives))
    return found


def loop_triplet(rows: Tensor, identities: Tensor) -> float:
    terms = [max(0.0, 0.3 + max(p) - min(n)) for p, n in anchors(rows, identities)]
    return sum(terms) / len(terms) if terms else 0.0


def loop_weighted_triplet(rows: Tensor, identities: Tensor) -> float:
    terms = []
    for positives, negatives in anchors(rows, identities):
        up = [math.exp(d - max(positives)) for d in positives]
        down = [math.exp(min(negatives) - d) for d in negatives]
        far = sum(w * d for w, d in zip(up, positives, strict=True)) / sum(up)
        near = sum(w * d for w, d in zip(down, negatives, strict=True)) / sum(down)
        terms.append(math.log1p(math.exp(far - near)))
    return sum(terms) / len(terms) if terms else 0.0


def loop_cross_entropy(rows: Tensor, identities: Tensor) -> float:
    terms = []
    for row, identity in zip(rows.tolist(), identities.tolist(), strict=True):
        terms.append(math.log(sum(math.exp(v - max(row)) for v in row)) + max(row) - row[identity])
    return sum(terms, 0.0) / len(terms)


LOOPS = {Triplet: loop_triplet, WeightedTriplet: loop_weighted_triplet, CrossEntropy: loop_cross_entropy}


@pytest.mark.parametrize("loss", ALL_LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize(("identities", "images", "dim"), [(2, 1, 3), (3, 2, 4), (4, 4, 16), (8, 2, 33)])
@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_a_loss_equals_the_loop_over_its_pairs(
    loss: Loss, identities: int, images: int, dim: int, scale: float
) -> None:
    rows, labels, modalities = batch(identities, images, max(dim, identities), seed=dim, scale=scale)
    expected = LOOPS[type(loss)](rows, labels)
    assert float(loss(rows, labels, modalities)) == pytest.approx(expected, rel=1e-9, abs=1e-6)
    assert float(loss(rows.float(), labels, modalities)) == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("loss", ALL_LOSSES, ids=lambda loss: type(loss).__name__)
def test_the_order_of_the_batch_does_not_matter(loss: Loss) -> None:
    rows, labels, modalities = batch(5, 3, 8)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        loss(rows, labels, modalities), loss(rows[order], labels[order], modalities[order]), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("loss", ALL_LOSSES, ids=lambda loss: type(loss).__name__)
def test_gradients_are_those_of_the_equation(loss: Loss) -> None:
    rows, labels, modalities = batch(3, 2, 5, seed=4)
    assert torch.autograd.gradcheck(lambda x: loss(x, labels, modalities), rows.requires_grad_())


@pytest.mark.parametrize("loss", METRIC_LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("labels", [[3, 3, 3, 3], [0, 1, 2, 3], [7]], ids=["one identity", "no positives", "one row"])
def test_without_a_valid_anchor_the_loss_is_zero_and_connected_to_the_graph(loss: Loss, labels: list[int]) -> None:
    rows = torch.randn(len(labels), 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    value = loss(rows, torch.tensor(labels), torch.zeros(len(labels), dtype=torch.int64))
    value.backward()
    assert value.item() == 0
    assert rows.grad is not None
    assert not rows.grad.any()


@pytest.mark.parametrize("loss", METRIC_LOSSES, ids=lambda loss: type(loss).__name__)
def test_anchors_without_a_positive_are_ignored(loss: Loss) -> None:
    rows, labels, modalities = batch(3, 2, 5)
    labels[0] = 99
    expected = LOOPS[type(loss)](rows, labels)
    assert len(anchors(rows, labels)) == len(rows) - 1
    assert float(loss(rows, labels, modalities)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("loss", METRIC_LOSSES, ids=lambda loss: type(loss).__name__)
def test_a_single_image_per_modality_has_its_counterpart_as_positive(loss: Loss) -> None:
    rows, labels, modalities = batch(4, 1, 6)
    assert all(len(positives) == 1 for positives, _ in anchors(rows, labels))
    assert float(loss(rows, labels, modalities)) == pytest.approx(LOOPS[type(loss)](rows, labels), rel=1e-9)


@pytest.mark.parametrize("loss", METRIC_LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("kind", ["duplicates", "zeros", "long", "two identities share an image"])
def test_degenerate_features_give_finite_values_and_gradients(loss: Loss, kind: str) -> None:
    rows, labels, modalities = batch(4, 2, 8)
    rows = rows.float()
    if kind == "duplicates":
        rows = rows[labels * 2]
    elif kind == "zeros":
        rows = torch.zeros_like(rows)
    elif kind == "long":
        rows = 100 * torch.nn.functional.normalize(rows)
    else:
        rows[labels == 1] = rows[labels == 0]
    rows.requires_grad_()
    value = loss(rows, labels, modalities)
    value.backward()
    assert rows.grad is not None
    assert value.isfinite()
    assert rows.grad.isfinite().all()
    expected = LOOPS[type(loss)](rows.detach().double(), labels)
    assert value.item() == pytest.approx(expected, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("length", [1.0, 10.0, 25.0, 100.0])
def test_pair_weights_sum_to_one_for_features_of_any_length(length: float) -> None:
    rows, labels, _ = batch(8, 4, 16)
    positive, negative = pair_masks(labels)
    distances = pairwise_distances(length * torch.nn.functional.normalize(rows.float()))
    for weights, mask in (
        (masked_softmax(distances, positive), positive),
        (masked_softmax(-distances, negative), negative),
    ):
        torch.testing.assert_close(weights.sum(1), torch.ones(len(rows)))
        assert not weights[~mask].any()


def test_duplicates_far_from_the_origin_are_at_distance_zero() -> None:
    rows = (1e3 + torch.randn(4, 64, generator=torch.Generator().manual_seed(0))).repeat(2, 1)
    distances = pairwise_distances(rows)
    exact = torch.cdist(rows.double(), rows.double(), compute_mode="donot_use_mm_for_euclid_dist")
    torch.testing.assert_close(distances.double(), exact, rtol=1e-3, atol=2e-2)


@pytest.mark.parametrize("loss", ALL_LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_a_loss_is_float32_and_finite(loss: Loss, dtype: torch.dtype) -> None:
    rows, labels, modalities = batch(4, 2, 32, scale=30)
    half = rows.to(dtype).requires_grad_()
    expected = loss(half.detach().double(), labels, modalities)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(half, labels, modalities)
    value.backward()
    assert value.dtype == torch.float32
    assert half.grad is not None
    assert half.grad.isfinite().all()
    assert value.item() == pytest.approx(expected.item(), rel=1e-3)


def test_the_margin_option_is_used() -> None:
    rows, labels, modalities = batch(3, 2, 4)
    small, large = (float(Triplet(margin)(rows, labels, modalities)) for margin in (2.0, 3.0))
    assert large == pytest.approx(small + 1)


def test_a_batch_with_extreme_distances_does_not_overflow() -> None:
    rows = torch.tensor([[0.0], [1e4], [0.0], [1e4]])
    value = WeightedTriplet()(rows, torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1]))
    assert value.item() == pytest.approx(1e4)


@pytest.mark.parametrize("loss", ALL_LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize(
    ("rows", "labels", "modalities"), [((4, 3), 3, 4), ((4, 3), 4, 5), ((4,), 4, 4), ((0, 3), 0, 0)]
)
def test_inconsistent_shapes_are_rejected(loss: Loss, rows: tuple[int, ...], labels: int, modalities: int) -> None:
    with pytest.raises(ValueError, match="expected embeddings"):
        loss(
            torch.zeros(rows),
            torch.zeros(labels, dtype=torch.int64),
            torch.zeros(modalities, dtype=torch.int64),
        )


def test_rows_without_a_class_are_ignored_by_the_identity_loss() -> None:
    rows = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    identities, modalities = torch.tensor([0, 7, 3, 4, 1, 4]), torch.zeros(6, dtype=torch.int64)
    known = [0, 2, 4]
    loss = CrossEntropy()(rows, identities, modalities)
    torch.testing.assert_close(loss, CrossEntropy()(rows[known], identities[known], modalities[known]))
    loss.backward()
    assert rows.grad is not None
    assert rows.grad[[1, 3, 5]].count_nonzero() == 0
    nothing = CrossEntropy()(rows, identities + 4, modalities)
    assert nothing.item() == 0
    assert nothing.requires_grad
