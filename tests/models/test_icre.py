"""ICRE's network: it starts as the baseline, its parts are of the reference's sizes, and its masks share importance."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.baseline import Baseline, Output
from models.icre import Icre, IcreOutput, Refinement, attention_heads, deep_width, shallow_width

ROWS: dict[str, dict[str, Any]] = {
    "all": {},
    "only MPFR": {"sdce": False},
    "only SDCE": {"mpfr": False},
    "neither": {"mpfr": False, "sdce": False},
}


def crops(count: int, height: int = 96, width: int = 48) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)
    return images, torch.arange(count) % 2


def icre(backbone: str = "efficientnet_lite0", **structure: Any) -> Icre:
    torch.manual_seed(0)
    return Icre(backbone, 3, grid=(6, 3), **structure)


def opened(network: Icre) -> Icre:
    """As after some training: Up is no longer zero."""
    assert isinstance(network.up, nn.Sequential)
    nn.init.normal_(network.up[1].weight, std=0.5)
    return network


def count(module: nn.Module | None) -> float:
    assert module is not None
    return sum(p.numel() for p in module.parameters()) / 1e6


@pytest.mark.parametrize("backbone", ["test_resnet", "efficientnet_lite0"])
@pytest.mark.parametrize("row", sorted(ROWS))
def test_before_training_it_computes_what_the_baseline_does_bit_for_bit(backbone: str, row: str) -> None:
    network = icre(backbone, **ROWS[row]).eval()
    baseline = Baseline(backbone, 3).eval()
    baseline.load_state_dict(network.state_dict(), strict=False)
    with torch.inference_mode():
        found, expected = network(*crops(4)), baseline(*crops(4))
        assert torch.equal(found.pooled, expected.pooled)
        assert torch.equal(found.embedding, expected.embedding)
        assert torch.equal(found.logits, expected.logits)
        assert torch.equal(network.embed(*crops(4)), baseline.embed(*crops(4)))
        if row != "neither":
            assert not torch.equal(opened(network)(*crops(4)).pooled, expected.pooled)


def test_without_either_part_nothing_is_added() -> None:
    assert {k: v.shape for k, v in icre(**ROWS["neither"]).state_dict().items()} == {
        k: v.shape for k, v in Baseline("efficientnet_lite0", 3).state_dict().items()
    }


def test_only_the_row_with_mpfr_has_an_auxiliary_head() -> None:
    for row, structure in ROWS.items():
        output = icre(**structure)(*crops(4))
        assert isinstance(output, IcreOutput) == ("mpfr" not in structure), row
        if isinstance(output, IcreOutput):
            assert output.shallow_pooled.shape == (4, 128)
            assert output.shallow_logits.shape == (4, 3)


@pytest.mark.parametrize(
    ("backbone", "widths", "mpfr", "sdce"),
    [("resnet50", (256, 512, 8), 6.16, 6.29), ("efficientnet_lite0", (64, 128, 2), 0.37, 0.34)],
)
def test_widths_and_sizes_are_those_of_the_reference(
    backbone: str, widths: tuple[int, int, int], mpfr: float, sdce: float
) -> None:
    network = icre(backbone)
    *_, third, fourth = network.trunk.stage_channels
    assert (shallow_width(third), deep_width(fourth), attention_heads(deep_width(fourth))) == widths
    assert count(network.refinement) == pytest.approx(mpfr, abs=0.01)
    assert count(network.enhancement) + count(network.up) == pytest.approx(sdce, abs=0.02)
    added = 1e6 * (count(network.refinement) + count(network.enhancement) + count(network.up))
    assert network.inference_parameters() - Baseline(backbone, 3).inference_parameters() == round(added)


def test_widths_stay_in_their_range_and_are_multiples() -> None:
    assert [shallow_width(c) for c in (16, 112, 268, 1024, 4096)] == [64, 64, 72, 256, 256]
    assert [deep_width(c) for c in (16, 320, 600, 2048, 8192)] == [128, 128, 192, 512, 512]


@pytest.mark.parametrize("taps", [(1, 2, 3), (2, 3, 4)])
@pytest.mark.parametrize("backbone", ["resnet50", "efficientnet_lite0"])
@pytest.mark.parametrize(
    ("size", "grid"), [((384, 144), (24, 9)), ((288, 144), (18, 9)), ((256, 128), (16, 8)), ((96, 48), (6, 3))]
)
def test_the_refined_map_has_the_size_of_the_deep_one(
    backbone: str, taps: tuple[int, ...], size: tuple[int, int], grid: tuple[int, int]
) -> None:
    """On maps of the shapes that tests of the trunk prove; a whole ResNet-50 would take seconds."""
    channels = {"resnet50": (256, 512, 1024, 2048), "efficientnet_lite0": (24, 40, 112, 320)}[backbone]
    strides = (4, 8, 16, 16)
    maps = [torch.zeros(1, channels[t - 1], size[0] // strides[t - 1], size[1] // strides[t - 1]) for t in taps]
    width, out = shallow_width(channels[2]), deep_width(channels[3])
    network = Refinement([channels[t - 1] for t in taps], width, out).eval()
    with torch.inference_mode():
        assert network(maps, grid).shape == (1, out, *grid)


def test_softmax_masks_sum_to_one_and_are_even_over_equal_maps() -> None:
    torch.manual_seed(0)
    network = Refinement([4, 4, 4], 8, 16)
    maps = list(torch.rand(3, 2, 8, 6, 3))
    masks = network.importance(maps)
    assert masks.shape == (3, 2, 1, 6, 3)
    torch.testing.assert_close(masks.sum(0), torch.ones(2, 1, 6, 3))
    assert masks.std(0).min() > 1e-4, "different maps compete"
    torch.testing.assert_close(network.importance([maps[0]] * 3), torch.full((3, 2, 1, 6, 3), 1 / 3))


def test_a_constant_added_to_all_scores_changes_nothing_with_softmax_only(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = list(torch.rand(3, 2, 4, 6, 3))
    for mask, unchanged in (("softmax", True), ("sigmoid", False)):
        torch.manual_seed(0)
        network = Refinement([4, 4, 4], 8, 16, mask).eval()  # type: ignore[arg-type]
        before = network(maps, (6, 3))
        network.attend.register_forward_hook(lambda module, inputs, scores: scores + 1.7)
        assert torch.allclose(network(maps, (6, 3)), before, atol=1e-5) is unchanged


def test_the_refined_map_is_its_equation_written_out() -> None:
    torch.manual_seed(0)
    network = Refinement([4, 6], 8, 16).eval()
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.running_mean), nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    maps = [torch.rand(2, 4, 12, 6), torch.rand(2, 6, 6, 3)]

    def relu_bn(x: Tensor, norm: Any) -> Tensor:
        mean, var, weight, bias = (
            t.view(-1, 1, 1) for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        )
        return ((x - mean) / (var + 1e-5).sqrt() * weight + bias).clamp(min=0)

    refined, scores = [], []
    for tapped, align, perceive in zip(maps, network.align, network.perceive, strict=True):
        halved = tapped if tapped.shape[2] == 6 else F.avg_pool2d(tapped, 2)
        a = relu_bn(torch.einsum("oc,nchw->nohw", align[0].weight[:, :, 0, 0], halved), align[1])
        views = [F.conv2d(a, c.weight, dilation=d, padding=d) for d, c in enumerate(perceive.convolutions, 1)]
        u = relu_bn(sum(views) / 3, perceive.norm)
        refined.append(u)
        scores.append(F.conv2d(torch.stack([u.mean(1), u.max(1).values], 1), network.attend.weight, padding=3))
    shares = [s.exp() / sum(t.exp() for t in scores) for s in scores]
    joined = torch.cat([(1 + m) * u for m, u in zip(shares, refined, strict=True)], 1)
    expected = relu_bn(torch.einsum("oc,nchw->nohw", network.fuse[0].weight[:, :, 0, 0], joined), network.fuse[1])
    torch.testing.assert_close(network(maps, (6, 3)), expected, rtol=1e-4, atol=1e-5)


def test_evaluation_has_no_dropout_and_no_other_image() -> None:
    network = opened(icre()).eval()
    images, modality = crops(5)
    with torch.inference_mode():
        together = network.embed(images, modality)
        assert torch.equal(network.embed(images, modality), together)
        single = torch.cat([network.embed(images[i : i + 1], modality[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(together, single, rtol=1e-4, atol=1e-5)
    training = opened(icre()).train()
    assert not torch.equal(training(images, modality).pooled, training(images, modality).pooled)


def test_positions_matter_and_stretch_to_another_input_size() -> None:
    network = opened(icre()).eval()
    with torch.inference_mode():
        other = network(*crops(2, 128, 64)).pooled
        assert other.shape == (2, 1280)
        assert network.enhancement is not None
        network.enhancement.rows += torch.linspace(-1, 1, 6)
        assert not torch.allclose(network(*crops(2, 128, 64)).pooled, other)


def test_the_gradient_from_mpfr_into_the_trunk_is_scaled_and_the_values_are_not() -> None:
    gradients, values = [], []
    for scale in (1.0, 0.1, 0.0):
        network = icre(tap_grad_scale=scale, sdce=False).eval()
        output = network(*crops(4))
        assert isinstance(output, IcreOutput)
        output.shallow_pooled.square().sum().backward()
        gradient = network.trunk.stages[0].get_parameter("0.conv_pw.weight").grad
        gradients.append(torch.zeros(1) if gradient is None else gradient)
        values.append(output.shallow_pooled.detach())
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[1], 0.1 * gradients[0], rtol=1e-3, atol=1e-6)
    assert not gradients[2].any()
    torch.testing.assert_close(values[1], values[0])


def test_taps_that_are_no_stages_are_rejected() -> None:
    for taps in ((), (0, 1), (3, 5)):
        with pytest.raises(ValueError, match="stages 1 to 4"):
            icre(taps=taps)


def test_more_blocks_are_more_of_both_kinds() -> None:
    one, two = icre(), icre(blocks=2)
    assert one.enhancement is not None
    assert two.enhancement is not None
    for stages in ("distil", "enhance"):
        assert count(two.enhancement.get_submodule(stages)) == 2 * count(one.enhancement.get_submodule(stages))
    assert isinstance(two(*crops(2)), Output)
