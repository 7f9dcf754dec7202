"""EMI's losses against plain loops in float64, and their closed-form values and gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from training.losses import (
    ClassConditionalConsistency,
    CrossEntropy,
    DistributionConsistency,
    HeteroCentre,
    Loss,
    Triplet,
    WithinModality,
)

Rows = tuple[Tensor, Tensor, Tensor]


def batch(identities: int, images: int, dim: int = 5, seed: int = 0, shift: float = 0.5) -> Rows:
    """Float64 rows of ``identities`` x 2 modalities x ``images`` in random order, infrared shifted."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(identities).repeat_interleave(2 * images)
    modalities = torch.arange(2).repeat_interleave(images).repeat(identities)
    order = torch.randperm(len(labels), generator=generator)
    labels, modalities = labels[order], modalities[order]
    rows = torch.randn(len(labels), dim, generator=generator, dtype=torch.float64) + shift * modalities[:, None]
    return rows, labels, modalities


# --- the equations as one would write them down


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def statistics(rows: Tensor, modalities: Tensor, channel: int, modality: int) -> tuple[float, float]:
    values = [row[channel] for row, m in zip(rows.tolist(), modalities.tolist(), strict=True) if m == modality]
    return mean(values), mean([(v - mean(values)) ** 2 for v in values])


def loop_consistency(divergence: str) -> Callable[[Tensor, Tensor, Tensor], float]:
    def value(rows: Tensor, labels: Tensor, modalities: Tensor) -> float:
        terms = []
        for k in range(rows.shape[1]):
            (mu_v, var_v), (mu_r, var_r) = (statistics(rows, modalities, k, m) for m in (0, 1))
            sd_v, sd_r = math.sqrt(var_v + 1e-6), math.sqrt(var_r + 1e-6)
            if divergence == "w2":
                terms.append((mu_v - mu_r) ** 2 + (sd_v - sd_r) ** 2)
            elif divergence == "moments":
                terms.append(abs(mu_v - mu_r) + abs(sd_v - sd_r))
            else:
                s_v, s_r, q = var_v + 1e-2, var_r + 1e-2, (mu_v - mu_r) ** 2
                terms.append(((s_v + q) / s_r + (s_r + q) / s_v - 2) / 4)
        return mean(terms)

    return value


def centre(rows: Tensor, labels: Tensor, modalities: Tensor, label: int, modality: int) -> list[float]:
    own = [
        r
        for r, y, m in zip(rows.tolist(), labels.tolist(), modalities.tolist(), strict=True)
        if (y, m) == (label, modality)
    ]
    return [mean(list(column)) for column in zip(*own, strict=True)]


def both(labels: Tensor, modalities: Tensor) -> list[int]:
    seen = set(zip(labels.tolist(), modalities.tolist(), strict=True))
    return [label for label in labels.unique().tolist() if {(label, 0), (label, 1)} <= seen]


def loop_hetero_centre(rows: Tensor, labels: Tensor, modalities: Tensor) -> float:
    gaps = []
    for label in both(labels, modalities):
        v, r = (centre(rows, labels, modalities, label, m) for m in (0, 1))
        gaps.append(sum((a - b) ** 2 for a, b in zip(v, r, strict=True)))
    return mean(gaps) if gaps else 0.0


def loop_class_conditional(rows: Tensor, labels: Tensor, modalities: Tensor) -> float:
    total = 0.0
    for k in range(rows.shape[1]):
        spread = []
        for modality in (0, 1):
            residuals = [
                (row[k] - centre(rows, labels, modalities, label, m)[k]) ** 2
                for row, label, m in zip(rows.tolist(), labels.tolist(), modalities.tolist(), strict=True)
                if m == modality
            ]
            spread.append(math.sqrt(mean(residuals) + 1e-6))
        total += (spread[0] - spread[1]) ** 2 / rows.shape[1]
    return total + loop_hetero_centre(rows, labels, modalities) / rows.shape[1]


