"""EMI: its terms, the rows of its ablation, and training of all parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from models.emi import EmiOutput
from models.registry import build
from tests.training.methods.test_mtrl import drawn
from training.data.augmentation import Stream
from training.losses import (
    ClassConditionalConsistency,
    CrossEntropy,
    DistributionConsistency,
    HeteroCentre,
    Triplet,
    WithinModality,
)
from training.methods import build_method
from training.methods.emi import Emi, EmiOptions

BATCH = drawn(3, 2, (Stream.VISIBLE, Stream.EXCHANGED))
LABELS = (BATCH.identities, BATCH.modalities)


def features(seed: int = 0) -> EmiOutput:
    generator = torch.Generator().manual_seed(seed)
    return EmiOutput(*(torch.randn(len(BATCH), n, generator=generator) for n in (12, 12, 3, 12, 3)))


def test_the_terms_are_the_losses_on_their_features() -> None:
    output = features()
    terms = Emi(EmiOptions(branch="last_stage"))(output, BATCH)
    similarity = [float(torch.dot(F.normalize(a, dim=0), F.normalize(b, dim=0)))
                for a, b in zip(output.branch_pooled, output.pooled, strict=True)]  # fmt: skip
    expected: dict[str, Tensor] = build_method("baseline", {})(output, BATCH) | {
        "intra_id": WithinModality(CrossEntropy())(output.branch_logits, *LABELS),
        "intra_triplet": WithinModality(Triplet())(output.branch_pooled, *LABELS),
        "transfer": torch.tensor(1 - sum(similarity) / len(similarity)),
        "fdc": DistributionConsistency("w2")(output.embedding, *LABELS),
    }
    assert list(terms) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, msg=name)
    assert list(Emi(EmiOptions())(output, BATCH)) == [name for name in expected if name != "transfer"]


def test_the_transfer_term_has_a_gradient_only_for_the_shared_feature() -> None:
    output = features()
    output.branch_pooled.requires_grad_(), output.pooled.requires_grad_()
    Emi(EmiOptions(branch="last_stage"))(output, BATCH)["transfer"].backward()
    assert output.branch_pooled.grad is None
    assert output.pooled.grad is not None
    assert output.pooled.grad.any()


def test_consistency_is_the_loss_its_option_names() -> None:
    output = features()
    unit = F.normalize(output.embedding, dim=1)
    for name, expected in {
        "w2": DistributionConsistency("w2")(output.embedding, *LABELS),
        "symkl": DistributionConsistency("symkl", 0.5)(output.embedding, *LABELS),
        "moments": DistributionConsistency("moments")(output.embedding, *LABELS),
        "class_conditional": ClassConditionalConsistency()(output.embedding, *LABELS),
        "hetero_centre": HeteroCentre()(unit, *LABELS),
    }.items():
        method = build_method("emi", {"consistency": name, "eps": 0.5})
        assert torch.equal(method(output, BATCH)["fdc"], expected), name
    with pytest.raises(ValidationError, match="consistency"):
        build_method("emi", {"consistency": "kl"})


def test_the_weights_rise_over_the_first_epochs_with_the_fraction_of_the_epoch() -> None:
    method = Emi(EmiOptions(intra_weight=0.5, fdc_weight=5, transfer_weight=0.1, ramp_epochs=10))
    assert set(method.weights(0).values()) == {0}
    assert method.weights(2.5) == pytest.approx(
        {"intra_id": 0.125, "intra_triplet": 0.125, "transfer": 0.0125, "fdc": 1.25}
    )
    assert (
        method.weights(10) == method.weights(80) == {"intra_id": 0.5, "intra_triplet": 0.5, "transfer": 0.05, "fdc": 5}
    )


def test_the_losses_have_the_same_weights_within_and_outside_the_branches() -> None:
    options = EmiOptions(identity_weight=0.5, triplet_weight=0.1, intra_weight=0.8, ramp_epochs=0)
    weights = Emi(options).weights(1)
    assert (weights["intra_id"], weights["intra_triplet"]) == pytest.approx((0.4, 0.08))


@pytest.mark.parametrize(
    ("backbone", "options", "terms"),
    [
        ("efficientnet_lite0", {}, ["id", "wrt", "intra_id", "intra_triplet", "fdc"]),
        pytest.param(
            "resnet50",
            {"branch": "last_stage"},
            ["id", "wrt", "intra_id", "intra_triplet", "transfer", "fdc"],
            marks=pytest.mark.slow,
        ),
        ("test_resnet", {}, ["id", "wrt", "intra_id", "intra_triplet", "fdc"]),
        ("test_resnet", {"fdc_weight": 0}, ["id", "wrt", "intra_id", "intra_triplet"]),
        ("test_resnet", {"intra_weight": 0}, ["id", "wrt", "fdc"]),
        ("test_resnet", {"intra_weight": 0, "fdc_weight": 0}, ["id", "wrt"]),
        ("test_resnet", {"branch": "last_stage"}, ["id", "wrt", "intra_id", "intra_triplet", "transfer", "fdc"]),
    ],
)
def test_all_parts_of_every_row_are_trained_within_two_steps(
    backbone: str, options: dict[str, Any], terms: list[str]
) -> None:
    method = build_method("emi", options | {"ramp_epochs": 0})
    torch.manual_seed(0)
    network = build("emi", backbone, 3, **method.structure()).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01)
    learnt: set[str] = set()
    for _ in range(2):
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=backbone == "test_resnet"):
            output = network(BATCH.images, method.stems(BATCH))
        found = method(output, BATCH)
        assert list(found) == terms
        torch.stack([method.weights(0).get(name, 1.0) * term for name, term in found.items()]).sum().backward()
        for name, parameter in network.named_parameters():
            if parameter.grad is not None:
                assert parameter.grad.isfinite().all(), name
                learnt |= {name} if parameter.grad.any() else set()
        optimiser.step()
    assert learnt == {name for name, parameter in network.named_parameters() if parameter.requires_grad}


def test_one_image_of_each_modality_has_no_triplet_and_stays_finite() -> None:
    batch = drawn(2, 1, (Stream.VISIBLE,))
    method = build_method("emi", {})
    terms = method(build("emi", "test_resnet", 3).train()(batch.images, batch.modalities), batch)
    assert terms["intra_triplet"].item() == 0
    assert all(term.isfinite() for term in terms.values())


def test_infrared_rows_do_not_affect_the_visible_branch() -> None:
    """Neither its triplets nor its classifier uses them."""
    outputs = [features(), features()]
    infrared = (BATCH.modalities == 1)[:, None]
    for output, moved in zip(outputs, (0.0, 5.0), strict=True):
        output.branch_pooled.add_(moved * torch.randn(12) * infrared).requires_grad_()
        output.branch_logits.add_(moved * torch.randn(3) * infrared).requires_grad_()
        terms = Emi(EmiOptions())(output, BATCH)
        (terms["intra_id"] + terms["intra_triplet"]).backward()
    for name in ("branch_pooled", "branch_logits"):
        one, other = (getattr(output, name).grad for output in outputs)
        assert torch.equal(one * ~infrared, other * ~infrared)
        assert one.any()


def test_the_order_of_the_batch_does_not_matter() -> None:
    output, order = features(), torch.randperm(len(BATCH), generator=torch.Generator().manual_seed(1))
    method = Emi(EmiOptions(branch="last_stage"))
    fields = ("pooled", "embedding", "logits", "branch_pooled", "branch_logits")
    moved = EmiOutput(*(getattr(output, name)[order] for name in fields))
    batch = type(BATCH)(
        *(getattr(BATCH, name)[order] for name in ("images", "identities", "modalities", "roles", "pairs"))
    )
    for one, other in zip(method(output, BATCH).values(), method(moved, batch).values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
