from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from models.card import Card, Modality, Precision
from server.domain.errors import ModelNotFound
from server.embedding import session
from server.embedding.engine import ImageLimits
from server.embedding.providers import CPU, CUDA, GPU_BATCHES, Device, Gpu, Kind
from server.embedding.registry import PREFERRED, Models, load_embedders
from server.embedding.session import ModelRefused, OnnxEmbedder, check_provider
from tests.drawing import draw_person
from tests.server.stub_model import DIMENSION, HEIGHT, WIDTH, StubModel, write_model


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write_model(tmp_path / "stub")
    return tmp_path / "stub"


def crops(count: int) -> tuple[np.ndarray, np.ndarray]:
    modalities = [tuple(Modality)[i % 2] for i in range(count)]
    images = [draw_person(i, modality, size=(HEIGHT, WIDTH)) for i, modality in enumerate(modalities)]
    return np.stack(images), np.array([modality.index for modality in modalities])


@pytest.mark.parametrize("count", [1, 3, 4])
def test_mixed_batches_match_the_reference(directory: Path, count: int) -> None:
    images, modalities = crops(count)
    found = OnnxEmbedder(directory, device="cpu").embed(images, modalities)
    assert found.dtype == np.float32
    assert found.shape == (count, DIMENSION)
    np.testing.assert_allclose(found, StubModel().embed(images, modalities), atol=1e-5)


@dataclass(frozen=True, slots=True)
class AsGpu(Device):
    """A device that is reported as a GPU and runs on the CPU."""

    @property
    def provider(self) -> str:
        return CPU


def gpu_embedder_on_cpu(
    directory: Path, monkeypatch: pytest.MonkeyPatch, device: AsGpu, gpu: Gpu | None
) -> OnnxEmbedder:
    """Create an embedder as on a GPU, with all its buffers in CPU memory."""
    of_shape = onnxruntime.OrtValue.ortvalue_from_shape_and_type
    monkeypatch.setattr(
        onnxruntime.OrtValue, "ortvalue_from_shape_and_type", lambda shape, kind, *_: of_shape(shape, kind)
    )
    monkeypatch.setattr(session, "page_locked", lambda _, shape, kind: np.zeros(shape, kind))
    monkeypatch.setattr(session, "one_device", lambda *_: device)
    monkeypatch.setattr(
        session, "_create_session", lambda _, graph, *__: onnxruntime.InferenceSession(graph, providers=[CPU])
    )
    return OnnxEmbedder(directory, gpu=gpu)


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("kind", ["cuda", "tensorrt"])
def test_gpu_buffers_match_the_reference_for_any_batch_size(
    directory: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind, graphs: bool
) -> None:
    embedder = gpu_embedder_on_cpu(directory, monkeypatch, AsGpu(kind), Gpu(graphs=graphs))
    images, modalities = crops(embedder.largest_batch)
    expected = StubModel().embed(images, modalities)
    first = embedder.embed(images, modalities)
    for count in (*GPU_BATCHES, 3, 5, 17, 33, 63):  # after a full batch, whose rows become the padding
        last = slice(len(images) - count, None)
        found = embedder.embed(list(images[last]), modalities[last])
        np.testing.assert_allclose(found, expected[last], atol=1e-5)
    np.testing.assert_allclose(first, expected, atol=1e-5)


