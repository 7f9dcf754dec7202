"""Parsing of the device setting, and the execution providers and options of ONNX Runtime for each device."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from models.card import Card, Precision
from server.hardware.cpu_features import bfloat_is_fast, vnni_flags

__all__ = [
    "CPU",
    "CPU_PROVIDERS",
    "CUDA",
    "DEVICES",
    "GPU_BATCHES",
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
"""Not an execution provider of ONNX Runtime; reported in the same place."""
CPU_PROVIDERS = {CPU, OPENVINO}

Kind = Literal["cpu", "cuda", "tensorrt"]
Options = dict[str, str]

DEVICES = r"^(auto|cpu|(cuda|tensorrt)(:\d+(,\d+)*)?)$"
"""``auto``, ``cpu``, ``cuda`` or ``tensorrt``; the last two optionally with GPU numbers, as in ``cuda:0,1``."""
GPU_BATCHES = (1, 2, 4, 8, 16, 32, 64)
"""Batch sizes on a GPU. Batches are padded to one of them, and memory is allocated once for each."""


@dataclass(frozen=True, slots=True)
class Device:
    """The device of one session. ``index`` is the number of the GPU."""

    kind: Kind
    index: int = 0

    @property
    def provider(self) -> str:
        """The execution provider that must run the session."""
        return {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT}[self.kind]

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"


@dataclass(frozen=True, slots=True)
class Gpu:
    """Options of a GPU session: the limit of its memory arena in bytes, and the folder of TensorRT's engine cache.

    With ``graphs``, all layers of a batch size are launched at once as a CUDA graph. The graph is captured when the
    session is created, is usable only in that thread, and requires that no other thread of the process uses a GPU;
    so it is for benchmarks only, not for serving.
    """

    memory: int | None = None
    engines: Path | None = None
    graphs: bool = False


def each_device(setting: str) -> tuple[str, ...]:
    """Split a device setting (:data:`DEVICES`) into single devices: ``cuda:0,1`` into ``cuda:0`` and ``cuda:1``.

    Raises:
        ValueError: the setting is malformed or names a device twice.
    """
    if not re.fullmatch(DEVICES, setting):
        raise ValueError(f"device {setting}: expected auto, cpu, cuda, tensorrt, or several GPUs as in cuda:0,1")
    kind, colon, numbers = setting.partition(":")
    named = tuple(f"{kind}:{int(number)}" for number in numbers.split(",")) if colon else (setting,)
    if len(set(named)) < len(named):
        raise ValueError(f"device {setting}: each GPU may be named once")
    return named


def one_device(name: str, available: Collection[str]) -> Device:
    """Parse the name of a single device; ``auto`` is the first GPU if CUDA is in ``available`` providers, else the CPU.

    ``auto`` never selects TensorRT, because building its engines takes minutes.

    Raises:
        ValueError: the name is malformed or names several devices.
    """
    (name,) = each_device(name)
    if name == "auto":
        return Device("cuda" if CUDA in available else "cpu")
    kind, _, number = name.partition(":")
    return Device(next(known for known in get_args(Kind) if known == kind), int(number or 0))


def choose_precision(card: Card, device: Device) -> Precision:
    """Return the fastest precision whose measured loss is acceptable, else fp32.

    Candidates are fp16 on a GPU, bf16 on a processor with tiles, and int8 on one with VNNI.
    """
    if device.kind != "cpu":
        fast = [Precision.FP16]
    else:
        supported = {Precision.BF16: bfloat_is_fast(), Precision.INT8: bool(vnni_flags())}
        fast = [precision for precision, is_fast in supported.items() if is_fast]
    accepted = (each for each in fast if (variant := card.precisions.get(each)) is not None and variant.accepted)
    return next(accepted, Precision.FP32)


def batch_sizes(device: Device, gpu: Gpu) -> tuple[int, ...]:
    """Return the sizes that batches on a GPU are padded to, in ascending order.

    TensorRT with CUDA graphs has a single size: it keeps one graph per session and would replay it for any size.
    """
    return GPU_BATCHES[-1:] if gpu.graphs and device.kind == "tensorrt" else GPU_BATCHES


def provider_options(device: Device, card: Card, precision: Precision, gpu: Gpu) -> list[tuple[str, Options]]:
    """Return the execution providers in order of preference, each with its options as strings."""
    cpu: list[tuple[str, Options]] = [(CPU, {})]
    if device.kind == "cpu":
        return cpu
    cuda = {
        "device_id": str(device.index),
        "arena_extend_strategy": "kSameAsRequested",  # not doubling: few sizes, each allocated once at warm-up
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": str(int(precision is not Precision.FP32)),  # fp32 must match the reference
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
        folder = str(gpu.engines / card.fingerprint[:16] / precision)  # engines are specific to the weights
        tensorrt |= {
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": folder,
            "trt_timing_cache_enable": "True",
            "trt_timing_cache_path": folder,
        }
    return [(TENSORRT, tensorrt), (CUDA, cuda), *cpu]
