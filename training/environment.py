"""Description of the software and machine of an evaluation."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

__all__ = ["Environment"]

_LIBRARIES = ("vireid", "numpy", "scipy", "torch", "torchvision", "timm", "onnxruntime", "pillow")


class Environment(BaseModel):
    """Code revision, library versions and machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    commit: str | None
    """None outside a git checkout."""
    dirty: bool
    python: str
    platform: str
    libraries: dict[str, str]
    device: str
    precision: str

    @classmethod
    def here(cls, device: str, precision: str) -> Self:
        """Describe this process; it embeds on ``device`` (``cpu``, ``cuda:0 …``) with ``precision`` (``fp32``, …)."""
        return cls(
            commit=_git("rev-parse", "HEAD"),
            dirty=bool(_git("status", "--porcelain")),
            python=platform.python_version(),
            platform=platform.platform(),
            libraries={library: found for library in _LIBRARIES if (found := _version(library))},
            device=device,
            precision=precision,
        )


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    command = ("git", "-C", str(Path(__file__).parent), *arguments)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - fixed arguments
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
