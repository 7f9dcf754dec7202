"""MTRL's losses against plain loops in float64, their bounds and gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from training.data.augmentation import Role
from training.losses import CentreAlignment, PairedLoss, QueryConsistency, TransitionContrast, TransitionMargin
from training.losses.transition_contrast import DIRECT

V, R, T = Role
Rows = tuple[Tensor, Tensor, Tensor, Tensor]
"""Embeddings, identities, roles, pairs."""


def batch(identities: int, images: int, dim: int, seed: int = 0, *, shuffled: bool = True) -> Rows:
    """Float64 rows of ``identities`` x V, R, T x ``images``; the k-th t of an identity belongs to its k-th v."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(identities).repeat_interleave(3 * images)
    roles = torch.arange(3).repeat_interleave(images).repeat(identities)
    numbers = torch.arange(images).repeat(3 * identities)
    pairs = torch.where(roles == R, -1, 7 + 10 * labels + numbers)
    rows = torch.randn(len(labels), dim, generator=generator, dtype=torch.float64)
    order = torch.randperm(len(labels), generator=generator) if shuffled else torch.arange(len(labels))
    return rows[order], labels[order], roles[order], pairs[order]


# --- the equations as one would write them down


def unit(row: Tensor) -> Tensor:
    return row / row.square().sum().sqrt()


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).square().sum().sqrt())


def of(roles: Tensor, role: Role) -> list[int]:
    return [i for i in range(len(roles)) if roles[i] == role]


def centre(rows: Tensor, labels: Tensor, roles: Tensor, identity: int, role: Role) -> Tensor:
    members = [unit(rows[i]) for i in of(roles, role) if labels[i] == identity]
    return unit(torch.stack(members).sum(0) / len(members))


def loop_contrast(rows: Tensor, labels: Tensor, roles: Tensor, a: Role, b: Role, tau: float) -> float:
    terms = []
    for i in of(roles, a):
        scores = {j: float(unit(rows[i]) @ unit(rows[j])) / tau for j in of(roles, b)}
        total = math.log(sum(math.exp(s) for s in scores.values()))
        own = [s - total for j, s in scores.items() if labels[j] == labels[i]]
        terms.append(-sum(own) / len(own))
    return sum(terms) / len(terms)


def loop_chain(rows: Tensor, labels: Tensor, roles: Tensor, _: Tensor) -> float:
    hops = [(V, T), (T, V), (T, R), (R, T)]
    return sum(loop_contrast(rows, labels, roles, a, b, 0.1) for a, b in hops) / 4


def loop_direct(rows: Tensor, labels: Tensor, roles: Tensor, _: Tensor) -> float:
    return (loop_contrast(rows, labels, roles, V, R, 0.1) + loop_contrast(rows, labels, roles, R, V, 0.1)) / 2


def loop_margin(rows: Tensor, labels: Tensor, roles: Tensor, pairs: Tensor) -> float:
    total = 0.0
    visible = of(roles, V)
    for i in visible:
        (t,) = [j for j in of(roles, T) if pairs[j] == pairs[i]]
        v = unit(rows[i])
        wrong = min(distance(v, unit(rows[j])) for j in of(roles, T) if labels[j] != labels[i])
        total += max(0.0, 0.3 + distance(v, unit(rows[t])) - wrong)
        to_infrared = [(distance(unit(rows[t]), unit(rows[j])), bool(labels[j] == labels[t])) for j in of(roles, R)]
        total += max(
            0.0, 0.3 + max(d for d, same in to_infrared if same) - min(d for d, same in to_infrared if not same)
        )
    return total / (2 * len(visible))


def loop_centres(rows: Tensor, labels: Tensor, roles: Tensor, _: Tensor) -> float:
    total = 0.0
    people = sorted(set(labels.tolist()))
    for p in people:
        v, t, r = (centre(rows, labels, roles, p, role) for role in (V, T, R))
        total += (distance(v, t) ** 2 + distance(t, r) ** 2 + distance(v, r) ** 2) / 3
    return total / len(people)


