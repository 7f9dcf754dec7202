"""OSNet from the Open Model Zoo's files: read tensor by tensor, equal to OpenVINO, at home in every method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import openvino.opset13 as ops
import pytest
import torch

from models.card import Modality
from models.osnet import OSNETS, LearnedPooling, OsNet, load_osnet
from models.registry import METHODS, build

WEIGHTS = Path(__file__).parents[2] / "weights"
NAMES = {"osnet_x1_0": "0277", "osnet_x0_75": "0286", "osnet_x0_5": "0287"}


def zoo_file(backbone: str) -> Path:
    file = WEIGHTS / f"person-reidentification-retail-{NAMES[backbone]}.xml"
    if not file.is_file():
        pytest.skip(f"{file} is not there: it is a download of the user's")
    return file


def crops(count: int, height: int = 256, width: int = 128) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 16, 8, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    return (fine * 255).byte().permute(0, 2, 3, 1).contiguous()


def drawn_network() -> OsNet:
    """A network whose every tensor differs from its default."""
    torch.manual_seed(0)
    network = OsNet(OSNETS["osnet_x0_5"])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.rand_like(parameter) * parameter.abs().mean().clamp(min=0.1))
    return network.eval()


class ZooGraph:
    """The graph of a network as the zoo's files hold it: BGR 0 … 255 in, batch norms folded, instance norms as MVN."""

    def __init__(self, network: OsNet) -> None:
        data = ops.parameter([1, 3, 256, 128], np.float32, name="data")
        rgb = ops.gather(data, np.array([2, 1, 0]), np.array(1))
        x = self.multiply(
            ops.subtract(rgb, np.float32([123.7, 116.3, 103.5]).reshape(1, 3, 1, 1)), torch.tensor(1 / 58)
        )
        first, convolution, second = network.stem[0], network.stem[1], network.stem[2]
        x = self.norm(x, first, [2, 3])
        x = ops.relu(self.norm(self.convolve(x, convolution), second, [2, 3]))
        x = ops.max_pool(x, [2, 2], [1, 1], [1, 1], [1, 1], [3, 3], "floor").output(0)
        for part in (*network.stages, network.post):
            stage = isinstance(part, torch.nn.Sequential) and not isinstance(part[0], torch.nn.Conv2d)
            for layer in part if stage else [part]:  # type: ignore[union-attr]
                x = self.layer(x, layer)
        pool, neck = network.pool, network.neck
        kernel = pool.weight.detach().numpy()[:, None, None]
        pooled = ops.group_convolution(x, kernel, [1, 1], [0, 0], [0, 0], [1, 1])
        flat = ops.reshape(self.add(pooled, pool.bias.view(1, -1, 1, 1)), np.array([-1, len(kernel)]), False)
        mixed = self.add(ops.matmul(flat, pool.mix.weight.detach().numpy(), False, True), pool.mix.bias)
        scaled = self.add(self.multiply(mixed, neck.weight), neck.bias)
        self.model = openvino.Model([ops.prelu(scaled, neck.slope.detach().numpy())], [data])

    def layer(self, x: Any, layer: torch.nn.Module) -> Any:
        if isinstance(layer, torch.nn.AvgPool2d):
            return ops.avg_pool(x, [2, 2], [0, 0], [0, 0], [2, 2], True)
        if not hasattr(layer, "streams"):
            return ops.relu(self.convolve(x, layer[0]))  # type: ignore[index]
        reduced = self.layer(x, layer.reduce)  # type: ignore[arg-type]
        total = None
        for stream in layer.streams:  # type: ignore[union-attr]
            y = reduced
            for pointwise, depthwise, _ in stream:
                y = ops.relu(self.convolve(self.convolve(y, pointwise), depthwise))
            gated = ops.multiply(y, ops.sigmoid(self.gate(ops.reduce_mean(y, np.array([2, 3]), True), layer.gate)))
            total = gated if total is None else ops.add(total, gated)
        mixed = self.convolve(total, layer.expand)
        return ops.relu(ops.add(mixed, x if layer.shortcut is None else self.convolve(x, layer.shortcut)))

    def gate(self, means: Any, gate: Any) -> Any:
        if hasattr(gate, "reduce"):
            return self.convolve(ops.relu(self.convolve(means, gate.reduce)), gate.expand)
        groups = ops.reshape(means, np.array([0, gate.norm.num_groups, -1]), True)
        normed = ops.reshape(ops.mvn(groups, np.array([2]), True, 1e-5, "inside_sqrt"), ops.shape_of(means), False)
        return self.affine(normed, gate.norm)

    def convolve(self, x: Any, convolution: Any) -> Any:
        weight = convolution.weight.detach().numpy()
        places = [*convolution.stride], [*convolution.padding], [*convolution.padding], [1, 1]
        if convolution.groups > 1:
            y = ops.group_convolution(x, weight[:, None], *places)
        else:
            y = ops.convolution(x, weight, *places)
        return y if convolution.bias is None else self.add(y, convolution.bias.view(1, -1, 1, 1))

    def norm(self, x: Any, norm: Any, axes: list[int]) -> Any:
        return self.affine(ops.mvn(x, np.array(axes), True, 1e-5, "inside_sqrt"), norm)

    def affine(self, x: Any, norm: Any) -> Any:
        return self.add(self.multiply(x, norm.weight.view(1, -1, 1, 1)), norm.bias.view(1, -1, 1, 1))

    def multiply(self, x: Any, factor: torch.Tensor) -> Any:
        return ops.multiply(x, factor.detach().numpy())

    def add(self, x: Any, summand: torch.Tensor) -> Any:
        return ops.add(x, summand.detach().numpy())


