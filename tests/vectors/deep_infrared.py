"""Generator of ``deep_infrared.json``: grey images deeper than 8 bits and the 8-bit images that the rule makes of them.

The rule, ``models.card.DepthRule`` (version 1), as plain Python:

1. An image of 8 bits a channel stays as it is. An image of one channel of 16 or 32 bits or of floating-point numbers
   is mapped pixel by pixel.
2. ``low`` and ``high`` are the range of the frame where the caller knows it, else the 1st and the 99th percentile of
   the finite pixels: the smallest pixel that at least that share of them does not exceed.
3. A pixel x becomes ``round(255 · clip((x - low) / (high - low), 0, 1))`` in float64, halves to even. Where ``low`` and
   ``high`` are equal, pixels above become 255 and all others 0. NaN becomes 0; an image without a finite pixel is 0.

Write the file again after a change: ``python -m tests.vectors.deep_infrared``.
"""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_suffix(".json")
PERCENTILES = (1.0, 99.0)


def expected(values: Sequence[float], limits: tuple[float, float] | None) -> list[int]:
    """Apply the rule to the pixels of an image."""
    finite = sorted(value for value in values if math.isfinite(value))
    if not finite:
        return [0] * len(values)
    low, high = limits or [finite[max(math.ceil(p / 100 * len(finite)), 1) - 1] for p in PERCENTILES]
    return [_level(value, low, high) for value in values]


def _level(value: float, low: float, high: float) -> int:
    if math.isnan(value) or value <= low:
        return 0
    if value >= high:
        return 255
    return round(min(max((value - low) / (high - low), 0), 1) * 255)


def cases() -> list[dict[str, Any]]:
    """Return the cases: ``name``, ``dtype``, ``shape``, ``values``, ``range`` (or null) and ``expected``.

    Values are row by row; NaN is null, infinities are the strings ``inf`` and ``-inf``.
    """
    rng = random.Random(7)
    size = 12 * 9
    raw = [round(rng.gauss(7800, 120)) for _ in range(size)]
    celsius = [float(f"{rng.gauss(24, 4):.3f}") for _ in range(size)]
    kelvin = [round(100 * (273.15 + value)) for value in celsius]
    hot = [7600] * (size - 3) + [7700, 9000, 65535]
    images: list[tuple[str, str, Sequence[float], tuple[float, float] | None]] = [
        ("14-bit raw", "uint16", raw, None),
        ("centikelvin (TLinear)", "uint16", kelvin, None),
        ("full range", "uint16", [round(65535 * i / (size - 1)) for i in range(size)], None),
        ("dead and hot pixels", "uint16", [0, *raw[2:], 65535], None),
        ("range of the frame", "uint16", raw, (7000, 9000)),
        ("pixels outside the range of the frame", "uint16", raw, (7700, 7900)),
        ("flat", "uint16", [7600] * size, None),
        ("flat with hot pixels", "uint16", hot, None),
        ("32-bit integers", "int32", [value - 40_000 for value in raw], None),
        ("degrees Celsius", "float32", celsius, None),
        ("fractions", "float32", [i / (size - 1) for i in range(size)], None),
        ("NaN and infinity", "float32", [math.nan, math.inf, -math.inf, *celsius[3:]], None),
        ("nothing finite", "float32", [math.nan] * size, None),
    ]
    return [
        {
            "name": name,
            "dtype": dtype,
            "shape": [12, 9],
            "values": [_stored(value) for value in _rounded(values, dtype)],
            "range": limits,
            "expected": expected(_rounded(values, dtype), limits),
        }
        for name, dtype, values, limits in images
    ]


def _rounded(values: Sequence[float], dtype: str) -> list[float]:
    """Round to what a float32 holds, so that readers of the file compute with the same numbers."""
    return [struct.unpack("f", struct.pack("f", v))[0] for v in values] if dtype == "float32" else list(values)


def _stored(value: float) -> float | str | None:
    return None if math.isnan(value) else str(value) if math.isinf(value) else value


def text() -> str:
    """Return the content of the file."""
    return "[\n" + ",\n".join(json.dumps(case) for case in cases()) + "\n]\n"


if __name__ == "__main__":
    FILE.write_text(text(), "utf-8")