def loop_hinge(rows: Tensor, labels: Tensor, roles: Tensor, pairs: Tensor) -> float:
    people = sorted(set(labels.tolist()))
    centres = {(p, m): centre(rows, labels, roles, p, m) for p in people for m in Role}
    total = 0.0
    for p in people:
        for m in Role:
            far = max(distance(centres[p, m], centres[p, other]) for other in Role)
            near = min(distance(centres[p, m], centres[q, other]) for q in people if q != p for other in Role)
            total += max(0.0, 0.3 + far - near)
    return loop_centres(rows, labels, roles, pairs) + total / (3 * len(people))


def ranking(row: Tensor, rows: Tensor, labels: Tensor, roles: Tensor, role: Role) -> list[float]:
    powers = [
        math.exp(float(unit(row) @ centre(rows, labels, roles, p, role)) / 0.1) for p in sorted(set(labels.tolist()))
    ]
    return [power / sum(powers) for power in powers]


def divergence(target: list[float], found: list[float]) -> float:
    return sum(p * math.log(p / q) for p, q in zip(target, found, strict=True) if p > 0)


def loop_queries(rows: Tensor, labels: Tensor, roles: Tensor, pairs: Tensor) -> float:
    first = []
    for i in of(roles, V):
        (t,) = [j for j in of(roles, T) if pairs[j] == pairs[i]]
        found = (ranking(rows[x], rows, labels, roles, R) for x in (t, i))
        first.append(divergence(*found))
    second = []
    for i in of(roles, R):
        taught = [ranking(rows[j], rows, labels, roles, V) for j in of(roles, T) if labels[j] == labels[i]]
        mean = [sum(column) / len(taught) for column in zip(*taught, strict=True)]
        second.append(divergence(mean, ranking(rows[i], rows, labels, roles, V)))
    return sum(first) / len(first) + sum(second) / len(second)


Loop = Callable[[Tensor, Tensor, Tensor, Tensor], float]
LOSSES = {
    "chain": (TransitionContrast(), loop_chain),
    "direct": (TransitionContrast(links=DIRECT), loop_direct),
    "margin": (TransitionMargin(), loop_margin),
    "centres": (CentreAlignment(), loop_centres),
    "centres with hinge": (CentreAlignment(0.3), loop_hinge),
    "queries": (QueryConsistency(), loop_queries),
}
each = pytest.mark.parametrize("name", LOSSES)


def value(name: str, rows: Tensor, labels: Tensor, roles: Tensor, pairs: Tensor) -> Tensor:
    loss = LOSSES[name][0]
    result: Tensor = loss(rows, labels, roles, pairs) if isinstance(loss, PairedLoss) else loss(rows, labels, roles)
    return result


# --- what holds of each of them


@each
@pytest.mark.parametrize(("identities", "images", "dim"), [(2, 1, 3), (3, 2, 4), (5, 3, 16)])
def test_a_loss_equals_the_loop(name: str, identities: int, images: int, dim: int) -> None:
    given = batch(identities, images, dim, seed=dim)
    expected = LOSSES[name][1](*given)
    assert float(value(name, *given)) == pytest.approx(expected, rel=1e-9)
    assert float(value(name, given[0].float(), *given[1:])) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@each
def test_values_of_labels_and_pairs_and_the_order_do_not_matter(name: str) -> None:
    rows, labels, roles, pairs = batch(4, 2, 8)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))
    renamed = (rows[order], 900 - 13 * labels[order], roles[order], torch.where(pairs < 0, -1, 999 - pairs)[order])
    torch.testing.assert_close(value(name, *renamed), value(name, rows, labels, roles, pairs), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "queries"])
def test_gradients_are_those_of_the_equation(name: str) -> None:
    rows, labels, roles, pairs = batch(3, 2, 5, seed=4)
    assert torch.autograd.gradcheck(lambda x: value(name, x, labels, roles, pairs), rows.requires_grad_())


