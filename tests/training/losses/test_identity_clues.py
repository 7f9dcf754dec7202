"""ICRE's loss against plain loops in float64, its closed-form values, and its distillation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from training.losses import Distillation, IdentityClues

Rows = tuple[Tensor, Tensor, Tensor]


def batch(identities: int, images: int, dim: int = 6, seed: int = 0) -> Rows:
    """Float64 rows of ``identities`` x 2 modalities x ``images``, in random order."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(identities).repeat_interleave(2 * images)
    modalities = torch.arange(2).repeat_interleave(images).repeat(identities)
    order = torch.randperm(len(labels), generator=generator)
    rows = torch.randn(len(labels), dim, generator=generator, dtype=torch.float64)
    return rows, 5 * labels[order] + 2, modalities[order]


def distance(a: list[float], b: list[float]) -> float:
    return math.sqrt(max(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)), 1e-12))


def loop(rows: Tensor, labels: Tensor, modalities: Tensor, margin: float) -> tuple[float, float]:
    """Compute L1 and L2 in plain loops."""
    unit = [(row / row.norm()).tolist() for row in rows]
    groups: dict[tuple[int, int], list[list[float]]] = {}
    for row, key in zip(unit, zip(labels.tolist(), modalities.tolist(), strict=True), strict=True):
        groups.setdefault(key, []).append(row)
    centres = {key: [sum(column) / len(g) for column in zip(*g, strict=True)] for key, g in groups.items()}
    first = []
    for row, label, modality in zip(unit, labels.tolist(), modalities.tolist(), strict=True):
        strangers = [distance(row, c) for (other, _), c in centres.items() if other != label]
        if strangers and (label, 1 - modality) in centres:
            first.append(max(0.0, distance(row, centres[label, 1 - modality]) - min(strangers) + margin))
    second = []
    for label in {label for label, _ in groups}:
        if {(label, 0), (label, 1)} <= groups.keys():
            spreads = [
                sum(distance(r, centres[label, m]) for r in groups[label, m]) / len(groups[label, m]) for m in (0, 1)
            ]
            second.append(max(0.0, distance(centres[label, 0], centres[label, 1]) - sum(spreads) / 2))
    return sum(first) / max(len(first), 1), sum(second) / max(len(second), 1)


@pytest.mark.parametrize(("identities", "images"), [(2, 1), (3, 2), (5, 4), (8, 3)])
@pytest.mark.parametrize("margin", [0.1, 0.5])
def test_it_equals_the_loop_over_rows_and_centres(identities: int, images: int, margin: float) -> None:
    rows = batch(identities, images)
    expected = sum(loop(*rows, margin))
    assert expected > 0.05
    assert IdentityClues(margin)(*rows).item() == pytest.approx(expected, rel=1e-9)
    assert IdentityClues(margin)(rows[0].float(), *rows[1:]).item() == pytest.approx(expected, rel=1e-4)


def test_an_identity_with_one_modality_is_only_a_negative() -> None:
    rows, labels, modalities = batch(4, 2)
    kept = ~((labels == 7) & (modalities == 1))
    found = IdentityClues()(rows[kept], labels[kept], modalities[kept]).item()
    assert found == pytest.approx(sum(loop(rows[kept], labels[kept], modalities[kept], 0.3)), rel=1e-9)


def test_the_order_of_the_batch_and_swapped_modalities_do_not_matter() -> None:
    rows, labels, modalities = batch(4, 3)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))
    expected = IdentityClues()(rows, labels, modalities)
    torch.testing.assert_close(IdentityClues()(rows[order], labels[order], modalities[order]), expected)
    torch.testing.assert_close(IdentityClues()(rows, labels, 1 - modalities), expected)


def test_the_loss_is_zero_for_coinciding_groups_and_distant_negatives() -> None:
    _, labels, modalities = batch(4, 3)
    corners = torch.eye(4)[(labels - 2) // 5]  # unit vectors at a distance of sqrt(2)
    assert IdentityClues(0.3)(corners, labels, modalities).item() == 0
    assert IdentityClues(1.5)(corners, labels, modalities).item() == pytest.approx(1.5 - math.sqrt(2), abs=1e-5)


def test_only_the_gap_beyond_the_spread_within_a_modality_is_penalised() -> None:
    rows, labels, modalities = batch(4, 3)
    twins = rows.clone()
    for label in labels.unique():  # the same rows in both modalities: centres coincide
        twins[(labels == label) & (modalities == 1)] = rows[(labels == label) & (modalities == 0)]
    first, second = loop(twins, labels, modalities, 0.3)
    assert second == 0
    assert first > 0.1
    assert IdentityClues()(twins, labels, modalities).item() == pytest.approx(first, rel=1e-6)


def test_with_one_image_per_modality_the_gap_is_the_distance_of_the_centres() -> None:
    rows, labels, modalities = batch(1, 1)  # one identity: no stranger, so the first part is zero
    unit = torch.nn.functional.normalize(rows)
    assert IdentityClues()(rows, labels, modalities).item() == pytest.approx((unit[0] - unit[1]).norm().item())


def test_gradients_are_those_of_the_equation_also_through_the_centres() -> None:
    rows, labels, modalities = batch(3, 2, dim=5, seed=4)
    assert torch.autograd.gradcheck(lambda x: IdentityClues()(x, labels, modalities), rows.requires_grad_())


@pytest.mark.parametrize("kind", ["duplicates", "zeros", "long", "shared image"])
@pytest.mark.parametrize("images", [1, 2])
def test_degenerate_rows_give_finite_values_and_gradients(kind: str, images: int) -> None:
    rows, labels, modalities = batch(2, images)
    rows = rows.float()
    if kind == "duplicates":
        rows = rows[[0] * len(rows)]
    elif kind == "zeros":
        rows = torch.zeros_like(rows)
    elif kind == "long":
        rows = 1e4 * rows
    else:
        rows[labels == 2] = rows[labels == 7]
    rows.requires_grad_()
    value = IdentityClues()(rows, labels, modalities)
    value.backward()
    assert value.isfinite()
    assert rows.grad is not None
    assert rows.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_it_is_float32(dtype: torch.dtype) -> None:
    rows, labels, modalities = batch(4, 2, dim=64)
    half = rows.to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = IdentityClues()(half, labels, modalities)
    value.backward()
    assert value.dtype == torch.float32
    assert half.grad is not None
    assert half.grad.isfinite().all()
    assert value.item() == pytest.approx(sum(loop(half.detach().double(), labels, modalities, 0.3)), rel=1e-3)


def test_the_error_for_a_batch_of_one_modality_names_the_missing_one() -> None:
    rows, labels, _ = batch(2, 2)
    with pytest.raises(ValueError, match="no infrared"):
        IdentityClues()(rows, labels, torch.zeros_like(labels))


def test_distillation_is_the_divergence_of_softened_classes_without_gradient_to_the_teacher() -> None:
    torch.manual_seed(0)
    student, teacher = (torch.randn(3, 4, dtype=torch.float64).requires_grad_() for _ in range(2))
    expected = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        p, q = ([math.exp(v / 4) / sum(math.exp(u / 4) for u in row) for v in row] for row in (t, s))
        expected += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / 3
    value = Distillation()(student, teacher)
    value.backward()
    assert value.item() == pytest.approx(expected, rel=1e-5)
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.any()
    assert Distillation()(teacher, teacher).item() == pytest.approx(0, abs=1e-7)
    assert Distillation(1.0)(student, teacher).item() > value.item()
