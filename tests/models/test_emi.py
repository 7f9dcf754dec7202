"""EMI's network: the baseline at inference, and in training a branch for each modality that sees no other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from models.baseline import Baseline, Output
from models.card import Modality
from models.emi import Branch, Emi, EmiOutput

BRANCHES: tuple[Branch, ...] = ("head", "last_stage")


def crops(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (count, 96, 48, 3), dtype=torch.uint8, generator=generator)
    return images, torch.arange(count) % 2


@pytest.mark.parametrize("branch", [*BRANCHES, None])
@pytest.mark.parametrize("backbone", ["test_resnet", "efficientnet_lite0"])
def test_an_embedding_takes_the_parameters_and_the_computation_of_the_baseline(
    backbone: str, branch: Branch | None
) -> None:
    network, baseline = Emi(backbone, 3, branch=branch).eval(), Baseline(backbone, 3).eval()
    assert network.inference_parameters() == baseline.inference_parameters()
    kept = {k: v for k, v in network.state_dict().items() if not k.startswith(network.training_only)}
    assert kept.keys() == {k for k in baseline.state_dict() if not k.startswith(baseline.training_only)}
    baseline.load_state_dict(kept, strict=False)
    with torch.inference_mode():
        assert torch.equal(network.embed(*crops(4)), baseline.embed(*crops(4)))


@pytest.mark.parametrize(
    ("backbone", "branch", "parameters", "width"),
    [("resnet50", "head", 2048 * 512, 512), ("resnet50", "last_stage", 14_964_736, 2048),
     ("efficientnet_lite0", "head", 1280 * 512, 512), ("efficientnet_lite0", "last_stage", 2_258_080, 1280)],
)  # fmt: skip
def test_branches_are_of_the_reference_s_size(backbone: str, branch: Branch, parameters: int, width: int) -> None:
    network = Emi(backbone, 3, branch=branch)
    for features in network.branch_features.values():
        stage = features[0] if isinstance(features, nn.Sequential) else features
        assert sum(p.numel() for p in stage.parameters()) == parameters
    identity = network.branch_identity["visible"]
    assert isinstance(identity, nn.Sequential)
    assert [tuple(p.shape) for p in identity.parameters() if p.requires_grad] == [(width,), (3, width)]


@pytest.mark.parametrize("branch", BRANCHES)
def test_a_branch_sees_only_its_own_modality(branch: Branch) -> None:
    """The visible rows keep their branch outputs, to the bit, when infrared ones change or come in another place."""
    torch.manual_seed(0)
    network = Emi("efficientnet_lite0", 3, branch=branch)
    network.trunk.eval()
    images, modality = crops(6)
    other = torch.where((modality == 1).view(-1, 1, 1, 1), 255 - images, images)
    visible = modality == Modality.VISIBLE.index
    with torch.no_grad():
        before, after = network(images, modality), network(other, modality)
        order = torch.tensor([5, 1, 3, 0, 2, 4])
        moved = network(images[order], modality[order])
    assert isinstance(before, EmiOutput)
    assert isinstance(after, EmiOutput)
    assert isinstance(moved, EmiOutput)
    for name in ("branch_pooled", "branch_logits"):
        one, two, three = (getattr(output, name) for output in (before, after, moved))
        torch.testing.assert_close(one[visible], two[visible])
        assert not torch.allclose(one[~visible], two[~visible])
        torch.testing.assert_close(three, one[order], rtol=1e-4, atol=1e-5)


def test_the_branches_start_from_the_last_stage_and_learn_apart_from_it() -> None:
    network = Emi("efficientnet_lite0", 3, branch="last_stage")
    for features in network.branch_features.values():
        assert isinstance(features, nn.Sequential)
        for own, shared in zip(features[0].parameters(), network.trunk.stages[-1].parameters(), strict=True):
            assert torch.equal(own, shared)
            assert own is not shared


@pytest.mark.parametrize("branch", [*BRANCHES, None])
def test_copies_of_pretrained_stages_learn_at_the_pretrained_rate(branch: Branch | None) -> None:
    network = Emi("efficientnet_lite0", 3, branch=branch)
    slow, fast = ([id(p) for p in g] for g in (network.pretrained_parameters(), network.new_parameters()))
    assert sorted(slow + fast) == sorted(id(p) for p in network.parameters() if p.requires_grad)
    if branch:
        copied = {id(p) for p in network.branch_features.parameters()}
        assert copied <= set(slow if branch == "last_stage" else fast)


def test_without_branches_the_output_is_the_baseline_s() -> None:
    assert type(Emi("efficientnet_lite0", 3, branch=None)(*crops(4))) is Output