def test_gradients_of_the_queries_do_not_reach_the_teachers() -> None:
    rows, labels, roles, pairs = batch(3, 2, 5, seed=4)
    held = rows.clone()
    total = torch.zeros((), dtype=torch.float64)
    for i in of(roles, V) + of(roles, R):
        other = R if roles[i] == V else V
        teachers = [j for j in of(roles, T) if (pairs[j] == pairs[i] if roles[i] == V else labels[j] == labels[i])]
        target = torch.tensor([ranking(held[j], held, labels, roles, other) for j in teachers]).mean(0)
        centres = torch.stack([centre(rows.requires_grad_(), labels, roles, p, other) for p in range(3)])
        total = total - target.double() @ (centres @ unit(rows[i]) / 0.1).log_softmax(0) / (roles == roles[i]).sum()
    (expected,) = torch.autograd.grad(total, rows)
    (found,) = torch.autograd.grad(value("queries", rows, labels, roles, pairs), rows)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@each
@pytest.mark.parametrize("missing", Role)
def test_the_error_for_a_missing_role_names_it(name: str, missing: Role) -> None:
    rows, labels, roles, pairs = (tensor[batch(3, 2, 4)[2] != missing] for tensor in batch(3, 2, 4))
    if name == "direct" and missing is T:
        assert value(name, rows, labels, roles, pairs).isfinite()
        return
    with pytest.raises(ValueError, match=missing.name.lower()):
        value(name, rows, labels, roles, pairs)