@pytest.fixture(scope="module")
def drawn_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The IR of a drawn network, its weights stored as float16 as in the zoo."""
    file = tmp_path_factory.mktemp("zoo") / "drawn.xml"
    openvino.save_model(ZooGraph(drawn_network()).model, file, compress_to_fp16=True)
    return file


def test_a_drawn_network_is_read_back_from_its_file(drawn_file: Path) -> None:
    read, drawn = load_osnet("osnet_x0_5", drawn_file), drawn_network()
    for (name, parameter), original in zip(read.named_parameters(), drawn.parameters(), strict=True):
        torch.testing.assert_close(parameter, original, rtol=1e-3, atol=1e-4, msg=name)


def test_a_drawn_network_embeds_as_openvino_runs_its_file(drawn_file: Path) -> None:
    network, image = load_osnet("osnet_x0_5", drawn_file).eval(), crops(1)
    core = openvino.Core()
    run = core.compile_model(core.read_model(drawn_file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    expected = torch.from_numpy(run(image.numpy()[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32))[0])
    with torch.inference_mode():
        pixels = (image.permute(0, 3, 1, 2) / 255 - 0.45) / 0.225
        assert torch.nn.functional.cosine_similarity(network(pixels), expected.reshape(1, -1)).item() >= 0.9999


def test_the_weights_of_another_network_are_rejected(drawn_file: Path) -> None:
    with pytest.raises(ValueError, match="not the weights of osnet_x1_0"):
        load_osnet("osnet_x1_0", drawn_file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.xml.*vireid weights"):
        build("baseline", "osnet_x0_75", 2, tmp_path / "absent.xml")


@pytest.mark.parametrize("backbone", sorted(OSNETS))
def test_embeddings_equal_those_of_openvino(backbone: str) -> None:
    file = zoo_file(backbone)
    network, images = build("baseline", backbone, 2, file).eval(), crops(6)
    core = openvino.Core()
    zoo = core.compile_model(core.read_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    bgr = images.numpy()[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32)
    expected = np.concatenate([zoo(bgr[i : i + 1])[0].reshape(1, -1) for i in range(len(bgr))])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    for modality in Modality:
        with torch.inference_mode():
            found = network.embed(images, torch.full((6,), modality.index)).numpy()
        assert (found * expected).sum(1).min() >= 0.9999


def test_an_onnx_file_with_batch_norms_holds_the_same_network() -> None:
    onnx_file = WEIGHTS / "person-reidentification-retail-0267.onnx"
    if not onnx_file.is_file():
        pytest.skip(f"{onnx_file} is not there: it is a download of the user's")
    assert len(onnx.load(str(onnx_file)).graph.node) > 0
    network = load_osnet("osnet_x0_5", onnx_file).eval()
    image = torch.rand(1, 3, 256, 128) * 255
    core = openvino.Core()
    given = core.compile_model(openvino.convert_model(onnx_file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    expected = torch.from_numpy(given(image.numpy())[0].reshape(1, -1))
    with torch.inference_mode():
        assert torch.nn.functional.cosine_similarity(network(image), expected).item() >= 0.9999


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_grows_from_it(method: str) -> None:
    network = build(method, "osnet_x0_5", identities=3)
    output = network(crops(4, 64, 32), torch.tensor([0, 1, 1, 0]))
    assert output.pooled.shape == output.embedding.shape == (4, 256)
    assert output.logits.shape == (4, 3)
    grouped = [id(p) for group in (network.pretrained_parameters(), network.new_parameters()) for p in group]
    assert sorted(grouped) == sorted(id(p) for p in network.parameters() if p.requires_grad)


def test_each_modality_has_a_stem_of_its_own_that_starts_alike() -> None:
    trunk = build("baseline", "osnet_x0_5", identities=3).trunk
    visible, infrared = (dict(trunk.stems[m].named_parameters()) for m in Modality)
    assert visible.keys() == infrared.keys()
    assert len(visible) == 5  # input norm and the norm after the first convolution, scale and offset each
    for name, parameter in visible.items():
        assert parameter is not infrared[name]
        assert torch.equal(parameter, infrared[name])


def test_the_last_two_stages_have_one_resolution() -> None:
    trunk = build("baseline", "osnet_x0_5", identities=3).trunk.eval()
    maps = trunk(crops(2, 96, 48), torch.tensor([0, 1]))
    assert [tuple(m.shape[2:]) for m in maps.stages] == [(24, 12), (12, 6), (6, 3), (6, 3)]
    assert tuple(m.shape[1] for m in maps.stages) == trunk.stage_channels == (128, 192, 256, 256)


def test_pooling_weights_are_resampled_by_area() -> None:
    pooling = LearnedPooling(2, 2, grid=(4, 2))
    with torch.no_grad():
        pooling.weight.copy_(torch.arange(16.0).view(2, 4, 2))
    assert torch.equal(pooling._resampled(4, 2), pooling.weight)
    halved = pooling._resampled(2, 1)
    torch.testing.assert_close(halved[0, :, 0], torch.tensor([0.0 + 1 + 2 + 3, 4 + 5 + 6 + 7]))
    for size in ((3, 2), (8, 4), (5, 3)):
        torch.testing.assert_close(pooling._resampled(*size).sum((1, 2)), pooling.weight.sum((1, 2)))


def test_a_flat_map_pools_alike_at_every_size() -> None:
    pooling = LearnedPooling(3, 5)
    with torch.no_grad():
        pooling.weight.uniform_(-1, 1)
    flat = torch.rand(2, 3, 1, 1)
    outputs = [pooling(flat.expand(2, 3, *size)) for size in ((16, 8), (12, 6), (8, 4))]
    for other in outputs[1:]:
        torch.testing.assert_close(outputs[0], other, rtol=1e-4, atol=1e-5)