DIVERGENCES = ("w2", "symkl", "moments")
LOSSES: dict[str, tuple[Loss, Callable[[Tensor, Tensor, Tensor], float]]] = {
    **{d: (DistributionConsistency(d), loop_consistency(d)) for d in DIVERGENCES},  # type: ignore[arg-type]
    "class conditional": (ClassConditionalConsistency(), loop_class_conditional),
    "hetero-centre": (HeteroCentre(), loop_hetero_centre),
}
each_loss = pytest.mark.parametrize("name", LOSSES)


@each_loss
@pytest.mark.parametrize(("identities", "images"), [(2, 1), (3, 2), (5, 4)])
def test_a_loss_equals_the_loop_over_its_rows(name: str, identities: int, images: int) -> None:
    loss, loop = LOSSES[name]
    rows = batch(identities, images)
    expected = loop(*rows)
    assert expected > 0.01
    assert loss(*rows).item() == pytest.approx(expected, rel=1e-9)
    assert loss(rows[0].float(), *rows[1:]).item() == pytest.approx(expected, rel=1e-4)


@each_loss
def test_an_identity_without_one_modality_has_no_gap(name: str) -> None:
    loss, loop = LOSSES[name]
    rows, labels, modalities = batch(4, 2)
    kept = ~((labels == 1) & (modalities == 0))
    expected = loop(rows[kept], labels[kept], modalities[kept])
    assert loss(rows[kept], labels[kept], modalities[kept]).item() == pytest.approx(expected, rel=1e-9)


@each_loss
def test_order_and_swapped_modalities_do_not_matter_and_values_are_not_negative(name: str) -> None:
    loss, _ = LOSSES[name]
    for seed in range(3):
        rows, labels, modalities = batch(4, 3, seed=seed, shift=0.0)
        value = loss(rows, labels, modalities)
        assert value > 0
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(loss(rows[order], labels[order], modalities[order]), value)
        torch.testing.assert_close(loss(rows, labels, 1 - modalities), value)


@each_loss
def test_the_loss_is_zero_for_equal_rows_in_both_modalities(name: str) -> None:
    loss, _ = LOSSES[name]
    rows, labels, _ = batch(4, 3)
    twice = loss(rows.repeat(2, 1), labels.repeat(2), torch.arange(2).repeat_interleave(len(rows)))
    assert twice.item() == pytest.approx(0, abs=1e-12)


@each_loss
def test_gradients_are_those_of_the_equation(name: str) -> None:
    rows, labels, modalities = batch(3, 2, seed=4)
    loss, _ = LOSSES[name]
    assert torch.autograd.gradcheck(lambda x: loss(x, labels, modalities), rows.requires_grad_())


@each_loss
@pytest.mark.parametrize("kind", ["one image", "duplicates", "zeros", "dead channel", "half"])
def test_degenerate_rows_give_finite_values_and_gradients(name: str, kind: str) -> None:
    rows, labels, modalities = batch(2, 1 if kind == "one image" else 2, dim=16)
    rows = rows.float()
    if kind == "duplicates":
        rows = rows[[0] * len(rows)]
    elif kind == "zeros":
        rows = torch.zeros_like(rows)
    elif kind == "dead channel":
        rows[modalities == 1, 0] = 0
    elif kind == "half":
        rows = rows.half()
    rows.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == "half"):
        value = LOSSES[name][0](rows, labels, modalities)
    value.backward()
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert rows.grad is not None
    assert rows.grad.isfinite().all()


@pytest.mark.parametrize("loss", [*(loss for loss, _ in LOSSES.values()), WithinModality(Triplet())])
@pytest.mark.parametrize(("modality", "missing"), [(0, "infrared"), (1, "visible")])
def test_the_error_for_a_batch_of_one_modality_names_the_missing_one(loss: Loss, modality: int, missing: str) -> None:
    rows, labels, _ = batch(2, 2)
    with pytest.raises(ValueError, match=f"no {missing}"):
        loss(rows, labels, torch.full_like(labels, modality))


