"""int8 and fp16 files: which layers are converted, and that the card has the measured loss."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from typer.testing import CliRunner

import training.export.onnx
import training.export.precision_variants
from models.card import KEEPS_FLOAT, MAX_LOSS, Card, Modality, Precision, Variant
from models.registry import build
from server.embedding.session import OnnxEmbedder
from server.hardware.cpu_features import has_bfloat_tiles
from tests.training.export.test_onnx import HEIGHT, WIDTH, card_of
from tests.training.trainer_toys import run_on_people
from training.data.cache import CropCache
from training.data.dataset import PlainCrops
from training.evaluation.embedder import graph_embedder
from training.evaluation.model_loader import load_model
from training.export.fp16 import to_fp16
from training.export.int8 import Crops, Quantiser
from training.export.onnx import export, random_crops
from training.export.release import release
from vireid.cli import app

CROPS = Crops(random_crops(8, HEIGHT, WIDTH), np.arange(8) % 2)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    torch.manual_seed(0)
    network = build("baseline", "test_resnet", identities=3).eval()
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.export.onnx, "PARITY_BATCHES", (3,))  # parity has its own tests
        export(network, card_of(network, network.dimension), folder, CROPS.images)
    return (folder / "model.onnx").read_bytes()


@pytest.fixture(scope="module")
def quantiser(graph: bytes, tmp_path_factory: pytest.TempPathFactory) -> Quantiser:
    return Quantiser(graph, CROPS, tmp_path_factory.mktemp("scratch"))


def cosines(graph: bytes, other: bytes, modalities: np.ndarray = CROPS.modalities) -> np.ndarray:
    vectors, others = (graph_embedder(content)(CROPS.images, modalities) for content in (graph, other))
    return (vectors * others).sum(1)


def kernels(graph: bytes) -> dict[str, tuple[np.dtype, tuple[int, ...], np.ndarray]]:
    """Of each convolution: type, shape and zero points of the kernel as it is stored."""
    model = onnx.load_from_string(graph)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    made = {node.output[0]: node for node in model.graph.node}
    found = {}
    for node in model.graph.node:
        if node.op_type == "Conv":
            source = made.get(node.input[1])
            names = [node.input[1]] if source is None else source.input
            kernel = stored[names[0]]
            found[node.name] = kernel.dtype, kernel.shape, stored[names[2]] if len(names) > 2 else np.zeros(0)
    return found


def test_every_layer_is_int8_per_channel_and_the_embeddings_hardly_change(graph: bytes, quantiser: Quantiser) -> None:
    rounded = quantiser.quantise()
    for dtype, shape, zero_points in kernels(rounded).values():
        assert dtype == np.int8
        assert zero_points.shape == shape[:1]
        assert not zero_points.any()
    for modality in Modality:
        assert cosines(graph, rounded, np.full(8, modality.index)).min() > 0.995
    assert cosines(graph, rounded).min() > 0.995
    assert not np.array_equal(*(graph_embedder(g)(CROPS.images, CROPS.modalities) for g in (graph, rounded)))


def test_int8_graph_keeps_the_version_of_the_file_format(graph: bytes, quantiser: Quantiser) -> None:
    versions = [onnx.load_from_string(each).ir_version for each in (graph, quantiser.quantise())]
    assert versions == [8, 8]


def test_the_graph_reads_uint8_and_its_last_layers_stay_in_float(quantiser: Quantiser) -> None:
    model = onnx.load_from_string(quantiser.quantise())
    transpose = next(node for node in model.graph.node if "image" in node.input)
    readers = [node.op_type for node in model.graph.node if transpose.output[0] in node.input]
    assert (transpose.op_type, set(readers)) == ("Transpose", {"DequantizeLinear"})
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds["Sub"] == 0
    assert (kinds["Pow"], kinds["BatchNormalization"], kinds["ReduceL2"]) == (2, 1, 1)
    assert kinds["Cast"] == 0
    card = next(entry.value for entry in model.metadata_props if entry.key == "vireid.card")
    assert Card.model_validate_json(card).name == "drawn"


def test_named_layers_stay_in_float_or_are_the_only_quantised_ones(
    graph: bytes, quantiser: Quantiser, tmp_path: Path
) -> None:
    first, last = quantiser.layers[0], quantiser.layers[-1]
    spared = kernels(quantiser.quantise(in_float=[first, last]))
    assert {name for name, (dtype, _, _) in spared.items() if dtype == np.float32} == {first, last}
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "as-it-runs.onnx")
    onnxruntime.InferenceSession(
        quantiser.quantise(in_float=[first, last]),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=list(KEEPS_FLOAT),
    )
    runs = Counter(node.op_type for node in onnx.load(tmp_path / "as-it-runs.onnx").graph.node)
    assert runs["Conv"] + runs["FusedConv"] == 2
    assert runs["QLinearConv"] == len(quantiser.layers) - 2
    single = quantiser.quantise(only=[last])
    assert {name for name, (dtype, _, _) in kernels(single).items() if dtype == np.int8} == {last}
    assert cosines(graph, single).mean() > cosines(graph, quantiser.quantise()).mean()


def test_the_most_sensitive_layer_changes_the_embeddings_most(graph: bytes, quantiser: Quantiser) -> None:
    order = quantiser.most_sensitive()
    assert sorted(order) == sorted(quantiser.layers)
    turned = {layer: 1 - cosines(graph, quantiser.quantise(only=[layer])).mean() for layer in (order[0], order[-1])}
    assert turned[order[0]] > turned[order[-1]]


def test_weights_stored_as_float16_are_quantised_like_float32_ones(
    graph: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.export.onnx, "HALVED_FROM", 1)
    (tmp_path / "half.onnx").write_bytes(graph)
    training.export.onnx._halve_weights(tmp_path / "half.onnx")
    half = (tmp_path / "half.onnx").read_bytes()
    rounded = Quantiser(half, CROPS, tmp_path).quantise()
    assert {dtype for dtype, _, _ in kernels(rounded).values()} == {np.dtype(np.int8)}
    assert cosines(half, rounded).min() > 0.995


def test_a_graph_without_the_exported_normalisation_is_rejected(graph: bytes, tmp_path: Path) -> None:
    model = onnx.load_from_string(graph)
    next(node for node in model.graph.node if node.op_type == "Sub").op_type = "Add"
    with pytest.raises(ValueError, match="export it again"):
        Quantiser(model.SerializeToString(), CROPS, tmp_path)


@pytest.fixture(scope="module")
def osnet(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A graph whose image an instance norm reads, with gates and a pooling that work on vectors."""
    torch.manual_seed(0)
    network = build("baseline", "osnet_x0_5", identities=3).eval()
    folder = tmp_path_factory.mktemp("osnet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.export.onnx, "PARITY_BATCHES", (3,))
        export(network, card_of(network, network.dimension), folder, CROPS.images)
    return (folder / "model.onnx").read_bytes()


def test_behind_an_instance_norm_of_the_input_maps_are_int8_and_vectors_stay_in_float(
    osnet: bytes, tmp_path: Path
) -> None:
    quantiser = Quantiser(osnet, CROPS, tmp_path)
    rounded = quantiser.quantise()
    network = build("baseline", "osnet_x0_5", identities=3)
    layers = [name for name, part in network.named_modules() if isinstance(part, torch.nn.Conv2d)]
    in_gates = sum(".gate." in name for name in layers)
    before_norms = sum(".stems." in name for name in layers)
    kinds = Counter(dtype for dtype, _, _ in kernels(rounded).values())
    assert kinds[np.dtype(np.int8)] == len(quantiser.layers) > 100
    assert kinds[np.dtype(np.float32)] == 4 * in_gates + before_norms  # each gate is used by four streams
    graph = onnx.load_from_string(rounded).graph
    made = {output: node.op_type for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type in {"Sigmoid", "PRelu", "Gemm", "ReduceL2", "InstanceNormalization"}:
            assert "DequantizeLinear" not in {made.get(name) for name in node.input}
    first = quantiser.layers_of("trunk.stages.0.0")
    assert first == quantiser.layers[: len(first)]
    assert len(first) == sum(name.startswith("trunk.stages.0.0") and ".gate." not in name for name in layers)
    spared = kernels(quantiser.quantise(in_float=first))
    assert {spared[layer][0] for layer in first} == {np.dtype(np.float32)}
    with pytest.raises(ValueError, match="no layer"):
        quantiser.layers_of("trunk.stages.9")
    for modality in Modality:
        assert cosines(osnet, rounded, np.full(8, modality.index)).min() > 0.98


def test_fp16_computes_between_convolutions_in_half_and_the_rest_in_float(graph: bytes) -> None:
    halved = to_fp16(graph)
    model = onnx.load_from_string(halved)
    assert {dtype for dtype, _, _ in kernels(halved).values()} == {np.dtype(np.float16)}
    assert len(halved) < 0.6 * len(graph)
    element = {info.name: info.type.tensor_type.elem_type for info in model.graph.input}
    assert element == {"image": onnx.TensorProto.UINT8, "modality": onnx.TensorProto.INT64}
    assert model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in {"Sub", "Div", "Pow", "BatchNormalization"}:
            assert {stored[name] for name in node.input if name in stored} <= {onnx.TensorProto.FLOAT}
    assert 0.9999 < cosines(graph, halved).min() <= 1.0001


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_on_people(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def released(run: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.export.onnx, "PARITY_BATCHES", (3,))
        patch.setattr(training.export.onnx, "PROBES", 4)
        release(run, "drawn", "1", run.parent / "drawn")
    return run.parent / "drawn"


@pytest.fixture
def model(released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(training.export.precision_variants, "CALIBRATION", 8)
    return shutil.copytree(released, tmp_path / "drawn")


def quantise(*words: str | Path, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["quantise", *map(str, words)])
    assert done.exit_code == code, done.output
    return done.output


def ranks(folder: Path, precision: Precision, cache: Path) -> tuple[float, float]:
    """Rank-1 and mAP over the held-out people, both ways, in plain loops."""
    loaded = load_model(folder, precision)
    records = loaded.config.read_data().held_out[0].records
    crops = PlainCrops(records, CropCache.open(records, cache, (48, 24), loaded.preprocessing.resize))
    vectors = [loaded.embed(image[None], np.array([modality]))[0] for image, modality in crops]
    first, precisions = [], []
    for query, vector in zip(records, vectors, strict=True):
        others = [
            (float(vector @ other), record.identity == query.identity)
            for record, other in zip(records, vectors, strict=True)
            if record.modality is not query.modality
        ]
        hits = [hit for _, hit in sorted(others, key=lambda pair: -pair[0])]
        first.append(hits[0])
        places = [place for place, hit in enumerate(hits, start=1) if hit]
        precisions.append(np.mean([(rank + 1) / place for rank, place in enumerate(places)]))
    return float(np.mean(first)), float(np.mean(precisions))


BFLOAT = pytest.mark.skipif(not has_bfloat_tiles(), reason="this processor has no tiles of bfloat16")


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.FP16, pytest.param(Precision.BF16, marks=BFLOAT)])
def test_the_card_has_the_measured_loss(model: Path, run: Path, precision: Precision) -> None:
    cache = run.parent / "cache"
    said = quantise(model, "--precision", precision, "--cache", cache)
    card = Card.read(model / "card.json")
    variant = card.precisions[precision]
    assert f"{variant.file}: used {'where it is faster' if variant.accepted else 'only on request'}" in said
    assert variant.sha256 == hashlib.sha256((model / variant.file).read_bytes()).hexdigest()
    assert (variant.file == "model.onnx") is (precision is Precision.BF16)
    exact, rounded = (ranks(model, p, cache) for p in (Precision.FP32, precision))
    assert variant.rank1_change == pytest.approx(rounded[0] - exact[0])
    assert variant.map_change == pytest.approx(rounded[1] - exact[1])
    assert variant.cosine is not None
    assert 0.95 < variant.cosine < 1.0001
    served = OnnxEmbedder(model, precision, "cpu", 1)
    assert (served.precision, served.card) == (precision, card)
    assert set(card.precisions) == {Precision.FP32, precision}


def test_layers_are_left_in_float_until_the_loss_is_accepted_and_the_best_file_is_kept(
    model: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.export.precision_variants, "LAYERS_IN_FLOAT", (0, 1, 3))
    monkeypatch.setattr(Variant, "accepted", False)
    said = quantise(model, "--cache", run.parent / "cache")
    variant = Card.read(model / "card.json").precisions[Precision.INT8]
    tried = [line for line in said.splitlines() if "layers in float" in line]
    assert [line.split(" with ")[1].split()[0] for line in tried] == ["0", "1", "3"]
    losses = [-min(float(line.split("Rank-1 ")[1].split(",")[0]), float(line.split("mAP ")[1].split(",")[0]))
              for line in tried]  # fmt: skip
    assert variant.loss == pytest.approx(min(losses), abs=1e-4)
    assert len(variant.in_float) == (0, 1, 3)[int(np.argmin(losses))]


def test_impossible_requests_have_clear_errors(model: Path, tmp_path: Path) -> None:
    assert "parts in float are for int8" in quantise(model, "--precision", "fp16", "--in-float", "trunk", code=2)
    assert "expected int8, bf16 or fp16" in quantise(model, "--precision", "fp32", code=2)
    assert "card.json" in quantise(tmp_path, code=2)
    assert set(Card.read(model / "card.json").precisions) == {Precision.FP32}


def test_a_loss_is_accepted_only_if_both_metrics_are_known_and_small() -> None:
    def accepted(rank1: float | None, mean_ap: float | None) -> bool:
        return Variant(file="m", sha256="0" * 64, rank1_change=rank1, map_change=mean_ap).accepted

    assert accepted(-MAX_LOSS, 0.1)
    assert not accepted(-MAX_LOSS - 1e-6, 0.1)
    assert not accepted(0.1, -MAX_LOSS - 1e-6)
    assert not accepted(None, 0.0)
    assert not accepted(0.0, None)
