"""ICRE: its terms, the rows of its ablation, and training of all parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from models.baseline import Output
from models.icre import IcreOutput
from models.registry import build
from tests.training.methods.test_mtrl import drawn
from training.data.augmentation import Stream
from training.losses import CrossEntropy, Distillation, IdentityClues, Triplet
from training.methods import build_method
from training.methods.icre import Icre, IcreOptions

BATCH = drawn(3, 2, (Stream.VISIBLE, Stream.EXCHANGED))


def features(seed: int = 0) -> IcreOutput:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((12,), (12,), (3,), (8,), (3,))
    return IcreOutput(*(torch.randn(len(BATCH), *shape, generator=generator) for shape in shapes))


def test_the_terms_are_the_losses_on_their_features() -> None:
    output, labels = features(), (BATCH.identities, BATCH.modalities)
    options = IcreOptions(shallow_triplet_weight=0.5, distillation_weight=0.1, icg_margin=0.2)
    terms = Icre(options)(output, BATCH)
    expected: dict[str, Tensor] = build_method("baseline", {})(output, BATCH) | {
        "icg": IdentityClues(0.2)(output.pooled, *labels),
        "shallow_id": CrossEntropy()(output.shallow_logits, *labels),
        "shallow_triplet": Triplet()(output.shallow_pooled, *labels),
        "distillation": Distillation()(output.logits, output.shallow_logits),
    }
    assert list(terms) == list(expected)
    assert all(torch.equal(terms[name], expected[name]) for name in expected)
    assert Icre(options).weights(3) == {"icg": 0.5, "shallow_id": 1.0, "shallow_triplet": 0.5, "distillation": 0.1}


def test_the_shallow_classifier_has_the_weight_of_the_deep_one() -> None:
    weights = Icre(IcreOptions(identity_weight=0.3)).weights(3)
    assert (weights["id"], weights["shallow_id"]) == (0.3, 0.3)


@pytest.mark.parametrize(
    ("backbone", "options", "terms"),
    [
        ("efficientnet_lite0", {}, ["id", "wrt", "icg", "shallow_id"]),
        pytest.param("resnet50", {}, ["id", "wrt", "icg", "shallow_id"], marks=pytest.mark.slow),
        ("test_resnet", {}, ["id", "wrt", "icg", "shallow_id"]),
        ("test_resnet", {"icg_weight": 0}, ["id", "wrt", "shallow_id"]),
        ("test_resnet", {"sdce": False, "icg_weight": 0}, ["id", "wrt", "shallow_id"]),
        ("test_resnet", {"mpfr": False}, ["id", "wrt", "icg"]),
        ("test_resnet", {"mpfr": False, "sdce": False}, ["id", "wrt", "icg"]),
        ("test_resnet", {"mpfr": False, "sdce": False, "icg_weight": 0}, ["id", "wrt"]),
        ("test_resnet", {"shallow_triplet_weight": 1, "distillation_weight": 1},
         ["id", "wrt", "icg", "shallow_id", "shallow_triplet", "distillation"]),
    ],
)  # fmt: skip
def test_all_parts_of_every_row_are_trained_within_two_steps(
    backbone: str, options: dict[str, Any], terms: list[str]
) -> None:
    """The first step updates Up, which is zero at first; the second updates the layers before it."""
    method = build_method("icre", options | {"grid": (6, 3)})
    torch.manual_seed(0)
    network = build("icre", backbone, 3, **method.structure()).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01)
    learnt: set[str] = set()
    for step in range(2):
        optimiser.zero_grad()
        found = method(network(BATCH.images, method.stems(BATCH)), BATCH)
        assert list(found) == terms
        torch.stack([method.weights(0).get(name, 1.0) * term for name, term in found.items()]).sum().backward()
        for name, parameter in network.named_parameters():
            if parameter.grad is not None:
                assert parameter.grad.isfinite().all(), name
                learnt |= {name} if parameter.grad.any() else set()
        optimiser.step()
        if step == 0 and "up.1.weight" in network.state_dict():
            assert network.state_dict()["up.1.weight"].any(), "the first step opens the way"
            assert not [name for name in learnt if name.startswith(("enhancement.", "plain."))]
    assert learnt == {name for name, parameter in network.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(("identities", "images"), [(2, 1), (3, 2)])
def test_half_precision_and_small_batches_stay_finite(identities: int, images: int) -> None:
    batch = drawn(identities, images, (Stream.VISIBLE,))
    method = build_method("icre", {"grid": (6, 3), "shallow_triplet_weight": 1, "distillation_weight": 1})
    network = build("icre", "test_resnet", 3, **method.structure()).train()
    with torch.autocast("cpu", torch.bfloat16):
        output = network(batch.images, batch.modalities)
    terms = method(output, batch)
    torch.stack(list(terms.values())).sum().backward()
    assert all(term.dtype == torch.float32 and term.isfinite() for term in terms.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_the_order_of_the_batch_does_not_matter() -> None:
    output, order = features(), torch.randperm(len(BATCH), generator=torch.Generator().manual_seed(1))
    method = Icre(IcreOptions(shallow_triplet_weight=1, distillation_weight=1))
    fields = ("pooled", "embedding", "logits", "shallow_pooled", "shallow_logits")
    moved = IcreOutput(*(getattr(output, name)[order] for name in fields))
    batch = type(BATCH)(
        *(getattr(BATCH, name)[order] for name in ("images", "identities", "modalities", "roles", "pairs"))
    )
    for one, other in zip(method(output, BATCH).values(), method(moved, batch).values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_options_that_need_mpfr_are_rejected_without_it() -> None:
    for option in ("shallow_triplet_weight", "distillation_weight"):
        with pytest.raises(ValidationError, match="need mpfr"):
            build_method("icre", {"mpfr": False, option: 0.5})


def test_values_out_of_range_are_rejected() -> None:
    for options in (
        {"taps": []},
        {"taps": [5]},
        {"mask": "hard"},
        {"blocks": 0},
        {"tap_grad_scale": 2},
        {"grid": [0, 1]},
    ):
        with pytest.raises(ValidationError):
            build_method("icre", options)


def test_the_structure_is_preserved_in_yaml() -> None:
    method = build_method("icre", {"taps": [2, 3, 4], "grid": [8, 4]})
    again = build_method(
        "icre", IcreOptions.model_validate({"taps": [2, 3, 4], "grid": [8, 4]}).model_dump(mode="json")
    )
    assert method.structure() == again.structure()
    assert method.structure()["taps"] == (2, 3, 4)
    assert isinstance(build("icre", "test_resnet", 3, **method.structure())(BATCH.images, BATCH.modalities), Output)