def test_each_batch_size_has_its_own_cuda_graph_and_buffers(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = gpu_embedder_on_cpu(directory, monkeypatch, AsGpu("cuda"), Gpu(graphs=True))
    bound: dict[str, set[object]] = defaultdict(set)
    run = embedder._session.run_with_iobinding

    def record(binding: Any, options: onnxruntime.RunOptions) -> None:
        (vectors,) = binding.get_outputs()
        bound[options.get_run_config_entry("gpu_graph_id")].add((binding, vectors.data_ptr()))
        run(binding, options)

    monkeypatch.setattr(embedder._session, "run_with_iobinding", record)
    for count in (*range(1, embedder.largest_batch + 1), 1):
        embedder.embed(*crops(count))
    assert list(bound) == [str(size) for size in GPU_BATCHES]
    assert all(len(each) == 1 for each in bound.values())


def test_wrong_shapes_and_types_are_refused(directory: Path) -> None:
    embedder = OnnxEmbedder(directory, device="cpu")
    images, modalities = crops(2)
    floats: Any = images.astype(np.float32)
    for wrong in (images[:, 1:], images[..., :1], floats, images[0], images[:0]):
        with pytest.raises(ValueError, match="expected"):
            embedder.embed(wrong, modalities[: len(wrong)])
    with pytest.raises(ValueError, match="expected"):
        embedder.embed(images, modalities[:1])
    with pytest.raises(ValueError, match="expected 1 to"):
        embedder.embed(*crops(embedder.largest_batch + 1))


def test_session_must_run_on_the_requested_provider() -> None:
    check_provider("m", Device("cpu"), CPU)
    check_provider("m", Device("cuda"), CUDA)
    with pytest.raises(ModelRefused, match=r"cuda:1 was requested .*runs on CPU"):
        check_provider("m", Device("cuda", 1), CPU)
    with pytest.raises(ModelRefused, match="cpu was requested"):
        check_provider("m", Device("cpu"), CUDA)
    with pytest.raises(ModelRefused, match="tensorrt:0 was requested"):
        check_provider("m", Device("tensorrt"), CUDA)


def test_auto_precision_depends_on_card_and_processor(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card.read(directory / "card.json")
    exact = card.precisions[Precision.FP32]
    small = exact.model_copy(update={"rank1_change": 0.0, "map_change": -0.004})
    large = exact.model_copy(update={"rank1_change": 0.0, "map_change": -0.006})
    for vnni, variant, chosen in (
        ({"avx_vnni"}, small, Precision.INT8),
        ({"avx_vnni"}, large, Precision.FP32),
        (set(), small, Precision.FP32),
    ):
        monkeypatch.setattr("server.embedding.providers.vnni_flags", lambda vnni=vnni: vnni)
        monkeypatch.setattr("server.embedding.providers.bfloat_is_fast", lambda: False)
        precisions = {Precision.FP32: exact, Precision.INT8: variant}
        card.model_copy(update={"precisions": precisions}).write(directory / "card.json")
        assert OnnxEmbedder(directory, device="cpu", threads=1).precision is chosen
    assert OnnxEmbedder(directory, Precision.INT8, "cpu", 1).precision is Precision.INT8


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="this ONNX Runtime has CUDA")
def test_auto_device_falls_back_to_the_cpu_if_cuda_does_not_start(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.embedding.session.one_device", lambda name, _: Device("cuda"))
    assert OnnxEmbedder(directory, device="auto", threads=1).provider == CPU
    with pytest.raises(ModelRefused, match="cuda:0 was requested"):
        OnnxEmbedder(directory, device="cuda", threads=1)


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="this ONNX Runtime has CUDA")
def test_cuda_is_refused_without_cuda(directory: Path) -> None:
    with pytest.raises(ModelRefused, match="cuda"):
        OnnxEmbedder(directory, device="cuda")
    assert OnnxEmbedder(directory, device="auto").provider == CPU


def test_altered_model_file_is_refused(directory: Path) -> None:
    graph = bytearray((directory / "model.onnx").read_bytes())
    graph[len(graph) // 2] ^= 1
    (directory / "model.onnx").write_bytes(graph)
    with pytest.raises(ModelRefused, match="altered"):
        OnnxEmbedder(directory)


def test_card_must_match_the_card_in_the_graph(directory: Path) -> None:
    card = Card.read(directory / "card.json")
    card.model_copy(update={"limits": "none at all"}).write(directory / "card.json")
    with pytest.raises(ModelRefused, match="differ"):
        OnnxEmbedder(directory)


def test_graph_with_other_inputs_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "misnamed", input_name="picture")
    with pytest.raises(ModelRefused, match="inputs and outputs"):
        OnnxEmbedder(tmp_path / "misnamed")


@pytest.mark.parametrize("scale", [0.5, 0.0, float("nan")])
def test_model_without_unit_vectors_is_refused(tmp_path: Path, scale: float) -> None:
    write_model(tmp_path / "long", scale=scale)
    with pytest.raises(ModelRefused, match="unit vectors"):
        OnnxEmbedder(tmp_path / "long")


def test_missing_files_and_precisions_are_named(directory: Path) -> None:
    with pytest.raises(ModelRefused, match="no int8 file; the card has fp32"):
        OnnxEmbedder(directory, Precision.INT8)
    (directory / "model.onnx").unlink()
    with pytest.raises(ModelRefused, match=r"model\.onnx cannot be read"):
        OnnxEmbedder(directory)
    (directory / "card.json").write_text("{}")
    with pytest.raises(ModelRefused, match=r"card\.json cannot be read"):
        OnnxEmbedder(directory)


def test_default_model_is_the_named_preferred_or_only_one(tmp_path: Path) -> None:
    def default(*names: str, requested: str | None = None) -> str:
        models = Models([{name: embedders[name] for name in names}], requested, ImageLimits(10**6, 10**6))
        models.close()
        return models.default

    for seed, name in enumerate((PREFERRED, "other", "third")):
        write_model(tmp_path / name, seed=seed)
    embedders = load_embedders(tmp_path, precision=Precision.FP32, device="cpu", threads=1)
    assert list(embedders) == [PREFERRED, "other", "third"]
    assert default("other") == "other"
    assert default("other", PREFERRED) == PREFERRED
    assert default("other", PREFERRED, requested="other") == "other"
    for names, requested in ((("other", "third"), None), (("other",), "absent")):
        with pytest.raises(ModelRefused, match="not among the loaded ones"):
            default(*names, requested=requested)


def test_empty_directory_and_renamed_model_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="VIREID_MODEL_DIR"):
        load_embedders(tmp_path, precision=Precision.FP32, device="cpu", threads=1)
    write_model(tmp_path / "stub")
    (tmp_path / "stub").rename(tmp_path / "renamed")
    with pytest.raises(ModelRefused, match="the same name"):
        load_embedders(tmp_path, precision=Precision.FP32, device="cpu", threads=1)


def test_unknown_model_error_lists_the_known_ones(directory: Path) -> None:
    embedders = load_embedders(directory.parent, precision=Precision.FP32, device="cpu", threads=1)
    models = Models([dict(embedders)], None, ImageLimits(10**6, 10**6))
    try:
        with pytest.raises(ModelNotFound) as caught:
            models.get("other")
        assert (caught.value.model, caught.value.known) == ("other", ("stub",))
    finally:
        models.close()