@each
@pytest.mark.parametrize(
    "kind", ["one image", "one identity", "duplicates", "zeros", "shared image", "long", "strangers"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_values_and_gradients_stay_finite_also_in_half_precision(name: str, kind: str, dtype: torch.dtype) -> None:
    rows, labels, roles, pairs = batch(1 if kind == "one identity" else 2, 1 if kind == "one image" else 2, 8)
    if kind == "duplicates":
        rows = rows[labels * 3]
    elif kind == "zeros":
        rows = torch.zeros_like(rows)
    elif kind == "shared image":
        rows[labels == 1] = rows[labels == 0][0]
    elif kind == "long":
        rows = 100 * rows
    elif kind == "strangers":  # every role has different people, and no image has a transition
        labels, pairs = labels + 10 * roles, torch.where(roles == T, pairs, -1)
    given = rows.to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = value(name, given, labels, roles, pairs)
    found.backward()
    assert found.dtype == torch.float32
    assert found.isfinite()
    assert given.grad is not None
    assert given.grad.isfinite().all()
    if kind == "strangers":
        assert found.item() == 0


def test_pairs_of_another_length_are_rejected() -> None:
    rows, labels, roles, pairs = batch(2, 1, 4)
    with pytest.raises(ValueError, match="expected pairs"):
        QueryConsistency()(rows, labels, roles, pairs[:-1])


# --- the contrast


@pytest.mark.parametrize("images", [1, 2, 4])
def test_the_contrast_is_at_least_the_logarithm_of_the_positives(images: int) -> None:
    for seed in range(5):
        assert value("chain", *batch(4, images, 6, seed)) >= math.log(images) - 1e-9


def test_orthogonal_identities_reach_the_minimum() -> None:
    _, labels, roles, pairs = batch(8, 4, 8)
    rows = F.one_hot(labels, 8).double()
    assert value("chain", rows, labels, roles, pairs).item() == pytest.approx(math.log(4), abs=1e-3)


def test_visible_rows_get_no_gradient_from_infrared() -> None:
    rows, labels, roles, pairs = batch(4, 2, 8)
    gradients = {}
    for name in ("chain", "direct"):
        of_name = []
        for shift in (0.0, 3.0):
            given = rows + shift * torch.randn(8, dtype=torch.float64) * (roles == R)[:, None]
            value(name, given.requires_grad_(), labels, roles, pairs).backward()
            assert given.grad is not None
            of_name.append(given.grad[roles == V])
        gradients[name] = of_name
    assert torch.equal(*gradients["chain"])
    assert not torch.allclose(*gradients["direct"])


def test_anchors_without_a_positive_are_ignored_by_the_contrast() -> None:
    rows, labels, roles, _ = batch(3, 2, 5)
    stranger = torch.cat([labels, torch.tensor([99])]), torch.cat([roles, torch.tensor([int(V)])])
    kept = TransitionContrast(links=((V, T),))
    # as an anchor the other identity has no positive; as a candidate it lowers every share
    with_stranger = kept(torch.cat([rows, rows[:1] * 0 + 1]), *stranger)
    one_way = loop_contrast(rows, labels, roles, V, T, 0.1)
    scores = torch.cat([rows, torch.ones(1, 5, dtype=torch.float64)])
    other_way = loop_contrast(scores, *stranger, T, V, 0.1)
    assert with_stranger.item() == pytest.approx((one_way + other_way) / 2, rel=1e-9)


def shifted(gap: float, seed: int) -> Rows:
    """Identities in noise, visible and infrared shifted apart, transitions between them."""
    rows, labels, roles, pairs = batch(8, 4, 256, seed)
    generator = torch.Generator().manual_seed(seed)
    people, shift = torch.randn(8, 256, generator=generator), torch.randn(256, generator=generator)
    sign = torch.tensor([1.0, -1.0, 0.0])[roles]
    return people[labels] + 0.5 * rows.float() + gap * sign[:, None] * shift, labels, roles, pairs


def first_term(rows: Tensor, labels: Tensor, roles: Tensor, pairs: Tensor) -> float:
    """``QueryConsistency`` without its second term: infrared has no teacher of its identity."""
    relabelled = torch.where(roles == T, labels + 1000, labels)
    return QueryConsistency()(rows, relabelled, roles, pairs).item()


def test_the_chain_loss_is_below_the_direct_one_and_both_grow_with_the_gap() -> None:
    table = [
        [value("chain", *given).item(), value("direct", *given).item(), first_term(*given)]
        for given in (shifted(gap, 0) for gap in (0.0, 0.5, 1.0, 2.0))
    ]
    for column in zip(*table, strict=True):
        assert list(column) == sorted(column)
    assert all(chain < direct for chain, direct, _ in table[1:])
    assert table[0][0] == pytest.approx(1.395, abs=5e-3)


# --- the centres


def test_centre_alignment_is_zero_for_equal_centres_and_at_most_three() -> None:
    rows, labels, roles, _ = batch(4, 2, 6)
    assert CentreAlignment()(rows[labels], labels, roles).item() == pytest.approx(0, abs=1e-12)
    angles = 2 * math.pi / 3 * roles.double()
    spread = torch.stack([angles.cos(), angles.sin()], 1)
    assert CentreAlignment()(spread, labels, roles).item() == pytest.approx(3)
    for seed in range(20):
        assert 0 <= CentreAlignment()(*batch(3, 2, 3, seed)[:3]) <= 3


def test_an_identity_without_a_role_is_ignored_by_the_centres() -> None:
    rows, labels, roles, pairs = batch(3, 2, 6)
    incomplete = ~((labels == 1) & (roles == T))
    given = [tensor[incomplete] for tensor in (rows, labels, roles)]
    others = [tensor[labels != 1] for tensor in (rows, labels, roles, pairs)]
    assert CentreAlignment()(*given).item() == pytest.approx(loop_centres(*others), rel=1e-9)


# --- the queries


def test_the_transition_is_a_teacher_without_gradient() -> None:
    rows, labels, roles, pairs = batch(4, 2, 8)
    QueryConsistency()(rows.requires_grad_(), labels, roles, pairs).backward()
    assert rows.grad is not None
    assert not rows.grad[roles == T].any()
    assert (rows.grad[roles != T].abs().sum(1) > 0).all()


def test_the_first_term_is_zero_when_a_transition_is_its_source() -> None:
    rows, labels, roles, pairs = batch(4, 3, 8)
    for number in pairs[roles == T]:
        rows[(pairs == number) & (roles == T)] = rows[(pairs == number) & (roles == V)]
    assert first_term(rows, labels, roles, pairs) == pytest.approx(0, abs=1e-9)
    rows[roles == T] += 1
    assert first_term(rows, labels, roles, pairs) > 1e-3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (TransitionContrast(0.1), TransitionContrast(0.2)),
        (TransitionMargin(0.3), TransitionMargin(2.5)),
        (CentreAlignment(0.3), CentreAlignment(2.5)),
        (QueryConsistency(0.1), QueryConsistency(0.2)),
    ],
)
def test_parameters_are_used(one: torch.nn.Module, other: torch.nn.Module) -> None:
    given = batch(3, 2, 4)
    values = [float(loss(*given) if isinstance(loss, PairedLoss) else loss(*given[:3])) for loss in (one, other)]
    assert values[0] != pytest.approx(values[1], rel=1e-3)
