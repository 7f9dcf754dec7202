"""Export of a trained network to the ONNX file and card that the server loads, with a parity check.

The graph follows the ONNX contract: inputs ``image`` uint8 ``[N, H, W, 3]`` and ``modality`` int64 ``[N]``, output
``embedding`` float32 ``[N, D]`` of unit length, with dynamic N; it contains normalisation, layout and stem selection.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.baseline import Baseline
from models.card import CARD_KEY, Card, Modality, Precision, Variant
from models.fused import Fused
from models.graph_weights import name_weights

__all__ = ["Parity", "ParityError", "export", "measure_parity", "random_crops"]

PARITY_BATCHES = (1, 3, 8)
MAX_ERROR = 1e-4
MIN_COSINE = 0.9999
PROBES = 32
OPSET = 18
IR_VERSION = 8
"""Lowest version of the file format with operator set 18, which ONNX Runtime 1.15 and later can read."""
HALVED_FROM = 10_000
"""Minimum number of elements of a weight stored as float16: the small first layers are sensitive to rounding."""

Network = Baseline | Fused


@dataclass(frozen=True, slots=True)
class Parity:
    """Differences between ONNX Runtime and PyTorch over several batch sizes and modalities.

    ``max_error`` is the largest absolute difference of an element of an embedding; ``ranking_differs`` counts probes
    whose ranking of the other modality's probes differs, where scores within ``MAX_ERROR`` are tied. For a graph with
    rounded weights only the cosine must pass.
    """

    batches: tuple[int, ...]
    probes: int
    max_error: float
    min_cosine: float
    ranking_differs: int
    rounded: bool = False

    @property
    def passed(self) -> bool:
        """Whether the exported graph may be released."""
        same = self.max_error <= MAX_ERROR and self.ranking_differs == 0
        return self.min_cosine >= MIN_COSINE and (same or self.rounded)


class ParityError(RuntimeError):
    """The exported graph and the network disagree; nothing was written."""

    def __init__(self, parity: Parity) -> None:
        super().__init__(f"parity check failed: {json.dumps(asdict(parity))}")
        self.parity = parity


class _Embedding(nn.Module):
    """Inference of a network, for the exporter."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, modality: Tensor) -> Tensor:
        return self.network.embed(image, modality)


def export(
    network: Network,
    card: Card,
    directory: Path,
    probes: NDArray[np.uint8] | None = None,
    *,
    half_weights: bool = False,
) -> Parity:
    """Write ``model.onnx`` and ``card.json`` to ``directory`` if the parity check passes.

    ``card`` must have its ``fingerprint``; its ``precisions`` are replaced. ``probes``: crops for the comparison, uint8
    ``[M, H, W, 3]``; None: random ones. ``half_weights`` stores large matrices and kernels as float16, which halves the
    file; the graph still computes in float32.

    Raises:
        ParityError: the graph and the network disagree; ``directory`` is not changed.
    """
    network.eval()
    if probes is None:
        probes = random_crops(PROBES, card.input.height, card.input.width)
    with TemporaryDirectory(dir=directory.parent if directory.parent.is_dir() else None) as scratch:
        file = Path(scratch) / "model.onnx"
        _write_graph(network, card, file)
        if half_weights:
            _halve_weights(file)
        parity = replace(measure_parity(network, file, probes), rounded=half_weights)
        if not parity.passed:
            raise ParityError(parity)
        variant = Variant(
            file=file.name,
            sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
            weights="float16" if half_weights else "float32",
        )
        directory.mkdir(parents=True, exist_ok=True)
        file.replace(directory / file.name)
    card.model_copy(update={"precisions": {Precision.FP32: variant}}).write(directory / "card.json")
    return parity


def measure_parity(network: Network, file: Path, probes: NDArray[np.uint8]) -> Parity:
    """Compare PyTorch and ONNX Runtime (CPU) on ``probes``, all visible, all infrared and mixed."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # its spinning threads would compete with those of PyTorch
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    visible, infrared = Modality.VISIBLE.index, Modality.INFRARED.index
    count = len(probes)
    max_error, min_cosine = 0.0, 1.0
    both: dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
    for batch in PARITY_BATCHES:
        for modalities in (np.full(count, visible), np.full(count, infrared), np.arange(count) % 2):
            pair = _embed_both(network, session, probes, modalities.astype(np.int64), batch)
            max_error = max(max_error, float(np.abs(pair[0] - pair[1]).max()))
            min_cosine = min(min_cosine, float((pair[0].astype(np.float64) * pair[1]).sum(1).min()))
            both[int(modalities.sum())] = pair
    torch_scores, onnx_scores = (both[0][side] @ both[count][side].T for side in (0, 1))
    differs = sum(not _same_ranking(a, b) for a, b in zip(torch_scores, onnx_scores, strict=True))
    return Parity(PARITY_BATCHES, count, max_error, min_cosine, differs)


def random_crops(count: int, height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Generate smooth random images, uint8 ``[count, height, width, 3]``, as probes."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 8, 4, generator=generator)
    fine = nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    return (fine * 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


def _write_graph(network: Network, card: Card, file: Path) -> None:
    example = torch.zeros(2, card.input.height, card.input.width, 3, dtype=torch.uint8)
    batch = torch.export.Dim("N")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations within the exporter
        program = torch.onnx.export(
            _Embedding(network),
            (example, torch.tensor([0, 1])),
            input_names=["image", "modality"],
            output_names=["embedding"],
            dynamic_shapes={"image": {0: batch}, "modality": {0: batch}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # noqa: S101 - only None without dynamo
    model = program.model_proto
    name_weights(model.graph, network)
    model.ir_version = IR_VERSION
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output, model.graph):
        del part.metadata_props[:]  # stack traces of the exporter, with local paths
    entry = model.metadata_props.add()
    entry.key, entry.value = CARD_KEY, card.embedded().model_dump_json()
    onnx.checker.check_model(model)
    onnx.save(model, str(file))


def _halve_weights(file: Path) -> None:
    """Store the large float32 weights as float16; ONNX Runtime converts them back when it loads the file."""
    model = onnx.load(str(file))
    graph = model.graph
    widened = []
    for tensor in list(graph.initializer):
        if tensor.data_type == onnx.TensorProto.FLOAT and math.prod(tensor.dims) >= HALVED_FROM:
            stored = f"{tensor.name}.float16"
            widened.append(onnx.helper.make_node("Cast", [stored], [tensor.name], to=onnx.TensorProto.FLOAT))
            half = onnx.numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(onnx.numpy_helper.from_array(half, stored))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*widened, *nodes])
    onnx.checker.check_model(model)
    onnx.save(model, str(file))


@torch.inference_mode()
def _embed_both(
    network: Network,
    session: onnxruntime.InferenceSession,
    images: NDArray[np.uint8],
    modalities: NDArray[np.int64],
    batch: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    ours, theirs = [], []
    for start in range(0, len(images), batch):
        rows = slice(start, start + batch)
        ours.append(network.embed(torch.from_numpy(images[rows]), torch.from_numpy(modalities[rows])).numpy())
        theirs.append(session.run(["embedding"], {"image": images[rows], "modality": modalities[rows]})[0])
    return np.concatenate(ours), np.concatenate(theirs)


def _same_ranking(scores: NDArray[np.float32], others: NDArray[np.float32]) -> bool:
    """Return whether both rankings agree, except for ranks whose scores are within ``MAX_ERROR``."""
    order, other_order = np.argsort(-scores, kind="stable"), np.argsort(-others, kind="stable")
    return bool((np.abs(scores[order] - scores[other_order]) <= MAX_ERROR).all())
