"""Processor features that determine which precision of a model is the fastest."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

__all__ = ["bfloat_is_fast", "has_bfloat_tiles", "vnni_flags"]

_VNNI = frozenset({"avx512_vnni", "avx_vnni"})
_TILES = frozenset({"amx_tile", "amx_bf16"})


def vnni_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Return the processor's flags for fast int8 multiplication (VNNI); empty if they cannot be read."""
    return _VNNI & _flags(cpuinfo)


def has_bfloat_tiles(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether the processor multiplies bfloat16 tiles (AMX); False if its flags cannot be read."""
    return _flags(cpuinfo) >= _TILES


def bfloat_is_fast() -> bool:
    """Return whether the processor has bfloat16 tiles and OpenVINO, which uses them, is installed."""
    return has_bfloat_tiles() and find_spec("openvino") is not None


def _flags(cpuinfo: Path) -> frozenset[str]:
    try:
        return frozenset(cpuinfo.read_text().split())
    except OSError:
        return frozenset()
