"""Choice of precision and options of GPU sessions; needs no GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.card import Card, Precision, Variant
from server.embedding import providers
from server.embedding.providers import (
    CPU,
    CUDA,
    GPU_BATCHES,
    TENSORRT,
    Device,
    Gpu,
    batch_sizes,
    choose_precision,
    each_device,
    one_device,
    provider_options,
)
from server.embedding.session import smallest_fitting
from server.hardware.cpu_features import has_bfloat_tiles, vnni_flags
from tests.server.stub_model import HEIGHT, WIDTH, card


def with_variants(**losses: float | None) -> Card:
    """Return a card with fp32 and each named precision at the given loss in mAP."""
    changes = {"fp32": None} | losses
    variants = {
        Precision(name): Variant(
            file=f"{name}.onnx", sha256="0" * 64, rank1_change=0.0, map_change=None if loss is None else -loss
        )
        for name, loss in changes.items()
    }
    return card("m").model_copy(update={"precisions": variants})


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("auto", ("auto",)),
        ("cpu", ("cpu",)),
        ("cuda", ("cuda",)),
        ("cuda:1", ("cuda:1",)),
        ("cuda:0,2", ("cuda:0", "cuda:2")),
        ("tensorrt:3,1", ("tensorrt:3", "tensorrt:1")),
    ],
)
def test_device_setting_is_split_into_single_devices(setting: str, named: tuple[str, ...]) -> None:
    assert each_device(setting) == named


@pytest.mark.parametrize("setting", ["", "gpu", "cpu:0", "cuda:", "cuda:a", "cuda:0,", "auto:1", "cuda:0,00"])
def test_malformed_or_duplicate_devices_are_refused(setting: str) -> None:
    with pytest.raises(ValueError, match="device"):
        each_device(setting)


def test_auto_selects_cuda_if_available() -> None:
    assert one_device("cuda:2", [CPU]) == Device("cuda", 2)
    assert (one_device("tensorrt", [CPU]).provider, str(one_device("tensorrt", []))) == (TENSORRT, "tensorrt:0")
    assert one_device("auto", [TENSORRT, CUDA, CPU]) == Device("cuda", 0)
    assert one_device("auto", [CPU]) == Device("cpu")
    with pytest.raises(ValueError, match="too many"):
        one_device("cuda:0,1", [CUDA])


def _set_processor(monkeypatch: pytest.MonkeyPatch, *, vnni: bool, tiles: bool) -> None:
    monkeypatch.setattr(providers, "vnni_flags", lambda: frozenset({"avx_vnni"} if vnni else ()))
    monkeypatch.setattr(providers, "bfloat_is_fast", lambda: tiles)


@pytest.mark.parametrize(
    ("losses", "vnni", "tiles", "chosen"),
    [
        ({"int8": 0.005}, True, False, "int8"),
        ({"int8": -0.01}, True, False, "int8"),
        ({"int8": 0.005}, False, False, "fp32"),
        ({"int8": 0.0051}, True, False, "fp32"),
        ({"int8": None}, True, False, "fp32"),
        ({"fp16": 0.0}, True, True, "fp32"),
        ({}, True, True, "fp32"),
        ({"int8": 0.0, "bf16": 0.005}, True, True, "bf16"),
        ({"int8": 0.0, "bf16": 0.005}, True, False, "int8"),
        ({"int8": 0.0, "bf16": 0.0051}, True, True, "int8"),
        ({"bf16": 0.0}, False, True, "bf16"),
        ({"bf16": None}, True, True, "fp32"),
    ],
)
def test_fastest_precision_with_acceptable_loss_is_chosen(
    losses: dict[str, float | None], vnni: bool, tiles: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _set_processor(monkeypatch, vnni=vnni, tiles=tiles)
    assert choose_precision(with_variants(**losses), Device("cpu")) == chosen


def test_gpu_uses_fp16_if_available_and_never_a_cpu_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    _set_processor(monkeypatch, vnni=True, tiles=True)
    for kind in ("cuda", "tensorrt"):
        device = Device(kind)  # type: ignore[arg-type]
        assert choose_precision(with_variants(int8=0.0, bf16=0.0, fp16=0.0), device) is Precision.FP16
        assert choose_precision(with_variants(int8=0.0, bf16=0.0), device) is Precision.FP32


def test_vnni_flags_are_matched_as_whole_words(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    for line, found in {
        "flags : fpu avx512f avx512_vnni": {"avx512_vnni"},
        "flags\t: avx_vnni fpu": {"avx_vnni"},
        "flags : avx512_vnni_not avx2": set(),
    }.items():
        cpuinfo.write_text(line + "\n")
        assert vnni_flags(cpuinfo) == found
    assert vnni_flags(tmp_path / "none") == set()


def test_bfloat_tiles_require_both_flags(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    for line, found in {"amx_bf16 amx_tile amx_int8": True, "amx_tile amx_int8": False, "amx_bf16": False}.items():
        cpuinfo.write_text(f"flags : fpu {line}\n")
        assert has_bfloat_tiles(cpuinfo) is found
    assert not has_bfloat_tiles(tmp_path / "none")


def test_gpu_options_set_device_memory_limit_and_shapes(tmp_path: Path) -> None:
    described = with_variants(fp16=0.0)
    assert provider_options(Device("cpu"), described, Precision.INT8, Gpu(2**30, tmp_path)) == [(CPU, {})]

    (name, options), last = provider_options(Device("cuda", 1), described, Precision.FP16, Gpu(2**30, tmp_path))
    assert (name, last) == (CUDA, (CPU, {}))
    assert (options["device_id"], options["gpu_mem_limit"]) == ("1", str(2**30))
    assert options["arena_extend_strategy"] == "kSameAsRequested"
    assert options["use_tf32"] == "1"
    exact = dict(provider_options(Device("cuda"), described, Precision.FP32, Gpu()))[CUDA]
    assert exact["use_tf32"] == "0"
    unbounded = dict(provider_options(Device("cuda"), described, Precision.FP16, Gpu()))[CUDA]
    assert "gpu_mem_limit" not in unbounded

    found = provider_options(Device("tensorrt", 1), described, Precision.FP16, Gpu(None, tmp_path))
    assert [provider for provider, _ in found] == [TENSORRT, CUDA, CPU]
    options = found[0][1]
    assert options["device_id"] == "1"
    assert options["trt_fp16_enable"] == "True"
    assert options["trt_profile_min_shapes"] == f"image:1x{HEIGHT}x{WIDTH}x3,modality:1"
    assert options["trt_profile_max_shapes"] == f"image:{GPU_BATCHES[-1]}x{HEIGHT}x{WIDTH}x3,modality:{GPU_BATCHES[-1]}"
    assert Path(options["trt_engine_cache_path"]).is_relative_to(tmp_path)
    exact = provider_options(Device("tensorrt"), described, Precision.FP32, Gpu(None, tmp_path))[0][1]
    assert exact["trt_fp16_enable"] == "False"
    assert exact["trt_engine_cache_path"] != options["trt_engine_cache_path"]


def test_cuda_graphs_are_off_by_default() -> None:
    described = with_variants(fp16=0.0)
    for graphs in (False, True):
        gpu = Gpu(graphs=graphs)
        cuda, tensorrt = (
            dict(provider_options(Device(kind), described, Precision.FP16, gpu)) for kind in ("cuda", "tensorrt")
        )
        assert cuda[CUDA]["enable_cuda_graph"] == str(int(graphs))
        assert tensorrt[TENSORRT]["trt_cuda_graph_enable"] == str(graphs)
        assert "enable_cuda_graph" not in tensorrt[CUDA]
        assert batch_sizes(Device("cuda"), gpu) == GPU_BATCHES


def test_tensorrt_with_cuda_graphs_has_one_batch_size() -> None:
    device, gpu = Device("tensorrt"), Gpu(graphs=True)
    assert batch_sizes(device, Gpu()) == GPU_BATCHES
    assert batch_sizes(device, gpu) == (GPU_BATCHES[-1],)
    options = provider_options(device, with_variants(fp16=0.0), Precision.FP16, gpu)[0][1]
    shapes = {options[f"trt_profile_{which}_shapes"] for which in ("min", "opt", "max")}
    assert shapes == {f"image:{GPU_BATCHES[-1]}x{HEIGHT}x{WIDTH}x3,modality:{GPU_BATCHES[-1]}"}


def test_batches_are_padded_to_the_smallest_fitting_size() -> None:
    assert [smallest_fitting(GPU_BATCHES, count) for count in (1, 2, 3, 5, 16, 17, 33)] == [1, 2, 4, 8, 16, 32, 64]
