"""What the processor can do that decides which file of a model is the fastest."""

from __future__ import annotations

from pathlib import Path

__all__ = ["vnni_flags"]

_VNNI = frozenset({"avx512_vnni", "avx_vnni"})


def vnni_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Those of the instructions that multiply int8 fast which this processor has; none where it cannot be told."""
    try:
        return _VNNI & frozenset(cpuinfo.read_text().split())
    except OSError:
        return frozenset()
