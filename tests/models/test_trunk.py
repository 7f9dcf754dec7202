"""The two-stream trunk: stems by label, shared stages, last stride 1."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.card import Modality
from models.trunk import Trunk
from models.weights import PACKAGED

BACKBONES = ["resnet18", "resnet26d", "efficientnet_lite0", "regnety_002"]


def crops(count: int, height: int = 96, width: int = 48) -> Tensor:
    return torch.randint(
        0, 256, (count, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_last_two_stages_have_one_resolution(backbone: str) -> None:
    trunk = Trunk(backbone).eval()
    maps = trunk(crops(2), torch.tensor([0, 1]))
    assert [tuple(m.shape[2:]) for m in maps.stages] == [(24, 12), (12, 6), (6, 3), (6, 3)]
    assert tuple(m.shape[1] for m in maps.stages) == trunk.stage_channels
    assert maps.out.shape == (2, trunk.channels, 6, 3)
    assert all(m.dilation in (1, (1, 1)) for m in trunk.modules() if isinstance(m, torch.nn.Conv2d))


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(384, 144, (24, 9)), (288, 144, (18, 9)), (256, 128, (16, 8))]
)
def test_map_sizes_of_the_reference(height: int, width: int, expected: tuple[int, int]) -> None:
    maps = Trunk("efficientnet_lite0").eval()(crops(1, height, width), torch.tensor([0]))
    assert maps.stages[-1].shape[2:] == maps.stages[-2].shape[2:] == expected


def test_widths_and_stem_sizes_of_the_reference() -> None:
    lite = Trunk("efficientnet_lite0")
    assert (lite.stage_channels, lite.channels) == ((24, 40, 112, 320), 1280)
    assert sum(p.numel() for p in lite.stems["visible"].parameters()) == 1824
    resnet = Trunk("resnet50")
    assert (resnet.stage_channels, resnet.channels) == ((256, 512, 1024, 2048), 2048)
    assert sum(p.numel() for p in resnet.stems["infrared"].parameters()) == 9536


@pytest.mark.parametrize("training", [True, False])
def test_each_row_goes_through_the_stem_of_its_own_modality(training: bool) -> None:
    """A mixed batch in any order equals the two stems run apart, and a stem never sees the other's rows."""
    trunk = Trunk("resnet18")
    with torch.no_grad():
        for parameter in trunk.stems["infrared"].parameters():
            parameter.add_(0.1)
    trunk.train(training)
    pixels, modality = torch.randn(6, 3, 96, 48), torch.tensor([1, 0, 0, 1, 1, 0])
    mixed = trunk._stem(pixels, modality)
    for kind in Modality:
        rows = modality == kind.index
        torch.testing.assert_close(mixed[rows], trunk.stems[kind.value](pixels[rows]), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(mixed[0], trunk.stems["visible"](pixels[:1])[0])


def test_a_batch_of_one_modality_trains_one_stem() -> None:
    trunk = Trunk("resnet18").train()
    trunk(crops(4), torch.zeros(4, dtype=torch.int64)).out.mean().backward()
    assert all(p.grad is None for p in trunk.stems["infrared"].parameters())
    assert all(p.grad is not None for p in trunk.stems["visible"].parameters())


def test_packaged_weights_load_and_bring_their_own_normalisation() -> None:
    trunk = Trunk(PACKAGED, "imagenet")
    torch.testing.assert_close(trunk.mean.flatten(), torch.full((3,), 127 / 255))
    torch.testing.assert_close(trunk.std.flatten(), torch.full((3,), 128 / 255))
    assert float(trunk.stems["visible"][1].running_var.std()) > 0  # random ones would be all 1


def test_a_saved_state_dict_loads_and_a_wrong_one_is_rejected(tmp_path) -> None:  # type: ignore[no-untyped-def]
    import timm

    state = timm.create_model("resnet18").state_dict()
    torch.save(state, tmp_path / "resnet18.pth")
    loaded = Trunk("resnet18", tmp_path / "resnet18.pth")
    torch.testing.assert_close(loaded.stems["infrared"][0].weight.detach(), state["conv1.weight"])
    with pytest.raises(ValueError, match="does not fit"):
        Trunk("resnet50", tmp_path / "resnet18.pth")


@pytest.mark.parametrize(
    ("backbone", "weights", "message"),
    [
        ("no_such_net", None, "unknown backbone"),
        ("vit_tiny_patch16_224", None, "one of the families"),
        ("resnet50", "imagenet", "no packaged weights"),
        ("efficientnet_lite0", "imagenet", "no packaged weights"),
    ],
)
def test_the_error_for_an_invalid_backbone_says_why(backbone: str, weights: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Trunk(backbone, weights)