# --- closed forms


def pair(visible: Tensor, infrared: Tensor) -> Rows:
    count = len(visible)
    return torch.cat([visible, infrared]), torch.arange(count).repeat(2), torch.arange(2).repeat_interleave(count)


def test_w2_is_the_mean_square_of_a_shift_and_of_differences_in_deviation() -> None:
    rows = torch.randn(32, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    loss = DistributionConsistency("w2")
    assert loss(*pair(rows, rows + 0.3)).item() == pytest.approx(0.09)
    shifts = torch.linspace(-1, 1, 64, dtype=torch.float64)
    assert loss(*pair(rows, rows + shifts)).item() == pytest.approx(shifts.square().mean().item())
    centred = rows - rows.mean(0)
    expected = (centred.square().mean(0).sqrt() * 0.7).square().mean().item()
    assert loss(*pair(centred, 1.7 * centred)).item() == pytest.approx(expected, rel=1e-4)


def test_symkl_is_the_mean_of_both_divergences_of_gaussians() -> None:
    base = torch.randn(64, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    base = (base - base.mean()) / base.std(correction=0)
    rows = pair(0.3 + 1.3 * base, -0.2 + 0.7 * base)
    one, other = (math.log(b / a) + (a**2 + 0.5**2) / (2 * b**2) - 0.5 for a, b in ((1.3, 0.7), (0.7, 1.3)))
    assert (one + other) / 2 == pytest.approx(0.5993, abs=1e-4)
    assert DistributionConsistency("symkl", eps=1e-9)(*rows).item() == pytest.approx((one + other) / 2, rel=1e-6)


def test_channels_without_variance_dominate_symkl_without_eps_but_not_w2() -> None:
    generator = torch.Generator().manual_seed(0)
    visible, infrared = (torch.randn(32, 2048, generator=generator).relu() for _ in range(2))
    infrared[:, :20] = 0
    values = {eps: DistributionConsistency("symkl", eps)(*pair(visible, infrared)).item() for eps in (1e-6, 1e-2)}
    assert values[1e-6] > 500
    assert values[1e-2] < 0.5
    assert DistributionConsistency("w2")(*pair(visible, infrared)).item() < 0.05


def test_an_unknown_divergence_is_rejected_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="w2, symkl, moments"):
        DistributionConsistency("kl")  # type: ignore[arg-type]


# --- inside a modality


@pytest.mark.parametrize("inner", [Triplet(), CrossEntropy()], ids=lambda loss: type(loss).__name__)
def test_within_modality_is_the_sum_over_separate_modalities(inner: Loss) -> None:
    rows, labels, modalities = batch(4, 3)
    parts = [inner(rows[modalities == m], labels[modalities == m], modalities[modalities == m]) for m in (0, 1)]
    torch.testing.assert_close(WithinModality(inner)(rows, labels, modalities), parts[0] + parts[1])


def test_negatives_of_the_other_modality_change_nothing() -> None:
    rows, labels, modalities = batch(4, 3)
    visible = modalities == 0
    rows.requires_grad_()
    gradients = []
    for moved in (torch.zeros_like(rows), 3 * torch.randn_like(rows) * ~visible[:, None]):
        (gradient,) = torch.autograd.grad(WithinModality(Triplet())(rows + moved, labels, modalities), rows)
        gradients.append(gradient)
    assert torch.equal(gradients[0][visible], gradients[1][visible])
    assert gradients[0][visible].any()
    assert not torch.equal(gradients[0][~visible], gradients[1][~visible])


def test_one_image_of_a_modality_has_no_positive_there() -> None:
    rows, labels, modalities = batch(4, 1)
    rows.requires_grad_()
    value = WithinModality(Triplet())(rows, labels, modalities)
    value.backward()
    assert value.item() == 0
    assert rows.grad is not None
    assert not rows.grad.any()
