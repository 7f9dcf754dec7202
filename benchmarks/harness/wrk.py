"""Load generation with wrk: one thread posts the same body over many connections, at little cost."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Load", "WrkMissing", "check_wrk", "parse", "post"]

_SCRIPT = Path(__file__).with_name("post.lua")
_MARK = "wrk "


class WrkMissing(RuntimeError):
    """The load generator is not installed."""

    def __init__(self) -> None:
        super().__init__("wrk is not installed: `apt-get install wrk` on Debian and Ubuntu")


@dataclass(frozen=True, slots=True)
class Load:
    """Requests per second, and latency percentiles, of clients that wait for each response."""

    rate: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


def check_wrk() -> None:
    """Raise ``WrkMissing`` if wrk is not installed."""
    if shutil.which("wrk") is None:
        raise WrkMissing


def post(url: str, body: bytes, headers: Mapping[str, str], clients: int, seconds: float) -> Load:
    """Post ``body`` to ``url`` with ``clients`` connections for ``seconds``.

    Raises:
        WrkMissing: the load generator is not installed.
        RuntimeError: a request failed or was refused, or none was answered.
    """
    check_wrk()
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        words = [file.name, *(f"{name}: {value}" for name, value in headers.items())]
        options = ["-t1", f"-c{clients}", f"-d{max(1, round(seconds))}s", "--timeout", "60s", "-s", str(_SCRIPT)]
        done = subprocess.run(["wrk", *options, url, "--", *words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"wrk has ended with {done.returncode}: {done.stderr or done.stdout}")
    return parse(done.stdout)


def parse(output: str) -> Load:
    """Parse the output of ``post.lua``.

    Raises:
        RuntimeError: a request failed or was refused, or none was answered, or the line is missing.
    """
    line = next((line for line in output.splitlines() if line.startswith(f"{_MARK}{{")), None)
    if line is None:
        raise RuntimeError(f"wrk printed no summary: {output!r}")
    found = json.loads(line.removeprefix(_MARK))
    if found["failed"] or found["refused"] or not found["requests"]:
        raise RuntimeError(
            f"of {found['requests']} requests {found['refused']} were answered with an error "
            f"and {found['failed']} with nothing"
        )
    rate = found["requests"] / found["seconds"]
    return Load(rate, found["p50_ms"], found["p95_ms"], found["p99_ms"])
