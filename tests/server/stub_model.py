"""A small stub model that fulfils the ONNX contract, so that the server is tested without torch.

The embedding of a crop is the mean-free grey pattern of a coarse grid under a fixed projection per modality. The two
projections are similar, so visible and infrared crops of a drawn person have similar embeddings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.card import (
    CARD_KEY,
    THRESHOLD_RATES,
    Calibration,
    Card,
    DataSource,
    InputSpec,
    Modality,
    Precision,
    TrainingFacts,
    Variant,
)

__all__ = ["DIMENSION", "HEIGHT", "WIDTH", "StubModel", "card", "write_model"]

HEIGHT, WIDTH, DIMENSION = 64, 32, 48
_GRID = (16, 4)  # rows and columns of the coarse grid
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_IMPOSTOR_PAIRS = 10_000


class StubModel:
    """NumPy implementation of the graph, used as oracle; ``seed`` determines the weights."""

    def __init__(self, seed: int = 0) -> None:
        draw = np.random.default_rng(seed)
        shared = draw.normal(size=(_GRID[0] * _GRID[1], DIMENSION))
        own = draw.normal(size=(len(Modality), *shared.shape))
        self.projections = (shared + 0.1 * own).astype(np.float32)
        self.fingerprint = hashlib.sha256(self.projections.tobytes()).hexdigest()

    def embed(self, images: Sequence[NDArray[np.uint8]], modalities: NDArray[np.int64]) -> NDArray[np.float32]:
        """Embed N uint8 crops ``[HEIGHT, WIDTH, 3]`` as unit vectors ``[N, DIMENSION]``."""
        grey = np.stack(images).astype(np.float32) @ _LUMA
        rows, columns = _GRID
        cells = grey.reshape(len(images), rows, HEIGHT // rows, columns, WIDTH // columns).mean((2, 4))
        pattern = cells.reshape(len(images), -1)
        pattern = pattern - pattern.mean(1, keepdims=True) + 1e-3
        out = np.einsum("np,npd->nd", pattern, self.projections[modalities])
        unit: NDArray[np.float32] = (out / np.linalg.norm(out, axis=1, keepdims=True)).astype(np.float32)
        return unit


def write_model(
    directory: Path,
    *,
    seed: int = 0,
    calibrated: bool = True,
    calibrations: Sequence[Calibration] = (),
    input_name: str = "image",
    scale: float = 1.0,
) -> Card:
    """Write ``model.onnx`` and ``card.json`` of a model with the name of the directory.

    ``input_name`` and ``scale`` (of the output) other than the defaults violate the contract on purpose.
    """
    weights = StubModel(seed)
    described = card(directory.name, weights.fingerprint, calibrated=calibrated)
    if calibrations:
        described = described.model_copy(update={"calibrations": tuple(calibrations)})
    model = _graph(weights, input_name, scale)
    helper.set_model_props(model, {CARD_KEY: described.embedded().model_dump_json()})
    onnx.checker.check_model(model)
    directory.mkdir(parents=True, exist_ok=True)
    graph = model.SerializeToString()
    (directory / "model.onnx").write_bytes(graph)
    variant = Variant(file="model.onnx", sha256=hashlib.sha256(graph).hexdigest())
    described = described.model_copy(update={"precisions": {Precision.FP32: variant}})
    described.write(directory / "card.json")
    return described


def _graph(weights: StubModel, input_name: str, scale: float) -> onnx.ModelProto:
    pool = [HEIGHT // _GRID[0], WIDTH // _GRID[1]]
    constants = {
        "luma": _LUMA.reshape(3, 1),
        "projections": weights.projections,
        "tiny": np.float32(1e-3),
        "scale": np.float32(scale),
        "cells": np.array([0, 1, _GRID[0] * _GRID[1]], np.int64),
        "row": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Cast", [input_name], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["pixels", "luma"], ["grey"]),
        helper.make_node("Transpose", ["grey"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["grid"], kernel_shape=pool, strides=pool),
        helper.make_node("Reshape", ["grid", "cells"], ["pattern"]),
        helper.make_node("ReduceMean", ["pattern"], ["mean"], axes=[2], keepdims=1),
        helper.make_node("Sub", ["pattern", "mean"], ["centred"]),
        helper.make_node("Add", ["centred", "tiny"], ["safe"]),
        helper.make_node("Gather", ["projections", "modality"], ["projection"], axis=0),
        helper.make_node("MatMul", ["safe", "projection"], ["wide"]),
        helper.make_node("Squeeze", ["wide", "row"], ["flat"]),
        helper.make_node("ReduceL2", ["flat"], ["length"], axes=[1], keepdims=1),
        helper.make_node("Div", ["flat", "length"], ["unit"]),
        helper.make_node("Mul", ["unit", "scale"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "stub",
        [
            helper.make_tensor_value_info(input_name, TensorProto.UINT8, ["N", HEIGHT, WIDTH, 3]),
            helper.make_tensor_value_info("modality", TensorProto.INT64, ["N"]),
        ],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", DIMENSION])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def card(name: str, fingerprint: str = "0" * 64, *, calibrated: bool = True) -> Card:
    """Return a valid card without files."""
    pairs = [(query, gallery) for query in Modality for gallery in Modality]
    return Card(
        name=name,
        method="stub",
        backbone="none",
        version="1",
        fingerprint=fingerprint,
        input=InputSpec(height=HEIGHT, width=WIDTH, resize="bilinear"),
        dimension=DIMENSION,
        parameters=2 * _GRID[0] * _GRID[1] * DIMENSION,
        precisions={},
        training=TrainingFacts(
            data=(DataSource(name="none", licence="none", visible=0, infrared=0),),
            command="",
            commit="",
            config={},
            seed=0,
            epochs=0,
            machine="",
        ),
        calibrations=tuple(_calibration(*pair) for pair in pairs) if calibrated else (),
        intended_use="tests",
        limits="knows nothing",
    )


def _calibration(query: Modality, gallery: Modality) -> Calibration:
    """Return a calibration that is log-linear from rate 1 at score -1 to 1e-4 at score 1, easy to verify by hand."""
    rates = (1.0, *THRESHOLD_RATES)
    return Calibration(
        query=query,
        gallery=gallery,
        data="none",
        impostor_pairs=_IMPOSTOR_PAIRS,
        rates=rates,
        scores=(-1.0, 0.0, 0.5, 1.0),
        thresholds={f"{rate:g}": score for rate, score in zip(THRESHOLD_RATES, (0.0, 0.5, 1.0), strict=True)},
    )
