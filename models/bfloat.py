"""OpenVINO, which computes graphs in bfloat16: one for the process, and silent. Importing this imports none of it."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

__all__ = ["openvino_core"]


@cache
def openvino_core() -> Any:
    """The one ``openvino.Core`` of this process, for any thread; it lives as long as the process.

    Its CPU plugin gives the thread that makes it another stack for signals. Destroyed by another thread, it would take
    that memory away but leave the thread pointing at it: the next signal then kills the process without a word.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # no data leaves this machine
    import openvino

    return openvino.Core()
