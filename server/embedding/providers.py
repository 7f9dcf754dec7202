"""Devices as the settings name them, and what ONNX Runtime is told to run on one."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from models.card import Card, Precision
from server.embedding.processor import bfloat_is_fast, vnni_flags

__all__ = [
    "CPU",
    "CUDA",
    "DEVICES",
    "GPU_BATCHES",
    "ON_CPU",
    "OPENVINO",
    "TENSORRT",
    "Device",
    "Gpu",
    "Kind",
    "Options",
    "batch_sizes",
    "choose_precision",
    "each_device",
    "one_device",
    "provider_options",
]

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
OPENVINO = "OpenVINO"
"""Not one of ONNX Runtime's, but in its place."""
ON_CPU = {CPU, OPENVINO}

Kind = Literal["cpu", "cuda", "tensorrt"]
Options = dict[str, str]

DEVICES = r"^(auto|cpu|(cuda|tensorrt)(:\d+(,\d+)*)?)$"
"""``auto``, ``cpu``, ``cuda`` or ``tensorrt``, the last two with the numbers of their GPUs: ``cuda:0,1``."""
GPU_BATCHES = (1, 2, 4, 8, 16, 32, 64)
"""Batch sizes on a GPU: memory is taken once for each."""


@dataclass(frozen=True, slots=True)
class Device:
    """Where one session runs. ``index`` is the number of a GPU."""

    kind: Kind
    index: int = 0

    @property
    def provider(self) -> str:
        """The execution provider that must really run it."""
        return {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT}[self.kind]

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"


@dataclass(frozen=True, slots=True)
class Gpu:
    """How a GPU session runs: bytes of memory for its arena, and the folder that TensorRT keeps its engines in.

    With ``graphs`` all layers of a batch size are launched at once, as a CUDA graph. It is captured while the session
    is made, for that thread alone and with nothing else in the process on a GPU: it can be measured, not served with.
    """

    memory: int | None = None
    engines: Path | None = None
    graphs: bool = False


def each_device(setting: str) -> tuple[str, ...]:
    """The devices that a setting (:data:`DEVICES`) names, one by one: ``cuda:0,1`` is ``cuda:0`` and ``cuda:1``.

    Raises:
        ValueError: it names none, or one twice.
    """
    if not re.fullmatch(DEVICES, setting):
        raise ValueError(f"device {setting}: expected auto, cpu, cuda, tensorrt, or several GPUs as in cuda:0,1")
    kind, colon, numbers = setting.partition(":")
    named = tuple(f"{kind}:{int(number)}" for number in numbers.split(",")) if colon else (setting,)
    if len(set(named)) < len(named):
        raise ValueError(f"device {setting}: each GPU may be named once")
    return named


def one_device(name: str, available: Collection[str]) -> Device:
    """The device of that name; ``auto`` is the first GPU where CUDA is among the ``available`` providers, else the CPU.

    TensorRT is never chosen by itself: building its engines takes minutes.

    Raises:
        ValueError: it is the name of no device, or of several.
    """
    (name,) = each_device(name)
    if name == "auto":
        return Device("cuda" if CUDA in available else "cpu")
    kind, _, number = name.partition(":")
    return Device(next(known for known in get_args(Kind) if known == kind), int(number or 0))


def choose_precision(card: Card, device: Device) -> Precision:
    """The fastest precision of a model whose measured loss is small, else fp32.

    On a GPU that is fp16, on a processor with tiles bf16, on one with VNNI int8.
    """
    if device.kind != "cpu":
        fast = [Precision.FP16]
    else:
        has = {Precision.BF16: bfloat_is_fast(), Precision.INT8: bool(vnni_flags())}
        fast = [precision for precision, there in has.items() if there]
    accepted = (each for each in fast if (variant := card.precisions.get(each)) is not None and variant.accepted)
    return next(accepted, Precision.FP32)


def batch_sizes(device: Device, gpu: Gpu) -> tuple[int, ...]:
    """Sizes that the batches of a GPU are padded to, ascending.

    One alone for TensorRT's CUDA graphs: it has one a session, and would replay it for any other size, too.
    """
    return GPU_BATCHES[-1:] if gpu.graphs and device.kind == "tensorrt" else GPU_BATCHES


def provider_options(device: Device, card: Card, precision: Precision, gpu: Gpu) -> list[tuple[str, Options]]:
    """Execution providers in order of preference, each with its options; all values are text."""
    cpu: list[tuple[str, Options]] = [(CPU, {})]
    if device.kind == "cpu":
        return cpu
    cuda = {
        "device_id": str(device.index),
        "arena_extend_strategy": "kSameAsRequested",  # no doubling: sizes are few and taken once, at the warm-up
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": str(int(precision is not Precision.FP32)),  # fp32 is what parity is promised of
    }
    if gpu.memory is not None:
        cuda["gpu_mem_limit"] = str(gpu.memory)
    if device.kind == "cuda":
        return [(CUDA, cuda | {"enable_cuda_graph": str(int(gpu.graphs))}), *cpu]
    shape = f"{card.input.height}x{card.input.width}x3"
    sizes = batch_sizes(device, gpu)
    tensorrt = {
        "device_id": str(device.index),
        "trt_fp16_enable": str(precision is Precision.FP16),
        "trt_cuda_graph_enable": str(gpu.graphs),
        "trt_profile_min_shapes": f"image:{sizes[0]}x{shape},modality:{sizes[0]}",
        "trt_profile_opt_shapes": f"image:{sizes[-1]}x{shape},modality:{sizes[-1]}",
        "trt_profile_max_shapes": f"image:{sizes[-1]}x{shape},modality:{sizes[-1]}",
    }
    if gpu.memory is not None:
        tensorrt["trt_max_workspace_size"] = str(gpu.memory)
    if gpu.engines is not None:
        place = str(gpu.engines / card.fingerprint[:16] / precision)  # an engine is of one set of weights
        tensorrt |= {
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": place,
            "trt_timing_cache_enable": "True",
            "trt_timing_cache_path": place,
        }
    return [(TENSORRT, tensorrt), (CUDA, cuda), *cpu]
