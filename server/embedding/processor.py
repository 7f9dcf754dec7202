"""What the processor can do that decides which file of a model is the fastest."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

__all__ = ["bfloat_is_fast", "has_bfloat_tiles", "vnni_flags"]

_VNNI = frozenset({"avx512_vnni", "avx_vnni"})
_TILES = frozenset({"amx_tile", "amx_bf16"})


def vnni_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Those of the instructions that multiply int8 fast which this processor has; none where it cannot be told."""
    return _VNNI & _flags(cpuinfo)


def has_bfloat_tiles(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this processor multiplies tiles of bfloat16 (AMX); no where it cannot be told."""
    return _flags(cpuinfo) >= _TILES


def bfloat_is_fast() -> bool:
    """Whether OpenVINO is installed, and this processor has tiles for it to compute with."""
    return has_bfloat_tiles() and find_spec("openvino") is not None


def _flags(cpuinfo: Path) -> frozenset[str]:
    try:
        return frozenset(cpuinfo.read_text().split())
    except OSError:
        return frozenset()
