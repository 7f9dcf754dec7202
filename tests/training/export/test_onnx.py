"""Parity of exported graphs and networks; graphs without parity are not released."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import training.export.onnx
from models.card import CARD_KEY, Card, InputSpec, Precision, TrainingFacts
from models.icre import Icre
from models.registry import build
from training.checkpoint import fingerprint, start_from
from training.export import onnx as exporting
from training.export.onnx import ParityError, export, measure_parity, random_crops

HEIGHT, WIDTH = 64, 32


def card_of(network: torch.nn.Module, dimension: int) -> Card:
    return Card(
        name="drawn", method="baseline", backbone="test_resnet", version="1", fingerprint=fingerprint(network),  # type: ignore[arg-type]
        input=InputSpec(height=HEIGHT, width=WIDTH, resize="bilinear"), dimension=dimension,
        parameters=sum(p.numel() for p in network.parameters()), precisions={},
        training=TrainingFacts(data=(), command="", commit="", config={}, seed=0, epochs=0, machine=""),
        intended_use="tests", limits="none",
    )  # fmt: skip


@pytest.fixture(scope="module", params=["baseline", "icre"])
def exported(request, tmp_path_factory):  # type: ignore[no-untyped-def]
    """The other networks have the graph of the baseline, as their own tests prove."""
    torch.manual_seed(0)
    network = build(request.param, "test_resnet", identities=3).eval()
    if isinstance(network, Icre):  # as after some training: what starts at zero would hide all that is behind it
        assert network.up is not None
        torch.nn.init.normal_(network.up.get_parameter("1.weight"))
    directory = tmp_path_factory.mktemp("zoo") / request.param
    parity = export(network, card_of(network, network.dimension), directory)
    return network, directory, parity


def test_parity_is_measured_at_every_batch_in_both_modalities(exported) -> None:  # type: ignore[no-untyped-def]
    _, _, parity = exported
    assert parity.passed
    assert parity.batches == (1, 3, 8)
    assert parity.max_error < 1e-4
    assert parity.min_cosine > 0.9999


def test_the_graph_obeys_the_contract(exported) -> None:  # type: ignore[no-untyped-def]
    network, directory, _ = exported
    session = onnxruntime.InferenceSession(str(directory / "model.onnx"), providers=["CPUExecutionProvider"])
    described = {i.name: (i.type, i.shape) for i in (*session.get_inputs(), *session.get_outputs())}
    assert described == {
        "image": ("tensor(uint8)", ["N", HEIGHT, WIDTH, 3]),
        "modality": ("tensor(int64)", ["N"]),
        "embedding": ("tensor(float)", ["N", network.dimension]),
    }
    for count in (1, 2, 5, 17):
        (vectors,) = session.run(
            None, {"image": random_crops(count, HEIGHT, WIDTH), "modality": np.arange(count, dtype=np.int64) % 2}
        )
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), np.ones(count), atol=1e-5)


def test_file_format_is_the_lowest_that_the_operator_set_allows(exported) -> None:  # type: ignore[no-untyped-def]
    _, directory, _ = exported
    model = onnx.load(str(directory / "model.onnx"))
    assert (model.ir_version, [(entry.domain, entry.version) for entry in model.opset_import]) == (8, [("", 18)])
    onnx.checker.check_model(model)


def test_the_card_travels_in_the_file_and_beside_it(exported) -> None:  # type: ignore[no-untyped-def]
    _, directory, _ = exported
    card = Card.read(directory / "card.json")
    session = onnxruntime.InferenceSession(str(directory / "model.onnx"), providers=["CPUExecutionProvider"])
    inside = Card.model_validate_json(session.get_modelmeta().custom_metadata_map[CARD_KEY])
    assert inside == card.embedded()
    variant = card.precisions[Precision.FP32]
    assert variant.sha256 == hashlib.sha256((directory / variant.file).read_bytes()).hexdigest()


def test_half_weights_halve_the_file_and_little_else(exported) -> None:  # type: ignore[no-untyped-def]
    network, directory, exact = exported
    whole = (directory / "model.onnx").stat().st_size
    halved = directory.with_name(f"{directory.name}-half.onnx")
    halved.write_bytes((directory / "model.onnx").read_bytes())
    exporting._halve_weights(halved)
    probes = random_crops(8, HEIGHT, WIDTH)
    parity = measure_parity(network, halved, probes)
    assert halved.stat().st_size < 0.6 * whole
    assert exact.max_error < parity.max_error < 1e-2
    assert parity.min_cosine > 0.9999
    assert not replace(parity, max_error=1e-2).passed
    assert replace(parity, max_error=1e-2, rounded=True).passed
    assert not replace(parity, min_cosine=0.9998, rounded=True).passed
    session = onnxruntime.InferenceSession(halved, providers=["CPUExecutionProvider"])
    assert CARD_KEY in session.get_modelmeta().custom_metadata_map


def test_no_path_of_this_machine_travels_in_the_file(exported) -> None:  # type: ignore[no-untyped-def]
    _, directory, _ = exported
    content = (directory / "model.onnx").read_bytes()
    assert str(Path(exporting.__file__).parent).encode() not in content
    assert b"site-packages" not in content


def test_the_modality_chooses_the_stem_inside_the_graph(exported) -> None:  # type: ignore[no-untyped-def]
    network, directory, _ = exported
    with torch.no_grad():
        next(network.trunk.stems["infrared"].parameters()).mul_(-1)
    try:
        parity = measure_parity(network, directory / "model.onnx", random_crops(8, HEIGHT, WIDTH))
    finally:
        with torch.no_grad():
            next(network.trunk.stems["infrared"].parameters()).mul_(-1)
    assert not parity.passed  # the graph still has the old infrared stem, which the check detects


def test_a_graph_that_fails_the_parity_check_is_not_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = build("baseline", "test_resnet", identities=3).eval()
    monkeypatch.setattr(exporting, "MAX_ERROR", 0.0)  # no two engines agree to the last bit
    with pytest.raises(ParityError, match="max_error"):
        export(network, card_of(network, network.dimension), tmp_path / "released")
    assert not (tmp_path / "released").exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["emi", "mtrl"])
def test_a_method_without_parts_at_inference_is_exported_as_the_baseline(method: str) -> None:
    network = build(method, "test_resnet", identities=3).eval()
    baseline = build("baseline", "test_resnet", identities=3).eval()
    baseline.load_state_dict(network.state_dict(), strict=False)
    assert fingerprint(network) == fingerprint(baseline)
    example = torch.from_numpy(random_crops(2, HEIGHT, WIDTH)), torch.tensor([0, 1])
    steps = []
    for kind in (network, baseline):
        nodes = torch.export.export(exporting._Embedding(kind), example).graph.nodes
        used = [node for node in nodes if node.op != "placeholder" or node.users]
        steps.append([(node.op, node.name, str(node.target), str(node.args)) for node in used])
    assert steps[0] == steps[1]
    assert any("conv2d" in target for _, _, target, _ in steps[0])


def test_the_fingerprint_depends_on_the_weights_but_not_on_the_classifier() -> None:
    network = build("baseline", "test_resnet", identities=3)
    before = fingerprint(network)
    with torch.no_grad():
        network.classifier.weight.add_(1)
    assert fingerprint(network) == before
    with torch.no_grad():
        network.neck.weight.add_(1e-3)
    assert fingerprint(network) != before


def test_an_exported_osnet_can_be_started_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.export.onnx, "PARITY_BATCHES", (3,))
    monkeypatch.setattr(training.export.onnx, "PROBES", 4)
    torch.manual_seed(0)
    network = build("baseline", "osnet_x0_5", identities=3)
    with torch.no_grad():  # so that no two weights are equal by their defaults
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.rand_like(parameter))
    export(network, card_of(network, network.dimension), tmp_path / "whole")
    export(network, card_of(network, network.dimension), tmp_path / "halved", half_weights=True)
    for folder, tolerance in (("whole", 1e-6), ("halved", 1e-2)):
        other = build("icre", "osnet_x0_5", identities=3, grid=(HEIGHT // 16, WIDTH // 16))
        untouched = other.refinement.state_dict()["attend.weight"].clone()  # type: ignore[union-attr]
        start_from(other, tmp_path / folder)
        given, own = network.state_dict(), other.state_dict()
        for name in own.keys() & given.keys():
            if not name.startswith("classifier"):
                torch.testing.assert_close(own[name], given[name], rtol=tolerance, atol=tolerance)
        assert torch.equal(other.refinement.state_dict()["attend.weight"], untouched)  # type: ignore[union-attr]


def test_a_graph_without_the_names_of_its_weights_cannot_be_started_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.export.onnx, "PARITY_BATCHES", (3,))
    monkeypatch.setattr(training.export.onnx, "PROBES", 4)
    network = build("baseline", "test_resnet", identities=3)  # with batch norms
    export(network, card_of(network, network.dimension), tmp_path)
    with pytest.raises(ValueError, match=r"not there by name.*start from the model\.pt"):
        start_from(build("baseline", "test_resnet", identities=3), tmp_path)
